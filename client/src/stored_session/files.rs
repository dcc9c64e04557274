//! The directory of a session on disk: its lock, and the file that says whose session it is.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use deed_evidence::{LedgerId, SessionId};
use deed_files::Readers;
use deed_tlog::Hash;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::SessionError;
use crate::trust::StateDir;

/// The file that describes a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionFile {
    pub(super) name: String,
    pub(super) ledger_id: String,
    pub(super) producer: String,
    pub(super) session: String,
    /// The nonce that the session is derived from; `None` in one that version 0.1 began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nonce: Option<String>,
    /// `none`, `each` or `batch`: a statement that is sent again must be sent as before.
    pub(super) signing: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key_id: Option<String>,
}

/// The description of a session on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredAbout {
    /// The name of the session on this machine.
    pub name: String,
    /// The id of the session in the ledger.
    pub id: SessionId,
    /// The id of the ledger.
    pub ledger_id: LedgerId,
    /// The producer.
    pub producer: String,
    /// `none`, `each` or `batch`.
    pub signing: String,
    /// The key that signs it.
    pub key_id: Option<String>,
}

impl StoredAbout {
    /// Returns `None` if an id in the file is malformed.
    pub(super) fn new(about: SessionFile) -> Option<Self> {
        let (mut id, mut ledger_id) = ([0; SessionId::LEN], [0; Hash::LEN]);
        hex::decode_to_slice(&about.session, &mut id).ok()?;
        hex::decode_to_slice(&about.ledger_id, &mut ledger_id).ok()?;
        Some(Self {
            name: about.name,
            id: SessionId::new(id),
            ledger_id: LedgerId::new(Hash::new(ledger_id)),
            producer: about.producer,
            signing: about.signing,
            key_id: about.key_id,
        })
    }
}

/// Returns the directory of a session: a readable name, and a hash that keeps similar names apart.
pub(super) fn directory(state: &StateDir, ledger_id: LedgerId, name: &str) -> PathBuf {
    let readable: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    let mut hasher = Sha256::new();
    hasher.update(ledger_id.as_bytes());
    hasher.update(name.as_bytes());
    let hash = hasher.finalize();
    let sessions = state.path().join("sessions");
    sessions.join(format!("{readable}-{}", hex::encode(&hash[..8])))
}

/// The lock of a session, released when dropped. Closing the file alone does not release it at once: a
/// child process that is being started has a copy of the file for a moment.
#[derive(Debug)]
pub(super) struct Lock(pub(super) File);

impl Drop for Lock {
    fn drop(&mut self) {
        // If this fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

/// Makes the directory if needed, and takes the lock.
pub(super) fn lock(directory: &Path, name: &str) -> Result<Lock, SessionError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| SessionError::io("make", directory, &error))?;
    let path = directory.join("lock");
    let failed = |action| {
        let path = path.clone();
        move |error: io::Error| SessionError::io(action, &path, &error)
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open"))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(SessionError::InUse {
            name: name.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(failed("lock")(error)),
    }
}

pub(super) fn read_about(path: &Path, bytes: &[u8]) -> Result<SessionFile, SessionError> {
    serde_json::from_slice(bytes).map_err(|error| SessionError::Damaged {
        path: path.to_owned(),
        offset: error.column() as u64,
    })
}

/// Writes the file as a whole or not at all; it survives a power failure.
pub(super) fn write_about(
    directory: &Path,
    path: &Path,
    about: &SessionFile,
) -> Result<(), SessionError> {
    let failed = |action| move |error: io::Error| SessionError::io(action, path, &error);
    let text = serde_json::to_vec_pretty(about).map_err(|error| failed("write")(error.into()))?;
    let unfinished = directory.join("session.new");
    deed_files::replace_as(path, &unfinished, Readers::Owner, &text).map_err(failed("make"))?;
    // The directories that may have been made for it.
    for directory in directory.ancestors().take(2) {
        deed_files::sync_directory_of(directory).map_err(failed("sync"))?;
    }
    Ok(())
}

pub(super) fn compare(kept: &SessionFile, wanted: &SessionFile) -> Result<(), SessionError> {
    let unsigned = || "none".to_owned();
    let key = |about: &SessionFile| about.key_id.clone().unwrap_or_else(unsigned);
    for (what, kept_value, found) in [
        ("ledger", kept.ledger_id.clone(), wanted.ledger_id.clone()),
        ("producer", kept.producer.clone(), wanted.producer.clone()),
        (
            "way of signing",
            kept.signing.clone(),
            wanted.signing.clone(),
        ),
        ("key", key(kept), key(wanted)),
    ] {
        if kept_value != found {
            return Err(SessionError::Other {
                name: kept.name.clone(),
                what,
                kept: kept_value,
                found,
            });
        }
    }
    Ok(())
}
