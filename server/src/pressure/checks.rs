//! Work of admission that takes longer than a moment: many signatures, many statements, the keys that
//! trust statements name.
//!
//! It is cut into slices of about a millisecond. As many run at once as there are processors, and
//! sources take turns: however much one of them sends, another waits for a slice or two. None of it
//! runs on the threads that serve connections.

use super::{Budget, SourceKey};

/// Threads for such work.
#[derive(Debug, Clone)]
pub(crate) struct CheckThreads(Budget);

/// What one request has to do there.
#[derive(Debug)]
pub(crate) struct Checks {
    threads: Budget,
    source: SourceKey,
}

impl CheckThreads {
    pub(super) fn new(threads: usize) -> Self {
        Self(Budget::new(threads, threads))
    }

    /// For the requests of a source.
    pub(crate) fn of(&self, source: SourceKey) -> Checks {
        Checks {
            threads: self.0.clone(),
            source,
        }
    }
}

impl Checks {
    /// Does a slice of the work when it is the source's turn.
    ///
    /// # Panics
    /// If the work does: nothing unchecked may pass.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        slice: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let thread = self.threads.take(&self.source, 1).await;
        // The thread goes along: a caller that gives up does not end the slice.
        let done = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            slice()
        });
        match done.await {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// One source has a hundred slices to do, and another one comes later with one.
    #[tokio::test]
    async fn sources_take_turns() {
        let threads = CheckThreads::new(1);
        let (greedy, modest) = (
            threads.of(SourceKey::Connection(1)),
            threads.of(SourceKey::Connection(2)),
        );
        let (go, waits) = mpsc::channel::<()>();
        let (said, order) = mpsc::channel();
        let first = greedy.run(move || waits.recv().unwrap());
        let mut slices = Vec::new();
        for _ in 0..100 {
            let said = said.clone();
            slices.push(greedy.run(move || said.send("greedy").unwrap()));
        }
        let last = modest.run(move || said.send("modest").unwrap());
        let all = async { tokio::join!(first, futures::future::join_all(slices), last) };
        let begun = async {
            tokio::task::yield_now().await;
            go.send(()).unwrap();
        };
        tokio::join!(all, begun);
        let order: Vec<_> = order.iter().collect();
        let place = order.iter().position(|who| *who == "modest").unwrap();
        assert!(place <= 2, "{place}");
        assert_eq!(order.len(), 101);
    }

    #[tokio::test]
    #[should_panic(expected = "nothing passes")]
    async fn a_check_that_panics_does_not_pass() {
        let checks = CheckThreads::new(1).of(SourceKey::Server);
        checks.run(|| panic!("nothing passes")).await
    }
}
