//! `deed verify`

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use deed_evidence::{
    LedgerId,
    batch::{self, Manifest},
    entry::Entry,
};
use deed_proto::v1::GetBatchProofResponse;
use deed_tlog::{Hash, Policy, TlogProof, VerifiedCheckpoint, leaf_hash};
use prost::Message as _;
use serde::Serialize;

use super::{
    authority::public_key,
    show::{EntryJson, read_file},
};
use crate::cli::{Failure, Global, Outcome, Output, indented};

/// Verifies, offline, that an entry is in a log: the policy's log signed the tree head, its
/// quorum of witnesses cosigned it, and the inclusion proof leads from the entry to its root.
/// Says what that proves and what it does not.
///
/// With --batch the proof is one of `deed prove --batch`, and who said it is verified too: that
/// the key signed a manifest which the statement is part of, and that both are in the log.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy
  deed verify 7.batch-proof --batch --key agent.pub --policy payments.policy

A policy (C2SP tlog-policy) with one log and no witnesses:
  log <verifier key>
  quorum none")]
pub(crate) struct Verify {
    /// The proof (C2SP tlog-proof; with --batch what deed prove --batch wrote)
    #[arg(value_name = "FILE.tlog-proof")]
    proof: PathBuf,
    /// The entry's bytes
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "batch",
        conflicts_with = "batch"
    )]
    entry: Option<PathBuf>,
    /// Follow a batched statement to its signature
    #[arg(long, requires = "key")]
    batch: bool,
    /// Public key (file or hex) that is to have signed the batch
    #[arg(long, value_name = "HEX|FILE", requires = "batch")]
    key: Option<String>,
    /// The ledger's id [default: as the key signed it]
    #[arg(long, value_name = "HEX", requires = "batch")]
    ledger_id: Option<String>,
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
        let policy = Policy::parse(read_file(&self.policy)?).map_err(|error| {
            Failure::usage(error.to_string()).context(self.policy.display().to_string())
        })?;
        let proof = read_file(&self.proof)?;
        let json = match (&self.entry, &self.key) {
            (Some(entry), _) => self.entry(&proof, entry, &policy)?,
            (None, key) => self.batched(&proof, key.as_deref().unwrap_or_default(), &policy)?,
        };
        Output::new(global).print(&json, text)
    }

    fn entry(&self, proof: &[u8], entry_file: &Path, policy: &Policy) -> Outcome<VerifiedJson> {
        let entry = Bytes::from(read_file(entry_file)?);
        let in_proof = |failure: Failure| failure.context(self.proof.display().to_string());
        let proof = TlogProof::parse(proof)
            .map_err(|error| in_proof(Failure::does_not_verify(error.to_string())))?;
        let leaf = leaf_hash(&entry);
        let checkpoint = proof
            .verify(&leaf, policy)
            .map_err(|error| in_proof(Failure::does_not_verify(error.to_string())))?;
        let entry = EntryJson::decode(&entry, proof.index.get(), leaf.to_string())
            .map_err(|failure| failure.context(entry_file.display().to_string()))?;
        Ok(report(&checkpoint, entry, policy.needs_cosignatures()))
    }

    fn batched(&self, proof: &[u8], key: &str, policy: &Policy) -> Outcome<VerifiedJson> {
        let fails = |error: &dyn std::fmt::Display| {
            Failure::does_not_verify(error.to_string()).context(self.proof.display().to_string())
        };
        let key = public_key(key)?;
        let proof = GetBatchProofResponse::decode(proof).map_err(|error| fails(&error))?;
        let checkpoint = policy
            .verify_checkpoint(&proof.checkpoint)
            .map_err(|error| fails(&error))?;
        let manifest = Entry::parse(&proof.manifest_entry).map_err(|error| fails(&error))?;
        let manifest = Manifest::parse(manifest.payload).map_err(|error| fails(&error))?;
        let head = &checkpoint.checkpoint.head;
        let ledger_id = match &self.ledger_id {
            Some(hex) => ledger_id(hex)?,
            None => manifest.ledger_id,
        };
        let path = batch::verify_path(&proof, ledger_id, &key, head).map_err(|e| fails(&e))?;
        let index = path.statement_index.get();
        let hash = path.statement_hash.to_string();
        let entry = EntryJson::decode(&proof.statement_entry, index, hash)?;
        let mut json = report(&checkpoint, entry, policy.needs_cosignatures());
        json.proven.push(format!(
            "key {} signed the batch at leaf {}, of which it is statement {}, for ledger {}",
            path.key_id, path.manifest_index, path.position, ledger_id
        ));
        json.not_proven.push(format!(
            "that key {} spoke for {} then: the ledger's trust chain says (deed key list)",
            path.key_id, path.manifest.producer
        ));
        Ok(json)
    }
}

fn ledger_id(text: &str) -> Outcome<LedgerId> {
    let mut id = [0; 32];
    match hex::decode_to_slice(text, &mut id) {
        Ok(()) => Ok(LedgerId::new(Hash::new(id))),
        Err(_) => Err(Failure::usage("--ledger-id takes 64 hex digits")),
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
