//! A replay says the same as the ledger that it replays, and notices what was made up, changed or
//! left out.

mod histories;
mod telling;

use crate::ledger::*;
use bytes::Bytes;
use deed_evidence::{
    Micros, TaskId,
    assess::{SKEW_US, cells, cells::CellKey},
    batch::Manifest,
    entry::{Entry, KeyedSignature},
    replay::{Fault, Replay, ReplayError},
    signature,
    statement::{self, LEDGER_PRODUCER},
};
use deed_proto::v1::{
    self, DispositionKind, FindingKind, GrantState, IntentState, KeyRole, OutcomeStatus, RiskTier,
    TaskState, Verdict, statement::Body,
};
use deed_tlog::{Hash, leaf_hash};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;
use std::collections::{HashMap, HashSet};
/// A payment from its task to the task's receipt: the ledger, and the Intent.
fn payment(mut ledger: Ledger) -> (Ledger, Place) {
    ledger.set_default_policy();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
    let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
    let wanted = Body::Intent(intent("orders/7", 500, Some(grant.hash)));
    let intent = ledger.say(AGENT, Some(1), wanted);
    assert_eq!(intent.state(), Some(IntentState::Waiting));
    ledger.at(200);
    ledger.say(ENGINE, Some(1), decision(&intent, Verdict::Allow));
    let now = ledger.now();
    ledger.say(APPROVER, Some(1), approval(&intent, Verdict::Allow, now));
    let effects = vec![effect("orders/7", 500)];
    let done = outcome(&intent, OutcomeStatus::Succeeded, effects.clone());
    ledger.say(AGENT, Some(1), done);
    ledger.say(DOWNSTREAM, Some(1), observation(Some(&intent), effects));
    assert!(ledger.request_receipt(1).is_some());
    ledger.say(PLATFORM, Some(1), task_closed());
    (ledger, intent)
}
fn replayed(ledger: &Ledger) -> Replay {
    let replay = Replay::over(ledger.entries()).unwrap();
    assert_eq!(replay.kept().cells, ledger.kept.cells);
    assert_eq!(replay.kept().findings, ledger.kept.findings);
    assert_eq!(replay.kept().timers, ledger.kept.timers);
    assert_eq!(*replay.trust(), ledger.trust);
    assert_eq!(replay.ledger_id(), ledger.id);
    replay
}
fn fails(entries: &[Bytes]) -> (u64, Fault) {
    let ReplayError { leaf, fault } = Replay::over(entries).unwrap_err();
    (leaf, *fault)
}
/// The leaf of the n-th entry with this body.
fn nth(ledger: &Ledger, body: &str, n: usize) -> usize {
    let named = |entry: &Bytes| {
        let entry = Entry::parse(entry).unwrap();
        statement::parse(entry.payload).is_ok_and(|header| header.body.name() == body)
    };
    let entries = ledger.entries().iter().enumerate();
    let mut found = entries.filter(|(_, entry)| named(entry));
    found.nth(n).unwrap().0
}
/// An entry of the ledger with other words in it.
fn changed(entry: &Bytes, change: impl FnOnce(&mut v1::Statement)) -> Bytes {
    let parsed = Entry::parse(entry).unwrap();
    let mut statement = v1::Statement::decode(parsed.payload).unwrap();
    change(&mut statement);
    let payload = statement::encode(&statement).unwrap();
    Entry {
        payload: &payload,
        ..parsed
    }
    .encode()
}
/// An entry in the ledger's name.
fn by_ledger(ledger: &Ledger, task: Option<u8>, body: Body, at: Micros) -> Bytes {
    let payload = statement::encode(&v1::Statement {
        ledger_id: Bytes::copy_from_slice(ledger.id.as_bytes()),
        producer: LEDGER_PRODUCER.into(),
        occurred_at_us: at.get(),
        task: task.map_or_else(Bytes::new, |task| {
            Bytes::copy_from_slice(ledger.task_id(task).as_bytes())
        }),
        body: Some(body),
        ..v1::Statement::default()
    })
    .unwrap();
    Entry::by_ledger(&payload, at).encode()
}
#[test]
fn a_payment_from_task_to_receipt() {
    for ledger in [Ledger::new(), Ledger::forgetting()] {
        let (ledger, intent) = payment(ledger);
        let act = ledger.act(intent.leaf);
        assert_eq!(act.state(), IntentState::Completed);
        assert_eq!(
            act.clearance_leaf,
            Some(nth(&ledger, "clearance", 0) as u64)
        );
        let receipts = [0, 1].map(|n| nth(&ledger, "task_receipt", n) as u64);
        assert_eq!(ledger.task(1).receipt_leaf, Some(receipts[1]));
        assert_eq!(ledger.next_leaf(), receipts[1] + 1);
        assert_eq!(ledger.findings().count(), 0, "{:?}", ledger.kept.findings);

        let summary = replayed(&ledger).summary();
        assert_eq!((summary.tasks, summary.grants), (1, 1));
        assert_eq!(summary.intents["completed"], 1);
        assert_eq!(summary.outcomes["corroborated"], 1);
        assert_eq!(summary.entries["task_receipt"], 2);
        assert_eq!(summary.entries["genesis"], 1);
        assert_eq!(summary.entries["key_registered"], CAST.len() as u64);
    }
}
#[test]
fn a_false_receipt_is_caught() {
    let (ledger, _) = payment(Ledger::new());
    for n in [0, 1] {
        let leaf = nth(&ledger, "task_receipt", n);
        let receipt = |change: &dyn Fn(&mut v1::TaskReceipt)| {
            let mut entries = ledger.entries().to_vec();
            entries[leaf] = changed(&entries[leaf], |statement| match &mut statement.body {
                Some(Body::TaskReceipt(receipt)) => change(receipt),
                _ => panic!("no receipt"),
            });
            entries
        };
        let flipped = |bytes: &Bytes, bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Bytes::from(bytes)
        };
        for bit in 0..256 {
            for entries in [
                receipt(&|receipt| receipt.digest = flipped(&receipt.digest, bit)),
                receipt(&|receipt| {
                    receipt.assessment_digest = flipped(&receipt.assessment_digest, bit);
                }),
                receipt(&|receipt| {
                    let head = receipt.trust_head.as_mut().unwrap();
                    head.leaf_hash = flipped(&head.leaf_hash, bit);
                }),
            ] {
                let (found, fault) = fails(&entries);
                assert_eq!(found, leaf as u64);
                assert!(matches!(fault, Fault::False { .. }), "{fault}");
            }
        }
        for entries in [
            receipt(&|receipt| receipt.count -= 1),
            receipt(&|receipt| receipt.through_leaf -= 1),
        ] {
            assert_eq!(fails(&entries).0, leaf as u64);
        }
    }
}
#[test]
fn what_the_ledger_owes_may_not_be_left_out() {
    let (ledger, _) = payment(Ledger::new());
    for (body, n) in [("clearance", 0), ("task_receipt", 1)] {
        let leaf = nth(&ledger, body, n);
        let mut entries = ledger.entries().to_vec();
        entries.remove(leaf);
        let (found, fault) = fails(&entries);
        assert_eq!(found, leaf as u64, "{body}");
        assert!(
            matches!(fault, Fault::LeftOut { body: b } if b == body),
            "{fault}"
        );
        // Everything after it was never written either.
        entries.truncate(leaf);
        let (found, fault) = fails(&entries);
        assert_eq!(found, leaf as u64, "{body}");
        assert!(
            matches!(fault, Fault::LeftOut { body: b } if b == body),
            "{fault}"
        );
    }
    // Nobody has to ask for a receipt, so that one may be left out; what it counts may not.
    let mut entries = ledger.entries().to_vec();
    entries.remove(nth(&ledger, "task_receipt", 0));
    let last = entries.len() - 1;
    let (found, fault) = fails(&entries);
    assert_eq!(found, last as u64);
    assert!(matches!(fault, Fault::False { .. }), "{fault}");
}
#[test]
fn a_trust_statement_may_not_be_left_out() {
    let (ledger, _) = payment(Ledger::new());
    for leaf in 1..CAST.len() {
        let mut entries = ledger.entries().to_vec();
        entries.remove(leaf);
        let (found, fault) = fails(&entries);
        assert_eq!(found, leaf as u64, "{fault}");
    }
    // Each in a session of its own: then the link tells.
    let mut ledger = Ledger::with_genesis_only();
    for (session, who) in (0xb0..).zip(CAST) {
        let body = ledger.registration(who);
        let own = |made: &mut v1::Statement| {
            made.sequence = 0;
            move_to_session(made, session);
        };
        ledger.try_say(AUTHORITY, None, body, own).unwrap();
    }
    replayed(&ledger);
    for leaf in 1..CAST.len() {
        let mut entries = ledger.entries().to_vec();
        entries.remove(leaf);
        let (found, fault) = fails(&entries);
        assert_eq!(found, leaf as u64);
        assert!(matches!(fault, Fault::TrustLink { .. }), "{fault}");
    }
}
#[test]
fn nothing_that_the_ledger_says_comes_out_of_nowhere() {
    let (ledger, intent) = payment(Ledger::new());
    let evidence = [("decision", 0), ("approval", 0)].map(|(body, n)| {
        let leaf = nth(&ledger, body, n);
        v1::LeafRef {
            leaf_index: leaf as u64,
            leaf_hash: Bytes::copy_from_slice(leaf_hash(&ledger.entries()[leaf]).as_bytes()),
        }
    });
    let unearned = |evidence: &[v1::LeafRef]| {
        Body::Clearance(v1::Clearance {
            intent: Some(intent.leaf_ref()),
            policy_leaf: nth(&ledger, "policy_set", 0) as u64,
            evidence: evidence.to_vec(),
        })
    };
    let genuine = nth(&ledger, "clearance", 0);
    let begun = intent.leaf as usize + 1;
    let receipt = |requested| {
        Body::TaskReceipt(v1::TaskReceipt {
            through_leaf: 1,
            count: 1,
            digest: vec![1; 32].into(),
            trust_head: Some(intent.leaf_ref()),
            assessment_digest: vec![1; 32].into(),
            requested,
        })
    };
    for (leaf, task, body, uncalled) in [
        (
            begun,
            None,
            Body::Tick(v1::Tick {
                due_us: 1,
                clock_us: 0,
            }),
            true,
        ),
        (begun, Some(1), unearned(&evidence[1..]), true),
        (begun + 1, Some(1), unearned(&evidence[..1]), true),
        // With all of its evidence, but before all of it is there; and once more.
        (genuine - 1, Some(1), unearned(&evidence), true),
        (genuine + 1, Some(1), unearned(&evidence), true),
        (begun, Some(1), receipt(false), true),
        (begun, Some(1), receipt(true), false),
        (begun, Some(9), receipt(true), true),
    ] {
        let at = Entry::parse(&ledger.entries()[leaf - 1])
            .unwrap()
            .received_at;
        let mut entries = ledger.entries().to_vec();
        entries.insert(leaf, by_ledger(&ledger, task, body, at));
        let (found, fault) = fails(&entries);
        assert_eq!(found, leaf as u64, "{fault}");
        match fault {
            Fault::Uncalled { .. } => assert!(uncalled),
            Fault::False { .. } => assert!(!uncalled),
            other => panic!("{other}"),
        }
    }
}
#[test]
fn a_deadline_ends_a_task_with_the_next_entry_or_a_tick() {
    let mut ledger = Ledger::new();
    ledger.at(10);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 60));
    ledger.say(PLATFORM, Some(2), task_opened(RiskTier::Low, 70));
    ledger.at(59);
    assert!(!ledger.tick());
    ledger.at(65);
    // Something else is said: the receipt stands before it.
    let said = ledger.say(PLATFORM, Some(3), task_opened(RiskTier::Low, 0));
    assert_eq!(nth(&ledger, "task_receipt", 0) as u64 + 1, said.leaf);
    assert_eq!(ledger.task(1).state(), TaskState::Closed);
    ledger.at(80);
    assert!(ledger.tick());
    assert_eq!(nth(&ledger, "tick", 0) + 1, nth(&ledger, "task_receipt", 1));
    replayed(&ledger);

    for body in ["task_receipt", "tick"] {
        let leaf = nth(&ledger, body, 0);
        let mut entries = ledger.entries().to_vec();
        entries.remove(leaf);
        if body == "tick" {
            // Then something else has to be said for the receipt to be due.
            assert!(Replay::over(&entries).is_ok());
        } else {
            assert_eq!(fails(&entries).0, leaf as u64);
        }
    }
    // A Tick that names another deadline.
    let leaf = nth(&ledger, "tick", 0);
    let mut entries = ledger.entries().to_vec();
    entries[leaf] = changed(&entries[leaf], |statement| match &mut statement.body {
        Some(Body::Tick(tick)) => tick.due_us += 1,
        _ => panic!("no tick"),
    });
    assert_eq!(fails(&entries).0, leaf as u64);
}
#[test]
fn two_statements_for_one_place_are_evidence_once() {
    let mut ledger = Ledger::new();
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let first = ledger.say(AGENT, Some(1), Body::Intent(intent("orders/1", 1, None)));
    ledger.say(AGENT, Some(1), Body::Intent(intent("orders/2", 1, None)));
    let other = || Body::Intent(intent("orders/3", 1, None));
    let second = ledger.equivocate(AGENT, &first, Some(1), other()).unwrap();
    assert_eq!(second.kinds(), [FindingKind::Equivocation]);
    let third = Body::Intent(intent("orders/4", 1, None));
    assert!(ledger.equivocate(AGENT, &first, Some(1), third).is_err());
    replayed(&ledger);

    // Recorded again it is an error, and so is the first one.
    for leaf in [second.leaf, first.leaf] {
        let mut entries = ledger.entries().to_vec();
        entries.push(entries[leaf as usize].clone());
        let (found, fault) = fails(&entries);
        assert_eq!(found, ledger.next_leaf());
        assert!(matches!(fault, Fault::Again { .. }), "{fault}");
    }
    // A mere repetition is no equivocation, whatever the ledger says.
    let mut entries = ledger.entries()[..second.leaf as usize].to_vec();
    entries.push(entries[first.leaf as usize].clone());
    assert!(matches!(fails(&entries).1, Fault::Again { .. }));
}
/// The entries of a batch that the agent signs, received at `at`.
pub(crate) fn batch_of(payloads: &[Bytes], at: Micros) -> Vec<Bytes> {
    let key = signing_key(AGENT.seed.unwrap());
    let manifest = Manifest::over(payloads).unwrap().encode();
    let signed = signature::sign(&key, v1::PayloadType::BatchManifest, &manifest);
    let id = signature::key_id(key.public_key());
    let keyed = KeyedSignature {
        key_id: id.as_bytes(),
        signature: &signed,
    };
    let batched = payloads.iter();
    let batched = batched.map(|payload| Entry::batched(payload, at).encode());
    let manifest = Entry::manifest(&manifest, keyed, at).encode();
    std::iter::once(manifest).chain(batched).collect()
}
#[test]
fn a_second_batch_for_the_same_places_is_evidence_once() {
    let mut ledger = Ledger::new();
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let wanted = |resource: &str| (Some(1), Body::Intent(intent(resource, 1, None)));
    let first = ledger.say_batch(AGENT, vec![wanted("orders/1"), wanted("orders/2")]);
    let said = |resource: &str, sequence: u64| {
        let (task, body) = wanted(resource);
        let mut made = ledger.statement(AGENT, task, body);
        made.sequence = sequence;
        statement::encode(&made).unwrap()
    };
    let sequence = first[0].sequence.get();
    // Another first, the same second, and one that is not there yet.
    let second = [
        said("orders/3", sequence),
        first[1].payload.clone(),
        said("orders/4", sequence + 2),
    ];
    let second = batch_of(&second, ledger.now());
    let with = |batches: &[&[Bytes]]| {
        let entries: Vec<_> = ledger.entries().to_vec();
        let entries = entries.into_iter().chain(batches.concat());
        entries.collect::<Vec<_>>()
    };
    let replay = Replay::over(&with(&[&second])).unwrap();
    let found: Vec<_> = replay.findings().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind(), FindingKind::Equivocation);
    assert_eq!(found[0].leaf_index, ledger.next_leaf() + 1);
    assert_eq!(found[0].contradicts_leaf, Some(first[0].leaf));
    // It consumed nothing.
    let session = &replay.sessions()[&first[0].session].0;
    assert_eq!(session.next.get(), sequence + 2);
    assert_eq!(session.recorded, sequence + 2);

    // Once, and not if there is nothing to be shown; and not in parts.
    let nothing_new = batch_of(&[first[1].payload.clone()], ledger.now());
    for wrong in [&[&second[..], &second][..], &[&nothing_new]] {
        let (_, fault) = fails(&with(wrong));
        assert!(matches!(fault, Fault::Again { .. }), "{fault}");
    }
    let (_, fault) = fails(&with(&[&second[..3]]));
    assert!(matches!(fault, Fault::BatchCut { .. }), "{fault}");
    let (_, fault) = fails(&with(&[&second[..2], &second[3..]]));
    assert!(!matches!(fault, Fault::Again { .. }), "{fault}");
}
#[test]
fn receive_times_do_not_go_back_by_more_than_a_clock_may_be_off() {
    let mut ledger = Ledger::new();
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    ledger.at(1000);
    ledger.say(AGENT, Some(1), Body::Intent(intent("orders/1", 1, None)));
    let last = ledger.say(AGENT, Some(1), Body::Intent(intent("orders/2", 1, None)));
    for (back, holds) in [
        (0, true),
        (SKEW_US, true),
        (SKEW_US + 1, false),
        (1 << 50, false),
    ] {
        let mut entries = ledger.entries().to_vec();
        let leaf = last.leaf as usize;
        entries[leaf] = Entry {
            received_at: Micros::new(ledger.now().get() - back),
            ..Entry::parse(&ledger.entries()[leaf]).unwrap()
        }
        .encode();
        if holds {
            Replay::over(&entries).unwrap();
        } else {
            let (found, fault) = fails(&entries);
            assert_eq!(found, last.leaf);
            assert!(matches!(fault, Fault::Late { .. }), "{fault}");
        }
    }
}
#[test]
fn every_changed_bit_of_a_small_ledger_is_caught() {
    let (ledger, _) = payment(Ledger::new());
    let original = replayed(&ledger);
    for leaf in 0..ledger.entries().len() {
        // Bits far apart: all of them would take minutes.
        for bit in (leaf % 37..ledger.entries()[leaf].len() * 8).step_by(37) {
            let mut entries = ledger.entries().to_vec();
            let mut bytes = entries[leaf].to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            entries[leaf] = bytes.into();
            // Receive times may be others: the head over the leaf hashes holds them.
            if let Ok(replay) = Replay::over(&entries) {
                let received = |entry: &Bytes| Entry::parse(entry).unwrap().received_at;
                assert_ne!(received(&entries[leaf]), received(&ledger.entries()[leaf]));
                assert_eq!(replay.leaves(), original.leaves());
            }
        }
    }
}
/// Something that somebody says; the numbers choose among what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    kind: u8,
    who: u8,
    task: u8,
    a: u8,
    b: u8,
    wait: u8,
}
pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let small = 0..16u8;
    (
        0..40u8,
        small.clone(),
        1..4u8,
        any::<u8>(),
        any::<u8>(),
        small,
    )
        .prop_map(|(kind, who, task, a, b, wait)| Op {
            kind,
            who,
            task,
            a,
            b,
            wait,
        })
}
/// A ledger, and what later statements can speak of.
pub(crate) struct Story {
    pub(crate) ledger: Ledger,
    seconds: i64,
    intents: Vec<Place>,
    grants: Vec<Place>,
    cleared: HashSet<u64>,
    /// Leaves that were looked at.
    checked: u64,
    /// The use that cleared acts have made of each grant: uses, and minor units.
    spent: HashMap<Hash, (u64, i64)>,
}
