//! Calls to the server, with their retries.

use std::{future::Future, time::Duration};

use tonic::{Response, Status};

use crate::{
    connection::Connection,
    error::Error,
    ledger::{Ledger, Shared},
    options::Event,
    retry::{Backoff, RetryPolicy, within},
};

/// Calls an rpc until it answers or fails for good. `before_retry` gets the number of the next attempt,
/// the pause before it and the status of the last one. Returns the last status.
pub(crate) async fn call<T, F>(
    connection: &Connection,
    timeout: Duration,
    retry: RetryPolicy,
    before_retry: impl Fn(u32, Duration, &Status),
    rpc: impl Fn(Connection) -> F,
) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut backoff = Backoff::new(retry);
    loop {
        match within(timeout, rpc(connection.clone())).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => {
                let Some(pause) = backoff.pause_after(&status) else {
                    return Err(status);
                };
                before_retry(backoff.attempts(), pause, &status);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl Ledger {
    /// Calls an rpc until it answers, or fails for good.
    pub(crate) async fn call<T, F>(&self, rpc: impl Fn(Connection) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let shared = &self.shared;
        let report = |attempt, pause, status: &Status| shared.report_retry(attempt, pause, status);
        call(&self.connection, shared.timeout, shared.retry, report, rpc)
            .await
            .map_err(|status| CallError {
                error: Error::of_status(&status, self.connection.server()),
                status,
            })
    }

    /// Waits before the next attempt, or says why there is none.
    pub(crate) async fn wait_after(
        &self,
        status: &Status,
        backoff: &mut Backoff,
    ) -> Result<(), Error> {
        let Some(pause) = backoff.pause_after(status) else {
            return Err(Error::of_status(status, self.connection.server()));
        };
        self.shared.report_retry(backoff.attempts(), pause, status);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// A call that failed for good: the last status, and the error that it amounts to.
pub(crate) struct CallError {
    pub(crate) status: Status,
    pub(crate) error: Error,
}

impl From<CallError> for Error {
    fn from(call: CallError) -> Self {
        call.error
    }
}

impl Shared {
    pub(crate) fn report_retry(&self, attempt: u32, pause: Duration, status: &Status) {
        self.observer.report(&Event::Retrying {
            attempt,
            pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            reason: status.message().to_owned(),
        });
    }
}
