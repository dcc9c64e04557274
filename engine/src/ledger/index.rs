//! The index of leaf hashes, which finds a leaf by its hash.
//!
//! The index is derived: a background thread writes one segment for each 65,536 leaves once their
//! tiles are full, so commits pay nothing for it. A segment has 256 buckets by the hash's first
//! byte; a bucket is the sorted list of (next 6 bytes of the hash, offset in the segment as u16), 8
//! bytes each. A lookup reads one bucket of each segment (2 KiB), checks the candidates against the
//! tile, and scans the tiles beyond the last segment. The whole index can be deleted and built
//! again.

use std::{collections::BTreeMap, sync::Arc};

use deed_tlog::{EdgeReader, Hash, LeafIndex, TileId, TileReader};

use super::{PublishedTree, Tree};
use crate::store::{Batch, Family, LedgerNumber, Store, StoreError, keys};

/// Leaves of a segment: those under one full tile of level 1.
pub(crate) const SEGMENT_LEAVES: u64 = 65_536;

/// Leaves of a tile of level 0.
const TILE_LEAVES: u64 = 256;

/// Bytes of the hash in a record of a bucket; the first byte is in the key.
const PREFIX_BYTES: usize = 6;
const RECORD_BYTES: usize = PREFIX_BYTES + 2;

/// Returns the lowest leaf with this hash in the published tree.
pub fn find(
    store: &Arc<Store>,
    ledger: LedgerNumber,
    readable: &PublishedTree,
    hash: &Hash,
) -> Result<Option<LeafIndex>, StoreError> {
    let size = readable.size().get();
    let mut from = 0;
    while from + SEGMENT_LEAVES <= size {
        let Some(candidates) = candidates(store, ledger, from / SEGMENT_LEAVES, hash)? else {
            // This segment is not written yet, and so is none after it.
            break;
        };
        for leaf in candidates {
            let tile = leaf_tile(store, ledger, readable, leaf / TILE_LEAVES)?;
            if tile.get((leaf % TILE_LEAVES) as usize) == Some(hash) {
                return Ok(Some(LeafIndex::new(leaf)));
            }
        }
        from += SEGMENT_LEAVES;
    }
    for index in from / TILE_LEAVES..size.div_ceil(TILE_LEAVES) {
        let tile = leaf_tile(store, ledger, readable, index)?;
        if let Some(position) = tile.iter().position(|found| found == hash) {
            return Ok(Some(LeafIndex::new(index * TILE_LEAVES + position as u64)));
        }
    }
    Ok(None)
}

/// Returns the leaves of a segment that may have this hash, ascending; `None` if the segment is not
/// indexed.
fn candidates(
    store: &Store,
    ledger: LedgerNumber,
    segment: u64,
    hash: &Hash,
) -> Result<Option<Vec<u64>>, StoreError> {
    let hash = hash.as_bytes();
    let Some(bucket) = store.leaf_hash_bucket(ledger, segment, hash[0])? else {
        return Ok(None);
    };
    let (records, rest) = bucket.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        let what = format!("a bucket of segment {segment} is damaged");
        return Err(StoreError::corrupt(Family::Index, ledger, what));
    }
    let wanted = &hash[1..=PREFIX_BYTES];
    let first = records.partition_point(|record| &record[..PREFIX_BYTES] < wanted);
    let leaves = records[first..]
        .iter()
        .take_while(|record| &record[..PREFIX_BYTES] == wanted)
        .map(|record| {
            let offset = u16::from_be_bytes([record[PREFIX_BYTES], record[PREFIX_BYTES + 1]]);
            segment * SEGMENT_LEAVES + u64::from(offset)
        })
        .collect();
    Ok(Some(leaves))
}

/// Returns true if a segment has been written.
pub(crate) fn is_indexed(
    store: &Store,
    ledger: LedgerNumber,
    segment: u64,
) -> Result<bool, StoreError> {
    // The last bucket of a segment is written in the same batch as all others.
    Ok(store.leaf_hash_bucket(ledger, segment, u8::MAX)?.is_some())
}

/// Computes the buckets of a segment from its 65,536 leaf hashes. Every bucket is there, even if
/// empty.
pub(crate) fn buckets(leaf_hashes: &[Hash]) -> BTreeMap<u8, Vec<u8>> {
    let mut buckets: BTreeMap<u8, Vec<[u8; RECORD_BYTES]>> =
        (0..=u8::MAX).map(|bucket| (bucket, Vec::new())).collect();
    for (offset, hash) in (0_u16..=u16::MAX).zip(leaf_hashes) {
        let hash = hash.as_bytes();
        let mut record = [0; RECORD_BYTES];
        record[..PREFIX_BYTES].copy_from_slice(&hash[1..=PREFIX_BYTES]);
        record[PREFIX_BYTES..].copy_from_slice(&offset.to_be_bytes());
        buckets.entry(hash[0]).or_default().push(record);
    }
    buckets
        .into_iter()
        .map(|(bucket, mut records)| {
            records.sort_unstable();
            (bucket, records.concat())
        })
        .collect()
}

/// Writes a complete segment, unless it exists.
pub(crate) fn write_segment(
    store: &Arc<Store>,
    ledger: LedgerNumber,
    tree: &Tree,
    segment: u64,
) -> Result<(), StoreError> {
    if is_indexed(store, ledger, segment)? {
        return Ok(());
    }
    let reader = EdgeReader::new(&tree.edge, store.full_tiles(ledger));
    let leaf_hashes = leaf_hashes(&reader, segment)?;
    let mut batch = Batch::default();
    for (bucket, records) in buckets(&leaf_hashes) {
        let key = keys::leaf_hash_bucket(ledger, segment, bucket);
        store.put(&mut batch, Family::Index, &key, &records);
    }
    store.commit_derived(batch)
}

/// Returns the leaf hashes of a complete segment.
pub(crate) fn leaf_hashes(
    reader: &impl TileReader<Error = StoreError>,
    segment: u64,
) -> Result<Vec<Hash>, StoreError> {
    let first = segment * SEGMENT_LEAVES / TILE_LEAVES;
    let tiles: Vec<TileId> = (first..first + SEGMENT_LEAVES / TILE_LEAVES)
        .filter_map(|index| TileId::full(0, index).ok())
        .collect();
    let hashes = reader.read_tiles(&tiles)?;
    Ok(hashes
        .iter()
        .flat_map(|tile| tile.iter().copied())
        .collect())
}

/// Returns the leaf hashes of tile `index` of level 0, as far as the tree has them.
fn leaf_tile(
    store: &Arc<Store>,
    ledger: LedgerNumber,
    tree: &Tree,
    index: u64,
) -> Result<Vec<Hash>, StoreError> {
    let missing =
        || StoreError::corrupt(Family::Tiles, ledger, format!("tile 0 {index} is missing"));
    let id = TileId::in_tree(0, index, tree.size()).ok_or_else(missing)?;
    let reader = EdgeReader::new(&tree.edge, store.full_tiles(ledger));
    let tiles = reader.read_tiles(&[id])?;
    let tile = tiles
        .first()
        .and_then(|tile| tile.get(..usize::from(id.width())));
    Ok(tile.ok_or_else(missing)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_every_bucket_and_every_leaf_once() {
        let hashes: Vec<Hash> = (0..SEGMENT_LEAVES)
            .map(|leaf| deed_tlog::leaf_hash(&leaf.to_be_bytes()))
            .collect();
        let buckets = buckets(&hashes);
        assert_eq!(buckets.len(), 256);
        let mut seen = vec![false; hashes.len()];
        for (first_byte, records) in buckets {
            let (records, rest) = records.as_chunks::<RECORD_BYTES>();
            assert!(rest.is_empty());
            assert!(records.is_sorted());
            for record in records {
                let offset = usize::from(u16::from_be_bytes([record[6], record[7]]));
                let hash = hashes[offset].as_bytes();
                assert_eq!(hash[0], first_byte);
                assert_eq!(hash[1..7], record[..6]);
                assert!(!std::mem::replace(&mut seen[offset], true));
            }
        }
        assert!(seen.into_iter().all(|seen| seen));
    }

    #[test]
    fn leaves_are_found_by_hash_in_segments_and_beyond() {
        use crate::testing::{Engine, Producer};
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let ledger = engine.create("indexed").unwrap();
        let mut producer = Producer::new(ledger.id, 1);
        let mut leaf_hashes = vec![*ledger.id.hash()];
        while leaf_hashes.len() < 70_000 {
            let envelopes = (0..4000).map(|_| producer.intent("r")).collect();
            let answer = engine.append("indexed", envelopes).unwrap();
            leaf_hashes.extend(answer.results.iter().map(|result| match &result.result {
                Some(deed_proto::v1::append_result::Result::Accepted(receipt)) => {
                    Hash::try_from(&receipt.leaf_hash[..]).unwrap()
                }
                other => panic!("{other:?}"),
            }));
        }
        let readable = ledger.readable();
        let find = |hash: &Hash| find(&engine.store, ledger.number, &readable, hash).unwrap();
        let probes: Vec<usize> = [0, 1, 255, 256, 65_535, 65_536, leaf_hashes.len() - 1]
            .into_iter()
            .chain((0..leaf_hashes.len()).step_by(997))
            .collect();
        // The scan and the index find the same leaves.
        for indexed in [false, true] {
            assert_eq!(
                is_indexed(&engine.store, ledger.number, 0).unwrap(),
                indexed
            );
            // Scanning 70,000 leaves for each probe would take too long.
            let step = if indexed { 1 } else { 20 };
            for &leaf in probes.iter().step_by(step) {
                let found = find(&leaf_hashes[leaf]);
                assert_eq!(
                    found,
                    Some(LeafIndex::new(leaf as u64)),
                    "indexed: {indexed}"
                );
            }
            assert_eq!(find(&deed_tlog::leaf_hash(b"not there")), None);
            write_segment(&engine.store, ledger.number, &readable, 0).unwrap();
        }
        engine.close();
        let report = crate::offline::fsck::check(dir.path(), &mut |_| {}).unwrap();
        assert_eq!(report.leaves, leaf_hashes.len() as u64);
    }
}
