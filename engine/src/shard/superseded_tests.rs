//! Another writer's turn comes first: nothing acknowledged is lost, the same statements sent again get
//! receipts, and the ledger is what it would be if the turn had never been tried.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use deed_evidence::Micros;
use deed_proto::v1::{self, append_result::Result as Appending, statement::Body};
use deed_tlog::{LeafIndex, SigningKey, TreeSize};

use super::{
    NoAnswer,
    effects_tests::{Event, LEDGER, copy, records, story},
    journal::{Appended, Journal, ProposedTurn},
};
use crate::{
    admission::Sender,
    append::{AppendError, QuotaPolicy},
    guard::GuardedHead,
    ledger::Ledger,
    offline::fsck,
    pressure::SourceKey,
    store::{StoreError, turn::TurnRecord},
    testing::{Authority, Engine, Producer, block_on, brief, briefs, registration, signed},
};

/// Within this time a thread does what it should; nothing that is measured.
const LONG: Duration = Duration::from_secs(60);

/// What becomes of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    None,
    /// Another turn came first, and changed nothing.
    Void,
    /// Another writer came first with the same turn.
    Foreign,
}

/// A journal in which another writer comes first at some of the turns, counted from 0.
struct Contested {
    own: Box<dyn Journal>,
    appends: AtomicUsize,
    at: Box<dyn Fn(usize) -> Loss + Send + Sync>,
}

impl Journal for Contested {
    fn newest(&self) -> Result<TurnRecord, StoreError> {
        self.own.newest()
    }

    fn append(&self, proposed: ProposedTurn) -> Appended {
        match (self.at)(self.appends.fetch_add(1, SeqCst)) {
            Loss::None => self.own.append(proposed),
            Loss::Void => Appended::Superseded,
            Loss::Foreign => match self.own.append(proposed) {
                // It is confirmed with the next turn: its head is not known here.
                Appended::Next => Appended::Superseded,
                other => other,
            },
        }
    }

    fn confirm(&self, head: &GuardedHead) -> io::Result<()> {
        self.own.confirm(head)
    }
}

/// Opens a data directory whose turns end after `turn_time`.
fn open(
    data_dir: &Path,
    turn_time: Duration,
    at: impl Fn(usize) -> Loss + Send + Sync + 'static,
) -> Engine {
    Engine::open_behind(data_dir, turn_time, |own| {
        Box::new(Contested {
            own,
            appends: AtomicUsize::new(0),
            at: Box::new(at),
        })
    })
}

/// Sends the same again until it is answered. Returns the answer, and how often it was superseded.
fn insist(
    engine: &Engine,
    ledger: &str,
    envelopes: &[v1::Envelope],
) -> (v1::AppendResponse, usize) {
    for superseded in 0..1_000 {
        match engine.append(ledger, envelopes.to_vec()) {
            Err(AppendError::Superseded) => {}
            answer => return (answer.unwrap(), superseded),
        }
    }
    panic!("it is never recorded");
}

/// Plays a story, sending again what is superseded. Returns what is told of it, and how often that was.
fn play(engine: &Engine, story: Vec<Event>) -> (Vec<String>, usize) {
    let (mut told, mut superseded) = (Vec::new(), 0);
    for (position, event) in story.into_iter().enumerate() {
        let now = 1_000_000 + 1_000_000 * i64::try_from(position).unwrap();
        engine.clock.set(now);
        match event {
            Event::Request(envelopes) => {
                let (answer, again) = insist(engine, LEDGER, &envelopes);
                told.extend(briefs(&answer));
                superseded += again;
            }
            Event::Tick => loop {
                let ledger = engine.registry.ledger(LEDGER).unwrap();
                let shards = &engine.appends.shards;
                let reservation = block_on(shards.reserve(&ledger, SourceKey::Server, 0));
                match reservation.tick(ledger, Micros::new(now)).blocking_answer() {
                    Ok(_) => break,
                    Err(NoAnswer::Superseded) => superseded += 1,
                    Err(NoAnswer::Stopped) => panic!("the shard has stopped"),
                }
            },
        }
    }
    (told, superseded)
}

/// Trust statements, tasks, deadlines, batches, duplicates, gaps, refusals, two statements for one place:
/// whichever turn is superseded, the ledger has the same records in the end, to the byte.
#[test]
fn whichever_turn_is_superseded_the_ledger_becomes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    std::fs::create_dir(&origin).unwrap();
    let engine = Engine::open(&origin);
    let id = engine.create(LEDGER).unwrap().id;
    engine.close();
    let expected = dir.path().join("expected");
    copy(&origin, &expected);
    let engine = Engine::open(&expected);
    let (told, _) = play(&engine, story(id));
    engine.close();
    let expected = records(&expected);

    let normal = |told: &[String]| -> Vec<String> {
        told.iter()
            .map(|one| one.replace("accepted", "duplicate"))
            .collect()
    };
    let mut lost = 0;
    for turn in 0.. {
        let mut is_over = true;
        for loss in [Loss::Void, Loss::Foreign] {
            let data_dir = dir.path().join(format!("{turn}-{loss:?}"));
            copy(&origin, &data_dir);
            let whole = Duration::from_secs(3600);
            let at = move |append| if append == turn { loss } else { Loss::None };
            let engine = open(&data_dir, whole, at);
            let (found, superseded) = play(&engine, story(id));
            // Once more if it is sent again before a changed trust state is restored.
            assert!(superseded <= 2, "turn {turn}, {loss:?}");
            is_over &= superseded == 0;
            lost += superseded.min(1);
            match loss {
                Loss::Foreign => assert_eq!(normal(&found), normal(&told), "turn {turn}"),
                _ => assert_eq!(found, told, "turn {turn}"),
            }
            assert!(!engine.appends.shards.has_failed());
            engine.close();
            let found = records(&data_dir);
            let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(
                differs.map(|at| &found[at]),
                differs.map(|at| &expected[at])
            );
            assert_eq!(found.len(), expected.len(), "turn {turn}, {loss:?}");
            fsck::check(&data_dir, &mut |_| {}).unwrap();
            std::fs::remove_dir_all(&data_dir).unwrap();
        }
        if is_over {
            break;
        }
    }
    assert!(lost >= 2 * 9, "{lost}");
}

#[test]
fn a_creation_that_is_superseded_is_tried_again() {
    for loss in [Loss::Void, Loss::Foreign] {
        let dir = tempfile::tempdir().unwrap();
        let whole = Duration::from_secs(3600);
        let at = move |append| if append == 1 { loss } else { Loss::None };
        let engine = open(dir.path(), whole, at);
        engine.create("first").unwrap();
        let error = engine.create("second").err().unwrap();
        assert!(error.contains("another writer's turn"), "{error}");
        let again = engine.create("second");
        let ledger = match loss {
            Loss::Foreign => engine.registry.ledger("second").unwrap(),
            _ => again.unwrap(),
        };
        let mut producer = Producer::new(ledger.id, 1);
        let answer = engine.append("second", vec![producer.intent("r")]).unwrap();
        assert_eq!(briefs(&answer), ["accepted 1"]);
        drop(ledger);
        engine.close();
        fsck::check(dir.path(), &mut |_| {}).unwrap();
    }
}

/// A ledger with a key of `producer`, in a journal in which the next `losing` turns are superseded.
fn with_key(
    dir: &Path,
    losing: &Arc<AtomicUsize>,
    key: &SigningKey,
) -> (Engine, Arc<Ledger>, Authority) {
    let losing = Arc::clone(losing);
    let engine = open(dir, Duration::from_secs(3600), move |_| {
        let left = losing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Loss::Void } else { Loss::None }
    });
    let ledger = engine.create("trust").unwrap();
    let producer = Producer::new(ledger.id, 1).producer;
    let known = Body::KeyRegistered(registration(ledger.id, key, &producer));
    let mut authority = Authority::new(ledger.id);
    engine.append("trust", vec![authority.says(known)]).unwrap();
    (engine, ledger, authority)
}

/// The step changes the trust state before its turn is committed, and admission refuses by it. When the
/// turn is void, that ends without any statement that reaches the step.
#[test]
fn the_trust_state_is_restored_in_place_although_nothing_reaches_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let (losing, key) = (Arc::default(), SigningKey::from_seed(&[3; 32]));
    let (engine, ledger, mut authority) = with_key(dir.path(), &losing, &key);
    let trust = ledger.trust.read().clone();
    losing.store(1, SeqCst);
    let revocation = vec![authority.revokes(&key)];
    let lost = engine.append("trust", revocation.clone());
    assert!(matches!(lost, Err(AppendError::Superseded)), "{lost:?}");
    let began = Instant::now();
    while *ledger.trust.read() != trust {
        assert!(began.elapsed() < LONG, "the trust state stays what is void");
        std::thread::yield_now();
    }
    let mut producer = Producer::new(ledger.id, 1);
    let statement = signed(producer.intent("r"), &key);
    let answer = engine.append("trust", vec![statement]).unwrap();
    assert_eq!(briefs(&answer), ["accepted 2"]);
    let answer = engine.append("trust", revocation).unwrap();
    assert_eq!(briefs(&answer), ["accepted 3"]);
    let late = signed(producer.intent("r"), &key);
    let answer = engine.append("trust", vec![late]).unwrap();
    assert!(briefs(&answer)[0].starts_with("REASON"), "{answer:?}");
    drop(ledger);
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

/// A rotation that is void leaves the log key and the next one as they were.
#[test]
fn a_rotation_that_is_superseded_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (losing, key) = (Arc::default(), SigningKey::from_seed(&[3; 32]));
    let (engine, ledger, mut authority) = with_key(dir.path(), &losing, &key);
    let (now, next) = (ledger.log_key(TreeSize::new(9)), ledger.next_log_key());
    let rotation = Body::LogKeyRotated(v1::LogKeyRotated {
        log_key: Some(v1::LogKey {
            vkey: next.to_string(),
        }),
        reason: "Yearly.".to_owned(),
    });
    let rotation = vec![authority.says(rotation)];
    losing.store(1, SeqCst);
    let lost = engine.append("trust", rotation.clone());
    assert!(matches!(lost, Err(AppendError::Superseded)), "{lost:?}");
    let began = Instant::now();
    while ledger.next_log_key() != next {
        assert!(began.elapsed() < LONG, "the rotation stays, and is void");
        std::thread::yield_now();
    }
    assert_eq!(ledger.log_key(TreeSize::new(9)), now);
    let answer = engine.append("trust", rotation).unwrap();
    assert_eq!(briefs(&answer), ["accepted 2"]);
    assert_eq!(ledger.log_key(TreeSize::new(9)), next);
    drop(ledger);
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

/// Whoever has a place, or sends in an order, from before is told to try again, also if nothing of theirs
/// was in the turn: what they were admitted by, or what they sent before, may be void.
#[test]
fn what_was_begun_before_is_to_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (losing, key) = (Arc::default(), SigningKey::from_seed(&[3; 32]));
    let (engine, ledger, _) = with_key(dir.path(), &losing, &key);
    let shards = &engine.appends.shards;
    let reservation = block_on(shards.reserve(&ledger, SourceKey::Server, 0));
    let before = shards.superseded();
    let mut producer = Producer::new(ledger.id, 2);
    producer.producer = "spiffe://example.org/unsigned".to_owned();
    let statement = vec![producer.intent("r")];
    losing.store(1, SeqCst);
    let lost = engine.append("trust", statement.clone());
    assert!(matches!(lost, Err(AppendError::Superseded)), "{lost:?}");
    assert_eq!(shards.superseded(), before + 1);
    let late = reservation.tick(Arc::clone(&ledger), Micros::new(1_000_000));
    assert_eq!(late.blocking_answer().err(), Some(NoAnswer::Superseded));
    let begin = |since| {
        let request = v1::AppendRequest {
            ledger: "trust".to_owned(),
            envelopes: statement.clone(),
            ..v1::AppendRequest::default()
        };
        let (sender, source) = (Sender::anybody(), engine.appends.pressure.unknown());
        let (ledger, on_quota) = (Arc::clone(&ledger), QuotaPolicy::HoldBack);
        let appends = &engine.appends;
        let request = appends.check(request).unwrap();
        block_on(async {
            let begun = appends.begin(ledger, request, &sender, &source, on_quota, since);
            begun.await?.finish().await.map(drop)
        })
    };
    assert!(matches!(begin(before), Err(AppendError::Superseded)));
    begin(before + 1).unwrap();
    assert_eq!(ledger.readable().size().get(), 3);
    drop(ledger);
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

/// Many callers, several ledgers, requests that are cut, turns on their way behind the one that is void:
/// each statement is recorded once, where its receipt says, in the order of its session.
#[test]
fn under_load_every_statement_is_recorded_once() {
    const LEDGERS: [&str; 3] = ["one", "two", "three"];
    const WRITERS: u8 = 6;
    const REQUESTS: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), Duration::ZERO, |append| match append {
        // The ledgers are made first.
        0..3 => Loss::None,
        append if append % 7 == 3 => Loss::Foreign,
        append if append % 3 == 0 => Loss::Void,
        _ => Loss::None,
    });
    let ledgers = LEDGERS.map(|name| engine.create(name).unwrap());
    let superseded: usize = std::thread::scope(|scope| {
        let (engine, ledgers) = (&engine, &ledgers);
        let write = move |writer: u8| {
            let ledger = &ledgers[usize::from(writer) % LEDGERS.len()];
            let mut producer = Producer::new(ledger.id, writer);
            let mut superseded = 0;
            let mut receipts = HashMap::new();
            for request in 0..REQUESTS {
                let envelopes: Vec<_> = (0..1 + request % 5)
                    .map(|n| producer.intent(&format!("{writer}/{request}/{n}")))
                    .collect();
                let (answer, again) = insist(engine, ledger.name(), &envelopes);
                superseded += again;
                for (envelope, result) in envelopes.iter().zip(&answer.results) {
                    let (Some(Appending::Accepted(receipt)) | Some(Appending::Duplicate(receipt))) =
                        &result.result
                    else {
                        panic!("{}", brief(result));
                    };
                    let before = receipts.insert(receipt.leaf_index, envelope.payload.clone());
                    assert_eq!(before, None);
                }
            }
            for (leaf, payload) in receipts {
                let entry = engine.store.entry(ledger.number, leaf).unwrap();
                let entry = deed_evidence::entry::Entry::parse(&entry).unwrap();
                assert_eq!(entry.payload, &payload[..], "leaf {}", LeafIndex::new(leaf));
            }
            superseded
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| scope.spawn(move || write(n)))
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    assert!(superseded > 20, "{superseded}");
    let each: u64 = (0..REQUESTS as u64).map(|request| 1 + request % 5).sum();
    for ledger in ledgers {
        assert_eq!(ledger.readable().size().get(), 1 + 2 * each);
    }
    assert!(!engine.appends.shards.has_failed());
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}
