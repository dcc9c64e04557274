//! Permits to act, and what is said of an Outcome.

use super::*;

/// A task that goes on in a session of the agent's own.
async fn acting(fake: &Fake, directory: &tempfile::TempDir, session: u8) -> (Ledger, Task) {
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    let nonce = Nonce::new([session; 16]);
    let session = Session::with_nonce(ledger.ledger_id(), AGENT.producer, nonce);
    let key = Arc::new(signing_key(AGENT.seed.unwrap()));
    let task = PLATFORM.task_id(1);
    let task = Task::of(&ledger, session, Signing::Each(key), task);
    (ledger, task)
}

fn plain() -> v1::Intent {
    v1::Intent {
        action: "look".to_owned(),
        resource: "orders/7".to_owned(),
        ..v1::Intent::default()
    }
}

#[tokio::test]
async fn a_permit_is_worked_out() {
    let mut ledger = stories::Ledger::new();
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let fake = Fake::telling(ledger.entries()).await;
    claims_it_all(&fake, 0, None);
    fake.lock().script.acts.clear();
    let directory = tempfile::tempdir().unwrap();
    let (_connection, mut task) = acting(&fake, &directory, 0x71).await;
    // The first one by the task's story, the others without.
    for _ in 0..3 {
        let cleared = task.intend(plain()).await.unwrap();
        assert_eq!(cleared.basis(), Basis::Checked);
    }
    // The task has ended; the server says cleared all the same.
    ledger.say(PLATFORM, Some(1), task_closed());
    let fake = Fake::telling(ledger.entries()).await;
    claims_it_all(&fake, 0, None);
    let directory = tempfile::tempdir().unwrap();
    let (_connection, mut task) = acting(&fake, &directory, 0x72).await;
    let error = task.intend(plain()).await.unwrap_err();
    let ActError::Client(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
    assert!(error.to_string().contains("the task has ended"), "{error}");
    let mut task = task.by_servers_word();
    let cleared = task.intend(plain()).await.unwrap();
    assert_eq!(cleared.basis(), Basis::ServersWord);
}

#[tokio::test]
async fn a_policy_is_not_talked_away() {
    let story = Story::waiting();
    let fake = Fake::telling(story.ledger.entries()).await;
    claims_it_all(&fake, story.intent.leaf, None);
    let directory = tempfile::tempdir().unwrap();
    let (_connection, mut task) = acting(&fake, &directory, 0x73).await;
    let error = task.intend(plain()).await.unwrap_err();
    let says = "the server says cleared; its own entries say";
    assert!(error.to_string().contains(says), "{error}");
}

/// Unsigned voices say that they saw it, and a system that it belongs to saw it.
#[tokio::test]
async fn only_a_system_that_counts_saw_it() {
    let mut story = Story::cleared();
    let effects = || vec![effect("orders/7", 500)];
    let done = outcome(&story.intent, v1::OutcomeStatus::Succeeded, effects());
    story.ledger.say(AGENT, Some(1), done);
    let seen = |story: &Story| observation(Some(&story.intent), effects());
    let said = seen(&story);
    story.ledger.say(ANYBODY, Some(1), said);
    let claimed = flat(
        &Scene::telling(&story.ledger)
            .await
            .run(&["task", "show", &TASK])
            .await,
    );
    assert!(claimed.contains("says it saw at leaf"), "{claimed}");
    assert!(claimed.contains("(not signed: a claim)"), "{claimed}");
    assert!(
        !claimed.contains("An independent system saw the same."),
        "{claimed}"
    );
    let said = seen(&story);
    story.ledger.say(DOWNSTREAM, Some(1), said);
    let proven = flat(
        &Scene::telling(&story.ledger)
            .await
            .run(&["task", "show", &TASK])
            .await,
    );
    let saw = format!("{} saw at leaf", DOWNSTREAM.producer);
    assert!(proven.contains(&saw), "{proven}");
    assert!(
        proven.contains("An independent system saw the same."),
        "{proven}"
    );
    // Somebody else may have had the system's key by then.
    story
        .ledger
        .say(AUTHORITY, None, key_revoked(DOWNSTREAM, Some(1)));
    let doubtful = flat(
        &Scene::telling(&story.ledger)
            .await
            .run(&["task", "show", &TASK])
            .await,
    );
    assert!(doubtful.contains("by a key in doubt"), "{doubtful}");
    assert!(!doubtful.contains(&saw), "{doubtful}");
}
