//! The file of the key that wraps the contents' keys.
//!
//! ```text
//! deed-content-key-v1
//! key <base64 of 32 bytes>
//! ```
//!
//! Mode 0600, outside of the data directory; its group may read it where a service manager made it
//! (`secret_file`). Whoever has this file and the directory
//! `content-keys` can read every content; each alone opens nothing. So they must not lie in the
//! same backup.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;
use zeroize::Zeroizing;

use super::seal::{self, KEY_BYTES, SecretKey};
use crate::secret_file::{self, Exposed};

const MAGIC: &str = "deed-content-key-v1";

/// BLAKE3 context of what tells the right key from others. Never changes.
const CHECK_CONTEXT: &str = "deed.v1 content key check";

/// A key file that cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file system failed.
    #[error("content key {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("content key {path}: {exposed}")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode, and whose it is.
        exposed: Exposed,
    },
    /// A start was interrupted while it made the file, where it could not do that at once.
    #[error(
        "content key {path} is empty. If the key that was in it was lost, restore it; if a first \
         start was interrupted, remove it and start again"
    )]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Not such a file.
    #[error("content key {path}: line {line} is not what such a file has there; restore it")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Contents are held that only this file opens.
    #[error(
        "content key {path} is missing, and contents are held that only it opens. Restore it from \
         where it is kept, or name its place (content.key_file)"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is the key of other contents.
    #[error(
        "content key {path} is not the one that wrapped the keys of this data directory's \
         contents. Restore the right one, or name its place (content.key_file)"
    )]
    Other {
        /// Which file.
        path: PathBuf,
    },
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Loads the key; `None` if there is no such file.
pub(crate) fn load(path: &Path) -> Result<Option<SecretKey>, KeyFileError> {
    let io = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let (mut file, metadata) = match secret_file::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    // Room for all of it: growing would leave copies behind.
    let room = usize::try_from(metadata.len())
        .unwrap_or(0)
        .saturating_add(1);
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.read_to_string(&mut text).map_err(io)?;
    secret_file::check(path, &metadata).map_err(|exposed| KeyFileError::Exposed {
        path: path.to_owned(),
        exposed,
    })?;
    if text.is_empty() {
        let path = path.to_owned();
        return Err(KeyFileError::Empty { path });
    }
    parse(&text).map(Some).map_err(|line| {
        let path = path.to_owned();
        KeyFileError::Malformed { path, line }
    })
}

/// Makes a new key and its file, synced with its directory. Never writes over one.
pub(crate) fn create(path: &Path) -> Result<SecretKey, KeyFileError> {
    let io = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let key = seal::new_key().map_err(KeyFileError::Random)?;
    let encoded = Zeroizing::new(BASE64.encode(&key[..]));
    let text = Zeroizing::new(format!("{MAGIC}\nkey {}\n", *encoded));
    // Under another name first: a crash in between must not leave a key cut in half.
    let unfinished = unfinished(path);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    give_name(&unfinished, path).map_err(io)?;
    let directory = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(directory.unwrap_or(Path::new(".")))
        .and_then(|directory| directory.sync_all())
        .map_err(io)?;
    Ok(key)
}

/// The name under which a key file is written.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Moves a finished file to its place; fails if somebody else has made one there by now, which a
/// rename alone would write over.
fn give_name(unfinished: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(unfinished, path) {
        Ok(()) => fs::remove_file(unfinished),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has links.
        Err(_) => claim_and_rename(unfinished, path),
    }
}

/// The same without a link: an empty file claims the name and is replaced. A crash in between
/// leaves it empty, which [`load`] tells apart.
fn claim_and_rename(unfinished: &Path, path: &Path) -> io::Result<()> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    fs::rename(unfinished, path)
}

/// Removes the other name of a key file, which a crash between the link and the removal left.
pub(crate) fn remove_second_name(path: &Path) -> Result<(), KeyFileError> {
    let second = unfinished(path);
    let removed = match (fs::metadata(path), fs::symlink_metadata(&second)) {
        (Ok(one), Ok(other)) if (one.dev(), one.ino()) == (other.dev(), other.ino()) => {
            fs::remove_file(&second)
        }
        // Another file, which is somebody else's; or none.
        _ => Ok(()),
    };
    removed.map_err(|source| KeyFileError::Io {
        path: second,
        source,
    })
}

/// What is stored beside the wrapped keys to tell the right key from others.
pub(crate) fn check_value(key: &SecretKey) -> [u8; 32] {
    blake3::derive_key(CHECK_CONTEXT, &key[..])
}

/// The error is the number of the line that is wrong.
fn parse(text: &str) -> Result<SecretKey, usize> {
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(1);
    }
    let decoded = lines
        .next()
        .and_then(|line| line.strip_prefix("key "))
        .and_then(|encoded| BASE64.decode(encoded).ok())
        .map(Zeroizing::new)
        .filter(|decoded| decoded.len() == KEY_BYTES)
        .ok_or(2_usize)?;
    if lines.next().is_some() {
        return Err(3);
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    key.copy_from_slice(&decoded);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_name_that_a_crash_left_goes_and_another_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content-key");
        let made = create(&path).unwrap();
        fs::hard_link(&path, unfinished(&path)).unwrap();
        remove_second_name(&path).unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), made);
        assert!(!unfinished(&path).exists());
        fs::write(unfinished(&path), "another").unwrap();
        remove_second_name(&path).unwrap();
        assert!(unfinished(&path).exists());
    }

    #[test]
    fn without_links_a_key_is_made_too_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content-key");
        let new = unfinished(&path);
        fs::write(&new, "first").unwrap();
        claim_and_rename(&new, &path).unwrap();
        assert!(!new.exists());
        fs::write(&new, "second").unwrap();
        assert!(claim_and_rename(&new, &path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        let empty = dir.path().join("empty");
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&empty)
            .unwrap();
        assert!(matches!(load(&empty), Err(KeyFileError::Empty { .. })));
    }
}
