//! What a statement says, as far as it is assessed.

use bytes::Bytes;
use deed_proto::v1::{
    self, AuthenticationStrength, DispositionKind, OutcomeStatus, RiskTier, TaskEnd, Verdict,
    statement::Body,
};
use deed_tlog::Hash;
use prost::Message as _;

use crate::{
    CommitmentDigest, KeyId, Micros, PayloadDigest, Sequence, SessionId, WireError,
    schema::number,
    statement::fields::{Fields, Raw, texts},
};

/// A statement's part that assessment looks at. Bodies that say nothing about acts are
/// [`SaidBody::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When it happened, by the producer's clock; 0 if it does not say.
    pub occurred_at: Micros,
    /// What other systems call the same thing: kind and value, ascending.
    pub correlation_keys: Vec<(String, String)>,
    /// The body.
    pub body: SaidBody,
}

/// A body in the words of the field. What is large and not frequent is boxed: every statement on its
/// way to the step has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaidBody {
    /// Nothing about acts.
    Nothing,
    /// A task begins.
    TaskOpened {
        /// How much harm it may do.
        tier: RiskTier,
        /// When it ends by itself; 0 for never.
        deadline: Micros,
    },
    /// A task ends.
    TaskClosed {
        /// How.
        end: TaskEnd,
    },
    /// Somebody may do something.
    Grant(Box<Grant>),
    /// The subject takes a delegated grant on.
    GrantAccepted {
        /// Leaf hash of the grant.
        grant: Hash,
    },
    /// An act is about to happen.
    Intent(Intent),
    /// What came of it.
    Outcome(Box<Outcome>),
    /// A policy engine decided.
    Decision {
        /// Of which Intent.
        intent: LeafRef,
        /// How.
        verdict: Verdict,
    },
    /// Somebody approved or refused.
    Approval(Approval),
    /// A downstream system saw something change.
    Observation {
        /// Of which Intent, if it knows.
        intent: Option<LeafRef>,
        /// What changed.
        effects: Vec<Effect>,
        /// Time at which the system saw it, by its clock; 0 if it does not say.
        observed_at: Micros,
    },
    /// The producer lives.
    Heartbeat {
        /// The session's next statement comes within so many microseconds; 0 promises nothing.
        next_within_us: i64,
    },
    /// The session's last statement.
    SessionClosed,
    /// A grant ends.
    Revocation {
        /// Leaf hash of the grant.
        grant: Hash,
    },
    /// Somebody looked at a finding.
    Disposition {
        /// The leaf that it arose at.
        leaf: u64,
        /// Its number there.
        number: u32,
        /// What they say.
        kind: DispositionKind,
    },
    /// A key ends.
    KeyRevoked {
        /// Which one.
        key: KeyId,
        /// Since when somebody else may have had it.
        compromised_since: Option<Micros>,
    },
}

/// An entry by index and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafRef {
    /// Its leaf index.
    pub leaf: u64,
    /// Its leaf hash.
    pub hash: Hash,
}

/// Where a text stands in a payload of at most 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    at: u32,
    len: u32,
}

impl Span {
    /// The place of `part`, which was borrowed from `payload`.
    fn of(payload: &[u8], part: &[u8]) -> Self {
        let at = part.as_ptr().addr().wrapping_sub(payload.as_ptr().addr());
        Self {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            len: u32::try_from(part.len()).unwrap_or(u32::MAX),
        }
    }

    /// The text, in the payload that it was read from; empty in another.
    #[must_use]
    pub fn in_payload(self, payload: &[u8]) -> &str {
        let text = payload
            .get(self.at as usize..)
            .and_then(|rest| rest.get(..self.len as usize));
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }
}

/// A quantity in a currency's minor unit, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity<'a> {
    /// May be negative.
    pub minor_units: i64,
    /// ISO 4217, or another unit.
    pub currency: &'a str,
}

/// A quantity in a currency's minor unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    /// May be negative.
    pub minor_units: i64,
    /// ISO 4217, or another unit.
    pub currency: String,
}

/// What a grant allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who may act.
    pub subject: String,
    /// With which key; `None` for any of the subject's.
    pub subject_key: Option<KeyId>,
    /// Actions: exact, or prefixes that end in `/*`.
    pub actions: Vec<String>,
    /// Resources, likewise.
    pub resources: Vec<String>,
    /// From when on; 0 for at once.
    pub not_before: Micros,
    /// Until when, itself excluded.
    pub expires: Micros,
    /// Intents that may be cleared under it; 0 for any number.
    pub uses: u64,
    /// Sum of their amounts at most.
    pub amount: Option<Amount>,
    /// Leaf hash of the grant that it is a part of.
    pub parent: Option<Hash>,
    /// Kind and value of another system's credential.
    pub outside_token: Option<(String, String)>,
    /// Producers that may carry out what is cleared under it.
    pub gateways: Vec<String>,
}

/// What is about to be done. Its texts stay in the payload: most are never asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The action's name.
    pub action: Span,
    /// What it acts on.
    pub resource: Span,
    /// How much: minor units, and the currency.
    pub amount: Option<(i64, Span)>,
    /// Leaf hash of the grant that it relies on.
    pub grant: Option<Hash>,
    /// When its Outcome must be there; 0 for never.
    pub deadline: Micros,
    /// What it is called with.
    pub arguments: Option<CommitmentDigest>,
    /// Whether what led to it is committed to.
    pub prompt: bool,
    /// Whether the model is named.
    pub model: bool,
    /// The changes that it will make, where they are known before.
    pub expected_effects: Vec<Effect>,
}

/// What came of an Intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The Intent's session; `None` for the Outcome's own.
    pub session: Option<SessionId>,
    /// The Intent's sequence there.
    pub sequence: Sequence,
    /// The Intent's payload.
    pub payload_digest: PayloadDigest,
    /// How it went.
    pub status: OutcomeStatus,
    /// What it changed.
    pub effects: Vec<Effect>,
    /// Whether tool call, response and result are committed to.
    pub tool_call: bool,
    /// As above.
    pub response: bool,
    /// As above.
    pub result: bool,
    /// What the act was really called with, where it says so.
    pub arguments: Option<CommitmentDigest>,
}

/// An approval or a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    /// Of which Intent.
    pub intent: LeafRef,
    /// Yes or no.
    pub verdict: Verdict,
    /// When it was put before the approver; 0 if that is not said.
    pub shown_at: Micros,
    /// When they opened it; 0 if that is not said.
    pub opened_at: Micros,
    /// When they decided.
    pub decided_at: Micros,
    /// How they were authenticated.
    pub strength: AuthenticationStrength,
}

/// What an act changed, or was seen to change. As it is kept, too.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Effect {
    /// For example `reservation.cancelled`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// What was changed.
    #[prost(string, tag = "2")]
    pub resource: String,
    /// The downstream system's id of the change; may be empty.
    #[prost(string, tag = "3")]
    pub external_id: String,
    /// How much, in minor units.
    #[prost(int64, optional, tag = "4")]
    pub minor_units: Option<i64>,
    /// Of which currency; empty without an amount.
    #[prost(string, tag = "5")]
    pub currency: String,
    /// SHA-256 of the state before; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "6")]
    pub before: Bytes,
    /// SHA-256 of the state after; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "7")]
    pub after: Bytes,
}

impl Said {
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
        let body = statement.body.map_or(Ok(SaidBody::Nothing), read_body)?;
        Ok(Self {
            occurred_at: Micros::new(statement.occurred_at_us),
            correlation_keys: keys.into_iter().map(|key| (key.kind, key.value)).collect(),
            body,
        })
    }
}

/// The statement if it is an Intent, read in place: there are more of them than of anything else,
/// and decoding one takes longer than assessing it.
fn read_intent(payload: &[u8]) -> Option<Said> {
    let mut occurred_at = Micros::new(0);
    let mut correlation_keys = Vec::new();
    let mut body = None;
    for (field, value) in Fields(payload) {
        match (field, value) {
            (number::OCCURRED_AT_US, Raw::Number(us)) => {
                occurred_at = Micros::new(us.cast_signed())
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
    Some(Said {
        occurred_at,
        correlation_keys,
        body: SaidBody::Intent(intent),
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

fn read_body(body: Body) -> Result<SaidBody, WireError> {
    Ok(match body {
        Body::TaskOpened(opened) => SaidBody::TaskOpened {
            tier: opened.risk_tier(),
            deadline: Micros::new(opened.deadline_us),
        },
        Body::TaskClosed(closed) => SaidBody::TaskClosed { end: closed.end() },
        Body::Grant(grant) => SaidBody::Grant(Box::new(read_grant(grant)?)),
        Body::GrantAccepted(accepted) => SaidBody::GrantAccepted {
            grant: hash("grant_accepted.grant", &accepted.grant)?,
        },
        Body::Outcome(outcome) => SaidBody::Outcome(Box::new(read_outcome(outcome)?)),
        Body::Decision(decision) => SaidBody::Decision {
            intent: leaf_ref("decision.intent", decision.intent.as_ref())?,
            verdict: decision.verdict(),
        },
        Body::Approval(approval) => SaidBody::Approval(Approval {
            intent: leaf_ref("approval.intent", approval.intent.as_ref())?,
            verdict: approval.verdict(),
            shown_at: Micros::new(approval.shown_at_us),
            opened_at: Micros::new(approval.opened_at_us),
            decided_at: Micros::new(approval.decided_at_us),
            strength: approval.strength(),
        }),
        Body::Observation(observation) => SaidBody::Observation {
            intent: observation
                .intent
                .as_ref()
                .map(|intent| leaf_ref("observation.intent", Some(intent)))
                .transpose()?,
            effects: observation.effects.into_iter().map(effect).collect(),
            observed_at: Micros::new(observation.observed_at_us),
        },
        Body::Heartbeat(heartbeat) => SaidBody::Heartbeat {
            next_within_us: heartbeat.next_within_us,
        },
        Body::SessionClosed(_) => SaidBody::SessionClosed,
        Body::Revocation(revocation) => SaidBody::Revocation {
            grant: hash("revocation.grant", &revocation.grant)?,
        },
        Body::FindingDisposition(disposition) => SaidBody::Disposition {
            leaf: disposition.leaf_index,
            number: disposition.number,
            kind: disposition.kind(),
        },
        Body::KeyRevoked(revoked) => SaidBody::KeyRevoked {
            key: KeyId::from_slice(&revoked.key_id)
                .ok_or_else(|| WireError::rule("key_revoked.key_id", "has not 16 bytes"))?,
            compromised_since: revoked.compromised_since_us.map(Micros::new),
        },
        // Intents are read in place.
        Body::Intent(_)
        | Body::Genesis(_)
        | Body::Tick(_)
        | Body::Clearance(_)
        | Body::TaskReceipt(_)
        | Body::AuthoritiesChanged(_)
        | Body::KeyRegistered(_)
        | Body::PrincipalBound(_)
        | Body::PolicySet(_)
        | Body::RetentionSet(_)
        | Body::LegalHoldPlaced(_)
        | Body::LegalHoldReleased(_)
        | Body::LogKeyRotated(_)
        | Body::Erasure(_) => SaidBody::Nothing,
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
        /// What is read in place is what a decoder gives.
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
                body: Some(Body::Intent(intent.clone())),
                ..v1::Statement::default()
            };
            let payload = statement::encode(&made).unwrap();
            let said = Said::read(&payload).unwrap();
            prop_assert_eq!(said.occurred_at.get(), occurred_at_us);
            prop_assert_eq!(said.correlation_keys, keys.into_iter().collect::<Vec<_>>());
            let SaidBody::Intent(read) = said.body else {
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
            let _ = Said::read(&payload.into());
        }
    }

    #[test]
    fn a_span_of_another_payload_is_empty() {
        let payload = b"action";
        let span = Span::of(payload, &payload[3..]);
        assert_eq!(span.in_payload(payload), "ion");
        assert_eq!(span.in_payload(b"act"), "");
        assert_eq!(Span::of(b"one", b"other").in_payload(b""), "");
    }
}
