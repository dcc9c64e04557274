//! The bodies that a story says: what they name is mostly there.

use bytes::Bytes;
use deed_proto::v1::{
    self, AuthenticationStrength, DispositionKind, OutcomeStatus, RiskTier, TaskEnd,
    statement::Body,
};

use super::{script::Script, story::Story};
use crate::ledger::{AGENT, ANYBODY, HELPER, Place, committed, intent, task_opened};

impl Story {
    pub(super) fn body(&self, script: &mut Script<'_>) -> Body {
        let now = self.ledger.now().get();
        match script.byte() % 16 {
            0 => {
                let mut body = task_opened(
                    script.pick(&[
                        RiskTier::Low,
                        RiskTier::Payment,
                        RiskTier::CustomerCommunication,
                        RiskTier::Deployment,
                        RiskTier::Deletion,
                    ]),
                    0,
                );
                if let Body::TaskOpened(opened) = &mut body {
                    opened.deadline_us = script.moment(now);
                }
                body
            }
            1 => Body::TaskClosed(v1::TaskClosed {
                end: script
                    .pick(&[TaskEnd::Completed, TaskEnd::HandedOver])
                    .into(),
                reason: String::new(),
            }),
            2 | 3 => Body::Grant(self.grant(script)),
            4 => Body::GrantAccepted(v1::GrantAccepted {
                grant: self.grant_hash(script),
            }),
            5 => Body::Revocation(v1::Revocation {
                grant: self.grant_hash(script),
                reason: String::new(),
            }),
            6 | 7 => Body::Intent(self.intent(script, now)),
            8 => Body::Outcome(self.outcome(script)),
            9 => Body::Decision(v1::Decision {
                intent: Some(self.leaf_ref(script)),
                verdict: script.verdict(),
                engine: "rules".into(),
                ..v1::Decision::default()
            }),
            10 => Body::Approval(v1::Approval {
                intent: Some(self.leaf_ref(script)),
                verdict: script.verdict(),
                shown: Some(committed("shown")),
                shown_at_us: script.moment(now),
                opened_at_us: script.moment(now),
                decided_at_us: script.moment(now),
                strength: script
                    .pick(&[
                        AuthenticationStrength::MultiFactor,
                        AuthenticationStrength::SingleFactor,
                        AuthenticationStrength::PhishingResistant,
                    ])
                    .into(),
                rationale: String::new(),
                assertion: None,
            }),
            11 | 12 => Body::Observation(v1::Observation {
                intent: script.pick(&[true, false]).then(|| self.leaf_ref(script)),
                effects: script.effects(),
                ..v1::Observation::default()
            }),
            13 => Body::Heartbeat(v1::Heartbeat {
                next_within_us: script.number(),
                ..v1::Heartbeat::default()
            }),
            14 => Body::SessionClosed(v1::SessionClosed::default()),
            _ => self.disposition(script),
        }
    }

    fn grant(&self, script: &mut Script<'_>) -> v1::Grant {
        let subject = script.pick(&[AGENT, HELPER, ANYBODY]);
        let parent = script.pick(&[false, true]);
        v1::Grant {
            subject: subject.producer.into(),
            subject_key: script
                .pick(&[None, subject.key()])
                .map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.as_bytes())),
            actions: script
                .pick(&[&["refund", "refund/*"][..], &["refund"], &["*"]])
                .iter()
                .map(ToString::to_string)
                .collect(),
            resources: vec![script.pick(&["orders/*", "orders/7", "*"]).into()],
            not_before_us: script.moment(self.ledger.now().get()),
            expires_us: script
                .moment(self.ledger.now().get())
                .max(script.pick(&[i64::MAX, 1])),
            uses: script.pick(&[0, 1, 2, u64::MAX]),
            amount: script.amount(),
            parent: if parent {
                self.grant_hash(script)
            } else {
                Bytes::new()
            },
            outside_token: script.token(),
            gateways: Vec::new(),
        }
    }

    fn intent(&self, script: &mut Script<'_>, now: i64) -> v1::Intent {
        let grant = script.pick(&[false, true]);
        v1::Intent {
            action: script.pick(&["refund", "refund/part", "mail"]).into(),
            amount: script.amount(),
            grant: if grant {
                self.grant_hash(script)
            } else {
                Bytes::new()
            },
            deadline_us: script.moment(now),
            arguments: script.commitment(),
            prompt: script.commitment(),
            model: script.pick(&["model-1", ""]).into(),
            ..intent(&script.resource(), 0, None)
        }
    }

    fn outcome(&self, script: &mut Script<'_>) -> v1::Outcome {
        let mut of = match self.intent_at(script) {
            Some(place) => place.statement_ref(),
            None => v1::StatementRef {
                payload_digest: vec![0; 32].into(),
                ..v1::StatementRef::default()
            },
        };
        match script.byte() {
            250 => of.session = Bytes::new(),
            251 => of.sequence += 1,
            252 => of.sequence = u64::MAX,
            253 => of.payload_digest = vec![0; 32].into(),
            _ => {}
        }
        v1::Outcome {
            intent: Some(of),
            status: script
                .pick(&[
                    OutcomeStatus::Succeeded,
                    OutcomeStatus::Failed,
                    OutcomeStatus::Reverted,
                    OutcomeStatus::NotDone,
                ])
                .into(),
            effects: script.effects(),
            tool_call: script.commitment(),
            response: script.commitment(),
            result: script.commitment(),
            arguments: script.commitment(),
        }
    }

    fn disposition(&self, script: &mut Script<'_>) -> Body {
        let nth = usize::from(script.byte());
        let (leaf_index, number) = match self.ledger.findings().nth(nth) {
            Some(finding) => (finding.leaf_index, finding.number),
            None => (u64::MAX, u32::MAX),
        };
        Body::FindingDisposition(v1::FindingDisposition {
            leaf_index,
            number,
            kind: script
                .pick(&[
                    DispositionKind::Explained,
                    DispositionKind::Disputed,
                    DispositionKind::Reviewed,
                ])
                .into(),
            reviewed_by: "https://example.org/people/ann".into(),
            reason: String::new(),
        })
    }

    /// The last Intent, the one before it, ...; from 240 on anything that was said.
    fn intent_at(&self, script: &mut Script<'_>) -> Option<&Place> {
        let back = usize::from(script.byte());
        let at = match back.checked_sub(240) {
            None => *nth_last(&self.intents, back)?,
            Some(back) => self.places.len().checked_sub(1 + back)?,
        };
        Some(&self.places[at].1)
    }

    /// The place of an Intent, or garbage.
    fn leaf_ref(&self, script: &mut Script<'_>) -> v1::LeafRef {
        let right = self.intent_at(script).map(Place::leaf_ref);
        let mut leaf = right.unwrap_or_else(|| v1::LeafRef {
            leaf_index: self.ledger.next_leaf(),
            leaf_hash: vec![0; 32].into(),
        });
        match script.byte() {
            250 => leaf.leaf_index += 1,
            251 => leaf.leaf_index = u64::MAX,
            252 => leaf.leaf_hash = vec![0; 32].into(),
            _ => {}
        }
        leaf
    }

    /// The last grant, the one before it, ...; or the leaf hash of something else, or none.
    fn grant_hash(&self, script: &mut Script<'_>) -> Bytes {
        let back = usize::from(script.byte());
        let at = match back.checked_sub(240) {
            None => nth_last(&self.grants, back).copied(),
            Some(back) => self.places.len().checked_sub(1 + back),
        };
        let hash = at.map(|at| self.places[at].1.hash);
        hash.map_or_else(
            || vec![0; 32].into(),
            |hash| Bytes::copy_from_slice(hash.as_bytes()),
        )
    }
}

fn nth_last<T>(all: &[T], back: usize) -> Option<&T> {
    all.get(all.len().checked_sub(1 + back)?)
}
