//! A server that refuses, loses and lies as it likes: whatever it says, nobody is made to say two
//! things in one place of a session.

use std::{sync::Arc, time::Duration};

use deed_client::{
    AppenderOptions, Ledger, Session, SessionError, Signing, StateDir, Statement, StoredSession,
    Sync, Task,
};
use deed_evidence::{LedgerId, Nonce, Sequence, TaskId};
use deed_proto::v1::{self, statement::Body};
use deed_testkit::fake::{Fake, Whim, any_whims};
use deed_tlog::SigningKey;
use proptest::prelude::*;

const AGENT: &str = "spiffe://example.org/agent";

async fn whimsical(whims: &[Whim], length: Option<usize>) -> Fake {
    let fake = Fake::start().await;
    {
        let script = &mut fake.lock().script;
        script.whims = whims.iter().copied().collect();
        script.session_length = length;
    }
    fake
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[31; 32]))
}

fn closed(reason: usize) -> Body {
    Body::TaskClosed(v1::TaskClosed {
        end: v1::TaskEnd::Failed.into(),
        reason: format!("reason {reason}"),
    })
}

/// Sends statements with `Task`, whatever is said to each of them.
async fn speaks(ledger: &Ledger) {
    let session = Session::with_nonce(ledger.ledger_id(), AGENT, Nonce::new([1; 16]));
    let mut task = Task::of(ledger, session, Signing::Each(key()), TaskId::new([2; 16]));
    for n in 0..10 {
        let _ = task
            .close(v1::TaskEnd::Failed, &format!("reason {n}"))
            .await;
    }
}

/// The session on disk. A process that another test has just started may hold its lock, until it runs
/// its own program: it has all that was open here.
async fn opened(state: &StateDir, id: LedgerId, signing: &Signing) -> StoredSession {
    for _ in 0..100 {
        match StoredSession::open(state, id, "whims", AGENT, signing, Sync::System) {
            Err(SessionError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the session is in use for two seconds");
}

/// Sends statements of a session on disk through an appender; the session is opened again and
/// again.
async fn goes_on(ledger: &Ledger, state: &StateDir, signing: Signing) {
    let header = deed_client::Header {
        task: Some(TaskId::new([2; 16])),
        ..deed_client::Header::default()
    };
    for n in 0..6 {
        let id = ledger.ledger_id();
        let mut stored = opened(state, id, &signing).await;
        let mut maker = stored.maker();
        let made: Vec<Statement> = (0..2)
            .map(|m| maker.make(&header, closed(2 * n + m)).unwrap().into())
            .collect();
        stored.append(&made).unwrap();
        let appender = ledger.appender(AppenderOptions {
            signing: signing.clone(),
            ..AppenderOptions::default()
        });
        let waiting: Vec<_> = stored.unacknowledged().cloned().collect();
        let mut sent = Vec::new();
        for statement in &waiting {
            match appender.send(vec![statement.clone()]).await {
                Ok(pending) => sent.push(pending),
                Err(_) => break,
            }
        }
        for (statement, pending) in waiting.iter().zip(sent) {
            let Ok(answer) = pending.await else { break };
            let place = deed_evidence::statement::parse(&statement.payload).unwrap();
            match &answer.items[0] {
                deed_client::Appended::Rejected(rejection) => {
                    let expected = rejection.expected_sequence.map(Sequence::new);
                    stored.refused(place.sequence, expected).unwrap();
                    break;
                }
                _ => stored
                    .acknowledge(Sequence::new(place.sequence.get() + 1))
                    .unwrap(),
            }
        }
        let _ = appender.finish().await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_task_says_one_thing_in_one_place((whims, length) in any_whims()) {
        let otherwise = runtime().block_on(async {
            let fake = whimsical(&whims, length).await;
            let directory = tempfile::tempdir().unwrap();
            let ledger = fake.connect(&StateDir::new(directory.path())).await;
            speaks(&ledger).await;
            let script = &fake.lock().script;
            (script.said_otherwise.clone(), script.said.len())
        });
        prop_assert_eq!(otherwise.0, Vec::<u64>::new());
        prop_assert!(otherwise.1 > 0);
    }

    #[test]
    fn a_stored_session_says_one_thing_in_one_place(
        (whims, length) in any_whims(),
        batch in any::<bool>(),
    ) {
        let otherwise = runtime().block_on(async {
            let fake = whimsical(&whims, length).await;
            let directory = tempfile::tempdir().unwrap();
            let state = StateDir::new(directory.path());
            let ledger = fake.connect(&state).await;
            let signing = match batch {
                true => Signing::Batch(key()),
                false => Signing::Each(key()),
            };
            goes_on(&ledger, &state, signing).await;
            let script = &fake.lock().script;
            (script.said_otherwise.clone(), script.said.len())
        });
        prop_assert_eq!(otherwise.0, Vec::<u64>::new());
        prop_assert!(otherwise.1 > 0);
    }
}
