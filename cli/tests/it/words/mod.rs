//! Words of proof come from a check in the same process: a lying server's story of a task, its
//! clearances, layers, findings and receipts, against what the entries themselves say.

mod permits;

use std::{
    process::Output,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use deed_client::{
    ActError, Basis, Error, ErrorKind, Ledger, Session, Signing, Standing, StateDir, Task,
};
use deed_evidence::{
    Nonce,
    entry::{Entry, KeyedSignature},
    replay::task::Unshown,
    signature, statement,
};
use deed_proto::v1::{
    self, Author, IntentState, LayerState, PayloadType, RiskTier, Verdict, statement::Body,
};
use deed_testkit::fake::Fake;
use deed_tlog::LeafIndex;

use crate::{
    actions::findings,
    scene::{Scene, code, stderr},
    stories::{self, *},
};

/// The task of every story here.
static TASK: LazyLock<String> = LazyLock::new(|| PLATFORM.task_id(1).to_string());

/// A payment that waits for a decision and an approval.
struct Story {
    ledger: stories::Ledger,
    intent: Place,
}

impl Story {
    fn waiting() -> Self {
        let mut ledger = stories::Ledger::new();
        ledger.set_default_policy();
        ledger.at(100);
        ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
        let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
        let said = Body::Intent(intent("orders/7", 500, Some(grant.hash)));
        let intent = ledger.say(AGENT, Some(1), said);
        assert_eq!(intent.state(), Some(IntentState::Waiting));
        Self { ledger, intent }
    }

    fn decide(&mut self) -> Place {
        let said = decision(&self.intent, Verdict::Allow);
        self.ledger.say(ENGINE, Some(1), said)
    }

    fn approve(&mut self, who: Who, verdict: Verdict) -> Place {
        let said = approval(&self.intent, verdict, self.ledger.now());
        self.ledger.say(who, Some(1), said)
    }

    fn cleared() -> Self {
        let mut story = Self::waiting();
        story.decide();
        story.approve(APPROVER, Verdict::Allow);
        story
    }

    fn by_ledger(&self, author: Author, body: Body) -> Bytes {
        let at = self.ledger.now();
        let statement = v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger.id.as_bytes()),
            producer: statement::LEDGER_PRODUCER.to_owned(),
            occurred_at_us: at.get(),
            task: PLATFORM.task_id(1).as_bytes().to_vec().into(),
            body: Some(body),
            ..v1::Statement::default()
        };
        let payload = statement::encode(&statement).unwrap();
        Entry {
            author,
            ..Entry::unsigned(&payload, at)
        }
        .encode()
    }

    fn clearance(&self, of: &Place, evidence: &[&Place]) -> Bytes {
        let body = Body::Clearance(v1::Clearance {
            intent: Some(of.leaf_ref()),
            policy_leaf: 10,
            evidence: evidence.iter().map(|one| one.leaf_ref()).collect(),
        });
        self.by_ledger(Author::Ledger, body)
    }

    /// The next statement of somebody, signed whether they may speak or not.
    fn signed(&self, who: Who, body: Body) -> Bytes {
        let made = self.ledger.statement(who, Some(1), body);
        let payload = statement::encode(&made).unwrap();
        let key = signing_key(who.seed.unwrap());
        let key_id = who.key().unwrap();
        let keyed = KeyedSignature {
            key_id: key_id.as_bytes(),
            signature: &signature::sign(&key, PayloadType::Statement, &payload),
        };
        Entry::signed(&payload, keyed, self.ledger.now()).encode()
    }

    fn leaf(&self) -> LeafIndex {
        LeafIndex::new(self.intent.leaf)
    }
}

/// The server says cleared, and of everything that it is proven.
fn claims_it_all(fake: &Fake, intent: u64, clearance: Option<u64>) {
    let proven = LayerState::Proven.into();
    let mut state = fake.lock();
    state.script.standings = vec![v1::ClearanceResponse {
        state: IntentState::Cleared.into(),
        clearance_leaf: clearance,
        ..v1::ClearanceResponse::default()
    }];
    state.script.assessed = Some(v1::Assessed {
        intent: IntentState::Cleared.into(),
        ..v1::Assessed::default()
    });
    state.script.acts = vec![v1::ActInfo {
        intent_leaf: intent,
        state: IntentState::Cleared.into(),
        clearance_leaf: clearance,
        layers: Some(v1::Layers {
            identity: proven,
            authority: proven,
            intent: proven,
            approval: proven,
            result: proven,
            corroboration: proven,
        }),
        ..v1::ActInfo::default()
    }];
}

async fn settled(fake: &Fake, intent: LeafIndex) -> Result<Standing, Error> {
    let directory = tempfile::tempdir().unwrap();
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    ledger.await_clearance(intent).settled().await
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Both the library and the command refuse a clearance, for this reason.
#[track_caller]
fn assert_refused(standing: Result<Standing, Error>, output: &Output, says: &str) {
    let error = standing.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert_eq!(code(output), 1, "{output:?}");
    assert!(stderr(output).contains(says), "{output:?}");
    assert!(!stdout(output).contains("cleared"), "{output:?}");
}

async fn refuses(story: &Story, forged: Vec<Bytes>, names: Option<u64>, says: &str) {
    let scene = Scene::telling(&story.ledger).await;
    for entry in forged {
        scene.fake.take(entry);
    }
    let leaf = story.leaf();
    claims_it_all(&scene.fake, leaf.get(), names);
    let standing = settled(&scene.fake, leaf).await;
    let output = scene.run(&["await", &leaf.to_string()]).await;
    assert_refused(standing, &output, says);
    let shown = scene.run(&["task", "show", &TASK]).await;
    assert_eq!(code(&shown), 1, "{shown:?}");
    assert!(stderr(&shown).contains("does not verify"), "{shown:?}");
}

#[tokio::test]
async fn what_waits_is_not_cleared_by_the_servers_word() {
    let story = Story::waiting();
    let says = "the server says cleared; its own entries say waiting";
    refuses(&story, Vec::new(), None, says).await;
    // A caller that wants the server's word has to say so, and gets it under that name.
    let fake = Fake::telling(story.ledger.entries()).await;
    claims_it_all(&fake, story.intent.leaf, None);
    let directory = tempfile::tempdir().unwrap();
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    let watch = ledger.await_clearance(story.leaf()).by_servers_word();
    let standing = watch.settled().await.unwrap();
    assert_eq!(standing.basis, Basis::ServersWord);
}

#[tokio::test]
async fn a_clearance_must_follow_from_its_evidence() {
    // The evidence that the clearance names does not suffice.
    let mut story = Story::waiting();
    let second = Body::Intent(intent("orders/8", 5, None));
    let second = story.ledger.say(AGENT, Some(1), second);
    let decided = story.decide();
    let behind = Some(story.ledger.next_leaf());
    let forged = story.clearance(&story.intent, &[&decided]);
    let uncalled = "nothing before it calls for a clearance here";
    refuses(&story, vec![forged.clone()], behind, uncalled).await;
    // A clearance as an unsigned statement: only the ledger may clear.
    let payload = Entry::parse(&forged).unwrap().payload.to_vec();
    let unsigned = Entry::unsigned(&payload, story.ledger.now()).encode();
    refuses(&story, vec![unsigned], behind, "leaf").await;
    // A clearance of another Intent.
    let other = story.clearance(&second, &[&decided]);
    refuses(&story, vec![other], behind, "should clear the Intent").await;
    // The agent's own controller approves.
    let own = story.approve(COLLEAGUE, Verdict::Allow);
    let behind = Some(story.ledger.next_leaf());
    let forged = story.clearance(&story.intent, &[&decided, &own]);
    refuses(&story, vec![forged], behind, uncalled).await;
}

#[tokio::test]
async fn a_key_that_was_revoked_clears_nothing() {
    let mut story = Story::waiting();
    let decided = story.decide();
    let revoked = key_revoked(APPROVER, None);
    story.ledger.say(AUTHORITY, None, revoked);
    let said = approval(&story.intent, Verdict::Allow, story.ledger.now());
    let approved = story.signed(APPROVER, said);
    let leaf = story.ledger.next_leaf();
    let place = Place {
        leaf,
        hash: deed_tlog::leaf_hash(&approved),
        ..decided.clone()
    };
    let forged = story.clearance(&story.intent, &[&decided, &place]);
    let forged = vec![approved, forged];
    refuses(&story, forged.clone(), Some(leaf + 1), "was revoked").await;
    // The signature of such an entry alone proves nothing either.
    let scene = Scene::telling(&story.ledger).await;
    for entry in forged {
        scene.fake.take(entry);
    }
    let output = scene.run(&["entry", &leaf.to_string()]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stdout(&output).contains("proves nothing"), "{output:?}");
    assert!(stderr(&output).contains("was revoked"), "{output:?}");
    let output = scene.run(&["search", "--agent", APPROVER.producer]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    let found = stdout(&output);
    assert!(found.contains("ITS SIGNATURE PROVES NOTHING"), "{found}");
    let honest = story.intent.leaf.to_string();
    let shown = scene.run(&["entry", &honest]).await;
    assert_eq!(code(&shown), 0, "{shown:?}");
    assert!(
        stdout(&shown).contains("verified: the key was"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn a_clearance_that_follows_is_checked() {
    let story = Story::cleared();
    let scene = Scene::telling(&story.ledger).await;
    let clearance = story.ledger.act(story.intent.leaf).clearance_leaf;
    scene.fake.lock().script.standings = vec![v1::ClearanceResponse {
        state: IntentState::Cleared.into(),
        clearance_leaf: clearance,
        ..v1::ClearanceResponse::default()
    }];
    let standing = settled(&scene.fake, story.leaf()).await.unwrap();
    assert_eq!(
        (standing.state, standing.basis),
        (IntentState::Cleared, Basis::Checked)
    );
    assert_eq!(standing.clearance.map(|one| one.index.get()), clearance);
    let leaf = story.leaf().to_string();
    let awaited = scene.json(&["await", &leaf, "--json"]).await;
    assert_eq!(awaited["basis"], "checked");
    assert_eq!(awaited["clearance_leaf"].as_u64(), clearance);
    let shown = scene.json(&["task", "show", &TASK, "--json"]).await;
    assert_eq!(shown["basis"], "checked");
    assert_eq!(shown["alarms"].as_array().unwrap().len(), 0, "{shown}");
    assert_eq!(shown["acts"][0]["layers"]["approval"], "proven");
    assert_eq!(shown["signatures"]["unchecked"], 0);
}

#[tokio::test]
async fn layers_that_are_claimed_are_an_alarm() {
    let story = Story::waiting();
    let scene = Scene::telling(&story.ledger).await;
    claims_it_all(&scene.fake, story.intent.leaf, None);
    let output = scene.run(&["task", "show", &TASK]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    let alarms = stderr(&output);
    for layer in ["authority", "approval", "result", "corroboration"] {
        let says = format!("the layer {layer} of the act");
        assert!(alarms.contains(&says), "{layer}: {alarms}");
    }
    assert!(alarms.contains("the server says proven; its own entries say"));
    // The output shows what the entries say.
    let story = stdout(&output);
    assert!(story.contains("waiting"), "{story}");
    assert!(!story.contains("corroboration proven"), "{story}");
    assert!(
        story.lines().all(|line| line.chars().count() <= 80),
        "{story}"
    );
}

#[tokio::test]
async fn a_refusal_that_is_left_out_is_not_called_nothing() {
    let mut story = Story::cleared();
    let refused = story.approve(SECOND, Verdict::Deny);
    let scene = Scene::telling(&story.ledger).await;
    let whole = scene.run(&["task", "show", &TASK]).await;
    assert_eq!(code(&whole), 0, "{whole:?}");
    assert!(stdout(&whole).contains("decision denied"), "{whole:?}");
    // The newest entry is looked at in any case.
    scene.fake.lock().script.hidden = vec![refused.leaf];
    let output = scene.run(&["task", "show", &TASK]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains("does not tell it"), "{output:?}");
    // Without a receipt the log does not show that an entry is missing, so the command cannot either.
    let opened = task_opened(RiskTier::Low, 0);
    story.ledger.say(PLATFORM, Some(4), opened);
    let scene = Scene::telling(&story.ledger).await;
    scene.fake.lock().script.hidden = vec![refused.leaf];
    let output = scene.run(&["task", "show", &TASK]).await;
    let shown = stdout(&output);
    assert!(
        shown.contains("that no entry is left out is the"),
        "{shown}"
    );
    assert!(shown.contains("no receipt in the log"), "{shown}");
    assert!(!shown.contains("their digest is the ledger's"), "{shown}");
    assert!(!shown.lines().any(|line| line == "no findings"), "{shown}");
    let found = scene.run(&["findings", "--task", &TASK]).await;
    assert!(
        stderr(&found).contains("no receipt in the log"),
        "{found:?}"
    );
    // With a receipt the omission shows.
    story.ledger.request_receipt(1).unwrap();
    let scene = Scene::telling(&story.ledger).await;
    let whole = scene.run(&["task", "show", &TASK]).await;
    assert_eq!(code(&whole), 0, "{whole:?}");
    assert!(stdout(&whole).contains("these are all"), "{whole:?}");
    scene.fake.lock().script.hidden = vec![refused.leaf];
    let output = scene.run(&["task", "show", &TASK]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(!stdout(&output).contains("these are all"), "{output:?}");
}

/// An agent signs a batch whose first statement, of another task, is the second one for its place: all
/// of the batch is evidence of that and nothing else. An honest server tells no act; a liar's permit
/// is none.
#[tokio::test]
async fn an_intent_in_a_batch_that_is_evidence_alone_is_not_cleared() {
    let said = |resource: &str| {
        let mut said = intent(resource, 5, None);
        said.amount = None;
        Body::Intent(said)
    };
    let mut ledger = stories::Ledger::new();
    ledger.at(100);
    for task in [1, 2] {
        ledger.say(PLATFORM, Some(task), task_opened(RiskTier::Low, 0));
    }
    ledger.say(AGENT, Some(2), said("orders/0"));
    let batch = vec![(Some(2), said("orders/1")), (Some(1), said("orders/2"))];
    let honest = ledger.say_batch(AGENT, batch);
    let taken = ledger.say(AGENT, Some(2), said("orders/3"));
    let second = |task: u8, resource: &str, further: u64| {
        let mut made = ledger.statement(AGENT, Some(task), said(resource));
        made.sequence = taken.sequence.get() + further;
        statement::encode(&made).unwrap()
    };
    let payloads = [second(2, "orders/4", 0), second(1, "orders/5", 1)];
    let manifest = deed_evidence::batch::Manifest::over(&payloads)
        .unwrap()
        .encode();
    let key = signing_key(AGENT.seed.unwrap());
    let (key_id, signature) = (
        AGENT.key().unwrap(),
        signature::sign(&key, PayloadType::BatchManifest, &manifest),
    );
    let keyed = KeyedSignature {
        key_id: key_id.as_bytes(),
        signature: &signature,
    };
    let now = ledger.now();
    let fake = Fake::telling(ledger.entries()).await;
    let directory = tempfile::tempdir().unwrap();
    let client = fake.connect(&StateDir::new(directory.path())).await;
    // The honest batch counts, and that is shown.
    let told = |leaf: u64| {
        fake.lock().script.standings = vec![v1::ClearanceResponse {
            state: IntentState::Cleared.into(),
            ..v1::ClearanceResponse::default()
        }];
        client.await_clearance(LeafIndex::new(leaf)).settled()
    };
    let standing = told(honest[1].leaf).await.unwrap();
    assert_eq!(standing.basis, Basis::Checked);
    let judged = client.judged_task(PLATFORM.task_id(1)).await.unwrap();
    let unshown = &judged.agreed().unwrap().unshown;
    let doubtful = |one: &&Unshown| matches!(one, Unshown::Batch { .. });
    assert_eq!(unshown.iter().find(doubtful), None);
    // The other one does not.
    fake.take(Entry::manifest(&manifest, keyed, now).encode());
    fake.take(Entry::batched(&payloads[0], now).encode());
    let leaf = fake.take(Entry::batched(&payloads[1], now).encode());
    let error = told(leaf).await.unwrap_err();
    assert!(error.to_string().contains("it is no act"), "{error}");
    let judged = client.judged_task(PLATFORM.task_id(1)).await.unwrap();
    assert_eq!(judged.verdict.as_ref().unwrap().acts.len(), 1);
    assert!(judged.agreed().is_err());
}

#[tokio::test]
async fn findings_that_are_left_out_are_an_alarm() {
    let mut story = Story::waiting();
    story.approve(COLLEAGUE, Verdict::Allow);
    let scene = Scene::telling(&story.ledger).await;
    let of_task = ["--task", &TASK];
    let (list, end) = findings(&scene, &of_task).await;
    assert_eq!(list[0]["kind"], "self_approval");
    assert_eq!((list.len(), &list[0]["basis"]), (1, &"checked".into()));
    assert_eq!(end["basis"], "checked");
    assert!(
        !end["by_servers_word"].as_array().unwrap().is_empty(),
        "{end}"
    );
    assert_eq!(end["alarms"], serde_json::json!([]));
    let none = [&of_task[..], &["--kind", "hasty_approval"]].concat();
    let (list, end) = findings(&scene, &none).await;
    assert_eq!((list.len(), &end["basis"]), (0, &"checked".into()));
    scene.fake.lock().script.no_findings = true;
    for command in [&["task", "show", &TASK][..], &["findings", "--task", &TASK]] {
        let output = scene.run(command).await;
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(stdout(&output).contains("self approval"), "{output:?}");
        let says = "the server says nothing; its own entries say self approval";
        assert!(stderr(&output).contains(says), "{output:?}");
    }
    let (_, end) = findings(&scene, &of_task).await;
    assert_eq!(end["alarms"].as_array().unwrap().len(), 1, "{end}");
    // The findings of a whole ledger are the server's word, and the output says so.
    let output = scene.run(&["findings"]).await;
    assert_eq!(stdout(&output), "the server names no findings\n");
    assert!(
        stderr(&output).contains("by the server's word"),
        "{output:?}"
    );
}

#[tokio::test]
async fn batched_entries_without_a_manifest_prove_nothing() {
    let mut story = Story::waiting();
    story.decide();
    let said = approval(&story.intent, Verdict::Allow, story.ledger.now());
    let made = story.ledger.statement(APPROVER, Some(1), said);
    let payload = statement::encode(&made).unwrap();
    let batched = Entry::batched(&payload, story.ledger.now()).encode();
    let leaf = story.ledger.next_leaf();
    refuses(&story, vec![batched.clone()], None, "no manifest").await;
    let scene = Scene::telling(&story.ledger).await;
    scene.fake.take(batched);
    let output = scene.run(&["entry", &leaf.to_string()]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stdout(&output).contains("proves nothing"), "{output:?}");
    // An honest one is followed there.
    let mut story = Story::waiting();
    let said = decision(&story.intent, Verdict::Allow);
    let places = story.ledger.say_batch(ENGINE, vec![(Some(1), said)]);
    let scene = Scene::telling(&story.ledger).await;
    let shown = scene.json(&["task", "show", &TASK, "--json"]).await;
    assert_eq!(shown["signatures"]["batched"], 1, "{shown}");
    let leaf = places[0].leaf.to_string();
    let shown = scene.json(&["entry", &leaf, "--json"]).await;
    assert_eq!(shown["signature"], "verified");
}

#[tokio::test]
async fn a_false_digest_is_an_alarm() {
    let mut story = Story::cleared();
    story.decide();
    let behind = story.ledger.next_leaf();
    let head = story.ledger.trust.head();
    let receipt = Body::TaskReceipt(v1::TaskReceipt {
        through_leaf: behind - 1,
        count: story.ledger.task(1).count,
        digest: vec![9; 32].into(),
        trust_head: Some(v1::LeafRef {
            leaf_index: head.leaf_index.get(),
            leaf_hash: Bytes::copy_from_slice(head.leaf_hash.as_bytes()),
        }),
        assessment_digest: vec![8; 32].into(),
        requested: true,
    });
    let forged = story.by_ledger(Author::Ledger, receipt);
    let scene = Scene::telling(&story.ledger).await;
    scene.fake.take(forged);
    let output = scene.run(&["task", "show", &TASK]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(
        !stdout(&output).contains("digest is the receipt's"),
        "{output:?}"
    );
}

fn flat(output: &Output) -> String {
    let text = stdout(output);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
