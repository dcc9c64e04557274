//! `deed policy`: which evidence an action needs.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use deed_client::ProvenTrust;
use deed_evidence::{
    RULES_ASSESSED,
    entry::Entry,
    policy::{
        ASKS_MAX, CEDAR_VERSION, DEFAULT_POLICIES, DEFAULT_SCHEMA, EvidencePolicy,
        JUDGEMENT_UNITS_MAX, PolicyError,
    },
    statement,
};
use deed_proto::v1::{self, statement::Body};
use serde::Serialize;

use crate::{
    args::Global,
    author::{AuthorityArgs, TrustReceiptJson},
    failure::{CommandResult, Failure},
    render::{folded, indented, printable, report, shown_span},
};

#[derive(Subcommand)]
pub(crate) enum Policies {
    Check(Check),
    Set(Set),
    Show(Show),
}

/// Check policies offline, as a ledger does before it takes them
///
/// Prints each policy with the evidence that it needs after the act, the digest of the set, and the
/// largest cost of judging an Intent by it (docs/policies.md). If the policies are invalid or cost too
/// much, prints each error with its place, and exits with 1.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed policy check payments.cedar support.cedar --schema ours.cedarschema")]
pub(crate) struct Check {
    /// Policies in Cedar; several files are one set
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Schema in Cedar's own syntax [default: the one that Deed ships]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
}

/// Set the policies that Intents are judged by from now on
///
/// Replaces the set in force, after the checks of `deed policy check`. A ledger of rules version 1 assesses
/// its entries from then on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed policy set --default --reason \"first policies\"
  deed policy set payments.cedar support.cedar --schema ours.cedarschema")]
pub(crate) struct Set {
    /// Policies in Cedar; several files are one set
    #[arg(value_name = "FILE", required_unless_present = "default")]
    files: Vec<PathBuf>,
    /// Schema in Cedar's own syntax [default: the one that Deed ships]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Set the policies that Deed ships, one for each risk tier
    #[arg(long, conflicts_with_all = ["files", "schema"])]
    default: bool,
    /// Reason, for readers of the log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// Show the policies in force, verified
#[derive(Args)]
pub(crate) struct Show {
    /// Show the set that the entry at this leaf was judged by [default: the set in force now]
    #[arg(long, value_name = "LEAF")]
    at: Option<u64>,
}

#[derive(Serialize)]
struct CheckedJson {
    valid: bool,
    digest: String,
    cedar_version: &'static str,
    cost: CostJson,
    policies: Vec<PolicyJson>,
    warnings: Vec<String>,
}

/// The largest cost of judging one Intent, unless it expects effects elsewhere.
#[derive(Serialize)]
struct CostJson {
    units: u64,
    units_max: u64,
    evaluations: u64,
    evaluations_max: u64,
}

#[derive(Serialize)]
struct InvalidJson {
    valid: bool,
    diagnostics: Vec<String>,
}

#[derive(Serialize)]
struct PolicyJson {
    id: String,
    effect: &'static str,
    keep: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corroborate_within_us: Option<i64>,
}

#[derive(Serialize)]
struct SetJson {
    digest: String,
    #[serde(flatten)]
    recorded: TrustReceiptJson,
}

#[derive(Serialize)]
struct ShownJson {
    leaf_index: u64,
    digest: String,
    cedar_version: String,
    rules_version: u32,
    reason: String,
    policies: String,
    schema: String,
}

impl Policies {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Check(check) => check.run(global),
            Self::Set(set) => set.run(global).await,
            Self::Show(show) => show.run(global).await,
        }
    }
}

impl Check {
    fn run(&self, global: &Global) -> CommandResult {
        let sources = Sources::read(&self.files, self.schema.as_ref())?;
        let output = global.output();
        let policy = match sources.compile() {
            Ok(policy) => policy,
            Err(diagnostics) => {
                let count = diagnostics.len();
                if global.json {
                    let valid = false;
                    output.print(&InvalidJson { valid, diagnostics }, |_| String::new())?;
                } else {
                    print_all(&diagnostics);
                }
                let what = format!("the policies: {count} problem(s)");
                return Err(Failure::does_not_verify(what));
            }
        };
        let json = CheckedJson {
            valid: true,
            digest: hex::encode(policy.digest()),
            cedar_version: CEDAR_VERSION,
            cost: CostJson {
                units: policy.cost().units,
                units_max: JUDGEMENT_UNITS_MAX,
                evaluations: policy.cost().asks,
                evaluations_max: ASKS_MAX,
            },
            policies: policies(&policy),
            warnings: sources.placed(policy.warnings()),
        };
        if !global.json {
            print_all(&json.warnings);
        }
        output.print(&json, |json| {
            let policies = json.policies.iter().map(PolicyJson::text);
            let mut lines: Vec<_> = policies.collect();
            lines.push(format!("digest     {}", json.digest));
            lines.push(format!("cedar      {}", json.cedar_version));
            let cost = &json.cost;
            lines.push(format!(
                "cost       up to {} of {} units an Intent",
                cost.units, cost.units_max
            ));
            lines.join("\n")
        })
    }
}

impl Set {
    async fn run(&self, global: &Global) -> CommandResult {
        let sources = if self.default {
            Sources::shipped()
        } else {
            Sources::read(&self.files, self.schema.as_ref())?
        };
        let policy = sources.compile().map_err(|diagnostics| {
            print_all(&diagnostics);
            Failure::usage("the policies are not valid; nothing was recorded")
        })?;
        print_all(&sources.placed(policy.warnings()));
        let body = Body::PolicySet(v1::PolicySet {
            policies: policy.policies().to_owned(),
            schema: policy.schema().to_owned(),
            digest: Bytes::copy_from_slice(&policy.digest()),
            cedar_version: CEDAR_VERSION.to_owned(),
            rules_version: RULES_ASSESSED,
            reason: self.reason.clone(),
        });
        let ledger = global.connect().await?;
        let json = SetJson {
            digest: hex::encode(policy.digest()),
            recorded: self.authority.record_in(global, &ledger, body).await?,
        };
        let count = policy.infos().len();
        global.output().print(&json, |json| {
            format!(
                "{count} policies in force from here on\ndigest     {}\n{}",
                json.digest,
                json.recorded.text()
            )
        })
    }
}

impl Show {
    async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let trust = ledger.trust_chain().await?;
        ledger.flush().await?;
        let size = trust.head.head.size.get();
        if let Some(at) = self.at.filter(|at| *at >= size) {
            return Err(Failure::usage(format!(
                "there is no leaf {at} yet: the ledger has {size} entries"
            )));
        }
        let Some((leaf_index, set)) = set_at(&trust, self.at.unwrap_or(u64::MAX))? else {
            return Err(Failure::usage(
                "no policies were set by then; an authority sets them with `deed policy set`",
            ));
        };
        let json = ShownJson {
            leaf_index,
            digest: hex::encode(&set.digest),
            cedar_version: set.cedar_version,
            rules_version: set.rules_version,
            reason: set.reason,
            policies: set.policies,
            schema: set.schema,
        };
        global.output().print(&json, |json| {
            let mut lines = vec![
                format!("leaf       {}", json.leaf_index),
                format!("digest     {}", json.digest),
                format!("cedar      {}", json.cedar_version),
            ];
            if !json.reason.is_empty() {
                lines.push(format!("reason     {}", printable(&json.reason)));
            }
            format!(
                "{}\n\npolicies:\n\n{}\n\nschema:\n\n{}",
                lines.join("\n"),
                json.policies.trim_end(),
                json.schema.trim_end()
            )
        })
    }
}

/// The newest PolicySet up to a leaf. A verified chain has only good ones.
fn set_at(trust: &ProvenTrust, at: u64) -> CommandResult<Option<(u64, v1::PolicySet)>> {
    let up_to = trust.entries.iter().filter(|(index, _)| index.get() <= at);
    for (index, bytes) in up_to.rev() {
        let entry =
            Entry::parse(bytes).map_err(|error| Failure::does_not_verify(error.to_string()))?;
        let payload = Bytes::copy_from_slice(entry.payload);
        let decoded = statement::decode(&payload)
            .map_err(|error| Failure::does_not_verify(error.to_string()))?;
        if let Some(Body::PolicySet(set)) = decoded.body {
            return Ok(Some((index.get(), set)));
        }
    }
    Ok(None)
}

/// Texts with the files that they came from.
struct Sources {
    policies: String,
    /// Each file's name, and the line of the whole text before its first one.
    files: Vec<(String, usize)>,
    schema: String,
    schema_file: String,
}

impl Sources {
    fn shipped() -> Self {
        Self {
            policies: DEFAULT_POLICIES.to_owned(),
            files: vec![("the policies that Deed ships".to_owned(), 0)],
            schema: DEFAULT_SCHEMA.to_owned(),
            schema_file: SHIPPED_SCHEMA.to_owned(),
        }
    }

    fn read(files: &[PathBuf], schema: Option<&PathBuf>) -> CommandResult<Self> {
        let mut sources = Self {
            policies: String::new(),
            files: Vec::new(),
            schema: DEFAULT_SCHEMA.to_owned(),
            schema_file: SHIPPED_SCHEMA.to_owned(),
        };
        for path in files {
            if !sources.policies.is_empty() && !sources.policies.ends_with('\n') {
                sources.policies.push('\n');
            }
            let before = sources.policies.matches('\n').count();
            sources.files.push((path.display().to_string(), before));
            sources.policies.push_str(&read(path)?);
        }
        if let Some(path) = schema {
            sources.schema = read(path)?;
            sources.schema_file = path.display().to_string();
        }
        Ok(sources)
    }

    /// The error is what is wrong, with its place in the files.
    fn compile(&self) -> Result<EvidencePolicy, Vec<String>> {
        EvidencePolicy::compile(&self.policies, &self.schema).map_err(|error| match &error {
            PolicyError::Schema(list) => {
                let file = &self.schema_file;
                list.iter().map(|line| format!("{file}:{line}")).collect()
            }
            error => self.placed(&error.diagnostics()),
        })
    }

    /// Puts the file and the line in it before what has a place in the policies.
    fn placed(&self, diagnostics: &[String]) -> Vec<String> {
        let placed = |diagnostic: &String| {
            let (line, rest) = diagnostic.split_once(':')?;
            let line: usize = line.parse().ok()?;
            let mut files = self.files.iter().rev();
            let (file, before) = files.find(|(_, before)| *before < line)?;
            Some(format!("{file}:{}:{rest}", line - before))
        };
        let diagnostics = diagnostics.iter();
        diagnostics
            .map(|diagnostic| placed(diagnostic).unwrap_or_else(|| diagnostic.clone()))
            .collect()
    }
}

const SHIPPED_SCHEMA: &str = "the schema that Deed ships";

fn read(path: &PathBuf) -> CommandResult<String> {
    fs::read_to_string(path).map_err(|error| {
        let what = format!("cannot read {}", path.display());
        Failure::Usage(anyhow::Error::new(error).context(what))
    })
}

fn print_all(diagnostics: &[String]) {
    for diagnostic in diagnostics {
        report(&indented(&printable(diagnostic)));
    }
}

fn policies(policy: &EvidencePolicy) -> Vec<PolicyJson> {
    let infos = policy.infos().iter().map(|info| {
        let kept = [
            ("tool_call", info.duties.tool_call),
            ("response", info.duties.response),
            ("result", info.duties.result),
        ];
        let kept = kept.into_iter().filter(|(_, kept)| *kept);
        PolicyJson {
            id: info.name.clone(),
            effect: if info.permits { "permit" } else { "forbid" },
            keep: kept.map(|(name, _)| name).collect(),
            corroborate_within_us: info.duties.corroborate_within_us,
        }
    });
    infos.collect()
}

impl PolicyJson {
    fn text(&self) -> String {
        let mut text = format!("{:<10} {}", self.effect, printable(&self.id));
        if !self.keep.is_empty() {
            text = format!("{text}\n{}", folded("keep", &self.keep.join(", ")));
        }
        if let Some(within) = self.corroborate_within_us {
            let within = format!("within {}", shown_span(within));
            text = format!("{text}\n{}", folded("corroborate", &within));
        }
        text
    }
}
