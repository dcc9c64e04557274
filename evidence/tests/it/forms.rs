//! Forms that rules version 1 takes: a replay takes them there, and finds them where later rules are
//! in force.

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros,
    entry::Entry,
    genesis::Genesis,
    replay::{Fault, Replay},
    statement::{self, Breach},
};
use deed_proto::v1::{self, OutcomeStatus, RiskTier, statement::Body};
use deed_tlog::leaf_hash;

use crate::ledger::{TIME_US, committed, genesis, move_to_session};

const PRODUCER: &str = "spiffe://example.org/agent/one";

/// The field that a replay names, of a ledger with this statement alone.
fn found(rules_version: u32, change: impl FnOnce(&mut v1::Statement)) -> Option<&'static str> {
    let genesis = Genesis {
        rules_version,
        ..genesis()
    };
    let first = genesis.to_entry().unwrap();
    let id = LedgerId::new(leaf_hash(&first));
    let mut made = v1::Statement {
        ledger_id: Bytes::copy_from_slice(id.as_bytes()),
        producer: PRODUCER.into(),
        occurred_at_us: TIME_US,
        task: vec![7; 16].into(),
        body: Some(Body::Intent(v1::Intent {
            action: "refund".into(),
            resource: "orders/7".into(),
            ..v1::Intent::default()
        })),
        ..v1::Statement::default()
    };
    move_to_session(&mut made, 1);
    change(&mut made);
    let payload = statement::encode(&made).unwrap();
    let entry = Entry::unsigned(&payload, Micros::new(TIME_US + 1)).encode();
    let replayed = Replay::over(&[first, entry]);
    let error = match replayed {
        Ok(_) => return None,
        Err(error) => error,
    };
    assert_eq!(error.leaf, 1);
    match *error.fault {
        Fault::Breach(breach) => Some(Breach::field(breach)),
        other => panic!("{other}"),
    }
}

fn acts(made: &mut v1::Statement, change: impl FnOnce(&mut v1::Intent)) {
    match &mut made.body {
        Some(Body::Intent(intent)) => change(intent),
        _ => unreachable!(),
    }
}

#[test]
fn a_replay_finds_what_the_rules_in_force_refuse() {
    type Change = fn(&mut v1::Statement);
    let rows: [(Change, Option<&str>); 7] = [
        (|_| {}, None),
        (
            |it| (it.session, it.nonce) = (vec![1; 16].into(), Bytes::new()),
            Some("nonce"),
        ),
        (
            |it| {
                it.producer = "SPIFFE://example.org/agent/one".into();
                move_to_session(it, 1);
            },
            Some("producer"),
        ),
        (
            |it| acts(it, |intent| intent.resource = "orders/../admin".into()),
            Some("intent.resource"),
        ),
        (
            |it| acts(it, |intent| intent.deadline_us = TIME_US),
            Some("intent.deadline_us"),
        ),
        (
            |it| {
                it.body = Some(Body::TaskOpened(v1::TaskOpened {
                    requested_by: "ticket:4711".into(),
                    risk_tier: RiskTier::Low.into(),
                    ..v1::TaskOpened::default()
                }));
            },
            Some("task_opened.nonce"),
        ),
        (
            |it| {
                it.body = Some(Body::Outcome(v1::Outcome {
                    intent: Some(v1::StatementRef {
                        payload_digest: vec![7; 32].into(),
                        ..v1::StatementRef::default()
                    }),
                    status: OutcomeStatus::NotDone.into(),
                    effects: vec![v1::Effect {
                        kind: "refund.created".into(),
                        resource: "orders/7".into(),
                        ..v1::Effect::default()
                    }],
                    result: Some(committed("outcome.result")),
                    ..v1::Outcome::default()
                }));
            },
            Some("outcome.effects"),
        ),
    ];
    for (change, field) in rows {
        assert_eq!(found(2, change), field);
        assert_eq!(found(1, change), None, "{field:?}");
    }
}
