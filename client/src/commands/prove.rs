//! `deed prove`

use std::path::PathBuf;

use clap::Args;
use deed_client::Leaf;
use deed_tlog::{LeafIndex, SignedNote, TlogProof, TreeSize};
use serde::Serialize;

use super::show::write_file;
use crate::cli::{Failure, Global, Outcome, Output};

/// Writes a proof that an entry is in the log, in C2SP's tlog-proof format: inclusion proof and
/// signed tree head in one text file, to be verified offline by anybody. Everything is verified
/// before it is written.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed prove --ledger payments --index 7 --out 7.tlog-proof \\
       --entry-out 7.entry --policy-out payments.policy
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy

The policy names the log key that is trusted here. Whoever verifies should have it
from somebody they trust, not from whom they check.")]
pub(crate) struct Prove {
    /// Leaf index of the entry
    #[arg(long, value_name = "N")]
    index: u64,
    /// Size of the tree to prove it in [default: the newest]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    size: Option<u64>,
    /// Where to write the proof
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where to write the entry's bytes
    #[arg(long, value_name = "FILE")]
    entry_out: Option<PathBuf>,
    /// Where to write a trust policy (C2SP tlog-policy) with the trusted log key and no witnesses
    #[arg(long, value_name = "FILE")]
    policy_out: Option<PathBuf>,
}

#[derive(Serialize)]
struct ProvedJson {
    origin: String,
    leaf_index: u64,
    leaf_hash: String,
    tree_size: u64,
    root: String,
}

impl Prove {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        if self.size.is_some_and(|size| self.index >= size) {
            return Err(Failure::usage(format!(
                "leaf {} is not in a tree of {} leaves; the size must be larger than the index",
                self.index,
                self.size.unwrap_or_default()
            )));
        }
        let ledger = global.connect().await?;
        let (index, size) = (LeafIndex::new(self.index), self.size.map(TreeSize::new));
        let (leaf, entry) = match &self.entry_out {
            Some(path) => {
                let proven = ledger.entry(index, size).await?;
                (proven.leaf, Some((path, proven.bytes)))
            }
            None => (ledger.prove_leaf(Leaf::Index(index), size).await?, None),
        };
        // Nothing is written before all of it is known to hang together.
        ledger.flush().await?;
        let checkpoint = SignedNote::parse(&leaf.head.note)
            .map_err(|error| Failure::does_not_verify(error.to_string()))?;
        let proof = TlogProof {
            extra: None,
            index: leaf.index,
            proof: leaf.proof,
            checkpoint,
        };
        if let Some((path, bytes)) = entry {
            write_file(path, &bytes)?;
        }
        write_file(&self.out, proof.to_string().as_bytes())?;
        if let Some(path) = &self.policy_out {
            let policy = format!("log {}\nquorum none\n", ledger.pin().vkey);
            write_file(path, policy.as_bytes())?;
        }
        let json = ProvedJson {
            origin: ledger.pin().origin.to_string(),
            leaf_index: leaf.index.get(),
            leaf_hash: leaf.hash.to_string(),
            tree_size: leaf.head.head.size.get(),
            root: leaf.head.head.root.to_string(),
        };
        Output::new(global).print(&json, |json| {
            format!(
                "leaf {} of {} is in its tree of {} leaves\nleaf hash  {}\nroot       {}\n\
                 proof      {}",
                json.leaf_index,
                json.origin,
                json.tree_size,
                json.leaf_hash,
                json.root,
                self.out.display()
            )
        })
    }
}
