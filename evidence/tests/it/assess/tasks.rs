//! Attacks on tasks: opened, closed and reopened by those who may not, and what goes on after.

use deed_evidence::assess::layers;
use deed_proto::v1::{
    self, FindingKind as F, IntentState, LayerState, RiskTier, TaskState, Verdict, statement::Body,
};

use super::*;

#[test]
fn an_agent_does_not_choose_its_own_risk_tier() {
    let mut stage = Stage::new();
    stage.ledger.set_default_policy();
    for (task, who) in (2..).zip([AGENT, APPROVER, ENGINE, DOWNSTREAM]) {
        let own = stage
            .ledger
            .say(who, Some(task), task_opened(RiskTier::Low, 0));
        assert_eq!(own.kinds(), [F::WrongRole], "{who:?}");
        assert_eq!(stage.ledger.task(task).state(), TaskState::Unspecified);
        let said = Body::Intent(intent("orders/7", 500, None));
        let denied = stage.ledger.say(AGENT, Some(task), said);
        assert_eq!(denied.state(), Some(IntentState::Denied));
    }
    // Nor does it keep the platform from opening it.
    assert!(stage.open(RiskTier::Payment).kinds().is_empty());
    let task = stage.ledger.task(1);
    assert_eq!(
        (task.state(), task.tier()),
        (TaskState::Open, RiskTier::Payment)
    );
    assert_eq!(task.opened(), LayerState::Proven);
    stage.replays();
}

#[test]
fn a_platforms_task_is_closed_by_that_platform_or_an_authority() {
    let other = Who {
        seed: Some(41),
        producer: "https://example.com/platform",
        controller: "https://example.com",
        ..PLATFORM
    };
    let same = Who {
        seed: Some(42),
        producer: "https://example.org/platform/two",
        ..PLATFORM
    };
    for closes in [AUTHORITY, same] {
        let mut stage = Stage::new();
        stage.ledger.register(other);
        stage.ledger.register(same);
        stage.open(RiskTier::Low);
        for who in [AGENT, HELPER, APPROVER, IMPORTER, ANYBODY, other] {
            let end = stage.ledger.say(who, Some(1), task_closed());
            let kind = [F::UnprovenClaim, F::WrongRole][usize::from(who.seed.is_some())];
            assert_eq!(end.kinds(), [kind], "{who:?}");
            assert_eq!(stage.ledger.task(1).state(), TaskState::Open);
        }
        let end = stage.ledger.say(closes, Some(1), task_closed());
        assert!(end.kinds().is_empty(), "{closes:?}");
        assert_eq!(stage.ledger.task(1).closed_leaf, Some(end.leaf));
        stage.replays();
    }
    // What the owner opened no platform closes.
    let mut stage = Stage::new();
    stage
        .ledger
        .say(AUTHORITY, Some(1), task_opened(RiskTier::Low, 0));
    assert_eq!(stage.close().kinds(), [F::WrongRole]);
    stage.replays();
}

#[test]
fn a_closed_task_stays_closed() {
    let mut stage = Stage::new();
    let opened = stage.open(RiskTier::Low);
    stage.close();
    let closed = stage.ledger.task(1);
    // (Nobody else can name it in an opening.)
    for tier in [RiskTier::Low, RiskTier::Payment] {
        let again = stage.open(tier);
        assert_eq!(again.kinds(), [F::OutOfPlace]);
        assert_eq!(
            again.assessed.findings[0].contradicts_leaf,
            Some(opened.leaf)
        );
    }
    assert_eq!(stage.close().kinds(), [F::OutOfPlace]);
    let after = stage.ledger.task(1);
    assert_eq!(after.state(), TaskState::Closed);
    assert_eq!(
        (after.closed_leaf, after.closed_at_us),
        (closed.closed_leaf, closed.closed_at_us)
    );
    assert_eq!(
        after.receipt_leaf, closed.receipt_leaf,
        "one receipt for one end"
    );
    stage.replays();
}

#[test]
fn nothing_is_done_in_a_task_that_has_ended() {
    for by_deadline in [false, true] {
        let mut stage = Stage::new();
        let deadline = if by_deadline { 500 } else { 0 };
        let opened = task_opened(RiskTier::Low, deadline);
        stage.ledger.say(PLATFORM, Some(1), opened);
        let root = stage.root(|_| {});
        let before = stage.intend(Some(&root), |_| {});
        let end = if by_deadline {
            stage.tick(500);
            None
        } else {
            Some(stage.close().leaf)
        };
        assert_eq!(stage.ledger.task(1).state(), TaskState::Closed);
        // An act, also with a grant, a new grant, and an Outcome of what was cleared before.
        let denied = stage.intend(Some(&root), |_| {});
        assert_eq!(denied.state(), Some(IntentState::Denied));
        assert_eq!(denied.kinds(), [F::TaskClosed]);
        assert_eq!(denied.assessed.findings[0].contradicts_leaf, end);
        let layers = layers::of(&stage.ledger.act(denied.leaf), &stage.ledger.trust);
        assert_eq!(layers.authority(), LayerState::Contradicted);
        let late = stage.root(|_| {});
        assert_eq!(late.kinds(), [F::TaskClosed]);
        let done = stage.done(&before);
        assert_eq!(done.kinds(), [F::TaskClosed]);
        assert_eq!(stage.state(&before), IntentState::Completed);
        stage.replays();
    }
}

/// What waits when its task ends has lapsed, and nothing moves it any more.
#[test]
fn what_waits_lapses_with_its_task() {
    type Evidence = fn(&mut Stage, &Place) -> Place;
    let late: [(Evidence, &[F]); 4] = [
        (|s, intent| s.approve(APPROVER, intent, Verdict::Allow), &[]),
        (
            |s, intent| s.approve(APPROVER, intent, Verdict::Deny),
            &[F::DecisionDenied],
        ),
        (
            |s, intent| s.decide(intent, Verdict::Deny),
            &[F::DecisionDenied],
        ),
        (
            |s, intent| s.done(intent),
            &[F::OutcomeWithoutClearance, F::TaskClosed],
        ),
    ];
    for (evidence, wanted) in late {
        let mut stage = Stage::new();
        let intent = stage.waits(500);
        stage.decide(&intent, Verdict::Allow);
        stage.close();
        let stands = |stage: &Stage| {
            let act = stage.ledger.act(intent.leaf);
            layers::standing(&act, Some(&stage.ledger.task(1)))
        };
        assert_eq!(stands(&stage), IntentState::Lapsed);
        let said = evidence(&mut stage, &intent);
        assert_eq!(said.kinds(), wanted);
        assert_eq!(stands(&stage), IntentState::Lapsed);
        assert_eq!(stage.ledger.act(intent.leaf).clearance_leaf, None);
        // It lapsed with its task, not with its deadline.
        stage.mark();
        stage.ledger.at(600);
        stage.ledger.tick();
        assert!(stage.kinds().is_empty());
        assert_eq!(stands(&stage), IntentState::Lapsed);
        stage.replays();
    }
}

/// An engine does not end the task that it decides in, nor keep its own permit from being written.
#[test]
fn an_engine_ends_no_task_in_the_batch_of_its_decision() {
    for opener in [PLATFORM, ANYBODY] {
        let mut stage = Stage::new();
        stage
            .ledger
            .set_policy("permit (principal, action, resource) when { context.evidence.decision };");
        stage
            .ledger
            .say(opener, Some(1), task_opened(RiskTier::Low, 0));
        let root = stage.root(|grant| grant.uses = 5);
        let intent = stage.intend(Some(&root), |_| {});
        assert_eq!(intent.state(), Some(IntentState::Waiting));
        let yes = decision(&intent, Verdict::Allow);
        let before = stage.ledger.next_leaf();
        stage
            .ledger
            .say_batch(ENGINE, vec![(Some(1), yes), (Some(1), task_closed())]);
        assert_eq!(stage.kinds(), [F::WrongRole]);
        assert_eq!(stage.ledger.task(1).state(), TaskState::Open);
        let act = stage.ledger.act(intent.leaf);
        // A manifest and two statements stand before it.
        assert_eq!(act.clearance_leaf, Some(before + 3));
        stage.replays();
    }
}

fn with_token(value: &str) -> impl FnOnce(&mut v1::Statement) {
    let keys = vec![v1::CorrelationKey {
        kind: "jti".into(),
        value: value.into(),
    }];
    move |made| made.correlation_keys = keys
}

fn token(value: &str) -> impl Fn(&mut v1::Grant) {
    let token = v1::OutsideToken {
        kind: "jti".into(),
        value: value.into(),
        ..v1::OutsideToken::default()
    };
    move |grant| grant.outside_token = Some(token.clone())
}

fn uses_of(stage: &mut Stage, value: &str) -> Vec<F> {
    let body = observation(None, vec![effect("orders/7", 500)]);
    let seen = stage
        .ledger
        .try_say(DOWNSTREAM, None, body, with_token(value));
    seen.unwrap().kinds()
}

#[test]
fn a_credential_ends_with_its_task() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(token("t-1"));
    assert_eq!(uses_of(&mut stage, "t-1"), [F::HiddenSideEffect]);
    stage.close();
    let both = [F::TokenUsedAfterClose, F::HiddenSideEffect];
    assert_eq!(uses_of(&mut stage, "t-1"), both);
    assert_eq!(uses_of(&mut stage, "t-2"), [F::HiddenSideEffect]);
    assert!(root.kinds().is_empty());
    stage.replays();
}

/// Grants that never were do not push a credential's true one out, nor end it with their own task.
#[test]
fn a_credential_is_not_named_by_what_is_no_grant() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    stage.root(token("t-1"));
    stage
        .ledger
        .say(PLATFORM, Some(2), task_opened(RiskTier::Low, 0));
    for task in [1, 2] {
        for _ in 0..70 {
            let mut own = grant(AGENT);
            token("t-1")(&mut own);
            stage.ledger.say(AGENT, Some(task), Body::Grant(own));
        }
    }
    stage.ledger.say(PLATFORM, Some(2), task_closed());
    assert_eq!(uses_of(&mut stage, "t-1"), [F::HiddenSideEffect]);
    stage.close();
    let both = [F::TokenUsedAfterClose, F::HiddenSideEffect];
    assert_eq!(uses_of(&mut stage, "t-1"), both);
    stage.replays();
}

/// What is found of a task's very first statement is in the digest that its receipt holds.
#[test]
fn a_first_statement_with_a_finding() {
    let mut stage = Stage::new();
    let ahead = |made: &mut v1::Statement| made.occurred_at_us += 400_000_000;
    let body = task_opened(RiskTier::Low, 0);
    let opened = stage
        .ledger
        .try_say(PLATFORM, Some(1), body, ahead)
        .unwrap();
    assert_eq!(opened.kinds(), [F::ClockSkew]);
    assert_eq!(stage.ledger.task(1).findings, 1);
    stage.replays();
}
