//! The two kinds of proof. Both are lists of hashes and nothing else, and so they must be different
//! types.

use thiserror::Error;

use crate::hash::Hash;

/// The sibling hashes from a leaf up to the root of a tree that contains it.
///
/// The order is: the leaf's sibling first, the root's child last. Made by
/// [`prove_inclusion`](crate::prove_inclusion), checked by
/// [`verify_inclusion`](crate::verify_inclusion).
///
/// Source: RFC 6962 section 2.1.1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InclusionProof(Vec<Hash>);

/// The hashes that show one tree to be a prefix of another, in the order of RFC 6962.
///
/// Made by [`prove_consistency`](crate::prove_consistency), checked by
/// [`verify_consistency`](crate::verify_consistency).
///
/// Source: RFC 6962 section 2.1.2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsistencyProof(Vec<Hash>);

/// The list has more hashes than a proof of this kind has in any tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("proof has {found} hashes, at most {max} are possible")]
pub struct ProofTooLong {
    /// Hashes of the list.
    pub found: usize,
    /// The most hashes that are possible.
    pub max: usize,
}

impl InclusionProof {
    /// The most hashes of a proof: ceil(log2(size)), so 64 in the largest tree that 64 bits can
    /// count.
    pub const HASHES_MAX: usize = 64;
}

impl ConsistencyProof {
    /// The most hashes of a proof: ceil(log2(size)) + 1, so 65 in the largest tree that 64 bits can
    /// count. Trees of up to 2^62 leaves stay within the 63 hashes of the witness protocol.
    pub const HASHES_MAX: usize = 65;
}

macro_rules! hash_list {
    ($proof:ident) => {
        impl $proof {
            /// Makes a proof of hashes that came from elsewhere. Only their number is checked; only
            /// verification shows whether they prove anything.
            ///
            /// # Errors
            /// [`ProofTooLong`] if there are more than `HASHES_MAX`.
            pub fn from_hashes(hashes: Vec<Hash>) -> Result<$proof, ProofTooLong> {
                if hashes.len() > Self::HASHES_MAX {
                    return Err(ProofTooLong {
                        found: hashes.len(),
                        max: Self::HASHES_MAX,
                    });
                }
                Ok($proof(hashes))
            }

            /// Returns the hashes, in the order of RFC 6962.
            #[must_use]
            pub fn hashes(&self) -> &[Hash] {
                &self.0
            }

            /// Returns the hashes, in the order of RFC 6962.
            #[must_use]
            pub fn into_hashes(self) -> Vec<Hash> {
                self.0
            }
        }

        impl TryFrom<Vec<Hash>> for $proof {
            type Error = ProofTooLong;

            fn try_from(hashes: Vec<Hash>) -> Result<$proof, ProofTooLong> {
                $proof::from_hashes(hashes)
            }
        }
    };
}

hash_list!(InclusionProof);
hash_list!(ConsistencyProof);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_bounded() {
        let hashes = |count| vec![Hash::new([0; 32]); count];
        assert!(InclusionProof::from_hashes(hashes(64)).is_ok());
        assert_eq!(
            InclusionProof::from_hashes(hashes(65)),
            Err(ProofTooLong { found: 65, max: 64 })
        );
        assert!(ConsistencyProof::from_hashes(hashes(65)).is_ok());
        assert!(ConsistencyProof::from_hashes(hashes(66)).is_err());
    }
}
