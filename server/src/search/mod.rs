//! Search: finding entries by their contents.
//!
//! The index is derived: for each segment of 65,536 leaves, once it is complete, a background
//! thread writes the leaves of each term (`segment`), and the effective times in it (`time`), so
//! commits pay nothing for it. Everything beyond the last segment is read entry by entry. A search
//! (`query`) takes candidates from the index and checks each entry itself, because the index keeps
//! only parts of hashes, which two terms may share. The whole index can be deleted and built again
//! (`reindex`).
//!
//! Architecture invariant: a search has the same answer with the index, without it, and while it is
//! built.

pub(crate) mod keep;
pub(crate) mod query;
pub mod reindex;
pub(crate) mod segment;
pub(crate) mod term;
#[cfg(test)]
mod tests;
pub(crate) mod time;

use crate::store::{LedgerNumber, Store, StoreError};

pub(crate) use crate::ledger::index::SEGMENT_LEAVES;

/// Returns the leaf up to which a ledger's terms are indexed.
pub(crate) fn indexed_to(store: &Store, ledger: LedgerNumber) -> Result<u64, StoreError> {
    Ok(store.term_segments(ledger)? * SEGMENT_LEAVES)
}
