//! The command `deed-server clock`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use deed_evidence::Micros;
use deed_server::config::Flags;

use super::DirectoryArguments;
use crate::print_line;

/// The subcommands of `deed-server clock`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Confirm that the machine's clock is right, for a server that runs and does not believe it.
    ///
    /// Look at another clock, and give the time that it shows: the machine's clock must show the
    /// same, within 5 minutes. Each ledger records in an entry that the clock was confirmed, before
    /// it records anything else. A ledger whose own time is ahead, because the clock was wrong
    /// once, keeps that time until the clock has reached it.
    #[command(after_help = "Example:\n  deed-server clock confirm --time \"$(date -u +%s)\"")]
    Confirm(Confirm),
}

#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// Time of another clock, in seconds since 1970-01-01T00:00:00Z, as `date +%s` shows it there.
    #[arg(long, value_name = "SECONDS")]
    time: i64,
    #[command(flatten)]
    directory: DirectoryArguments,
}

pub(crate) fn run(command: ClockCommand, flags: Flags) -> anyhow::Result<ExitCode> {
    let ClockCommand::Confirm(arguments) = command;
    let settings = arguments.directory.load(flags)?;
    let named = arguments.time.checked_mul(1_000_000);
    let named = Micros::new(named.context("--time is out of range")?);
    match deed_server::confirm_clock(&settings.server.data_dir, named) {
        Ok(time) => {
            print_line(&format!(
                "confirmed {} (seconds since 1970); a running server accepts it within some seconds (see its \
                 log and /readyz), one that starts within a minute when it does",
                time.get() / 1_000_000
            ));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("deed-server clock confirm: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}
