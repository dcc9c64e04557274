//! Attacks on delegation: grants that are widened or overspent.

use deed_evidence::assess::{CHAIN_MAX, effective_state, state_at};
use deed_proto::v1::{
    self, FindingKind as F, GrantState, IntentState, RiskTier, Verdict, statement::Body,
};

use super::*;

pub(super) fn grant_state(stage: &Stage, grant: &Place) -> GrantState {
    let closed = stage.ledger.task(1).state() == v1::TaskState::Closed;
    state_at(&stage.ledger.grant(grant.hash), closed, stage.ledger.now())
}

/// The n-th grant of a chain goes from one of the two to the other, who accepts it.
pub(super) fn hand_on(
    stage: &mut Stage,
    chain: &[Place],
    change: impl FnOnce(&mut v1::Grant),
) -> Place {
    let (from, to) = [(AGENT, HELPER), (HELPER, AGENT)][(chain.len() + 1) % 2];
    let parent = chain.last().unwrap();
    let mut part = v1::Grant {
        parent: Bytes::copy_from_slice(parent.hash.as_bytes()),
        ..bounded(to)
    };
    change(&mut part);
    let part = stage.ledger.say(from, Some(1), Body::Grant(part));
    stage.ledger.say(to, Some(1), accepted(part.hash));
    part
}

/// A grant with every bound.
pub(super) fn bounded(subject: Who) -> v1::Grant {
    v1::Grant {
        subject: subject.producer.into(),
        subject_key: Bytes::copy_from_slice(subject.key().unwrap().as_bytes()),
        actions: vec!["refund/*".into()],
        resources: vec!["orders/7/*".into()],
        not_before_us: seconds(50),
        expires_us: seconds(5_000),
        uses: 10,
        amount: Some(amount(1_000)),
        ..v1::Grant::default()
    }
}

/// A root grant and two that are handed on: the last is the agent's.
pub(super) fn three_deep(stage: &mut Stage) -> Vec<Place> {
    stage.open(RiskTier::Low);
    let mut chain = vec![stage.root(|grant| *grant = bounded(AGENT))];
    for _ in 0..2 {
        chain.push(hand_on(stage, &chain, |_| {}));
    }
    assert!(stage.kinds().is_empty());
    chain
}

#[test]
fn nothing_is_widened_three_levels_down() {
    type Change = fn(&mut v1::Grant);
    let wider: [(Change, &str); 14] = [
        (|g| g.actions = vec!["refund".into()], "actions"),
        (|g| g.actions = vec!["*".into()], "actions"),
        (
            |g| g.actions = vec!["cancel".into(), "refund/a".into()],
            "actions",
        ),
        (|g| g.resources = vec!["orders/*".into()], "resources"),
        (|g| g.resources = vec!["orders/7".into()], "resources"),
        (|g| g.resources = vec!["orders/70/*".into()], "resources"),
        (|g| g.not_before_us = 0, "time"),
        (|g| g.not_before_us -= 1, "time"),
        (|g| g.expires_us += 1, "time"),
        (|g| g.uses = 11, "uses"),
        (|g| g.uses = 0, "uses"),
        (|g| g.amount = Some(amount(1_001)), "amount"),
        (|g| g.amount = None, "amount"),
        (
            |g| g.amount.as_mut().unwrap().currency = "USD".into(),
            "amount",
        ),
    ];
    for (change, what) in wider {
        let mut stage = Stage::new();
        let chain = three_deep(&mut stage);
        stage.mark();
        let widened = hand_on(&mut stage, &chain, change);
        // And its subject cannot accept it.
        assert_eq!(
            stage.kinds(),
            [F::DelegationEscalation, F::OutOfPlace],
            "{what}"
        );
        let found = &stage.found()[0];
        assert_eq!(
            found.detail,
            format!("its {what} go{} beyond the parent's", plural(what))
        );
        assert_eq!(found.contradicts_leaf, Some(chain[2].leaf));
        assert_eq!(grant_state(&stage, &widened), GrantState::Invalid);
        // What hangs on it is no better, even with its old bounds.
        stage.mark();
        let below = [chain, vec![widened]].concat();
        let below = hand_on(&mut stage, &below, |_| {});
        assert_eq!(stage.found()[0].detail, "the parent never was a grant");
        let said = used(&below);
        let denied = stage.ledger.say(AGENT, Some(1), said);
        assert_eq!(denied.state(), Some(IntentState::Denied), "{what}");
        stage.replays();
    }
    // The same bounds again, and narrower ones, are fine.
    let mut stage = Stage::new();
    let chain = three_deep(&mut stage);
    hand_on(&mut stage, &chain, |grant| {
        grant.actions = vec!["refund/a".into(), "refund/b/*".into()];
        grant.resources = vec!["orders/7/items/*".into()];
        (grant.not_before_us, grant.expires_us) = (seconds(60), seconds(4_000));
        (grant.uses, grant.amount) = (1, Some(amount(0)));
    });
    assert!(stage.kinds().is_empty());
}

fn plural(what: &str) -> &'static str {
    match what {
        "time" | "amount" => "es",
        _ => "",
    }
}

/// The subject uses a grant for what it is for.
pub(super) fn used(grant: &Place) -> Body {
    Body::Intent(v1::Intent {
        action: "refund/a".into(),
        ..intent("orders/7/1", 1, Some(grant.hash))
    })
}

#[test]
fn a_chain_has_eight_grants() {
    let mut stage = Stage::new();
    let mut chain = three_deep(&mut stage);
    while chain.len() < CHAIN_MAX as usize {
        chain.push(hand_on(&mut stage, &chain, |_| {}));
    }
    assert!(stage.kinds().is_empty());
    let last = chain.last().unwrap().clone();
    let cleared = stage.ledger.say(HELPER, Some(1), used(&last));
    assert_eq!(cleared.state(), Some(IntentState::Cleared));
    for grant in &chain {
        assert_eq!(
            stage.ledger.grant(grant.hash).uses_spent,
            1,
            "all are charged"
        );
    }
    let ninth = hand_on(&mut stage, &chain, |_| {});
    assert_eq!(stage.ledger.grant(ninth.hash).depth, 9);
    assert_eq!(stage.kinds(), [F::DelegationEscalation, F::OutOfPlace]);
    assert_eq!(stage.found()[0].detail, "the chain has more than 8 grants");
    let denied = stage.ledger.say(AGENT, Some(1), used(&ninth));
    assert_eq!(denied.state(), Some(IntentState::Denied));
    assert_eq!(denied.kinds(), [F::DelegationEscalation]);
    stage.replays();
}

/// Two children that each have all of their parent's limit have it together.
#[test]
fn two_children_do_not_overspend_their_parent() {
    type Bound = (fn(&mut v1::Grant), i64, usize);
    let by_uses: Bound = (|grant| grant.uses = 3, 1, 3);
    let by_amount: Bound = (|grant| grant.amount = Some(amount(1_000)), 300, 3);
    for (bound, minor_units, fits) in [by_uses, by_amount] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let root = stage.root(bound);
        let parts = [0, 1].map(|_| {
            let part = stage.part(&root, bound);
            stage.ledger.say(HELPER, Some(1), accepted(part.hash));
            part
        });
        let mut states = Vec::new();
        for n in 0..6 {
            let body = Body::Intent(intent("orders/7", minor_units, Some(parts[n % 2].hash)));
            let intent = stage.ledger.say(HELPER, Some(1), body);
            states.push(intent.state().unwrap());
            if n >= fits {
                assert_eq!(intent.kinds(), [F::LimitExceeded]);
                // The parent's limit, not the child's, which has some left.
                let contradicts = intent.assessed.findings[0].contradicts_leaf;
                assert_eq!(contradicts, Some(root.leaf));
            }
        }
        let cleared = states
            .iter()
            .filter(|state| **state == IntentState::Cleared);
        assert_eq!(cleared.count(), fits, "{states:?}");
        let spent = |grant: &Place| stage.ledger.grant(grant.hash).uses_spent;
        assert_eq!(spent(&root), spent(&parts[0]) + spent(&parts[1]));
        // What was said under neither is charged to nobody; the agent itself has nothing left of
        // the uses.
        assert_eq!(spent(&root), fits as u64);
        stage.replays();
    }
}

/// A batch is judged statement by statement: no two of it use the same rest.
#[test]
fn a_batch_does_not_overspend() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|grant| grant.amount = Some(amount(1_000)));
    let body = |minor_units| {
        let said = intent("orders/7", minor_units, Some(root.hash));
        (Some(1), Body::Intent(said))
    };
    let bodies = [600, 600, 400, 1, 0].map(body).to_vec();
    let states = stage.ledger.say_batch(AGENT, bodies);
    let states: Vec<_> = states.iter().map(|place| place.state().unwrap()).collect();
    use IntentState::{Cleared, Denied};
    assert_eq!(states, [Cleared, Denied, Cleared, Denied, Cleared]);
    assert_eq!(stage.ledger.grant(root.hash).amount_spent, 1_000);
    // Sums do not run over, and nothing is given back.
    for minor_units in [i64::MAX, i64::MIN, -1] {
        let denied = stage.intend(Some(&root), |said| said.amount = Some(amount(minor_units)));
        assert_eq!(denied.kinds(), [F::LimitExceeded], "{minor_units}");
    }
    let denied = stage.intend(Some(&root), |said| said.amount = None);
    assert_eq!(denied.kinds(), [F::LimitExceeded]);
    assert_eq!(stage.ledger.grant(root.hash).amount_spent, 1_000);
    stage.replays();
}

/// A limit is judged when an Intent is cleared, and again before its Clearance.
#[test]
fn what_waits_does_not_reserve() {
    let mut stage = Stage::new();
    stage.ledger.set_default_policy();
    stage.open(RiskTier::Payment);
    let root = stage.root(|grant| grant.uses = 1);
    let intents = [0, 1].map(|_| stage.intend(Some(&root), |_| {}));
    for intent in &intents {
        assert_eq!(intent.state(), Some(IntentState::Waiting));
        stage.decide(intent, Verdict::Allow);
    }
    // Both approved in one batch, before either Clearance is written.
    let now = stage.ledger.now();
    let yes = |intent: &Place| (Some(1), approval(intent, Verdict::Allow, now));
    let bodies = intents.iter().map(yes).collect();
    stage.ledger.say_batch(APPROVER, bodies);
    assert_eq!(stage.state(&intents[0]), IntentState::Cleared);
    assert_eq!(stage.state(&intents[1]), IntentState::Denied);
    assert_eq!(stage.kinds(), [F::LimitExceeded]);
    assert_eq!(stage.ledger.grant(root.hash).uses_spent, 1);
    stage.replays();
}

/// Where the last grant of a chain stands for its subject, and what that comes from.
fn effective(stage: &Stage, chain: &[Place]) -> (GrantState, u64) {
    let closed = stage.ledger.task(1).state() == v1::TaskState::Closed;
    let kept: Vec<_> = chain
        .iter()
        .rev()
        .map(|one| stage.ledger.grant(one.hash))
        .collect();
    effective_state(&kept, &stage.ledger.trust, closed, stage.ledger.now())
}

/// What is shown of a grant is what an Intent under it is told.
#[test]
fn a_part_stands_as_the_worst_of_what_it_is_a_part_of() {
    type End = fn(&mut Stage, &[Place]);
    let ends: [(End, GrantState, Option<usize>); 8] = [
        (|_, _| {}, GrantState::Active, None),
        (
            |s, chain| drop(s.ledger.say(AUTHORITY, Some(1), revocation(chain[0].hash))),
            GrantState::Revoked,
            Some(0),
        ),
        (
            |s, chain| drop(s.ledger.say(AUTHORITY, Some(1), revocation(chain[1].hash))),
            GrantState::Revoked,
            Some(1),
        ),
        (
            |s, chain| {
                for one in chain {
                    s.ledger.say(AUTHORITY, Some(1), revocation(one.hash));
                }
            },
            GrantState::Revoked,
            None,
        ),
        // The helper's key handed the last one on.
        (
            |s, _| drop(s.ledger.say(AUTHORITY, None, key_revoked(HELPER, None))),
            GrantState::Revoked,
            None,
        ),
        // The subject of the root uses it up.
        (
            |s, chain| {
                for _ in 0..10 {
                    let mut said = intent("orders/7/a", 1, Some(chain[0].hash));
                    said.action = "refund/a".into();
                    let act = s.ledger.say(AGENT, Some(1), Body::Intent(said));
                    assert_eq!(act.state(), Some(IntentState::Cleared));
                }
            },
            GrantState::Exhausted,
            Some(0),
        ),
        (|s, _| s.ledger.at(5_000), GrantState::Expired, None),
        (|s, _| drop(s.close()), GrantState::TaskClosed, None),
    ];
    for (n, (end, state, from)) in ends.into_iter().enumerate() {
        let mut stage = Stage::new();
        let chain = three_deep(&mut stage);
        end(&mut stage, &chain);
        let from = from.map_or(chain[2].leaf, |at: usize| chain[at].leaf);
        assert_eq!(effective(&stage, &chain), (state, from), "{n}");
        let mut said = intent("orders/7/a", 1, Some(chain[2].hash));
        said.action = "refund/a".into();
        let act = stage.ledger.say(AGENT, Some(1), Body::Intent(said));
        let may = act.state() == Some(IntentState::Cleared);
        assert_eq!(may, state == GrantState::Active, "{n}: {:?}", act.assessed);
        stage.replays();
    }
}

/// A part that was not taken on yet has ended all the same when what it is a part of has.
#[test]
fn a_part_that_waits_ends_with_the_whole() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|grant| *grant = bounded(AGENT));
    let part = stage.part(&root, |part| {
        *part = v1::Grant {
            parent: part.parent.clone(),
            ..bounded(HELPER)
        };
    });
    let chain = [root, part];
    assert_eq!(
        effective(&stage, &chain),
        (GrantState::Pending, chain[1].leaf)
    );
    let end = revocation(chain[0].hash);
    stage.ledger.say(AUTHORITY, Some(1), end);
    assert_eq!(
        effective(&stage, &chain),
        (GrantState::Revoked, chain[0].leaf)
    );
    stage.replays();
}
