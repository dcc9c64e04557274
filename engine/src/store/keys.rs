//! The bytes of RocksDB keys. No other module knows them.
//!
//! Every key of a ledger begins with its number (u32). Integers are big-endian, so that RocksDB's
//! byte order is their order, and within a family keys are written in ascending order wherever
//! one grows (entries, tiles, heads): such a family compacts by moving files.
//!
//! | family | key |
//! |---|---|
//! | meta | `schema_version`, `next_ledger`, `partitions`, `content_serial`, `ledger/` name, `newest/` slot (u8), `turn/` partition (u8) |
//! | entries | ledger, first leaf index (u64) |
//! | tiles | ledger, level (u8), tile index (u64) |
//! | heads | ledger, kind (u8), tree size (u64) |
//! | state | ledger, kind (u8), session (16), for runs: first sequence (u64) |
//! | state | ledger, kind (u8), leaf index of a trust statement (u64) |
//! | state | ledger, kind (u8), a cell of the assessment: its kind (u8) and name |
//! | state | ledger, kind (u8), something due: time (i64), leaf index (u64), kind (u8), id (16) |
//! | state | ledger, kind (u8), leaf index (u64), number (u32) of a finding |
//! | index | ledger, kind (u8), segment (u64), bucket (u8) |
//! | index | ledger, kind (u8), segment (u64), for its times |
//! | content | ledger, kind (u8), digest (32), then for chunks: upload (16), number (u32), for references: leaf index (u64); for uploads: upload (16) instead of the digest |
//!
//! The second database, `content-keys`, has one family: `check`, and ledger, digest (32).

use std::fmt;

use deed_evidence::{
    CommitmentDigest, Sequence, SessionId,
    assess::{Timer, cells::CellKey},
};

/// A ledger's number in this store; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerNumber(pub u32);

/// One attempt at storing a content: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId([u8; 16]);

impl UploadId {
    pub const LEN: usize = 16;

    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// # Errors
    /// The system gives no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Key of the number for the next ledger.
pub(crate) const NEXT_LEDGER: &[u8] = b"next_ledger";

/// Key of the number of partitions that the ledgers are laid out over.
pub(crate) const PARTITIONS: &[u8] = b"partitions";

/// Key of the number of the last write of contents.
pub(crate) const CONTENT_SERIAL: &[u8] = b"content_serial";

/// Prefix of the keys of all ledgers' records.
pub(crate) const LEDGER_PREFIX: &[u8] = b"ledger/";

/// Key of a ledger's record.
pub fn ledger(name: &str) -> Vec<u8> {
    [LEDGER_PREFIX, name.as_bytes()].concat()
}

/// Prefix of the keys of the shards' newest turns.
pub(crate) const NEWEST_PREFIX: &[u8] = b"newest/";

/// Key of the name of the ledger of a shard's newest turn.
pub fn newest(slot: u8) -> Vec<u8> {
    [NEWEST_PREFIX, &[slot]].concat()
}

/// Returns the shard's slot in the key of a newest turn.
pub(crate) fn newest_slot(key: &[u8]) -> Option<u8> {
    match key.strip_prefix(NEWEST_PREFIX)? {
        [slot] => Some(*slot),
        _ => None,
    }
}

/// Key of the record of a partition's newest turn.
pub(crate) fn turn(partition: u8) -> Vec<u8> {
    [&b"turn/"[..], &[partition]].concat()
}

/// Kinds in the heads family.
const HEAD_AT: u8 = 0x01;
const HEAD_LATEST: u8 = 0x02;
const TREE_LATEST: u8 = 0x03;

/// Kinds in the state family.
const SESSION: u8 = 0x01;
const RUN: u8 = 0x02;
const TRUST: u8 = 0x03;
const CELL: u8 = 0x04;
const DUE: u8 = 0x05;
const FINDING: u8 = 0x06;

/// Kinds in the index family.
const LEAF_HASH: u8 = 0x01;
const TERMS: u8 = 0x02;
const TIMES: u8 = 0x03;

/// Kinds in the content family.
const CONTENT: u8 = 0x01;
const CHUNK: u8 = 0x02;
const UPLOAD: u8 = 0x03;
const REFERENCE: u8 = 0x04;
const ERASED: u8 = 0x05;
const ERASING: u8 = 0x06;

const ENTRIES_LEN: usize = 4 + 8;
const TILE_LEN: usize = 4 + 1 + 8;
const HEAD_LEN: usize = 4 + 1 + 8;
const SESSION_LEN: usize = 4 + 1 + SessionId::LEN;
const RUN_LEN: usize = SESSION_LEN + 8;
const TRUST_LEN: usize = 4 + 1 + 8;
const FINDING_LEN: usize = 4 + 1 + 8 + 4;
const BUCKET_LEN: usize = 4 + 1 + 8 + 1;
const TIMES_LEN: usize = 4 + 1 + 8;
const CONTENT_LEN: usize = 4 + 1 + CommitmentDigest::LEN;
const CHUNK_LEN: usize = CONTENT_LEN + UploadId::LEN + 4;
const UPLOAD_LEN: usize = 4 + 1 + UploadId::LEN;
const REFERENCE_LEN: usize = CONTENT_LEN + 8;
const DATA_KEY_LEN: usize = 4 + CommitmentDigest::LEN;

/// Joins the parts of a key to an array of exactly their length.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    let mut at = 0;
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, N, "the parts fill the key");
    key
}

/// Prefix of the keys of all records of one ledger.
pub(crate) fn ledger_prefix(ledger: LedgerNumber) -> [u8; 4] {
    ledger.0.to_be_bytes()
}

/// Key of the pack of entries that begins with leaf `first`.
pub fn entries(ledger: LedgerNumber, first: u64) -> [u8; ENTRIES_LEN] {
    join(&[&ledger.0.to_be_bytes(), &first.to_be_bytes()])
}

/// Returns the index of the first leaf in the pack under `key`.
pub(crate) fn entries_first(key: &[u8]) -> Option<u64> {
    tail(key, ENTRIES_LEN)
}

/// Key of a full tile.
pub fn tile(ledger: LedgerNumber, level: u8, index: u64) -> [u8; TILE_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[level], &index.to_be_bytes()])
}

/// Returns level and index of the tile under `key`.
pub(crate) fn tile_of(key: &[u8]) -> Option<(u8, u64)> {
    Some((*key.get(4)?, tail(key, TILE_LEN)?))
}

/// Key of a kept tree head.
pub(crate) fn head_at(ledger: LedgerNumber, size: u64) -> [u8; HEAD_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[HEAD_AT], &size.to_be_bytes()])
}

/// Key of the newest signed tree head. It is overwritten: a tombstone for each turn would cost
/// compactions.
pub(crate) fn head_latest(ledger: LedgerNumber) -> [u8; HEAD_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[HEAD_LATEST], &[0; 8]])
}

/// Key of the newest tree, which may not be signed yet. It is overwritten.
pub(crate) fn tree_latest(ledger: LedgerNumber) -> [u8; HEAD_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[TREE_LATEST], &[0; 8]])
}

/// Returns the size in a kept head's key; `None` for the newest head and tree.
pub(crate) fn head_size(key: &[u8]) -> Option<u64> {
    if *key.get(4)? == HEAD_AT {
        tail(key, HEAD_LEN)
    } else {
        None
    }
}

/// Key of a session's record.
pub fn session(ledger: LedgerNumber, session: &SessionId) -> [u8; SESSION_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[SESSION], session.as_bytes()])
}

/// Key of a run of a session: consecutive sequences in consecutive leaves.
pub fn run(ledger: LedgerNumber, session: &SessionId, first: Sequence) -> [u8; RUN_LEN] {
    join(&[
        &ledger.0.to_be_bytes(),
        &[RUN],
        session.as_bytes(),
        &first.get().to_be_bytes(),
    ])
}

/// Prefix of the keys of a session's runs.
pub(crate) fn run_prefix(key: &[u8; RUN_LEN]) -> &[u8] {
    &key[..SESSION_LEN]
}

/// Returns the first sequence of the run under `key`.
pub(crate) fn run_first(key: &[u8]) -> Option<Sequence> {
    tail(key, RUN_LEN).map(Sequence::new)
}

/// Key of a trust statement's record.
pub fn trust(ledger: LedgerNumber, leaf: u64) -> [u8; TRUST_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[TRUST], &leaf.to_be_bytes()])
}

/// Returns the leaf in the key of a trust statement; `None` if the key is of another kind.
pub(crate) fn trust_leaf(key: &[u8]) -> Option<u64> {
    if *key.get(4)? == TRUST {
        tail(key, TRUST_LEN)
    } else {
        None
    }
}

/// Key of a finding, with its leaf and its number at that leaf.
pub fn finding(ledger: LedgerNumber, leaf: u64, number: u32) -> [u8; FINDING_LEN] {
    join(&[
        &ledger.0.to_be_bytes(),
        &[FINDING],
        &leaf.to_be_bytes(),
        &number.to_be_bytes(),
    ])
}

/// Key of a cell of the assessment. Findings have a kind of their own, so that they can be listed.
pub fn cell(ledger: LedgerNumber, cell: &CellKey) -> Vec<u8> {
    match cell {
        CellKey::Finding(leaf, number) => finding(ledger, *leaf, *number).to_vec(),
        _ => [&ledger.0.to_be_bytes(), &[CELL][..], &cell.to_bytes()].concat(),
    }
}

/// Key of a timer.
pub fn due(ledger: LedgerNumber, due: &Timer) -> Vec<u8> {
    [&ledger.0.to_be_bytes(), &[DUE][..], &due.to_bytes()].concat()
}

/// Prefix of the keys of a ledger's timers.
pub(crate) fn due_prefix(ledger: LedgerNumber) -> Vec<u8> {
    [&ledger.0.to_be_bytes(), &[DUE][..]].concat()
}

/// Returns the part of the key that names the cell or timer.
pub(crate) fn behind_kind(key: &[u8]) -> &[u8] {
    key.get(5..).unwrap_or_default()
}

/// Returns leaf and number in the key of a finding; `None` if the key is of another kind.
pub(crate) fn finding_at(key: &[u8]) -> Option<(u64, u32)> {
    if key.len() != FINDING_LEN || *key.get(4)? != FINDING {
        return None;
    }
    let number = u32::from_be_bytes(*key.last_chunk()?);
    Some((tail(&key[..FINDING_LEN - 4], FINDING_LEN - 4)?, number))
}

/// Describes a key of the state family, for messages.
pub(crate) fn state_name(key: &[u8]) -> String {
    let what = match key.get(4).copied() {
        Some(SESSION | RUN | TRUST) | None => "record",
        Some(CELL) => "cell",
        Some(DUE) => "deadline",
        Some(FINDING) => "finding",
        Some(_) => "unknown record",
    };
    format!("{what} {}", hex::encode(key))
}

/// Key of one bucket of a segment's leaf hashes.
pub(crate) fn leaf_hash_bucket(ledger: LedgerNumber, segment: u64, bucket: u8) -> [u8; BUCKET_LEN] {
    bucket_of(ledger, LEAF_HASH, segment, bucket)
}

/// Key of one bucket of a segment's terms.
pub(crate) fn term_bucket(ledger: LedgerNumber, segment: u64, bucket: u8) -> [u8; BUCKET_LEN] {
    bucket_of(ledger, TERMS, segment, bucket)
}

fn bucket_of(ledger: LedgerNumber, kind: u8, segment: u64, bucket: u8) -> [u8; BUCKET_LEN] {
    join(&[
        &ledger.0.to_be_bytes(),
        &[kind],
        &segment.to_be_bytes(),
        &[bucket],
    ])
}

/// Key of the effective times in a segment.
pub fn times(ledger: LedgerNumber, segment: u64) -> [u8; TIMES_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[TIMES], &segment.to_be_bytes()])
}

/// Returns the segment in the key of effective times; `None` if the key is of another kind.
pub(crate) fn times_segment(key: &[u8]) -> Option<u64> {
    if *key.get(4)? == TIMES {
        tail(key, TIMES_LEN)
    } else {
        None
    }
}

/// Returns the first possible key of a ledger's records, and a key beyond them all.
pub(crate) fn whole_ledger(ledger: LedgerNumber) -> ([u8; 4], [u8; 5]) {
    (
        ledger_prefix(ledger),
        join(&[&ledger.0.to_be_bytes(), &[u8::MAX]]),
    )
}

/// Key of a content's record.
pub fn content(ledger: LedgerNumber, digest: &CommitmentDigest) -> [u8; CONTENT_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[CONTENT], digest.as_bytes()])
}

/// Returns the digest in the key of a content's record; `None` if the key is of another kind.
pub(crate) fn content_digest(key: &[u8]) -> Option<CommitmentDigest> {
    digest_of(key, CONTENT, CONTENT_LEN)
}

/// Key of one sealed piece of a content.
pub fn chunk(
    ledger: LedgerNumber,
    digest: &CommitmentDigest,
    upload: &UploadId,
    number: u32,
) -> [u8; CHUNK_LEN] {
    join(&[
        &ledger.0.to_be_bytes(),
        &[CHUNK],
        digest.as_bytes(),
        upload.as_bytes(),
        &number.to_be_bytes(),
    ])
}

/// Key of an unfinished upload.
pub fn upload(ledger: LedgerNumber, upload: &UploadId) -> [u8; UPLOAD_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[UPLOAD], upload.as_bytes()])
}

/// Returns the upload in the key of an unfinished upload; `None` if the key is of another kind.
pub(crate) fn upload_id(key: &[u8]) -> Option<UploadId> {
    if key.len() != UPLOAD_LEN || *key.get(4)? != UPLOAD {
        return None;
    }
    Some(UploadId::new(*key.last_chunk()?))
}

/// Key of a leaf's reference to a content.
pub fn reference(
    ledger: LedgerNumber,
    digest: &CommitmentDigest,
    leaf: u64,
) -> [u8; REFERENCE_LEN] {
    join(&[
        &ledger.0.to_be_bytes(),
        &[REFERENCE],
        digest.as_bytes(),
        &leaf.to_be_bytes(),
    ])
}

/// Returns digest and leaf index in the key of a reference; `None` if the key is of another kind.
pub(crate) fn reference_of(key: &[u8]) -> Option<(CommitmentDigest, u64)> {
    let leaf = tail(key, REFERENCE_LEN)?;
    Some((
        digest_of(&key[..CONTENT_LEN], REFERENCE, CONTENT_LEN)?,
        leaf,
    ))
}

/// Key of the tombstone of an erased content.
pub fn erased(ledger: LedgerNumber, digest: &CommitmentDigest) -> [u8; CONTENT_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[ERASED], digest.as_bytes()])
}

/// Key of the mark of an erasure that is recorded and not finished.
pub fn erasing(ledger: LedgerNumber, digest: &CommitmentDigest) -> [u8; CONTENT_LEN] {
    join(&[&ledger.0.to_be_bytes(), &[ERASING], digest.as_bytes()])
}

/// Returns the digest in the key of an unfinished erasure; `None` if the key is of another kind.
pub(crate) fn erasing_digest(key: &[u8]) -> Option<CommitmentDigest> {
    digest_of(key, ERASING, CONTENT_LEN)
}

fn digest_of(key: &[u8], kind: u8, len: usize) -> Option<CommitmentDigest> {
    if key.len() != len || *key.get(4)? != kind {
        return None;
    }
    Some(CommitmentDigest::new(*key.last_chunk()?))
}

/// Key, in `content-keys`, of the value that identifies the right key file.
pub(crate) const KEY_CHECK: &[u8] = b"check";

/// Key, in `content-keys`, of a content's wrapped data key.
pub(crate) fn data_key(ledger: LedgerNumber, digest: &CommitmentDigest) -> [u8; DATA_KEY_LEN] {
    join(&[&ledger.0.to_be_bytes(), digest.as_bytes()])
}

/// Returns ledger and digest in the key of a data key; `None` for the check value.
pub(crate) fn data_key_of(key: &[u8]) -> Option<(LedgerNumber, CommitmentDigest)> {
    if key.len() != DATA_KEY_LEN {
        return None;
    }
    let ledger = u32::from_be_bytes(*key.first_chunk()?);
    Some((
        LedgerNumber(ledger),
        CommitmentDigest::new(*key.last_chunk()?),
    ))
}

fn tail(key: &[u8], len: usize) -> Option<u64> {
    if key.len() != len {
        return None;
    }
    Some(u64::from_be_bytes(*key.last_chunk::<8>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: LedgerNumber = LedgerNumber(0x0102_0304);
    const DIGEST: CommitmentDigest = CommitmentDigest::new([0xdd; 32]);
    const UPLOAD_1: UploadId = UploadId::new([0xee; 16]);

    /// The layout never changes: a change here is a migration.
    #[test]
    fn golden_keys() {
        let session_id = SessionId::new([0xaa; 16]);
        let a = "aa".repeat(16);
        let (d, u) = ("dd".repeat(32), "ee".repeat(16));
        for (key, golden) in [
            (
                hex::encode(entries(L, 5)),
                "010203040000000000000005".to_owned(),
            ),
            (
                hex::encode(tile(L, 2, 7)),
                "01020304020000000000000007".to_owned(),
            ),
            (
                hex::encode(head_at(L, 9)),
                "01020304010000000000000009".to_owned(),
            ),
            (
                hex::encode(head_latest(L)),
                "01020304020000000000000000".to_owned(),
            ),
            (
                hex::encode(tree_latest(L)),
                "01020304030000000000000000".to_owned(),
            ),
            (
                hex::encode(session(L, &session_id)),
                format!("0102030401{a}"),
            ),
            (
                hex::encode(run(L, &session_id, Sequence::new(3))),
                format!("0102030402{a}0000000000000003"),
            ),
            (
                hex::encode(trust(L, 6)),
                "01020304030000000000000006".to_owned(),
            ),
            (
                hex::encode(leaf_hash_bucket(L, 1, 0xfe)),
                "01020304010000000000000001fe".to_owned(),
            ),
            (
                hex::encode(finding(L, 7, 2)),
                "0102030406000000000000000700000002".to_owned(),
            ),
            (
                hex::encode(term_bucket(L, 1, 0xfe)),
                "01020304020000000000000001fe".to_owned(),
            ),
            (
                hex::encode(times(L, 1)),
                "01020304030000000000000001".to_owned(),
            ),
            (hex::encode(content(L, &DIGEST)), format!("0102030401{d}")),
            (
                hex::encode(chunk(L, &DIGEST, &UPLOAD_1, 6)),
                format!("0102030402{d}{u}00000006"),
            ),
            (hex::encode(upload(L, &UPLOAD_1)), format!("0102030403{u}")),
            (
                hex::encode(reference(L, &DIGEST, 9)),
                format!("0102030404{d}0000000000000009"),
            ),
            (hex::encode(erased(L, &DIGEST)), format!("0102030405{d}")),
            (hex::encode(erasing(L, &DIGEST)), format!("0102030406{d}")),
            (hex::encode(data_key(L, &DIGEST)), format!("01020304{d}")),
            (hex::encode(newest(3)), hex::encode(b"newest/\x03")),
            (hex::encode(turn(3)), hex::encode(b"turn/\x03")),
            (hex::encode(PARTITIONS), hex::encode(b"partitions")),
            (hex::encode(ledger("acme")), hex::encode(b"ledger/acme")),
        ] {
            assert_eq!(key, golden);
        }
    }

    #[test]
    fn keys_read_back() {
        assert_eq!(entries_first(&entries(L, u64::MAX)), Some(u64::MAX));
        assert_eq!(tile_of(&tile(L, 63, 8)), Some((63, 8)));
        assert_eq!(head_size(&head_at(L, 77)), Some(77));
        assert_eq!(head_size(&head_latest(L)), None);
        assert_eq!(head_size(&tree_latest(L)), None);
        assert_eq!(trust_leaf(&trust(L, 9)), Some(9));
        assert_eq!(trust_leaf(&session(L, &SessionId::new([3; 16]))), None);
        let key = run(L, &SessionId::new([1; 16]), Sequence::new(12));
        assert_eq!(run_first(&key), Some(Sequence::new(12)));
        assert_eq!(run_prefix(&key).len(), SESSION_LEN);
        assert_eq!(finding_at(&finding(L, 9, 1)), Some((9, 1)));
        assert_eq!(finding_at(&trust(L, 9)), None);
        assert_eq!(times_segment(&times(L, 9)), Some(9));
        assert_eq!(times_segment(&head_at(L, 9)), None);
        let (from, beyond) = whole_ledger(L);
        assert!(from[..] < times(L, 0)[..] && times(L, u64::MAX)[..] < beyond[..]);
        assert_eq!(entries_first(b"short"), None);
        assert_eq!(content_digest(&content(L, &DIGEST)), Some(DIGEST));
        assert_eq!(content_digest(&erased(L, &DIGEST)), None);
        assert_eq!(erasing_digest(&erasing(L, &DIGEST)), Some(DIGEST));
        assert_eq!(upload_id(&upload(L, &UPLOAD_1)), Some(UPLOAD_1));
        assert_eq!(reference_of(&reference(L, &DIGEST, 3)), Some((DIGEST, 3)));
        assert_eq!(reference_of(&content(L, &DIGEST)), None);
        assert_eq!(data_key_of(&data_key(L, &DIGEST)), Some((L, DIGEST)));
        assert_eq!(data_key_of(KEY_CHECK), None);
    }

    #[test]
    fn byte_order_is_number_order() {
        assert!(entries(L, 255) < entries(L, 256));
        assert!(entries(L, u64::MAX) < entries(LedgerNumber(L.0 + 1), 0));
        assert!(tile(L, 0, u64::MAX) < tile(L, 1, 0));
    }
}
