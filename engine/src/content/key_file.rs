//! The file of the key that wraps the contents' keys.
//!
//! ```text
//! deed-content-key-v1
//! key <base64 of 32 bytes>
//! ```
//!
//! The file has mode 0600 and lies outside of the data directory; its group may read it where a
//! service manager made it (`secret_file`). Whoever has both this file and the directory
//! `content-keys` can read every content; each of them alone opens nothing. So they must not lie in
//! the same backup.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use deed_files::{Readers, WholeFile};
use thiserror::Error;
use zeroize::Zeroizing;

use super::seal::{self, KEY_BYTES, SecretKey};
use crate::secret_file::{self, Exposed};

const MAGIC: &str = "deed-content-key-v1";

/// BLAKE3 context of the check value that identifies the right key. It never changes.
const CHECK_CONTEXT: &str = "deed.v1 content key check";

/// The reason for which a key file cannot be used.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file system failed.
    #[error("content key {path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// Others can read the file.
    #[error("content key {path}: {exposed}")]
    Exposed { path: PathBuf, exposed: Exposed },
    /// The file is empty: a start was interrupted while it made the file on a file system without
    /// links.
    #[error(
        "content key {path} is empty. If the key that was in it was lost, restore it; if a first \
         start was interrupted, remove it and start again"
    )]
    Empty { path: PathBuf },
    /// The file has another form.
    #[error("content key {path}: line {line} is not what such a file has there; restore it")]
    Malformed {
        path: PathBuf,
        /// Number of the line, counted from 1.
        line: usize,
    },
    /// The file is missing, and contents are held that only it opens.
    #[error(
        "content key {path} is missing, and contents are held that only it opens. Restore it from \
         where it is kept, or name its place (content.key_file)"
    )]
    Missing { path: PathBuf },
    /// The file holds another key than that of the contents.
    #[error(
        "content key {path} is not the one that wrapped the keys of this data directory's \
         contents. Restore the right one, or name its place (content.key_file)"
    )]
    Other { path: PathBuf },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Loads the key; returns `None` if there is no such file.
pub(crate) fn load(path: &Path) -> Result<Option<SecretKey>, KeyFileError> {
    let io = |cause| KeyFileError::Io {
        path: path.to_owned(),
        cause,
    };
    let (mut file, metadata) = match secret_file::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    // The buffer has its full size from the start: growing would leave copies of the key behind.
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

/// Makes a new key and its file, synced with its directory. It never overwrites a file.
pub(crate) fn create(path: &Path) -> Result<SecretKey, KeyFileError> {
    let io = |cause| KeyFileError::Io {
        path: path.to_owned(),
        cause,
    };
    let key = seal::new_key().map_err(KeyFileError::Random)?;
    let encoded = Zeroizing::new(BASE64.encode(&key[..]));
    let text = Zeroizing::new(format!("{MAGIC}\nkey {}\n", *encoded));
    // The file is written under another name first: a crash must not leave a part of a key.
    let unfinished = unfinished(path);
    let mut file = WholeFile::create_as(path, &unfinished, Readers::Owner).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.file().sync_all().map_err(io)?;
    match file.keep_new() {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && unfinished.exists() => {
            // Some file systems have no links, and rename only in place of what is there.
            claim_and_rename(&unfinished, path).map_err(io)?;
            deed_files::sync_directory_of(path).map_err(io)?;
        }
        kept => kept.map_err(io)?,
    }
    Ok(key)
}

/// Returns the name under which a key file is written before it is complete.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Moves the file without a link: an empty file claims the name and is replaced. A crash in between
/// leaves the empty file, which [`load`] recognizes.
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
        // There is no file of that name, or another one, which is left alone.
        _ => Ok(()),
    };
    removed.map_err(|cause| KeyFileError::Io {
        path: second,
        cause,
    })
}

/// Returns the value that is stored beside the wrapped keys to recognize the right wrapping key.
pub(crate) fn check_value(key: &SecretKey) -> [u8; 32] {
    blake3::derive_key(CHECK_CONTEXT, &key[..])
}

/// Parses the file's text; the error is the number of the line that is wrong.
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
