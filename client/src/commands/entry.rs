//! `deed entry`

use std::path::PathBuf;

use clap::Args;
use deed_tlog::LeafIndex;

use super::show::{EntryJson, write_file};
use crate::cli::{Global, Outcome, Output};

/// Fetches an entry, verifies that it is in the newest tree, and prints what it says.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed entry 0 --ledger payments          (the genesis entry)
  deed entry 7 --ledger payments --json
  deed entry 7 --ledger payments --raw 7.entry")]
pub(crate) struct EntryCommand {
    /// Leaf index
    index: u64,
    /// Write the entry's bytes, as hashed, to this file
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
}

impl EntryCommand {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        let ledger = global.connect().await?;
        let proven = ledger.entry(LeafIndex::new(self.index), None).await?;
        ledger.flush().await?;
        if let Some(path) = &self.raw {
            write_file(path, &proven.bytes)?;
        }
        let leaf = &proven.leaf;
        let entry = EntryJson::decode(&proven.bytes, leaf.index.get(), leaf.hash.to_string())?;
        Output::new(global).print(&entry, |entry| {
            let proven_in = format!("verified in     tree of {} leaves", leaf.head.head.size);
            format!("{proven_in}\n{}", entry.text())
        })
    }
}
