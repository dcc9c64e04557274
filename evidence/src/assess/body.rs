//! The body of a statement, as far as it is assessed.

mod read;

use bytes::Bytes;
use deed_proto::v1::{
    AuthenticationStrength, DispositionKind, OutcomeStatus, RiskTier, TaskEnd, Verdict,
};
use deed_tlog::Hash;

use crate::{CommitmentDigest, KeyId, Micros, PayloadDigest, Sequence, SessionId};

/// The part of a statement that is assessed. Bodies that say nothing about acts are
/// [`Body::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedBody {
    /// Time of the event, by the producer's clock; 0 if it does not say.
    pub occurred_at: Micros,
    /// Names that other systems have for the same thing: kind and value, ascending.
    pub correlation_keys: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// A body, with the fields that are assessed. Large bodies that are rare are boxed, because every
/// statement on its way to the step holds one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing about acts.
    Nothing,
    /// A task begins.
    TaskOpened {
        /// The harm that it may do.
        tier: RiskTier,
        /// Time at which it ends by itself; 0 for never.
        deadline: Micros,
    },
    /// A task ends.
    TaskClosed {
        /// The way it ended.
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
    /// The outcome of an act.
    Outcome(Box<Outcome>),
    /// A policy engine decided.
    Decision {
        /// Its Intent.
        intent: LeafRef,
        /// The decision.
        verdict: Verdict,
    },
    /// Somebody approved or refused.
    Approval(Approval),
    /// A downstream system saw something change.
    Observation {
        /// Its Intent, if the system knows it.
        intent: Option<LeafRef>,
        /// Changes that it saw.
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
        /// The disposition.
        kind: DispositionKind,
    },
    /// A key ends.
    KeyRevoked {
        /// The key.
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

/// The place of a text in a payload of at most 64 KiB.
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

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The producer that may act.
    pub subject: String,
    /// The key that it must use; `None` for any of the subject's.
    pub subject_key: Option<KeyId>,
    /// Actions: exact, or prefixes that end in `/*`.
    pub actions: Vec<String>,
    /// Resources, likewise.
    pub resources: Vec<String>,
    /// Time from which on it is in force; 0 for at once.
    pub not_before: Micros,
    /// Time of its end, itself excluded.
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

/// An Intent. Its texts stay in the payload: most are never asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The action's name.
    pub action: Span,
    /// The resource that it acts on.
    pub resource: Span,
    /// The amount: minor units, and the currency.
    pub amount: Option<(i64, Span)>,
    /// Leaf hash of the grant that it relies on.
    pub grant: Option<Hash>,
    /// Time by which its Outcome must be there; 0 for never.
    pub deadline: Micros,
    /// The digest of its arguments.
    pub arguments: Option<CommitmentDigest>,
    /// True if the prompt that led to it is committed to.
    pub prompt: bool,
    /// True if the model is named.
    pub model: bool,
    /// The changes that it will make, where they are known before.
    pub expected_effects: Vec<Effect>,
}

/// The Outcome of an Intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The Intent's session; `None` for the Outcome's own.
    pub session: Option<SessionId>,
    /// The Intent's sequence there.
    pub sequence: Sequence,
    /// The Intent's payload.
    pub payload_digest: PayloadDigest,
    /// The result in one word.
    pub status: OutcomeStatus,
    /// Changes that it declares.
    pub effects: Vec<Effect>,
    /// True if the tool call is committed to.
    pub tool_call: bool,
    /// True if the response is committed to.
    pub response: bool,
    /// True if the result is committed to.
    pub result: bool,
    /// The digest of the arguments that were really used, where it says so.
    pub arguments: Option<CommitmentDigest>,
}

/// An approval or a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    /// Its Intent.
    pub intent: LeafRef,
    /// Yes or no.
    pub verdict: Verdict,
    /// Time at which it was put before the approver; 0 if that is not said.
    pub shown_at: Micros,
    /// Time at which they opened it; 0 if that is not said.
    pub opened_at: Micros,
    /// Time of the decision.
    pub decided_at: Micros,
    /// The strength of their authentication.
    pub strength: AuthenticationStrength,
}

/// A change that an act made, or was seen to make; stored in this form, too.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Effect {
    /// For example `reservation.cancelled`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The resource that was changed.
    #[prost(string, tag = "2")]
    pub resource: String,
    /// The downstream system's id of the change; may be empty.
    #[prost(string, tag = "3")]
    pub external_id: String,
    /// The amount in minor units.
    #[prost(int64, optional, tag = "4")]
    pub minor_units: Option<i64>,
    /// The currency; empty without an amount.
    #[prost(string, tag = "5")]
    pub currency: String,
    /// SHA-256 of the state before; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "6")]
    pub before: Bytes,
    /// SHA-256 of the state after; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "7")]
    pub after: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_another_payload_is_empty() {
        let payload = b"action";
        let span = Span::of(payload, &payload[3..]);
        assert_eq!(span.in_payload(payload), "ion");
        assert_eq!(span.in_payload(b"act"), "");
        assert_eq!(Span::of(b"one", b"other").in_payload(b""), "");
    }
}
