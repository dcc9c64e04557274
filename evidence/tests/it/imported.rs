//! What an importer brings in is claimed, whatever it says and however it is signed.

use deed_evidence::assess::layers;
use deed_proto::v1::{
    FindingKind, IntentState, LayerState, Layers, OutcomeStatus, RiskTier, Verdict, statement::Body,
};

use crate::ledger::{
    AGENT, ANYBODY, AUTHORITY, IMPORTER, Ledger, PLATFORM, Place, Who, approval, effect, grant_to,
    intent, outcome, task_opened,
};

/// An act of somebody under a grant of the authority, with an approval that an importer brings in.
fn act_of(who: Who, outcome_by: Who) -> (Ledger, Place) {
    let mut ledger = Ledger::new();
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let grant = ledger.say(AUTHORITY, Some(1), grant_to(who));
    let act = Body::Intent(intent("orders/7", 100, Some(grant.hash)));
    let act = ledger.say(who, Some(1), act);
    assert_eq!(act.state(), Some(IntentState::Cleared));
    let yes = approval(&act, Verdict::Allow, ledger.now());
    ledger.say(IMPORTER, Some(1), yes);
    let done = outcome(
        &act,
        OutcomeStatus::Succeeded,
        vec![effect("orders/7", 100)],
    );
    ledger.say(outcome_by, Some(1), done);
    let claims = usize::from(who != outcome_by);
    assert_eq!(ledger.findings().count(), claims);
    assert_eq!(ledger.has(FindingKind::UnprovenClaim), claims > 0);
    (ledger, act)
}

fn layers_of(ledger: &Ledger, act: &Place) -> Layers {
    layers::of(&ledger.act(act.leaf), &ledger.trust)
}

#[test]
fn an_importers_signature_proves_no_act() {
    let (ledger, act) = act_of(IMPORTER, IMPORTER);
    let layers = layers_of(&ledger, &act);
    assert_eq!(layers.identity(), LayerState::Claimed);
    // The grant is the authority's own word.
    assert_eq!(layers.authority(), LayerState::Proven);
    assert_eq!(layers.intent(), LayerState::Claimed);
    assert_eq!(layers.approval(), LayerState::Claimed);
    assert_eq!(layers.result(), LayerState::Claimed);
}

#[test]
fn an_agents_does_and_an_imported_outcome_of_it_is_none() {
    let (ledger, act) = act_of(AGENT, AGENT);
    let layers = layers_of(&ledger, &act);
    assert_eq!(layers.identity(), LayerState::Proven);
    assert_eq!(layers.intent(), LayerState::Proven);
    assert_eq!(layers.result(), LayerState::Proven);
    // The approval was the importer's.
    assert_eq!(layers.approval(), LayerState::Claimed);

    for by in [IMPORTER, ANYBODY] {
        let (ledger, act) = act_of(AGENT, by);
        let layers = layers_of(&ledger, &act);
        assert_eq!(layers.identity(), LayerState::Proven);
        assert_eq!(layers.result(), LayerState::Missing, "{by:?}");
    }
}

#[test]
fn an_unsigned_import_is_claimed() {
    let (ledger, act) = act_of(ANYBODY, ANYBODY);
    let layers = layers_of(&ledger, &act);
    assert_eq!(layers.identity(), LayerState::Claimed);
    assert_eq!(layers.intent(), LayerState::Claimed);
    assert_eq!(layers.result(), LayerState::Claimed);
}
