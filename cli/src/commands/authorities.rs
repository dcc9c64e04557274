//! `deed authority`

use bytes::Bytes;
use clap::{Args, Subcommand};
use deed_proto::v1::{self, statement::Body};

use crate::{
    args::{Global, authority_key},
    author::{AuthorityArgs, kept_authority},
    failure::{CommandResult, Failure},
    render::report,
};

#[derive(Subcommand)]
pub(crate) enum Authorities {
    Set(SetAuthorities),
}

/// Replace the ledger's authority keys
///
/// From now on only these keys sign trust statements. Earlier trust statements stay valid.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed authority set owner.pub second.pub --reason \"second owner\"")]
pub(crate) struct SetAuthorities {
    /// Public Ed25519 keys in hex, or files that hold them: 1 to 16
    #[arg(value_name = "HEX|FILE", required = true)]
    keys: Vec<String>,
    /// Reason, for readers of the log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

impl Authorities {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Set(set) => set.run(global).await,
        }
    }
}

impl SetAuthorities {
    async fn run(&self, global: &Global) -> CommandResult {
        let mut keys = self
            .keys
            .iter()
            .map(|key| authority_key(key))
            .collect::<CommandResult<Vec<_>>>()?;
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            let key = hex::encode(twice[0]);
            return Err(Failure::usage(format!(
                "key {key} is named twice; name it once"
            )));
        }
        let named = keys.iter().map(|key| v1::AuthorityKey {
            public_key: Bytes::copy_from_slice(key),
        });
        let body = Body::AuthoritiesChanged(v1::AuthoritiesChanged {
            authority_keys: named.collect(),
            reason: self.reason.clone(),
        });
        let ledger = global.connect().await?;
        let recorded = self.authority.record_in(global, &ledger, body).await?;
        let trust = ledger.trust_chain().await?;
        if kept_authority(&global.state()?, ledger.name(), &trust)?.is_none() {
            report("none of the new keys is kept here: give one with --authority-key from now on");
        }
        global.output().print(&recorded, |recorded| {
            format!(
                "{} authorities from here on\n{}",
                keys.len(),
                recorded.text()
            )
        })
    }
}
