//! The order of service: ledgers take turns, and within a ledger its sources do, by what they used.
//!
//! Start-time fair queueing with costs that are known afterwards. Each ledger and each source bears
//! the point of virtual time to which it has been served. The one that is furthest behind is next
//! (and where others are hardly further, the one whose item was received first, within a bound);
//! what serving it really took is added to its point. So a source with slow statements pays for
//! them: until the others have had as much, they come first. Nobody saves up credit by being idle:
//! who comes back begins at the point of whoever was served last. And nothing stands idle: who is
//! far ahead is served at once where nobody else waits.
//!
//! Ledgers stand in one of three lines, by how long their pieces keep a thread: so whoever serves the
//! quick ones meets no long batch, and a long batch that is honest does not wait for those that were
//! seen to take very long. What was seen holds for a number of turns, and for many times as long as
//! the piece took. Each line counts for itself what its ledgers used.
//!
//! Source: P. Goyal, H. Vin, H. Cheng, Start-time Fair Queuing, 1996.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{pressure::SourceKey, store::LedgerNumber};

/// A piece of work (a statement, or a batch under one manifest) that takes longer than this is long.
const LONG_PIECE: Duration = Duration::from_millis(20);

/// And one that takes longer than this is slow.
pub(super) const SLOW_PIECE: Duration = Duration::from_millis(250);

/// Turns without such a piece after which a ledger no longer stands where it was seen to belong.
const SEEN_TURNS: u32 = 256;

/// And it stands there for so many times as long as the piece took: who is quick in between, so as to
/// be let into another line, takes no more than this part of that line's time.
const SEEN_TIMES: u32 = 50;

/// Nanoseconds of use by which a source may be ahead of the one that is next, and be served before it
/// because its item was received earlier. An Intent that is recorded behind a later one costs more to
/// keep, so what was received in one order is recorded in it as far as that is fair.
const AHEAD_MAX: u64 = 4_000_000;

/// What is served in this way before the one that is next is served in any case: nobody waits longer
/// for it, however many others there are.
const PASSED_MAX: u64 = 4_000_000;

/// So many sources are looked at, and so many items of one.
const LOOK_MAX: usize = 16;

/// Ledgers, and sources of a ledger, that are remembered although nothing of them waits.
const IDLE_LANES_MAX: usize = 4096;
const IDLE_FLOWS_MAX: usize = 1024;

/// The line that a ledger waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// No piece of it takes long.
    Quick,
    /// A piece of it was long, or a batch of it waits that may be.
    Long,
    /// A piece of it was slow.
    Slow,
}

impl Pace {
    pub(super) const ALL: [Self; 3] = [Self::Quick, Self::Long, Self::Slow];

    fn of(longest: Duration) -> Self {
        if longest > SLOW_PIECE {
            Self::Slow
        } else if longest > LONG_PIECE {
            Self::Long
        } else {
            Self::Quick
        }
    }
}

/// Items that wait, by ledger and source.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    lanes: HashMap<LedgerNumber, Lane<T>>,
    /// By pace.
    lines: [Waiting; 3],
    /// Items that wait.
    len: usize,
}

/// Ledgers of one pace of which something waits and that nobody serves, by how far they have been
/// served.
#[derive(Debug, Default)]
struct Waiting {
    ready: BTreeSet<(u64, LedgerNumber)>,
    now: u64,
}

#[derive(Debug)]
struct Lane<T> {
    flows: HashMap<SourceKey, Flow<T>>,
    /// Sources of which something waits and that are not being served.
    ready: BTreeSet<(u64, SourceKey)>,
    now: u64,
    /// What was served before a source that was further behind, since such a one was served last.
    passed: u64,
    /// How far it has been served, in each line.
    served: [u64; 3],
    /// The line that it was taken from by whoever serves it.
    taken: Option<Pace>,
    /// The line that it stands in, and since when.
    stands: Option<(Pace, Instant)>,
    /// Items that may take long, those in work included.
    heavy: usize,
    long: Seen,
    slow: Seen,
}

/// That a ledger had a piece of some length.
#[derive(Debug, Default)]
struct Seen {
    /// Turns for which that still counts.
    turns: u32,
    until: Option<Instant>,
}

impl Seen {
    /// A turn has ended, whose longest piece is such a one, or is not.
    fn turn(&mut self, is_so: bool, longest: Duration, now: Instant) {
        if is_so {
            self.turns = SEEN_TURNS;
            self.until = self
                .until
                .max(now.checked_add(longest.saturating_mul(SEEN_TIMES)));
        } else if self.turns > 1 || self.until.is_none_or(|until| now >= until) {
            self.turns = self.turns.saturating_sub(1);
        }
    }
}

/// An item that waits.
#[derive(Debug)]
pub(super) struct Waits<T> {
    pub(super) item: T,
    /// Whether it may take long at a stretch.
    pub(super) is_heavy: bool,
    /// When it was received: those of a source are served in this order.
    pub(super) received: Instant,
    /// Part of it was served before: nothing of its source comes before the rest.
    pub(super) begun: bool,
}

/// What is being served of a source.
#[derive(Debug)]
struct Serving {
    is_heavy: bool,
    received: Instant,
    /// Whether it comes before a source that is further behind.
    passes: bool,
}

#[derive(Debug)]
struct Flow<T> {
    items: VecDeque<Waits<T>>,
    served: u64,
    /// `None` if nothing of it is being served.
    serving: Option<Serving>,
}

impl<T> Default for Flow<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            served: 0,
            serving: None,
        }
    }
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            flows: HashMap::new(),
            ready: BTreeSet::new(),
            now: 0,
            passed: 0,
            served: [0; 3],
            taken: None,
            stands: None,
            heavy: 0,
            long: Seen::default(),
            slow: Seen::default(),
        }
    }
}

impl<T> Lane<T> {
    fn pace(&self) -> Pace {
        if self.slow.turns > 0 {
            Pace::Slow
        } else if self.long.turns > 0 || self.heavy > 0 {
            Pace::Long
        } else {
            Pace::Quick
        }
    }

    /// The source to be served, and how far it has been: the one that is furthest behind, or one that is
    /// hardly further and whose item was received earlier.
    fn first(&self) -> Option<(u64, SourceKey)> {
        let least = self.ready.first()?;
        if self.passed >= PASSED_MAX {
            return Some(least.clone());
        }
        let until = least.0.saturating_add(AHEAD_MAX);
        let near = self.ready.iter().take_while(|(served, _)| *served <= until);
        let near = near.take(LOOK_MAX).filter_map(|key| {
            let first = self.flows.get(&key.1)?.items.front()?;
            // The rest of what was cut goes on behind others.
            let may_pass = !first.begun || key == least;
            may_pass.then_some((first.received, key))
        });
        let (_, key) = near.min_by_key(|(received, _)| *received)?;
        Some(key.clone())
    }

    /// Forgets sources of which nothing waits and that owe nothing.
    fn prune(&mut self) {
        if self.flows.len() <= IDLE_FLOWS_MAX {
            return;
        }
        let now = self.now;
        let busy = |flow: &Flow<T>| flow.serving.is_some() || !flow.items.is_empty();
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
            lines: Default::default(),
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a ledger stands in this line.
    pub(super) fn waits(&self, pace: Pace) -> bool {
        !self.lines[pace as usize].ready.is_empty()
    }

    /// Ledgers that get turns of their own.
    pub(super) fn slow_ledgers(&self) -> usize {
        let slow = |lane: &&Lane<T>| lane.pace() > Pace::Quick;
        self.lanes.values().filter(slow).count()
    }

    /// Since when the ledger has waited that has stood longest in this line.
    pub(super) fn waiting_since(&self, pace: Pace) -> Option<Instant> {
        let ready = self.lines[pace as usize].ready.iter();
        let since = ready.filter_map(|(_, ledger)| self.lanes[ledger].stands);
        since.map(|(_, since)| since).min()
    }

    /// Puts an item behind those of its source that were received before it: requests are looked through
    /// side by side, so a later one may be through first, and were it recorded first, the receive time
    /// of the other would be behind the ledger's time. The ledger of one that may take long is not
    /// served among the quick ones before that is done.
    pub(super) fn push(
        &mut self,
        ledger: LedgerNumber,
        source: SourceKey,
        waits: Waits<T>,
        now: Instant,
    ) {
        let is_heavy = waits.is_heavy;
        if self.lanes.len() > IDLE_LANES_MAX && !self.lanes.contains_key(&ledger) {
            self.prune();
        }
        let lane = self.lanes.entry(ledger).or_default();
        lane.heavy += usize::from(is_heavy);
        if let Some((stands, _)) = lane.stands
            && stands != lane.pace()
        {
            let point = (lane.served[stands as usize], ledger);
            self.lines[stands as usize].ready.remove(&point);
            lane.stands = None;
        }
        lane.prune();
        let flow = lane.flows.entry(source.clone()).or_default();
        if flow.items.is_empty() && flow.serving.is_none() {
            flow.served = flow.served.max(lane.now);
            lane.ready.insert((flow.served, source));
        }
        let later = flow.items.iter().rev().take(LOOK_MAX);
        let later = later.take_while(|other| !other.begun && other.received > waits.received);
        flow.items.insert(flow.items.len() - later.count(), waits);
        self.len += 1;
        self.stand(ledger, now);
    }

    /// Takes the ledger that is next in a line: until it is released nobody else gets it.
    pub(super) fn take(&mut self, pace: Pace) -> Option<LedgerNumber> {
        let line = &mut self.lines[pace as usize];
        let (served, ledger) = line.ready.pop_first()?;
        line.now = line.now.max(served);
        let lane = self.lanes.get_mut(&ledger)?;
        lane.taken = Some(pace);
        lane.stands = None;
        Some(ledger)
    }

    /// The next item of a ledger that was taken, with its source. That source is not served again
    /// before [`Schedule::served`]. Nothing that may take long is served among the quick.
    pub(super) fn next(&mut self, ledger: LedgerNumber) -> Option<(SourceKey, T)> {
        let lane = self.lanes.get_mut(&ledger)?;
        let next = lane.first()?;
        let flow = lane.flows.get_mut(&next.1)?;
        if flow.items.front()?.is_heavy && lane.taken == Some(Pace::Quick) {
            return None;
        }
        let Waits {
            item,
            is_heavy,
            received,
            ..
        } = flow.items.pop_front()?;
        let least = lane.ready.first()?.0;
        let passes = least < next.0;
        flow.serving = Some(Serving {
            is_heavy,
            received,
            passes,
        });
        lane.ready.remove(&next);
        let (_, source) = next;
        // Not the point of the one that passes: who comes back begins where the others are.
        lane.now = lane.now.max(least);
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
        let serving = flow.serving.take().unwrap_or(Serving {
            is_heavy: false,
            received: Instant::now(),
            passes: false,
        });
        lane.passed = match serving.passes {
            true => lane.passed.saturating_add(used),
            false => 0,
        };
        flow.served = flow.served.saturating_add(used);
        if let Some(item) = unfinished {
            flow.items.push_front(Waits {
                item,
                is_heavy: serving.is_heavy,
                received: serving.received,
                begun: true,
            });
            self.len += 1;
        } else {
            lane.heavy -= usize::from(serving.is_heavy);
        }
        if !flow.items.is_empty() {
            lane.ready.insert((flow.served, source.clone()));
        } else if flow.served <= lane.now {
            lane.flows.remove(source);
        }
    }

    /// Gives a ledger back that was taken, with what serving it took, and the longest piece of that.
    pub(super) fn release(
        &mut self,
        ledger: LedgerNumber,
        used: u64,
        longest: Duration,
        now: Instant,
    ) {
        let Some(lane) = self.lanes.get_mut(&ledger) else {
            return;
        };
        if let Some(taken) = lane.taken.take() {
            let served = &mut lane.served[taken as usize];
            *served = served.saturating_add(used);
        }
        let pace = Pace::of(longest);
        lane.long.turn(pace >= Pace::Long, longest, now);
        lane.slow.turn(pace >= Pace::Slow, longest, now);
        self.stand(ledger, now);
    }

    /// Everything that waits; nothing waits then.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len);
        for lane in self.lanes.values_mut() {
            lane.ready.clear();
            lane.stands = None;
            lane.heavy = 0;
            for flow in lane.flows.values_mut() {
                all.extend(flow.items.drain(..).map(|waits| waits.item));
                lane.heavy += usize::from(flow.serving.as_ref().is_some_and(|one| one.is_heavy));
            }
        }
        for line in &mut self.lines {
            line.ready.clear();
        }
        self.len = 0;
        all
    }

    /// Puts a ledger into its line if something of it waits and nobody serves it.
    fn stand(&mut self, ledger: LedgerNumber, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&ledger) else {
            return;
        };
        if lane.taken.is_some() || lane.ready.is_empty() || lane.stands.is_some() {
            return;
        }
        let pace = lane.pace();
        let line = &mut self.lines[pace as usize];
        let served = &mut lane.served[pace as usize];
        *served = (*served).max(line.now);
        lane.stands = Some((pace, now));
        line.ready.insert((*served, ledger));
    }

    /// Forgets ledgers of which nothing waits and that owe nothing.
    fn prune(&mut self) {
        let now = self.lines.each_ref().map(|line| line.now);
        let is_busy = |lane: &Lane<T>| lane.taken.is_some() || !lane.ready.is_empty();
        self.lanes.retain(|_, lane| {
            let owes = lane
                .served
                .iter()
                .zip(now)
                .any(|(served, now)| *served > now);
            is_busy(lane) || lane.pace() > Pace::Quick || owes
        });
        if self.lanes.len() > IDLE_LANES_MAX {
            self.lanes.retain(|_, lane| is_busy(lane));
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
