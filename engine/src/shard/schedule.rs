//! The order of service: fair queueing among the ledgers of a shard, and among the sources of a
//! ledger.
//!
//! This is start-time fair queueing with costs that are known only afterwards. Each ledger and each
//! source has a virtual time, which says how much service it has had. The one with the least
//! virtual time is served next, and the measured cost of that service is then added to it. (Among
//! sources that are nearly equal, the one whose item was received first is served, within a bound.)
//! So a source with slow statements pays for them: the others come first until they have had as
//! much. Nobody saves up credit by being idle: whoever comes back begins at the virtual time of the
//! one that was served last. And no thread stands idle: a ledger or source that is far ahead is
//! served at once if no other waits.
//!
//! Ledgers belong to one of three classes ([`Pace`]), by how long their pieces keep a thread. So a
//! thread that serves quick ledgers meets no long batch, and a long batch does not wait for ledgers
//! whose pieces were very slow. A ledger stays in a slower class for a number of turns, and for a
//! multiple of the time that its piece took. Each class counts for itself how much service its
//! ledgers have had.
//!
//! Source: P. Goyal, H. Vin, H. Cheng, Start-time Fair Queuing, 1996.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{pressure::SourceKey, store::LedgerNumber};

/// A piece of work (a statement, or a batch under one manifest) is long if it takes more than this.
const LONG_PIECE: Duration = Duration::from_millis(20);

/// A piece of work is slow if it takes more than this.
pub(super) const SLOW_PIECE: Duration = Duration::from_millis(250);

/// Number of turns without a long, or slow, piece after which a ledger may return to a quicker
/// class.
const SEEN_TURNS: u32 = 256;

/// A ledger stays in a slower class for at least this multiple of the time that its long, or slow,
/// piece took. So a ledger that is quick in between, to get back into a quicker class, takes at
/// most this fraction of that class's time.
const SEEN_TIMES: u32 = 50;

/// Nanoseconds by which the virtual time of a source may exceed the least one while the source is
/// still served first, because its item was received earlier. An Intent that is recorded behind a
/// later one costs more to keep, so items are recorded in the order of receipt as far as that is
/// fair.
const AHEAD_MAX: u64 = 4_000_000;

/// Nanoseconds that may be spent on such sources before the one with the least virtual time is
/// served in any case. It waits no longer than that for them, however many they are.
const PASSED_MAX: u64 = 4_000_000;

/// Number of sources that are compared by time of receipt, and of items of one source.
const LOOK_MAX: usize = 16;

/// Numbers of ledgers, and of sources of a ledger, that may be remembered without waiting items.
const IDLE_LANES_MAX: usize = 4096;
const IDLE_FLOWS_MAX: usize = 1024;

/// The class of a ledger, by the time that its pieces take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// No piece of the ledger was long lately.
    Quick,
    /// A piece of the ledger was long lately, or it has a batch that may be long.
    Long,
    /// A piece of the ledger was slow lately.
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

/// Waiting items, by ledger and source.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    lanes: HashMap<LedgerNumber, Lane<T>>,
    /// The ledgers to be served, by [`Pace`].
    lines: [Waiting; 3],
    /// Number of waiting items.
    len: usize,
}

/// The ledgers of one class that have waiting items and that nobody serves, by virtual time.
#[derive(Debug, Default)]
struct Waiting {
    ready: BTreeSet<(u64, LedgerNumber)>,
    now: u64,
}

#[derive(Debug)]
struct Lane<T> {
    flows: HashMap<SourceKey, Flow<T>>,
    /// Sources with waiting items that nobody serves, by virtual time.
    ready: BTreeSet<(u64, SourceKey)>,
    now: u64,
    /// Nanoseconds spent on sources that were served before one with less virtual time, since the
    /// source with the least was served last.
    passed: u64,
    /// The ledger's virtual time in each class.
    served: [u64; 3],
    /// The class in which the ledger was taken; `None` if nobody serves it.
    taken: Option<Pace>,
    /// The class in which the ledger waits to be taken, and since when.
    stands: Option<(Pace, Instant)>,
    /// Number of items that may take long, those in work included.
    heavy: usize,
    long: Seen,
    slow: Seen,
}

/// Records that a ledger had a long, or a slow, piece.
#[derive(Debug, Default)]
struct Seen {
    /// Number of turns for which the piece still counts.
    turns: u32,
    until: Option<Instant>,
}

impl Seen {
    /// Notes the end of a turn; `is_so` says whether its longest piece, of length `longest`, counts
    /// here.
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

/// A waiting item.
#[derive(Debug)]
pub(super) struct Waits<T> {
    pub(super) item: T,
    /// True if the item may keep its thread for long at a stretch.
    pub(super) is_heavy: bool,
    /// The time of receipt; a source's items are served in this order.
    pub(super) received: Instant,
    /// True if part of the item was served before. Then no other item of its source comes before
    /// the rest.
    pub(super) begun: bool,
}

/// The item of a source that is being served.
#[derive(Debug)]
struct Serving {
    is_heavy: bool,
    received: Instant,
    /// True if the source was served before one with less virtual time.
    passes: bool,
}

#[derive(Debug)]
struct Flow<T> {
    items: VecDeque<Waits<T>>,
    served: u64,
    /// `None` if no item of the source is being served.
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

    /// Returns the source to be served next, with its virtual time: the one with the least, or one
    /// with hardly more whose item was received earlier.
    fn first(&self) -> Option<(u64, SourceKey)> {
        let least = self.ready.first()?;
        if self.passed >= PASSED_MAX {
            return Some(least.clone());
        }
        let until = least.0.saturating_add(AHEAD_MAX);
        let near = self.ready.iter().take_while(|(served, _)| *served <= until);
        let near = near.take(LOOK_MAX).filter_map(|key| {
            let first = self.flows.get(&key.1)?.items.front()?;
            // The rest of a cut item is not served before sources with less virtual time.
            let may_pass = !first.begun || key == least;
            may_pass.then_some((first.received, key))
        });
        let (_, key) = near.min_by_key(|(received, _)| *received)?;
        Some(key.clone())
    }

    /// Forgets sources without waiting items, if too many are remembered. Those that are ahead of
    /// the others are forgotten only if the rest are still too many.
    fn prune(&mut self) {
        if self.flows.len() <= IDLE_FLOWS_MAX {
            return;
        }
        let now = self.now;
        let busy = |flow: &Flow<T>| flow.serving.is_some() || !flow.items.is_empty();
        self.flows.retain(|_, flow| busy(flow) || flow.served > now);
        if self.flows.len() > IDLE_FLOWS_MAX {
            // Too many sources are ahead: they are forgiven that, because memory is bounded.
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

    /// Returns true if a ledger of this class waits to be taken.
    pub(super) fn waits(&self, pace: Pace) -> bool {
        !self.lines[pace as usize].ready.is_empty()
    }

    /// Returns the number of ledgers that get turns of their own.
    pub(super) fn slow_ledgers(&self) -> usize {
        let slow = |lane: &&Lane<T>| lane.pace() > Pace::Quick;
        self.lanes.values().filter(slow).count()
    }

    /// Returns the time since which the longest waiting ledger of this class has waited.
    pub(super) fn waiting_since(&self, pace: Pace) -> Option<Instant> {
        let ready = self.lines[pace as usize].ready.iter();
        let since = ready.filter_map(|(_, ledger)| self.lanes[ledger].stands);
        since.map(|(_, since)| since).min()
    }

    /// Puts an item behind those of its source that were received before it. Requests are admitted
    /// side by side, so a later one may be ready first. If it were recorded first, the receive time
    /// of the other would be behind the ledger's time. The ledger of an item that may take long is
    /// not served among the quick ones before that item is done.
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

    /// Takes the next ledger of a class. Nobody else gets it until it is released.
    pub(super) fn take(&mut self, pace: Pace) -> Option<LedgerNumber> {
        let line = &mut self.lines[pace as usize];
        let (served, ledger) = line.ready.pop_first()?;
        line.now = line.now.max(served);
        let lane = self.lanes.get_mut(&ledger)?;
        lane.taken = Some(pace);
        lane.stands = None;
        Some(ledger)
    }

    /// Returns the next item of a ledger that was taken, with its source. That source is not served
    /// again before [`Schedule::served`] is called. An item that may take long is not returned if
    /// the ledger was taken as a quick one.
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
        // This is not the virtual time of a source that passed others: whoever comes back begins
        // where the others are.
        lane.now = lane.now.max(least);
        self.len -= 1;
        Some((source, item))
    }

    /// Adds the cost of serving a source to its virtual time. An unfinished item comes back before
    /// all others of its source.
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

    /// Gives back a ledger that was taken, with the cost of serving it and the length of its
    /// longest piece.
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

    /// Removes and returns all waiting items.
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

    /// Makes a ledger wait in its class if it has waiting items and nobody serves it.
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

    /// Forgets quick ledgers that have no waiting items and are not ahead of the others. If too
    /// many are left, forgets all that have no waiting items.
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
