//! Attacks on verdicts by a further voice: of the accused's own side, of an importer, of somebody who
//! has nothing to do with the act.

mod tokens;

use super::{
    liars::{GATEWAY, clean, is_serious, layers_of, sees, without_amount},
    *,
};
use deed_evidence::assess::{layers, relied_on};
use deed_proto::v1::{
    self, EvidencePart, FindingKind as F, IntentState, LayerState as L, OutcomeStatus, RiskTier,
    Verdict, statement::Body,
};
/// A ledger in which the gateway may carry out what the agent intends.
fn with_gateway() -> Stage {
    let mut stage = Stage::new();
    stage.ledger.register_as(GATEWAY, |registered| {
        registered.acts_for = vec![AGENT.producer.into()];
    });
    stage
}
fn succeeded(intent: &Place, effects: Vec<v1::Effect>) -> Body {
    outcome(intent, OutcomeStatus::Succeeded, effects)
}
/// Whoever speaks first does not keep the other one of its side from accusing the act.
#[test]
fn a_further_outcome_accuses_the_act_all_the_same() {
    // Not cleared.
    let uncleared: [fn(&mut Stage) -> Place; 3] = [
        |s| s.waits(0),
        |s| {
            let intent = s.waits(0);
            s.decide(&intent, Verdict::Deny);
            intent
        },
        |s| {
            let intent = s.waits(1_000);
            s.tick(1_000);
            intent
        },
    ];
    for story in uncleared {
        let mut stage = with_gateway();
        let intent = story(&mut stage);
        stage.outcome(&intent, OutcomeStatus::NotDone);
        stage.mark();
        let done = succeeded(&intent, vec![effect("orders/7", 500)]);
        let done = stage.ledger.say(GATEWAY, Some(1), done);
        let found = [F::OutOfPlace, F::OutcomeWithoutClearance, F::EffectMismatch];
        assert_eq!(done.kinds(), found);
        let layers = layers_of(&stage, &intent);
        assert_eq!(layers.intent(), L::Contradicted);
        assert_eq!(layers.result(), L::Contradicted);
        stage.replays();
    }
    // Other arguments, and more than was cleared.
    for (change, kind) in [
        (
            (|said| said.arguments = Some(committed("other"))) as fn(&mut v1::Outcome),
            F::ArgumentsChanged,
        ),
        (
            |said| said.effects = vec![effect("orders/7", 9_000)],
            F::EffectMismatch,
        ),
    ] {
        let mut stage = with_gateway();
        let intent = stage.cleared(0);
        stage.done(&intent);
        stage.mark();
        let Body::Outcome(mut said) = succeeded(&intent, vec![effect("orders/7", 500)]) else {
            unreachable!()
        };
        change(&mut said);
        let said = stage.ledger.say(GATEWAY, Some(1), Body::Outcome(said));
        assert_eq!(said.kinds(), [F::OutOfPlace, kind]);
        stage.replays();
    }
    // A further Outcome of the same adds nothing, and may not be said for ever.
    let mut stage = with_gateway();
    let intent = stage.cleared(0);
    stage.done(&intent);
    stage.mark();
    for _ in 0..3 {
        let same = succeeded(&intent, vec![effect("orders/7", 500)]);
        let said = stage.ledger.say(GATEWAY, Some(1), same);
        assert_eq!(said.kinds(), [F::OutOfPlace]);
    }
    let act = stage.ledger.act(intent.leaf);
    let outcomes = relied_on(&act).filter(|one| one.part == EvidencePart::Outcome);
    assert_eq!(outcomes.count(), 2);
    stage.replays();
}
/// A system under the controller of a gateway is no independent sight, whichever of the Outcomes came
/// first.
#[test]
fn a_further_outcome_is_of_the_acting_side() {
    let bank_gateway = Who {
        controller: DOWNSTREAM.controller,
        ..GATEWAY
    };
    for early in [false, true] {
        let mut stage = Stage::new();
        stage.ledger.register_as(bank_gateway, |registered| {
            registered.acts_for = vec![AGENT.producer.into()];
        });
        let intent = stage.cleared(0);
        stage.done(&intent);
        let same = succeeded(&intent, vec![effect("orders/7", 500)]);
        if early {
            stage.seen(&intent, 500);
            stage.ledger.say(bank_gateway, Some(1), same);
        } else {
            stage.ledger.say(bank_gateway, Some(1), same);
            stage.seen(&intent, 500);
        }
        let layers = layers_of(&stage, &intent);
        assert_eq!(layers.corroboration(), L::Claimed, "{early}");
        stage.replays();
    }
}
/// A gateway that the grant names has an act to answer for, also if the grant does not bear it.
#[test]
fn a_granted_gateway_is_none_the_less_one_if_the_grant_does_not_bear_the_act() {
    let denials: [fn(&mut v1::Grant, &mut v1::Intent); 4] = [
        |grant, intent| {
            grant.amount = Some(amount(500));
            intent.amount = Some(amount(1_000_000));
        },
        |_, intent| intent.resource = "accounts/9".into(),
        |_, intent| intent.action = "accounts.close".into(),
        |grant, _| grant.expires_us = seconds(150),
    ];
    for denial in denials {
        let mut stage = Stage::new();
        stage.ledger.register(GATEWAY);
        stage.ledger.set_default_policy();
        stage.open(RiskTier::Payment);
        let mut given = grant(AGENT);
        given.gateways = vec![GATEWAY.producer.into()];
        let mut said = intent("orders/7", 500, None);
        denial(&mut given, &mut said);
        let root = stage.ledger.say(AUTHORITY, Some(1), Body::Grant(given));
        stage.ledger.at(200);
        said.grant = Bytes::copy_from_slice(root.hash.as_bytes());
        let intent = stage.ledger.say(AGENT, Some(1), Body::Intent(said));
        assert_eq!(intent.state(), Some(IntentState::Denied));
        stage.mark();
        let done = succeeded(&intent, Vec::new());
        let done = stage.ledger.say(GATEWAY, Some(1), done);
        assert_eq!(done.kinds(), [F::OutcomeWithoutClearance]);
        stage.replays();
    }
    // Another agent's grant makes nobody a gateway.
    let mut stage = Stage::new();
    stage.ledger.register(GATEWAY);
    stage.open(RiskTier::Low);
    let mut given = grant(HELPER);
    given.gateways = vec![GATEWAY.producer.into()];
    let root = stage.ledger.say(AUTHORITY, Some(1), Body::Grant(given));
    let intent = stage.intend(Some(&root), |_| {});
    let done = stage
        .ledger
        .say(GATEWAY, Some(1), succeeded(&intent, Vec::new()));
    assert_eq!(done.kinds(), [F::UnprovenClaim]);
}
/// What does not fit under a correlation key is found of the act that is left out, in its own task.
#[test]
fn what_is_left_out_of_correlation_is_found_in_its_own_task() {
    let order = |task, said: Body, stage: &mut Stage, who: Who| {
        stage
            .ledger
            .try_say(who, Some(task), said, with_order)
            .unwrap()
    };
    let one = || Body::Intent(intent("orders/7", 500, None));
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    stage
        .ledger
        .say(PLATFORM, Some(2), task_opened(RiskTier::Low, 0));
    for _ in 0..24 {
        order(2, one(), &mut stage, HELPER);
    }
    stage.mark();
    for _ in 0..2 {
        order(1, one(), &mut stage, AGENT);
    }
    let found = stage.found();
    assert_eq!(stage.kinds(), [F::NotCompared; 2]);
    let theirs = stage.ledger.task_id(2);
    assert!(found.iter().all(|one| one.task == theirs.as_bytes()[..]));
    stage.replays();
}
/// Neither an importer nor a colleague pushes an act out of what its order number finds.
#[test]
fn a_correlation_key_has_room_within_a_controller_too() {
    for by in [IMPORTER, COLLEAGUE] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let said = || Body::Intent(intent("orders/7", 500, None));
        for _ in 0..70 {
            stage
                .ledger
                .try_say(by, Some(1), said(), with_order)
                .unwrap();
        }
        stage.mark();
        let real = stage.ledger.try_say(AGENT, Some(1), said(), with_order);
        let real = real.unwrap();
        let left_out = stage.found();
        assert!(left_out.iter().all(|one| one.about_leaf != real.leaf));
        assert_eq!(left_out.is_empty(), by == IMPORTER);
        for _ in 0..70 {
            stage
                .ledger
                .try_say(by, Some(1), said(), with_order)
                .unwrap();
        }
        stage.done(&real);
        let seen = observation(None, vec![effect("orders/7", 500)]);
        let seen = stage.ledger.try_say(DOWNSTREAM, None, seen, with_order);
        assert_eq!(seen.unwrap().kinds(), []);
        assert_eq!(layers_of(&stage, &real).corroboration(), L::Proven);
        stage.replays();
    }
}
/// An unsigned word does not make less of what a system has proven.
#[test]
fn an_unsigned_word_makes_nothing_less_serious() {
    // Whoever opened the task unsigned ends it.
    let mut stage = Stage::new();
    stage
        .ledger
        .say(ANYBODY, Some(1), task_opened(RiskTier::Low, 0));
    let act = stage.intend(None, |_| {});
    stage.seen(&act, 500);
    stage.mark();
    stage.ledger.say(ANYBODY, Some(1), task_closed());
    assert_eq!(stage.kinds(), [F::HiddenSideEffect]);
    stage.replays();
    // An agent that signs nothing, before and after it is seen.
    for early in [false, true] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let said = Body::Intent(intent("orders/7", 500, None));
        let act = stage.ledger.say(ANYBODY, Some(1), said);
        stage.mark();
        let failed = outcome(&act, OutcomeStatus::Failed, Vec::new());
        if early {
            sees(&mut stage, DOWNSTREAM, &act, vec![without_amount()]);
            stage.ledger.say(ANYBODY, Some(1), failed);
        } else {
            stage.ledger.say(ANYBODY, Some(1), failed);
            sees(&mut stage, DOWNSTREAM, &act, vec![without_amount()]);
        }
        assert!(is_serious(&stage), "{early} {:?}", stage.kinds());
        stage.replays();
    }
}
/// What an importer brings in is a claim: it accuses nobody.
#[test]
fn an_importers_words_make_no_serious_finding() {
    let mut stage = Stage::new();
    stage.ledger.set_default_policy();
    stage.open(RiskTier::Payment);
    let root = stage.root(|_| {});
    stage.mark();
    let mut part = delegated(HELPER, root.hash);
    part.actions = vec!["*".into()];
    stage.ledger.say(IMPORTER, Some(1), Body::Grant(part));
    let said = Body::Intent(intent("orders/7", 500, None));
    let waits = stage.ledger.say(IMPORTER, Some(1), said);
    stage.ledger.say(
        IMPORTER,
        Some(1),
        succeeded(&waits, vec![effect("orders/9", 9_000)]),
    );
    stage.close();
    let late = Body::Intent(intent("orders/7", 1, None));
    let late = stage.ledger.say(IMPORTER, Some(1), late);
    stage
        .ledger
        .say(IMPORTER, Some(1), succeeded(&late, Vec::new()));
    assert!(!is_serious(&stage), "{:?}", stage.kinds());
    assert!(stage.kinds().contains(&F::UnprovenClaim));
    stage.replays();
}
/// A yes that the policy did not ask for makes its controller no party, in either order.
#[test]
fn a_yes_that_nobody_asked_for_takes_nobodys_approval_away() {
    let own_engine = Who {
        seed: Some(56),
        producer: "https://example.org/approvers-engine",
        controller: APPROVER.controller,
        ..ENGINE
    };
    let approvals = "permit (principal, action, resource) when { \
                     context.evidence.approvals >= 1 };";
    for decides_first in [false, true] {
        let mut stage = Stage::new();
        stage.ledger.register(own_engine);
        stage.ledger.set_policy(approvals);
        stage.open(RiskTier::Low);
        let intent = stage.intend(None, |_| {});
        assert_eq!(intent.state(), Some(IntentState::Waiting));
        stage.mark();
        let yes = |stage: &mut Stage| {
            let said = decision(&intent, Verdict::Allow);
            stage.ledger.say(own_engine, Some(1), said);
        };
        if decides_first {
            yes(&mut stage);
        }
        let approved = stage.approve(APPROVER, &intent, Verdict::Allow);
        assert_eq!(approved.kinds(), []);
        if !decides_first {
            yes(&mut stage);
        }
        assert_eq!(stage.state(&intent), IntentState::Cleared);
        assert_eq!(layers_of(&stage, &intent).approval(), L::Proven);
        assert!(!is_serious(&stage), "{:?}", stage.kinds());
        stage.replays();
    }
}
/// The key of a no stands in the list too.
#[test]
fn a_refusal_is_among_the_keys() {
    for (who, part) in [
        (ENGINE, EvidencePart::Decision),
        (APPROVER, EvidencePart::Approval),
    ] {
        let mut stage = Stage::new();
        let intent = stage.waits(0);
        let refused = match part {
            EvidencePart::Decision => stage.decide(&intent, Verdict::Deny),
            _ => stage.approve(who, &intent, Verdict::Deny),
        };
        let act = stage.ledger.act(intent.leaf);
        let listed: Vec<_> = relied_on(&act)
            .filter(|one| one.part == part)
            .map(|one| (one.leaf, one.key))
            .collect();
        assert_eq!(listed, [(refused.leaf, who.key().unwrap())]);
        stage.replays();
    }
}
/// What was not compared is not known to be the same.
#[test]
fn what_is_not_compared_is_not_proven() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let declared: Vec<_> = (0..4)
        .map(|n| v1::Effect {
            external_id: format!("R-{n}"),
            ..without_amount()
        })
        .collect();
    let intent = stage.intend(None, |said| said.amount = None);
    stage
        .ledger
        .say(AGENT, Some(1), succeeded(&intent, declared.clone()));
    // Most of the room is taken by what another name makes another change.
    let others = (0..60)
        .map(|n| v1::Effect {
            external_id: format!("S-{n}"),
            kind: "mail.sent".into(),
            ..without_amount()
        })
        .collect();
    sees(&mut stage, DOWNSTREAM, &intent, others);
    sees(&mut stage, DOWNSTREAM, &intent, declared[..3].to_vec());
    stage.mark();
    let mut last = vec![declared[3].clone()];
    last.push(v1::Effect {
        external_id: "R-64".into(),
        ..without_amount()
    });
    sees(&mut stage, DOWNSTREAM, &intent, last);
    assert!(stage.kinds().contains(&F::NotCompared));
    let corroboration = layers_of(&stage, &intent).corroboration();
    assert_eq!(corroboration, L::Contradicted);
    stage.replays();

    // Everything before the bound was as declared: what follows leaves it claimed.
    let (stage, intent) = clean();
    let mut act = stage.ledger.act(intent.leaf);
    assert_eq!(layers_of(&stage, &intent).corroboration(), L::Proven);
    act.findings |= 1 << F::NotCompared as u64;
    let layers = layers::of(&act, &stage.ledger.trust);
    assert_eq!(layers.corroboration(), L::Claimed);
}
/// An expected effect is there once, for what is declared as for what is seen.
#[test]
fn what_is_declared_is_counted_against_what_was_expected() {
    let mail = || v1::Effect {
        kind: "mail.sent".into(),
        ..without_amount()
    };
    for (declared, kinds) in [(1, &[][..]), (60, &[F::EffectMismatch][..])] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let intent = stage.intend(None, |said| {
            said.amount = None;
            said.expected_effects = vec![mail()];
        });
        let said = succeeded(&intent, vec![mail(); declared]);
        let said = stage.ledger.say(AGENT, Some(1), said);
        assert_eq!(said.kinds(), kinds);
        stage.replays();
    }
}
/// What an Intent expects to change elsewhere is put before the policy too.
#[test]
fn the_policy_is_asked_about_what_is_expected_elsewhere() {
    let policy = "permit (principal, action, resource); \
                  @id(\"vault\") forbid (principal, action, resource) \
                  when { resource.name like \"accounts/vault/*\" };";
    for (expected, state) in [
        ("accounts/9", IntentState::Cleared),
        ("accounts/vault/1", IntentState::Denied),
    ] {
        let mut stage = Stage::new();
        stage.ledger.set_policy(policy);
        stage.open(RiskTier::Low);
        let root = stage.root(|given| {
            given.resources = vec!["accounts/*".into(), "orders/*".into()];
        });
        let intent = stage.intend(Some(&root), |said| {
            said.expected_effects = vec![effect(expected, 500)];
        });
        assert_eq!(intent.state(), Some(state), "{expected}");
        stage.replays();
    }
    // A name with a star is no pattern that covers anything, without a grant for it.
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| {
        said.resource = "accounts/*".into();
        said.expected_effects = vec![effect("accounts/*", 500)];
    });
    assert_eq!(intent.state(), Some(IntentState::Denied));
    stage.replays();
}
/// An act of the system's own house that does not declare it takes no sight away.
#[test]
fn an_act_of_its_own_house_takes_no_sight_from_a_system() {
    let banks_agent = Who {
        seed: Some(57),
        producer: "https://bank.example/agent",
        controller: DOWNSTREAM.controller,
        ..HELPER
    };
    let mut stage = Stage::new();
    stage.ledger.register(banks_agent);
    stage.open(RiskTier::Low);
    let reads = Body::Intent(intent("orders/7", 500, None));
    stage
        .ledger
        .try_say(banks_agent, Some(1), reads, with_order)
        .unwrap();
    stage.mark();
    let seen = observation(None, vec![effect("orders/7", 500)]);
    let seen = stage
        .ledger
        .try_say(DOWNSTREAM, None, seen, with_order)
        .unwrap();
    assert_eq!(seen.kinds(), [F::HiddenSideEffect]);
    stage.replays();
}
/// Of an act that whoever acts has not signed, a yes is a claim.
#[test]
fn a_yes_to_a_claim_is_a_claim() {
    for who in [IMPORTER, ANYBODY] {
        let mut stage = Stage::new();
        stage
            .ledger
            .set_policy("permit (principal, action, resource) when { context.evidence.decision };");
        stage.open(RiskTier::Low);
        let root = stage.root(|_| {});
        let grant = (who == IMPORTER).then_some(root.hash);
        let said = Body::Intent(intent("orders/7", 500, grant));
        let act = stage.ledger.say(who, Some(1), said);
        stage.decide(&act, Verdict::Allow);
        stage.approve(APPROVER, &act, Verdict::Allow);
        let layers = layers_of(&stage, &act);
        assert_ne!(layers.authority(), L::Proven, "{who:?}");
        assert_ne!(layers.approval(), L::Proven, "{who:?}");
        stage.replays();
    }
}
/// That somebody else had a key may show after it was revoked.
#[test]
fn a_key_that_was_replaced_can_turn_out_stolen() {
    let (mut stage, intent) = clean();
    stage.ledger.say(AUTHORITY, None, key_revoked(AGENT, None));
    assert_eq!(layers_of(&stage, &intent).identity(), L::Proven);
    let again = stage
        .ledger
        .try_say(AUTHORITY, None, key_revoked(AGENT, None), |_| {});
    assert!(again.is_err());
    stage
        .ledger
        .say(AUTHORITY, None, key_revoked(AGENT, Some(50)));
    assert_eq!(layers_of(&stage, &intent).identity(), L::Contradicted);
    // Longer ago, and not more lately.
    let later = stage
        .ledger
        .try_say(AUTHORITY, None, key_revoked(AGENT, Some(60)), |_| {});
    assert!(later.is_err());
    stage
        .ledger
        .say(AUTHORITY, None, key_revoked(AGENT, Some(40)));
    stage.replays();
}
