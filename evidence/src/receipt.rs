//! Checking a receipt against what was sent.
//!
//! A receipt names a leaf hash. It is worth something only if that hash is of an entry that
//! holds the very payload that was sent; the fields that the server filled in come with the
//! receipt, so the sender rebuilds the entry and hashes it.

use deed_proto::v1::{self, Author, PayloadType};
use deed_tlog::{
    ConsistencyProof, Hash, InclusionProof, LeafIndex, TreeHead, VerifyError, leaf_hash,
    verify_inclusion,
};
use thiserror::Error;

use crate::{
    Micros, WireError,
    entry::{Entry, EntryError, KeyedSignature, TrustLink},
};

/// A receipt that was checked against its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedReceipt {
    /// Leaf of the statement.
    pub leaf_index: LeafIndex,
    /// Hash of its entry.
    pub leaf_hash: Hash,
    /// Time at which the server admitted it.
    pub received_at: Micros,
    /// True if an inclusion proof came along and held.
    pub inclusion_verified: bool,
    /// The leaf that lets the principal deliver it, by which the entry can be made again.
    pub principal_leaf: Option<LeafIndex>,
}

/// A receipt that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// The hash is of something else than what was sent.
    #[error(
        "the receipt's leaf hash {claimed} is not that of the payload that was sent, which is {computed}"
    )]
    OtherEntry {
        /// Hash in the receipt, in hex.
        claimed: String,
        /// Hash of the rebuilt entry.
        computed: Hash,
    },
    /// The hash is of what was sent, but nobody who reads the log would take that for an entry.
    #[error("the receipt is of an entry that is not well-formed: {0}")]
    Entry(EntryError),
    /// The leaf lies beyond the head that should cover it.
    #[error("the receipt names leaf {index}, but its tree head covers only {size} leaves")]
    NotCovered {
        /// Index in the receipt.
        index: LeafIndex,
        /// Size of the head.
        size: u64,
    },
    /// A proof was asked for and is missing.
    #[error("the receipt of leaf {index} lacks the inclusion proof that was asked for")]
    ProofMissing {
        /// Index in the receipt.
        index: LeafIndex,
    },
    /// The proof does not hold.
    #[error("inclusion of leaf {index}: {source}")]
    Inclusion {
        /// Index in the receipt.
        index: LeafIndex,
        /// The reason.
        source: VerifyError,
    },
    /// Hashes of the wrong length or too many of them.
    #[error("a proof's hashes are malformed")]
    MalformedProof,
}

/// A statement that was sent, as far as its entry depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent<'a> {
    /// The type of the payload.
    pub payload_type: PayloadType,
    /// The payload.
    pub payload: &'a [u8],
    /// Its signature, if it has one of its own.
    pub signature: Option<KeyedSignature<'a>>,
    /// True if a batch manifest before it in the same request covers it.
    pub batched: bool,
}

impl<'a> Sent<'a> {
    /// A statement without a signature.
    #[must_use]
    pub const fn unsigned(payload: &'a [u8]) -> Self {
        Self {
            payload_type: PayloadType::Statement,
            payload,
            signature: None,
            batched: false,
        }
    }

    /// A statement with a signature of its own.
    #[must_use]
    pub const fn signed(payload: &'a [u8], signature: KeyedSignature<'a>) -> Self {
        Self {
            signature: Some(signature),
            ..Self::unsigned(payload)
        }
    }

    /// A statement that a batch manifest covers.
    #[must_use]
    pub const fn batched(payload: &'a [u8]) -> Self {
        Self {
            batched: true,
            ..Self::unsigned(payload)
        }
    }

    /// A batch manifest.
    #[must_use]
    pub const fn manifest(payload: &'a [u8], signature: KeyedSignature<'a>) -> Self {
        Self {
            payload_type: PayloadType::BatchManifest,
            ..Self::signed(payload, signature)
        }
    }

    /// The entry that an honest ledger makes of it.
    fn entry(&self, receipt: &v1::Receipt) -> Result<Entry<'a>, WireError> {
        let link = receipt.previous_trust.as_ref();
        Ok(Entry {
            payload_type: self.payload_type,
            payload: self.payload,
            signature: self.signature,
            author: match (self.signature, self.batched) {
                (Some(_), _) => Author::Signed,
                (None, true) => Author::Batched,
                (None, false) => Author::Unsigned,
            },
            received_at: Micros::new(receipt.received_at_us),
            principal_leaf: receipt.principal_leaf,
            previous_trust: link.map(TrustLink::from_message).transpose()?,
        })
    }
}

/// Checks that `receipt` is of what was `sent`, lies under `head`, and, where it brings an inclusion
/// proof or `proof_wanted` is set, that the proof holds.
///
/// # Errors
/// [`ReceiptError`] for whatever does not hold.
pub fn verify(
    receipt: &v1::Receipt,
    sent: &Sent<'_>,
    head: &TreeHead,
    proof_wanted: bool,
) -> Result<VerifiedReceipt, ReceiptError> {
    let index = LeafIndex::new(receipt.leaf_index);
    let rebuilt = sent
        .entry(receipt)
        .map_err(|error| ReceiptError::Entry(error.into()))?;
    let entry = rebuilt.encode();
    let computed = leaf_hash(&entry);
    if receipt.leaf_hash != computed.as_bytes()[..] {
        return Err(ReceiptError::OtherEntry {
            claimed: claimed_hash(&receipt.leaf_hash),
            computed,
        });
    }
    // A time before 1970, say: the server's log would hold a leaf that every auditor refuses.
    Entry::parse(&entry).map_err(ReceiptError::Entry)?;
    // Trust statements are signed one by one: nothing else needs a look into the payload.
    if sent.signature.is_some() && sent.payload_type == PayloadType::Statement {
        rebuilt
            .statement()
            .map_err(|error| ReceiptError::Entry(error.into()))?;
    }
    if receipt.leaf_index >= head.size.get() {
        return Err(ReceiptError::NotCovered {
            index,
            size: head.size.get(),
        });
    }
    // A tree of one leaf has an empty proof: asking is what tells "none" from "empty".
    let has_proof = proof_wanted || !receipt.inclusion_proof.is_empty();
    if has_proof {
        if receipt.inclusion_proof.is_empty() && head.size.get() > 1 {
            return Err(ReceiptError::ProofMissing { index });
        }
        let proof = inclusion_proof(&receipt.inclusion_proof)?;
        verify_inclusion(&proof, &computed, index, head)
            .map_err(|source| ReceiptError::Inclusion { index, source })?;
    }
    Ok(VerifiedReceipt {
        leaf_index: index,
        leaf_hash: computed,
        received_at: rebuilt.received_at,
        inclusion_verified: has_proof,
        principal_leaf: rebuilt.principal_leaf.map(LeafIndex::new),
    })
}

/// Reads the hashes of an inclusion proof as they travel.
///
/// # Errors
/// [`ReceiptError::MalformedProof`] if one has not 32 bytes, or there are too many.
pub fn inclusion_proof(hashes: &[impl AsRef<[u8]>]) -> Result<InclusionProof, ReceiptError> {
    InclusionProof::from_hashes(hashes_of(hashes)?).map_err(|_| ReceiptError::MalformedProof)
}

/// Reads the hashes of a consistency proof as they travel.
///
/// # Errors
/// As [`inclusion_proof`].
pub fn consistency_proof(hashes: &[impl AsRef<[u8]>]) -> Result<ConsistencyProof, ReceiptError> {
    ConsistencyProof::from_hashes(hashes_of(hashes)?).map_err(|_| ReceiptError::MalformedProof)
}

/// Bytes that should be a hash, for people. The server chose its length, so not all of it is printed.
fn claimed_hash(bytes: &[u8]) -> String {
    match bytes.split_at_checked(Hash::LEN) {
        Some((start, [_, ..])) => format!("{}... ({} bytes)", hex::encode(start), bytes.len()),
        _ => hex::encode(bytes),
    }
}

fn hashes_of(hashes: &[impl AsRef<[u8]>]) -> Result<Vec<Hash>, ReceiptError> {
    hashes
        .iter()
        .map(|hash| Hash::try_from(hash.as_ref()).map_err(|_| ReceiptError::MalformedProof))
        .collect()
}
