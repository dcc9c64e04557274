//! `deed consistency`

use clap::Args;
use deed_tlog::TreeSize;
use serde::Serialize;

use crate::{
    args::Global,
    failure::{CommandResult, Failure},
};

/// Verify that one tree head is the beginning of another
///
/// Fetches the signed tree heads of two sizes and the proof between them. Verifies that the smaller tree
/// is the beginning of the larger one, and that both are consistent with what is trusted.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed consistency 100 250 --ledger payments
  deed consistency 100 0 --ledger payments      (0: the newest)")]
pub(crate) struct Consistency {
    /// Size of the smaller tree
    old: u64,
    /// Size of the larger tree; 0 for the newest
    new: u64,
}

#[derive(Serialize)]
struct ConsistencyJson {
    origin: String,
    old_size: u64,
    old_root: String,
    new_size: u64,
    new_root: String,
    hashes: Vec<String>,
}

impl Consistency {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        if self.new != 0 && self.old > self.new {
            return Err(Failure::usage(format!(
                "the old size {} is larger than the new size {}; give the smaller one first",
                self.old, self.new
            )));
        }
        let ledger = global.connect().await?;
        let new = (self.new != 0).then(|| TreeSize::new(self.new));
        let proven = ledger
            .prove_consistency(TreeSize::new(self.old), new)
            .await?;
        ledger.flush().await?;
        let old = proven
            .old
            .map_or(deed_tlog::TreeHead::EMPTY, |head| head.head);
        let json = ConsistencyJson {
            origin: ledger.pin().origin.to_string(),
            old_size: old.size.get(),
            old_root: old.root.to_string(),
            new_size: proven.new.head.size.get(),
            new_root: proven.new.head.root.to_string(),
            hashes: proven
                .proof
                .hashes()
                .iter()
                .map(ToString::to_string)
                .collect(),
        };
        global.output().print(&json, |json| {
            format!(
                "consistent: the tree of {} leaves is the beginning of that of {} leaves\n\
                 old root  {}\nnew root  {}\nproof     {} hashes",
                json.old_size,
                json.new_size,
                json.old_root,
                json.new_root,
                json.hashes.len()
            )
        })
    }
}
