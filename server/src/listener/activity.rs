//! The activity of a connection. It decides when the connection has been idle for too long, and
//! which one gives way when there are too many.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The activity of a connection. It only decides when the connection may be closed, so no ordering
/// between its numbers is needed.
#[derive(Debug)]
pub(crate) struct Activity {
    since: Instant,
    handshake: Duration,
    idle: Duration,
    requests_open: AtomicUsize,
    /// Number of requests that are not answered, and of streams that record something: a server
    /// that stops still waits for these.
    in_work: AtomicUsize,
    /// Milliseconds after `since` at which the last request began or ended; 0 if none has begun.
    last_ms: AtomicU64,
    /// True if a caller on the connection is known, where callers must say who they are.
    known: AtomicBool,
    /// Cancelled when the connection's place, or what it holds, is needed for others.
    leaving: CancellationToken,
}

impl Activity {
    pub(crate) fn new(handshake: Duration, idle: Duration) -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            handshake,
            idle,
            requests_open: AtomicUsize::new(0),
            in_work: AtomicUsize::new(0),
            last_ms: AtomicU64::new(0),
            known: AtomicBool::new(false),
            leaving: CancellationToken::new(),
        })
    }

    /// Notes that a caller on the connection is known: it no longer gives way to others.
    pub(crate) fn set_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    pub(crate) fn has_open_requests(&self) -> bool {
        self.requests_open.load(Ordering::Relaxed) > 0
    }

    /// Asks the connection to end, because its place, or what it holds, is needed for others.
    pub(crate) fn tell_to_leave(&self) {
        self.leaving.cancel();
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Returns once the connection has to end. Any number of tasks may wait.
    pub(crate) fn leaving(&self) -> WaitForCancellationFutureOwned {
        self.leaving.clone().cancelled_owned()
    }

    /// Counts a request as open until the returned value is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> OpenRequest {
        self.requests_open.fetch_add(1, Ordering::Relaxed);
        self.touch();
        OpenRequest(Arc::clone(self))
    }

    /// Counts something as in work until the returned value is dropped.
    pub(crate) fn begin_work(self: &Arc<Self>) -> Work {
        self.in_work.fetch_add(1, Ordering::Relaxed);
        Work(Arc::clone(self))
    }

    /// Returns the time since which nothing has been in work; `None` while something is.
    pub(crate) fn done_since(&self) -> Option<Instant> {
        let done = self.in_work.load(Ordering::Acquire) == 0;
        done.then(|| self.since + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }

    /// Notes that a request was refused. It does not keep the connection open, but counts as the
    /// first request.
    pub(crate) fn refused(&self) {
        let passed_ms = self.passed_ms();
        let _ = self
            .last_ms
            .compare_exchange(0, passed_ms, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the time at which to check first whether the connection is to be closed.
    pub(crate) fn first_look(&self) -> Instant {
        self.since + self.handshake.min(self.idle)
    }

    /// Returns the time at which the connection is to be closed, as of `now`: because its first
    /// request does not come, or it was idle for too long. While a request is open, returns the
    /// time of the next check.
    pub(crate) fn closes_at(&self, now: Instant) -> Instant {
        let last = match self.last_ms.load(Ordering::Relaxed) {
            0 => return self.since + self.handshake,
            last_ms => self.since + Duration::from_millis(last_ms),
        };
        if self.requests_open.load(Ordering::Relaxed) == 0 {
            last + self.idle
        } else {
            now + self.idle
        }
    }

    fn touch(&self) {
        self.last_ms.store(self.passed_ms(), Ordering::Relaxed);
    }

    fn passed_ms(&self) -> u64 {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        passed.max(1)
    }
}

/// A request that is open.
#[derive(Debug)]
pub(crate) struct OpenRequest(Arc<Activity>);

impl OpenRequest {
    /// Returns the activity of the request's connection.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        // The time is set first: without an open request, an old time would close the connection.
        self.0.touch();
        self.0.requests_open.fetch_sub(1, Ordering::Release);
    }
}

/// Something that is in work.
#[derive(Debug)]
pub(crate) struct Work(Arc<Activity>);

impl Drop for Work {
    fn drop(&mut self) {
        // The time is set first: an answer that was made just now is still to be sent.
        self.0.touch();
        self.0.in_work.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_requests_keep_a_connection_and_idle_ones_lose_it() {
        let (handshake, idle) = (Duration::from_secs(10), Duration::from_secs(100));
        let activity = Activity::new(handshake, idle);
        let later = Instant::now() + Duration::from_secs(1000);
        assert_eq!(activity.closes_at(later), activity.since + handshake);
        let first = activity.begin_request();
        let second = activity.begin_request();
        assert!(activity.closes_at(later) > later);
        drop(first);
        assert!(activity.closes_at(later) > later);
        let before = Instant::now();
        drop(second);
        // The time is counted in whole milliseconds.
        assert!(activity.closes_at(later) + Duration::from_millis(1) > before + idle);
        assert!(activity.closes_at(later) < later);
    }

    #[test]
    fn refused_requests_do_not_keep_a_connection() {
        let (handshake, idle) = (Duration::from_secs(10), Duration::from_secs(100));
        let activity = Activity::new(handshake, idle);
        let later = Instant::now() + Duration::from_secs(1000);
        activity.refused();
        let closes_at = activity.closes_at(later);
        assert!(closes_at >= activity.since + idle && closes_at < later);
        while activity.passed_ms() < 10 {
            std::hint::spin_loop();
        }
        activity.refused();
        assert_eq!(activity.closes_at(later), closes_at);
    }
}
