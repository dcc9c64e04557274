//! Building a stopped server's index again.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    guard::{self, GuardError},
    identity::{Identity, IdentityError},
    ledger::{Readable, index},
    search::{SEGMENT_LEAVES, segment},
    store::{
        DirectoryLock, LedgerNumber, Store, StoreError, StoreOptions,
        records::LedgerRecord,
        recover::{self, LoadError},
    },
};

/// An index that was not built.
#[derive(Debug, Error)]
pub enum ReindexError {
    /// No server's data directory.
    #[error("{path} holds no deed server")]
    NoServer {
        /// The directory.
        path: PathBuf,
    },
    /// No such ledger.
    #[error("no ledger is named {name:?}")]
    NoLedger {
        /// The name asked for.
        name: String,
    },
    /// A ledger whose tree cannot be brought back.
    #[error("ledger {name:?}: {what}; `deed-server fsck` says more")]
    Ledger {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not fit its guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The server's key cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The ledger.
    pub ledger: String,
    /// Leaves that are indexed.
    pub indexed: u64,
    /// Leaves of the ledger.
    pub size: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} of {} leaves indexed, in segments of {SEGMENT_LEAVES}",
            self.ledger, self.indexed, self.size
        )
    }
}

/// Deletes the index of one ledger, or of all, and builds it again. If it is interrupted, the
/// server goes on where it was.
///
/// # Errors
/// [`ReindexError`].
pub fn rebuild(
    data_dir: &Path,
    ledger: Option<&str>,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<(), ReindexError> {
    let no_server = || ReindexError::NoServer {
        path: data_dir.to_owned(),
    };
    Identity::load(data_dir)?.ok_or_else(no_server)?;
    let _lock = DirectoryLock::acquire(data_dir)?;
    let options = StoreOptions::default();
    // As when the server starts: a store that lost its tail is evidence, and stays as it is.
    let store = Store::open_read_only(data_dir, &options)?.ok_or_else(no_server)?;
    guard::verify(data_dir, &Arc::new(store))?;
    let store = Arc::new(Store::open(data_dir, &options)?);
    match ledger {
        Some(name) => {
            let record = store.ledger(name)?.ok_or_else(|| ReindexError::NoLedger {
                name: name.to_owned(),
            })?;
            rebuild_ledger(&store, &record, on_progress)
        }
        None => {
            let mut after = String::new();
            loop {
                let page = store.ledgers_after(&after, 1000)?;
                let Some(last) = page.last() else {
                    return Ok(());
                };
                after.clone_from(&last.name);
                for record in &page {
                    rebuild_ledger(&store, record, on_progress)?;
                }
            }
        }
    }
}

fn rebuild_ledger(
    store: &Arc<Store>,
    record: &LedgerRecord,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<(), ReindexError> {
    let number = LedgerNumber(record.number);
    let readable = readable(store, record)?;
    let size = readable.size().get();
    store.drop_index(number)?;
    let mut progress = Progress {
        ledger: record.name.clone(),
        indexed: 0,
        size,
    };
    on_progress(&progress);
    for segment in 0..size / SEGMENT_LEAVES {
        index::write_segment(store, number, &readable, segment)?;
        segment::write_next(store, number, size)?;
        progress.indexed = (segment + 1) * SEGMENT_LEAVES;
        on_progress(&progress);
    }
    Ok(())
}

fn readable(store: &Arc<Store>, record: &LedgerRecord) -> Result<Readable, ReindexError> {
    let failed = |what: String| ReindexError::Ledger {
        name: record.name.clone(),
        what,
    };
    let loaded = match recover::right_edge(store, LedgerNumber(record.number), &record.vkey) {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Err(failed("the newest head is missing".to_owned())),
        Err(LoadError::Store(error)) => return Err(error.into()),
        Err(error) => return Err(failed(error.to_string())),
    };
    Ok(Readable {
        head: loaded.edge.head(),
        edge: loaded.edge,
        checkpoint: loaded.checkpoint,
        effective_time: loaded.effective_time,
        next_due: loaded.next_due,
        due: loaded.due,
        clock: loaded.clock,
    })
}
