//! The `deed-server` command.

mod commands;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use commands::{config, fsck, health, reindex, renew_secret, run};
use deed_server::{
    config::{ConfigError, Flags, Settings},
    telemetry::{self, TelemetryError},
    with_causes,
};

use crate::commands::{
    access::{RoleCommand, TlsCommand, TokenCommand},
    clock::ClockCommand,
};

/// Returns memory to the system after many callers have gone, even if no new ones come: a thread of
/// the allocator does that some seconds after memory is free. RocksDB uses this allocator, too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The server of a proof-of-action ledger for AI agents.
#[derive(Debug, Parser)]
#[command(name = "deed-server", version, max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Format of log lines on stderr: text or json (default: text).
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Filter of the log lines, in the syntax of RUST_LOG (default: info).
    #[arg(long, global = true, value_name = "FILTER")]
    log_filter: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM or Ctrl-C.
    #[command(after_help = "Example:\n  deed-server run --data-dir ./deed-data")]
    Run(run::Arguments),
    /// Print the configuration in force as TOML, with the source of each value.
    #[command(after_help = "Example:\n  deed-server config --config deed.toml --check")]
    Config(config::Arguments),
    /// Ask a running server whether it is ready; exit code 0 if it is.
    #[command(after_help = "Example:\n  deed-server health --address 127.0.0.1:7734")]
    Health(health::Arguments),
    /// Check a stopped server's data directory: every leaf, tile, root, record and signature.
    ///
    /// It writes nothing there, so a read-only mount or snapshot will do. Exit code 0 if everything is as it must be, 1 with the first difference otherwise.
    #[command(after_help = "Example:\n  deed-server fsck --data-dir ./deed-data")]
    Fsck(fsck::Arguments),
    /// Build a stopped server's indexes again, by which leaves and entries are found.
    ///
    /// The indexes are derived from the log. A running server builds missing parts by itself.
    #[command(after_help = "Example:\n  deed-server reindex --data-dir ./deed-data")]
    Reindex(reindex::Arguments),
    /// Give a stopped server a new secret, from which the next log keys derive.
    ///
    /// Use this if others may know the secret. Afterwards an authority of each ledger has to
    /// replace its log key: `deed ledger rotate-log-key`. The old secret stays in the file, for the
    /// old keys.
    #[command(after_help = "Example:\n  deed-server renew-secret --data-dir ./deed-data")]
    RenewSecret(renew_secret::Arguments),
    /// Confirm the machine's clock where the server does not believe it.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Make, show and revoke tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Give, show and take away roles.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Make certificates for development.
    #[command(subcommand)]
    Tls(TlsCommand),
}

/// Exit code of a command that was called with wrong arguments, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut flags = Flags::default();
    for (key, value, flag) in [
        ("log.format", &arguments.log_format, "--log-format"),
        ("log.filter", &arguments.log_filter, "--log-filter"),
    ] {
        if let Some(value) = value {
            flags.set(key, value, flag);
        }
    }
    let ended = match arguments.command {
        Command::Run(arguments) => run::run(&arguments, flags),
        Command::Config(arguments) => config::run(&arguments, flags),
        Command::Health(arguments) => health::run(&arguments),
        Command::Fsck(arguments) => fsck::run(&arguments, flags),
        Command::Reindex(arguments) => reindex::run(&arguments, flags),
        Command::RenewSecret(arguments) => renew_secret::run(&arguments, flags),
        Command::Clock(command) => commands::clock::run(command, flags),
        Command::Token(command) => commands::access::token(command),
        Command::Role(command) => commands::access::role(command),
        Command::Tls(command) => commands::access::tls(command),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("deed-server: {}", with_causes(error.as_ref()));
            if error.is::<ConfigError>() || error.is::<TelemetryError>() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Sets up logging by the settings, without traces: for commands that end in a moment.
fn log_as(settings: &Settings) -> anyhow::Result<()> {
    telemetry::begin(&settings.log, None)?;
    Ok(())
}

/// Prints a line to stdout; errors are ignored, because a reader that has closed it wants no more.
fn print_line(line: &str) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
