//! `deed hold`

use bytes::Bytes;
use clap::{Args, Subcommand};
use deed_client::ProvenTrust;
use deed_evidence::{entry::Entry, trust::HoldScope};
use deed_proto::v1::{self, legal_hold_placed::Scope, statement::Body};
use serde::Serialize;

use crate::{
    args::{Global, hex_bytes},
    author::{AuthorityArgs, TrustReceiptJson},
    failure::{CommandResult, Failure},
    render::folded,
};

#[derive(Subcommand)]
pub(crate) enum Holds {
    Place(Place),
    Release(Release),
    /// List the legal holds in force, verified
    List,
}

/// Place a legal hold: contents cannot be erased until it is released
///
/// Covers the whole ledger, unless --task or --commitment is given. Prints the hold's id, which
/// `deed hold release` needs.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed hold place --task 000102030405060708090a0b0c0d0e0f --reason \"case 26-117\"
  deed hold release 0001..0f --reason \"case closed\"")]
pub(crate) struct Place {
    /// Only contents of this task's statements: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>, conflicts_with = "commitment")]
    task: Option<[u8; 16]>,
    /// Only the content with this digest: 64 hex digits
    #[arg(long, value_name = "DIGEST", value_parser = hex_bytes::<32>)]
    commitment: Option<[u8; 32]>,
    /// Reason, for readers of the log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// Release a legal hold
#[derive(Args)]
pub(crate) struct Release {
    /// The hold's id: 32 hex digits
    #[arg(value_name = "ID", value_parser = hex_bytes::<16>)]
    hold: [u8; 16],
    /// Reason, for readers of the log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

#[derive(Serialize)]
struct PlacedJson {
    hold: String,
    #[serde(flatten)]
    recorded: TrustReceiptJson,
}

#[derive(Serialize)]
struct HoldJson {
    hold: String,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commitment: Option<String>,
    reason: String,
    leaf_index: u64,
}

impl Holds {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Place(place) => place.run(global).await,
            Self::Release(release) => release.run(global).await,
            Self::List => list_holds(global).await,
        }
    }
}

impl Place {
    async fn run(&self, global: &Global) -> CommandResult {
        let mut hold = [0; 16];
        getrandom::fill(&mut hold)
            .map_err(|error| Failure::usage(format!("no random bytes: {error}")))?;
        let copied = Bytes::copy_from_slice;
        let scope = match (self.task, self.commitment) {
            (Some(task), _) => Some(Scope::Task(copied(&task))),
            (None, Some(digest)) => Some(Scope::Commitment(copied(&digest))),
            (None, None) => None,
        };
        let body = Body::LegalHoldPlaced(v1::LegalHoldPlaced {
            hold: copied(&hold),
            reason: self.reason.clone(),
            scope,
        });
        let ledger = global.connect().await?;
        let json = PlacedJson {
            hold: hex::encode(hold),
            recorded: self.authority.record_in(global, &ledger, body).await?,
        };
        global.output().print(&json, |json| {
            format!("hold       {}\n{}", json.hold, json.recorded.text())
        })
    }
}

impl Release {
    async fn run(&self, global: &Global) -> CommandResult {
        let body = Body::LegalHoldReleased(v1::LegalHoldReleased {
            hold: Bytes::copy_from_slice(&self.hold),
            reason: self.reason.clone(),
        });
        self.authority.record(global, body, "released").await
    }
}

async fn list_holds(global: &Global) -> CommandResult {
    let ledger = global.connect().await?;
    let trust = ledger.trust_chain().await?;
    ledger.flush().await?;
    let output = global.output();
    let mut none = true;
    for hold in trust.state.holds() {
        none = false;
        let (scope, task, commitment) = match hold.scope {
            HoldScope::Ledger => ("ledger", None, None),
            HoldScope::Task(task) => ("task", Some(task.to_string()), None),
            HoldScope::Commitment(digest) => ("content", None, Some(digest.to_string())),
        };
        let json = HoldJson {
            hold: hold.hold.to_string(),
            scope,
            task,
            commitment,
            reason: reason_at(&trust, hold.placed_leaf.get())?,
            leaf_index: hold.placed_leaf.get(),
        };
        output.print(&json, |json| {
            let named = json.task.as_ref().or(json.commitment.as_ref());
            let named = named.map_or(String::new(), |name| format!(" {name}"));
            format!(
                "{}\n{}\n{}\n{}",
                json.hold,
                folded("covers", &format!("{}{named}", json.scope)),
                folded("reason", &json.reason),
                folded("placed", &format!("leaf {}", json.leaf_index))
            )
        })?;
    }
    if none && !global.json {
        output.line("no legal holds")?;
    }
    Ok(())
}

/// Returns the reason of a hold, from its statement in the verified chain.
fn reason_at(trust: &ProvenTrust, leaf: u64) -> CommandResult<String> {
    let malformed = |error: &dyn std::fmt::Display| Failure::does_not_verify(error.to_string());
    let Some((_, bytes)) = trust.entries.iter().find(|(index, _)| index.get() == leaf) else {
        return Ok(String::new());
    };
    let entry = Entry::parse(bytes).map_err(|error| malformed(&error))?;
    let payload = Bytes::copy_from_slice(entry.payload);
    let decoded = deed_evidence::statement::decode(&payload).map_err(|error| malformed(&error))?;
    Ok(match decoded.body {
        Some(Body::LegalHoldPlaced(placed)) => placed.reason,
        _ => String::new(),
    })
}
