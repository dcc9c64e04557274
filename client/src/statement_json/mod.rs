//! Statements as JSON, for people and scripts.
//!
//! The names are those of `deed/v1/statement.proto`. Byte fields are lower hex, enum values short
//! lower-case names (`"succeeded"`, `"payment"`), numbers are JSON numbers. The body stands beside
//! the header under its own name:
//!
//! ```json
//! {"producer": "spiffe://example.org/agent", "task": "000102030405060708090a0b0c0d0e0f",
//!  "task_opened": {"requested_by": "order-service", "risk_tier": "low"}}
//! ```
//!
//! In place of a commitment (`{"digest": ..., "media_type": ...}`) the content may stand itself, as
//! `{"file": "call.json", "media_type": "application/json"}` or `{"text": "...", "media_type":
//! "text/plain"}`; see [`StatementJson::resolve`].
//!
//! What is left out has its default, as in the binary form. Unknown names are errors: a field
//! that was mistyped must not vanish from evidence.

mod act_bodies;
mod bodies;
mod commitment;
mod hex_bytes;
mod trust_bodies;

use bytes::Bytes;
use deed_evidence::{LedgerId, Micros, Nonce, Sequence, SessionId};
use deed_proto::v1::{self, statement::Body};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use act_bodies::{
    ApprovalJson, ClearanceJson, DecisionJson, FindingDispositionJson, GrantAcceptedJson,
    GrantJson, ObservationJson, RevocationJson, TaskReceiptJson, TickJson,
};
use bodies::{
    CorrelationKeyJson, GenesisJson, HeartbeatJson, IntentJson, OutcomeJson, SessionClosedJson,
    TaskClosedJson, TaskOpenedJson,
};
pub use commitment::{ContentJson, ContentSource};
use hex_bytes::HexBytes;
use trust_bodies::{
    AuthoritiesChangedJson, ErasureJson, KeyRegisteredJson, KeyRevokedJson, LegalHoldPlacedJson,
    LegalHoldReleasedJson, LogKeyRotatedJson, PolicySetJson, PrincipalBoundJson, RetentionSetJson,
};

/// A statement in JSON, read but not completed yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger_id: Option<HexBytes>,
    producer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<HexBytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "HexBytes::is_empty")]
    previous: HexBytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    occurred_at_us: Option<i64>,
    #[serde(default, skip_serializing_if = "HexBytes::is_empty")]
    task: HexBytes,
    #[serde(default, skip_serializing_if = "HexBytes::is_empty")]
    trace_id: HexBytes,
    #[serde(default, skip_serializing_if = "HexBytes::is_empty")]
    span_id: HexBytes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    correlation_keys: Vec<CorrelationKeyJson>,
    /// Stands in place of the session, too, in any of its statements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<HexBytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    genesis: Option<GenesisJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tick: Option<TickJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clearance: Option<ClearanceJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_receipt: Option<TaskReceiptJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_opened: Option<TaskOpenedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_closed: Option<TaskClosedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<GrantJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant_accepted: Option<GrantAcceptedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intent: Option<IntentJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observation: Option<ObservationJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heartbeat: Option<HeartbeatJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_closed: Option<SessionClosedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revocation: Option<RevocationJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finding_disposition: Option<FindingDispositionJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authorities_changed: Option<AuthoritiesChangedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_registered: Option<KeyRegisteredJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_revoked: Option<KeyRevokedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal_bound: Option<PrincipalBoundJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy_set: Option<PolicySetJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_set: Option<RetentionSetJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    legal_hold_placed: Option<LegalHoldPlacedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    legal_hold_released: Option<LegalHoldReleasedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log_key_rotated: Option<LogKeyRotatedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    erasure: Option<ErasureJson>,
}

/// What fills in the fields that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// Session and sequence, for a statement that names neither.
    pub place: Option<(SessionId, Sequence)>,
    /// The nonce that the session is derived from.
    pub nonce: Option<Nonce>,
    /// When it happened.
    pub occurred_at: Micros,
}

/// Why JSON is no statement.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON, or not of this form. The message names the field or the column.
    #[error("{reason}")]
    Form {
        /// What is wrong.
        reason: String,
    },
    /// No body, or several.
    #[error("a statement has exactly one body ({names}), found {found}", names = BODY_NAMES.join(", "))]
    Bodies {
        /// How many there are.
        found: usize,
    },
    /// Session without sequence, or the other way round.
    #[error("session (or its nonce) and sequence go together: give both or neither")]
    HalfPlace,
    /// No place, and none to fill in.
    #[error("session and sequence are missing")]
    NoPlace,
    /// Two objectives.
    #[error("task_opened: give objective_text or objective_commitment, not both")]
    Objectives,
    /// Two scopes.
    #[error("legal_hold_placed: give task or commitment, not both")]
    Scopes,
    /// A content where only a copy of a commitment belongs.
    #[error("{slot}: give the digest of the Intent's arguments; a copy is no content of its own")]
    Copy {
        /// The field.
        slot: &'static str,
    },
    /// Not exactly one of digest and content.
    #[error("{slot}: give exactly one of digest, file and text")]
    Commitment {
        /// The field.
        slot: &'static str,
    },
}

/// Those that a producer or an authority says; what only the ledger writes is not advertised.
const BODY_NAMES: [&str; 23] = [
    "task_opened",
    "task_closed",
    "grant",
    "grant_accepted",
    "intent",
    "outcome",
    "decision",
    "approval",
    "observation",
    "heartbeat",
    "session_closed",
    "revocation",
    "finding_disposition",
    "authorities_changed",
    "key_registered",
    "key_revoked",
    "principal_bound",
    "policy_set",
    "retention_set",
    "legal_hold_placed",
    "legal_hold_released",
    "log_key_rotated",
    "erasure",
];

impl StatementJson {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// [`JsonError::Form`] names an unknown or malformed field.
    pub fn parse(json: &str) -> Result<Self, JsonError> {
        // Without its line end, so that a line is one line to the parser.
        serde_json::from_str(json.trim_end()).map_err(|error| JsonError::Form {
            reason: plain(&error),
        })
    }

    /// Whether it says where it belongs: session and sequence.
    ///
    /// # Errors
    /// [`JsonError::HalfPlace`] if it has only one of them.
    pub fn has_place(&self) -> Result<bool, JsonError> {
        match (
            self.session.is_some() || self.nonce.is_some(),
            self.sequence,
        ) {
            (true, Some(_)) => Ok(true),
            (false, None) => Ok(false),
            _ => Err(JsonError::HalfPlace),
        }
    }

    /// Who speaks.
    #[must_use]
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The session and sequence that it names. A nonce names the session that is derived from it.
    ///
    /// # Errors
    /// [`JsonError::NoPlace`], [`JsonError::HalfPlace`], [`JsonError::Form`] if the session is no
    /// id of 16 bytes.
    pub fn place(&self, ledger_id: LedgerId) -> Result<(SessionId, Sequence), JsonError> {
        if !self.has_place()? {
            return Err(JsonError::NoPlace);
        }
        let sequence = Sequence::new(self.sequence.unwrap_or_default());
        if let (None, Some(nonce)) = (&self.session, &self.nonce) {
            let nonce = Bytes::from(nonce.clone());
            let nonce = Nonce::from_slice(&nonce).ok_or_else(|| JsonError::Form {
                reason: "nonce: must be 16 bytes".to_owned(),
            })?;
            let id = SessionId::derive(ledger_id, &self.producer, &nonce);
            return Ok((id, sequence));
        }
        let session = Bytes::from(self.session.clone().unwrap_or_default());
        let session = <[u8; SessionId::LEN]>::try_from(&session[..]);
        let session = session.map_err(|_| JsonError::Form {
            reason: "session: must be 16 bytes".to_owned(),
        })?;
        Ok((SessionId::new(session), sequence))
    }

    /// Replaces each content that stands in place of a commitment (`{"file": ...}` or
    /// `{"text": ...}`) by the commitment that `commit` makes of it. Not called, such a field is
    /// a commitment without a digest, which no ledger takes.
    ///
    /// # Errors
    /// [`JsonError::Commitment`], or what `commit` fails with.
    pub fn resolve<E: From<JsonError>>(
        &mut self,
        commit: impl FnMut(ContentJson) -> Result<v1::Commitment, E>,
    ) -> Result<(), E> {
        let (opened, intent) = (self.task_opened.as_mut(), self.intent.as_mut());
        let (outcome, approval) = (self.outcome.as_mut(), self.approval.as_mut());
        let commitments = commitment::slots(opened, intent, outcome, approval);
        commitment::resolve(commitments, commit)
    }

    /// Fills in what was left out. The rules of the fields are checked when it is encoded
    /// (`deed_evidence::statement::encode`).
    ///
    /// # Errors
    /// [`JsonError`] if it has no place, or not exactly one body.
    pub fn into_statement(self, defaults: &Defaults) -> Result<v1::Statement, JsonError> {
        let (session, sequence, nonce) = match (self.has_place()?, defaults.place) {
            (false, Some((session, sequence))) => {
                let session = Bytes::copy_from_slice(session.as_bytes());
                let nonce = defaults
                    .nonce
                    .map(|nonce| Bytes::copy_from_slice(nonce.as_bytes()));
                (session, sequence.get(), nonce.unwrap_or_default())
            }
            (false, None) => return Err(JsonError::NoPlace),
            (true, _) => {
                let session = match &self.session {
                    Some(session) => session.clone().into(),
                    None => {
                        let (session, _) = self.place(defaults.ledger_id)?;
                        Bytes::copy_from_slice(session.as_bytes())
                    }
                };
                let nonce = self.nonce.clone().unwrap_or_default().into();
                (session, self.sequence.unwrap_or_default(), nonce)
            }
        };
        let is_first = sequence == 0 || self.skipped_from == Some(0);
        let ledger_id = match self.ledger_id {
            Some(ledger_id) => ledger_id.into(),
            None => Bytes::copy_from_slice(defaults.ledger_id.as_bytes()),
        };
        let mut bodies = [
            self.genesis.map(|body| Ok(Body::Genesis(body.into()))),
            self.tick.map(|body| Ok(Body::Tick(body.into()))),
            self.clearance.map(|body| Ok(Body::Clearance(body.into()))),
            self.task_receipt
                .map(|body| Ok(Body::TaskReceipt(body.into()))),
            self.task_opened.map(TaskOpenedJson::into_body),
            self.task_closed
                .map(|body| Ok(Body::TaskClosed(body.into()))),
            self.grant.map(|body| Ok(Body::Grant(body.into()))),
            self.grant_accepted
                .map(|body| Ok(Body::GrantAccepted(body.into()))),
            self.intent.map(|body| Ok(Body::Intent(body.into()))),
            self.outcome.map(|body| Ok(Body::Outcome(body.into()))),
            self.decision.map(|body| Ok(Body::Decision(body.into()))),
            self.approval.map(|body| Ok(Body::Approval(body.into()))),
            self.observation
                .map(|body| Ok(Body::Observation(body.into()))),
            self.heartbeat.map(|body| Ok(Body::Heartbeat(body.into()))),
            self.session_closed
                .map(|body| Ok(Body::SessionClosed(body.into()))),
            self.revocation
                .map(|body| Ok(Body::Revocation(body.into()))),
            self.finding_disposition
                .map(|body| Ok(Body::FindingDisposition(body.into()))),
            self.authorities_changed
                .map(|body| Ok(Body::AuthoritiesChanged(body.into()))),
            self.key_registered
                .map(|body| Ok(Body::KeyRegistered(body.into()))),
            self.key_revoked
                .map(|body| Ok(Body::KeyRevoked(body.into()))),
            self.principal_bound
                .map(|body| Ok(Body::PrincipalBound(body.into()))),
            self.policy_set.map(|body| Ok(Body::PolicySet(body.into()))),
            self.retention_set
                .map(|body| Ok(Body::RetentionSet(body.into()))),
            self.legal_hold_placed.map(LegalHoldPlacedJson::into_body),
            self.legal_hold_released
                .map(|body| Ok(Body::LegalHoldReleased(body.into()))),
            self.log_key_rotated
                .map(|body| Ok(Body::LogKeyRotated(body.into()))),
            self.erasure.map(|body| Ok(Body::Erasure(body.into()))),
        ];
        let found = bodies.iter().flatten().count();
        let body = bodies.iter_mut().find_map(Option::take);
        let Some((body, 1)) = body.map(|body| (body, found)) else {
            return Err(JsonError::Bodies { found });
        };
        Ok(v1::Statement {
            ledger_id,
            producer: self.producer,
            session,
            sequence,
            previous: self.previous.into(),
            skipped_from: self.skipped_from,
            occurred_at_us: self.occurred_at_us.unwrap_or(defaults.occurred_at.get()),
            task: self.task.into(),
            trace_id: self.trace_id.into(),
            span_id: self.span_id.into(),
            correlation_keys: self.correlation_keys.into_iter().map(Into::into).collect(),
            nonce: if is_first { nonce } else { Bytes::new() },
            body: Some(body?),
        })
    }
}

/// Shows a statement with everything that it says.
impl From<v1::Statement> for StatementJson {
    fn from(statement: v1::Statement) -> Self {
        let is_genesis = matches!(statement.body, Some(Body::Genesis(_)));
        // What the ledger itself says is in no session.
        let has_place = !statement.session.is_empty();
        let mut json = Self {
            ledger_id: (!is_genesis).then(|| statement.ledger_id.into()),
            producer: statement.producer,
            session: has_place.then(|| statement.session.into()),
            sequence: has_place.then_some(statement.sequence),
            previous: statement.previous.into(),
            skipped_from: statement.skipped_from,
            occurred_at_us: Some(statement.occurred_at_us),
            task: statement.task.into(),
            trace_id: statement.trace_id.into(),
            span_id: statement.span_id.into(),
            correlation_keys: statement
                .correlation_keys
                .into_iter()
                .map(Into::into)
                .collect(),
            nonce: (!statement.nonce.is_empty()).then(|| statement.nonce.into()),
            ..Self::default()
        };
        match statement.body {
            Some(Body::Genesis(body)) => json.genesis = Some(body.into()),
            Some(Body::Tick(body)) => json.tick = Some(body.into()),
            Some(Body::Clearance(body)) => json.clearance = Some(body.into()),
            Some(Body::TaskReceipt(body)) => json.task_receipt = Some(body.into()),
            Some(Body::TaskOpened(body)) => json.task_opened = Some(body.into()),
            Some(Body::TaskClosed(body)) => json.task_closed = Some(body.into()),
            Some(Body::Grant(body)) => json.grant = Some(body.into()),
            Some(Body::GrantAccepted(body)) => json.grant_accepted = Some(body.into()),
            Some(Body::Intent(body)) => json.intent = Some(body.into()),
            Some(Body::Outcome(body)) => json.outcome = Some(body.into()),
            Some(Body::Decision(body)) => json.decision = Some(body.into()),
            Some(Body::Approval(body)) => json.approval = Some(body.into()),
            Some(Body::Observation(body)) => json.observation = Some(body.into()),
            Some(Body::Heartbeat(body)) => json.heartbeat = Some(body.into()),
            Some(Body::SessionClosed(body)) => json.session_closed = Some(body.into()),
            Some(Body::Revocation(body)) => json.revocation = Some(body.into()),
            Some(Body::FindingDisposition(body)) => json.finding_disposition = Some(body.into()),
            Some(Body::AuthoritiesChanged(body)) => json.authorities_changed = Some(body.into()),
            Some(Body::KeyRegistered(body)) => json.key_registered = Some(body.into()),
            Some(Body::KeyRevoked(body)) => json.key_revoked = Some(body.into()),
            Some(Body::PrincipalBound(body)) => json.principal_bound = Some(body.into()),
            Some(Body::PolicySet(body)) => json.policy_set = Some(body.into()),
            Some(Body::RetentionSet(body)) => json.retention_set = Some(body.into()),
            Some(Body::LegalHoldPlaced(body)) => json.legal_hold_placed = Some(body.into()),
            Some(Body::LegalHoldReleased(body)) => json.legal_hold_released = Some(body.into()),
            Some(Body::LogKeyRotated(body)) => json.log_key_rotated = Some(body.into()),
            Some(Body::Erasure(body)) => json.erasure = Some(body.into()),
            None => {}
        }
        json
    }
}

/// The reason without "at line 1", which says nothing about one line of many.
pub(crate) fn plain(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    match reason.rsplit_once(" at line 1 column ") {
        Some((reason, column)) => format!("{reason}, at column {column}"),
        None => reason,
    }
}
