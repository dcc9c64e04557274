//! The data directory. It is opened so that everything in it stays evidence, or made anew.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    guard::{self, GuardError},
    identity::{Identity, IdentityError},
    secret_file,
    store::{DirectoryLock, Store, StoreError, StoreOptions},
};

/// The reason why a data directory cannot be opened.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// The directory holds something else.
    #[error("{path} is not empty and holds no deed server ({found:?} is in it); choose another")]
    ForeignDirectory {
        /// The data directory.
        path: PathBuf,
        /// A file that does not belong there.
        found: String,
    },
    /// The directory is open to everybody.
    #[error(
        "{path} has mode {mode:04o}: anybody on this machine may put files of theirs in place of the \
         server's, tokens and roles among them; `chmod o-w` it, and look at what is in it"
    )]
    ExposedDirectory {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory holds ledgers, but not the key that signs them.
    #[error("{path} holds ledgers but no server.key; restore it from a copy")]
    KeyMissing {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory holds a key, but not the ledgers that it signed for.
    #[error(
        "{path} holds a server.key but no store: what was acknowledged is lost or not mounted. \
         Nothing was changed; restore the directory store/ from a copy"
    )]
    StoreMissing {
        /// The data directory.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// The server's key cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not fit its guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// An opened data directory.
pub struct DataDir {
    pub lock: DirectoryLock,
    pub store: Arc<Store>,
    pub identity: Identity,
    /// True if the directory was new.
    pub created: bool,
    pub damaged_guard_slots: u64,
}

/// Opens a data directory, or makes a new one. `name` is the server's name, `shards` the number of
/// shards that its ledgers are spread over, and `also` names files that may be in a new directory.
///
/// # Errors
/// [`DataDirError`]; an existing store is unchanged then.
pub fn open(
    data_dir: &Path,
    name: Option<&str>,
    options: &StoreOptions,
    shards: usize,
    also: &[&str],
) -> Result<DataDir, DataDirError> {
    let io = |cause| DataDirError::Io {
        path: data_dir.to_owned(),
        cause,
    };
    // Nobody else may read statements.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(io)?;
    if let Some(mode) = secret_file::open_to_all(data_dir).map_err(io)? {
        return Err(DataDirError::ExposedDirectory {
            path: data_dir.to_owned(),
            mode,
        });
    }
    if Identity::load(data_dir)?.is_none() {
        refuse_foreign(data_dir, also)?;
    }
    let lock = DirectoryLock::acquire(data_dir)?;
    // The key is looked up again, because another server may have made it before we had the lock.
    match Identity::load(data_dir)? {
        Some(identity) => {
            identity.expect_name(name)?;
            // The store is first read without changing anything, because a store that lost its tail
            // is evidence. A store that is gone altogether must not be begun anew under the same
            // keys.
            let store = Store::open_read_only(data_dir, options)?.ok_or_else(|| {
                DataDirError::StoreMissing {
                    path: data_dir.to_owned(),
                }
            })?;
            let guarded = guard::verify(data_dir, &Arc::new(store))?;
            for what in &guarded.damaged {
                tracing::warn!(
                    what,
                    "one half of what guards the store is damaged, the other one stands: a power cut \
                     does that, and the next writes mend it; otherwise look at the disk"
                );
            }
            let store = Arc::new(Store::open(data_dir, options)?);
            // A turn that was committed in the last moment before a crash is guarded before anybody
            // is told of it.
            let caught_up = guard::catch_up(data_dir, &store)?;
            tracing::debug!(heads = caught_up, "head guard verified");
            lay_out(&store, shards)?;
            Ok(DataDir {
                lock,
                store,
                identity,
                created: false,
                damaged_guard_slots: guarded.damaged.len() as u64,
            })
        }
        None => {
            // The key is made last: until it is there, the directory counts as new, and all of
            // this may be done again.
            let store = Arc::new(Store::create(data_dir, options)?);
            if !store.ledgers_after("", 1)?.is_empty() {
                return Err(DataDirError::KeyMissing {
                    path: data_dir.to_owned(),
                });
            }
            lay_out(&store, shards)?;
            guard::create(data_dir)?;
            let identity = Identity::create(data_dir, name)?;
            Ok(DataDir {
                lock,
                store,
                identity,
                created: true,
                damaged_guard_slots: 0,
            })
        }
    }
}

/// Gives every ledger a partition anew if the number of shards has changed.
fn lay_out(store: &Store, shards: usize) -> Result<(), StoreError> {
    let moved = store.lay_out(shards)?;
    if moved > 0 {
        tracing::info!(
            ledgers = moved,
            shards,
            "ledgers were moved to other shards"
        );
    }
    Ok(())
}

/// Fails if a directory without a key holds anything but what an interrupted first start left.
fn refuse_foreign(data_dir: &Path, also: &[&str]) -> Result<(), DataDirError> {
    // (The keys of contents are made after the server's own key. If they are there, that key was
    // lost, and the ledgers in the store make for a better message.)
    const OURS: [&str; 13] = [
        "clock-ahead",
        "clock-ahead.unfinished",
        "clock-base",
        "clock-base.unfinished",
        "clock-confirmed",
        "clock-confirmed.unfinished",
        "lock",
        "store",
        "head-guard",
        "content-keys",
        "content-guard",
        "server.key.new",
        "direct-io-probe",
    ];
    let io = |cause| DataDirError::Io {
        path: data_dir.to_owned(),
        cause,
    };
    for entry in fs::read_dir(data_dir).map_err(io)? {
        let found = entry
            .map_err(io)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if !OURS.contains(&found.as_str()) && !also.contains(&found.as_str()) {
            return Err(DataDirError::ForeignDirectory {
                path: data_dir.to_owned(),
                found,
            });
        }
    }
    Ok(())
}
