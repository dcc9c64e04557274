//! Proofs and roots from tiles: plan which leaf ranges are needed, read their tiles in one
//! batch, fold.

use std::ops::Range;

use thiserror::Error;

use crate::hash::{EMPTY_ROOT, Hash};
use crate::plan::subtree_roots;
use crate::proof::{ConsistencyProof, InclusionProof};
use crate::size::{LeafIndex, SizeRange, TreeSize};
use crate::tile::{TileReadError, TileReader};

/// The reason for which there is no proof.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProveError<E> {
    /// The leaf is not in the tree.
    #[error("leaf index {index} is beyond the tree of size {size}")]
    IndexOutOfRange {
        /// The leaf that was asked for.
        index: LeafIndex,
        /// The size of the tree in which it was asked for.
        size: TreeSize,
    },
    /// The tree that should be the earlier one is the larger one.
    #[error("old tree size {old} is larger than new tree size {new}")]
    SizesReversed {
        /// The size given as the old one.
        old: TreeSize,
        /// The size given as the new one.
        new: TreeSize,
    },
    /// The tiles could not be read.
    #[error(transparent)]
    Tiles(#[from] TileReadError<E>),
}

/// Returns the inclusion proof for leaf `index` in the tree of `size` leaves.
///
/// Order: the leaf's sibling first, the root's child last; at most ceil(log2(size)) hashes.
/// Reads tiles in one batch, and none for a tree of one leaf. Costs up to 247 node hashes
/// for each of the tree's ceil(log256(size)) levels of tiles.
///
/// Source: RFC 6962 section 2.1.1, PATH(m, D\[n\]). Checked by
/// [`verify_inclusion`](crate::verify_inclusion).
///
/// # Errors
/// [`ProveError::IndexOutOfRange`] if `index >= size`; [`ProveError::Tiles`].
pub fn prove_inclusion<R: TileReader>(
    index: LeafIndex,
    size: TreeSize,
    reader: &R,
) -> Result<InclusionProof, ProveError<R::Error>> {
    let ranges = inclusion_ranges(index, size)?;
    let hashes = subtree_roots(&ranges, size.get(), reader)?;
    Ok(InclusionProof::from_hashes(hashes).expect("a path is at most 64 hashes long"))
}

/// Returns the inclusion proofs for several leaves in the tree of `size` leaves, in the given
/// order.
///
/// All tiles are read in one batch, and neighbouring leaves share the hashing: for many leaves of
/// one tile this is far cheaper than [`prove_inclusion`] for each.
///
/// # Errors
/// [`ProveError`] as [`prove_inclusion`].
pub fn prove_inclusions<R: TileReader>(
    indexes: &[LeafIndex],
    size: TreeSize,
    reader: &R,
) -> Result<Vec<InclusionProof>, ProveError<R::Error>> {
    let mut ranges = Vec::new();
    let mut lengths = Vec::with_capacity(indexes.len());
    for &index in indexes {
        let path = inclusion_ranges(index, size)?;
        lengths.push(path.len());
        ranges.extend(path);
    }
    let mut hashes = subtree_roots(&ranges, size.get(), reader)?.into_iter();
    let proofs = lengths.into_iter().map(|length| {
        let path = hashes.by_ref().take(length).collect();
        InclusionProof::from_hashes(path).expect("a path is at most 64 hashes long")
    });
    Ok(proofs.collect())
}

/// Returns the proof that the tree of `sizes.old` leaves is a prefix of the tree of
/// `sizes.new` leaves.
///
/// It has at most ceil(log2(new)) + 1 hashes; none if the sizes are equal or the old tree is empty,
/// because there is nothing to prove then. Reads tiles in one batch.
///
/// Source: RFC 6962 section 2.1.2, PROOF(m, D\[n\]). Checked by
/// [`verify_consistency`](crate::verify_consistency).
///
/// # Errors
/// [`ProveError::SizesReversed`] if the old tree is the larger one; [`ProveError::Tiles`].
pub fn prove_consistency<R: TileReader>(
    sizes: SizeRange,
    reader: &R,
) -> Result<ConsistencyProof, ProveError<R::Error>> {
    let SizeRange { old, new } = sizes;
    if old > new {
        return Err(ProveError::SizesReversed { old, new });
    }
    let hashes = subtree_roots(&consistency_ranges(old.get(), new.get()), new.get(), reader)?;
    Ok(ConsistencyProof::from_hashes(hashes).expect("a proof is at most 65 hashes long"))
}

/// Returns the root hash that the tree had, or has, at `size` leaves.
///
/// Reads at most one tile for each of the tree's levels, in one batch.
///
/// Source: RFC 6962 section 2.1, MTH(D\[size\]).
///
/// # Errors
/// [`TileReadError`] if the tiles could not be read.
pub fn root_at<R: TileReader>(size: TreeSize, reader: &R) -> Result<Hash, TileReadError<R::Error>> {
    if size.is_zero() {
        return Ok(EMPTY_ROOT);
    }
    let roots = subtree_roots(std::slice::from_ref(&(0..size.get())), size.get(), reader)?;
    Ok(roots[0])
}

/// Returns the siblings of the nodes on the path from the leaf up to the root.
fn inclusion_ranges<E>(index: LeafIndex, size: TreeSize) -> Result<Vec<Range<u64>>, ProveError<E>> {
    if !size.contains(index) {
        return Err(ProveError::IndexOutOfRange { index, size });
    }
    let mut siblings = Vec::with_capacity(InclusionProof::HASHES_MAX);
    let mut subtree = 0..size.get();
    while subtree.end - subtree.start > 1 {
        siblings.push(descend(&mut subtree, index.get()));
    }
    siblings.reverse();
    Ok(siblings)
}

/// Returns the ranges of PROOF(old, D\[new\]): the siblings on the path from the last leaf of the
/// old tree up to the root, from the first subtree on that the two trees have in common; and that
/// subtree, unless it is the whole old tree, whose root the verifier knows.
fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    if old == 0 || old == new {
        return Vec::new();
    }
    let mut ranges = Vec::with_capacity(ConsistencyProof::HASHES_MAX);
    let mut subtree = 0..new;
    while subtree.end != old {
        ranges.push(descend(&mut subtree, old - 1));
    }
    if subtree.start > 0 {
        ranges.push(subtree);
    }
    ranges.reverse();
    ranges
}

/// Narrows a subtree of several leaves down to the half that contains `leaf` and returns the
/// other half. The split is RFC 6962's k: the largest power of two smaller than the number
/// of leaves.
fn descend(subtree: &mut Range<u64>, leaf: u64) -> Range<u64> {
    let split = subtree.start + (1 << (subtree.end - subtree.start - 1).ilog2());
    let left = subtree.start..split;
    let right = split..subtree.end;
    if leaf < split {
        *subtree = left;
        right
    } else {
        *subtree = right;
        left
    }
}
