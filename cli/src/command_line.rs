//! The command line: the one file that knows all commands.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    args::Global,
    commands,
    failure::{CommandResult, Failure},
    render::{printable, report},
};

/// Proof-of-action ledger for AI agents: write statements, verify everything.
///
/// Verifies the server's answers before it prints them: signatures, receipts and proofs, and that each
/// tree head continues the last one that was trusted, which is kept in the state directory.
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
struct CommandLine {
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
    Keygen(commands::keygen::Keygen),
    /// Register, revoke and list the keys that speak for producers
    #[command(subcommand)]
    Key(commands::key::Keys),
    /// Let an authenticated principal deliver a producer's statements
    #[command(subcommand)]
    Principal(commands::principal::Principals),
    /// Change the keys that speak for the ledger's owner
    #[command(subcommand)]
    Authority(commands::authorities::Authorities),
    /// Set which evidence an action needs, check it, show it
    #[command(subcommand)]
    Policy(commands::policy::Policies),
    /// Set how long contents are kept at least
    #[command(subcommand)]
    Retention(commands::retention::Retention),
    /// Place, release and list legal holds on contents
    #[command(subcommand)]
    Hold(commands::hold::Holds),
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
    Head(commands::head::HeadCommand),
    Follow(commands::follow::Follow),
    Entry(commands::entry::EntryCommand),
    Prove(commands::prove::Prove),
    Consistency(commands::consistency::Consistency),
    Audit(commands::audit::AuditCommand),
    Verify(commands::verify::Verify),
    /// Measure a server
    #[command(subcommand)]
    Bench(commands::bench::Bench),
    Completions(commands::completions::Completions),
}

/// Parses the arguments, runs the command, prints its failure, and returns the exit code.
pub(crate) fn run() -> ExitCode {
    // Exits with 2 by itself on wrong usage, with 0 for help.
    let line = CommandLine::parse();
    let filter = EnvFilter::try_from_env("DEED_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let result = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let result = runtime.block_on(execute(&line));
            // A thread may still wait for a line on stdin; nobody waits for it.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::Usage(error.into())),
    };
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(message) = failure.message() {
        // One line, even if it quotes a server.
        report(&printable(&message));
    }
    failure.exit_code()
}

async fn execute(line: &CommandLine) -> CommandResult {
    let global = &line.global;
    match &line.command {
        Command::Ledger(command) => command.run(global).await,
        Command::Keygen(command) => command.run(global),
        Command::Completions(command) => command.run(&mut CommandLine::command()),
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
