//! Outcomes, and what others saw of them.

use bytes::Bytes;
use deed_proto::v1::{FindingKind, IntentState, KeyRole, OutcomeState, OutcomeStatus, TaskState};
use deed_tlog::Hash;

use super::{
    LIST_MAX,
    act::task_of,
    amounts::beyond_intent,
    book::{Book, Here, Spoken, View, Voice},
    cells::{self, Act, CellKey, Leaves, Names, Observed, name_of},
    due::{Due, DueOf},
    effects::{self, Fit, Seen},
    said::{Effect, LeafRef, Outcome, Said},
    table::{Event, State},
};
use crate::{CommitmentDigest, KeyId, Micros, TaskId};

/// Outcomes.
impl Book {
    pub(super) fn outcome<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        voice: Voice<'_>,
        task: TaskId,
        spoken: &Spoken<'_>,
        said: &Outcome,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_of_outcome(view, task, spoken, said)? else {
            let kind = FindingKind::OutcomeWithoutIntent;
            let detail = "the Outcome is of no Intent of this task";
            return self.find(view, here, kind, Some(task), here.leaf, None, detail);
        };
        if let Some(first) = &act.outcome {
            let first = Some(first.leaf);
            let detail = "the Intent has an Outcome already";
            let kind = FindingKind::OutOfPlace;
            return self.find(view, here, kind, Some(task), here.leaf, first, detail);
        }
        let signed = voice.has_role(KeyRole::Agent)
            || voice.has_role(KeyRole::Platform)
            || voice.has_role(KeyRole::DownstreamSystem);
        if voice.is_signed() && !signed && !voice.has_role(KeyRole::Importer) {
            let kind = FindingKind::WrongRole;
            let detail = "an Outcome is signed by an agent, a gateway or the system itself";
            let intent = Some(act.leaf);
            self.find(view, here, kind, Some(task), here.leaf, intent, detail)?;
        }
        let same_key = voice
            .key
            .is_some_and(|key| key.as_bytes()[..] == act.key[..]);
        if !act.key.is_empty() && !signed && !same_key {
            // Of an act that somebody signed for, nobody else's word is more than a claim: it must
            // not come before the Outcome that is signed.
            act.outcome_claimed = true;
            return self.put_act(view, act);
        }
        act = self.overtake(view, here, act)?;
        let done = said.status != OutcomeStatus::NotDone;
        let event = if done {
            Event::OutcomeDone
        } else {
            Event::OutcomeNotDone
        };
        let from = self.stands(view, &act)?;
        let row = self.move_intent(view, here, &mut act, event)?;
        if let Some(kind) = row.and_then(|row| row.finding) {
            let detail = match from {
                State::Overdue => "the Outcome came after the Intent's deadline",
                State::Waiting => "it was done while evidence was missing",
                State::Lapsed => "it was done after it had lapsed",
                _ => "it was done although it was denied",
            };
            self.find_of(view, here, &mut act, kind, Some(here.leaf), detail)?;
        }
        if done {
            self.outcome_in_time(view, here, task, &mut act)?;
        }
        let changed = |now: CommitmentDigest| now.as_bytes()[..] != act.arguments[..];
        if !act.arguments.is_empty() && said.arguments.is_some_and(changed) {
            let kind = FindingKind::ArgumentsChanged;
            let detail = "it was called with other arguments than the Intent's";
            self.find_of(view, here, &mut act, kind, Some(here.leaf), detail)?;
        }
        let named = act.minor_units.map(|most| (most, act.currency.as_str()));
        if let Some(detail) = beyond_intent(named, &said.effects) {
            let kind = FindingKind::EffectMismatch;
            let intent = Some(act.leaf);
            act.note(kind);
            self.find(view, here, kind, Some(task), here.leaf, intent, detail)?;
        }
        self.keep_outcome(view, here, &mut act, said, signed, event)?;
        for (kind, value) in &spoken.said.correlation_keys {
            self.correlate(view, kind, value, act.leaf)?;
        }
        self.forget_seen(view, task, act.leaf)?;
        let mut observations = std::mem::take(&mut act.observations);
        for observed in &mut observations {
            self.compare(view, here, &mut act, observed)?;
            observed.effects.clear();
        }
        act.observations = observations;
        self.put_act(view, act)
    }

    fn act_of_outcome<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
        spoken: &Spoken<'_>,
        said: &Outcome,
    ) -> Result<Option<Act>, V::Error> {
        let place = (said.session.unwrap_or(spoken.header.session), said.sequence);
        let leaf = match self.recent.leaf_of(&place) {
            Some(leaf) => Some(leaf),
            None => view.leaf_of(&place.0, place.1)?,
        };
        let Some(leaf) = leaf else { return Ok(None) };
        let act = self.act_at(view, leaf)?;
        Ok(act.filter(|act| {
            act.payload_digest[..] == said.payload_digest.as_bytes()[..]
                && act.task[..] == task.as_bytes()[..]
        }))
    }

    fn outcome_in_time<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        task: TaskId,
        act: &mut Act,
    ) -> Result<(), V::Error> {
        let closed = self
            .cells
            .task(view, task)?
            .filter(|task| task.state() == TaskState::Closed)
            .map(|task| task.closed_leaf);
        match closed {
            Some(closed) => {
                let kind = FindingKind::TaskClosed;
                let detail = "the Outcome came after the task had ended";
                self.find_of(view, here, act, kind, closed, detail)
            }
            None => Ok(()),
        }
    }

    fn keep_outcome<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        act: &mut Act,
        said: &Outcome,
        signed: bool,
        event: Event,
    ) -> Result<(), V::Error> {
        let duties = act.duties.unwrap_or_default();
        let tried = said.status != OutcomeStatus::NotDone;
        if tried {
            let wanted = [
                (duties.tool_call && !said.tool_call, "the tool call"),
                (duties.response && !said.response, "the response"),
                (duties.result && !said.result, "the result"),
            ];
            for (_, what) in wanted.into_iter().filter(|(missing, _)| *missing) {
                let kind = FindingKind::MissingContent;
                let detail = format!("the policy wants {what} committed to");
                self.find_of(view, here, act, kind, Some(here.leaf), detail)?;
            }
        }
        let by = match duties.corroborate_within_us {
            Some(within) if tried && said.status != OutcomeStatus::Failed => {
                here.at.get().saturating_add(within)
            }
            _ => 0,
        };
        act.outcome = Some(cells::Outcome {
            leaf: here.leaf,
            state: OutcomeState::Unspecified.into(),
            status: said.status.into(),
            signed,
            committed: said.result || said.response || !said.effects.is_empty(),
            effects: said.effects.clone(),
            seen: 0,
            corroborate_by_us: by,
            sights: Vec::new(),
        });
        if by > 0 {
            self.dues.set(Due {
                at: Micros::new(by),
                leaf: here.leaf,
                what: DueOf::Observation(act.leaf),
            });
        }
        self.move_outcome(view, here, act, event)?;
        Ok(())
    }

    /// The act's effects were seen before its Outcome, which is there now.
    fn forget_seen<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
        leaf: u64,
    ) -> Result<(), V::Error> {
        let seen = self.cells.task(view, task)?;
        if seen.is_some_and(|task| task.seen_open.contains(&leaf))
            && let Some(task) = self.cells.change_task(view, task)?
        {
            task.seen_open.retain(|seen| *seen != leaf);
        }
        Ok(())
    }

    pub(super) fn observation_deadline<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        leaf: u64,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_at(view, leaf)? else {
            return Ok(());
        };
        let row = self.move_outcome(view, here, &mut act, Event::DeadlinePassed)?;
        if let Some(kind) = row.and_then(|row| row.finding) {
            let outcome = act.outcome.as_ref().map(|outcome| outcome.leaf);
            let detail = "nobody independent has seen all of its effects in time";
            self.find_of(view, here, &mut act, kind, outcome, detail)?;
        }
        self.put_act(view, act)
    }

    /// A task ends, and an act whose effects were seen has no Outcome.
    pub(super) fn never_declared<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        task: TaskId,
        leaf: u64,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_at(view, leaf)? else {
            return Ok(());
        };
        // It may have been found when its deadline passed.
        let known = act.has(FindingKind::HiddenSideEffect);
        if act.outcome.is_none() && !known && task_of(&act) == Some(task) {
            let seen = act.observations.first().map(|observed| observed.leaf);
            let kind = FindingKind::HiddenSideEffect;
            let detail = "its effects were seen, and the task ended without an Outcome of it";
            self.find_of(view, here, &mut act, kind, seen, detail)?;
            self.put_act(view, act)?;
        }
        Ok(())
    }
}

/// Observations.
impl Book {
    #[expect(
        clippy::too_many_arguments,
        reason = "what was said, by whom, and where"
    )]
    pub(super) fn observation<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        voice: Voice<'_>,
        task: Option<TaskId>,
        said: &Said,
        intent: Option<LeafRef>,
        seen: &[Effect],
    ) -> Result<(), V::Error> {
        let may = voice.has_role(KeyRole::DownstreamSystem);
        if voice.is_signed() && !may && !voice.has_role(KeyRole::Importer) {
            let detail = "an observation is signed by a downstream system";
            self.find(
                view,
                here,
                FindingKind::WrongRole,
                task,
                here.leaf,
                None,
                detail,
            )?;
        }
        for (kind, value) in &said.correlation_keys {
            self.token_seen(view, here, kind, value)?;
        }
        let observer = if may {
            effects::observer(voice.producer)
        } else {
            Bytes::new()
        };
        let found = match intent {
            Some(intent) => self.act_named(view, task, &intent)?,
            None => {
                let fit = |act: &Act| effects::fit(act, seen, &observer);
                self.act_correlated(view, task, said, fit)?
            }
        };
        let Some(mut act) = found else {
            let kind = FindingKind::HiddenSideEffect;
            let first = seen.first();
            let first = first.map_or_else(String::new, |one| {
                format!("{} on {}", one.kind, one.resource)
            });
            let detail = match seen.len() {
                1 => format!("an effect was seen that belongs to no Intent here: {first}"),
                n => format!("{n} effects were seen that belong to no Intent here: {first}, ..."),
            };
            return self.find(view, here, kind, task, here.leaf, None, detail);
        };
        let agent = KeyId::from_slice(&act.key).and_then(|key| here.registry.key(key));
        let other = agent.is_none_or(|agent| voice.controller() != Some(agent.controller.as_str()));
        let mut observed = Observed {
            leaf: here.leaf,
            independent: may && other,
            effects: seen.to_vec(),
            observer,
        };
        if act.outcome.is_some() {
            self.compare(view, here, &mut act, &observed)?;
            observed.effects.clear();
        } else {
            self.seen_before_outcome(view, here, &mut act)?;
        }
        if act.observations.len() >= LIST_MAX {
            // What somebody merely says gives way to what an independent system has seen.
            let claimed = act.observations.iter().rposition(|one| !one.independent);
            match claimed.filter(|_| observed.independent) {
                Some(at) => act.observations.remove(at),
                None => return self.put_act(view, act),
            };
        }
        act.observations.push(observed);
        self.put_act(view, act)
    }

    /// Effects of an act that has no Outcome yet.
    fn seen_before_outcome<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        act: &mut Act,
    ) -> Result<(), V::Error> {
        let Some(id) = task_of(act) else {
            return Ok(());
        };
        let Some(task) = self.cells.change_task(view, id)? else {
            return Ok(());
        };
        if task.state() == TaskState::Open && act.state() == IntentState::Cleared {
            if task.seen_open.len() < LIST_MAX && !task.seen_open.contains(&act.leaf) {
                task.seen_open.push(act.leaf);
            }
            return Ok(());
        }
        // Nobody may have acted on it, and something has happened.
        let detail = "effects were seen of an Intent that may not be acted on, or not any more";
        let kind = FindingKind::HiddenSideEffect;
        self.find_of(view, here, act, kind, Some(here.leaf), detail)
    }

    fn act_named<V: View>(
        &mut self,
        view: &mut V,
        task: Option<TaskId>,
        intent: &LeafRef,
    ) -> Result<Option<Act>, V::Error> {
        let act = self.act_at(view, intent.leaf)?;
        Ok(act.filter(|act| {
            let same_task = task.is_none_or(|task| act.task[..] == task.as_bytes()[..]);
            act.leaf_hash[..] == intent.hash.as_bytes()[..] && same_task
        }))
    }

    /// The act that shares a correlation key: the first one of those that fit best, else the last.
    fn act_correlated<V: View>(
        &mut self,
        view: &mut V,
        task: Option<TaskId>,
        said: &Said,
        fit: impl Fn(&Act) -> Fit,
    ) -> Result<Option<Act>, V::Error> {
        let mut leaves = Vec::new();
        for (kind, value) in &said.correlation_keys {
            let key = CellKey::Correlation(name_of(kind, value));
            if let Some(found) = self.cells.look::<Leaves, _>(view, key)? {
                leaves.extend(found.leaves.iter().copied());
            }
        }
        leaves.sort_unstable();
        leaves.dedup();
        let mut best: Option<(Fit, Act)> = None;
        for leaf in leaves {
            let Some(act) = self.act_at(view, leaf)? else {
                continue;
            };
            if task.is_some_and(|task| act.task[..] != task.as_bytes()[..]) {
                continue;
            }
            let fit = fit(&act);
            // Of those without anything in common the last one, else the first.
            if best
                .as_ref()
                .is_none_or(|(best, _)| fit > *best || (fit == Fit::Not && *best == Fit::Not))
            {
                best = Some((fit, act));
            }
        }
        Ok(best.map(|(_, act)| act))
    }

    /// Compares what was seen with what the act's Outcome declares.
    fn compare<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        act: &mut Act,
        observed: &Observed,
    ) -> Result<(), V::Error> {
        let Some(outcome) = &mut act.outcome else {
            return Ok(());
        };
        let (seen, observer) = (&observed.effects, &observed.observer);
        let compared = effects::look_up(outcome, seen, observer);
        let remembered =
            !observer.is_empty() && effects::remember(outcome, &compared, seen, observer);
        let mut other = false;
        for (seen, effect) in compared.iter().zip(&observed.effects) {
            let (kind, what) = match seen {
                Seen::Declared(_) | Seen::Again(_) => continue,
                Seen::Different => (
                    FindingKind::EffectMismatch,
                    "differs from what was declared",
                ),
                Seen::Beyond => (
                    FindingKind::HiddenSideEffect,
                    "was seen more often than it was declared (what is reported again has the \
                     external id that it had before)",
                ),
                Seen::Hidden => (FindingKind::HiddenSideEffect, "was declared by nobody"),
            };
            other = true;
            let detail = format!("{} on {} {what}", effect.kind, effect.resource);
            self.find_of(view, here, act, kind, Some(observed.leaf), detail)?;
        }
        if !observed.independent {
            return Ok(());
        }
        if other {
            self.move_outcome(view, here, act, Event::ObservedOther)?;
            return Ok(());
        }
        let Some(outcome) = act.outcome.as_mut().filter(|_| remembered) else {
            return Ok(());
        };
        for seen in compared {
            if let Seen::Declared(at) | Seen::Again(at) = seen {
                outcome.seen |= 1 << at;
            }
        }
        let all = outcome.effects.len();
        if all > 0 && outcome.seen.count_ones() as usize == all {
            self.move_outcome(view, here, act, Event::ObservedSame)?;
        }
        Ok(())
    }

    /// A downstream system names a credential: does its task go on?
    fn token_seen<V: View>(
        &mut self,
        view: &mut V,
        here: Here<'_>,
        kind: &str,
        value: &str,
    ) -> Result<(), V::Error> {
        let key = CellKey::Token(name_of(kind, value));
        let Some(names) = self.cells.look::<Names, _>(view, key)?.cloned() else {
            return Ok(());
        };
        for name in names.hashes {
            let Ok(name) = Hash::try_from(&name[..]) else {
                continue;
            };
            let grant = self
                .cells
                .look::<Box<cells::Grant>, _>(view, CellKey::Grant(name))?;
            let Some((grant_leaf, id)) =
                grant.and_then(|grant| Some((grant.leaf, TaskId::from_slice(&grant.task)?)))
            else {
                continue;
            };
            let task = self.cells.task(view, id)?;
            let closed = task
                .filter(|task| task.state() == TaskState::Closed)
                .map(|task| task.closed_leaf);
            if let Some(closed) = closed {
                let kind = FindingKind::TokenUsedAfterClose;
                let detail = "a credential of the task was used after the task had ended";
                let contradicts = closed.or(Some(grant_leaf));
                self.find(view, here, kind, Some(id), here.leaf, contradicts, detail)?;
            }
        }
        Ok(())
    }
}
