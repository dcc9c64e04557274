//! Attacks on acts: done without leave, told otherwise than they were, or not told at all.

use deed_evidence::assess::layers;
use deed_proto::v1::{
    self, FindingKind as F, IntentState, LayerState, OutcomeState, OutcomeStatus, RiskTier,
    statement::Body,
};

use super::*;

fn layers_of(stage: &Stage, intent: &Place) -> v1::Layers {
    layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust)
}

fn outcome_state(stage: &Stage, intent: &Place) -> OutcomeState {
    stage.ledger.act(intent.leaf).outcome.unwrap().state()
}

/// An Outcome with the gateway's own commitment of the arguments.
fn with_arguments(intent: &Place, arguments: v1::Commitment) -> Body {
    let effects = vec![effect("orders/7", 500)];
    let mut body = outcome(intent, OutcomeStatus::Succeeded, effects);
    if let Body::Outcome(said) = &mut body {
        said.arguments = Some(arguments);
    }
    body
}

#[test]
fn a_gateway_tells_that_it_was_called_otherwise() {
    let gateway = Who {
        seed: Some(41),
        producer: "https://example.org/gateway",
        ..PLATFORM
    };
    let mut stage = Stage::new();
    stage.ledger.register_as(gateway, |registered| {
        registered.acts_for = vec![AGENT.producer.into()];
    });
    let intent = stage.cleared(0);
    let told = with_arguments(&intent, committed("others"));
    let told = stage.ledger.say(gateway, Some(1), told);
    assert_eq!(told.kinds(), [F::ArgumentsChanged]);
    assert_eq!(
        layers_of(&stage, &intent).intent(),
        LayerState::Contradicted
    );
    stage.replays();

    let mut stage = Stage::new();
    let intent = stage.cleared(0);
    let told = with_arguments(&intent, committed("intent.arguments"));
    let told = stage.ledger.say(AGENT, Some(1), told);
    assert!(told.kinds().is_empty());
    assert_eq!(layers_of(&stage, &intent).intent(), LayerState::Proven);

    // Where nothing was committed to, nothing has changed: it is claimed.
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.arguments = None);
    let told = with_arguments(&intent, committed("others"));
    let told = stage.ledger.say(AGENT, Some(1), told);
    assert!(told.kinds().is_empty());
    assert_eq!(layers_of(&stage, &intent).intent(), LayerState::Claimed);
    stage.replays();
}

#[test]
fn what_was_declared_is_not_what_was_seen() {
    type Change = fn(&mut v1::Effect);
    let seen: [(Change, F); 6] = [
        (|e| e.amount = Some(amount(5_000)), F::EffectMismatch),
        (
            |e| e.amount.as_mut().unwrap().currency = "USD".into(),
            F::EffectMismatch,
        ),
        (|e| e.external_id = "R-2".into(), F::EffectMismatch),
        (|e| e.after_digest = vec![1; 32].into(), F::EffectMismatch),
        (|e| e.resource = "orders/8".into(), F::HiddenSideEffect),
        (|e| e.kind = "refund.cancelled".into(), F::HiddenSideEffect),
    ];
    for (change, kind) in seen {
        // Before the Outcome, and after it.
        for early in [false, true] {
            let mut stage = Stage::new();
            let intent = stage.cleared(0);
            let declared = v1::Effect {
                external_id: "R-1".into(),
                after_digest: vec![2; 32].into(),
                ..effect("orders/7", 500)
            };
            let mut other = declared.clone();
            change(&mut other);
            let outcome = outcome(&intent, OutcomeStatus::Succeeded, vec![declared]);
            let seen = observation(Some(&intent), vec![other]);
            stage.mark();
            let (first, last) = if early {
                let first = stage.ledger.say(DOWNSTREAM, Some(1), seen);
                (first, stage.ledger.say(AGENT, Some(1), outcome))
            } else {
                let first = stage.ledger.say(AGENT, Some(1), outcome);
                (first, stage.ledger.say(DOWNSTREAM, Some(1), seen))
            };
            // An effect that moves more than was cleared, or elsewhere, is found when it is seen.
            let found = stage.found();
            let (found, before) = found.split_last().unwrap();
            assert_eq!(found.kind(), kind, "{early}");
            assert!(
                before
                    .iter()
                    .all(|one| early && one.leaf_index == first.leaf)
            );
            assert_eq!(
                (found.leaf_index, found.about_leaf),
                (last.leaf, intent.leaf)
            );
            let seen_at = if early { first.leaf } else { last.leaf };
            assert_eq!(found.contradicts_leaf, Some(seen_at));
            assert_eq!(outcome_state(&stage, &intent), OutcomeState::Contradicted);
            assert_eq!(
                layers_of(&stage, &intent).corroboration(),
                LayerState::Contradicted
            );
            stage.replays();
        }
    }
}

#[test]
fn what_was_not_done_has_no_effects() {
    for status in [OutcomeStatus::NotDone, OutcomeStatus::Failed] {
        let mut stage = Stage::new();
        let intent = stage.cleared(0);
        stage.outcome(&intent, status);
        stage.mark();
        stage.seen(&intent, 500);
        assert_eq!(stage.kinds(), [F::HiddenSideEffect], "{status:?}");
        assert_eq!(outcome_state(&stage, &intent), OutcomeState::Contradicted);
        stage.replays();
    }
}

#[test]
fn an_effect_without_an_act_is_found() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    // Nothing names an act; something names one that is not there; a key that no act has.
    let mut named = stage.intend(None, |_| {});
    named.hash = Hash::new([5; 32]);
    let effects = vec![effect("orders/9", 1), effect("orders/9", 2)];
    let order = |made: &mut v1::Statement| {
        made.correlation_keys = vec![v1::CorrelationKey {
            kind: "order".into(),
            value: "9".into(),
        }];
    };
    for task in [None, Some(1)] {
        for (intent, keyed) in [(None, false), (Some(&named), false), (None, true)] {
            let body = observation(intent, effects.clone());
            let seen = stage.ledger.try_say(DOWNSTREAM, task, body, |made| {
                if keyed {
                    order(made);
                }
            });
            let found = seen.unwrap().assessed.findings;
            assert_eq!(found.len(), 1, "{task:?} {keyed}");
            assert_eq!(found[0].kind(), F::HiddenSideEffect);
            let wanted = task.map(|task| stage.ledger.task_id(task));
            assert_eq!(TaskId::from_slice(&found[0].task), wanted);
            assert!(
                found[0].detail.starts_with("2 effects were seen"),
                "{}",
                found[0].detail
            );
        }
    }
    stage.replays();
}

/// What is seen of an act that nobody may do, and of one that its agent keeps quiet about.
#[test]
fn an_act_that_is_kept_quiet_about_is_found() {
    let mut stage = Stage::new();
    let waiting = stage.waits(0);
    stage.seen(&waiting, 500);
    assert_eq!(stage.kinds(), [F::HiddenSideEffect]);
    stage.replays();

    let mut stage = Stage::new();
    let cleared = stage.cleared(0);
    let seen = stage.seen(&cleared, 500);
    assert!(stage.kinds().is_empty(), "its Outcome may still come");
    let end = stage.close();
    assert_eq!(stage.kinds(), [F::HiddenSideEffect]);
    let found = &stage.found()[0];
    assert_eq!(
        (found.leaf_index, found.contradicts_leaf),
        (end.leaf, Some(seen.leaf))
    );
    stage.replays();
}

/// Many who claim to have seen something do not keep out the one who has.
#[test]
fn claims_do_not_keep_an_observation_out() {
    let mut stage = Stage::new();
    let intent = stage.cleared(0);
    let claim = observation(Some(&intent), vec![effect("orders/7", 500)]);
    for _ in 0..70 {
        stage.ledger.say(ANYBODY, Some(1), claim.clone());
    }
    stage.seen(&intent, 5_000);
    for _ in 0..70 {
        stage.ledger.say(ANYBODY, Some(1), claim.clone());
    }
    assert_eq!(stage.ledger.act(intent.leaf).observations.len(), 64);
    stage.done(&intent);
    // Beyond what was cleared, and other than what was declared.
    assert_eq!(stage.kinds(), [F::EffectMismatch, F::EffectMismatch]);
    assert_eq!(outcome_state(&stage, &intent), OutcomeState::Contradicted);
    stage.replays();
}

/// Nobody corroborates itself: neither the agent's own organisation, nor nobody in particular.
#[test]
fn an_observer_is_independent() {
    let own = Who {
        seed: Some(41),
        producer: "https://example.org/own-bank",
        controller: AGENT.controller,
        ..DOWNSTREAM
    };
    let mut stage = Stage::new();
    stage.ledger.register(own);
    let intent = stage.cleared(0);
    stage.done(&intent);
    stage.mark();
    let seen = observation(Some(&intent), vec![effect("orders/7", 500)]);
    for who in [own, IMPORTER, ANYBODY] {
        stage.ledger.say(who, Some(1), seen.clone());
        assert_eq!(
            outcome_state(&stage, &intent),
            OutcomeState::Unobserved,
            "{who:?}"
        );
        assert_eq!(
            layers_of(&stage, &intent).corroboration(),
            LayerState::Claimed
        );
    }
    assert_eq!(stage.kinds(), [F::UnprovenClaim], "its own system's");
    stage.ledger.say(AGENT, Some(1), seen.clone());
    assert_eq!(stage.kinds(), [F::UnprovenClaim, F::WrongRole]);
    assert_eq!(outcome_state(&stage, &intent), OutcomeState::Unobserved);
    stage.seen(&intent, 500);
    assert_eq!(outcome_state(&stage, &intent), OutcomeState::Corroborated);
    stage.replays();
}

#[test]
fn an_outcome_is_told_once_and_of_its_own_intent() {
    let mut stage = Stage::new();
    let intent = stage.cleared(0);
    let opened = task_opened(RiskTier::Low, 0);
    stage.ledger.say(PLATFORM, Some(2), opened);
    // In another task; with another payload's digest; of a place where nothing is.
    let mut other = intent.clone();
    other.payload = Bytes::from_static(b"another");
    let mut nowhere = intent.clone();
    nowhere.sequence = deed_evidence::Sequence::new(77);
    stage.mark();
    for (task, of) in [(2, &intent), (1, &other), (1, &nowhere)] {
        let said = outcome(of, OutcomeStatus::Succeeded, Vec::new());
        stage.ledger.say(AGENT, Some(task), said);
    }
    assert_eq!(stage.kinds(), [F::OutcomeWithoutIntent; 3]);
    assert_eq!(stage.state(&intent), IntentState::Cleared);
    stage.done(&intent);
    // A second one changes nothing, alone or in a batch.
    stage.mark();
    let better = outcome(&intent, OutcomeStatus::NotDone, Vec::new());
    stage.ledger.say(AGENT, Some(1), better.clone());
    stage
        .ledger
        .say_batch(AGENT, vec![(Some(1), better.clone()), (Some(1), better)]);
    assert_eq!(stage.kinds(), [F::OutOfPlace; 3]);
    let status = stage.ledger.act(intent.leaf).outcome.unwrap().status();
    assert_eq!(status, OutcomeStatus::Succeeded);
    stage.replays();
}

#[test]
fn an_intent_and_its_outcomes_in_one_batch() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    // Its place is known before it is recorded.
    let body = Body::Intent(intent("orders/7", 500, None));
    let made = stage.ledger.statement(AGENT, Some(1), body.clone());
    let payload = deed_evidence::statement::encode(&made).unwrap();
    let place = Place {
        leaf: 0,
        hash: Hash::new([0; 32]),
        payload,
        session: AGENT.session(),
        sequence: deed_evidence::Sequence::new(made.sequence),
        assessed: deed_evidence::assess::Assessed::default(),
    };
    let done = outcome(&place, OutcomeStatus::Succeeded, Vec::new());
    let bodies = vec![(Some(1), body), (Some(1), done.clone()), (Some(1), done)];
    let places = stage.ledger.say_batch(AGENT, bodies);
    assert_eq!(stage.state(&places[0]), IntentState::Completed);
    assert_eq!(places[2].kinds(), [F::OutOfPlace]);
    assert_eq!(stage.kinds(), [F::OutOfPlace]);
    stage.replays();
}

/// What was cleared, approved and charged for 5.00 must not move 5,000.00.
#[test]
fn an_act_does_not_move_more_than_its_intent_named() {
    let in_usd = |minor_units| {
        let mut made = effect("orders/7", minor_units);
        made.amount.as_mut().unwrap().currency = "USD".into();
        made
    };
    for (effects, beyond) in [
        (vec![effect("orders/7", 500)], false),
        (vec![effect("orders/7", -500)], false),
        (vec![effect("orders/7", 500_000)], true),
        (vec![effect("orders/7", -500_000)], true),
        (vec![in_usd(5)], true),
        (vec![effect("orders/7", 500), effect("orders/8", 1)], true),
        // Undone is not done, where it was done.
        (
            vec![effect("orders/7", 500), effect("orders/7", -500)],
            false,
        ),
        (
            vec![effect("orders/7", 5_000), effect("orders/8", -4_995)],
            true,
        ),
    ] {
        for status in [OutcomeStatus::Succeeded, OutcomeStatus::Failed] {
            let mut stage = Stage::new();
            let intent = stage.cleared(0);
            stage.mark();
            let done = outcome(&intent, status, effects.clone());
            let done = stage.ledger.say(AGENT, Some(1), done);
            let kinds = Vec::from_iter(beyond.then_some(F::EffectMismatch));
            assert_eq!(stage.kinds(), kinds, "{effects:?}");
            let layer = [LayerState::Proven, LayerState::Contradicted][usize::from(beyond)];
            assert_eq!(layers_of(&stage, &intent).result(), layer, "{effects:?}");
            for found in stage.found() {
                assert_eq!(
                    (found.leaf_index, found.about_leaf, found.contradicts_leaf),
                    (done.leaf, done.leaf, Some(intent.leaf))
                );
            }
            stage.replays();
        }
    }
    // An Intent that names no amount is held to none; one that waited is held to its own.
    let mut stage = Stage::of(Ledger::forgetting());
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.amount = None);
    let done = outcome(&intent, OutcomeStatus::Succeeded, vec![in_usd(500_000)]);
    assert_eq!(stage.ledger.say(AGENT, Some(1), done).kinds(), []);
    stage.replays();
}
