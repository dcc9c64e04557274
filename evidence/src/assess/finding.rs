//! The kinds of findings: severities and names.

use deed_proto::v1::{FindingKind, Severity};

/// All kinds, in order of their numbers.
pub const KINDS: [FindingKind; 34] = {
    use FindingKind as F;
    [
        F::UnknownGrant,
        F::RevokedKeyUse,
        F::CompromisedKeyUse,
        F::ExpiredGrant,
        F::ScopeExceeded,
        F::LimitExceeded,
        F::TaskClosed,
        F::DelegationEscalation,
        F::DelegationUnaccepted,
        F::DecisionDenied,
        F::OutcomeWithoutIntent,
        F::OutcomeWithoutClearance,
        F::OutcomeLate,
        F::IntentLapsed,
        F::IntentOverdue,
        F::ArgumentsChanged,
        F::ApprovalOfOtherIntent,
        F::SelfApproval,
        F::HastyApproval,
        F::MissingContent,
        F::EffectMismatch,
        F::HiddenSideEffect,
        F::Uncorroborated,
        F::SequenceGap,
        F::SessionSilent,
        F::Equivocation,
        F::ClockSkew,
        F::PolicyError,
        F::TokenUsedAfterClose,
        F::UnknownTask,
        F::WrongRole,
        F::OutOfPlace,
        F::UnprovenClaim,
        F::NotCompared,
    ]
};

/// The severity of findings of this kind.
#[must_use]
pub const fn severity(kind: FindingKind) -> Severity {
    use FindingKind as F;
    match kind {
        F::Unspecified => Severity::Unspecified,
        F::DecisionDenied | F::IntentLapsed | F::UnknownTask | F::OutOfPlace => Severity::Notice,
        F::UnknownGrant
        | F::ExpiredGrant
        | F::LimitExceeded
        | F::ScopeExceeded
        | F::DelegationUnaccepted
        | F::OutcomeLate
        | F::IntentOverdue
        | F::HastyApproval
        | F::MissingContent
        | F::Uncorroborated
        | F::SequenceGap
        | F::SessionSilent
        | F::ClockSkew
        | F::WrongRole
        | F::UnprovenClaim
        | F::PolicyError => Severity::Warning,
        F::RevokedKeyUse
        | F::CompromisedKeyUse
        | F::TaskClosed
        | F::DelegationEscalation
        | F::OutcomeWithoutIntent
        | F::OutcomeWithoutClearance
        | F::ArgumentsChanged
        | F::ApprovalOfOtherIntent
        | F::SelfApproval
        | F::EffectMismatch
        | F::HiddenSideEffect
        | F::Equivocation
        | F::NotCompared
        | F::TokenUsedAfterClose => Severity::Serious,
    }
}

/// A kind's name in lower case, as commands and search terms write it: `hidden_side_effect`.
#[must_use]
pub fn name(kind: FindingKind) -> String {
    let name = kind.as_str_name();
    name.strip_prefix("FINDING_KIND_")
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// The kind of a name as [`name`] writes it.
#[must_use]
pub fn of_name(text: &str) -> Option<FindingKind> {
    KINDS.into_iter().find(|kind| name(*kind) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_a_number_and_a_severity() {
        for (number, kind) in (1..).zip(KINDS) {
            assert_eq!(kind as i32, number);
            assert_eq!(of_name(&name(kind)), Some(kind));
            assert_ne!(severity(kind), Severity::Unspecified);
        }
        assert!(
            FindingKind::try_from(35).is_err(),
            "a kind is missing above"
        );
        assert_eq!(name(FindingKind::HiddenSideEffect), "hidden_side_effect");
    }

    /// SIEMs page people by these: written out once more, by name.
    #[test]
    fn severities_are_those_that_were_published() {
        let notice = [
            "decision_denied",
            "intent_lapsed",
            "out_of_place",
            "unknown_task",
        ];
        let warning = [
            "clock_skew",
            "delegation_unaccepted",
            "expired_grant",
            "hasty_approval",
            "intent_overdue",
            "limit_exceeded",
            "missing_content",
            "outcome_late",
            "policy_error",
            "scope_exceeded",
            "sequence_gap",
            "session_silent",
            "uncorroborated",
            "unknown_grant",
            "unproven_claim",
            "wrong_role",
        ];
        for kind in KINDS {
            let name = name(kind);
            let wanted = if notice.contains(&&*name) {
                Severity::Notice
            } else if warning.contains(&&*name) {
                Severity::Warning
            } else {
                Severity::Serious
            };
            assert_eq!(severity(kind), wanted, "{name}");
        }
    }
}
