//! The protocol's enums in words.

use deed_client::Basis;
use deed_proto::v1::{
    DispositionKind, FindingKind, GrantState, IntentState, LayerState, OutcomeState, Severity,
    TaskState,
};

/// `FINDING_KIND_SELF_APPROVAL` is `self_approval`.
pub(crate) fn finding(kind: FindingKind) -> String {
    short(kind.as_str_name(), "FINDING_KIND_")
}

/// Reads a finding's kind, with `_` or `-` between its words.
pub(crate) fn parse_finding(text: &str) -> Result<FindingKind, String> {
    let name = format!(
        "FINDING_KIND_{}",
        text.replace('-', "_").to_ascii_uppercase()
    );
    FindingKind::from_str_name(&name)
        .filter(|kind| *kind != FindingKind::Unspecified)
        .ok_or_else(|| {
            format!(
                "no kind of finding; for example self_approval or {}",
                EXAMPLE
            )
        })
}

const EXAMPLE: &str = "outcome_without_clearance";

pub(crate) fn severity(severity: Severity) -> String {
    short(severity.as_str_name(), "SEVERITY_")
}

pub(crate) fn disposition(kind: DispositionKind) -> String {
    short(kind.as_str_name(), "DISPOSITION_KIND_")
}

pub(crate) fn intent(state: IntentState) -> String {
    short(state.as_str_name(), "INTENT_STATE_")
}

pub(crate) fn outcome(state: OutcomeState) -> String {
    short(state.as_str_name(), "OUTCOME_STATE_")
}

pub(crate) fn task(state: TaskState) -> String {
    short(state.as_str_name(), "TASK_STATE_")
}

pub(crate) fn grant(state: GrantState) -> String {
    short(state.as_str_name(), "GRANT_STATE_")
}

pub(crate) fn layer(state: LayerState) -> String {
    short(state.as_str_name(), "LAYER_STATE_")
}

/// Returns a name for a terminal: words, not an identifier.
pub(crate) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// The name of a basis in JSON.
pub(crate) const fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Checked => "checked",
        Basis::ServersWord => "servers_word",
    }
}

/// Any enum's value without the enum's name.
pub(crate) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_findings_are_read_as_they_are_written() {
        let kinds: Vec<_> = (1..)
            .map_while(|number| FindingKind::try_from(number).ok())
            .collect();
        assert_eq!(kinds.last(), Some(&FindingKind::NotCompared));
        for kind in kinds {
            assert_eq!(parse_finding(&finding(kind)), Ok(kind));
        }
        assert_eq!(
            parse_finding("self-approval"),
            Ok(FindingKind::SelfApproval)
        );
        assert!(parse_finding("unspecified").is_err());
        assert!(parse_finding("").is_err());
    }
}
