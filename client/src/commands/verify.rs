//! `deed verify`

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use deed_tlog::{Policy, TlogProof, VerifiedCheckpoint, leaf_hash};
use serde::Serialize;

use super::show::{EntryJson, read_file};
use crate::cli::{Failure, Global, Outcome, Output, indented};

/// Verifies, offline, that an entry is in a log: the policy's log signed the tree head, its
/// quorum of witnesses cosigned it, and the inclusion proof leads from the entry to its root.
/// Says what that proves and what it does not.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy

A policy (C2SP tlog-policy) with one log and no witnesses:
  log <verifier key>
  quorum none")]
pub(crate) struct Verify {
    /// The proof (C2SP tlog-proof)
    #[arg(value_name = "FILE.tlog-proof")]
    proof: PathBuf,
    /// The entry's bytes
    #[arg(long, value_name = "FILE")]
    entry: PathBuf,
    /// Which logs and witnesses to trust (C2SP tlog-policy)
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
}

#[derive(Serialize)]
struct VerifiedJson {
    verified: bool,
    origin: String,
    tree_size: u64,
    root: String,
    cosigned_by: Vec<WitnessJson>,
    proven: Vec<String>,
    not_proven: Vec<String>,
    entry: EntryJson,
}

#[derive(Serialize)]
struct WitnessJson {
    witness: String,
    time_s: u64,
}

impl Verify {
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let (proof, entry) = (
            read_file(&self.proof)?,
            Bytes::from(read_file(&self.entry)?),
        );
        let policy = Policy::parse(read_file(&self.policy)?).map_err(|error| {
            Failure::usage(error.to_string()).context(self.policy.display().to_string())
        })?;
        let in_proof = |failure: Failure| failure.context(self.proof.display().to_string());
        let proof = TlogProof::parse(&proof)
            .map_err(|error| in_proof(Failure::does_not_verify(error.to_string())))?;
        let leaf = leaf_hash(&entry);
        let checkpoint = proof
            .verify(&leaf, &policy)
            .map_err(|error| in_proof(Failure::does_not_verify(error.to_string())))?;
        let entry = EntryJson::decode(&entry, proof.index.get(), leaf.to_string())
            .map_err(|failure| failure.context(self.entry.display().to_string()))?;
        let json = report(&checkpoint, entry, policy.needs_cosignatures());
        Output::new(global).print(&json, text)
    }
}

fn report(verified: &VerifiedCheckpoint, entry: EntryJson, quorum: bool) -> VerifiedJson {
    let head = &verified.checkpoint.head;
    let mut proven = vec![
        format!(
            "the entry is leaf {} of the {} leaves that {} committed to",
            entry.leaf_index, head.size, verified.checkpoint.origin
        ),
        "the entry is what was recorded there, byte for byte".to_owned(),
    ];
    let mut not_proven = Vec::new();
    if quorum {
        proven.push("the policy's quorum of witnesses saw the same tree head".to_owned());
    } else {
        not_proven.push(
            "no witness quorum is asked for: that everyone sees this head is the operator's word"
                .to_owned(),
        );
    }
    not_proven.push("when it was recorded: the receive time is the operator's word".to_owned());
    for cosigned in &verified.cosigned_by {
        proven.push(format!(
            "witness {} cosigned that head at {} s after 1970, by its clock",
            cosigned.witness,
            cosigned.time.get()
        ));
    }
    if entry.is_unsigned() {
        not_proven
            .push("who said it: the statement is unsigned, its producer is claimed".to_owned());
    }
    not_proven.push("that what it says is true".to_owned());
    VerifiedJson {
        verified: true,
        origin: verified.checkpoint.origin.to_string(),
        tree_size: head.size.get(),
        root: head.root.to_string(),
        cosigned_by: verified
            .cosigned_by
            .iter()
            .map(|cosigned| WitnessJson {
                witness: cosigned.witness.clone(),
                time_s: cosigned.time.get(),
            })
            .collect(),
        proven,
        not_proven,
        entry,
    }
}

fn text(json: &VerifiedJson) -> String {
    let list = |items: &[String]| {
        items
            .iter()
            .map(|item| indented(item) + "\n")
            .collect::<String>()
    };
    format!(
        "verified\norigin          {}\ntree size       {}\nroot            {}\n{}\n\n\
         proven:\n{}not proven:\n{}",
        json.origin,
        json.tree_size,
        json.root,
        json.entry.text(),
        list(&json.proven),
        list(&json.not_proven).trim_end()
    )
}
