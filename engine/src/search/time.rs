//! Finds the leaf at which a time begins. The effective time of a leaf is the highest receive time
//! of the leaves up to it, so it never goes back, and its values at a few leaves narrow the range
//! to search.

use std::ops::Range;

use deed_evidence::{Micros, entry::Entry};

use super::{
    SEGMENT_LEAVES,
    segment::{TIME_LEAVES, corrupt_leaf},
};
use crate::store::{Family, LedgerNumber, Store, StoreError};

/// Returns the first leaf of the tree of `size` leaves whose effective time is `time` or later;
/// `size` if there is none.
pub(crate) fn first_at(
    store: &Store,
    ledger: LedgerNumber,
    size: u64,
    time: Micros,
) -> Result<u64, StoreError> {
    let segments = store.term_segments(ledger)?.min(size / SEGMENT_LEAVES);
    let (mut before, mut reached) = (0, segments);
    while before < reached {
        let middle = before + (reached - before) / 2;
        if at_end(store, ledger, middle)? < time {
            before = middle + 1;
        } else {
            reached = middle;
        }
    }
    let within = if before < segments {
        let times = times(store, ledger, before)?;
        let tiles = times.partition_point(|end| *end < time) as u64;
        let first = before * SEGMENT_LEAVES + tiles * TIME_LEAVES;
        first..first + TIME_LEAVES
    } else {
        between_heads(store, ledger, segments * SEGMENT_LEAVES..size, time)?
    };
    scan(store, ledger, within, time)
}

/// Returns the effective time at the end of a segment that is written.
pub(super) fn at_end(
    store: &Store,
    ledger: LedgerNumber,
    segment: u64,
) -> Result<Micros, StoreError> {
    let times = times(store, ledger, segment)?;
    Ok(times.last().copied().unwrap_or(Micros::new(0)))
}

fn times(store: &Store, ledger: LedgerNumber, segment: u64) -> Result<Vec<Micros>, StoreError> {
    let corrupt = |what| {
        let what = format!("the times of segment {segment} {what}");
        StoreError::corrupt(Family::Index, ledger, what)
    };
    let record = store
        .segment_times(ledger, segment)?
        .ok_or_else(|| corrupt("are missing"))?;
    let (times, rest) = record.as_chunks();
    if times.len() as u64 != SEGMENT_LEAVES / TIME_LEAVES || !rest.is_empty() {
        return Err(corrupt("are damaged"));
    }
    let time = |bytes: &[u8; 8]| Micros::new(i64::from_be_bytes(*bytes));
    Ok(times.iter().map(time).collect())
}

/// Narrows the range of leaves in which `time` begins, or at whose end it has not begun, by the
/// heads that were kept: one a second.
fn between_heads(
    store: &Store,
    ledger: LedgerNumber,
    leaves: Range<u64>,
    time: Micros,
) -> Result<Range<u64>, StoreError> {
    let Range { mut start, mut end } = leaves;
    // No head in the rest of the search has a size above this.
    let mut sizes_to = end;
    while start < sizes_to {
        let middle = start + (sizes_to - start) / 2;
        match store.kept_head_from(ledger, middle + 1)? {
            Some((size, at)) if size <= sizes_to && at < time => start = size,
            Some((size, _)) if size <= sizes_to => {
                end = size - 1;
                sizes_to = middle;
            }
            _ => sizes_to = middle,
        }
    }
    Ok(start..end)
}

/// Returns the first of these leaves that was received at `time` or later, or their end. The leaves
/// before them must have been received earlier.
fn scan(
    store: &Store,
    ledger: LedgerNumber,
    leaves: Range<u64>,
    time: Micros,
) -> Result<u64, StoreError> {
    for item in store.entries(ledger, leaves.start) {
        let (leaf, bytes) = item?;
        if leaf >= leaves.end {
            break;
        }
        let entry =
            Entry::parse(&bytes).map_err(|error| corrupt_leaf(ledger, leaf, &error.to_string()))?;
        if entry.received_at >= time {
            return Ok(leaf);
        }
    }
    Ok(leaves.end)
}
