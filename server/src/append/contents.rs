//! Contents on an append's way: stored before the statements that name them, erased after the
//! statement that says so.

use std::{collections::BTreeMap, sync::Arc};

use deed_evidence::{CommitmentDigest, trust, trust::TrustStatement};
use deed_proto::v1::{self, append_result, rejection::Reason};
use deed_tlog::LeafIndex;

use super::{Appends, OnQuota};
use crate::{
    admission::{AdmittedBatch, Contents, Erasable, Rejected, Sender},
    content::{ErasureGuard, LedgerRef, NewContent, State},
    grpc::blocking,
    ledger::Ledger,
    pressure::Source,
    status::Refusal,
};

impl Appends {
    /// Stores the contents that came along, and notes which of those that are named are held.
    /// Returns what is refused because its content was erased before.
    pub(super) async fn hold_contents(
        &self,
        ledger: &Arc<Ledger>,
        source: &Source,
        contents: Contents,
        batch: &mut AdmittedBatch,
    ) -> Result<Vec<Rejected>, Refusal> {
        // Until the statements are recorded nobody may take away what they name.
        let gate = self.contents.enter(ledger.number).await;
        let Contents {
            mut attached,
            named,
        } = contents;
        let mut asked: Vec<(usize, CommitmentDigest)> = named;
        asked.extend(attached.iter().map(|item| (item.envelope, item.digest)));
        asked.sort_unstable();
        let (store, number) = (Arc::clone(&self.contents), ledger.number);
        let states = blocking(move || {
            let states = asked
                .into_iter()
                .map(|(envelope, digest)| Ok((envelope, digest, store.held(number, &digest)?)));
            states.collect::<Result<Vec<_>, Refusal>>()
        })
        .await?;

        let comes = |envelope: usize, digest: CommitmentDigest| {
            let mut all = attached.iter();
            all.any(|item| item.envelope == envelope && item.digest == digest)
        };
        let erased = states.iter().filter_map(|&(envelope, digest, state)| {
            let State::Erased(leaf) = state else {
                return None;
            };
            // A statement may name what is gone; it may not bring it back.
            comes(envelope, digest).then(|| {
                let message = format!(
                    "content {digest} was erased by the entry at leaf {leaf}; send the statement \
                     without it"
                );
                Rejected::new(Reason::ContentErased, "attachments", message).at(envelope)
            })
        });
        let mut once: BTreeMap<usize, Rejected> = BTreeMap::new();
        for rejected in erased {
            once.entry(rejected.envelope).or_insert(rejected);
        }
        let held: Vec<_> = states
            .iter()
            .filter(|&&(envelope, digest, state)| state == State::Held || comes(envelope, digest))
            .map(|&(envelope, digest, _)| (envelope, digest))
            .collect();
        let refused = batch.refuse(once.into_values().collect());
        attached.retain(|item| refused.iter().all(|one| one.envelope != item.envelope));

        let principal = source.principal.clone().unwrap_or_else(|| Arc::from(""));
        let new = attached.into_iter().map(|item| NewContent {
            digest: item.digest,
            salt: item.salt,
            bytes: item.content,
            principal: Arc::clone(&principal),
        });
        self.contents
            .hold(&gate, new.collect(), LedgerRef::from(&**ledger))
            .await?;
        batch.set_references(held);
        batch.set_gate(gate);
        Ok(refused)
    }

    /// Takes the ledger's content gate alone, and finds out what is known of some contents.
    pub(super) async fn look_up_erasable(
        &self,
        ledger: &Ledger,
        contents: &[CommitmentDigest],
    ) -> Result<(ErasureGuard, Vec<Erasable>), Refusal> {
        let begun = self.contents.begin_erasure(ledger.number, contents);
        let guard = begun.await?;
        blocking(move || look_up(guard)).await
    }

    /// Records an Erasure and destroys the keys of what it names.
    pub(crate) async fn erase(
        &self,
        request: v1::EraseContentRequest,
        ledger: &Arc<Ledger>,
        sender: &Sender,
        source: &Source,
    ) -> Result<v1::EraseContentResponse, Refusal> {
        let envelope = request
            .envelope
            .ok_or_else(|| Refusal::field("envelope", "is missing"))?;
        let Ok(Some(TrustStatement::Erasure(named))) = TrustStatement::parse(&envelope.payload)
        else {
            let what = "must hold a statement with the body Erasure, signed by an authority";
            return Err(Refusal::field("envelope", what));
        };
        let append = v1::AppendRequest {
            ledger: request.ledger,
            envelopes: vec![envelope],
            ..v1::AppendRequest::default()
        };
        let (in_flight, guard) = self
            .begin_with(append, sender, source, OnQuota::Refuse, Some(named))
            .await?;
        let mut answer = in_flight.finish().await?.into_response();
        let result = answer.results.pop();
        let recorded = match result.as_ref().and_then(|result| result.result.as_ref()) {
            Some(
                append_result::Result::Accepted(receipt)
                | append_result::Result::Duplicate(receipt),
            ) => Some(receipt.leaf_index),
            Some(append_result::Result::Rejected(_)) | None => None,
        };
        let erased = match (recorded, guard) {
            (Some(leaf), Some(guard)) => self.contents.complete_erasure(guard, leaf).await?,
            _ => 0,
        };
        if erased > 0 {
            tracing::info!(ledger = ledger.name(), erased, "contents erased");
        }
        Ok(v1::EraseContentResponse {
            checkpoint: answer.checkpoint,
            result,
            erased,
        })
    }
}

/// What is known of the contents of an erasure. Reads the disk.
fn look_up(guard: ErasureGuard) -> Result<(ErasureGuard, Vec<Erasable>), Refusal> {
    let mut erasable = Vec::with_capacity(guard.contents().len());
    for &(content, state) in guard.contents() {
        let references = guard.references(&content)?.into_iter();
        let references = references.map(|reference| trust::Reference {
            leaf: LeafIndex::new(reference.leaf),
            recorded_at: reference.received_at,
            task: reference.task,
        });
        erasable.push(Erasable {
            content,
            state,
            references: references.collect(),
        });
    }
    Ok((guard, erasable))
}
