//! Many at once.

use deed_evidence::{Nonce, TaskId, assess::FIRE_MAX, entry::Entry, statement};
use deed_proto::v1::{
    self, FindingKind as F, IntentState, OutcomeStatus, RiskTier, TaskState, Verdict,
    statement::Body,
};

use super::*;

const MANY: usize = 10_000;

#[test]
fn a_task_with_ten_thousand_intents() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|grant| {
        (grant.uses, grant.amount) = (9_999, Some(amount(10_000_000)));
    });
    let mut first = None;
    for n in 0..MANY / 250 {
        let body = |n: usize| {
            let said = intent(&format!("orders/{n}"), 1_000, Some(root.hash));
            (Some(1), Body::Intent(said))
        };
        let bodies = (n * 250..(n + 1) * 250).map(body).collect();
        let mut places = stage.ledger.say_batch(AGENT, bodies);
        let states = places
            .iter()
            .filter(|one| one.state() == Some(IntentState::Cleared));
        // All but the very last one.
        let last = n == MANY / 250 - 1;
        assert_eq!(states.count(), if last { 249 } else { 250 });
        if last {
            let denied = places.pop().unwrap();
            assert_eq!(denied.kinds(), [F::LimitExceeded]);
        }
        first.get_or_insert_with(|| places.remove(0));
    }
    let task = stage.ledger.task(1);
    assert_eq!((task.acts, task.count, task.findings), (10_000, 10_002, 1));
    assert_eq!(stage.ledger.grant(root.hash).uses_spent, 9_999);
    assert_eq!(stage.ledger.grant(root.hash).amount_spent, 9_999_000);
    // The first one is found among them, and the size of what is kept of the task does not grow.
    let first = first.unwrap();
    stage.done(&first);
    assert_eq!(stage.state(&first), IntentState::Completed);
    let cell = &stage.ledger.kept.cells[&CellKey::Task(stage.ledger.task_id(1))];
    assert!(cell.len() < 400, "{} bytes", cell.len());
    stage.close();
    let after = stage.ledger.task(1);
    assert_eq!(after.state(), TaskState::Closed);
    stage.replays();
}

fn task_named(n: usize) -> [u8; 16] {
    let mut name = [0xdd; 16];
    name[..8].copy_from_slice(&(n as u64).to_be_bytes());
    name
}

/// All their deadlines have passed when the ledger looks next: each Tick brings one portion of them.
#[test]
fn ten_thousand_deadlines_in_portions() {
    let mut stage = Stage::new();
    let mut wanted = Vec::new();
    for n in 0..MANY {
        let name = task_named(n);
        // Some at the same time, and the later leaf not always the later deadline.
        let deadline = 1_000 + i64::try_from(n * 7_919 % 97).unwrap();
        let body = task_opened(RiskTier::Low, deadline);
        let id = TaskId::derive(ledger_id(), PLATFORM.producer, &Nonce::new(name));
        let named = |made: &mut v1::Statement| {
            made.task = id.as_bytes().to_vec().into();
            if let Some(Body::TaskOpened(opened)) = &mut made.body {
                opened.nonce = name.to_vec().into();
            }
        };
        let opened = stage
            .ledger
            .try_say(PLATFORM, Some(0), body, named)
            .unwrap();
        wanted.push((deadline, opened.leaf, *id.as_bytes()));
    }
    assert_eq!(stage.ledger.kept.timers.len(), MANY);
    wanted.sort_unstable();
    stage.ledger.at(2_000);
    let tick = usize::try_from(stage.ledger.next_leaf()).unwrap();
    while stage.ledger.tick() {}
    let written: Vec<_> = stage.ledger.entries()[tick..]
        .iter()
        .map(|entry| {
            let payload = Bytes::copy_from_slice(Entry::parse(entry).unwrap().payload);
            statement::decode(&payload).unwrap()
        })
        .collect();
    assert!(
        matches!(written[0].body, Some(Body::Tick(_))),
        "a Tick comes first"
    );
    let (ticks, receipts): (Vec<_>, Vec<_>) = written
        .iter()
        .partition(|one| matches!(one.body, Some(Body::Tick(_))));
    let portions = wanted.chunks(FIRE_MAX);
    let due: Vec<_> = portions.map(|portion| seconds(portion[0].0)).collect();
    let told: Vec<_> = ticks
        .iter()
        .map(|one| match &one.body {
            Some(Body::Tick(tick)) => tick.due_us,
            _ => 0,
        })
        .collect();
    assert_eq!(told, due);
    assert_eq!(receipts.len(), MANY);
    for (receipt, (_, opened, name)) in receipts.iter().zip(&wanted) {
        assert_eq!(receipt.task, name[..]);
        let Some(Body::TaskReceipt(said)) = &receipt.body else {
            panic!("there are only receipts")
        };
        assert_eq!((said.count, said.through_leaf), (1, *opened));
    }
    assert_eq!(stage.ledger.kept.timers.len(), 0);
    assert!(!stage.ledger.tick(), "they end once");
    stage.replays();
}

/// Deadlines of different things at one moment: in order of (deadline, leaf).
#[test]
fn what_is_due_at_one_moment_is_in_order_of_its_leaves() {
    let mut stage = Stage::new();
    stage.ledger.set_default_policy();
    let promise = stage.ledger.say(HELPER, None, heartbeat(0, 400));
    let opened = task_opened(RiskTier::Payment, 501);
    stage.ledger.say(PLATFORM, Some(1), opened);
    let root = stage.root(|_| {});
    let ends = |s: &mut Stage, at| {
        let root = Place { ..root.clone() };
        s.intend(Some(&root), |said| said.deadline_us = seconds(at))
    };
    // At 500 the one that waits lapses, and the one that is cleared is overdue; the one that ends
    // with its task at 501 does not lapse by itself.
    let waits = ends(&mut stage, 500);
    let clears = ends(&mut stage, 500);
    let ended = ends(&mut stage, 501);
    stage.clear(&clears);
    stage.ledger.at(501);
    let leaf = stage.ledger.next_leaf();
    assert!(stage.ledger.tick());
    let found: Vec<_> = stage
        .found()
        .iter()
        .map(|one| (one.leaf_index, one.number, one.kind(), one.about_leaf))
        .collect();
    let wanted = [
        (leaf, 0, F::SessionSilent, promise.leaf),
        (leaf, 1, F::IntentLapsed, waits.leaf),
        (leaf, 2, F::IntentOverdue, clears.leaf),
    ];
    assert_eq!(found, wanted);
    assert_eq!(stage.ledger.next_leaf(), leaf + 2, "a Tick and a receipt");
    assert_eq!(stage.ledger.act(ended.leaf).outcome, None);
    stage.replays();
}

/// More approvers than a cell takes, and more observers.
#[test]
fn lists_are_bounded() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    for n in 0..80_u8 {
        let name: &'static str = Box::leak(format!("https://example.org/people/{n}").into());
        let who = Who {
            seed: Some(30 + n),
            producer: name,
            controller: name,
            ..APPROVER
        };
        stage.ledger.register(who);
        stage.approve(who, &intent, Verdict::Allow);
    }
    assert_eq!(stage.ledger.act(intent.leaf).evidence.len(), 64);
    assert_eq!(stage.state(&intent), IntentState::Waiting);
    let task = stage.ledger.task(1);
    assert_eq!(task.keys.len(), 64);
    stage.outcome(&intent, OutcomeStatus::NotDone);
    stage.replays();
}
