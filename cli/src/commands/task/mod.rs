//! `deed task open|close|receipt|show`

mod answers;
pub(super) mod check;
pub(super) mod json;
mod task_report;
mod text;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use deed_client::{Basis, Error, random_nonce};
use deed_evidence::{Micros, TaskId};
use deed_proto::v1::{self, RiskTier, TaskEnd, statement::Body, task_opened::Objective};
use serde::Serialize;

use crate::{
    args::{Global, When, hex_bytes, moment},
    author::{AuthorArgs, AuthorityArgs, StatementReceiptJson},
    failure::{CommandResult, Failure},
    render::{EntryJson, labelled, names},
};
use check::Checked;
use json::TaskJson;

#[derive(Subcommand)]
pub(crate) enum Tasks {
    Open(Box<Open>),
    Close(Close),
    Receipt(Receipt),
    Show(Show),
}

/// Open a task
///
/// An authority opens it, or a platform with --key. Prints the task's id, which grants, Intents and
/// evidence name. The tier decides which evidence the acts need. The id is derived from the opener and a
/// random nonce, so nobody else can open the task.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed task open --objective \"refund order 7\" --requested-by ticket:4711 \\
       --tier payment --deadline 1h
  deed task open --key platform.pem --requested-by https://example.org/shop \\
       --tier low")]
pub(crate) struct Open {
    /// Objective; no personal data [default: none]
    #[arg(long, value_name = "TEXT")]
    objective: Option<String>,
    /// Requester: a URI or an opaque id
    #[arg(long, value_name = "URI")]
    requested_by: String,
    /// Risk tier: the harm that the task may do
    #[arg(long, value_enum)]
    tier: Tier,
    /// Deadline: a time, or a duration from now [default: none]
    #[arg(long, value_name = "TIME")]
    deadline: Option<When>,
    #[command(flatten)]
    author: AuthorArgs,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// Close a task; its grants end with it
///
/// The ledger then writes a receipt for the task.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed task close 000102030405060708090a0b0c0d0e0f --end completed")]
pub(crate) struct Close {
    /// The task: 32 hex digits
    #[arg(value_name = "TASK", value_parser = hex_bytes::<16>)]
    task: [u8; 16],
    /// Result of the task
    #[arg(long, value_enum)]
    end: End,
    /// Reason, for readers of the log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    author: AuthorArgs,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// Let the ledger write a receipt of a task as it is now
///
/// A receipt states the number of the task's entries and a digest over them, so that none can be left out
/// later. The task is judged here from its entries, as by `deed task show`; a receipt that does not follow
/// from them is an alarm. Without the role read the receipt is the server's word (`basis` in --json:
/// `checked` or `servers_word`).
#[derive(Args)]
#[command(after_help = "\
Exit codes: 1 if the receipt or the server's answer contradicts the entries.

Examples:
  deed task receipt 000102030405060708090a0b0c0d0e0f --json")]
pub(crate) struct Receipt {
    /// The task: 32 hex digits
    #[arg(value_name = "TASK", value_parser = hex_bytes::<16>)]
    task: [u8; 16],
}

/// Show a task: its acts, who acted under which authority, and the findings
///
/// Every entry is proven to be in the log, and the task is judged here from its entries and the ledger's
/// trust chain: signatures and their keys, clearances, receipts, states, layers and findings. A
/// contradiction to the server's answer is an alarm. What the task's entries cannot prove is listed as the
/// server's word, above all that no entry is missing where no receipt covers it.
#[derive(Args)]
#[command(after_help = "\
Exit codes: 1 if the server's answer contradicts the entries.

Examples:
  deed task show 000102030405060708090a0b0c0d0e0f
  deed task show 000102030405060708090a0b0c0d0e0f --json | jq .acts")]
pub(crate) struct Show {
    /// The task: 32 hex digits
    #[arg(value_name = "TASK", value_parser = hex_bytes::<16>)]
    task: [u8; 16],
}

#[derive(Clone, Copy, ValueEnum)]
enum Tier {
    /// Signature and log suffice
    Low,
    /// Moves money
    Payment,
    /// Sends messages to customers in the owner's name
    CustomerCommunication,
    /// Changes a system in production
    Deployment,
    /// Destroys records
    Deletion,
}

impl From<Tier> for RiskTier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Low => Self::Low,
            Tier::Payment => Self::Payment,
            Tier::CustomerCommunication => Self::CustomerCommunication,
            Tier::Deployment => Self::Deployment,
            Tier::Deletion => Self::Deletion,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum End {
    /// Its objective was reached
    Completed,
    /// Its objective was not reached, and will not be
    Failed,
    /// Stopped by a person or a rule
    Cancelled,
    /// Handed to somebody else
    HandedOver,
}

impl From<End> for TaskEnd {
    fn from(end: End) -> Self {
        match end {
            End::Completed => Self::Completed,
            End::Failed => Self::Failed,
            End::Cancelled => Self::Cancelled,
            End::HandedOver => Self::HandedOver,
        }
    }
}

/// A receipt, and what its number and digest rest on.
#[derive(Serialize)]
struct ReceiptJson {
    #[serde(flatten)]
    entry: EntryJson,
    /// `checked` or `servers_word`.
    basis: &'static str,
    /// Parts of the server's report that the entries contradict.
    alarms: Vec<String>,
    by_servers_word: Vec<String>,
}

#[derive(Serialize)]
struct OpenedJson {
    task: String,
    #[serde(flatten)]
    receipt: StatementReceiptJson,
}

impl Tasks {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Open(open) => open.run(global).await,
            Self::Close(close) => close.run(global).await,
            Self::Receipt(receipt) => receipt.run(global).await,
            Self::Show(show) => show.run(global).await,
        }
    }
}

impl Open {
    async fn run(&self, global: &Global) -> CommandResult {
        let deadline = self.deadline.map(|when| moment("--deadline", when));
        let nonce = random_nonce().map_err(|error| Failure::Usage(error.into()))?;
        let body = Body::TaskOpened(v1::TaskOpened {
            objective: self.objective.clone().map(Objective::ObjectiveText),
            requested_by: self.requested_by.clone(),
            risk_tier: RiskTier::from(self.tier).into(),
            deadline_us: deadline.transpose()?.map_or(0, Micros::get),
            nonce: Bytes::copy_from_slice(nonce.as_bytes()),
        });
        let ledger = global.connect().await?;
        let mut author = self
            .author
            .open_or(&self.authority, global, &ledger)
            .await?;
        let id = TaskId::derive(ledger.ledger_id(), author.producer(), &nonce);
        let receipt = author.record_in_task(Some(id), body).await?;
        let json = OpenedJson {
            task: id.to_string(),
            receipt: receipt.json(),
        };
        global.output().print(&json, |json| {
            format!("task       {}\n{}", json.task, json.receipt.text())
        })
    }
}

impl Close {
    async fn run(&self, global: &Global) -> CommandResult {
        let body = Body::TaskClosed(v1::TaskClosed {
            end: TaskEnd::from(self.end).into(),
            reason: self.reason.clone(),
        });
        let ledger = global.connect().await?;
        let mut author = self
            .author
            .open_or(&self.authority, global, &ledger)
            .await?;
        let receipt = author
            .record_in_task(Some(TaskId::new(self.task)), body)
            .await?;
        receipt.print(global)
    }
}

impl Receipt {
    async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let task = TaskId::new(self.task);
        let found = ledger.request_task_receipt(task).await?;
        let checked = match ledger.judged_task(task).await {
            Ok(judged) => Some(Checked::of(judged).receipt(&found)),
            // A caller without the role read gets the server's word.
            Err(Error::NotAllowed { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        ledger.flush().await?;
        let (basis, alarms, by_servers_word) = match &checked {
            Some(checked) => (checked.basis, &checked.alarms[..], checked.by_word.clone()),
            None => {
                let all = "the number of entries and their digest: nothing of it was checked here";
                (Basis::ServersWord, &[][..], vec![all.to_owned()])
            }
        };
        let json = ReceiptJson {
            entry: EntryJson::decode(&found.entry, found.index.get(), found.hash.to_string())?,
            basis: names::basis(basis),
            alarms: alarms.to_vec(),
            by_servers_word,
        };
        let printed = global.output().print(&json, |json| match found.body() {
            Some(Body::TaskReceipt(receipt)) => json.text(receipt, basis),
            _ => json.entry.text(),
        });
        if let Some(checked) = &checked {
            checked.alarm()?;
        }
        printed
    }
}

impl ReceiptJson {
    fn text(&self, receipt: &v1::TaskReceipt, basis: Basis) -> String {
        let mut lines = vec![
            format!("leaf       {}", self.entry.leaf_index),
            format!("leaf hash  {}", self.entry.leaf_hash),
            format!(
                "entries    {} (up to leaf {})",
                receipt.count, receipt.through_leaf
            ),
            format!("digest     {}", hex::encode(&receipt.digest)),
        ];
        lines.push(
            match basis {
                Basis::Checked => {
                    "checked    these are all entries up to there, and their digest is this one"
                }
                Basis::ServersWord => {
                    "checked    nothing: entries and digest are the server's word"
                }
            }
            .to_owned(),
        );
        let words = self.by_servers_word.iter();
        lines.push("by the server's word".to_owned());
        lines.extend(words.map(|word| labelled("-", word, 4)));
        lines.join("\n")
    }
}

impl Show {
    async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let judged = ledger.judged_task(TaskId::new(self.task)).await?;
        ledger.flush().await?;
        let checked = Checked::of(judged);
        let json = TaskJson::new(&checked)?;
        let printed = global
            .output()
            .print(&json, |_| task_report::draw(&checked));
        checked.alarm()?;
        printed
    }
}
