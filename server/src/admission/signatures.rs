//! Signatures of a request: verified strictly, one at a time, on as many threads as there are
//! processors, where all requests take turns by who sends them.

use bytes::Bytes;
use deed_evidence::signature;
use deed_proto::v1::{PayloadType, rejection::Reason};
use deed_tlog::PublicKey;
use futures::future::join_all;

use super::{Admitting, Rejected};
use crate::pressure::{Budget, SourceKey};

/// Signatures that a request's own task verifies: some 25 us each. More of them go to threads that
/// may take their time.
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
    /// What is wrong with it, if anything is.
    fn verify(&self) -> Option<Rejected> {
        signature::verify(&self.key, self.payload_type, &self.payload, &self.signature)
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
        let mut verifying = Vec::with_capacity(unverified.len().div_ceil(CHUNK));
        while !unverified.is_empty() {
            let chunk = unverified.split_off(unverified.len().saturating_sub(CHUNK));
            verifying.push(async move {
                let turn = threads.take(caller, 1).await;
                let verifying = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    verify_all(&chunk)
                });
                verifying.await
            });
        }
        for verified in join_all(verifying).await {
            match verified {
                Ok(rejected) => self.rejected.extend(rejected),
                // Nothing unverified may pass.
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

fn verify_all(unverified: &[Unverified]) -> Vec<Rejected> {
    unverified.iter().filter_map(Unverified::verify).collect()
}
