//! Tasks, sessions, and what belongs to no act.

use bytes::Bytes;
use deed_proto::v1::{
    self, DispositionKind, FindingKind, KeyRole, LayerState, RiskTier, TaskState,
};
use deed_tlog::Hash;

use super::{
    LIST_MAX, SKEW_US,
    act::copied,
    assessor::{Assessor, Author, EntryContext, PendingEntry, RecordedStatement, View},
    body::{Body, ParsedBody},
    cells::{CellKey, Count, KeyActivity, KeyTask, Sweep, Task},
    digest,
    table::{self, Event, Machine, State},
    timer::{Timer, TimerKind},
};
use crate::{KeyId, Micros, TaskId};

/// Acts without an Outcome that the end of a task looks at at one moment.
const UNDECLARED_AT_ONCE: usize = 8;

/// Tasks of a compromised key that are looked at at one moment.
const SWEPT_AT_ONCE: u32 = 5;

fn state_of(task: &Task) -> State {
    match task.state() {
        TaskState::Open => State::Open,
        TaskState::Closed => State::Closed,
        TaskState::Unspecified => State::New,
    }
}

/// Tasks.
impl Assessor {
    /// Counts an entry of a task, and who spoke.
    pub(super) fn entry_of<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        task: TaskId,
        leaf_hash: &Hash,
        voice: Author<'_>,
        said: &ParsedBody,
    ) -> Result<(), V::Error> {
        let before = self.entry_in(view, here, task, leaf_hash, voice)?;
        let opens = matches!(said.body, Body::TaskOpened { .. });
        if before == 0 && !opens {
            let kind = FindingKind::UnknownTask;
            let detail = "no TaskOpened stands before this statement";
            self.find(view, here, kind, Some(task), here.leaf, None, detail)?;
        }
        Ok(())
    }

    /// The same for an entry of the ledger itself. Returns how many there were.
    pub(super) fn entry_in<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
        leaf_hash: &Hash,
        voice: Author<'_>,
    ) -> Result<u64, V::Error> {
        let known = self.cells.task(view, id)?.is_some();
        if !known {
            let task = Task {
                digest: digest::START.as_bytes().to_vec(),
                assessment: digest::START.as_bytes().to_vec(),
                first_leaf: here.leaf,
                ..Task::default()
            };
            self.cells.put(CellKey::Task(id), task);
        }
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(0);
        };
        let before = task.count;
        task.add_entry(leaf_hash);
        task.last_leaf = here.leaf;
        if let Some(key) = voice.key {
            self.key_speaks(view, here, id, key)?;
        }
        Ok(before)
    }

    /// Notes that a key speaks in a task, or of an act of it.
    pub(super) fn key_speaks<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
        key: KeyId,
    ) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(());
        };
        let is_new = match spoke(task, key, here) {
            Noted::New => true,
            Noted::NoRoom => self.spoke_beyond(view, here, id, key)?,
            Noted::Known => false,
        };
        if is_new {
            let uses: &mut Count = self.cells.change_or_default(view, CellKey::KeyUses(key))?;
            let nth = CellKey::KeyUse(key, uses.count);
            uses.count += 1;
            let task = Bytes::copy_from_slice(id.as_bytes());
            self.cells.put(nth, KeyTask { task });
        }
        Ok(())
    }

    /// Notes that a key speaks in a task that has no room for it; whether it is new there. A key
    /// must not escape because 64 others came first.
    fn spoke_beyond<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
        key: KeyId,
    ) -> Result<bool, V::Error> {
        let cell = CellKey::KeyIn(id, key);
        let known = self.cells.look::<KeyActivity, _>(view, cell)?.is_some();
        self.cells.put(cell, last_spoke(key, here));
        Ok(!known)
    }

    pub(super) fn task_opened<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        id: TaskId,
        tier: RiskTier,
        deadline: Micros,
    ) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(());
        };
        let may = voice.is_authority() || voice.has_role(KeyRole::Platform);
        // A speaker that may open it comes before one that only says so.
        let displaces =
            may && task.state() == TaskState::Open && task.opened() != LayerState::Proven;
        if !displaces && table::find(Machine::Task, state_of(task), Event::Opened).is_none() {
            let opened = task.opened_leaf;
            let kind = FindingKind::OutOfPlace;
            let detail = "the task was opened before";
            return self.object(view, here, voice, kind, id, opened, detail);
        }
        if voice.is_signed() && !may && !voice.has_role(KeyRole::Importer) {
            // Else an agent would choose its own risk tier, and with it what is asked of it.
            let kind = FindingKind::WrongRole;
            let detail = "a task is opened by a platform or an authority";
            return self.find(view, here, kind, Some(id), here.leaf, None, detail);
        }
        if let Some(due) = task_due(task, id) {
            self.timers.undo(due);
        }
        task.opened_leaf = Some(here.leaf);
        task.opened_at_us = here.at.get();
        task.opener = voice.producer.to_owned();
        task.opener_key = match voice.key {
            Some(key) if !voice.is_authority() => copied(key.as_bytes()),
            _ => Bytes::new(),
        };
        task.set_tier(tier);
        task.deadline_us = deadline.get();
        task.opened_by = voice.controller().unwrap_or_default().to_owned();
        task.set_opened(if may {
            LayerState::Proven
        } else {
            LayerState::Claimed
        });
        task.set_state(TaskState::Open);
        if let Some(due) = task_due(task, id) {
            self.timers.set(due);
        }
        self.task_moved(view, here, id, TaskState::Open)
    }

    pub(super) fn task_closed<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        id: TaskId,
    ) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(());
        };
        if table::find(Machine::Task, state_of(task), Event::Closed).is_none() {
            let closed = task.closed_leaf;
            let kind = FindingKind::OutOfPlace;
            let detail = "the task is not open";
            return self.object(view, here, voice, kind, id, closed, detail);
        }
        if !may_close(task, voice) {
            let kind = FindingKind::WrongRole;
            let detail = "a task is closed by an authority, or by whoever opened it";
            return self.object(view, here, voice, kind, id, None, detail);
        }
        task.closed_leaf = Some(here.leaf);
        self.close(view, here, id)
    }

    pub(super) fn task_deadline<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
    ) -> Result<(), V::Error> {
        let task = self.cells.task(view, id)?;
        let row =
            task.and_then(|task| table::find(Machine::Task, state_of(task), Event::DeadlinePassed));
        match row {
            Some(_) => self.close(view, here, id),
            // It has ended, and there are acts left to be looked at.
            None => self.undeclared(view, here, id),
        }
    }

    fn close<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
    ) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(());
        };
        if let Some(due) = task_due(task, id) {
            self.timers.undo(due);
        }
        task.set_state(TaskState::Closed);
        task.closed_at_us = here.at.get();
        self.task_moved(view, here, id, TaskState::Closed)?;
        self.undeclared(view, here, id)?;
        self.pending.push_back(PendingEntry::Receipt {
            task: id,
            requested: false,
        });
        Ok(())
    }

    /// Looks at acts of a task that has ended whose effects were seen and that have no Outcome: some of
    /// them, the next ones when time has gone on.
    fn undeclared<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
    ) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(());
        };
        if task.state() != TaskState::Closed {
            return Ok(());
        }
        let at_once = task.seen_open.len().min(UNDECLARED_AT_ONCE);
        let seen: Vec<u64> = task.seen_open.drain(..at_once).collect();
        let is_more = !task.seen_open.is_empty();
        for intent in seen {
            self.never_declared(view, here, id, intent)?;
        }
        if is_more {
            self.timers.set(Timer {
                at: Micros::new(here.at.get().saturating_add(1)),
                leaf: here.leaf,
                kind: TimerKind::Task(id),
            });
        }
        Ok(())
    }

    fn task_moved<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
        state: TaskState,
    ) -> Result<(), V::Error> {
        let leaf = here.leaf;
        self.note_in_task(view, id, &digest::Event::Task { leaf, state })
    }

    /// The body of a task's receipt, which becomes the entry at `here.leaf`.
    pub(super) fn receipt<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        id: TaskId,
        requested: bool,
    ) -> Result<Option<v1::statement::Body>, V::Error> {
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(None);
        };
        let head = here.registry.head();
        let receipt = v1::TaskReceipt {
            through_leaf: task.last_leaf,
            count: task.count,
            digest: copied(&task.digest),
            trust_head: Some(v1::LeafRef {
                leaf_index: head.leaf_index.get(),
                leaf_hash: copied(head.leaf_hash.as_bytes()),
            }),
            assessment_digest: copied(&task.assessment),
            requested,
        };
        task.receipt_leaf = Some(here.leaf);
        Ok(Some(v1::statement::Body::TaskReceipt(receipt)))
    }
}

/// Returns the time at which a task ends by itself, if it does.
fn task_due(task: &Task, id: TaskId) -> Option<Timer> {
    let leaf = task.opened_leaf.filter(|_| task.deadline_us > 0)?;
    Some(Timer {
        at: Micros::new(task.deadline_us),
        leaf,
        kind: TimerKind::Task(id),
    })
}

/// Returns true if a speaker may end a task: an authority; a platform of the controller whose
/// platform opened it; or, where nobody proved the opening, the producer that the opening names.
fn may_close(task: &Task, voice: Author<'_>) -> bool {
    if voice.is_authority() {
        return true;
    }
    if task.opened() != LayerState::Proven {
        return voice.producer == task.opener;
    }
    let same = voice.controller() == Some(task.opened_by.as_str());
    voice.has_role(KeyRole::Platform) && same
}

/// What a task knows of a key that speaks in it.
enum Noted {
    Known,
    New,
    NoRoom,
}

/// Notes who speaks in a task.
fn spoke(task: &mut Task, key: KeyId, here: EntryContext<'_>) -> Noted {
    if let Some(known) = task
        .keys
        .iter_mut()
        .find(|known| known.key[..] == key.as_bytes()[..])
    {
        known.last_leaf = here.leaf;
        known.last_at_us = here.at.get();
        return Noted::Known;
    }
    if task.keys.len() >= LIST_MAX {
        return Noted::NoRoom;
    }
    task.keys.push(last_spoke(key, here));
    Noted::New
}

fn last_spoke(key: KeyId, here: EntryContext<'_>) -> KeyActivity {
    KeyActivity {
        key: Bytes::copy_from_slice(key.as_bytes()),
        last_leaf: here.leaf,
        last_at_us: here.at.get(),
    }
}

/// Sessions, clocks, keys and dispositions.
impl Assessor {
    /// What any statement says by being there: its session goes on, its clock may be wrong, it may
    /// own up to a hole.
    pub(super) fn session_spoke<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        spoken: &RecordedStatement<'_>,
    ) -> Result<(), V::Error> {
        let session = spoken.header.session;
        self.kept_promise(view, session)?;
        if let Body::Heartbeat { next_within_us } = spoken.parsed.body
            && next_within_us > 0
        {
            let at = Micros::new(here.at.get().saturating_add(next_within_us));
            self.promise(session, at, here.leaf);
        }
        let task = spoken.header.task;
        if let Some(from) = spoken.header.skipped_from {
            let lost = spoken.header.sequence.get().saturating_sub(from.get());
            let detail =
                format!("{lost} statements of the session are lost, from sequence {from} on");
            self.find(
                view,
                here,
                FindingKind::SequenceGap,
                task,
                here.leaf,
                None,
                detail,
            )?;
        }
        let ahead = spoken
            .parsed
            .occurred_at
            .get()
            .saturating_sub(here.at.get());
        if ahead > SKEW_US {
            let detail = format!("the producer's clock is {} s ahead", ahead / 1_000_000);
            self.find(
                view,
                here,
                FindingKind::ClockSkew,
                task,
                here.leaf,
                None,
                detail,
            )?;
        }
        Ok(())
    }

    pub(super) fn session_silent<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        heartbeat: u64,
    ) -> Result<(), V::Error> {
        let row = table::find(Machine::Session, State::Running, Event::PromiseBroken);
        match row.and_then(|row| row.finding) {
            Some(kind) => {
                let detail =
                    "the session promised another statement by now; its end may be cut off";
                self.find(view, here, kind, None, heartbeat, None, detail)
            }
            None => Ok(()),
        }
    }

    pub(super) fn disposition<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        leaf: u64,
        number: u32,
        kind: DispositionKind,
    ) -> Result<(), V::Error> {
        let key = CellKey::Finding(leaf, number);
        let Some(finding) = self.cells.change::<Box<v1::Finding>, _>(view, key)? else {
            let detail = format!("there is no finding {leaf}.{number}");
            return self.find(
                view,
                here,
                FindingKind::OutOfPlace,
                None,
                here.leaf,
                None,
                detail,
            );
        };
        finding.disposition_leaf = Some(here.leaf);
        finding.set_disposition(kind);
        Ok(())
    }

    /// Everything that the key said from `since` on may be somebody else's: a finding for each task. The
    /// newest come first: they are the likeliest to be somebody else's. A key may have spoken in very many
    /// tasks, so they are looked at in portions, the next one when time has gone on.
    pub(super) fn key_compromised<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        key: KeyId,
        since: Micros,
    ) -> Result<(), V::Error> {
        let before = self.cells.look::<Sweep, _>(view, CellKey::Sweep(key))?;
        if let Some(before) = before.copied().filter(|before| before.left > 0) {
            self.timers.undo(sweep_due(key, &before));
        }
        let uses = self.cells.look::<Count, _>(view, CellKey::KeyUses(key))?;
        let sweep = Sweep {
            leaf: here.leaf,
            since_us: since.get(),
            left: uses.copied().unwrap_or_default().count,
            due_us: here.at.get(),
        };
        self.sweep(view, here, key, sweep)
    }

    pub(super) fn sweep_due<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        key: KeyId,
    ) -> Result<(), V::Error> {
        let sweep = self.cells.look::<Sweep, _>(view, CellKey::Sweep(key))?;
        match sweep.copied() {
            Some(sweep) => self.by_proven(|assessor| assessor.sweep(view, here, key, sweep)),
            None => Ok(()),
        }
    }

    /// Looks at the next tasks of a compromised key.
    fn sweep<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        key: KeyId,
        mut sweep: Sweep,
    ) -> Result<(), V::Error> {
        let behind = sweep.left;
        sweep.left = behind.saturating_sub(SWEPT_AT_ONCE);
        for n in sweep.left..behind {
            let Some(used) = self
                .cells
                .look::<KeyTask, _>(view, CellKey::KeyUse(key, n))?
            else {
                continue;
            };
            let Some(id) = TaskId::from_slice(&used.task) else {
                continue;
            };
            let last = self
                .cells
                .task(view, id)?
                .and_then(|task| task.keys.iter().find(|k| k.key[..] == key.as_bytes()[..]))
                .map(|spoke| (spoke.last_leaf, spoke.last_at_us));
            let last = match last {
                Some(last) => Some(last),
                None => self
                    .cells
                    .look::<KeyActivity, _>(view, CellKey::KeyIn(id, key))?
                    .map(|spoke| (spoke.last_leaf, spoke.last_at_us)),
            };
            if let Some((leaf, at_us)) = last
                && at_us >= sweep.since_us
            {
                let kind = FindingKind::CompromisedKeyUse;
                let detail =
                    format!("key {key} spoke in this task when somebody else may have had it");
                self.find(view, here, kind, Some(id), leaf, Some(sweep.leaf), detail)?;
            }
        }
        if sweep.left > 0 {
            sweep.due_us = here.at.get().saturating_add(1);
            self.timers.set(sweep_due(key, &sweep));
        }
        self.cells.put_if_other(view, CellKey::Sweep(key), sweep)
    }
}

/// The timer at which the next tasks of a compromised key are looked at.
const fn sweep_due(key: KeyId, sweep: &Sweep) -> Timer {
    Timer {
        at: Micros::new(sweep.due_us),
        leaf: sweep.leaf,
        kind: TimerKind::Compromised(key),
    }
}
