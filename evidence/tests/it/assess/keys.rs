//! Attacks with keys: revoked ones, and ones that somebody else may have had.

use deed_evidence::assess::layers;
use deed_proto::v1::{
    FindingKind as F, IntentState, LayerState, RiskTier, Verdict, statement::Body,
};

use super::*;

fn layers_of(stage: &Stage, intent: &Place) -> deed_proto::v1::Layers {
    layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust)
}

fn revoke(stage: &mut Stage, who: Who, since: Option<i64>) -> Place {
    stage.ledger.say(AUTHORITY, None, key_revoked(who, since))
}

#[test]
fn evidence_of_a_revoked_key_does_not_count() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.approve(APPROVER, &intent, Verdict::Allow);
    let revoked = revoke(&mut stage, APPROVER, None);
    // With the decision all would be there.
    let decided = stage.decide(&intent, Verdict::Allow);
    assert_eq!(decided.kinds(), [F::RevokedKeyUse]);
    assert_eq!(
        decided.assessed.findings[0].contradicts_leaf,
        Some(revoked.leaf)
    );
    let act = stage.ledger.act(intent.leaf);
    assert_eq!(act.state(), IntentState::Waiting);
    assert_eq!(act.missing, ["approval"]);
    // The key itself says nothing any more.
    let yes = approval(&intent, Verdict::Allow, stage.ledger.now());
    assert!(
        stage
            .ledger
            .try_say(APPROVER, Some(1), yes, |_| {})
            .is_err()
    );
    stage.approve(SECOND, &intent, Verdict::Allow);
    assert_eq!(stage.state(&intent), IntentState::Cleared);
    assert_eq!(stage.ledger.act(intent.leaf).evidence.len(), 2);
    // What cleared it is without a fault.
    assert_eq!(layers_of(&stage, &intent).authority(), LayerState::Proven);
    assert_eq!(layers_of(&stage, &intent).approval(), LayerState::Proven);
    stage.replays();
}

/// An approver and an engine with new keys say again what they said with their old ones.
#[test]
fn a_new_key_is_heard_where_the_old_one_was_revoked() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    revoke(&mut stage, ENGINE, None);
    let engine = Who {
        seed: Some(41),
        ..ENGINE
    };
    stage.ledger.register(engine);
    let again = stage
        .ledger
        .say(engine, Some(1), decision(&intent, Verdict::Allow));
    assert_eq!(again.kinds(), [F::RevokedKeyUse]);
    stage.approve(APPROVER, &intent, Verdict::Allow);
    assert_eq!(stage.state(&intent), IntentState::Cleared);
    let leaves: Vec<_> = stage
        .ledger
        .act(intent.leaf)
        .evidence
        .iter()
        .map(|one| one.leaf)
        .collect();
    assert_eq!(leaves[0], again.leaf);
    stage.replays();

    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.approve(APPROVER, &intent, Verdict::Allow);
    revoke(&mut stage, APPROVER, None);
    let ann = Who {
        seed: Some(41),
        ..APPROVER
    };
    stage.ledger.register(ann);
    stage.approve(ann, &intent, Verdict::Allow);
    stage.decide(&intent, Verdict::Allow);
    assert_eq!(stage.state(&intent), IntentState::Cleared);
    stage.replays();
}

/// Whoever has stolen the agent's key gets no permit for what it announced with it.
#[test]
fn what_a_revoked_key_announced_is_not_cleared() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    let revoked = revoke(&mut stage, AGENT, None);
    let approved = stage.approve(APPROVER, &intent, Verdict::Allow);
    assert_eq!(approved.kinds(), [F::RevokedKeyUse]);
    assert_eq!(
        approved.assessed.findings[0].contradicts_leaf,
        Some(revoked.leaf)
    );
    assert_eq!(stage.state(&intent), IntentState::Denied);
    assert_eq!(
        stage.ledger.act(intent.leaf).denied,
        ["the key of the Intent was revoked"]
    );
    stage.replays();
}

#[test]
fn a_compromised_key_flags_each_task_once() {
    let mut stage = Stage::new();
    let mut last = [0; 4];
    for task in 1..=4 {
        stage.ledger.at(i64::from(task) * 100);
        let opened = task_opened(RiskTier::Low, 0);
        stage.ledger.say(PLATFORM, Some(task), opened);
        for n in 0..3 {
            let said = Body::Intent(intent(&format!("orders/{n}"), 1, None));
            last[usize::from(task) - 1] = stage.ledger.say(AGENT, Some(task), said).leaf;
        }
    }
    stage.ledger.at(1_000);
    // Somebody else may have had it from the third task on: the second one is not touched.
    let revoked = revoke(&mut stage, AGENT, Some(300));
    assert_eq!(revoked.kinds(), [F::CompromisedKeyUse; 2]);
    let found = stage.found();
    for (finding, task) in found.iter().zip([3_u8, 4]) {
        assert_eq!(finding.task, stage.ledger.task_id(task).as_bytes()[..]);
        assert_eq!(finding.about_leaf, last[usize::from(task) - 1]);
        assert_eq!(finding.contradicts_leaf, Some(revoked.leaf));
    }
    // It is revoked once; that it was stolen longer ago may show later.
    for again in [None, Some(300), Some(400)] {
        let said = key_revoked(AGENT, again);
        let said = stage.ledger.try_say(AUTHORITY, None, said, |_| {});
        assert!(said.is_err(), "{again:?}");
    }
    let longer = revoke(&mut stage, AGENT, Some(0));
    assert_eq!(longer.kinds(), [F::CompromisedKeyUse; 4]);
    stage.replays();
}

/// A key that spoke in more tasks than are looked at at once: each is flagged in the end, the newest first,
/// also where nobody speaks.
#[test]
fn a_compromised_key_with_very_many_tasks_flags_them_by_and_by() {
    for ledger in [Ledger::new(), Ledger::forgetting()] {
        let mut stage = Stage::of(ledger);
        for task in 1..=20 {
            let opened = task_opened(RiskTier::Low, 0);
            stage.ledger.say(PLATFORM, Some(task), opened);
            let said = Body::Intent(intent("orders/7", 1, None));
            stage.ledger.say(AGENT, Some(task), said);
        }
        stage.mark();
        stage.ledger.at(200);
        let revoked = revoke(&mut stage, AGENT, Some(0));
        assert_eq!(revoked.kinds(), [F::CompromisedKeyUse; 5]);
        // Somebody speaks, in the same moment and later; then nobody does.
        stage.ledger.say(PLATFORM, Some(1), task_closed());
        assert_eq!(stage.kinds().len(), 5);
        stage.ledger.at(201);
        let opened = task_opened(RiskTier::Low, 0);
        stage.ledger.say(PLATFORM, Some(21), opened);
        assert_eq!(stage.kinds(), [F::CompromisedKeyUse; 10]);
        stage.ledger.at(202);
        assert!(stage.ledger.tick());
        assert_eq!(stage.kinds(), [F::CompromisedKeyUse; 15]);
        stage.ledger.at(203);
        assert!(stage.ledger.tick());
        assert_eq!(stage.kinds(), [F::CompromisedKeyUse; 20]);
        stage.ledger.at(204);
        assert!(!stage.ledger.tick());
        let found = stage.found();
        let tasks = (16..=20).chain(11..=15).chain(6..=10).chain(1..=5);
        for (one, task) in found.iter().zip(tasks) {
            assert_eq!(one.task, stage.ledger.task_id(task).as_bytes()[..]);
            assert_eq!(one.contradicts_leaf, Some(revoked.leaf));
        }
        stage.replays();
    }
}

/// It was stolen longer ago than was known, and that comes while its tasks are looked at.
#[test]
fn a_second_revocation_begins_again() {
    let mut stage = Stage::new();
    for task in 1..=10 {
        let opened = task_opened(RiskTier::Low, 0);
        stage.ledger.say(PLATFORM, Some(task), opened);
        let said = Body::Intent(intent("orders/7", 1, None));
        stage.ledger.say(AGENT, Some(task), said);
    }
    stage.ledger.at(200);
    let late = revoke(&mut stage, AGENT, Some(150));
    assert_eq!(late.kinds(), []);
    let early = revoke(&mut stage, AGENT, Some(0));
    assert_eq!(early.kinds(), [F::CompromisedKeyUse; 5]);
    stage.mark();
    stage.ledger.at(201);
    assert!(stage.ledger.tick());
    assert_eq!(stage.kinds(), [F::CompromisedKeyUse; 5]);
    assert_eq!(stage.found()[0].contradicts_leaf, Some(early.leaf));
    assert!(stage.ledger.kept.timers.is_empty());
    stage.replays();
}

/// From when on somebody else may have had a key, what it said proves nothing.
#[test]
fn a_compromised_key_proves_nothing() {
    for (since, wanted) in [(301, LayerState::Proven), (300, LayerState::Contradicted)] {
        let told = || {
            let mut stage = Stage::new();
            stage.ledger.at(200);
            let intent = stage.waits(0);
            stage.ledger.at(300);
            stage.clear(&intent);
            (stage, intent)
        };
        let (mut stage, intent) = told();
        revoke(&mut stage, APPROVER, Some(since));
        assert_eq!(layers_of(&stage, &intent).approval(), wanted);
        assert_eq!(layers_of(&stage, &intent).authority(), LayerState::Proven);
        stage.replays();
        let (mut stage, intent) = told();
        revoke(&mut stage, ENGINE, Some(since));
        assert_eq!(layers_of(&stage, &intent).authority(), wanted);
        assert_eq!(layers_of(&stage, &intent).approval(), LayerState::Proven);
        stage.replays();
        // The agent spoke at 200.
        let (mut stage, intent) = told();
        revoke(&mut stage, AGENT, Some(since - 100));
        assert_eq!(layers_of(&stage, &intent).identity(), wanted);
        stage.replays();
    }
}

/// A task with more keys than it has room for flags every one of them, with its last word.
#[test]
fn no_key_hides_behind_sixty_four_others() {
    // The platform's is the first; so many agents follow.
    const AGENTS: u8 = 66;
    let agent = |n: u8| Who {
        seed: Some(100 + n),
        ..AGENT
    };
    for ledger in [Ledger::new(), Ledger::forgetting()] {
        let mut stage = Stage::of(ledger);
        for n in 0..AGENTS {
            stage.ledger.register(agent(n));
        }
        stage.open(RiskTier::Low);
        let act = Body::Intent(intent("orders/7", 1, None));
        // Each twice, long before its key is known to be in other hands, and the last ones once more.
        let mut last = [0; AGENTS as usize];
        for (at, from) in [(200, 0), (300, 0), (400, AGENTS - 2)] {
            stage.ledger.at(at);
            for n in from..AGENTS {
                last[usize::from(n)] = stage.ledger.say(agent(n), Some(1), act.clone()).leaf;
            }
        }
        stage.ledger.at(500);
        assert_eq!(stage.ledger.task(1).keys.len(), 64);
        for n in 0..AGENTS {
            // After its last word, at it, and in between: the first two and the last two differ.
            let (late, wanted) = match n {
                0 => (301, None),
                64 => (401, None),
                65 => (400, Some(last[65])),
                _ => (300, Some(last[usize::from(n)])),
            };
            stage.mark();
            let revoked = revoke(&mut stage, agent(n), Some(late));
            let found: Vec<_> = stage
                .found()
                .iter()
                .map(|one| (one.kind(), one.about_leaf, one.contradicts_leaf))
                .collect();
            let wanted = wanted.map(|leaf| (F::CompromisedKeyUse, leaf, Some(revoked.leaf)));
            assert_eq!(found, Vec::from_iter(wanted), "{n}");
        }
        stage.replays();
    }
}
