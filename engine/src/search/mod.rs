//! Search: entries are found by their contents.
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

pub mod query;
pub mod segment;
pub(crate) mod term;
#[cfg(test)]
mod tests;
pub mod time;

use std::sync::Arc;

use crate::{
    ledger::{Ledger, index},
    store::{LedgerNumber, Store, StoreError},
};

pub(crate) use crate::ledger::index::SEGMENT_LEAVES;

/// Returns the leaf up to which a ledger's terms are indexed.
pub fn indexed_to(store: &Store, ledger: LedgerNumber) -> Result<u64, StoreError> {
    Ok(store.term_segments(ledger)? * SEGMENT_LEAVES)
}

/// Numbers of the segments of a ledger that are known to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Indexed {
    pub hashes: u64,
    pub(crate) terms: u64,
}

/// The result of one step of indexing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// A segment of leaf hashes was written.
    Hashes,
    /// A segment of terms was written.
    Terms,
    /// Nothing was written, and all terms were found to be there.
    Found,
    /// Nothing was written, because all complete segments are known to be there.
    Nothing,
}

/// Writes a segment that is complete and not there: of leaf hashes, then of terms.
pub fn index_segment(
    store: &Arc<Store>,
    ledger: &Ledger,
    indexed: &mut Indexed,
) -> Result<Wrote, StoreError> {
    let readable = ledger.readable();
    let size = readable.size().get();
    let complete = size / SEGMENT_LEAVES;
    if indexed.hashes < complete {
        index::write_segment(store, ledger.number, &readable, indexed.hashes)?;
        indexed.hashes += 1;
        return Ok(Wrote::Hashes);
    }
    if indexed.terms == complete {
        return Ok(Wrote::Nothing);
    }
    match segment::write_next(store, ledger.number, size)? {
        Some(written) => {
            indexed.terms = written + 1;
            Ok(Wrote::Terms)
        }
        None => {
            indexed.terms = complete;
            Ok(Wrote::Found)
        }
    }
}
