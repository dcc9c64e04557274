//! Intent.

use deed_proto::v1::{FindingKind, IntentState, TaskState};
use prost::Message as _;

use super::Apply;
use crate::{
    TaskId,
    assess::{
        IntentVerdict, RecordedStatement, View,
        act::{copied, copied_of},
        body::{Effect, Intent, Quantity},
        cells::{Act, CellKey, Expected},
        digest,
        implicit_intent::ImplicitIntent,
        judgement::IntentRequest,
        table::{self, Event, Machine, State},
        timer::{Timer, TimerKind},
    },
};

impl<V: View> Apply<'_, V> {
    /// Judges an Intent, and keeps its act.
    pub(super) fn intent(
        &mut self,
        task: TaskId,
        statement: &RecordedStatement<'_>,
        intent: &Intent,
    ) -> Result<IntentVerdict, V::Error> {
        let place = (statement.header.session, statement.header.sequence);
        self.recent.place(place, self.leaf);
        if self.asks_for_nothing(statement, intent)
            && self.clear_implicitly(task, statement, intent)?
        {
            return Ok(IntentVerdict {
                state: IntentState::Cleared,
                ..IntentVerdict::default()
            });
        }
        // An Intent that was too late when it was said is denied, and nothing is due of it.
        let in_time = intent.deadline > self.at;
        if in_time {
            self.timers.set(Timer {
                at: intent.deadline,
                leaf: self.leaf,
                kind: TimerKind::Intent(self.leaf),
            });
        }
        let request = IntentRequest {
            task,
            agent: self.author.producer,
            key: self.author.key,
            action: intent.action.in_payload(statement.payload),
            resource: intent.resource.in_payload(statement.payload),
            amount: intent.amount.map(|(minor_units, currency)| Quantity {
                minor_units,
                currency: currency.in_payload(statement.payload),
            }),
            grant: intent.grant,
            arguments: intent.arguments.is_some(),
            prompt: intent.prompt,
            model: intent.model,
            evidence: &[],
            expected: &intent.expected_effects,
        };
        let mut judgement = self.judge(&request)?;
        if intent.deadline.get() > 0 && !in_time {
            let detail = "its deadline had passed before it was recorded";
            judgement.deny(FindingKind::IntentLapsed, detail, None);
            judgement.conclude();
        }
        let mut act = Act {
            leaf: self.leaf,
            leaf_hash: copied(statement.leaf_hash.as_bytes()),
            payload_digest: copied(statement.digest().as_bytes()),
            task: copied(task.as_bytes()),
            key: copied(self.author.key_bytes()),
            at_us: self.at.get(),
            deadline_us: intent.deadline.get(),
            arguments: copied_of(
                intent
                    .arguments
                    .as_ref()
                    .map(|digest| &digest.as_bytes()[..]),
            ),
            prompt: intent.prompt,
            minor_units: request.amount.map(|amount| amount.minor_units),
            currency: request
                .amount
                .map_or_else(String::new, |amount| amount.currency.to_owned()),
            session: copied(statement.header.session.as_bytes()),
            resource: request.resource.to_owned(),
            ..Act::default()
        };
        self.keep_expected(&mut act, &intent.expected_effects);
        self.settle(&mut act, judgement)?;
        if act.state() == IntentState::Waiting {
            act.waiting = Some(request.waiting());
        }
        for (kind, value) in &statement.parsed.correlation_keys {
            self.correlate(kind, value, &act)?;
        }
        let verdict = IntentVerdict {
            state: act.state(),
            missing: act.missing.clone(),
            denied: act.denied.clone(),
        };
        self.put_act(act)?;
        Ok(verdict)
    }

    /// Keeps the effects that an Intent expects: once, for they do not change.
    fn keep_expected(&mut self, act: &mut Act, effects: &[Effect]) {
        if effects.is_empty() {
            return;
        }
        let expected = Expected {
            effects: effects.to_vec(),
        };
        act.expected = u32::try_from(effects.len()).unwrap_or(u32::MAX);
        act.expected_bytes = u32::try_from(expected.encoded_len()).unwrap_or(u32::MAX);
        self.cells.put(CellKey::Expected(act.leaf), expected);
    }

    /// Returns true if an Intent is cleared if its task is open, whatever else the ledger knows, and its
    /// entry holds all that is to be kept of it ([`ImplicitIntent`]).
    fn asks_for_nothing(&self, statement: &RecordedStatement<'_>, intent: &Intent) -> bool {
        self.trust.policy().is_none()
            && intent.grant.is_none()
            && intent.amount.is_none()
            && intent.deadline.get() == 0
            && intent.expected_effects.is_empty()
            // Else whoever looks among the acts of a correlation key would have to read their entries.
            && statement.parsed.correlation_keys.is_empty()
            && self.author.record.is_none_or(|key| key.revoked_at.is_none())
            && statement.received_at == self.at
    }

    /// Clears an Intent that asks for nothing but its open task; no cell is kept of it. Returns false if
    /// the task is not open.
    fn clear_implicitly(
        &mut self,
        id: TaskId,
        statement: &RecordedStatement<'_>,
        intent: &Intent,
    ) -> Result<bool, V::Error> {
        let open = self.cells.task(id)?;
        if open.is_none_or(|task| task.state() != TaskState::Open) {
            return Ok(false);
        }
        let row = table::find(Machine::Intent, State::New, Event::JudgedClear);
        debug_assert!(row.is_some_and(|row| row.to == State::Cleared));
        let event = digest::Event::Intent {
            leaf: self.leaf,
            intent: self.leaf,
            state: IntentState::Cleared,
        };
        self.note_in_task(id, &event)?;
        self.recent.push(ImplicitIntent {
            leaf: self.leaf,
            leaf_hash: statement.leaf_hash,
            payload_digest: statement.digest(),
            task: id,
            session: statement.header.session,
            sequence: statement.header.sequence,
            key: statement.key,
            received_at: statement.received_at,
            arguments: intent.arguments,
            prompt: intent.prompt,
            resource: intent.resource.in_payload(statement.payload).into(),
        });
        Ok(true)
    }
}
