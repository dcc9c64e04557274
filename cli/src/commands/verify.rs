//! `deed verify`

mod author;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use deed_client::{SignatureCheck, TrustHistory};
use deed_evidence::{
    LedgerId,
    batch::{self, Manifest},
    entry::Entry,
    statement::{self, Header},
};
use deed_proto::v1::{Author, GetBatchProofResponse, PayloadType};
use deed_tlog::{
    Hash, LeafIndex, Policy, PublicKey, TlogProof, TreeHead, VerifiedCheckpoint, leaf_hash,
};
use prost::Message as _;
use serde::Serialize;

use crate::{
    args::{Global, public_key},
    failure::{CommandResult, Failure},
    files::{read_file, read_text_lines, read_with_checkpoint},
    render::{EntryJson, labelled, printable},
};
use author::{of_author, of_standing, standing_unknown};

/// Verify a proof of inclusion, offline
///
/// Verifies that an entry is in a log: a log of the policy signed the tree head, its quorum of witnesses
/// cosigned it, and the inclusion proof leads from the entry to its root. Each part is listed, as checked
/// or as not checked.
///
/// With --trust (the file of `deed prove --trust-out`) also verifies the author: the signature, and that
/// the ledger's own trust statements let that key sign for that producer at that leaf. The trust file
/// holds these statements from the genesis entry on, each with the proof that it is in the log.
///
/// With --batch the proof is one of `deed prove --batch`: a key signed a manifest, the statement is part
/// of it, and both are in the log. A statement of a batch is verified in this way or not at all, because
/// its own entry has no signature.
///
/// The exit code is 0 if nothing that was checked failed. The last line says what was verified.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy
  deed verify 7.tlog-proof --entry 7.entry --policy payments.policy \\
       --trust payments.trust
  deed verify 7.batch-proof --batch --policy payments.policy \\
       --trust payments.trust
  deed verify 7.batch-proof --batch --key agent.pub --policy payments.policy

A policy (C2SP tlog-policy) with one log and no witnesses:
  log <verifier key>
  quorum none")]
pub(crate) struct Verify {
    /// The proof (C2SP tlog-proof; with --batch the file of `deed prove --batch`)
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
    /// For a proof of `deed prove --batch`: verify manifest and signature, with --key or --trust
    #[arg(long)]
    batch: bool,
    /// Public key (file or hex) that must have signed it
    #[arg(long, value_name = "HEX|FILE")]
    key: Option<String>,
    /// The ledger's trust statements: the file of `deed prove --trust-out`
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Ledger id [default: the one that was signed]
    #[arg(long, value_name = "HEX", requires = "batch")]
    ledger_id: Option<String>,
    /// The logs and witnesses to trust (C2SP tlog-policy)
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
}

/// The result for one part of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Checked,
    Failed,
    NotChecked,
    /// The entry has no such part.
    NothingToCheck,
}

#[derive(Serialize)]
struct Check {
    part: &'static str,
    state: State,
    detail: String,
}

#[derive(Serialize)]
struct VerifyJson {
    origin: String,
    tree_size: u64,
    root: String,
    cosigned_by: Vec<WitnessJson>,
    checks: Vec<Check>,
    /// Parts that were checked and hold; empty if one failed.
    verified: Vec<&'static str>,
    failed: Vec<&'static str>,
    not_checked: Vec<&'static str>,
    entry: EntryJson,
}

#[derive(Serialize)]
struct WitnessJson {
    witness: String,
    time_s: u64,
}

const INCLUSION: &str = "inclusion";
const HEAD: &str = "head signature";
const QUORUM: &str = "witness quorum";
const SIGNATURE: &str = "author's signature";
const STANDING: &str = "key's standing";
const BATCH: &str = "batch membership";
const CONTENTS: &str = "contents";
const TIME: &str = "receive time";
const TRUTH: &str = "truth";

/// The inputs of a verification, besides the proof.
struct Given {
    policy: Policy,
    key: Option<PublicKey>,
    trust: Option<Trust>,
}

/// A trust file that holds.
struct Trust {
    history: TrustHistory,
    /// The head that its statements are proven under.
    head: TreeHead,
}

impl Verify {
    pub(crate) fn run(&self, global: &Global) -> CommandResult {
        let given = self.given()?;
        let json = match &self.entry {
            Some(entry) => self.entry(&read_text_lines(&self.proof)?, entry, &given)?,
            None => self.batched(&read_with_checkpoint(&self.proof)?, &given)?,
        };
        global.output().print(&json, VerifyJson::text)?;
        let failed = json
            .checks
            .iter()
            .find(|check| check.state == State::Failed);
        match failed {
            None => Ok(()),
            Some(check) => Err(Failure::does_not_verify(format!(
                "{}: {}",
                check.part, check.detail
            ))),
        }
    }

    fn given(&self) -> CommandResult<Given> {
        let policy = Policy::parse(read_text_lines(&self.policy)?).map_err(|error| {
            Failure::usage(error.to_string()).context(self.policy.display().to_string())
        })?;
        let key = self.key.as_deref().map(public_key).transpose()?;
        let trust = match &self.trust {
            None => None,
            Some(path) => {
                let history = TrustHistory::from_file(&read_with_checkpoint(path)?, &policy);
                let (history, head) = history.map_err(|error| {
                    Failure::does_not_verify(error.to_string()).context(path.display().to_string())
                })?;
                Some(Trust { history, head })
            }
        };
        if self.batch && key.is_none() && trust.is_none() {
            let message = "--batch takes the key that is to have signed (--key), or the ledger's \
                           trust statements (--trust)";
            return Err(Failure::usage(message));
        }
        Ok(Given { policy, key, trust })
    }

    fn entry(&self, proof: &[u8], entry_file: &Path, given: &Given) -> CommandResult<VerifyJson> {
        let bytes = Bytes::from(read_file(entry_file)?);
        let in_proof = |failure: Failure| failure.context(self.proof.display().to_string());
        let in_entry = |failure: Failure| failure.context(entry_file.display().to_string());
        let proof = TlogProof::parse(proof)
            .map_err(|error| in_proof(Failure::does_not_verify(error.to_string())))?;
        let leaf = leaf_hash(&bytes);
        let checkpoint = proof
            .verify(&leaf, &given.policy)
            .map_err(|error| in_proof(Failure::does_not_verify(error.to_string())))?;
        let entry = Entry::parse(&bytes)
            .map_err(|error| in_entry(Failure::does_not_verify(error.to_string())))?;
        let header = header_of(&entry).map_err(in_entry)?;
        if entry.author == Author::Batched {
            let message = "the entry is one of a batch and has no signature of its own: it is \
                           verified with its manifest (deed prove --batch, deed verify --batch)";
            return Err(in_entry(Failure::does_not_verify(message)));
        }
        let json =
            EntryJson::decode(&bytes, proof.index.get(), leaf.to_string()).map_err(in_entry)?;
        let mut checks = of_head(&checkpoint, proof.index, &given.policy);
        let head = &checkpoint.checkpoint.head;
        checks.extend(of_author(given, head, proof.index, &bytes, &entry, &header));
        checks.push(Check::new(
            BATCH,
            State::NothingToCheck,
            "the entry is not one of a batch",
        ));
        checks.extend(of_words(&entry));
        Ok(report(&checkpoint, json, checks))
    }

    fn batched(&self, proof: &[u8], given: &Given) -> CommandResult<VerifyJson> {
        let fails = |error: &dyn std::fmt::Display| {
            Failure::does_not_verify(error.to_string()).context(self.proof.display().to_string())
        };
        let proof = GetBatchProofResponse::decode(proof).map_err(|error| fails(&error))?;
        let checkpoint = given
            .policy
            .verify_checkpoint(&proof.checkpoint)
            .map_err(|error| fails(&error))?;
        let signer = batch::signer(&proof).map_err(|error| fails(&error))?;
        let key = match (&given.key, &given.trust) {
            (Some(key), _) => key.clone(),
            (None, Some(trust)) => {
                let unknown = || fails(&format!("no key {signer} is registered in the trust file"));
                let known = trust.history.public_key(signer).cloned();
                known.ok_or_else(unknown)?
            }
            (None, None) => return Err(Failure::usage("--batch takes --key or --trust")),
        };
        let manifest = Entry::parse(&proof.manifest_entry).map_err(|error| fails(&error))?;
        let manifest = Manifest::parse(manifest.payload).map_err(|error| fails(&error))?;
        let head = &checkpoint.checkpoint.head;
        let ledger_id = match (&self.ledger_id, &given.trust) {
            (Some(hex), _) => ledger_id(hex)?,
            (None, Some(trust)) => trust.history.state().ledger_id(),
            (None, None) => manifest.ledger_id,
        };
        let path = batch::verify_path(&proof, ledger_id, &key, head).map_err(|e| fails(&e))?;
        let index = path.statement_index;
        let hash = path.statement_hash.to_string();
        let bytes = &proof.statement_entry;
        let entry = Entry::parse(bytes).map_err(|error| fails(&error))?;
        let header = header_of(&entry)?;
        let json = EntryJson::decode(bytes, index.get(), hash)?;
        let mut checks = of_head(&checkpoint, index, &given.policy);
        checks.push(Check::new(
            SIGNATURE,
            State::Checked,
            format!(
                "key {} signed the manifest at leaf {}",
                path.key_id, path.manifest_index
            ),
        ));
        checks.push(match &given.trust {
            None => Check::new(STANDING, State::NotChecked, standing_unknown(path.key_id)),
            Some(trust) => {
                let history = &trust.history;
                let author = history.author(index, bytes, &entry, &header, Some(path.key_id));
                of_standing(trust, head, author, &header)
            }
        });
        checks.push(Check::new(
            BATCH,
            State::Checked,
            format!(
                "it is statement {} of the {} that the manifest covers, for ledger {ledger_id}",
                path.position, path.manifest.count
            ),
        ));
        checks.extend(of_words(&entry));
        Ok(report(&checkpoint, json, checks))
    }
}

/// Returns the statement's header. Fails if entry and statement disagree about the author.
fn header_of<'e>(entry: &Entry<'e>) -> CommandResult<Header<'e>> {
    if entry.payload_type == PayloadType::BatchManifest {
        let message = "the entry is the manifest of a batch, not a statement";
        return Err(Failure::does_not_verify(message));
    }
    let header = entry.statement();
    header
        .map_err(|error| Failure::does_not_verify(format!("the entry contradicts itself: {error}")))
}

/// The checks of inclusion, head and witnesses. They were made before: if one failed, there is no report.
fn of_head(verified: &VerifiedCheckpoint, index: LeafIndex, policy: &Policy) -> Vec<Check> {
    let (origin, head) = (&verified.checkpoint.origin, &verified.checkpoint.head);
    let inclusion = format!(
        "the entry is leaf {index} of the {} leaves that the head commits to, byte for byte",
        head.size
    );
    let mut checks = vec![
        Check::new(INCLUSION, State::Checked, inclusion),
        Check::new(
            HEAD,
            State::Checked,
            format!("a key that the policy names signed the head for {origin}"),
        ),
    ];
    checks.push(if policy.needs_cosignatures() {
        let witnesses = verified.cosigned_by.iter();
        let witnesses: Vec<_> = witnesses
            .map(|one| format!("{} at {} s after 1970", one.witness, one.time.get()))
            .collect();
        let witnesses = witnesses.join(", ");
        let detail = format!("the policy's quorum cosigned the head, by its clocks: {witnesses}");
        Check::new(QUORUM, State::Checked, detail)
    } else {
        let detail =
            "the policy asks for none: that everyone sees this head is the operator's word";
        Check::new(QUORUM, State::NotChecked, detail)
    });
    checks
}

/// The parts that no proof of an entry can show.
fn of_words(entry: &Entry<'_>) -> [Check; 3] {
    let slots = statement::commitments(entry.payload).map(|all| {
        let slots = all.map(|one| format!("{} {}", one.slot, one.digest));
        slots.collect::<Vec<_>>()
    });
    let slots = slots.unwrap_or_default();
    let contents = if slots.is_empty() {
        let detail = "the statement commits to none";
        Check::new(CONTENTS, State::NothingToCheck, detail)
    } else {
        let detail = format!(
            "the contents of these were not read (`deed content get` does): {}",
            slots.join(" and ")
        );
        Check::new(CONTENTS, State::NotChecked, detail)
    };
    [
        contents,
        Check::new(
            TIME,
            State::NotChecked,
            "when it was received is the operator's word",
        ),
        Check::new(
            TRUTH,
            State::NotChecked,
            "that what it says is so is its author's word",
        ),
    ]
}

fn ledger_id(text: &str) -> CommandResult<LedgerId> {
    let mut id = [0; 32];
    match hex::decode_to_slice(text, &mut id) {
        Ok(()) => Ok(LedgerId::new(Hash::new(id))),
        Err(_) => Err(Failure::usage("--ledger-id takes 64 hex digits")),
    }
}

fn report(verified: &VerifiedCheckpoint, entry: EntryJson, checks: Vec<Check>) -> VerifyJson {
    let head = &verified.checkpoint.head;
    let parts = |state: State| {
        let parts = checks.iter().filter(|check| check.state == state);
        parts.map(|check| check.part).collect::<Vec<_>>()
    };
    let failed = parts(State::Failed);
    let verified_parts = match failed.is_empty() {
        true => parts(State::Checked),
        false => Vec::new(),
    };
    let not_checked = parts(State::NotChecked);
    VerifyJson {
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
        verified: verified_parts,
        failed,
        not_checked,
        entry: with_signature(entry, &checks),
        checks,
    }
}

/// The entry with what the checks say of its signature.
fn with_signature(entry: EntryJson, checks: &[Check]) -> EntryJson {
    let of = |part| {
        let check = checks.iter().find(|check| check.part == part);
        check.map(|check| (check.state, check.detail.clone()))
    };
    match (of(SIGNATURE), of(STANDING)) {
        (Some((State::Failed, why)), _) | (_, Some((State::Failed, why))) => {
            entry.by(&SignatureCheck::Refused(why))
        }
        (Some((State::Checked, _)), Some((State::Checked, _))) => {
            entry.by(&SignatureCheck::Verified)
        }
        (Some((State::Checked, _)), _) => entry.by_key_alone(),
        _ => entry,
    }
}

impl Check {
    fn new(part: &'static str, state: State, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            part,
            state,
            detail,
        }
    }

    fn text(&self) -> String {
        let state = match self.state {
            State::Checked => "checked",
            State::Failed => "FAILED",
            State::NotChecked => "not checked",
            State::NothingToCheck => "not needed",
        };
        let prose = format!("{}: {}", self.part, self.detail);
        labelled(state, &prose, 16)
    }
}

impl VerifyJson {
    fn text(&self) -> String {
        let checks: Vec<_> = self.checks.iter().map(Check::text).collect();
        let ending = if self.failed.is_empty() {
            format!(
                "{}\n{}",
                labelled("not verified", &self.not_checked.join(", "), 16),
                labelled("verified", &self.verified.join(", "), 16)
            )
        } else {
            labelled("FAILED", &self.failed.join(", "), 16)
        };
        format!(
            "origin          {}\ntree size       {}\nroot            {}\n{}\n\n{}\n\n{}",
            printable(&self.origin),
            self.tree_size,
            self.root,
            self.entry.text(),
            checks.join("\n"),
            ending
        )
    }
}
