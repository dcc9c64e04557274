//! Finding entries by what they say.
//!
//! A derived index: for each segment of 65,536 leaves, once these are complete, a background
//! thread writes which of them have which term (`segment`), and the effective times in it
//! (`time`), so commits pay nothing for it. Everything beyond the last segment is read entry by
//! entry. A search (`query`) takes candidates from the index and looks at each entry itself: the
//! index knows parts of hashes, which two terms may share. All of it can be deleted and built again
//! (`offline::reindex`).
//!
//! Architecture invariant: with the index, without it and while it is built the same search has
//! the same answer.

pub(crate) mod query;
pub(crate) mod segment;
pub(crate) mod term;
#[cfg(test)]
mod tests;
pub(crate) mod time;

use crate::store::{LedgerNumber, Store, StoreError};

pub(crate) use crate::ledger::index::SEGMENT_LEAVES;

/// The leaf up to which a ledger's terms are indexed.
pub(crate) fn indexed_to(store: &Store, ledger: LedgerNumber) -> Result<u64, StoreError> {
    Ok(store.term_segments(ledger)? * SEGMENT_LEAVES)
}
