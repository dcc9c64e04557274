//! Contents of an append. They are stored before the statements that name them are recorded, and
//! erased after the Erasure is recorded.

use std::sync::Arc;

use deed_evidence::{CommitmentDigest, trust, trust::TrustStatement};
use deed_proto::v1::{self, append_result};
use deed_tlog::LeafIndex;

use super::{
    AppendService, QuotaPolicy,
    error::{AppendError, blocking},
};
use crate::{
    admission::{AdmittedBatch, Attached, Contents, Erasable, Sender},
    content::{ContentStatus, ContentStore, ErasureGuard, LedgerRef, NewContent},
    ledger::Ledger,
    pressure::Source,
    store::LedgerNumber,
};

/// The guard of an erasure that may be recorded now, and the commitments to the same bytes for
/// which the Erasure has no room.
type Twins = (ErasureGuard, Vec<CommitmentDigest>);

impl AppendService {
    /// Stores the attached contents, and notes which of the named contents are held.
    pub(super) async fn hold_contents(
        &self,
        ledger: &Arc<Ledger>,
        source: &Source,
        contents: Contents,
        batch: &mut AdmittedBatch,
    ) -> Result<(), AppendError> {
        // Until the statements are recorded, nothing may erase the contents that they name. A
        // request that waits here holds permits that others may want, so the wait is bounded.
        let entering = self.contents.enter(ledger.number);
        let gate = tokio::time::timeout(self.queue_wait, entering)
            .await
            .map_err(|_| AppendError::Overloaded)?;
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

    /// Locks the ledger's content gate exclusively, and looks up the state of `contents`.
    pub(super) async fn look_up_erasable(
        &self,
        ledger: &Ledger,
        contents: &[CommitmentDigest],
    ) -> Result<(Twins, Vec<Erasable>), AppendError> {
        let begun = self.contents.begin_erasure(ledger.number, contents);
        let guard = begun.await?;
        blocking(move || {
            let twins = guard.twins()?;
            check_twins(guard.contents().len(), &twins)?;
            let (guard, erasable) = look_up(guard)?;
            Ok(((guard, twins), erasable))
        })
        .await
    }

    /// Records an Erasure, and destroys the keys of the contents that it names.
    pub async fn erase(
        &self,
        request: v1::EraseContentRequest,
        ledger: &Arc<Ledger>,
        sender: &Sender,
        source: &Source,
    ) -> Result<v1::EraseContentResponse, AppendError> {
        let Some(envelope) = request.envelope else {
            return self.look_for_twins(ledger, &request.look_up).await;
        };
        if !request.look_up.is_empty() {
            let what = "is for requests without an envelope, which erase nothing";
            return Err(AppendError::field("look_up", what));
        }
        let Ok(Some(TrustStatement::Erasure(named))) = TrustStatement::parse(&envelope.payload)
        else {
            let what = "must hold a statement with the body Erasure, signed by an authority";
            return Err(AppendError::field("envelope", what));
        };
        let append = v1::AppendRequest {
            ledger: request.ledger,
            envelopes: vec![envelope],
            ..v1::AppendRequest::default()
        };
        let append = self.check(append)?;
        // An erasure frees space, so it is accepted with less free space than other statements.
        self.registry.store().disk().room_for_erasure()?;
        // The gate is taken after the request's permits, as by everybody who takes both. A request
        // that waits for the gate holds permits, so whoever has the gate must not wait for permits.
        let taken = self.take_in(
            Arc::clone(ledger),
            append,
            sender,
            source,
            QuotaPolicy::Refuse,
            self.shards.superseded(),
        );
        let mut admitted = taken.await?;
        // A caller that may not erase learns nothing about held contents. Until the guard is
        // dropped, nobody stores or names these contents in the ledger.
        let guard = if admitted.batch.pieces().is_empty() {
            None
        } else {
            let (guard, erasable) = self.look_up_erasable(ledger, &named).await?;
            admitted.batch.set_erasable(erasable);
            Some(guard)
        };
        let in_flight = admitted.queue(&self.metrics);
        let mut answer = in_flight.finish().await?.into_response();
        let result = answer.results.pop();
        let recorded = match result.as_ref().and_then(|result| result.result.as_ref()) {
            Some(
                append_result::Result::Accepted(receipt)
                | append_result::Result::Duplicate(receipt),
            ) => Some(receipt.leaf_index),
            Some(append_result::Result::Rejected(_)) | None => None,
        };
        let mut twins = Vec::new();
        let erased = match (recorded, guard) {
            (Some(leaf), Some((guard, left))) => {
                twins = left;
                self.contents.complete_erasure(guard, leaf).await?
            }
            _ => 0,
        };
        if erased > 0 {
            tracing::info!(ledger = ledger.name(), erased, "contents erased");
        }
        Ok(v1::EraseContentResponse {
            checkpoint: answer.checkpoint,
            result,
            erased,
            twins: as_bytes(&twins),
        })
    }

    /// Looks up the other commitments to the same bytes, which an Erasure of `contents` would have
    /// to name too.
    async fn look_for_twins(
        &self,
        ledger: &Ledger,
        contents: &[bytes::Bytes],
    ) -> Result<v1::EraseContentResponse, AppendError> {
        if !(1..=ERASED_AT_ONCE_MAX).contains(&contents.len()) {
            let what = format!(
                "an envelope, or 1 to {ERASED_AT_ONCE_MAX} commitments to look up, is needed"
            );
            return Err(AppendError::field("envelope", what));
        }
        let contents = contents.iter().map(|digest| {
            let what = || AppendError::field("look_up", "must have 32 bytes each");
            CommitmentDigest::from_slice(digest).ok_or_else(what)
        });
        let contents = contents.collect::<Result<Vec<_>, _>>()?;
        let guard = self
            .contents
            .begin_erasure(ledger.number, &contents)
            .await?;
        let twins = blocking(move || Ok(guard.twins()?)).await?;
        Ok(v1::EraseContentResponse {
            twins: as_bytes(&twins),
            ..v1::EraseContentResponse::default()
        })
    }
}

/// Most contents that one Erasure names (`deed.v1.Erasure`).
const ERASED_AT_ONCE_MAX: usize = 64;

/// Most commitments that an error names, so that it fits into a header; the answer to a look-up has
/// all of them.
const NAMED_IN_ERROR_MAX: usize = 16;

fn as_bytes(digests: &[CommitmentDigest]) -> Vec<bytes::Bytes> {
    let digests = digests.iter();
    digests
        .map(|digest| bytes::Bytes::copy_from_slice(digest.as_bytes()))
        .collect()
}

/// Checks that an Erasure names every commitment to the same bytes, as far as it has room.
fn check_twins(named: usize, twins: &[CommitmentDigest]) -> Result<(), AppendError> {
    if twins.is_empty() || named >= ERASED_AT_ONCE_MAX {
        return Ok(());
    }
    let named = twins.iter().take(NAMED_IN_ERROR_MAX);
    let named: Vec<_> = named.map(ToString::to_string).collect();
    Err(AppendError::Twins {
        message: format!(
            "the same bytes are held under {} other commitment(s), which the Erasure has to name \
             too: {}{}",
            twins.len(),
            named.join(", "),
            if twins.len() > named.len() {
                " and more"
            } else {
                ""
            }
        ),
        commitments: named.join(","),
    })
}

/// The state of the contents that a request brings or names, as it was read under the gate.
struct Found {
    /// Contents to be stored.
    new: Vec<Attached>,
    /// Contents that are held or about to be: envelope and content, sorted by envelope.
    held: Vec<(usize, CommitmentDigest)>,
    /// Contents attached although they were erased: envelope, content and leaf of the Erasure,
    /// sorted.
    erased: Vec<(usize, CommitmentDigest, u64)>,
}

impl Found {
    /// Looks the contents up. Reads the disk.
    fn look(
        store: &ContentStore,
        ledger: LedgerNumber,
        contents: Contents,
    ) -> Result<Self, AppendError> {
        let mut found = Self {
            new: Vec::with_capacity(contents.attached.len()),
            held: Vec::new(),
            erased: Vec::new(),
        };
        for item in contents.attached {
            let (envelope, digest) = (item.envelope, item.digest);
            if let ContentStatus::Erased(leaf) = store.held(ledger, &digest)? {
                found.erased.push((envelope, digest, leaf));
            } else {
                found.held.push((envelope, digest));
                found.new.push(item);
            }
        }
        for (envelope, digest) in contents.named {
            if store.held(ledger, &digest)? == ContentStatus::Held {
                found.held.push((envelope, digest));
            }
        }
        found.held.sort_unstable();
        found.erased.sort_unstable();
        Ok(found)
    }
}

/// Looks up the references of the contents of an erasure. Reads the disk.
fn look_up(guard: ErasureGuard) -> Result<(ErasureGuard, Vec<Erasable>), AppendError> {
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
