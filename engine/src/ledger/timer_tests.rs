//! Tests of timers: they are on disk with the next ones in memory, fire in portions wherever turns
//! are cut, and are bounded in number and in how far ahead they lie.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use deed_evidence::{
    Micros,
    assess::{
        AHEAD_MAX_US, FIRE_MAX, Owner, TIMERS_MAX,
        cells::{CellKey, TimerCount},
    },
    entry::Entry,
    replay::Replay,
    statement::BodyKind,
};
use deed_proto::v1::{self, statement::Body};
use proptest::prelude::*;
use prost::Message as _;

use super::step_tests::{ByHand, NUMBER, admit_with, brief};
use crate::{
    ledger::{
        step::{Placement, RejectReason},
        write::write_records,
    },
    shard::Disk,
    store::{Batch, Family, keys},
    testing::{Engine, Producer, TASK, briefs},
};

const NAME: &str = "one";

fn opened(producer: &mut Producer) -> v1::Envelope {
    let opened = v1::TaskOpened {
        requested_by: "https://example.org/people/dee".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        ..v1::TaskOpened::default()
    };
    producer.opens(TASK, opened)
}

fn intent_until(producer: &mut Producer, deadline_us: i64) -> v1::Envelope {
    let said = v1::Intent {
        action: "test.act".to_owned(),
        resource: "orders/1".to_owned(),
        deadline_us,
        ..v1::Intent::default()
    };
    producer.statement(|statement| statement.body = Some(Body::Intent(said)))
}

/// Makes a ledger with a timer at each of these times.
fn with_timers(times: impl Iterator<Item = i64>) -> (ByHand, Producer) {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let mut envelopes = vec![opened(&mut producer)];
    envelopes.extend(times.map(|at| intent_until(&mut producer, at)));
    for some in envelopes.chunks(4096) {
        let batch = admit_with(&ledger.trust, ledger.id, 5, some);
        let placed = ledger.turn(&[batch]);
        assert!(
            placed
                .iter()
                .all(|one| matches!(one, Placement::Recorded { .. })),
            "{:?}",
            brief(&placed)
        );
    }
    (ledger, producer)
}

fn bodies(ledger: &ByHand) -> Vec<BodyKind> {
    let entries = ledger.entries();
    let bodies = entries.iter().skip(1).map(|bytes| {
        let entry = Entry::parse(bytes).unwrap();
        entry.statement().unwrap().body
    });
    bodies.collect()
}

#[test]
fn memory_does_not_grow_with_what_is_due() {
    let (mut ledger, _) = with_timers((0..40_000).map(|n| 1_000_000 + n));
    assert_eq!(ledger.state.due(), 40_000);
    // These are the timers that the turn has set, and those that were in memory before it.
    assert!(
        ledger.state.timers_at_hand() <= 2 * 4096,
        "{}",
        ledger.state.timers_at_hand()
    );
    ledger.turn(&[]);
    assert!(ledger.state.timers_at_hand() <= 2 * 4096);
    // A start reads only the next timers.
    ledger.forget_sessions();
    assert_eq!(ledger.state.timers_at_hand(), 0);
    ledger.turn(&[]);
    assert_eq!(ledger.state.timers_at_hand(), 2 * FIRE_MAX);
    assert_eq!(ledger.state.due(), 40_000);
    assert_eq!(ledger.state.next_due(), Some(Micros::new(1_000_000)));
    assert_eq!(ledger.store.count_due(NUMBER).unwrap(), 40_000);
}

#[test]
fn a_deadline_may_lie_ten_years_ahead() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let latest = 5 + AHEAD_MAX_US;
    let all = [
        opened(&mut producer),
        intent_until(&mut producer, latest),
        intent_until(&mut producer, latest + 1),
    ];
    let batch = admit_with(&ledger.trust, ledger.id, 5, &all);
    let placed = ledger.turn(&[batch]);
    assert_eq!(brief(&placed)[..2], ["recorded 1", "recorded 2"]);
    let Placement::Refused(refusal @ RejectReason::DeadlineFar { .. }) = &placed[2] else {
        panic!("{placed:?}");
    };
    let why = refusal.to_string();
    assert!(
        why.contains("3660 days ahead at most") && why.contains("name an earlier one"),
        "{why}"
    );
    // The bound holds for Heartbeats and tasks, too.
    producer.next -= 1;
    let beat = v1::Heartbeat {
        last_sequence: producer.next,
        count: producer.next + 1,
        next_within_us: AHEAD_MAX_US + 1,
    };
    let far = v1::TaskOpened {
        requested_by: "https://example.org/people/dee".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        deadline_us: i64::MAX,
        ..v1::TaskOpened::default()
    };
    let mut other = producer.clone();
    for envelope in [
        producer.statement(|statement| {
            statement.task = bytes::Bytes::new();
            statement.body = Some(Body::Heartbeat(beat));
        }),
        other.opens(TASK + 1, far),
    ] {
        let batch = admit_with(&ledger.trust, ledger.id, 5, &[envelope]);
        let placed = ledger.turn(&[batch]);
        assert!(
            matches!(
                placed[..],
                [Placement::Refused(RejectReason::DeadlineFar { .. })]
            ),
            "{placed:?}"
        );
    }
}

#[test]
fn whoever_holds_its_share_of_timers_is_refused_more_and_nothing_else() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let first = [opened(&mut producer), intent_until(&mut producer, 1_000)];
    let batch = admit_with(&ledger.trust, ledger.id, 5, &first);
    ledger.turn(&[batch]);
    // The records say that the producer, which is unsigned, holds all its timers but one.
    let full = TIMERS_MAX / 21 - 1;
    let itself = Owner::producer(&producer.producer);
    ledger.set_timers(&[Owner::ALL, Owner::UNSIGNED, itself], full, 0);
    let before = producer.clone();
    let more = [
        intent_until(&mut producer, 2_000),
        intent_until(&mut producer, 2_000),
    ];
    let batch = admit_with(&ledger.trust, ledger.id, 5, &more);
    let placed = ledger.turn(&[batch]);
    let [Placement::Recorded { .. }, Placement::Refused(refusal)] = &placed[..] else {
        panic!("{placed:?}");
    };
    let why = refusal.to_string();
    assert!(
        why.contains(&format!(
            "{} deadlines are pending of what this producer (unsigned)",
            full + 1
        )) && why.contains("send Outcomes"),
        "{why}"
    );
    // Another producer has room.
    let mut other = Producer::new(ledger.id, 2);
    other.producer = "https://example.org/another".to_owned();
    let batch = admit_with(
        &ledger.trust,
        ledger.id,
        5,
        &[intent_until(&mut other, 2_000)],
    );
    assert_eq!(brief(&ledger.turn(&[batch])), ["recorded 4"]);
    // An Intent without a deadline is recorded.
    producer = before;
    producer.next += 1;
    let batch = admit_with(&ledger.trust, ledger.id, 5, &[producer.intent("r")]);
    assert_eq!(brief(&ledger.turn(&[batch])), ["recorded 5"]);
}

/// Outcomes that the policy requires to be observed take no room from deadlines.
#[test]
fn what_is_charged_to_nobody_takes_no_room() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let batch = admit_with(&ledger.trust, ledger.id, 5, &[opened(&mut producer)]);
    ledger.turn(&[batch]);
    let many = 2 * TIMERS_MAX;
    ledger.set_timers(&[Owner::ALL], many, many);
    let intent = intent_until(&mut producer, 1_000);
    let batch = admit_with(&ledger.trust, ledger.id, 5, &[intent]);
    assert_eq!(brief(&ledger.turn(&[batch])), ["recorded 2"]);
    // They are counted in the total.
    assert_eq!(ledger.state.due(), many + 1);
}

/// A statement that admission did not parse (its ledger assessed nothing then) is refused if it
/// cannot be parsed, and the shard goes on. It used to stop the shard.
#[test]
fn what_cannot_be_read_is_refused_by_itself() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let said = [opened(&mut producer), intent_until(&mut producer, 1_000)];
    let mut batch = admit_with(&ledger.trust, ledger.id, 5, &said);
    batch.spoil(1);
    let placed = ledger.turn(&[batch]);
    let [Placement::Recorded { leaf: 1 }, Placement::Refused(refusal)] = &placed[..] else {
        panic!("{placed:?}");
    };
    assert!(matches!(refusal, RejectReason::Unread(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("cannot be read"), "{refusal}");
    let batch = admit_with(&ledger.trust, ledger.id, 5, &said[1..]);
    assert_eq!(brief(&ledger.turn(&[batch])), ["recorded 2"]);
}

#[test]
fn what_is_due_in_one_ledger_is_spread_over_turns() {
    const COUNT: usize = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    // Turns without a time budget take one portion each.
    let engine = Engine::open_with(dir.path(), Duration::ZERO, |mut disk: Disk| Disk {
        commit: Box::new(move |batch| {
            counted.fetch_add(1, Relaxed);
            (disk.commit)(batch)
        }),
        guard: disk.guard,
    });
    let ledger = engine.create(NAME).unwrap();
    let mut producer = Producer::new(ledger.id, 1);
    let mut envelopes = vec![opened(&mut producer)];
    envelopes.extend((0..COUNT).map(|_| intent_until(&mut producer, 5_000_000)));
    engine.append(NAME, envelopes).unwrap();
    engine.clock.set(10_000_000);
    let before = commits.load(Relaxed);
    // The two requests are in order: the second one waits behind the first one.
    let answers: Vec<_> = (0..2)
        .map(|_| engine.append(NAME, vec![producer.intent("r")]).unwrap())
        .collect();
    let ticks = (COUNT / FIRE_MAX) as u64;
    let first = 2 + COUNT as u64 + ticks;
    assert_eq!(briefs(&answers[0]), [format!("accepted {first}")]);
    assert_eq!(briefs(&answers[1]), [format!("accepted {}", first + 1)]);
    assert!(
        commits.load(Relaxed) - before > ticks,
        "each portion is in a turn of its own"
    );
    let entries = engine.store.entries(ledger.number, 0);
    let entries: Vec<_> = entries.map(|item| item.unwrap().1).collect();
    let replay = Replay::over(&entries).unwrap();
    assert_eq!(replay.bodies()["tick"], ticks);
    assert_eq!(replay.findings().count(), COUNT);
    engine.close();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Wherever turns are cut between portions, and whether or not memory was lost in between, the
    /// entries and all records are the same; a replay of the entries gives them, too.
    #[test]
    fn portions_do_not_depend_on_cuts(
        times in prop::collection::vec(0..6_i64, 300..900),
        cuts in prop::collection::vec((1_usize..4, any::<bool>()), 1..8),
    ) {
        let begin = || with_timers(times.iter().map(|at| 1_000 + at));
        // The statements are three, each later than the one before.
        let say = |ledger: &ByHand, producer: &mut Producer| -> Vec<_> {
            [1_001, 1_003, 2_000].map(|at| {
                let envelope = intent_until(producer, at + 1);
                (at, admit_with(&ledger.trust, ledger.id, at, &[envelope]))
            }).into()
        };
        let (mut whole, mut producer) = begin();
        let batches = say(&whole, &mut producer).into_iter().map(|(_, batch)| batch);
        let batches: Vec<_> = batches.collect();
        let expected = whole.turn(&batches);

        let (mut cut, mut producer) = begin();
        let mut placements = Vec::new();
        let mut cuts = cuts.iter().cycle();
        for (at, batch) in say(&cut, &mut producer) {
            loop {
                let (portions, forget) = cuts.next().unwrap();
                let behind = cut.portions(at, *portions);
                if *forget {
                    cut.forget_sessions();
                }
                if !behind {
                    break;
                }
            }
            placements.extend(cut.turn(&[batch]));
        }
        prop_assert_eq!(placements, expected);
        prop_assert_eq!(cut.entries(), whole.entries());
        prop_assert_eq!(cut.records(), whole.records());
        let ticks = bodies(&whole).into_iter().filter(|body| *body == BodyKind::Tick);
        prop_assert!(ticks.count() <= times.len() / FIRE_MAX + 3);
        let replay = Replay::over(&whole.entries()).unwrap();
        prop_assert_eq!(replay.kept().timers.len() as u64, whole.state.due());
        prop_assert!(replay.findings().count() >= times.len());
    }
}

impl ByHand {
    /// Writes records that give each owner `held` timers.
    fn set_timers(&mut self, owners: &[Owner], held: u64, uncharged: u64) {
        let timers = TimerCount {
            held,
            promises: 0,
            uncharged,
        };
        let mut write = Batch::default();
        for owner in owners {
            let key = keys::cell(NUMBER, &CellKey::Timers(*owner));
            let timers = timers.encode_to_vec();
            self.store.put(&mut write, Family::State, &key, &timers);
        }
        self.store.commit(write).unwrap();
        self.forget_sessions();
    }

    /// Makes a turn of up to `portions` portions of the timers up to `at`; returns whether more are
    /// left.
    fn portions(&mut self, at: i64, portions: usize) -> bool {
        let mut reader = self.reader();
        let mut turn = self.state.begin(&mut reader).unwrap();
        let mut behind = true;
        for _ in 0..portions {
            let at = Micros::new(at);
            behind = behind && self.state.is_behind(&mut turn, at, &mut reader).unwrap();
        }
        let records = self.state.finish(turn).unwrap();
        drop(reader);
        let mut batch = Batch::default();
        write_records(&self.store, &mut batch, NUMBER, &records);
        self.store.commit(batch).unwrap();
        behind
    }
}
