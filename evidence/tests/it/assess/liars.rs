//! Attacks on verdicts: whoever is accused, and whoever has nothing to do with the act.

mod shared;
mod sides;
use super::*;
use deed_evidence::assess::{layers, relied_on};
use deed_proto::v1::{
    self, EvidencePart, FindingKind as F, IntentState, LayerState as L, Layers, OutcomeStatus,
    RiskTier, Severity, TaskState, Verdict, statement::Body,
};
/// Under a controller of its own.
pub(super) const GATEWAY: Who = Who {
    seed: Some(51),
    role: v1::KeyRole::Agent,
    producer: "https://gateway.example/payments",
    controller: "https://gateway.example",
};
/// A system of the agent's own organisation.
pub(super) const OWN_SYSTEM: Who = Who {
    seed: Some(52),
    producer: "https://example.org/own-bank",
    controller: AGENT.controller,
    ..DOWNSTREAM
};
/// A policy engine of the agent's own organisation.
pub(super) const OWN_ENGINE: Who = Who {
    seed: Some(53),
    producer: "https://example.org/own-engine",
    controller: AGENT.controller,
    ..ENGINE
};
/// A system that has no business with orders.
pub(super) const WEATHER: Who = Who {
    seed: Some(54),
    producer: "https://weather.example/stations",
    controller: "https://weather.example",
    ..DOWNSTREAM
};
pub(super) fn layers_of(stage: &Stage, intent: &Place) -> Layers {
    layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust)
}
/// Returns true if something serious was found since the stage was marked.
pub(super) fn is_serious(stage: &Stage) -> bool {
    let found = stage.found();
    found
        .iter()
        .any(|found| found.severity() == Severity::Serious)
}
pub(super) fn sees(stage: &mut Stage, who: Who, intent: &Place, effects: Vec<v1::Effect>) -> Place {
    let said = observation(Some(intent), effects);
    stage.ledger.say(who, Some(1), said)
}
pub(super) fn without_amount() -> v1::Effect {
    v1::Effect {
        amount: None,
        ..effect("orders/7", 0)
    }
}
fn in_currency(currency: &str, minor_units: i64) -> v1::Effect {
    v1::Effect {
        amount: Some(v1::Amount {
            minor_units,
            currency: currency.into(),
        }),
        ..effect("orders/7", 0)
    }
}
/// A payment with all its evidence that is done and seen: every layer is proven.
pub(super) fn clean() -> (Stage, Place) {
    let mut stage = Stage::new();
    let intent = stage.cleared(0);
    stage.done(&intent);
    stage.seen(&intent, 500);
    let layers = layers_of(&stage, &intent);
    assert_eq!(layers.corroboration(), L::Proven);
    assert_eq!(stage.ledger.findings().count(), 0);
    stage.mark();
    (stage, intent)
}
/// The act was not cleared, whatever its Outcome says and whenever it says so; the bank saw it.
#[test]
fn an_act_that_was_not_cleared_is_found_once_it_is_seen() {
    let uncleared: [fn(&mut Stage) -> Place; 4] = [
        |s| s.waits(0),
        |s| {
            let intent = s.waits(0);
            s.decide(&intent, Verdict::Deny);
            intent
        },
        |s| {
            let intent = s.waits(1_000);
            s.tick(1_000);
            assert_eq!(s.state(&intent), IntentState::Lapsed);
            intent
        },
        |s| {
            s.open(RiskTier::Low);
            s.intend(None, |said| said.grant = vec![7; 32].into())
        },
    ];
    for story in uncleared {
        for status in [
            None,
            Some(OutcomeStatus::NotDone),
            Some(OutcomeStatus::Failed),
            Some(OutcomeStatus::Reverted),
            Some(OutcomeStatus::Succeeded),
        ] {
            for early in [false, true] {
                let mut stage = Stage::new();
                let intent = story(&mut stage);
                stage.mark();
                if early {
                    stage.seen(&intent, 500);
                }
                if let Some(status) = status {
                    stage.outcome(&intent, status);
                }
                if !early {
                    stage.seen(&intent, 500);
                }
                let kinds = stage.kinds();
                assert!(
                    kinds.contains(&F::OutcomeWithoutClearance)
                        || kinds.contains(&F::HiddenSideEffect),
                    "{status:?} {early} {kinds:?}"
                );
                assert!(is_serious(&stage));
                let layers = layers_of(&stage, &intent);
                assert!(
                    [layers.intent(), layers.corroboration()].contains(&L::Contradicted),
                    "{status:?} {early} {layers:?}"
                );
                stage.replays();
            }
        }
    }
}
/// The bank saw more than, or other than, what was cleared.
#[test]
fn what_is_seen_is_held_against_what_was_cleared() {
    let million = [effect("orders/7", 1_000_000), in_currency("BTC", 500)];
    let apart = [
        vec![effect("orders/7", 300), effect("orders/7", 300)],
        vec![effect("accounts/9", 500)],
    ];
    let all = million.into_iter().map(|one| vec![one]).chain(apart);
    for seen in all {
        for early in [false, true] {
            for declared in [
                vec![without_amount()],
                vec![effect("orders/7", 500)],
                seen.clone(),
            ] {
                let mut stage = Stage::new();
                let intent = stage.cleared(0);
                stage.mark();
                let done = outcome(&intent, OutcomeStatus::Succeeded, declared.clone());
                if early {
                    sees(&mut stage, DOWNSTREAM, &intent, seen.clone());
                    stage.ledger.say(AGENT, Some(1), done);
                } else {
                    stage.ledger.say(AGENT, Some(1), done);
                    sees(&mut stage, DOWNSTREAM, &intent, seen.clone());
                }
                assert!(is_serious(&stage), "{seen:?} {declared:?} {early}");
                let layers = layers_of(&stage, &intent);
                assert_ne!(
                    layers.corroboration(),
                    L::Proven,
                    "{seen:?} {declared:?} {early}"
                );
                stage.replays();
            }
        }
    }
}
/// In parts, by one system after another Observation; each system counts for itself.
#[test]
fn parts_are_added_up_for_each_system() {
    let mut stage = Stage::new();
    stage.ledger.register(WEATHER);
    let intent = stage.cleared(0);
    stage.mark();
    let part = || vec![effect("orders/7", 250)];
    sees(&mut stage, DOWNSTREAM, &intent, part());
    sees(&mut stage, WEATHER, &intent, part());
    sees(&mut stage, DOWNSTREAM, &intent, part());
    assert_eq!(stage.kinds(), []);
    let third = sees(&mut stage, DOWNSTREAM, &intent, part());
    assert_eq!(third.kinds(), [F::EffectMismatch]);
    stage.replays();
}
/// A million that is declared and declared undone was moved, and where only the one half is seen it
/// is all the more.
#[test]
fn what_is_undone_was_done() {
    let both = || {
        vec![
            effect("orders/7", 1_000_000),
            effect("orders/7", -1_000_000),
        ]
    };
    for seen in [both(), both()[..1].to_vec(), Vec::new()] {
        let mut stage = Stage::new();
        let intent = stage.cleared(0);
        stage.mark();
        let done = outcome(&intent, OutcomeStatus::Reverted, both());
        let done = stage.ledger.say(AGENT, Some(1), done);
        assert_eq!(done.kinds(), [F::EffectMismatch]);
        if !seen.is_empty() {
            let seen = sees(&mut stage, DOWNSTREAM, &intent, seen);
            assert_eq!(seen.kinds(), [F::EffectMismatch]);
        }
        assert_eq!(layers_of(&stage, &intent).result(), L::Contradicted);
        stage.replays();
    }
}
/// The changes that the Intent announces are those that the approver approved.
#[test]
fn an_intent_that_expects_its_effects_is_held_to_them() {
    let expected = || vec![effect("accounts/*", 500)];
    for (seen, fits) in [
        (effect("accounts/9", 500), true),
        (effect("accounts/9", 499), false),
        (effect("orders/7", 500), false),
    ] {
        let mut stage = Stage::new();
        stage.ledger.set_default_policy();
        stage.open(RiskTier::Payment);
        let root =
            stage.root(|grant| grant.resources = vec!["accounts/*".into(), "orders/*".into()]);
        let intent = stage.intend(Some(&root), |said| said.expected_effects = expected());
        stage.clear(&intent);
        stage.mark();
        let done = outcome(&intent, OutcomeStatus::Succeeded, vec![seen.clone()]);
        stage.ledger.say(AGENT, Some(1), done);
        sees(&mut stage, DOWNSTREAM, &intent, vec![seen]);
        assert_eq!(is_serious(&stage), !fits);
        let layer = layers_of(&stage, &intent).corroboration();
        assert_eq!(layer == L::Proven, fits);
        stage.replays();
    }
}
/// Done first, cleared afterwards: the bank's clock tells.
#[test]
fn effects_that_were_there_before_the_clearance() {
    for (observed_s, found) in [(100, true), (700, false), (0, false)] {
        let mut stage = Stage::new();
        let intent = stage.waits(0);
        stage.ledger.at(500);
        stage.clear(&intent);
        stage.mark();
        stage.done(&intent);
        let seen = Body::Observation(v1::Observation {
            intent: Some(intent.leaf_ref()),
            effects: vec![effect("orders/7", 500)],
            observed_at_us: seconds(observed_s),
            ..v1::Observation::default()
        });
        stage.ledger.say(DOWNSTREAM, Some(1), seen);
        let layer = layers_of(&stage, &intent).intent();
        assert_eq!(layer == L::Contradicted, found, "{observed_s}");
        let kinds = stage.kinds();
        assert_eq!(kinds.contains(&F::OutcomeWithoutClearance), found);
        stage.replays();
    }
}
#[test]
fn a_deadline_that_has_passed_clears_nothing() {
    for deadline_us in [1, seconds(99), seconds(100)] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let mut said = intent("orders/7", 500, None);
        said.deadline_us = deadline_us;
        // By its own clock it is in time; else it would not be taken.
        let early = |made: &mut v1::Statement| made.occurred_at_us = 0;
        let body = Body::Intent(said);
        let intent = stage.ledger.try_say(AGENT, Some(1), body, early).unwrap();
        assert_eq!(intent.state(), Some(IntentState::Denied));
        assert_eq!(intent.kinds(), [F::IntentLapsed]);
        assert_eq!(stage.ledger.kept.timers.len(), 0);
        stage.replays();
    }
}
/// The expected effects are bounded by the Intent's own resource or its grant's, and by its amount.
#[test]
fn an_intent_does_not_expect_more_than_it_asks_for() {
    for (expected, kind) in [
        (effect("accounts/9", 500), F::ScopeExceeded),
        (effect("accounts/*", 500), F::ScopeExceeded),
        (effect("orders/7", 501), F::LimitExceeded),
    ] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let root = stage.root(|_| {});
        let intent = stage.intend(Some(&root), |said| {
            said.expected_effects = vec![expected.clone()];
        });
        assert_eq!(intent.state(), Some(IntentState::Denied), "{expected:?}");
        assert_eq!(intent.kinds(), [kind]);
        stage.replays();
    }
}
/// An amount of less than nothing passes no bound.
#[test]
fn a_negative_amount_clears_nothing() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.amount = Some(amount(-1_000_000)));
    assert_eq!(intent.state(), Some(IntentState::Denied));
    assert_eq!(intent.kinds(), [F::LimitExceeded]);
    stage.replays();
}
/// An Intent that names no amount moves none.
#[test]
fn an_amount_that_nobody_named_is_found() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.amount = None);
    let done = outcome(
        &intent,
        OutcomeStatus::Succeeded,
        vec![effect("orders/7", 1_000_000)],
    );
    stage.ledger.say(AGENT, Some(1), done);
    assert_eq!(stage.seen(&intent, 1_000_000).kinds(), [F::EffectMismatch]);
    stage.replays();
}
