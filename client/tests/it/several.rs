//! Several servers of one ledger: dead ones, copies that lag, and one that lies.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use deed_client::{
    AppenderOptions, Error, ErrorKind, Event, FindingFilter, ForkEvidence, ForkKind, Leaf, Ledger,
    Options, RetryPolicy, SearchTerms, StateDir, TrustError,
};
use deed_evidence::TaskId;
use deed_testkit::fake::{Fake, Lag, Lie, Whim, options};
use deed_tlog::{LeafIndex, TreeSize};
use tonic::Code;

use crate::appending::{requests, session_of};

/// A server with six leaves, a copy with `copied` of them, and a client that trusts all six.
struct Scene {
    fake: Fake,
    copy: Fake,
    ledger: Ledger,
    state: StateDir,
    events: Events,
    _directory: tempfile::TempDir,
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    fn watch(&self, options: Options) -> Options {
        let events = self.clone();
        options.observer(move |event| events.0.lock().unwrap().push(event.clone()))
    }

    /// Servers that were left for another one, and whether they were behind.
    fn left(&self) -> Vec<(String, bool)> {
        let events = self.0.lock().unwrap();
        let left = events.iter().filter_map(|event| match event {
            Event::OtherServer { failed, behind, .. } => Some((failed.clone(), *behind)),
            _ => None,
        });
        left.collect()
    }
}

async fn scene(copied: usize) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let fake = Fake::start().await;
    (1..6).for_each(|seed| fake.add_leaf(seed));
    let copy = fake.twin(copied).await;
    let events = Events::default();
    let options = fake.options().or_server(copy.url()).state(state.clone());
    let ledger = Ledger::connect(events.watch(options)).await.unwrap();
    assert_eq!(size(&ledger).await, 6);
    ledger.flush().await.unwrap();
    Scene {
        fake,
        copy,
        ledger,
        state,
        events,
        _directory: directory,
    }
}

impl Scene {
    fn lag(&self, fake: Lag, copy: Lag) {
        self.fake.lock().script.lag = fake;
        self.copy.lock().script.lag = copy;
    }

    fn forks(&self) -> Vec<ForkEvidence> {
        let store = self.state.store(&self.ledger.pin().origin);
        let forks = store.forks().unwrap();
        let read = |path: &_| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        forks.iter().map(read).collect()
    }

    async fn head_error(&self) -> Error {
        self.ledger.head().await.unwrap_err()
    }
}

async fn size(ledger: &Ledger) -> u64 {
    ledger.head().await.unwrap().signed.head.size.get()
}

/// An address at which nobody listens.
fn dead() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn fork_of(error: &Error) -> Option<ForkKind> {
    match error {
        Error::Trust(error) => match **error {
            TrustError::Fork { kind, .. } => Some(kind),
            _ => None,
        },
        _ => None,
    }
}

/// Returns every kind of read with its outcome.
async fn reads(ledger: &Ledger) -> Vec<(&'static str, Result<(), Error>)> {
    let leaf = LeafIndex::new(2);
    let (first, six) = (LeafIndex::new(0), TreeSize::new(6));
    let terms = SearchTerms {
        task: Some(TaskId::new([9; 16])),
        ..SearchTerms::default()
    };
    let filter = FindingFilter::default();
    vec![
        ("head", ledger.head().await.map(drop)),
        (
            "watch",
            ledger.watch_heads().unwrap().next().await.map(drop),
        ),
        (
            "leaf",
            ledger.prove_leaf(Leaf::Index(leaf), None).await.map(drop),
        ),
        ("entry", ledger.entry(leaf, None).await.map(drop)),
        ("entries", ledger.entries(first, six).next().await.map(drop)),
        (
            "consistency",
            ledger.prove_consistency(2.into(), None).await.map(drop),
        ),
        ("trust", ledger.trust_chain().await.map(drop)),
        ("keys", ledger.update_log_keys().await.map(drop)),
        (
            "session",
            ledger.session(session_of(ledger, 77)).await.map(drop),
        ),
        ("search", ledger.search(terms).next().await.map(drop)),
        ("findings", ledger.findings(&filter, 10).await.map(drop)),
        (
            "new findings",
            ledger.watch_findings(filter.clone()).next().await.map(drop),
        ),
    ]
}

#[tokio::test]
async fn servers_that_are_not_there_are_passed_over() {
    let scene = scene(6).await;
    let (dead, live) = (dead(), scene.copy.url());
    for urls in [[&dead, &live], [&live, &dead]] {
        let ledger = Ledger::connect(options(urls[0]).or_server(urls[1])).await;
        let ledger = ledger.unwrap();
        assert_eq!(ledger.connection().server(), live);
        assert_eq!(size(&ledger).await, 6);
        assert_eq!(size(&ledger.connect_again().await.unwrap()).await, 6);
    }
    let other = self::dead();
    let error = Ledger::connect(options(&dead).or_server(&other)).await;
    let Err(Error::Unreachable { server, reason }) = error else {
        panic!("nobody is there");
    };
    assert_eq!(server, format!("{dead}, {other}"));
    assert!(
        reason.contains(&dead) && reason.contains(&other),
        "{reason}"
    );
    // An address that is refused as the only one is refused as one of several, whether it answers or not.
    let error = Ledger::connect(options(&live).or_server("ftp://x")).await;
    assert!(matches!(error, Err(Error::Input(_))));
}

#[tokio::test]
async fn a_server_that_fails_is_left_for_the_next_one() {
    let scene = scene(6).await;
    scene.lag(Lag::Down, Lag::None);
    for (read, outcome) in reads(&scene.ledger).await {
        assert!(outcome.is_ok(), "{read}: {outcome:?}");
    }
    // All later calls begin at the one that answers.
    assert_eq!(scene.events.left(), [(scene.fake.url(), false)]);
    assert_eq!(scene.ledger.connection().server(), scene.copy.url());
    scene.lag(Lag::None, Lag::Down);
    assert_eq!(size(&scene.ledger).await, 6);
    assert_eq!(scene.ledger.connection().server(), scene.fake.url());
    scene.lag(Lag::Down, Lag::Down);
    let error = scene.head_error().await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn statements_go_to_the_server_that_takes_them() {
    let scene = scene(6).await;
    let lose = |code| Whim::Lose {
        record: false,
        code,
    };
    let whims = [Code::Unavailable, Code::ResourceExhausted];
    scene.fake.lock().script.whims = whims.map(lose).into();
    let [one, other] = [1, 2].map(|id| requests(&scene.ledger, id, 1, 3).remove(0));
    scene.ledger.append(&one).await.unwrap();
    assert_eq!((scene.fake.size(), scene.copy.size()), (6, 9));
    // The stream goes there at once. What was recorded and not answered comes back as a duplicate.
    scene.copy.lock().script.whims = [Whim::Lose {
        record: true,
        code: Code::Unavailable,
    }]
    .into();
    scene.fake.follow(&scene.copy);
    let appender = scene.ledger.appender(AppenderOptions::default());
    let pending = appender.send(other).await.unwrap();
    // The first server fails once more, and the one that recorded it answers.
    pending.await.unwrap();
    appender.finish().await.unwrap();
    assert_eq!((scene.fake.size(), scene.copy.size()), (9, 12));
    assert_eq!(size(&scene.ledger).await, 12);
}

#[tokio::test]
async fn a_copy_that_lags_is_passed_over() {
    let scene = scene(4).await;
    // The copy is asked first.
    let options = options(&scene.copy.url()).or_server(scene.fake.url());
    let options = scene.events.watch(options.state(scene.state.clone()));
    let ledger = Ledger::connect(options).await.unwrap();
    for (read, outcome) in reads(&ledger).await {
        assert!(outcome.is_ok(), "{read}: {outcome:?}");
    }
    assert_eq!(scene.events.left(), [(scene.copy.url(), true)]);
    assert!(scene.forks().is_empty());
}

#[tokio::test]
async fn a_copy_that_catches_up_is_waited_for() {
    let scene = scene(4).await;
    let ledger = Ledger::connect(options(&scene.copy.url()).state(scene.state.clone()));
    let ledger = ledger.await.unwrap();
    let catch_up = async {
        while scene.copy.lock().script.behinds == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scene.copy.follow(&scene.fake);
    };
    assert_eq!(tokio::join!(size(&ledger), catch_up).0, 6);
    ledger.flush().await.unwrap();
}

#[tokio::test]
async fn copies_that_lag_behind_one_address_are_no_fork() {
    let scene = scene(6).await;
    // The head is one that was read before it grew; the proof comes from a copy that has both.
    scene.fake.lock().script.lie = Lie::OldHead;
    scene.lag(Lag::AllButProofs, Lag::AllButProofs);
    scene.copy.lock().script.lie = Lie::OldHead;
    for _ in 0..2 {
        let error = scene.head_error().await;
        let Error::Behind {
            found: Some(5),
            trusted: 6,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("was checked here"), "{error}");
    }
    // Nothing is held against them.
    scene.fake.lock().script.lie = Lie::None;
    scene.lag(Lag::None, Lag::Down);
    assert_eq!(size(&scene.ledger).await, 6);
    scene.ledger.flush().await.unwrap();
    assert!(scene.forks().is_empty());
}

#[tokio::test]
async fn nothing_is_said_of_a_copy_that_lags_while_the_others_are_away() {
    let scene = scene(4).await;
    scene.lag(Lag::Down, Lag::None);
    let error = scene.head_error().await;
    let Error::NotShown {
        old_size: 4,
        new_size: 6,
        server,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*server, scene.fake.url());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(scene.forks().is_empty());
    // It was no lie: the other one shows it.
    scene.lag(Lag::None, Lag::None);
    assert_eq!(size(&scene.ledger).await, 6);
    scene.ledger.flush().await.unwrap();
}

#[tokio::test]
async fn servers_that_all_lost_what_was_signed_are_found_out() {
    for lag in [Lag::None, Lag::Ignored] {
        let scene = scene(4).await;
        let [one, other] = [3, 4].map(|keep| scene.fake.twin(keep));
        let (one, other) = (one.await, other.await);
        for server in [&one, &other] {
            server.lock().script.lag = lag;
        }
        for urls in [vec![one.url()], vec![one.url(), other.url()]] {
            let mut options = options(&urls[0]).state(scene.state.clone());
            for url in &urls[1..] {
                options = options.or_server(url);
            }
            let ledger = Ledger::connect(options).await.unwrap();
            let error = ledger.head().await.unwrap_err();
            assert_eq!(fork_of(&error), Some(ForkKind::NoProof), "{error}");
            assert_eq!(error.kind(), ErrorKind::DoesNotVerify);
            let again = ledger.head().await.unwrap_err();
            assert_eq!(again.to_string(), error.to_string());
        }
        let servers = scene.forks().into_iter().map(|fork| fork.server);
        let both = format!("{}, {}", one.url(), other.url());
        assert!(
            servers
                .into_iter()
                .any(|server| server == both || server == one.url())
        );
    }
}

#[tokio::test]
async fn one_that_lost_what_it_signed_tells_nothing_beside_an_honest_one() {
    let scene = scene(2).await;
    let options = options(&scene.copy.url()).or_server(scene.fake.url());
    let ledger = Ledger::connect(options.state(scene.state.clone()))
        .await
        .unwrap();
    for (read, outcome) in reads(&ledger).await {
        assert!(outcome.is_ok(), "{read}: {outcome:?}");
    }
    assert_eq!(ledger.connection().server(), scene.fake.url());
}

#[tokio::test]
async fn two_histories_at_two_servers_are_a_fork() {
    for (added, kind) in [(3, ForkKind::SameSize), (9, ForkKind::ProofFails)] {
        let scene = scene(3).await;
        (100..100 + added).for_each(|seed| scene.copy.add_leaf(seed));
        assert_eq!(size(&scene.ledger).await, 6, "the first server is honest");
        scene.lag(Lag::Down, Lag::None);
        let error = scene.head_error().await;
        assert_eq!(fork_of(&error), Some(kind), "{error}");
        let forks = scene.forks();
        assert_eq!(forks.len(), 1);
        let both = format!("{}, {}", scene.fake.url(), scene.copy.url());
        assert_eq!(forks[0].server, both);
        // Nothing is believed any more, of the honest one either: it is not known which one is.
        scene.lag(Lag::None, Lag::None);
        assert_eq!(fork_of(&scene.head_error().await), Some(kind));
    }
}

/// A fork that is shorter than what is trusted hides behind "I lag": its head gives it away.
#[tokio::test]
async fn a_shorter_history_at_a_server_that_says_it_lags_is_a_fork() {
    let scene = scene(3).await;
    scene.copy.add_leaf(100);
    let options = options(&scene.copy.url()).state(scene.state.clone());
    let alone = Ledger::connect(options).await.unwrap();
    let error = alone.head().await.unwrap_err();
    // It has no proof, and no other server is known that could have one.
    assert_eq!(fork_of(&error), Some(ForkKind::NoProof), "{error}");
    // Asked as one of two, its head is compared by the other one's proof.
    scene.lag(Lag::AllButProofs, Lag::None);
    let error = scene.head_error().await;
    assert_eq!(fork_of(&error), Some(ForkKind::ProofFails), "{error}");
}

/// A proof that does not hold accuses nobody as long as another server has one that does.
#[tokio::test]
async fn a_proof_that_does_not_hold_is_asked_for_elsewhere() {
    let scene = scene(6).await;
    scene.fake.lock().script.lie = Lie::Consistency;
    let proven = scene
        .ledger
        .prove_leaf(Leaf::Index(LeafIndex::new(1)), Some(4.into()));
    assert_eq!(proven.await.unwrap().head.head.size.get(), 4);
    scene.ledger.flush().await.unwrap();
    assert!(scene.forks().is_empty());
    scene.copy.lock().script.lie = Lie::Consistency;
    let proven = scene
        .ledger
        .prove_leaf(Leaf::Index(LeafIndex::new(1)), Some(3.into()));
    let error = proven.await.unwrap_err();
    assert_eq!(fork_of(&error), Some(ForkKind::ProofFails), "{error}");
}

/// A proof that does not hold proves nothing while a server that may have a good one is silent.
#[tokio::test]
async fn a_bad_proof_beside_a_silent_server_is_no_fork() {
    let scene = scene(6).await;
    scene.fake.lock().script.lie = Lie::Consistency;
    scene.lag(Lag::None, Lag::Down);
    let four = || {
        let leaf = Leaf::Index(LeafIndex::new(1));
        scene.ledger.prove_leaf(leaf, Some(4.into()))
    };
    let error = four().await.unwrap_err();
    assert_eq!(fork_of(&error), None, "{error}");
    assert!(matches!(error, Error::NotShown { .. }), "{error}");
    assert!(scene.forks().is_empty());
    scene.lag(Lag::None, Lag::None);
    assert_eq!(four().await.unwrap().head.head.size.get(), 4);
}

/// A newer head that comes with a bad proof, or with none, is proven by another server.
#[tokio::test]
async fn a_bad_proof_inside_of_an_answer_is_asked_for_elsewhere() {
    let scene = scene(6).await;
    for server in [&scene.fake, &scene.copy] {
        server.add_leaf(6);
    }
    scene.fake.lock().script.lie = Lie::Consistency;
    assert_eq!(size(&scene.ledger).await, 7);
    assert_eq!(scene.ledger.connection().server(), scene.copy.url());
    scene.ledger.flush().await.unwrap();
    assert!(scene.forks().is_empty());
}

/// The head beside a proof that holds is no evidence against anybody if nobody has signed it.
#[tokio::test]
async fn a_head_beside_a_good_proof_does_not_keep_heads_apart() {
    let scene = scene(6).await;
    scene.fake.lock().script.lie = Lie::ProofHead;
    let leaf = Leaf::Index(LeafIndex::new(1));
    let proven = scene.ledger.prove_leaf(leaf, Some(4.into())).await.unwrap();
    assert_eq!(proven.head.head.size.get(), 4);
    assert!(scene.forks().is_empty());
}

/// The other history is as long as the trusted one; its server is asked for a proof only.
#[tokio::test]
async fn a_head_that_comes_with_a_useless_proof_is_compared_all_the_same() {
    let scene = scene(3).await;
    (100..103).for_each(|seed| scene.copy.add_leaf(seed));
    scene.copy.lock().script.lie = Lie::Consistency;
    let options = options(&scene.copy.url()).or_server(scene.fake.url());
    let ledger = Ledger::connect(options.state(scene.state.clone()))
        .await
        .unwrap();
    let note = {
        let head = scene.fake.twin(4).await;
        let alone = Ledger::connect(head.options()).await.unwrap();
        alone.head().await.unwrap().signed.note
    };
    let error = ledger.trust_note(&note).await.unwrap_err();
    assert_eq!(fork_of(&error), Some(ForkKind::SameSize), "{error}");
    assert_eq!(scene.forks().len(), 1);
}

#[tokio::test]
async fn to_say_behind_for_ever_comes_to_an_end() {
    for (lag, shown) in [(Lag::Always, true), (Lag::Everything, false)] {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::start().await;
        (1..6).for_each(|seed| fake.add_leaf(seed));
        let ledger = fake.connect(&StateDir::new(directory.path())).await;
        assert_eq!(size(&ledger).await, 6);
        fake.lock().script.lag = lag;
        let begun = Instant::now();
        let outcomes = reads(&ledger).await;
        let reads = u32::try_from(outcomes.len()).unwrap();
        for (read, outcome) in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{read}: {error}");
            assert!(error.to_string().contains("behind") || error.to_string().contains("fewer"));
        }
        // Two rounds, its head, and two more rounds if that is as large as it has to be.
        let most = reads * if shown { 4 } else { 3 };
        let behinds = fake.lock().script.behinds;
        assert!(behinds <= most, "{behinds} of {most} at {lag:?}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        // It is believed again when it answers.
        fake.lock().script.lag = Lag::None;
        assert_eq!(size(&ledger).await, 6);
    }
}

#[tokio::test]
async fn to_say_behind_for_ever_does_not_hold_up_an_honest_server() {
    let scene = scene(6).await;
    for lag in [Lag::Always, Lag::Everything] {
        scene.lag(lag, Lag::None);
        for (read, outcome) in reads(&scene.ledger).await {
            assert!(outcome.is_ok(), "{read}: {outcome:?}");
        }
    }
    assert_eq!(scene.events.left(), [(scene.fake.url(), true)]);
}

/// A server that shows its head, and one more each time, and says that it is behind all the same.
#[tokio::test]
async fn a_server_that_grows_and_says_behind_comes_to_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    fake.lock().script.lag = Lag::AllButProofs;
    let (growing, asked) = (fake.clone(), ledger.clone());
    let grow = tokio::spawn(async move {
        for seed in 0.. {
            growing.add_leaf(seed);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let error = asked.prove_leaf(Leaf::Index(LeafIndex::new(0)), None).await;
    grow.abort();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_fork_is_told_even_if_nothing_is_tried_again() {
    let scene = scene(3).await;
    let options = options(&scene.copy.url()).retry(RetryPolicy::never());
    let ledger = Ledger::connect(options.state(scene.state.clone()))
        .await
        .unwrap();
    let error = ledger.head().await.unwrap_err();
    assert_eq!(fork_of(&error), Some(ForkKind::NoProof), "{error}");
}

#[tokio::test]
async fn each_server_is_known_to_have_this_ledger_from_then_on() {
    let scene = scene(6).await;
    for url in [scene.fake.url(), scene.copy.url()] {
        let known = scene.state.known_origin(&url, scene.fake.name()).unwrap();
        assert_eq!(known.unwrap(), scene.ledger.pin().origin.to_string());
    }
    // One that is known to have another one under this name is not taken along.
    let other = "http://127.0.0.1:9";
    let origin = "fake.example/logs/another".parse().unwrap();
    let name = scene.fake.name();
    scene.state.keep_origin(other, name, &origin).unwrap();
    let options = scene.fake.options().or_server(other);
    let error = Ledger::connect(options.state(scene.state.clone())).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify);
    assert!(error.to_string().contains("another"), "{error}");
}
