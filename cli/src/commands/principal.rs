//! `deed principal`

use std::collections::{HashMap, hash_map};

use clap::{Args, Subcommand};
use deed_client::ProvenTrust;
use deed_evidence::{Micros, entry::Entry, trust::TrustStatement};
use deed_proto::v1::{self, statement::Body};
use serde::Serialize;

use crate::{
    args::{Global, When, moment, now},
    author::AuthorityArgs,
    failure::{CommandResult, Failure},
    render::{folded, shown},
};

#[derive(Subcommand)]
pub(crate) enum Principals {
    Bind(Bind),
    Unbind(Unbind),
    /// List the principals and the producers whose statements they may deliver, verified
    List,
}

/// Let a principal deliver a producer's statements
///
/// The principal is the caller that the server authenticates: the SPIFFE ID or subject of a client
/// certificate, or the principal of a token. Binding the same pair again replaces the end time.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed principal bind --principal gateway-7 \\
       --producer spiffe://example.org/agent --until 90d")]
pub(crate) struct Bind {
    /// Principal that delivers, as the server names it
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// Producer of the statements
    #[arg(long, value_name = "URI")]
    producer: String,
    /// End: a time, or a duration from now [default: never]
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// End a binding at once
#[derive(Args)]
pub(crate) struct Unbind {
    /// Principal that delivered
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// Producer of the statements
    #[arg(long, value_name = "URI")]
    producer: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

#[derive(Serialize)]
struct BindingJson {
    principal: String,
    producer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    in_force: bool,
    leaf_index: u64,
}

impl Principals {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Bind(bind) => bind.run(global).await,
            Self::Unbind(unbind) => unbind.run(global).await,
            Self::List => list_bindings(global).await,
        }
    }
}

impl Bind {
    async fn run(&self, global: &Global) -> CommandResult {
        let until = self
            .until
            .map(|until| moment("--until", until))
            .transpose()?;
        let body = Body::PrincipalBound(v1::PrincipalBound {
            principal: self.principal.clone(),
            producer: self.producer.clone(),
            valid_until_us: until.map_or(0, Micros::get),
        });
        let ends = until.map_or_else(String::new, |until| format!(" until {}", shown(until)));
        let what = format!("bound{ends}");
        self.authority.record(global, body, &what).await
    }
}

impl Unbind {
    async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let bindings = bindings(&ledger.trust_chain().await?)?;
        let ends = bindings.iter().any(|binding| {
            binding.in_force
                && binding.principal == self.principal
                && binding.producer == self.producer
        });
        if !ends {
            return Err(Failure::usage(
                "this principal is not bound to this producer; `deed principal list` shows who is",
            ));
        }
        let body = Body::PrincipalBound(v1::PrincipalBound {
            principal: self.principal.clone(),
            producer: self.producer.clone(),
            // Long past: at once.
            valid_until_us: 1,
        });
        let recorded = self.authority.record_in(global, &ledger, body).await?;
        global.output().print(&recorded, |recorded| {
            format!("no longer bound\n{}", recorded.text())
        })
    }
}

async fn list_bindings(global: &Global) -> CommandResult {
    let ledger = global.connect().await?;
    let trust = ledger.trust_chain().await?;
    ledger.flush().await?;
    let output = global.output();
    let bindings = bindings(&trust)?;
    if bindings.is_empty() && !global.json {
        return output.line("no principals are bound");
    }
    for binding in bindings {
        output.print(&binding, |binding| {
            let state = match (&binding.valid_until, binding.in_force) {
                (None, _) => "in force".to_owned(),
                (Some(until), true) => format!("in force until {until}"),
                (Some(_), false) => "ended".to_owned(),
            };
            format!(
                "{state}\n{}\n{}\n{}",
                folded("principal", &binding.principal),
                folded("producer", &binding.producer),
                folded("bound", &format!("leaf {}", binding.leaf_index))
            )
        })?;
    }
    Ok(())
}

/// Returns the newest binding of each principal and producer, in the order of their first one.
fn bindings(trust: &ProvenTrust) -> CommandResult<Vec<BindingJson>> {
    let mut bindings: Vec<BindingJson> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let now = now();
    // The genesis entry comes first and binds nobody.
    for (index, bytes) in trust.entries.iter().skip(1) {
        let entry =
            Entry::parse(bytes).map_err(|error| Failure::does_not_verify(error.to_string()))?;
        let statement = TrustStatement::parse(entry.payload)
            .map_err(|error| Failure::does_not_verify(error.to_string()))?;
        let Some(TrustStatement::PrincipalBound {
            principal,
            producer,
            valid_until,
        }) = statement
        else {
            continue;
        };
        let binding = BindingJson {
            principal,
            producer,
            valid_until: (valid_until != Micros::MAX).then(|| shown(valid_until)),
            in_force: now < valid_until,
            leaf_index: index.get(),
        };
        let both = (binding.principal.clone(), binding.producer.clone());
        match places.entry(both) {
            hash_map::Entry::Occupied(place) => bindings[*place.get()] = binding,
            hash_map::Entry::Vacant(place) => {
                place.insert(bindings.len());
                bindings.push(binding);
            }
        }
    }
    Ok(bindings)
}
