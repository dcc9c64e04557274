//! Reading a statement's payload for assessment.

use bytes::Bytes;
use deed_proto::v1::{self, statement};
use deed_tlog::Hash;
use prost::Message as _;

use super::{Amount, Approval, Body, Effect, Grant, Intent, LeafRef, Outcome, ParsedBody, Span};
use crate::{
    CommitmentDigest, KeyId, Micros, PayloadDigest, Sequence, SessionId, WireError,
    schema::number,
    statement::fields::{Fields, Raw, texts},
};

impl ParsedBody {
    /// Reads a payload that [`statement::parse`](crate::statement::parse) accepts.
    ///
    /// # Errors
    /// [`WireError`] if it does not decode, which after `parse` is a defect.
    pub fn read(payload: &Bytes) -> Result<Self, WireError> {
        if let Some(intent) = read_intent(payload) {
            return Ok(intent);
        }
        let statement = v1::Statement::decode(payload.clone())
            .map_err(|_| WireError::rule("message", "does not decode"))?;
        let keys = statement.correlation_keys;
        let body = statement.body.map_or(Ok(Body::Nothing), read_body)?;
        Ok(Self {
            occurred_at: Micros::new(statement.occurred_at_us),
            correlation_keys: keys.into_iter().map(|key| (key.kind, key.value)).collect(),
            body,
        })
    }
}

/// The statement if it is an Intent, read in place: there are more of them than of anything else,
/// and decoding one takes longer than assessing it.
fn read_intent(payload: &[u8]) -> Option<ParsedBody> {
    let mut occurred_at = Micros::new(0);
    let mut correlation_keys = Vec::new();
    let mut body = None;
    for (field, value) in Fields(payload) {
        match (field, value) {
            (number::OCCURRED_AT_US, Raw::Number(us)) => {
                occurred_at = Micros::new(us.cast_signed());
            }
            (number::CORRELATION_KEYS, Raw::Text(key)) => {
                let [kind, value] = texts(key, [1, 2]).map(String::from_utf8_lossy);
                correlation_keys.push((kind.into_owned(), value.into_owned()));
            }
            (number::INTENT, Raw::Text(intent)) => body = Some(intent),
            _ => {}
        }
    }
    let mut intent = Intent {
        action: Span::default(),
        resource: Span::default(),
        amount: None,
        grant: None,
        deadline: Micros::new(0),
        arguments: None,
        prompt: false,
        model: false,
        expected_effects: Vec::new(),
    };
    let span = |part| Span::of(payload, part);
    for (field, value) in Fields(body?) {
        match (field, value) {
            (1, Raw::Text(action)) => intent.action = span(action),
            (2, Raw::Text(resource)) => intent.resource = span(resource),
            (3, Raw::Text(amount)) => intent.amount = Some(quantity(payload, amount)),
            (4, Raw::Text(grant)) => intent.grant = Hash::try_from(grant).ok(),
            (5, Raw::Number(us)) => intent.deadline = Micros::new(us.cast_signed()),
            (6, Raw::Text(arguments)) => {
                let [digest] = texts(arguments, [1]);
                intent.arguments = CommitmentDigest::from_slice(digest);
            }
            (7, Raw::Text(_)) => intent.prompt = true,
            (8, Raw::Text(_)) => intent.model = true,
            (12, Raw::Text(expected)) => {
                let expected = v1::Effect::decode(expected).ok()?;
                intent.expected_effects.push(effect(expected));
            }
            _ => {}
        }
    }
    Some(ParsedBody {
        occurred_at,
        correlation_keys,
        body: Body::Intent(intent),
    })
}

fn quantity(payload: &[u8], amount: &[u8]) -> (i64, Span) {
    let mut found = (0, Span::default());
    for (field, value) in Fields(amount) {
        match (field, value) {
            (1, Raw::Number(units)) => found.0 = units.cast_signed(),
            (2, Raw::Text(currency)) => found.1 = Span::of(payload, currency),
            _ => {}
        }
    }
    found
}

fn read_body(body: statement::Body) -> Result<Body, WireError> {
    Ok(match body {
        statement::Body::TaskOpened(opened) => Body::TaskOpened {
            tier: opened.risk_tier(),
            deadline: Micros::new(opened.deadline_us),
        },
        statement::Body::TaskClosed(closed) => Body::TaskClosed { end: closed.end() },
        statement::Body::Grant(grant) => Body::Grant(Box::new(read_grant(grant)?)),
        statement::Body::GrantAccepted(accepted) => Body::GrantAccepted {
            grant: hash("grant_accepted.grant", &accepted.grant)?,
        },
        statement::Body::Outcome(outcome) => Body::Outcome(Box::new(read_outcome(outcome)?)),
        statement::Body::Decision(decision) => Body::Decision {
            intent: leaf_ref("decision.intent", decision.intent.as_ref())?,
            verdict: decision.verdict(),
        },
        statement::Body::Approval(approval) => Body::Approval(Approval {
            intent: leaf_ref("approval.intent", approval.intent.as_ref())?,
            verdict: approval.verdict(),
            shown_at: Micros::new(approval.shown_at_us),
            opened_at: Micros::new(approval.opened_at_us),
            decided_at: Micros::new(approval.decided_at_us),
            strength: approval.strength(),
        }),
        statement::Body::Observation(observation) => Body::Observation {
            intent: observation
                .intent
                .as_ref()
                .map(|intent| leaf_ref("observation.intent", Some(intent)))
                .transpose()?,
            effects: observation.effects.into_iter().map(effect).collect(),
            observed_at: Micros::new(observation.observed_at_us),
        },
        statement::Body::Heartbeat(heartbeat) => Body::Heartbeat {
            next_within_us: heartbeat.next_within_us,
        },
        statement::Body::SessionClosed(_) => Body::SessionClosed,
        statement::Body::Revocation(revocation) => Body::Revocation {
            grant: hash("revocation.grant", &revocation.grant)?,
        },
        statement::Body::FindingDisposition(disposition) => Body::Disposition {
            leaf: disposition.leaf_index,
            number: disposition.number,
            kind: disposition.kind(),
        },
        statement::Body::KeyRevoked(revoked) => Body::KeyRevoked {
            key: KeyId::from_slice(&revoked.key_id)
                .ok_or_else(|| WireError::rule("key_revoked.key_id", "has not 16 bytes"))?,
            compromised_since: revoked.compromised_since_us.map(Micros::new),
        },
        // Intents are read in place.
        statement::Body::Intent(_)
        | statement::Body::Genesis(_)
        | statement::Body::Tick(_)
        | statement::Body::Clearance(_)
        | statement::Body::TaskReceipt(_)
        | statement::Body::AuthoritiesChanged(_)
        | statement::Body::KeyRegistered(_)
        | statement::Body::PrincipalBound(_)
        | statement::Body::PolicySet(_)
        | statement::Body::RetentionSet(_)
        | statement::Body::LegalHoldPlaced(_)
        | statement::Body::LegalHoldReleased(_)
        | statement::Body::LogKeyRotated(_)
        | statement::Body::Erasure(_) => Body::Nothing,
    })
}

fn read_grant(grant: v1::Grant) -> Result<Grant, WireError> {
    Ok(Grant {
        subject_key: KeyId::from_slice(&grant.subject_key),
        not_before: Micros::new(grant.not_before_us),
        expires: Micros::new(grant.expires_us),
        uses: grant.uses,
        amount: grant.amount.map(amount),
        parent: optional_hash("grant.parent", &grant.parent)?,
        outside_token: grant.outside_token.map(|token| (token.kind, token.value)),
        gateways: grant.gateways,
        subject: grant.subject,
        actions: grant.actions,
        resources: grant.resources,
    })
}

fn read_outcome(outcome: v1::Outcome) -> Result<Outcome, WireError> {
    let status = outcome.status();
    let intent = outcome.intent.unwrap_or_default();
    Ok(Outcome {
        session: SessionId::from_slice(&intent.session),
        sequence: Sequence::new(intent.sequence),
        payload_digest: PayloadDigest::from_slice(&intent.payload_digest)
            .ok_or_else(|| WireError::rule("outcome.intent.payload_digest", "has not 32 bytes"))?,
        status,
        tool_call: outcome.tool_call.is_some(),
        response: outcome.response.is_some(),
        result: outcome.result.is_some(),
        arguments: digest(outcome.arguments.as_ref()),
        effects: outcome.effects.into_iter().map(effect).collect(),
    })
}

fn effect(effect: v1::Effect) -> Effect {
    let (minor_units, currency) = match effect.amount {
        Some(amount) => (Some(amount.minor_units), amount.currency),
        None => (None, String::new()),
    };
    Effect {
        kind: effect.kind,
        resource: effect.resource,
        external_id: effect.external_id,
        minor_units,
        currency,
        before: effect.before_digest,
        after: effect.after_digest,
    }
}

fn amount(amount: v1::Amount) -> Amount {
    Amount {
        minor_units: amount.minor_units,
        currency: amount.currency,
    }
}

fn digest(commitment: Option<&v1::Commitment>) -> Option<CommitmentDigest> {
    commitment.and_then(|commitment| CommitmentDigest::from_slice(&commitment.digest))
}

fn leaf_ref(field: &'static str, leaf: Option<&v1::LeafRef>) -> Result<LeafRef, WireError> {
    let leaf = leaf.ok_or_else(|| WireError::rule(field, "is required"))?;
    Ok(LeafRef {
        leaf: leaf.leaf_index,
        hash: hash(field, &leaf.leaf_hash)?,
    })
}

/// The walk has been here: these cannot fail, and a defect there must not become a panic here.
fn hash(field: &'static str, bytes: &[u8]) -> Result<Hash, WireError> {
    Hash::try_from(bytes).map_err(|_| WireError::rule(field, "has not 32 bytes"))
}

fn optional_hash(field: &'static str, bytes: &[u8]) -> Result<Option<Hash>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    hash(field, bytes).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::statement;

    fn commitment() -> impl Strategy<Value = Option<v1::Commitment>> {
        prop::option::of(any::<[u8; 32]>().prop_map(|digest| v1::Commitment {
            digest: Bytes::copy_from_slice(&digest),
            media_type: "application/json".to_owned(),
        }))
    }

    prop_compose! {
        fn intent()(
            action in "[a-z]{1,9}",
            resource in "[a-zé]{1,200}",
            amount in prop::option::of((any::<i64>(), "[A-Z]{3,16}")),
            grant in prop::option::of(any::<[u8; 32]>()),
            deadline_us in 0..=i64::MAX,
            arguments in commitment(),
            prompt in commitment(),
            model in "[a-z]{0,9}",
            tool_call_id in "[a-z]{0,9}",
            expected in prop::collection::vec(("[a-z]{1,9}", prop::option::of(any::<i64>())), 0..3),
        ) -> v1::Intent {
            v1::Intent {
                action,
                resource,
                amount: amount.map(|(minor_units, currency)| v1::Amount { minor_units, currency }),
                grant: grant.map_or_else(Bytes::new, |grant| Bytes::copy_from_slice(&grant)),
                deadline_us,
                arguments,
                prompt,
                model,
                tool_call_id,
                expected_effects: expected
                    .into_iter()
                    .map(|(kind, minor_units)| v1::Effect {
                        kind,
                        resource: "orders/7".to_owned(),
                        amount: minor_units.map(|minor_units| v1::Amount {
                            minor_units,
                            currency: "EUR".to_owned(),
                        }),
                        ..v1::Effect::default()
                    })
                    .collect(),
                ..v1::Intent::default()
            }
        }
    }

    proptest! {
        /// Reading in place gives the same as decoding.
        #[test]
        fn an_intent_says_what_it_was_made_of(
            intent in intent(),
            occurred_at_us in 0..=i64::MAX,
            keys in prop::collection::btree_map("[a-z]{1,9}", "[a-z]{1,9}", 0..3),
        ) {
            let made = v1::Statement {
                ledger_id: Bytes::from_static(&[1; 32]),
                producer: "spiffe://example.org/agent".to_owned(),
                session: Bytes::from_static(&[2; 16]),
                task: Bytes::from_static(&[9; 16]),
                occurred_at_us,
                correlation_keys: keys
                    .iter()
                    .map(|(kind, value)| v1::CorrelationKey {
                        kind: kind.clone(),
                        value: value.clone(),
                    })
                    .collect(),
                body: Some(v1::statement::Body::Intent(intent.clone())),
                ..v1::Statement::default()
            };
            let payload = statement::encode(&made).unwrap();
            let said = ParsedBody::read(&payload).unwrap();
            prop_assert_eq!(said.occurred_at.get(), occurred_at_us);
            prop_assert_eq!(said.correlation_keys, keys.into_iter().collect::<Vec<_>>());
            let Body::Intent(read) = said.body else {
                return Err(TestCaseError::fail("not an Intent"));
            };
            prop_assert_eq!(read.action.in_payload(&payload), intent.action);
            prop_assert_eq!(read.resource.in_payload(&payload), intent.resource);
            let amount = read.amount.map(|(minor_units, currency)| v1::Amount {
                minor_units,
                currency: currency.in_payload(&payload).to_owned(),
            });
            prop_assert_eq!(amount, intent.amount);
            let grant = read.grant.map_or_else(Bytes::new, |grant| {
                Bytes::copy_from_slice(grant.as_bytes())
            });
            prop_assert_eq!(grant, intent.grant);
            prop_assert_eq!(read.deadline.get(), intent.deadline_us);
            prop_assert_eq!(read.arguments, digest(intent.arguments.as_ref()));
            prop_assert_eq!(read.prompt, intent.prompt.is_some());
            prop_assert_eq!(read.model, !intent.model.is_empty());
            let expected = intent.expected_effects.into_iter().map(effect);
            prop_assert_eq!(read.expected_effects, expected.collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ParsedBody::read(&payload.into());
        }
    }
}
