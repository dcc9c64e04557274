//! The six layers of an act.

use deed_proto::v1::{
    FindingKind, IntentState, KeyRole, LayerState, Layers, OutcomeState, TaskState,
};

use super::cells::{Act, Evidence, Task};
use crate::{KeyId, trust::Registry};

/// Where an Intent stands for somebody who asks: one that waits in a task that has ended has
/// lapsed.
#[must_use]
pub fn standing(act: &Act, task: Option<&Task>) -> IntentState {
    let ended = task.is_some_and(|task| task.state() == TaskState::Closed);
    match act.state() {
        IntentState::Waiting if ended && !act.clearing => IntentState::Lapsed,
        state => state,
    }
}

/// What is known of an act, layer by layer. `registry` is that of the newest entry: a key that is
/// found compromised later casts doubt on what it said before.
#[must_use]
pub fn of(act: &Act, registry: &Registry) -> Layers {
    let mut layers = Layers::default();
    layers.set_identity(identity(act, registry));
    layers.set_authority(authority(act, registry));
    layers.set_intent(intent(act, registry));
    layers.set_approval(approval(act, registry));
    layers.set_result(result(act));
    layers.set_corroboration(corroboration(act));
    layers
}

/// Proven: signed by a key that was registered for the agent and in force (else the statement
/// would not have been recorded). An importer's key shows who brought it in, not who acted.
fn identity(act: &Act, registry: &Registry) -> LayerState {
    let Some(key) = KeyId::from_slice(&act.key) else {
        return LayerState::Claimed;
    };
    let compromised = registry.key(key).and_then(|key| key.compromised_since);
    match compromised {
        Some(since) if since.get() <= act.at_us => LayerState::Contradicted,
        _ if is_imported(act, registry) => LayerState::Claimed,
        _ => LayerState::Proven,
    }
}

/// Whether somebody else may have had the key of evidence when it was given.
fn is_doubtful(one: &Evidence, registry: &Registry) -> bool {
    let key = KeyId::from_slice(&one.key).and_then(|key| registry.key(key));
    let compromised = key.and_then(|key| key.compromised_since);
    compromised.is_some_and(|since| since.get() <= one.at_us)
}

/// Whether an importer signed the Intent: claimed, whatever it says.
fn is_imported(act: &Act, registry: &Registry) -> bool {
    let key = KeyId::from_slice(&act.key).and_then(|key| registry.key(key));
    key.is_some_and(|key| key.role == KeyRole::Importer)
}

/// Proven: a valid accepted chain of grants from an authority; and, where the policy asks for a
/// decision, one that allows.
fn authority(act: &Act, registry: &Registry) -> LayerState {
    let doubtful = act
        .evidence
        .iter()
        .any(|one| one.strength == 0 && is_doubtful(one, registry));
    if doubtful || act.decision_denied || act.has(FindingKind::TaskClosed) {
        return LayerState::Contradicted;
    }
    let decided = !act.decision_asked || act.evidence.iter().any(|one| one.strength == 0);
    match act.authority() {
        LayerState::Proven if !decided => LayerState::Missing,
        LayerState::Unspecified => LayerState::Missing,
        layer => layer,
    }
}

/// Proven: cleared before the Outcome, arguments and prompt committed to before the act.
fn intent(act: &Act, registry: &Registry) -> LayerState {
    if act.has(FindingKind::OutcomeWithoutClearance) || act.has(FindingKind::ArgumentsChanged) {
        return LayerState::Contradicted;
    }
    let cleared = matches!(
        act.state(),
        IntentState::Cleared | IntentState::Completed | IntentState::Overdue
    );
    if !cleared {
        LayerState::Missing
    } else if !act.key.is_empty()
        && !is_imported(act, registry)
        && !act.arguments.is_empty()
        && act.prompt
    {
        LayerState::Proven
    } else {
        LayerState::Claimed
    }
}

/// Proven: what the policy requires is there, of another controller, for this very Intent.
fn approval(act: &Act, registry: &Registry) -> LayerState {
    let counts = act.evidence.iter().any(|one| one.strength != 0);
    let satisfied = matches!(
        act.state(),
        IntentState::Cleared | IntentState::Completed | IntentState::Overdue
    );
    let doubtful = act
        .evidence
        .iter()
        .any(|one| one.strength != 0 && is_doubtful(one, registry));
    if doubtful || act.refused || (act.has(FindingKind::SelfApproval) && !counts) {
        LayerState::Contradicted
    } else if counts && (satisfied || !act.approval_asked) {
        LayerState::Proven
    } else if act.approval_claimed {
        LayerState::Claimed
    } else if act.approval_asked {
        LayerState::Missing
    } else {
        LayerState::NotAsked
    }
}

/// Proven: the Outcome is signed by somebody who does or sees acts, effects or result committed to,
/// and what the policy wants kept.
fn result(act: &Act) -> LayerState {
    let Some(outcome) = &act.outcome else {
        return if act.outcome_claimed {
            LayerState::Claimed
        } else {
            LayerState::Missing
        };
    };
    if act.has(FindingKind::EffectMismatch) {
        LayerState::Contradicted
    } else if outcome.signed && outcome.committed && !act.has(FindingKind::MissingContent) {
        LayerState::Proven
    } else {
        LayerState::Claimed
    }
}

/// Proven: an independent downstream system signed the same effects.
fn corroboration(act: &Act) -> LayerState {
    let state = act.outcome.as_ref().map(super::cells::Outcome::state);
    if act.has(FindingKind::HiddenSideEffect) || state == Some(OutcomeState::Contradicted) {
        return LayerState::Contradicted;
    }
    let asked = act
        .duties
        .is_some_and(|duties| duties.corroborate_within_us.is_some());
    match state {
        Some(OutcomeState::Corroborated) => LayerState::Proven,
        Some(OutcomeState::Uncorroborated) => LayerState::Missing,
        _ if !act.observations.is_empty() => LayerState::Claimed,
        _ if asked => LayerState::Missing,
        _ => LayerState::NotAsked,
    }
}
