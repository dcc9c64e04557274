//! The header of a statement, and the kinds of its body.

use std::ops::Deref;

use super::breach::Breach;
use crate::{LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId, schema::number};

/// The header of a statement, borrowed from its payload.
///
/// [`parse`](super::parse) returns it only for a payload that keeps every rule of
/// `deed/v1/statement.proto`, but for three things. Rules that hold from rules version 2 on are in
/// [`SessionHeader::breach`]. The origin, the keys and the rules version of a genesis statement are
/// read once, by [`Genesis::from_entry`](crate::genesis::Genesis::from_entry). What a PolicySet's
/// texts say, and whether their digest is right, is found out where they are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The ledger it is for; `None` in a genesis statement alone.
    pub ledger_id: Option<LedgerId>,
    /// The time of the event, by the producer's clock.
    pub occurred_at: Micros,
    /// The rest; its fields are read as those of the header.
    pub in_session: SessionHeader<'a>,
}

impl<'a> Deref for Header<'a> {
    type Target = SessionHeader<'a>;

    fn deref(&self) -> &SessionHeader<'a> {
        &self.in_session
    }
}

/// The part of a header by which a statement that was admitted is placed and judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHeader<'a> {
    /// The producer.
    pub producer: &'a str,
    /// Its session. All zero in a genesis statement, which has none; a producer may call its
    /// own session so as well.
    pub session: SessionId,
    /// Its position there.
    pub sequence: Sequence,
    /// Digest of the payload before it.
    pub previous: Option<PayloadDigest>,
    /// First sequence that the producer says it lost.
    pub skipped_from: Option<Sequence>,
    /// The task it belongs to.
    pub task: Option<TaskId>,
    /// The kind of its body.
    pub body: BodyKind,
    /// The first of its forms that only rules version 1 takes.
    pub breach: Option<Breach>,
}

/// The bodies of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// The ledger's first entry.
    Genesis,
    /// Time has passed.
    Tick,
    /// An Intent that waited may be acted on.
    Clearance,
    /// A receipt of what the ledger holds of a task.
    TaskReceipt,
    /// A task begins.
    TaskOpened,
    /// A task ends.
    TaskClosed,
    /// Somebody may do something for a task.
    Grant,
    /// The subject of a delegated grant takes it on.
    GrantAccepted,
    /// An act is about to happen.
    Intent,
    /// The outcome of an act.
    Outcome,
    /// A policy engine decided of an Intent.
    Decision,
    /// Somebody approves an Intent, or refuses it.
    Approval,
    /// A downstream system saw something change.
    Observation,
    /// The producer lives.
    Heartbeat,
    /// The session's last statement.
    SessionClosed,
    /// A grant ends before its time.
    Revocation,
    /// Somebody has looked at a finding.
    FindingDisposition,
    /// Other keys speak for the ledger's owner.
    AuthoritiesChanged,
    /// A key speaks for a producer.
    KeyRegistered,
    /// A key ends.
    KeyRevoked,
    /// A principal may deliver a producer's statements.
    PrincipalBound,
    /// The evidence that actions need.
    PolicySet,
    /// The time that contents are kept at least.
    RetentionSet,
    /// Contents must not be erased.
    LegalHoldPlaced,
    /// A hold ends.
    LegalHoldReleased,
    /// Another key signs the ledger's tree heads.
    LogKeyRotated,
    /// Contents are erased.
    Erasure,
}

/// The producer of what an authority says: every trust statement, Revocation and
/// FindingDisposition, and those TaskOpened, TaskClosed and Grant that are the owner's own.
pub const AUTHORITY_PRODUCER: &str = "deed:authority";

/// The producer of what the ledger itself says, but for its genesis statement.
pub const LEDGER_PRODUCER: &str = "deed:ledger";

/// The producers that may use a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Producer,
    Authority,
    Either,
}

impl BodyKind {
    /// The field's name in `Statement.body`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::TaskOpened => "task_opened",
            Self::TaskClosed => "task_closed",
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Heartbeat => "heartbeat",
            Self::SessionClosed => "session_closed",
            Self::AuthoritiesChanged => "authorities_changed",
            Self::KeyRegistered => "key_registered",
            Self::KeyRevoked => "key_revoked",
            Self::PrincipalBound => "principal_bound",
            Self::Tick => "tick",
            Self::Clearance => "clearance",
            Self::TaskReceipt => "task_receipt",
            Self::Grant => "grant",
            Self::GrantAccepted => "grant_accepted",
            Self::Decision => "decision",
            Self::Approval => "approval",
            Self::Observation => "observation",
            Self::Revocation => "revocation",
            Self::FindingDisposition => "finding_disposition",
            Self::PolicySet => "policy_set",
            Self::RetentionSet => "retention_set",
            Self::LegalHoldPlaced => "legal_hold_placed",
            Self::LegalHoldReleased => "legal_hold_released",
            Self::LogKeyRotated => "log_key_rotated",
            Self::Erasure => "erasure",
        }
    }

    pub(crate) const fn of_field(number: u32) -> Option<Self> {
        Some(match number {
            number::GENESIS => Self::Genesis,
            number::TASK_OPENED => Self::TaskOpened,
            number::TASK_CLOSED => Self::TaskClosed,
            number::INTENT => Self::Intent,
            number::OUTCOME => Self::Outcome,
            number::HEARTBEAT => Self::Heartbeat,
            number::SESSION_CLOSED => Self::SessionClosed,
            number::AUTHORITIES_CHANGED => Self::AuthoritiesChanged,
            number::KEY_REGISTERED => Self::KeyRegistered,
            number::KEY_REVOKED => Self::KeyRevoked,
            number::PRINCIPAL_BOUND => Self::PrincipalBound,
            number::TICK => Self::Tick,
            number::CLEARANCE => Self::Clearance,
            number::TASK_RECEIPT => Self::TaskReceipt,
            number::GRANT => Self::Grant,
            number::GRANT_ACCEPTED => Self::GrantAccepted,
            number::DECISION => Self::Decision,
            number::APPROVAL => Self::Approval,
            number::OBSERVATION => Self::Observation,
            number::REVOCATION => Self::Revocation,
            number::FINDING_DISPOSITION => Self::FindingDisposition,
            number::POLICY_SET => Self::PolicySet,
            number::RETENTION_SET => Self::RetentionSet,
            number::LEGAL_HOLD_PLACED => Self::LegalHoldPlaced,
            number::LEGAL_HOLD_RELEASED => Self::LegalHoldReleased,
            number::LOG_KEY_ROTATED => Self::LogKeyRotated,
            number::ERASURE => Self::Erasure,
            _ => return None,
        })
    }

    /// Returns true if it decides what later entries mean: who speaks for whom, which rules are in
    /// force. Trust statements are signed by an authority, and their entries form a chain.
    #[must_use]
    pub const fn is_trust(self) -> bool {
        matches!(
            self,
            Self::AuthoritiesChanged
                | Self::KeyRegistered
                | Self::KeyRevoked
                | Self::PrincipalBound
                | Self::PolicySet
                | Self::RetentionSet
                | Self::LegalHoldPlaced
                | Self::LegalHoldReleased
                | Self::LogKeyRotated
                | Self::Erasure
        )
    }

    /// Returns true if only the ledger itself writes it: never taken from a producer.
    #[must_use]
    pub const fn is_ledgers(self) -> bool {
        matches!(
            self,
            Self::Genesis | Self::Tick | Self::Clearance | Self::TaskReceipt
        )
    }

    /// Returns true if the evidence policy in force is asked when it is recorded.
    #[must_use]
    pub const fn needs_policy(self) -> bool {
        matches!(self, Self::Intent | Self::Decision | Self::Approval)
    }

    /// Returns true if it means something from rules version 2 on only.
    #[must_use]
    pub const fn needs_assessment(self) -> bool {
        matches!(
            self,
            Self::Tick
                | Self::Clearance
                | Self::TaskReceipt
                | Self::Grant
                | Self::GrantAccepted
                | Self::Decision
                | Self::Approval
                | Self::Observation
                | Self::Revocation
                | Self::FindingDisposition
        )
    }

    /// Returns true if the header must name a task.
    pub(super) const fn needs_task(self) -> bool {
        matches!(
            self,
            Self::Clearance
                | Self::TaskReceipt
                | Self::TaskOpened
                | Self::TaskClosed
                | Self::Grant
                | Self::GrantAccepted
                | Self::Intent
                | Self::Outcome
                | Self::Decision
                | Self::Approval
                | Self::Revocation
        )
    }

    /// The producers that may use it.
    pub(super) const fn speaker(self) -> Speaks {
        match self {
            Self::TaskOpened | Self::TaskClosed | Self::Grant => Speaks::Either,
            Self::Revocation | Self::FindingDisposition => Speaks::Authority,
            _ if self.is_trust() => Speaks::Authority,
            _ => Speaks::Producer,
        }
    }
}
