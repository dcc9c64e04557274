//! Attacks with grants: not accepted, ended, somebody else's, from elsewhere or from nobody.

use deed_evidence::{
    replay::{Fault, Replay},
    statement,
};
use deed_proto::v1::{self, FindingKind as F, GrantState, IntentState, RiskTier, statement::Body};

use super::{
    delegation::{bounded, grant_state, three_deep, used},
    *,
};

#[test]
fn what_nobody_accepted_is_not_used() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|_| {});
    let part = stage.part(&root, |grant| {
        grant.subject_key = Bytes::copy_from_slice(HELPER.key().unwrap().as_bytes());
    });
    // Attribution cannot be forced on anybody: neither the delegator nor the owner accepts for it.
    for who in [AGENT, APPROVER, ANYBODY] {
        let accepts = stage.ledger.say(who, Some(1), accepted(part.hash));
        assert_eq!(accepts.kinds(), [F::WrongRole], "{who:?}");
    }
    let said = Body::Intent(intent("orders/7", 1, Some(part.hash)));
    let denied = stage.ledger.say(HELPER, Some(1), said.clone());
    assert_eq!(denied.kinds(), [F::DelegationUnaccepted]);
    assert_eq!(denied.state(), Some(IntentState::Denied));
    // Accepted twice is once; what was denied stays so.
    let accepts = stage.ledger.say(HELPER, Some(1), accepted(part.hash));
    assert!(accepts.kinds().is_empty());
    let again = stage.ledger.say(HELPER, Some(1), accepted(part.hash));
    assert_eq!(again.kinds(), [F::OutOfPlace]);
    assert_eq!(stage.state(&denied), IntentState::Denied);
    let cleared = stage.ledger.say(HELPER, Some(1), said);
    assert_eq!(cleared.state(), Some(IntentState::Cleared));
    stage.replays();
}

#[test]
fn what_has_ended_is_neither_accepted_nor_revoked() {
    for by_task in [false, true] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let root = stage.root(|_| {});
        let part = stage.part(&root, |_| {});
        let ended = if by_task {
            stage.close();
            GrantState::TaskClosed
        } else {
            stage.ledger.at(10_000);
            GrantState::Expired
        };
        let accepts = stage.ledger.say(HELPER, Some(1), accepted(part.hash));
        assert_eq!(accepts.kinds(), [F::OutOfPlace]);
        for grant in [&root, &part] {
            let revokes = stage.ledger.say(AUTHORITY, Some(1), revocation(grant.hash));
            assert_eq!(revokes.kinds(), [F::OutOfPlace]);
            assert_eq!(grant_state(&stage, grant), ended);
        }
        stage.replays();
    }
}

#[test]
fn a_revoked_parent_ends_all_below_it() {
    let mut stage = Stage::new();
    let chain = three_deep(&mut stage);
    let revoked = stage
        .ledger
        .say(AUTHORITY, Some(1), revocation(chain[0].hash));
    let denied = stage.ledger.say(AGENT, Some(1), used(&chain[2]));
    assert_eq!(denied.kinds(), [F::ExpiredGrant]);
    assert_eq!(
        denied.assessed.findings[0].contradicts_leaf,
        Some(revoked.leaf)
    );
    // Nobody but an authority revokes.
    for who in [AGENT, PLATFORM, ANYBODY] {
        let refused = stage
            .ledger
            .try_say(who, Some(1), revocation(chain[1].hash), |_| {});
        assert!(
            refused.unwrap_err().contains("must be deed:authority"),
            "{who:?}"
        );
    }
}

#[test]
fn a_grant_is_its_subjects_and_its_tasks() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    stage
        .ledger
        .say(PLATFORM, Some(2), task_opened(RiskTier::Low, 0));
    let root = stage.root(|grant| *grant = bounded(AGENT));
    // Another agent; another task.
    let denied = stage.ledger.say(HELPER, Some(1), used(&root));
    assert_eq!(denied.kinds(), [F::UnknownGrant]);
    let denied = stage.ledger.say(AGENT, Some(2), used(&root));
    assert_eq!(denied.kinds(), [F::UnknownGrant]);
    // Another key of the same agent.
    let other = Who {
        seed: Some(41),
        ..AGENT
    };
    stage.ledger.register(other);
    let denied = stage.ledger.say(other, Some(1), used(&root));
    assert_eq!(denied.kinds(), [F::UnknownGrant]);
    assert_eq!(denied.state(), Some(IntentState::Denied));
    // Nor do they hand it on, in this task or another.
    for (who, task) in [(HELPER, 1), (other, 1), (AGENT, 2)] {
        let part = v1::Grant {
            parent: Bytes::copy_from_slice(root.hash.as_bytes()),
            ..bounded(HELPER)
        };
        let part = stage.ledger.say(who, Some(task), Body::Grant(part));
        assert_eq!(stage.ledger.grant(part.hash).state(), GrantState::Invalid);
    }
    assert_eq!(stage.ledger.grant(root.hash).uses_spent, 0);
    stage.replays();
}

#[test]
fn an_agent_grants_nothing_of_its_own() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    for who in [AGENT, PLATFORM, ENGINE] {
        let own = stage.ledger.say(who, Some(1), grant_to(AGENT));
        assert_eq!(own.kinds(), [F::WrongRole], "{who:?}");
        assert_eq!(grant_state(&stage, &own), GrantState::Invalid);
        let denied = stage.intend(Some(&own), |_| {});
        assert_eq!(denied.state(), Some(IntentState::Denied));
    }
    // What nobody signed is somebody's claim, and no policy that asks for a grant takes it.
    stage.ledger.set_default_policy();
    stage
        .ledger
        .say(PLATFORM, Some(2), task_opened(RiskTier::Payment, 0));
    let own = stage.ledger.say(ANYBODY, Some(2), grant_to(AGENT));
    let said = Body::Intent(intent("orders/7", 1, Some(own.hash)));
    let denied = stage.ledger.say(AGENT, Some(2), said);
    let verdict = denied.assessed.intent.unwrap();
    assert_eq!(verdict.denied, ["policy: needs a grant"]);
    stage.replays();
}

#[test]
fn nothing_of_another_ledger_counts() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|_| {});
    let other = |made: &mut v1::Statement| made.ledger_id = vec![8; 32].into();
    let refused = stage
        .ledger
        .try_say(AUTHORITY, Some(1), grant_to(AGENT), other);
    assert!(refused.unwrap_err().contains("another ledger"));
    // A server that took it all the same is caught.
    let mut entries = stage.ledger.entries().to_vec();
    let mut made = stage.ledger.statement(AUTHORITY, Some(1), grant_to(AGENT));
    other(&mut made);
    let payload = statement::encode(&made).unwrap();
    entries.push(signed(AUTHORITY, &payload, stage.ledger.now()));
    let error = Replay::over(&entries).unwrap_err();
    assert_eq!(error.leaf, stage.ledger.next_leaf());
    assert!(matches!(*error.fault, Fault::OtherLedger), "{error}");
    // The hash of a grant that stands elsewhere names nothing here.
    let mut elsewhere = Stage::new();
    elsewhere.ledger.say(AUTHORITY, Some(1), grant_to(HELPER));
    elsewhere.open(RiskTier::Low);
    let denied = elsewhere.intend(Some(&root), |_| {});
    assert_eq!(denied.kinds(), [F::UnknownGrant]);
}

#[test]
fn a_key_that_handed_on_and_was_revoked_ends_what_it_handed_on() {
    let mut stage = Stage::new();
    let chain = three_deep(&mut stage);
    let revoked = stage.ledger.say(AUTHORITY, None, key_revoked(HELPER, None));
    let denied = stage.ledger.say(AGENT, Some(1), used(&chain[2]));
    assert_eq!(denied.kinds(), [F::RevokedKeyUse]);
    assert_eq!(
        denied.assessed.findings[0].contradicts_leaf,
        Some(revoked.leaf)
    );
    let cleared = stage.ledger.say(AGENT, Some(1), used(&chain[0]));
    assert_eq!(cleared.state(), Some(IntentState::Cleared));
    stage.replays();
}
