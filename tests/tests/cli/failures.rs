//! Exit codes for wrong usage, and for a server that cannot be reached.

use std::{fs, net::TcpListener};

use serde_json::json;

use crate::{OK, Set, UNAVAILABLE, USAGE, expect_failure, intents};

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
        &["--server", "ftp://127.0.0.1:1", "head"],
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
