//! Timers: events that happen when effective time has come so far, without a statement.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::view::View;
use crate::{KeyId, Micros, SessionId, TaskId};

/// Timers that fire in front of one entry at most. Where more are due, the ledger writes Ticks first,
/// each of which fires so many; so what one entry costs is bounded, and the entries alone say which of
/// them fires what, wherever turns are cut.
pub const FIRE_MAX: usize = 256;

/// Bound on how far ahead of effective time a deadline may be set: ten years of 366 days. A ledger
/// takes no statement with one beyond that.
pub const AHEAD_MAX_US: i64 = 10 * 366 * 86_400 * 1_000_000;

/// Timers that a ledger holds at most, all owners together: one may hold a quarter of what the others
/// leave free ([`share`]).
pub const TIMERS_MAX: u64 = 1 << 20;

/// Timers that one owner may hold where `all` are charged to owners in the ledger: a quarter of those
/// that are free. So one alone holds a fifth of [`TIMERS_MAX`], and there is always room for a newcomer.
#[must_use]
pub const fn share(all: u64) -> u64 {
    TIMERS_MAX.saturating_sub(all) / 4
}

/// Timers that a producer may hold by what nobody signs, where all such producers hold `unsigned`: a
/// quarter of what is free of their share. Names cost nothing there, so all of them together hold no
/// more than one controller does.
#[must_use]
pub const fn share_unsigned(all: u64, unsigned: u64) -> u64 {
    share(all).saturating_sub(unsigned) / 4
}

/// The owner of a timer, to whom it is charged: the controller of the key that signed what set it, an
/// authority of the ledger, or the producer of what nobody signed. Timers that are not their speaker's
/// choice are charged to nobody: those that the policy sets for Outcomes, and those that follow from
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner([u8; 16]);

/// First bytes of owners. What follows is of SHA-256 over a name.
mod kind {
    pub(super) const CONTROLLER: u8 = 3;
    pub(super) const PRODUCER: u8 = 4;
}

impl Owner {
    /// Nobody. Under this name the timers of the whole ledger are counted.
    pub const ALL: Self = Self([0; 16]);
    /// An authority.
    pub const AUTHORITY: Self = Self([1; 16]);
    /// All who speak without a signature: their timers are counted together, too.
    pub const UNSIGNED: Self = Self([2; 16]);

    /// A controller.
    #[must_use]
    pub fn controller(name: &str) -> Self {
        Self::named(kind::CONTROLLER, name)
    }

    /// A producer that speaks without a signature.
    #[must_use]
    pub fn producer(name: &str) -> Self {
        Self::named(kind::PRODUCER, name)
    }

    fn named(kind: u8, name: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let mut bytes: [u8; 16] = digest.first_chunk().copied().unwrap_or_default();
        bytes[0] = kind;
        Self(bytes)
    }

    /// The owners under which its timers are counted.
    pub(super) fn counted_as(self) -> impl Iterator<Item = Self> {
        let itself = (self != Self::ALL).then_some(self);
        let together = self.is_unsigned().then_some(Self::UNSIGNED);
        [Some(Self::ALL), itself, together].into_iter().flatten()
    }

    pub(super) const fn is_unsigned(self) -> bool {
        self.0[0] == kind::PRODUCER
    }

    /// As it is stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads what was stored.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

/// A timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timer {
    /// The time at which it fires.
    pub at: Micros,
    /// The leaf that it was set by.
    pub leaf: u64,
    /// The event.
    pub kind: TimerKind,
}

/// The event of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKind {
    /// The task ends.
    Task(TaskId),
    /// The Intent at this leaf lapses, or is overdue.
    Intent(u64),
    /// The Outcome of the Intent at this leaf stays uncorroborated.
    Observation(u64),
    /// The session has broken its promise.
    Session(SessionId),
    /// Further tasks of the compromised key are looked at.
    Compromised(KeyId),
}

impl Timer {
    /// As it is stored: in byte order of time, then leaf. 33 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 33] {
        let mut bytes = [0; 33];
        bytes[..8].copy_from_slice(&self.at.get().to_be_bytes());
        bytes[8..16].copy_from_slice(&self.leaf.to_be_bytes());
        let (kind, id) = match self.kind {
            TimerKind::Task(task) => (1, *task.as_bytes()),
            TimerKind::Intent(leaf) => (2, padded(leaf)),
            TimerKind::Observation(leaf) => (3, padded(leaf)),
            TimerKind::Session(session) => (4, *session.as_bytes()),
            TimerKind::Compromised(key) => (5, *key.as_bytes()),
        };
        bytes[16] = kind;
        bytes[17..].copy_from_slice(&id);
        bytes
    }

    /// Reads what [`Timer::to_bytes`] writes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 33] = bytes.try_into().ok()?;
        let id: [u8; 16] = *bytes.last_chunk()?;
        let leaf = u64::from_be_bytes(*id.last_chunk()?);
        Some(Self {
            at: Micros::new(i64::from_be_bytes(*bytes.first_chunk()?)),
            leaf: u64::from_be_bytes(*bytes[8..16].first_chunk()?),
            kind: match bytes[16] {
                1 => TimerKind::Task(TaskId::new(id)),
                2 => TimerKind::Intent(leaf),
                3 => TimerKind::Observation(leaf),
                4 => TimerKind::Session(SessionId::new(id)),
                5 => TimerKind::Compromised(KeyId::new(id)),
                _ => return None,
            },
        })
    }
}

fn padded(leaf: u64) -> [u8; 16] {
    (u128::from(leaf)).to_be_bytes()
}

/// The end of the range in which every timer is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Horizon {
    /// Nothing was asked for yet.
    Unknown,
    /// Up to this timer.
    To(Timer),
    /// All of it.
    All,
}

/// Timers that are read at once.
const PAGE: usize = 2 * FIRE_MAX;

/// The next timers of a ledger, and those that were set or undone since everything was forgotten. The
/// others are read through [`View::timers_after`]: memory does not grow with what is due some day.
#[derive(Debug)]
pub(super) struct TimerQueue {
    set: BTreeMap<Timer, Owner>,
    /// Timers that are not set any more, whatever the view says.
    gone: HashSet<Timer>,
    horizon: Horizon,
    changed: BTreeMap<Timer, Option<Owner>>,
    /// Set by the statement that is being taken; it gets its owner when that is done.
    fresh: Vec<Timer>,
    /// Timers that were undone, and of which only the view knows that they were set.
    unsure: Vec<Timer>,
    /// Timers that were set or undone since they were counted last.
    moved: Vec<(Owner, Timer, bool)>,
}

impl TimerQueue {
    /// The queue of a ledger in which nothing is due.
    pub(super) fn none() -> Self {
        Self {
            set: BTreeMap::new(),
            gone: HashSet::new(),
            horizon: Horizon::All,
            changed: BTreeMap::new(),
            fresh: Vec::new(),
            unsure: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// The queue of a ledger whose timers are stored.
    pub(super) fn kept() -> Self {
        Self {
            horizon: Horizon::Unknown,
            ..Self::none()
        }
    }

    /// Forgets what is at hand. Only when all changes were taken and can be read again.
    pub(super) fn forget(&mut self) {
        debug_assert!(
            self.changed.is_empty() && self.moved.is_empty(),
            "changes were taken"
        );
        self.set.clear();
        self.gone.clear();
        self.horizon = Horizon::Unknown;
    }

    /// Timers at hand, those that are known to be none among them.
    pub(super) fn held(&self) -> usize {
        self.set.len() + self.gone.len()
    }

    /// The earliest timer; not later than that, where the view has to be asked first.
    pub(super) fn next(&self) -> Option<Micros> {
        let first = self.set.first_key_value().map(|(timer, _)| *timer);
        match self.horizon {
            Horizon::Unknown => Some(Micros::new(i64::MIN)),
            Horizon::All => first.map(|timer| timer.at),
            Horizon::To(end) => Some(first.map_or(end.at, |timer| timer.at.min(end.at))),
        }
    }

    /// Takes out the earliest timer that is due by `at`. [`TimerQueue::keep`] was asked before.
    pub(super) fn fire(&mut self, at: Micros) -> Option<Timer> {
        let (timer, _) = self.set.first_key_value()?;
        let timer = *timer;
        if timer.at > at {
            return None;
        }
        self.undo(timer);
        Some(timer)
    }

    pub(super) fn set(&mut self, timer: Timer) {
        self.fresh.push(timer);
    }

    pub(super) fn undo(&mut self, timer: Timer) {
        if let Some(at) = self.fresh.iter().position(|fresh| *fresh == timer) {
            self.fresh.swap_remove(at);
        } else if let Some(owner) = self.set.remove(&timer) {
            self.took_out(timer, owner);
        } else if !self.gone.contains(&timer) && !self.covers(&timer) {
            self.unsure.push(timer);
        }
    }

    fn took_out(&mut self, timer: Timer, owner: Owner) {
        self.gone.insert(timer);
        // What was set and undone in one turn was never there.
        if self.changed.remove(&timer).is_none() {
            self.changed.insert(timer, None);
        }
        self.moved.push((owner, timer, false));
    }

    /// True if a timer would be at hand if it were set.
    fn covers(&self, timer: &Timer) -> bool {
        match self.horizon {
            Horizon::Unknown => false,
            Horizon::To(end) => *timer <= end,
            Horizon::All => true,
        }
    }

    /// Finishes what a statement or a timer has set and undone, and reads the next timers if those at
    /// hand are used up. Afterwards [`TimerQueue::next`] is exact.
    pub(super) fn keep<V: View>(&mut self, view: &mut V, owner: Owner) -> Result<(), V::Error> {
        for timer in std::mem::take(&mut self.unsure) {
            if let Some(owner) = view.timer(&timer)? {
                self.took_out(timer, owner);
            }
        }
        for timer in std::mem::take(&mut self.fresh) {
            let owner = match timer.kind {
                // An Outcome is evidence, and the policy says how long others have to see of it.
                TimerKind::Observation(_) => Owner::ALL,
                _ => owner,
            };
            if self.set.insert(timer, owner).is_none() {
                self.gone.remove(&timer);
                if self.changed.remove(&timer).is_none() {
                    self.changed.insert(timer, Some(owner));
                }
                self.moved.push((owner, timer, true));
            }
        }
        while self.wants_page() && self.read_page(view)? {}
        Ok(())
    }

    /// Returns true if [`TimerQueue::keep`] has nothing to do.
    pub(super) fn is_kept(&self) -> bool {
        let is_finished = self.unsure.is_empty() && self.fresh.is_empty() && self.moved.is_empty();
        is_finished && !self.wants_page()
    }

    /// Returns true if the earliest timer may not be at hand.
    fn wants_page(&self) -> bool {
        let first = self.set.first_key_value();
        self.horizon != Horizon::All && first.is_none_or(|(timer, _)| !self.covers(timer))
    }

    /// Returns true if more than [`FIRE_MAX`] timers are due by `at`.
    pub(super) fn crowded<V: View>(&mut self, view: &mut V, at: Micros) -> Result<bool, V::Error> {
        loop {
            let mut timers = self.set.keys().take_while(|timer| timer.at <= at);
            match timers.nth(FIRE_MAX) {
                Some(beyond) if self.covers(beyond) => return Ok(true),
                _ => {}
            }
            let read_to = match self.horizon {
                Horizon::All => return Ok(false),
                Horizon::To(end) => end.at > at,
                Horizon::Unknown => false,
            };
            if read_to {
                return Ok(false);
            }
            self.read_page(view)?;
        }
    }

    /// Reads the next page; false if there is none.
    fn read_page<V: View>(&mut self, view: &mut V) -> Result<bool, V::Error> {
        let after = match self.horizon {
            Horizon::All => return Ok(false),
            Horizon::To(end) => Some(end),
            Horizon::Unknown => None,
        };
        let page = view.timers_after(after.as_ref(), PAGE)?;
        self.horizon = match page.last() {
            Some((last, _)) if page.len() >= PAGE => Horizon::To(*last),
            _ => Horizon::All,
        };
        let known = page
            .into_iter()
            .filter(|(timer, _)| !self.gone.contains(timer));
        self.set.extend(known);
        Ok(true)
    }

    /// Timers that have moved since this was asked last, by owner: to be counted.
    pub(super) fn take_moved(&mut self) -> Vec<(Owner, Timer, bool)> {
        std::mem::take(&mut self.moved)
    }

    /// Timers that were set, with their owners, and that are not any more.
    pub(super) fn take_changes(&mut self) -> Vec<(Timer, Option<Owner>)> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }
}
