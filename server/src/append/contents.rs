//! Contents on an append's way: stored before the statements that name them, erased after the
//! statement that says so.

use std::sync::Arc;

use deed_evidence::{CommitmentDigest, trust, trust::TrustStatement};
use deed_proto::v1::{self, append_result};
use deed_tlog::LeafIndex;

use super::{Appends, OnQuota, RETRY_AFTER};
use crate::{
    admission::{AdmittedBatch, Attached, Contents, Erasable, Sender},
    content::{ContentStore, ErasureGuard, LedgerRef, NewContent, State},
    grpc::blocking,
    ledger::Ledger,
    pressure::Source,
    status::Refusal,
    store::LedgerNumber,
};

impl Appends {
    /// Stores the contents that came along, and notes which of those that are named are held.
    pub(super) async fn hold_contents(
        &self,
        ledger: &Arc<Ledger>,
        source: &Source,
        contents: Contents,
        batch: &mut AdmittedBatch,
    ) -> Result<(), Refusal> {
        // Until the statements are recorded nobody may take away what they name. Whoever waits here
        // holds room that others may want, so not for long.
        let entering = self.contents.enter(ledger.number);
        let gate = tokio::time::timeout(self.queue_wait, entering)
            .await
            .map_err(|_| Refusal::Overloaded {
                retry_after: RETRY_AFTER,
            })?;
        let (store, number) = (Arc::clone(&self.contents), ledger.number);
        let found = blocking(move || Found::look(&store, number, contents)).await?;

        let principal = source.principal.clone().unwrap_or_else(|| Arc::from(""));
        let new = found.new.into_iter().map(|item| NewContent {
            digest: item.digest,
            salt: item.salt,
            bytes: item.content,
            principal: Arc::clone(&principal),
        });
        self.contents
            .hold(&gate, new.collect(), LedgerRef::from(&**ledger))
            .await?;
        batch.set_references(found.held);
        batch.set_erased(found.erased);
        batch.set_gate(gate);
        Ok(())
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

/// What a request's statements have to do with contents, as it was found under the gate.
struct Found {
    /// To be stored.
    new: Vec<Attached>,
    /// Held, or about to be: envelope and content, sorted by envelope.
    held: Vec<(usize, CommitmentDigest)>,
    /// Attached although it was erased: envelope, content and leaf of the Erasure, sorted.
    erased: Vec<(usize, CommitmentDigest, u64)>,
}

impl Found {
    /// Reads the disk.
    fn look(
        store: &ContentStore,
        ledger: LedgerNumber,
        contents: Contents,
    ) -> Result<Self, Refusal> {
        let mut found = Self {
            new: Vec::with_capacity(contents.attached.len()),
            held: Vec::new(),
            erased: Vec::new(),
        };
        for item in contents.attached {
            let (envelope, digest) = (item.envelope, item.digest);
            if let State::Erased(leaf) = store.held(ledger, &digest)? {
                found.erased.push((envelope, digest, leaf));
            } else {
                found.held.push((envelope, digest));
                found.new.push(item);
            }
        }
        for (envelope, digest) in contents.named {
            if store.held(ledger, &digest)? == State::Held {
                found.held.push((envelope, digest));
            }
        }
        found.held.sort_unstable();
        found.erased.sort_unstable();
        Ok(found)
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
