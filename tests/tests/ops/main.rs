//! Running a server: what it refuses, how it stops, what the checker finds, what it keeps quiet.

mod checking;
mod damage;
mod secrets;
mod starting;
mod stopping;

use std::path::{Path, PathBuf};

use deed_tests::{
    process::{Ended, ServerProcess},
    rpc::{Clients, TestLedger},
};
use tempfile::TempDir;

fn data_in(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

/// Checks that a refusal has its reason on stderr, and nothing on stdout.
#[track_caller]
fn expect_words(ended: &Ended, words: &[&str]) {
    assert!(ended.code().is_some_and(|code| code != 0), "{ended:#?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} in {ended:#?}");
    }
    assert!(ended.stdout.is_empty(), "{ended:#?}");
}

async fn up(data: &Path) -> (ServerProcess, Clients, TestLedger) {
    let server = ServerProcess::start(data);
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::create(&clients, "payments").await;
    (server, clients, ledger)
}
