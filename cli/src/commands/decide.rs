//! `deed decide`

use bytes::Bytes;
use clap::{Args, ValueEnum};
use deed_proto::v1::{self, Verdict, statement::Body};

use crate::{
    args::{Global, hex_bytes, intent_at},
    author::AuthorArgs,
    failure::CommandResult,
};

/// Record a policy engine's decision about an Intent
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed decide 14 allow --key opa.pem --engine opa --policy-version refunds-7
  deed decide 14 deny --key opa.pem --engine opa --reason \"over the limit\"")]
pub(crate) struct Decide {
    /// Leaf index of the Intent
    #[arg(value_name = "INTENT")]
    intent: u64,
    /// Decision of the engine
    #[arg(value_enum)]
    verdict: Says,
    /// Name of the engine
    #[arg(long, value_name = "NAME")]
    engine: String,
    /// Version of the policy, as the engine names it
    #[arg(
        long,
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true
    )]
    policy_version: String,
    /// SHA-256 of the policy: 64 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<32>)]
    policy_digest: Option<[u8; 32]>,
    /// Reason, for readers of the log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    author: AuthorArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Says {
    Allow,
    Deny,
}

impl Decide {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let (found, _) = intent_at(&ledger, self.intent).await?;
        let mut author = self.author.open(global, &ledger).await?;
        let verdict = match self.verdict {
            Says::Allow => Verdict::Allow,
            Says::Deny => Verdict::Deny,
        };
        let body = Body::Decision(v1::Decision {
            intent: Some(found.leaf_ref()),
            verdict: verdict.into(),
            engine: self.engine.clone(),
            policy_version: self.policy_version.clone(),
            policy_digest: self
                .policy_digest
                .map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
            reason: self.reason.clone(),
        });
        let receipt = author.record_in_task(found.task(), body).await?;
        receipt.print(global)
    }
}
