//! The end of connections when the server stops. Connections on which nothing is in work do not
//! hold it up.
//!
//! Streams of reads end at once with a status, and over HTTP/2 a connection is closed once its peer
//! has acknowledged that. A peer that is suspended, unplugged or in the middle of a request's head
//! never does; it would hold the server for the whole drain.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::activity::Activity;

/// Time that a connection on which nothing is in work may take for its last bytes.
pub(super) const LAST_BYTES_WITHIN: Duration = Duration::from_secs(1);

/// Interval between two looks at the connections.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The connections that are open.
#[derive(Default)]
pub(super) struct OpenConnections {
    all: Mutex<Vec<Weak<Activity>>>,
}

impl OpenConnections {
    /// Remembers a connection. Those that are gone are forgotten when the list would grow.
    pub(super) fn add(&self, activity: &Arc<Activity>) {
        let mut all = self.all.lock();
        if all.len() == all.capacity() {
            all.retain(|activity| activity.strong_count() > 0);
            // As many more connections may come before all of them are looked at again.
            let open = all.len();
            all.reserve(open.max(16));
        }
        all.push(Arc::downgrade(activity));
    }

    /// Ends all connections, each once nothing is in work on it and its last bytes have had their
    /// time. Returns when there are none.
    pub(super) async fn end(&self) {
        let begun = Instant::now();
        while self.end_done(begun, Instant::now()) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Ends the connections whose time is over at `now`. Their time begins when the server stops,
    /// or when their work is done, if that is later. Returns true if connections were left.
    fn end_done(&self, stopped: Instant, now: Instant) -> bool {
        let mut all = self.all.lock();
        all.retain(|activity| activity.strong_count() > 0);
        for activity in all.iter().filter_map(Weak::upgrade) {
            let done = activity.done_since().map(|done| done.max(stopped));
            if done.is_some_and(|done| now >= done + LAST_BYTES_WITHIN) {
                activity.tell_to_leave();
            }
        }
        !all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity() -> Arc<Activity> {
        let hour = Duration::from_secs(3600);
        Activity::new(hour, hour)
    }

    #[test]
    fn what_is_in_work_keeps_a_connection_and_what_is_only_open_does_not() {
        let open = OpenConnections::default();
        let [silent, watching, working] = [activity(), activity(), activity()];
        let watch = watching.begin_request();
        let append = working.begin_request();
        let work = working.begin_work();
        for activity in [&silent, &watching, &working] {
            open.add(activity);
        }
        let leaving = || [&silent, &watching, &working].map(|it| it.is_leaving());
        // Activities count whole milliseconds, from 1.
        let nearly = LAST_BYTES_WITHIN - Duration::from_millis(2);
        let over = LAST_BYTES_WITHIN + Duration::from_millis(2);
        let stopped = Instant::now();
        assert!(open.end_done(stopped, stopped + nearly));
        assert_eq!(leaving(), [false, false, false]);
        assert!(open.end_done(stopped, stopped + over));
        assert_eq!(leaving(), [true, true, false]);
        assert!(open.end_done(stopped, stopped + LAST_BYTES_WITHIN * 100));
        assert_eq!(leaving(), [true, true, false]);
        // The answer has its time from here on.
        let before = Instant::now();
        drop(work);
        let answered = Instant::now();
        assert!(open.end_done(stopped, before + nearly));
        assert_eq!(leaving(), [true, true, false]);
        assert!(open.end_done(stopped, answered + over));
        assert_eq!(leaving(), [true, true, true]);
        drop((watch, append));
        drop((silent, watching, working));
        assert!(!open.end_done(stopped, answered));
    }

    #[test]
    fn connections_that_are_gone_are_forgotten() {
        let open = OpenConnections::default();
        let kept = activity();
        open.add(&kept);
        for _ in 0..10_000 {
            open.add(&activity());
        }
        assert!(open.all.lock().len() < 100);
        assert!(open.all.lock().iter().any(|it| it.strong_count() > 0));
    }
}
