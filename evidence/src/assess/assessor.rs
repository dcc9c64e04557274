//! The assessor: cells at hand, timers, and the entries that the ledger has to write.

use std::collections::VecDeque;

use bytes::Bytes;
use deed_proto::v1::{self, FindingKind, IntentState};
use deed_tlog::Hash;

use super::{
    apply::{Apply, Author, Findings},
    body::ParsedBody,
    cell_cache::CellCache,
    cells::{CellKey, Clock, Leaves, Task, TimerCount},
    implicit_intent::{ImplicitIntent, Recent},
    timer::{Owner, Timer, TimerQueue, share, share_unsigned},
    view::View,
    work::Work,
};
use crate::{
    KeyId, LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId, statement::SessionHeader,
    trust::TrustState,
};

/// A statement that was recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecordedStatement<'a> {
    /// Its leaf.
    pub leaf: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// Effective time there.
    pub at: Micros,
    /// The receive time in its entry.
    pub received_at: Micros,
    /// Its header.
    pub header: &'a SessionHeader<'a>,
    /// Its payload.
    pub payload: &'a [u8],
    /// The digest of its payload, if somebody has computed it.
    pub payload_digest: Option<PayloadDigest>,
    /// [`ParsedBody::read`] of its payload.
    pub parsed: &'a ParsedBody,
    /// The key that signed it, or the manifest over it.
    pub key: Option<KeyId>,
}

impl RecordedStatement<'_> {
    /// The digest of its payload, computed if nobody has computed it yet.
    pub(super) fn digest(&self) -> PayloadDigest {
        self.payload_digest
            .unwrap_or_else(|| PayloadDigest::of(self.payload))
    }
}

/// The judgement of an Intent at its leaf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IntentVerdict {
    /// Its state.
    pub state: IntentState,
    /// The evidence that it waits for.
    pub missing: Vec<String>,
    /// The reasons why it is denied.
    pub denied: Vec<String>,
}

/// The assessment of a statement when it is recorded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assessed {
    /// The verdict, of an Intent.
    pub intent: Option<IntentVerdict>,
    /// Findings at its leaf.
    pub findings: Vec<v1::Finding>,
}

/// The changes of a turn, to be stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// Cells that changed, with their bytes, in order of their keys.
    pub cells: Vec<(CellKey, Vec<u8>)>,
    /// Timers that were set, each with its owner, and those that are not any more (`None`).
    pub timers: Vec<(Timer, Option<Owner>)>,
}

impl Changes {
    /// Returns true if nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.timers.is_empty()
    }
}

/// An entry that the ledger has to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PendingEntry {
    /// The Clearance of the Intent at this leaf.
    Clearance(u64),
    /// The receipt of a task.
    Receipt { task: TaskId, requested: bool },
    /// A Tick: time has come to `due`, and nothing else happens.
    Tick { due: Micros },
    /// A Tick that says that the operator has confirmed the clock, which said `clock`; effective time
    /// was `from`.
    Confirmed {
        due: Option<Micros>,
        clock: Micros,
        from: Micros,
    },
}

/// A ledger's assessment between two entries.
#[derive(Debug)]
pub struct Assessor {
    id: LedgerId,
    cells: CellCache,
    timers: TimerQueue,
    pending: VecDeque<PendingEntry>,
    recent: Recent,
    findings: Findings,
}

/// The ledger's state, as it is kept and read.
impl Assessor {
    /// The assessment of a ledger of which nothing was assessed yet.
    #[must_use]
    pub fn new(id: LedgerId) -> Self {
        Self {
            timers: TimerQueue::none(),
            ..Self::restore(id)
        }
    }

    /// The assessment of a ledger whose cells and timers are stored.
    #[must_use]
    pub fn restore(id: LedgerId) -> Self {
        Self {
            id,
            cells: CellCache::new(),
            timers: TimerQueue::kept(),
            pending: VecDeque::new(),
            recent: Recent::default(),
            findings: Findings::default(),
        }
    }

    /// The time at which something is due next. Between [`Assessor::restore`] or [`Assessor::forget`]
    /// and the next call with a view, it may be later than this says.
    #[must_use]
    pub fn next_due(&self) -> Option<Micros> {
        self.timers.next()
    }

    /// Reads the next timers, if they are not at hand, so that [`Assessor::next_due`] is exact.
    ///
    /// # Errors
    /// As `view`.
    pub fn look_ahead<V: View>(&mut self, view: &mut V) -> Result<(), V::Error> {
        self.timers.keep(view, Owner::ALL)
    }

    /// The number of timers of the owner that `key` belongs to (`producer` without a key), and the
    /// number that it may hold now. Timers count from when they are set, stored or not.
    ///
    /// # Errors
    /// As `view`.
    pub fn timers_of<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        producer: &str,
        key: Option<KeyId>,
    ) -> Result<(u64, u64), V::Error> {
        let owner = Author::new(producer, key, trust).timer_owner();
        let all = self.cells.with(view).timers()?;
        let charged = all.held.saturating_sub(all.uncharged);
        let held = self.timer_count(view, owner)?.held;
        let share = if owner.is_unsigned() {
            let unsigned = self.timer_count(view, Owner::UNSIGNED)?.held;
            share_unsigned(charged, unsigned)
        } else {
            share(charged)
        };
        Ok((held, share))
    }

    /// Number of timers that the whole ledger holds.
    ///
    /// # Errors
    /// As `view`.
    pub fn timers_held<V: View>(&mut self, view: &mut V) -> Result<u64, V::Error> {
        Ok(self.cells.with(view).timers()?.held)
    }

    fn timer_count<V: View>(&mut self, view: &mut V, owner: Owner) -> Result<TimerCount, V::Error> {
        let mut cells = self.cells.with(view);
        let held = cells.look::<TimerCount>(CellKey::Timers(owner))?;
        Ok(held.copied().unwrap_or_default())
    }

    /// Timers at hand, of which a ledger may hold many more; about 100 bytes each.
    #[must_use]
    pub fn timers_at_hand(&self) -> usize {
        self.timers.held()
    }

    /// Forgets the timers at hand. Only when all changes have been taken and can be read again.
    pub fn forget_timers(&mut self) {
        self.timers.forget();
    }

    /// Bytes that the cells at hand hold: an estimate, containers included.
    #[must_use]
    pub const fn cells_held(&self) -> usize {
        self.cells.held()
    }

    /// Bytes that are held of what could be read again: cells at hand, and recent Intents, which have
    /// a bound of their own (some 6 MiB). An estimate, containers included.
    #[must_use]
    pub fn held(&self) -> usize {
        self.cells.held() + self.recent.held()
    }

    /// The work that was done since the assessor was made.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.cells.work()
    }

    /// Forgets the cells at hand. Only when all changes have been taken and can be read again.
    pub fn forget_cells(&mut self) {
        self.cells.forget();
    }

    /// Forgets what is at hand. Only when all changes have been taken and can be read again.
    pub fn forget(&mut self) {
        self.cells.forget();
        self.recent.forget();
        self.timers.forget();
    }

    /// Says that nothing was recorded from `next_leaf` on, so that cells of acts there need not be
    /// asked for: nearly every Intent would ask in vain. To be said when all that is stored is of
    /// earlier leaves: at the beginning, and after [`Assessor::forget`].
    pub fn begins_at(&mut self, next_leaf: u64) {
        self.cells.acts_begin_at(next_leaf);
    }

    /// Takes what has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        self.findings.clear();
        Changes {
            cells: self.cells.take_changes(),
            timers: self.timers.take_changes(),
        }
    }

    /// The Intent at a leaf that was recorded a moment ago, if no cell was written of it. A caller that
    /// stores no entries stores this, and gives it back through [`View::intent`].
    #[must_use]
    pub fn implicit(&self, leaf: u64) -> Option<&ImplicitIntent> {
        self.recent.intent(leaf)
    }

    /// Returns true if more than [`FIRE_MAX`](super::FIRE_MAX) timers are due by `at`: the ledger has
    /// to write a [Tick](Assessor::tick) before anything else.
    ///
    /// # Errors
    /// As `view`.
    pub fn crowded<V: View>(&mut self, view: &mut V, at: Micros) -> Result<bool, V::Error> {
        self.timers.crowded(view, at)
    }

    /// Returns true if something is due by `at`.
    #[must_use]
    pub fn is_due(&self, at: Micros) -> bool {
        self.next_due().is_some_and(|due| due <= at)
    }

    /// Returns true if the ledger has to write an entry before anything else.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The leaf of the equivocation that was recorded for a place in a session, if one was: a third
    /// statement for it is not recorded.
    ///
    /// # Errors
    /// As `view`.
    pub fn equivocated<V: View>(
        &mut self,
        view: &mut V,
        session: SessionId,
        sequence: Sequence,
    ) -> Result<Option<u64>, V::Error> {
        let key = CellKey::Equivocation(session, sequence);
        let mut cells = self.cells.with(view);
        let leaves = cells.look::<Leaves>(key)?;
        Ok(leaves.and_then(|leaves| leaves.leaves.first().copied()))
    }

    /// A task.
    ///
    /// # Errors
    /// As `view`.
    pub fn task<V: View>(&mut self, view: &mut V, task: TaskId) -> Result<Option<Task>, V::Error> {
        Ok(self.cells.with(view).task(task)?.cloned())
    }

    /// The last confirmation of the ledger's clock by an operator.
    ///
    /// # Errors
    /// As `view`.
    pub fn clock<V: View>(&mut self, view: &mut V) -> Result<Option<Clock>, V::Error> {
        Ok(self
            .cells
            .with(view)
            .look::<Clock>(CellKey::Clock)?
            .copied())
    }
}

/// The ledger's entries, leaf by leaf.
impl Assessor {
    /// Lets time come to `at`, before the entry at `next_leaf` is written: the timers that are due by
    /// then fire, [`FIRE_MAX`](super::FIRE_MAX) of them at most. Afterwards the ledger's own entries are
    /// to be written, until [`Assessor::ledger_entry`] has none; then comes the statement, if nothing
    /// more is due.
    ///
    /// # Errors
    /// As `view`.
    pub fn advance<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        next_leaf: u64,
        at: Micros,
    ) -> Result<(), V::Error> {
        self.apply(view, trust, next_leaf, at).advance()
    }

    /// Applies a statement that was recorded.
    ///
    /// # Errors
    /// As `view`.
    pub fn record<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        statement: &RecordedStatement<'_>,
    ) -> Result<Assessed, V::Error> {
        let intent = self.apply_to(view, trust, statement).statement(statement)?;
        let findings = self.findings.take();
        Ok(Assessed { intent, findings })
    }

    /// Notes an equivocation: a second signed statement for a place in a session, which was
    /// recorded at this leaf as evidence. `first` is the leaf of the first one.
    ///
    /// # Errors
    /// As `view`.
    pub fn equivocation<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        statement: &RecordedStatement<'_>,
        first: u64,
    ) -> Result<Assessed, V::Error> {
        let (session, sequence) = (statement.header.session, statement.header.sequence);
        let leaves = vec![statement.leaf];
        let key = CellKey::Equivocation(session, sequence);
        let mut apply = self.apply_to(view, trust, statement);
        apply.cells.put(key, Leaves { leaves });
        apply.enter(statement)?;
        apply
            .find(FindingKind::Equivocation)
            .contradicts(first)
            .says("two statements are signed for one place in a session")?;
        let findings = self.findings.take();
        Ok(Assessed {
            intent: None,
            findings,
        })
    }

    /// Takes a statement of a batch that is kept as evidence of what another one of it shows
    /// ([`Assessor::equivocation`]). It counts among its task's entries, and has no other effect.
    ///
    /// # Errors
    /// As `view`.
    pub fn beside<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        statement: &RecordedStatement<'_>,
    ) -> Result<Assessed, V::Error> {
        self.apply_to(view, trust, statement).enter(statement)?;
        let findings = self.findings.take();
        Ok(Assessed {
            intent: None,
            findings,
        })
    }

    /// The next entry that the ledger has to write, as leaf `leaf` at effective time `at`; `None` if
    /// there is none. What is returned counts as written.
    ///
    /// # Errors
    /// As `view`.
    pub fn ledger_entry<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        leaf: u64,
        at: Micros,
    ) -> Result<Option<Bytes>, V::Error> {
        let id = self.id;
        self.apply(view, trust, leaf, at).ledger_entry(id)
    }

    /// Notes that the operator has confirmed the clock, which says `clock`: a Tick that says so is
    /// pending as leaf `next_leaf` at effective time `at`, which was `from` before, and then what
    /// [`Assessor::advance`] brings. For a clock that leapt ahead, and for a ledger whose time is ahead
    /// of the clock: there effective time stands still until the clock has come to it.
    ///
    /// # Errors
    /// As `view`.
    pub fn confirm_clock<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        next_leaf: u64,
        (from, at): (Micros, Micros),
        clock: Micros,
    ) -> Result<(), V::Error> {
        self.apply(view, trust, next_leaf, at)
            .confirm_clock(clock, from)
    }

    /// Lets time come to `at` in a ledger in which nothing else happens: if something is due, a Tick
    /// is pending as leaf `next_leaf`, and then what [`Assessor::advance`] brings.
    ///
    /// # Errors
    /// As `view`.
    pub fn tick<V: View>(
        &mut self,
        view: &mut V,
        trust: &TrustState,
        next_leaf: u64,
        at: Micros,
    ) -> Result<(), V::Error> {
        self.apply(view, trust, next_leaf, at).tick()
    }

    /// Has the ledger write a receipt of a task. Returns false if it has no entry of that task.
    ///
    /// # Errors
    /// As `view`.
    pub fn request_receipt<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
    ) -> Result<bool, V::Error> {
        let known = self.cells.with(view).task(task)?.is_some();
        if known {
            let requested = true;
            self.pending
                .push_back(PendingEntry::Receipt { task, requested });
        }
        Ok(known)
    }

    /// Begins with what the ledger does by itself at `leaf`.
    fn apply<'a, V: View>(
        &'a mut self,
        view: &'a mut V,
        trust: &'a TrustState,
        leaf: u64,
        at: Micros,
    ) -> Apply<'a, V> {
        Apply {
            cells: self.cells.with(view),
            timers: &mut self.timers,
            pending: &mut self.pending,
            recent: &mut self.recent,
            findings: &mut self.findings,
            trust,
            leaf,
            at,
            author: Author::LEDGER,
            task: None,
            claimed: false,
        }
    }

    /// Begins with a statement.
    fn apply_to<'a, V: View>(
        &'a mut self,
        view: &'a mut V,
        trust: &'a TrustState,
        statement: &RecordedStatement<'a>,
    ) -> Apply<'a, V> {
        Apply {
            author: Author::new(statement.header.producer, statement.key, trust),
            task: statement.header.task,
            ..self.apply(view, trust, statement.leaf, statement.at)
        }
    }
}
