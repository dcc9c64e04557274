//! `deed grant`, `deed accept` and `deed revoke`

use bytes::Bytes;
use clap::Args;
use deed_client::ProvenStatement;
use deed_evidence::{Micros, TaskId};
use deed_proto::v1::{self, statement::Body};

use crate::{
    args::{AmountArgs, EntryName, Global, When, ascending, entry_name, hex_bytes, moment, token},
    author::{AuthorArgs, AuthorityArgs, StatementAuthor},
    failure::{CommandResult, Failure},
};

/// Allow an agent some acts in a task, for a limited time
///
/// An authority signs the grant. The subject of --parent may pass on a part of that grant with --key: every
/// bound must lie within the parent's, and the new subject must accept the grant (`deed accept`). Actions
/// and resources are exact, or prefixes that end in /*.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed grant --task 0001..0f --subject spiffe://example.org/agent \\
       --action payments.refund --resource 'order/*' --expires 1h \\
       --uses 3 --amount 5000 --currency EUR
  deed grant --key agent.pem --parent 12 --subject spiffe://example.org/helper \\
       --action payments.refund --resource order/7 --expires 10m --uses 1 \\
       --amount 2000 --currency EUR")]
pub(crate) struct MakeGrant {
    /// The task: 32 hex digits [default: the parent's]
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>,
          required_unless_present = "parent")]
    task: Option<[u8; 16]>,
    /// Producer that may act
    #[arg(long, value_name = "URI")]
    subject: String,
    /// Only with this key: its id, 32 hex digits
    #[arg(long, value_name = "KEYID", value_parser = hex_bytes::<16>)]
    subject_key: Option<[u8; 16]>,
    /// Action that the subject may take; up to 64 times
    #[arg(long, value_name = "ACTION", required = true)]
    action: Vec<String>,
    /// Resource that it may act on; up to 64 times
    #[arg(long, value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// Start: a time, or a duration from now [default: at once]
    #[arg(long, value_name = "TIME")]
    not_before: Option<When>,
    /// End: a time, or a duration from now
    #[arg(long, value_name = "TIME")]
    expires: When,
    /// Largest number of acts [default: any number]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    uses: u64,
    #[command(flatten)]
    amount: AmountArgs,
    /// The grant that this is a part of, by leaf index or leaf hash
    #[arg(long, value_name = "LEAF|HASH", value_parser = entry_name)]
    parent: Option<EntryName>,
    /// Credential of another system that this grant covers, by kind and id; never the credential itself
    #[arg(long, value_name = "KIND:ID", value_parser = token)]
    outside_token: Option<(String, String)>,
    /// Producer that carries out the acts and may report their Outcomes, besides the agent; up to 16
    /// times
    #[arg(long, value_name = "URI")]
    gateway: Vec<String>,
    #[command(flatten)]
    author: AuthorArgs,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// Accept a grant that was passed on to you
///
/// A grant that was passed on has no effect until its subject accepts it, so nobody becomes responsible
/// without knowing.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed accept 13 --key helper.pem")]
pub(crate) struct Accept {
    /// The grant, by leaf index or leaf hash
    #[arg(value_name = "LEAF|HASH", value_parser = entry_name)]
    grant: EntryName,
    #[command(flatten)]
    author: AuthorArgs,
}

/// End a grant and all grants that derive from it
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed revoke 12 --reason \"the order was cancelled\"")]
pub(crate) struct Revoke {
    /// The grant, by leaf index or leaf hash
    #[arg(value_name = "LEAF|HASH", value_parser = entry_name)]
    grant: EntryName,
    /// Reason, for readers of the log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

impl MakeGrant {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let parent = match self.parent {
            Some(parent) => Some(parent.grant(&ledger).await?),
            None => None,
        };
        let task = match (self.task, &parent) {
            (Some(task), _) => TaskId::new(task),
            (None, Some(parent)) => task_of(parent)?,
            (None, None) => return Err(Failure::usage("name a task with --task")),
        };
        let body = Body::Grant(self.body(parent.as_ref())?);
        let mut author = self
            .author
            .open_or(&self.authority, global, &ledger)
            .await?;
        let receipt = author.record_in_task(Some(task), body).await?;
        receipt.print(global)
    }

    fn body(&self, parent: Option<&ProvenStatement>) -> CommandResult<v1::Grant> {
        let not_before = self.not_before.map(|when| moment("--not-before", when));
        let token = self.outside_token.clone();
        Ok(v1::Grant {
            subject: self.subject.clone(),
            subject_key: self
                .subject_key
                .map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key)),
            actions: ascending(&self.action),
            resources: ascending(&self.resource),
            not_before_us: not_before.transpose()?.map_or(0, Micros::get),
            expires_us: moment("--expires", self.expires)?.get(),
            uses: self.uses,
            amount: self.amount.amount(),
            parent: parent.map_or_else(Bytes::new, |parent| {
                Bytes::copy_from_slice(parent.hash.as_bytes())
            }),
            outside_token: token.map(|(kind, value)| v1::OutsideToken {
                kind,
                value,
                key_thumbprint: Bytes::new(),
            }),
            gateways: ascending(&self.gateway),
        })
    }
}

impl Accept {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let grant = self.grant.grant(&ledger).await?;
        let mut author = self.author.open(global, &ledger).await?;
        let body = Body::GrantAccepted(v1::GrantAccepted {
            grant: Bytes::copy_from_slice(grant.hash.as_bytes()),
        });
        let receipt = author.record_in_task(Some(task_of(&grant)?), body).await?;
        receipt.print(global)
    }
}

impl Revoke {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let grant = self.grant.grant(&ledger).await?;
        let mut author = StatementAuthor::authority(&self.authority, global, &ledger).await?;
        let body = Body::Revocation(v1::Revocation {
            grant: Bytes::copy_from_slice(grant.hash.as_bytes()),
            reason: self.reason.clone(),
        });
        let receipt = author.record_in_task(Some(task_of(&grant)?), body).await?;
        receipt.print(global)
    }
}

/// Every grant names a task.
fn task_of(grant: &ProvenStatement) -> CommandResult<TaskId> {
    grant
        .task()
        .ok_or_else(|| Failure::does_not_verify("the grant names no task"))
}
