//! The six layers of an act, in every state that each of them can have; and an act without a fault.

use std::collections::BTreeSet;

use deed_evidence::{
    assess::{digest, layers},
    entry::Entry,
    statement,
};
use deed_proto::v1::{
    self, IntentState, LayerState as L, Layers, OutcomeState, OutcomeStatus, RiskTier, TaskState,
    Verdict, statement::Body,
};
use deed_tlog::leaf_hash;

use super::*;

type Layer = (&'static str, fn(&Layers) -> L);

const IDENTITY: Layer = ("identity", Layers::identity);
const AUTHORITY_: Layer = ("authority", Layers::authority);
const INTENT: Layer = ("intent", Layers::intent);
const APPROVAL: Layer = ("approval", Layers::approval);
const RESULT: Layer = ("result", Layers::result);
const CORROBORATION: Layer = ("corroboration", Layers::corroboration);

/// A story ends with an act.
type Story = fn(&mut Stage) -> Place;

/// An act of the low tier that is cleared at once.
fn low(s: &mut Stage) -> Place {
    s.ledger.set_default_policy();
    s.open(RiskTier::Low);
    s.intend(None, |_| {})
}

/// What nobody signed.
fn unsigned(s: &mut Stage) -> Place {
    s.open(RiskTier::Low);
    let body = Body::Intent(intent("orders/7", 500, None));
    s.ledger.say(ANYBODY, Some(1), body)
}

fn payment_done(s: &mut Stage) -> Place {
    let intent = s.cleared(0);
    s.done(&intent);
    intent
}

const IDENTITIES: [(Layer, L, Story); 9] = [
    (IDENTITY, L::Proven, low),
    (IDENTITY, L::Claimed, unsigned),
    (IDENTITY, L::Contradicted, |s| {
        let intent = low(s);
        s.ledger.say(AUTHORITY, None, key_revoked(AGENT, Some(100)));
        intent
    }),
    (AUTHORITY_, L::Proven, |s| s.cleared(0)),
    // A grant that nobody signed, and a decision that nobody gave.
    (AUTHORITY_, L::Claimed, |s| {
        s.open(RiskTier::Low);
        let root = s.ledger.say(ANYBODY, Some(1), grant_to(AGENT));
        s.intend(Some(&root), |_| {})
    }),
    (AUTHORITY_, L::Missing, low),
    (AUTHORITY_, L::Missing, |s| s.waits(0)),
    (AUTHORITY_, L::Contradicted, |s| {
        let intent = s.waits(0);
        s.decide(&intent, Verdict::Deny);
        intent
    }),
    (AUTHORITY_, L::Contradicted, |s| {
        s.open(RiskTier::Low);
        let root = s.root(|_| {});
        s.intend(Some(&root), |said| said.action = "delete".into())
    }),
];

const INTENTS: [(Layer, L, Story); 12] = [
    (INTENT, L::Proven, low),
    (INTENT, L::Claimed, |s| {
        s.open(RiskTier::Low);
        s.intend(None, |said| said.prompt = None)
    }),
    (INTENT, L::Claimed, unsigned),
    (INTENT, L::Missing, |s| s.waits(0)),
    (INTENT, L::Contradicted, |s| {
        let intent = s.waits(0);
        s.done(&intent);
        intent
    }),
    (APPROVAL, L::Proven, |s| s.cleared(0)),
    // A customer's yes, as an importer or somebody without a key brings it in.
    (APPROVAL, L::Claimed, |s| {
        let intent = s.waits(0);
        s.approve(IMPORTER, &intent, Verdict::Allow);
        assert_eq!(s.state(&intent), IntentState::Waiting);
        intent
    }),
    (APPROVAL, L::Claimed, |s| {
        let intent = s.waits(0);
        s.approve(ANYBODY, &intent, Verdict::Allow);
        assert_eq!(s.state(&intent), IntentState::Waiting);
        intent
    }),
    (APPROVAL, L::Missing, |s| s.waits(0)),
    (APPROVAL, L::Contradicted, |s| {
        let intent = s.waits(0);
        s.approve(APPROVER, &intent, Verdict::Deny);
        intent
    }),
    // A word that cannot prove for somebody cannot prove against them.
    (APPROVAL, L::Claimed, |s| {
        let intent = s.waits(0);
        s.approve(COLLEAGUE, &intent, Verdict::Allow);
        intent
    }),
    (APPROVAL, L::NotAsked, low),
];

const RESULTS: [(Layer, L, Story); 11] = [
    (RESULT, L::Proven, payment_done),
    (RESULT, L::Claimed, |s| {
        let intent = unsigned(s);
        let done = outcome(&intent, OutcomeStatus::Succeeded, Vec::new());
        s.ledger.say(ANYBODY, Some(1), done);
        intent
    }),
    (RESULT, L::Missing, low),
    (RESULT, L::Contradicted, |s| {
        let intent = payment_done(s);
        s.seen(&intent, 501);
        intent
    }),
    (CORROBORATION, L::Proven, |s| {
        let intent = payment_done(s);
        s.seen(&intent, 500);
        intent
    }),
    // Seen by somebody whose word it is.
    (CORROBORATION, L::Claimed, |s| {
        let intent = payment_done(s);
        let seen = observation(Some(&intent), vec![effect("orders/7", 500)]);
        s.ledger.say(IMPORTER, Some(1), seen);
        intent
    }),
    (CORROBORATION, L::Missing, payment_done),
    (CORROBORATION, L::Missing, |s| {
        let intent = payment_done(s);
        s.tick(100 + 86_400);
        intent
    }),
    (CORROBORATION, L::Contradicted, |s| {
        let intent = payment_done(s);
        s.seen(&intent, 501);
        intent
    }),
    (CORROBORATION, L::Contradicted, |s| {
        let intent = s.waits(0);
        s.seen(&intent, 500);
        intent
    }),
    (CORROBORATION, L::NotAsked, low),
];

fn layers_of(stage: &Stage, intent: &Place) -> Layers {
    layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust)
}

#[test]
fn every_layer_in_every_state_that_it_can_have() {
    let stories = [&IDENTITIES[..], &INTENTS, &RESULTS].concat();
    for (at, ((name, layer), wanted, story)) in stories.iter().enumerate() {
        let mut stage = Stage::new();
        let intent = story(&mut stage);
        assert_eq!(
            layer(&layers_of(&stage, &intent)),
            *wanted,
            "{name}, story {at}"
        );
        stage.replays();
    }
    let told: BTreeSet<_> = stories
        .iter()
        .map(|((name, _), state, _)| (*name, *state as i32))
        .collect();
    // An act has an agent, and it either has an authority or not: a policy cannot ask for nothing
    // there. Who acts is never missing, and what came of an act is always asked for.
    let never = [
        ("identity", L::Missing),
        ("identity", L::NotAsked),
        ("authority", L::NotAsked),
        ("intent", L::NotAsked),
        ("result", L::NotAsked),
    ];
    let names = [
        IDENTITY,
        AUTHORITY_,
        INTENT,
        APPROVAL,
        RESULT,
        CORROBORATION,
    ];
    let states = [
        L::Proven,
        L::Claimed,
        L::Missing,
        L::Contradicted,
        L::NotAsked,
    ];
    for (name, _) in names {
        for state in states {
            let wanted = !never.contains(&(name, state));
            assert_eq!(
                told.contains(&(name, state as i32)),
                wanted,
                "{name} {state:?}"
            );
        }
    }
}

#[test]
fn an_act_without_a_fault() {
    let mut stage = Stage::new();
    let intent = stage.waits(1_000);
    stage.ledger.at(200);
    stage.clear(&intent);
    stage.done(&intent);
    stage.seen(&intent, 500);
    let requested = stage.ledger.request_receipt(1).unwrap();
    let moves = moves_of(&stage, &intent);
    assert_eq!(stage.digest(1), fold(digest::START, moves));
    let end = stage.close();
    let all_proven = layers_of(&stage, &intent);
    for (name, layer) in [
        IDENTITY,
        AUTHORITY_,
        INTENT,
        APPROVAL,
        RESULT,
        CORROBORATION,
    ] {
        assert_eq!(layer(&all_proven), L::Proven, "{name}");
    }
    assert_eq!(stage.ledger.findings().count(), 0);
    let task = stage.ledger.task(1);
    assert_eq!(task.state(), TaskState::Closed);
    assert_eq!(
        (task.closed_leaf, task.receipt_leaf),
        (Some(end.leaf), Some(end.leaf + 1))
    );
    assert_eq!((task.acts, task.findings), (1, 0));
    stage.replays();

    // Opened, grant, Intent, decision, approval, clearance, outcome, observation; then a receipt,
    // which counts itself for the next one, and the end.
    check_receipt(&stage, requested, 8);
    check_receipt(&stage, end.leaf + 1, 10);
    assert_eq!(task.count, 11);
}

/// What the digest of its task takes of an act without a fault.
fn moves_of(stage: &Stage, intent: &Place) -> Vec<digest::Event> {
    let act = stage.ledger.act(intent.leaf);
    let outcome = act.outcome.unwrap().leaf;
    let intent = act.leaf;
    let moved = |leaf, state| digest::Event::Intent {
        leaf,
        intent,
        state,
    };
    let told = |leaf, state| digest::Event::Outcome {
        leaf,
        intent,
        state,
    };
    vec![
        digest::Event::Task {
            leaf: stage.ledger.task(1).opened_leaf.unwrap(),
            state: TaskState::Open,
        },
        moved(intent, IntentState::Waiting),
        moved(act.clearance_leaf.unwrap(), IntentState::Cleared),
        moved(outcome, IntentState::Completed),
        told(outcome, OutcomeState::Unobserved),
        told(act.observations[0].leaf, OutcomeState::Corroborated),
    ]
}

/// A receipt at a leaf counts what stands before it in its task, and hashes it.
fn check_receipt(stage: &Stage, leaf: u64, count: u64) {
    let statement_at = |entry: &Bytes| {
        let entry = Entry::parse(entry).unwrap();
        let payload = Bytes::copy_from_slice(entry.payload);
        statement::decode(&payload).unwrap()
    };
    let at = usize::try_from(leaf).unwrap();
    let Some(Body::TaskReceipt(receipt)) = statement_at(&stage.ledger.entries()[at]).body else {
        panic!("no receipt at leaf {leaf}")
    };
    let mut wanted = v1::TaskReceipt {
        digest: digest::START.as_bytes().to_vec().into(),
        ..receipt.clone()
    };
    (wanted.count, wanted.through_leaf) = (0, 0);
    for (leaf, entry) in (0..).zip(&stage.ledger.entries()[..at]) {
        if statement_at(entry).task[..] == stage.ledger.task_id(1).as_bytes()[..] {
            let before = Hash::try_from(&wanted.digest[..]).unwrap();
            let after = digest::entries(&before, &leaf_hash(entry));
            wanted.digest = after.as_bytes().to_vec().into();
            (wanted.count, wanted.through_leaf) = (wanted.count + 1, leaf);
        }
    }
    assert_eq!(receipt, wanted);
    assert_eq!(receipt.count, count);
    assert_eq!(receipt.requested, count == 8);
    let head = stage.ledger.trust.head();
    let trust = receipt.trust_head.unwrap();
    assert_eq!(trust.leaf_index, head.leaf_index.get());
    assert_eq!(&trust.leaf_hash[..], head.leaf_hash.as_bytes());
}
