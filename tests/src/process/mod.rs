//! The programs of the workspace, run as processes.

mod deed;
mod server;
mod user;

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use deed::{Deed, DeedProcess};
pub use server::{Launched, ServerCommand, ServerProcess, deed_server, fsck, fsck_clean};
pub use user::{Terminal, shell};

use crate::{LOOK_AGAIN, PATIENCE};

/// Returns the path of a program of the workspace, as it was built last.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // The test is target/release/deps/<test>, and the programs are two levels above it.
    let test = env::current_exe().expect("a test knows its own path");
    let directory = test
        .ancestors()
        .nth(2)
        .expect("tests are in <target>/<profile>/deps");
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `make build` first",
        path.display()
    );
    path
}

/// The end of a process.
#[derive(Debug)]
pub struct Ended {
    /// Exit status of the process.
    pub status: ExitStatus,
    /// Everything that it printed to stdout.
    pub stdout: String,
    /// Everything that it printed to stderr.
    pub stderr: String,
}

impl Ended {
    /// Returns the exit code; `None` if a signal ended the process.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks the exit code, and shows the output if it is another one.
    ///
    /// # Panics
    /// If it is another one.
    #[track_caller]
    pub fn expect_code(self, wanted: i32) -> Self {
        assert_eq!(self.code(), Some(wanted), "it ended so: {self:#?}");
        self
    }
}

/// A process whose output goes to files. It is ended by SIGKILL when it is dropped.
#[derive(Debug)]
struct Running {
    /// The program and its arguments.
    what: String,
    child: Child,
    output: TempDir,
}

impl Running {
    fn spawn(mut command: Command) -> Self {
        let what = format!("{command:?}");
        let output = TempDir::new().expect("a temporary directory");
        let file = |name| File::create(output.path().join(name)).expect("a file for output");
        let child = command
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            what,
            child,
            output,
        }
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.output.path().join(name)).expect("the output's file");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child can be signalled");
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("our own child can be waited for")
    }

    fn wait(self) -> Ended {
        self.wait_within(PATIENCE)
    }

    fn wait_within(mut self, max: Duration) -> Ended {
        let deadline = Instant::now() + max;
        loop {
            if let Some(status) = self.exited() {
                return self.ended(status);
            }
            assert!(
                Instant::now() < deadline,
                "{} (process {}) did not end within {max:?}; so far: {:?}, stderr: {:?}",
                self.what,
                self.child.id(),
                self.read("stdout"),
                self.read("stderr")
            );
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended {
            status,
            stdout: self.read("stdout"),
            stderr: self.read("stderr"),
        }
    }

    /// Ends the process, and returns when it is gone.
    fn kill(&mut self) {
        // The process may have ended already; both calls do nothing then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the memory that a process has in RAM now, in KiB.
///
/// # Panics
/// If the process has ended.
#[must_use]
pub fn resident_kib(process: u32) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{process}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .expect("a number of KiB")
}
