//! The author of a command that records one statement: a producer, or an authority of the ledger.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use deed_client::{Basis, Header, Ledger, ProvenTrust, Receipt, Signing, key};
use deed_evidence::{KeyId, Sequence, SessionId, TaskId, signature, statement::AUTHORITY_PRODUCER};
use deed_proto::v1::statement::Body;
use deed_tlog::SigningKey;
use serde::Serialize;

use super::{Authority, AuthorityArgs, ContentCommitter, producer::ProducerSession};
use crate::{
    args::{Global, now},
    failure::{CommandResult, Failure},
    render::{FindingJson, from_the_future, printable, report},
};

/// The options that name a producer.
#[derive(Args)]
pub(crate) struct ProducerArgs {
    /// Private key to sign with (`deed keygen`); the producer is the one that the key is registered for
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Producer: a URI [default: the one that the key is registered for]. Without --key the statement is
    /// unsigned, and the producer only claimed
    #[arg(long, value_name = "URI")]
    producer: Option<String>,
}

/// A producer, with the key that signs for it if there is one.
pub(crate) struct Producer {
    pub(crate) name: String,
    pub(crate) key: Option<Arc<SigningKey>>,
}

/// The options that name the author of a statement, and its session.
#[derive(Args)]
pub(crate) struct AuthorArgs {
    #[command(flatten)]
    producer: ProducerArgs,
    /// Continue the session with this name, kept in the state directory [default: a new session]
    #[arg(long, value_name = "NAME",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    session: Option<String>,
}

/// The author of statements in one ledger.
pub(crate) struct StatementAuthor {
    ledger: Ledger,
    kind: AuthorKind,
}

enum AuthorKind {
    Authority(Box<Authority>),
    Producer(Box<ProducerSession>),
}

/// The receipt of a recorded statement, with the identity of the statement.
pub(crate) struct StatementReceipt {
    pub(crate) receipt: Receipt,
    pub(crate) producer: String,
    pub(super) session: SessionId,
    pub(super) sequence: Sequence,
    pub(super) signed_by: Option<KeyId>,
}

#[derive(Serialize)]
pub(crate) struct StatementReceiptJson {
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

impl ProducerArgs {
    /// Returns true if an option names the producer.
    pub(crate) const fn is_given(&self) -> bool {
        self.key.is_some() || self.producer.is_some()
    }

    /// Returns the producer that `--key` or `--producer` names; fails if neither is given.
    pub(crate) async fn required(&self, ledger: &Ledger) -> CommandResult<Producer> {
        let producer = self.producer(ledger).await?;
        producer.ok_or_else(|| {
            Failure::usage(
                "name the producer: --key FILE signs, --producer URI is a claim without a signature",
            )
        })
    }

    async fn producer(&self, ledger: &Ledger) -> CommandResult<Option<Producer>> {
        let Some(path) = &self.key else {
            let name = self.producer.clone();
            return Ok(name.map(|name| Producer { name, key: None }));
        };
        let key = key::read_private(path).map_err(|error| Failure::Usage(error.into()))?;
        let trust = ledger.trust_chain().await?;
        let name = producer_of(&trust, &key, self.producer.as_deref())?;
        Ok(Some(Producer {
            name,
            key: Some(Arc::new(key)),
        }))
    }
}

impl AuthorArgs {
    /// Opens the session of the producer that `--key` or `--producer` names.
    pub(crate) async fn open(
        &self,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<StatementAuthor> {
        let producer = self.producer.required(ledger).await?;
        self.open_session(producer, global, ledger).await
    }

    /// Does the same as [`open`](Self::open), and opens an authority if neither is given.
    pub(crate) async fn open_or(
        &self,
        authority: &AuthorityArgs,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<StatementAuthor> {
        if let Some(producer) = self.producer.producer(ledger).await? {
            return self.open_session(producer, global, ledger).await;
        }
        if self.session.is_some() {
            return Err(Failure::usage(
                "an authority has a session of its own; --session goes with --key or --producer",
            ));
        }
        StatementAuthor::authority(authority, global, ledger).await
    }

    async fn open_session(
        &self,
        producer: Producer,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<StatementAuthor> {
        let signing = producer.key.map_or(Signing::None, Signing::Each);
        let name = self.session.as_deref();
        let mut session = ProducerSession::open(name, producer.name, signing, global, ledger)?;
        session.finish_earlier(ledger).await?;
        Ok(StatementAuthor {
            ledger: ledger.clone(),
            kind: AuthorKind::Producer(Box::new(session)),
        })
    }
}

/// Returns the producer that `key` signs for, by the ledger's own entries.
fn producer_of(
    trust: &ProvenTrust,
    key: &SigningKey,
    named: Option<&str>,
) -> CommandResult<String> {
    let id = signature::key_id(key.public_key());
    if trust.state.is_authority(id).is_some() {
        return Ok(named.unwrap_or(AUTHORITY_PRODUCER).to_owned());
    }
    let Some(record) = trust.state.key(id) else {
        return Err(Failure::usage(format!(
            "key {id} is not registered in this ledger; an authority does that (deed key register)"
        )));
    };
    let producer = named.unwrap_or(&record.producer);
    let allowed = trust.state.speaks(id, producer, now());
    allowed.map_err(|refusal| Failure::usage(refusal.to_string()))?;
    Ok(producer.to_owned())
}

impl StatementAuthor {
    /// Opens the session of an authority of the ledger.
    pub(crate) async fn authority(
        authority: &AuthorityArgs,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<Self> {
        let authority = authority.open(global, ledger).await?;
        Ok(Self {
            ledger: ledger.clone(),
            kind: AuthorKind::Authority(Box::new(authority)),
        })
    }

    /// The producer of the statements.
    pub(crate) fn producer(&self) -> &str {
        match &self.kind {
            AuthorKind::Authority(_) => AUTHORITY_PRODUCER,
            AuthorKind::Producer(session) => session.producer(),
        }
    }

    /// Returns a committer for the contents of the next statement.
    pub(crate) fn content_committer(&self, global: &Global) -> CommandResult<ContentCommitter> {
        let (session, sequence) = match &self.kind {
            AuthorKind::Authority(authority) => authority.position(),
            AuthorKind::Producer(session) => session.position(),
        };
        ContentCommitter::at(&global.state()?, session, sequence)
    }

    /// Records a statement of a task, with the current time.
    pub(crate) async fn record_in_task(
        &mut self,
        task: Option<TaskId>,
        body: Body,
    ) -> CommandResult<StatementReceipt> {
        let header = Header {
            task,
            occurred_at: now(),
            ..Header::default()
        };
        self.record(&header, body, None).await
    }

    /// Records a statement, together with the contents that it commits to.
    pub(crate) async fn record(
        &mut self,
        header: &Header<'_>,
        body: Body,
        contents: Option<ContentCommitter>,
    ) -> CommandResult<StatementReceipt> {
        let attachments = match contents {
            Some(contents) => contents.put_ahead(&self.ledger).await?,
            None => Vec::new(),
        };
        let recorded = match &mut self.kind {
            AuthorKind::Authority(authority) => {
                let (session, sequence) = authority.position();
                let (receipt, _) = authority.append(header, body).await?;
                StatementReceipt {
                    receipt,
                    producer: AUTHORITY_PRODUCER.to_owned(),
                    session,
                    sequence,
                    signed_by: Some(authority.key_id()),
                }
            }
            AuthorKind::Producer(session) => {
                session
                    .append(&self.ledger, header, body, attachments)
                    .await?
            }
        };
        self.ledger.flush().await?;
        if let Some(warning) = from_the_future(recorded.receipt.received_at, now()) {
            report(&warning);
        }
        Ok(recorded)
    }
}

impl StatementReceipt {
    /// Prints the receipt.
    pub(crate) fn print(&self, global: &Global) -> CommandResult {
        global
            .output()
            .print(&self.json(), StatementReceiptJson::text)
    }

    pub(crate) fn json(&self) -> StatementReceiptJson {
        let assessed = self.receipt.assessed.as_ref();
        let findings = assessed.map_or(&[][..], |assessed| &assessed.findings);
        StatementReceiptJson {
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

impl StatementReceiptJson {
    pub(crate) fn text(&self) -> String {
        let by = match &self.signed_by {
            Some(key) => format!("signed by  {key}"),
            None => "not signed: the producer is a claim".to_owned(),
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
