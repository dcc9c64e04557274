//! Deficit round robin: one FIFO queue for each source, served in turn by their costs.
//!
//! Every source whose turn it is gains a quantum of credit, and is served while its credit covers
//! its first item. So among sources that always have something waiting, the amounts served differ
//! by no more than a quantum and an item, however many and however large their items are. Each
//! visit to a source either serves an item or gains it a quantum, so the number of visits of a full
//! drain is bounded by what waits: its items, and its bytes divided by the quantum.
//!
//! Source: M. Shreedhar, G. Varghese, Efficient Fair Queuing Using Deficit Round Robin, 1995.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Credit that a source gains in its turn, where bytes are shared out.
pub(super) const QUANTUM_BYTES: usize = 256 << 10;

/// The decision about a source's first item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// The item waits because of its own source: others may pass.
    Skip,
    /// The item waits for room that all share: no other may pass.
    Stop,
}

/// Queues of `T` by source.
#[derive(Debug)]
pub(super) struct Drr<K, T> {
    quantum: usize,
    flows: HashMap<K, Flow<T>>,
    /// The sources with waiting items, the one whose turn it is first.
    ring: VecDeque<K>,
}

#[derive(Debug)]
struct Flow<T> {
    items: VecDeque<(usize, T)>,
    credit: usize,
}

impl<K: Clone + Eq + Hash, T> Drr<K, T> {
    pub(super) fn new(quantum: usize) -> Self {
        Self {
            quantum: quantum.max(1),
            flows: HashMap::new(),
            ring: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Returns true if an item of another source than `source` waits.
    pub(super) fn waits_beside(&self, source: &K) -> bool {
        self.flows.len() > usize::from(self.flows.contains_key(source))
    }

    /// Puts an item behind all others of its source.
    pub(super) fn push(&mut self, source: K, cost: usize, item: T) {
        if let Some(flow) = self.flows.get_mut(&source) {
            flow.items.push_back((cost, item));
            return;
        }
        self.ring.push_back(source.clone());
        let flow = Flow {
            items: VecDeque::from([(cost, item)]),
            credit: 0,
        };
        self.flows.insert(source, flow);
    }

    /// Returns the next item.
    #[cfg(test)]
    pub(super) fn pop(&mut self) -> Option<(K, usize, T)> {
        self.pop_if(|_, _| Verdict::Take)
    }

    /// Returns the next item that `judge` accepts. Returns `None` if there is none, all are
    /// skipped, or the one whose turn it is must wait: it then keeps its turn.
    pub(super) fn pop_if(
        &mut self,
        mut judge: impl FnMut(&K, usize) -> Verdict,
    ) -> Option<(K, usize, T)> {
        let mut skipped = 0;
        while skipped < self.ring.len() {
            let source = &self.ring[0];
            let alone = self.ring.len() == 1;
            let flow = self
                .flows
                .get_mut(source)
                .expect("a source in the ring has a flow");
            let cost = flow.items.front().map_or(0, |(cost, _)| *cost);
            match judge(source, cost) {
                Verdict::Skip => {
                    skipped += 1;
                    self.ring.rotate_left(1);
                }
                // Without another source there is nothing to share out.
                _ if flow.credit < cost && !alone => {
                    flow.credit += self.quantum;
                    skipped = 0;
                    self.ring.rotate_left(1);
                }
                Verdict::Stop => return None,
                Verdict::Take => {
                    flow.credit = flow.credit.saturating_sub(cost);
                    let (_, item) = flow.items.pop_front()?;
                    if !flow.items.is_empty() {
                        return Some((self.ring[0].clone(), cost, item));
                    }
                    let source = self.ring.pop_front()?;
                    self.flows.remove(&source);
                    return Some((source, cost, item));
                }
            }
        }
        None
    }

    /// Removes those items of a source that `which` accepts.
    pub(super) fn remove(&mut self, source: &K, which: impl Fn(&T) -> bool) {
        let Some(flow) = self.flows.get_mut(source) else {
            return;
        };
        flow.items.retain(|(_, item)| !which(item));
        if flow.items.is_empty() {
            self.flows.remove(source);
            self.ring.retain(|other| other != source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drains `bytes` bytes and returns the amount served of each source.
    fn drained(queue: &mut Drr<char, usize>, bytes: usize) -> HashMap<char, usize> {
        let mut served = HashMap::new();
        let mut total = 0;
        while total < bytes {
            let (source, cost, _) = queue.pop().expect("enough waits");
            *served.entry(source).or_insert(0) += cost;
            total += cost;
        }
        served
    }

    #[test]
    fn a_source_with_a_hundred_times_the_load_gets_half() {
        let mut queue = Drr::new(QUANTUM_BYTES);
        // Many small items or few large ones give a source no advantage.
        for item in 0..10_000 {
            queue.push('a', 64 << 10, item);
        }
        for item in 0..100 {
            queue.push('b', 1 << 20, item);
        }
        let slack = QUANTUM_BYTES + (1 << 20);
        for _ in 0..6 {
            let served = drained(&mut queue, 16 << 20);
            assert!(
                served[&'a'].abs_diff(served[&'b']) <= 2 * slack,
                "{served:?}"
            );
        }
    }

    #[test]
    fn one_that_comes_late_waits_a_round_and_not_a_backlog() {
        let mut queue = Drr::new(QUANTUM_BYTES);
        for item in 0..10_000 {
            queue.push('a', 64 << 10, item);
        }
        drained(&mut queue, 1 << 20);
        queue.push('b', 1000, 0);
        let before_b = std::iter::from_fn(|| queue.pop())
            .take_while(|(source, ..)| *source == 'a')
            .map(|(_, cost, _)| cost)
            .sum::<usize>();
        assert!(before_b <= 2 * QUANTUM_BYTES, "{before_b}");
    }

    #[test]
    fn items_of_a_source_keep_their_order() {
        let mut queue = Drr::new(QUANTUM_BYTES);
        for item in 0..500 {
            queue.push(item % 7, (item * 7919) % 600_000, item);
        }
        let mut last = HashMap::new();
        let mut count = 0;
        while let Some((source, _, item)) = queue.pop() {
            assert!(last.insert(source, item).is_none_or(|before| before < item));
            count += 1;
        }
        assert_eq!(count, 500);
        assert!(queue.is_empty() && queue.flows.is_empty());
    }

    #[test]
    fn who_must_wait_is_not_passed_and_who_is_skipped_is() {
        let mut queue = Drr::new(QUANTUM_BYTES);
        for source in ['a', 'b', 'c'] {
            queue.push(source, 1, ());
        }
        let skip_a = |source: &char, _| match source {
            'a' => Verdict::Skip,
            _ => Verdict::Take,
        };
        assert_eq!(queue.pop_if(skip_a).map(|(source, ..)| source), Some('b'));
        assert_eq!(queue.pop_if(|_, _| Verdict::Stop), None);
        assert_eq!(queue.pop_if(|_, _| Verdict::Skip), None);
        queue.remove(&'c', |()| true);
        assert_eq!(queue.pop_if(skip_a), None);
        assert_eq!(queue.pop().map(|(source, ..)| source), Some('a'));
        assert!(queue.is_empty());
    }
}
