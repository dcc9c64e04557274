//! Files that are written whole, and outlast a power failure once they are written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

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
    // Complete under another name first: a crash must not leave half a file under this one.
    let temporary = write_temporary(path, bytes)?;
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_directory_of(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error("create", path, &error)),
    }
}

/// Replaces a file with a whole new one, or not at all.
pub(super) fn write_replacing(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = write_temporary(path, bytes)?;
    fs::rename(&temporary, path).map_err(|error| io_error("replace", path, &error))?;
    // If we crash before this, the old file is there: an older trusted head, which is safe.
    sync_directory_of(path)
}

fn write_temporary(path: &Path, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(
        ".{}-{:08x}",
        std::process::id(),
        getrandom::u32().unwrap_or(0)
    ));
    let temporary = PathBuf::from(temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(io_error("write", &temporary, &error));
    }
    Ok(temporary)
}

fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error("sync", directory, &error))
}
