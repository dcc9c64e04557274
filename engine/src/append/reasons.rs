//! Turns the step's reasons for rejecting a statement into the rejections that clients get.

use deed_evidence::{
    Sequence,
    session::Refusal as SessionRefusal,
    trust::{ErasureRefusal, KeyRefusal, SpeakerRefusal, TrustRefusal},
};
use deed_proto::v1::{self, rejection::Reason};

use crate::ledger::step::RejectReason;

pub(super) fn rejection(refusal: &RejectReason) -> v1::Rejection {
    let (reason, field, expected) = match refusal {
        RejectReason::Session(refusal) => session_reason(*refusal),
        RejectReason::Speaker(refusal) => {
            let (reason, field) = speaker_reason(refusal);
            (reason, field, None)
        }
        RejectReason::Trust(refusal) => (trust_reason(refusal), "", None),
        RejectReason::ContentErased { .. } => (Reason::ContentErased, "erasure", None),
        RejectReason::AttachmentErased { .. } => (Reason::ContentErased, "attachments", None),
        RejectReason::ContentUnknown { .. } => (Reason::ContentUnknown, "erasure", None),
        RejectReason::ErasureElsewhere => (Reason::BodyNotAccepted, "erasure", None),
        RejectReason::RulesVersion { .. } => (Reason::RulesVersion, "body", None),
        RejectReason::DeadlineFar { .. } => (Reason::Deadline, "deadline_us", None),
        RejectReason::DeadlinesMany { .. } => (Reason::Deadline, "deadline_us", None),
        RejectReason::Policy(_) => (Reason::PolicyInvalid, "", None),
        RejectReason::Unread(_) => (Reason::Malformed, "body", None),
        RejectReason::Form(breach) => (Reason::Malformed, breach.field(), None),
        RejectReason::Batch { .. } => (Reason::BatchRefused, "", None),
    };
    v1::Rejection {
        reason: reason.into(),
        message: refusal.to_string(),
        field: field.to_owned(),
        expected_sequence: expected.map(Sequence::get),
    }
}

/// Returns the rejection of a second statement for a sequence of a session; the statement was kept
/// as evidence at `leaf`.
pub(super) fn equivocation(leaf: u64, expected: Sequence) -> v1::Rejection {
    v1::Rejection {
        reason: Reason::SequenceReused.into(),
        message: format!(
            "another payload was signed for this sequence before; this one is kept as evidence of \
             that at leaf {leaf}; the session takes {expected} next"
        ),
        field: "sequence".to_owned(),
        expected_sequence: Some(expected.get()),
    }
}

fn session_reason(refusal: SessionRefusal) -> (Reason, &'static str, Option<Sequence>) {
    match refusal {
        SessionRefusal::SessionTaken => (Reason::SessionTaken, "session", None),
        SessionRefusal::SessionClosed => (Reason::SessionClosed, "session", None),
        SessionRefusal::NotNext { expected } => {
            (Reason::SequenceNotNext, "sequence", Some(expected))
        }
        SessionRefusal::SequenceReused { expected } => {
            (Reason::SequenceReused, "sequence", Some(expected))
        }
        SessionRefusal::PreviousMismatch { expected } => {
            (Reason::PreviousMismatch, "previous", Some(expected))
        }
    }
}

fn speaker_reason(refusal: &SpeakerRefusal) -> (Reason, &'static str) {
    match refusal {
        SpeakerRefusal::Key(KeyRefusal::Unknown { .. }) => (Reason::KeyUnknown, "key_id"),
        SpeakerRefusal::Key(KeyRefusal::OtherProducer { .. }) => {
            (Reason::KeyNotAllowed, "producer")
        }
        SpeakerRefusal::Key(KeyRefusal::Authority { .. } | KeyRefusal::NoAuthority { .. }) => {
            (Reason::KeyNotAllowed, "key_id")
        }
        SpeakerRefusal::Key(
            KeyRefusal::NotYet { .. } | KeyRefusal::Ended { .. } | KeyRefusal::Revoked { .. },
        ) => (Reason::KeyNotInForce, "key_id"),
        SpeakerRefusal::SignatureRequired => (Reason::SignatureRequired, "signature"),
        SpeakerRefusal::PrincipalNotBound => (Reason::PrincipalNotBound, "producer"),
    }
}

fn trust_reason(refusal: &TrustRefusal) -> Reason {
    match refusal {
        TrustRefusal::SignerUnknown { .. } => Reason::KeyUnknown,
        TrustRefusal::SignerNotAuthority { .. } => Reason::KeyNotAllowed,
        TrustRefusal::Erasure(ErasureRefusal::Retention { .. }) => Reason::Retention,
        TrustRefusal::Erasure(ErasureRefusal::LegalHold { .. }) => Reason::LegalHold,
        TrustRefusal::KeyRegisteredBefore { .. }
        | TrustRefusal::KeyOfAuthority { .. }
        | TrustRefusal::KeyEnded { .. }
        | TrustRefusal::AuthorityRegistered { .. }
        | TrustRefusal::KeyNotRegistered { .. }
        | TrustRefusal::KeyRevokedBefore { .. }
        | TrustRefusal::HoldUsed { .. }
        | TrustRefusal::HoldNotInForce { .. }
        | TrustRefusal::LogKeyName
        | TrustRefusal::LogKeyUsed { .. }
        | TrustRefusal::LogKeysMany => Reason::TrustRefused,
    }
}
