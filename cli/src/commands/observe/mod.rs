//! `deed observe`

mod condition;
mod effects;
mod import;
mod mapping;
mod pattern;
mod pointer;
mod sender;
mod time;

use clap::{Args, Subcommand};
use deed_client::Header;
use deed_evidence::{Micros, TaskId};
use deed_proto::v1::{self, statement::Body};

use crate::{
    args::{AboutArgs, Global, When, effect, hex_bytes, intent_at, moment, now},
    author::AuthorArgs,
    failure::{CommandResult, Failure},
};

/// Record what a downstream system saw, or import its log
///
/// The ledger compares an observation with the effects that acts declare: with those of --intent, otherwise
/// with those of acts that have the same correlation keys. Signed with an independent system's key it
/// corroborates an act; unsigned it is a claim.
///
/// Each effect counts as one change. To report a change again, give it the same id=. A change that is
/// seen more often than it was declared is a finding.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  deed observe --key bank.pem --intent 14 --reference tx-99 \\
       --effect kind=payment.refunded,resource=order/7,amount=1999,currency=EUR
  deed observe --key shop.pem --correlation order=7 \\
       --effect kind=order.cancelled,resource=order/7
  deed observe import audit.log --mapping kubernetes --key k8s.pem"
)]
pub(crate) struct Observe {
    #[command(subcommand)]
    import: Option<Imports>,
    #[command(flatten)]
    seen: Seen,
}

#[derive(Subcommand)]
enum Imports {
    Import(Box<import::ImportLog>),
}

#[derive(Args)]
struct Seen {
    /// Leaf index of the Intent that caused the change
    #[arg(long, value_name = "LEAF")]
    intent: Option<u64>,
    /// The task, if the Intent is not known: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>, conflicts_with = "intent")]
    task: Option<[u8; 16]>,
    #[command(flatten)]
    about: AboutArgs,
    /// Change that was seen (see `deed complete --help`); up to 64 times
    #[arg(long, value_name = "EFFECT", value_parser = effect::parse, required = true)]
    effect: Vec<v1::Effect>,
    /// The system's own id of this record
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    reference: String,
    /// Time by the system's clock: a time, or how long ago [default: none]
    #[arg(long, value_name = "TIME")]
    observed_at: Option<When>,
    #[command(flatten)]
    author: AuthorArgs,
}

impl Observe {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match &self.import {
            Some(Imports::Import(import)) => import.run(global).await,
            None => self.seen.run(global).await,
        }
    }
}

impl Seen {
    async fn run(&self, global: &Global) -> CommandResult {
        let observed_at = self.observed_at.map(|when| match when {
            When::At(_) => moment("--observed-at", when),
            When::Span(_) => when
                .before(now())
                .map_err(|error| Failure::usage(format!("--observed-at: the time {error}"))),
        });
        let observed_at = observed_at.transpose()?;
        let ledger = global.connect().await?;
        let found = match self.intent {
            Some(leaf) => Some(intent_at(&ledger, leaf).await?.0),
            None => None,
        };
        let mut author = self.author.open(global, &ledger).await?;
        let body = Body::Observation(v1::Observation {
            intent: found.as_ref().map(deed_client::ProvenStatement::leaf_ref),
            effects: self.effect.clone(),
            reference: self.reference.clone(),
            observed_at_us: observed_at.map_or(0, Micros::get),
        });
        let header = Header {
            task: match &found {
                Some(found) => found.task(),
                None => self.task.map(TaskId::new),
            },
            occurred_at: observed_at.unwrap_or_else(now),
            trace: self.about.trace(),
            correlation_keys: &self.about.correlation_keys(),
        };
        let receipt = author.record(&header, body, None).await?;
        receipt.print(global)
    }
}
