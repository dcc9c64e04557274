//! `deed complete`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use deed_client::Header;
use deed_proto::v1::{self, OutcomeStatus, statement::Body};

use crate::{
    args::{AboutArgs, Global, effect, intent_at, now},
    author::AuthorArgs,
    failure::CommandResult,
};

/// Record the outcome of an Intent
///
/// Copies the Intent's commitment to its arguments into the Outcome. If the call had other arguments,
/// record the Outcome with `deed append`; that is a finding.
#[derive(Args)]
#[command(after_help = "\
An effect is kind=K,resource=R[,id=ID][,amount=N,currency=C][,before=HEX]
[,after=HEX]. Values may contain commas, except before one of these names.

Examples:
  deed complete 14 succeeded --key agent.pem --result result.json \\
       --effect kind=payment.refunded,resource=order/7,amount=1999,currency=EUR
  deed complete 14 not-done --key agent.pem")]
pub(crate) struct Complete {
    /// Leaf index of the Intent
    #[arg(value_name = "INTENT")]
    intent: u64,
    /// Result of the act
    #[arg(value_enum)]
    status: Status,
    /// Change that it made; up to 64 times
    #[arg(long, value_name = "EFFECT", value_parser = effect::parse)]
    effect: Vec<v1::Effect>,
    /// The call as it was sent; - for stdin
    #[arg(long, value_name = "FILE")]
    tool_call: Option<PathBuf>,
    /// The response that the model saw
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,
    /// The result as the tool gave it
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    author: AuthorArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Status {
    /// It happened as intended
    Succeeded,
    /// It was tried and failed
    Failed,
    /// It happened and was undone
    Reverted,
    /// It was never tried
    NotDone,
}

impl From<Status> for OutcomeStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Succeeded => Self::Succeeded,
            Status::Failed => Self::Failed,
            Status::Reverted => Self::Reverted,
            Status::NotDone => Self::NotDone,
        }
    }
}

impl Complete {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let (found, intended) = intent_at(&ledger, self.intent).await?;
        let mut author = self.author.open(global, &ledger).await?;
        let mut contents = author.content_committer(global)?;
        let body = Body::Outcome(v1::Outcome {
            intent: Some(found.statement_ref()),
            status: OutcomeStatus::from(self.status).into(),
            effects: self.effect.clone(),
            tool_call: contents.file("outcome.tool_call", self.tool_call.as_deref())?,
            response: contents.file("outcome.response", self.response.as_deref())?,
            result: contents.file("outcome.result", self.result.as_deref())?,
            arguments: intended.arguments,
        });
        let header = Header {
            task: found.task(),
            occurred_at: now(),
            trace: self.about.trace(),
            correlation_keys: &self.about.correlation_keys(),
        };
        let receipt = author.record(&header, body, Some(contents)).await?;
        receipt.print(global)
    }
}
