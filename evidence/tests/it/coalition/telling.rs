//! Telling a history to a ledger.

use super::*;

impl Telling {
    pub(super) fn new(policy: bool) -> Self {
        let mut ledger = Ledger::new();
        for who in OTHERS {
            ledger.register_as(who, |registered| {
                if who == SHOP {
                    // The effects of these histories are not on its resources.
                    registered.resources = vec!["stock/*".into()];
                }
            });
        }
        if policy {
            ledger.set_default_policy();
        }
        ledger.at(STEP_S);
        Self {
            ledger,
            grant: None,
            intents: Vec::new(),
        }
    }

    pub(super) fn intent(&self, which: Which) -> Option<&Place> {
        match which {
            Which::First => self.intents.first(),
            Which::Newest => self.intents.last(),
        }
    }

    /// Says something, if there is what it is about and the ledger takes it.
    pub(super) fn utter(&mut self, who: Who, said: Utterance) -> Option<Place> {
        let (mut order, mut task) = (false, Some(TASK));
        let body = match said {
            Utterance::Opens(tier) => task_opened(tier, 0),
            Utterance::Closes => task_closed(),
            Utterance::Grants { token } => Body::Grant(v1::Grant {
                outside_token: token.then(outside_token),
                ..grant(who)
            }),
            Utterance::Accepts => accepted(self.grant.as_ref()?.hash),
            Utterance::Revokes => revocation(self.grant.as_ref()?.hash),
            Utterance::Intends {
                grant,
                order: named,
                effects,
                deadline,
            } => {
                order = named;
                let (resource, cents) = effects.intent();
                let granted = self.grant.as_ref().filter(|_| grant);
                let mut made = intent(resource, cents, granted.map(|grant| grant.hash));
                if deadline {
                    made.deadline_us = self.ledger.now().get() + 90_000_000;
                }
                Body::Intent(made)
            }
            Utterance::Reports {
                of,
                status,
                effects,
            } => outcome(self.intent(of)?, status, effects.list()),
            Utterance::Decides { of, verdict } => decision(self.intent(of)?, verdict),
            Utterance::Approves { of, verdict } => {
                approval(self.intent(of)?, verdict, self.ledger.now())
            }
            Utterance::Sees { of, effects } => {
                let named = match of {
                    Named::Intent(which) => Some(self.intent(which)?),
                    Named::Order => {
                        order = true;
                        None
                    }
                    Named::Task => None,
                    Named::Token => {
                        task = None;
                        None
                    }
                };
                observation(named, effects.list())
            }
            Utterance::Promises => {
                task = None;
                heartbeat(0, 120)
            }
        };
        let (is_promise, opens) = (
            matches!(body, Body::Heartbeat(_)),
            matches!(body, Body::TaskOpened(_)),
        );
        let id = self.task();
        let by_token = matches!(
            said,
            Utterance::Sees {
                of: Named::Token,
                ..
            }
        );
        let place = self.ledger.try_say(who, task, body, |made| {
            if order {
                made.correlation_keys = vec![key(ORDER)];
            }
            if by_token {
                made.correlation_keys = vec![key(TOKEN)];
            }
            if opens {
                // This very task, whoever's it is.
                made.task = id.as_bytes().to_vec().into();
            }
            if is_promise {
                made.body = Some(heartbeat(made.sequence, 120));
            }
        });
        place.ok()
    }

    /// The next statement of a history comes a minute later.
    pub(super) fn step(&mut self) {
        let later = self.ledger.now().get() - TIME_US;
        self.ledger.at(later / 1_000_000 + STEP_S);
    }

    pub(super) fn grants(&mut self) -> Place {
        let body = Body::Grant(v1::Grant {
            outside_token: Some(outside_token()),
            ..grant(AGENT)
        });
        let place = self.ledger.say(AUTHORITY, Some(TASK), body);
        self.grant = Some(place.clone());
        place
    }

    /// The agent's Intent to refund 500 EUR of order 7.
    pub(super) fn intends(&mut self) -> Place {
        let granted = self.grant.as_ref().map(|grant| grant.hash);
        let body = Body::Intent(intent("orders/7", 500, granted));
        let named = |made: &mut v1::Statement| made.correlation_keys = vec![key(ORDER)];
        let place = self.ledger.try_say(AGENT, Some(TASK), body, named).unwrap();
        self.intents.push(place.clone());
        place
    }

    pub(super) fn says(&mut self, who: Who, body: Body) -> Place {
        self.ledger.say(who, Some(TASK), body)
    }

    /// The id of the task, and the only place where it is made.
    pub(super) fn task(&self) -> TaskId {
        self.ledger.task_id(TASK)
    }

    pub(super) fn receipts(&self) -> usize {
        let entries = self.ledger.entries().iter();
        let is_receipt = |bytes: &&bytes::Bytes| {
            let entry = Entry::parse(bytes).unwrap();
            statement::parse(entry.payload).is_ok_and(|said| {
                said.body == BodyKind::TaskReceipt && said.task == Some(self.task())
            })
        };
        entries.filter(is_receipt).count()
    }
}

fn key((kind, value): (&str, &str)) -> v1::CorrelationKey {
    v1::CorrelationKey {
        kind: kind.into(),
        value: value.into(),
    }
}

fn outside_token() -> v1::OutsideToken {
    v1::OutsideToken {
        kind: TOKEN.0.into(),
        value: TOKEN.1.into(),
        ..v1::OutsideToken::default()
    }
}
