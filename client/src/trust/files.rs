//! Files that are written whole, and outlast a power failure once they are written.

use std::{fs, io, path::Path};

use deed_files::Readers;
use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

pub(super) fn io_error(action: &'static str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|error| io_error("make", path, &error))
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path, &error)),
    }
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and lists of them: serialising cannot fail.
    let mut json = serde_json::to_vec_pretty(value).unwrap_or_default();
    json.push(b'\n');
    json
}

/// Writes a file that must not exist yet. Returns false if it exists.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
    match deed_files::create_new(path, Readers::All, bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error("create", path, &error)),
    }
}

/// Replaces a file with a whole new one, or not at all. A crash before the end leaves an older
/// trusted head, which is safe.
pub(super) fn write_replacing(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    deed_files::replace(path, Readers::All, bytes)
        .map_err(|error| io_error("replace", path, &error))
}
