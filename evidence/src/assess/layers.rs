//! The six layers of an act.

use std::collections::BTreeSet;

use deed_proto::v1::{
    self, EvidencePart, FindingKind, IntentState, LayerState, Layers, OutcomeState, TaskState,
};

use super::{
    act::copied,
    cells::{Act, Change, Task},
    effects,
    keys::{Doubts, conflicts, is_claim, relied_on},
};
use crate::{KeyId, Micros, trust::TrustState};

/// The state of an Intent for somebody who asks: one that waits in a task that has ended has
/// lapsed.
#[must_use]
pub fn standing(act: &Act, task: Option<&Task>) -> IntentState {
    let ended = task.is_some_and(|task| task.state() == TaskState::Closed);
    match act.state() {
        IntentState::Waiting if ended && !act.clearing => IntentState::Lapsed,
        state => state,
    }
}

/// An act as it is told to those who ask.
#[must_use]
pub fn info(act: Act, task: Option<&Task>, trust: &TrustState) -> v1::ActInfo {
    let outcome = act.outcome.as_ref();
    // Systems' Observations are among the changes too, where the list of all is full.
    let observed = act.observations.iter().map(|one| one.leaf);
    let observed: BTreeSet<u64> = observed
        .chain(act.changes.iter().map(|one| one.leaf))
        .collect();
    let keys = relied_on(&act).map(|relied| v1::ReliedKey {
        key_id: copied(relied.key.as_bytes()),
        leaf_index: relied.leaf,
        part: relied.part.into(),
        doubtful: relied.is_doubtful(trust),
    });
    v1::ActInfo {
        intent_leaf: act.leaf,
        state: standing(&act, task).into(),
        layers: Some(of(&act, trust)),
        keys: keys.collect(),
        grant_leaf: act.grant_leaf,
        clearance_leaf: act.clearance_leaf,
        evidence_leaves: act.evidence.iter().map(|one| one.leaf).collect(),
        outcome_leaf: outcome.map(|outcome| outcome.leaf),
        outcome: outcome.map_or(0, |outcome| outcome.state),
        observation_leaves: observed.into_iter().collect(),
        strength_claimed: act.strength_claimed,
        missing: act.missing,
        denied: act.denied,
    }
}

/// The layers of an act. `trust` is the state at the newest entry: a key that is
/// found compromised later casts doubt on every layer that rests on it.
#[must_use]
pub fn of(act: &Act, trust: &TrustState) -> Layers {
    let doubts = Doubts::of(act, trust);
    let is_claim = is_claim(act, trust);
    let mut layers = Layers::default();
    layers.set_identity(identity(is_claim, doubts));
    layers.set_authority(authority(act, is_claim, trust, doubts));
    layers.set_intent(intent(act, is_claim, doubts));
    layers.set_approval(approval(act, trust, doubts));
    layers.set_result(result(act, doubts));
    layers.set_corroboration(corroboration(act, is_claim, trust));
    layers
}

/// Returns true if a Decision or an Approval that counts is under the controller of another side of
/// the act, as may show with an Outcome that comes later.
fn is_partial(act: &Act, trust: &TrustState, part: EvidencePart) -> bool {
    let own = relied_on(act).filter(|relied| relied.part == part);
    let mut own = own.map(|relied| relied.key);
    own.any(|key| conflicts(act, trust, key, part))
}

/// A layer that is proven, unless it rests on a key that somebody else may have had.
fn proven(doubts: Doubts, parts: &[EvidencePart]) -> LayerState {
    if doubts.any(parts) {
        LayerState::Contradicted
    } else {
        LayerState::Proven
    }
}

fn is_cleared(act: &Act) -> bool {
    matches!(
        act.state(),
        IntentState::Cleared | IntentState::Completed | IntentState::Overdue
    )
}

/// Proven: signed by a key that was registered for the agent and in force (else the statement
/// would not have been recorded).
fn identity(is_claim: bool, doubts: Doubts) -> LayerState {
    match proven(doubts, &[EvidencePart::Intent]) {
        LayerState::Proven if is_claim => LayerState::Claimed,
        layer => layer,
    }
}

/// Proven: a valid accepted chain of grants from an authority; and, where the policy asks for a
/// decision, one that allows.
fn authority(act: &Act, is_claim: bool, trust: &TrustState, doubts: Doubts) -> LayerState {
    // The layer does not rest on a Decision that nobody asked for.
    let decided_doubtfully = act.decision_asked && doubts.any(&[EvidencePart::Decision]);
    let doubtful = decided_doubtfully || doubts.any(&[EvidencePart::Delegation]);
    if doubtful || act.decision_denied || act.has(FindingKind::TaskClosed) {
        return LayerState::Contradicted;
    }
    let decided = !act.decision_asked || act.evidence.iter().any(|one| one.strength == 0);
    match act.authority() {
        LayerState::Proven if !decided => LayerState::Missing,
        // Of an act that nobody signed it cannot be shown that the engine is independent.
        LayerState::Proven
            if act.decision_asked
                && (is_claim || is_partial(act, trust, EvidencePart::Decision)) =>
        {
            LayerState::Claimed
        }
        LayerState::Proven => proven(doubts, &[EvidencePart::Task]),
        LayerState::Unspecified => LayerState::Missing,
        layer => layer,
    }
}

/// Proven: cleared before the Outcome, arguments and prompt committed to before the act.
fn intent(act: &Act, is_claim: bool, doubts: Doubts) -> LayerState {
    if act.has(FindingKind::OutcomeWithoutClearance) || act.has(FindingKind::ArgumentsChanged) {
        return LayerState::Contradicted;
    }
    if !is_cleared(act) {
        LayerState::Missing
    } else if !is_claim && !act.arguments.is_empty() && act.prompt {
        proven(doubts, &[EvidencePart::Intent])
    } else {
        LayerState::Claimed
    }
}

/// Proven: what the policy requires is there, of another controller, for this very Intent. Where the
/// policy requires a strength of authentication, that is the approver's word.
fn approval(act: &Act, trust: &TrustState, doubts: Doubts) -> LayerState {
    let counts = act.evidence.iter().any(|one| one.strength != 0);
    let doubtful = doubts.any(&[EvidencePart::Approval]);
    if act.refused || (doubtful && act.approval_asked) {
        LayerState::Contradicted
    } else if counts && (is_cleared(act) || !act.approval_asked) {
        if doubtful || act.strength_claimed || is_partial(act, trust, EvidencePart::Approval) {
            LayerState::Claimed
        } else {
            LayerState::Proven
        }
    } else if act.approval_claimed {
        LayerState::Claimed
    } else if act.approval_asked {
        LayerState::Missing
    } else {
        LayerState::NotAsked
    }
}

/// Proven: the Outcome is signed by the Intent's producer or a gateway that is named for it, effects
/// or result committed to, and what the policy wants kept.
fn result(act: &Act, doubts: Doubts) -> LayerState {
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
        proven(doubts, &[EvidencePart::Outcome])
    } else {
        LayerState::Claimed
    }
}

/// Proven: independent downstream systems signed the same effects. Of an act that nobody signed it
/// cannot be shown that they are independent, so it is claimed at most.
fn corroboration(act: &Act, is_claim: bool, trust: &TrustState) -> LayerState {
    let outcome = act.outcome.as_ref();
    let state = outcome.map(super::cells::Outcome::state);
    let against =
        act.has(FindingKind::HiddenSideEffect) || state == Some(OutcomeState::Contradicted);
    if against && !is_claim {
        return LayerState::Contradicted;
    }
    let asked = act
        .duties
        .is_some_and(|duties| duties.corroborate_within_us.is_some());
    let signed = outcome.is_some_and(|outcome| outcome.signed);
    match state {
        Some(OutcomeState::Corroborated) if is_claim || !signed => LayerState::Claimed,
        Some(OutcomeState::Corroborated) => {
            // A system whose key somebody else may have had does not count; the others may suffice.
            let is_sound = |change: &Change| {
                let key = KeyId::from_slice(&change.key).and_then(|key| trust.key(key));
                key.is_none_or(|key| !key.is_doubtful(Micros::new(change.at_us)))
            };
            let is_apart = |change: &Change| {
                let key = KeyId::from_slice(&change.key);
                key.is_none_or(|key| !conflicts(act, trust, key, EvidencePart::Observation))
            };
            let sound = effects::confirmed_by(act, is_sound);
            let both = effects::confirmed_by(act, |one| is_sound(one) && is_apart(one));
            if !effects::is_all(act, sound) {
                LayerState::Contradicted
            } else if effects::is_all(act, both) && !act.has(FindingKind::NotCompared) {
                LayerState::Proven
            } else {
                LayerState::Claimed
            }
        }
        Some(OutcomeState::Uncorroborated) => LayerState::Missing,
        _ if !act.observations.is_empty() => LayerState::Claimed,
        _ if asked => LayerState::Missing,
        _ => LayerState::NotAsked,
    }
}
