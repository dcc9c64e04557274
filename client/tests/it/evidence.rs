//! Signatures, trust, sessions and contents: an honest server, and each lie about them found out.

use std::sync::Arc;

use bytes::Bytes;
use deed_client::{
    AnswerError, Appended, AppenderOptions, ContentState, Error, ErrorKind, Header, Leaf, Session,
    Signing, Statement, StoredSession, Sync, TrustError,
};
use deed_evidence::{
    CommitmentDigest, Nonce, Sequence,
    commitment::{Salt, digest_of},
    receipt::ReceiptError,
    statement::AUTHORITY_PRODUCER,
};
use deed_proto::v1::{self, statement::Body};
use deed_testkit::fake::{Lie, authority_key};
use deed_tlog::{LeafIndex, SigningKey};

use crate::{
    appending::{requests, session_of},
    scene::{Scene, scene},
};

impl Scene {
    /// Statements of one session, of a producer or with trust bodies of the authority.
    fn statements(&self, id: u8, count: usize) -> Vec<Statement> {
        let payloads = requests(&self.ledger, id, 1, count).remove(0);
        payloads.into_iter().map(Statement::from).collect()
    }

    fn floors(&self, count: i64) -> Vec<Statement> {
        let nonce = Nonce::new([77; 16]);
        let mut session = Session::with_nonce(self.ledger.ledger_id(), AUTHORITY_PRODUCER, nonce);
        let mut make = |floor_us| {
            let body = Body::RetentionSet(v1::RetentionSet {
                floor_us,
                reason: String::new(),
            });
            session.make(&Header::default(), body).unwrap().into()
        };
        (1..=count).map(&mut make).collect()
    }

    async fn say(&self, statement: &Statement) -> Result<Appended, Error> {
        let signing = Signing::Each(Arc::new(authority_key()));
        let statements = std::slice::from_ref(statement);
        let mut answer = self.ledger.append_signed(statements, &signing).await?;
        Ok(answer.items.remove(0))
    }
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[31; 32]))
}

fn trust_error(error: &Error) -> &TrustError {
    match error {
        Error::Trust(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_trust_chain_is_replayed() {
    let scene = scene().await;
    for statement in scene.floors(3) {
        assert!(matches!(
            scene.say(&statement).await,
            Ok(Appended::Accepted(_))
        ));
    }
    let trust = scene.ledger.trust_chain().await.unwrap();
    assert_eq!(trust.state.retention_floor_us(), 3);
    assert_eq!((trust.entries.len(), trust.state.version()), (4, 3));
}

#[tokio::test]
async fn a_trust_statement_that_links_elsewhere() {
    let scene = scene().await;
    let floors = scene.floors(3);
    scene.say(&floors[0]).await.unwrap();
    // The receipt's link is not the one that was hashed.
    scene.lie(Lie::ReceiptTrust);
    let error = scene.say(&floors[1]).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Receipt {
                source: ReceiptError::OtherEntry { .. },
                ..
            }
        ),
        "{error}"
    );
    // It was hashed, but skips the statement before: the receipt holds, the chain does not.
    scene.lie(Lie::PreviousTrust);
    scene.say(&floors[2]).await.unwrap();
    scene.lie(Lie::None);
    let error = scene.ledger.trust_chain().await.unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::TrustChain { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("follows leaf 0"), "{error}");
}

#[tokio::test]
async fn a_trust_chain_with_an_omitted_link() {
    let scene = scene().await;
    for statement in scene.floors(2) {
        scene.say(&statement).await.unwrap();
    }
    for lie in [Lie::TrustOmitted, Lie::TrustWithoutGenesis] {
        scene.lie(lie);
        let error = scene.ledger.trust_chain().await.unwrap_err();
        assert!(
            matches!(trust_error(&error), TrustError::TrustChain { .. }),
            "{lie:?}: {error}"
        );
    }
    scene.lie(Lie::Inclusion);
    let error = scene.ledger.trust_chain().await.unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::Proof { .. }),
        "{error}"
    );
    scene.lie(Lie::None);
    scene.ledger.trust_chain().await.unwrap();
}

#[tokio::test]
async fn a_batch_is_followed_to_its_signature_or_to_the_lie() {
    let scene = scene().await;
    let signing = Signing::Batch(key());
    let statements = scene.statements(1, 5);
    let answer = scene
        .ledger
        .append_signed(&statements, &signing)
        .await
        .unwrap();
    for (position, item) in answer.items.iter().enumerate() {
        let receipt = item.receipt().unwrap();
        assert_eq!(receipt.manifest, Some(LeafIndex::new(1)));
        assert_eq!(receipt.leaf_index.get(), 2 + position as u64);
    }
    let key_of = |_| Some(key().public_key().clone());
    let leaf = Leaf::Index(LeafIndex::new(4));
    let proven = scene
        .ledger
        .prove_batched(leaf, None, key_of)
        .await
        .unwrap();
    assert_eq!(proven.path.manifest_index, LeafIndex::new(1));
    assert_eq!(proven.path.statement_index, LeafIndex::new(4));
    let place = Leaf::Statement(session_of(&scene.ledger, 1), Sequence::new(2));
    let by_place = scene
        .ledger
        .prove_batched(place, None, key_of)
        .await
        .unwrap();
    assert_eq!(by_place.path, proven.path);

    for lie in [Lie::BatchPath, Lie::ManifestIndex] {
        scene.lie(lie);
        let error = scene
            .ledger
            .prove_batched(leaf, None, key_of)
            .await
            .unwrap_err();
        assert!(
            matches!(trust_error(&error), TrustError::BatchProof { .. }),
            "{lie:?}: {error}"
        );
    }
    scene.lie(Lie::None);
    // Another key than the one that signed, and one that nobody knows.
    let other = |_| Some(SigningKey::from_seed(&[32; 32]).public_key().clone());
    assert!(scene.ledger.prove_batched(leaf, None, other).await.is_err());
    assert!(
        scene
            .ledger
            .prove_batched(leaf, None, |_| None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn receipts_of_a_batch_that_are_not_behind_its_manifest() {
    for streamed in [false, true] {
        let scene = scene().await;
        scene.lie(Lie::Spliced);
        let (signing, statements) = (Signing::Batch(key()), scene.statements(1, 3));
        let error = if streamed {
            let options = AppenderOptions {
                signing,
                ..AppenderOptions::default()
            };
            let appender = scene.ledger.appender(options);
            let payloads: Vec<Bytes> = statements.into_iter().map(|s| s.payload).collect();
            appender.send(payloads).await.unwrap().await.unwrap_err()
        } else {
            scene
                .ledger
                .append_signed(&statements, &signing)
                .await
                .unwrap_err()
        };
        assert!(
            matches!(
                error,
                Error::Answer(AnswerError::NotBehindManifest {
                    position: 0,
                    found: 3,
                    manifest: 1
                })
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_batch_that_is_recorded_in_part() {
    let scene = scene().await;
    scene.fake.lock().script.unwanted = vec![1];
    let statements = scene.statements(1, 3);
    let signing = Signing::Batch(key());
    let error = scene
        .ledger
        .append_signed(&statements, &signing)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Answer(AnswerError::HalfBatch { position: 1 })),
        "{error}"
    );
}

#[tokio::test]
async fn where_a_session_stands_is_compared_with_its_last_entry() {
    let scene = scene().await;
    let id = session_of(&scene.ledger, 1);
    assert_eq!(scene.ledger.session(id).await.unwrap(), None);
    let statements = scene.statements(1, 3);
    let signing = Signing::Each(key());
    scene
        .ledger
        .append_signed(&statements, &signing)
        .await
        .unwrap();
    let stands = scene.ledger.session(id).await.unwrap().unwrap();
    assert_eq!((stands.info.next_sequence, stands.info.last_leaf), (3, 3));
    scene.lie(Lie::SessionEnd);
    let error = scene.ledger.session(id).await.unwrap_err();
    assert!(
        matches!(error, Error::Answer(AnswerError::Other { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn contents_open_their_commitment_or_are_not_believed() {
    let scene = scene().await;
    let contents = scene.ledger.contents();
    let content = Bytes::from(vec![7; 2500]);
    let salt = Salt::from_bytes([5; 32]);
    let digest = digest_of(&salt, &content);
    let put = |_: ()| contents.put_bytes(digest, &salt, content.clone());
    assert!(!put(()).await.unwrap());
    assert!(put(()).await.unwrap());
    let mut read = Vec::new();
    let state = contents.get(digest, &mut read).await.unwrap();
    assert_eq!(
        (state, read),
        (ContentState::Read { bytes: 2500 }, content.to_vec())
    );
    let other = CommitmentDigest::new([1; 32]);
    let state = contents.get(other, &mut Vec::new()).await.unwrap();
    assert_eq!(state, ContentState::Unknown);
    for lie in [
        Lie::ContentByte,
        Lie::ContentShort,
        Lie::ContentLong,
        Lie::ContentSalt,
    ] {
        scene.lie(lie);
        let error = contents.get(digest, &mut Vec::new()).await.unwrap_err();
        assert!(
            matches!(trust_error(&error), TrustError::Content { .. }),
            "{lie:?}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::DoesNotVerify);
    }
}

#[tokio::test]
async fn a_stored_session_goes_on_after_a_cut() {
    let scene = scene().await;
    let signing = Signing::Batch(key());
    let open = || {
        let (state, id) = (&scene.state, scene.ledger.ledger_id());
        StoredSession::open(state, id, "nightly", "test:agent", &signing, Sync::Each).unwrap()
    };
    let make = |stored: &StoredSession, count: usize| -> Vec<Statement> {
        let mut session = stored.maker();
        let header = Header {
            task: Some(deed_evidence::TaskId::new([2; 16])),
            ..Header::default()
        };
        let closed = || v1::TaskClosed {
            end: v1::TaskEnd::Failed.into(),
            reason: String::new(),
        };
        (0..count)
            .map(|_| {
                session
                    .make(&header, Body::TaskClosed(closed()))
                    .unwrap()
                    .into()
            })
            .collect()
    };

    // Recorded, but the answer never comes, and the process ends.
    scene.fake.answers.forget_permits(usize::MAX);
    let mut stored = open();
    let statements = make(&stored, 3);
    stored.append(&statements).unwrap();
    let options = AppenderOptions {
        signing: signing.clone(),
        ..AppenderOptions::default()
    };
    let appender = scene.ledger.appender(options);
    let payloads: Vec<Bytes> = statements.iter().map(|s| s.payload.clone()).collect();
    let mut recorded = scene.fake.recorded.subscribe();
    let pending = appender.send(payloads).await.unwrap();
    recorded.wait_for(|recorded| *recorded == 1).await.unwrap();
    let size = scene.fake.size();
    drop((pending, appender, stored));
    scene.fake.answers.add_permits(1 << 20);

    let mut stored = open();
    let left: Vec<Statement> = stored.unacknowledged().cloned().collect();
    assert_eq!(left, statements);
    let answer = scene.ledger.append_signed(&left, &signing).await.unwrap();
    assert!(
        answer
            .items
            .iter()
            .all(|item| matches!(item, Appended::Duplicate(_)))
    );
    assert_eq!(scene.fake.size(), size, "nothing is there twice");
    stored.acknowledge(Sequence::new(3)).unwrap();
    assert_eq!(stored.unacknowledged().len(), 0);

    // And on: the next statements continue the chain.
    let more = make(&stored, 2);
    stored.append(&more).unwrap();
    let answer = scene.ledger.append_signed(&more, &signing).await.unwrap();
    assert!(
        answer
            .items
            .iter()
            .all(|item| matches!(item, Appended::Accepted(_)))
    );
    let stands = scene.ledger.session(stored.id()).await.unwrap().unwrap();
    assert_eq!(stands.info.next_sequence, 5);
    let kept = StoredSession::list(&scene.state).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].name.as_str(), kept[0].id),
        ("nightly", stored.id())
    );
}
