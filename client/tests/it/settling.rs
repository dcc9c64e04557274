//! Settling in the background, with a server that does not let it succeed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use deed_client::{AppenderOptions, Error, Event, Ledger, StateDir, TrustError};
use deed_testkit::fake::{Fake, Lie};

use crate::appending::requests;

type Events = Arc<Mutex<Vec<Event>>>;

/// A ledger that is settled as often as possible.
async fn scene(state: StateDir) -> (Fake, Ledger, Events) {
    let fake = Fake::start().await;
    let events = Events::default();
    let seen = Arc::clone(&events);
    let options = fake.options().state(state).link_interval_ms(0);
    let options = options.observer(move |event| seen.lock().unwrap().push(event.clone()));
    let ledger = Ledger::connect(options).await.unwrap();
    (fake, ledger, events)
}

/// Appends all at once, so that as many heads are proven from the same one.
async fn append_at_once(fake: &Fake, ledger: &Ledger, requests: &[Vec<Bytes>]) {
    fake.answers.forget_permits(usize::MAX);
    let appender = ledger.appender(AppenderOptions::default());
    let mut recorded = fake.recorded.subscribe();
    let before = *recorded.borrow_and_update();
    let mut pending = Vec::new();
    for request in requests {
        pending.push(appender.send(request.clone()).await.unwrap());
    }
    let all = before + u32::try_from(requests.len()).unwrap();
    recorded
        .wait_for(|recorded| *recorded == all)
        .await
        .unwrap();
    fake.answers.add_permits(1 << 20);
    for pending in pending {
        pending.await.unwrap();
    }
}

fn not_settled(events: &Events) -> usize {
    let events = events.lock().unwrap();
    let failed = |event: &&Event| matches!(event, Event::HeadsNotLinked { .. });
    events.iter().filter(failed).count()
}

#[tokio::test]
async fn it_happens_once_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (fake, ledger, events) = scene(StateDir::new(directory.path())).await;
    {
        let script = &mut fake.lock().script;
        script.lie = Lie::NoConsistencyRpc;
        script.proof_delay = Duration::from_millis(100);
    }
    let requests = requests(&ledger, 1, 12, 1);
    append_at_once(&fake, &ledger, &requests).await;
    // At most one more can begin once all answers are in: nothing has piled up.
    let proofs = fake.lock().script.proofs;
    tokio::time::sleep(Duration::from_millis(450)).await;
    let later = fake.lock().script.proofs;
    assert!(later <= proofs + 1, "{proofs}, later {later}");
    // The next answer shows that the heads are still not linked, and the failure is reported.
    let request = crate::appending::requests(&ledger, 2, 1, 1).remove(0);
    ledger.append(&request).await.unwrap();
    while not_settled(&events) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(fake.lock().script.proofs_at_once, 1);
}

#[tokio::test]
async fn a_server_that_never_shows_that_its_heads_belong_together() {
    let directory = tempfile::tempdir().unwrap();
    let (fake, ledger, events) = scene(StateDir::new(directory.path())).await;
    let requests = requests(&ledger, 1, 500, 1);
    fake.lock().script.lie = Lie::NoConsistencyRpc;
    append_at_once(&fake, &ledger, &requests[..2]).await;
    let mut error = None;
    for request in &requests[2..] {
        tokio::time::sleep(Duration::from_millis(2)).await;
        error = ledger.append(request).await.err();
        if error.is_some() {
            break;
        }
    }
    let Some(Error::Trust(error)) = error else {
        panic!("{error:?}");
    };
    let TrustError::NoProof { old_size, new_size } = *error else {
        panic!("{error}");
    };
    assert!(old_size < new_size, "{error}");
    assert_eq!(not_settled(&events), 16);
    fake.lock().script.lie = Lie::None;
    assert!(ledger.head().await.is_err(), "nothing is believed any more");
    assert!(ledger.flush().await.is_err());
}

#[tokio::test]
async fn a_server_that_shows_it_later_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let (fake, ledger, events) = scene(StateDir::new(directory.path())).await;
    let requests = requests(&ledger, 1, 100, 1);
    for (round, requests) in requests.chunks(5).enumerate() {
        let refuses = round % 2 == 0;
        fake.lock().script.lie = if refuses {
            Lie::NoConsistencyRpc
        } else {
            Lie::None
        };
        append_at_once(&fake, &ledger, requests).await;
        ledger.head().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(not_settled(&events) > 0);
    ledger.flush().await.unwrap();
}
