//! Loading: rebuilds a ledger's tree and trust state from the store.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    Micros,
    assess::cells::Clock,
    entry::{Entry, EntryError},
    genesis::{Genesis, GenesisError},
    trust::{self, TrustStatement},
};
use deed_tlog::{
    Checkpoint, CheckpointError, LeafIndex, RightEdge, TreeSize, VerifierKey, leaf_hash,
};
use thiserror::Error;

use super::{LedgerNumber, Store, StoreError, read::FullTiles};

/// A ledger's tree as the store has it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub edge: RightEdge,
    /// The newest signed head.
    pub checkpoint: Bytes,
    pub effective_time: Micros,
    /// Time at which the next deadline in the ledger passes.
    pub next_due: Option<Micros>,
    /// Number of deadlines in the ledger.
    pub due: u64,
    /// The last confirmation of the clock by an operator.
    pub clock: Option<Clock>,
}

/// The reason for which a tree cannot be rebuilt.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its verifier key: {0}")]
    Key(deed_tlog::KeyError),
    #[error("its newest head: {0}")]
    Head(CheckpointError),
    #[error("its tiles: {0}")]
    Tiles(deed_tlog::RebuildError<StoreError>),
    #[error("the entries end at leaf {found}, its newest head covers {size}")]
    EntriesMissing { found: u64, size: TreeSize },
    #[error("its newest head has root {signed}, its tiles and entries have {rebuilt}")]
    Root {
        signed: deed_tlog::Hash,
        rebuilt: deed_tlog::Hash,
    },
    #[error("its genesis entry: {0}")]
    Genesis(GenesisError),
    #[error("trust statement at leaf {leaf}: {cause}")]
    TrustEntry { leaf: u64, cause: EntryError },
    #[error("trust statement at leaf {leaf}: {reason}")]
    Trust { leaf: u64, reason: String },
}

impl From<CheckpointError> for LoadError {
    fn from(cause: CheckpointError) -> Self {
        Self::Head(cause)
    }
}

impl From<deed_tlog::RebuildError<StoreError>> for LoadError {
    fn from(cause: deed_tlog::RebuildError<StoreError>) -> Self {
        Self::Tiles(cause)
    }
}

impl From<GenesisError> for LoadError {
    fn from(cause: GenesisError) -> Self {
        Self::Genesis(cause)
    }
}

/// Rebuilds the right edge of a ledger from its newest head, its full tiles and its last entries,
/// and checks the root against the signed head. Returns `None` if the store has no head of it.
pub(crate) fn right_edge(
    store: &Arc<Store>,
    ledger: LedgerNumber,
    vkey: &str,
) -> Result<Option<Loaded>, LoadError> {
    let Some(record) = store.latest_head(ledger)? else {
        return Ok(None);
    };
    let key: VerifierKey = vkey.parse().map_err(LoadError::Key)?;
    let (checkpoint, _) = Checkpoint::open(&record.checkpoint, &key)?;
    let size = checkpoint.head.size;
    let first = size.get() - size.get() % 256;
    let mut tail = Vec::with_capacity(256);
    for item in store.entries(ledger, first) {
        let (index, entry) = item?;
        if index >= size.get() {
            break;
        }
        tail.push(leaf_hash(&entry));
    }
    let found = first + tail.len() as u64;
    if found != size.get() {
        return Err(LoadError::EntriesMissing { found, size });
    }
    let tiles: FullTiles = store.full_tiles(ledger);
    let edge = RightEdge::rebuild(size, &tail, &tiles)?;
    let rebuilt = edge.root();
    if rebuilt != checkpoint.head.root {
        return Err(LoadError::Root {
            signed: checkpoint.head.root,
            rebuilt,
        });
    }
    Ok(Some(Loaded {
        edge,
        checkpoint: record.checkpoint,
        effective_time: Micros::new(record.effective_time_us),
        next_due: store.next_due(ledger)?,
        due: store.count_due(ledger)?,
        clock: store.confirmed_clock(ledger)?,
    }))
}

/// Rebuilds a ledger's trust state from its trust statements. They were judged when they were
/// recorded; only the chain between them is checked again. (`fsck` judges them again.)
pub fn trust(
    store: &Store,
    ledger: LedgerNumber,
    genesis_entry: &Bytes,
) -> Result<trust::TrustState, LoadError> {
    let (genesis, id) = Genesis::from_entry(genesis_entry)?;
    let mut trust = trust::TrustState::genesis(id, &genesis);
    for item in store.trust_leaves(ledger, 0) {
        let (leaf, effective_time) = item?;
        let bytes = store.entry(ledger, leaf)?;
        let entry = Entry::parse(&bytes).map_err(|cause| LoadError::TrustEntry { leaf, cause })?;
        let failed = |reason: String| LoadError::Trust { leaf, reason };
        if entry.previous_trust != Some(trust.head()) {
            return Err(failed("does not follow the one before it".to_owned()));
        }
        let payload = bytes.slice_ref(entry.payload);
        let statement = TrustStatement::parse(&payload)
            .map_err(|error| failed(error.to_string()))?
            .ok_or_else(|| failed("is another statement".to_owned()))?;
        trust.apply(
            &statement,
            effective_time,
            LeafIndex::new(leaf),
            leaf_hash(&bytes),
        );
    }
    Ok(trust)
}
