//! The answer to an append request: the result of each envelope, and the head that covers it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use deed_evidence::assess::Assessed;
use deed_proto::v1::{self, append_result};
use deed_tlog::{InclusionProof, LeafIndex, SizeRange, TreeSize};

use super::{
    error::{AppendError, blocking},
    reasons,
};
use crate::{
    admission::Rejected,
    ledger::{Ledger, PublishedTree, read::ReadError, step::Placement},
    metrics::{Metrics, Stage},
    pressure::AppendPermit,
    shard::{Answer, Pending},
};

/// An answer, with the permit that it holds until somebody takes it.
pub struct Answered {
    response: v1::AppendResponse,
    room: AppendPermit,
}

impl Answered {
    /// Returns the answer, and the permit to be held until the answer is taken.
    pub fn into_parts(self) -> (v1::AppendResponse, AppendPermit) {
        (self.response, self.room)
    }

    /// Returns the answer, which is about to be sent, and gives its permit back.
    pub fn into_response(self) -> v1::AppendResponse {
        drop(self.room);
        self.response
    }
}

/// A request that was taken and is not answered yet.
pub struct InFlight {
    pub(super) ledger: Arc<Ledger>,
    pub(super) envelopes: usize,
    pub(super) with_proofs: bool,
    pub(super) consistency_from: Option<TreeSize>,
    pub(super) rejected: Vec<Rejected>,
    /// `None` if nothing was admitted.
    pub(super) pending: Option<Pending>,
    /// The permits of the budgets that the request holds.
    pub(super) room: AppendPermit,
    pub(super) answer_bytes: usize,
    pub(super) metrics: Arc<Metrics>,
}

impl InFlight {
    /// Waits until every admitted statement is recorded under a signed head, and returns the
    /// answer.
    pub async fn finish(self) -> Result<Answered, AppendError> {
        let mut room = self.room;
        let mut results = vec![v1::AppendResult { result: None }; self.envelopes];
        let readable = match self.pending {
            Some(pending) => {
                let answer = pending.answer().await?;
                if answer.placements.contains(&Placement::Late) {
                    let message = "the request waited for long, or the server's clock was set: send \
                                   the same bytes again";
                    return Err(AppendError::Unavailable(message.to_owned()));
                }
                let released = Instant::now();
                let proofs = if self.with_proofs {
                    prove(&self.ledger, &answer).await?
                } else {
                    Vec::new()
                };
                place(&mut results, &answer, proofs);
                self.metrics.stage(Stage::Answer, released.elapsed());
                answer.readable
            }
            None => self.ledger.readable(),
        };
        for rejected in self.rejected {
            let envelope = rejected.envelope;
            results[envelope].result = Some(append_result::Result::Rejected(v1::Rejection {
                reason: rejected.reason.into(),
                message: rejected.message,
                field: rejected.field,
                expected_sequence: None,
            }));
        }
        count(&self.metrics, &results);
        let consistency = match self.consistency_from {
            Some(old) if old <= readable.size() => Some(consistency(&self.ledger, &readable, old)?),
            _ => None,
        };
        let response = v1::AppendResponse {
            checkpoint: readable.checkpoint.clone(),
            witnessed_size: 0,
            results,
            consistency,
        };
        // The request's part goes back here; the answer keeps its own.
        room.answered(self.answer_bytes);
        Ok(Answered { response, room })
    }
}

/// Counts the results of a request, for the metrics.
fn count(metrics: &Metrics, results: &[v1::AppendResult]) {
    let (mut accepted, mut duplicates) = (0, 0);
    for result in results {
        match &result.result {
            Some(append_result::Result::Accepted(_)) => accepted += 1,
            Some(append_result::Result::Duplicate(_)) => duplicates += 1,
            Some(append_result::Result::Rejected(rejection)) => {
                metrics.rejected(rejection.reason());
            }
            None => {}
        }
    }
    metrics.statements(accepted, duplicates);
}

/// Returns the proof that the tree of `old` leaves is a prefix of the published tree.
pub fn consistency(
    ledger: &Ledger,
    readable: &PublishedTree,
    old: TreeSize,
) -> Result<v1::ConsistencyProof, ReadError> {
    let sizes = SizeRange {
        old,
        new: readable.size(),
    };
    let proof = ledger.consistency(readable, sizes)?;
    Ok(v1::ConsistencyProof {
        old_size: old.get(),
        hashes: hashes(proof.hashes()),
    })
}

/// Converts hashes to the bytes of a message.
pub fn hashes(hashes: &[deed_tlog::Hash]) -> Vec<Bytes> {
    hashes
        .iter()
        .map(|hash| Bytes::copy_from_slice(hash.as_bytes()))
        .collect()
}

/// Returns the inclusion proofs of all leaves in the answer, in the order of its placements.
/// Refused statements have none.
async fn prove(ledger: &Arc<Ledger>, answer: &Answer) -> Result<Vec<InclusionProof>, AppendError> {
    let indexes: Vec<LeafIndex> = answer
        .placements
        .iter()
        .filter_map(|placement| match placement {
            Placement::Recorded { leaf } => Some(LeafIndex::new(*leaf)),
            Placement::Linked(placed) | Placement::Duplicate(placed) => {
                Some(LeafIndex::new(placed.leaf))
            }
            Placement::Equivocation { .. } | Placement::Refused(_) | Placement::Late => None,
        })
        .collect();
    let (ledger, readable) = (Arc::clone(ledger), Arc::clone(&answer.readable));
    blocking(move || Ok(ledger.inclusions(&readable, &indexes)?)).await
}

/// Puts the placements of an answer into the results of their envelopes.
fn place(results: &mut [v1::AppendResult], answer: &Answer, proofs: Vec<InclusionProof>) {
    let batch = &answer.batch;
    let mut proofs = proofs.into_iter();
    // All leaf hashes are in one allocation, which the receipts share.
    let leaf_hashes: Bytes = batch
        .payloads()
        .flat_map(|payload| *payload.leaf_hash.as_bytes())
        .collect::<Vec<u8>>()
        .into();
    for (position, (payload, placement)) in batch.payloads().zip(&answer.placements).enumerate() {
        let mut receipt = |leaf: u64, leaf_hash, received_at: deed_evidence::Micros| v1::Receipt {
            leaf_index: leaf,
            leaf_hash,
            received_at_us: received_at.get(),
            principal_leaf: payload.principal_leaf,
            inclusion_proof: proofs
                .next()
                .map_or_else(Vec::new, |proof| hashes(proof.hashes())),
            previous_trust: None,
            assessed: None,
        };
        let result = match placement {
            Placement::Recorded { leaf } => {
                let leaf_hash = leaf_hashes.slice(position * 32..(position + 1) * 32);
                append_result::Result::Accepted(receipt(*leaf, leaf_hash, batch.received_at()))
            }
            Placement::Linked(placed) | Placement::Duplicate(placed) => {
                let leaf_hash = Bytes::copy_from_slice(placed.leaf_hash.as_bytes());
                let receipt = v1::Receipt {
                    principal_leaf: placed.principal_leaf,
                    previous_trust: placed.previous_trust.map(|link| link.to_message()),
                    ..receipt(placed.leaf, leaf_hash, placed.received_at)
                };
                match placement {
                    Placement::Linked(_) => append_result::Result::Accepted(receipt),
                    _ => append_result::Result::Duplicate(receipt),
                }
            }
            Placement::Equivocation { leaf, expected } => {
                append_result::Result::Rejected(reasons::equivocation(*leaf, *expected))
            }
            Placement::Refused(refusal) => {
                append_result::Result::Rejected(reasons::rejection(refusal))
            }
            // A request with such a placement was refused as a whole.
            Placement::Late => continue,
        };
        results[payload.envelope].result = Some(result);
    }
    for (envelope, assessed) in &answer.assessed {
        if let Some(append_result::Result::Accepted(receipt)) = &mut results[*envelope].result {
            receipt.assessed = Some(message_of(assessed));
        }
    }
}

/// Converts the assessment of a statement to its message.
fn message_of(assessed: &Assessed) -> v1::Assessed {
    let mut message = v1::Assessed {
        findings: assessed.findings.clone(),
        ..v1::Assessed::default()
    };
    if let Some(verdict) = &assessed.intent {
        message.set_intent(verdict.state);
        message.missing.clone_from(&verdict.missing);
        message.denied.clone_from(&verdict.denied);
    }
    message
}
