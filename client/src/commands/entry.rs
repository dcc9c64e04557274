//! `deed entry`

use std::path::PathBuf;

use clap::Args;
use deed_client::Voice;
use deed_tlog::LeafIndex;

use super::show::{EntryJson, write_file};
use crate::cli::{Failure, Global, Outcome, Output};

/// Fetches an entry, verifies that it is in the newest tree and who signed it, and prints what it
/// says
///
/// The signature is followed to a key that was registered for the producer and in force at that leaf;
/// of a batched entry, that of its manifest. When it was received is the server's word, and so is that
/// no trust statement follows the newest one that it shows (`trust_through` in --json): a revocation,
/// for example. One that it has shown before it cannot hide.
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
        let vouched = ledger.vouched_entry(LeafIndex::new(self.index)).await?;
        let proven = &vouched.entry;
        ledger.flush().await?;
        if let Some(path) = &self.raw {
            write_file(path, &proven.bytes)?;
        }
        let leaf = &proven.leaf;
        let hash = leaf.hash.to_string();
        let entry = EntryJson::decode(&proven.bytes, leaf.index.get(), hash)?
            .by(&vouched.voice)
            .going_by(ledger.newest_trust());
        Output::new(global).print(&entry, |entry| {
            let proven_in = format!(
                "in the log      proven, in the tree of {} leaves",
                leaf.head.head.size
            );
            format!("{proven_in}\n{}", entry.text())
        })?;
        refused(self.index, &vouched.voice)
    }
}

/// A signature that proves nothing is an exit code.
pub(super) fn refused(leaf: u64, voice: &Voice) -> Outcome {
    match voice {
        Voice::Refused(why) => Err(Failure::does_not_verify(format!(
            "the signature at leaf {leaf} proves nothing: {why}"
        ))),
        _ => Ok(()),
    }
}
