//! Batch trees: how a producer signs once for many statements.
//!
//! A batch is a small RFC 6962-shaped tree over the payloads of its statements. Its hashes
//! have prefixes of their own, 0x10 for leaves and 0x11 for nodes, so that no batch tree is
//! ever a log tree. Trees and proofs are those of `rs_merkle`, which promotes a node without
//! a sibling as RFC 6962 does; what it does not check (the number of hashes, the position)
//! is checked here. A root alone, which a ledger computes for every batch, takes no tree.

use std::fmt;

use rs_merkle::{Hasher, MerkleTree};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::hash::{Hash, prefixed_pair};
use crate::size::{LeafIndex, TreeSize};
use crate::verify::inclusion_proof_len;

/// The most payloads of a batch.
pub const BATCH_PAYLOADS_MAX: u32 = 4096;

/// The number of payloads of a batch: 1 to 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchCount(u32);

/// The zero-based position of a payload in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchPosition(u32);

/// The part of a batch that a producer signs: the number of payloads and the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchHead {
    /// The number of payloads.
    pub count: BatchCount,
    /// The root of the batch tree.
    pub root: Hash,
}

/// The path from a payload to the root of its batch: the leaf's sibling first, the root's
/// child last, at most 12 hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchProof(Vec<Hash>);

/// A batch tree in memory, for making the proofs of many positions.
pub struct BatchTree {
    tree: MerkleTree<BatchHasher>,
    head: BatchHead,
}

/// The reason for which there is no batch, or a payload is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There are no payloads, or too many.
    #[error("batch of {found} payloads, wanted 1 to {BATCH_PAYLOADS_MAX}")]
    Count {
        /// The number of payloads that were given.
        found: usize,
    },
    /// The position is not in the batch.
    #[error("position {position} is beyond the batch of {count}")]
    PositionOutOfRange {
        /// The position asked for or claimed.
        position: BatchPosition,
        /// The number of payloads.
        count: BatchCount,
    },
    /// The number of hashes is not that of a proof for these numbers.
    #[error("batch proof has {found} hashes, wanted {wanted}")]
    ProofLength {
        /// Hashes of the proof.
        found: usize,
        /// Hashes that it must have, or can have at most.
        wanted: usize,
    },
    /// Payload and proof lead to another root.
    #[error("batch proof does not lead to root {wanted}")]
    RootMismatch {
        /// The root of the batch.
        wanted: Hash,
    },
}

/// Returns the root over the payloads of a batch, 1 to 4096 of them.
///
/// Source: RFC 6962 section 2.1, MTH, with the prefixes 0x10 and 0x11.
///
/// # Errors
/// [`BatchError::Count`] if there are no payloads, or too many.
pub fn batch_root<T: AsRef<[u8]>>(payloads: &[T]) -> Result<Hash, BatchError> {
    BatchCount::new(payloads.len())?;
    let mut root = BatchRoot::new();
    for payload in payloads {
        root.push(payload.as_ref())?;
    }
    Ok(root.finish()?.root)
}

/// Computes the root of a batch, payload after payload, without keeping a tree. A ledger computes
/// one for every batch. [`BatchTree`] also makes proofs.
///
/// It holds the root of each full subtree of the payloads so far, the largest first. There is one
/// for each 1 bit of their number.
#[derive(Debug, Clone)]
pub struct BatchRoot {
    subtrees: [[u8; 32]; BatchProof::HASHES_MAX + 1],
    count: u32,
}

impl BatchRoot {
    /// Returns the state of a batch without payloads, which has no root yet.
    #[must_use]
    pub const fn new() -> BatchRoot {
        BatchRoot {
            subtrees: [[0; 32]; BatchProof::HASHES_MAX + 1],
            count: 0,
        }
    }

    /// Adds the next payload.
    ///
    /// # Errors
    /// [`BatchError::Count`] if there are 4096 payloads already.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), BatchError> {
        if self.count == BATCH_PAYLOADS_MAX {
            return Err(BatchError::Count {
                found: self.count as usize + 1,
            });
        }
        let mut node = BatchHasher::hash(payload);
        let mut top = self.count.count_ones() as usize;
        // A full subtree on the left for each one bit at the end of the count: a carry.
        for _ in 0..self.count.trailing_ones() {
            top -= 1;
            node = BatchHasher::concat_and_hash(&self.subtrees[top], Some(&node));
        }
        self.subtrees[top] = node;
        self.count += 1;
        Ok(())
    }

    /// Returns the number of payloads and the root over them.
    ///
    /// # Errors
    /// [`BatchError::Count`] if there are none.
    pub fn finish(&self) -> Result<BatchHead, BatchError> {
        let count = BatchCount::new(self.count as usize)?;
        let subtrees = &self.subtrees[..self.count.count_ones() as usize];
        // The fold goes from the right: RFC 6962 splits at the largest power of two, so everything
        // to the right of a subtree is one node before it meets that subtree.
        let root = subtrees
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| BatchHasher::concat_and_hash(&left, Some(&right)));
        let root = Hash::new(root.expect("a batch of at least one payload has a subtree"));
        Ok(BatchHead { count, root })
    }
}

impl Default for BatchRoot {
    fn default() -> BatchRoot {
        BatchRoot::new()
    }
}

/// Returns the proof for one payload of a batch. For many proofs, keep the [`BatchTree`].
///
/// Source: RFC 6962 section 2.1.1, PATH. Checked by [`verify_batch_proof`].
///
/// # Errors
/// [`BatchError::Count`] and [`BatchError::PositionOutOfRange`].
pub fn batch_proof<T: AsRef<[u8]>>(
    payloads: &[T],
    position: BatchPosition,
) -> Result<BatchProof, BatchError> {
    BatchTree::new(payloads)?.prove(position)
}

/// Checks that `payload` is at `position` of the batch with this head.
///
/// # Errors
/// [`BatchError::PositionOutOfRange`], [`BatchError::ProofLength`] and
/// [`BatchError::RootMismatch`].
pub fn verify_batch_proof(
    proof: &BatchProof,
    payload: &[u8],
    position: BatchPosition,
    head: &BatchHead,
) -> Result<(), BatchError> {
    let wanted = proof_len(position, head.count)?;
    // rs_merkle ignores superfluous hashes, but a proof must have exactly one form.
    if proof.0.len() != wanted {
        return Err(BatchError::ProofLength {
            found: proof.0.len(),
            wanted,
        });
    }
    let hashes = proof.0.iter().map(|hash| *hash.as_bytes()).collect();
    let leaf = BatchHasher::hash(payload);
    let holds = rs_merkle::MerkleProof::<BatchHasher>::new(hashes).verify(
        *head.root.as_bytes(),
        &[position.0 as usize],
        &[leaf],
        head.count.0 as usize,
    );
    if !holds {
        return Err(BatchError::RootMismatch { wanted: head.root });
    }
    Ok(())
}

impl BatchTree {
    /// Hashes the payloads of a batch, 1 to 4096 of them.
    ///
    /// # Errors
    /// [`BatchError::Count`] if there are no payloads, or too many.
    pub fn new<T: AsRef<[u8]>>(payloads: &[T]) -> Result<BatchTree, BatchError> {
        let count = BatchCount::new(payloads.len())?;
        let leaves: Vec<[u8; 32]> = payloads
            .iter()
            .map(|payload| BatchHasher::hash(payload.as_ref()))
            .collect();
        let tree = MerkleTree::<BatchHasher>::from_leaves(&leaves);
        let root = tree.root().expect("a tree with a leaf has a root");
        Ok(BatchTree {
            tree,
            head: BatchHead {
                count,
                root: Hash::new(root),
            },
        })
    }

    /// Returns the number of payloads and the root over them.
    #[must_use]
    pub const fn head(&self) -> BatchHead {
        self.head
    }

    /// Returns the proof for the payload at `position`.
    ///
    /// # Errors
    /// [`BatchError::PositionOutOfRange`] if the batch has no such position.
    pub fn prove(&self, position: BatchPosition) -> Result<BatchProof, BatchError> {
        let wanted = proof_len(position, self.head.count)?;
        let proof = self.tree.proof(&[position.0 as usize]);
        let hashes: Vec<Hash> = proof
            .proof_hashes()
            .iter()
            .copied()
            .map(Hash::new)
            .collect();
        debug_assert_eq!(hashes.len(), wanted);
        Ok(BatchProof(hashes))
    }
}

impl BatchCount {
    /// Checks a number of payloads.
    ///
    /// # Errors
    /// [`BatchError::Count`] if the number is not 1 to 4096.
    pub fn new(payloads: usize) -> Result<BatchCount, BatchError> {
        match u32::try_from(payloads) {
            Ok(count @ 1..=BATCH_PAYLOADS_MAX) => Ok(BatchCount(count)),
            _ => Err(BatchError::Count { found: payloads }),
        }
    }

    /// Returns the number of payloads.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns true if the batch has this position.
    #[must_use]
    pub const fn contains(self, position: BatchPosition) -> bool {
        position.0 < self.0
    }
}

impl BatchPosition {
    /// Returns the position of the payload at zero-based `position`.
    #[must_use]
    pub const fn new(position: u32) -> BatchPosition {
        BatchPosition(position)
    }

    /// Returns the zero-based position.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl BatchProof {
    /// The most hashes of a proof: ceil(log2(4096)).
    pub const HASHES_MAX: usize = 12;

    /// Makes a proof of hashes that came from elsewhere. Nothing but their number is checked.
    ///
    /// # Errors
    /// [`BatchError::ProofLength`] if there are more than 12.
    pub fn from_hashes(hashes: Vec<Hash>) -> Result<BatchProof, BatchError> {
        if hashes.len() > Self::HASHES_MAX {
            return Err(BatchError::ProofLength {
                found: hashes.len(),
                wanted: Self::HASHES_MAX,
            });
        }
        Ok(BatchProof(hashes))
    }

    /// Returns the hashes, the leaf's sibling first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Returns the hashes, the leaf's sibling first.
    #[must_use]
    pub fn into_hashes(self) -> Vec<Hash> {
        self.0
    }
}

impl fmt::Display for BatchCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BatchPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BatchTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BatchTree").field(&self.head).finish()
    }
}

/// A batch tree has the shape of a log tree, so the lengths of paths are the same.
fn proof_len(position: BatchPosition, count: BatchCount) -> Result<usize, BatchError> {
    let (index, size) = (
        LeafIndex::new(position.0.into()),
        TreeSize::new(count.0.into()),
    );
    inclusion_proof_len(index, size).ok_or(BatchError::PositionOutOfRange { position, count })
}

const BATCH_LEAF_PREFIX: u8 = 0x10;
const BATCH_NODE_PREFIX: u8 = 0x11;

/// SHA-256 with the prefixes of batch trees. `rs_merkle` calls `concat_and_hash` for nodes
/// and leaves the hashing of leaves to its caller.
#[derive(Clone)]
struct BatchHasher;

impl Hasher for BatchHasher {
    type Hash = [u8; 32];

    fn hash(payload: &[u8]) -> [u8; 32] {
        Sha256::new()
            .chain_update([BATCH_LEAF_PREFIX])
            .chain_update(payload)
            .finalize()
            .into()
    }

    fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
        match right {
            Some(right) => prefixed_pair(BATCH_NODE_PREFIX, left, right).into(),
            None => *left,
        }
    }
}
