//! A producer that is killed: the real `deed append --session`, started again on the same state
//! directory with the lines that it had not read yet.

use std::{
    fs,
    future::ready,
    os::unix::fs::OpenOptionsExt as _,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use deed_client::key;
use deed_proto::v1::{self, statement::Body};
use deed_tests::{process::program, proxy::Proxy, random::Random, until};
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{CUTS_EACH, LEDGER, key_of, name_of};

/// Number of this producer.
pub(crate) const KILLED: u64 = 5;

/// Number of kills in each round, and its longest life before each.
const KILLS: u64 = 6;
const LIFE_MS_MAX: u64 = 400;

/// Lines of input each time: more than it reads within its life, on most machines.
const LINES: u64 = 2_000;

/// Time for which the connections of the last process, which is not killed, are cut.
const LAST_CUTS: Duration = Duration::from_secs(3);

/// Statements in a request, few enough for requests and answers to come through between two cuts.
const BATCH: &str = "20";

const SESSION: &str = "killed";

/// Exit code of a command that cannot reach its server.
const UNAVAILABLE: i32 = 3;

/// Returns the resource of its statement of this sequence.
pub(crate) fn step(sequence: u64) -> String {
    format!("step/{sequence}")
}

/// Returns the resource of an Intent in the log.
pub(crate) fn resource(payload: &[u8]) -> String {
    let statement = v1::Statement::decode(payload).expect("a statement");
    match statement.body {
        Some(Body::Intent(intent)) => intent.resource,
        body => panic!("not an intent: {body:?}"),
    }
}

/// Kills it several times, then lets it end. Returns the number of statements for which it has
/// receipts.
///
/// `direct` is the server's address, past the proxy.
pub(crate) async fn kill_again_and_again(
    proxy: Arc<Proxy>,
    direct: String,
    mut random: Random,
) -> u64 {
    let producer = Producer::new(proxy.url(), direct);
    let mut kills = 0;
    while kills < KILLS || proxy.report().cuts < CUTS_EACH {
        let mut process = producer.start(LINES);
        // This is not a wait for an event: it is the time until the kill.
        tokio::time::sleep(Duration::from_millis(random.between(0, LIFE_MS_MAX))).await;
        match process.try_wait().expect("our own child") {
            // It had no more lines, or its first connection was cut, which it tries only once.
            Some(ended) => assert!(matches!(ended.code(), Some(0 | UNAVAILABLE)), "{ended}"),
            None => {
                process.kill().expect("our own child can be killed");
                process.wait().expect("our own child");
                kills += 1;
            }
        }
    }
    // A last process has some lines of its own, and must leave nothing behind. Its pauses grow to
    // seconds where cuts follow each other, so the network becomes good after a while.
    let well_at = Instant::now() + LAST_CUTS;
    let mut lines = 100;
    loop {
        let mut process = producer.start(lines);
        let ended = until("the end of deed append", || {
            if Instant::now() >= well_at {
                proxy.heal();
            }
            ready(process.try_wait().expect("our own child"))
        })
        .await;
        match ended.code() {
            Some(0) => break,
            Some(UNAVAILABLE) => lines = 0,
            _ => panic!("{ended}: {}", producer.told()),
        }
    }
    let shown = producer.show().expect("its session");
    let (kept, recorded) = (&shown["kept"], &shown["recorded"]);
    assert_eq!(kept["unacknowledged"], 0, "{shown}");
    assert_eq!(kept["next_sequence"], recorded["next_sequence"], "{shown}");
    kept["next_sequence"].as_u64().expect("a number")
}

struct Producer {
    url: String,
    direct: String,
    home: TempDir,
}

impl Producer {
    fn new(url: String, direct: String) -> Self {
        use std::io::Write as _;
        let home = TempDir::new().expect("a temporary directory");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(home.path().join("key.pem"))
            .expect("a file for the key");
        file.write_all(key::private_to_pem(&key_of(KILLED)).as_bytes())
            .expect("the key");
        Self { url, direct, home }
    }

    fn command(&self, url: &str) -> Command {
        let mut command = Command::new(program("deed"));
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("DEED_SERVER", url)
            .env("DEED_LEDGER", LEDGER)
            .env("DEED_STATE", self.home.path().join("state"))
            .stdin(Stdio::null());
        command
    }

    /// Starts it with the next lines: those that no earlier process has kept on disk.
    fn start(&self, lines: u64) -> Child {
        let next = match self.show() {
            Some(shown) => shown["kept"]["next_sequence"].as_u64().expect("a number"),
            None => 0,
        };
        let text: String = (next..next + lines)
            .map(|sequence| {
                let line = json!({
                    "producer": name_of(KILLED),
                    "task": "7a".repeat(16),
                    "intent": {"action": "orders.update", "resource": step(sequence)},
                });
                format!("{line}\n")
            })
            .collect();
        let file = |name: &str| self.home.path().join(name);
        fs::write(file("lines"), text).expect("a file of lines");
        self.command(&self.url)
            .args(["append", "--session", SESSION, "--batch", BATCH])
            .args(["--sign", "each", "--key"])
            .arg(file("key.pem"))
            .stdin(fs::File::open(file("lines")).expect("the lines"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(file("stderr")).expect("a file"))
            .spawn()
            .expect("deed starts")
    }

    fn told(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).expect("a file")
    }

    /// Returns the state of its session, here and in the ledger; `None` before it has begun.
    fn show(&self) -> Option<Value> {
        let shown: Output = self
            .command(&self.direct)
            .args(["session", "show", SESSION, "--json"])
            .output()
            .expect("deed runs");
        if shown.status.success() {
            return Some(serde_json::from_slice(&shown.stdout).expect("JSON"));
        }
        let why = String::from_utf8_lossy(&shown.stderr);
        assert!(why.contains("no session"), "{shown:?}");
        None
    }
}
