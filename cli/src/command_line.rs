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

/// Write and verify a proof-of-action ledger for AI agents
///
/// Verifies the server's answers before it prints them: signatures, receipts, proofs, and that each tree
/// head continues the last one that was trusted. That head is kept in the state directory.
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
    /// Create, list and show ledgers, and replace their log keys
    #[command(subcommand)]
    Ledger(commands::ledger::Ledgers),
    Keygen(commands::keygen::Keygen),
    /// Register, revoke and list the keys of producers
    #[command(subcommand)]
    Key(commands::key::Keys),
    /// Bind principals (authenticated callers) to producers
    #[command(subcommand)]
    Principal(commands::principal::Principals),
    /// Replace the keys of the ledger's owner
    #[command(subcommand)]
    Authority(commands::authorities::Authorities),
    /// Check, set and show the policies: the evidence that an act needs
    #[command(subcommand)]
    Policy(commands::policy::Policies),
    /// Set and show the minimum time for which contents are kept
    #[command(subcommand)]
    Retention(commands::retention::Retention),
    /// Place, release and list legal holds on contents
    #[command(subcommand)]
    Hold(commands::hold::Holds),
    /// Open, close and show tasks, and ask for their receipts
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
    /// Import chat transcripts
    #[command(subcommand)]
    Import(commands::import::Import),
    /// Store, read and erase the contents that statements commit to
    #[command(subcommand)]
    Content(commands::content::Contents),
    /// Show and list sessions
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
        // The report is one line, even if the message quotes a server.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns of a terminal; clap breaks longer lines of an example, so that it cannot be copied.
    const COLUMNS: usize = 80;

    /// Returns the command and its subcommands at all depths.
    fn all(command: &clap::Command) -> Vec<&clap::Command> {
        let below = command.get_subcommands().flat_map(all);
        std::iter::once(command).chain(below).collect()
    }

    /// Splits a line as a shell does, without its expansions.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in line.chars() {
            match quote {
                Some(open) if c == open => quote = None,
                None if matches!(c, '"' | '\'') => quote = Some(c),
                None if c.is_whitespace() => words.push(std::mem::take(&mut word)),
                _ => word.push(c),
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        words
    }

    /// Writes abbreviated ids in full: `0001..0f` has 32 digits, and `5f0c...` has 64.
    fn in_full(word: &str) -> String {
        match word.split_once("..") {
            Some((start, ".")) => format!("{start:0<64}"),
            Some((start, end)) if !end.is_empty() => format!("{start:0<30}{end}"),
            _ => word.to_owned(),
        }
    }

    /// Returns the calls of `deed` in a help text, as arguments.
    fn calls(help: &str) -> Vec<Vec<String>> {
        let help = help.replace("\\\n", " ");
        let lines = help.lines().filter(|line| line.starts_with("  "));
        let parts = lines.flat_map(|line| {
            let words = words(line);
            let ends = |word: &String| matches!(word.as_str(), "|" | "&&" | ";");
            let parts: Vec<_> = words.split(ends).map(<[String]>::to_vec).collect();
            parts
        });
        let calls = parts.filter(|part| part.first().is_some_and(|word| word == "deed"));
        calls
            .map(|call| {
                // Redirections and remarks end the arguments.
                let arguments = call
                    .iter()
                    .take_while(|word| !word.starts_with(['<', '>', '(']));
                arguments.map(|word| in_full(word)).collect()
            })
            .collect()
    }

    #[test]
    fn the_examples_in_help_texts_are_valid_and_fit_the_screen() {
        let command = CommandLine::command();
        let mut count = 0;
        for command in all(&command) {
            let Some(help) = command.get_after_help().map(ToString::to_string) else {
                continue;
            };
            let long = help.lines().find(|line| line.chars().count() > COLUMNS);
            assert_eq!(long, None, "in the help of {}", command.get_name());
            let calls = calls(&help);
            assert_eq!(help.contains("Example"), !calls.is_empty(), "{help}");
            for call in calls {
                count += 1;
                if let Err(error) = CommandLine::try_parse_from(&call) {
                    panic!("{call:?}: {error}");
                }
            }
        }
        assert!(count > 70, "only {count} examples were found");
    }
}
