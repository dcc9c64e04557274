//! The command line: arguments, output, exit codes.

mod failure;
mod file;
mod global;
mod output;
mod printable;
mod time;

pub(crate) use failure::{Failure, Outcome};
pub(crate) use file::{Readers, WholeFile, make_directory, make_private_directory};
pub(crate) use global::Global;
pub(crate) use output::{
    Output, folded, indented, labelled, progress_bar, tell, to_json, to_json_pretty,
};
pub(crate) use printable::printable;
pub(crate) use time::{Span, TimeError, When, shown, shown_span, with_times};

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::commands;

/// Proof-of-action ledger for AI agents: write statements, verify everything.
///
/// Answers of the server are verified before they are printed: signatures, consistency with the
/// last tree head that was trusted (kept in the state directory), receipts and proofs.
#[derive(Parser)]
#[command(
    name = "deed",
    version,
    max_term_width = 80,
    after_help = "\
Exit codes: 0 ok, 1 does not verify, 2 usage, 3 unreachable or refused.

Examples:
  deed ledger create payments
  export DEED_LEDGER=payments
  deed append < statements.jsonl > receipts.jsonl
  deed intend --key agent.pem --task 0001..0f --action payments.refund \\
       --resource order/7 --wait
  deed task show 000102030405060708090a0b0c0d0e0f
  deed head
  deed prove --index 7 --out 7.tlog-proof --entry-out 7.entry \\
       --policy-out payments.policy
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, list and show ledgers
    #[command(subcommand)]
    Ledger(commands::ledger::Ledgers),
    /// Make a key pair
    Keygen(commands::keygen::Keygen),
    /// Register, revoke and list the keys that speak for producers
    #[command(subcommand)]
    Key(commands::key::Keys),
    /// Let an authenticated principal deliver a producer's statements
    #[command(subcommand)]
    Principal(commands::rules::Principals),
    /// Change the keys that speak for the ledger's owner
    #[command(subcommand)]
    Authority(commands::rules::Authorities),
    /// Set which evidence an action needs, check it, show it
    #[command(subcommand)]
    Policy(commands::policy::Policies),
    /// Set how long contents are kept at least
    #[command(subcommand)]
    Retention(commands::rules::Retention),
    /// Place, release and list legal holds on contents
    #[command(subcommand)]
    Hold(commands::rules::Holds),
    /// Open, close and show tasks, and have receipts of them written
    #[command(subcommand)]
    Task(commands::task::Tasks),
    Grant(Box<commands::grants::MakeGrant>),
    Accept(commands::grants::Accept),
    Revoke(commands::grants::Revoke),
    Intend(Box<commands::intent::MakeIntent>),
    Await(commands::intent::Await),
    Approve(commands::approve::Approve),
    Decide(commands::decide::Decide),
    Complete(commands::complete::Complete),
    Observe(Box<commands::observe::Observe>),
    Findings(commands::findings::Findings),
    Disposition(commands::findings::Disposition),
    Search(Box<commands::search::SearchCommand>),
    /// Append statements: JSON lines on stdin, receipts as JSON lines on stdout
    Append(commands::append::Append),
    /// Import what other systems recorded
    #[command(subcommand)]
    Import(commands::import::Import),
    /// Put, read and erase contents that statements commit to
    #[command(subcommand)]
    Content(commands::content::Contents),
    /// Show sessions that are kept on disk
    #[command(subcommand)]
    Session(commands::session::Sessions),
    /// Show the newest tree head, verified
    Head(commands::head::HeadCommand),
    /// Print each new tree head, verified, until interrupted
    Follow(commands::follow::Follow),
    /// Show an entry, its inclusion verified
    Entry(commands::entry::EntryCommand),
    /// Write a proof of inclusion that verifies offline
    Prove(commands::prove::Prove),
    /// Verify that one tree head is the beginning of another
    Consistency(commands::consistency::Consistency),
    /// Replay a whole ledger and check everything that it says
    Audit(commands::audit::AuditCommand),
    /// Verify a proof of inclusion, offline
    Verify(commands::verify::Verify),
    /// Measure a server
    #[command(subcommand)]
    Bench(commands::bench::Bench),
    /// Print a script that completes this command in a shell
    Completions(commands::completions::Completions),
}

/// The whole command line, for what is made of it.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Parses the arguments, runs the command, and turns its outcome into an exit code.
pub(crate) fn run() -> ExitCode {
    // Exits with 2 by itself on wrong usage, with 0 for help.
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("DEED_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let outcome = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let outcome = runtime.block_on(execute(&cli));
            // A thread may still wait for a line on stdin; nobody waits for it.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::Usage(error.into())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn execute(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Ledger(command) => command.run(global).await,
        Command::Keygen(command) => command.run(global),
        Command::Completions(command) => command.run(),
        Command::Key(command) => command.run(global).await,
        Command::Principal(command) => command.run(global).await,
        Command::Authority(command) => command.run(global).await,
        Command::Policy(command) => command.run(global).await,
        Command::Retention(command) => command.run(global).await,
        Command::Hold(command) => command.run(global).await,
        Command::Content(command) => command.run(global).await,
        Command::Session(command) => command.run(global).await,
        Command::Task(command) => command.run(global).await,
        Command::Grant(command) => command.run(global).await,
        Command::Accept(command) => command.run(global).await,
        Command::Revoke(command) => command.run(global).await,
        Command::Intend(command) => command.run(global).await,
        Command::Await(command) => command.run(global).await,
        Command::Approve(command) => command.run(global).await,
        Command::Decide(command) => command.run(global).await,
        Command::Complete(command) => command.run(global).await,
        Command::Observe(command) => command.run(global).await,
        Command::Findings(command) => command.run(global).await,
        Command::Disposition(command) => command.run(global).await,
        Command::Search(command) => command.run(global).await,
        Command::Append(command) => command.run(global).await,
        Command::Import(command) => command.run(global).await,
        Command::Head(command) => command.run(global).await,
        Command::Follow(command) => command.run(global).await,
        Command::Entry(command) => command.run(global).await,
        Command::Prove(command) => command.run(global).await,
        Command::Consistency(command) => command.run(global).await,
        Command::Audit(command) => command.run(global).await,
        Command::Verify(command) => command.run(global),
        Command::Bench(command) => command.run(global).await,
    }
}
