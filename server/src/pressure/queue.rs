//! A queue between many tasks and one thread that serves its sources in turn.
//!
//! It has no bound of its own: whatever is in it holds a share of a budget.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{SourceKey, drr::Drr};

/// The end that puts in. Dropping it closes the queue.
#[derive(Debug)]
pub(crate) struct FairSender<T>(Arc<Inner<T>>);

/// The end that takes out. What is in the queue is dropped with it.
#[derive(Debug)]
pub(crate) struct FairReceiver<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: Drr<SourceKey, T>,
    open: bool,
    /// Whether the receiver sleeps: nobody else has to be woken.
    asleep: bool,
}

/// A queue that is empty and open.
pub(crate) fn fair_queue<T>() -> (FairSender<T>, FairReceiver<T>) {
    let inner = Arc::new(Inner {
        state: Mutex::new(State {
            waiting: Drr::new(),
            open: true,
            asleep: false,
        }),
        arrived: Condvar::new(),
    });
    (FairSender(Arc::clone(&inner)), FairReceiver(inner))
}

impl<T> FairSender<T> {
    /// Puts an item behind those of its source. Dropped if the queue is closed.
    pub(crate) fn send(&self, source: SourceKey, cost: usize, item: T) {
        let mut state = self.0.state.lock();
        if !state.open {
            // What the item holds may need other locks when it goes.
            drop(state);
            drop(item);
            return;
        }
        state.waiting.push(source, cost, item);
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.0.arrived.notify_one();
        }
    }

    /// Takes nothing more; what is in it can still be received.
    pub(crate) fn close(&self) {
        self.0.state.lock().open = false;
        self.0.arrived.notify_one();
    }
}

impl<T> Drop for FairSender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> FairReceiver<T> {
    /// The next item; waits for one. None when the queue is closed and empty.
    pub(crate) fn recv(&self) -> Option<T> {
        let mut state = self.0.state.lock();
        loop {
            if let Some((_, _, item)) = state.waiting.pop() {
                return Some(item);
            }
            if !state.open {
                return None;
            }
            state.asleep = true;
            self.0.arrived.wait(&mut state);
        }
    }

    /// The next item if there is one now.
    pub(crate) fn try_recv(&self) -> Option<T> {
        let (_, _, item) = self.0.state.lock().waiting.pop()?;
        Some(item)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.state.lock().waiting.is_empty()
    }
}

impl<T> Drop for FairReceiver<T> {
    fn drop(&mut self) {
        let rest = {
            let mut state = self.0.state.lock();
            state.open = false;
            std::mem::replace(&mut state.waiting, Drr::new())
        };
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_after_closing_and_nothing_more() {
        let (sender, receiver) = fair_queue();
        let source = SourceKey::Connection;
        sender.send(source(1), 10, 1);
        sender.send(source(2), 10, 2);
        sender.close();
        sender.send(source(1), 10, 3);
        assert!(!receiver.is_empty());
        let mut got = [receiver.recv(), receiver.recv()];
        got.sort_unstable();
        assert_eq!(got, [Some(1), Some(2)]);
        assert_eq!((receiver.try_recv(), receiver.recv()), (None, None));
    }

    #[test]
    fn a_sleeping_receiver_is_woken_by_an_item_and_by_the_end() {
        let (sender, receiver) = fair_queue();
        let thread = std::thread::spawn(move || {
            let mut sum = 0_u64;
            while let Some(item) = receiver.recv() {
                sum += item;
            }
            sum
        });
        std::thread::scope(|scope| {
            for source in 0..4 {
                let sender = &sender;
                scope.spawn(move || {
                    for item in 0..1000 {
                        sender.send(SourceKey::Connection(source), 1, item);
                    }
                });
            }
        });
        drop(sender);
        assert_eq!(thread.join().unwrap(), 4 * 999 * 1000 / 2);
    }

    #[test]
    fn what_nobody_will_receive_is_dropped() {
        let (sender, receiver) = fair_queue();
        let item = Arc::new(());
        sender.send(SourceKey::Connection(1), 1, Arc::clone(&item));
        drop(receiver);
        sender.send(SourceKey::Connection(1), 1, Arc::clone(&item));
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
