//! `deed head`

use clap::Args;
use deed_client::Head;
use serde::Serialize;

use crate::{args::Global, failure::CommandResult};

/// Show the newest tree head, verified
///
/// Verifies its signature and its consistency with the head that was trusted before. The new head is
/// trusted from then on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed head --ledger payments
  deed head --ledger payments --json | jq .size")]
pub(crate) struct HeadCommand {}

#[derive(Serialize)]
pub(crate) struct HeadJson {
    origin: String,
    size: u64,
    root: String,
    witnessed_size: u64,
    /// Size of the head that was trusted before.
    consistent_with: Option<u64>,
    checkpoint: String,
}

impl HeadJson {
    pub(crate) fn new(origin: &str, head: &Head) -> Self {
        Self {
            origin: origin.to_owned(),
            size: head.signed.head.size.get(),
            root: head.signed.head.root.to_string(),
            witnessed_size: head.witnessed_size,
            consistent_with: head.consistent_with.map(|head| head.size.get()),
            checkpoint: String::from_utf8_lossy(&head.signed.note).into_owned(),
        }
    }
}

impl HeadCommand {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let head = ledger.head().await?;
        ledger.flush().await?;
        let json = HeadJson::new(ledger.pin().origin.as_str(), &head);
        global.output().print(&json, |head| {
            let consistent = head.consistent_with.map_or(String::new(), |size| {
                format!("\nconsistent with  size {size}")
            });
            format!(
                "origin           {}\nsize             {}\nroot             {}\n\
                 witnessed size   {}{consistent}",
                head.origin, head.size, head.root, head.witnessed_size
            )
        })
    }
}
