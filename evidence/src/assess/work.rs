//! Bounds on the work that a statement may cause.
//!
//! Two measures. [`Work`] counts what was really done: tests and benches hold it against the bytes of a
//! statement. A [`Budget`] bounds in advance what one statement may have looked at of what others have
//! stored. It is spent by what is in the cells, in units of about a microsecond, and never by what a
//! machine happens to have at hand or by a clock: every machine stops at the same place.

/// Work that was done since the machine began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Cells that were asked for and were not at hand.
    pub loaded: u64,
    /// Bytes of these, and of entries that acts were read from.
    pub decoded: u64,
    /// Pairs of effects that were compared.
    pub compared: u64,
    /// Cells that changed.
    pub written: u64,
    /// Bytes of these.
    pub encoded: u64,
    /// Units that policies took.
    pub judged: u64,
    /// Timers that were set, or are not any more.
    pub timers: u64,
    /// Timers that fired.
    pub fired: u64,
}

/// Units of a policy in one unit of work.
const POLICY_UNITS: u64 = 16;

impl Work {
    /// The work in units of about a microsecond: 6 for a cell that is loaded, 4 for one that is written
    /// and for a timer that is set or undone, one for 512 bytes of cells, one for 64 pairs of effects,
    /// and one for 16 units of a policy. What a timer does when it fires is in cells.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.loaded * 6
            + (self.written + self.timers) * 4
            + (self.decoded + self.encoded) / 512
            + self.compared / 64
            + self.judged / POLICY_UNITS
    }

    /// Work done since `before`.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            loaded: self.loaded - before.loaded,
            decoded: self.decoded - before.decoded,
            compared: self.compared - before.compared,
            written: self.written - before.written,
            encoded: self.encoded - before.encoded,
            judged: self.judged - before.judged,
            timers: self.timers - before.timers,
            fired: self.fired - before.fired,
        }
    }
}

/// Units that every Observation may spend on looking for the act that it is of.
const SEARCH_BASE: u64 = 120;

/// The same for the tasks whose credentials it names.
const TOKENS_BASE: u64 = 20;

/// Units for a cell that is looked at.
pub(super) const LOOK: u64 = 6;

/// The rest of the units that a statement may spend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget(u64);

impl Budget {
    /// The budget for looking for the act that a statement of so many bytes is of: a unit for every two of
    /// its bytes.
    pub(super) const fn of_search(bytes: usize) -> Self {
        Self(SEARCH_BASE + bytes as u64 / 2)
    }

    /// The budget for looking at the tasks whose credentials it names: a unit for every
    /// eight.
    pub(super) const fn of_tokens(bytes: usize) -> Self {
        Self(TOKENS_BASE + bytes as u64 / 8)
    }

    /// Takes units, if there are as many.
    pub(super) const fn take(&mut self, units: u64) -> bool {
        match self.0.checked_sub(units) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }

    /// Takes units, or what is left of them.
    pub(super) const fn take_up_to(&mut self, units: u64) {
        self.0 = self.0.saturating_sub(units);
    }
}
