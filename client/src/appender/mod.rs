//! A pipelined stream of appends that survives lost connections.
//!
//! Requests go out before the answers to earlier ones are back, up to a bound in requests and
//! bytes. A task owns the stream (`task.rs`); what it holds of each request until all of its
//! statements have a receipt or a final rejection is in `request.rs`.
//!
//! Statements without a receipt are sent again, in order, after a lost connection, and when the
//! server says that it expects an earlier statement which is still held (go-back-N). Strict
//! sequences make that safe: what was recorded comes back as a duplicate with its first receipt.

mod request;
mod task;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    answer::Answer,
    append::check_request,
    error::{Error, InputError},
    ledger::Ledger,
    signing::{Signing, Statement, follows},
};
use request::Request;
use task::Task;

/// The bounds on what may be under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppenderOptions {
    /// Requests without an answer; at least 1.
    pub requests_in_flight_max: usize,
    /// Payload bytes without an answer. A single request may be larger; it then goes alone.
    pub bytes_in_flight_max: usize,
    /// True if every receipt shall come with an inclusion proof.
    pub with_proofs: bool,
    /// The time after which the connection is given up if the oldest request has no answer.
    pub answer_timeout_ms: u64,
    /// The way of signing.
    pub signing: Signing,
}

impl Default for AppenderOptions {
    /// 32 requests, 8 MiB, with proofs, 60 seconds, unsigned.
    fn default() -> Self {
        Self {
            requests_in_flight_max: 32,
            bytes_in_flight_max: 8 * 1024 * 1024,
            with_proofs: true,
            answer_timeout_ms: 60_000,
            signing: Signing::None,
        }
    }
}

/// Appends in a pipeline. Made by [`Ledger::appender`].
///
/// Dropping it lets what was sent finish in the background; [`finish`](Self::finish) waits.
#[derive(Debug)]
pub struct Appender {
    ledger: Ledger,
    requests: mpsc::Sender<Request>,
    free_requests: Arc<Semaphore>,
    free_bytes: Arc<Semaphore>,
    bytes_in_flight_max: usize,
    is_batch: bool,
    task: JoinHandle<Result<(), Error>>,
}

/// An answer that is on its way.
#[derive(Debug)]
#[must_use = "the receipts come with it"]
pub struct Pending(oneshot::Receiver<Result<Answer, Error>>);

impl Future for Pending {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(Error::Ended)))
    }
}

impl Appender {
    pub(crate) fn start(ledger: Ledger, options: AppenderOptions) -> Self {
        let requests_max = options.requests_in_flight_max.clamp(1, 1 << 16);
        // Semaphores count in u32.
        let bytes_max = options.bytes_in_flight_max.clamp(1, u32::MAX as usize);
        let (sender, receiver) = mpsc::channel(requests_max);
        let is_batch = options.signing.is_batch();
        let task = Task::new(ledger.clone(), options, requests_max, receiver);
        Self {
            ledger,
            requests: sender,
            free_requests: Arc::new(Semaphore::new(requests_max)),
            free_bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_in_flight_max: bytes_max,
            is_batch,
            task: tokio::spawn(task.run()),
        }
    }

    /// Hands over one request of 1 to 4,096 statements. Waits while too much is under way.
    /// Requests go out in the order of these calls.
    ///
    /// The answer comes with the returned future, in any case: verified, or as the error that
    /// ended the appender.
    ///
    /// With [`Signing::Batch`] they must be consecutive statements of one session. Requests that
    /// wait and continue each other become one batch; nothing waits for company.
    ///
    /// # Errors
    /// [`Error::Input`] if the request is too large, or no batch; [`Error::Ended`] if the appender has failed
    /// (the pending futures say why).
    pub async fn send<S: Into<Statement>>(
        &self,
        statements: impl IntoIterator<Item = S>,
    ) -> Result<Pending, Error> {
        let statements: Vec<Statement> = statements.into_iter().map(Into::into).collect();
        let total_bytes = check_request(&statements)?;
        if self.is_batch {
            check_batch(&statements)?;
        }
        let bytes = total_bytes.clamp(1, self.bytes_in_flight_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let ended = |_| Error::Ended;
        let request = Arc::clone(&self.free_requests);
        let request = request.acquire_owned().await.map_err(ended)?;
        let bytes = Arc::clone(&self.free_bytes)
            .acquire_many_owned(bytes)
            .await
            .map_err(ended)?;
        let (sender, receiver) = oneshot::channel();
        let request = Request::new(statements, total_bytes, sender, [request, bytes]);
        self.requests
            .send(request)
            .await
            .map_err(|_| Error::Ended)?;
        Ok(Pending(receiver))
    }

    /// Waits for all answers, then proves that all heads lie on one line and stores the newest
    /// ([`Ledger::flush`]).
    ///
    /// # Errors
    /// The failure that ended the appender, or the one of [`Ledger::flush`].
    pub async fn finish(self) -> Result<(), Error> {
        drop(self.requests);
        self.task.await.map_err(|_| Error::Ended)??;
        self.ledger.flush().await
    }
}

/// Refuses what could never be one batch, before anything else joins it.
fn check_batch(statements: &[Statement]) -> Result<(), InputError> {
    let pairs = statements.iter().zip(statements.iter().skip(1));
    match pairs
        .enumerate()
        .find(|(_, (last, next))| !follows(&last.payload, &next.payload))
    {
        None => Ok(()),
        Some((position, _)) => Err(InputError::NotNextInBatch {
            position: position + 1,
        }),
    }
}
