//! The places of a proof's hashes: from leaf ranges to perfect subtrees to tiles.

use std::ops::Range;

use crate::frontier::fold_right;
use crate::hash::{Hash, node_hash};
use crate::tile::{
    TILE_HEIGHT, TILE_WIDTH, TileHashes, TileId, TileReadError, TileReader, entries_at,
    read_checked,
};

/// Computes MTH over each of the leaf ranges of the tree of `size` leaves, reading every
/// tile once and all of them in one batch.
///
/// The ranges must be ones into which RFC 6962 splits a tree: none is empty, and each starts at a
/// multiple of the largest power of two that is not longer than it.
pub(crate) fn subtree_roots<R: TileReader>(
    ranges: &[Range<u64>],
    size: u64,
    reader: &R,
) -> Result<Vec<Hash>, TileReadError<R::Error>> {
    let mut ids: Vec<TileId> = ranges
        .iter()
        .cloned()
        .flat_map(perfect_subtrees)
        .map(|node| node.tile(size))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let hashes = read_checked(reader, &ids)?;
    let mut tiles: Vec<InnerNodes> = hashes.into_iter().map(InnerNodes::new).collect();

    let mut subtree_root = |node: PerfectSubtree| {
        let position = ids
            .binary_search(&node.tile(size))
            .expect("every tile was planned");
        tiles[position].node(node.rank(), node.position_in_tile())
    };
    let roots = ranges.iter().cloned().map(|range| {
        let nodes: Vec<Hash> = perfect_subtrees(range).map(&mut subtree_root).collect();
        fold_right(&nodes).expect("no range is empty")
    });
    Ok(roots.collect())
}

/// Returns the root over the 256 hashes of a full tile, which is an entry of the level above.
pub(crate) fn full_tile_root(hashes: &[Hash]) -> Hash {
    let mut level = [Hash::new([0; Hash::LEN]); TILE_WIDTH as usize / 2];
    let (pairs, _) = hashes[..TILE_WIDTH as usize].as_chunks::<2>();
    for (parent, [left, right]) in level.iter_mut().zip(pairs) {
        *parent = node_hash(left, right);
    }
    let mut width = level.len();
    while width > 1 {
        width /= 2;
        for i in 0..width {
            level[i] = node_hash(&level[2 * i], &level[2 * i + 1]);
        }
    }
    level[0]
}

/// A subtree of 2^height leaves: the one at zero-based position `index` among those of its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PerfectSubtree {
    height: u32,
    index: u64,
}

/// Splits a range of leaves into perfect subtrees, the largest (leftmost) first.
fn perfect_subtrees(range: Range<u64>) -> impl Iterator<Item = PerfectSubtree> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let height = (range.end - start).checked_ilog2()?;
        let subtree = PerfectSubtree {
            height,
            index: start >> height,
        };
        start += 1 << height;
        Some(subtree)
    })
}

impl PerfectSubtree {
    /// Returns the tile from which the subtree's root is computed, as wide as it is in the tree of
    /// `size` leaves.
    fn tile(&self, size: u64) -> TileId {
        let level = (self.height / TILE_HEIGHT) as u8;
        let index = self.first_entry() / u64::from(TILE_WIDTH);
        let left = entries_at(level, size) - index * u64::from(TILE_WIDTH);
        let width = left.min(u64::from(TILE_WIDTH)) as u16;
        TileId::new(level, index, width).expect("a subtree of the tree lies in its tiles")
    }

    /// Returns the number of levels by which the subtree's root is above the entries of its tile: 0
    /// to 7.
    fn rank(&self) -> u32 {
        self.height % TILE_HEIGHT
    }

    /// Returns its position among the nodes of its rank in its tile.
    fn position_in_tile(&self) -> usize {
        (self.first_entry() % u64::from(TILE_WIDTH)) as usize >> self.rank()
    }

    /// Returns the position of its first entry in the level of its tile.
    fn first_entry(&self) -> u64 {
        self.index << self.rank()
    }
}

/// A tile, and those of its inner nodes that were needed so far. The paths of neighbouring leaves
/// share nearly all of them.
struct InnerNodes {
    entries: TileHashes,
    /// The node of rank r at position i is at (256 >> r) + i, as in a binary heap.
    known: Vec<Option<Hash>>,
}

impl InnerNodes {
    fn new(entries: TileHashes) -> InnerNodes {
        InnerNodes {
            entries,
            known: Vec::new(),
        }
    }

    fn node(&mut self, rank: u32, position: usize) -> Hash {
        if rank == 0 {
            return self.entries[position];
        }
        if self.known.is_empty() {
            self.known.resize(TILE_WIDTH as usize, None);
        }
        let slot = (TILE_WIDTH as usize >> rank) + position;
        if let Some(hash) = self.known[slot] {
            return hash;
        }
        let left = self.node(rank - 1, 2 * position);
        let right = self.node(rank - 1, 2 * position + 1);
        *self.known[slot].insert(node_hash(&left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_split_at_the_largest_power_of_two() {
        let split = |range| {
            perfect_subtrees(range)
                .map(|node| (node.height, node.index))
                .collect::<Vec<_>>()
        };
        assert_eq!(split(0..0), []);
        assert_eq!(split(0..1), [(0, 0)]);
        assert_eq!(split(0..11), [(3, 0), (1, 4), (0, 10)]);
        assert_eq!(split(8..11), [(1, 4), (0, 10)]);
        assert_eq!(split(0..u64::MAX).len(), 64);
        assert_eq!(split(1 << 63..u64::MAX)[0], (62, 2));
    }

    #[test]
    fn subtrees_are_found_in_their_tiles() {
        let subtree = |height, index, size| {
            let node = PerfectSubtree { height, index };
            let tile = node.tile(size);
            (
                tile.level(),
                tile.index(),
                tile.width(),
                node.rank(),
                node.position_in_tile(),
            )
        };
        assert_eq!(subtree(0, 300, 301), (0, 1, 45, 0, 44));
        assert_eq!(subtree(3, 33, 1000), (0, 1, 256, 3, 1));
        assert_eq!(subtree(8, 0, 256), (1, 0, 1, 0, 0));
        assert_eq!(subtree(15, 1, 65536), (1, 0, 256, 7, 1));
        assert_eq!(subtree(63, 0, u64::MAX), (7, 0, 255, 7, 0));
        assert_eq!(
            subtree(0, u64::MAX - 1, u64::MAX),
            (0, u64::MAX >> 8, 255, 0, 254)
        );
    }

    #[test]
    fn a_full_tile_folds_as_its_inner_nodes_do() {
        let entries: Vec<Hash> = (0..=255).map(|i| Hash::new([i; 32])).collect();
        let mut inner = InnerNodes::new(TileHashes::new(entries.clone()));
        let root = node_hash(&inner.node(7, 0), &inner.node(7, 1));
        assert_eq!(full_tile_root(&entries), root);
        let mut frontier = crate::Frontier::new();
        frontier.extend(&entries);
        assert_eq!(frontier.root(), root);
    }
}
