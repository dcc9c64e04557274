//! Who speaks in a command that says one thing.

mod own;

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use deed_client::{Basis, Header, Ledger, ProvenTrust, Receipt, Signing, key};
use deed_evidence::{KeyId, Sequence, SessionId, TaskId, signature, statement::AUTHORITY_PRODUCER};
use deed_proto::v1::statement::Body;
use deed_tlog::SigningKey;
use serde::Serialize;

use super::{
    authority::{Authority, AuthorityArgs, now},
    committing::Committing,
    findings::FindingJson,
    receipts::from_the_future,
};
use crate::cli::{Failure, Global, Outcome, printable, tell};
use own::Own;

/// Who speaks.
#[derive(Args)]
pub(super) struct WhoArgs {
    /// Private key to sign with; it also says who speaks (deed keygen, deed key register)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Who speaks: a URI [default: for whom the key is registered]. Without a key it is a claim
    #[arg(long, value_name = "URI")]
    producer: Option<String>,
}

/// A producer, with the key that signs for it if there is one.
pub(super) struct Who {
    pub(super) producer: String,
    pub(super) key: Option<Arc<SigningKey>>,
}

/// Who speaks, and in which session.
#[derive(Args)]
pub(super) struct VoiceArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Go on with the session of this name, kept on disk, in place of a fresh one
    #[arg(long, value_name = "NAME",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    session: Option<String>,
}

/// Somebody who speaks in a ledger.
pub(super) struct Voice {
    ledger: Ledger,
    by: By,
}

enum By {
    Authority(Box<Authority>),
    Own(Box<Own>),
}

/// A statement that was recorded.
pub(super) struct Said {
    pub(super) receipt: Receipt,
    pub(super) producer: String,
    session: SessionId,
    sequence: Sequence,
    signed_by: Option<KeyId>,
}

#[derive(Serialize)]
pub(super) struct SaidJson {
    leaf_index: u64,
    leaf_hash: String,
    received_at_us: i64,
    producer: String,
    session: String,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingJson>,
}

impl WhoArgs {
    /// Whether it says who speaks.
    pub(super) const fn is_given(&self) -> bool {
        self.key.is_some() || self.producer.is_some()
    }

    /// The producer that the key or `--producer` names.
    pub(super) async fn required(&self, ledger: &Ledger) -> Outcome<Who> {
        let who = self.who(ledger).await?;
        who.ok_or_else(|| {
            Failure::usage(
                "say who speaks: --key FILE signs, --producer URI is a claim without a signature",
            )
        })
    }

    async fn who(&self, ledger: &Ledger) -> Outcome<Option<Who>> {
        let Some(path) = &self.key else {
            let producer = self.producer.clone();
            return Ok(producer.map(|producer| Who {
                producer,
                key: None,
            }));
        };
        let key = key::read_private(path).map_err(|error| Failure::Usage(error.into()))?;
        let trust = ledger.trust_chain().await?;
        let producer = speaks_for(&trust, &key, self.producer.as_deref())?;
        Ok(Some(Who {
            producer,
            key: Some(Arc::new(key)),
        }))
    }
}

impl VoiceArgs {
    /// The producer that the key or `--producer` names.
    pub(super) async fn open(&self, global: &Global, ledger: &Ledger) -> Outcome<Voice> {
        let who = self.who.required(ledger).await?;
        self.voice(who, global, ledger).await
    }

    /// The same, or an authority if neither is given.
    pub(super) async fn open_or(
        &self,
        authority: &AuthorityArgs,
        global: &Global,
        ledger: &Ledger,
    ) -> Outcome<Voice> {
        if let Some(who) = self.who.who(ledger).await? {
            return self.voice(who, global, ledger).await;
        }
        if self.session.is_some() {
            return Err(Failure::usage(
                "an authority has a session of its own; --session goes with --key or --producer",
            ));
        }
        Voice::authority(authority, global, ledger).await
    }

    async fn voice(&self, who: Who, global: &Global, ledger: &Ledger) -> Outcome<Voice> {
        let signing = who.key.map_or(Signing::None, Signing::Each);
        let name = self.session.as_deref();
        let mut own = Own::open(name, who.producer, signing, global, ledger)?;
        own.finish_earlier(ledger).await?;
        Ok(Voice {
            ledger: ledger.clone(),
            by: By::Own(Box::new(own)),
        })
    }
}

/// For whom a key speaks, by the ledger's own entries.
fn speaks_for(trust: &ProvenTrust, key: &SigningKey, named: Option<&str>) -> Outcome<String> {
    let id = signature::key_id(key.public_key());
    if trust.registry.is_authority(id).is_some() {
        return Ok(named.unwrap_or(AUTHORITY_PRODUCER).to_owned());
    }
    let Some(record) = trust.registry.key(id) else {
        return Err(Failure::usage(format!(
            "key {id} is not registered in this ledger; an authority does that (deed key register)"
        )));
    };
    let producer = named.unwrap_or(&record.producer);
    let spoken = trust.registry.speaks(id, producer, now());
    spoken.map_err(|refusal| Failure::usage(refusal.to_string()))?;
    Ok(producer.to_owned())
}

impl Voice {
    /// An authority of the ledger.
    pub(super) async fn authority(
        authority: &AuthorityArgs,
        global: &Global,
        ledger: &Ledger,
    ) -> Outcome<Self> {
        let authority = authority.open(global, ledger).await?;
        Ok(Self {
            ledger: ledger.clone(),
            by: By::Authority(Box::new(authority)),
        })
    }

    /// The producer that speaks.
    pub(super) fn producer(&self) -> &str {
        match &self.by {
            By::Authority(_) => AUTHORITY_PRODUCER,
            By::Own(own) => own.producer(),
        }
    }

    /// Commits to contents at the place of the next statement.
    pub(super) fn committing(&self, global: &Global) -> Outcome<Committing> {
        let (session, sequence) = match &self.by {
            By::Authority(authority) => authority.place(),
            By::Own(own) => own.place(),
        };
        Committing::at(&global.state()?, session, sequence)
    }

    /// Says something of a task, now.
    pub(super) async fn say_in(&mut self, task: Option<TaskId>, body: Body) -> Outcome<Said> {
        let header = Header {
            task,
            occurred_at: now(),
            ..Header::default()
        };
        self.say(&header, body, None).await
    }

    /// Has a statement recorded, with the contents that it commits to.
    pub(super) async fn say(
        &mut self,
        header: &Header<'_>,
        body: Body,
        contents: Option<Committing>,
    ) -> Outcome<Said> {
        let attachments = match contents {
            Some(contents) => contents.put_ahead(&self.ledger).await?,
            None => Vec::new(),
        };
        let said = match &mut self.by {
            By::Authority(authority) => {
                let (session, sequence) = authority.place();
                let (receipt, _) = authority.say(header, body).await?;
                Said {
                    receipt,
                    producer: AUTHORITY_PRODUCER.to_owned(),
                    session,
                    sequence,
                    signed_by: Some(authority.key_id()),
                }
            }
            By::Own(own) => own.say(&self.ledger, header, body, attachments).await?,
        };
        self.ledger.flush().await?;
        if let Some(warning) = from_the_future(said.receipt.received_at, now()) {
            tell(&warning);
        }
        Ok(said)
    }
}

impl Said {
    pub(super) fn json(&self) -> SaidJson {
        let assessed = self.receipt.assessed.as_ref();
        let findings = assessed.map_or(&[][..], |assessed| &assessed.findings);
        SaidJson {
            leaf_index: self.receipt.leaf_index.get(),
            leaf_hash: self.receipt.leaf_hash.to_string(),
            received_at_us: self.receipt.received_at.get(),
            producer: self.producer.clone(),
            session: self.session.to_string(),
            sequence: self.sequence.get(),
            signed_by: self.signed_by.map(|key| key.to_string()),
            findings: findings
                .iter()
                .map(|one| FindingJson::new(one, Basis::ServersWord))
                .collect(),
        }
    }
}

impl SaidJson {
    pub(super) fn text(&self) -> String {
        let by = match &self.signed_by {
            Some(key) => format!("signed by  {key}"),
            None => "not signed: who spoke is a claim".to_owned(),
        };
        let findings = self.findings.iter().map(|finding| {
            format!(
                "\nfinding    {}, {}, by the server's word: {}",
                finding.severity,
                finding.kind,
                printable(&finding.detail)
            )
        });
        format!(
            "leaf       {}\nleaf hash  {}\nproducer   {}\n{by}{}",
            self.leaf_index,
            self.leaf_hash,
            printable(&self.producer),
            findings.collect::<String>()
        )
    }
}
