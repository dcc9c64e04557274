//! A store of full tiles, as the server has one, and readers that misbehave.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use deed_tlog::{EdgeReader, FullTile, Hash, RightEdge, TileHashes, TileId, TileReader};

/// Full tiles, which know how often they were read. Reading a partial tile is an error.
#[derive(Default)]
pub(crate) struct Store {
    tiles: HashMap<(u8, u64), TileHashes>,
    pub(crate) reads: Cell<usize>,
    pub(crate) asked: RefCell<Vec<TileId>>,
}

#[derive(Debug, thiserror::Error)]
#[error("no such tile: {0}")]
pub(crate) struct NoSuchTile(TileId);

impl Store {
    pub(crate) fn put(&mut self, tile: FullTile) {
        assert_eq!(tile.hashes.len(), 256);
        assert_eq!(tile.to_bytes().len(), 8192);
        let before = self
            .tiles
            .insert((tile.level, tile.index), Arc::new(tile.hashes));
        assert!(before.is_none(), "a full tile is emitted once");
    }

    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }
}

impl TileReader for Store {
    type Error = NoSuchTile;

    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, NoSuchTile> {
        self.reads.set(self.reads.get() + 1);
        self.asked.borrow_mut().extend(tiles);
        let read = |tile: &TileId| {
            let found = self.tiles.get(&(tile.level(), tile.index())).cloned();
            found.filter(|_| tile.is_full()).ok_or(NoSuchTile(*tile))
        };
        tiles.iter().map(read).collect()
    }
}

/// A tree with its storage.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) edge: RightEdge,
    pub(crate) store: Store,
}

impl Tree {
    pub(crate) fn of(leaves: &[Hash]) -> Tree {
        let mut tree = Tree::default();
        tree.append(leaves);
        tree
    }

    pub(crate) fn append(&mut self, leaves: &[Hash]) {
        let Tree { edge, store } = self;
        edge.append(leaves, &mut |tile| store.put(tile));
    }

    pub(crate) fn reader(&self) -> EdgeReader<'_, &Store> {
        EdgeReader::new(&self.edge, &self.store)
    }
}

/// Changes what another reader returns.
pub(crate) struct Tampered<R, F>(pub(crate) R, pub(crate) F);

impl<R: TileReader, F: Fn(&mut Vec<TileHashes>)> TileReader for Tampered<R, F> {
    type Error = R::Error;

    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, R::Error> {
        let mut read = self.0.read_tiles(tiles)?;
        (self.1)(&mut read);
        Ok(read)
    }
}
