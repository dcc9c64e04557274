//! `deed-server`: the server that runs, and its other commands.

use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use super::{Ended, Running, program, resident_kib};
use crate::wait_for;

/// The command that starts a server.
#[derive(Debug, Clone)]
pub struct ServerCommand {
    data_dir: PathBuf,
    listen: String,
    arguments: Vec<String>,
    rust_log: String,
    open_files: Option<u32>,
}

impl ServerCommand {
    /// Makes the command for a server on a data directory and any free port of 127.0.0.1.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            rust_log: "info".to_owned(),
            open_files: None,
        }
    }

    /// Sets another address to listen on.
    #[must_use]
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen = address.to_string();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<S: ToString>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.to_string()));
        self
    }

    /// Sets the filter of log lines.
    #[must_use]
    pub fn rust_log(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.rust_log);
        self
    }

    /// Bounds the number of files that it may open, like `ulimit -n` in the shell that starts it.
    #[must_use]
    pub fn open_files(mut self, max: u32) -> Self {
        self.open_files = Some(max);
        self
    }

    fn command(&self) -> Command {
        let server = program("deed-server");
        let Some(max) = self.open_files else {
            return Command::new(server);
        };
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {max} && exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(server);
        command
    }

    /// Starts the server, and waits for nothing.
    #[must_use]
    pub fn launch(&self) -> Launched {
        let mut command = self.command();
        command
            .arg("run")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &self.listen])
            .args(&self.arguments)
            .env("RUST_LOG", &self.rust_log)
            // Many servers run at once; tests that need the admin port set it with a flag.
            .env("DEED__ADMIN__LISTEN", "none")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Launched(Running::spawn(command))
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Panics
    /// If it ends instead.
    #[must_use]
    #[track_caller]
    pub fn start(&self) -> ServerProcess {
        match self.try_start() {
            Ok(server) => server,
            Err(ended) => panic!("deed-server did not start: {ended:#?}"),
        }
    }

    /// Starts the server and waits until it listens or ends.
    ///
    /// # Errors
    /// The end of the process.
    pub fn try_start(&self) -> Result<ServerProcess, Ended> {
        self.launch().listening()
    }

    /// Starts the server and waits until it has ended by itself, as one that refuses to start does.
    ///
    /// # Panics
    /// If it begins to listen.
    #[must_use]
    #[track_caller]
    pub fn refused(&self) -> Ended {
        match self.try_start() {
            Ok(server) => panic!("deed-server starts, on {}", server.address()),
            Err(ended) => ended,
        }
    }
}

/// A server that was started and may not listen yet.
#[derive(Debug)]
pub struct Launched(Running);

impl Launched {
    /// Waits until the server listens or ends.
    ///
    /// # Errors
    /// The end of the process.
    pub fn listening(mut self) -> Result<ServerProcess, Ended> {
        let found = wait_for("a server that listens or ends", || {
            let stdout = self.0.read("stdout");
            let address = stdout
                .lines()
                // A line that is still being written has no end yet.
                .filter(|_| stdout.ends_with('\n'))
                .find_map(|line| line.strip_prefix("listening on "));
            match address {
                Some(address) => Some(Ok(address.parse().expect("an address"))),
                None => self.0.exited().map(Err),
            }
        });
        match found {
            Ok(address) => Ok(ServerProcess {
                running: self.0,
                address,
            }),
            Err(status) => Err(self.0.ended(status)),
        }
    }

    /// Ends the server by SIGKILL: it cannot do anything more.
    pub fn kill9(self) {
        drop(self.0);
    }
}

/// A server that listens. It is ended by SIGKILL when it is dropped.
#[derive(Debug)]
pub struct ServerProcess {
    running: Running,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts a server on a data directory.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    #[track_caller]
    pub fn start(data_dir: &Path) -> Self {
        ServerCommand::new(data_dir).start()
    }

    /// Returns the address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL on which it listens, for gRPC.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address of its metrics and health.
    ///
    /// # Panics
    /// If it does not serve them.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        let stdout = self.stdout();
        let mut lines = stdout.lines();
        let address = lines.find_map(|line| line.strip_prefix("metrics and health on http://"));
        address
            .and_then(|address| address.parse().ok())
            .expect("an address of metrics and health")
    }

    /// Changes the number of files that it may open from now on; returns the earlier one.
    ///
    /// # Panics
    /// If the system does not allow that.
    pub fn allow_files(&self, max: Option<u64>) -> Option<u64> {
        let process = Pid::from_child(&self.running.child);
        let hard = getrlimit(Resource::Nofile).maximum;
        let wanted = Rlimit {
            current: max,
            maximum: hard,
        };
        let before = prlimit(Some(process), Resource::Nofile, wanted);
        before.expect("our own child's limit").current
    }

    /// Returns a limit of the process, as /proc has it: soft and hard.
    ///
    /// # Panics
    /// If there is no such limit.
    #[must_use]
    pub fn bound(&self, name: &str) -> [String; 2] {
        let limits =
            fs::read_to_string(format!("/proc/{}/limits", self.id())).expect("a process that runs");
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let mut words = line.expect("a bound").split_whitespace();
        [(); 2].map(|()| words.next().expect("a value").to_owned())
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Returns the resident memory, as [`resident_kib`].
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        resident_kib(self.id())
    }

    /// Returns everything that it has printed to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.running.read("stdout")
    }

    /// Returns everything that it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.read("stderr")
    }

    /// Ends the server by SIGTERM, as an operator does.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Ends the server by SIGTERM, and checks that it ends cleanly.
    ///
    /// # Panics
    /// If it does not end in time, or has another exit code than 0.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.terminate().expect_code(0)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(self) -> Ended {
        self.running.wait()
    }

    /// Ends the server by SIGKILL: it cannot do anything more.
    pub fn kill9(mut self) {
        self.kill();
    }

    /// Ends the server like [`kill9`](Self::kill9), for tests that use its address afterwards.
    pub fn kill(&mut self) {
        self.running.kill();
    }
}

/// Longest time of a check of a ledger that a test has filled for a minute.
const FSCK_MAX: Duration = Duration::from_secs(200);

/// Runs `deed-server fsck`.
///
/// # Panics
/// If it does not end in time.
#[must_use]
pub fn fsck(data_dir: &Path) -> Ended {
    let mut command = Command::new(program("deed-server"));
    command
        .arg("fsck")
        .arg("--data-dir")
        .arg(data_dir)
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    // It judges every entry again, signatures included.
    Running::spawn(command).wait_within(FSCK_MAX)
}

/// Runs `deed-server fsck`, which must find no defect; returns what it printed.
///
/// # Panics
/// If it finds a defect, or does not end in time.
#[track_caller]
pub fn fsck_clean(data_dir: &Path) -> String {
    let ended = fsck(data_dir).expect_code(0);
    assert!(ended.stdout.starts_with("clean: "), "{ended:#?}");
    ended.stdout
}

/// Runs another command of `deed-server`, which must succeed; returns what it printed.
///
/// # Panics
/// If it fails, or does not end in time.
#[track_caller]
pub fn deed_server<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(program("deed-server"));
    command
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    Running::spawn(command).wait().expect_code(0).stdout
}
