//! The queue of a shard, and the turns that its threads take from it.
//!
//! Quick ledgers share turns. One such turn is made at a time, so that requests that come meanwhile
//! make the next one larger. If a turn takes longer than it should, another thread begins the next
//! one, so whatever holds up the first holds up no other. Ledgers with long batches get turns of
//! their own: one at a time as well, and a second one when that is held up. Ledgers that were seen
//! to be slow have one thread between them: however many they are, they take no more than that, and
//! they share it by what they use.
//!
//! The queue has no bound of its own, because every job in it holds a permit of a budget.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::schedule::{Pace, Schedule, Waits};
use crate::{pressure::SourceKey, store::LedgerNumber};

/// Time after which a turn of ledgers that are not slow is overdue, and another thread may make the
/// next one.
pub(super) const OVERDUE: Duration = Duration::from_millis(60);

/// Time since the last turn began during which a thread still watches for overdue turns.
const WATCH: Duration = Duration::from_secs(2);

/// Most turns of ledgers with long batches, and of slow ledgers, that are in work at once.
const LONG_TURNS_MAX: usize = 2;
const SLOW_TURNS_MAX: usize = 1;

/// Number of threads of a shard that make turns: one for the turns that quick ledgers share, two
/// for when one or two of those are held up, and the others for the turns of all other ledgers.
pub(super) const TURN_THREADS: usize = 3 + LONG_TURNS_MAX + SLOW_TURNS_MAX;

/// The queue of a shard, shared by its threads and by those who submit jobs.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Wakes the thread that watches for overdue turns.
    watch: Condvar,
}

#[derive(Debug)]
struct State<T> {
    schedule: Schedule<T>,
    open: bool,
    /// True once the rest of a cut item is dropped, too.
    stopped: bool,
    /// Turns in work.
    turns: Vec<InWork>,
    /// Number of turns begun so far, which is the number of the next one.
    begun: u64,
    last_begun: Option<Instant>,
    /// Threads that sleep. The last one is woken first, because its caches still hold what turns
    /// need.
    asleep: Vec<Arc<Condvar>>,
    /// Number of threads that were woken and do not run yet.
    waking: usize,
    /// True while one more thread sleeps until a turn is overdue.
    is_watched: bool,
}

#[derive(Debug)]
struct InWork {
    number: u64,
    pace: Pace,
    since: Instant,
}

/// A thread's claim to make a turn.
#[derive(Debug)]
pub(super) struct Claim {
    number: u64,
    pace: Pace,
    /// The ledger with which the turn begins.
    pub(super) first: LedgerNumber,
}

/// The result of serving an item.
#[derive(Debug)]
pub(super) struct Served<T> {
    pub(super) source: SourceKey,
    pub(super) used: u64,
    /// The rest of the item, if it was cut.
    pub(super) unfinished: Option<T>,
}

/// A ledger that a turn gives back, with what serving it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    pub(super) ledger: LedgerNumber,
    pub(super) used: u64,
    /// The length of the ledger's longest piece.
    pub(super) longest: Duration,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                schedule: Schedule::new(),
                open: true,
                stopped: false,
                turns: Vec::new(),
                begun: 0,
                last_begun: None,
                asleep: Vec::new(),
                waking: 0,
                is_watched: false,
            }),
            watch: Condvar::new(),
        }
    }

    /// Puts an item behind those of its source and ledger that were received before it. Drops the
    /// item if the queue is closed.
    pub(super) fn push(&self, ledger: LedgerNumber, source: SourceKey, waits: Waits<T>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if !state.open {
            // Dropping the item may take other locks.
            drop(state);
            drop(waits);
            return;
        }
        state.schedule.push(ledger, source, waits, now);
        self.wake(&mut state, now);
    }

    /// Closes the queue, drops the waiting items, and returns their number. If a turn in work cuts
    /// an item afterwards, the rest of that is dropped, too.
    pub(super) fn stop(&self) -> usize {
        let waiting = {
            let mut state = self.state.lock();
            state.open = false;
            state.stopped = true;
            self.wake_all(&mut state);
            state.schedule.drain()
        };
        // The items are dropped without the lock, because that may take other locks.
        waiting.len()
    }

    /// Waits until a turn can be made, and claims it. Returns `None` when the queue is closed and
    /// empty.
    pub(super) fn begin(&self) -> Option<Claim> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            for pace in Pace::ALL {
                if !state.may_begin(pace, now) {
                    continue;
                }
                let Some(first) = state.schedule.take(pace) else {
                    continue;
                };
                let number = state.begun;
                state.begun += 1;
                state.last_begun = Some(now);
                state.turns.push(InWork {
                    number,
                    pace,
                    since: now,
                });
                self.wake(&mut state, now);
                return Some(Claim {
                    number,
                    pace,
                    first,
                });
            }
            // The thread that makes a turn puts the rest of a cut item back into the queue, and
            // then looks again.
            if !state.open && state.schedule.is_empty() {
                return None;
            }
            if state.is_watched || !state.is_to_be_watched(now) {
                let woken = Arc::new(Condvar::new());
                state.asleep.push(Arc::clone(&woken));
                woken.wait(&mut state);
                state.waking -= 1;
            } else {
                state.is_watched = true;
                let until = state.overdue_at(now);
                let waited = self.watch.wait_until(&mut state, until);
                if waited.timed_out() {
                    state.is_watched = false;
                } else {
                    state.waking -= 1;
                }
            }
        }
    }

    /// Takes another quick ledger for a turn that quick ledgers share.
    pub(super) fn another(&self, claim: &Claim) -> Option<LedgerNumber> {
        if claim.pace != Pace::Quick {
            return None;
        }
        self.state.lock().schedule.take(Pace::Quick)
    }

    /// Notes the result of the previous item of a ledger that was taken, and returns the next item
    /// if the caller `wants_more`.
    pub(super) fn next(
        &self,
        ledger: LedgerNumber,
        served: Option<Served<T>>,
        wants_more: bool,
    ) -> Option<(SourceKey, T)> {
        let mut given_up = None;
        let mut state = self.state.lock();
        if let Some(served) = served {
            let Served {
                source,
                used,
                mut unfinished,
            } = served;
            if state.stopped {
                given_up = unfinished.take();
            }
            state.schedule.served(ledger, &source, used, unfinished);
        }
        let next = wants_more.then(|| state.schedule.next(ledger)).flatten();
        drop(state);
        drop(given_up);
        next
    }

    /// Returns true if nothing waits and no other turn is in work.
    pub(super) fn is_alone(&self) -> bool {
        let state = self.state.lock();
        state.schedule.is_empty() && state.turns.len() == 1
    }

    /// Ends a turn and gives its ledgers back.
    pub(super) fn end(&self, claim: &Claim, ledgers: impl IntoIterator<Item = Leaving>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for leaving in ledgers {
            let Leaving {
                ledger,
                used,
                longest,
            } = leaving;
            state.schedule.release(ledger, used, longest, now);
        }
        state.turns.retain(|turn| turn.number != claim.number);
        // A thread that ends a turn looks for the next one itself, and wakes another thread then if
        // there is more to do. But when the queue is closed, some threads only wait for the end.
        if !state.open {
            self.wake_all(&mut state);
        }
    }

    /// Returns the time since which the longest waiting quick ledger has waited.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.state.lock().schedule.waiting_since(Pace::Quick)
    }

    #[cfg(test)]
    pub(super) fn turns_in_work(&self) -> usize {
        self.state.lock().turns.len()
    }

    /// Returns the time at which the oldest turn in work began.
    pub(super) fn in_work_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.turns.iter().map(|turn| turn.since).min()
    }

    /// Returns the number of ledgers that get turns of their own.
    pub(super) fn slow_ledgers(&self) -> usize {
        self.state.lock().schedule.slow_ledgers()
    }

    /// Wakes a thread if there is a turn to make, or one to watch, and no thread does that.
    fn wake(&self, state: &mut State<T>, now: Instant) {
        if state.waking > 0 {
            // The woken thread checks everything when it runs, and wakes the next one.
            return;
        }
        let is_work = Pace::ALL
            .into_iter()
            .any(|pace| state.schedule.waits(pace) && state.may_begin(pace, now));
        let to_watch = !state.is_watched && !state.turns.is_empty();
        if let Some(asleep) = state.asleep.pop_if(|_| is_work || to_watch) {
            state.waking += 1;
            asleep.notify_one();
        } else if is_work && state.is_watched && self.watch.notify_one() {
            state.is_watched = false;
            state.waking += 1;
        }
    }

    fn wake_all(&self, state: &mut State<T>) {
        for asleep in std::mem::take(&mut state.asleep) {
            state.waking += 1;
            asleep.notify_one();
        }
        if state.is_watched && self.watch.notify_one() {
            state.is_watched = false;
            state.waking += 1;
        }
    }
}

impl<T> State<T> {
    fn may_begin(&self, pace: Pace, now: Instant) -> bool {
        let same = || self.turns.iter().filter(|turn| turn.pace == pace);
        let is_overdue = |turn: &InWork| now.saturating_duration_since(turn.since) >= OVERDUE;
        match pace {
            Pace::Quick => same().all(is_overdue),
            Pace::Long => same().count() < LONG_TURNS_MAX && same().all(is_overdue),
            Pace::Slow => same().count() < SLOW_TURNS_MAX,
        }
    }

    fn is_to_be_watched(&self, now: Instant) -> bool {
        let lately = |begun| now.saturating_duration_since(begun) < WATCH;
        !self.turns.is_empty() || self.last_begun.is_some_and(lately)
    }

    /// Returns the time at which the next turn in work is overdue, or at which one that begins now
    /// would be.
    fn overdue_at(&self, now: Instant) -> Instant {
        let turns = self.turns.iter().filter(|turn| turn.pace != Pace::Slow);
        let at = turns.map(|turn| turn.since + OVERDUE);
        at.filter(|at| *at > now).min().unwrap_or(now + OVERDUE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    const SLOW: LedgerNumber = LedgerNumber(1);
    const OTHER: LedgerNumber = LedgerNumber(2);

    fn source() -> SourceKey {
        SourceKey::Connection(1)
    }

    /// Lengths of pieces: one of slow ledgers, and one of quick ledgers.
    const SECONDS: Duration = Duration::from_secs(4);
    const SHORT: Duration = Duration::from_millis(1);

    impl<T> Queue<T> {
        /// Closes the queue; its items are still served.
        fn close(&self) {
            let mut state = self.state.lock();
            state.open = false;
            self.wake_all(&mut state);
        }

        /// Serves one item of `ledger`, which must be next; the longest piece takes `longest`.
        fn serve_one(&self, ledger: LedgerNumber, longest: Duration) {
            let claim = self.begin().unwrap();
            assert_eq!(claim.first, ledger);
            let (source, _) = self.next(ledger, None, true).unwrap();
            let served = Served {
                source,
                used: 1,
                unfinished: None,
            };
            self.next(ledger, Some(served), false);
            self.end(&claim, [leaving(ledger, longest)]);
        }
    }

    fn leaving(ledger: LedgerNumber, longest: Duration) -> Leaving {
        Leaving {
            ledger,
            used: 1,
            longest,
        }
    }

    fn push(queue: &Queue<u32>, ledger: LedgerNumber, item: u32, is_heavy: bool) {
        let received = Instant::now();
        let waits = Waits {
            item,
            is_heavy,
            received,
            begun: false,
        };
        queue.push(ledger, source(), waits);
    }

    /// Serves everything until the queue ends, and sends the items to `served`.
    fn serve(queue: &Queue<u32>, served: &mpsc::Sender<u32>) {
        while let Some(claim) = queue.begin() {
            let mut last = None;
            while let Some((source, item)) = queue.next(claim.first, last.take(), true) {
                served.send(item).unwrap();
                last = Some(Served {
                    source,
                    used: 1,
                    unfinished: None,
                });
            }
            queue.end(&claim, [leaving(claim.first, SHORT)]);
        }
    }

    #[test]
    fn a_turn_that_takes_too_long_holds_up_nobody_else() {
        let queue = Arc::new(Queue::new());
        push(&queue, SLOW, 1, false);
        // This turn never ends by itself.
        let stuck = queue.begin().unwrap();
        assert_eq!(queue.next(SLOW, None, true).unwrap().1, 1);
        let (served, seen) = mpsc::channel();
        let other = Arc::clone(&queue);
        let thread = std::thread::spawn(move || serve(&other, &served));
        push(&queue, SLOW, 2, false);
        push(&queue, OTHER, 3, false);
        assert_eq!(seen.recv().unwrap(), 3);
        assert!(queue.in_work_since().is_some());
        // Other items of the same ledger wait for that turn.
        assert!(seen.try_recv().is_err());
        queue.next(
            SLOW,
            Some(Served {
                source: source(),
                used: 1,
                unfinished: Some(1),
            }),
            false,
        );
        queue.end(&stuck, [leaving(SLOW, SECONDS)]);
        assert_eq!((seen.recv().unwrap(), seen.recv().unwrap()), (1, 2));
        queue.close();
        thread.join().unwrap();
    }

    #[test]
    fn one_thread_at_most_is_taken_by_slow_ledgers() {
        let queue = Queue::new();
        for ledger in [SLOW, OTHER] {
            push(&queue, ledger, 1, false);
            queue.serve_one(ledger, SECONDS);
            push(&queue, ledger, 1, false);
        }
        let first = queue.begin().unwrap();
        push(&queue, LedgerNumber(3), 2, false);
        let second = queue.begin().unwrap();
        assert_eq!((first.first, second.first), (SLOW, LedgerNumber(3)));
        assert_eq!(queue.another(&first), None);
        assert_eq!(queue.another(&second), None);
        assert_eq!(queue.waiting_since(), None);
        queue.end(&first, [leaving(SLOW, SECONDS)]);
        assert_eq!(queue.begin().unwrap().first, OTHER);
    }

    #[test]
    fn a_large_batch_waits_for_no_ledger_that_was_seen_to_be_slow() {
        let queue = Queue::new();
        push(&queue, SLOW, 1, true);
        queue.serve_one(SLOW, SECONDS);
        // The turn of this second item never ends.
        push(&queue, SLOW, 2, true);
        assert_eq!(queue.begin().unwrap().first, SLOW);
        for item in 3..10 {
            push(&queue, OTHER, item, true);
            queue.serve_one(OTHER, SHORT);
        }
    }

    #[test]
    fn a_large_batch_that_takes_too_long_for_the_first_time_holds_up_no_other() {
        let queue = Queue::new();
        push(&queue, SLOW, 1, true);
        let _stuck = queue.begin().unwrap();
        push(&queue, OTHER, 2, true);
        // The other turn begins as soon as the first one is overdue, and not before.
        queue.serve_one(OTHER, SHORT);
        assert!(queue.in_work_since().unwrap().elapsed() >= OVERDUE);
    }

    #[test]
    fn what_waits_is_let_go_when_it_stops_and_what_is_in_work_is_not() {
        let queue = Queue::new();
        push(&queue, SLOW, 1, false);
        let claim = queue.begin().unwrap();
        let (from, item) = queue.next(SLOW, None, true).unwrap();
        push(&queue, SLOW, 2, false);
        push(&queue, OTHER, 3, false);
        assert_eq!(queue.stop(), 2);
        push(&queue, OTHER, 4, false);
        let cut = Served {
            source: from,
            used: 1,
            unfinished: Some(item),
        };
        assert!(queue.next(SLOW, Some(cut), true).is_none());
        queue.end(&claim, [leaving(SLOW, SHORT)]);
        assert!(queue.begin().is_none());
    }

    #[test]
    fn many_threads_serve_everything_once() {
        let queue = Arc::new(Queue::new());
        let (served, seen) = mpsc::channel();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (queue, served) = (Arc::clone(&queue), served.clone());
                std::thread::spawn(move || serve(&queue, &served))
            })
            .collect();
        drop(served);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    for item in 0..1000 {
                        let is_heavy = item % 100 == 0;
                        let ledger = LedgerNumber(number * 10 + item % 3);
                        push(queue, ledger, number * 1000 + item, is_heavy);
                    }
                });
            }
        });
        queue.close();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut all: Vec<_> = seen.iter().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..4000));
    }
}
