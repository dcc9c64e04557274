//! Acts in their cells, and their moves.

use bytes::Bytes;
use deed_proto::v1::{FindingKind, IntentState, OutcomeState, TaskState};

use super::{
    apply::Apply,
    body::LeafRef,
    cells::{Act, CellKey, Changes, Declared, Expected, Leaves, Outcome, System},
    digest,
    table::{self, Event, Machine, State, Transition},
    timer::{Timer, TimerKind},
    view::View,
};
use crate::{Micros, TaskId};

/// The state of an Intent, as the table names it.
pub(super) const fn intent_state(state: IntentState) -> State {
    match state {
        IntentState::Unspecified => State::New,
        IntentState::Waiting => State::Waiting,
        IntentState::Cleared => State::Cleared,
        IntentState::Denied => State::Denied,
        IntentState::Lapsed => State::Lapsed,
        IntentState::Completed => State::Completed,
        IntentState::Overdue => State::Overdue,
    }
}

const fn state_of_intent(state: State) -> IntentState {
    match state {
        State::Waiting => IntentState::Waiting,
        State::Cleared => IntentState::Cleared,
        State::Denied => IntentState::Denied,
        State::Lapsed => IntentState::Lapsed,
        State::Completed => IntentState::Completed,
        State::Overdue => IntentState::Overdue,
        _ => IntentState::Unspecified,
    }
}

const fn outcome_state(state: OutcomeState) -> State {
    match state {
        OutcomeState::Unspecified => State::New,
        OutcomeState::Unobserved => State::Unobserved,
        OutcomeState::Corroborated => State::Corroborated,
        OutcomeState::Contradicted => State::Contradicted,
        OutcomeState::Uncorroborated => State::Uncorroborated,
    }
}

const fn state_of_outcome(state: State) -> OutcomeState {
    match state {
        State::Unobserved => OutcomeState::Unobserved,
        State::Corroborated => OutcomeState::Corroborated,
        State::Contradicted => OutcomeState::Contradicted,
        State::Uncorroborated => OutcomeState::Uncorroborated,
        _ => OutcomeState::Unspecified,
    }
}

pub(super) fn task_of(act: &Act) -> Option<TaskId> {
    TaskId::from_slice(&act.task)
}

impl<V: View> Apply<'_, V> {
    /// A copy of the act of the Intent at a leaf, without its lists of effects; what changes in it
    /// counts when [`Apply::put_act`] has it.
    pub(super) fn act_at(&mut self, leaf: u64) -> Result<Option<Act>, V::Error> {
        let kept = self.cells.look::<Box<Act>>(CellKey::Act(leaf))?;
        match kept {
            Some(act) => Ok(Some(Act::clone(act))),
            None => self.act_by_entry(leaf),
        }
    }

    /// Puts in the effects that an act expects.
    pub(super) fn with_expected(&mut self, act: &mut Act) -> Result<(), V::Error> {
        if act.expected > 0 && act.expected_effects.is_empty() {
            let kept = CellKey::Expected(act.leaf);
            if let Some(expected) = self.cells.look::<Expected>(kept)? {
                act.expected_effects.clone_from(&expected.effects);
            }
        }
        Ok(())
    }

    /// Puts in the effects that an act expects and declares, and the changes that `system` saw of it.
    pub(super) fn with_effects(
        &mut self,
        act: &mut Act,
        system: Option<System>,
    ) -> Result<(), V::Error> {
        self.with_expected(act)?;
        if let Some(outcome) = &mut act.outcome
            && outcome.declared > 0
            && outcome.effects.is_empty()
        {
            let kept = CellKey::Declared(act.leaf);
            if let Some(declared) = self.cells.look::<Declared>(kept)? {
                outcome.effects.clone_from(&declared.effects);
            }
        }
        match system {
            Some(system) => self.with_changes(act, system),
            None => Ok(()),
        }
    }

    /// The same with the changes that all systems saw.
    pub(super) fn with_all(&mut self, act: &mut Act) -> Result<(), V::Error> {
        self.with_effects(act, None)?;
        for at in 0..act.systems.len() {
            let system = act.systems[at].name();
            self.with_changes(act, system)?;
        }
        Ok(())
    }

    fn with_changes(&mut self, act: &mut Act, system: System) -> Result<(), V::Error> {
        let is_kept = act.systems.iter().any(|one| one.name() == system);
        let is_there = act.changes.iter().any(|one| one.system[..] == system);
        if is_kept && !is_there {
            let kept = CellKey::Changes(act.leaf, system);
            if let Some(changes) = self.cells.look::<Changes>(kept)? {
                act.join(changes.changes.clone());
            }
        }
        Ok(())
    }

    /// Forgets what a system saw of an act.
    pub(super) fn drop_system(&mut self, act: &mut Act, system: System) {
        act.changes.retain(|change| change.system[..] != system);
        act.systems.retain(|one| one.name() != system);
        let kept = CellKey::Changes(act.leaf, system);
        self.cells.put(kept, Changes::default());
    }

    /// The act of an Intent of which no cell is kept.
    fn act_by_entry(&mut self, leaf: u64) -> Result<Option<Act>, V::Error> {
        // A recent Intent was an act when it was recorded.
        let recent = self.recent.intent(leaf).cloned();
        let is_recent = recent.is_some();
        let recorded = match recent {
            Some(recorded) => Some(recorded),
            None => self.cells.view.intent(leaf)?,
        };
        let Some(recorded) = recorded else {
            return Ok(None);
        };
        if !is_recent {
            self.cells.cache.read(recorded.resource.len());
        }
        let second = CellKey::Equivocation(recorded.session, recorded.sequence);
        let second = match is_recent {
            true => None,
            false => self.cells.look::<Leaves>(second)?.cloned(),
        };
        let task = self.cells.task(recorded.task)?;
        Ok(recorded.act(task, second.as_ref()))
    }

    /// The act of an Intent that somebody refers to in `task`: index, hash and task must be right.
    pub(super) fn act_referred(
        &mut self,
        task: TaskId,
        intent: &LeafRef,
    ) -> Result<Option<Act>, V::Error> {
        let act = self.act_at(intent.leaf)?;
        Ok(act.filter(|act| {
            act.leaf_hash[..] == intent.hash.as_bytes()[..] && act.task[..] == task.as_bytes()[..]
        }))
    }

    /// Keeps an act: each list of effects that was put in, in its own cell, if it has changed.
    pub(super) fn put_act(&mut self, mut act: Act) -> Result<(), V::Error> {
        act.tally();
        // Written when the Intent was.
        act.expected_effects = Vec::new();
        let leaf = act.leaf;
        if let Some(outcome) = &mut act.outcome {
            let effects = std::mem::take(&mut outcome.effects);
            let kept = CellKey::Declared(leaf);
            if !effects.is_empty() {
                self.cells.put_if_other(kept, Declared { effects })?;
            }
        }
        let changes = std::mem::take(&mut act.changes);
        for one in &act.systems {
            let own = changes.iter().filter(|change| change.system == one.system);
            let changes = own.cloned().collect::<Vec<_>>();
            if !changes.is_empty() {
                let kept = CellKey::Changes(leaf, one.name());
                self.cells.put_if_other(kept, Changes { changes })?;
            }
        }
        self.cells.put_if_other(CellKey::Act(leaf), Box::new(act))
    }

    /// The state of an act, as the table names it: what waits in a task that has ended has lapsed.
    pub(super) fn effective_state(&mut self, act: &Act) -> Result<State, V::Error> {
        let state = intent_state(act.state());
        let (State::Waiting, Some(id)) = (state, task_of(act)) else {
            return Ok(state);
        };
        let task = self.cells.task(id)?;
        let ended = task.is_some_and(|task| task.state() == TaskState::Closed);
        let row = table::find(Machine::Intent, state, Event::TaskEnded).filter(|_| ended);
        Ok(row.map_or(state, |row| row.to))
    }

    /// Moves an Intent by the table; the row, if it moves.
    pub(super) fn move_intent(
        &mut self,
        act: &mut Act,
        event: Event,
    ) -> Result<Option<&'static Transition>, V::Error> {
        let from = self.effective_state(act)?;
        let Some(row) = table::find(Machine::Intent, from, event) else {
            return Ok(None);
        };
        if row.to != from {
            let state = state_of_intent(row.to);
            act.set_state(state);
            if row.to != State::Waiting {
                act.missing.clear();
                act.waiting = None;
            }
            if !matches!(row.to, State::Waiting | State::Cleared) {
                self.undo_intent_timer(act);
            }
            if let Some(task) = task_of(act) {
                let (leaf, intent) = (self.leaf, act.leaf);
                let event = digest::Event::Intent {
                    leaf,
                    intent,
                    state,
                };
                self.note_in_task(task, &event)?;
            }
        }
        Ok(Some(row))
    }

    /// Moves an Outcome by the table; the row, if it moves.
    pub(super) fn move_outcome(
        &mut self,
        act: &mut Act,
        event: Event,
    ) -> Result<Option<&'static Transition>, V::Error> {
        let task = task_of(act);
        let intent = act.leaf;
        let Some(outcome) = &mut act.outcome else {
            return Ok(None);
        };
        let from = outcome_state(outcome.state());
        let Some(row) = table::find(Machine::Outcome, from, event) else {
            return Ok(None);
        };
        let state = state_of_outcome(row.to);
        outcome.set_state(state);
        if row.to != State::Unobserved
            && let Some(timer) = observation_timer(intent, outcome)
        {
            self.timers.undo(timer);
        }
        if let Some(task) = task {
            let event = digest::Event::Outcome {
                leaf: self.leaf,
                intent,
                state,
            };
            self.note_in_task(task, &event)?;
        }
        Ok(Some(row))
    }

    fn undo_intent_timer(&mut self, act: &Act) {
        if act.deadline_us > 0 {
            self.timers.undo(Timer {
                at: Micros::new(act.deadline_us),
                leaf: act.leaf,
                kind: TimerKind::Intent(act.leaf),
            });
        }
    }

    /// Lets an act's deadline pass that has come, and has not fired: inside of a batch, whose
    /// statements all have the same time, nothing fires.
    pub(super) fn fire_deadline(&mut self, act: Act) -> Result<Act, V::Error> {
        if act.deadline_us == 0 || self.at.get() < act.deadline_us {
            return Ok(act);
        }
        self.intent_deadline(act.leaf)?;
        Ok(self.act_at(act.leaf)?.unwrap_or(act))
    }

    /// Lets the deadline of the Intent at a leaf pass.
    pub(super) fn intent_deadline(&mut self, leaf: u64) -> Result<(), V::Error> {
        self.by_proven(|ctx| ctx.deadline_passed(leaf))
    }

    fn deadline_passed(&mut self, leaf: u64) -> Result<(), V::Error> {
        let Some(mut act) = self.act_at(leaf)? else {
            return Ok(());
        };
        let row = self.move_intent(&mut act, Event::DeadlinePassed)?;
        if let Some(kind) = row.and_then(|row| row.finding) {
            let detail = match kind {
                FindingKind::IntentLapsed => "its evidence did not come by its deadline",
                _ => "its Outcome did not come by its deadline",
            };
            self.find(kind).of(&mut act).says(detail)?;
            let seen = act.first_seen();
            if kind == FindingKind::IntentOverdue && seen.is_some() {
                self.find(FindingKind::HiddenSideEffect)
                    .of(&mut act)
                    .contradicts(seen)
                    .says("its effects were seen, and no Outcome declares them")?;
            }
        }
        self.put_act(act)
    }

    /// Ends the time in which the Outcome of the Intent at a leaf must be corroborated.
    pub(super) fn observation_deadline(&mut self, leaf: u64) -> Result<(), V::Error> {
        let Some(mut act) = self.act_at(leaf)? else {
            return Ok(());
        };
        let row = self.move_outcome(&mut act, Event::DeadlinePassed)?;
        if let Some(kind) = row.and_then(|row| row.finding) {
            let outcome = act.outcome.as_ref().map(|outcome| outcome.leaf);
            self.find(kind)
                .of(&mut act)
                .contradicts(outcome)
                .says("nobody independent has seen all of its effects in time")?;
        }
        self.put_act(act)
    }

    /// Finds an act whose effects were seen and that has no Outcome when its task ends.
    pub(super) fn never_declared(&mut self, task: TaskId, leaf: u64) -> Result<(), V::Error> {
        self.by_proven(|ctx| ctx.was_never_declared(task, leaf))
    }

    fn was_never_declared(&mut self, task: TaskId, leaf: u64) -> Result<(), V::Error> {
        let Some(mut act) = self.act_at(leaf)? else {
            return Ok(());
        };
        // It may have been found when its deadline passed.
        let known = act.has(FindingKind::HiddenSideEffect);
        if act.outcome.is_none() && !known && task_of(&act) == Some(task) {
            let seen = act.first_seen();
            self.find(FindingKind::HiddenSideEffect)
                .of(&mut act)
                .contradicts(seen)
                .says("its effects were seen, and the task ended without an Outcome of it")?;
            self.put_act(act)?;
        }
        Ok(())
    }
}

/// The timer by which the Outcome of the Intent at `intent` must be corroborated, if it must be.
pub(super) fn observation_timer(intent: u64, outcome: &Outcome) -> Option<Timer> {
    (outcome.corroborate_by_us > 0).then(|| Timer {
        at: Micros::new(outcome.corroborate_by_us),
        leaf: outcome.leaf,
        kind: TimerKind::Observation(intent),
    })
}

pub(super) fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Empty for none.
pub(super) fn copied_of(bytes: Option<&[u8]>) -> Bytes {
    bytes.map_or_else(Bytes::new, copied)
}
