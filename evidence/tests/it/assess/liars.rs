//! Attacks on verdicts: whoever is accused, and whoever has nothing to do with the act.

use deed_evidence::assess::{layers, relied_on};
use deed_proto::v1::{
    self, EvidencePart, FindingKind as F, IntentState, LayerState as L, Layers, OutcomeStatus,
    RiskTier, Severity, TaskState, Verdict, statement::Body,
};

use super::*;

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
    layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.registry)
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

/// Another agent's word, or the approver's, is no Outcome, and does not come before the true one.
#[test]
fn an_outcome_needs_a_relation_to_its_act() {
    let mut stage = Stage::new();
    stage.ledger.register(GATEWAY);
    stage.ledger.register(WEATHER);
    let intent = stage.cleared(0);
    let failed = || outcome(&intent, OutcomeStatus::NotDone, Vec::new());
    for who in [
        HELPER, GATEWAY, PLATFORM, DOWNSTREAM, WEATHER, APPROVER, ENGINE, IMPORTER, ANYBODY,
    ] {
        let said = stage.ledger.say(who, Some(1), failed());
        let kind = match who {
            APPROVER | ENGINE => F::WrongRole,
            _ => F::UnprovenClaim,
        };
        assert_eq!(said.kinds(), [kind], "{who:?}");
        assert!(stage.ledger.act(intent.leaf).outcome.is_none());
        assert_eq!(layers_of(&stage, &intent).result(), L::Missing);
    }
    stage.mark();
    let done = stage.done(&intent);
    assert_eq!(done.kinds(), []);
    stage.seen(&intent, 500);
    assert_eq!(stage.kinds(), []);
    let layers = layers_of(&stage, &intent);
    assert_eq!(
        (layers.result(), layers.corroboration()),
        (L::Proven, L::Proven)
    );
    stage.replays();
}

/// A gateway is named by its registration, or by the grant.
#[test]
fn a_named_gateway_gives_the_outcome() {
    for granted in [false, true] {
        let mut stage = Stage::new();
        if granted {
            stage.ledger.register(GATEWAY);
        } else {
            stage.ledger.register_as(GATEWAY, |registered| {
                registered.acts_for = vec![AGENT.producer.into()];
            });
        }
        stage.ledger.set_default_policy();
        stage.open(RiskTier::Payment);
        let root = stage.root(|grant| {
            if granted {
                grant.gateways = vec![GATEWAY.producer.into()];
            }
        });
        let intent = stage.intend(Some(&root), |_| {});
        stage.clear(&intent);
        stage.mark();
        let done = outcome(
            &intent,
            OutcomeStatus::Succeeded,
            vec![effect("orders/7", 500)],
        );
        let done = stage.ledger.say(GATEWAY, Some(1), done);
        assert_eq!(done.kinds(), []);
        stage.seen(&intent, 500);
        let layers = layers_of(&stage, &intent);
        assert_eq!(
            (layers.result(), layers.corroboration()),
            (L::Proven, L::Proven)
        );
        stage.replays();
    }
    // A part of a grant names nobody whom its parent does not name.
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|_| {});
    let part = stage.part(&root, |part| part.gateways = vec![GATEWAY.producer.into()]);
    assert_eq!(part.kinds(), [F::DelegationEscalation]);
}

/// Whoever carries the act out is no witness of it, nor is anybody of the same controller.
#[test]
fn one_controller_does_not_count_twice() {
    let bank_gateway = Who {
        controller: DOWNSTREAM.controller,
        ..GATEWAY
    };
    for early in [false, true] {
        let mut stage = Stage::new();
        stage.ledger.register(OWN_SYSTEM);
        stage.ledger.register_as(bank_gateway, |registered| {
            registered.acts_for = vec![AGENT.producer.into()];
        });
        let intent = stage.cleared(0);
        stage.mark();
        let done = outcome(
            &intent,
            OutcomeStatus::Succeeded,
            vec![effect("orders/7", 500)],
        );
        if early {
            stage.seen(&intent, 500);
            stage.ledger.say(bank_gateway, Some(1), done);
        } else {
            stage.ledger.say(bank_gateway, Some(1), done);
            stage.seen(&intent, 500);
        }
        sees(&mut stage, OWN_SYSTEM, &intent, vec![effect("orders/7", 1)]);
        let layers = layers_of(&stage, &intent);
        assert_eq!(layers.result(), L::Proven);
        assert_eq!(layers.corroboration(), L::Claimed, "{early}");
        assert!(!is_serious(&stage));
        stage.replays();
    }
}

/// A policy engine under the agent's controller decides nothing: neither yes nor no.
#[test]
fn the_agents_own_engine_is_no_decision() {
    for verdict in [Verdict::Allow, Verdict::Deny] {
        let mut stage = Stage::new();
        stage.ledger.register(OWN_ENGINE);
        let intent = stage.waits(0);
        let said = stage
            .ledger
            .say(OWN_ENGINE, Some(1), decision(&intent, verdict));
        assert_eq!(said.kinds(), [F::UnprovenClaim]);
        assert!(stage.ledger.act(intent.leaf).evidence.is_empty());
        stage.approve(APPROVER, &intent, Verdict::Allow);
        assert_eq!(stage.state(&intent), IntentState::Waiting);
        stage.decide(&intent, Verdict::Allow);
        assert_eq!(stage.state(&intent), IntentState::Cleared);
        stage.replays();
    }
}

/// Engine and approver of one controller are one voice, whichever speaks first.
#[test]
fn who_decides_does_not_approve() {
    let own_approver = Who {
        seed: Some(55),
        producer: "https://example.org/people/eve",
        controller: ENGINE.controller,
        ..APPROVER
    };
    for decides_first in [false, true] {
        let mut stage = Stage::new();
        stage.ledger.register(own_approver);
        let intent = stage.waits(0);
        if decides_first {
            stage.decide(&intent, Verdict::Allow);
            let approved = stage.approve(own_approver, &intent, Verdict::Allow);
            assert_eq!(approved.kinds(), [F::UnprovenClaim]);
        } else {
            stage.approve(own_approver, &intent, Verdict::Allow);
            assert_eq!(
                stage.decide(&intent, Verdict::Allow).kinds(),
                [F::UnprovenClaim]
            );
        }
        assert_eq!(stage.state(&intent), IntentState::Waiting);
        stage.replays();
    }
}

/// A clean act stays clean, whatever strangers say of it: effects that nobody saw, refusals that
/// come late, systems of other resources.
#[test]
fn a_clean_act_stays_clean_whatever_strangers_say() {
    let (mut stage, intent) = clean();
    let before = layers_of(&stage, &intent);
    for who in [OWN_SYSTEM, OWN_ENGINE, GATEWAY] {
        stage.ledger.register(who);
    }
    stage.ledger.register_as(WEATHER, |registered| {
        registered.resources = vec!["stations/*".into()];
    });
    let lies = || vec![effect("orders/7", 99_000), effect("accounts/9", 1)];
    for who in [
        ANYBODY, IMPORTER, OWN_SYSTEM, WEATHER, HELPER, GATEWAY, APPROVER, PLATFORM, ENGINE,
    ] {
        sees(&mut stage, who, &intent, lies());
    }
    for who in [HELPER, GATEWAY, ANYBODY, IMPORTER, APPROVER] {
        let failed = outcome(&intent, OutcomeStatus::Failed, Vec::new());
        stage.ledger.say(who, Some(1), failed);
    }
    for who in [COLLEAGUE, SECOND, APPROVER, ANYBODY, IMPORTER] {
        stage.approve(who, &intent, Verdict::Deny);
    }
    for who in [ENGINE, OWN_ENGINE, ANYBODY] {
        stage
            .ledger
            .say(who, Some(1), decision(&intent, Verdict::Deny));
    }
    assert_eq!(layers_of(&stage, &intent), before);
    assert_eq!(stage.state(&intent), IntentState::Completed);
    let about = |found: &v1::Finding| {
        found.about_leaf == intent.leaf && found.severity() != Severity::Notice
    };
    assert!(!stage.found().iter().any(about), "{:?}", stage.found());
    stage.replays();
}

/// Every key that a layer rests on can put it in doubt.
#[test]
fn a_compromised_key_puts_every_layer_in_doubt_that_rests_on_it() {
    type Layer = fn(&Layers) -> L;
    let cases: [(Who, &[EvidencePart], &[Layer]); 6] = [
        (PLATFORM, &[EvidencePart::Task], &[Layers::authority]),
        (AGENT, &[EvidencePart::Delegation], &[Layers::authority]),
        (
            HELPER,
            &[
                EvidencePart::Intent,
                EvidencePart::Delegation,
                EvidencePart::Outcome,
            ],
            &[
                Layers::identity,
                Layers::intent,
                Layers::authority,
                Layers::result,
            ],
        ),
        (ENGINE, &[EvidencePart::Decision], &[Layers::authority]),
        (APPROVER, &[EvidencePart::Approval], &[Layers::approval]),
        (
            DOWNSTREAM,
            &[EvidencePart::Observation],
            &[Layers::corroboration],
        ),
    ];
    for (who, parts, doubtful) in cases {
        let mut stage = Stage::new();
        stage.ledger.set_default_policy();
        stage.open(RiskTier::Payment);
        let root = stage.root(|_| {});
        let part = stage.part(&root, |_| {});
        stage.ledger.say(HELPER, Some(1), accepted(part.hash));
        let mut said = intent("orders/7", 500, Some(part.hash));
        said.model = "model-1".into();
        let intent = stage.ledger.say(HELPER, Some(1), Body::Intent(said));
        stage.clear(&intent);
        let done = outcome(
            &intent,
            OutcomeStatus::Succeeded,
            vec![effect("orders/7", 500)],
        );
        stage.ledger.say(HELPER, Some(1), done);
        // It names no task: the act is found by its leaf.
        let seen = observation(Some(&intent), vec![effect("orders/7", 500)]);
        stage.ledger.say(DOWNSTREAM, None, seen);
        let all: [(&str, Layer); 6] = [
            ("identity", Layers::identity),
            ("authority", Layers::authority),
            ("intent", Layers::intent),
            ("approval", Layers::approval),
            ("result", Layers::result),
            ("corroboration", Layers::corroboration),
        ];
        let before = layers_of(&stage, &intent);
        for (name, layer) in all {
            assert_eq!(layer(&before), L::Proven, "{name}");
        }
        let act = stage.ledger.act(intent.leaf);
        let relied: Vec<_> = relied_on(&act)
            .filter(|relied| Some(relied.key) == who.key())
            .map(|relied| relied.part)
            .collect();
        for part in parts {
            assert!(relied.contains(part), "{who:?} {relied:?}");
        }
        stage.mark();
        stage
            .ledger
            .say(AUTHORITY, None, key_revoked(who, Some(50)));
        assert!(stage.kinds().contains(&F::CompromisedKeyUse), "{who:?}");
        let after = layers_of(&stage, &intent);
        for (name, layer) in all {
            let doubted = doubtful.iter().any(|doubted| {
                doubted(&after) == L::Contradicted && layer(&after) == L::Contradicted
            });
            assert_eq!(layer(&after) == L::Contradicted, doubted, "{who:?} {name}");
        }
        for doubted in doubtful {
            assert_eq!(doubted(&after), L::Contradicted, "{who:?}");
        }
        let count = all
            .iter()
            .filter(|(_, layer)| layer(&after) == L::Contradicted);
        assert_eq!(count.count(), doubtful.len(), "{who:?}");
        stage.replays();
    }
}

/// Two systems saw it, and one of them is not believed any more: the other suffices.
#[test]
fn a_second_system_bears_the_corroboration_alone() {
    let (mut stage, intent) = clean();
    stage.ledger.register(WEATHER);
    sees(&mut stage, WEATHER, &intent, vec![effect("orders/7", 500)]);
    stage
        .ledger
        .say(AUTHORITY, None, key_revoked(DOWNSTREAM, Some(50)));
    assert_eq!(layers_of(&stage, &intent).corroboration(), L::Proven);
    stage
        .ledger
        .say(AUTHORITY, None, key_revoked(WEATHER, Some(50)));
    assert_eq!(layers_of(&stage, &intent).corroboration(), L::Contradicted);
    stage.replays();
}

/// The platform's opening comes before one that nobody proves, with its tier and its deadline.
#[test]
fn a_proven_opening_displaces_a_claimed_one() {
    let late = Who {
        seed: Some(56),
        producer: "https://example.org/platform/late",
        ..PLATFORM
    };
    let unsigned = Who { seed: None, ..late };
    let mut stage = Stage::new();
    stage.ledger.set_default_policy();
    stage
        .ledger
        .say(unsigned, Some(1), task_opened(RiskTier::Low, 5_000));
    // Somebody else does not end what they did not begin.
    for who in [HELPER, IMPORTER, APPROVER, PLATFORM, ANYBODY] {
        stage.ledger.say(who, Some(1), task_closed());
        assert_eq!(stage.ledger.task(1).state(), TaskState::Open, "{who:?}");
    }
    stage.ledger.register(late);
    stage.mark();
    let opened = stage
        .ledger
        .say(late, Some(1), task_opened(RiskTier::Payment, 0));
    assert_eq!(opened.kinds(), []);
    let task = stage.ledger.task(1);
    assert_eq!((task.tier(), task.opened()), (RiskTier::Payment, L::Proven));
    assert_eq!((task.opened_leaf, task.deadline_us), (Some(opened.leaf), 0));
    assert!(stage.ledger.kept.timers.is_empty());
    let root = stage.root(|_| {});
    let intent = stage.intend(Some(&root), |_| {});
    assert_eq!(intent.state(), Some(IntentState::Waiting));
    stage.replays();
}

/// Neither what nobody signs nor what another controller's agent announces pushes the act out of what
/// an order number finds; and what is left out is found.
#[test]
fn a_correlation_key_has_room_for_everybody() {
    for (flood, by) in [(70, ANYBODY), (70, HELPER)] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let said = Body::Intent(intent("orders/7", 500, None));
        let real = stage
            .ledger
            .try_say(AGENT, Some(1), said.clone(), with_order);
        let real = real.unwrap();
        let mut left_out = 0;
        for _ in 0..flood {
            let other = stage.ledger.try_say(by, Some(1), said.clone(), with_order);
            left_out += other.unwrap().kinds().len();
        }
        assert_eq!(left_out > 0, by == HELPER);
        stage.done(&real);
        stage.mark();
        let seen = observation(None, vec![effect("orders/7", 500)]);
        let seen = stage.ledger.try_say(DOWNSTREAM, None, seen, with_order);
        assert_eq!(seen.unwrap().kinds(), []);
        assert_eq!(layers_of(&stage, &real).corroboration(), L::Proven);
        stage.replays();
    }
}

/// Acts that cost much to compare do not keep a system's Observation from the act that it is of: the speakers
/// take turns. Where they are all one speaker's, the Observation says that it was not compared with all.
#[test]
fn a_flood_of_acts_does_not_push_out_the_one_that_was_seen() {
    for by in [ANYBODY, HELPER, IMPORTER, AGENT] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let many = |n: u32| v1::Effect {
            resource: format!("orders/{n:03}/{}", "a".repeat(200)),
            ..without_amount()
        };
        for _ in 0..31 {
            let said = v1::Intent {
                amount: None,
                expected_effects: (0..64).map(many).collect(),
                ..intent("orders/7", 0, None)
            };
            let said = Body::Intent(said);
            stage.ledger.try_say(by, Some(1), said, with_order).unwrap();
        }
        let said = Body::Intent(intent("orders/7", 500, None));
        let real = stage.ledger.try_say(AGENT, Some(1), said, with_order);
        let real = real.unwrap();
        stage.done(&real);
        let seen = observation(None, vec![effect("orders/7", 500)]);
        let seen = stage.ledger.try_say(DOWNSTREAM, None, seen, with_order);
        // There is no room for all of them, and none is said to be of no act.
        assert_eq!(seen.unwrap().kinds(), [F::NotCompared], "{by:?}");
        let corroboration = layers_of(&stage, &real).corroboration();
        assert_eq!(corroboration == L::Proven, by != AGENT, "{by:?}");
        // Whoever names the Intent needs no search.
        let seen = observation(Some(&real), vec![effect("orders/7", 500)]);
        let seen = stage.ledger.try_say(DOWNSTREAM, None, seen, with_order);
        if by == AGENT {
            assert_eq!(seen.unwrap().kinds(), []);
            assert_eq!(layers_of(&stage, &real).corroboration(), L::Proven);
        }
        stage.replays();
    }
}

/// 64 acts whose effects were seen wait for the end of their task; the 65th is not forgotten. They are looked
/// at in portions.
#[test]
fn what_is_seen_beyond_the_bound_is_found() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    for n in 0..66 {
        let intent = stage.intend(None, |_| {});
        let seen = stage.seen(&intent, 500);
        assert_eq!(seen.kinds() == [F::NotCompared], n >= 64, "{n}");
    }
    stage.mark();
    stage.close();
    for portion in 1..=8 {
        assert_eq!(stage.kinds().len(), 8 * portion);
        stage.ledger.at(200 + i64::try_from(portion).unwrap());
        assert_eq!(stage.ledger.tick(), portion < 8, "{portion}");
    }
    assert_eq!(stage.kinds(), [F::HiddenSideEffect; 64]);
    stage.replays();
}

#[test]
fn changes_beyond_the_bound_are_found() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.amount = None);
    let seen = |from: u32| {
        let one = |n: u32| v1::Effect {
            external_id: format!("R-{n}"),
            ..without_amount()
        };
        (from..from + 64).map(one).collect::<Vec<_>>()
    };
    assert_eq!(sees(&mut stage, DOWNSTREAM, &intent, seen(0)).kinds(), []);
    let beyond = sees(&mut stage, DOWNSTREAM, &intent, seen(64));
    assert_eq!(beyond.kinds(), [F::NotCompared]);
    stage.replays();
}

/// Grants that nobody signs do not push an authority's grant out of what its token finds.
#[test]
fn a_token_finds_the_authoritys_grant() {
    let token = || {
        Some(v1::OutsideToken {
            kind: "jti".into(),
            value: "t-1".into(),
            ..v1::OutsideToken::default()
        })
    };
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let with_token = |mut grant: v1::Grant| {
        grant.outside_token = token();
        Body::Grant(grant)
    };
    stage
        .ledger
        .say(AUTHORITY, Some(1), with_token(grant(AGENT)));
    stage
        .ledger
        .say(PLATFORM, Some(2), task_opened(RiskTier::Low, 0));
    for _ in 0..70 {
        stage
            .ledger
            .say(ANYBODY, Some(2), with_token(grant(HELPER)));
    }
    stage.close();
    let used = |made: &mut v1::Statement| {
        made.correlation_keys = vec![v1::CorrelationKey {
            kind: "jti".into(),
            value: "t-1".into(),
        }];
    };
    let seen = || observation(None, vec![effect("orders/7", 1)]);
    let claimed = stage.ledger.try_say(ANYBODY, None, seen(), used).unwrap();
    assert_eq!(claimed.kinds(), [F::UnprovenClaim]);
    let seen = stage
        .ledger
        .try_say(DOWNSTREAM, None, seen(), used)
        .unwrap();
    assert_eq!(seen.kinds(), [F::TokenUsedAfterClose, F::HiddenSideEffect]);
    stage.replays();
}

/// A strength that the policy asks for is the approver's word.
#[test]
fn a_strength_of_authentication_is_claimed() {
    let asks_for = |what: &str| {
        format!("permit (principal, action, resource) when {{ context.evidence.{what} >= 1 }};")
    };
    for (what, layer) in [
        ("approvals", L::Proven),
        ("approvals_multi_factor", L::Claimed),
    ] {
        let mut stage = Stage::new();
        stage.ledger.set_policy(&asks_for(what));
        stage.open(RiskTier::Payment);
        let intent = stage.intend(None, |_| {});
        assert_eq!(intent.state(), Some(IntentState::Waiting));
        stage.approve(APPROVER, &intent, Verdict::Allow);
        assert_eq!(stage.state(&intent), IntentState::Cleared);
        assert_eq!(layers_of(&stage, &intent).approval(), layer, "{what}");
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

/// A decoy that nobody signed, or that was denied, does not draw the bank's word away.
#[test]
fn a_decoy_takes_no_sight_away() {
    for signed in [false, true] {
        for early in [false, true] {
            let mut stage = Stage::new();
            stage.open(RiskTier::Low);
            let by = if signed { HELPER } else { ANYBODY };
            // The honest act, and the decoy that declares what will be seen.
            let said = Body::Intent(intent("orders/7", 500, None));
            let real = stage
                .ledger
                .try_say(AGENT, Some(1), said, with_order)
                .unwrap();
            let mut decoy = intent("orders/7", 500, None);
            decoy.grant = vec![7; 32].into();
            let body = Body::Intent(decoy);
            let decoy = stage.ledger.try_say(by, Some(1), body, with_order).unwrap();
            assert_eq!(decoy.state(), Some(IntentState::Denied));
            if !signed {
                let done = outcome(
                    &decoy,
                    OutcomeStatus::Succeeded,
                    vec![effect("orders/7", 500)],
                );
                stage.ledger.say(by, Some(1), done);
            }
            if !early {
                stage.done(&real);
            }
            let seen = observation(None, vec![effect("orders/7", 500)]);
            stage
                .ledger
                .try_say(DOWNSTREAM, None, seen, with_order)
                .unwrap();
            if early {
                stage.done(&real);
            }
            let layer = layers_of(&stage, &real).corroboration();
            assert_eq!(layer, L::Proven, "{signed} {early}");
            stage.replays();
        }
    }
}

/// The effects that a denied act asked for and had are not put on another's act that was cleared
/// for less.
#[test]
fn a_denied_act_keeps_its_own_effects() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let said = Body::Intent(intent("orders/7", 500, None));
    let honest = stage
        .ledger
        .try_say(HELPER, Some(1), said, with_order)
        .unwrap();
    let mut said = intent("orders/7", 1_000_000, None);
    said.grant = vec![7; 32].into();
    let body = Body::Intent(said);
    let denied = stage
        .ledger
        .try_say(AGENT, Some(1), body, with_order)
        .unwrap();
    stage.mark();
    let seen = observation(None, vec![effect("orders/7", 1_000_000)]);
    stage
        .ledger
        .try_say(DOWNSTREAM, None, seen, with_order)
        .unwrap();
    assert_eq!(stage.kinds(), [F::HiddenSideEffect]);
    assert_eq!(stage.found()[0].about_leaf, denied.leaf);
    assert_ne!(layers_of(&stage, &honest).corroboration(), L::Contradicted);
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

/// A report that a system adds to an id that was confirmed is compared anew.
#[test]
fn more_of_a_report_is_not_taken_for_a_repeat() {
    let report = |amount: Option<i64>, after: &[u8]| v1::Effect {
        external_id: "R-1".into(),
        amount: amount.map(super::amount),
        after_digest: Bytes::copy_from_slice(after),
        ..effect("orders/7", 0)
    };
    for (declared, first, second) in [
        (
            report(None, &[]),
            report(None, &[]),
            report(Some(1_000_000), &[]),
        ),
        (
            report(Some(500), &[1; 32]),
            report(Some(500), &[]),
            report(Some(500), &[2; 32]),
        ),
    ] {
        let mut stage = Stage::new();
        let intent = stage.cleared(0);
        let done = outcome(&intent, OutcomeStatus::Succeeded, vec![declared]);
        stage.ledger.say(AGENT, Some(1), done);
        assert_eq!(
            sees(&mut stage, DOWNSTREAM, &intent, vec![first]).kinds(),
            []
        );
        let more = sees(&mut stage, DOWNSTREAM, &intent, vec![second]);
        assert_eq!(more.kinds(), [F::EffectMismatch]);
        assert_eq!(layers_of(&stage, &intent).corroboration(), L::Contradicted);
        stage.replays();
    }
}

/// An approver under the controller of the gateway that carries the act out, as shows afterwards.
#[test]
fn a_conflict_that_shows_later_leaves_no_layer_proven() {
    let own_approver = Who {
        seed: Some(57),
        producer: "https://gateway.example/people/eve",
        controller: GATEWAY.controller,
        ..APPROVER
    };
    let mut stage = Stage::new();
    stage.ledger.register(own_approver);
    stage.ledger.register_as(GATEWAY, |registered| {
        registered.acts_for = vec![AGENT.producer.into()];
    });
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    stage.approve(own_approver, &intent, Verdict::Allow);
    assert_eq!(layers_of(&stage, &intent).approval(), L::Proven);
    let done = outcome(
        &intent,
        OutcomeStatus::Succeeded,
        vec![effect("orders/7", 500)],
    );
    stage.ledger.say(GATEWAY, Some(1), done);
    assert_eq!(layers_of(&stage, &intent).approval(), L::Claimed);
    stage.replays();
}

/// An agent that chooses its approver does not choose who may accuse it.
#[test]
fn an_approvers_system_still_sees() {
    let banks_approver = Who {
        seed: Some(58),
        producer: "https://bank.example/people/ida",
        controller: DOWNSTREAM.controller,
        ..APPROVER
    };
    for hidden in [false, true] {
        let mut stage = Stage::new();
        stage.ledger.register(banks_approver);
        let intent = stage.waits(0);
        stage.decide(&intent, Verdict::Allow);
        stage.approve(banks_approver, &intent, Verdict::Allow);
        stage.done(&intent);
        stage.seen(&intent, 500);
        assert_eq!(layers_of(&stage, &intent).corroboration(), L::Claimed);
        if hidden {
            let seen = sees(
                &mut stage,
                DOWNSTREAM,
                &intent,
                vec![effect("accounts/9", 1)],
            );
            assert_eq!(seen.kinds(), [F::HiddenSideEffect]);
            assert_eq!(layers_of(&stage, &intent).corroboration(), L::Contradicted);
        }
        stage.replays();
    }
}

/// Done, kept quiet about, and seen when the deadline has passed.
#[test]
fn what_is_seen_after_the_deadline_is_found() {
    let mut stage = Stage::new();
    let intent = stage.cleared(500);
    stage.tick(500);
    stage.mark();
    assert_eq!(stage.seen(&intent, 500).kinds(), [F::HiddenSideEffect]);
    stage.replays();
}

/// Words that nobody signs are serious nowhere.
#[test]
fn unsigned_words_make_no_serious_finding() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|_| {});
    stage.mark();
    let mut part = delegated(HELPER, root.hash);
    part.actions = vec!["*".into()];
    stage.ledger.say(ANYBODY, Some(1), Body::Grant(part));
    stage.close();
    let body = Body::Intent(intent("orders/7", 1, None));
    let late = stage.ledger.say(ANYBODY, Some(1), body);
    stage.ledger.say(
        ANYBODY,
        Some(1),
        outcome(&late, OutcomeStatus::Succeeded, Vec::new()),
    );
    assert!(!is_serious(&stage), "{:?}", stage.found());
    assert!(stage.kinds().contains(&F::UnprovenClaim));
    stage.replays();
}
