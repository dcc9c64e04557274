//! `deed follow`

use clap::Args;
use deed_client::Ledger;

use super::head::HeadJson;
use crate::{args::Global, failure::CommandResult, render::Output};

/// Print each new tree head, verified, until interrupted
///
/// Prints the newest tree head and then each newer one. Verifies that each one extends the one before it.
/// Reconnects when the connection is lost. Ctrl-C ends it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed follow --ledger payments
  deed follow --ledger payments --json | while read head; do ...; done")]
pub(crate) struct Follow {
    /// End after this many heads
    #[arg(long, value_name = "N")]
    heads: Option<u64>,
}

impl Follow {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let output = global.output();
        let outcome = tokio::select! {
            outcome = self.follow(&ledger, output) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        let flushed = ledger.flush().await;
        outcome?;
        Ok(flushed?)
    }

    async fn follow(&self, ledger: &Ledger, output: Output) -> CommandResult {
        let mut watch = ledger.watch_heads()?;
        let mut printed = 0;
        while self.heads.is_none_or(|heads| printed < heads) {
            let head = watch.next().await?;
            printed += 1;
            let json = HeadJson::new(ledger.pin().origin.as_str(), &head);
            output.print(&json, |_| {
                format!("{:>12}  {}", head.signed.head.size, head.signed.head.root)
            })?;
        }
        Ok(())
    }
}
