//! Appending: pipelining, lost connections, overload, going back.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use deed_client::{
    Answer, Appended, AppenderOptions, Error, ErrorKind, Event, Header, InputError, Ledger,
    Pending, RetryPolicy, Session, StateDir, Verification,
};
use deed_evidence::{Nonce, SessionId};
use deed_proto::v1::{self, statement::Body};
use deed_testkit::fake::{Fake, options};
use tokio::sync::watch;

use crate::proxy::Proxy;

/// Statements of a session of its own, `count` requests of `size` each.
pub(crate) fn requests(ledger: &Ledger, id: u8, count: usize, size: usize) -> Vec<Vec<Bytes>> {
    let nonce = Nonce::new([id; 16]);
    let mut session = Session::with_nonce(ledger.ledger_id(), "test:agent", nonce);
    let header = Header {
        task: Some(session.task_id(&nonce)),
        ..Header::default()
    };
    let mut make = || {
        let opened = v1::TaskOpened {
            requested_by: "somebody".to_owned(),
            risk_tier: v1::RiskTier::Low.into(),
            nonce: Bytes::copy_from_slice(nonce.as_bytes()),
            ..v1::TaskOpened::default()
        };
        session
            .make(&header, Body::TaskOpened(opened))
            .unwrap()
            .payload
    };
    (0..count)
        .map(|_| (0..size).map(|_| make()).collect())
        .collect()
}

/// The session of [`requests`].
pub(crate) fn session_of(ledger: &Ledger, id: u8) -> SessionId {
    SessionId::derive(ledger.ledger_id(), "test:agent", &Nonce::new([id; 16]))
}

fn state() -> (tempfile::TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    (directory, state)
}

async fn answers(pending: Vec<Pending>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for pending in pending {
        answers.push(pending.await.unwrap());
    }
    answers
}

/// The leaf indexes of everything that has a receipt; each exactly once.
fn distinct_leaves(answers: &[Answer]) -> HashSet<u64> {
    let leaves: Vec<_> = answers
        .iter()
        .flat_map(|answer| &answer.items)
        .map(|item| {
            item.receipt()
                .expect("nothing is rejected")
                .leaf_index
                .get()
        })
        .collect();
    let distinct: HashSet<_> = leaves.iter().copied().collect();
    assert_eq!(leaves.len(), distinct.len());
    distinct
}

#[tokio::test]
async fn one_request_is_verified_and_a_second_time_a_duplicate() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    let ledger = fake.connect(&state).await;
    let request = requests(&ledger, 1, 1, 3).remove(0);
    let first = ledger.append(&request).await.unwrap();
    let second = ledger.append(&request).await.unwrap();
    for (position, (first, second)) in first.items.iter().zip(&second.items).enumerate() {
        let (Appended::Accepted(first), Appended::Duplicate(second)) = (first, second) else {
            panic!("{first:?}, {second:?}");
        };
        assert_eq!(first, second);
        assert_eq!(first.leaf_index.get(), 1 + position as u64);
        assert!(first.inclusion_verified);
    }
    assert_eq!(fake.size(), 4);
    ledger.flush().await.unwrap();
    let stored = state
        .store(&ledger.pin().origin)
        .head(ledger.pin())
        .unwrap()
        .unwrap();
    assert_eq!(Some(stored.head), second.head);
}

#[tokio::test]
async fn requests_that_no_server_takes_are_refused_here() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    let ledger = fake.connect(&state).await;
    let large = vec![Bytes::from(vec![0; 60_000]); 80];
    for request in [Vec::new(), vec![Bytes::from_static(b"x"); 4097], large] {
        let error = ledger.append(&request).await.unwrap_err();
        assert!(matches!(error, Error::Input(_)), "{error}");
        let appender = ledger.appender(AppenderOptions::default());
        assert!(matches!(appender.send(request).await, Err(Error::Input(_))));
    }
    assert_eq!(fake.lock().script.requests, 0);
}

#[tokio::test]
async fn the_pipeline_is_bounded_and_answers_keep_their_order() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    let ledger = fake.connect(&state).await;
    fake.answers.forget_permits(usize::MAX);
    let appender = Arc::new(ledger.appender(AppenderOptions {
        requests_in_flight_max: 4,
        ..AppenderOptions::default()
    }));
    let mut recorded = fake.recorded.subscribe();
    let sending = tokio::spawn({
        let (appender, requests) = (Arc::clone(&appender), requests(&ledger, 1, 20, 5));
        async move {
            let mut pending = Vec::new();
            for request in requests {
                pending.push(appender.send(request).await.unwrap());
            }
            pending
        }
    });
    recorded.wait_for(|recorded| *recorded == 4).await.unwrap();
    assert!(!sending.is_finished());
    assert_eq!(
        fake.lock().script.requests,
        4,
        "nothing is answered, so nothing more is sent"
    );
    fake.answers.add_permits(1 << 20);
    let answers = answers(sending.await.unwrap()).await;
    assert_eq!(distinct_leaves(&answers).len(), 100);
    let in_order = answers.iter().flat_map(|answer| &answer.items).map(|item| {
        assert!(matches!(item, Appended::Accepted(_)));
        item.receipt().unwrap().leaf_index.get()
    });
    assert!(in_order.eq(1..=100));
    Arc::into_inner(appender).unwrap().finish().await.unwrap();
    // The appender opened one stream, and sent no request twice.
    let state = fake.lock();
    assert_eq!((state.script.streams, state.script.requests), (1, 20));
}

#[tokio::test]
async fn a_lost_connection_loses_and_doubles_nothing() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    let proxy = Proxy::to(fake.address).await;
    let ledger = Ledger::connect(options(&proxy.url()).state(state))
        .await
        .unwrap();
    let appender = ledger.appender(AppenderOptions::default());
    // Two answers get out, then no more; eight requests are recorded all the same.
    fake.answers.forget_permits(usize::MAX);
    fake.answers.add_permits(2);
    let mut recorded = fake.recorded.subscribe();
    let mut pending = Vec::new();
    for request in requests(&ledger, 1, 8, 10) {
        pending.push(appender.send(request).await.unwrap());
    }
    let later = pending.split_off(2);
    let first = answers(pending).await;
    recorded.wait_for(|recorded| *recorded == 8).await.unwrap();
    assert_eq!(fake.size(), 81);
    assert!(proxy.cut() > 0);
    fake.answers.add_permits(1 << 20);
    let later = answers(later).await;
    appender.finish().await.unwrap();

    assert_eq!(
        fake.size(),
        81,
        "what was sent again was not recorded again"
    );
    assert_eq!(fake.lock().script.streams, 2);
    let is_duplicate = |item: &Appended| matches!(item, Appended::Duplicate(_));
    assert!(
        first
            .iter()
            .flat_map(|answer| &answer.items)
            .all(|item| !is_duplicate(item))
    );
    assert!(
        later
            .iter()
            .flat_map(|answer| &answer.items)
            .all(is_duplicate)
    );
    let all: Vec<_> = first.into_iter().chain(later).collect();
    assert_eq!(distinct_leaves(&all), (1..=80).collect());
}

#[tokio::test]
async fn a_server_that_stays_away_ends_it() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    fake.lock().script.exhausted = vec![Duration::ZERO; 100];
    let ledger = fake.connect(&state).await;
    let appender = ledger.appender(AppenderOptions::default());
    let mut requests = requests(&ledger, 1, 2, 1);
    let first = appender.send(requests.remove(0)).await.unwrap();
    let error = first.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // One stream and as many retries as the policy allows.
    assert_eq!(fake.lock().script.streams, 9);
    assert!(appender.finish().await.is_err());
}

#[tokio::test]
async fn an_overloaded_server_is_given_the_time_that_it_asks_for() {
    const ASKED: Duration = Duration::from_millis(20);
    let (fake, (_directory, state)) = (Fake::start().await, state());
    fake.lock().script.exhausted = vec![ASKED, ASKED];
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let options = fake.options().state(state).observer(move |event| {
        seen.lock().unwrap().push(event.clone());
    });
    let ledger = Ledger::connect(options).await.unwrap();
    let appender = ledger.appender(AppenderOptions::default());
    let request = requests(&ledger, 1, 1, 4).remove(0);
    let answer = appender.send(request).await.unwrap().await.unwrap();
    appender.finish().await.unwrap();
    assert!(
        answer
            .items
            .iter()
            .all(|item| matches!(item, Appended::Accepted(_)))
    );
    // The own pauses are at most 4 ms: these are the server's.
    let pauses: Vec<_> = events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::Retrying {
                attempt, pause_ms, ..
            } => Some((*attempt, *pause_ms)),
            _ => None,
        })
        .collect();
    assert_eq!(pauses.len(), 2);
    for (position, (attempt, pause_ms)) in (1..).zip(pauses) {
        assert_eq!(attempt, position);
        assert!((20..=25).contains(&pause_ms), "{pause_ms}");
    }
}

#[tokio::test]
async fn what_the_server_expects_and_is_still_held_is_sent_again() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    // The second of six requests is not recorded, so all after it come too early.
    fake.lock().script.forget = vec![false, true];
    fake.answers.forget_permits(usize::MAX);
    let ledger = fake.connect(&state).await;
    let appender = ledger.appender(AppenderOptions::default());
    let mut recorded = fake.recorded.subscribe();
    let mut pending = Vec::new();
    for request in requests(&ledger, 1, 6, 3) {
        pending.push(appender.send(request).await.unwrap());
    }
    recorded.wait_for(|recorded| *recorded == 6).await.unwrap();
    assert_eq!(fake.size(), 4, "only the first request is recorded");
    fake.answers.add_permits(1 << 20);
    let answers = answers(pending).await;
    appender.finish().await.unwrap();
    assert_eq!(fake.size(), 19);
    let in_order = answers.iter().flat_map(|answer| &answer.items).map(|item| {
        assert!(matches!(item, Appended::Accepted(_)), "{item:?}");
        item.receipt().unwrap().leaf_index.get()
    });
    assert!(in_order.eq(1..=18));
    // Six, and five again; on one stream.
    let state = fake.lock();
    assert_eq!((state.script.requests, state.script.streams), (11, 1));
}

#[tokio::test]
async fn requests_handed_over_in_the_wrong_order_end_up_in_the_right_one() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    fake.answers.forget_permits(usize::MAX);
    let ledger = fake.connect(&state).await;
    let appender = ledger.appender(AppenderOptions::default());
    let mut recorded = fake.recorded.subscribe();
    let mut pending = Vec::new();
    for request in requests(&ledger, 1, 3, 2).into_iter().rev() {
        pending.push(appender.send(request).await.unwrap());
    }
    recorded.wait_for(|recorded| *recorded == 3).await.unwrap();
    fake.answers.add_permits(1 << 20);
    let answers = answers(pending).await;
    appender.finish().await.unwrap();
    let leaves: Vec<_> = answers
        .iter()
        .flat_map(|answer| &answer.items)
        .map(|item| item.receipt().unwrap().leaf_index.get())
        .collect();
    assert_eq!(leaves, [5, 6, 3, 4, 1, 2]);
}

#[tokio::test]
async fn going_back_in_vain_ends_with_the_rejection() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    fake.lock().script.forget_always = true;
    let ledger = fake.connect(&state).await;
    let appender = ledger.appender(AppenderOptions::default());
    let request = requests(&ledger, 1, 1, 2).remove(0);
    let answer = appender.send(request).await.unwrap().await.unwrap();
    appender.finish().await.unwrap();
    for item in &answer.items {
        let Appended::Rejected(rejection) = item else {
            panic!("{item:?}")
        };
        assert_eq!(rejection.reason(), v1::rejection::Reason::SequenceNotNext);
    }
    assert_eq!(answer.items.len(), 2);
    // One request and as many retries as the policy allows.
    assert_eq!(fake.lock().script.requests, 9);
}

#[tokio::test]
async fn each_request_may_go_back_in_vain_by_itself() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    fake.lock().script.forget_always = true;
    let ledger = fake.connect(&state).await;
    let appender = ledger.appender(AppenderOptions::default());
    for (id, sent) in [(1, 9), (2, 18)] {
        let request = requests(&ledger, id, 1, 2).remove(0);
        let answer = appender.send(request).await.unwrap().await.unwrap();
        assert!(answer.items.iter().all(|item| item.receipt().is_none()));
        assert_eq!(fake.lock().script.requests, sent);
    }
    appender.finish().await.unwrap();
}

#[tokio::test]
async fn what_waits_for_a_rejected_statement_is_not_sent_again() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    fake.lock().script.unwanted = vec![1];
    let went_back = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&went_back);
    let options = fake.options().state(state).observer(move |event| {
        *seen.lock().unwrap() |= matches!(event, Event::WentBack { .. });
    });
    let ledger = Ledger::connect(options).await.unwrap();
    let appender = ledger.appender(AppenderOptions::default());
    let request = requests(&ledger, 1, 1, 4).remove(0);
    let answer = appender.send(request).await.unwrap().await.unwrap();
    appender.finish().await.unwrap();
    let reasons: Vec<_> = answer
        .items
        .iter()
        .map(|item| match item {
            Appended::Rejected(rejection) => Some(rejection.reason()),
            _ => None,
        })
        .collect();
    let waits = Some(v1::rejection::Reason::SequenceNotNext);
    let unwanted = Some(v1::rejection::Reason::Malformed);
    assert_eq!(reasons, [None, unwanted, waits, waits]);
    assert_eq!(fake.lock().script.requests, 1);
    assert!(!*went_back.lock().unwrap());
}

/// The connection is lost between the last answer and going back, so that the first request is
/// put into a stream that nobody reads any more.
#[tokio::test]
async fn going_back_on_a_lost_connection_keeps_the_order() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    fake.lock().script.forget = vec![true; 3];
    fake.answers.forget_permits(usize::MAX);
    let proxy = Proxy::to(fake.address).await;
    let went_back = watch::Sender::new(0);
    let seen = went_back.clone();
    let options = options(&proxy.url()).state(state).observer(move |event| {
        if matches!(event, Event::WentBack { .. }) {
            seen.send_modify(|times| *times += 1);
        }
    });
    // The pause before going back: half a second at least.
    let options = options.retry(RetryPolicy {
        initial_ms: 1_000,
        ..RetryPolicy::default()
    });
    let ledger = Ledger::connect(options).await.unwrap();
    let appender = ledger.appender(AppenderOptions::default());
    let mut recorded = fake.recorded.subscribe();
    let mut pending = Vec::new();
    for request in requests(&ledger, 1, 3, 2) {
        pending.push(appender.send(request).await.unwrap());
    }
    recorded.wait_for(|recorded| *recorded == 3).await.unwrap();
    fake.answers.add_permits(1 << 20);
    let mut times = went_back.subscribe();
    times.wait_for(|times| *times == 3).await.unwrap();
    assert!(proxy.cut() > 0);
    let answers = answers(pending).await;
    appender.finish().await.unwrap();
    assert_eq!(distinct_leaves(&answers), (1..=6).collect());
    let state = fake.lock();
    assert_eq!(state.script.sequences, [0, 2, 4, 0, 2, 4]);
    assert_eq!(state.script.streams, 2);
}

#[tokio::test]
async fn a_hole_that_nobody_holds_is_the_callers_to_fill() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    let ledger = fake.connect(&state).await;
    let appender = ledger.appender(AppenderOptions::default());
    let request = requests(&ledger, 1, 2, 1).remove(1);
    let answer = appender.send(request).await.unwrap().await.unwrap();
    let Appended::Rejected(rejection) = &answer.items[0] else {
        panic!("{answer:?}")
    };
    assert_eq!(rejection.expected_sequence, Some(0));
    assert_eq!(fake.lock().script.requests, 1);
    appender.finish().await.unwrap();
}

#[tokio::test]
async fn every_request_names_a_verified_head() {
    let (fake, (_directory, state)) = (Fake::start().await, state());
    let ledger = fake.connect(&state).await;
    for request in requests(&ledger, 1, 4, 2) {
        ledger.append(&request).await.unwrap();
    }
    assert_eq!(
        fake.lock().script.bases,
        [Some(1), Some(3), Some(5), Some(7)]
    );
}

#[tokio::test]
async fn without_verification_nothing_is_asked_for_or_stored() {
    let (fake, (directory, state)) = (Fake::start().await, state());
    let options = fake.options().state(state).verification(Verification::Off);
    let ledger = Ledger::connect(options).await.unwrap();
    let answer = ledger.append(&requests(&ledger, 1, 1, 2)[0]).await.unwrap();
    assert_eq!(answer.head, None);
    assert!(
        answer
            .items
            .iter()
            .all(|item| !item.receipt().unwrap().inclusion_verified)
    );
    assert_eq!(fake.lock().script.bases, [None]);
    ledger.flush().await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(matches!(
        ledger.watch_heads(),
        Err(Error::Input(InputError::Unverified))
    ));
}
