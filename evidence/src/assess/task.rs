//! Tasks: their entries, the keys that speak in them, their end and their receipts.

use bytes::Bytes;
use deed_proto::v1::{self, FindingKind, TaskState};
use deed_tlog::Hash;

use super::{
    LIST_MAX,
    act::copied,
    apply::Apply,
    assessor::PendingEntry,
    body::{Body, ParsedBody},
    cells::{CellKey, Count, KeyActivity, KeyTask, Task},
    digest,
    table::{self, Event, Machine, State},
    timer::{Timer, TimerKind},
    view::View,
};
use crate::{KeyId, Micros, TaskId};

/// Acts without an Outcome that the end of a task looks at at one moment.
const UNDECLARED_AT_ONCE: usize = 8;

/// The state of a task, as the table names it.
pub(super) fn machine_state(task: &Task) -> State {
    match task.state() {
        TaskState::Open => State::Open,
        TaskState::Closed => State::Closed,
        TaskState::Unspecified => State::New,
    }
}

impl<V: View> Apply<'_, V> {
    /// Counts an entry of a task, and who spoke.
    pub(super) fn entry_of(
        &mut self,
        task: TaskId,
        leaf_hash: &Hash,
        parsed: &ParsedBody,
    ) -> Result<(), V::Error> {
        let before = self.entry_in(task, leaf_hash)?;
        let opens = matches!(parsed.body, Body::TaskOpened { .. });
        if before == 0 && !opens {
            self.find(FindingKind::UnknownTask)
                .says("no TaskOpened stands before this statement")?;
        }
        Ok(())
    }

    /// The same for an entry of the ledger itself. Returns the number of entries before it.
    pub(super) fn entry_in(&mut self, id: TaskId, leaf_hash: &Hash) -> Result<u64, V::Error> {
        let known = self.cells.task(id)?.is_some();
        if !known {
            let task = Task {
                digest: digest::START.as_bytes().to_vec(),
                assessment: digest::START.as_bytes().to_vec(),
                first_leaf: self.leaf,
                ..Task::default()
            };
            self.cells.put(CellKey::Task(id), task);
        }
        let Some(task) = self.cells.change_task(id)? else {
            return Ok(0);
        };
        let before = task.count;
        task.add_entry(leaf_hash);
        task.last_leaf = self.leaf;
        if let Some(key) = self.author.key {
            self.key_speaks(id, key)?;
        }
        Ok(before)
    }

    /// Notes that a key speaks in a task, or of an act of it.
    pub(super) fn key_speaks(&mut self, id: TaskId, key: KeyId) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(id)? else {
            return Ok(());
        };
        let is_new = match note_key(task, key, self.leaf, self.at) {
            Noted::New => true,
            Noted::NoRoom => self.spoke_beyond(id, key)?,
            Noted::Known => false,
        };
        if is_new {
            let uses: &mut Count = self.cells.change_or_default(CellKey::KeyUses(key))?;
            let nth = CellKey::KeyUse(key, uses.count);
            uses.count += 1;
            let task = Bytes::copy_from_slice(id.as_bytes());
            self.cells.put(nth, KeyTask { task });
        }
        Ok(())
    }

    /// Notes that a key speaks in a task that has no room for it. Returns true if it is new there. A key
    /// must not escape because 64 others came first.
    fn spoke_beyond(&mut self, id: TaskId, key: KeyId) -> Result<bool, V::Error> {
        let cell = CellKey::KeyIn(id, key);
        let known = self.cells.look::<KeyActivity>(cell)?.is_some();
        self.cells.put(cell, activity(key, self.leaf, self.at));
        Ok(!known)
    }

    /// Takes an event into a task's assessment digest.
    pub(super) fn note_in_task(
        &mut self,
        task: TaskId,
        event: &digest::Event,
    ) -> Result<(), V::Error> {
        if let Some(task) = self.cells.change_task(task)? {
            task.note(event);
        }
        Ok(())
    }

    pub(super) fn task_moved(&mut self, id: TaskId, state: TaskState) -> Result<(), V::Error> {
        let leaf = self.leaf;
        self.note_in_task(id, &digest::Event::Task { leaf, state })
    }

    /// Ends a task whose deadline has come.
    pub(super) fn task_deadline(&mut self, id: TaskId) -> Result<(), V::Error> {
        let task = self.cells.task(id)?;
        let row = task.and_then(|task| {
            table::find(Machine::Task, machine_state(task), Event::DeadlinePassed)
        });
        match row {
            Some(_) => self.close(id),
            // It has ended, and there are acts left to be looked at.
            None => self.undeclared(id),
        }
    }

    pub(super) fn close(&mut self, id: TaskId) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(id)? else {
            return Ok(());
        };
        if let Some(timer) = task_timer(task, id) {
            self.timers.undo(timer);
        }
        task.set_state(TaskState::Closed);
        task.closed_at_us = self.at.get();
        self.task_moved(id, TaskState::Closed)?;
        self.undeclared(id)?;
        self.pending.push_back(PendingEntry::Receipt {
            task: id,
            requested: false,
        });
        Ok(())
    }

    /// Looks at acts of a task that has ended whose effects were seen and that have no Outcome: some of
    /// them, the next ones when time has gone on.
    fn undeclared(&mut self, id: TaskId) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(id)? else {
            return Ok(());
        };
        if task.state() != TaskState::Closed {
            return Ok(());
        }
        let at_once = task.seen_open.len().min(UNDECLARED_AT_ONCE);
        let seen: Vec<u64> = task.seen_open.drain(..at_once).collect();
        let is_more = !task.seen_open.is_empty();
        for intent in seen {
            self.never_declared(id, intent)?;
        }
        if is_more {
            self.timers.set(Timer {
                at: Micros::new(self.at.get().saturating_add(1)),
                leaf: self.leaf,
                kind: TimerKind::Task(id),
            });
        }
        Ok(())
    }

    /// The body of a task's receipt, which becomes the entry at `self.leaf`.
    pub(super) fn receipt(
        &mut self,
        id: TaskId,
        requested: bool,
    ) -> Result<Option<v1::statement::Body>, V::Error> {
        let Some(task) = self.cells.change_task(id)? else {
            return Ok(None);
        };
        let head = self.trust.head();
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
        task.receipt_leaf = Some(self.leaf);
        Ok(Some(v1::statement::Body::TaskReceipt(receipt)))
    }
}

/// The timer at which a task ends by itself, if it has a deadline.
pub(super) fn task_timer(task: &Task, id: TaskId) -> Option<Timer> {
    let leaf = task.opened_leaf.filter(|_| task.deadline_us > 0)?;
    Some(Timer {
        at: Micros::new(task.deadline_us),
        leaf,
        kind: TimerKind::Task(id),
    })
}

/// The knowledge of a task about a key that speaks in it.
enum Noted {
    Known,
    New,
    NoRoom,
}

/// Notes a key that speaks in a task.
fn note_key(task: &mut Task, key: KeyId, leaf: u64, at: Micros) -> Noted {
    if let Some(known) = task
        .keys
        .iter_mut()
        .find(|known| known.key[..] == key.as_bytes()[..])
    {
        known.last_leaf = leaf;
        known.last_at_us = at.get();
        return Noted::Known;
    }
    if task.keys.len() >= LIST_MAX {
        return Noted::NoRoom;
    }
    task.keys.push(activity(key, leaf, at));
    Noted::New
}

fn activity(key: KeyId, leaf: u64, at: Micros) -> KeyActivity {
    KeyActivity {
        key: Bytes::copy_from_slice(key.as_bytes()),
        last_leaf: leaf,
        last_at_us: at.get(),
    }
}
