//! Reading a ledger: proofs, heads, tiles and entries, all as of one [`PublishedTree`].

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use deed_evidence::{Sequence, SessionId, session::Session};
use deed_tlog::{
    ConsistencyProof, EdgeReader, Hash, InclusionProof, LeafIndex, ProveError, SizeRange, TileId,
    TileReadError, TileReader as _, TreeHead, TreeSize, leaf_hash, prove_consistency,
    prove_inclusion, prove_inclusions, root_at, verify_consistency,
};
use thiserror::Error;

use super::{Ledger, PublishedTree, index};
use crate::store::{Family, StoreError, read::Run};

/// The reason why a read has no answer.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("{what} {asked} is beyond the tree, which has {size} leaves")]
    BeyondTree {
        what: &'static str,
        asked: u64,
        size: TreeSize,
    },
    #[error("{0}")]
    NotFound(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The consistency proofs that were made last. The requests that share a turn, and a client's
/// trusted head, mostly ask for the same few, and each takes some 60 us to make.
#[derive(Debug, Default)]
pub(super) struct ConsistencyProofs {
    newest_last: VecDeque<(SizeRange, ConsistencyProof)>,
}

impl ConsistencyProofs {
    const KEPT: usize = 16;

    fn find(&self, sizes: SizeRange) -> Option<ConsistencyProof> {
        let found = self.newest_last.iter().rev().find(|(of, _)| *of == sizes);
        found.map(|(_, proof)| proof.clone())
    }

    fn keep(&mut self, sizes: SizeRange, proof: ConsistencyProof) {
        if self.newest_last.len() == Self::KEPT {
            self.newest_last.pop_front();
        }
        self.newest_last.push_back((sizes, proof));
    }
}

impl Ledger {
    /// Returns the inclusion proof of leaf `index` in the tree of `size` leaves.
    pub fn inclusion(
        &self,
        readable: &PublishedTree,
        index: LeafIndex,
        size: TreeSize,
    ) -> Result<InclusionProof, ReadError> {
        self.check_size(readable, "tree size", size)?;
        let reader = EdgeReader::new(&readable.edge, self.store.full_tiles(self.number));
        prove_inclusion(index, size, &reader).map_err(|error| self.prove_error(error))
    }

    /// Returns inclusion proofs of the leaves `indexes` in the tree of `readable`; reads each tile
    /// once.
    pub fn inclusions(
        &self,
        readable: &PublishedTree,
        indexes: &[LeafIndex],
    ) -> Result<Vec<InclusionProof>, ReadError> {
        self.inclusions_at(readable, indexes, readable.size())
    }

    /// Returns inclusion proofs of the leaves `indexes` in the tree of `size` leaves, which
    /// `readable` covers.
    pub fn inclusions_at(
        &self,
        readable: &PublishedTree,
        indexes: &[LeafIndex],
        size: TreeSize,
    ) -> Result<Vec<InclusionProof>, ReadError> {
        self.check_size(readable, "tree size", size)?;
        let reader = EdgeReader::new(&readable.edge, self.store.full_tiles(self.number));
        prove_inclusions(indexes, size, &reader).map_err(|error| self.prove_error(error))
    }

    /// Returns the consistency proof that the tree of `sizes.old` is a prefix of that of
    /// `sizes.new`.
    pub fn consistency(
        &self,
        readable: &PublishedTree,
        sizes: SizeRange,
    ) -> Result<ConsistencyProof, ReadError> {
        self.check_size(readable, "tree size", sizes.new)?;
        // Two sizes of one log always have the same proof.
        if let Some(known) = self.consistency_proofs.lock().find(sizes) {
            return Ok(known);
        }
        let reader = EdgeReader::new(&readable.edge, self.store.full_tiles(self.number));
        let proof = prove_consistency(sizes, &reader).map_err(|error| self.prove_error(error))?;
        self.consistency_proofs.lock().keep(sizes, proof.clone());
        Ok(proof)
    }

    /// Returns the signed head of exactly `size` leaves: the newest, one that was kept, or one that
    /// is signed now.
    ///
    /// Signing an old head again is safe only if it is the head of that size. Tiles come from a
    /// disk, so the root that they give is first proven consistent with the newest head, whose
    /// root was never on a disk alone.
    pub fn checkpoint_at(
        &self,
        readable: &PublishedTree,
        size: TreeSize,
    ) -> Result<Bytes, ReadError> {
        if size == readable.size() {
            return Ok(readable.checkpoint.clone());
        }
        self.check_size(readable, "tree size", size)?;
        if let Some(kept) = self.store.head_at(self.number, size.get())? {
            return Ok(kept.checkpoint);
        }
        let reader = EdgeReader::new(&readable.edge, self.store.full_tiles(self.number));
        let corrupt = |what: String| StoreError::corrupt(Family::Tiles, self.number, what);
        let root = root_at(size, &reader).map_err(|error| corrupt(error.to_string()))?;
        let head = TreeHead { size, root };
        let sizes = SizeRange {
            old: size,
            new: readable.size(),
        };
        let proof = self.consistency(readable, sizes)?;
        verify_consistency(&proof, &head, &readable.head)
            .map_err(|error| corrupt(format!("the root of size {size}: {error}")))?;
        Ok(self.sign(head))
    }

    /// Returns the entry at leaf `index`.
    pub fn entry(&self, readable: &PublishedTree, index: LeafIndex) -> Result<Bytes, ReadError> {
        self.check_index(readable, index)?;
        Ok(self.store.entry(self.number, index.get())?)
    }

    /// Returns the entries of `start..end`, which must lie in the tree.
    pub fn entries(
        &self,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = Result<(u64, Bytes), StoreError>> {
        self.store
            .entries(self.number, start)
            .take_while(move |item| item.as_ref().map_or(true, |(index, _)| *index < end))
    }

    /// Returns the leaf of the statement with this session and sequence.
    pub fn leaf_of_statement(
        &self,
        readable: &PublishedTree,
        session: &SessionId,
        sequence: Sequence,
    ) -> Result<LeafIndex, ReadError> {
        let not_found =
            || ReadError::NotFound(format!("session {session} has no statement {sequence}"));
        let run = self
            .store
            .run_before(self.number, session, sequence)?
            .ok_or_else(not_found)?;
        let leaf = run.leaf_of(sequence).ok_or_else(not_found)?;
        // The store may be a turn ahead of the published tree.
        if leaf >= readable.size().get() {
            return Err(not_found());
        }
        Ok(LeafIndex::new(leaf))
    }

    /// Returns the leaves of trust statements from `start` on, in order.
    pub fn trust_leaves(&self, start: u64) -> impl Iterator<Item = Result<u64, StoreError>> {
        let leaves = self.store.trust_leaves(self.number, start);
        leaves.map(|item| item.map(|(leaf, _)| leaf))
    }

    /// Returns a session as it is on disk, with its last run; it may be a turn ahead of the
    /// published tree.
    pub fn session(&self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError> {
        self.store.session(self.number, id)
    }

    /// Returns the lowest leaf with this hash.
    pub fn leaf_of_hash(
        &self,
        readable: &PublishedTree,
        hash: &Hash,
    ) -> Result<LeafIndex, ReadError> {
        index::find(&self.store, self.number, readable, hash)?
            .ok_or_else(|| ReadError::NotFound(format!("no leaf has the hash {hash}")))
    }

    /// Returns the hash of a leaf, computed from its entry.
    pub fn leaf_hash(&self, readable: &PublishedTree, index: LeafIndex) -> Result<Hash, ReadError> {
        Ok(leaf_hash(&self.entry(readable, index)?))
    }

    /// Returns the hashes of a tile, as many as its id says; `None` if the tree does not have that
    /// many.
    pub fn tile(
        &self,
        readable: &PublishedTree,
        tile: TileId,
    ) -> Result<Option<Vec<Hash>>, StoreError> {
        let in_tree = TileId::in_tree(tile.level(), tile.index(), readable.size());
        if in_tree.is_none_or(|there| there.width() < tile.width()) {
            return Ok(None);
        }
        let reader = EdgeReader::new(&readable.edge, self.store.full_tiles(self.number));
        let tiles = reader.read_tiles(&[tile])?;
        Ok(tiles
            .first()
            .and_then(|hashes| hashes.get(..usize::from(tile.width())))
            .map(<[Hash]>::to_vec))
    }

    pub fn check_size(
        &self,
        readable: &PublishedTree,
        what: &'static str,
        asked: TreeSize,
    ) -> Result<(), ReadError> {
        let size = readable.size();
        if asked <= size {
            return Ok(());
        }
        Err(ReadError::BeyondTree {
            what,
            asked: asked.get(),
            size,
        })
    }

    pub fn check_index(&self, readable: &PublishedTree, index: LeafIndex) -> Result<(), ReadError> {
        let size = readable.size();
        if size.contains(index) {
            return Ok(());
        }
        Err(ReadError::BeyondTree {
            what: "leaf index",
            asked: index.get(),
            size,
        })
    }

    fn prove_error(&self, error: ProveError<StoreError>) -> ReadError {
        match error {
            ProveError::IndexOutOfRange { index, size } => ReadError::BeyondTree {
                what: "leaf index",
                asked: index.get(),
                size,
            },
            ProveError::SizesReversed { old, new } => ReadError::BeyondTree {
                what: "old size",
                asked: old.get(),
                size: new,
            },
            ProveError::Tiles(TileReadError::Reader(error)) => ReadError::Store(error),
            other => StoreError::corrupt(Family::Tiles, self.number, other.to_string()).into(),
        }
    }
}

/// A watch of a ledger's published trees, for streams.
pub type Heads = tokio::sync::watch::Receiver<Arc<PublishedTree>>;
