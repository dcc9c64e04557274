//! Commands of a user's shell, with and without a terminal.

use std::{
    env,
    io::Write as _,
    path::Path,
    process::{ChildStdin, Command, Stdio},
};

use super::{Ended, Running, program};
use crate::wait_for;

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

    /// Types a text: `\n` is return, `\x03` Ctrl-C, `\x04` Ctrl-D.
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
