//! Appending: statements line by line, transcripts, and the bench.

use std::fs;

use deed_tests::{
    oracle::Log,
    rpc::{Clients, TestLedger},
    run,
};
use serde_json::{Value, json};

use crate::{OK, Set, TASK, UNAVAILABLE, USAGE, expect_failure, intent, intents, lines, object};

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
fn the_example_in_the_help_is_accepted() {
    let set = Set::up();
    let help = set.deed.run(["append", "--help"]).expect_code(OK).stdout;
    let (_, example) = help.split_once("Example (one line each):").unwrap();
    let statements = serde_json::Deserializer::from_str(example).into_iter::<Value>();
    let statements: Vec<_> = statements.map_while(Result::ok).collect();
    assert_eq!(statements.len(), 2, "{help}");
    let input: String = statements.iter().map(|line| format!("{line}\n")).collect();
    let receipts = lines(&set.deed.run_with(["append"], &input).expect_code(OK));
    assert!(
        receipts
            .iter()
            .all(|receipt| receipt["status"] == "accepted")
    );
    let entry = |leaf: &str| object(&set.deed.run(["entry", leaf, "--json"]).expect_code(OK));
    let (opened, intent) = (entry("1"), entry("2"));
    assert_eq!(opened["statement"]["task"], intent["statement"]["task"]);
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
        statement["nonce"] = session.into();
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
        set.deed.run([
            "import",
            "chat",
            "--json",
            "--ended",
            file.to_str().unwrap(),
        ])
    };
    write(format!("{}\n{}\n", transcript("a"), transcript("b")));
    let summary = object(&import().expect_code(OK));
    // The run was opened and granted, and has three calls and two results; task and session were
    // closed.
    for (what, count) in [
        ("runs", 2),
        ("grants", 2),
        ("intents", 6),
        ("outcomes", 4),
        ("failures", 2),
        ("unanswered", 2),
        ("statements", 18),
        ("accepted", 18),
    ] {
        assert_eq!(summary[what], count, "{what} in {summary}");
    }
    write(format!("{}\n{}\n", transcript("b"), transcript("c")));
    let summary = object(&import().expect_code(OK));
    assert_eq!(
        (&summary["accepted"], &summary["duplicates"]),
        (&9.into(), &9.into())
    );

    // The same run with other contents is not the recorded one.
    write(format!("{}\n", transcript("a")).replace("Error: no", "yes"));
    let ended = import().expect_code(USAGE);
    let summary = object(&ended);
    assert_eq!(
        (&summary["refused"], &summary["statements"]),
        (&1.into(), &0.into()),
        "{ended:#?}"
    );
    assert!(
        ended.stderr.contains("run \"a\": is not what was"),
        "{ended:#?}"
    );

    write(format!("no transcript\n{}\n", transcript("d")));
    let ended = import().expect_code(USAGE);
    assert!(ended.stderr.contains("line 1"), "{ended:#?}");
    assert_eq!(
        object(&ended)["accepted"],
        9,
        "the rest goes on: {ended:#?}"
    );
    fs::remove_file(&file).unwrap();
    expect_failure(import(), USAGE);
}

/// The test checks the output as JSON and the log, not the speed.
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
        // Each task is opened first, in a session of its own; then its own session begins.
        assert_eq!(log.head.size.get(), 1 + 2 * 2 + 640);
        assert_eq!(log.sessions().len(), 2 + 2);
    });
}
