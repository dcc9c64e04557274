//! Who is served next: ledgers take turns, and within a ledger its sources do, by what they used.
//!
//! Start-time fair queueing with costs that are known afterwards. Each ledger and each source bears
//! the point of virtual time to which it has been served. The one that is furthest behind is next;
//! what serving it really took is added to its point. So a source with slow statements pays for
//! them: until the others have had as much, they come first. Nobody saves up credit by being idle:
//! who comes back begins at the point of whoever was served last. And nothing stands idle: who is
//! far ahead is served at once where nobody else waits.
//!
//! Ledgers that were seen to be slow stand in a line of their own, so that whoever serves the quick
//! ones meets none of them.
//!
//! Source: P. Goyal, H. Vin, H. Cheng, Start-time Fair Queuing, 1996.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use crate::{pressure::SourceKey, store::LedgerNumber};

/// Turns in which a ledger still counts as slow after it was.
const SLOW_TURNS: u32 = 256;

/// Ledgers, and sources of a ledger, that are remembered although nothing of them waits.
const IDLE_LANES_MAX: usize = 4096;
const IDLE_FLOWS_MAX: usize = 1024;

/// Which line a ledger waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Quick,
    Slow,
}

/// What waits, by ledger and source.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    lanes: HashMap<LedgerNumber, Lane<T>>,
    quick: Line,
    slow: Line,
    /// Items that wait.
    len: usize,
}

/// Ledgers of which something waits and that nobody serves, by how far they have been served.
#[derive(Debug, Default)]
struct Line {
    ready: BTreeSet<(u64, LedgerNumber)>,
    now: u64,
}

#[derive(Debug)]
struct Lane<T> {
    flows: HashMap<SourceKey, Flow<T>>,
    /// Sources of which something waits and that are not being served.
    ready: BTreeSet<(u64, SourceKey)>,
    now: u64,
    served: u64,
    /// The line that it was taken from by whoever serves it.
    taken: Option<Pace>,
    /// Since when it stands in a line.
    since: Option<Instant>,
    slow_turns: u32,
}

#[derive(Debug)]
struct Flow<T> {
    items: VecDeque<T>,
    served: u64,
    is_serving: bool,
}

impl<T> Default for Flow<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            served: 0,
            is_serving: false,
        }
    }
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            flows: HashMap::new(),
            ready: BTreeSet::new(),
            now: 0,
            served: 0,
            taken: None,
            since: None,
            slow_turns: 0,
        }
    }
}

impl<T> Lane<T> {
    fn pace(&self) -> Pace {
        if self.slow_turns > 0 {
            Pace::Slow
        } else {
            Pace::Quick
        }
    }

    /// Forgets sources of which nothing waits and that owe nothing.
    fn prune(&mut self) {
        if self.flows.len() <= IDLE_FLOWS_MAX {
            return;
        }
        let now = self.now;
        let busy = |flow: &Flow<T>| flow.is_serving || !flow.items.is_empty();
        self.flows.retain(|_, flow| busy(flow) || flow.served > now);
        if self.flows.len() > IDLE_FLOWS_MAX {
            // So many owe something: they are let off rather than kept without a bound.
            self.flows.retain(|_, flow| busy(flow));
        }
    }
}

impl<T> Schedule<T> {
    pub(super) fn new() -> Self {
        Self {
            lanes: HashMap::new(),
            quick: Line::default(),
            slow: Line::default(),
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a ledger stands in this line.
    pub(super) fn waits(&self, pace: Pace) -> bool {
        !self.line(pace).ready.is_empty()
    }

    /// Ledgers that count as slow.
    pub(super) fn slow_ledgers(&self) -> usize {
        let slow = |lane: &&Lane<T>| lane.pace() == Pace::Slow;
        self.lanes.values().filter(slow).count()
    }

    /// Since when the ledger has waited that has stood longest in this line.
    pub(super) fn waiting_since(&self, pace: Pace) -> Option<Instant> {
        let ready = self.line(pace).ready.iter();
        ready
            .filter_map(|(_, ledger)| self.lanes[ledger].since)
            .min()
    }

    /// Puts an item behind all others of its source. What `is_heavy` may take so long at a stretch
    /// that its ledger counts as slow at once.
    pub(super) fn push(
        &mut self,
        ledger: LedgerNumber,
        source: SourceKey,
        item: T,
        is_heavy: bool,
        now: Instant,
    ) {
        if self.lanes.len() > IDLE_LANES_MAX && !self.lanes.contains_key(&ledger) {
            self.prune();
        }
        let lane = self.lanes.entry(ledger).or_default();
        if is_heavy && lane.pace() == Pace::Quick && lane.taken.is_none() {
            self.quick.ready.remove(&(lane.served, ledger));
            lane.since = None;
            lane.served = 0;
        }
        if is_heavy {
            lane.slow_turns = SLOW_TURNS;
        }
        lane.prune();
        let flow = lane.flows.entry(source.clone()).or_default();
        if flow.items.is_empty() && !flow.is_serving {
            flow.served = flow.served.max(lane.now);
            lane.ready.insert((flow.served, source));
        }
        flow.items.push_back(item);
        self.len += 1;
        self.stand(ledger, now);
    }

    /// Takes the ledger that is next in a line: until it is released nobody else gets it.
    pub(super) fn take(&mut self, pace: Pace) -> Option<LedgerNumber> {
        let line = self.line_mut(pace);
        let (served, ledger) = line.ready.pop_first()?;
        line.now = line.now.max(served);
        let lane = self.lanes.get_mut(&ledger)?;
        lane.taken = Some(pace);
        lane.since = None;
        Some(ledger)
    }

    /// The next item of a ledger that was taken, with its source. That source is not served again
    /// before [`Schedule::served`].
    pub(super) fn next(&mut self, ledger: LedgerNumber) -> Option<(SourceKey, T)> {
        let lane = self.lanes.get_mut(&ledger)?;
        let (served, source) = lane.ready.pop_first()?;
        lane.now = lane.now.max(served);
        let flow = lane.flows.get_mut(&source)?;
        flow.is_serving = true;
        let item = flow.items.pop_front()?;
        self.len -= 1;
        Some((source, item))
    }

    /// Notes what serving a source took. What is not done comes back before everything else of it.
    pub(super) fn served(
        &mut self,
        ledger: LedgerNumber,
        source: &SourceKey,
        used: u64,
        unfinished: Option<T>,
    ) {
        let Some(lane) = self.lanes.get_mut(&ledger) else {
            return;
        };
        let Some(flow) = lane.flows.get_mut(source) else {
            return;
        };
        flow.is_serving = false;
        flow.served = flow.served.saturating_add(used);
        if let Some(item) = unfinished {
            flow.items.push_front(item);
            self.len += 1;
        }
        if !flow.items.is_empty() {
            lane.ready.insert((flow.served, source.clone()));
        } else if flow.served <= lane.now {
            lane.flows.remove(source);
        }
    }

    /// Gives a ledger back that was taken, with what serving it took.
    pub(super) fn release(
        &mut self,
        ledger: LedgerNumber,
        used: u64,
        was_slow: bool,
        now: Instant,
    ) {
        let Some(lane) = self.lanes.get_mut(&ledger) else {
            return;
        };
        let before = lane.taken.take();
        lane.slow_turns = match was_slow {
            true => SLOW_TURNS,
            false => lane.slow_turns.saturating_sub(1),
        };
        // The points of two lines do not compare: who changes begins where the other line is.
        lane.served = match before == Some(lane.pace()) {
            true => lane.served.saturating_add(used),
            false => 0,
        };
        self.stand(ledger, now);
    }

    /// Everything that waits; nothing waits then.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len);
        for lane in self.lanes.values_mut() {
            lane.ready.clear();
            lane.since = None;
            for flow in lane.flows.values_mut() {
                all.extend(flow.items.drain(..));
            }
        }
        self.quick.ready.clear();
        self.slow.ready.clear();
        self.len = 0;
        all
    }

    /// Puts a ledger into its line if something of it waits and nobody serves it.
    fn stand(&mut self, ledger: LedgerNumber, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&ledger) else {
            return;
        };
        if lane.taken.is_some() || lane.ready.is_empty() || lane.since.is_some() {
            return;
        }
        let line = match lane.pace() {
            Pace::Quick => &mut self.quick,
            Pace::Slow => &mut self.slow,
        };
        lane.served = lane.served.max(line.now);
        lane.since = Some(now);
        line.ready.insert((lane.served, ledger));
    }

    /// Forgets ledgers of which nothing waits and that owe nothing.
    fn prune(&mut self) {
        let (quick, slow) = (self.quick.now, self.slow.now);
        let is_busy = |lane: &Lane<T>| lane.taken.is_some() || !lane.ready.is_empty();
        self.lanes.retain(|_, lane| {
            let now = match lane.pace() {
                Pace::Quick => quick,
                Pace::Slow => slow,
            };
            is_busy(lane) || lane.pace() == Pace::Slow || lane.served > now
        });
        if self.lanes.len() > IDLE_LANES_MAX {
            self.lanes.retain(|_, lane| is_busy(lane));
        }
    }

    fn line(&self, pace: Pace) -> &Line {
        match pace {
            Pace::Quick => &self.quick,
            Pace::Slow => &self.slow,
        }
    }

    fn line_mut(&mut self, pace: Pace) -> &mut Line {
        match pace {
            Pace::Quick => &mut self.quick,
            Pace::Slow => &mut self.slow,
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
