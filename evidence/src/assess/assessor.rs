//! The machine: cells at hand, what is due, what is to be written.

use std::collections::VecDeque;

use bytes::Bytes;
use deed_proto::v1::{self, FindingKind, IntentState};
use deed_tlog::{Hash, leaf_hash};

use super::{
    body::{Body, ParsedBody},
    cell_cache::CellCache,
    cells::{CellKey, Clock, Leaves, Promise, Task, TimerCount},
    digest, finding,
    implicit_intent::{ImplicitIntent, Recent},
    timer::{FIRE_MAX, Owner, Timer, TimerKind, TimerQueue, share, share_unsigned},
    work::Work,
};
use crate::{
    KeyId, LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId,
    entry::Entry,
    statement::{AUTHORITY_PRODUCER, Header, LEDGER_PRODUCER},
    trust::{KeyRecord, TrustState},
};

/// What the machine asks for that it does not have at hand.
pub trait View {
    /// Why a question cannot be answered. The machine must not be used after that.
    type Error;

    /// A cell's bytes as [`Changes`] gave them last.
    ///
    /// # Errors
    /// As the keeper of the cells says.
    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, Self::Error>;

    /// The leaf of a statement by its place in its session.
    ///
    /// # Errors
    /// As the keeper of the sessions says.
    fn leaf_of(
        &mut self,
        session: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<u64>, Self::Error>;

    /// The producer that a session belongs to.
    ///
    /// # Errors
    /// As the keeper of the sessions says.
    fn producer_of(&mut self, session: &SessionId) -> Result<Option<String>, Self::Error>;

    /// The Intent in the entry at a leaf, as [`ImplicitIntent::read`] reads it; `None` if there is no such
    /// leaf, something else is there, or it is not what was recorded at its place in its session.
    ///
    /// # Errors
    /// As the keeper of the entries says.
    fn intent(&mut self, leaf: u64) -> Result<Option<ImplicitIntent>, Self::Error>;

    /// The owner of a timer, as [`Changes`] gave it last; `None` if it is not set.
    ///
    /// # Errors
    /// As the keeper of the timers says.
    fn timer(&mut self, timer: &Timer) -> Result<Option<Owner>, Self::Error>;

    /// The first `limit` timers behind `after`, in order: fewer only if there are no more.
    ///
    /// # Errors
    /// As the keeper of the timers says.
    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, Self::Error>;

    /// What to say of a cell whose bytes are none.
    fn damaged(&self, key: &CellKey) -> Self::Error;
}

/// A statement that was recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecordedStatement<'a> {
    /// Its leaf.
    pub leaf: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// Effective time there.
    pub at: Micros,
    /// When it was received, by its entry.
    pub received_at: Micros,
    /// Its header.
    pub header: &'a Header<'a>,
    /// Its payload.
    pub payload: &'a [u8],
    /// Of its payload, if somebody has computed it.
    pub payload_digest: Option<PayloadDigest>,
    /// What it says.
    pub parsed: &'a ParsedBody,
    /// The key that signed it, or the manifest over it.
    pub key: Option<KeyId>,
}

/// What is said of a statement when it is recorded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assessed {
    /// Of an Intent: where it stands, what it waits for, why it is denied.
    pub intent: Option<(IntentState, Vec<String>, Vec<String>)>,
    /// Findings at its leaf.
    pub findings: Vec<v1::Finding>,
}

/// What a turn leaves to be kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// Cells that changed, with their bytes, in order of their keys.
    pub cells: Vec<(CellKey, Vec<u8>)>,
    /// Timers that were set, each with its owner, and those that are not any more (`None`).
    pub timers: Vec<(Timer, Option<Owner>)>,
}

impl Changes {
    /// Whether nothing changed.
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
    /// That time has passed.
    Tick { due: Micros },
    /// The operator has confirmed the clock, which said `clock`; effective time was `from`.
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
    pub(super) cells: CellCache,
    pub(super) timers: TimerQueue,
    pub(super) pending: VecDeque<PendingEntry>,
    pub(super) recent: Recent,
    /// The leaf that findings arise at now, and the next number there.
    numbering: (u64, u32),
    /// Findings at the current leaf.
    found: Vec<v1::Finding>,
    /// True if the statement that is taken proves nothing of who speaks: a finding by its word is a
    /// claim.
    claimed: bool,
}

/// Where the machine stands while it takes an entry.
#[derive(Clone, Copy)]
pub(super) struct EntryContext<'a> {
    pub(super) leaf: u64,
    pub(super) at: Micros,
    pub(super) registry: &'a TrustState,
}

/// Whose word a statement is.
#[derive(Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) producer: &'a str,
    pub(super) key: Option<KeyId>,
    pub(super) record: Option<&'a KeyRecord>,
}

impl<'a> EntryContext<'a> {
    fn of(spoken: &RecordedStatement<'_>, registry: &'a TrustState) -> Self {
        Self {
            leaf: spoken.leaf,
            at: spoken.at,
            registry,
        }
    }
}

impl<'a> Author<'a> {
    fn of(spoken: &RecordedStatement<'a>, registry: &'a TrustState) -> Self {
        Self {
            producer: spoken.header.producer,
            key: spoken.key,
            record: spoken.key.and_then(|key| registry.key(key)),
        }
    }
}

impl Author<'_> {
    /// An authority of the ledger.
    pub(super) fn is_authority(&self) -> bool {
        self.producer == AUTHORITY_PRODUCER
    }

    pub(super) fn is_signed(&self) -> bool {
        self.key.is_some()
    }

    /// Returns true if the statement proves nothing of who speaks: nobody signed it, or an importer
    /// did, which shows who brought it in.
    pub(super) fn is_claim(&self) -> bool {
        !self.is_signed() || self.has_role(v1::KeyRole::Importer)
    }

    /// Signed with a key of this role.
    pub(super) fn has_role(&self, role: v1::KeyRole) -> bool {
        self.record.is_some_and(|record| record.role == role)
    }

    pub(super) fn controller(&self) -> Option<&str> {
        self.record.map(|record| record.controller.as_str())
    }
}

impl Assessor {
    /// The assessment of a ledger of which nothing was assessed yet.
    #[must_use]
    pub fn new(id: LedgerId) -> Self {
        Self {
            timers: TimerQueue::none(),
            ..Self::restore(id)
        }
    }

    /// The assessment of a ledger whose cells and timers are kept.
    #[must_use]
    pub fn restore(id: LedgerId) -> Self {
        Self {
            id,
            cells: CellCache::new(),
            timers: TimerQueue::kept(),
            pending: VecDeque::new(),
            recent: Recent::default(),
            numbering: (0, 0),
            found: Vec::new(),
            claimed: false,
        }
    }

    /// The time at which something is due next. Between [`Assessor::restore`] or [`Assessor::forget`] and the
    /// next thing that is asked with a view, it may be later than this says.
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

    /// The timers that the owner of what `key`, or `producer` without one, says holds, and how many it
    /// may hold now. Those that are set by what [`Assessor::take_changes`] has not given yet are counted.
    ///
    /// # Errors
    /// As `view`.
    pub fn timers_of<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        producer: &str,
        key: Option<KeyId>,
    ) -> Result<(u64, u64), V::Error> {
        let record = key.and_then(|key| registry.key(key));
        let owner = owner(Author {
            producer,
            key,
            record,
        });
        let all = self.cells.timers(view)?;
        let charged = all.held.saturating_sub(all.uncharged);
        let held = self.timers(view, owner)?.held;
        let share = if owner.is_unsigned() {
            let unsigned = self.timers(view, Owner::UNSIGNED)?.held;
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
        Ok(self.cells.timers(view)?.held)
    }

    fn timers<V: View>(&mut self, view: &mut V, owner: Owner) -> Result<TimerCount, V::Error> {
        let held = self
            .cells
            .look::<TimerCount, _>(view, CellKey::Timers(owner))?;
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

    /// Finishes what a statement has set and undone of timers: they get their owner, and are counted.
    fn keep_timers<V: View>(&mut self, view: &mut V, owner: Owner) -> Result<(), V::Error> {
        self.timers.keep(view, owner)?;
        for (owner, due, set) in self.timers.take_moved() {
            self.cells.moved_timer();
            for counted in owner.counted_as() {
                let key = CellKey::Timers(counted);
                let timers: &mut TimerCount = self.cells.change_or_default(view, key)?;
                let of_all = counted == Owner::ALL;
                let promises = u64::from(of_all && matches!(due.kind, TimerKind::Session(_)));
                let uncharged = u64::from(of_all && owner == Owner::ALL);
                if set {
                    timers.held += 1;
                    timers.promises += promises;
                    timers.uncharged += uncharged;
                } else {
                    timers.held = timers.held.saturating_sub(1);
                    timers.promises = timers.promises.saturating_sub(promises);
                    timers.uncharged = timers.uncharged.saturating_sub(uncharged);
                }
            }
        }
        Ok(())
    }

    /// The session has spoken: it has kept its promise, if it gave one.
    pub(super) fn kept_promise<V: View>(
        &mut self,
        view: &mut V,
        session: SessionId,
    ) -> Result<(), V::Error> {
        if self.cells.timers(view)?.promises == 0 {
            return Ok(());
        }
        let key = CellKey::Promise(session);
        let given = self.cells.look::<Promise, _>(view, key)?.copied();
        if let Some(Promise { at_us, leaf }) = given.filter(|given| given.at_us != 0) {
            self.cells.put(key, Promise::default());
            self.timers.undo(Timer {
                at: Micros::new(at_us),
                leaf,
                kind: TimerKind::Session(session),
            });
        }
        Ok(())
    }

    /// The session promises to go on by then.
    pub(super) fn promise(&mut self, session: SessionId, at: Micros, leaf: u64) {
        let at_us = at.get();
        self.cells
            .put(CellKey::Promise(session), Promise { at_us, leaf });
        self.timers.set(Timer {
            at,
            leaf,
            kind: TimerKind::Session(session),
        });
    }

    /// Bytes that the cells at hand hold: an estimate, containers included.
    #[must_use]
    pub const fn cells_held(&self) -> usize {
        self.cells.held()
    }

    /// Bytes that are held of what could be read again: cells at hand, and Intents of late, which have
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
    /// asked for: nearly every Intent would ask in vain. To be said when all that is kept is of
    /// earlier leaves: at the beginning, and after [`Assessor::forget`].
    pub fn begins_at(&mut self, next_leaf: u64) {
        self.cells.acts_begin_at(next_leaf);
    }

    /// What has changed since this was asked last.
    pub fn take_changes(&mut self) -> Changes {
        self.found.clear();
        Changes {
            cells: self.cells.take_changes(),
            timers: self.timers.take_changes(),
        }
    }

    /// The Intent at a leaf that was recorded a moment ago, if no cell was kept of it: whoever keeps
    /// no entries keeps this, and gives it back when it is asked for ([`View::intent`]).
    #[must_use]
    pub fn implicit(&self, leaf: u64) -> Option<&ImplicitIntent> {
        self.recent.intent(leaf)
    }

    /// Returns true if more than [`FIRE_MAX`] timers are due by `at`: the ledger has to write a
    /// [Tick](Assessor::tick) before anything else.
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

    /// Lets time come to `at`, before the entry at `next_leaf` is written: what is due by then happens,
    /// [`FIRE_MAX`] timers of it at most. Afterwards the ledger's own entries are to be written, until
    /// [`Assessor::ledger_entry`] has none; then comes the statement, if nothing more is due.
    ///
    /// # Errors
    /// As `view`.
    pub fn advance<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        next_leaf: u64,
        at: Micros,
    ) -> Result<(), V::Error> {
        self.keep_timers(view, Owner::ALL)?;
        for _ in 0..FIRE_MAX {
            let Some(due) = self.timers.fire(at) else {
                break;
            };
            let here = EntryContext {
                leaf: next_leaf,
                at,
                registry,
            };
            self.number(next_leaf);
            self.cells.fired_timer();
            match due.kind {
                TimerKind::Task(task) => self.task_deadline(view, here, task)?,
                TimerKind::Intent(leaf) => self.intent_deadline(view, here, leaf)?,
                TimerKind::Observation(leaf) => self.observation_deadline(view, here, leaf)?,
                TimerKind::Session(session) => {
                    let key = CellKey::Promise(session);
                    self.cells.put(key, Promise::default());
                    self.session_silent(view, here, due.leaf)?;
                }
                TimerKind::Compromised(key) => self.sweep_due(view, here, key)?,
            }
            self.keep_timers(view, Owner::ALL)?;
        }
        Ok(())
    }

    /// Takes a statement that was recorded; `said` is [`ParsedBody::read`] of its payload.
    ///
    /// # Errors
    /// As `view`.
    pub fn record<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        spoken: &RecordedStatement<'_>,
    ) -> Result<Assessed, V::Error> {
        let here = EntryContext::of(spoken, registry);
        let voice = Author::of(spoken, registry);
        self.claimed = voice.is_claim();
        self.enter(view, here, voice, spoken)?;
        self.session_spoke(view, here, spoken)?;
        let mut assessed = Assessed::default();
        match (&spoken.parsed.body, spoken.header.task) {
            (Body::TaskOpened { tier, deadline }, Some(task)) => {
                self.task_opened(view, here, voice, task, *tier, *deadline)?;
            }
            (Body::TaskClosed { .. }, Some(task)) => {
                self.task_closed(view, here, voice, task)?;
            }
            (Body::Grant(grant), Some(task)) => {
                self.granted(view, here, voice, task, &spoken.leaf_hash, grant)?;
            }
            (Body::GrantAccepted { grant }, Some(task)) => {
                self.grant_accepted(view, here, voice, task, grant)?;
            }
            (Body::Revocation { grant }, Some(task)) => {
                self.grant_revoked(view, here, task, grant)?;
            }
            (Body::Intent(intent), Some(task)) => {
                assessed.intent = Some(self.intent(view, here, voice, task, spoken, intent)?);
            }
            (Body::Outcome(outcome), Some(task)) => {
                self.outcome(view, here, voice, task, spoken, outcome)?;
            }
            (Body::Decision { intent, verdict }, Some(task)) => {
                self.decision(view, here, voice, task, &spoken.leaf_hash, intent, *verdict)?;
            }
            (Body::Approval(approval), Some(task)) => {
                self.approval(view, here, voice, task, &spoken.leaf_hash, approval)?;
            }
            (
                Body::Observation {
                    intent,
                    effects,
                    observed_at,
                },
                task,
            ) => {
                let (said, seen_at) = (spoken.parsed, *observed_at);
                let bytes = spoken.payload.len();
                self.observation(
                    view, here, voice, task, said, *intent, effects, seen_at, bytes,
                )?;
            }
            (Body::Disposition { leaf, number, kind }, _) => {
                self.disposition(view, here, *leaf, *number, *kind)?;
            }
            (
                Body::KeyRevoked {
                    key,
                    compromised_since: Some(since),
                },
                _,
            ) => self.key_compromised(view, here, *key, *since)?,
            _ => {}
        }
        self.claimed = false;
        if !self.timers.is_kept() {
            self.keep_timers(view, owner(voice))?;
        }
        assessed.findings = std::mem::take(&mut self.found);
        Ok(assessed)
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
        let leaves = self.cells.look::<Leaves, _>(view, key)?;
        Ok(leaves.and_then(|leaves| leaves.leaves.first().copied()))
    }

    /// Notes an equivocation: a second signed statement for a place in a session, which was
    /// recorded at this leaf as evidence. `first` is the leaf of the first one.
    ///
    /// # Errors
    /// As `view`.
    pub fn equivocation<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        spoken: &RecordedStatement<'_>,
        first: u64,
    ) -> Result<Assessed, V::Error> {
        let here = EntryContext::of(spoken, registry);
        let (session, sequence) = (spoken.header.session, spoken.header.sequence);
        let leaves = vec![here.leaf];
        let key = CellKey::Equivocation(session, sequence);
        self.cells.put(key, Leaves { leaves });
        self.enter(view, here, Author::of(spoken, registry), spoken)?;
        let (kind, task) = (FindingKind::Equivocation, spoken.header.task);
        let detail = "two statements are signed for one place in a session";
        self.find(view, here, kind, task, here.leaf, Some(first), detail)?;
        Ok(Assessed {
            intent: None,
            findings: std::mem::take(&mut self.found),
        })
    }

    /// Takes a statement of a batch that is kept as evidence of what another one of it shows
    /// ([`Assessor::equivocation`]). It counts among its task's entries, and says nothing.
    ///
    /// # Errors
    /// As `view`.
    pub fn beside<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        spoken: &RecordedStatement<'_>,
    ) -> Result<Assessed, V::Error> {
        let here = EntryContext::of(spoken, registry);
        self.enter(view, here, Author::of(spoken, registry), spoken)?;
        Ok(Assessed {
            intent: None,
            findings: std::mem::take(&mut self.found),
        })
    }

    /// Begins with a statement: counts it among its task's entries first, so that a task is there
    /// to take what is found.
    fn enter<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        spoken: &RecordedStatement<'_>,
    ) -> Result<(), V::Error> {
        self.number(spoken.leaf);
        self.found.clear();
        match spoken.header.task {
            Some(task) => self.entry_of(view, here, task, &spoken.leaf_hash, voice, spoken.parsed),
            None => Ok(()),
        }
    }

    /// The next entry that the ledger has to write, as leaf `leaf` at effective time `at`; `None` if
    /// there is none. What is returned counts as written.
    ///
    /// # Errors
    /// As `view`.
    pub fn ledger_entry<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        leaf: u64,
        at: Micros,
    ) -> Result<Option<Bytes>, V::Error> {
        let here = EntryContext { leaf, at, registry };
        while let Some(entry) = self.pending.pop_front() {
            self.number(leaf);
            let (task, body) = match entry {
                PendingEntry::Clearance(intent) => match self.clearance(view, here, intent)? {
                    Some((task, body)) => (Some(task), body),
                    None => continue,
                },
                PendingEntry::Receipt { task, requested } => {
                    match self.receipt(view, here, task, requested)? {
                        Some(body) => (Some(task), body),
                        None => continue,
                    }
                }
                PendingEntry::Tick { due } => {
                    let due_us = due.get();
                    let clock_us = 0;
                    (
                        None,
                        v1::statement::Body::Tick(v1::Tick { due_us, clock_us }),
                    )
                }
                PendingEntry::Confirmed { due, clock, from } => {
                    self.clock_confirmed(view, here, clock, from)?;
                    let due_us = due.map_or(0, Micros::get);
                    let clock_us = clock.get();
                    (
                        None,
                        v1::statement::Body::Tick(v1::Tick { due_us, clock_us }),
                    )
                }
            };
            self.keep_timers(view, Owner::ALL)?;
            let entry = self.write(at, task, body);
            if let Some(task) = task {
                let voice = Author {
                    producer: LEDGER_PRODUCER,
                    key: None,
                    record: None,
                };
                self.entry_in(view, here, task, &leaf_hash(&entry), voice)?;
            }
            return Ok(Some(entry));
        }
        Ok(None)
    }

    /// Notes that the operator has confirmed the clock, which says `clock`: a Tick that says so is owed
    /// as leaf `next_leaf` at effective time `at`, which was `from` before, and then what
    /// [`Assessor::advance`] brings. For a clock that leapt ahead, and for a ledger whose time is ahead of
    /// the clock: there effective time stands still until the clock has come to it.
    ///
    /// # Errors
    /// As `view`.
    pub fn confirm_clock<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        next_leaf: u64,
        (from, at): (Micros, Micros),
        clock: Micros,
    ) -> Result<(), V::Error> {
        self.keep_timers(view, Owner::ALL)?;
        let due = self.next_due().filter(|due| *due <= at && due.get() > 0);
        self.pending
            .push_back(PendingEntry::Confirmed { due, clock, from });
        self.advance(view, registry, next_leaf, at)
    }

    /// The finding that the clock was confirmed, for whoever audits the ledger.
    fn clock_confirmed<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        clock: Micros,
        from: Micros,
    ) -> Result<(), V::Error> {
        self.cells.put(
            CellKey::Clock,
            Clock {
                clock_us: clock.get(),
                at_us: here.at.get(),
                leaf: here.leaf,
            },
        );
        let ahead = from.get().saturating_sub(clock.get());
        let detail = if ahead > 0 {
            format!(
                "the operator confirmed the server's clock, which is {} s behind the ledger's time: that \
                 was wrong before, and stands still until the clock has come to it",
                ahead / 1_000_000
            )
        } else {
            format!(
                "the operator confirmed the server's clock, which is {} s ahead of the entries before",
                ahead.saturating_neg() / 1_000_000
            )
        };
        let kind = FindingKind::ClockSkew;
        self.find(view, here, kind, None, here.leaf, None, detail)
    }

    /// Lets time come to `at` in a ledger in which nothing else happens: if something is due, a Tick
    /// is owed as leaf `next_leaf`, and then what [`Assessor::advance`] brings.
    ///
    /// # Errors
    /// As `view`.
    pub fn tick<V: View>(
        &mut self,
        view: &mut V,
        registry: &TrustState,
        next_leaf: u64,
        at: Micros,
    ) -> Result<(), V::Error> {
        self.keep_timers(view, Owner::ALL)?;
        if let Some(due) = self.next_due().filter(|due| *due <= at) {
            self.pending.push_back(PendingEntry::Tick { due });
            self.advance(view, registry, next_leaf, at)?;
        }
        Ok(())
    }

    /// Whether the ledger has to write something before anything else.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Has the ledger write a receipt of a task, if it has an entry of that task.
    ///
    /// # Errors
    /// As `view`.
    pub fn request_receipt<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
    ) -> Result<bool, V::Error> {
        let known = self.cells.task(view, task)?.is_some();
        if known {
            let requested = true;
            self.pending
                .push_back(PendingEntry::Receipt { task, requested });
        }
        Ok(known)
    }

    /// A task as it stands.
    ///
    /// # Errors
    /// As `view`.
    pub fn task<V: View>(&mut self, view: &mut V, task: TaskId) -> Result<Option<Task>, V::Error> {
        Ok(self.cells.task(view, task)?.cloned())
    }

    /// The last confirmation of the ledger's clock by an operator.
    ///
    /// # Errors
    /// As `view`.
    pub fn clock<V: View>(&mut self, view: &mut V) -> Result<Option<Clock>, V::Error> {
        Ok(self.cells.look::<Clock, _>(view, CellKey::Clock)?.copied())
    }

    fn write(&self, at: Micros, task: Option<TaskId>, body: v1::statement::Body) -> Bytes {
        use prost::Message as _;
        let statement = v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.id.as_bytes()),
            producer: LEDGER_PRODUCER.to_owned(),
            occurred_at_us: at.get(),
            task: task.map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
            body: Some(body),
            ..v1::Statement::default()
        };
        Entry::by_ledger(&statement.encode_to_vec(), at).encode()
    }
}

/// The owner of a speaker's timers.
fn owner(voice: Author<'_>) -> Owner {
    match voice.controller() {
        Some(controller) => Owner::controller(controller),
        None if voice.is_authority() => Owner::AUTHORITY,
        None => Owner::producer(voice.producer),
    }
}

/// Findings.
impl Assessor {
    fn number(&mut self, leaf: u64) {
        if self.numbering.0 != leaf {
            self.numbering = (leaf, 0);
        }
    }

    /// Finds what follows from proven statements alone, whoever's statement occasions it.
    pub(super) fn by_proven<T>(&mut self, find: impl FnOnce(&mut Self) -> T) -> T {
        let claimed = std::mem::replace(&mut self.claimed, false);
        let found = find(self);
        self.claimed = claimed;
        found
    }

    /// Adds a finding about the statement at `about`.
    #[expect(clippy::too_many_arguments, reason = "they are the finding's fields")]
    pub(super) fn find<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        kind: FindingKind,
        task: Option<TaskId>,
        about: u64,
        contradicts: Option<u64>,
        detail: impl Into<String>,
    ) -> Result<(), V::Error> {
        let kind = if self.claimed && finding::severity(kind) == v1::Severity::Serious {
            FindingKind::UnprovenClaim
        } else {
            kind
        };
        let number = self.numbering.1;
        self.numbering.1 += 1;
        let finding = v1::Finding {
            leaf_index: here.leaf,
            number,
            kind: kind.into(),
            severity: finding::severity(kind).into(),
            task: task.map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
            about_leaf: about,
            contradicts_leaf: contradicts,
            at_us: here.at.get(),
            detail: detail.into(),
            disposition_leaf: None,
            disposition: 0,
        };
        self.found.push(finding.clone());
        let key = CellKey::Finding(here.leaf, number);
        self.cells.put(key, Box::new(finding));
        let Some(task) = task else { return Ok(()) };
        let event = digest::Event::Finding {
            leaf: here.leaf,
            number,
            kind,
            about,
            contradicts,
        };
        if let Some(task) = self.cells.change_task(view, task)? {
            task.note(&event);
            task.findings += 1;
        }
        Ok(())
    }

    /// Adds a finding about a statement that does not fit what others have said. What somebody says
    /// unsigned is a claim, and found as one.
    #[expect(clippy::too_many_arguments, reason = "they are the finding's fields")]
    pub(super) fn object<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        kind: FindingKind,
        task: TaskId,
        contradicts: Option<u64>,
        detail: &str,
    ) -> Result<(), V::Error> {
        let kind = if voice.is_signed() {
            kind
        } else {
            FindingKind::UnprovenClaim
        };
        self.find(view, here, kind, Some(task), here.leaf, contradicts, detail)
    }

    /// Takes an event into a task's assessment digest.
    pub(super) fn note_in_task<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
        event: &digest::Event,
    ) -> Result<(), V::Error> {
        if let Some(task) = self.cells.change_task(view, task)? {
            task.note(event);
        }
        Ok(())
    }
}
