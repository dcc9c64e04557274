//! Retries: when to try again, and when to stop.

use std::{future::Future, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The bounds on retries of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first pause; each further one is twice as long.
    pub initial_ms: u64,
    /// The longest pause that is chosen here. A server may ask for a longer one.
    pub pause_ms_max: u64,
    /// Attempts in a row without progress; 0 never tries again.
    pub attempts_max: u32,
    /// All pauses together, without progress.
    pub total_ms_max: u64,
}

impl Default for RetryPolicy {
    /// 50 ms doubling up to 5 s, 20 attempts, two minutes.
    fn default() -> Self {
        Self {
            initial_ms: 50,
            pause_ms_max: 5_000,
            attempts_max: 20,
            total_ms_max: 120_000,
        }
    }
}

impl RetryPolicy {
    /// Fails at the first failure.
    #[must_use]
    pub const fn never() -> Self {
        Self {
            initial_ms: 0,
            pause_ms_max: 0,
            attempts_max: 0,
            total_ms_max: 0,
        }
    }
}

/// The state between attempts. Reads no clock: it counts what it told the caller to wait.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: RetryPolicy,
    attempts: u32,
    waited_ms: u64,
}

impl Backoff {
    /// Begins with nothing tried.
    #[must_use]
    pub const fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            attempts: 0,
            waited_ms: 0,
        }
    }

    /// Progress was made: the next failure is a first one again.
    pub const fn reset(&mut self) {
        self.attempts = 0;
        self.waited_ms = 0;
    }

    /// Attempts since the last progress.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the pause before the next attempt; `None` if there shall be none.
    ///
    /// `asked_ms` is what the server asked for (`google.rpc.RetryInfo`): the pause is never
    /// shorter. `jitter` is any random number; it takes up to half of the own pause away and adds
    /// up to a quarter to the server's, so that many clients do not come back at once.
    pub fn pause(&mut self, asked_ms: Option<u64>, jitter: u32) -> Option<Duration> {
        if self.attempts >= self.policy.attempts_max {
            return None;
        }
        let doubled = self
            .policy
            .initial_ms
            .saturating_mul(1 << self.attempts.min(20))
            .min(self.policy.pause_ms_max);
        let part = |of_ms: u64| of_ms.saturating_mul(u64::from(jitter)) / u64::from(u32::MAX);
        let own_ms = doubled - part(doubled / 2);
        let pause_ms = match asked_ms {
            Some(asked) => own_ms.max(asked.saturating_add(part(asked / 4))),
            None => own_ms,
        };
        let waited_ms = self.waited_ms.saturating_add(pause_ms);
        if waited_ms > self.policy.total_ms_max {
            return None;
        }
        self.attempts += 1;
        self.waited_ms = waited_ms;
        Some(Duration::from_millis(pause_ms))
    }
}

/// Returns true if the same request may succeed later.
///
/// A status with a source was made on this side, from a lost or broken connection; the transport chose
/// its code.
pub(crate) fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Cancelled
    ) || std::error::Error::source(status).is_some()
}

/// Waits for an answer, but not for ever: a server that keeps the connection and says nothing is
/// as good as none.
pub(crate) async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(timeout, answer)
        .await
        .unwrap_or_else(|_| Err(timed_out()))
}

pub(crate) fn timed_out() -> Status {
    Status::deadline_exceeded("no answer came in time")
}

/// Returns the pause that `google.rpc.RetryInfo` asks for, in milliseconds, rounded up.
pub(crate) fn asked_ms(status: &Status) -> Option<u64> {
    let delay = status.get_details_retry_info()?.retry_delay?;
    Some(u64::try_from(delay.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    const POLICY: RetryPolicy = RetryPolicy {
        initial_ms: 10,
        pause_ms_max: 100,
        attempts_max: 6,
        total_ms_max: 10_000,
    };

    #[test]
    fn doubles_up_to_the_longest_and_stops() {
        let mut backoff = Backoff::new(POLICY);
        let pauses: Vec<_> = std::iter::from_fn(|| backoff.pause(None, 0))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 100, 100]);
        backoff.reset();
        assert_eq!(backoff.pause(None, 0), Some(Duration::from_millis(10)));
    }

    #[test]
    fn jitter_takes_at_most_half() {
        for jitter in [0, 1, u32::MAX / 2, u32::MAX] {
            let pause = Backoff::new(POLICY).pause(None, jitter).unwrap();
            assert!((5..=10).contains(&pause.as_millis()), "{pause:?}");
        }
    }

    #[test]
    fn the_server_is_given_the_time_that_it_asks_for() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_micros(1_500_001)));
        let status = Status::with_error_details(Code::ResourceExhausted, "too much waits", details);
        let pause = Backoff::new(POLICY).pause(asked_ms(&status), u32::MAX);
        let pause = pause.unwrap();
        assert!((1_501..=1_877).contains(&pause.as_millis()), "{pause:?}");
    }

    #[test]
    fn a_pause_beyond_the_total_is_not_taken() {
        let mut backoff = Backoff::new(POLICY);
        assert_eq!(backoff.pause(Some(10_001), 0), None);
        assert_eq!(backoff.pause(Some(u64::MAX), u32::MAX), None);
        assert!(backoff.pause(Some(9_000), 0).is_some());
        assert_eq!(backoff.pause(Some(9_000), 0), None);
    }

    #[test]
    fn what_the_server_refuses_is_not_tried_again() {
        for code in [
            Code::InvalidArgument,
            Code::NotFound,
            Code::DataLoss,
            Code::Internal,
        ] {
            assert!(!is_transient(&Status::new(code, "")));
        }
        assert!(is_transient(&Status::unavailable("")));
        assert_eq!(Backoff::new(RetryPolicy::never()).pause(None, 0), None);
    }
}
