//! Acts whose statements come in another order than one thinks of first.

use deed_evidence::{replay::Replay, trust::TrustChain};
use deed_proto::v1::{
    self, FindingKind, IntentState, OutcomeState, OutcomeStatus, RiskTier, Verdict, statement::Body,
};
use deed_tlog::LeafIndex;

use crate::ledger::*;

/// A payment that waits for a decision and an approval.
fn waiting(deadline_s: i64) -> (Ledger, Place) {
    let mut ledger = Ledger::new();
    ledger.set_default_policy();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
    let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
    let mut wanted = intent("orders/7", 500, Some(grant.hash));
    wanted.deadline_us = seconds(deadline_s);
    let intent = ledger.say(AGENT, Some(1), Body::Intent(wanted));
    assert_eq!(intent.state(), Some(IntentState::Waiting));
    (ledger, intent)
}

fn kinds(ledger: &Ledger) -> Vec<FindingKind> {
    ledger.findings().map(v1::Finding::kind).collect()
}

fn clear(ledger: &mut Ledger, intent: &Place) {
    ledger.say(ENGINE, Some(1), decision(intent, Verdict::Allow));
    let now = ledger.now();
    ledger.say(APPROVER, Some(1), approval(intent, Verdict::Allow, now));
}

#[test]
fn nobody_elses_outcome_comes_before_the_agents() {
    let (mut ledger, intent) = waiting(500);
    clear(&mut ledger, &intent);
    let done = outcome(&intent, OutcomeStatus::Failed, Vec::new());
    for who in [ANYBODY, APPROVER, HELPER] {
        ledger.say(who, Some(1), done.clone());
        let act = ledger.act(intent.leaf);
        assert!(act.outcome.is_none() && !act.outcome_claimed, "{who:?}");
    }
    let own = outcome(&intent, OutcomeStatus::Succeeded, Vec::new());
    let own = ledger.say(AGENT, Some(1), own);
    let act = ledger.act(intent.leaf);
    assert_eq!(act.outcome.map(|outcome| outcome.leaf), Some(own.leaf));
    assert_eq!(act.state, i32::from(IntentState::Completed));
    Replay::over(ledger.entries()).unwrap();
}

#[test]
fn a_tier_that_anybody_names_is_none() {
    let mut ledger = Ledger::new();
    ledger.set_default_policy();
    ledger.at(100);
    ledger.say(ANYBODY, Some(1), task_opened(RiskTier::Low, 0));
    let intent = intent("orders/7", 500, None);
    let intent = ledger.say(AGENT, Some(1), Body::Intent(intent));
    assert_eq!(intent.state(), Some(IntentState::Denied));
    Replay::over(ledger.entries()).unwrap();
}

#[test]
fn what_was_done_without_a_permit_gets_none() {
    let (mut ledger, intent) = waiting(500);
    ledger.at(200);
    let done = outcome(&intent, OutcomeStatus::Succeeded, Vec::new());
    ledger.say(AGENT, Some(1), done);
    assert_eq!(kinds(&ledger), [FindingKind::OutcomeWithoutClearance]);
    let before = ledger.next_leaf();
    clear(&mut ledger, &intent);
    assert_eq!(ledger.next_leaf(), before + 2, "no Clearance follows");
    assert_eq!(ledger.act(intent.leaf).state(), IntentState::Waiting);
    // Its Outcome is there, so it is not overdue.
    ledger.at(600);
    ledger.tick();
    assert!(!ledger.has(FindingKind::IntentOverdue));
    assert_eq!(ledger.act(intent.leaf).state(), IntentState::Lapsed);
    Replay::over(ledger.entries()).unwrap();
}

#[test]
fn an_engines_outcome_in_the_batch_of_its_decision_is_none() {
    let mut ledger = Ledger::new();
    ledger.set_policy(
        "@id(\"by engine\") permit (principal, action, resource) when { context.evidence.decision };",
    );
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let intent = ledger.say(AGENT, Some(1), Body::Intent(intent("orders/7", 1, None)));
    assert_eq!(intent.state(), Some(IntentState::Waiting));
    let done = outcome(&intent, OutcomeStatus::Succeeded, Vec::new());
    let before = ledger.next_leaf();
    let bodies = vec![
        (Some(1), decision(&intent, Verdict::Allow)),
        (Some(1), done),
    ];
    ledger.say_batch(ENGINE, bodies);
    // The Clearance stands behind the batch, and what was done before it is nobody's Outcome.
    assert_eq!(ledger.next_leaf(), before + 3 + 1);
    assert_eq!(kinds(&ledger), [FindingKind::WrongRole]);
    let act = ledger.act(intent.leaf);
    assert_eq!(act.clearance_leaf, Some(before + 3));
    assert!(act.outcome.is_none() && !act.outcome_claimed);
    Replay::over(ledger.entries()).unwrap();
}

#[test]
fn what_happens_twice_and_is_declared_once_is_hidden() {
    for times in [1, 2] {
        let (mut ledger, intent) = waiting(0);
        ledger.at(200);
        clear(&mut ledger, &intent);
        let declared = outcome(
            &intent,
            OutcomeStatus::Succeeded,
            vec![effect("orders/7", 500)],
        );
        ledger.say(AGENT, Some(1), declared);
        let seen = vec![effect("orders/7", 500); times];
        ledger.say(DOWNSTREAM, Some(1), observation(Some(&intent), seen));
        let outcome = ledger.act(intent.leaf).outcome.unwrap();
        assert_eq!(ledger.has(FindingKind::HiddenSideEffect), times == 2);
        let wanted = [OutcomeState::Corroborated, OutcomeState::Contradicted][times - 1];
        assert_eq!(outcome.state(), wanted);
    }
}

#[test]
fn two_equal_effects_are_both_seen() {
    let (mut ledger, intent) = waiting(0);
    ledger.at(200);
    clear(&mut ledger, &intent);
    let effects = vec![effect("orders/7", 250); 2];
    let declared = outcome(&intent, OutcomeStatus::Succeeded, effects.clone());
    ledger.say(AGENT, Some(1), declared);
    for seen in effects {
        ledger.say(DOWNSTREAM, Some(1), observation(Some(&intent), vec![seen]));
    }
    let outcome = ledger.act(intent.leaf).outcome.unwrap();
    assert_eq!(outcome.state(), OutcomeState::Corroborated);
    assert_eq!(ledger.findings().count(), 0);
}

#[test]
fn a_hidden_effect_is_found_once() {
    let (mut ledger, intent) = waiting(500);
    ledger.at(200);
    clear(&mut ledger, &intent);
    let seen = vec![effect("orders/7", 500)];
    ledger.say(
        DOWNSTREAM,
        Some(1),
        observation(Some(&intent), seen.clone()),
    );
    // Once more would be more money than the Intent names.
    let again = vec![v1::Effect {
        amount: None,
        ..effect("orders/7", 0)
    }];
    ledger.say(DOWNSTREAM, Some(1), observation(Some(&intent), again));
    assert_eq!(ledger.findings().count(), 0, "the Outcome may still come");
    ledger.at(600);
    ledger.tick();
    let wanted = [FindingKind::IntentOverdue, FindingKind::HiddenSideEffect];
    assert_eq!(kinds(&ledger), wanted);
    ledger.say(PLATFORM, Some(1), task_closed());
    assert_eq!(kinds(&ledger), wanted);
}

/// The owner may say all that it says in one session.
#[test]
fn grants_between_trust_statements_do_not_break_the_chain() {
    let mut ledger = Ledger::with_genesis_only();
    let own = |made: &mut v1::Statement, sequence| {
        made.sequence = sequence;
        move_to_session(made, 0xcc);
    };
    let mut bodies = vec![];
    for who in [PLATFORM, AGENT] {
        bodies.push((None, ledger.registration(who)));
        bodies.push((Some(1), task_opened(RiskTier::Low, 0)));
    }
    for (sequence, (task, body)) in (0..).zip(bodies) {
        ledger
            .try_say(AUTHORITY, task, body, |made| own(made, sequence))
            .unwrap();
    }
    let replay = Replay::over(ledger.entries()).unwrap();
    let trust = [1, 3].map(|leaf: u64| (LeafIndex::new(leaf), &ledger.entries()[leaf as usize]));
    let chain = TrustChain::verify(&ledger.entries()[0], trust).unwrap();
    assert_eq!(chain, *replay.trust());
    let again = [trust[0], trust[1], trust[1]];
    assert!(TrustChain::verify(&ledger.entries()[0], again).is_err());
}

/// Evidence of a key that was revoked meanwhile does not stand in its controller's way.
#[test]
fn an_approver_approves_again_with_another_key() {
    let (mut ledger, intent) = waiting(0);
    ledger.at(200);
    let now = ledger.now();
    ledger.say(APPROVER, Some(1), approval(&intent, Verdict::Allow, now));
    ledger.say(AUTHORITY, None, key_revoked(APPROVER, None));
    ledger.say(ENGINE, Some(1), decision(&intent, Verdict::Allow));
    assert_eq!(kinds(&ledger), [FindingKind::RevokedKeyUse]);
    assert_eq!(ledger.act(intent.leaf).state(), IntentState::Waiting);
    let again = Who {
        seed: Some(30),
        ..APPROVER
    };
    ledger.register(again);
    let by_hand = approval(&intent, Verdict::Allow, now);
    ledger.say(again, Some(1), by_hand);
    assert_eq!(ledger.act(intent.leaf).state(), IntentState::Cleared);
    Replay::over(ledger.entries()).unwrap();
}

/// The same where the first approval is replaced before anybody looks at it again.
#[test]
fn an_approval_takes_the_place_of_one_whose_key_was_revoked() {
    let (mut ledger, intent) = waiting(0);
    ledger.at(200);
    let now = ledger.now();
    let again = Who {
        seed: Some(30),
        ..APPROVER
    };
    ledger.register(again);
    ledger.say(APPROVER, Some(1), approval(&intent, Verdict::Allow, now));
    ledger.say(AUTHORITY, None, key_revoked(APPROVER, None));
    ledger.say(again, Some(1), approval(&intent, Verdict::Allow, now));
    ledger.say(ENGINE, Some(1), decision(&intent, Verdict::Allow));
    assert_eq!(ledger.act(intent.leaf).state(), IntentState::Cleared);
    assert_eq!(kinds(&ledger), [FindingKind::RevokedKeyUse]);
    Replay::over(ledger.entries()).unwrap();
}
