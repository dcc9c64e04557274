//! `deed principal`, `deed authority`, `deed retention` and `deed hold`: the ledger's rules.

use std::collections::{HashMap, hash_map};

use bytes::Bytes;
use clap::{Args, Subcommand};
use deed_client::ProvenTrust;
use deed_evidence::{
    Micros,
    entry::Entry,
    trust::{HoldScope, TrustStatement},
    uri,
};
use deed_proto::v1::{self, legal_hold_placed::Scope, statement::Body};
use serde::Serialize;

use super::authority::{AuthorityArgs, RecordedJson, authority_key, kept_authority, now};
use crate::cli::{Failure, Global, Outcome, Output, Span, When, folded, shown, shown_span, tell};

#[derive(Subcommand)]
pub(crate) enum Principals {
    Bind(Bind),
    Unbind(Unbind),
    /// List which principal may deliver whose statements, verified
    List,
}

/// Let a principal deliver a producer's statements
///
/// The principal is who the server finds behind a connection: a client certificate's SPIFFE ID or
/// subject, or a token's principal. Binding the same two again replaces the end.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed principal bind --principal gateway-7 \\
       --producer spiffe://example.org/agent --until 90d")]
pub(crate) struct Bind {
    /// Who delivers, as the server names it
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// Whose statements
    #[arg(long, value_name = "URI")]
    producer: String,
    /// When it ends: a time, or a duration from now [default: never]
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// End a binding at once
#[derive(Args)]
pub(crate) struct Unbind {
    /// Who delivered
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// Whose statements
    #[arg(long, value_name = "URI")]
    producer: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

#[derive(Subcommand)]
pub(crate) enum Authorities {
    Set(SetAuthorities),
}

/// Replace the ledger's authority keys
///
/// These keys, and no others, sign trust statements from here on. What the keys before them said
/// stays as it was.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed authority set owner.pub second.pub --reason \"second owner\"")]
pub(crate) struct SetAuthorities {
    /// Public Ed25519 keys in hex, or files that hold them: 1 to 16
    #[arg(value_name = "HEX|FILE", required = true)]
    keys: Vec<String>,
    /// Why, for those who read the log
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

#[derive(Subcommand)]
pub(crate) enum Retention {
    Set(SetRetention),
    /// Show how long contents are kept at least, verified
    Show,
}

/// Set how long contents are kept at least
///
/// Counts from the moment when a statement with the content was recorded; until then the content
/// cannot be erased.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed retention set 180d --reason \"six months of evidence\"
  deed retention set none")]
pub(crate) struct SetRetention {
    /// For example 180d; none ends the floor
    #[arg(value_name = "DURATION|none", value_parser = floor)]
    floor: Floor,
    /// Why, for those who read the log
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// How long contents are kept at least; `None` for no floor.
#[derive(Debug, Clone, Copy)]
struct Floor(Option<Span>);

#[derive(Subcommand)]
pub(crate) enum Holds {
    Place(Place),
    Release(Release),
    /// List the legal holds in force, verified
    List,
}

/// Place a legal hold: contents cannot be erased until it is released
///
/// Covers the whole ledger, unless a task or a content is named. The hold's id is made here.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed hold place --task 000102030405060708090a0b0c0d0e0f --reason \"case 26-117\"
  deed hold release 5f0c... --reason \"case closed\"")]
pub(crate) struct Place {
    /// Only contents of this task's statements: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>, conflicts_with = "commitment")]
    task: Option<[u8; 16]>,
    /// Only the content with this digest: 64 hex digits
    #[arg(long, value_name = "DIGEST", value_parser = hex_bytes::<32>)]
    commitment: Option<[u8; 32]>,
    /// Why, for those who read the log
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
    /// Why, for those who read the log
    #[arg(long)]
    reason: String,
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

#[derive(Serialize)]
struct PlacedJson {
    hold: String,
    #[serde(flatten)]
    recorded: RecordedJson,
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

#[derive(Serialize)]
struct RetentionJson {
    floor_us: i64,
    floor: String,
}

impl Principals {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        match self {
            Self::Bind(bind) => bind.run(global).await,
            Self::Unbind(unbind) => unbind.run(global).await,
            Self::List => list_bindings(global).await,
        }
    }
}

impl Bind {
    async fn run(&self, global: &Global) -> Outcome {
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
    async fn run(&self, global: &Global) -> Outcome {
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
        Output::new(global).print(&recorded, |recorded| {
            format!("no longer bound\n{}", recorded.text())
        })
    }
}

impl Authorities {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        match self {
            Self::Set(set) => set.run(global).await,
        }
    }
}

impl SetAuthorities {
    async fn run(&self, global: &Global) -> Outcome {
        let mut keys = self
            .keys
            .iter()
            .map(|key| authority_key(key))
            .collect::<Outcome<Vec<_>>>()?;
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
            tell("none of the new keys is kept here: give one with --authority-key from now on");
        }
        Output::new(global).print(&recorded, |recorded| {
            format!(
                "{} authorities from here on\n{}",
                keys.len(),
                recorded.text()
            )
        })
    }
}

impl Retention {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        match self {
            Self::Set(set) => set.run(global).await,
            Self::Show => show_retention(global).await,
        }
    }
}

impl SetRetention {
    async fn run(&self, global: &Global) -> Outcome {
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

async fn show_retention(global: &Global) -> Outcome {
    let ledger = global.connect().await?;
    let trust = ledger.trust_chain().await?;
    ledger.flush().await?;
    let floor_us = trust.registry.retention_floor_us();
    let floor = shown_span(floor_us);
    Output::new(global).print(&RetentionJson { floor_us, floor }, |json| {
        json.floor.clone()
    })
}

impl Holds {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        match self {
            Self::Place(place) => place.run(global).await,
            Self::Release(release) => release.run(global).await,
            Self::List => list_holds(global).await,
        }
    }
}

impl Place {
    async fn run(&self, global: &Global) -> Outcome {
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
        Output::new(global).print(&json, |json| {
            format!("hold       {}\n{}", json.hold, json.recorded.text())
        })
    }
}

impl Release {
    async fn run(&self, global: &Global) -> Outcome {
        let body = Body::LegalHoldReleased(v1::LegalHoldReleased {
            hold: Bytes::copy_from_slice(&self.hold),
            reason: self.reason.clone(),
        });
        self.authority.record(global, body, "released").await
    }
}

async fn list_holds(global: &Global) -> Outcome {
    let ledger = global.connect().await?;
    let trust = ledger.trust_chain().await?;
    ledger.flush().await?;
    let output = Output::new(global);
    let mut none = true;
    for hold in trust.registry.holds() {
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

/// Why a hold was placed. A verified chain has its statement.
fn reason_at(trust: &ProvenTrust, leaf: u64) -> Outcome<String> {
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

async fn list_bindings(global: &Global) -> Outcome {
    let ledger = global.connect().await?;
    let trust = ledger.trust_chain().await?;
    ledger.flush().await?;
    let output = Output::new(global);
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

/// What was said last about each principal and producer, in the order of their first binding.
fn bindings(trust: &ProvenTrust) -> Outcome<Vec<BindingJson>> {
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

/// A time of the command line, where a duration counts from now on.
pub(super) fn moment(option: &'static str, when: When) -> Outcome<Micros> {
    when.after(now())
        .map_err(|error| Failure::usage(format!("{option}: the time {error}")))
}

/// Exactly `N` bytes in hex.
pub(super) fn hex_bytes<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| format!("must be {} hex digits", 2 * N))?;
    Ok(bytes)
}

/// A producer as the ledger takes it, in its canonical form. (A `deed:` URI is refused elsewhere.)
pub(super) fn producer(text: &str) -> Result<String, String> {
    in_form(text, uri::canonical(text), "a URI")
}

/// A controller as the ledger takes it.
pub(super) fn controller(text: &str) -> Result<String, String> {
    let form = uri::canonical_controller(text);
    in_form(text, form, "an https or spiffe URI with a host")
}

fn in_form(text: &str, form: Option<String>, wanted: &str) -> Result<String, String> {
    match form {
        Some(form) if form == text => Ok(form),
        Some(form) => Err(format!("is not in canonical form; {form} would be taken")),
        None => Err(format!("must be {wanted}")),
    }
}

fn floor(text: &str) -> Result<Floor, String> {
    if text == "none" {
        return Ok(Floor(None));
    }
    let span: Span = text
        .parse()
        .map_err(|error: crate::cli::TimeError| format!("it {error}, or none"))?;
    match span.us() {
        0 => Err("a floor of nothing is none: say none".to_owned()),
        _ => Ok(Floor(Some(span))),
    }
}
