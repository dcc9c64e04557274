//! Tests that no ledger waits for the statements of another, and that waiting jobs come to an end.
//!
//! A test holds up a ledger by its trust state: the step cannot go on while the test holds the lock
//! for writing, as it could not during a slow statement.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use deed_evidence::Micros;
use deed_proto::v1;
use deed_tlog::SigningKey;

use super::{Disk, NoAnswer, Pending, Stuck};
use crate::{
    admission::{Admission, AdmittedBatch, Sender},
    ledger::{Ledger, step::Placement},
    offline::fsck,
    pressure::SourceKey,
    testing::{
        AGENT, Authority, Engine, Producer, batched, block_on, briefs, registration, signed,
    },
};

/// A generous bound on anything that a thread must do; no test measures it.
const LONG: Duration = Duration::from_secs(60);

fn admit(ledger: &Ledger, envelopes: &[v1::Envelope]) -> AdmittedBatch {
    let admission = Admission {
        ledger_id: ledger.id,
        trust: &ledger.trust,
        sender: &Sender::anybody(),
        received_at: Micros::new(1_000_000),
        holds_contents: false,
        log_signers: Some(&ledger.log_signers),
    };
    let (batch, rejected) = admission.admit_here(envelopes);
    assert!(rejected.is_empty(), "{rejected:?}");
    batch
}

fn submit(engine: &Engine, ledger: &Arc<Ledger>, source: u64, batch: AdmittedBatch) -> Pending {
    let source = SourceKey::Connection(source);
    let reservation = engine.appends.shards.reserve(ledger, source, 1);
    block_on(reservation).append(Arc::clone(ledger), batch, Instant::now())
}

/// Waits until `turns` turns are in work. (A thread may serve other ledgers in a turn before it
/// comes to one that holds it up. Their jobs are handed over only with that turn.)
fn wait_for_turns(engine: &Engine, turns: usize) {
    while engine.appends.shards.turns_in_work() < turns {
        std::thread::yield_now();
    }
}

/// Waits until no turn is in work, even of those whose answers have come: the next job is then
/// served first.
fn wait_for_no_turn(engine: &Engine) {
    while engine.appends.shards.turns_in_work() > 0 {
        std::thread::yield_now();
    }
}

fn leaves(placements: &[Placement]) -> Vec<u64> {
    let leaf = |placement: &Placement| match placement {
        Placement::Recorded { leaf } => *leaf,
        other => panic!("{other:?}"),
    };
    placements.iter().map(leaf).collect()
}

/// Makes an engine whose turns end after each piece. After `creations` commits, each commit waits
/// for a token; once the sender is dropped, all may pass.
fn gated(
    dir: &std::path::Path,
    creations: usize,
) -> (Engine, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (open_gate, gate) = mpsc::channel::<()>();
    let (at_gate, arrived) = mpsc::channel();
    let engine = Engine::open_with(dir, Duration::ZERO, |mut disk: Disk| Disk {
        commit: Box::new(move |batch| {
            let _ = at_gate.send(());
            let _ = gate.recv();
            (disk.commit)(batch)
        }),
        guard: disk.guard,
    });
    for _ in 0..creations {
        open_gate.send(()).unwrap();
    }
    (engine, open_gate, arrived)
}

#[test]
fn a_ledger_that_is_held_up_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let (slow, quiet) = (
        engine.create("slow").unwrap(),
        engine.create("quiet").unwrap(),
    );
    let mut producer = Producer::new(slow.id, 1);
    let first = admit(&slow, &[producer.intent("held up")]);
    let second = admit(&slow, &[producer.intent("behind it")]);
    wait_for_no_turn(&engine);
    let held_up = slow.trust.write();
    let first = submit(&engine, &slow, 1, first);
    wait_for_turns(&engine, 1);
    let second = submit(&engine, &slow, 1, second);
    let mut other = Producer::new(quiet.id, 2);
    for number in 1..=20 {
        let answer = submit(&engine, &quiet, 2, admit(&quiet, &[other.intent("q")]));
        let answer = answer.answer_within(LONG).expect("it is served");
        assert_eq!(leaves(&answer.placements), [number]);
    }
    // The held-up turn is known, and is no reason to take the server out of service.
    let shards = &engine.appends.shards;
    assert!(shards.oldest_turn() > Duration::ZERO);
    assert_eq!(shards.stuck(LONG), None);
    drop(held_up);
    for (pending, leaf) in [(first, 1), (second, 2)] {
        assert_eq!(
            leaves(&block_on(pending.answer()).unwrap().placements),
            [leaf]
        );
    }
    drop((slow, quiet));
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

#[test]
fn of_two_ledgers_that_are_held_up_the_second_holds_up_nobody_either() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let [one, two, quiet] = ["one", "two", "quiet"].map(|name| engine.create(name).unwrap());
    let first = admit(&one, &[Producer::new(one.id, 1).intent("a")]);
    let second = admit(&two, &[Producer::new(two.id, 1).intent("b")]);
    wait_for_no_turn(&engine);
    let held_up = (one.trust.write(), two.trust.write());
    let first = submit(&engine, &one, 1, first);
    wait_for_turns(&engine, 1);
    let second = submit(&engine, &two, 1, second);
    wait_for_turns(&engine, 2);
    let third = admit(&quiet, &[Producer::new(quiet.id, 1).intent("c")]);
    let third = submit(&engine, &quiet, 1, third);
    assert!(third.answer_within(LONG).is_ok());
    drop(held_up);
    assert!(block_on(first.answer()).is_ok() && block_on(second.answer()).is_ok());
    engine.close();
}

/// Makes a request with one manifest over so many statements that they could take long.
fn large_batch(ledger: &Arc<Ledger>, key: &SigningKey, producer: &mut Producer) -> AdmittedBatch {
    let intents = (0..400).map(|_| producer.intent("one of many under a manifest"));
    let batch = admit(ledger, &batched(intents.collect(), key));
    let work = super::Work::Append(Arc::clone(ledger), batch);
    assert!(work.is_heavy());
    match work {
        super::Work::Append(_, batch) => batch,
        _ => unreachable!("it is an append"),
    }
}

#[test]
fn a_large_batch_does_not_wait_for_another_ledgers() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let key = SigningKey::from_seed(&[3; 32]);
    let [slow, honest] = ["slow", "honest"].map(|name| {
        let ledger = engine.create(name).unwrap();
        let known = registration(ledger.id, &key, AGENT);
        let known = Authority::new(ledger.id).says(v1::statement::Body::KeyRegistered(known));
        let answer = engine.append(name, vec![known]).unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
        ledger
    });
    let first = large_batch(&slow, &key, &mut Producer::new(slow.id, 1));
    let mut producer = Producer::new(honest.id, 1);
    wait_for_no_turn(&engine);
    let held_up = slow.trust.write();
    let first = submit(&engine, &slow, 1, first);
    wait_for_turns(&engine, 1);
    for number in 0..3 {
        let batch = large_batch(&honest, &key, &mut producer);
        let answer = submit(&engine, &honest, 2, batch).answer_within(LONG);
        let leaf = leaves(&answer.expect("it is served").placements)[0];
        assert_eq!(leaf, 2 + number * 401);
    }
    drop(held_up);
    let first = block_on(first.answer()).unwrap();
    assert_eq!(leaves(&first.placements)[0], 2);
    drop((first, slow, honest));
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

#[test]
fn who_waits_for_the_disk_is_not_slow() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, open_gate, arrived) = gated(dir.path(), 1);
    let ledger = engine.create("disk").unwrap();
    arrived.recv().unwrap();
    let shards = &engine.appends.shards;
    // The second statement is a duplicate of one that is still on its way to the disk.
    let twice = vec![Producer::new(ledger.id, 1).intent("said twice"); 2];
    let twice = submit(&engine, &ledger, 1, admit(&ledger, &twice));
    arrived.recv().unwrap();
    while shards.oldest_turn() < 2 * super::schedule::SLOW_PIECE {
        std::thread::yield_now();
    }
    drop(open_gate);
    let twice = block_on(twice.answer()).unwrap();
    let [first, second] = &twice.placements[..] else {
        panic!("{:?}", twice.placements);
    };
    assert!(
        matches!(first, Placement::Recorded { leaf: 1 }),
        "{first:?}"
    );
    assert!(matches!(second, Placement::Duplicate { .. }), "{second:?}");
    drop((twice, ledger));
    // The turn is over when its ledger is given back.
    wait_for_no_turn(&engine);
    assert_eq!(shards.slow_ledgers(), 0);
    engine.close();
}

#[test]
fn a_large_request_is_cut_and_others_of_its_ledger_come_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, open_gate, arrived) = gated(dir.path(), 1);
    let ledger = engine.create("cut").unwrap();
    arrived.recv().unwrap();
    let (mut large, mut small) = (Producer::new(ledger.id, 1), Producer::new(ledger.id, 2));
    let all: Vec<_> = (0..40).map(|_| large.intent("one of many")).collect();
    let later = admit(&ledger, &[large.intent("behind them")]);
    let all = submit(&engine, &ledger, 1, admit(&ledger, &all));
    let later = submit(&engine, &ledger, 1, later);
    arrived.recv().unwrap();
    // The first piece is on its way to the disk.
    let other = submit(
        &engine,
        &ledger,
        2,
        admit(&ledger, &[small.intent("a single one")]),
    );
    drop(open_gate);
    let other = block_on(other.answer()).unwrap();
    // By then, one piece is on its way to the disk, one waits for that, and one was made.
    let [between] = leaves(&other.placements)[..] else {
        panic!("{:?}", other.placements);
    };
    assert!((2..=4).contains(&between), "{between}");
    // The request has one answer, in its own order, when all of it is recorded.
    let all = block_on(all.answer()).unwrap();
    let expected: Vec<_> = (1..=41).filter(|leaf| *leaf != between).collect();
    assert_eq!(leaves(&all.placements), expected);
    // One signature may serve the turn behind it too.
    assert!((42..=43).contains(&all.readable.size().get()));
    assert_eq!(leaves(&block_on(later.answer()).unwrap().placements), [42]);
    drop((all, other, ledger));
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

#[test]
fn a_batch_is_one_piece() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(dir.path(), Duration::ZERO, |disk| disk);
    let ledger = engine.create("batch").unwrap();
    let key = SigningKey::from_seed(&[3; 32]);
    let mut authority = Authority::new(ledger.id);
    let known = registration(ledger.id, &key, AGENT);
    let known = authority.says(v1::statement::Body::KeyRegistered(known));
    let mut producer = Producer::new(ledger.id, 1);
    let intents: Vec<_> = (0..8).map(|_| producer.intent("of a batch")).collect();
    let mut request = vec![known];
    let answer = engine.append("batch", request).unwrap();
    assert_eq!(briefs(&answer), ["accepted 1"]);
    request = batched(intents, &key);
    request.push(signed(producer.intent("behind it"), &key));
    let answer = engine.append("batch", request).unwrap();
    let expected: Vec<_> = (2..=11).map(|leaf| format!("accepted {leaf}")).collect();
    assert_eq!(briefs(&answer), expected);
    // The batch is one piece, and the statement behind it is cut off.
    assert_eq!(engine.appends.metrics.cuts(), 1);
    engine.close();
}

#[test]
fn what_nobody_waits_for_is_dropped_before_it_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create("gone").unwrap();
    let [first, given_up, waits] =
        [1, 2, 3].map(|number| admit(&ledger, &[Producer::new(ledger.id, number).intent("r")]));
    wait_for_no_turn(&engine);
    let held_up = ledger.trust.write();
    let first = submit(&engine, &ledger, 1, first);
    wait_for_turns(&engine, 1);
    drop(submit(&engine, &ledger, 2, given_up));
    let waits = submit(&engine, &ledger, 3, waits);
    drop(held_up);
    assert_eq!(leaves(&block_on(first.answer()).unwrap().placements), [1]);
    assert_eq!(leaves(&block_on(waits.answer()).unwrap().placements), [2]);
    assert_eq!(engine.appends.metrics.abandonments(), 1);
    engine.close();
}

#[test]
fn what_was_begun_is_ended_although_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, open_gate, arrived) = gated(dir.path(), 1);
    let ledger = engine.create("begun").unwrap();
    arrived.recv().unwrap();
    let mut producer = Producer::new(ledger.id, 1);
    let request = [
        producer.intent("a"),
        producer.intent("b"),
        producer.intent("c"),
    ];
    let begun = submit(&engine, &ledger, 1, admit(&ledger, &request));
    arrived.recv().unwrap();
    drop(begun);
    drop(open_gate);
    let end = submit(&engine, &ledger, 1, admit(&ledger, &[producer.intent("d")]));
    let end = block_on(end.answer()).unwrap();
    assert_eq!(leaves(&end.placements), [4]);
    assert_eq!(engine.appends.metrics.abandonments(), 0);
    drop(end);
    // The bytes that the jobs held are given back.
    assert_eq!(engine.appends.shards.waiting_bytes(&ledger), 0);
    engine.close();
}

#[test]
fn stopping_ends_what_is_begun_and_refuses_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, open_gate, arrived) = gated(dir.path(), 2);
    let ledger = engine.create("stops").unwrap();
    let other = engine.create("other").unwrap();
    arrived.recv().unwrap();
    arrived.recv().unwrap();
    let intent =
        |ledger: &Ledger, number| admit(ledger, &[Producer::new(ledger.id, number).intent("r")]);
    let begun = submit(&engine, &ledger, 1, intent(&ledger, 1));
    arrived.recv().unwrap();
    let waiting: Vec<_> = (2..10)
        .map(|number| submit(&engine, &ledger, number, intent(&ledger, 100)))
        .collect();
    assert_eq!(engine.appends.shards.stop(), waiting.len());
    for refused in waiting {
        // The answer comes at once: the disk does not move meanwhile.
        let refused = refused.answer_within(LONG);
        assert_eq!(refused.err(), Some(NoAnswer::Stopped));
    }
    let late = submit(&engine, &other, 1, intent(&other, 1));
    assert_eq!(block_on(late.answer()).err(), Some(NoAnswer::Stopped));
    drop(open_gate);
    assert_eq!(leaves(&block_on(begun.answer()).unwrap().placements), [1]);
    drop((ledger, other));
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

#[test]
fn a_batch_in_work_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create("batch").unwrap();
    let key = SigningKey::from_seed(&[3; 32]);
    let known = registration(ledger.id, &key, AGENT);
    let known = Authority::new(ledger.id).says(v1::statement::Body::KeyRegistered(known));
    let answer = engine.append("batch", vec![known]).unwrap();
    assert_eq!(briefs(&answer), ["accepted 1"]);
    let mut producer = Producer::new(ledger.id, 1);
    let batch = batched(vec![producer.intent("a"), producer.intent("b")], &key);
    let batch = admit(&ledger, &batch);
    wait_for_no_turn(&engine);
    let held_up = ledger.trust.write();
    let in_work = submit(&engine, &ledger, 1, batch);
    let shards = &engine.appends.shards;
    wait_for_turns(&engine, 1);
    shards.interrupt();
    drop(held_up);
    let refused = in_work.answer_within(LONG);
    assert_eq!(refused.err(), Some(NoAnswer::Stopped));
    // Nothing has failed, and nothing of the batch is recorded.
    assert!(!shards.has_failed());
    assert_eq!(ledger.readable().size().get(), 2);
    drop(ledger);
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

#[test]
fn a_disk_that_does_not_take_a_turn_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, open_gate, arrived) = gated(dir.path(), 1);
    let ledger = engine.create("disk").unwrap();
    arrived.recv().unwrap();
    let shards = &engine.appends.shards;
    assert_eq!(shards.stuck(LONG), None);
    let intent = admit(&ledger, &[Producer::new(ledger.id, 1).intent("r")]);
    let pending = submit(&engine, &ledger, 1, intent);
    arrived.recv().unwrap();
    let stuck = shards.stuck(Duration::ZERO);
    assert!(
        matches!(stuck, Some(Stuck::Disk { shard: 0, .. })),
        "{stuck:?}"
    );
    drop(open_gate);
    block_on(pending.answer()).unwrap();
    assert_eq!(shards.stuck(LONG), None);
    engine.close();
}

impl Pending {
    /// Returns the answer, which must come within `time`.
    fn answer_within(self, time: Duration) -> Result<super::Answer, NoAnswer> {
        let (told, answer) = mpsc::channel();
        std::thread::spawn(move || drop(told.send(self.blocking_answer())));
        answer.recv_timeout(time).expect("an answer in time")
    }
}
