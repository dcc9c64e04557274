//! The header of a statement, read from the decoded message.

use deed_evidence::{
    LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId,
    statement::{BodyKind, Header, SessionHeader},
};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::Hash;

use super::array;

/// The header of a statement that keeps every rule.
pub(crate) fn header(statement: &v1::Statement) -> Header<'_> {
    Header {
        ledger_id: (!statement.ledger_id.is_empty())
            .then(|| LedgerId::new(Hash::new(array(&statement.ledger_id)))),
        occurred_at: Micros::new(statement.occurred_at_us),
        in_session: SessionHeader {
            producer: &statement.producer,
            session: if statement.session.is_empty() {
                SessionId::new([0; 16])
            } else {
                SessionId::new(array(&statement.session))
            },
            sequence: Sequence::new(statement.sequence),
            previous: (!statement.previous.is_empty())
                .then(|| PayloadDigest::new(array(&statement.previous))),
            skipped_from: statement.skipped_from.map(Sequence::new),
            task: (!statement.task.is_empty()).then(|| TaskId::new(array(&statement.task))),
            body: match statement.body.as_ref().expect("has a body") {
                Body::Genesis(_) => BodyKind::Genesis,
                Body::Tick(_) => BodyKind::Tick,
                Body::Clearance(_) => BodyKind::Clearance,
                Body::TaskReceipt(_) => BodyKind::TaskReceipt,
                Body::TaskOpened(_) => BodyKind::TaskOpened,
                Body::TaskClosed(_) => BodyKind::TaskClosed,
                Body::Grant(_) => BodyKind::Grant,
                Body::GrantAccepted(_) => BodyKind::GrantAccepted,
                Body::Intent(_) => BodyKind::Intent,
                Body::Outcome(_) => BodyKind::Outcome,
                Body::Decision(_) => BodyKind::Decision,
                Body::Approval(_) => BodyKind::Approval,
                Body::Observation(_) => BodyKind::Observation,
                Body::Heartbeat(_) => BodyKind::Heartbeat,
                Body::SessionClosed(_) => BodyKind::SessionClosed,
                Body::Revocation(_) => BodyKind::Revocation,
                Body::FindingDisposition(_) => BodyKind::FindingDisposition,
                Body::AuthoritiesChanged(_) => BodyKind::AuthoritiesChanged,
                Body::KeyRegistered(_) => BodyKind::KeyRegistered,
                Body::KeyRevoked(_) => BodyKind::KeyRevoked,
                Body::PrincipalBound(_) => BodyKind::PrincipalBound,
                Body::PolicySet(_) => BodyKind::PolicySet,
                Body::RetentionSet(_) => BodyKind::RetentionSet,
                Body::LegalHoldPlaced(_) => BodyKind::LegalHoldPlaced,
                Body::LegalHoldReleased(_) => BodyKind::LegalHoldReleased,
                Body::LogKeyRotated(_) => BodyKind::LogKeyRotated,
                Body::Erasure(_) => BodyKind::Erasure,
            },
            // See `breach`.
            breach: None,
        },
    }
}
