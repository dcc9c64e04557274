//! Trust statements: what a server has shown once it cannot hide, and what it leaves out proves nothing.

use std::{process::Output, sync::Arc};

use bytes::Bytes;
use deed_client::{ActError, Error, ErrorKind, Session, Signing, StateDir, Task, TrustError};
use deed_evidence::{
    Nonce,
    entry::{Entry, KeyedSignature, TrustLink},
    signature, statement,
};
use deed_proto::v1::{self, IntentState, PayloadType, RiskTier, statement::Body};
use deed_testkit::fake::Fake;
use deed_tlog::{LeafIndex, TreeHead};

use crate::{
    scene::{Scene, code, stderr},
    stories::{self, *},
};

/// An agent's Intent, and then the agent's key is revoked.
struct Story {
    ledger: stories::Ledger,
    intent: Place,
    revoked: Place,
    /// The trust statement before the revocation.
    before: TrustLink,
}

impl Story {
    fn new() -> Self {
        let mut ledger = stories::Ledger::new();
        ledger.at(100);
        ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
        let intent = ledger.say(AGENT, Some(1), Body::Intent(intent("orders/7", 5, None)));
        let head = ledger.trust.head();
        let before = TrustLink {
            leaf_index: head.leaf_index,
            leaf_hash: head.leaf_hash,
        };
        let revoked = ledger.say(AUTHORITY, None, key_revoked(AGENT, None));
        ledger.say(PLATFORM, Some(1), task_closed());
        Self {
            ledger,
            intent,
            revoked,
            before,
        }
    }

    /// A trust statement of the authority's that goes around the revocation.
    fn around(&self) -> Bytes {
        let floor = Body::RetentionSet(v1::RetentionSet {
            floor_us: 5,
            reason: String::new(),
        });
        let payload = statement::encode(&self.ledger.statement(AUTHORITY, None, floor)).unwrap();
        let key = signing_key(AUTHORITY.seed.unwrap());
        let id = signature::key_id(key.public_key());
        let keyed = KeyedSignature {
            key_id: id.as_bytes(),
            signature: &signature::sign(&key, PayloadType::Statement, &payload),
        };
        Entry::trust(&payload, keyed, self.ledger.now(), self.before).encode()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const SHOWN: &str = "which the server has shown before";

/// Two processes and one state directory.
#[tokio::test]
async fn the_next_process_knows_what_was_shown() {
    let story = Story::new();
    let scene = Scene::telling(&story.ledger).await;
    let (intent, task) = (
        story.intent.leaf.to_string(),
        PLATFORM.task_id(1).to_string(),
    );
    let commands = [
        &["entry", &intent][..],
        &["search", "--agent", AGENT.producer],
        &["task", "show", &task],
        &["findings", "--task", &task],
        &["await", &intent],
        &["key", "list"],
    ];
    scene.fake.lock().script.standings = vec![v1::ClearanceResponse {
        state: IntentState::Cleared.into(),
        ..v1::ClearanceResponse::default()
    }];
    let kept = scene.run(&["key", "list"]).await;
    assert_eq!(code(&kept), 0, "{kept:?}");
    let around = scene.fake.take(story.around());
    for hidden in [vec![story.revoked.leaf, around], vec![story.revoked.leaf]] {
        scene.fake.lock().script.hidden_trust = hidden;
        for command in commands {
            let output = scene.run(command).await;
            assert_eq!(code(&output), 1, "{command:?}: {output:?}");
            assert!(stderr(&output).contains(SHOWN), "{command:?}: {output:?}");
            let printed = stdout(&output);
            assert!(!printed.contains("verified"), "{command:?}: {printed}");
        }
    }
    // An entry that links past the revocation is refused as soon as the revocation is shown.
    scene.fake.lock().script.hidden_trust = vec![around];
    for command in [commands[0], commands[5]] {
        let output = scene.run(command).await;
        assert_eq!(code(&output), 0, "{command:?}: {output:?}");
    }
}

/// A client that was shown no later trust statement prints the leaf of the newest one, and that the
/// absence of others is the server's word.
#[tokio::test]
async fn that_nothing_follows_is_the_servers_word() {
    let story = Story::new();
    let scene = Scene::telling(&story.ledger).await;
    let leaf = story.intent.leaf.to_string();
    let shown = scene.run(&["entry", &leaf]).await;
    let through = story.revoked.leaf;
    let words =
        format!("by trust statements up to leaf {through}; that none follows is the server's");
    let printed = stdout(&shown);
    let flat = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(&words), "{printed}");
    let shown = scene.json(&["entry", &leaf, "--json"]).await;
    assert_eq!(shown["trust_through"], through);
    let found = scene.run(&["search", "--agent", AGENT.producer]).await;
    assert_eq!(code(&found), 0, "{found:?}");
    assert!(stderr(&found).contains(&words), "{found:?}");
    let found = scene
        .json(&["search", "--agent", AGENT.producer, "--json"])
        .await;
    assert_eq!(found["trust_through"], through);
}

/// A trust statement in the log that is not in the chain was not checked against earlier ones.
#[tokio::test]
async fn a_trust_statement_that_the_chain_leaves_out_proves_nothing() {
    let story = Story::new();
    let scene = Scene::telling(&story.ledger).await;
    let leaf = story.revoked.leaf;
    scene.fake.lock().script.hidden_trust = vec![leaf];
    let output = scene.run(&["entry", &leaf.to_string()]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stdout(&output).contains("proves nothing"), "{output:?}");
    let says = "the server's chain of trust statements leaves it out";
    assert!(stderr(&output).contains(says), "{output:?}");
    let authority = ["search", "--agent", AUTHORITY.producer];
    let output = scene.run(&authority).await;
    assert_eq!(code(&output), 1, "{output:?}");
    let found = stdout(&output);
    let refused = found.matches("ITS SIGNATURE PROVES NOTHING").count();
    assert_eq!(refused, 1, "{found}");
    // As part of the chain it is valid.
    scene.fake.lock().script.hidden_trust.clear();
    let output = scene.run(&authority).await;
    assert_eq!(code(&output), 0, "{output:?}");
}

/// The client asks for later trust statements in a tree that is no older than the trusted one.
#[tokio::test]
async fn a_chain_that_is_followed_is_no_older_than_the_trusted_tree() {
    let story = Story::new();
    let fake = Fake::telling(story.ledger.entries()).await;
    let directory = tempfile::tempdir().unwrap();
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    let leaf = LeafIndex::new(story.intent.leaf);
    ledger.vouched_entry(leaf).await.unwrap();
    assert_eq!(
        ledger.newest_trust().map(LeafIndex::get),
        Some(story.revoked.leaf)
    );
    let size = story.ledger.entries().len();
    fake.lock().script.trust_size = Some(size - 1);
    let error = ledger.vouched_entry(leaf).await.unwrap_err();
    let Error::Trust(found) = &error else {
        panic!("{error}");
    };
    assert!(matches!(**found, TrustError::Stale { .. }), "{error}");
}

#[tokio::test]
async fn a_permit_does_not_rest_on_a_chain_that_hides_what_was_shown() {
    let mut ledger = stories::Ledger::new();
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let revoked = ledger.say(AUTHORITY, None, key_revoked(AGENT, None));
    ledger.say(
        PLATFORM,
        None,
        observation(None, vec![effect("orders/9", 1)]),
    );
    let fake = Fake::telling(ledger.entries()).await;
    fake.lock().script.assessed = Some(v1::Assessed {
        intent: IntentState::Cleared.into(),
        ..v1::Assessed::default()
    });
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let first = fake.connect(&state).await;
    first.trust_chain().await.unwrap();
    let head: TreeHead = first.head().await.unwrap().signed.head;
    assert!(head.size.get() > revoked.leaf);
    drop(first);
    fake.lock().script.hidden_trust = vec![revoked.leaf];
    let second = fake.connect(&state).await;
    let nonce = Nonce::new([0x71; 16]);
    let session = Session::with_nonce(second.ledger_id(), AGENT.producer, nonce);
    let key = Arc::new(signing_key(AGENT.seed.unwrap()));
    let mut task = Task::of(&second, session, Signing::Each(key), PLATFORM.task_id(1));
    let plain = v1::Intent {
        action: "look".to_owned(),
        resource: "orders/7".to_owned(),
        ..v1::Intent::default()
    };
    let error = task.intend(plain).await.unwrap_err();
    let ActError::Client(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
    assert!(error.to_string().contains(SHOWN), "{error}");
}
