//! The right edge of a growing tree: its partial tiles.

use std::sync::Arc;

use thiserror::Error;

use crate::frontier::{Frontier, fold_right};
use crate::hash::{EMPTY_ROOT, Hash};
use crate::plan::full_tile_root;
use crate::size::{TreeHead, TreeSize};
use crate::tile::{
    TILE_WIDTH, TileHashes, TileId, TileReadError, TileReader, entries_at, read_checked, tile_bytes,
};

const WIDTH: usize = TILE_WIDTH as usize;

/// The partial tile of every level, and with them the frontier.
///
/// A tree grows by appending to its right edge: it returns full tiles, to be stored, and keeps less
/// than 8 KiB for each level, of which there is one for each factor of 256. A clone shares the
/// tiles with the original until that grows, so it is a cheap snapshot for readers: see
/// [`EdgeReader`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    /// The levels, level 0 first. Invariant: level l holds the last `(size >> 8 l) % 256` entries,
    /// and there are no levels above the highest that has an entry.
    levels: Vec<Level>,
}

/// A tile that became full. It never changes again, and is stored once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullTile {
    /// The level, 0 for leaf hashes, at most 7.
    pub level: u8,
    /// The position in the level.
    pub index: u64,
    /// Exactly 256 hashes.
    pub hashes: Vec<Hash>,
}

impl FullTile {
    /// Returns the tile as it is stored and served: 8192 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        tile_bytes(&self.hashes)
    }

    /// Returns the name of the tile.
    #[must_use]
    pub fn id(&self) -> TileId {
        TileId::full(self.level, self.index).expect("a tree has 8 levels of tiles")
    }
}

/// The reason for which a right edge could not be rebuilt from stored tiles.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RebuildError<E> {
    /// The number of leaf hashes is not that of the partial tile of level 0.
    #[error("tree of size {size} ends with {wanted} leaves in a partial tile, found {found}")]
    TailLength {
        /// The size of the tree.
        size: TreeSize,
        /// `size % 256`.
        wanted: usize,
        /// Leaf hashes that were given.
        found: usize,
    },
    /// The full tiles could not be read.
    #[error(transparent)]
    Tiles(#[from] TileReadError<E>),
}

impl RightEdge {
    /// Returns the edge of the tree without leaves.
    #[must_use]
    pub const fn new() -> RightEdge {
        RightEdge {
            size: 0,
            levels: Vec::new(),
        }
    }

    /// Returns the number of leaves appended.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        TreeSize::new(self.size)
    }

    /// Returns the root hash over all leaves; [`EMPTY_ROOT`] without any. Takes at most 63 node
    /// hashes.
    #[must_use]
    pub fn root(&self) -> Hash {
        // The subtrees of the top level are the largest and leftmost ones.
        let nodes: Vec<&Hash> = self
            .levels
            .iter()
            .rev()
            .flat_map(|level| level.frontier.nodes())
            .collect();
        fold_right(nodes).unwrap_or(EMPTY_ROOT)
    }

    /// Returns size and root together.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead::new(self.size(), self.root())
    }

    /// Returns the frontier of the whole tree.
    #[must_use]
    pub fn frontier(&self) -> Frontier {
        let nodes = self
            .levels
            .iter()
            .rev()
            .flat_map(|level| level.frontier.nodes());
        Frontier::from_nodes(self.size(), nodes.copied().collect())
            .expect("the levels hold a subtree for every one bit of the size")
    }

    /// Appends leaf hashes and passes the tiles that became full to `on_full`.
    ///
    /// Each full tile is passed exactly once: all of level 0 first, then level 1 and so on, in
    /// ascending order within a level, which is the order of their keys in storage. Takes one node
    /// hash for each leaf.
    ///
    /// # Panics
    /// If the tree would have more than 2^64 - 1 leaves.
    pub fn append(&mut self, leaves: &[Hash], on_full: &mut impl FnMut(FullTile)) {
        let old_size = self.size;
        self.size = u64::try_from(leaves.len())
            .ok()
            .and_then(|count| old_size.checked_add(count))
            .expect("a tree has fewer than 2^64 leaves");

        let mut roots = self.append_at(0, old_size, leaves, on_full);
        for level in 1.. {
            if roots.is_empty() {
                break;
            }
            roots = self.append_at(level, old_size, &roots, on_full);
        }
    }

    /// Returns the entries of partial tile `index` of `level`; `None` unless that is the level's
    /// current partial tile and not empty.
    #[must_use]
    pub fn partial(&self, level: u8, index: u64) -> Option<&[Hash]> {
        self.partial_tile(level, index).map(|tile| tile.as_slice())
    }

    /// Returns the same as [`partial`](RightEdge::partial), shared instead of borrowed.
    #[must_use]
    pub fn shared_partial(&self, level: u8, index: u64) -> Option<TileHashes> {
        self.partial_tile(level, index).cloned()
    }

    /// Returns the current partial tiles that are not empty, level 0 first.
    pub fn partials(&self) -> impl Iterator<Item = (TileId, &TileHashes)> {
        (0u8..)
            .zip(&self.levels)
            .filter_map(|(level, Level { tile, .. })| {
                let width = u16::try_from(tile.len()).ok()?;
                Some((
                    TileId::new(level, tile_index(level, self.size), width).ok()?,
                    tile,
                ))
            })
    }

    /// Rebuilds the edge of the tree of `size` leaves after a restart.
    ///
    /// `tail` are the leaf hashes of the last `size % 256` leaves. Everything else comes from
    /// the roots of full tiles: at most 255 for each level, read in one batch, 255 node
    /// hashes each. The root of the result is only as good as the tiles, so compare it with
    /// a signed head.
    ///
    /// # Errors
    /// [`RebuildError::TailLength`] and [`RebuildError::Tiles`].
    pub fn rebuild<R: TileReader>(
        size: TreeSize,
        tail: &[Hash],
        reader: &R,
    ) -> Result<RightEdge, RebuildError<R::Error>> {
        let wanted = (size.get() % WIDTH as u64) as usize;
        if tail.len() != wanted {
            return Err(RebuildError::TailLength {
                size,
                wanted,
                found: tail.len(),
            });
        }
        // The entries of a partial tile at level l are the roots of full tiles at level l - 1.
        let ids: Vec<TileId> = (1..8)
            .flat_map(|level| {
                let entries = entries_at(level, size.get());
                let partial = entries - entries % WIDTH as u64..entries;
                partial.map(move |entry| TileId::full(level - 1, entry).expect("level below 8"))
            })
            .collect();
        let tiles = read_checked(reader, &ids)?;

        let level_count = (0..8)
            .take_while(|&level| entries_at(level, size.get()) > 0)
            .count();
        let mut levels = vec![Level::default(); level_count];
        if let Some(lowest) = levels.first_mut() {
            lowest.extend(tail);
        }
        for (id, hashes) in ids.iter().zip(&tiles) {
            levels[usize::from(id.level()) + 1].extend(&[full_tile_root(hashes)]);
        }
        Ok(RightEdge {
            size: size.get(),
            levels,
        })
    }

    /// Appends entries to a level and returns the roots of the tiles that became full, which
    /// are new entries of the level above.
    fn append_at(
        &mut self,
        level: u8,
        old_size: u64,
        entries: &[Hash],
        on_full: &mut impl FnMut(FullTile),
    ) -> Vec<Hash> {
        if entries.is_empty() {
            return Vec::new();
        }
        if self.levels.len() <= usize::from(level) {
            self.levels.push(Level::default());
        }
        let edge = &mut self.levels[usize::from(level)];
        let mut index = tile_index(level, old_size);
        let mut roots = Vec::with_capacity((edge.tile.len() + entries.len()) / WIDTH);

        let (first, rest) = entries.split_at(entries.len().min(WIDTH - edge.tile.len()));
        for chunk in std::iter::once(first).chain(rest.chunks(WIDTH)) {
            edge.extend(chunk);
            if let Some((root, hashes)) = edge.take_full() {
                on_full(FullTile {
                    level,
                    index,
                    hashes,
                });
                roots.push(root);
                index += 1;
            }
        }
        roots
    }

    fn partial_tile(&self, level: u8, index: u64) -> Option<&TileHashes> {
        let tile = &self.levels.get(usize::from(level))?.tile;
        (!tile.is_empty() && index == tile_index(level, self.size)).then_some(tile)
    }
}

/// Returns the position of the partial tile of a level in the tree of `size` leaves.
fn tile_index(level: u8, size: u64) -> u64 {
    entries_at(level, size) / WIDTH as u64
}

/// The partial tile of one level, with the frontier over its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Level {
    /// The entries: fewer than 256, except between `extend` and `take_full`.
    tile: TileHashes,
    frontier: Frontier,
}

impl Level {
    fn extend(&mut self, entries: &[Hash]) {
        Arc::make_mut(&mut self.tile).extend_from_slice(entries);
        self.frontier.extend(entries);
    }

    /// Takes out the tile and its root if it is full.
    fn take_full(&mut self) -> Option<(Hash, Vec<Hash>)> {
        if self.tile.len() < WIDTH {
            return None;
        }
        let root = self.frontier.take_perfect()?;
        Some((root, Arc::unwrap_or_clone(std::mem::take(&mut self.tile))))
    }
}

/// Reads partial tiles from a right edge and full ones from storage: all tiles of the tree
/// that the edge belongs to, as long as storage has every full tile that it handed out.
#[derive(Debug, Clone, Copy)]
pub struct EdgeReader<'a, R> {
    edge: &'a RightEdge,
    full_tiles: R,
}

impl<'a, R: TileReader> EdgeReader<'a, R> {
    /// Combines an edge with a reader that is asked for full tiles only.
    #[must_use]
    pub const fn new(edge: &'a RightEdge, full_tiles: R) -> EdgeReader<'a, R> {
        EdgeReader { edge, full_tiles }
    }
}

impl<R: TileReader> TileReader for EdgeReader<'_, R> {
    type Error = R::Error;

    /// Tiles that the edge does not have are read from storage as full tiles, whatever their width:
    /// a tile that is partial in an older tree may be full by now.
    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, R::Error> {
        let on_edge = |tile: &TileId| self.edge.shared_partial(tile.level(), tile.index());
        let stored: Vec<TileId> = tiles
            .iter()
            .filter(|tile| self.edge.partial(tile.level(), tile.index()).is_none())
            .map(|tile| tile.to_full())
            .collect();
        let mut stored = match stored.as_slice() {
            [] => Vec::new(),
            stored => self.full_tiles.read_tiles(stored)?,
        }
        .into_iter();
        // A reader that returns too few tiles makes this too short, which the caller detects.
        Ok(tiles
            .iter()
            .map_while(|tile| on_edge(tile).or_else(|| stored.next()))
            .collect())
    }
}
