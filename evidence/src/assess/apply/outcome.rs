//! Outcome: who may give one, and what it is held against.

use deed_proto::v1::{EvidencePart, FindingKind, KeyRole, OutcomeState, OutcomeStatus, TaskState};

use super::Apply;
use crate::{
    CommitmentDigest, KeyId, TaskId,
    assess::{
        RecordedStatement, View,
        act::{copied_of, observation_timer},
        amounts,
        body::Outcome,
        cells::{self, Act, Print, SystemSaw},
        effects::{self, EffectMatch, ObservedEffect},
        grant::Objection,
        keys::is_claim,
        table::{self, Event, Machine, State},
    },
};

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

impl<V: View> Apply<'_, V> {
    pub(super) fn outcome(
        &mut self,
        task: TaskId,
        statement: &RecordedStatement<'_>,
        body: &Outcome,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_of_outcome(task, statement, body)? else {
            return self
                .object(FindingKind::OutcomeWithoutIntent)
                .says("the Outcome is of no Intent of this task");
        };
        let relation = self.relation(&act)?;
        let intent = Some(act.leaf);
        if relation == Relation::WrongRole {
            return self
                .find(FindingKind::WrongRole)
                .contradicts(intent)
                .says("an Outcome is signed by an agent, a gateway or the system itself");
        }
        if relation == Relation::Stranger {
            return self
                .find(FindingKind::UnprovenClaim)
                .contradicts(intent)
                .says(
                    "an Outcome is given by the Intent's producer, or by a gateway that its \
                          registration or the Intent's grant names; this speaker is neither",
                );
        }
        let signed = relation == Relation::Proven;
        if !signed && !is_claim(&act, self.trust) {
            // Of an act that somebody signed for, an unsigned word is no more than a claim: it must
            // not come before the Outcome that is signed.
            act.outcome_claimed = true;
            return self.put_act(act);
        }
        self.with_all(&mut act)?;
        self.compares(&act, body.effects.len());
        match &act.outcome {
            Some(first) if first.signed && signed => {
                return self.further_outcome(task, act, body);
            }
            Some(first) if first.signed || !signed => {
                let first = Some(first.leaf);
                return self
                    .object(FindingKind::OutOfPlace)
                    .contradicts(first)
                    .says("the Intent has an Outcome already");
            }
            Some(_) => self.displace_outcome(&mut act),
            None => {}
        }
        act = self.fire_deadline(act)?;
        if signed {
            self.keep_independent(&mut act);
        }
        let author = self.author.key.filter(|_| signed);
        self.judge_outcome(task, &mut act, body, author)?;
        for (kind, value) in &statement.parsed.correlation_keys {
            self.correlate(kind, value, &act)?;
        }
        self.forget_seen(task, act.leaf)?;
        self.compare_early(&mut act)?;
        self.put_act(act)
    }

    /// Holds a further Outcome against its Intent, and keeps the first. Whoever may give one may accuse
    /// the act by it: else the first speaker's word would switch off the check.
    fn further_outcome(
        &mut self,
        task: TaskId,
        mut act: Act,
        body: &Outcome,
    ) -> Result<(), V::Error> {
        let first = act.outcome.as_ref().map(|first| first.leaf);
        self.object(FindingKind::OutOfPlace)
            .contradicts(first)
            .says("the Intent has an Outcome already")?;
        let from = self.effective_state(&act)?;
        let row = table::find(Machine::Intent, from, event_of(body));
        let finding = row.and_then(|row| row.finding);
        let stood = (from, finding);
        let mut found = self.held_against_intent(task, &act, body, stood, true)?;
        if let Some(detail) = differs(&act, body) {
            found.push((FindingKind::EffectMismatch, detail.to_owned(), first));
        }
        for (kind, detail, contradicts) in found {
            if act.has(kind) {
                continue;
            }
            act.note(kind);
            let about = match kind {
                // It is the Outcome that says so.
                FindingKind::EffectMismatch => self.leaf,
                _ => act.leaf,
            };
            self.find(kind)
                .about(about)
                .contradicts(contradicts)
                .says(detail)?;
        }
        if let Some(key) = self.author.key {
            // The speaker is of the acting side from now on.
            self.rest_on(&mut act, key, EvidencePart::Outcome);
        }
        self.put_act(act)
    }

    /// Returns what an Outcome shows against its Intent: kind, detail, and what it contradicts. `stood` is
    /// where the Intent stood, and what the table finds of the Outcome there.
    fn held_against_intent(
        &mut self,
        task: TaskId,
        act: &Act,
        body: &Outcome,
        (from, finding): (State, Option<FindingKind>),
        signed: bool,
    ) -> Result<Vec<Objection>, V::Error> {
        let mut found = Vec::new();
        let done = body.status != OutcomeStatus::NotDone;
        if let Some(kind) = finding {
            let detail = match from {
                State::Overdue => "the Outcome came after the Intent's deadline",
                State::Waiting => "it was done while evidence was missing",
                State::Lapsed => "it was done after it had lapsed",
                _ => "it was done although it was denied",
            };
            found.push((kind, detail.to_owned(), Some(self.leaf)));
        }
        if let (true, Some(closed)) = (done, self.closed_at(task)?) {
            let detail = "the Outcome came after the task had ended".to_owned();
            found.push((FindingKind::TaskClosed, detail, closed));
        }
        let changed = |now: CommitmentDigest| now.as_bytes()[..] != act.arguments[..];
        if !act.arguments.is_empty() && body.arguments.is_some_and(changed) {
            let detail = "it was called with other arguments than the Intent's".to_owned();
            found.push((FindingKind::ArgumentsChanged, detail, Some(self.leaf)));
        }
        let named = act.minor_units.map(|most| (most, act.currency.as_str()));
        let elsewhere = if signed {
            effects::declared_beyond(act, &body.effects)
        } else {
            None
        };
        if let Some(detail) = amounts::beyond(named, &body.effects).or(elsewhere) {
            found.push((FindingKind::EffectMismatch, detail, Some(act.leaf)));
        }
        Ok(found)
    }

    /// Holds an Outcome against its Intent, and keeps it. `author` is the key that proves it, if one
    /// does.
    fn judge_outcome(
        &mut self,
        task: TaskId,
        act: &mut Act,
        body: &Outcome,
        author: Option<KeyId>,
    ) -> Result<(), V::Error> {
        let done = body.status != OutcomeStatus::NotDone;
        let event = event_of(body);
        let from = self.effective_state(act)?;
        let row = self.move_intent(act, event)?;
        let stood = (from, row.and_then(|row| row.finding));
        let signed = author.is_some();
        let mut found = self.held_against_intent(task, act, body, stood, signed)?;
        let duties = act.duties.unwrap_or_default();
        let wanted = [
            (duties.tool_call && !body.tool_call, "the tool call"),
            (duties.response && !body.response, "the response"),
            (duties.result && !body.result, "the result"),
        ];
        for (_, what) in wanted.into_iter().filter(|(missing, _)| *missing && done) {
            let detail = format!("the policy wants {what} committed to");
            found.push((FindingKind::MissingContent, detail, Some(self.leaf)));
        }
        for (kind, detail, contradicts) in found {
            if kind == FindingKind::EffectMismatch {
                // It is the Outcome that says so.
                if author.is_some() {
                    act.note(kind);
                }
                self.find(kind).contradicts(contradicts).says(detail)?;
            } else if author.is_some() {
                self.find(kind)
                    .of(act)
                    .contradicts(contradicts)
                    .says(detail)?;
            } else {
                // What nobody proves of a claim is found, and decides nothing.
                self.find(kind)
                    .about(act.leaf)
                    .contradicts(contradicts)
                    .says(detail)?;
            }
        }
        self.keep_outcome(act, body, author);
        self.move_outcome(act, event)?;
        Ok(())
    }

    fn act_of_outcome(
        &mut self,
        task: TaskId,
        statement: &RecordedStatement<'_>,
        body: &Outcome,
    ) -> Result<Option<Act>, V::Error> {
        let place = (
            body.session.unwrap_or(statement.header.session),
            body.sequence,
        );
        let leaf = match self.recent.leaf_of(&place) {
            Some(leaf) => Some(leaf),
            None => self.cells.view.leaf_of(&place.0, place.1)?,
        };
        let Some(leaf) = leaf else { return Ok(None) };
        let act = self.act_at(leaf)?;
        Ok(act.filter(|act| {
            act.payload_digest[..] == body.payload_digest.as_bytes()[..]
                && act.task[..] == task.as_bytes()[..]
        }))
    }

    /// The leaf of the TaskClosed of a task that has ended; its deadline has none.
    fn closed_at(&mut self, task: TaskId) -> Result<Option<Option<u64>>, V::Error> {
        let task = self.cells.task(task)?;
        let closed = task.filter(|task| task.state() == TaskState::Closed);
        Ok(closed.map(|task| task.closed_leaf))
    }

    /// Forgets an Outcome that nobody proves: one comes that somebody does.
    fn displace_outcome(&mut self, act: &mut Act) {
        let Some(claimed) = act.outcome.take() else {
            return;
        };
        if let Some(timer) = observation_timer(act.leaf, &claimed) {
            self.timers.undo(timer);
        }
        act.outcome_claimed = true;
        act.named.clear();
        for change in &mut act.changes {
            change.declared = None;
        }
    }

    fn keep_outcome(&mut self, act: &mut Act, body: &Outcome, author: Option<KeyId>) {
        let within = act.duties.and_then(|duties| duties.corroborate_within_us);
        let by = match (within, body.status) {
            // Failed and nothing changed: there is nothing to see.
            (_, OutcomeStatus::Failed) if body.effects.is_empty() => 0,
            (Some(within), status) if status != OutcomeStatus::NotDone => {
                self.at.get().saturating_add(within)
            }
            _ => 0,
        };
        let outcome = cells::Outcome {
            leaf: self.leaf,
            state: OutcomeState::Unspecified.into(),
            status: body.status.into(),
            signed: author.is_some(),
            committed: body.result || body.response || !body.effects.is_empty(),
            effects: body.effects.iter().map(Print::of).collect(),
            declared: u32::try_from(body.effects.len()).unwrap_or(u32::MAX),
            corroborate_by_us: by,
            key: copied_of(author.as_ref().map(|key| &key.as_bytes()[..])),
            at_us: self.at.get(),
        };
        if let Some(timer) = observation_timer(act.leaf, &outcome) {
            self.timers.set(timer);
        }
        act.outcome = Some(outcome);
    }

    /// The act's effects were seen before its Outcome, which is there now.
    fn forget_seen(&mut self, task: TaskId, leaf: u64) -> Result<(), V::Error> {
        let seen = self.cells.task(task)?;
        if seen.is_some_and(|task| task.seen_open.contains(&leaf))
            && let Some(task) = self.cells.change_task(task)?
        {
            task.seen_open.retain(|seen| *seen != leaf);
        }
        Ok(())
    }

    /// Drops the changes that systems under the controller of the Outcome's author saw: these are no
    /// independent sight any more.
    fn keep_independent(&mut self, act: &mut Act) {
        let Some(author) = self.author.controller() else {
            return;
        };
        let own = |key: &[u8]| {
            let key = KeyId::from_slice(key).and_then(|key| self.trust.key(key));
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

    /// Returns the relation of a speaker to an act.
    fn relation(&mut self, act: &Act) -> Result<Relation, V::Error> {
        let key = KeyId::from_slice(&act.key).and_then(|key| self.trust.key(key));
        let unsigned;
        let producer = match key {
            Some(key) => &key.producer,
            None => {
                let session = crate::SessionId::from_slice(&act.session);
                unsigned = match session {
                    Some(session) => self.cells.view.producer_of(&session)?.unwrap_or_default(),
                    None => String::new(),
                };
                &unsigned
            }
        };
        let same = self.author.producer == producer;
        let acts = [KeyRole::Agent, KeyRole::Platform, KeyRole::DownstreamSystem];
        if acts.into_iter().any(|role| self.author.has_role(role)) {
            let registered = self
                .author
                .record
                .is_some_and(|key| key.acts_for.contains(producer));
            let granted = act
                .gateways
                .iter()
                .any(|gateway| gateway == self.author.producer);
            return Ok(if same || registered || granted {
                Relation::Proven
            } else {
                Relation::Stranger
            });
        }
        Ok(
            if self.author.is_signed() && !self.author.has_role(KeyRole::Importer) {
                Relation::WrongRole
            } else if same {
                Relation::Claimed
            } else {
                Relation::Stranger
            },
        )
    }
}

/// Says how a further Outcome differs from the one that is kept, if it says that more was done.
fn differs(act: &Act, body: &Outcome) -> Option<&'static str> {
    let first = act.outcome.as_ref()?;
    if body.status == OutcomeStatus::NotDone {
        return None;
    }
    if first.status() == OutcomeStatus::NotDone {
        return Some("another Outcome of it says that nothing was done");
    }
    let compared = effects::look_up(act, &ObservedEffect::all(&body.effects), &[]).seen;
    let declared = |seen: &EffectMatch| matches!(seen, EffectMatch::Declared(_));
    (!compared.iter().all(declared)).then_some("another Outcome of it declares other effects")
}

fn event_of(body: &Outcome) -> Event {
    match body.status {
        OutcomeStatus::NotDone => Event::OutcomeNotDone,
        _ => Event::OutcomeDone,
    }
}
