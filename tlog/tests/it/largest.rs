//! Trees as large as 64 bits can count: all of their leaves are the same, so every tile of a
//! level is, too, and none has to be stored.

use std::convert::Infallible;
use std::sync::Arc;

use deed_tlog::{
    Hash, LeafIndex, RightEdge, SizeRange, TileHashes, TileId, TileReader, TreeHead, TreeSize,
    leaf_hash, node_hash, prove_consistency, prove_inclusion, root_at, verify_consistency,
    verify_inclusion,
};

const SIZES: [u64; 14] = [
    1,
    3,
    1 << 16,
    (1 << 32) - 1,
    (1 << 32) + 1,
    (1 << 56) - 1,
    1 << 56,
    (1 << 56) + 0x1234_5678,
    (1 << 62) - 1,
    1 << 63,
    (1 << 63) + 1,
    0xaaaa_aaaa_aaaa_aaaa,
    u64::MAX - 1,
    u64::MAX,
];

struct Uniform {
    /// The root of the perfect tree of each height.
    perfect: Vec<Hash>,
}

impl Uniform {
    fn new() -> Uniform {
        let mut perfect = vec![leaf_hash(b"the same")];
        for height in 0..63 {
            perfect.push(node_hash(&perfect[height], &perfect[height]));
        }
        Uniform { perfect }
    }

    /// MTH by the one bits of the size, lowest first.
    fn head(&self, size: u64) -> TreeHead {
        let bits = (0..64).filter(|height| size >> height & 1 == 1);
        let root = bits
            .map(|height| self.perfect[height])
            .reduce(|right, left| node_hash(&left, &right));
        TreeHead::new(TreeSize::new(size), root.unwrap())
    }
}

impl TileReader for Uniform {
    type Error = Infallible;

    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, Infallible> {
        let read = |tile: &TileId| {
            let entry = self.perfect[8 * usize::from(tile.level())];
            Arc::new(vec![entry; tile.width().into()])
        };
        Ok(tiles.iter().map(read).collect())
    }
}

#[test]
fn roots_and_proofs() {
    let tree = Uniform::new();
    for size in SIZES {
        let head = tree.head(size);
        assert_eq!(root_at(head.size, &tree).unwrap(), head.root, "{size}");
        for index in [0, 1, size / 3, size / 2, size.saturating_sub(2), size - 1] {
            let index = LeafIndex::new(index);
            if !head.size.contains(index) {
                continue;
            }
            let proof = prove_inclusion(index, head.size, &tree).unwrap();
            verify_inclusion(&proof, &tree.perfect[0], index, &head).unwrap();
        }
        for old in SIZES.into_iter().chain([size / 3, size / 2, size - 1]) {
            if old == 0 || old > size {
                continue;
            }
            let old = tree.head(old);
            let range = SizeRange {
                old: old.size,
                new: head.size,
            };
            let proof = prove_consistency(range, &tree).unwrap();
            verify_consistency(&proof, &old, &head).unwrap();
        }
    }
}

#[test]
fn the_longest_proofs() {
    let tree = Uniform::new();
    let longest = prove_inclusion(LeafIndex::new(0), TreeSize::new(u64::MAX), &tree).unwrap();
    assert_eq!(longest.hashes().len(), 64);
    let range = SizeRange {
        old: TreeSize::new((1 << 63) - 1),
        new: TreeSize::new(u64::MAX),
    };
    assert_eq!(prove_consistency(range, &tree).unwrap().hashes().len(), 65);
    // Within what the witness protocol carries.
    let range = SizeRange {
        old: TreeSize::new((1 << 61) - 1),
        new: TreeSize::new(1 << 62),
    };
    assert_eq!(prove_consistency(range, &tree).unwrap().hashes().len(), 63);
}

#[test]
fn edges_rebuild_and_grow_to_the_last_leaf() {
    let tree = Uniform::new();
    let tail = [tree.perfect[0]; 255];
    let size = u64::MAX - 1;
    let mut edge = RightEdge::rebuild(TreeSize::new(size), &tail[1..], &tree).unwrap();
    assert_eq!(edge.head(), tree.head(size));
    edge.append(&tail[..1], &mut |tile| {
        panic!("{:?} is not full", tile.id())
    });
    assert_eq!(edge.head(), tree.head(u64::MAX));
    let rebuilt = RightEdge::rebuild(TreeSize::new(u64::MAX), &tail, &tree).unwrap();
    assert_eq!(edge, rebuilt);
    assert_eq!(edge.frontier().head(), edge.head());

    // All eight levels but the last fill up with one leaf.
    let mut edge = RightEdge::rebuild(TreeSize::new((1 << 56) - 1), &tail, &tree).unwrap();
    let mut levels = Vec::new();
    edge.append(&tail[..1], &mut |tile| {
        levels.push((tile.level, tile.index));
    });
    assert_eq!(
        levels,
        (0..7)
            .map(|level| (level, (1 << (48 - 8 * level)) - 1))
            .collect::<Vec<_>>()
    );
    assert_eq!(edge.head(), tree.head(1 << 56));
}

#[test]
#[should_panic(expected = "fewer than 2^64 leaves")]
fn there_is_no_larger_tree() {
    let tree = Uniform::new();
    let tail = [tree.perfect[0]; 255];
    let mut edge = RightEdge::rebuild(TreeSize::new(u64::MAX), &tail, &tree).unwrap();
    edge.append(&tail[..1], &mut |_| {});
}
