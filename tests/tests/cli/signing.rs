//! Signatures that the command makes: imports, the bench, sessions that go on after a kill.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use deed_tests::{data, process::program, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    DOES_NOT_VERIFY, OK, Set, TASK, UNAVAILABLE, USAGE, expect_failure, intents, lines, object,
};

fn transcripts(set: &Set) -> PathBuf {
    let call = json!({"id": "1", "function": {"name": "look", "arguments": "{\"at\": 7}"}});
    let run = |id: &str| {
        json!({"run_id": id, "messages": [
            {"role": "user", "content": "help"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "x".repeat(100_000)},
        ]})
    };
    let file = set.deed.file("transcripts");
    fs::write(&file, format!("{}\n{}\n", run("a"), run("b"))).unwrap();
    file
}

/// Returns the private key that the bench made and had registered.
fn bench_key(set: &Set) -> String {
    let arguments = "--json bench append --producers 1 --batch 8 --warmup-seconds 0 \
                     --statements 8 --signed each";
    set.deed.run(arguments.split_whitespace()).expect_code(OK);
    let mut keys = fs::read_dir(set.deed.state().join("keys/bench")).unwrap();
    let key = keys.next().unwrap().unwrap().path();
    key.display().to_string()
}

fn by_bench(count: usize) -> String {
    intents(count).replace("spiffe://example.org/agent", "bench:append")
}

/// Otherwise the bench would measure denied Intents.
#[test]
fn what_the_bench_asks_for_is_cleared_however_it_is_signed() {
    let set = Set::up();
    for (signed, cleared) in [("none", 8), ("batch", 16), ("each", 24)] {
        let arguments = format!(
            "--json bench append --producers 1 --batch 8 --warmup-seconds 0 --statements 8 \
             --signed {signed}"
        );
        set.deed.run(arguments.split_whitespace()).expect_code(OK);
        let audited = object(&set.deed.run(["audit", "--json"]).expect_code(OK));
        assert_eq!(audited["intents"], json!({"cleared": cleared}), "{signed}");
        assert_eq!(audited["findings"], json!({}), "{signed}");
    }
}

#[test]
fn an_import_is_signed_with_contents_and_nothing_is_new_the_second_time() {
    let set = Set::up();
    let file = transcripts(&set);
    let import = |more: &[&str]| {
        let path = file.to_str().unwrap();
        let arguments = ["import", "chat", "--json", "--ended", path];
        set.deed.run([&arguments[..], more].concat())
    };
    let first = object(&import(&[]).expect_code(OK));
    assert_eq!(first["accepted"], 12, "{first}");
    // The contents are arguments and results; one of each run is too long to be sent with its
    // statement.
    assert_eq!(first["contents"], 4, "{first}");
    let head = object(&set.deed.run(["head", "--json"]).expect_code(OK));
    // The entries: the genesis entry, the key, the statements; for each run two manifests (the
    // grant is signed by itself, between the opening and all others) and the task's receipt.
    assert_eq!(head["size"], 1 + 1 + 12 + 2 * 2 + 2);

    let again = object(&import(&[]).expect_code(OK));
    assert_eq!(
        (&again["accepted"], &again["duplicates"]),
        (&json!(0), &json!(12))
    );
    let after = object(&set.deed.run(["head", "--json"]).expect_code(OK));
    assert_eq!(after, head);

    // Without an authority to sign grants the import's own key still signs, and the grants of the
    // first import are used.
    let keys = set.deed.state().join("keys");
    let aside = set.deed.state().join("aside");
    fs::create_dir(&aside).unwrap();
    for entry in fs::read_dir(&keys).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::rename(&path, aside.join(path.file_name().unwrap())).unwrap();
        }
    }
    let ended = import(&[]).expect_code(OK);
    assert_eq!(
        ended.stderr.matches("grants not signed").count(),
        1,
        "{ended:#?}"
    );
    assert_eq!(object(&ended)["duplicates"], 12, "{ended:#?}");
    let after = object(&set.deed.run(["head", "--json"]).expect_code(OK));
    assert_eq!(after, head);
    // Without an authority to register a key, the command says so, or refuses if signatures were
    // demanded.
    for entry in fs::read_dir(set.deed.state().join("keys")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    let words = expect_failure(import(&["--sign", "batch"]), USAGE);
    assert!(words.contains("--authority-key"), "{words}");
    // Without signatures it is another producer's import, in sessions of its own.
    let ended = import(&[]).expect_code(OK);
    assert!(ended.stderr.contains("not signed"), "{ended:#?}");
    assert_eq!(object(&ended)["accepted"], 12, "{ended:#?}");
}

#[test]
fn the_airline_runs_are_signed() {
    let Some(path) = data::shared("agent-runs/airline.jsonl") else {
        return;
    };
    let set = Set::up();
    let arguments = [
        "import",
        "chat",
        "--json",
        "--ended",
        "--producers",
        "8",
        path.to_str().unwrap(),
    ];
    let first = object(&set.deed.run(arguments).expect_code(OK));
    let statements = first["statements"].clone();
    assert_eq!(first["accepted"], statements, "{first}");
    let again = object(&set.deed.run(arguments).expect_code(OK));
    assert_eq!(again["duplicates"], statements, "{again}");
}

#[test]
fn a_batched_statement_is_followed_to_its_signature() {
    let set = Set::up();
    let key = bench_key(&set);
    let ended = set
        .deed
        .run_with(["append", "--key", &key], &by_bench(20))
        .expect_code(OK);
    let receipts = lines(&ended);
    assert!(
        receipts
            .iter()
            .all(|receipt| receipt["manifest_leaf"].is_u64()),
        "{ended:#?}"
    );
    let leaf = receipts[13]["leaf_index"].to_string();
    let [proof, policy, public, trust] = ["proof", "policy", "public", "trust"]
        .map(|name| set.deed.file(name).display().to_string());
    let proved = object(
        &set.deed
            .run([
                "prove",
                "--json",
                "--batch",
                "--index",
                &leaf,
                "--out",
                &proof,
                "--policy-out",
                &policy,
                "--key-out",
                &public,
                "--trust-out",
                &trust,
            ])
            .expect_code(OK),
    );
    assert_eq!(proved["manifest_leaf"], receipts[13]["manifest_leaf"]);
    assert_eq!(proved["producer"], "bench:append");

    let verify = |key: &str| {
        set.deed.run([
            "verify", "--json", "--batch", "--policy", &policy, "--key", key, &proof,
        ])
    };
    let verified = object(&verify(&public).expect_code(OK));
    assert_eq!(verified["entry"]["leaf_hash"], receipts[13]["leaf_hash"]);
    // The ledger's own trust statements are used in place of the key.
    let by_trust = [
        "verify", "--json", "--batch", "--policy", &policy, "--trust", &trust, &proof,
    ];
    let verified = object(&set.deed.run(by_trust).expect_code(OK));
    let parts = [
        "inclusion",
        "head signature",
        "author's signature",
        "key's standing",
        "batch membership",
    ];
    assert_eq!(verified["verified"], serde_json::json!(parts), "{verified}");
    // Another key is used, and every byte of the statement is changed.
    let other = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    expect_failure(verify(other), DOES_NOT_VERIFY);
    let bytes = fs::read(&proof).unwrap();
    for at in (0..bytes.len()).step_by(37) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&proof, changed).unwrap();
        assert_ne!(verify(&public).code(), Some(OK), "byte {at}");
    }
    // A statement outside of any batch has no such proof.
    let words = expect_failure(
        set.deed
            .run(["prove", "--batch", "--index", "2", "--out", &proof]),
        UNAVAILABLE,
    );
    assert!(!words.is_empty());
}

#[test]
fn a_session_on_disk_goes_on_and_is_one_producers() {
    let set = Set::up();
    let key = bench_key(&set);
    let session = ["append", "--key", &key, "--session", "night shift"];
    let append = |input: &str| set.deed.run_with(session, input);
    let first = lines(&append(&by_bench(3)).expect_code(OK));
    let second = lines(&append(&by_bench(2)).expect_code(OK));
    let sequences = |receipts: &[Value]| -> Vec<u64> {
        receipts
            .iter()
            .map(|receipt| receipt["sequence"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(sequences(&first), [0, 1, 2]);
    assert_eq!(sequences(&second), [3, 4]);
    assert_eq!(first[0]["session"], second[0]["session"]);

    // A line cannot name another producer, another signature, or another sequence.
    let words = append(&intents(1)).expect_code(USAGE).stderr;
    assert!(words.contains("producer"), "{words}");
    let words = expect_failure(
        set.deed
            .run_with(["append", "--session", "night shift"], &by_bench(1)),
        USAGE,
    );
    assert!(words.contains("way of signing"), "{words}");
    let placed = json!({"producer": "bench:append", "task": TASK, "session": TASK, "sequence": 0,
                        "intent": {"action": "a", "resource": "r"}});
    append(&format!("{placed}\n")).expect_code(USAGE);

    // A refused statement does not block the session, and no other one is made for its sequence.
    let unsigned = ["append", "--session", "unsigned"];
    for round in 0..2 {
        let ended = set
            .deed
            .run_with(unsigned, &by_bench(2))
            .expect_code(UNAVAILABLE);
        let (first, next) = (2 * round, 2 * round + 2);
        assert_eq!(sequences(&lines(&ended)), [first, first + 1], "{ended:#?}");
        let goes_on = format!("goes on at sequence {next}");
        assert!(ended.stderr.contains(&goes_on), "{ended:#?}");
    }
    let fine = lines(&append(&by_bench(1)).expect_code(OK));
    assert_eq!(sequences(&fine), [5]);
}

/// If the first statement of a session is refused, the first one that the ledger accepts opens it.
#[test]
fn a_session_goes_on_whose_first_statement_was_refused() {
    let set = Set::up();
    let append = |resource: &str| {
        let said = json!({"producer": "spiffe://example.org/agent", "task": TASK,
                          "intent": {"action": "orders.update", "resource": resource}});
        let command = ["append", "--session", "refused at first"];
        set.deed.run_with(command, &format!("{said}\n"))
    };
    for _ in 0..2 {
        // The ledger does not accept this name.
        let ended = append("orders/../1").expect_code(UNAVAILABLE);
        assert!(
            ended.stdout.contains("\"field\":\"intent.resource\""),
            "{ended:#?}"
        );
    }
    for sequence in [2, 3] {
        let taken = lines(&append("orders/1").expect_code(OK));
        assert_eq!(taken[0]["sequence"], sequence, "{taken:?}");
    }
}

/// A kill while receipts are under way loses nothing and repeats nothing.
#[test]
fn a_killed_append_goes_on() {
    let set = Set::up();
    let key = bench_key(&set);
    let session = ["append", "--key", &key, "--session", "killed"];
    let mut killed = Command::new(program("deed"))
        .args(session)
        .env("DEED_SERVER", set.server.url())
        .env("DEED_LEDGER", "payments")
        .env("DEED_STATE", set.deed.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = killed.stdin.take().unwrap();
    let mut receipts = BufReader::new(killed.stdout.take().unwrap()).lines();
    input.write_all(by_bench(10).as_bytes()).unwrap();
    for _ in 0..10 {
        receipts.next().unwrap().unwrap();
    }
    // From now on the server does not answer, and sent statements stay in the journal.
    set.server.signal(Signal::STOP);
    let sessions = fs::read_dir(set.deed.state().join("sessions")).unwrap();
    let journal = sessions
        .map(|session| session.unwrap().path())
        .find(|path| path.to_string_lossy().contains("/killed-"))
        .unwrap()
        .join("journal");
    let before = fs::metadata(&journal).unwrap().len();
    input.write_all(by_bench(10).as_bytes()).unwrap();
    // The payloads alone are longer than that.
    let kept = || (fs::metadata(&journal).unwrap().len() > before + 10 * 150).then_some(());
    wait_for("the journal's growth", kept);
    killed.kill().unwrap();
    killed.wait().unwrap();
    set.server.signal(Signal::CONT);

    let left = lines(&set.deed.run_with(session, &by_bench(1)).expect_code(OK));
    let sequences: Vec<u64> = left
        .iter()
        .map(|r| r["sequence"].as_u64().unwrap())
        .collect();
    // A receipt is printed before it is noted, so those of the first ten may come again.
    let first = sequences[0];
    assert!([0, 10].contains(&first), "{sequences:?}");
    assert_eq!(sequences, (first..=20).collect::<Vec<_>>());
    let (last, resent) = left.split_last().unwrap();
    assert!(
        resent.iter().all(|receipt| receipt.get("line").is_none()),
        "{left:?}"
    );
    assert_eq!(last["line"], 1);
    assert!(
        left.iter().all(|receipt| receipt["status"] != "rejected"),
        "{left:?}"
    );
    // The journal is empty.
    let ended = set.deed.run_with(session, "").expect_code(OK);
    assert_eq!(ended.stdout, "");
}

#[test]
fn contents_are_benched() {
    let set = Set::up();
    for (size, count) in [("8KiB", 300), ("100KiB", 5)] {
        for signed in ["none", "batch"] {
            let count = count.to_string();
            let arguments = [
                "--json",
                "bench",
                "content",
                "--size",
                size,
                "--count",
                &count,
                "--streams",
                "2",
                "--signed",
                signed,
            ];
            let measured = object(&set.deed.run(arguments).expect_code(OK));
            assert_eq!(measured["contents"].to_string(), count, "{measured}");
            assert_eq!(measured["rejected"], 0, "{measured}");
        }
    }
}
