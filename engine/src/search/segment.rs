//! Segments of the index: the leaves of each term, among 65,536 leaves.
//!
//! A segment is 256 buckets by the first byte of a term's hash. A bucket is a list, sorted by
//! hash, of
//!
//! ```text
//! next 7 bytes of the hash | length of the leaves in bytes (varint) | leaves
//! ```
//!
//! where leaves are offsets in the segment, ascending: the first one, then each one's distance
//! from the one before it, as varints (LEB128). A record beside the buckets has the effective
//! time at the end of each of the segment's 256 tiles (i64, big-endian).
//!
//! A segment is written in one batch, and segments are written in order.

use deed_evidence::{
    Micros,
    entry::Entry,
    statement::{Term, terms},
};
use deed_proto::v1::PayloadType;

use super::{
    SEGMENT_LEAVES,
    term::{HASH_BYTES, TermHash},
};
use crate::store::{Batch, Family, LedgerNumber, Store, StoreError, keys, search::FindingAt};

/// Leaves between two recorded effective times: those of a tile.
pub(super) const TIME_LEAVES: u64 = 256;

/// A term's hash, and the offset of a leaf that has it.
type Record = [u8; HASH_BYTES + 2];

/// A segment in its stored form.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// All 256 buckets, the empty ones included.
    pub(crate) buckets: Vec<Vec<u8>>,
    pub times: Vec<u8>,
}

/// Writes the next segment of a ledger's published tree that is complete and missing. Returns its
/// number, or `None` if there is none.
pub(crate) fn write_next(
    store: &Store,
    ledger: LedgerNumber,
    size: u64,
) -> Result<Option<u64>, StoreError> {
    let number = store.term_segments(ledger)?;
    if (number + 1) * SEGMENT_LEAVES > size {
        return Ok(None);
    }
    let segment = build(store, ledger, number)?;
    let mut batch = Batch::default();
    for (bucket, records) in (0..=u8::MAX).zip(&segment.buckets) {
        let key = keys::term_bucket(ledger, number, bucket);
        store.put(&mut batch, Family::Index, &key, records);
    }
    let key = keys::times(ledger, number);
    store.put(&mut batch, Family::Index, &key, &segment.times);
    store.commit_derived(batch)?;
    Ok(Some(number))
}

/// Reads the entries and findings of a complete segment. Those before it must be there.
pub fn build(store: &Store, ledger: LedgerNumber, segment: u64) -> Result<Segment, StoreError> {
    let first = segment * SEGMENT_LEAVES;
    let mut building = Building::new(match segment.checked_sub(1) {
        Some(before) => super::time::at_end(store, ledger, before)?,
        None => Micros::new(0),
    });
    let mut next = first;
    // Segments end where tiles end, and packs end there too.
    for item in store.packs(ledger, first) {
        let (begin, pack) = item?;
        if begin != next || next == first + SEGMENT_LEAVES {
            break;
        }
        for position in 0..pack.len() {
            let entry = pack.entry(position).unwrap_or_default();
            building
                .entry(next - first, &entry)
                .map_err(|what| corrupt_leaf(ledger, next, &what))?;
            next += 1;
        }
    }
    if next != first + SEGMENT_LEAVES {
        return Err(corrupt_leaf(ledger, next, "is missing"));
    }
    for item in store.findings(ledger, FindingAt::leaf(first)) {
        let (at, finding) = item?;
        if at.leaf >= next {
            break;
        }
        building.record(at.leaf - first, TermHash::of_finding(finding.kind()));
    }
    Ok(building.finish())
}

/// Returns the leaves of a segment that may have a term, as offsets, ascending.
pub(super) fn candidates(
    store: &Store,
    ledger: LedgerNumber,
    segment: u64,
    term: TermHash,
) -> Result<Vec<u16>, StoreError> {
    let corrupt = |what: &str| {
        let what = format!("segment {segment}, terms {:02x}: {what}", term.bucket());
        StoreError::corrupt(Family::Index, ledger, what)
    };
    let bucket = store
        .term_bucket(ledger, segment, term.bucket())?
        .ok_or_else(|| corrupt("are missing"))?;
    find(&bucket, term).ok_or_else(|| corrupt("are damaged"))
}

pub(super) fn corrupt_leaf(ledger: LedgerNumber, leaf: u64, what: &str) -> StoreError {
    StoreError::corrupt(Family::Entries, ledger, format!("leaf {leaf} {what}"))
}

/// A segment that is being built.
struct Building {
    /// Records by the first byte of the hash.
    records: Vec<Vec<Record>>,
    hashes: Hashes,
    times: Vec<u8>,
    effective_time: Micros,
}

impl Building {
    fn new(effective_time: Micros) -> Self {
        Self {
            records: vec![Vec::new(); 256],
            hashes: Hashes::default(),
            times: Vec::new(),
            effective_time,
        }
    }

    fn entry(&mut self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let entry = Entry::parse(bytes).map_err(|error| error.to_string())?;
        self.effective_time = self.effective_time.max(entry.received_at);
        if (offset + 1).is_multiple_of(TIME_LEAVES) {
            let time = self.effective_time.get().to_be_bytes();
            self.times.extend_from_slice(&time);
        }
        if entry.payload_type == PayloadType::Statement {
            terms(entry.payload, |term: Term<'_>| {
                let hash = self.hashes.of(&term);
                self.record(offset, hash);
            });
        }
        Ok(())
    }

    fn record(&mut self, offset: u64, term: TermHash) {
        let offset = u16::try_from(offset).expect("a segment has 65,536 leaves");
        let mut record = [0; HASH_BYTES + 2];
        record[..HASH_BYTES].copy_from_slice(&term.0);
        record[HASH_BYTES..].copy_from_slice(&offset.to_be_bytes());
        self.records[usize::from(term.bucket())].push(record);
    }

    fn finish(self) -> Segment {
        Segment {
            buckets: self.records.into_iter().map(bucket_of).collect(),
            times: self.times,
        }
    }
}

/// Encodes a bucket.
fn bucket_of(mut records: Vec<Record>) -> Vec<u8> {
    records.sort_unstable();
    // One Outcome may change the same resource twice.
    records.dedup();
    let mut bucket = Vec::new();
    let mut leaves = Vec::new();
    for of_term in records.chunk_by(|a, b| a[..HASH_BYTES] == b[..HASH_BYTES]) {
        bucket.extend_from_slice(&of_term[0][1..HASH_BYTES]);
        leaves.clear();
        let mut last = 0;
        for record in of_term {
            let offset = u16::from_be_bytes([record[HASH_BYTES], record[HASH_BYTES + 1]]);
            put_varint(usize::from(offset - last), &mut leaves);
            last = offset;
        }
        put_varint(leaves.len(), &mut bucket);
        bucket.extend_from_slice(&leaves);
    }
    bucket
}

/// The hash of the last term of each kind: neighbouring statements mostly have the same task, agent
/// and action.
#[derive(Default)]
struct Hashes {
    agent: Last,
    task: Last,
    action: Last,
}

#[derive(Default)]
struct Last {
    value: Vec<u8>,
    hash: Option<TermHash>,
}

impl Hashes {
    fn of(&mut self, term: &Term<'_>) -> TermHash {
        let (last, value) = match term {
            Term::Agent(value) => (&mut self.agent, value),
            Term::Task(value) => (&mut self.task, value),
            Term::Action(value) => (&mut self.action, value),
            _ => return TermHash::of(term),
        };
        match last.hash {
            Some(hash) if last.value == *value => hash,
            _ => {
                let hash = TermHash::of(term);
                last.value.clear();
                last.value.extend_from_slice(value);
                last.hash = Some(hash);
                hash
            }
        }
    }
}

/// Returns the offsets of a term in its bucket; `None` if the bucket is damaged.
fn find(mut bucket: &[u8], term: TermHash) -> Option<Vec<u16>> {
    while !bucket.is_empty() {
        let (hash, rest) = bucket.split_at_checked(HASH_BYTES - 1)?;
        bucket = rest;
        let len = take_varint(&mut bucket)?;
        let (leaves, rest) = bucket.split_at_checked(len)?;
        bucket = rest;
        match hash.cmp(&term.0[1..]) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return offsets(leaves),
            std::cmp::Ordering::Greater => break,
        }
    }
    Some(Vec::new())
}

fn offsets(mut leaves: &[u8]) -> Option<Vec<u16>> {
    // Each offset takes one byte at least.
    let mut offsets = Vec::with_capacity(leaves.len());
    let mut last = 0;
    while !leaves.is_empty() {
        last += take_varint(&mut leaves)?;
        offsets.push(u16::try_from(last).ok()?);
    }
    Some(offsets)
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number of up to 28 bits, which is more than any length or offset has.
fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for (position, &byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            *bytes = &bytes[position + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn built(postings: &[(u64, TermHash)]) -> Segment {
        let mut building = Building::new(Micros::new(0));
        for &(offset, term) in postings {
            building.record(offset, term);
        }
        building.finish()
    }

    #[test]
    fn golden_bucket() {
        let (a, b) = (
            TermHash([7, 1, 0, 0, 0, 0, 0, 0]),
            TermHash([7, 0, 0, 0, 0, 0, 0, 2]),
        );
        let segment = built(&[(3, a), (300, a), (65_535, a), (0, b), (3, a)]);
        assert_eq!(
            hex::encode(&segment.buckets[7]),
            "000000000000020100".to_owned() + "010000000000000603" + "a902" + "d3fd03"
        );
        assert!(
            segment
                .buckets
                .iter()
                .enumerate()
                .all(|(n, b)| n == 7 || b.is_empty())
        );
        assert_eq!(find(&segment.buckets[7], a), Some(vec![3, 300, 65_535]));
        assert_eq!(find(&segment.buckets[7], b), Some(vec![0]));
        assert_eq!(find(&segment.buckets[7], TermHash([7; 8])), Some(vec![]));
    }

    /// The test has the largest record of one term, and the most terms of one entry.
    #[test]
    fn a_term_of_every_leaf() {
        let term = TermHash([1; 8]);
        let all: Vec<_> = (0..SEGMENT_LEAVES).map(|offset| (offset, term)).collect();
        let segment = built(&all);
        assert_eq!(segment.buckets[1].len(), 7 + 3 + 65_536);
        assert_eq!(
            find(&segment.buckets[1], term),
            Some((0..=u16::MAX).collect())
        );
    }

    proptest! {
        #[test]
        fn what_was_recorded_is_found(
            postings in prop::collection::vec((0_u16.., prop::array::uniform8(0_u8..3)), 0..200),
        ) {
            let recorded: Vec<_> = postings
                .iter()
                .map(|(offset, hash)| (u64::from(*offset), TermHash(*hash)))
                .collect();
            let segment = built(&recorded);
            for (_, term) in &recorded {
                let expected: BTreeSet<_> = recorded
                    .iter()
                    .filter(|(_, other)| other == term)
                    .map(|(offset, _)| *offset as u16)
                    .collect();
                let found = find(&segment.buckets[usize::from(term.bucket())], *term).unwrap();
                prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            }
        }

        #[test]
        fn no_bytes_panic(bucket in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = find(&bucket, TermHash([0x80; 8]));
            let _ = offsets(&bucket);
        }
    }
}
