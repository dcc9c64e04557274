//! Signed batches against a ledger in memory that keeps a server's rules for them: what waits is
//! signed once, what goes out again goes out as the same bytes, and what another cut recorded is
//! found.

mod memory;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use deed_client::{
    Answer, AnswerError, Appended, AppenderOptions, Error, InputError, Leaf, Ledger, Pending,
    Session, Signing, StateDir, Statement, key,
};
use deed_evidence::{
    Micros, Nonce, Sequence, SessionId, TaskId,
    batch::Manifest,
    entry::{Entry, KeyedSignature},
    genesis::Genesis,
    signature, statement,
};
use deed_proto::v1::{
    self, append_result::Result as Item, ledger_server::Ledger as LedgerService,
    ledger_server::LedgerServer, log_server::Log as LogService, log_server::LogServer,
    rejection::Reason,
};
use deed_testkit::fake::{NAME, authority, options};
use deed_testkit::merkle;
use deed_tlog::{
    BatchPosition, BatchTree, Checkpoint, Hash, NoteSigner, Origin, SigningKey, TreeHead, TreeSize,
    leaf_hash,
};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::appending::{requests, session_of};
use memory::*;

struct Scene {
    memory: Memory,
    ledger: Ledger,
    signing: Signing,
    _directory: tempfile::TempDir,
}

fn signing_key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[11; 32]))
}

async fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::start().await;
    let ledger = memory.connect(&StateDir::new(directory.path())).await;
    Scene {
        memory,
        ledger,
        signing: Signing::Batch(signing_key()),
        _directory: directory,
    }
}

impl Scene {
    fn options(&self) -> AppenderOptions {
        AppenderOptions {
            signing: self.signing.clone(),
            ..AppenderOptions::default()
        }
    }

    /// Statements of one session, in one piece.
    fn statements(&self, count: usize) -> Vec<Bytes> {
        requests(&self.ledger, 1, 1, count).remove(0)
    }
}

async fn answers(pending: Vec<Pending>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for pending in pending {
        answers.push(pending.await.unwrap());
    }
    answers
}

/// Each receipt lies behind its manifest, and none is there twice.
fn leaves(answers: &[Answer]) -> Vec<u64> {
    let mut seen = HashSet::new();
    let receipts = answers.iter().flat_map(|answer| &answer.items);
    receipts
        .map(|item| {
            let receipt = item.receipt().expect("nothing is rejected");
            assert!(receipt.manifest.unwrap() < receipt.leaf_index);
            assert!(receipt.inclusion_verified);
            assert!(seen.insert(receipt.leaf_index));
            receipt.leaf_index.get()
        })
        .collect()
}

#[tokio::test]
async fn one_signature_covers_a_request_and_each_statement_has_its_receipt() {
    let scene = scene().await;
    let payloads = scene.statements(5);
    let appender = scene.ledger.appender(scene.options());
    let pending = appender.send(payloads.clone()).await.unwrap();
    let answers = answers(vec![pending]).await;
    appender.finish().await.unwrap();
    assert_eq!(leaves(&answers), [2, 3, 4, 5, 6]);
    assert_eq!(answers[0].items.len(), 5);
    // Once more, in one request: all of it was recorded before, and says so.
    let statements: Vec<Statement> = payloads.into_iter().map(Into::into).collect();
    let again = scene.ledger.append_signed(&statements, &scene.signing);
    let again = again.await.unwrap();
    let duplicates = again.items.iter().map(|item| match item {
        Appended::Duplicate(receipt) => receipt.leaf_index.get(),
        other => panic!("{other:?}"),
    });
    assert_eq!(duplicates.collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_waits_while_batches_are_under_way_becomes_one() {
    let scene = scene().await;
    scene.memory.answers.forget_permits(usize::MAX);
    let appender = scene.ledger.appender(scene.options());
    let mut recorded = scene.memory.recorded.subscribe();
    let mut payloads = scene.statements(24).into_iter();
    let mut pending = Vec::new();
    // Statements do not wait as long as few requests are under way.
    for batch in 1..=4 {
        let next = payloads.by_ref().take(1);
        pending.push(appender.send(next).await.unwrap());
        recorded
            .wait_for(|recorded| *recorded == batch)
            .await
            .unwrap();
    }
    for payload in payloads {
        pending.push(appender.send([payload]).await.unwrap());
    }
    scene.memory.answers.add_permits(1 << 20);
    let answers = answers(pending).await;
    appender.finish().await.unwrap();
    assert_eq!(scene.memory.sizes(), [1, 1, 1, 1, 20]);
    assert!(answers.iter().all(|answer| answer.items.len() == 1));
    let after_first_four = 10..30;
    let expected: Vec<u64> = [2, 4, 6, 8].into_iter().chain(after_first_four).collect();
    assert_eq!(leaves(&answers), expected);
}

#[tokio::test]
async fn another_session_begins_another_batch() {
    let scene = scene().await;
    scene.memory.answers.forget_permits(usize::MAX);
    let appender = scene.ledger.appender(scene.options());
    let mut recorded = scene.memory.recorded.subscribe();
    let mut pending = Vec::new();
    let mut first = requests(&scene.ledger, 1, 6, 1).into_iter();
    for batch in 1..=4 {
        pending.push(appender.send(first.next().unwrap()).await.unwrap());
        recorded
            .wait_for(|recorded| *recorded == batch)
            .await
            .unwrap();
    }
    let others = requests(&scene.ledger, 2, 3, 1).into_iter();
    for request in first.chain(others) {
        pending.push(appender.send(request).await.unwrap());
    }
    scene.memory.answers.add_permits(1 << 20);
    leaves(&answers(pending).await);
    appender.finish().await.unwrap();
    assert_eq!(scene.memory.sizes(), [1, 1, 1, 1, 2, 3]);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_here() {
    let scene = scene().await;
    let appender = scene.ledger.appender(scene.options());
    let mut payloads = scene.statements(4);
    payloads.remove(2);
    let error = appender.send(payloads.clone()).await.unwrap_err();
    let wanted = InputError::NotNextInBatch { position: 2 };
    assert!(matches!(error, Error::Input(error) if error == wanted));
    let statements: Vec<Statement> = payloads.into_iter().map(Into::into).collect();
    let error = scene.ledger.append_signed(&statements, &scene.signing);
    let error = error.await.unwrap_err();
    assert!(
        matches!(error, Error::Input(InputError::Batch(_))),
        "{error}"
    );
    assert!(scene.memory.sizes().is_empty());
}

#[tokio::test]
async fn after_a_lost_connection_the_same_bytes_go_out_again() {
    let scene = scene().await;
    scene.memory.lock().lose = 1;
    let appender = scene.ledger.appender(scene.options());
    let pending = appender.send(scene.statements(7)).await.unwrap();
    let answer = pending.await.unwrap();
    appender.finish().await.unwrap();
    assert!(
        answer
            .items
            .iter()
            .all(|i| matches!(i, Appended::Duplicate(_)))
    );
    let state = scene.memory.lock();
    assert_eq!(state.requests.len(), 2);
    assert_eq!(state.requests[0], state.requests[1]);
    assert_eq!(state.leaves.len(), 1 + 1 + 7);
}

#[tokio::test]
async fn what_another_batch_recorded_is_found_and_the_rest_is_sent() {
    let scene = scene().await;
    let payloads = scene.statements(6);
    let first: Vec<Statement> = payloads[..4].iter().cloned().map(Into::into).collect();
    let recorded = scene.ledger.append_signed(&first, &scene.signing);
    let recorded = recorded.await.unwrap();
    // After a crash the same statements may be sent in other requests.
    let appender = scene.ledger.appender(scene.options());
    let answer = appender.send(payloads).await.unwrap().await.unwrap();
    appender.finish().await.unwrap();
    assert_eq!(answer.items.len(), 6);
    for (before, now) in recorded.items.iter().zip(&answer.items) {
        let (Appended::Accepted(before), Appended::Duplicate(now)) = (before, now) else {
            panic!("{before:?}, {now:?}");
        };
        assert_eq!(before, now);
    }
    assert!(
        answer.items[4..]
            .iter()
            .all(|i| matches!(i, Appended::Accepted(_)))
    );
    assert_eq!(scene.memory.sizes(), [4, 6, 2]);
    assert_eq!(leaves(&[answer]), [2, 3, 4, 5, 7, 8]);
}

#[tokio::test]
async fn other_statements_at_the_same_place_are_refused_for_good() {
    let scene = scene().await;
    let mut other =
        Session::with_nonce(scene.ledger.ledger_id(), "test:agent", Nonce::new([1; 16]));
    let header = deed_client::Header {
        task: Some(TaskId::new([9; 16])),
        ..deed_client::Header::default()
    };
    let closed = v1::statement::Body::TaskClosed(v1::TaskClosed {
        end: v1::TaskEnd::Failed.into(),
        reason: String::new(),
    });
    let made: Statement = other.make(&header, closed).unwrap().into();
    let recorded = scene
        .ledger
        .append_signed(&[made], &scene.signing)
        .await
        .unwrap();
    assert!(recorded.items[0].receipt().is_some());
    let appender = scene.ledger.appender(scene.options());
    let pending = appender.send(scene.statements(1)).await.unwrap();
    let answer = pending.await.unwrap();
    appender.finish().await.unwrap();
    let [Appended::Rejected(rejection)] = &answer.items[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(rejection.reason(), Reason::SequenceReused);
}

#[tokio::test]
async fn a_refused_batch_says_why_to_each_of_its_statements() {
    let scene = scene().await;
    let payloads = scene.statements(5).split_off(2);
    let appender = scene.ledger.appender(scene.options());
    let answer = appender.send(payloads).await.unwrap().await.unwrap();
    appender.finish().await.unwrap();
    let reasons = answer.items.iter().map(|item| match item {
        Appended::Rejected(rejection) => (rejection.reason(), rejection.message.clone()),
        other => panic!("{other:?}"),
    });
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons[0].0, Reason::SequenceNotNext);
    for (reason, message) in &reasons[1..] {
        assert_eq!(*reason, Reason::BatchRefused);
        assert!(message.contains("sequence 2") && message.contains("SEQUENCE_NOT_NEXT"));
    }
}

#[tokio::test]
async fn each_statement_may_be_signed_by_itself() {
    let scene = scene().await;
    let options = AppenderOptions {
        signing: Signing::Each(signing_key()),
        ..AppenderOptions::default()
    };
    let appender = scene.ledger.appender(options);
    let answer = appender
        .send(scene.statements(3))
        .await
        .unwrap()
        .await
        .unwrap();
    appender.finish().await.unwrap();
    let state = scene.memory.lock();
    for (item, index) in answer.items.iter().zip(1..) {
        let receipt = item.receipt().unwrap();
        assert_eq!((receipt.leaf_index.get(), receipt.manifest), (index, None));
        let entry = Entry::parse(&state.entries[index as usize]).unwrap();
        let key = signing_key();
        let (key, found) = (key.public_key(), entry.signature.unwrap());
        signature::verify(key, entry.payload_type, entry.payload, found.signature).unwrap();
    }
}

#[tokio::test]
async fn batches_that_are_not_where_they_should_be() {
    for (lie, wanted) in [
        (
            Lie::ManifestElsewhere,
            AnswerError::NotBehindManifest {
                position: 0,
                found: 2,
                manifest: 0,
            },
        ),
        (Lie::Half, AnswerError::HalfBatch { position: 3 }),
    ] {
        let scene = scene().await;
        scene.memory.lock().lie = lie;
        let options = AppenderOptions {
            with_proofs: false,
            ..scene.options()
        };
        let appender = scene.ledger.appender(options);
        let answer = appender.send(scene.statements(4)).await.unwrap().await;
        let error = answer.unwrap_err();
        assert!(
            matches!(&error, Error::Answer(found) if *found == wanted),
            "{error}"
        );
        assert!(appender.finish().await.is_err());
    }
}

#[tokio::test]
async fn a_statement_is_followed_to_its_signature() {
    let scene = scene().await;
    let statements: Vec<Statement> = scene.statements(6).into_iter().map(Into::into).collect();
    scene
        .ledger
        .append_signed(&statements, &scene.signing)
        .await
        .unwrap();
    let leaf = Leaf::Statement(session_of(&scene.ledger, 1), Sequence::new(3));
    let key = |_| Some(signing_key().public_key().clone());
    let proven = scene.ledger.prove_batched(leaf, None, key).await.unwrap();
    assert_eq!(proven.path.manifest_index.get(), 1);
    assert_eq!(proven.path.statement_index.get(), 5);
    assert_eq!(Some(proven.path.key_id), scene.signing.key_id());
    // Under a key that nobody registered, or another one, it proves nothing.
    let unknown = scene.ledger.prove_batched(leaf, None, |_| None).await;
    assert!(matches!(unknown, Err(Error::Trust(_))));
    let other = key::generate().unwrap();
    let other = |_| Some(other.public_key().clone());
    assert!(scene.ledger.prove_batched(leaf, None, other).await.is_err());
    for lie in [Lie::Path, Lie::Position, Lie::OtherStatement] {
        scene.memory.lock().lie = lie;
        let error = scene
            .ledger
            .prove_batched(leaf, None, key)
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            deed_client::ErrorKind::DoesNotVerify,
            "{error}"
        );
    }
}
