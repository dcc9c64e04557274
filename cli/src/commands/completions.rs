//! `deed completions`

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};

use crate::failure::{CommandResult, Failure};

/// Print a shell completion script
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed completions bash > /etc/bash_completion.d/deed
  deed completions zsh > \"${fpath[1]}/_deed\"
  deed completions fish > ~/.config/fish/completions/deed.fish")]
pub(crate) struct Completions {
    /// Name of the shell
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(crate) fn run(&self, command: &mut clap::Command) -> CommandResult {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, command, "deed", &mut script);
        io::stdout()
            .write_all(&script)
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Failure::OutputClosed,
                _ => Failure::Usage(error.into()),
            })
    }
}
