//! `deed entry`

use std::path::PathBuf;

use clap::Args;
use deed_client::SignatureCheck;
use deed_tlog::LeafIndex;

use crate::{
    args::Global,
    failure::{CommandResult, Failure},
    files::write_file,
    render::EntryJson,
};

/// Show an entry, its inclusion and its signature verified
///
/// Fetches the entry, verifies that it is in the newest tree, and follows its signature to a key that was
/// registered for the producer and in force at that leaf. For an entry of a batch that is the signature
/// of the manifest. The receive time is the server's word. So is the claim that no trust statement (a
/// revocation, for example) follows the newest one that the server shows (`trust_through` in --json); it
/// cannot hide a statement that it has shown here before.
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
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
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
            .by(&vouched.signature)
            .going_by(ledger.newest_trust());
        global.output().print(&entry, |entry| {
            let proven_in = format!(
                "in the log      proven, in the tree of {} leaves",
                leaf.head.head.size
            );
            format!("{proven_in}\n{}", entry.text())
        })?;
        refused(self.index, &vouched.signature)
    }
}

/// A signature that proves nothing is an exit code.
pub(super) fn refused(leaf: u64, check: &SignatureCheck) -> CommandResult {
    match check {
        SignatureCheck::Refused(why) => Err(Failure::does_not_verify(format!(
            "the signature at leaf {leaf} proves nothing: {why}"
        ))),
        _ => Ok(()),
    }
}
