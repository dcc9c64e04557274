//! One task judged from its own entries, and the lies that are told of it.

mod given;

use given::{by_ledger, clearance, signed};

use crate::{ledger::*, replay::batch_of};
use bytes::Bytes;
use deed_evidence::{
    Micros, TaskId,
    assess::layers,
    batch::{Manifest, VerifiedPath},
    entry::{Entry, KeyedSignature},
    replay::{
        Fault, Replay, ReplayError,
        task::{Covered, Signed, TaskReplay, TaskVerdict, Unshown},
    },
    signature, statement,
    trust::SpeakerRefusal,
};
use deed_proto::v1::{
    self, Author, FindingKind, IntentState, LayerState, OutcomeStatus, PayloadType, RiskTier,
    TaskState, Verdict, statement::Body,
};
use deed_tlog::{BatchPosition, LeafIndex, leaf_hash};
use std::collections::{BTreeMap, BTreeSet};
/// The material that a reader is given: entries by leaf, and the manifests over them.
#[derive(Clone)]
pub(crate) struct Given {
    task: TaskId,
    pub(crate) entries: BTreeMap<u64, Bytes>,
    pub(crate) manifests: BTreeMap<u64, Bytes>,
    /// Manifests of batches that are not known to count.
    doubtful: BTreeSet<u64>,
    size: u64,
}
struct Story {
    ledger: Ledger,
    intent: Place,
}
#[test]
fn a_task_comes_to_the_same_as_in_the_whole_ledger() {
    let mut story = Story::cleared();
    story.is_the_same(&Given::of(&story.ledger).judge().unwrap());
    story.done();
    let verdict = Given::of(&story.ledger).judge().unwrap();
    story.is_the_same(&verdict);
    let layers = verdict.acts[0].layers.unwrap();
    assert_eq!(layers.approval(), LayerState::Proven);
    assert_eq!(layers.corroboration(), LayerState::Proven);
    assert!(
        verdict
            .unshown
            .contains(&Unshown::Entries { receipted: None })
    );
    story.close();
    let verdict = Given::of(&story.ledger).judge().unwrap();
    story.is_the_same(&verdict);
    // The receipt at the end says that this is all.
    assert_eq!(verdict.receipts.len(), 1);
    assert!(verdict.receipts[0].same_assessment);
    let is_open = |one: &Unshown| matches!(one, Unshown::Entries { .. });
    assert!(
        !verdict.unshown.iter().any(is_open),
        "{:?}",
        verdict.unshown
    );
    // Behind it there may be more.
    let mut given = Given::of(&story.ledger);
    given.size += 1;
    let verdict = given.judge().unwrap();
    assert!(verdict.unshown.iter().any(is_open));
}
#[test]
fn what_nobody_signed_elsewhere_contradicts_nothing() {
    let story = Story::waiting();
    let (ledger, now) = (&story.ledger, story.ledger.now());
    let body = Body::Intent(intent("orders/8", 5, None));
    let other = ledger.statement(AGENT, Some(2), body.clone());
    let other = statement::encode(&other).unwrap();
    let unsigned = Entry::unsigned(&other, now).encode();
    let own = signed(ledger, AGENT, body, now);
    let verdict = Given::of(ledger).then(unsigned).then(own).judge().unwrap();
    assert_eq!(verdict.acts.len(), 2);
    let mut findings = verdict.findings.iter();
    assert!(findings.all(|one| one.kind() != FindingKind::Equivocation));
}
#[test]
fn a_clearance_is_derived_and_not_believed() {
    // Nothing is there for it.
    let mut story = Story::waiting();
    let second = Body::Intent(intent("orders/8", 5, None));
    let second = story.ledger.say(AGENT, Some(1), second);
    let decided = story.decide();
    let uncalled = |fault: Fault| match fault {
        Fault::Uncalled { body } => body,
        other => panic!("{other}"),
    };
    let given = Given::of(&story.ledger);
    assert_eq!(story.state(&given), IntentState::Waiting);
    let entry = by_ledger(&story.ledger, clearance(&story.intent, &[&decided]));
    assert_eq!(uncalled(given.then(entry).refused()), "clearance");
    // The approver is the agent's own.
    let own = story.approve(COLLEAGUE, Verdict::Allow);
    let given = Given::of(&story.ledger);
    assert_eq!(story.state(&given), IntentState::Waiting);
    let entry = by_ledger(&story.ledger, clearance(&story.intent, &[&decided, &own]));
    assert_eq!(uncalled(given.then(entry).refused()), "clearance");
    // It is another Intent's, or names other evidence.
    let approved = story.approve(APPROVER, Verdict::Allow);
    let given = Given::of(&story.ledger);
    let leaf = approved.leaf + 1;
    let honest = given.entries[&leaf].clone();
    for wrong in [
        clearance(&second, &[&decided, &approved]),
        clearance(&story.intent, &[&decided]),
        clearance(&story.intent, &[&decided, &own]),
    ] {
        let mut given = given.clone();
        given.entries.insert(leaf, by_ledger(&story.ledger, wrong));
        let fault = given.refused();
        assert!(matches!(fault, Fault::False { .. }), "{fault}");
    }
    // Nobody, or somebody else, wrote it.
    let payload = Entry::parse(&honest).unwrap().payload.to_vec();
    let mut unsigned = given.clone();
    let entry = Entry::unsigned(&payload, story.ledger.now()).encode();
    unsigned.entries.insert(leaf, entry);
    let fault = unsigned.refused();
    assert!(matches!(fault, Fault::Statement(_)), "{fault}");
    // The approval that it rests on is left out.
    let fault = given.without(approved.leaf).refused();
    assert_eq!(uncalled(fault), "clearance");
}
#[test]
fn a_clearance_that_is_left_out_is_missed() {
    let mut story = Story::cleared();
    let cleared = story.ledger.act(story.intent.leaf).clearance_leaf.unwrap();
    let given = Given::of(&story.ledger).without(cleared);
    // In the newest unit it may not be in the tree yet.
    assert_eq!(given.size, cleared + 1);
    story.done();
    let fault = Given::of(&story.ledger).without(cleared).refused();
    assert!(
        matches!(fault, Fault::LeftOut { body: "clearance" }),
        "{fault}"
    );
}
#[test]
fn a_revoked_key_proves_nothing() {
    let mut story = Story::waiting();
    story.decide();
    let revoked = key_revoked(APPROVER, None);
    story.ledger.say(AUTHORITY, None, revoked);
    let now = story.ledger.now();
    let said = approval(&story.intent, Verdict::Allow, now);
    let entry = signed(&story.ledger, APPROVER, said, now);
    let fault = Given::of(&story.ledger).then(entry).refused();
    let Fault::Speaker(SpeakerRefusal::Key(refusal)) = &fault else {
        panic!("{fault}");
    };
    assert!(refusal.to_string().contains("revoked"), "{refusal}");
    // Nor does one that nobody registered, or another's.
    let stranger = Who {
        seed: Some(77),
        ..APPROVER
    };
    let said = approval(&story.intent, Verdict::Allow, now);
    let entry = signed(&story.ledger, stranger, said.clone(), now);
    let fault = Given::of(&story.ledger).then(entry).refused();
    assert!(matches!(fault, Fault::KeyUnknown { .. }), "{fault}");
    let other = Who {
        producer: SECOND.producer,
        ..ENGINE
    };
    let entry = signed(&story.ledger, other, said.clone(), now);
    let fault = Given::of(&story.ledger).then(entry).refused();
    assert!(matches!(fault, Fault::Speaker(_)), "{fault}");
    // 64 bytes of something.
    let entry = signed(&story.ledger, SECOND, said, now);
    let parsed = Entry::parse(&entry).unwrap();
    let nonsense = KeyedSignature {
        signature: &[0xbb; 64],
        ..parsed.signature.unwrap()
    };
    let entry = Entry::signed(parsed.payload, nonsense, now).encode();
    let fault = Given::of(&story.ledger).then(entry).refused();
    assert!(matches!(fault, Fault::Signature(_)), "{fault}");
}
#[test]
fn a_refusal_that_is_left_out_is_missed_by_receipts_alone() {
    let mut story = Story::cleared();
    let refused = story.approve(SECOND, Verdict::Deny);
    let kinds = |verdict: &TaskVerdict| -> Vec<_> {
        verdict.findings.iter().map(v1::Finding::kind).collect()
    };
    let whole = Given::of(&story.ledger).judge().unwrap();
    assert_eq!(kinds(&whole), [FindingKind::DecisionDenied]);
    let given = Given::of(&story.ledger).without(refused.leaf);
    let verdict = given.judge().unwrap();
    assert_eq!(kinds(&verdict), []);
    // So nobody may say that there are none.
    assert!(
        verdict
            .unshown
            .contains(&Unshown::Entries { receipted: None })
    );
    story.ledger.request_receipt(1).unwrap();
    let fault = Given::of(&story.ledger).without(refused.leaf).refused();
    assert!(
        matches!(
            fault,
            Fault::False {
                body: "task_receipt"
            }
        ),
        "{fault}"
    );
    let verdict = Given::of(&story.ledger).judge().unwrap();
    assert_eq!(verdict.receipted(), Some(refused.leaf));
    story.is_the_same(&verdict);
}
#[test]
fn a_false_receipt_is_none() {
    let mut story = Story::cleared();
    story.close();
    let given = Given::of(&story.ledger);
    let leaf = story.ledger.task(1).receipt_leaf.unwrap();
    let entry = given.entries[&leaf].clone();
    let decoded = statement::decode(&Bytes::copy_from_slice(
        Entry::parse(&entry).unwrap().payload,
    ));
    let Some(Body::TaskReceipt(receipt)) = decoded.unwrap().body else {
        panic!("no receipt");
    };
    for (count, digest) in [
        (receipt.count + 1, receipt.digest.clone()),
        (receipt.count, vec![9; 32].into()),
    ] {
        let wrong = Body::TaskReceipt(v1::TaskReceipt {
            count,
            digest,
            ..receipt.clone()
        });
        let mut given = given.clone();
        given.entries.insert(leaf, by_ledger(&story.ledger, wrong));
        let fault = given.refused();
        assert!(matches!(fault, Fault::False { .. }), "{fault}");
    }
    // The digest over the assessment depends on entries elsewhere.
    let other = Body::TaskReceipt(v1::TaskReceipt {
        assessment_digest: vec![9; 32].into(),
        ..receipt
    });
    let mut given = given.clone();
    given.entries.insert(leaf, by_ledger(&story.ledger, other));
    let verdict = given.judge().unwrap();
    assert!(verdict.unshown.contains(&Unshown::Assessment { leaf }));
    // One that nothing calls for.
    let fault = Given::of(&story.ledger).then(entry).refused();
    assert!(matches!(fault, Fault::Uncalled { .. }), "{fault}");
}
#[test]
fn batched_entries_need_their_manifest() {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let said = |resource: &str| Body::Intent(intent(resource, 5, None));
    let batch = vec![
        (Some(1), said("orders/1")),
        (Some(2), said("orders/2")),
        (Some(1), said("orders/3")),
    ];
    let places = ledger.say_batch(AGENT, batch);
    let given = Given::of(&ledger);
    let verdict = given.judge().unwrap();
    assert_eq!(verdict.acts.len(), 2);
    let manifest = places[0].leaf - 1;
    let key = AGENT.key().unwrap();
    assert_eq!(
        verdict.signed[&places[2].leaf],
        Signed::Batch { key, manifest }
    );
    let layers = verdict.acts[0].layers.unwrap();
    assert_eq!(layers.identity(), LayerState::Proven);
    let mut without = given;
    without.manifests.clear();
    assert!(matches!(without.refused(), Fault::NoManifest));
}
#[test]
fn time_passes_by_entries_elsewhere() {
    let mut ledger = Ledger::new();
    ledger.set_default_policy();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
    let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
    ledger.at(200);
    let mut said = intent("orders/7", 500, Some(grant.hash));
    said.deadline_us = seconds(400);
    let waits = ledger.say(AGENT, Some(1), Body::Intent(said));
    assert_eq!(waits.state(), Some(IntentState::Waiting));
    ledger.at(600);
    let elsewhere = ledger.say(PLATFORM, Some(4), task_opened(RiskTier::Low, 0));
    let act = ledger.act(waits.leaf);
    assert_eq!(act.state(), IntentState::Lapsed);
    let state = |given: &Given| {
        let verdict = given.judge().unwrap();
        let waits = verdict.unshown.iter();
        let mut waits = waits.filter(|one| matches!(one, Unshown::Time { .. }));
        let act = &verdict.acts[0];
        (act.state(), waits.next().is_some(), verdict.findings.len())
    };
    let given = Given::of(&ledger);
    assert_eq!(state(&given), (IntentState::Waiting, true, 0));
    let given = given.with(&ledger, elsewhere.leaf);
    assert_eq!(state(&given), (IntentState::Lapsed, false, 1));
}
/// The time of a task's entries is known from below: what a grant's end decides may be decided
/// otherwise by the ledger, where another entry was received later and stands before.
#[test]
fn what_is_close_to_a_grants_end_is_said_to_be() {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let ends_at = |seconds_after: i64| {
        let mut ends = grant(AGENT);
        ends.expires_us = seconds(seconds_after);
        Body::Grant(ends)
    };
    let ends = ledger.say(AUTHORITY, Some(1), ends_at(700));
    let mut act = |under: &Place| {
        let said = intent("orders/7", 5, Some(under.hash));
        ledger.say(AGENT, Some(1), Body::Intent(said)).leaf
    };
    let far = act(&ends);
    ledger.at(400);
    let said = intent("orders/7", 5, Some(ends.hash));
    let near = ledger.say(AGENT, Some(1), Body::Intent(said)).leaf;
    let verdict = Given::of(&ledger).judge().unwrap();
    assert_eq!(verdict.act(near).unwrap().state(), IntentState::Cleared);
    assert_eq!(verdict.close.keys().collect::<Vec<_>>(), [&near]);
    assert!(verdict.close[&near].ends && !verdict.close[&near].begins);
    assert_ne!(far, near);
}
#[test]
fn a_trust_statement_that_names_the_task_counts_among_its_entries() {
    let mut story = Story::cleared();
    story
        .ledger
        .say(AUTHORITY, Some(1), key_revoked(SECOND, None));
    story.done();
    assert!(story.ledger.request_receipt(1).is_some());
    story.close();
    let verdict = Given::of(&story.ledger).judge().unwrap();
    story.is_the_same(&verdict);
    assert_eq!(verdict.receipts.len(), 2);
}
/// At a leaf of the task, another one's deadline comes first: its finding has number 0 there.
#[test]
fn which_finding_a_disposition_is_of_is_not_shown() {
    let mut ledger = Ledger::new();
    ledger.set_default_policy();
    ledger.at(100);
    for task in [1, 2] {
        ledger.say(PLATFORM, Some(task), task_opened(RiskTier::Payment, 0));
    }
    let grant = ledger.say(AUTHORITY, Some(2), grant_to(AGENT));
    let mut lapses = intent("orders/7", 500, Some(grant.hash));
    lapses.deadline_us = seconds(400);
    ledger.say(AGENT, Some(2), Body::Intent(lapses));
    ledger.at(600);
    // Without a grant that is there.
    let mut denied = intent("orders/8", 5, None);
    denied.grant = vec![7; 32].into();
    let denied = ledger.say(AGENT, Some(1), Body::Intent(denied));
    let numbers: Vec<_> = ledger
        .findings()
        .map(|one| (one.number, one.kind()))
        .collect();
    let wanted = [
        (0, FindingKind::IntentLapsed),
        (1, FindingKind::UnknownGrant),
    ];
    assert_eq!(numbers, wanted);
    let disposed = Body::FindingDisposition(v1::FindingDisposition {
        leaf_index: denied.leaf,
        number: 0,
        kind: v1::DispositionKind::Explained.into(),
        reviewed_by: "https://example.org/people/eve".into(),
        reason: "seen".into(),
    });
    for task in [None, Some(1)] {
        let at = ledger.say(AUTHORITY, task, disposed.clone()).leaf;
        let verdict = Given::of(&ledger).with(&ledger, at).judge().unwrap();
        let [found] = &verdict.findings[..] else {
            panic!("{:?}", verdict.findings)
        };
        assert_eq!(found.kind(), FindingKind::UnknownGrant);
        assert_eq!(found.disposition_leaf, None);
        assert!(verdict.unshown.contains(&Unshown::Disposition { leaf: at }));
    }
}
/// The agent signs a batch whose first statement, of another task, is the second one for its place: all
/// of the batch is evidence of that, and an Intent in it is none.
#[test]
fn a_batch_whose_place_was_taken_says_nothing() {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    ledger.say(PLATFORM, Some(2), task_opened(RiskTier::Low, 0));
    let said = |resource: &str| {
        let mut said = intent(resource, 5, None);
        said.amount = None;
        Body::Intent(said)
    };
    ledger.say(AGENT, Some(2), said("orders/0"));
    let taken = ledger.say(AGENT, Some(2), said("orders/1"));
    let second = |task: u8, resource: &str, further: u64| {
        let mut made = ledger.statement(AGENT, Some(task), said(resource));
        made.sequence = taken.sequence.get() + further;
        statement::encode(&made).unwrap()
    };
    let batch = [second(2, "orders/2", 0), second(1, "orders/3", 1)];
    let manifest = ledger.next_leaf();
    let mut entries = ledger.entries().to_vec();
    entries.extend(batch_of(&batch, ledger.now()));
    let whole = Replay::over(&entries).unwrap();
    assert_eq!(whole.findings().count(), 1);
    let given = Given::over(&entries, PLATFORM.task_id(1));
    let acts = |given: &Given| {
        let verdict = given.judge().unwrap();
        let unshown = verdict.unshown.contains(&Unshown::Batch { manifest });
        (verdict.acts.len(), unshown)
    };
    let with = |leaves: &[u64]| {
        let mut given = given.clone();
        for leaf in leaves {
            let entry = entries[usize::try_from(*leaf).unwrap()].clone();
            given.entries.insert(*leaf, entry);
        }
        given
    };
    // Nobody can tell without what was at the place before.
    assert_eq!(acts(&given), (1, true));
    assert_eq!(acts(&with(&[taken.leaf])), (0, false));
    assert_eq!(acts(&with(&[taken.leaf, manifest + 1])), (0, false));
    // The first statement alone does not do if it is not shown to be at its place.
    let mut in_doubt = with(&[manifest + 1]);
    assert_eq!(acts(&in_doubt), (1, false));
    in_doubt.doubtful.insert(manifest);
    assert_eq!(acts(&in_doubt), (1, true));
}
#[test]
fn observations_elsewhere_reach_into_the_task() {
    let mut story = Story::cleared();
    let effects = vec![effect("orders/7", 500)];
    let said = outcome(&story.intent, OutcomeStatus::Succeeded, effects.clone());
    story.ledger.say(AGENT, Some(1), said);
    let seen = observation(Some(&story.intent), effects);
    let seen = story.ledger.say(DOWNSTREAM, None, seen);
    let given = Given::of(&story.ledger);
    let layers = given.judge().unwrap().acts[0].layers.unwrap();
    assert_eq!(layers.corroboration(), LayerState::Missing);
    let given = given.with(&story.ledger, seen.leaf);
    story.is_the_same(&given.judge().unwrap());
    let layers = given.judge().unwrap().acts[0].layers.unwrap();
    assert_eq!(layers.corroboration(), LayerState::Proven);
}
/// The newest leaf shows how late it is. It may be of another task's act, which is not known here.
#[test]
fn an_entry_that_shows_the_time_says_nothing() {
    let named = |id: &str| {
        let external_id = id.into();
        vec![v1::Effect {
            external_id,
            ..effect("orders/7", 500)
        }]
    };
    let mut ledger = Ledger::new();
    ledger.at(100);
    let mut acts = Vec::new();
    for (task, who, id) in [(1, AGENT, "R-8"), (2, HELPER, "R-9")] {
        ledger.say(PLATFORM, Some(task), task_opened(RiskTier::Low, 0));
        let said = Body::Intent(intent("orders/7", 500, None));
        let act = ledger.try_say(who, Some(task), said, with_order).unwrap();
        let done = outcome(&act, OutcomeStatus::Succeeded, named(id));
        ledger.say(who, Some(task), done);
        acts.push(act);
    }
    let seen = observation(Some(&acts[0]), named("R-8"));
    ledger.say(DOWNSTREAM, Some(1), seen);
    ledger.at(200);
    let newest = observation(None, named("R-9"));
    let newest = ledger.try_say(DOWNSTREAM, None, newest, with_order);
    let newest = newest.unwrap().leaf;
    assert_eq!(ledger.findings().count(), 0);

    let given = Given::of(&ledger);
    let mut replay = given.replay().unwrap();
    let entry = ledger.entries().last().unwrap();
    replay.passes(newest, entry).unwrap();
    assert!(replay.passes(newest, entry).is_err(), "leaves rise");
    let verdict = replay.end(ledger.next_leaf()).unwrap();
    assert_eq!(verdict.known_time, ledger.now());
    assert_eq!(verdict.findings, []);
    let layers = verdict.acts[0].layers.unwrap();
    assert_eq!(layers.corroboration(), LayerState::Proven);
    // Taken at its word it would be held against the act that is known.
    let taken = given.with(&ledger, newest).judge().unwrap();
    assert_ne!(taken.findings, []);
}
#[test]
fn what_would_be_said_of_an_intent_is_said_without_its_story() {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let mut replay = Given::of(&ledger).replay().unwrap();
    let mut said = intent("orders/7", 5, None);
    said.amount = None;
    let body = Body::Intent(said);
    let entry = signed(&ledger, AGENT, body.clone(), ledger.now());
    for _ in 0..2 {
        let would = replay.would(ledger.next_leaf(), &entry, None).unwrap();
        assert_eq!(would.intent.unwrap().state, IntentState::Cleared);
    }
    ledger.say(PLATFORM, Some(1), task_closed());
    let mut replay = Given::of(&ledger).replay().unwrap();
    let entry = signed(&ledger, AGENT, body.clone(), ledger.now());
    let would = replay.would(ledger.next_leaf(), &entry, None).unwrap();
    assert_eq!(would.intent.unwrap().state, IntentState::Denied);
    ledger.say(AUTHORITY, None, key_revoked(AGENT, None));
    let mut replay = Given::of(&ledger).replay().unwrap();
    assert!(replay.would(ledger.next_leaf(), &entry, None).is_err());
    assert!(replay.speaks(ledger.next_leaf(), &entry, None).is_err());
    let info = Given::of(&ledger).judge().unwrap().info;
    assert_eq!(info.state(), TaskState::Closed);
}
