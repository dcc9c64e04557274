//! Tests of evidence policies in a server: they are compiled after their signature was verified,
//! once, and never make a ledger unusable.

use std::{sync::Arc, time::Instant};

use deed_evidence::{
    policy,
    replay::{Fault, Replay},
    trust::TrustStatement,
};
use deed_proto::v1::{self, rejection::Reason, statement::Body};
use deed_tlog::SigningKey;

use super::{Ledger, step::Placement};
use crate::{
    admission::{Admission, AdmittedBatch, Piece, Sender},
    append::AppendError,
    clock::Clock as _,
    offline::fsck,
    pressure::SourceKey,
    testing::{
        AGENT, Authority, Engine, Producer, TASK, batched, briefs, policy_set, signed, task_of,
    },
};

const NAME: &str = "policies";

fn set_of(number: usize) -> v1::PolicySet {
    policy_set(&format!(
        "permit (principal, action, resource); // {number}"
    ))
}

/// Policies of an older build: a text that this build cannot read, validated with an older Cedar.
fn unreadable() -> v1::PolicySet {
    v1::PolicySet {
        cedar_version: "4.0".to_owned(),
        ..policy_set("permit in the words of another time;")
    }
}

fn reasons(answer: &v1::AppendResponse) -> Vec<Option<(Reason, String)>> {
    let results = answer.results.iter();
    results
        .map(|result| match &result.result {
            Some(v1::append_result::Result::Rejected(rejected)) => {
                Some((rejected.reason(), rejected.message.clone()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn nothing_is_compiled_before_an_authority_has_signed_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create(NAME).unwrap();
    let compiled = || engine.registry.policies().compiled();
    let append = |envelopes| engine.append(NAME, envelopes).unwrap();
    let one = |reason: Reason, envelope: v1::Envelope| {
        let answer = append(vec![envelope]);
        let found = reasons(&answer);
        assert_eq!(
            found[0].as_ref().map(|(reason, _)| *reason),
            Some(reason),
            "{found:?}"
        );
        assert_eq!(compiled(), 0, "{reason:?}");
    };

    let mut broken = Authority::new(ledger.id).says(Body::PolicySet(set_of(1)));
    broken.signature = vec![7; 64].into();
    one(Reason::SignatureInvalid, broken);
    let good = Authority::new(ledger.id).says(Body::PolicySet(set_of(1)));
    let unsigned = v1::Envelope {
        key_id: bytes::Bytes::new(),
        signature: bytes::Bytes::new(),
        ..good.clone()
    };
    one(Reason::SignatureRequired, unsigned.clone());
    let stranger = SigningKey::from_seed(&[77; 32]);
    one(Reason::KeyUnknown, signed(unsigned, &stranger));
    let stale = v1::PolicySet {
        cedar_version: "4.0".to_owned(),
        ..set_of(1)
    };
    one(
        Reason::PolicyInvalid,
        Authority::new(ledger.id).says(Body::PolicySet(stale)),
    );

    // A request may have four policies, and each text is compiled once.
    let mut authority = Authority::new(ledger.id);
    let five = (0..5).map(|number| authority.says(Body::PolicySet(set_of(number % 2))));
    let answer = append(five.collect());
    assert_eq!(
        briefs(&answer)[..4],
        ["accepted 1", "accepted 2", "accepted 3", "accepted 4"]
    );
    assert_eq!(reasons(&answer)[4].as_ref().unwrap().0, Reason::Oversized);
    assert_eq!(compiled(), 2);

    // A policy that is sent again is a duplicate, and is not compiled again.
    let again = Authority::new(ledger.id).says(Body::PolicySet(set_of(0)));
    assert_eq!(briefs(&append(vec![again])), ["duplicate 1"]);
    assert_eq!(compiled(), 2);
    drop(ledger);
    engine.close();

    // After a start the newest policy is compiled, and none of those before it.
    let engine = Engine::open(dir.path());
    engine.registry.ledger(NAME).unwrap();
    assert_eq!(engine.registry.policies().compiled(), 1);
    engine.close();
}

#[test]
fn who_is_no_authority_any_more_has_nothing_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create(NAME).unwrap();
    let other = SigningKey::from_seed(&[78; 32]);
    let mut authority = Authority::new(ledger.id);
    let first = authority.says(Body::PolicySet(set_of(1)));
    let changed = authority.says(Body::AuthoritiesChanged(v1::AuthoritiesChanged {
        authority_keys: vec![v1::AuthorityKey {
            public_key: bytes::Bytes::copy_from_slice(other.public_key().as_bytes()),
        }],
        ..v1::AuthoritiesChanged::default()
    }));
    let answer = engine.append(NAME, vec![first.clone(), changed]).unwrap();
    assert_eq!(briefs(&answer), ["accepted 1", "accepted 2"]);
    let compiled = engine.registry.policies().compiled();

    let refused = engine
        .append(NAME, vec![authority.says(Body::PolicySet(set_of(2)))])
        .unwrap();
    assert_eq!(reasons(&refused)[0].as_ref().unwrap().0, Reason::KeyUnknown);
    let again = engine.append(NAME, vec![first]).unwrap();
    assert_eq!(briefs(&again), ["duplicate 1"]);
    assert_eq!(engine.registry.policies().compiled(), compiled);
    engine.close();
}

/// Records a PolicySet as an older build did, for which its policies were valid.
fn record_as_before(engine: &Engine, ledger: &Arc<Ledger>, envelope: v1::Envelope) {
    let admitting = Admission {
        ledger_id: ledger.id,
        trust: &ledger.trust,
        sender: &Sender::anybody(),
        received_at: engine.clock.now(),
        holds_contents: false,
        log_signers: None,
    };
    let mut admitting = admitting.admit(&[envelope]);
    admitting.verify_here();
    let (batch, rejected, _) = admitting.finish();
    assert_eq!(rejected, []);
    let policy = policy_of(&batch);
    assert!(policy.compiled().is_err());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let placements = runtime.block_on(async {
        let shards = &engine.appends.shards;
        let reservation = shards.reserve(ledger, SourceKey::Server, 0).await;
        let answer = reservation
            .append(Arc::clone(ledger), batch, Instant::now())
            .answer()
            .await;
        answer.unwrap().placements
    });
    assert!(
        matches!(placements[..], [Placement::Linked(_)]),
        "{placements:?}"
    );
}

fn policy_of(batch: &AdmittedBatch) -> policy::StoredPolicy {
    match &batch.pieces()[0] {
        Piece::Single(_, Some(said)) => match &**said {
            TrustStatement::PolicySet { policy, .. } => policy.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_that_this_build_cannot_read_stops_intents_of_its_ledger_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create(NAME).unwrap();
    let beside = engine.create("beside").unwrap().id;
    let key = SigningKey::from_seed(&[3; 32]);
    let mut authority = Authority::new(ledger.id);
    let mut agent = Producer::new(ledger.id, 1);
    agent.task = task_of(ledger.id, "deed:authority", TASK);
    let opened = v1::TaskOpened {
        requested_by: "ticket:1".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        ..v1::TaskOpened::default()
    };
    let before = vec![
        authority.registers(&key, AGENT),
        authority.opens(TASK, opened),
        authority.says(Body::PolicySet(set_of(1))),
    ];
    let first = signed(agent.intent("orders/1"), &key);
    let answer = engine.append(NAME, before).unwrap();
    assert_eq!(briefs(&answer), ["accepted 1", "accepted 2", "accepted 3"]);
    let answer = engine.append(NAME, vec![first.clone()]).unwrap();
    assert_eq!(briefs(&answer), ["accepted 4"]);
    record_as_before(
        &engine,
        &ledger,
        authority.says(Body::PolicySet(unreadable())),
    );
    drop(ledger);
    engine.close();

    let report = fsck::check(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(report.unreadable.len(), 1);
    let words = report.to_string();
    for word in [NAME, "leaf 5", "Cedar 4.0", "deed policy set"] {
        assert!(words.contains(word), "{words}");
    }

    // The ledger loads, and so does the other one.
    let engine = Engine::open(dir.path());
    let ledger = engine.registry.ledger(NAME).unwrap();
    engine.registry.ledger("beside").unwrap();
    assert_eq!(engine.registry.policies_unreadable(), 1);
    let elsewhere = Producer::new(beside, 1).intent("orders/2");
    assert_eq!(
        briefs(&engine.append("beside", vec![elsewhere]).unwrap()),
        ["accepted 1"]
    );

    // An Intent, which the policy would judge, is refused with a way out, also in a batch.
    let mut later = agent.clone();
    let batch = batched(vec![later.intent("orders/3")], &key);
    let alone = signed(agent.clone().intent("orders/3"), &key);
    for envelopes in [vec![alone], batch] {
        let answer = engine.append(NAME, envelopes).unwrap();
        let refused = reasons(&answer);
        let (reason, words) = refused.last().unwrap().as_ref().unwrap();
        assert_eq!(*reason, Reason::PolicyInvalid, "{words}");
        for word in ["leaf 5", "Cedar 4.0", "deed policy set", "the build before"] {
            assert!(words.contains(word), "{words}");
        }
    }
    // A recorded statement is still a duplicate, and a body that the policy does not judge is
    // recorded.
    assert_eq!(
        briefs(&engine.append(NAME, vec![first]).unwrap()),
        ["duplicate 4"]
    );
    let close = signed(
        {
            let mut other = Producer::new(ledger.id, 2);
            other.statement(|statement| {
                statement.task = bytes::Bytes::new();
                statement.body = Some(Body::Heartbeat(v1::Heartbeat {
                    last_sequence: 0,
                    count: 1,
                    next_within_us: 0,
                }));
            })
        },
        &key,
    );
    let answer = engine.append(NAME, vec![close]).unwrap();
    assert_eq!(briefs(&answer), ["accepted 6"], "{:?}", reasons(&answer));

    // The way out is a policy that this build can read.
    let answer = engine
        .append(NAME, vec![authority.says(Body::PolicySet(set_of(2)))])
        .unwrap();
    assert_eq!(briefs(&answer), ["accepted 7"]);
    assert_eq!(engine.registry.policies_unreadable(), 0);
    let next = signed(agent.intent("orders/3"), &key);
    assert_eq!(
        briefs(&engine.append(NAME, vec![next]).unwrap()),
        ["accepted 8"]
    );
    let entries: Vec<_> = engine
        .store
        .entries(ledger.number, 0)
        .map(|item| item.unwrap().1)
        .collect();
    engine.close();

    // Every leaf is accepted by this build, as by the one before.
    Replay::over(&entries).unwrap();
    let report = fsck::check(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(report.unreadable, [] as [String; 0]);

    // An Intent that another build judged by that policy cannot be judged here, and no finding is
    // made against anyone.
    let (leading, behind) = entries.split_at(6);
    let mut replay = Replay::begin(&leading[0]).unwrap();
    for (leaf, entry) in (1..).zip(&leading[1..]) {
        replay.leaf(leaf, entry).unwrap();
    }
    let error = replay.leaf(6, &behind[2]).unwrap_err();
    assert!(
        matches!(*error.fault, Fault::PolicyUnreadable(_)),
        "{error}"
    );
}

#[test]
fn a_ledger_whose_policies_are_being_compiled_is_told_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create(NAME).unwrap();
    let beside = engine.create("beside").unwrap();
    let place = engine.registry.policies().hold(ledger.number);
    let said = |id| vec![Authority::new(id).says(Body::PolicySet(set_of(1)))];
    let refused = engine.append(NAME, said(ledger.id));
    assert!(
        matches!(refused, Err(AppendError::Overloaded)),
        "{refused:?}"
    );
    let taken = engine.append("beside", said(beside.id)).unwrap();
    assert_eq!(briefs(&taken), ["accepted 1"]);
    drop(place);
    assert_eq!(
        briefs(&engine.append(NAME, said(ledger.id)).unwrap()),
        ["accepted 1"]
    );
    assert_eq!(engine.appends.pressure.held_bytes(), 0);
    engine.close();
}

#[test]
fn a_ledger_is_loaded_while_another_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    engine.create(NAME).unwrap();
    engine.create("beside").unwrap();
    engine.close();
    let engine = Engine::open(dir.path());
    engine.registry.while_loading(NAME, || {
        engine.registry.ledger("beside").unwrap();
    });
    let (one, same) = std::thread::scope(|scope| {
        let load = || engine.registry.ledger(NAME).unwrap();
        let (one, same) = (scope.spawn(load), scope.spawn(load));
        (one.join().unwrap(), same.join().unwrap())
    });
    assert!(Arc::ptr_eq(&one, &same));
    drop((one, same));
    engine.close();
}
