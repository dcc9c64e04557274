//! The `deed` command: keys, rules, contents and sessions.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Output};

use deed_client::key;
use deed_testkit::fake::{Lie, authority_key};
use deed_tlog::SigningKey;
use serde_json::Value;

use crate::scene::{Scene, code, scene, stderr, words};

const AUTHORITY: [&str; 2] = ["--authority-key", "owner.pem"];
const CLAIM: [&str; 6] = [
    "--role",
    "agent",
    "--producer",
    "spiffe://example.org/agent",
    "--controller",
    "https://example.org",
];

/// A scene with the authority's key in `owner.pem`, and a producer's in `agent.pem` and
/// `agent.pub`.
async fn scene_with_keys() -> Scene {
    let scene = scene().await;
    write_key(&scene, "owner.pem", &authority_key(), 0o600);
    let agent = agent();
    write_key(&scene, "agent.pem", &agent, 0o600);
    fs::write(
        scene.path("agent.pub"),
        key::public_to_pem(agent.public_key()),
    )
    .unwrap();
    scene
}

fn agent() -> SigningKey {
    SigningKey::from_seed(&[31; 32])
}

fn write_key(scene: &Scene, name: &str, key: &SigningKey, mode: u32) {
    let path = scene.path(name);
    fs::write(&path, &*key::private_to_pem(key)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Scene {
    /// Runs a command and looks at what it prints: within 80 columns, and no secret.
    async fn seen(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments).await;
        let text = printed(&output);
        for key in [authority_key(), agent()] {
            let pem = key::private_to_pem(&key);
            let secret = pem.lines().nth(1).unwrap();
            let hex = hex::encode(key.seed());
            assert!(
                !text.contains(secret) && !text.contains(&hex),
                "{arguments:?}"
            );
        }
        (code(&output), text)
    }

    /// A command that an authority signs, and that must succeed.
    async fn say(&self, arguments: &[&str]) -> Value {
        let json = ["--json"];
        self.json(&[arguments, &AUTHORITY, &json].concat()).await
    }

    async fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn printed(output: &Output) -> String {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    format!("{stdout}{}", stderr(output))
}

fn fits(text: &str) -> bool {
    text.lines().all(|line| line.chars().count() <= 80)
}

#[tokio::test]
async fn a_key_is_registered_by_whoever_holds_it_and_revoked() {
    let scene = scene_with_keys().await;
    let register = [&["key", "register", "agent.pem"][..], &CLAIM].concat();
    let until = ["--valid-until", "2100-01-01"];
    let registered = scene.say(&[&register[..], &until].concat()).await;
    assert_eq!(registered["leaf_index"], 1);
    let id = registered["key_id"].as_str().unwrap().to_owned();
    let keys = scene.lines(&["key", "list"]).await;
    assert_eq!(keys.len(), 2);
    assert_eq!(
        (&keys[0]["role"], &keys[0]["state"]),
        (&"authority".into(), &"in force".into())
    );
    assert_eq!(keys[1]["key_id"], id.as_str());
    assert_eq!(
        (&keys[1]["role"], &keys[1]["state"]),
        (&"agent".into(), &"in force".into())
    );
    assert_eq!(keys[1]["valid_until"], "2100-01-01T00:00:00Z");

    let revoke = [
        "key",
        "revoke",
        &id,
        "--compromised-since",
        "2026-01-02",
        "--reason",
        "lost",
    ];
    let revoked = scene.say(&revoke).await;
    assert_eq!(revoked["leaf_index"], 2);
    let keys = scene
        .lines(&["key", "list", "--producer", "spiffe://example.org/agent"])
        .await;
    assert_eq!((keys.len(), &keys[0]["state"]), (1, &"revoked".into()));
    assert_eq!(keys[0]["compromised_since"], "2026-01-02T00:00:00Z");
    let (code, table) = scene.seen(&["key", "list"]).await;
    assert!(code == 0 && fits(&table) && table.contains(&id), "{table}");

    scene.fake.lock().script.lie = Lie::TrustOmitted;
    assert_eq!(
        scene.seen(&["key", "list"]).await.0,
        1,
        "nothing unverified is listed"
    );
}

#[tokio::test]
async fn a_public_key_needs_its_holders_proof_for_exactly_this() {
    let scene = scene_with_keys().await;
    let register = [&["key", "register", "agent.pub"][..], &CLAIM, &AUTHORITY].concat();
    let (code, text) = scene.seen(&register).await;
    assert!(code == 2 && text.contains("deed key possess"), "{text}");

    let possess = [&["key", "possess", "agent.pem"][..], &CLAIM].concat();
    let proof = scene.json(&possess).await;
    assert_eq!(proof["role"], "agent");
    fs::write(scene.path("proof"), proof.to_string()).unwrap();
    let id = proof["ledger_id"].as_str().unwrap();
    // The same without a server, for a holder who has none.
    let offline = [
        "--ledger-id",
        id,
        "--server",
        "http://127.0.0.1:1",
        "--out",
        "proof2",
    ];
    let output = scene.run(&[&possess[..], &offline].concat()).await;
    assert!(output.status.success(), "{output:?}");
    let again: Value = serde_json::from_slice(&fs::read(scene.path("proof2")).unwrap()).unwrap();
    assert_eq!(again, proof);

    let with = |proof| [&register[..], &["--possession", proof]].concat();
    for (field, value, exit) in [
        ("role", "importer".into(), 2),
        ("producer", "spiffe://example.org/other".into(), 2),
        ("controller", "https://example.com".into(), 2),
        ("ledger_id", "07".repeat(32), 2),
        ("public_key", "07".repeat(32), 2),
        ("possession", "07".repeat(64), 1),
        ("possession", "07".into(), 2),
    ] {
        let mut other = proof.clone();
        other[field] = Value::from(value);
        fs::write(scene.path("other"), other.to_string()).unwrap();
        let (code, text) = scene.seen(&with("other")).await;
        assert_eq!(code, exit, "{field}: {text}");
    }
    fs::write(scene.path("other"), "{}").unwrap();
    assert_eq!(scene.seen(&with("other")).await.0, 2);
    assert_eq!(scene.fake.size(), 1, "nothing was recorded");
    let output = scene.run(&with("proof")).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.fake.size(), 2);
}

#[tokio::test]
async fn a_controller_has_one_spelling() {
    let scene = scene_with_keys().await;
    let form = "https://example.org/teams";
    for other in [
        "https://example.org/teams/",
        "HTTPS://example.org/teams",
        "https://example.org:443/team%73",
    ] {
        let register = [
            &["key", "register", "agent.pem"][..],
            &CLAIM[..5],
            &[other],
            &AUTHORITY,
        ]
        .concat();
        let (code, text) = scene.seen(&register).await;
        assert_eq!(code, 2, "{other}: {text}");
        let wanted = format!("{form} would be taken");
        assert!(text.replace('\n', " ").contains(&wanted), "{other}: {text}");
    }
    assert_eq!(scene.fake.size(), 1, "nothing was recorded");
}

#[tokio::test]
async fn the_ledgers_rules_are_set_and_shown() {
    let scene = scene_with_keys().await;
    let bind = |who| ["principal", "bind", "--principal", who, "--producer", "a:b"];
    scene
        .say(&[&bind("gateway-7")[..], &["--until", "90d"]].concat())
        .await;
    scene.say(&bind("gateway-8")).await;
    let unbind = words("principal unbind --principal gateway-7 --producer a:b");
    scene.say(&unbind).await;
    let bindings = scene.lines(&["principal", "list"]).await;
    let in_force: Vec<_> = bindings
        .iter()
        .map(|binding| &binding["in_force"])
        .collect();
    assert_eq!(in_force, [false, true]);
    // A binding that has ended cannot be ended again.
    let (code, text) = scene.seen(&[&unbind[..], &AUTHORITY].concat()).await;
    assert!(code == 2 && text.contains("principal list"), "{text}");

    scene
        .say(&["retention", "set", "26w", "--reason", "half a year"])
        .await;
    assert_eq!(
        scene.json(&["retention", "show", "--json"]).await["floor"],
        "182d"
    );
    scene.say(&["retention", "set", "none"]).await;
    assert_eq!(
        scene.json(&["retention", "show", "--json"]).await["floor_us"],
        0
    );

    let task = "07".repeat(16);
    let placed = scene
        .say(&["hold", "place", "--task", &task, "--reason", "case 1"])
        .await;
    let hold = placed["hold"].as_str().unwrap();
    let other = scene.say(&["hold", "place", "--reason", "case 2"]).await;
    assert_ne!(other["hold"], hold);
    let holds = scene.lines(&["hold", "list"]).await;
    let found = holds.iter().find(|found| found["hold"] == hold).unwrap();
    assert_eq!(
        (&found["task"], &found["reason"]),
        (&task.as_str().into(), &"case 1".into())
    );
    let (code, text) = scene.seen(&["hold", "list"]).await;
    assert!(code == 0 && fits(&text), "{text}");
    scene
        .say(&["hold", "release", hold, "--reason", "closed"])
        .await;
    assert_eq!(scene.lines(&["hold", "list"]).await.len(), 1);

    scene
        .say(&["authority", "set", "agent.pub", "--reason", "another owner"])
        .await;
    let (code, text) = scene
        .seen(&[&["retention", "set", "1d"][..], &AUTHORITY].concat())
        .await;
    assert!(code == 2 && text.contains("no authority"), "{text}");
    let new = words("retention set 1d --authority-key agent.pem --json");
    scene.json(&new).await;
}

#[tokio::test]
async fn a_content_is_put_read_and_erased() {
    let scene = scene_with_keys().await;
    fs::write(scene.path("content"), vec![7; 3000]).unwrap();
    let random = scene.json(&["content", "put", "content", "--json"]).await;
    assert_eq!(random["salt"].as_str().unwrap().len(), 64);
    let session = "01".repeat(16);
    let place = [
        "--session",
        &session,
        "--sequence",
        "3",
        "--slot",
        "intent.arguments",
    ];
    let put = [&["content", "put", "content", "--json"][..], &place].concat();
    let derived = scene.json(&put).await;
    assert!(derived.get("salt").is_none() && derived["digest"] != random["digest"]);
    let again = scene.json(&put).await;
    assert_eq!(
        (&again["digest"], &again["already_held"]),
        (&derived["digest"], &true.into())
    );

    let digest = derived["digest"].as_str().unwrap();
    let get = ["content", "get", digest, "--out", "read"];
    assert_eq!(scene.seen(&get).await.0, 0);
    assert_eq!(fs::read(scene.path("read")).unwrap(), vec![7; 3000]);
    assert_eq!(
        scene.run(&["content", "get", digest]).await.stdout,
        vec![7; 3000]
    );
    // A content that does not open its commitment is shown neither in a file nor on stdout.
    scene.fake.lock().script.lie = Lie::ContentByte;
    fs::remove_file(scene.path("read")).unwrap();
    let before = fs::read_dir(scene.path("")).unwrap().count();
    assert_eq!(scene.seen(&get).await.0, 1);
    assert_eq!(fs::read_dir(scene.path("")).unwrap().count(), before);
    let output = scene.run(&["content", "get", digest]).await;
    assert_eq!((code(&output), output.stdout.len()), (1, 0));
    scene.fake.lock().script.lie = Lie::None;
    assert_eq!(scene.seen(&["content", "get", &"00".repeat(32)]).await.0, 3);

    let why = words("--reason asked --legal-basis GDPR --requested-by ticket:1");
    let erase = [&["content", "erase", digest, digest][..], &why[..]].concat();
    // Refused by a status: forgotten, so that it is not in the way of what follows.
    scene.fake.lock().script.erasure_refused = Some("not you");
    let (code_now, text) = scene.seen(&[&erase[..], &AUTHORITY].concat()).await;
    assert!(code_now == 3 && text.contains("not you"), "{text}");
    let floor = scene.say(&["retention", "set", "none"]).await;
    scene.fake.lock().script.erasure_refused = None;
    let erased = scene.say(&erase).await;
    assert_eq!(erased["erased"], 1);
    assert_eq!(
        erased["leaf_index"],
        floor["leaf_index"].as_u64().unwrap() + 1
    );
    let (code_now, text) = scene.seen(&get).await;
    assert!(code_now == 3 && text.contains("was erased"), "{text}");
    scene.fake.lock().script.lie = Lie::ErasureLeaf;
    assert_eq!(scene.seen(&get).await.0, 1, "an Erasure that is none");
}

#[tokio::test]
async fn sessions_are_shown_beside_what_the_ledger_has() {
    let scene = scene_with_keys().await;
    let (code, text) = scene.seen(&["session", "list"]).await;
    assert!(code == 2 && text.contains("never used from here"), "{text}");
    scene.say(&["retention", "set", "1d"]).await;
    let sessions = scene.lines(&["session", "list"]).await;
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (
            &sessions[0]["next_sequence"],
            &sessions[0]["unacknowledged"]
        ),
        (&1.into(), &0.into())
    );
    let name = sessions[0]["name"].as_str().unwrap();
    let shown = scene.json(&["session", "show", name, "--json"]).await;
    assert_eq!(shown["session"], sessions[0]["session"]);
    assert_eq!(
        shown["kept"]["next_sequence"],
        shown["recorded"]["next_sequence"]
    );
    let id = shown["session"].as_str().unwrap();
    let by_id = scene.json(&["session", "show", id, "--json"]).await;
    assert_eq!(
        (&by_id["recorded"], by_id.get("kept")),
        (&shown["recorded"], None)
    );
    for arguments in [&["session", "show", name][..], &["session", "list"]] {
        let (code, text) = scene.seen(arguments).await;
        assert!(code == 0 && fits(&text), "{text}");
    }
    let (code, text) = scene.seen(&["session", "show", "none"]).await;
    assert!(code == 2 && text.contains("session list"), "{text}");
    scene.fake.lock().script.lie = Lie::SessionEnd;
    assert_eq!(scene.seen(&["session", "show", name]).await.0, 1);
}

#[tokio::test]
async fn wrong_usage_says_what_to_do_and_records_nothing() {
    let scene = scene_with_keys().await;
    write_key(&scene, "open.pem", &agent(), 0o644);
    let (id, digest) = ("07".repeat(16), "07".repeat(32));
    let register = |file, option, value| {
        [
            &["key", "register", file][..],
            &CLAIM,
            &AUTHORITY,
            &[option, value],
        ]
        .concat()
    };
    let bad_role = words("key register agent.pem --role king --producer a:b --controller a:b");
    let arguments: [&[&str]; 20] = [
        &bad_role,
        &register("agent.pem", "--valid-from", "tomorrow"),
        &register("agent.pem", "--valid-until", "2026-02-30"),
        &register("no-such-file", "--valid-until", "1d"),
        &register("open.pem", "--valid-until", "1d"),
        &register("agent.pem", "--possession", "no-such-file"),
        &["key", "revoke", "07"],
        &[
            "key",
            "possess",
            "agent.pub",
            "--role",
            "agent",
            "--producer",
            "a:b",
            "--controller",
            "a:b",
        ],
        &["principal", "bind", "--principal", "x"],
        &[
            "principal",
            "bind",
            "--principal",
            "x",
            "--producer",
            "no uri",
            "--authority-key",
            "owner.pem",
        ],
        &["authority", "set"],
        &[
            "authority",
            "set",
            "agent.pub",
            "agent.pub",
            "--authority-key",
            "owner.pem",
        ],
        &["retention", "set", "long", "--authority-key", "owner.pem"],
        &["retention", "set", "0d", "--authority-key", "owner.pem"],
        &["retention", "set", "1d", "--authority-key", "agent.pem"],
        &["retention", "set", "1d"],
        &[
            "hold",
            "place",
            "--task",
            &id,
            "--commitment",
            &digest,
            "--reason",
            "x",
        ],
        &["content", "put", "content", "--session", &id],
        &["content", "put", "/dev/null"],
        &["content", "erase", &digest, "--reason", "x"],
    ];
    for arguments in arguments {
        let (code, text) = scene.seen(arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {text}");
        // The first command that connects also prints what it trusts from then on.
        let says = text.lines().any(|line| line.starts_with("error: "));
        assert!(says, "{arguments:?}: {text}");
    }
    assert_eq!(scene.fake.size(), 1);
    for command in [
        "key",
        "principal",
        "authority",
        "retention",
        "hold",
        "content",
        "session",
    ] {
        let (code, help) = scene.seen(&[command, "--help"]).await;
        assert!(code == 0 && fits(&help), "{help}");
    }
}
