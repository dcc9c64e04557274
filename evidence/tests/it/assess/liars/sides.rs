//! Speakers who are not independent, or prove nothing.

use super::*;

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
