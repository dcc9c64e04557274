//! Contents in the journal of a session: they are removed when their receipts come, and when they
//! are erased.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use deed_tests::{
    files,
    process::{Ended, ServerCommand, program},
    wait_for,
};
use serde_json::{Value, json};

use crate::{OK, Set, TASK, lines, object};

const MARKER: &str = "the-customers-iban-is-DE89370400440532013000";

fn append(set: &Set) -> Child {
    Command::new(program("deed"))
        .args(["append", "--session", "s"])
        .env("DEED_SERVER", set.server.url())
        .env("DEED_LEDGER", "payments")
        .env("DEED_STATE", set.deed.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn with_content(number: usize) -> String {
    let statement = json!({
        "producer": "spiffe://example.org/agent",
        "task": TASK,
        "intent": {
            "action": "payments.refund",
            "resource": format!("order/{number}"),
            "arguments": {"text": format!("{MARKER} {number}"), "media_type": "text/plain"},
        },
    });
    format!("{statement}\n")
}

/// Erases the arguments of the Intent at a leaf.
fn erase(set: &Set, leaf: &str) -> Ended {
    let found = set.deed.run(["entry", leaf, "--json"]).expect_code(OK);
    let digest = object(&found)["statement"]["intent"]["arguments"]["digest"].clone();
    let erase = set.deed.run([
        "content",
        "erase",
        digest.as_str().unwrap(),
        "--requested-by",
        "ticket:1",
        "--reason",
        "asked",
        "--legal-basis",
        "GDPR Art. 17(1)(b)",
    ]);
    erase.expect_code(OK)
}

fn is_kept(set: &Set) -> bool {
    files::contains(&set.deed.state(), MARKER.as_bytes())
}

/// The process waits for more input; a content with a receipt is removed all the same.
#[test]
fn a_content_leaves_the_journal_with_its_receipt() {
    let set = Set::up();
    let mut child = append(&set);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for number in 0..3 {
        input.write_all(with_content(number).as_bytes()).unwrap();
        input.flush().unwrap();
        let mut receipt = String::new();
        output.read_line(&mut receipt).unwrap();
        let receipt: Value = serde_json::from_str(&receipt).unwrap();
        assert_eq!(receipt["status"], "accepted", "{receipt}");
    }
    // The receipt is printed first, and the content removed then.
    wait_for("the journal to drop it", || (!is_kept(&set)).then_some(()));
    drop(input);
    assert!(child.wait().unwrap().success());
    let sessions = set.deed.state().join("sessions");
    for path in files::files(&sessions) {
        let mode = fs::metadata(sessions.join(&path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

/// A kill while statements wait loses nothing, and after they were sent again no content is left.
/// If a content is erased in between, it is not sent, and the statement still is.
#[test]
fn a_killed_append_loses_nothing_and_an_erasure_reaches_what_it_left() {
    let mut set = Set::up();
    // The session is opened, and one content is in the ledger.
    let first = set
        .deed
        .run_with(["append", "--session", "s"], &with_content(0));
    let first = lines(&first.expect_code(OK));
    assert_eq!(first[0]["status"], "accepted", "{first:?}");
    assert!(!is_kept(&set));
    // The server is down: statements that are read now wait in the journal.
    let address = set.server.address();
    let data = set.dir.path().join("data");
    let mut child = append(&set);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    input.write_all(with_content(9).as_bytes()).unwrap();
    output.read_line(&mut String::new()).unwrap();
    wait_for("the journal to drop it", || (!is_kept(&set)).then_some(()));
    set.server.kill();
    input.write_all(with_content(1).as_bytes()).unwrap();
    input.write_all(with_content(2).as_bytes()).unwrap();
    input.flush().unwrap();
    wait_for("the journal to hold it", || is_kept(&set).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_kept(&set), "what has no receipt is kept");
    set.server = ServerCommand::new(&data).listen(address).start();
    let left = set.deed.run_with(["append", "--session", "s"], "");
    let left = lines(&left.expect_code(OK));
    assert!(!left.is_empty() && left.len() <= 2, "{left:?}");
    assert!(
        left.iter().all(|receipt| receipt["status"] != "rejected"),
        "{left:?}"
    );
    assert!(!is_kept(&set), "its receipts came");

    // An erasure removes what a killed process left behind.
    let erased = erase(&set, "1");
    assert!(!is_kept(&set));
    assert_eq!(erased.stderr, "");

    // A session that another process uses is named, and no other one.
    let mut child = append(&set);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    input.write_all(with_content(3).as_bytes()).unwrap();
    output.read_line(&mut String::new()).unwrap();
    let erased = erase(&set, "2");
    let warnings: Vec<_> = erased.stderr.lines().collect();
    let about_session = "session \"s\" is in use by another process";
    assert!(
        warnings.iter().any(|line| line.contains(about_session)),
        "{erased:#?}"
    );
    assert!(!erased.stderr.contains("authority"), "{erased:#?}");
    drop(input);
    assert!(child.wait().unwrap().success());
}
