//! Calls to the servers, with their retries.

use std::{future::Future, time::Duration};

use tonic::{Response, Status};

use crate::{
    attempts::{Attempts, Lacking, Next, is_behind},
    connection::{Connection, Server},
    error::Error,
    ledger::{Ledger, Shared},
    options::{Event, Observer},
    retry::within,
};

/// Calls an rpc until it answers or fails for good. The failure has the last status; `attempts` knows the
/// server that it came from.
pub(crate) async fn call<T, F>(
    connection: &Connection,
    timeout: Duration,
    attempts: &mut Attempts,
    observer: Option<&Observer>,
    rpc: impl Fn(Server) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    loop {
        let status = match within(timeout, rpc(attempts.server(connection).clone())).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let failed = attempts.server(connection);
        match attempts.after(connection, &status) {
            Next::Server => {
                if let Some(observer) = observer {
                    report_other(observer, failed, attempts.server(connection), &status);
                }
            }
            Next::After(pause) => {
                if let Some(observer) = observer {
                    report_retry(observer, attempts.count(), pause, &status);
                }
                tokio::time::sleep(pause).await;
            }
            Next::Nothing(lacking) => return Err(Failure { status, lacking }),
        }
    }
}

/// A call that failed for good.
pub(crate) struct Failure {
    /// The last status.
    pub(crate) status: Status,
    /// Present if servers lack what was asked for.
    pub(crate) lacking: Option<Lacking>,
}

impl Ledger {
    /// Begins the attempts of a call, at the server that new calls go to.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(&self.connection, self.shared.retry)
    }

    /// Calls an rpc until it answers, or fails for good.
    pub(crate) async fn call<T, F>(&self, rpc: impl Fn(Server) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (shared, mut attempts) = (&self.shared, self.attempts());
        loop {
            let (timeout, observer) = (shared.timeout, Some(&shared.observer));
            let answer = call(&self.connection, timeout, &mut attempts, observer, &rpc).await;
            let failure = match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if let Err(error) = self.give_up(&failure, &mut attempts).await {
                let status = failure.status;
                return Err(CallError { status, error });
            }
        }
    }

    /// Waits before the next attempt, or says why there is none.
    pub(crate) async fn wait_after(
        &self,
        status: &Status,
        attempts: &mut Attempts,
    ) -> Result<(), Error> {
        let observer = &self.shared.observer;
        let failed = attempts.server(&self.connection);
        let lacking = match attempts.after(&self.connection, status) {
            Next::Server => {
                report_other(observer, failed, attempts.server(&self.connection), status);
                return Ok(());
            }
            Next::After(pause) => {
                report_retry(observer, attempts.count(), pause, status);
                tokio::time::sleep(pause).await;
                return Ok(());
            }
            Next::Nothing(lacking) => lacking,
        };
        let status = status.clone();
        self.give_up(&Failure { status, lacking }, attempts).await
    }

    /// Returns why there is no further attempt. If servers are behind, they have to show their heads first;
    /// when one is not behind any more, another attempt is worth it, and nothing is returned.
    async fn give_up(&self, failure: &Failure, attempts: &mut Attempts) -> Result<(), Error> {
        let server = attempts.server(&self.connection).url();
        let error = || Error::of_status(&failure.status, server);
        let behind = failure.lacking.as_ref().and_then(|lacking| lacking.behind);
        let (Some(behind), Some(tracker)) = (behind, &self.shared.tracker) else {
            return Err(error());
        };
        self.look_behind(tracker, behind).await?;
        if attempts.explained {
            // Its head is as large as what is trusted, and yet it says that it has less, again and again.
            return Err(error());
        }
        attempts.note_explained();
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
    /// Returns the size of the largest tree that was verified: what is read must not come from a smaller
    /// one. 0 with verification switched off.
    pub(crate) fn min_size(&self) -> u64 {
        let tracker = self.tracker.as_ref();
        tracker.map_or(0, |tracker| tracker.newest().head.size.get())
    }
}

fn report_retry(observer: &Observer, attempt: u32, pause: Duration, status: &Status) {
    observer.report(&Event::Retrying {
        attempt,
        pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        reason: status.message().to_owned(),
    });
}

fn report_other(observer: &Observer, failed: &Server, next: &Server, status: &Status) {
    observer.report(&Event::OtherServer {
        failed: failed.url().to_owned(),
        next: next.url().to_owned(),
        reason: status.message().to_owned(),
        behind: is_behind(status),
    });
}
