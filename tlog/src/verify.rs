//! Verification of proofs. All functions here take input from strangers and never panic.
//!
//! Both functions know the number of hashes that a proof must have before they hash anything, so a
//! proof has exactly one form.

use thiserror::Error;

use crate::hash::{EMPTY_ROOT, Hash, node_hash};
use crate::proof::{ConsistencyProof, InclusionProof};
use crate::size::{LeafIndex, TreeHead, TreeSize};

/// The reason for which a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The leaf is not in the tree.
    #[error("leaf index {index} is beyond the tree of size {size}")]
    IndexOutOfRange {
        /// The index that is claimed.
        index: LeafIndex,
        /// The size of the tree.
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
    /// The number of hashes is not that of a proof for these numbers.
    #[error("proof has {found} hashes, wanted {wanted}")]
    ProofLength {
        /// Hashes of the proof.
        found: usize,
        /// Hashes that the proof must have.
        wanted: usize,
    },
    /// A head of size 0 does not have the root of the empty tree.
    #[error("a tree of size 0 has root {root}, not that of the empty tree")]
    EmptyTreeRoot {
        /// The root of that head.
        root: Hash,
    },
    /// Leaf and proof do not lead to the root of the head.
    #[error("proof leads to root {found}, wanted {wanted}")]
    RootMismatch {
        /// The root that was computed.
        found: Hash,
        /// The root of the head.
        wanted: Hash,
    },
    /// The proof does not start from the old tree.
    #[error("proof leads to old root {found}, wanted {wanted}")]
    OldRootMismatch {
        /// The root that was computed.
        found: Hash,
        /// The root of the old head.
        wanted: Hash,
    },
    /// The proof does not end at the new tree.
    #[error("proof leads to new root {found}, wanted {wanted}")]
    NewRootMismatch {
        /// The root that was computed.
        found: Hash,
        /// The root of the new head.
        wanted: Hash,
    },
}

/// Checks that `leaf` is the leaf hash at `index` of the tree with this head.
///
/// Source: RFC 9162 section 2.1.3.2. Proofs are made by
/// [`prove_inclusion`](crate::prove_inclusion).
///
/// # Errors
/// [`VerifyError::IndexOutOfRange`], [`VerifyError::ProofLength`] and
/// [`VerifyError::RootMismatch`].
pub fn verify_inclusion(
    proof: &InclusionProof,
    leaf: &Hash,
    index: LeafIndex,
    head: &TreeHead,
) -> Result<(), VerifyError> {
    let path = Path::new(index, head.size).ok_or(VerifyError::IndexOutOfRange {
        index,
        size: head.size,
    })?;
    check_length(proof.hashes().len(), path.siblings_from(0))?;

    let mut root = *leaf;
    for (side, sibling) in path.sides_from(0).zip(proof.hashes()) {
        root = match side {
            Side::Left => node_hash(sibling, &root),
            Side::Right => node_hash(&root, sibling),
        };
    }
    if root != head.root {
        return Err(VerifyError::RootMismatch {
            found: root,
            wanted: head.root,
        });
    }
    Ok(())
}

/// Checks that the tree with the `old` head is a prefix of the tree with the `new` one.
///
/// The proof is empty if the old tree is empty or the sizes are equal; the roots are checked even
/// then.
///
/// Source: RFC 9162 section 2.1.4.2. Proofs are made by
/// [`prove_consistency`](crate::prove_consistency).
///
/// # Errors
/// [`VerifyError::SizesReversed`], [`VerifyError::ProofLength`],
/// [`VerifyError::EmptyTreeRoot`], [`VerifyError::OldRootMismatch`] and
/// [`VerifyError::NewRootMismatch`].
pub fn verify_consistency(
    proof: &ConsistencyProof,
    old: &TreeHead,
    new: &TreeHead,
) -> Result<(), VerifyError> {
    if old.size > new.size {
        return Err(VerifyError::SizesReversed {
            old: old.size,
            new: new.size,
        });
    }
    for head in [old, new] {
        if head.size.is_zero() && head.root != EMPTY_ROOT {
            return Err(VerifyError::EmptyTreeRoot { root: head.root });
        }
    }
    let Some(last_old_leaf) = old.size.last_index() else {
        return check_length(proof.hashes().len(), 0);
    };
    if old.size == new.size {
        check_length(proof.hashes().len(), 0)?;
        return check_new_root(old.root, new);
    }

    let path = Path::new(last_old_leaf, new.size).ok_or(VerifyError::SizesReversed {
        old: old.size,
        new: new.size,
    })?;
    // The largest perfect subtree at the old tree's right edge is part of both trees, and the proof
    // consists of the path from there up. If that subtree is the whole old tree, its root is known;
    // otherwise it comes first.
    let common_height = old.size.get().trailing_zeros();
    let old_is_perfect = old.size.get().is_power_of_two();
    let wanted = path.siblings_from(common_height) + usize::from(!old_is_perfect);
    check_length(proof.hashes().len(), wanted)?;
    let (common, siblings) = match proof.hashes() {
        [first, siblings @ ..] if !old_is_perfect => (first, siblings),
        siblings => (&old.root, siblings),
    };

    let (mut old_root, mut new_root) = (*common, *common);
    for (side, sibling) in path.sides_from(common_height).zip(siblings) {
        match side {
            Side::Left => {
                old_root = node_hash(sibling, &old_root);
                new_root = node_hash(sibling, &new_root);
            }
            // To the right of the old tree's last leaf there are only new leaves.
            Side::Right => new_root = node_hash(&new_root, sibling),
        }
    }
    if old_root != old.root {
        return Err(VerifyError::OldRootMismatch {
            found: old_root,
            wanted: old.root,
        });
    }
    check_new_root(new_root, new)
}

fn check_new_root(found: Hash, new: &TreeHead) -> Result<(), VerifyError> {
    if found != new.root {
        return Err(VerifyError::NewRootMismatch {
            found,
            wanted: new.root,
        });
    }
    Ok(())
}

fn check_length(found: usize, wanted: usize) -> Result<(), VerifyError> {
    if found != wanted {
        return Err(VerifyError::ProofLength { found, wanted });
    }
    Ok(())
}

/// Returns the number of hashes of an inclusion proof for leaf `index` in a tree of `size` leaves;
/// `None` if the leaf is not in the tree.
pub(crate) fn inclusion_proof_len(index: LeafIndex, size: TreeSize) -> Option<usize> {
    Path::new(index, size).map(|path| path.siblings_from(0))
}

/// The side of the path on which a sibling is.
enum Side {
    Left,
    Right,
}

/// The path from a leaf up to the root.
///
/// Up to the height where it joins the path of the tree's last leaf, the path has a sibling
/// at every height. From there on it runs along the right edge of the tree, where a height
/// has a sibling (a left one) only if that bit of the index is set.
struct Path {
    index: u64,
    joins_edge_at: u32,
}

impl Path {
    fn new(index: LeafIndex, size: TreeSize) -> Option<Path> {
        let last = size.last_index()?.get();
        let index = index.get();
        let joins_edge_at = u64::BITS - (index ^ last).leading_zeros();
        (index <= last).then_some(Path {
            index,
            joins_edge_at,
        })
    }

    /// Returns the number of siblings at `height` and above; the height is at most `joins_edge_at`.
    fn siblings_from(&self, height: u32) -> usize {
        let on_edge = self
            .index
            .checked_shr(self.joins_edge_at)
            .unwrap_or(0)
            .count_ones();
        (self.joins_edge_at - height + on_edge) as usize
    }

    /// Returns the sides of those siblings, from the lowest up.
    fn sides_from(&self, height: u32) -> impl Iterator<Item = Side> {
        let Path {
            index,
            joins_edge_at,
        } = *self;
        (height..u64::BITS).filter_map(move |height| match index >> height & 1 {
            1 => Some(Side::Left),
            _ => (height < joins_edge_at).then_some(Side::Right),
        })
    }
}
