//! The results of the statements of one request, verified.

use deed_evidence::{Micros, receipt};
use deed_proto::v1::{self, append_result::Result as Item, rejection::Reason};
use deed_tlog::{Hash, LeafIndex, TreeHead};

use crate::{
    error::{AnswerError, Error},
    signing::{is_manifest, sent},
};

/// The answer to a request: one item for each statement, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The verified head that covers every accepted and duplicate statement; with verification
    /// switched off, or nothing recorded and no head in the answer, `None`.
    pub head: Option<TreeHead>,
    /// Size of the largest tree that a witness quorum has cosigned, by the server's word.
    pub witnessed_size: u64,
    /// The result of each statement.
    pub items: Vec<Appended>,
}

/// The result of one statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Appended {
    /// Recorded now.
    Accepted(Receipt),
    /// Recorded before, this is its first receipt. That includes what this client itself sent on
    /// a connection that was lost before the answer came.
    Duplicate(Receipt),
    /// The ledger rejected the statement, and did not record it.
    Rejected(v1::Rejection),
}

impl Eq for Appended {}

impl Appended {
    /// The receipt, unless it was rejected.
    #[must_use]
    pub const fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Accepted(receipt) | Self::Duplicate(receipt) => Some(receipt),
            Self::Rejected(_) => None,
        }
    }
}

/// The place of a statement in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The position of the statement in the log.
    pub leaf_index: LeafIndex,
    /// Hash of the entry: of the payload that was sent, and of the fields that the server added.
    pub leaf_hash: Hash,
    /// The time at which the server admitted it, by the server's word.
    pub received_at: Micros,
    /// True if an inclusion proof came along and held.
    pub inclusion_verified: bool,
    /// The leaf of the binding by which the caller may deliver it, if the server asks who calls.
    pub principal_leaf: Option<LeafIndex>,
    /// The leaf of the batch manifest whose signature covers it, if it came in a batch.
    pub manifest: Option<LeafIndex>,
    /// The ledger's assessment of an Intent, or of another statement with findings. It is the server's word;
    /// a replay of the ledger checks it. `None` for duplicates.
    pub assessed: Option<v1::Assessed>,
}

impl Eq for Receipt {}

/// Checks the results against what was sent, under a head that was verified.
///
/// `head` is `None` where verification is switched off; then the receipts are taken as they are.
///
/// In a batch the manifest's result is checked as well, and left out: its statements must lie right
/// behind it, and all of them must be recorded or none.
pub(crate) fn read_items(
    results: &[v1::AppendResult],
    envelopes: &[v1::Envelope],
    head: Option<&TreeHead>,
    with_proofs: bool,
) -> Result<Vec<Appended>, Error> {
    if results.len() != envelopes.len() {
        return Err(AnswerError::Results {
            found: results.len(),
            wanted: envelopes.len(),
        }
        .into());
    }
    let batched = envelopes.first().is_some_and(is_manifest);
    let mut items = Vec::with_capacity(results.len());
    for (position, (result, envelope)) in results.iter().zip(envelopes).enumerate() {
        let read = |receipt: &v1::Receipt| match head {
            Some(head) => verified(
                receipt,
                &sent(envelope, batched),
                head,
                with_proofs,
                position,
            ),
            None => unverified(receipt),
        };
        items.push(match &result.result {
            Some(Item::Accepted(receipt)) => Appended::Accepted(read(receipt)?),
            Some(Item::Duplicate(receipt)) => Appended::Duplicate(read(receipt)?),
            Some(Item::Rejected(rejection)) => Appended::Rejected(rejection.clone()),
            None => return Err(AnswerError::EmptyResult { position }.into()),
        });
    }
    if batched {
        let manifest = items.remove(0);
        join_batch(&manifest, &mut items)?;
    }
    Ok(items)
}

/// Ties the results of a batch's statements to that of its manifest.
fn join_batch(manifest: &Appended, items: &mut [Appended]) -> Result<(), AnswerError> {
    let rejected = match manifest {
        Appended::Accepted(receipt) | Appended::Duplicate(receipt) => {
            let manifest = receipt.leaf_index;
            for (position, item) in (0..).zip(items) {
                let wanted = manifest.checked_add(position + 1);
                match item {
                    Appended::Accepted(receipt) | Appended::Duplicate(receipt)
                        if Some(receipt.leaf_index) == wanted =>
                    {
                        receipt.manifest = Some(manifest);
                    }
                    Appended::Accepted(receipt) | Appended::Duplicate(receipt) => {
                        return Err(AnswerError::NotBehindManifest {
                            position,
                            found: receipt.leaf_index.get(),
                            manifest: manifest.get(),
                        });
                    }
                    Appended::Rejected(_) => return Err(AnswerError::HalfBatch { position }),
                }
            }
            return Ok(());
        }
        Appended::Rejected(rejected) => rejected,
    };
    if let Some(position) = items.iter().position(|item| item.receipt().is_some()) {
        let position = position as u64;
        return Err(AnswerError::HalfBatch { position });
    }
    if rejected.reason() != Reason::BatchRefused {
        // The manifest is nothing that the caller knows of: what is wrong with it is wrong with
        // what it was made over.
        for item in items {
            *item = Appended::Rejected(rejected.clone());
        }
    }
    Ok(())
}

fn verified(
    receipt: &v1::Receipt,
    sent: &receipt::Sent<'_>,
    head: &TreeHead,
    with_proofs: bool,
    position: usize,
) -> Result<Receipt, Error> {
    let verified = receipt::verify(receipt, sent, head, with_proofs)
        .map_err(|source| Error::Receipt { position, source })?;
    Ok(Receipt {
        leaf_index: verified.leaf_index,
        leaf_hash: verified.leaf_hash,
        received_at: verified.received_at,
        inclusion_verified: verified.inclusion_verified,
        principal_leaf: verified.principal_leaf,
        manifest: None,
        assessed: receipt.assessed.clone(),
    })
}

fn unverified(receipt: &v1::Receipt) -> Result<Receipt, Error> {
    let missing = |_| AnswerError::Missing {
        what: "a leaf hash of 32 bytes",
    };
    Ok(Receipt {
        leaf_index: LeafIndex::new(receipt.leaf_index),
        leaf_hash: Hash::try_from(receipt.leaf_hash.as_ref()).map_err(missing)?,
        received_at: Micros::new(receipt.received_at_us),
        inclusion_verified: false,
        principal_leaf: receipt.principal_leaf.map(LeafIndex::new),
        manifest: None,
        assessed: receipt.assessed.clone(),
    })
}
