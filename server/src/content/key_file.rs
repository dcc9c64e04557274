//! The file of the key that wraps the contents' keys.
//!
//! ```text
//! deed-content-key-v1
//! key <base64 of 32 bytes>
//! ```
//!
//! Mode 0600, outside of the data directory. Whoever has this file and the directory
//! `content-keys` can read every content; each alone opens nothing. So they must not lie in the
//! same backup.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;
use zeroize::Zeroizing;

use super::seal::{self, KEY_BYTES, SecretKey};

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
    #[error("content key {path} has mode {mode:o}: it holds a secret, so `chmod 600` it first")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
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
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(KeyFileError::Mode { path, mode });
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
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
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
    // A link, unlike a rename, fails if somebody else has made the file by now.
    fs::hard_link(&unfinished, path).map_err(io)?;
    fs::remove_file(&unfinished).map_err(io)?;
    let directory = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(directory.unwrap_or(Path::new(".")))
        .and_then(|directory| directory.sync_all())
        .map_err(io)?;
    Ok(key)
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
