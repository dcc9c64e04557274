//! The proof that one signed head continues another, from whichever server has it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use deed_evidence::receipt::consistency_proof;
use deed_proto::v1;
use deed_tlog::{TreeHead, verify_consistency};
use tonic::{Code, Status};

use crate::{
    attempts::{Attempts, Lacking},
    connection::Connection,
    error::{Error, sentence},
    head_tracker::lock,
    options::Observer,
    retry::RetryPolicy,
    rpc::{self, Failure},
};

/// The reason why there is no proof.
pub(crate) enum Unproven {
    /// Every server says that it has none.
    Denied,
    /// Some server did not answer, and may have one.
    Unknown {
        /// The reason.
        error: Error,
        /// The answers whose proofs do not hold. The heads in them are signed all the same.
        failing: Vec<v1::ConsistencyProofResponse>,
    },
}

/// A ledger, and how its servers are asked.
pub(crate) struct Asked<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) ledger: &'a str,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) observer: Option<&'a Observer>,
    /// Servers wait for trees that they lack.
    pub(crate) patient: bool,
}

/// The answers with proofs between two heads.
pub(crate) struct Proofs {
    /// Its proof holds; if no server's does, this is the last one.
    pub(crate) chosen: v1::ConsistencyProofResponse,
    /// The last answers whose proofs do not hold, as many as there are servers at most.
    pub(crate) failing: Vec<v1::ConsistencyProofResponse>,
}

impl Asked<'_> {
    /// Asks one server after another for the proof between two heads that are both signed, until a proof
    /// holds. A server that lacks the larger tree may lag, and one whose proof does not hold speaks for
    /// itself: only when every server has answered and none has a proof that holds, there is none.
    pub(crate) async fn consistency(
        &self,
        old: &TreeHead,
        new: &TreeHead,
    ) -> Result<Proofs, Unproven> {
        let request = v1::GetConsistencyProofRequest {
            ledger: self.ledger.to_owned(),
            old_size: old.size.get(),
            new_size: new.size.get(),
            min_size: if self.patient { new.size.get() } else { 0 },
        };
        let failing = Mutex::new(Vec::new());
        let mut attempts = Attempts::new(self.connection, self.retry).or_denied(denies);
        let answer = rpc::call(
            self.connection,
            self.timeout,
            &mut attempts,
            self.observer,
            |server| {
                let (request, failing) = (request.clone(), &failing);
                async move {
                    let answer = server.log().get_consistency_proof(request).await?;
                    if holds(&answer.get_ref().hashes, old, new) {
                        return Ok(answer);
                    }
                    let mut failing = lock(failing);
                    // One of each server is enough, however often they are asked.
                    if failing.len() == self.connection.count() {
                        failing.remove(0);
                    }
                    failing.push(answer.into_inner());
                    Err(Status::out_of_range("the proof does not hold"))
                }
            },
        );
        let answer = answer.await;
        let mut failing = failing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Failure { status, lacking } = match answer {
            Ok(chosen) => return Ok(Proofs { chosen, failing }),
            Err(failure) => failure,
        };
        let url = |position| self.connection.at(position).url();
        let error = match lacking {
            Some(Lacking { silent: None, .. }) => {
                return match failing.pop() {
                    Some(chosen) => Ok(Proofs { chosen, failing }),
                    None => Err(Unproven::Denied),
                };
            }
            Some(Lacking {
                silent: Some((position, status)),
                ..
            }) => Error::NotShown {
                old_size: old.size.get(),
                new_size: new.size.get(),
                server: url(position).to_owned(),
                reason: sentence(status.message()),
            },
            None => {
                let server = attempts.server(self.connection).url();
                Error::of_status(&status, server)
            }
        };
        Err(Unproven::Unknown { error, failing })
    }
}

/// Returns true if `hashes` prove that the tree of `new` continues that of `old`.
pub(crate) fn holds(hashes: &[Bytes], old: &TreeHead, new: &TreeHead) -> bool {
    consistency_proof(hashes).is_ok_and(|proof| verify_consistency(&proof, old, new).is_ok())
}

fn denies(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::OutOfRange | Code::NotFound | Code::InvalidArgument
    )
}
