//! The `deed` command as a process, before a server in memory.

use std::process::{Output, Stdio};

use deed_testkit::fake::Fake;
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

pub(crate) struct Scene {
    pub(crate) fake: Fake,
    directory: tempfile::TempDir,
}

pub(crate) async fn scene() -> Scene {
    Scene {
        fake: Fake::start().await,
        directory: tempfile::tempdir().unwrap(),
    }
}

impl Scene {
    /// A scene before a server of a ledger that is a story.
    pub(crate) async fn telling(story: &crate::stories::Ledger) -> Self {
        Self {
            fake: Fake::telling(story.entries()).await,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deed"));
        command
            .args(arguments)
            .env_clear()
            .env("DEED_SERVER", self.fake.url())
            .env("DEED_LEDGER", self.fake.name())
            .env("DEED_STATE", self.path("state"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    /// Runs a command that must succeed, and reads its one line of JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) async fn append(&self, arguments: &[&str], input: &str) -> (Output, Vec<Value>) {
        let mut child = self
            .command(&[&["append"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // May be refused early; the exit code says so.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let receipts = std::str::from_utf8(&output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (output, receipts)
    }
}

/// Splits a line of arguments at its spaces.
pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
