//! Builds a stopped server's indexes again.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    guard::{self, GuardError},
    identity::{Identity, IdentityError},
    ledger::{Tree, index},
    search::{SEGMENT_LEAVES, segment},
    store::{
        DirectoryLock, LedgerNumber, Store, StoreError, StoreOptions,
        records::LedgerRecord,
        recover::{self, LoadError},
    },
};

/// The reason for which an index was not built.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum ReindexError {
    /// The directory is no server's data directory.
    #[error("{path} holds no deed server")]
    NoServer { path: PathBuf },
    /// The server has no ledger of this name.
    #[error("no ledger is named {name:?}")]
    NoLedger { name: String },
    /// A ledger's tree cannot be rebuilt.
    #[error("ledger {name:?}: {what}; `deed-server fsck` has details")]
    Ledger { name: String, what: String },
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

/// The progress of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Name of the ledger.
    pub ledger: String,
    /// Leaves that are indexed so far.
    pub indexed: u64,
    /// Leaves of the ledger in all.
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

/// Deletes the indexes of `ledger`, or of all ledgers, and builds them again. If that is
/// interrupted, the server goes on from there.
///
/// # Errors
/// [`ReindexError`] if the store cannot be read, written, or does not fit its guard.
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
    // The guard is checked as when the server starts: a store that lost its end is evidence, and
    // stays unchanged.
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
    let tree = newest_tree(store, record)?;
    let size = tree.size().get();
    store.drop_index(number)?;
    let mut progress = Progress {
        ledger: record.name.clone(),
        indexed: 0,
        size,
    };
    on_progress(&progress);
    for segment in 0..size / SEGMENT_LEAVES {
        index::write_segment(store, number, &tree, segment)?;
        segment::write_next(store, number, size)?;
        progress.indexed = (segment + 1) * SEGMENT_LEAVES;
        on_progress(&progress);
    }
    Ok(())
}

fn newest_tree(store: &Arc<Store>, record: &LedgerRecord) -> Result<Tree, ReindexError> {
    let failed = |what: String| ReindexError::Ledger {
        name: record.name.clone(),
        what,
    };
    let loaded = match recover::right_edge(store, LedgerNumber(record.number)) {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Err(failed("the newest tree is missing".to_owned())),
        Err(LoadError::Store(error)) => return Err(error.into()),
        Err(error) => return Err(failed(error.to_string())),
    };
    Ok(loaded.into())
}
