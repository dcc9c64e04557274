//! Verification of a request's signatures: strict, one at a time, on as many threads as there are
//! processors; requests take turns by caller.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::signature;
use deed_proto::v1::{PayloadType, rejection::Reason};
use deed_tlog::PublicKey;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinError};

use super::{Admitting, Rejected};
use crate::pressure::{Budget, SourceKey};

/// Signatures that a request's own task verifies, at some 25 us each. If there are more, they go to
/// threads that may take their time.
const SIGNATURES_INLINE_MAX: usize = 4;

/// Signatures of one unit of work: about a millisecond.
const CHUNK: usize = 32;

/// A signature that is still to be verified.
#[derive(Debug)]
pub(super) struct Unverified {
    pub(super) envelope: usize,
    pub(super) key: PublicKey,
    pub(super) payload_type: PayloadType,
    pub(super) payload: Bytes,
    pub(super) signature: [u8; 64],
}

impl Unverified {
    /// Returns the rejection of a signature that does not verify. `buffer` takes the signed bytes, and is
    /// handed in so that it is allocated once.
    fn verify(&self, buffer: &mut Vec<u8>) -> Option<Rejected> {
        let (key, payload_type) = (&self.key, self.payload_type);
        signature::verify_with(key, payload_type, &self.payload, &self.signature, buffer)
            .err()
            .map(|_| {
                let message = "the signature is not one of this payload by this key; sign DSSE's \
                               PAE of the payload's type and its exact bytes";
                Rejected::new(Reason::SignatureInvalid, "signature", message).at(self.envelope)
            })
    }
}

impl Admitting {
    /// Verifies every signature: a few of them here, more of them on other threads, of which
    /// `threads` run at once.
    pub(crate) async fn verify(mut self, threads: &Budget, caller: &SourceKey) -> Self {
        if self.signatures.len() <= SIGNATURES_INLINE_MAX {
            self.verify_here();
            return self;
        }
        let mut unverified = std::mem::take(&mut self.signatures);
        let mut chunks = Vec::with_capacity(unverified.len().div_ceil(CHUNK));
        while !unverified.is_empty() {
            chunks.push(unverified.split_off(unverified.len().saturating_sub(CHUNK)));
        }
        let helpers = chunks.len().min(threads.total());
        let work = Work(Arc::new(Unclaimed {
            chunks: Mutex::new(chunks),
            claimed: Notify::new(),
        }));
        let verifying = (0..helpers).map(|_| verify_in_turns(&work.0, threads, caller));
        for verified in join_all(verifying).await {
            match verified {
                Ok(rejected) => self.rejected.extend(rejected),
                // Resuming the panic keeps unverified signatures from passing.
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        self
    }

    /// Verifies every signature on this thread.
    pub(crate) fn verify_here(&mut self) {
        let unverified = std::mem::take(&mut self.signatures);
        self.rejected.extend(verify_all(&unverified));
    }
}

/// Signatures of a request that no thread has claimed yet.
struct Unclaimed {
    chunks: Mutex<Vec<Vec<Unverified>>>,
    /// Notified when nothing is left to claim.
    claimed: Notify,
}

impl Unclaimed {
    fn take(&self) -> Option<Vec<Unverified>> {
        let mut chunks = self.chunks.lock();
        let chunk = chunks.pop();
        if chunks.is_empty() {
            self.claimed.notify_waiters();
        }
        chunk
    }

    /// Waits until every signature is claimed.
    async fn all_claimed(&self) {
        let told = self.claimed.notified();
        if !self.chunks.lock().is_empty() {
            told.await;
        }
    }
}

/// The signatures of a request whose caller waits; dropping it cancels what is not claimed yet.
struct Work(Arc<Unclaimed>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.chunks.lock().clear();
    }
}

/// Verifies chunks until none is left. A thread that has its turn goes on until another caller
/// waits for one: giving the turn back for each chunk would leave the thread idle in between.
async fn verify_in_turns(
    work: &Arc<Unclaimed>,
    threads: &Budget,
    caller: &SourceKey,
) -> Result<Vec<Rejected>, JoinError> {
    let mut rejected = Vec::new();
    loop {
        let turn = tokio::select! {
            biased;
            () = work.all_claimed() => return Ok(rejected),
            turn = threads.take(caller, 1) => turn,
        };
        let work = Arc::clone(work);
        let verifying = tokio::task::spawn_blocking(move || {
            let mut rejected = Vec::new();
            while let Some(chunk) = work.take() {
                rejected.extend(verify_all(&chunk));
                if turn.is_wanted() {
                    break;
                }
            }
            rejected
        });
        rejected.extend(verifying.await?);
    }
}

/// Returns the rejections of the signatures that do not verify.
fn verify_all(unverified: &[Unverified]) -> Vec<Rejected> {
    let mut buffer = Vec::new();
    let verify = |one: &Unverified| one.verify(&mut buffer);
    unverified.iter().filter_map(verify).collect()
}
