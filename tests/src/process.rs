//! The programs of the workspace, run as processes.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tempfile::TempDir;

use crate::{PATIENCE, wait_for, wait_longer_for};

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
        let what = format!("the end of {} (process {})", self.what, self.child.id());
        let status = wait_longer_for(&what, max, || self.exited());
        self.ended(status)
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

/// Runs a script of `sh` in a directory, as a user would who has both programs in the path. It ends
/// where a command fails.
///
/// # Panics
/// If it does not end in time.
#[must_use]
pub fn shell(directory: &Path, variables: &[(&str, &str)], script: &str) -> Ended {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).stdin(Stdio::null());
    as_user(&mut command, directory, variables);
    Running::spawn(command).wait()
}

fn as_user(command: &mut Command, directory: &Path, variables: &[(&str, &str)]) {
    let programs = program("deed");
    let programs = programs.parent().expect("it is in a directory");
    let path = env::var("PATH").unwrap_or_default();
    command
        .current_dir(directory)
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("HOME", directory)
        .env_remove("XDG_STATE_HOME")
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .envs(variables.iter().copied());
}

/// A command that runs at a terminal, with simulated typing.
#[derive(Debug)]
pub struct Terminal {
    running: Running,
    keyboard: ChildStdin,
}

impl Terminal {
    /// Runs a command of `sh` like [`shell`], but at a terminal of its own, which util-linux's
    /// `script` makes.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(directory: &Path, variables: &[(&str, &str)], line: &str) -> Self {
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--flush", "--command"])
            // The command replaces the shell, so that it alone gets what the terminal sends.
            .arg(format!("exec {line}"))
            .arg("/dev/null")
            .stdin(Stdio::piped());
        as_user(&mut command, directory, variables);
        command.env("SHELL", "/bin/sh");
        let mut running = Running::spawn(command);
        let keyboard = running.child.stdin.take().expect("a keyboard");
        Self { running, keyboard }
    }

    /// Waits until the screen shows a text; returns everything that it has shown so far, including
    /// typed text, which terminals echo.
    ///
    /// # Panics
    /// If it does not show the text in time.
    pub fn shows(&self, text: &str) -> String {
        wait_for(text, || {
            let shown = self.running.read("stdout");
            shown.contains(text).then_some(shown)
        })
    }

    /// Types a text: `
    /// ` is return, `\x03` Ctrl-C, `\x04` Ctrl-D.
    ///
    /// # Panics
    /// If the command does not read it.
    pub fn types(&mut self, text: &str) {
        let mut typed = || {
            self.keyboard.write_all(text.as_bytes())?;
            self.keyboard.flush()
        };
        typed().expect("a terminal");
    }

    /// Waits until the command ends. Its exit code is 128 plus the signal's number if a signal
    /// ended it.
    ///
    /// # Panics
    /// If it does not end in time.
    #[must_use]
    pub fn wait(self) -> Ended {
        let ended = self.running.wait();
        // The keyboard is dropped only now: without it the terminal would be gone, too.
        drop(self.keyboard);
        ended
    }
}

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
