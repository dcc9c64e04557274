//! Attacks on corroboration: one change that confirms two, and two that pass for one.

use deed_evidence::assess::layers;
use deed_proto::v1::{
    self, FindingKind as F, IntentState, LayerState, OutcomeState, OutcomeStatus, RiskTier,
    statement::Body,
};

use super::*;

/// The bank with another key: it is still the bank.
const BANK_AGAIN: Who = Who {
    seed: Some(41),
    ..DOWNSTREAM
};

/// A system of somebody else's.
const SHOP: Who = Who {
    seed: Some(42),
    producer: "https://shop.example/orders",
    controller: "https://shop.example",
    ..DOWNSTREAM
};

/// A system of the agent's own organisation.
const OWN: Who = Who {
    seed: Some(43),
    producer: "https://example.org/own-bank",
    controller: AGENT.controller,
    ..DOWNSTREAM
};

fn refund(id: &str) -> v1::Effect {
    v1::Effect {
        external_id: id.into(),
        ..effect("orders/7", 250)
    }
}

fn state(stage: &Stage, intent: &Place) -> OutcomeState {
    stage.ledger.act(intent.leaf).outcome.unwrap().state()
}

/// An act that declares so many equal refunds, without ids.
fn declared(count: usize) -> (Stage, Place) {
    let mut stage = Stage::new();
    for who in [BANK_AGAIN, SHOP, OWN] {
        stage.ledger.register(who);
    }
    let intent = stage.cleared(0);
    let done = outcome(&intent, OutcomeStatus::Succeeded, vec![refund(""); count]);
    stage.ledger.say(AGENT, Some(1), done);
    stage.mark();
    (stage, intent)
}

fn sees(stage: &mut Stage, who: Who, intent: &Place, id: &str) -> Vec<F> {
    let said = observation(Some(intent), vec![refund(id)]);
    stage.ledger.say(who, Some(1), said).kinds()
}

#[test]
fn one_refund_does_not_confirm_two() {
    let (mut stage, intent) = declared(2);
    // Reported again and again, by whatever key: it is one.
    for who in [DOWNSTREAM, DOWNSTREAM, BANK_AGAIN] {
        assert_eq!(sees(&mut stage, who, &intent, "R-1"), []);
        assert_eq!(state(&stage, &intent), OutcomeState::Unobserved);
    }
    // Somebody else saw the same one.
    assert_eq!(sees(&mut stage, SHOP, &intent, "R-1"), []);
    assert_eq!(state(&stage, &intent), OutcomeState::Unobserved);
    assert_eq!(sees(&mut stage, BANK_AGAIN, &intent, "R-2"), []);
    assert_eq!(state(&stage, &intent), OutcomeState::Corroborated);
    // A repeat of either is no third one; what has another id is.
    assert_eq!(sees(&mut stage, DOWNSTREAM, &intent, "R-1"), []);
    assert_eq!(sees(&mut stage, DOWNSTREAM, &intent, "R-2"), []);
    assert_eq!(state(&stage, &intent), OutcomeState::Corroborated);
    let third = sees(&mut stage, DOWNSTREAM, &intent, "R-3");
    assert_eq!(third, [F::HiddenSideEffect]);
    assert_eq!(state(&stage, &intent), OutcomeState::Contradicted);
    stage.replays();
}

#[test]
fn one_id_that_is_listed_twice_does_not_confirm_two() {
    let (mut stage, intent) = declared(2);
    let twice = observation(Some(&intent), vec![refund("R-1"), refund("R-1")]);
    let seen = stage.ledger.say(DOWNSTREAM, Some(1), twice);
    assert_eq!(seen.kinds(), [F::HiddenSideEffect]);
    assert_eq!(state(&stage, &intent), OutcomeState::Contradicted);
    stage.replays();
}

/// Money that moves twice is seen twice: before the Outcome, after it, and around it.
#[test]
fn a_refund_that_was_made_twice_is_found() {
    for early in 0..=2 {
        for (ids, hidden) in [
            (["", ""], true),
            (["R-1", "R-2"], true),
            (["R-1", "R-1"], false),
        ] {
            let mut stage = Stage::new();
            let intent = stage.cleared(0);
            let done = outcome(&intent, OutcomeStatus::Succeeded, vec![refund("")]);
            stage.mark();
            let mut last = intent.leaf;
            for (n, id) in ids.iter().enumerate() {
                if n == early {
                    last = stage.ledger.say(AGENT, Some(1), done.clone()).leaf;
                }
                let said = observation(Some(&intent), vec![refund(id)]);
                last = last.max(stage.ledger.say(DOWNSTREAM, Some(1), said).leaf);
            }
            if early == 2 {
                last = stage.ledger.say(AGENT, Some(1), done).leaf;
            }
            let (kinds, wanted) = if hidden {
                (vec![F::HiddenSideEffect], OutcomeState::Contradicted)
            } else {
                (Vec::new(), OutcomeState::Corroborated)
            };
            assert_eq!(stage.kinds(), kinds, "{ids:?} {early}");
            assert_eq!(state(&stage, &intent), wanted, "{ids:?} {early}");
            let layers = layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust);
            let layer = [LayerState::Proven, LayerState::Contradicted][usize::from(hidden)];
            assert_eq!(layers.corroboration(), layer, "{ids:?} {early}");
            for found in stage.found() {
                assert_eq!((found.leaf_index, found.about_leaf), (last, intent.leaf));
                assert!(found.detail.contains("more often"), "{}", found.detail);
            }
            stage.replays();
        }
    }
}

/// Two systems that saw one refund each saw the same one; the agent's own counts, and confirms
/// nothing; claims are not counted.
#[test]
fn each_system_counts_for_itself() {
    let (mut stage, intent) = declared(1);
    for _ in 0..3 {
        for who in [ANYBODY, IMPORTER] {
            assert_eq!(sees(&mut stage, who, &intent, ""), [], "{who:?}");
        }
    }
    assert_eq!(sees(&mut stage, OWN, &intent, ""), [F::UnprovenClaim]);
    assert_eq!(state(&stage, &intent), OutcomeState::Unobserved);
    for who in [DOWNSTREAM, SHOP] {
        assert_eq!(sees(&mut stage, who, &intent, ""), [], "{who:?}");
        assert_eq!(state(&stage, &intent), OutcomeState::Corroborated);
    }
    // Its own organisation is no witness, neither for the agent nor against it.
    assert_eq!(sees(&mut stage, OWN, &intent, ""), [F::UnprovenClaim]);
    assert_eq!(state(&stage, &intent), OutcomeState::Corroborated);
    assert_eq!(sees(&mut stage, SHOP, &intent, ""), [F::HiddenSideEffect]);
    assert_eq!(state(&stage, &intent), OutcomeState::Contradicted);
    stage.replays();
}

/// One that nobody has seen comes first, whoever sees it.
#[test]
fn two_systems_confirm_one_effect_each() {
    let (mut stage, intent) = declared(2);
    assert_eq!(sees(&mut stage, DOWNSTREAM, &intent, "B-1"), []);
    assert_eq!(state(&stage, &intent), OutcomeState::Unobserved);
    assert_eq!(sees(&mut stage, SHOP, &intent, "S-1"), []);
    assert_eq!(state(&stage, &intent), OutcomeState::Corroborated);
    stage.replays();
}

/// A repeat under the same id that says something else is no second effect either.
#[test]
fn a_repeat_cannot_change_its_amount() {
    let mut stage = Stage::new();
    let intent = stage.cleared(0);
    let two = vec![effect("orders/7", 100), effect("orders/7", 200)];
    let done = outcome(&intent, OutcomeStatus::Succeeded, two);
    stage.ledger.say(AGENT, Some(1), done);
    for (minor_units, kinds) in [(100, vec![]), (200, vec![F::EffectMismatch])] {
        let seen = v1::Effect {
            external_id: "R-1".into(),
            ..effect("orders/7", minor_units)
        };
        let said = observation(Some(&intent), vec![seen]);
        assert_eq!(stage.ledger.say(DOWNSTREAM, Some(1), said).kinds(), kinds);
    }
    assert_eq!(state(&stage, &intent), OutcomeState::Contradicted);
    stage.replays();
}

/// Two acts with one order number, told of by that alone.
#[test]
fn two_acts_of_one_order_have_an_observation_each() {
    // The Outcomes come first, between, or last.
    for (first, ids) in [0, 1, 2]
        .into_iter()
        .flat_map(|n| [(n, ["", ""]), (n, ["R-1", "R-2"])])
    {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let mut acts = Vec::new();
        for _ in 0..2 {
            let body = Body::Intent(intent("orders/7", 250, None));
            let said = stage.ledger.try_say(AGENT, Some(1), body, with_order);
            acts.push(said.unwrap());
            assert_eq!(stage.state(&acts[0]), IntentState::Cleared);
        }
        let done = |stage: &mut Stage| {
            for act in &acts {
                let said = outcome(act, OutcomeStatus::Succeeded, vec![refund("")]);
                stage.ledger.say(AGENT, Some(1), said);
            }
        };
        let see = |stage: &mut Stage, id: &str| {
            let said = observation(None, vec![refund(id)]);
            let said = stage.ledger.try_say(DOWNSTREAM, Some(1), said, with_order);
            said.unwrap();
        };
        for (n, id) in ids.into_iter().enumerate() {
            if n == first {
                done(&mut stage);
            }
            see(&mut stage, id);
            if !id.is_empty() {
                // Again, and that is not the other act's.
                see(&mut stage, id);
            }
        }
        if first == 2 {
            done(&mut stage);
        }
        for act in &acts {
            let state = state(&stage, act);
            assert_eq!(state, OutcomeState::Corroborated, "{first} {ids:?}");
        }
        assert_eq!(stage.kinds(), [], "{first} {ids:?}");
        see(&mut stage, "");
        assert_eq!(stage.kinds(), [F::HiddenSideEffect], "{first} {ids:?}");
        stage.replays();
    }
}
