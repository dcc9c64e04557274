//! Log keys that take over: clients follow what the old key and an authority have signed, and
//! nothing else.

use std::sync::Arc;

use deed_client::{
    Appended, Error, ForkKind, Header, Ledger, Session, Signing, StateDir, Statement, TrustError,
};
use deed_evidence::{Nonce, statement::AUTHORITY_PRODUCER};
use deed_proto::v1::{self, statement::Body};
use deed_testkit::fake::{Lie, authority_key};
use deed_tlog::SigningKey;

use crate::{
    appending::requests,
    scene::{self, Scene},
};

const FIRST: [u8; 32] = [42; 32];
const SECOND: [u8; 32] = [43; 32];
const THIRD: [u8; 32] = [44; 32];

/// A client that was pinned before any rotation, with a head on disk.
async fn scene() -> Scene {
    let scene = scene::scene().await;
    let statements = requests(&scene.ledger, 1, 1, 3).remove(0);
    scene.ledger.append(&statements).await.unwrap();
    scene.ledger.flush().await.unwrap();
    scene
}

impl Scene {
    /// Somebody signs that the key of `seed` takes over, and the fake signs with it from there on. A
    /// client of its own says so, so that the scene's knows nothing of it.
    async fn rotate_by(&self, seed: [u8; 32], signer: SigningKey) -> Result<Appended, Error> {
        let other = Ledger::connect(self.fake.options()).await.unwrap();
        let nonce = Nonce::new([seed[0]; 16]);
        let mut session = Session::with_nonce(other.ledger_id(), AUTHORITY_PRODUCER, nonce);
        let body = Body::LogKeyRotated(v1::LogKeyRotated {
            log_key: Some(v1::LogKey {
                vkey: self.fake.log_key(seed).to_string(),
            }),
            reason: "Sold.".to_owned(),
        });
        let statement: Statement = session.make(&Header::default(), body).unwrap().into();
        self.fake.rotate(seed);
        let signing = Signing::Each(Arc::new(signer));
        let mut answer = other.append_signed(&[statement], &signing).await?;
        Ok(answer.items.remove(0))
    }

    async fn rotate(&self, seed: [u8; 32]) {
        let said = self.rotate_by(seed, authority_key()).await.unwrap();
        assert!(matches!(said, Appended::Accepted(_)));
    }

    fn first_sizes(ledger: &Ledger) -> Vec<u64> {
        let known = ledger.log_keys();
        let keys = known.keys().all().iter();
        keys.map(|key| key.first_size.get()).collect()
    }

    /// Returns the files of the trust store with their names.
    fn on_disk(&self) -> Vec<(String, Vec<u8>)> {
        let store = self.state.store(&self.ledger.pin().origin);
        let mut files: Vec<_> = std::fs::read_dir(store.directory())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

fn trust_error(error: &Error) -> &TrustError {
    match error {
        Error::Trust(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_client_follows_the_key_that_it_trusts() {
    let scene = scene().await;
    assert_eq!(Scene::first_sizes(&scene.ledger), [1]);
    scene.rotate(SECOND).await;
    scene.fake.add_leaf(1);
    // In the middle of its life: a head, then an append, whichever comes first.
    let head = scene.ledger.head().await.unwrap();
    assert_eq!(head.signed.head.size.get(), 6);
    assert_eq!(Scene::first_sizes(&scene.ledger), [1, 5]);
    let more = requests(&scene.ledger, 2, 1, 2).remove(0);
    scene.ledger.append(&more).await.unwrap();
    scene.ledger.flush().await.unwrap();
    assert_eq!(scene.stored_size(), 8);
    // The next process begins where this one ended, and has nothing to ask.
    scene.lie(Lie::NoLogKeys);
    let again = scene.fake.connect(&scene.state).await;
    assert_eq!(Scene::first_sizes(&again), [1, 5]);
    assert_eq!(again.log_keys(), scene.ledger.log_keys());
    again.head().await.unwrap();
    scene.lie(Lie::None);
    assert_eq!(scene.forks(), []);
    // Heads of before still are what they were.
    let old = scene
        .ledger
        .prove_leaf(
            deed_client::Leaf::Index(deed_tlog::LeafIndex::new(1)),
            Some(deed_tlog::TreeSize::new(3)),
        )
        .await;
    assert_eq!(old.unwrap().head.head.size.get(), 3);
}

/// The head that hands over is believed by whoever trusts either key.
#[tokio::test]
async fn a_client_that_has_not_seen_the_new_key_alone_may_ask_for_it() {
    let scene = scene().await;
    scene.rotate(SECOND).await;
    let head = scene.ledger.head().await.unwrap();
    assert_eq!(head.signed.head.size.get(), 5);
    assert_eq!(Scene::first_sizes(&scene.ledger), [1]);
    let known = scene.ledger.update_log_keys().await.unwrap();
    assert_eq!(known.keys().newest().key, scene.fake.log_key(SECOND));
    assert_eq!(Scene::first_sizes(&scene.ledger), [1, 5]);
    // Once more there is nothing to find.
    assert_eq!(scene.ledger.update_log_keys().await.unwrap(), known);
    scene.ledger.flush().await.unwrap();
    assert_eq!(scene.stored_size(), 5);
}

#[tokio::test]
async fn a_pinned_client_follows_when_it_connects() {
    let scene = scene().await;
    scene.rotate(SECOND).await;
    // Two at once, one right behind the other: the head of size 6 is signed by the second and the
    // third key.
    scene.rotate(THIRD).await;
    scene.fake.add_leaf(1);
    let again = scene.fake.connect(&scene.state).await;
    assert_eq!(Scene::first_sizes(&again), [1, 5, 6]);
    let newest = again.log_keys().keys().newest().key.clone();
    assert_eq!(newest, scene.fake.log_key(THIRD));
    again.flush().await.unwrap();
    assert_eq!(scene.stored_size(), 7);
    let files = scene.on_disk();
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["checkpoint", "lock", "log-keys.json", "pin.json"]);
    // A head of this process, whose keys are fewer than those on disk, is found to be older.
    scene.ledger.head().await.unwrap();
    scene.ledger.flush().await.unwrap();
}

#[tokio::test]
async fn a_fresh_client_follows_from_the_genesis_entry() {
    let scene = scene().await;
    scene.rotate(SECOND).await;
    scene.fake.add_leaf(1);
    let fresh = Ledger::connect(scene.fake.options()).await.unwrap();
    assert_eq!(Scene::first_sizes(&fresh), [1, 5]);
    fresh.head().await.unwrap();
    for seed in [FIRST, SECOND] {
        let directory = tempfile::tempdir().unwrap();
        let options = scene.fake.options().vkey(scene.fake.log_key(seed));
        let options = options.state(StateDir::new(directory.path()));
        let ledger = Ledger::connect(options).await.unwrap();
        ledger.head().await.unwrap();
        ledger.flush().await.unwrap();
        let stored = StateDir::new(directory.path()).store(&ledger.pin().origin);
        assert_eq!(stored.keys(ledger.pin()).unwrap(), ledger.log_keys());
        assert_eq!(
            stored.head(ledger.pin()).unwrap().unwrap().head.size.get(),
            6
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let options = scene.fake.options().vkey(scene.fake.log_key(THIRD));
    let options = options.state(StateDir::new(directory.path()));
    let error = Ledger::connect(options).await.unwrap_err();
    assert!(matches!(trust_error(&error), TrustError::OtherKey { .. }));
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "nothing is pinned"
    );
}

#[tokio::test]
async fn a_key_that_was_not_handed_over_to_is_refused() {
    for (lie, wanted) in [
        (Lie::NoLogKeys, "does not show that it has handed over"),
        (Lie::NoHandover, "shows no head that this key signed"),
        (Lie::Inclusion, "inclusion proof of trust entry 4"),
    ] {
        let scene = scene().await;
        scene.rotate(SECOND).await;
        scene.fake.add_leaf(1);
        let before = scene.on_disk();
        scene.lie(lie);
        let error = scene.ledger.head().await.unwrap_err();
        trust_error(&error);
        assert!(error.to_string().contains(wanted), "{lie:?}: {error}");
        let options = scene.fake.options().state(scene.state.clone());
        let error = Ledger::connect(options).await.unwrap_err();
        trust_error(&error);
        // Nor is a client taken in that has not trusted anything before.
        let error = Ledger::connect(scene.fake.options()).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{lie:?}: {error}");
        assert_eq!(scene.on_disk(), before, "{lie:?}");
        // It was the answer that was bad.
        scene.lie(Lie::None);
        scene.ledger.head().await.unwrap();
        assert_eq!(Scene::first_sizes(&scene.ledger), [1, 5]);
    }
}

/// The old key alone can sign both heads; a rotation also needs the signature of an authority.
#[tokio::test]
async fn a_key_that_no_authority_named_is_refused() {
    let scene = scene().await;
    let before = scene.on_disk();
    let forger = SigningKey::from_seed(&[66; 32]);
    // The server takes it, and the old key signs the tree that holds it, as it signed all before.
    scene.rotate_by(SECOND, forger).await.unwrap();
    scene.fake.add_leaf(1);
    let error = scene.ledger.head().await.unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::LogKeys { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("no authority"), "{error}");
    assert_eq!(scene.on_disk(), before);
}

#[tokio::test]
async fn what_the_old_key_signs_afterwards_is_a_fork() {
    let scene = scene().await;
    scene.rotate(SECOND).await;
    scene.fake.add_leaf(1);
    scene.ledger.head().await.unwrap();
    scene.ledger.flush().await.unwrap();
    scene.fake.add_leaf(2);
    scene.lie(Lie::Retired);
    let error = scene.ledger.head().await.unwrap_err();
    let TrustError::Fork {
        kind,
        old_size,
        new_size,
        kept_in,
    } = trust_error(&error)
    else {
        panic!("{error}");
    };
    assert_eq!((*kind, *old_size, *new_size), (ForkKind::RetiredKey, 5, 7));
    assert!(kept_in.as_ref().unwrap().exists());
    // The evidence speaks for itself: both heads are signed by the old key, the smaller one by the
    // new one too.
    let forks = scene.forks();
    assert_eq!(forks.len(), 1);
    let [first, second] = [FIRST, SECOND].map(|seed| scene.fake.log_key(seed));
    assert_eq!(forks[0].vkey, second.to_string());
    assert_eq!(forks[0].newer_vkey.as_deref(), Some(&*first.to_string()));
    let open = |note: &str, key| deed_tlog::Checkpoint::open(note.as_bytes(), key).is_ok();
    assert!(open(&forks[0].older_checkpoint, &first));
    assert!(open(&forks[0].older_checkpoint, &second));
    assert!(open(&forks[0].newer_checkpoint, &first));
    assert!(!open(&forks[0].newer_checkpoint, &second));
    scene.lie(Lie::None);
    assert!(scene.ledger.head().await.is_err(), "nothing is believed");
}

/// A client that was shown such a head before it heard of the rotation finds out when it does.
#[tokio::test]
async fn a_head_that_the_old_key_signed_beyond_its_end_is_found_later() {
    let scene = scene().await;
    scene.rotate(SECOND).await;
    scene.fake.add_leaf(1);
    scene.lie(Lie::Retired);
    scene.ledger.head().await.unwrap();
    scene.lie(Lie::None);
    scene.fake.add_leaf(2);
    let error = scene.ledger.head().await.unwrap_err();
    let TrustError::Fork { kind, .. } = trust_error(&error) else {
        panic!("{error}");
    };
    assert_eq!(*kind, ForkKind::RetiredKey);
    assert_eq!(scene.forks().len(), 1);
}

#[tokio::test]
async fn a_handover_in_another_tree_is_a_fork() {
    let scene = scene().await;
    scene.rotate(SECOND).await;
    scene.fake.add_leaf(1);
    scene.lie(Lie::Consistency);
    let error = scene.ledger.head().await.unwrap_err();
    let TrustError::Fork { kind, .. } = trust_error(&error) else {
        panic!("{error}");
    };
    assert_eq!(*kind, ForkKind::ProofFails);
    let forks = scene.forks();
    assert_eq!(forks.len(), 1);
    assert_eq!(Scene::first_sizes(&scene.ledger), [1]);
}

#[tokio::test]
async fn kept_keys_that_were_changed_are_not_believed() {
    let scene = scene().await;
    scene.rotate(SECOND).await;
    scene.fake.add_leaf(1);
    scene.ledger.head().await.unwrap();
    scene.ledger.flush().await.unwrap();
    let pin = scene.ledger.pin();
    let store = scene.state.store(&pin.origin);
    let path = store.directory().join("log-keys.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let third = scene.fake.log_key(THIRD).to_string();
    let second = scene.fake.log_key(SECOND).to_string();
    for bad in [
        good.replace("\"first_size\": 5", "\"first_size\": 6"),
        good.replace(&second, &third),
        good.replace("handover", "hand"),
        good.replacen("\\n5\\n", "\\n6\\n", 1),
        String::new(),
    ] {
        assert_ne!(bad, good);
        std::fs::write(&path, bad).unwrap();
        store.keys(pin).unwrap_err();
        store.head(pin).unwrap_err();
        let options = scene.fake.options().state(scene.state.clone());
        let error = Ledger::connect(options).await.unwrap_err();
        assert!(matches!(error, Error::Store(_)), "{error}");
    }
    // Without the file the head on disk is signed by nobody that is known.
    std::fs::remove_file(&path).unwrap();
    store.head(pin).unwrap_err();
    std::fs::write(&path, good).unwrap();
    store.head(pin).unwrap().unwrap();
}
