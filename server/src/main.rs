//! The `deed-server` command.

use std::{
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use deed_server::{Server, ServerOptions, StoreOptions, SystemClock, fsck};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The server of a proof-of-action ledger for AI agents.
#[derive(Debug, Parser)]
#[command(name = "deed-server", version, max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines on stderr look. RUST_LOG chooses which ones (default: info).
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM or Ctrl-C.
    #[command(after_help = "Example:\n  deed-server run --data-dir ./deed-data")]
    Run(RunArguments),
    /// Check a stopped server's data directory: every leaf, tile, root, record and signature.
    ///
    /// Exit code 0 if everything is as it must be, 1 with the first difference otherwise.
    #[command(after_help = "Example:\n  deed-server fsck --data-dir ./deed-data")]
    Fsck(FsckArguments),
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// Directory of the store, the head guard and the server's key; created if missing.
    #[arg(long, default_value = "./deed-data")]
    data_dir: PathBuf,
    /// Address to listen on. This version takes loopback addresses only.
    #[arg(long, default_value = "127.0.0.1:7733")]
    listen: SocketAddr,
    /// The server's name, for a new data directory: the first part of every ledger's origin.
    #[arg(long)]
    name: Option<String>,
    /// Threads that write, each for a share of the ledgers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// MiB of statements that may wait for each shard.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=1024))]
    queue_mib: u16,
    /// MiB of memory for blocks read from disk.
    #[arg(long, default_value_t = 256)]
    block_cache_mib: u16,
    /// Milliseconds that stopping may wait for open connections.
    #[arg(long, default_value_t = 10_000)]
    drain_ms: u64,
}

#[derive(Debug, clap::Args)]
struct FsckArguments {
    /// Directory to check.
    #[arg(long, default_value = "./deed-data")]
    data_dir: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    let ended = match arguments.command {
        Command::Run(arguments) => run(arguments),
        Command::Fsck(arguments) => check(&arguments),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("deed-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How long tasks that were left behind may take to end.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let options = ServerOptions {
            listen: arguments.listen,
            name: arguments.name,
            shards: arguments.shards.into(),
            queue_bytes: usize::from(arguments.queue_mib) << 20,
            store: StoreOptions {
                block_cache_bytes: usize::from(arguments.block_cache_mib) << 20,
                ..StoreOptions::default()
            },
            drain_ms: arguments.drain_ms,
            ..ServerOptions::new(&arguments.data_dir)
        };
        let server = Server::start(options, Arc::new(SystemClock)).await?;
        if server.created() {
            let dir = arguments.data_dir.display();
            print_line(&format!(
                "created server {:?}: its secret is in {dir}/server.key (mode 0600), keep a copy",
                server.name()
            ));
        }
        print_line(&format!("listening on {}", server.address()));
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
            _ = server.failed() => {}
        }
        server.stop().await?;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    });
    // Everything is on disk; a read that still runs for somebody who is gone may not hold us.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    ended
}

fn check(arguments: &FsckArguments) -> anyhow::Result<ExitCode> {
    let report = fsck::check(&arguments.data_dir, &mut |progress| {
        eprintln!("{progress}");
    });
    match report {
        Ok(report) => {
            print_line(&report.to_string());
            // Apart from the log: its integrity does not depend on contents.
            print_line(&report.contents.to_string());
            Ok(if report.contents.damaged == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            eprintln!("deed-server fsck: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints to stdout; whoever has closed it does not want to know.
fn print_line(line: &str) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
