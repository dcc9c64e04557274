//! Loading: rebuilds a ledger's tree and trust state from the store.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    Micros,
    assess::cells::Clock,
    entry::{Entry, EntryError},
    genesis::{Genesis, GenesisError},
    trust::{self, HeadError, LogKeys, TrustStatement},
};
use deed_tlog::{
    EdgeReader, Hash, LeafIndex, RightEdge, TileReadError, TreeSize, leaf_hash, root_at,
};
use thiserror::Error;

use super::{Family, LedgerNumber, Store, StoreError, read::FullTiles};

/// A ledger's tree as the store has it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub edge: RightEdge,
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
    #[error("its newest signed head: {0}")]
    Head(HeadError),
    #[error("its tiles: {0}")]
    Tiles(deed_tlog::RebuildError<StoreError>),
    #[error("the entries end at leaf {found}, its newest tree has {size}")]
    EntriesMissing { found: u64, size: TreeSize },
    #[error(
        "its tree of {size} leaves was recorded with root {recorded}, its tiles and entries have {rebuilt}"
    )]
    Root {
        size: TreeSize,
        recorded: Hash,
        rebuilt: Hash,
    },
    #[error("its newest signed head covers {signed} leaves, its newest tree has {size}")]
    SignedBeyond { signed: TreeSize, size: TreeSize },
    #[error("its genesis entry: {0}")]
    Genesis(GenesisError),
    #[error("trust statement at leaf {leaf}: {cause}")]
    TrustEntry { leaf: u64, cause: EntryError },
    #[error("trust statement at leaf {leaf}: {reason}")]
    Trust { leaf: u64, reason: String },
}

impl From<HeadError> for LoadError {
    fn from(cause: HeadError) -> Self {
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

/// Rebuilds the right edge of a ledger's newest tree from its full tiles and its last entries, and checks
/// the root. Returns `None` if the store does not know the ledger. ([`check_signed_head`] holds the tree
/// against the newest signed head.)
pub(crate) fn right_edge(
    store: &Arc<Store>,
    ledger: LedgerNumber,
) -> Result<Option<Loaded>, LoadError> {
    let Some(tree) = store.newest_tree(ledger)? else {
        return Ok(None);
    };
    let size = tree.head.size;
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
    if rebuilt != tree.head.root {
        return Err(LoadError::Root {
            size,
            recorded: tree.head.root,
            rebuilt,
        });
    }
    Ok(Some(Loaded {
        edge,
        effective_time: tree.effective_time,
        next_due: store.next_due(ledger)?,
        due: store.count_due(ledger)?,
        clock: store.confirmed_clock(ledger)?,
    }))
}

/// Fails unless the newest signed head of a ledger in the store holds, and is a head of the tree with this
/// edge, or of an earlier one that this one continues. The store has no signed head of a ledger only if a
/// crash came right after the ledger's creation.
pub(crate) fn check_signed_head(
    store: &Arc<Store>,
    ledger: LedgerNumber,
    edge: &RightEdge,
    log_keys: &LogKeys,
) -> Result<(), LoadError> {
    let Some(record) = store.latest_head(ledger)? else {
        return Ok(());
    };
    let signed = log_keys.open(&record.checkpoint)?;
    if signed.size > edge.size() {
        return Err(LoadError::SignedBeyond {
            signed: signed.size,
            size: edge.size(),
        });
    }
    let reader = EdgeReader::new(edge, store.full_tiles(ledger));
    let rebuilt = root_at(signed.size, &reader).map_err(|error| match error {
        TileReadError::Reader(error) => LoadError::Store(error),
        other => StoreError::corrupt(Family::Tiles, ledger, other.to_string()).into(),
    })?;
    if rebuilt != signed.root {
        return Err(LoadError::Root {
            size: signed.size,
            recorded: signed.root,
            rebuilt,
        });
    }
    Ok(())
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
