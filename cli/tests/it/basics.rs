//! The `deed` command as a process: what it prints, and its exit codes.

use std::{path::Path, process::Stdio};

use deed_testkit::fake::{Lie, NAME, authority};
use serde_json::Value;

use crate::scene::{code, scene, stderr, words};

fn line(reason: &str) -> String {
    format!(
        "{{\"producer\": \"a:b\", \"task\": \"{}\", \"task_closed\": \
         {{\"end\": \"failed\", \"reason\": \"{reason}\"}}}}\n",
        "07".repeat(16)
    )
}

#[tokio::test]
async fn a_ledger_is_shown_and_trusted_from_then_on() {
    let scene = scene().await;
    let output = scene.run(&["ledger", "show", "--json"]).await;
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut fields: Vec<_> = shown.as_object().unwrap().keys().cloned().collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "ledger_id",
            "log_keys",
            "name",
            "origin",
            "root",
            "size",
            "vkey"
        ]
    );
    let first = serde_json::json!([{"vkey": shown["vkey"], "first_size": 1}]);
    assert_eq!(shown["log_keys"], first);
    assert_eq!(shown["size"], 1);
    // The root of a tree of one leaf is that leaf's hash.
    assert_eq!(shown["root"], shown["ledger_id"]);
    assert!(stderr(&output).contains("first use"));
    let again = scene.run(&["ledger", "show"]).await;
    assert_eq!((code(&again), stderr(&again)), (0, String::new()));
    let mut listed = shown.clone();
    // A list does not name earlier log keys.
    listed.as_object_mut().unwrap().remove("log_keys");
    assert_eq!(scene.json(&["ledger", "list", "--json"]).await, listed);
    let vkey = shown["vkey"].as_str().unwrap();
    assert_eq!(code(&scene.run(&["head", "--vkey", vkey]).await), 0);
}

#[tokio::test]
async fn a_ledger_is_created_with_the_keys_that_were_sent_or_not_trusted() {
    let scene = scene().await;
    let key = hex::encode(authority());
    let created = scene
        .json(&["ledger", "create", NAME, "--json", "--authority-key", &key])
        .await;
    assert_eq!(created["size"], 1);
    std::fs::write(scene.path("owner.key"), format!("# mine\npublic {key}\n")).unwrap();
    let from_file = scene
        .json(&[
            "ledger",
            "create",
            NAME,
            "--json",
            "--authority-key",
            "owner.key",
        ])
        .await;
    assert_eq!(from_file, created);
    // A key that is made here is kept secret; this server ignores it, which shows.
    let output = scene.run(&["ledger", "create", NAME]).await;
    assert_eq!(code(&output), 1, "{output:?}");
    let keys: Vec<_> = std::fs::read_dir(scene.path("state/keys"))
        .unwrap()
        .collect();
    assert_eq!(keys.len(), 1);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = keys[0]
        .as_ref()
        .unwrap()
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // Refused: no ledger was made with the new key, so none is left behind.
    assert_eq!(code(&scene.run(&["ledger", "create", "other"]).await), 3);
    assert_eq!(
        std::fs::read_dir(scene.path("state/keys")).unwrap().count(),
        1
    );
    for wrong in ["zz", &key[2..], "00".repeat(32).as_str()] {
        let output = scene
            .run(&["ledger", "create", NAME, "--authority-key", wrong])
            .await;
        assert_eq!(code(&output), 2, "{wrong}: {output:?}");
    }
}

#[tokio::test]
async fn statements_get_receipts() {
    let scene = scene().await;
    let (output, receipts) = scene.append(&[], &(line("a") + "\n" + &line("b"))).await;
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(receipts.len(), 2);
    for (position, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt["status"], "accepted");
        assert_eq!(receipt["leaf_index"], 1 + position);
        assert_eq!(receipt["sequence"], position);
        assert_eq!(receipt["session"], receipts[0]["session"]);
        assert_eq!(receipt["inclusion_verified"], true);
        let entry = scene
            .json(&["entry", &(1 + position).to_string(), "--json"])
            .await;
        assert_eq!(entry["leaf_hash"], receipt["leaf_hash"]);
        assert_eq!(entry["statement"]["session"], receipt["session"]);
    }
    // Empty lines count.
    assert_eq!(
        (&receipts[0]["line"], &receipts[1]["line"]),
        (&1.into(), &3.into())
    );
    // An entry's statement is what append takes.
    let statement = scene.json(&["entry", "1", "--json"]).await["statement"].to_string();
    let (output, receipts) = scene.append(&[], &statement).await;
    assert_eq!(
        (code(&output), &receipts[0]["status"]),
        (0, &"duplicate".into())
    );
}

#[tokio::test]
async fn a_malformed_line_ends_the_input() {
    let scene = scene().await;
    for malformed in ["{\"producer\": 7}\n", "no json\n", "\u{7f}\n"] {
        let before = scene.fake.size();
        let (output, receipts) = scene
            .append(&[], &(line("a") + malformed + &line("b")))
            .await;
        assert_eq!(code(&output), 2, "{output:?}");
        assert!(stderr(&output).contains("line 2"), "{output:?}");
        assert_eq!(receipts.len(), 1);
        assert_eq!(scene.fake.size(), before + 1);
    }
    // Some lines name session and sequence, and some do not.
    let placed = format!(
        "{{\"session\": \"{}\", \"sequence\": 0, {}",
        "01".repeat(16),
        &line("c")[1..]
    );
    let (output, receipts) = scene.append(&[], &(placed + &line("d"))).await;
    assert_eq!((code(&output), receipts.len()), (2, 1), "{output:?}");
}

#[tokio::test]
async fn a_rejected_statement_is_a_refusal() {
    let scene = scene().await;
    let early = format!(
        "{{\"session\": \"{}\", \"sequence\": 5, {}",
        "01".repeat(16),
        &line("c")[1..]
    );
    let (output, receipts) = scene.append(&["--no-proofs"], &early).await;
    assert_eq!(code(&output), 3);
    assert_eq!(receipts[0]["status"], "rejected");
    assert_eq!(receipts[0]["reason"], "sequence_not_next");
    assert_eq!(receipts[0]["expected_sequence"], 0);
}

#[tokio::test]
async fn a_lie_is_exit_code_1() {
    let scene = scene().await;
    assert_eq!(code(&scene.run(&["head"]).await), 0);
    for lie in [Lie::LeafHash, Lie::Inclusion, Lie::Consistency] {
        scene.fake.lock().script.lie = lie;
        let (output, receipts) = scene.append(&[], &line("a")).await;
        assert_eq!(
            (code(&output), receipts.len()),
            (1, 0),
            "{lie:?}: {output:?}"
        );
    }
    scene.fake.lock().script.lie = Lie::Signature;
    assert_eq!(code(&scene.run(&["head"]).await), 1);
    scene.fake.lock().script.lie = Lie::Genesis;
    assert_eq!(code(&scene.run(&["ledger", "show"]).await), 1);
}

#[tokio::test]
async fn proofs_verify_offline_and_changed_ones_do_not() {
    let scene = scene().await;
    (0..6).for_each(|seed| scene.fake.add_leaf(seed));
    let (output, _) = scene.append(&[], &(line("a") + &line("b"))).await;
    assert_eq!(code(&output), 0);
    let prove = words("prove --index 7 --out p --entry-out e --policy-out y");
    assert_eq!(code(&scene.run(&prove).await), 0);
    let verify = words("verify p --entry e --policy y --json --server http://0.0.0.0:1");
    let verified = scene.json(&verify).await;
    assert_eq!(
        (&verified["verified"], &verified["tree_size"]),
        (
            &serde_json::json!(["inclusion", "head signature"]),
            &9.into()
        )
    );
    for file in ["p", "e"] {
        let whole = std::fs::read(scene.path(file)).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 2] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(scene.path(file), &changed).unwrap();
            assert_eq!(code(&scene.run(&verify).await), 1, "{file} at {at}");
        }
        std::fs::write(scene.path(file), &whole).unwrap();
    }
    assert_eq!(
        code(
            &scene
                .run(&["verify", "p", "--entry", "no", "--policy", "y"])
                .await
        ),
        2
    );
    assert_eq!(
        code(&scene.run(&["prove", "--index", "9", "--out", "p"]).await),
        3
    );
    assert_eq!(
        code(
            &scene
                .run(&["prove", "--index", "9", "--size", "9", "--out", "p"])
                .await
        ),
        2
    );
    let consistent = scene.json(&["consistency", "3", "9", "--json"]).await;
    assert_eq!(
        (&consistent["old_size"], &consistent["new_size"]),
        (&3.into(), &9.into())
    );
    assert_eq!(code(&scene.run(&["consistency", "9", "3"]).await), 2);
    assert_eq!(code(&scene.run(&["consistency", "3", "10"]).await), 3);
    assert_eq!(code(&scene.run(&["entry", "9"]).await), 3);
}

#[tokio::test]
async fn transcripts_are_imported_once() {
    let scene = scene().await;
    let run = |id: usize| {
        format!(
            "{{\"run_id\": \"run-{id}\", \"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}},\
             {{\"role\": \"assistant\", \"tool_calls\": [{{\"id\": \"c\", \"function\": \
             {{\"name\": \"look\", \"arguments\": \"{{}}\"}}}}]}},\
             {{\"role\": \"tool\", \"tool_call_id\": \"c\", \"content\": \"Error: no\"}}]}}\n"
        )
    };
    let transcripts: String = (0..20).map(run).collect();
    std::fs::write(scene.path("t"), &transcripts).unwrap();
    let import = words("import chat t --json --ended --receipts r --producers 3");
    let first = scene.json(&import).await;
    for (field, value) in [
        ("runs", 20),
        ("tasks", 20),
        ("grants", 20),
        ("intents", 20),
        ("outcomes", 20),
        ("failures", 20),
        ("claimed_approvals", 0),
        ("effects", 0),
        ("statements", 120),
        ("accepted", 120),
        ("duplicates", 0),
        ("rejected", 0),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    let receipts = std::fs::read_to_string(scene.path("r")).unwrap();
    assert_eq!(receipts.lines().count(), 120);
    let receipt: Value = serde_json::from_str(receipts.lines().next().unwrap()).unwrap();
    assert!(receipt["run_id"].as_str().unwrap().starts_with("run-"));
    let second = scene.json(&import).await;
    assert_eq!(
        (&second["accepted"], &second["duplicates"]),
        (&0.into(), &120.into())
    );
    assert_eq!(scene.fake.size(), 121);

    // A malformed line is named, and costs itself alone.
    for malformed in ["{}\n".to_owned(), run(0)] {
        std::fs::write(
            scene.path("t"),
            format!("{transcripts}{malformed}{}", run(99)),
        )
        .unwrap();
        let output = scene.run(&import).await;
        assert_eq!(code(&output), 2, "{output:?}");
        assert!(stderr(&output).contains("line 21"), "{output:?}");
        assert_eq!(scene.fake.size(), 127);
    }
    // Another secret is another importer: it has sessions and tasks of its own.
    std::fs::write(scene.path("t"), &transcripts).unwrap();
    std::fs::write(scene.path("s"), "ab".repeat(32)).unwrap();
    let output = scene
        .run(&["import", "chat", "t", "--ended", "--secret-file", "s"])
        .await;
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(scene.fake.size(), 247);
}

#[tokio::test]
async fn wrong_usage_is_2_and_nobody_there_is_3() {
    let scene = scene().await;
    for arguments in [
        &["haed"][..],
        &["entry", "x"],
        &["head", "--ledger", ""],
        &["head", "--server", "nowhere"],
        &["import", "chat", "no-such-file"],
        &["head", "--vkey", "x"],
    ] {
        let output = scene.run(arguments).await;
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
    }
    assert_eq!(code(&scene.run(&["head", "--ledger", "other"]).await), 3);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(code(&scene.run(&["head", "--server", &nobody]).await), 3);
    assert_eq!(code(&scene.run(&["--help"]).await), 0);
    assert!(
        !Path::new(&scene.path("state")).exists(),
        "nothing was trusted"
    );
}

#[tokio::test]
async fn a_server_on_this_machine_needs_no_scheme() {
    let scene = scene().await;
    let port = scene.fake.address.port();
    for address in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        let head = scene.json(&["head", "--json", "--server", &address]).await;
        assert_eq!(head["size"], 1, "{address}");
    }
    // Certificates are for TLS, on this machine too.
    let certificates = [
        "head",
        "--server",
        &format!("127.0.0.1:{port}"),
        "--ca",
        "no-such-file",
    ];
    assert_eq!(code(&scene.run(&certificates).await), 2);
}

#[tokio::test]
async fn heads_are_followed_and_a_closed_pipe_is_no_error() {
    let scene = scene().await;
    let head = scene.json(&["follow", "--heads", "1", "--json"]).await;
    assert_eq!(head["size"], 1);
    let mut child = scene
        .command(&["follow", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    // The first line finds nobody to read it.
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}

#[tokio::test]
async fn a_bench_counts_what_was_recorded() {
    let scene = scene().await;
    let measure = "bench append --statements 100 --warmup-seconds 0 --producers 2 --batch 7 \
                   --in-flight 2 --with-proofs --json";
    let measured = scene.json(&words(measure)).await;
    assert_eq!(
        (&measured["statements"], &measured["rejected"]),
        (&100.into(), &0.into())
    );
    assert_eq!(
        (&measured["verification"], &measured["parameters"]["batch"]),
        (&true.into(), &7.into())
    );
    // The genesis entry; for each producer the task of its Intents and the beginning of its session.
    assert_eq!(scene.fake.size(), 1 + 2 * 2 + 100);
}
