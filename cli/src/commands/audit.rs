//! `deed audit`

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use deed_client::{Audit, AuditError, Audited};
use deed_evidence::LedgerId;
use deed_tlog::{
    EntryBundleId, LeafIndex, Origin, Policy, TILE_WIDTH, TreeHead, VerifierKey,
    decode_entry_bundle,
};
use serde::Serialize;

use crate::{
    args::{Global, now},
    failure::{CommandResult, Failure},
    files::{read_file, read_text_lines},
    render::{from_the_future, progress_bar, report},
};

/// Entries between two reports of progress.
const PROGRESS_ENTRIES: u64 = 4_096;

/// Entries between two lines of progress where nobody looks at a bar.
const TOLD_ENTRIES: u64 = 1 << 20;

/// Replay a ledger and check every signature, verdict and receipt
///
/// Reads every entry from the first to the last and trusts none of them. Checks signatures and their
/// keys, sessions, batches, the chain of trust statements, and everything that the ledger itself wrote:
/// every task receipt, clearance and tick must follow from the entries before it, byte by byte, and none
/// may be missing. The entries must be those that the signed head commits to.
///
/// Findings are the purpose of a ledger, and no failure. Exits with 1 at the first entry that must not
/// be there or that is missing, and says whether the head commits to it: if it does, the ledger is false
/// and has signed that.
///
/// Needs memory for the ledger's state, not for its entries: about 200 bytes for each statement, and
/// 1 KiB for each Intent where entries are assessed. A million Intents take about 1 GiB.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed audit --ledger payments
  deed audit --ledger payments --json > audit.json

Without a server, from a copy of the log (docs/auditors.md has a script that
makes one; C2SP tlog-tiles names the files):
  deed audit --dir mirror --policy payments.policy

The directory holds the files checkpoint and tile/entries/...")]
pub(crate) struct AuditCommand {
    /// Read a copy of the log instead of asking a server
    #[arg(long, value_name = "DIR", requires = "policy")]
    dir: Option<PathBuf>,
    /// Logs and witnesses to trust (C2SP tlog-policy)
    #[arg(long, value_name = "FILE", requires = "dir")]
    policy: Option<PathBuf>,
}

#[derive(Serialize)]
struct AuditJson {
    holds: bool,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger_id: Option<String>,
    tree_size: u64,
    root: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cosigned_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<DifferenceJson>,
    #[serde(flatten)]
    checked: Option<CheckedJson>,
}

#[derive(Serialize)]
struct DifferenceJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf_index: Option<u64>,
    /// True if the signed head commits to the entries in which it was found.
    committed: bool,
    what: String,
}

#[derive(Serialize)]
struct CheckedJson {
    rules_version: u32,
    effective_time_us: i64,
    signatures: u64,
    sessions: u64,
    entries: BTreeMap<&'static str, u64>,
    tasks: u64,
    grants: u64,
    intents: BTreeMap<String, u64>,
    outcomes: BTreeMap<String, u64>,
    findings: BTreeMap<String, u64>,
    severities: BTreeMap<String, u64>,
    task_receipts: u64,
    clearances: u64,
    /// Receipts, clearances and ticks.
    ledger_entries: u64,
}

/// The head that the entries must give, and whose word that is.
struct Signed {
    head: TreeHead,
    origin: Origin,
    log_key: VerifierKey,
    /// The ledger, if it is known which one is meant.
    ledger_id: Option<LedgerId>,
    cosigned_by: Vec<String>,
}

impl Signed {
    fn compare(&self, audit: Audit) -> Result<Audited, AuditError> {
        let audited = audit.finish(&self.head, &self.origin, &self.log_key, self.ledger_id)?;
        let newest = audited.replay.effective_time();
        if let Some(warning) = from_the_future(newest, now()) {
            report(&format!("the newest entry: {warning}"));
        }
        Ok(audited)
    }
}

impl AuditCommand {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let (signed, outcome) = match (&self.dir, &self.policy) {
            (Some(dir), Some(policy)) => self.mirror(global, dir, policy)?,
            _ => self.server(global).await?,
        };
        let json = audit_json(&signed, &outcome);
        let output = global.output();
        match outcome {
            Ok(_) => output.print(&json, text),
            Err(error) => {
                if global.json {
                    output.print(&json, text)?;
                }
                Err(Failure::does_not_verify(error.to_string()))
            }
        }
    }

    async fn server(
        &self,
        global: &Global,
    ) -> CommandResult<(Signed, Result<Audited, AuditError>)> {
        let ledger = global.connect().await?;
        let head = ledger.head().await?.signed.head;
        ledger.flush().await?;
        let pin = ledger.pin();
        let signed = Signed {
            head,
            origin: pin.origin.clone(),
            log_key: ledger.log_keys().keys().at(head.size).key.clone(),
            ledger_id: Some(pin.ledger_id),
            cosigned_by: Vec::new(),
        };
        let mut progress = Progress::new(global, head.size.get());
        let mut entries = ledger.entries(LeafIndex::new(0), head.size);
        let mut audit = Audit::new();
        while let Some((_, entry)) = entries.next().await? {
            audit.take(&entry);
            progress.taken(&audit);
        }
        progress.end();
        let outcome = signed.compare(audit);
        Ok((signed, outcome))
    }

    fn mirror(
        &self,
        global: &Global,
        dir: &Path,
        policy: &Path,
    ) -> CommandResult<(Signed, Result<Audited, AuditError>)> {
        let policy = Policy::parse(read_text_lines(policy)?).map_err(|error| {
            Failure::usage(error.to_string()).context(policy.display().to_string())
        })?;
        let file = dir.join("checkpoint");
        let verified = policy
            .verify_checkpoint(&read_text_lines(&file)?)
            .map_err(|error| {
                Failure::does_not_verify(error.to_string()).context(file.display().to_string())
            })?;
        let cosigned = verified.cosigned_by.iter();
        let signed = Signed {
            head: verified.checkpoint.head,
            origin: verified.checkpoint.origin.clone(),
            log_key: verified.log_key.clone(),
            ledger_id: None,
            cosigned_by: cosigned.map(|cosigned| cosigned.witness.clone()).collect(),
        };
        let size = signed.head.size.get();
        let mut progress = Progress::new(global, size);
        let mut audit = Audit::new();
        while audit.leaves() < size {
            let index = audit.leaves() / u64::from(TILE_WIDTH);
            let wanted = (size - audit.leaves()).min(u64::from(TILE_WIDTH));
            for entry in bundle(dir, index, wanted)? {
                audit.take(&entry);
            }
            progress.taken(&audit);
        }
        progress.end();
        let outcome = signed.compare(audit);
        Ok((signed, outcome))
    }
}

/// The first `wanted` entries of a bundle. A partial one may have been replaced by a longer one
/// after the checkpoint was fetched.
fn bundle(dir: &Path, index: u64, wanted: u64) -> CommandResult<Vec<Bytes>> {
    let path = |width: u16| match EntryBundleId::new(index, width) {
        Ok(bundle) => Ok(dir.join(bundle.path())),
        Err(error) => Err(Failure::usage(error.to_string())),
    };
    let width = u16::try_from(wanted).unwrap_or(TILE_WIDTH);
    let (exact, full) = (path(width)?, path(TILE_WIDTH)?);
    let (file, bytes) = match fs::read(&exact) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && exact != full => {
            let bytes = read_file(&full).map_err(|_| {
                let missing = format!("cannot read {}: {error}", exact.display());
                Failure::usage(missing)
            })?;
            (full, bytes)
        }
        Err(_) => (exact.clone(), read_file(&exact)?),
        Ok(bytes) => (exact, bytes),
    };
    let wrong = |what: String| Failure::does_not_verify(what).context(file.display().to_string());
    let entries = decode_entry_bundle(&bytes).map_err(|error| wrong(error.to_string()))?;
    let found = entries.len() as u64;
    if found < wanted {
        return Err(wrong(format!("holds {found} entries, not {wanted}")));
    }
    let entries = entries.into_iter().take(usize::from(width));
    Ok(entries.map(Bytes::copy_from_slice).collect())
}

/// A bar for a person, and a line now and then for a log.
struct Progress {
    bar: indicatif::ProgressBar,
    size: u64,
    reported: u64,
}

impl Progress {
    fn new(global: &Global, size: u64) -> Self {
        let template = "{bar:30} {human_pos} of {human_len} entries  {elapsed}, {eta} left";
        let bar = progress_bar(global.json, size, template);
        Self {
            bar,
            size,
            reported: 0,
        }
    }

    fn taken(&mut self, audit: &Audit) {
        let leaves = audit.leaves();
        if leaves.is_multiple_of(PROGRESS_ENTRIES) {
            self.bar.set_position(leaves);
        }
        if self.bar.is_hidden() && leaves / TOLD_ENTRIES > self.reported {
            self.reported = leaves / TOLD_ENTRIES;
            let percent = leaves * 100 / self.size.max(1);
            report(&format!("{leaves} of {} entries ({percent} %)", self.size));
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn audit_json(signed: &Signed, outcome: &Result<Audited, AuditError>) -> AuditJson {
    let (checked, difference) = match outcome {
        Ok(audited) => (Some(checked(audited)), None),
        Err(error) => {
            let difference = DifferenceJson {
                leaf_index: error.leaf(),
                committed: matches!(error, AuditError::Difference(_)),
                what: error.to_string(),
            };
            (None, Some(difference))
        }
    };
    AuditJson {
        holds: outcome.is_ok(),
        origin: signed.origin.to_string(),
        ledger_id: outcome.as_ref().ok().map(|it| it.ledger_id.to_string()),
        tree_size: signed.head.size.get(),
        root: signed.head.root.to_string(),
        cosigned_by: signed.cosigned_by.clone(),
        difference,
        checked,
    }
}

fn checked(audited: &Audited) -> CheckedJson {
    let summary = audited.summary.clone();
    let count = |body| summary.entries.get(body).copied().unwrap_or(0);
    let (task_receipts, clearances) = (count("task_receipt"), count("clearance"));
    CheckedJson {
        rules_version: audited.replay.trust().rules_version(),
        effective_time_us: audited.replay.effective_time().get(),
        signatures: summary.signatures,
        sessions: summary.sessions,
        ledger_entries: task_receipts + clearances + count("tick"),
        task_receipts,
        clearances,
        entries: summary.entries,
        tasks: summary.tasks,
        grants: summary.grants,
        intents: summary.intents,
        outcomes: summary.outcomes,
        findings: summary.findings,
        severities: summary.severities,
    }
}

fn text(json: &AuditJson) -> String {
    let mut out = format!(
        "everything holds\norigin           {}\nledger id        {}\ntree size        {}\n\
         root             {}",
        json.origin,
        json.ledger_id.as_deref().unwrap_or_default(),
        json.tree_size,
        json.root
    );
    for witness in &json.cosigned_by {
        out += &format!("\ncosigned by      {witness}");
    }
    let Some(checked) = &json.checked else {
        return out;
    };
    let mut line = |name: &str, value: u64| out += &format!("\n{name:<24} {value:>12}");
    line("signatures", checked.signatures);
    line("sessions", checked.sessions);
    line("tasks", checked.tasks);
    line("grants", checked.grants);
    line("task receipts", checked.task_receipts);
    line("clearances", checked.clearances);
    line("ledger entries", checked.ledger_entries);
    let mut list = |name: &str, counts: &mut dyn Iterator<Item = (&str, u64)>| {
        let mut counts = counts.peekable();
        if counts.peek().is_some() {
            out += &format!("\n{name}:");
        }
        for (name, count) in counts {
            out += &format!("\n  {name:<22} {count:>12}");
        }
    };
    list(
        "entries",
        &mut checked.entries.iter().map(|(name, n)| (*name, *n)),
    );
    for (name, counts) in [
        ("intents", &checked.intents),
        ("outcomes", &checked.outcomes),
        ("findings by severity", &checked.severities),
        ("findings", &checked.findings),
    ] {
        list(
            name,
            &mut counts.iter().map(|(name, n)| (name.as_str(), *n)),
        );
    }
    out
}
