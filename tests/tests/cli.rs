//! The `deed` command: exit codes, JSON, and that it believes nobody.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use deed_tests::{
    files,
    oracle::Log,
    process::{Deed, Ended, ServerProcess},
    rpc::{Clients, TestLedger, authority_key},
    run,
    statements::Producer,
    wait_for,
};
use deed_tlog::{Checkpoint, VerifierKey};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const OK: i32 = 0;
const DOES_NOT_VERIFY: i32 = 1;
const USAGE: i32 = 2;
const UNAVAILABLE: i32 = 3;

const TASK: &str = "000102030405060708090a0b0c0d0e0f";

/// A server and a user of it.
struct Set {
    server: ServerProcess,
    deed: Deed,
    _dir: TempDir,
}

impl Set {
    /// With the ledger `payments`.
    fn up() -> Self {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(&dir.path().join("data"));
        let deed = Deed::new(&server.url(), "payments");
        deed.run(["ledger", "create", "payments"]).expect_code(OK);
        Self {
            server,
            deed,
            _dir: dir,
        }
    }

    /// Appends intents through the command; the receipts.
    fn fill(&self, count: usize) -> Vec<Value> {
        let ended = self
            .deed
            .run_with(["append"], &intents(count))
            .expect_code(OK);
        lines(&ended)
    }
}

/// Statements as JSON lines, for one fresh session.
fn intents(count: usize) -> String {
    (0..count)
        .map(|number| format!("{}\n", intent(number)))
        .collect()
}

fn intent(number: usize) -> Value {
    json!({
        "producer": "spiffe://example.org/agent",
        "task": TASK,
        "intent": {"action": "orders.update", "resource": format!("orders/{number}")},
    })
}

/// stdout as JSON lines.
#[track_caller]
fn lines(ended: &Ended) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {ended:#?}"));
    ended.stdout.lines().map(parse).collect()
}

/// stdout as one JSON object.
#[track_caller]
fn object(ended: &Ended) -> Value {
    let mut lines = lines(ended);
    assert_eq!(lines.len(), 1, "{ended:#?}");
    lines.remove(0)
}

/// A failure has words for a person on stderr, and no data on stdout.
#[track_caller]
fn expect_failure(ended: Ended, code: i32) -> String {
    let ended = ended.expect_code(code);
    assert!(!ended.stderr.trim().is_empty(), "{ended:#?}");
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    ended.stderr
}

// ---- ledgers

#[test]
fn ledgers_are_created_listed_and_shown() {
    let set = Set::up();
    let create = |name: &str| set.deed.run(["--json", "ledger", "create", name]);
    let created = object(&create("audit").expect_code(OK));
    for (field, is_right) in [
        ("name", created["name"] == "audit"),
        (
            "origin",
            created["origin"]
                .as_str()
                .is_some_and(|it| it.ends_with("/logs/audit")),
        ),
        (
            "vkey",
            created["vkey"]
                .as_str()
                .is_some_and(|it| it.parse::<VerifierKey>().is_ok()),
        ),
        (
            "ledger_id",
            created["ledger_id"]
                .as_str()
                .is_some_and(|it| it.len() == 64),
        ),
        ("size", created["size"] == 1),
        ("root", created["root"] == created["ledger_id"]),
    ] {
        assert!(is_right, "{field} in {created}");
    }
    // The authority's key was made here, for nobody else to read.
    let key = PathBuf::from(
        created["authority_key_file"]
            .as_str()
            .expect("where the key is"),
    );
    assert!(key.starts_with(set.deed.state()), "{}", key.display());
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let shown = object(
        &set.deed
            .run(["ledger", "show", "audit", "--json"])
            .expect_code(OK),
    );
    for field in ["name", "origin", "vkey", "ledger_id", "size", "root"] {
        assert_eq!(shown[field], created[field], "{field}");
    }
    let listed = lines(&set.deed.run(["ledger", "list", "--json"]).expect_code(OK));
    let names: Vec<_> = listed.iter().map(|ledger| ledger["name"].clone()).collect();
    assert_eq!(names, ["audit", "payments"]);
    assert_eq!(listed[0]["vkey"], created["vkey"]);
    assert!(listed[0].get("origin").is_some() && listed[0].get("root").is_some());
    for command in [["ledger", "list"], ["ledger", "show"], ["ledger", "--help"]] {
        let text = set.deed.run(command).expect_code(OK).stdout;
        assert!(
            !text.is_empty() && !text.starts_with('{'),
            "text for people: {text}"
        );
    }

    // One's own keys, in hex or in the file that was made before.
    let own = hex::encode(authority_key(9));
    let options = [
        "--authority-key",
        &own,
        "--authority-key",
        key.to_str().unwrap(),
    ];
    let arguments = ["--json", "ledger", "create", "shared"]
        .into_iter()
        .chain(options);
    let created = object(&set.deed.run(arguments).expect_code(OK));
    assert_eq!(created.get("authority_key_file"), None);
    expect_failure(create("audit"), UNAVAILABLE);
    expect_failure(create("No Name"), UNAVAILABLE);
    expect_failure(set.deed.run(["ledger", "show", "nobody"]), UNAVAILABLE);
    for wrong in ["00", "/no/such/file", &"0".repeat(64)] {
        let arguments = ["ledger", "create", "other", "--authority-key", wrong];
        expect_failure(set.deed.run(arguments), USAGE);
    }
}

// ---- appending

#[test]
fn statements_are_appended_and_answered_line_by_line() {
    let set = Set::up();
    let receipts = set.fill(700);
    assert_eq!(receipts.len(), 700);
    for (number, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt["line"], number + 1, "{receipt}");
        assert_eq!(receipt["status"], "accepted", "{receipt}");
        assert_eq!(receipt["leaf_index"], number + 1, "{receipt}");
        assert_eq!(receipt["sequence"], number, "{receipt}");
        assert_eq!(receipt["session"], receipts[0]["session"]);
        assert_eq!(receipt["inclusion_verified"], true);
    }
    let head = object(&set.deed.run(["head", "--json"]).expect_code(OK));
    assert_eq!(head["size"], 701);
    assert_eq!(set.deed.run_with(["append"], "").expect_code(OK).stdout, "");
}

#[test]
fn a_bad_line_ends_the_input_and_is_named() {
    let set = Set::up();
    let bad_lines = [
        "no JSON".to_owned(),
        "{}".to_owned(),
        json!({"producer": "p", "task": TASK}).to_string(),
        json!({"producer": "p", "task": TASK, "intent": {"action": "a", "resource": "r"}, "x": 1})
            .to_string(),
        json!({"producer": "p", "task": "zz", "intent": {"action": "a", "resource": "r"}})
            .to_string(),
        json!({"producer": "p", "task": TASK, "intent": {"action": "", "resource": "r"}})
            .to_string(),
    ];
    for (round, bad) in bad_lines.iter().enumerate() {
        let input = format!("{}{bad}\n{}", intents(2), intents(1));
        let ended = set.deed.run_with(["append"], &input).expect_code(USAGE);
        let receipts = lines(&ended);
        assert_eq!(
            receipts.len(),
            2,
            "the lines before it keep their receipts: {ended:#?}"
        );
        assert!(
            receipts
                .iter()
                .all(|receipt| receipt["status"] == "accepted")
        );
        assert!(ended.stderr.contains("line 3"), "{ended:#?}");
        let head = object(&set.deed.run(["head", "--json"]).expect_code(OK));
        assert_eq!(
            head["size"],
            1 + 2 * (round + 1),
            "nothing behind it was sent"
        );
    }
}

#[test]
fn repetitions_are_duplicates_and_refusals_are_3() {
    let set = Set::up();
    let placed = |session: &str, sequence: u64, resource: &str| {
        let mut statement = intent(0);
        statement["session"] = session.into();
        statement["sequence"] = sequence.into();
        statement["occurred_at_us"] = 1.into();
        statement["intent"]["resource"] = resource.into();
        format!("{statement}\n")
    };
    let session = "11".repeat(16);
    let input = placed(&session, 0, "a") + &placed(&session, 1, "b");
    let first = lines(&set.deed.run_with(["append"], &input).expect_code(OK));
    let again = lines(&set.deed.run_with(["append"], &input).expect_code(OK));
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(
            (&first["status"], &again["status"]),
            (&"accepted".into(), &"duplicate".into())
        );
        assert_eq!(first["leaf_hash"], again["leaf_hash"]);
        assert_eq!(first["leaf_index"], again["leaf_index"]);
    }
    let input =
        placed(&session, 1, "another b") + &placed(&session, 2, "c") + &placed(&session, 9, "z");
    let ended = set
        .deed
        .run_with(["append"], &input)
        .expect_code(UNAVAILABLE);
    let receipts = lines(&ended);
    let status: Vec<_> = receipts
        .iter()
        .map(|receipt| receipt["status"].clone())
        .collect();
    assert_eq!(status, ["rejected", "accepted", "rejected"], "{ended:#?}");
    assert_eq!(receipts[0]["reason"], "sequence_reused");
    assert_eq!(receipts[2]["reason"], "sequence_not_next");
    assert_eq!(receipts[2]["expected_sequence"], 3);
    assert!(
        receipts[2]["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty())
    );
}

#[test]
fn transcripts_are_imported_once() {
    let set = Set::up();
    let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    let transcript = |run: &str| {
        json!({"run_id": run, "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "help"},
            {"role": "assistant", "content": null, "tool_calls": [call("1", "look"), call("1", "fix")]},
            {"role": "tool", "tool_call_id": "1", "content": "Error: no"},
            {"role": "tool", "tool_call_id": "1", "content": "done"},
            {"role": "assistant", "content": null, "tool_calls": [call("2", "forget")]},
            {"role": "user", "content": "bye"},
        ]})
    };
    let file = set.deed.file("runs.jsonl");
    let write = |text: String| fs::write(&file, text).unwrap();
    let import = || {
        set.deed
            .run(["import", "chat", "--json", file.to_str().unwrap()])
    };
    write(format!("{}\n{}\n", transcript("a"), transcript("b")));
    let summary = object(&import().expect_code(OK));
    // Opened, three calls, two results, closed twice.
    for (what, count) in [
        ("runs", 2),
        ("tool_calls", 6),
        ("outcomes", 4),
        ("failures", 2),
        ("unanswered", 2),
        ("statements", 16),
        ("accepted", 16),
    ] {
        assert_eq!(summary[what], count, "{what} in {summary}");
    }
    write(format!("{}\n{}\n", transcript("b"), transcript("c")));
    let summary = object(&import().expect_code(OK));
    assert_eq!(
        (&summary["accepted"], &summary["duplicates"]),
        (&8.into(), &8.into())
    );

    // The same run with another course of events is not what was recorded.
    write(format!("{}\n", transcript("a")).replace("Error: no", "yes"));
    let ended = import().expect_code(UNAVAILABLE);
    assert!(
        object(&ended)["rejected"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "{ended:#?}"
    );

    write(format!("{}\nno transcript\n", transcript("d")));
    let ended = import().expect_code(USAGE);
    assert!(ended.stderr.contains("line 2"), "{ended:#?}");
    fs::remove_file(&file).unwrap();
    expect_failure(import(), USAGE);
}

/// Not how fast it is: that it says so in JSON, and that all of it is in the log.
#[test]
fn benching_appends_what_it_says() {
    run(async {
        let set = Set::up();
        let arguments = "--json bench append --producers 2 --batch 16 --payload-bytes 200 \
                         --in-flight 4 --warmup-seconds 0 --statements 640 --with-proofs";
        let measured = object(&set.deed.run(arguments.split_whitespace()).expect_code(OK));
        assert_eq!(measured["statements"], 640, "{measured}");
        assert_eq!(measured["requests"], 40, "{measured}");
        assert_eq!(measured["rejected"], 0, "{measured}");
        for latency in ["p50", "p90", "p99", "p99_9", "max"] {
            assert!(
                measured["latency_us"][latency]
                    .as_u64()
                    .is_some_and(|it| it > 0),
                "{measured}"
            );
        }
        let clients = Clients::connect(&set.server).await;
        let ledger = TestLedger::find(&clients, "payments").await;
        let log = Log::read(&clients, &ledger).await;
        assert_eq!(log.head.size.get(), measured["tree_size"].as_u64().unwrap());
        assert_eq!(log.head.size.get(), 641);
        assert_eq!(log.sessions().len(), 2);
    });
}

// ---- proofs

/// Proof, entry and policy of leaf 7, as files.
struct Proven {
    proof: PathBuf,
    entry: PathBuf,
    policy: PathBuf,
}

impl Proven {
    fn new(set: &Set, options: &[&str]) -> Self {
        let deed = &set.deed;
        let [proof, entry, policy] =
            ["7.tlog-proof", "7.entry", "policy"].map(|name| deed.file(name));
        let outputs = [
            "--out",
            proof.to_str().unwrap(),
            "--entry-out",
            entry.to_str().unwrap(),
        ];
        let arguments = ["prove", "--index", "7"].into_iter().chain(outputs);
        deed.run(arguments.chain(options.iter().copied()))
            .expect_code(OK);
        let shown = object(&deed.run(["--json", "ledger", "show"]).expect_code(OK));
        let vkey = shown["vkey"].as_str().unwrap();
        fs::write(&policy, format!("log {vkey}\nquorum none\n")).unwrap();
        Self {
            proof,
            entry,
            policy,
        }
    }

    fn verify(&self, set: &Set) -> Ended {
        let [proof, entry, policy] =
            [&self.proof, &self.entry, &self.policy].map(|path| path.to_str().unwrap());
        set.deed.run([
            "verify", proof, "--entry", entry, "--policy", policy, "--json",
        ])
    }
}

#[test]
fn proofs_verify_offline_and_not_with_one_byte_changed() {
    let mut set = Set::up();
    set.fill(30);
    for options in [&["--size", "8"][..], &["--size", "20"], &[]] {
        let proven = Proven::new(&set, options);
        let verified = object(&proven.verify(&set).expect_code(OK));
        let size = options.last().map_or(31, |size| size.parse().unwrap());
        assert_eq!(verified["tree_size"], size);
    }
    let proven = Proven::new(&set, &[]);
    // Nobody is asked: it works without a server, and without what is trusted.
    set.server.kill();
    set.deed = set.deed.at("http://127.0.0.1:1");
    fs::rename(set.deed.state(), set.deed.file("elsewhere")).unwrap();
    object(&proven.verify(&set).expect_code(OK));

    let changed = |path: &Path, offset: usize| {
        let right = fs::read(path).unwrap();
        files::flip(path, offset);
        let ended = proven.verify(&set);
        fs::write(path, right).unwrap();
        ended
    };
    // Every byte of the entry, every third one of the proof.
    for offset in 0..fs::read(&proven.entry).unwrap().len() {
        expect_failure(changed(&proven.entry, offset), DOES_NOT_VERIFY);
    }
    for offset in (0..fs::read(&proven.proof).unwrap().len()).step_by(3) {
        expect_failure(changed(&proven.proof, offset), DOES_NOT_VERIFY);
    }
    // A policy that was changed is no policy, or one that trusts somebody else.
    let policy = fs::read_to_string(&proven.policy).unwrap();
    let (name, key) = (
        policy.find("deed-").unwrap(),
        policy.find('+').unwrap() + 20,
    );
    for offset in [0, name + 6, key] {
        let ended = changed(&proven.policy, offset);
        assert!(
            [Some(DOES_NOT_VERIFY), Some(USAGE)].contains(&ended.code()),
            "{ended:#?}"
        );
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
    object(&proven.verify(&set).expect_code(OK));

    // Another log's policy, another leaf's entry, files that are not there.
    let other = Set::up();
    other.fill(10);
    let others = Proven::new(&other, &[]);
    let foreign = Proven {
        policy: others.policy.clone(),
        ..Proven::at(&proven)
    };
    expect_failure(foreign.verify(&set), DOES_NOT_VERIFY);
    let foreign = Proven {
        entry: others.entry.clone(),
        ..Proven::at(&proven)
    };
    expect_failure(foreign.verify(&set), DOES_NOT_VERIFY);
    let missing = Proven {
        entry: set.deed.file("missing"),
        ..Proven::at(&proven)
    };
    expect_failure(missing.verify(&set), USAGE);
}

impl Proven {
    fn at(other: &Self) -> Self {
        Self {
            proof: other.proof.clone(),
            entry: other.entry.clone(),
            policy: other.policy.clone(),
        }
    }
}

#[test]
fn heads_entries_and_consistency_are_shown() {
    run(async {
        let set = Set::up();
        let receipts = set.fill(20);
        let clients = Clients::connect(&set.server).await;
        let ledger = TestLedger::find(&clients, "payments").await;
        let log = Log::read(&clients, &ledger).await;
        let json = |arguments: &[&str]| {
            object(
                &set.deed
                    .run(["--json"].iter().chain(arguments))
                    .expect_code(OK),
            )
        };

        let head = json(&["head"]);
        assert_eq!(head["root"], log.head.root.to_string());
        assert_eq!(head["size"], 21);
        assert_eq!(
            ledger.open(head["checkpoint"].as_str().unwrap().as_bytes()),
            log.head
        );

        let entry = json(&["entry", "7"]);
        assert_eq!(entry["leaf_hash"], receipts[6]["leaf_hash"]);
        assert_eq!(entry["leaf_index"], 7);
        assert_eq!(entry["statement"]["sequence"], 6);
        assert_eq!(entry["statement"]["intent"]["resource"], "orders/6");
        assert_eq!(entry["statement"]["task"], TASK);
        let genesis = json(&["entry", "0"]);
        assert_eq!(genesis["leaf_hash"], ledger.id.to_string());
        assert_eq!(genesis["body"], "genesis");

        for (old, new) in [(1, 21), (5, 12), (21, 21), (0, 9), (3, 0)] {
            let consistent = json(&["consistency", &old.to_string(), &new.to_string()]);
            let new = if new == 0 { 21 } else { new };
            assert_eq!(
                (&consistent["old_size"], &consistent["new_size"]),
                (&old.into(), &new.into())
            );
            let root = deed_tests::oracle::root(&log.leaf_hashes[..new]);
            assert_eq!(consistent["new_root"], root.to_string());
        }

        // Beyond the tree is refused, the wrong way round is wrong usage.
        for beyond in [
            &["entry", "21"][..],
            &["consistency", "5", "22"],
            &["consistency", "30", "0"],
        ] {
            expect_failure(set.deed.run(beyond), UNAVAILABLE);
        }
        let out = set.deed.file("out");
        let prove = |index, size| {
            set.deed.run([
                "prove",
                "--index",
                index,
                "--size",
                size,
                "--out",
                out.to_str().unwrap(),
            ])
        };
        expect_failure(prove("21", "22"), UNAVAILABLE);
        expect_failure(prove("7", "7"), USAGE);
        expect_failure(set.deed.run(["consistency", "12", "5"]), USAGE);
        assert!(!out.exists(), "nothing is written that does not hold");
    });
}

#[test]
fn following_prints_heads_until_it_is_interrupted() {
    run(async {
        let set = Set::up();
        let clients = Clients::connect(&set.server).await;
        let ledger = TestLedger::find(&clients, "payments").await;
        let mut producer = Producer::new(ledger.id, 1);
        let following = set.deed.spawn(["--json", "follow"]);
        let sizes = || {
            let text = following.stdout();
            let whole = text.lines().filter(|_| text.ends_with('\n'));
            let parse = |line| serde_json::from_str::<Value>(line).expect("a JSON line");
            whole
                .map(|line| parse(line)["size"].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        wait_for("the first head", || (sizes() == [1]).then_some(()));
        for more in 1..=3 {
            ledger.append(&clients, &producer.intents(2)).await;
            wait_for("a newer head", || {
                (sizes().last() == Some(&(1 + 2 * more))).then_some(())
            });
        }
        following.signal(Signal::INT);
        following.wait().expect_code(OK);
        let ended = set
            .deed
            .run(["follow", "--heads", "1", "--json"])
            .expect_code(OK);
        assert_eq!(lines(&ended).len(), 1);
    });
}

// ---- what goes wrong

#[test]
fn wrong_usage_is_2() {
    let set = Set::up();
    for wrong in [
        &[][..],
        &["no-such-command"],
        &["head", "--no-such-option"],
        &["entry"],
        &["entry", "seven"],
        &["entry", "-1"],
        &["prove", "--index", "1"],
        &["prove", "--index", "1", "--size", "0", "--out", "x"],
        &["consistency", "1"],
        &["--server", "nonsense", "head"],
        &["--server", "https://127.0.0.1:1", "head"],
        &["--vkey", "nonsense", "head"],
        &["--ledger", "", "head"],
        &["append", "--batch", "0"],
        &["append", "--batch", "5000"],
        &["import", "chat", "/no/such/file"],
    ] {
        let ended = set.deed.run(wrong).expect_code(USAGE);
        assert!(
            ended.stdout.is_empty() && !ended.stderr.is_empty(),
            "{wrong:?}: {ended:#?}"
        );
    }
    for help in [&["--help"][..], &["append", "--help"], &["--version"]] {
        assert!(!set.deed.run(help).expect_code(OK).stdout.is_empty());
    }
    // Options win over the environment.
    let named = set.deed.run(["--ledger", "nobody", "head"]);
    expect_failure(named, UNAVAILABLE);
    let elsewhere = set.deed.run(["--server", "http://127.0.0.1:1", "head"]);
    expect_failure(elsewhere, UNAVAILABLE);
}

#[test]
fn a_server_that_is_not_there_is_3() {
    let mut set = Set::up();
    set.fill(3);
    let file = set.deed.file("runs.jsonl");
    let transcript = json!({"run_id": "a", "messages": [{"role": "user", "content": "help"}]});
    fs::write(&file, format!("{transcript}\n")).unwrap();
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    set.server.kill();
    let out = set.deed.file("out");
    for server in [set.server.url(), format!("http://{free}")] {
        set.deed = set.deed.at(&server);
        for command in [
            &["head"][..],
            &["follow"],
            &["entry", "1"],
            &["consistency", "1", "2"],
            &["ledger", "list"],
            &["ledger", "show"],
            &["ledger", "create", "another"],
            &["prove", "--index", "1", "--out", out.to_str().unwrap()],
            &["import", "chat", file.to_str().unwrap()],
        ] {
            let words = expect_failure(set.deed.run(command), UNAVAILABLE);
            assert!(words.contains("cannot reach"), "{command:?}: {words}");
        }
        expect_failure(set.deed.run_with(["append"], &intents(2)), UNAVAILABLE);
    }
}

/// The ledger was made anew: same server name, same ledger name, another genesis.
#[test]
fn another_ledger_under_the_same_name_is_not_believed() {
    let set = Set::up();
    set.fill(5);
    let other = Set::up();
    other.fill(5);
    // The same user at the other server's address: he knows neither server nor origin yet.
    let shown = object(&set.deed.run(["--json", "ledger", "show"]).expect_code(OK));
    let demand = ["--vkey", shown["vkey"].as_str().unwrap()];
    let url = other.server.url();
    let asked = demand.into_iter().chain(["--server", &url, "head"]);
    expect_failure(set.deed.run(asked), DOES_NOT_VERIFY);
    let asked = demand.into_iter().chain(["head"]);
    set.deed.run(asked).expect_code(OK);
}

// ---- forks

/// A server whose directory was copied, and the copy, gone on differently.
struct Fork {
    deed: Deed,
    honest: PathBuf,
    forked: PathBuf,
    _dir: TempDir,
}

impl Fork {
    /// The user trusts the honest head of 30 leaves; the other history has `forked` leaves after
    /// the 11 that both share.
    async fn new(forked: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let [data, copy] = ["honest", "forked"].map(|name| dir.path().join(name));
        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        ledger
            .append(&clients, &Producer::new(ledger.id, 1).intents(10))
            .await;
        let deed = Deed::new(&server.url(), "payments");
        deed.run(["head"]).expect_code(OK);
        server.stop();
        files::copy(&data, &copy);
        for (directory, session, count) in [(&data, 2, 19), (&copy, 3, forked)] {
            let server = ServerProcess::start(directory);
            let clients = Clients::connect(&server).await;
            if count > 0 {
                let payloads = Producer::new(ledger.id, session).intents(count);
                ledger.append(&clients, &payloads).await;
            }
            server.stop();
        }
        let server = ServerProcess::start(&data);
        let deed = deed.at(&server.url());
        let head = object(&deed.run(["--json", "head"]).expect_code(OK));
        assert_eq!(head["size"], 30);
        server.stop();
        Self {
            deed,
            honest: data,
            forked: copy,
            _dir: dir,
        }
    }

    /// All files of the user's state with this name or beginning.
    fn kept(&self, beginning: &str) -> Vec<PathBuf> {
        let state = self.deed.state();
        let files = files::files(&state).into_iter();
        let named = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(beginning))
        };
        files.filter(named).map(|path| state.join(path)).collect()
    }
}

/// The two signed heads of a piece of evidence, verified by the key that it names.
fn heads_in(evidence: &Path) -> [Checkpoint; 2] {
    let text = fs::read_to_string(evidence).unwrap();
    let evidence: Value = serde_json::from_str(&text).unwrap();
    let text = |name: &str| {
        evidence[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {evidence}"))
    };
    let vkey: VerifierKey = text("vkey").parse().unwrap();
    ["older_checkpoint", "newer_checkpoint"].map(|name| {
        let (checkpoint, _) = Checkpoint::open(text(name).as_bytes(), &vkey).unwrap();
        assert_eq!(checkpoint.origin.as_str(), text("origin"));
        checkpoint
    })
}

#[test]
fn forks_are_noticed_and_their_evidence_is_kept() {
    run(async {
        // Longer than what is trusted, as long, shorter, and nothing but the shared beginning.
        for (forked, size) in [(40, 51), (19, 30), (4, 15), (0, 11)] {
            let mut fork = Fork::new(forked).await;
            let trusted = fork.kept("checkpoint");
            assert_eq!(trusted.len(), 1);
            let trusted_note = fs::read(&trusted[0]).unwrap();
            assert!(fork.kept("fork-").is_empty());

            let server = ServerProcess::start(&fork.forked);
            fork.deed = fork.deed.at(&server.url());
            let words = expect_failure(fork.deed.run(["head"]), DOES_NOT_VERIFY);
            assert!(words.contains("fork"), "{words}");
            let evidence = fork.kept("fork-");
            assert_eq!(evidence.len(), 1, "{words}");
            assert!(
                words.contains(evidence[0].to_str().unwrap()),
                "it says where: {words}"
            );
            let mut sizes = heads_in(&evidence[0]).map(|checkpoint| checkpoint.head.size.get());
            sizes.sort_unstable();
            let mut wanted = [30, size];
            wanted.sort_unstable();
            assert_eq!(sizes, wanted, "both heads, verbatim");
            let [older, newer] = heads_in(&evidence[0]);
            assert_ne!(older.head.root, newer.head.root);

            // Every other command finds it out too, nothing is believed, nothing overwritten.
            let first = fs::read(&evidence[0]).unwrap();
            for command in [
                &["entry", "11"][..],
                &["ledger", "show"],
                &["follow", "--heads", "1"],
            ] {
                if size == 11 && command[0] == "entry" {
                    continue;
                }
                expect_failure(fork.deed.run(command), DOES_NOT_VERIFY);
            }
            let appended = fork.deed.run_with(["append"], &intents(1));
            assert_eq!(appended.code(), Some(DOES_NOT_VERIFY), "{appended:#?}");
            assert_eq!(fs::read(&evidence[0]).unwrap(), first);
            assert_eq!(
                fs::read(&trusted[0]).unwrap(),
                trusted_note,
                "what is trusted stays"
            );
            server.stop();

            // The honest one is still believed; that there was a fork is not forgotten.
            let server = ServerProcess::start(&fork.honest);
            fork.deed = fork.deed.at(&server.url());
            let ended = fork.deed.run(["head"]).expect_code(OK);
            assert!(ended.stderr.contains("fork"), "{ended:#?}");
            server.stop();
        }
    });
}
