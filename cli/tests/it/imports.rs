//! `deed observe import`: what is recorded, what is said of the rest, and how it ends.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, process::Stdio};

use deed_client::key;
use deed_testkit::fake::authority_key;
use deed_tlog::SigningKey;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::scene::{Scene, code, scene, stderr};

const IMPORT: [&str; 4] = ["observe", "import", "--mapping", "kubernetes"];

fn event(n: usize, verb: &str, more: &str) -> String {
    format!(
        "{{\"auditID\": \"a{n}\", \"stage\": \"ResponseComplete\", \"level\": \"Request\", \"verb\": \
         \"{verb}\", \"requestURI\": \"/x\", \"objectRef\": {{\"resource\": \"pods\", \"namespace\": \
         \"shop\", \"name\": \"web-{n}\"}}, \"responseStatus\": {{\"code\": 200}}, \
         \"stageTimestamp\": \"2026-11-24T10:00:00.{n}Z\"{more}}}"
    )
}

async fn import(scene: &Scene, arguments: &[&str]) -> (i32, Value, String) {
    let said = ["--producer", "import:k8s", "--json"];
    let all = [&IMPORT[..], arguments, &said].concat();
    let output = scene.run(&all).await;
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (code(&output), summary, stderr(&output))
}

async fn statement(scene: &Scene, leaf: u64) -> Value {
    let leaf = leaf.to_string();
    scene.json(&["entry", &leaf, "--json"]).await["statement"].clone()
}

/// Returns the observations of the ledger as text, sorted.
async fn observed(scene: &Scene) -> Vec<String> {
    let mut all = Vec::new();
    for leaf in 1..scene.fake.size() {
        let statement = statement(scene, leaf).await;
        all.push(statement["observation"].to_string());
    }
    all.sort();
    all
}

#[tokio::test]
async fn logs_of_other_systems_are_imported_once() {
    let scene = scene().await;
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/kubernetes.jsonl");
    let dry = [&IMPORT[..], &[data, "--dry-run", "--json"]].concat();
    let summary = scene.json(&dry).await;
    assert_eq!(
        (
            &summary["observations"],
            &summary["left_out"],
            &summary["accepted"]
        ),
        (&2.into(), &3.into(), &0.into())
    );
    // The very statements, but for who speaks and where.
    let shown = summary["statements"].as_array().unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0]["observation"]["effects"][0]["kind"], "k8s.patch");
    let text = scene
        .run(&[&IMPORT[..], &[data, "--dry-run"]].concat())
        .await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("k8s.delete on k8s:namespaces/old-shop  (a claim)  k8s-audit="),
        "{text}"
    );
    // Somebody has to say so.
    assert_eq!(code(&scene.run(&[&IMPORT[..], &[data]].concat()).await), 2);
    let (code, known, _) = import(&scene, &[data, "--dry-run"]).await;
    assert_eq!((code, scene.fake.size()), (0, 1));
    let (_, summary, _) = import(&scene, &[data]).await;
    assert_eq!(summary["accepted"], 2);
    let first = statement(&scene, 1).await;
    assert_eq!(first["observation"]["effects"][0]["kind"], "k8s.patch");
    assert_eq!(first["correlation_keys"][0]["kind"], "k8s-audit");
    assert_eq!(known["statements"][0]["session"], first["session"]);
    let (_, again, _) = import(&scene, &[data]).await;
    assert_eq!(
        (&again["accepted"], &again["duplicates"]),
        (&0.into(), &2.into())
    );
}

#[tokio::test]
async fn the_same_records_give_the_same_ledger_however_they_come() {
    let events: Vec<String> = (1..6).map(|n| event(n, "delete", "")).collect();
    let whole = scene().await;
    // The log has the form of a container runtime's log.
    let log = events.join("\n2026-11-24T10:00:00.1Z stdout F ");
    fs::write(whole.path("log"), log).unwrap();
    let (ended, summary, _) = import(&whole, &["log"]).await;
    assert_eq!((ended, &summary["accepted"]), (0, &5.into()));
    // Cut, in another order, some of them again, packed, in lists, from a pipe.
    let pieces = scene().await;
    let list = format!(
        "\u{feff}{{\"items\": [\n{},\n{}]}}\r\n",
        events[4], events[2]
    );
    fs::write(pieces.path("list"), list).unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed
        .write_all(events[1..4].join("\r\n").as_bytes())
        .unwrap();
    fs::write(pieces.path("packed"), packed.finish().unwrap()).unwrap();
    let (ended, summary, _) = import(&pieces, &["list", "packed"]).await;
    assert_eq!((ended, &summary["accepted"]), (0, &4.into()));
    assert_eq!(summary["duplicates"], 1);
    let arguments = [&IMPORT[..], &["-", "--producer", "import:k8s", "--json"]].concat();
    let mut child = pieces
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let array = format!("[{}]", events.join(","));
    stdin.write_all(array.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["accepted"], &summary["duplicates"]),
        (&1.into(), &4.into())
    );
    assert_eq!(observed(&pieces).await, observed(&whole).await);
}

#[tokio::test]
async fn one_bad_record_costs_one_record() {
    let scene = scene().await;
    let log = [
        event(1, "delete", ""),
        "nonsense".to_owned(),
        event(2, "delete", "").replace("Z\"", "\""),
        event(3, "delete", "").replace("web-3", "web-3\\u0007"),
        event(4, "frobnicate", ""),
        event(5, "delete", "")[..40].to_owned(),
        event(6, "delete", ""),
    ];
    fs::write(scene.path("log"), log.join("\n")).unwrap();
    let (ended, summary, said) = import(&scene, &["log"]).await;
    assert_eq!(ended, 2, "{said}");
    assert_eq!(
        (
            &summary["accepted"],
            &summary["refused"],
            &summary["records"]
        ),
        (&2.into(), &5.into(), &7.into())
    );
    for (place, reason) in [
        ("log: line 2, record 2: ", "no JSON"),
        ("log: line 3, record 3: ", "its time"),
        ("log: line 4, record 4: ", "resource"),
        ("log: line 5, record 5: ", "what was changed"),
        ("log: line 6, record 6: ", "no JSON"),
    ] {
        let named = said.lines().find(|line| line.contains(place));
        let named = named.unwrap_or_else(|| panic!("{place}: {said}"));
        assert!(named.contains(reason), "{named}");
    }
    assert!(said.contains("5 of 7 records"), "{said}");
    // A file that is not there stops it before anything is sent.
    let (ended, _, said) = import(&scene, &["log", "missing"]).await;
    assert!(ended == 2 && said.contains("missing"), "{said}");
}

#[tokio::test]
async fn nothing_out_of_many_records_is_said() {
    let scene = scene().await;
    let reads = |count: usize| {
        let events: Vec<_> = (0..count).map(|n| event(n, "get", "")).collect();
        events.join("\n")
    };
    fs::write(scene.path("few"), reads(3)).unwrap();
    let (ended, summary, said) = import(&scene, &["few"]).await;
    assert_eq!((ended, &summary["nothing"]["a read"]), (0, &3.into()));
    assert!(said.contains("no observation in 3 records"), "{said}");
    fs::write(scene.path("empty"), "\n").unwrap();
    let (ended, _, said) = import(&scene, &["empty"]).await;
    assert!(ended == 0 && said.contains("holds no record"), "{said}");
    fs::write(scene.path("many"), reads(10)).unwrap();
    let (ended, _, said) = import(&scene, &["many"]).await;
    assert!(ended == 2 && said.contains("none of 10 records"), "{said}");
    // Another system's log is not understood at all.
    let trail = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cloudtrail.jsonl");
    let (ended, summary, said) = import(&scene, &[trail]).await;
    assert_eq!((ended, &summary["refused"]), (2, &5.into()), "{said}");
    assert!(said.contains("it is no Kubernetes audit event"), "{said}");
    assert_eq!(scene.fake.size(), 1);
}

#[tokio::test]
async fn what_names_no_object_is_a_claim_beside_a_systems_word() {
    let scene = scene().await;
    for (name, key) in [
        ("owner.pem", authority_key()),
        ("k8s.pem", SigningKey::from_seed(&[32; 32])),
    ] {
        let path = scene.path(name);
        fs::write(&path, &*key::private_to_pem(&key)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let register = "key register k8s.pem --role downstream-system --producer https://k8s.example.org \
                    --controller https://example.org --resource * --authority-key owner.pem --json";
    scene
        .json(&register.split_whitespace().collect::<Vec<_>>())
        .await;
    let nameless = event(2, "create", "").replace(", \"name\": \"web-2\"", "");
    let log = format!("{}\n{nameless}\n", event(1, "delete", ""));
    fs::write(scene.path("log"), log).unwrap();
    let signed = [&IMPORT[..], &["log", "--key", "k8s.pem", "--json"]].concat();
    let summary = scene.json(&signed).await;
    assert_eq!(
        (&summary["accepted"], &summary["claims"]),
        (&2.into(), &1.into())
    );
    let mut who = Vec::new();
    for leaf in [2, 3] {
        let entry = scene.json(&["entry", &leaf.to_string(), "--json"]).await;
        let statement = &entry["statement"];
        let effect = &statement["observation"]["effects"][0];
        who.push(format!(
            "{} {} {}",
            entry["author"].as_str().unwrap(),
            statement["producer"].as_str().unwrap(),
            effect["resource"].as_str().unwrap()
        ));
    }
    assert_eq!(
        who,
        [
            "signed https://k8s.example.org k8s:shop/pods/web-1",
            "unsigned import:observe/unsigned k8s:shop/pods",
        ]
    );
}
