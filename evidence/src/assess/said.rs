//! What a statement says, as far as it is assessed.

use bytes::Bytes;
use deed_proto::v1::{
    self, AuthenticationStrength, DispositionKind, OutcomeStatus, RiskTier, TaskEnd, Verdict,
    statement::Body,
};
use deed_tlog::Hash;
use prost::Message as _;

use crate::{CommitmentDigest, KeyId, Micros, PayloadDigest, Sequence, SessionId, WireError};

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

/// A body in the words of the field.
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
    Grant(Grant),
    /// The subject takes a delegated grant on.
    GrantAccepted {
        /// Leaf hash of the grant.
        grant: Hash,
    },
    /// An act is about to happen.
    Intent(Intent),
    /// What came of it.
    Outcome(Outcome),
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
}

/// What is about to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The action's name.
    pub action: String,
    /// What it acts on.
    pub resource: String,
    /// How much.
    pub amount: Option<Amount>,
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

fn read_body(body: Body) -> Result<SaidBody, WireError> {
    Ok(match body {
        Body::TaskOpened(opened) => SaidBody::TaskOpened {
            tier: opened.risk_tier(),
            deadline: Micros::new(opened.deadline_us),
        },
        Body::TaskClosed(closed) => SaidBody::TaskClosed { end: closed.end() },
        Body::Grant(grant) => SaidBody::Grant(read_grant(grant)?),
        Body::GrantAccepted(accepted) => SaidBody::GrantAccepted {
            grant: hash("grant_accepted.grant", &accepted.grant)?,
        },
        Body::Intent(intent) => SaidBody::Intent(Intent {
            amount: intent.amount.map(amount),
            grant: optional_hash("intent.grant", &intent.grant)?,
            deadline: Micros::new(intent.deadline_us),
            arguments: digest(intent.arguments.as_ref()),
            prompt: intent.prompt.is_some(),
            model: !intent.model.is_empty(),
            action: intent.action,
            resource: intent.resource,
        }),
        Body::Outcome(outcome) => SaidBody::Outcome(read_outcome(outcome)?),
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
        _ => SaidBody::Nothing,
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
