//! `deed retention`

use clap::{Args, Subcommand};
use deed_proto::v1::{self, statement::Body};
use serde::Serialize;

use crate::{
    args::{Global, Span, TimeError},
    author::AuthorityArgs,
    failure::CommandResult,
    render::shown_span,
};

#[derive(Subcommand)]
pub(crate) enum Retention {
    Set(SetRetention),
    /// Show the minimum time for which contents are kept, verified
    Show,
}

/// Set the minimum time for which contents are kept
///
/// The time runs from the moment when a statement that commits to the content was recorded. A content
/// cannot be erased before it is over.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed retention set 180d --reason \"six months of evidence\"
  deed retention set none")]
pub(crate) struct SetRetention {
    /// Minimum time, for example 180d; none removes it
    #[arg(value_name = "DURATION|none", value_parser = floor)]
    floor: Floor,
    /// Reason, for readers of the log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// The time for which contents are kept at least; `None` for no floor.
#[derive(Debug, Clone, Copy)]
struct Floor(Option<Span>);

#[derive(Serialize)]
struct RetentionJson {
    floor_us: i64,
    floor: String,
}

impl Retention {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Set(set) => set.run(global).await,
            Self::Show => show_retention(global).await,
        }
    }
}

impl SetRetention {
    async fn run(&self, global: &Global) -> CommandResult {
        let floor_us = self.floor.0.map_or(0, Span::us);
        let body = Body::RetentionSet(v1::RetentionSet {
            floor_us,
            reason: self.reason.clone(),
        });
        let what = match floor_us {
            0 => "contents have no retention floor".to_owned(),
            floor_us => format!("contents are kept for {} at least", shown_span(floor_us)),
        };
        self.authority.record(global, body, &what).await
    }
}

async fn show_retention(global: &Global) -> CommandResult {
    let ledger = global.connect().await?;
    let trust = ledger.trust_chain().await?;
    ledger.flush().await?;
    let floor_us = trust.state.retention_floor_us();
    let floor = shown_span(floor_us);
    global
        .output()
        .print(&RetentionJson { floor_us, floor }, |json| {
            json.floor.clone()
        })
}

fn floor(text: &str) -> Result<Floor, String> {
    if text == "none" {
        return Ok(Floor(None));
    }
    let span: Span = text
        .parse()
        .map_err(|error: TimeError| format!("it {error}, or none"))?;
    match span.us() {
        0 => Err("a floor of nothing is none: say none".to_owned()),
        _ => Ok(Floor(Some(span))),
    }
}
