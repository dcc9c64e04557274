//! The `deed` command.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Ended, Running, program};

/// The `deed` command with an environment of its own.
#[derive(Debug)]
pub struct Deed {
    home: TempDir,
    server: String,
    ledger: String,
}

impl Deed {
    /// Makes an environment for a server's address and a ledger's name.
    ///
    /// # Panics
    /// If there is no temporary directory.
    #[must_use]
    pub fn new(server: &str, ledger: &str) -> Self {
        Self {
            home: TempDir::new().expect("a temporary directory"),
            server: server.to_owned(),
            ledger: ledger.to_owned(),
        }
    }

    /// Returns the same user's environment with another server.
    #[must_use]
    pub fn at(mut self, server: &str) -> Self {
        server.clone_into(&mut self.server);
        self
    }

    /// Returns the directory with the trusted state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Returns a path for a file of the test, below the user's directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program("deed"));
        command
            .args(arguments)
            .env("DEED_SERVER", &self.server)
            .env("DEED_LEDGER", &self.ledger)
            .env("DEED_STATE", self.state())
            .env("HOME", self.home.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs the command without input.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        Running::spawn(self.command(arguments)).wait()
    }

    /// Runs the command with `input` on stdin.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Ended {
        let path = self.file("stdin");
        fs::write(&path, input).expect("a file for the input");
        let mut command = self.command(arguments);
        command.stdin(File::open(&path).expect("the input"));
        Running::spawn(command).wait()
    }

    /// Starts the command and does not wait for its end.
    #[must_use]
    pub fn spawn<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> DeedProcess {
        DeedProcess(Running::spawn(self.command(arguments)))
    }
}

/// A `deed` command that runs.
#[derive(Debug)]
pub struct DeedProcess(Running);

impl DeedProcess {
    /// Returns everything that it has printed to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.0.read("stdout")
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// If it does not end in time.
    #[must_use]
    pub fn wait(self) -> Ended {
        self.0.wait()
    }
}
