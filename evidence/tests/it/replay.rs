//! A replay says the same as the ledger that it replays, and notices what was made up, changed or
//! left out.

use std::collections::{HashMap, HashSet};

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

use crate::ledger::*;

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
    assert_eq!(*replay.registry(), ledger.registry);
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

impl Story {
    pub(crate) fn new(mut ledger: Ledger, policy: bool) -> Self {
        if policy {
            ledger.set_default_policy();
        }
        Self {
            ledger,
            seconds: 0,
            intents: Vec::new(),
            grants: Vec::new(),
            cleared: HashSet::new(),
            checked: 0,
            spent: HashMap::new(),
        }
    }

    fn intent(&self, n: u8) -> Option<Place> {
        let newest = self.intents.len().checked_sub(1 + usize::from(n) % 4)?;
        self.intents.get(newest).cloned()
    }

    fn grant(&self, n: u8) -> Option<Place> {
        let newest = self.grants.len().checked_sub(1 + usize::from(n) % 4)?;
        self.grants.get(newest).cloned()
    }

    /// The one who should, or somebody else.
    fn who(&self, op: Op, usual: Who) -> Who {
        match op.who {
            0 => ANYBODY,
            n @ 1..=4 => CAST[(usize::from(n) + usize::from(op.a)) % CAST.len()],
            _ => usual,
        }
    }

    pub(crate) fn play(&mut self, op: Op) {
        self.seconds += match op.wait {
            0..8 => 0,
            8..12 => 1,
            12..15 => 40,
            _ => 4000,
        };
        self.ledger.at(self.seconds);
        let said = self.say(op);
        // What is refused leaves no trace.
        if let Some(Ok(place)) = said {
            match statement::parse(&place.payload).unwrap().body.name() {
                "intent" if !place.kinds().contains(&FindingKind::Equivocation) => {
                    self.intents.push(place);
                }
                "grant" => self.grants.push(place),
                _ => {}
            }
        }
        if op.b > 240 {
            self.give_evidence(op.a.is_multiple_of(2));
        }
        if (225..=240).contains(&op.b) {
            self.hand_on();
        }
        self.check();
    }

    /// The newest grant handed on, accepted and used, each by those who may.
    fn hand_on(&mut self) {
        let Some(parent) = self.grants.last().cloned() else {
            return;
        };
        let (task, holder) = (self.task_of(&parent), self.subject(&parent));
        let next = if holder == AGENT { HELPER } else { AGENT };
        let limits = self.ledger.grant(parent.hash);
        let mut part = delegated(next, parent.hash);
        part.expires_us = limits.expires_us;
        part.uses = limits.uses;
        part.amount = limits.minor_units.map(amount);
        let part = self
            .ledger
            .try_say(holder, Some(task), Body::Grant(part), |_| {});
        let Ok(part) = part else { return };
        let act = Body::Intent(intent("orders/1", 1, Some(part.hash)));
        for body in [accepted(part.hash), act] {
            let _ = self.ledger.try_say(next, Some(task), body, |_| {});
        }
    }

    /// What the newest Intent that waits is waiting for, by those who may say it: by chance alone
    /// that hardly ever comes together.
    fn give_evidence(&mut self, and_do_it: bool) {
        let waits = |place: &&Place| self.ledger.act(place.leaf).state() == IntentState::Waiting;
        let Some(of) = self.intents.iter().rev().find(waits).cloned() else {
            return;
        };
        let (task, now) = (self.task_of(&of), self.ledger.now());
        for (who, body) in [
            (ENGINE, decision(&of, Verdict::Allow)),
            (APPROVER, approval(&of, Verdict::Allow, now)),
        ] {
            // A key that was revoked says nothing.
            let _ = self.ledger.try_say(who, Some(task), body, |_| {});
        }
        if and_do_it {
            let mut done = outcome(&of, OutcomeStatus::Succeeded, Vec::new());
            if let Body::Outcome(made) = &mut done {
                made.tool_call = None;
            }
            let _ = self.ledger.try_say(AGENT, Some(task), done, |_| {});
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each body")]
    fn say(&mut self, op: Op) -> Option<Result<Place, Refused>> {
        let Op { task, a, b, .. } = op;
        let task_id = Some(task);
        let (who, body) = match op.kind {
            0..3 => {
                let tier =
                    [RiskTier::Low, RiskTier::Payment, RiskTier::Deletion][usize::from(a % 3)];
                let deadline = if b.is_multiple_of(3) {
                    self.seconds + i64::from(b) + 1
                } else {
                    0
                };
                (self.who(op, PLATFORM), task_opened(tier, deadline))
            }
            3 => (self.who(op, PLATFORM), task_closed()),
            4..8 => {
                let subject = if a.is_multiple_of(4) { HELPER } else { AGENT };
                let mut grant = grant(subject);
                grant.uses = u64::from(b % 4);
                if b.is_multiple_of(3) {
                    grant.amount = Some(amount(i64::from(b) * 10));
                }
                if b.is_multiple_of(7) {
                    grant.expires_us = seconds(self.seconds + 60);
                }
                if b.is_multiple_of(11) {
                    grant.outside_token = Some(v1::OutsideToken {
                        kind: "jti".into(),
                        value: "token-1".into(),
                        key_thumbprint: Bytes::new(),
                    });
                }
                (self.who(op, AUTHORITY), Body::Grant(grant))
            }
            8..11 => {
                let parent = self.grant(a)?;
                let usual = self.subject(&parent);
                let next = if usual == AGENT { HELPER } else { AGENT };
                let limits = self.ledger.grant(parent.hash);
                let mut grant = delegated(next, parent.hash);
                grant.expires_us = limits.expires_us;
                grant.uses = limits.uses.saturating_sub(u64::from(b % 2));
                grant.amount = limits
                    .minor_units
                    .map(|most| amount(most - i64::from(b % 2)));
                match b {
                    0..20 => grant.uses += 1,
                    20..40 => grant.amount = None,
                    40..60 => grant.resources = vec!["*".into()],
                    60..80 => grant.expires_us += 1,
                    _ => {}
                }
                let task = self.task_of(&parent);
                let who = self.who(op, usual);
                return Some(
                    self.ledger
                        .try_say(who, Some(task), Body::Grant(grant), |_| {}),
                );
            }
            11..14 => {
                let grant = self.grant(a)?;
                let who = self.who(op, self.subject(&grant));
                let task = if b < 20 { task } else { self.task_of(&grant) };
                let body = accepted(grant.hash);
                return Some(self.ledger.try_say(who, Some(task), body, |_| {}));
            }
            14..21 => {
                let grant = self.grant(a);
                let usual = grant.as_ref().map_or(AGENT, |grant| self.subject(grant));
                let mut body = intent(&format!("orders/{}", b % 5), i64::from(b), None);
                let mut task = task;
                if let Some(grant) = grant {
                    body.grant = Bytes::copy_from_slice(grant.hash.as_bytes());
                    if b > 20 {
                        task = self.task_of(&grant);
                    }
                }
                match b {
                    0..10 => body.grant = vec![b; 32].into(),
                    10..20 => {
                        body.grant = Bytes::new();
                        if b.is_multiple_of(2) {
                            body.amount = None;
                        }
                    }
                    20..30 => body.resource = "mail/7".into(),
                    30..40 => body.amount = None,
                    40..50 => body.amount = Some(amount(-1)),
                    50..60 => body.prompt = None,
                    60..100 => body.deadline_us = seconds(self.seconds + 30),
                    _ => {}
                }
                let who = self.who(op, usual);
                let key = |made: &mut v1::Statement| {
                    if b.is_multiple_of(2) {
                        made.correlation_keys = vec![v1::CorrelationKey {
                            kind: "order".into(),
                            value: (b % 5).to_string(),
                        }];
                    }
                };
                return Some(
                    self.ledger
                        .try_say(who, Some(task), Body::Intent(body), key),
                );
            }
            21..24 => {
                let mut of = self.intent(a)?;
                let verdict = if b < 30 {
                    Verdict::Deny
                } else {
                    Verdict::Allow
                };
                let task = self.off(&mut of, b, task);
                let who = self.who(op, ENGINE);
                return Some(
                    self.ledger
                        .try_say(who, Some(task), decision(&of, verdict), |_| {}),
                );
            }
            24..27 => {
                let mut of = self.intent(a)?;
                let verdict = if b < 30 {
                    Verdict::Deny
                } else {
                    Verdict::Allow
                };
                let task = self.off(&mut of, b, task);
                let usual = if b.is_multiple_of(5) {
                    SECOND
                } else {
                    APPROVER
                };
                let who = self.who(op, usual);
                let mut body = approval(&of, verdict, self.ledger.now());
                if let (Body::Approval(body), 200..220) = (&mut body, b) {
                    body.opened_at_us = body.decided_at_us - 1;
                }
                return Some(self.ledger.try_say(who, Some(task), body, |_| {}));
            }
            27..30 => {
                let of = self.intent(a)?;
                let status = match b % 7 {
                    0 => OutcomeStatus::NotDone,
                    1 => OutcomeStatus::Failed,
                    2 => OutcomeStatus::Reverted,
                    _ => OutcomeStatus::Succeeded,
                };
                let effects = vec![effect("orders/1", i64::from(b % 3)); usize::from(b % 3)];
                let mut body = outcome(&of, status, effects);
                if let Body::Outcome(body) = &mut body {
                    match b {
                        0..10 => body.intent.as_mut().unwrap().payload_digest = vec![b; 32].into(),
                        10..20 => body.arguments = Some(committed("other")),
                        20..30 => body.response = None,
                        _ => body.arguments = Some(committed("intent.arguments")),
                    }
                }
                let task = if b < 240 { self.task_of(&of) } else { task };
                let who = self.who(op, AGENT);
                return Some(self.ledger.try_say(who, Some(task), body, |_| {}));
            }
            30..32 => {
                let of = self.intent(a);
                let named = of.as_ref().filter(|_| b.is_multiple_of(2));
                let effects = vec![effect("orders/1", i64::from(b % 3)); 1 + usize::from(b % 3)];
                let who = self.who(op, DOWNSTREAM);
                let task = match (&of, b) {
                    (Some(of), 40..) => Some(self.task_of(of)),
                    (_, 0..20) => None,
                    _ => Some(task),
                };
                let keys = |made: &mut v1::Statement| {
                    made.correlation_keys = vec![
                        v1::CorrelationKey {
                            kind: "jti".into(),
                            value: "token-1".into(),
                        },
                        v1::CorrelationKey {
                            kind: "order".into(),
                            value: (b % 5).to_string(),
                        },
                    ];
                };
                let body = observation(named, effects);
                return Some(self.ledger.try_say(who, task, body, keys));
            }
            32 => {
                let who = self.who(op, AGENT);
                let next = self.ledger.statement(who, None, heartbeat(0, 0)).sequence;
                (who, heartbeat(next, i64::from(b)))
            }
            33 => {
                let grant = self.grant(a)?;
                let task = if b < 30 { task } else { self.task_of(&grant) };
                let body = revocation(grant.hash);
                return Some(self.ledger.try_say(AUTHORITY, Some(task), body, |_| {}));
            }
            34 => {
                // Seldom, for nobody can speak any more after some of them.
                let who = CAST[usize::from(a) % CAST.len()];
                let since = b.is_multiple_of(2).then_some(1);
                return (op.who < 2).then(|| {
                    let body = key_revoked(who, since);
                    self.ledger.try_say(AUTHORITY, None, body, |_| {})
                });
            }
            35 => {
                let found: Vec<_> = self.ledger.kept.findings.keys().copied().collect();
                let (leaf, number) = found.get(usize::from(a)).copied().unwrap_or((1, 1));
                let body = Body::FindingDisposition(v1::FindingDisposition {
                    leaf_index: leaf,
                    number,
                    kind: DispositionKind::Explained.into(),
                    reviewed_by: "https://example.org/people/eve".into(),
                    reason: "seen".into(),
                });
                return Some(self.ledger.try_say(AUTHORITY, None, body, |_| {}));
            }
            36 => {
                self.batch(op);
                return None;
            }
            37 => {
                self.ledger.tick();
                return None;
            }
            38 => {
                self.ledger.request_receipt(task);
                return None;
            }
            _ => {
                let first = self.intent(a)?;
                let who = AGENT;
                let body = Body::Intent(intent("orders/9", i64::from(b), None));
                return Some(self.ledger.equivocate(who, &first, task_id, body));
            }
        };
        Some(self.ledger.try_say(who, task_id, body, |_| {}))
    }

    /// An Intent, what came of it, and evidence for an earlier one, under one signature.
    fn batch(&mut self, op: Op) {
        let who = self.who(op, AGENT);
        let task = Some(op.task);
        let wanted = intent(
            "orders/1",
            i64::from(op.b),
            self.grant(op.a).map(|g| g.hash),
        );
        let wanted = Body::Intent(wanted);
        let made = self.ledger.statement(who, task, wanted.clone());
        let payload = statement::encode(&made).unwrap();
        let digest = deed_evidence::PayloadDigest::of(&payload);
        let done = Body::Outcome(v1::Outcome {
            intent: Some(v1::StatementRef {
                session: Bytes::new(),
                sequence: made.sequence,
                payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
            }),
            status: OutcomeStatus::Succeeded.into(),
            ..v1::Outcome::default()
        });
        let mut bodies = vec![(task, wanted), (task, done.clone()), (task, done)];
        if let Some(of) = self.intent(op.a) {
            let now = self.ledger.now();
            let task = Some(self.task_of(&of));
            bodies.push((task, decision(&of, Verdict::Allow)));
            bodies.push((task, approval(&of, Verdict::Allow, now)));
            bodies.push((task, approval(&of, Verdict::Deny, now)));
        }
        if let Ok(places) = self.ledger.try_say_batch(who, bodies) {
            self.intents.push(places[0].clone());
        }
    }

    /// Refers to another Intent than it says, or in another task.
    fn off(&self, of: &mut Place, b: u8, task: u8) -> u8 {
        match b {
            240.. => task,
            230..240 => {
                of.hash = Hash::new([b; 32]);
                self.task_of(of)
            }
            220..230 => {
                of.leaf += 1;
                self.task_of(of)
            }
            _ => self.task_of(of),
        }
    }

    fn task_of(&self, place: &Place) -> u8 {
        let header = statement::parse(&place.payload).unwrap();
        let of = |task: &u8| header.task == Some(self.ledger.task_id(*task));
        (0..=u8::MAX).find(of).unwrap_or(1)
    }

    fn subject(&self, grant: &Place) -> Who {
        if self.ledger.grant(grant.hash).subject == AGENT.producer {
            AGENT
        } else {
            HELPER
        }
    }

    /// What must hold after every unit.
    fn check(&mut self) {
        // Those of which no cell is kept, too: at once, for they change when something is said of
        // them.
        let leaves = self.checked..self.ledger.next_leaf();
        self.checked = leaves.end;
        for leaf in leaves {
            let act = self.ledger.kept.act(leaf);
            if let Some(act) = act.filter(|act| act.state() == IntentState::Cleared)
                && self.cleared.insert(leaf)
            {
                self.check_chain(&act);
            }
        }
        let mut newly = Vec::new();
        for (key, bytes) in &self.ledger.kept.cells {
            match key {
                CellKey::Grant(_) => {
                    let grant = cells::Grant::decode(bytes.clone()).unwrap();
                    assert!(
                        grant.uses == 0 || grant.uses_spent <= grant.uses,
                        "{grant:?}"
                    );
                    let most = grant.minor_units.unwrap_or(i64::MAX);
                    assert!((0..=most).contains(&grant.amount_spent), "{grant:?}");
                }
                CellKey::Act(_) => {
                    let act = cells::Act::decode(bytes.clone()).unwrap();
                    let cleared = act.state() == IntentState::Cleared
                        || act.state() == IntentState::Completed;
                    if cleared && self.cleared.insert(act.leaf) {
                        assert!(act.denied.is_empty() && act.missing.is_empty(), "{act:?}");
                        newly.push(act);
                    }
                }
                _ => {}
            }
        }
        for act in newly {
            self.check_chain(&act);
        }
        // Counted here, and not by the machine's own books. It may have charged more: what was
        // cleared and refused in one batch stays charged.
        for (name, (uses, spent)) in &self.spent {
            let grant = self.ledger.grant(*name);
            assert!(grant.uses == 0 || *uses <= grant.uses, "{grant:?}");
            assert!(*uses <= grant.uses_spent, "{uses} of {grant:?}");
            if let Some(most) = grant.minor_units {
                assert!(
                    *spent <= most && *spent <= grant.amount_spent,
                    "{spent} of {grant:?}"
                );
            }
        }
    }

    /// The grants that a cleared act stands on, told once more.
    fn check_chain(&mut self, act: &cells::Act) {
        let at = self.ledger.now().get();
        let (header, intent) = self
            .intent_at(act.leaf)
            .expect("a cleared act is an Intent's");
        let task = self.ledger.kept.cells[&CellKey::Task(header)].clone();
        let task = cells::Task::decode(task).unwrap();
        assert_eq!(task.state(), TaskState::Open, "{act:?}");
        let mut name = intent.grant.clone();
        if name.is_empty() {
            assert!(
                self.ledger.registry.policy().is_none() || task.tier() == RiskTier::Low,
                "{act:?}"
            );
            return;
        }
        let mut depth = 0;
        let mut child: Option<cells::Grant> = None;
        while let Ok(hash) = Hash::try_from(&name[..]) {
            let grant = self.ledger.grant(hash);
            assert_eq!(grant.state(), GrantState::Active, "{grant:?}");
            assert_eq!(grant.task, act.task);
            assert!(
                grant.not_before_us <= at && at < grant.expires_us,
                "{grant:?}"
            );
            assert!(grant.uses_spent > 0, "{grant:?}");
            let inside = intent.resource.starts_with("orders/");
            assert!(inside && intent.action == "refund", "{intent:?}");
            if grant.minor_units.is_some() {
                assert!(intent.amount.as_ref().unwrap().minor_units >= 0);
            }
            if !grant.parent.is_empty() {
                assert!(grant.accepted_leaf.is_some(), "{grant:?}");
            }
            if let Some(child) = child {
                assert!(
                    child.not_before_us >= grant.not_before_us
                        && child.expires_us <= grant.expires_us
                        && (grant.uses == 0 || (1..=grant.uses).contains(&child.uses))
                        && grant
                            .minor_units
                            .is_none_or(|most| child.minor_units.is_some_and(|own| own <= most)),
                    "{child:?} under {grant:?}"
                );
            }
            let amount = intent
                .amount
                .as_ref()
                .map_or(0, |amount| amount.minor_units);
            let (uses, spent) = self.spent.entry(hash).or_default();
            *uses += 1;
            *spent += amount;
            depth += 1;
            name = grant.parent.clone();
            child = Some(grant);
        }
        assert!((1..=8).contains(&depth));
    }

    fn intent_at(&self, leaf: u64) -> Option<(TaskId, v1::Intent)> {
        let entry = Entry::parse(&self.ledger.entries()[leaf as usize]).unwrap();
        let statement = v1::Statement::decode(entry.payload).unwrap();
        let task = TaskId::from_slice(&statement.task)?;
        match statement.body {
            Some(Body::Intent(intent)) => Some((task, intent)),
            _ => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_replay_comes_to_what_the_ledger_came_to(
        policy: bool,
        ops in vec(any_op(), 1..120),
    ) {
        let mut plain = Story::new(Ledger::new(), policy);
        let mut forgetting = Story::new(Ledger::forgetting(), policy);
        for op in ops {
            plain.play(op);
            forgetting.play(op);
        }
        let (plain, forgetting) = (plain.ledger, forgetting.ledger);
        prop_assert_eq!(plain.entries(), forgetting.entries());
        prop_assert_eq!(&plain.kept, &forgetting.kept);
        let replay = replayed(&plain);
        let bodies: u64 = replay.bodies().values().sum();
        prop_assert_eq!(bodies, plain.next_leaf());
        // Every entry of the ledger's own is needed: without it the rest is not in place, but for
        // a Tick, and a receipt that somebody asked for.
        let own = plain.entries().iter().enumerate().skip(1).filter_map(|(leaf, entry)| {
            let entry = Entry::parse(entry).unwrap();
            let own = entry.author == v1::Author::Ledger;
            let statement = own.then(|| v1::Statement::decode(entry.payload).unwrap())?;
            match statement.body {
                Some(Body::Clearance(_)) => Some(leaf),
                Some(Body::TaskReceipt(receipt)) if !receipt.requested => Some(leaf),
                _ => None,
            }
        });
        for leaf in own.take(3) {
            let mut entries = plain.entries().to_vec();
            entries.remove(leaf);
            let (found, _) = fails(&entries);
            prop_assert_eq!(found, leaf as u64);
        }
    }
}

/// Everybody of the cast has another role or controller than those whom they are confused with.
#[test]
fn the_cast_is_what_it_is_said_to_be() {
    let mut ledger = Ledger::new();
    let roles: Vec<KeyRole> = CAST.iter().map(|who| who.role).collect();
    assert_eq!(
        roles
            .iter()
            .filter(|role| **role == KeyRole::Approver)
            .count(),
        3
    );
    assert_eq!(COLLEAGUE.controller, AGENT.controller);
    assert_ne!(APPROVER.controller, AGENT.controller);
    let refused = ledger.try_say(AGENT, Some(1), task_closed(), |made| {
        made.producer = statement::AUTHORITY_PRODUCER.into();
    });
    assert!(refused.is_err());
    let unsigned = ledger.try_say(ANYBODY, Some(1), grant_to(AGENT), |made| {
        made.producer = statement::AUTHORITY_PRODUCER.into();
    });
    assert!(unsigned.is_err());
}

/// The histories above say something: everything that matters happens in some of them.
#[test]
fn the_histories_reach_what_matters() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut kinds, mut states, mut bodies) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut depth, mut spent) = (0, 0);
    for n in 0..240 {
        let ops = vec(any_op(), 100..160).new_tree(&mut runner).unwrap();
        let mut story = Story::new(Ledger::new(), n % 2 == 0);
        for op in ops.current() {
            story.play(op);
        }
        let replay = replayed(&story.ledger);
        bodies.extend(replay.bodies().keys().copied());
        states.extend(replay.summary().intents.into_keys());
        // In the end hardly any still waits: its task has closed, and it has lapsed.
        let waits = |place: &Place| place.state() == Some(IntentState::Waiting);
        if story.intents.iter().any(waits) {
            states.insert("waiting".to_owned());
        }
        kinds.extend(replay.findings().map(v1::Finding::kind));
        for (key, bytes) in &replay.kept().cells {
            if matches!(key, CellKey::Grant(_)) {
                let grant = cells::Grant::decode(bytes.clone()).unwrap();
                if grant.uses_spent > 0 {
                    depth = depth.max(grant.depth);
                }
                if grant.uses > 0 && grant.uses_spent == grant.uses {
                    spent += 1;
                }
            }
        }
    }
    for body in ["clearance", "task_receipt", "tick", "batch_manifest"] {
        assert!(bodies.contains(body), "{body}");
    }
    for state in [
        "waiting",
        "cleared",
        "denied",
        "lapsed",
        "completed",
        "overdue",
    ] {
        assert!(states.contains(state), "{state}");
    }
    let missing: Vec<_> = deed_evidence::assess::finding::KINDS
        .into_iter()
        .filter(|kind| !kinds.contains(kind))
        .collect();
    let seldom = [
        FindingKind::SequenceGap,
        FindingKind::ClockSkew,
        FindingKind::PolicyError,
        // A day passes in none of them.
        FindingKind::Uncorroborated,
        // It takes more than 64 of something.
        FindingKind::NotCompared,
    ];
    assert!(
        missing.iter().all(|kind| seldom.contains(kind)),
        "{missing:?}"
    );
    assert!(depth > 1 && spent > 0, "depth {depth}, {spent} spent");
}
