//! The trusted state on disk: one directory for each origin.
//!
//! ```text
//! <state>/<origin>-<hash>/pin.json           origin, first log key, ledger id; written once
//!                         log-keys.json      later log keys, each with the head that hands over to
//!                                            it; keys are added, never changed
//!                         checkpoint         the newest trusted signed head, verbatim
//!                         trust.json         the newest trust statement that was ever seen; it only
//!                                            grows
//!                         fork-<hash>.json   evidence; written once, never replaced
//!                         lock               held while one of these files is read or written
//! <state>/servers/<server and ledger>-<hash>.json
//!                                            the origin behind a server's ledger, written once
//! ```
//!
//! Several processes may share the directory. The head only grows: a process that stores one names the
//! head that it was proven from, and must prove it again if another process was faster.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use deed_evidence::LedgerId;
use deed_tlog::{Hash, LeafIndex, Origin, TreeHead, VerifierKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    ForkEvidence, KnownKeys, Pin,
    files::{io_error, make_directory, read, read_json, to_json, write_new, write_replacing},
};
use crate::head::SignedHead;

/// The reason why the state directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refuses.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's message.
        reason: String,
    },
    /// A file does not hold what was written there. Trust is not guessed.
    #[error("{} is damaged: {reason}; put it right or remove it to trust anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Another history of log keys is kept.
    #[error(
        "{} holds other log keys than the server shows: it has shown two histories, or the file was \
         changed",
        path.display()
    )]
    OtherLogKeys {
        /// The file.
        path: PathBuf,
    },
    /// Other evidence stands under this name.
    #[error("{} holds other evidence already", path.display())]
    OtherEvidence {
        /// The file.
        path: PathBuf,
    },
}

/// A directory for everything that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// The trusted state of one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustStore {
    directory: PathBuf,
}

/// The result of storing a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advance {
    /// The head is stored and synced; the next process reads it.
    Stored,
    /// Another head is stored by now; nothing was changed.
    Moved(SignedHead),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinFile {
    origin: String,
    vkey: String,
    ledger_id: String,
}

/// The trusted heads are of one tree, so that the index names the statement.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    newest_leaf: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogKeysFile {
    /// Later log keys, in the order in which they took over.
    later: Vec<LaterKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaterKey {
    vkey: String,
    /// The smallest tree that it signs; for people, the head says it too.
    first_size: u64,
    /// Signed note of that tree, verbatim.
    handover: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerFile {
    server: String,
    ledger: String,
    origin: String,
}

impl StateDir {
    /// Names the directory. It is made when something is stored.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the store of `origin`.
    #[must_use]
    pub fn store(&self, origin: &Origin) -> TrustStore {
        TrustStore {
            directory: self.0.join(file_name(origin.as_str(), origin.as_str())),
        }
    }

    /// The origin that the ledger `ledger` of `server` had when it was first used.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read.
    pub fn known_origin(&self, server: &str, ledger: &str) -> Result<Option<String>, StoreError> {
        let file: Option<ServerFile> = read_json(&self.server_file(server, ledger))?;
        Ok(file.map(|file| file.origin))
    }

    /// The file of [`known_origin`](Self::known_origin).
    #[must_use]
    pub fn server_file(&self, server: &str, ledger: &str) -> PathBuf {
        let readable = format!("{}-{ledger}", server.rsplit('/').next().unwrap_or_default());
        let mut name = file_name(&readable, &format!("{server}\n{ledger}"));
        name.push_str(".json");
        self.0.join("servers").join(name)
    }

    /// Keeps the origin of a server's ledger. An origin that is kept already stays.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub fn keep_origin(
        &self,
        server: &str,
        ledger: &str,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let path = self.server_file(server, ledger);
        let file = ServerFile {
            server: server.to_owned(),
            ledger: ledger.to_owned(),
            origin: origin.to_string(),
        };
        make_directory(&self.0.join("servers"))?;
        write_new(&path, &to_json(&file)).map(|_| ())
    }
}

impl TrustStore {
    /// Returns the directory of the store.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pinned ledger, if any.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read or makes no sense.
    pub fn pin(&self) -> Result<Option<Pin>, StoreError> {
        let path = self.pin_path();
        let Some(file) = read_json::<PinFile>(&path)? else {
            return Ok(None);
        };
        let damaged = |reason: String| StoreError::Damaged {
            path: path.clone(),
            reason,
        };
        let mut ledger_id = [0; 32];
        hex::decode_to_slice(&file.ledger_id, &mut ledger_id)
            .map_err(|error| damaged(format!("ledger_id: {error}")))?;
        Ok(Some(Pin {
            origin: Origin::new(file.origin).map_err(|error| damaged(error.to_string()))?,
            vkey: VerifierKey::parse(&file.vkey).map_err(|error| damaged(error.to_string()))?,
            ledger_id: LedgerId::new(Hash::new(ledger_id)),
        }))
    }

    /// Pins a ledger together with the first trusted head. If another process was faster, its pin
    /// stays and is returned.
    ///
    /// # Errors
    /// [`StoreError`] if the files cannot be read or written.
    pub fn pin_first(
        &self,
        pin: &Pin,
        known: &KnownKeys,
        head: &SignedHead,
    ) -> Result<Pin, StoreError> {
        let _lock = self.lock()?;
        if let Some(pinned) = self.pin()? {
            return Ok(pinned);
        }
        // Files without a pin beside them are not trusted; they are replaced.
        self.write_keys(known)?;
        self.forget_trust()?;
        // Head first: a pin without a head would be a trusted ledger with nothing to compare
        // with, while a head without a pin is replaced here.
        self.write_head(head)?;
        let file = PinFile {
            origin: pin.origin.to_string(),
            vkey: pin.vkey.to_string(),
            ledger_id: pin.ledger_id.to_string(),
        };
        write_replacing(&self.pin_path(), &to_json(&file))?;
        Ok(pin.clone())
    }

    /// The log keys of the pinned ledger, each handover verified again.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read or makes no sense.
    pub fn keys(&self, pin: &Pin) -> Result<KnownKeys, StoreError> {
        let path = self.keys_path();
        let mut known = KnownKeys::new(pin.vkey.clone());
        let Some(file) = read_json::<LogKeysFile>(&path)? else {
            return Ok(known);
        };
        for later in &file.later {
            let damaged = |reason: String| StoreError::Damaged {
                path: path.clone(),
                reason,
            };
            let key =
                VerifierKey::parse(&later.vkey).map_err(|error| damaged(error.to_string()))?;
            known
                .hand_over(key, later.handover.as_bytes())
                .map_err(|error| damaged(error.to_string()))?;
            let first_size = known.keys().newest().first_size.get();
            if first_size != later.first_size {
                return Err(damaged(format!(
                    "first_size is {}, the head has {first_size}",
                    later.first_size
                )));
            }
        }
        Ok(known)
    }

    /// Keeps keys that continue those that are kept. If another process has followed further, its
    /// keys stay. Returns what is kept then.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read or written; [`StoreError::OtherLogKeys`] if other
    /// keys are kept.
    pub fn keep_keys(&self, pin: &Pin, known: &KnownKeys) -> Result<KnownKeys, StoreError> {
        let _lock = self.lock()?;
        let kept = self.keys(pin)?;
        if kept.continues(known) {
            return Ok(kept);
        }
        if !known.continues(&kept) {
            return Err(StoreError::OtherLogKeys {
                path: self.keys_path(),
            });
        }
        self.write_keys(known)?;
        Ok(known.clone())
    }

    fn write_keys(&self, known: &KnownKeys) -> Result<(), StoreError> {
        let path = self.keys_path();
        let later: Vec<_> = known
            .keys()
            .all()
            .iter()
            .skip(1)
            .zip(known.handovers())
            .map(|(key, head)| LaterKey {
                vkey: key.key.to_string(),
                first_size: key.first_size.get(),
                // Signed notes are UTF-8, or they would not have been opened.
                handover: String::from_utf8_lossy(&head.note).into_owned(),
            })
            .collect();
        if later.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(io_error("remove", &path, &error))
                }
                _ => Ok(()),
            };
        }
        write_replacing(&path, &to_json(&LogKeysFile { later }))
    }

    /// The newest trusted head, whose signature is verified again.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read, or is not signed by the kept keys of the pinned ledger.
    pub fn head(&self, pin: &Pin) -> Result<Option<SignedHead>, StoreError> {
        let path = self.head_path();
        let Some(note) = read(&path)? else {
            return Ok(None);
        };
        self.keys(pin)?
            .open(&note)
            .map(Some)
            .map_err(|error| StoreError::Damaged {
                path,
                reason: error.to_string(),
            })
    }

    /// Stores `to` if the stored head is still `from`, which `to` was proven to extend.
    ///
    /// # Errors
    /// [`StoreError`] if the files cannot be read or written.
    pub fn advance(
        &self,
        from: &TreeHead,
        to: &SignedHead,
        pin: &Pin,
    ) -> Result<Advance, StoreError> {
        let _lock = self.lock()?;
        if let Some(stored) = self.head(pin)? {
            if stored.head == to.head {
                return Ok(Advance::Stored);
            }
            if stored.head != *from || stored.head.size > to.head.size {
                return Ok(Advance::Moved(stored));
            }
        }
        self.write_head(to)?;
        Ok(Advance::Stored)
    }

    /// The leaf of the newest trust statement that was ever shown, if any was.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read or makes no sense.
    pub fn trust(&self) -> Result<Option<LeafIndex>, StoreError> {
        let kept: Option<TrustFile> = read_json(&self.trust_path())?;
        Ok(kept.map(|kept| LeafIndex::new(kept.newest_leaf)))
    }

    /// Keeps the leaf of a trust statement that was proven to be in a tree whose head is stored, if it
    /// is newer than the one that is kept. Returns what is kept then: a chain that ends before it, in a
    /// tree that holds it, hides statements.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read or written.
    pub fn keep_trust(&self, newest: LeafIndex) -> Result<LeafIndex, StoreError> {
        let _lock = self.lock()?;
        if let Some(kept) = self.trust()?.filter(|kept| *kept >= newest) {
            return Ok(kept);
        }
        let file = TrustFile {
            newest_leaf: newest.get(),
        };
        write_replacing(&self.trust_path(), &to_json(&file))?;
        Ok(newest)
    }

    fn forget_trust(&self) -> Result<(), StoreError> {
        let path = self.trust_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps evidence under a name made from both heads. The same evidence again changes
    /// nothing, and nothing is ever overwritten.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub fn keep_fork(&self, evidence: &ForkEvidence) -> Result<PathBuf, StoreError> {
        make_directory(&self.directory)?;
        let digest = Sha256::new()
            .chain_update(&evidence.older_checkpoint)
            .chain_update([0])
            .chain_update(&evidence.newer_checkpoint)
            .finalize();
        let name = format!("fork-{}.json", hex::encode(&digest[..8]));
        let path = self.directory.join(name);
        if write_new(&path, &to_json(evidence))? {
            return Ok(path);
        }
        let kept: Option<ForkEvidence> = read_json(&path)?;
        let same = kept.is_some_and(|kept| {
            kept.older_checkpoint == evidence.older_checkpoint
                && kept.newer_checkpoint == evidence.newer_checkpoint
        });
        if same {
            Ok(path)
        } else {
            Err(StoreError::OtherEvidence { path })
        }
    }

    /// The evidence files that are kept.
    ///
    /// # Errors
    /// [`StoreError`] if the directory cannot be read.
    pub fn forks(&self) -> Result<Vec<PathBuf>, StoreError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &self.directory, &error)),
        };
        let mut forks: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("fork-") && name.ends_with(".json")
            })
            .collect();
        forks.sort();
        Ok(forks)
    }

    fn pin_path(&self) -> PathBuf {
        self.directory.join("pin.json")
    }

    fn keys_path(&self) -> PathBuf {
        self.directory.join("log-keys.json")
    }

    fn trust_path(&self) -> PathBuf {
        self.directory.join("trust.json")
    }

    fn head_path(&self) -> PathBuf {
        self.directory.join("checkpoint")
    }

    fn write_head(&self, head: &SignedHead) -> Result<(), StoreError> {
        write_replacing(&self.head_path(), &head.note)
    }

    /// Waits for the lock, which the system releases with the file, whatever happens.
    fn lock(&self) -> Result<File, StoreError> {
        make_directory(&self.directory)?;
        let path = self.directory.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io_error("open", &path, &error))?;
        file.lock()
            .map_err(|error| io_error("lock", &path, &error))?;
        Ok(file)
    }
}

/// A name that a person recognises, and that is different for different identities.
fn file_name(readable: &str, identity: &str) -> String {
    const READABLE_CHARS_MAX: usize = 80;
    let readable: String = readable
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(READABLE_CHARS_MAX)
        .collect();
    // A leading dot would hide it, or climb out of the directory.
    let readable = readable.trim_start_matches('.');
    format!("{readable}-{}", hex::encode(&Sha256::digest(identity)[..8]))
}
