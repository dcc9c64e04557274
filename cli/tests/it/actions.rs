//! The `deed` command: tasks, grants, acts, findings and search.

use std::{fs, os::unix::fs::PermissionsExt as _};

use deed_client::key;
use deed_proto::v1::{self, FindingKind, IntentState, Severity};
use deed_testkit::fake::{Lie, authority_key};
use deed_tlog::SigningKey;
use serde_json::Value;

use crate::scene::{Scene, code, scene, stderr, words};

const AGENT: &str = "spiffe://example.org/agent";

/// A scene with keys of an authority and an agent, the agent's registered at leaf 1, and a task
/// opened at leaf 2; its id is the second value.
async fn scene_with_task() -> (Scene, String) {
    let scene = scene().await;
    for (name, key) in [
        ("owner.pem", authority_key()),
        ("agent.pem", SigningKey::from_seed(&[31; 32])),
    ] {
        let path = scene.path(name);
        fs::write(&path, &*key::private_to_pem(&key)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let register = format!(
        "key register agent.pem --role agent --producer {AGENT} --controller https://example.org"
    );
    authority(&scene, &register).await;
    let open = "task open --objective refund --requested-by ticket:1 --tier payment --deadline 1h";
    let opened = authority(&scene, open).await;
    let task = opened["task"].as_str().unwrap().to_owned();
    assert_eq!(task.len(), 32);
    assert_eq!(opened["leaf_index"], 2);
    (scene, task)
}

/// A command that an authority signs.
async fn authority(scene: &Scene, line: &str) -> Value {
    let line = format!("{line} --authority-key owner.pem --json");
    scene.json(&words(&line)).await
}

/// A command that the agent signs.
async fn agent(scene: &Scene, line: &str) -> Value {
    let line = format!("{line} --key agent.pem --json");
    scene.json(&words(&line)).await
}

fn assesses(scene: &Scene, state: IntentState, missing: &[&str], denied: &[&str]) {
    let strings = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    scene.fake.lock().script.assessed = Some(v1::Assessed {
        intent: state.into(),
        missing: strings(missing),
        denied: strings(denied),
        ..v1::Assessed::default()
    });
}

async fn entry(scene: &Scene, leaf: u64) -> Value {
    let leaf = leaf.to_string();
    scene.json(&["entry", &leaf, "--json"]).await["statement"].clone()
}

#[tokio::test]
async fn an_act_from_the_grant_to_its_outcome() {
    let (scene, task) = scene_with_task().await;
    let grant = format!(
        "grant --task {task} --subject {AGENT} --action payments.refund --action payments.look \
         --resource order/* --expires 1h --uses 3 --amount 5000 --currency EUR \
         --outside-token jti:8f14"
    );
    let grant = authority(&scene, &grant).await;
    let said = entry(&scene, 3).await["grant"].clone();
    assert_eq!(
        said["actions"],
        serde_json::json!(["payments.look", "payments.refund"])
    );
    assert_eq!(said["amount"]["minor_units"], 5000);
    assert_eq!(said["outside_token"]["kind"], "jti");
    // Passed on, and accepted.
    let pass_on = "grant --parent 3 --subject spiffe://example.org/helper \
                   --action payments.refund --resource order/7 --expires 30m --uses 1";
    agent(&scene, pass_on).await;
    let passed_on = entry(&scene, 4).await;
    assert_eq!(passed_on["task"], task);
    assert_eq!(passed_on["grant"]["parent"], grant["leaf_hash"]);
    let accept = "accept 4 --producer spiffe://example.org/helper --json";
    scene.json(&words(accept)).await;
    assert!(entry(&scene, 5).await["grant_accepted"]["grant"].is_string());

    fs::write(scene.path("call.json"), "{\"order\": 7}").unwrap();
    assesses(&scene, IntentState::Waiting, &["approval"], &[]);
    let intent = format!(
        "intend --task {task} --action payments.refund --resource order/7 --amount 1999 \
         --currency EUR --grant 3 --arguments call.json --model m1 --deadline 10m"
    );
    let intent = agent(&scene, &intent).await;
    assert_eq!(
        (&intent["state"], &intent["missing"][0]),
        (&"waiting".into(), &"approval".into())
    );
    let intended = entry(&scene, 6).await;
    assert_eq!(intended["intent"]["grant"], grant["leaf_hash"]);
    assert_eq!(
        intended["intent"]["arguments"]["media_type"],
        "application/json"
    );

    let decide = "decide 6 allow --engine opa --producer policy:engine --json";
    scene.json(&words(decide)).await;
    let decided = entry(&scene, 7).await["decision"].clone();
    assert_eq!(decided["intent"]["leaf_hash"], intent["leaf_hash"]);
    assert_eq!(decided["verdict"], "allow");

    let effect = "kind=payment.refunded,resource=order/7,id=re_1,amount=1999,currency=EUR";
    let complete = format!("complete 6 succeeded --effect {effect} --result call.json");
    agent(&scene, &complete).await;
    let outcome = entry(&scene, 8).await["outcome"].clone();
    assert_eq!(outcome["arguments"], intended["intent"]["arguments"]);
    assert_eq!(outcome["effects"][0]["external_id"], "re_1");
    assert_eq!(outcome["intent"]["session"], intended["session"]);

    let observe = format!("observe --intent 6 --effect {effect} --producer bank:x --reference t1");
    scene.json(&words(&format!("{observe} --json"))).await;
    let observed = entry(&scene, 9).await;
    assert_eq!(observed["task"], task);
    assert_eq!(observed["observation"]["reference"], "t1");

    authority(&scene, "revoke 3 --reason over").await;
    assert_eq!(
        entry(&scene, 10).await["revocation"]["grant"],
        grant["leaf_hash"]
    );
    authority(&scene, &format!("task close {task} --end handed-over")).await;
    assert_eq!(entry(&scene, 11).await["task_closed"]["end"], "handed_over");
}

#[tokio::test]
async fn a_denied_intent_is_recorded_and_fails() {
    let (scene, task) = scene_with_task().await;
    assesses(&scene, IntentState::Denied, &[], &["scope_exceeded"]);
    let line =
        format!("intend --task {task} --action payments.refund --resource order/7 --key agent.pem");
    let output = scene.run(&words(&line)).await;
    assert_eq!(code(&output), 1, "{output:?}");
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(stdout.contains("leaf       3"), "{stdout}");
    assert!(stdout.contains("denied: scope_exceeded"), "{stdout}");
    assert!(stderr(&output).contains("denied: the Intent at leaf 3"));
}

#[tokio::test]
async fn an_intent_waits_for_its_clearance() {
    let (scene, task) = scene_with_task().await;
    assesses(&scene, IntentState::Waiting, &["approval"], &[]);
    let standing = |state: IntentState| v1::ClearanceResponse {
        state: state.into(),
        ..v1::ClearanceResponse::default()
    };
    for (last, exit) in [
        (IntentState::Cleared, 0),
        (IntentState::Denied, 1),
        (IntentState::Lapsed, 1),
    ] {
        scene.fake.lock().script.standings = vec![standing(IntentState::Waiting), standing(last)];
        let line =
            format!("intend --task {task} --action a --resource b --key agent.pem --wait --json");
        let output = scene.run(&words(&line)).await;
        assert_eq!(code(&output), exit, "{output:?}");
        assert!(
            stderr(&output).contains("waiting for approval"),
            "{output:?}"
        );
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let name = last.as_str_name().trim_start_matches("INTENT_STATE_");
        assert_eq!(json["state"], name.to_ascii_lowercase());
    }
}

#[tokio::test]
async fn an_approval_commits_to_what_was_shown() {
    let (scene, task) = scene_with_task().await;
    fs::write(scene.path("call.json"), "{\"order\": \"\\u001b[2K7\"}").unwrap();
    let line = format!(
        "intend --task {task} --action payments.refund --resource order/7 --amount 5 \
         --currency EUR --arguments call.json"
    );
    let intent = agent(&scene, &line).await;
    // The command can ask nobody: stdin is no terminal.
    let approve = words("approve 3 --producer person:1 --json");
    assert_eq!(code(&scene.run(&approve).await), 2);
    let output = scene
        .run(&[&approve[..], &["--yes", "--strength", "multi-factor"]].concat())
        .await;
    assert_eq!(code(&output), 0, "{output:?}");
    let approved: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(approved["verdict"], "approved");
    let said = entry(&scene, 4).await["approval"].clone();
    assert_eq!(said["intent"]["leaf_hash"], intent["leaf_hash"]);
    assert_eq!(said["strength"], "multi_factor");
    assert_eq!(said["shown"]["digest"], approved["shown"]);
    // A decision that was made elsewhere is recorded without the times of its showing and opening.
    let at = |name: &str| said[name].as_i64();
    assert_eq!(
        (at("shown_at_us"), at("opened_at_us")),
        (Some(0), Some(0)),
        "{said}"
    );
    assert!(at("decided_at_us").unwrap() > 0, "{said}");
    for what in ["payments.refund", "order/7", "0.05 EUR", AGENT] {
        assert!(stderr(&output).contains(what), "{output:?}");
    }
    let refuse = [&approve[..], &["--yes", "--refuse"]].concat();
    scene.json(&refuse).await;
    assert_eq!(entry(&scene, 5).await["approval"]["verdict"], "deny");
    // An entry that is no Intent cannot be approved.
    let wrong = words("approve 2 --producer person:1 --yes");
    assert_eq!(code(&scene.run(&wrong).await), 2);
}

#[tokio::test]
async fn a_tasks_story_is_drawn_and_lies_in_it_fail() {
    let (scene, task) = scene_with_task().await;
    let line = format!("intend --task {task} --action payments.refund --resource order/7");
    agent(&scene, &line).await;
    let receipt = scene.json(&["task", "receipt", &task, "--json"]).await;
    assert_eq!(receipt["statement"]["task_receipt"]["count"], 2);
    assert_eq!(receipt["basis"], "checked");
    let output = scene.run(&["task", "show", &task]).await;
    assert_eq!(code(&output), 0, "{output:?}");
    let story = String::from_utf8(output.stdout).unwrap();
    assert!(
        story.lines().all(|line| line.chars().count() <= 80),
        "{story}"
    );
    for part in [
        &format!("task {task}  open, payment"),
        "opens the task",
        "intends payments.refund",
        "act 1  leaf 3, cleared",
        "None: the Intent names no grant.",
        "leaf 4: these are all 2 entries up to leaf 3",
        "2 verified, 1 the ledger's own",
    ] {
        assert!(story.contains(part), "{part} in\n{story}");
    }
    let json = scene.json(&["task", "show", &task, "--json"]).await;
    assert_eq!(json["count"], 3);
    assert_eq!(
        json["acts"][0]["answers"]["resource"],
        "order/7 (payments.refund)"
    );
    for lie in [
        Lie::TaskDigest,
        Lie::TaskOmitted,
        Lie::TaskRewritten,
        Lie::Inclusion,
    ] {
        scene.fake.lock().script.lie = lie;
        let output = scene.run(&["task", "show", &task]).await;
        assert_eq!(code(&output), 1, "{lie:?}: {output:?}");
    }
}

#[tokio::test]
async fn a_false_receipt_is_an_alarm() {
    let lies = async |lie| {
        let (scene, task) = scene_with_task().await;
        let line = format!("intend --task {task} --action payments.refund --resource order/7");
        agent(&scene, &line).await;
        scene.fake.lock().script.lie = lie;
        let output = scene.run(&["task", "receipt", &task]).await;
        assert_eq!(code(&output), 1, "{lie:?}: {output:?}");
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        (stderr(&output), printed)
    };
    let (said, printed) = lies(Lie::ReceiptDigest).await;
    let says = "which the entries before it do not have";
    assert!(said.contains(says), "{said}");
    assert_eq!(printed, "", "no number of it");
    let (said, printed) = lies(Lie::ReceiptHidden).await;
    let says = "ALARM: the receipt at leaf 4 is not among the entries";
    assert!(said.contains(says), "{said}");
    let words = "checked    nothing: entries and digest are the server's word";
    assert!(printed.contains(words), "{printed}");
}

#[tokio::test]
async fn a_receipt_says_what_it_rests_on() {
    let (scene, task) = scene_with_task().await;
    let receipt = ["task", "receipt", &task];
    let shown = scene.run(&receipt).await;
    assert_eq!(code(&shown), 0, "{shown:?}");
    let printed = String::from_utf8(shown.stdout).unwrap();
    assert!(
        printed.contains("checked    these are all entries"),
        "{printed}"
    );
    assert!(
        printed.lines().all(|line| line.chars().count() <= 80),
        "{printed}"
    );
    // A caller that may append and not read can check nothing.
    scene.fake.lock().script.lie = Lie::MayNotRead;
    let shown = scene.json(&[&receipt[..], &["--json"]].concat()).await;
    assert_eq!(shown["basis"], "servers_word", "{shown}");
    let shown = scene.run(&receipt).await;
    let printed = String::from_utf8(shown.stdout).unwrap();
    assert!(
        printed.contains("nothing: entries and digest are"),
        "{printed}"
    );
}

/// The findings of a list in JSON, and its last line.
pub(crate) async fn findings(scene: &Scene, options: &[&str]) -> (Vec<Value>, Value) {
    let command = [&["findings", "--json"], options].concat();
    let output = scene.run(&command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<Value> = lines.collect();
    let end = lines.pop().unwrap();
    assert_eq!(end["end"], true, "{text}");
    assert_eq!(end["findings"], lines.len(), "{text}");
    assert!(lines.iter().all(|line| line["end"].is_null()), "{text}");
    (lines, end)
}

#[tokio::test]
async fn findings_are_listed_and_disposed_of() {
    let (scene, task) = scene_with_task().await;
    let (list, end) = findings(&scene, &[]).await;
    assert_eq!((list.len(), &end["basis"]), (0, &"servers_word".into()));
    assert!(
        end["by_servers_word"].to_string().contains("deed audit"),
        "{end}"
    );
    let none = scene.run(&["findings"]).await;
    assert_eq!(
        String::from_utf8(none.stdout).unwrap(),
        "the server names no findings\n"
    );
    scene.fake.lock().findings = vec![v1::Finding {
        leaf_index: 2,
        number: 1,
        kind: FindingKind::SelfApproval.into(),
        severity: Severity::Serious.into(),
        task: hex::decode(&task).unwrap().into(),
        about_leaf: 2,
        ..v1::Finding::default()
    }];
    let (list, end) = findings(&scene, &["--kind", "self-approval"]).await;
    let [found] = &list[..] else {
        panic!("{list:?}");
    };
    assert_eq!(end["basis"], "servers_word");
    assert_eq!(
        (&found["kind"], &found["number"]),
        (&"self_approval".into(), &1.into())
    );
    let said = authority(
        &scene,
        "disposition 2.1 explained --by ticket:2 --reason fine",
    )
    .await;
    assert_eq!(said["leaf_index"], 3);
    let disposed = entry(&scene, 3).await;
    assert_eq!(disposed["task"], task);
    assert_eq!(disposed["finding_disposition"]["kind"], "explained");
    let missing = "disposition 2.0 explained --by t --reason r --authority-key owner.pem";
    assert_eq!(code(&scene.run(&words(missing)).await), 2);
}

#[tokio::test]
async fn search_prints_what_has_the_terms() {
    let (scene, task) = scene_with_task().await;
    for action in ["a", "b"] {
        let line = format!("intend --task {task} --action {action} --resource r");
        agent(&scene, &line).await;
    }
    let found = scene.json(&words("search --action a --json")).await;
    assert_eq!(found["leaf_index"], 3);
    let text = scene.run(&words("search --action b")).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains(AGENT) && text.contains("intends b on r"),
        "{text}"
    );
    let nothing = scene.run(&words("search --action c")).await;
    assert_eq!((code(&nothing), nothing.stdout.len()), (0, 0));
    assert!(stderr(&nothing).contains("nothing found below leaf 5"));
    scene.fake.lock().script.lie = Lie::SearchOther;
    assert_eq!(code(&scene.run(&words("search --action a")).await), 1);
}

#[tokio::test]
async fn mistakes_are_usage_and_say_what_to_do() {
    let (scene, task) = scene_with_task().await;
    let task = format!("--task {task}");
    for (line, says) in [
        (
            format!("intend {task} --action a --resource b"),
            "name the producer",
        ),
        (
            format!("intend {task} --action a --resource b --amount 5 --producer a:b"),
            "--currency",
        ),
        (
            format!("intend {task} --action a --resource b --producer a:b --grant 2"),
            "is no grant",
        ),
        (
            "task open --requested-by a --tier low --session x".to_owned(),
            "--session goes with",
        ),
        (
            "complete 2 succeeded --producer a:b".to_owned(),
            "is no Intent",
        ),
        (
            "complete 2 succeeded --producer a:b --effect refund".to_owned(),
            "kind=K",
        ),
        ("observe --producer a:b".to_owned(), "--effect"),
        ("search --finding nonsense".to_owned(), "self_approval"),
        (
            "disposition 2 explained --by a --reason b".to_owned(),
            "17.0",
        ),
    ] {
        let output = scene.run(&words(&line)).await;
        assert_eq!(code(&output), 2, "{line}: {output:?}");
        assert!(
            stderr(&output).contains(says),
            "{line}: {}",
            stderr(&output)
        );
    }
}

#[tokio::test]
async fn a_named_session_goes_on() {
    let (scene, task) = scene_with_task().await;
    for sequence in 0..3 {
        let line = format!("intend --task {task} --action a --resource b --session acts");
        let said = agent(&scene, &line).await;
        assert_eq!(said["sequence"], sequence);
    }
    let fresh = format!("intend --task {task} --action a --resource b");
    assert_eq!(agent(&scene, &fresh).await["sequence"], 0);
}
