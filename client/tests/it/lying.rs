//! Servers that lie, each about one thing, each found out.

use deed_client::{
    AnswerError, AppenderOptions, Error, ErrorKind, ForkKind, Leaf, Ledger, StateDir, TrustError,
};
use deed_evidence::receipt::ReceiptError;
use deed_testkit::fake::{Fake, Lie};
use deed_tlog::{LeafIndex, VerifierKey};

use crate::{
    appending::requests,
    scene::{self, Scene},
};

/// An honest server with a few leaves, and a client that trusts its head.
async fn scene() -> Scene {
    let mut scene = scene::scene().await;
    scene.requests = requests(&scene.ledger, 1, 8, 3);
    let first = scene.requests.remove(0);
    scene.ledger.append(&first).await.unwrap();
    scene.ledger.flush().await.unwrap();
    scene
}

impl Scene {
    /// Returns the error that a lie about an append causes, both in a single call and in a stream.
    async fn append_error(lie: Lie) -> Error {
        let scene = scene().await;
        scene.lie(lie);
        let unary = scene.ledger.append(&scene.requests[0]).await.unwrap_err();

        let scene = self::scene().await;
        scene.lie(lie);
        let appender = scene.ledger.appender(AppenderOptions::default());
        let first = appender.send(scene.requests[0].clone()).await.unwrap();
        // May be too late already.
        let second = appender.send(scene.requests[1].clone()).await;
        let streamed = first.await.unwrap_err();
        if let Ok(second) = second {
            assert!(second.await.is_err(), "nothing is believed after a lie");
        }
        assert!(appender.finish().await.is_err());
        assert_eq!(unary.to_string(), streamed.to_string());
        assert_eq!(unary.kind(), ErrorKind::DoesNotVerify);
        streamed
    }
}

#[tokio::test]
async fn receipts_of_something_else() {
    let error = Scene::append_error(Lie::LeafHash).await;
    assert!(matches!(
        error,
        Error::Receipt {
            position: 0,
            source: ReceiptError::OtherEntry { .. }
        }
    ));
    let error = Scene::append_error(Lie::LeafBeyond).await;
    assert!(matches!(
        error,
        Error::Receipt {
            source: ReceiptError::NotCovered { .. },
            ..
        }
    ));
    let error = Scene::append_error(Lie::StaleHead).await;
    assert!(matches!(
        error,
        Error::Receipt {
            source: ReceiptError::NotCovered { .. },
            ..
        }
    ));
}

#[tokio::test]
async fn inclusion_proofs_that_prove_nothing() {
    let error = Scene::append_error(Lie::Inclusion).await;
    assert!(matches!(
        error,
        Error::Receipt {
            source: ReceiptError::Inclusion { .. },
            ..
        }
    ));
    let error = Scene::append_error(Lie::NoInclusion).await;
    assert!(matches!(
        error,
        Error::Receipt {
            source: ReceiptError::ProofMissing { .. },
            ..
        }
    ));
}

#[tokio::test]
async fn answers_that_are_not_complete() {
    let error = Scene::append_error(Lie::Results).await;
    assert!(matches!(
        error,
        Error::Answer(AnswerError::Results {
            found: 2,
            wanted: 3
        })
    ));
}

fn trust_error(error: &Error) -> &TrustError {
    match error {
        Error::Trust(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn heads_that_somebody_else_signed() {
    let error = Scene::append_error(Lie::Signature).await;
    assert!(
        matches!(trust_error(&error), TrustError::UnknownLogKey { .. }),
        "{error}"
    );
    let scene = scene().await;
    scene.lie(Lie::Signature);
    let error = scene.ledger.head().await.unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::UnknownLogKey { .. }),
        "{error}"
    );
    assert_eq!(scene.forks(), []);
}

#[tokio::test]
async fn heads_without_the_proof_that_was_asked_for() {
    let error = Scene::append_error(Lie::NoConsistency).await;
    assert!(matches!(
        trust_error(&error),
        TrustError::NoProof {
            old_size: 4,
            new_size: 7
        }
    ));
}

#[tokio::test]
async fn a_consistency_proof_that_fails_is_kept_with_both_heads() {
    let scene = scene().await;
    scene.lie(Lie::Consistency);
    let error = scene.ledger.append(&scene.requests[0]).await.unwrap_err();
    let TrustError::Fork {
        kind,
        old_size,
        new_size,
        kept_in,
    } = trust_error(&error)
    else {
        panic!("{error}");
    };
    assert_eq!((*kind, *old_size, *new_size), (ForkKind::ProofFails, 4, 7));
    let forks = scene.forks();
    assert_eq!(forks.len(), 1);
    assert!(kept_in.as_ref().unwrap().exists());
    for note in [&forks[0].older_checkpoint, &forks[0].newer_checkpoint] {
        let key: VerifierKey = forks[0].vkey.parse().unwrap();
        assert!(deed_tlog::Checkpoint::open(note.as_bytes(), &key).is_ok());
    }
    assert!(forks[0].consistency_proof.is_some());
    // After that every answer is refused, and the trusted head stays.
    scene.lie(Lie::None);
    assert!(scene.ledger.append(&scene.requests[0]).await.is_err());
    assert!(scene.ledger.flush().await.is_err());
    assert_eq!(scene.stored_size(), 4);
}

#[tokio::test]
async fn two_roots_for_one_size() {
    let scene = scene().await;
    let twin = scene.fake.twin(3).await;
    twin.add_leaf(200);
    assert_eq!((twin.size(), scene.fake.size()), (4, 4));
    let ledger = twin.connect(&scene.state).await;
    let error = ledger.head().await.unwrap_err();
    let TrustError::Fork {
        kind: ForkKind::SameSize,
        ..
    } = trust_error(&error)
    else {
        panic!("{error}");
    };
    assert_eq!(scene.forks().len(), 1);
    assert_eq!(scene.stored_size(), 4);
    // Seen again, it is the same evidence.
    let ledger = twin.connect(&scene.state).await;
    assert!(ledger.head().await.is_err());
    assert_eq!(scene.forks().len(), 1);
}

#[tokio::test]
async fn a_longer_fork() {
    let scene = scene().await;
    let twin = scene.fake.twin(3).await;
    (0..9).for_each(|seed| twin.add_leaf(seed));
    let ledger = twin.connect(&scene.state).await;
    let error = ledger.append(&scene.requests[0]).await;
    // The sessions of this server do not have the first request, but its head already shows the fork.
    let error = error.unwrap_err();
    let TrustError::Fork {
        kind: ForkKind::ProofFails,
        ..
    } = trust_error(&error)
    else {
        panic!("{error}");
    };
    assert_eq!(scene.forks().len(), 1);
    assert_eq!(scene.stored_size(), 4);
}

#[tokio::test]
async fn a_server_that_lost_what_it_signed() {
    let scene = scene().await;
    let twin = scene.fake.twin(2).await;
    let ledger = twin.connect(&scene.state).await;
    let error = ledger.head().await.unwrap_err();
    assert!(
        matches!(
            trust_error(&error),
            TrustError::Fork {
                kind: ForkKind::NoProof,
                old_size: 2,
                new_size: 4,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify);
    // An append that leads to a smaller head than the trusted one, too.
    let ledger = twin.connect(&scene.state).await;
    let fresh = requests(&ledger, 9, 1, 1).remove(0);
    let error = ledger.append(&fresh).await.unwrap_err();
    assert!(
        matches!(
            trust_error(&error),
            TrustError::Fork {
                kind: ForkKind::NoProof,
                ..
            }
        ),
        "{error}"
    );
    let mut watch = twin.connect(&scene.state).await.watch_heads().unwrap();
    assert_eq!(
        watch.next().await.unwrap_err().kind(),
        ErrorKind::DoesNotVerify
    );
    assert_eq!(scene.stored_size(), 4);
}

/// Every answer in itself is consistent with the head that its request named. Only proving all of
/// them to lie on one line shows that they do not.
#[tokio::test]
async fn two_histories_interleaved_in_one_stream() {
    let scene = scene().await;
    let fake = Fake::start().await;
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    fake.lock().script.two_histories = true;
    fake.answers.forget_permits(usize::MAX);
    let ledger = fake.connect(&state).await;
    let appender = ledger.appender(AppenderOptions::default());
    let mut recorded = fake.recorded.subscribe();
    let first = appender.send(scene.requests[0].clone()).await.unwrap();
    let second = appender.send(scene.requests[1].clone()).await.unwrap();
    recorded.wait_for(|recorded| *recorded == 2).await.unwrap();
    fake.answers.add_permits(1 << 20);
    first.await.unwrap();
    second.await.unwrap();
    for request in &scene.requests[2..6] {
        appender.send(request.clone()).await.unwrap().await.unwrap();
    }
    let error = appender.finish().await.unwrap_err();
    let TrustError::Fork {
        kept_in: Some(kept_in),
        ..
    } = trust_error(&error)
    else {
        panic!("{error}");
    };
    assert!(kept_in.starts_with(directory.path()));
    assert!(
        ledger.head().await.is_err(),
        "nothing is believed from then on"
    );
}

#[tokio::test]
async fn ledger_info_that_contradicts_itself() {
    for lie in [Lie::Vkey, Lie::LedgerId] {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::start().await;
        fake.lock().script.lie = lie;
        let options = fake.options().state(StateDir::new(directory.path()));
        let error = Ledger::connect(options).await.unwrap_err();
        assert!(
            matches!(trust_error(&error), TrustError::Contradiction { .. }),
            "{error}"
        );
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "nothing is pinned"
        );
    }
}

#[tokio::test]
async fn a_genesis_entry_that_is_not_in_the_tree() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.lock().script.lie = Lie::Genesis;
    let options = fake.options().state(StateDir::new(directory.path()));
    let error = Ledger::connect(options).await.unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::GenesisNotIncluded { .. }),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "nothing is pinned"
    );
}

#[tokio::test]
async fn another_ledger_under_the_same_name() {
    let scene = scene().await;
    // The same key and name, another genesis entry.
    scene.lie(Lie::Genesis);
    let error = Ledger::connect(scene.fake.options().state(scene.state.clone()))
        .await
        .unwrap_err();
    let TrustError::OtherLedger { what, remove, .. } = trust_error(&error) else {
        panic!("{error}");
    };
    assert_eq!(*what, "ledger id");
    assert!(std::path::Path::new(remove).exists());
}

#[tokio::test]
async fn another_key_than_the_one_that_was_demanded() {
    let fake = Fake::start().await;
    let right = Ledger::connect(fake.options())
        .await
        .unwrap()
        .pin()
        .vkey
        .clone();
    let seed = [77; 32];
    let wrong = deed_tlog::NoteSigner::from_seed(right.name().clone(), &seed);
    let wrong = wrong.verifier_key().clone();
    assert!(Ledger::connect(fake.options().vkey(right)).await.is_ok());
    let error = Ledger::connect(fake.options().vkey(wrong))
        .await
        .unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::OtherKey { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn entries_and_proofs_that_are_not_what_was_asked_for() {
    let scene = scene().await;
    let index = LeafIndex::new(1);
    scene.ledger.entry(index, None).await.unwrap();
    scene.lie(Lie::Entry);
    let error = scene.ledger.entry(index, None).await.unwrap_err();
    assert!(
        matches!(error, Error::Answer(AnswerError::Other { .. })),
        "{error}"
    );
    scene.lie(Lie::Inclusion);
    let error = scene
        .ledger
        .prove_leaf(Leaf::Index(index), None)
        .await
        .unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::Proof { .. }),
        "{error}"
    );
    scene.lie(Lie::Consistency);
    let error = scene
        .ledger
        .prove_consistency(2.into(), Some(3.into()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
}
