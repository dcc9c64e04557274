//! Outcomes: who may give one, and what it is held against.

use deed_proto::v1::{EvidencePart, FindingKind, KeyRole, OutcomeState, OutcomeStatus, TaskState};

use super::{
    act::{copied_of, observation_due, task_of},
    amounts,
    assessor::{Assessor, Author, EntryContext, RecordedStatement, View},
    body::Outcome,
    cells::{self, Act, Print, SystemSaw},
    effects::{self, EffectMatch, ObservedEffect},
    grant::Objection,
    keys::{self, is_claim},
    table::{self, Event, Machine, State},
};
use crate::{CommitmentDigest, KeyId, TaskId};

/// The relation of a speaker to an act when it says what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// It signed as the Intent's producer, or as a gateway that is named for that producer.
    Proven,
    /// It has the Intent's producer, and no signature that would prove it.
    Claimed,
    /// None.
    Stranger,
    /// None, and it signed with a key that is for something else.
    WrongRole,
}

impl Assessor {
    pub(super) fn outcome<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        task: TaskId,
        spoken: &RecordedStatement<'_>,
        said: &Outcome,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_of_outcome(view, task, spoken, said)? else {
            let kind = FindingKind::OutcomeWithoutIntent;
            let detail = "the Outcome is of no Intent of this task";
            return self.object(view, here, voice, kind, task, None, detail);
        };
        let relation = relation(view, here, voice, &act)?;
        let intent = Some(act.leaf);
        if relation == Relation::WrongRole {
            let kind = FindingKind::WrongRole;
            let detail = "an Outcome is signed by an agent, a gateway or the system itself";
            return self.find(view, here, kind, Some(task), here.leaf, intent, detail);
        }
        if relation == Relation::Stranger {
            let kind = FindingKind::UnprovenClaim;
            let detail = "an Outcome is given by the Intent's producer, or by a gateway that its \
                          registration or the Intent's grant names; this speaker is neither";
            return self.find(view, here, kind, Some(task), here.leaf, intent, detail);
        }
        let signed = relation == Relation::Proven;
        if !signed && !is_claim(&act, here.registry) {
            // Of an act that somebody signed for, an unsigned word is no more than a claim: it must
            // not come before the Outcome that is signed.
            act.outcome_claimed = true;
            return self.put_act(view, act);
        }
        self.with_all(view, &mut act)?;
        self.compares(&act, said.effects.len());
        match &act.outcome {
            Some(first) if first.signed && signed => {
                return self.further_outcome(view, here, voice, task, act, said);
            }
            Some(first) if first.signed || !signed => {
                let first = Some(first.leaf);
                let detail = "the Intent has an Outcome already";
                let kind = FindingKind::OutOfPlace;
                return self.object(view, here, voice, kind, task, first, detail);
            }
            Some(_) => self.displace_outcome(&mut act),
            None => {}
        }
        act = self.fire_deadline(view, here, act)?;
        if signed {
            self.keep_independent(here, voice, &mut act);
        }
        let author = voice.key.filter(|_| signed);
        self.judge_outcome(view, here, task, &mut act, said, author)?;
        for (kind, value) in &spoken.parsed.correlation_keys {
            self.correlate(view, here, kind, value, &act)?;
        }
        self.forget_seen(view, task, act.leaf)?;
        self.compare_early(view, here, &mut act)?;
        self.put_act(view, act)
    }

    /// Holds a further Outcome against its Intent, and keeps the first. Whoever may give one may accuse
    /// the act by it: else the first speaker's word would switch off the check.
    fn further_outcome<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        task: TaskId,
        mut act: Act,
        said: &Outcome,
    ) -> Result<(), V::Error> {
        let first = act.outcome.as_ref().map(|first| first.leaf);
        let detail = "the Intent has an Outcome already";
        let kind = FindingKind::OutOfPlace;
        self.object(view, here, voice, kind, task, first, detail)?;
        let from = self.effective_state(view, &act)?;
        let row = table::find(Machine::Intent, from, event_of(said));
        let finding = row.and_then(|row| row.finding);
        let stood = (from, finding);
        let mut found = self.held_against_intent(view, here, task, &act, said, stood, true)?;
        if let Some(detail) = differs(&act, said) {
            found.push((FindingKind::EffectMismatch, detail.to_owned(), first));
        }
        for (kind, detail, contradicts) in found {
            if act.has(kind) {
                continue;
            }
            act.note(kind);
            let about = match kind {
                // It is the Outcome that says so.
                FindingKind::EffectMismatch => here.leaf,
                _ => act.leaf,
            };
            self.find(view, here, kind, Some(task), about, contradicts, detail)?;
        }
        if let Some(key) = voice.key {
            // The speaker is of the acting side from now on.
            keys::rest_on(&mut act, here, key, EvidencePart::Outcome);
        }
        self.put_act(view, act)
    }

    /// Returns what an Outcome shows against its Intent: kind, detail, and what it contradicts. `stood` is
    /// where the Intent stood, and what the table finds of the Outcome there.
    #[expect(
        clippy::too_many_arguments,
        reason = "what was said, of what, and where that stood"
    )]
    fn held_against_intent<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        task: TaskId,
        act: &Act,
        said: &Outcome,
        (from, finding): (State, Option<FindingKind>),
        signed: bool,
    ) -> Result<Vec<Objection>, V::Error> {
        let mut found = Vec::new();
        let done = said.status != OutcomeStatus::NotDone;
        if let Some(kind) = finding {
            let detail = match from {
                State::Overdue => "the Outcome came after the Intent's deadline",
                State::Waiting => "it was done while evidence was missing",
                State::Lapsed => "it was done after it had lapsed",
                _ => "it was done although it was denied",
            };
            found.push((kind, detail.to_owned(), Some(here.leaf)));
        }
        if let (true, Some(closed)) = (done, self.closed_at(view, task)?) {
            let detail = "the Outcome came after the task had ended".to_owned();
            found.push((FindingKind::TaskClosed, detail, closed));
        }
        let changed = |now: CommitmentDigest| now.as_bytes()[..] != act.arguments[..];
        if !act.arguments.is_empty() && said.arguments.is_some_and(changed) {
            let detail = "it was called with other arguments than the Intent's".to_owned();
            found.push((FindingKind::ArgumentsChanged, detail, Some(here.leaf)));
        }
        let named = act.minor_units.map(|most| (most, act.currency.as_str()));
        let elsewhere = if signed {
            effects::declared_beyond(act, &said.effects)
        } else {
            None
        };
        if let Some(detail) = amounts::beyond(named, &said.effects).or(elsewhere) {
            found.push((FindingKind::EffectMismatch, detail, Some(act.leaf)));
        }
        Ok(found)
    }

    /// Holds an Outcome against its Intent, and keeps it. `author` is the key that proves it, if one
    /// does.
    fn judge_outcome<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        task: TaskId,
        act: &mut Act,
        said: &Outcome,
        author: Option<KeyId>,
    ) -> Result<(), V::Error> {
        let done = said.status != OutcomeStatus::NotDone;
        let event = event_of(said);
        let from = self.effective_state(view, act)?;
        let row = self.move_intent(view, here, act, event)?;
        let stood = (from, row.and_then(|row| row.finding));
        let signed = author.is_some();
        let mut found = self.held_against_intent(view, here, task, act, said, stood, signed)?;
        let duties = act.duties.unwrap_or_default();
        let wanted = [
            (duties.tool_call && !said.tool_call, "the tool call"),
            (duties.response && !said.response, "the response"),
            (duties.result && !said.result, "the result"),
        ];
        for (_, what) in wanted.into_iter().filter(|(missing, _)| *missing && done) {
            let detail = format!("the policy wants {what} committed to");
            found.push((FindingKind::MissingContent, detail, Some(here.leaf)));
        }
        for (kind, detail, contradicts) in found {
            if kind == FindingKind::EffectMismatch {
                // It is the Outcome that says so.
                if author.is_some() {
                    act.note(kind);
                }
                self.find(view, here, kind, Some(task), here.leaf, contradicts, detail)?;
            } else if author.is_some() {
                self.find_of(view, here, act, kind, contradicts, detail)?;
            } else {
                // What nobody proves of a claim is found, and decides nothing.
                self.find(view, here, kind, Some(task), act.leaf, contradicts, detail)?;
            }
        }
        self.keep_outcome(here, act, said, author);
        self.move_outcome(view, here, act, event)?;
        Ok(())
    }

    fn act_of_outcome<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
        spoken: &RecordedStatement<'_>,
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

    /// The leaf of the TaskClosed of a task that has ended; its deadline has none.
    fn closed_at<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
    ) -> Result<Option<Option<u64>>, V::Error> {
        let task = self.cells.task(view, task)?;
        let closed = task.filter(|task| task.state() == TaskState::Closed);
        Ok(closed.map(|task| task.closed_leaf))
    }

    /// Forgets an Outcome that nobody proves: one comes that somebody does.
    fn displace_outcome(&mut self, act: &mut Act) {
        let Some(claimed) = act.outcome.take() else {
            return;
        };
        if let Some(due) = observation_due(act.leaf, &claimed) {
            self.timers.undo(due);
        }
        act.outcome_claimed = true;
        act.named.clear();
        for change in &mut act.changes {
            change.declared = None;
        }
    }

    fn keep_outcome(
        &mut self,
        here: EntryContext<'_>,
        act: &mut Act,
        said: &Outcome,
        author: Option<KeyId>,
    ) {
        let within = act.duties.and_then(|duties| duties.corroborate_within_us);
        let by = match (within, said.status) {
            // Failed and nothing changed: there is nothing to see.
            (_, OutcomeStatus::Failed) if said.effects.is_empty() => 0,
            (Some(within), status) if status != OutcomeStatus::NotDone => {
                here.at.get().saturating_add(within)
            }
            _ => 0,
        };
        let outcome = cells::Outcome {
            leaf: here.leaf,
            state: OutcomeState::Unspecified.into(),
            status: said.status.into(),
            signed: author.is_some(),
            committed: said.result || said.response || !said.effects.is_empty(),
            effects: said.effects.iter().map(Print::of).collect(),
            declared: u32::try_from(said.effects.len()).unwrap_or(u32::MAX),
            corroborate_by_us: by,
            key: copied_of(author.as_ref().map(|key| &key.as_bytes()[..])),
            at_us: here.at.get(),
        };
        if let Some(due) = observation_due(act.leaf, &outcome) {
            self.timers.set(due);
        }
        act.outcome = Some(outcome);
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

    /// Drops the changes that systems under the controller of the Outcome's author saw: these are no
    /// independent sight any more.
    fn keep_independent(&mut self, here: EntryContext<'_>, voice: Author<'_>, act: &mut Act) {
        let Some(author) = voice.controller() else {
            return;
        };
        let own = |key: &[u8]| {
            let key = KeyId::from_slice(key).and_then(|key| here.registry.key(key));
            key.is_some_and(|key| key.controller == author)
        };
        act.changes.retain(|change| !own(&change.key));
        for observed in &mut act.observations {
            observed.proves &= act
                .changes
                .iter()
                .any(|change| change.leaf == observed.leaf);
        }
        let is_left = |one: &&SystemSaw| act.changes.iter().any(|c| c.system == one.system);
        let gone = act.systems.iter().filter(|one| !is_left(one));
        let gone: Vec<_> = gone.map(SystemSaw::name).collect();
        for system in gone {
            self.drop_system(act, system);
        }
    }

    pub(super) fn observation_deadline<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
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
        here: EntryContext<'_>,
        task: TaskId,
        leaf: u64,
    ) -> Result<(), V::Error> {
        self.by_proven(|assessor| assessor.was_never_declared(view, here, task, leaf))
    }

    fn was_never_declared<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        task: TaskId,
        leaf: u64,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_at(view, leaf)? else {
            return Ok(());
        };
        // It may have been found when its deadline passed.
        let known = act.has(FindingKind::HiddenSideEffect);
        if act.outcome.is_none() && !known && task_of(&act) == Some(task) {
            let seen = act.first_seen();
            let kind = FindingKind::HiddenSideEffect;
            let detail = "its effects were seen, and the task ended without an Outcome of it";
            self.find_of(view, here, &mut act, kind, seen, detail)?;
            self.put_act(view, act)?;
        }
        Ok(())
    }
}

/// Returns the relation of a speaker to an act.
fn relation<V: View>(
    view: &mut V,
    here: EntryContext<'_>,
    voice: Author<'_>,
    act: &Act,
) -> Result<Relation, V::Error> {
    let key = KeyId::from_slice(&act.key).and_then(|key| here.registry.key(key));
    let unsigned;
    let producer = match key {
        Some(key) => &key.producer,
        None => {
            let session = crate::SessionId::from_slice(&act.session);
            unsigned = match session {
                Some(session) => view.producer_of(&session)?.unwrap_or_default(),
                None => String::new(),
            };
            &unsigned
        }
    };
    let same = voice.producer == producer;
    let acts = [KeyRole::Agent, KeyRole::Platform, KeyRole::DownstreamSystem];
    if acts.into_iter().any(|role| voice.has_role(role)) {
        let registered = voice
            .record
            .is_some_and(|key| key.acts_for.contains(producer));
        let granted = act.gateways.iter().any(|gateway| gateway == voice.producer);
        return Ok(if same || registered || granted {
            Relation::Proven
        } else {
            Relation::Stranger
        });
    }
    Ok(if voice.is_signed() && !voice.has_role(KeyRole::Importer) {
        Relation::WrongRole
    } else if same {
        Relation::Claimed
    } else {
        Relation::Stranger
    })
}

/// Says how a further Outcome differs from the one that is kept, if it says that more was done.
fn differs(act: &Act, said: &Outcome) -> Option<&'static str> {
    let first = act.outcome.as_ref()?;
    if said.status == OutcomeStatus::NotDone {
        return None;
    }
    if first.status() == OutcomeStatus::NotDone {
        return Some("another Outcome of it says that nothing was done");
    }
    let compared = effects::look_up(act, &ObservedEffect::all(&said.effects), &[]).seen;
    let declared = |seen: &EffectMatch| matches!(seen, EffectMatch::Declared(_));
    (!compared.iter().all(declared)).then_some("another Outcome of it declares other effects")
}

fn event_of(said: &Outcome) -> Event {
    match said.status {
        OutcomeStatus::NotDone => Event::OutcomeNotDone,
        _ => Event::OutcomeDone,
    }
}
