//! Tests that the writes of turns depend only on the statements and on where turns are cut. Two
//! servers with the same input write the same, turn by turn, and so does one that is restarted in
//! between.

use std::{fs, path::Path, sync::Arc};

use deed_evidence::{LedgerId, Micros};
use deed_proto::v1::{self, statement::Body};
use parking_lot::Mutex;

use super::Disk;
use crate::{
    pressure::SourceKey,
    store::{Batch, LedgerNumber},
    testing::{
        Authority, Engine, Producer, batched, block_on, briefs, policy_set, registration, signed,
    },
};

pub(super) const LEDGER: &str = "effects";
const NUMBER: LedgerNumber = LedgerNumber(0);

/// An event of a ledger, which gets a turn of its own.
pub(super) enum Event {
    Request(Vec<v1::Envelope>),
    Tick,
}

/// Trust statements, tasks, deadlines that pass, batches, duplicates, gaps, refusals, and two
/// statements with one sequence.
pub(super) fn story(id: LedgerId) -> Vec<Event> {
    let key = deed_tlog::SigningKey::from_seed(&[3; 32]);
    let mut authority = Authority::new(id);
    let mut signing = Producer::new(id, 1);
    signing.producer = "spiffe://example.org/signing".to_owned();
    let mut agent = Producer::new(id, 2);
    let known = Body::KeyRegistered(registration(id, &key, &signing.producer));
    let opened = v1::TaskOpened {
        requested_by: "https://example.org/somebody".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        deadline_us: 5_000_000,
        ..v1::TaskOpened::default()
    };
    let intents = |producer: &mut Producer, count: usize| -> Vec<_> {
        (0..count)
            .map(|n| producer.intent(&format!("resource/{n}")))
            .collect()
    };
    let mut fork = agent.clone();
    let first = intents(&mut agent, 300);
    let again = first[7].clone();
    let other = fork.intent("another one for this place");
    let trusted = vec![
        authority.says(known),
        authority.says(Body::PolicySet(policy_set(
            "permit (principal, action, resource);",
        ))),
    ];
    vec![
        Event::Request(vec![agent_opens(id, opened)]),
        Event::Request(trusted),
        Event::Request(first),
        Event::Request(batched(intents(&mut signing, 40), &key)),
        Event::Request(vec![again, other]),
        Event::Tick,
        Event::Request(vec![
            agent.intent_after_gap(3),
            signed(signing.intent("signed by itself"), &key),
            agent.chained_intent("chained"),
        ]),
        Event::Request(vec![authority.revokes(&key)]),
        Event::Request(vec![
            signed(signing.intent("too late"), &key),
            agent.closed(),
        ]),
        Event::Request(intents(&mut Producer::new(id, 4), 20)),
    ]
}

fn agent_opens(id: LedgerId, opened: v1::TaskOpened) -> v1::Envelope {
    Producer::new(id, 5).opens(5, opened)
}

type Commits = Arc<Mutex<Vec<Batch>>>;

fn open(data_dir: &Path, commits: &Commits) -> Engine {
    let commits = Arc::clone(commits);
    Engine::open_on(data_dir, move |mut disk| Disk {
        commit: Box::new(move |batch| {
            commits.lock().push(batch.copy());
            (disk.commit)(batch)
        }),
        guard: disk.guard,
    })
}

/// Returns the digests of the writes, turn by turn, and the results of all statements. The server
/// is restarted before the events at the positions in `restarts`.
fn effects(data_dir: &Path, restarts: &[usize], story: Vec<Event>) -> (Vec<[u8; 32]>, Vec<String>) {
    let commits = Commits::default();
    let mut engine = open(data_dir, &commits);
    let mut told = Vec::new();
    for (position, event) in story.into_iter().enumerate() {
        if restarts.contains(&position) {
            engine.close();
            engine = open(data_dir, &commits);
        }
        let now = 1_000_000 + 1_000_000 * i64::try_from(position).unwrap();
        engine.clock.set(now);
        match event {
            Event::Request(envelopes) => {
                told.extend(briefs(&engine.append(LEDGER, envelopes).unwrap()));
            }
            Event::Tick => {
                let ledger = engine.registry.ledger(LEDGER).unwrap();
                let shards = &engine.appends.shards;
                let reservation = block_on(shards.reserve(&ledger, SourceKey::Server, 0));
                let ticked = reservation.tick(ledger, Micros::new(now));
                assert!(ticked.blocking_answer().is_ok());
            }
        }
    }
    let store = Arc::clone(&engine.store);
    engine.close();
    let commits = commits.lock();
    let effects = commits.iter().map(|batch| batch.effects(&store)).collect();
    (effects, told)
}

/// Returns all entries and records of the ledger.
pub(super) fn records(data_dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let engine = Engine::open(data_dir);
    let entries = engine.store.entries(NUMBER, 0).map(|item| {
        let (leaf, entry) = item.unwrap();
        (leaf.to_be_bytes().to_vec(), entry.to_vec())
    });
    let state = engine.store.state(NUMBER).map(|item| {
        let (key, value) = item.unwrap();
        (key.to_vec(), value.to_vec())
    });
    let all = entries.chain(state).collect();
    engine.close();
    all
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn the_same_statements_cut_alike_have_the_same_effects() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third, other] =
        ["first", "second", "third", "other"].map(|n| dir.path().join(n));
    fs::create_dir(&first).unwrap();
    // The copies share one genesis and one secret.
    let engine = Engine::open(&first);
    let id = engine.create(LEDGER).unwrap().id;
    engine.close();
    for to in [&second, &third, &other] {
        copy(&first, to);
    }
    let (expected, told) = effects(&first, &[], story(id));
    // Every event is a turn, but one may write nothing, because all of its statements are refused
    // or duplicates.
    assert!(expected.len() >= 9, "{told:?}");
    for words in ["accepted", "duplicate", "REASON"] {
        assert!(
            told.iter().any(|brief| brief.starts_with(words)),
            "{words}: {told:?}"
        );
    }
    assert_eq!(
        effects(&second, &[], story(id)),
        (expected.clone(), told.clone())
    );
    assert_eq!(
        effects(&third, &[2, 4, 7], story(id)),
        (expected.clone(), told)
    );
    assert_eq!(records(&first), records(&second));
    assert_eq!(records(&first), records(&third));

    // One more statement changes everything that is written from there on.
    let mut changed = story(id);
    if let Event::Request(envelopes) = &mut changed[3] {
        envelopes.push(Producer::new(id, 77).intent("one more"));
    }
    let (found, _) = effects(&other, &[], changed);
    let same = found.iter().zip(&expected).take_while(|(a, b)| a == b);
    assert_eq!(same.count(), 3);
    assert!(found.iter().zip(&expected).skip(3).all(|(a, b)| a != b));
}
