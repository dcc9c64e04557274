//! Appending statements, one request at a time, and reading the answer.

use bytes::Bytes;
use deed_proto::v1;

use crate::{
    answer::{Answer, read_items},
    appender::{Appender, AppenderOptions},
    connection::{REQUEST_BYTES_MAX, REQUEST_ITEMS_MAX},
    error::{Error, InputError},
    head::SignedHead,
    ledger::{Ledger, Shared},
    retry::within,
    signing::{Signing, Statement},
};

impl Ledger {
    /// Appends 1 to 4,096 statements (at most [`REQUEST_BYTES_MAX`]), each with an inclusion
    /// proof, and verifies the answer. Failures that may pass are tried again with the same
    /// bytes: what was recorded then comes back as [`Appended::Duplicate`](crate::Appended).
    ///
    /// # Errors
    /// Any [`Error`]. A rejected statement is not one: it is an item of the answer.
    pub async fn append(&self, payloads: &[Bytes]) -> Result<Answer, Error> {
        let statements: Vec<Statement> = payloads.iter().cloned().map(Into::into).collect();
        self.append_signed(&statements, &Signing::None).await
    }

    /// [`append`](Self::append) of statements that are signed, and may bring contents along.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_signed(
        &self,
        statements: &[Statement],
        signing: &Signing,
    ) -> Result<Answer, Error> {
        check_request(statements)?;
        let envelopes = signing
            .envelopes(statements.iter())
            .map_err(InputError::from)?;
        let mut attempts = self.attempts();
        loop {
            let base = self.shared.take_base();
            let request = self.shared.request(envelopes.clone(), base.as_ref(), true);
            let mut client = attempts.server(&self.connection).ledger();
            match within(self.shared.timeout, client.append(request)).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let answer = self
                        .read_answer(&answer, &envelopes, base.as_ref(), true)
                        .await?;
                    self.link_heads_if_due();
                    return Ok(answer);
                }
                Err(status) => self.wait_after(&status, &mut attempts).await?,
            }
        }
    }

    /// A pipelined stream of appends.
    #[must_use]
    pub fn appender(&self, options: AppenderOptions) -> Appender {
        Appender::start(self.clone(), options)
    }

    /// Verifies an answer: its head, what the head is consistent with, and every receipt.
    pub(crate) async fn read_answer(
        &self,
        answer: &v1::AppendResponse,
        sent: &[v1::Envelope],
        base: Option<&SignedHead>,
        with_proofs: bool,
    ) -> Result<Answer, Error> {
        let head = match (&self.shared.tracker, base) {
            (Some(tracker), Some(base)) => {
                // An answer that records nothing needs no head, and nothing is to be verified.
                let nothing_recorded = answer.results.iter().all(|result| {
                    matches!(result.result, Some(v1::append_result::Result::Rejected(_)))
                });
                if answer.checkpoint.is_empty() && nothing_recorded {
                    None
                } else {
                    let proof = answer.consistency.as_ref();
                    Some(
                        self.observe_head(tracker, &answer.checkpoint, base, proof)
                            .await?
                            .head,
                    )
                }
            }
            _ => None,
        };
        let items = match (&head, &self.shared.tracker) {
            (None, Some(_)) => read_rejections(&answer.results, sent)?,
            _ => read_items(&answer.results, sent, head.as_ref(), with_proofs)?,
        };
        Ok(Answer {
            head,
            witnessed_size: answer.witnessed_size,
            items,
        })
    }
}

impl Shared {
    pub(crate) fn request(
        &self,
        envelopes: Vec<v1::Envelope>,
        base: Option<&SignedHead>,
        with_proofs: bool,
    ) -> v1::AppendRequest {
        v1::AppendRequest {
            ledger: self.name.clone(),
            envelopes,
            with_proofs: with_proofs && self.tracker.is_some(),
            consistency_from: base.map(|base| base.head.size.get()),
        }
    }
}

/// Refuses requests that a server would refuse as a whole.
pub(crate) fn check_request(statements: &[Statement]) -> Result<usize, InputError> {
    if statements.is_empty() || statements.len() > REQUEST_ITEMS_MAX {
        return Err(InputError::Items {
            found: statements.len(),
            max: REQUEST_ITEMS_MAX,
        });
    }
    let found = statements.iter().map(Statement::bytes).sum();
    if found > REQUEST_BYTES_MAX {
        return Err(InputError::Bytes {
            found,
            max: REQUEST_BYTES_MAX,
        });
    }
    Ok(found)
}

/// Items of an answer without a head: a receipt would have nothing to stand on.
fn read_rejections(
    results: &[v1::AppendResult],
    sent: &[v1::Envelope],
) -> Result<Vec<crate::Appended>, Error> {
    // No receipt is among them, so none is taken unverified.
    read_items(results, sent, None, false)
}
