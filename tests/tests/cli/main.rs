//! The `deed` command: exit codes, JSON, and that it trusts nothing unverified.

mod appending;
mod audit;
mod erasing;
mod failures;
mod forks;
mod importing;
mod ledgers;
mod observing;
mod output;
mod proofs;
mod reading;
mod rotation;
mod signing;

use deed_tests::process::{Deed, Ended, ServerProcess};
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
    dir: TempDir,
}

impl Set {
    /// Starts a server with the ledger `payments`.
    fn up() -> Self {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(&dir.path().join("data"));
        let deed = Deed::new(&server.url(), "payments");
        deed.run(["ledger", "create", "payments"]).expect_code(OK);
        Self { server, deed, dir }
    }

    /// Appends Intents through the command; returns the receipts.
    fn fill(&self, count: usize) -> Vec<Value> {
        let ended = self
            .deed
            .run_with(["append"], &intents(count))
            .expect_code(OK);
        lines(&ended)
    }
}

/// Returns statements as JSON lines, for one new session.
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

/// Parses stdout as JSON lines.
#[track_caller]
fn lines(ended: &Ended) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {ended:#?}"));
    ended.stdout.lines().map(parse).collect()
}

/// Parses stdout as one JSON object.
#[track_caller]
fn object(ended: &Ended) -> Value {
    let mut lines = lines(ended);
    assert_eq!(lines.len(), 1, "{ended:#?}");
    lines.remove(0)
}

/// Checks that a failure has a message on stderr, and no data on stdout; returns the message.
#[track_caller]
fn expect_failure(ended: Ended, code: i32) -> String {
    let ended = ended.expect_code(code);
    assert!(!ended.stderr.trim().is_empty(), "{ended:#?}");
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    ended.stderr
}
