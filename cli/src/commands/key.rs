//! `deed key register|possess|revoke|list`
//!
//! The holder of a key and the authority that registers it are often two. The holder proves possession with
//! `deed key possess`; the proof is one line of JSON, which names everything that was signed:
//!
//! ```json
//! {"ledger_id":"<64 hex>","public_key":"<64 hex>","role":"agent","producer":"<URI>",
//!  "controller":"<URI>","possession":"<128 hex>"}
//! ```
//!
//! The proof is valid for this ledger, role, producer and controller only, and is no secret.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use deed_client::key::{self, KeyFileError};
use deed_evidence::{
    KeyId, LedgerId, Micros,
    signature::{self, Possession},
    trust::KeyRecord,
};
use deed_proto::v1::{self, KeyRole, statement::Body};
use deed_tlog::{Hash, LeafIndex, PublicKey, SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    args::{Global, When, ascending, controller, hex_bytes, moment, now},
    author::{AuthorityArgs, TrustReceiptJson},
    failure::{CommandResult, Failure},
    files::write_file,
    render::{folded, report, shown, to_json, trust_words},
};

#[derive(Subcommand)]
pub(crate) enum Keys {
    Register(Register),
    Possess(Possess),
    Revoke(Revoke),
    List(List),
}

/// The options that a proof of possession names.
#[derive(Args)]
struct Claim {
    /// Role of the key
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// Producer that the key signs for: a URI in canonical form
    #[arg(long, value_name = "URI")]
    producer: String,
    /// Person or organisation behind the key: an https or spiffe URI in canonical form. Evidence is
    /// independent if the controllers differ, so name the same level (department or company) for all
    /// keys
    #[arg(long, value_name = "URI", value_parser = controller)]
    controller: String,
}

/// Register the key of a producer
///
/// An authority signs the registration. It needs a proof that somebody holds the private key: the command
/// makes the proof if FILE is the private key; otherwise the holder makes it with `deed key possess`. From
/// then on the ledger takes the producer's statements only with a signature. A key can be registered once.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed key register agent.pem --role agent \\
       --producer spiffe://example.org/agent --controller https://example.org
  deed key register agent.pub --possession agent.possession --role agent \\
       --producer spiffe://example.org/agent --controller https://example.org
  deed key register bank.pub --possession bank.possession \\
       --role downstream-system --producer https://bank.example/refunds \\
       --controller https://bank.example \\
       --resource 'accounts/*' --resource 'order/*'")]
pub(crate) struct Register {
    /// File of the key, private or public, or the public key as 64 hex digits
    #[arg(value_name = "PUBLIC|FILE")]
    key: String,
    #[command(flatten)]
    claim: Claim,
    /// Start: a time, or a duration from now [default: at once]
    #[arg(long, value_name = "TIME")]
    valid_from: Option<When>,
    /// End: a time, or a duration from now [default: never]
    #[arg(long, value_name = "TIME")]
    valid_until: Option<When>,
    /// File that `deed key possess` wrote
    #[arg(long, value_name = "FILE")]
    possession: Option<PathBuf>,
    /// Producer for which this key acts as a gateway; up to 64 times
    #[arg(long, value_name = "URI")]
    acts_for: Vec<String>,
    /// Resource that belongs to this downstream system: a name, a prefix that ends in /*, or * for all;
    /// up to 64 times
    #[arg(
        long,
        value_name = "RESOURCE",
        required_if_eq("role", "downstream-system")
    )]
    resource: Vec<String>,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// Prove that you hold a key, for an authority to register it
///
/// The holder of the key runs this. The proof is one line of JSON and no secret. It is valid only for this
/// ledger, key, role, producer and controller.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed key possess agent.pem --role agent \\
       --producer spiffe://example.org/agent \\
       --controller https://example.org > agent.possession")]
pub(crate) struct Possess {
    /// File of the private key
    #[arg(value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    claim: Claim,
    /// The ledger's id, instead of asking the server for it
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<32>)]
    ledger_id: Option<[u8; 32]>,
    /// File for the proof [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Revoke a key
///
/// From then on the ledger takes nothing that the key signed. Earlier statements stay; those since
/// --compromised-since count as doubtful.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed key revoke 56475aa75463474c0285df5dbf2bcab7 --compromised-since 3d \\
       --reason \"laptop stolen\"")]
pub(crate) struct Revoke {
    /// The key's id: 32 hex digits
    #[arg(value_name = "KEYID", value_parser = hex_bytes::<16>)]
    key_id: [u8; 16],
    /// Time since which somebody else may have had the key: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    compromised_since: Option<When>,
    /// Reason, for readers of the log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

/// List the ledger's keys, recomputed from its trust statements
///
/// Lists the authorities first, then the registered keys in the order of their registration. The trust
/// statements are verified, and that none is missing between them. The clock of this machine decides
/// whether a key is in force.
#[derive(Args)]
pub(crate) struct List {
    /// Only keys of this producer
    #[arg(long, value_name = "URI")]
    producer: Option<String>,
}

/// The role of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Role {
    /// An agent, or the gateway that acts for it
    Agent,
    /// A person or a body that approves acts
    Approver,
    /// A policy engine that decides about acts
    PolicyEngine,
    /// A system in which acts take effect
    DownstreamSystem,
    /// A platform that runs agents, and opens and closes their tasks
    Platform,
    /// An importer of records of other systems
    Importer,
}

impl From<Role> for KeyRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Agent => Self::Agent,
            Role::Approver => Self::Approver,
            Role::PolicyEngine => Self::PolicyEngine,
            Role::DownstreamSystem => Self::DownstreamSystem,
            Role::Platform => Self::Platform,
            Role::Importer => Self::Importer,
        }
    }
}

/// A proof of possession as it travels: see the head of this file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PossessionJson {
    ledger_id: String,
    public_key: String,
    role: Role,
    producer: String,
    controller: String,
    possession: String,
}

#[derive(Serialize)]
struct RegisteredJson {
    key_id: String,
    #[serde(flatten)]
    recorded: TrustReceiptJson,
}

impl Keys {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Register(register) => register.run(global).await,
            Self::Possess(possess) => possess.run(global).await,
            Self::Revoke(revoke) => revoke.run(global).await,
            Self::List(list) => list.run(global).await,
        }
    }
}

impl Claim {
    fn possession_of<'a>(&'a self, ledger_id: LedgerId, key: &'a PublicKey) -> Possession<'a> {
        Possession {
            ledger_id,
            public_key: key.as_bytes(),
            role: self.role.into(),
            producer: &self.producer,
            controller: &self.controller,
        }
    }
}

impl Register {
    async fn run(&self, global: &Global) -> CommandResult {
        let given = Given::read(&self.key)?;
        let optional = |option, when: Option<When>| {
            let at = when.map(|when| moment(option, when)).transpose()?;
            Ok::<_, Failure>(at.map_or(0, Micros::get))
        };
        let valid_from_us = optional("--valid-from", self.valid_from)?;
        let valid_until_us = optional("--valid-until", self.valid_until)?;
        let proof = self
            .possession
            .as_deref()
            .map(read_possession)
            .transpose()?;
        if proof.is_none() && given.private().is_none() {
            return Err(Failure::usage(
                "with a public key, its holder's proof of possession is needed: give what \
                 `deed key possess` wrote with --possession",
            ));
        }
        let ledger = global.connect().await?;
        let public = given.public();
        let possession = match (&proof, given.private()) {
            (Some(proof), _) => self.check(proof, ledger.ledger_id(), public)?,
            (None, Some(key)) => self
                .claim
                .possession_of(ledger.ledger_id(), public)
                .sign(key),
            // Refused above.
            (None, None) => return Err(Failure::usage("no proof of possession")),
        };
        let copied = Bytes::copy_from_slice;
        let body = Body::KeyRegistered(v1::KeyRegistered {
            public_key: copied(public.as_bytes()),
            role: KeyRole::from(self.claim.role).into(),
            producer: self.claim.producer.clone(),
            controller: self.claim.controller.clone(),
            valid_from_us,
            valid_until_us,
            possession: copied(&possession),
            acts_for: ascending(&self.acts_for),
            resources: ascending(&self.resource),
        });
        let json = RegisteredJson {
            key_id: signature::key_id(public).to_string(),
            recorded: self.authority.record_in(global, &ledger, body).await?,
        };
        global.output().print(&json, |json| {
            format!("key id     {}\n{}", json.key_id, json.recorded.text())
        })
    }

    /// The proof must be of exactly what is to be registered: an authority says what it means, and
    /// does not sign what somebody sent.
    fn check(
        &self,
        proof: &PossessionJson,
        ledger_id: LedgerId,
        public: &PublicKey,
    ) -> CommandResult<[u8; 64]> {
        let role = |role: Role| name(role.into()).to_owned();
        for (what, proven, wanted) in [
            ("ledger id", proof.ledger_id.clone(), ledger_id.to_string()),
            (
                "key",
                proof.public_key.clone(),
                hex::encode(public.as_bytes()),
            ),
            ("role", role(proof.role), role(self.claim.role)),
            (
                "producer",
                proof.producer.clone(),
                self.claim.producer.clone(),
            ),
            (
                "controller",
                proof.controller.clone(),
                self.claim.controller.clone(),
            ),
        ] {
            if proven != wanted {
                return Err(Failure::usage(format!(
                    "the proof of possession is for another {what} ({proven}, not {wanted}); have \
                     its holder make one for what is to be registered"
                )));
            }
        }
        let mut possession = [0; 64];
        hex::decode_to_slice(&proof.possession, &mut possession)
            .map_err(|_| Failure::usage("the proof's possession is not 128 hex digits"))?;
        self.claim
            .possession_of(ledger_id, public)
            .verify(&possession)
            .map_err(|error| {
                Failure::does_not_verify(error.to_string()).context("the proof of possession")
            })?;
        Ok(possession)
    }
}

impl Possess {
    async fn run(&self, global: &Global) -> CommandResult {
        let key = key::read_private(&self.key).map_err(|error| Failure::Usage(error.into()))?;
        let ledger_id = match self.ledger_id {
            Some(id) => LedgerId::new(Hash::new(id)),
            None => {
                let ledger = global.connect().await?;
                ledger.flush().await?;
                ledger.ledger_id()
            }
        };
        let possession = self.claim.possession_of(ledger_id, key.public_key());
        let json = to_json(&PossessionJson {
            ledger_id: ledger_id.to_string(),
            public_key: hex::encode(key.public_key().as_bytes()),
            role: self.claim.role,
            producer: self.claim.producer.clone(),
            controller: self.claim.controller.clone(),
            possession: hex::encode(possession.sign(&key)),
        })?;
        match &self.out {
            Some(path) => write_file(path, format!("{json}\n").as_bytes()),
            None => global.output().line(&json),
        }
    }
}

impl Revoke {
    async fn run(&self, global: &Global) -> CommandResult {
        let since = self.compromised_since.map(|since| {
            let since = since.before(now());
            since.map_err(|error| Failure::usage(format!("--compromised-since: the time {error}")))
        });
        let body = Body::KeyRevoked(v1::KeyRevoked {
            key_id: Bytes::copy_from_slice(&self.key_id),
            compromised_since_us: since.transpose()?.map(Micros::get),
            reason: self.reason.clone(),
        });
        let what = format!("revoked    {}", KeyId::new(self.key_id));
        self.authority.record(global, body, &what).await
    }
}

/// A key as it was given.
enum Given {
    Private(Box<SigningKey>),
    Public(PublicKey),
}

impl Given {
    /// A private key must be its owner's alone to read; a public one need not.
    fn read(argument: &str) -> CommandResult<Self> {
        let file = |error: KeyFileError| Failure::Usage(error.into());
        let path = Path::new(argument);
        let is_hex = argument.len() == 64 && argument.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex {
            return crate::args::public_key(argument).map(Self::Public);
        }
        match key::read_secret(path) {
            Ok(text) => match key::parse_private(&text) {
                Ok(key) => Ok(Self::Private(Box::new(key))),
                Err(_) => key::parse_public(&text)
                    .map(Self::Public)
                    .map_err(|source| {
                        file(KeyFileError::Key {
                            path: path.to_owned(),
                            source,
                        })
                    }),
            },
            Err(error @ KeyFileError::Readable { .. }) => {
                let text = read_some(path)?;
                if key::parse_private(&text).is_ok() {
                    return Err(file(error));
                }
                key::read_public(path).map(Self::Public).map_err(file)
            }
            Err(error) => Err(file(error)),
        }
    }

    fn public(&self) -> &PublicKey {
        match self {
            Self::Private(key) => key.public_key(),
            Self::Public(key) => key,
        }
    }

    const fn private(&self) -> Option<&SigningKey> {
        match self {
            Self::Private(key) => Some(key),
            Self::Public(_) => None,
        }
    }
}

/// Longest proof of possession, or key file, that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024;

fn read_some(path: &Path) -> CommandResult<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read =
        fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let what = format!("cannot read {}", path.display());
            Err(Failure::Usage(anyhow::Error::new(error).context(what)))
        }
    }
}

fn read_possession(path: &Path) -> CommandResult<PossessionJson> {
    serde_json::from_str(&read_some(path)?).map_err(|error| {
        Failure::usage(format!(
            "{} is no proof of possession as `deed key possess` writes it: {error}",
            path.display()
        ))
    })
}

/// A key of the ledger; times in RFC 3339.
#[derive(Serialize)]
struct KeyJson {
    key_id: String,
    public_key: String,
    role: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compromised_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered_leaf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_leaf: Option<u64>,
}

impl List {
    async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let trust = ledger.trust_chain().await?;
        ledger.flush().await?;
        let output = global.output();
        if !global.json {
            output.line(&format!("{:<32}  {:<17}  STATE", "KEY ID", "ROLE"))?;
        }
        if self.producer.is_none() {
            for (key_id, key) in trust.state.authorities() {
                output.print(&KeyJson::authority(key_id, key), KeyJson::text)?;
            }
        }
        let mut keys: Vec<_> = trust.state.keys().collect();
        keys.retain(|key| {
            self.producer
                .as_ref()
                .is_none_or(|wanted| *wanted == key.producer)
        });
        keys.sort_by_key(|key| key.registered_leaf);
        let now = now();
        for key in keys {
            output.print(&KeyJson::registered(key, now), KeyJson::text)?;
        }
        if !global.json {
            report(&trust_words(ledger.newest_trust().map(LeafIndex::get)));
        }
        Ok(())
    }
}

impl KeyJson {
    fn authority(key_id: KeyId, key: &PublicKey) -> Self {
        Self {
            key_id: key_id.to_string(),
            public_key: hex::encode(key.as_bytes()),
            role: "authority",
            state: "in force",
            producer: None,
            controller: None,
            valid_from: None,
            valid_until: None,
            revoked_at: None,
            compromised_since: None,
            registered_leaf: None,
            revoked_leaf: None,
        }
    }

    fn registered(key: &KeyRecord, now: Micros) -> Self {
        Self {
            key_id: key.key_id.to_string(),
            public_key: hex::encode(key.public_key.as_bytes()),
            role: name(key.role),
            state: if key.revoked_at.is_some() {
                "revoked"
            } else if now < key.valid_from {
                "not yet"
            } else if now >= key.valid_until {
                "ended"
            } else {
                "in force"
            },
            producer: Some(key.producer.clone()),
            controller: Some(key.controller.clone()),
            valid_from: (key.valid_from > Micros::new(0)).then(|| shown(key.valid_from)),
            valid_until: (key.valid_until < Micros::MAX).then(|| shown(key.valid_until)),
            revoked_at: key.revoked_at.map(shown),
            compromised_since: key.compromised_since.map(shown),
            registered_leaf: Some(key.registered_leaf.get()),
            revoked_leaf: key.revoked_leaf.map(LeafIndex::get),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{:<32}  {:<17}  {}", self.key_id, self.role, self.state);
        let leaf = |leaf: Option<u64>| leaf.map(|leaf| format!("leaf {leaf}"));
        let revoked = self.revoked_at.as_ref().zip(leaf(self.revoked_leaf));
        for (name, value) in [
            ("producer", self.producer.clone()),
            ("controller", self.controller.clone()),
            ("registered", leaf(self.registered_leaf)),
            ("from", self.valid_from.clone()),
            ("until", self.valid_until.clone()),
            ("revoked", revoked.map(|(at, leaf)| format!("{at}, {leaf}"))),
            ("compromised", self.compromised_since.clone()),
        ] {
            if let Some(value) = value {
                text.push('\n');
                text.push_str(&folded(name, &value));
            }
        }
        text
    }
}

/// A role's name, as it is given on the command line.
const fn name(role: KeyRole) -> &'static str {
    match role {
        KeyRole::Agent => "agent",
        KeyRole::Approver => "approver",
        KeyRole::PolicyEngine => "policy-engine",
        KeyRole::DownstreamSystem => "downstream-system",
        KeyRole::Platform => "platform",
        KeyRole::Importer => "importer",
        KeyRole::Unspecified => "unspecified",
    }
}
