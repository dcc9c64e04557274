//! An authority of the ledger: its key, its session, and the trust statements that it signs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use deed_client::{
    Answer, Appended, Error, Header, Ledger, ProvenTrust, Receipt, Signing, StateDir, Statement,
    StoredSession, Sync, key,
};
use deed_evidence::{
    CommitmentDigest, KeyId, Sequence, SessionId, signature,
    statement::{self, AUTHORITY_PRODUCER, BodyKind},
};
use deed_proto::v1::{Rejection, statement::Body};
use deed_tlog::SigningKey;
use serde::Serialize;

use super::{keys_directory, readable};
use crate::{
    args::{Global, now},
    failure::{CommandResult, Failure},
    render::{reason, with_times},
};

/// The option that names an authority.
#[derive(Args, Clone)]
pub(crate) struct AuthorityArgs {
    /// Private key of an authority [default: the one that `deed ledger create` made here]
    #[arg(long, value_name = "FILE")]
    authority_key: Option<PathBuf>,
}

/// A trust statement that was recorded.
#[derive(Serialize)]
pub(crate) struct TrustReceiptJson {
    pub(crate) leaf_index: u64,
    leaf_hash: String,
    received_at_us: i64,
    signed_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) erased: Option<u32>,
    /// The commitments that an Erasure names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    erases: Vec<String>,
}

/// An authority with the ledger that it speaks for.
pub(crate) struct Authority {
    ledger: Ledger,
    key: Arc<SigningKey>,
    key_id: KeyId,
    stored: StoredSession,
}

impl AuthorityArgs {
    /// Returns true if a key was named, or one is kept here.
    pub(crate) fn is_at_hand(
        &self,
        global: &Global,
        ledger: &Ledger,
        trust: &ProvenTrust,
    ) -> CommandResult<bool> {
        if self.authority_key.is_some() {
            return Ok(true);
        }
        Ok(kept_authority(&global.state()?, ledger.name(), trust)?.is_some())
    }

    /// Does the same without asking the ledger for its authorities: a kept key may be no authority any more.
    pub(crate) fn may_be_at_hand(&self, global: &Global, ledger: &Ledger) -> CommandResult<bool> {
        Ok(self.authority_key.is_some() || !kept_keys(&global.state()?, ledger.name())?.is_empty())
    }

    /// Records a trust statement, and prints where it is.
    pub(crate) async fn record(&self, global: &Global, body: Body, what: &str) -> CommandResult {
        let ledger = global.connect().await?;
        let json = self.record_in(global, &ledger, body).await?;
        global
            .output()
            .print(&json, |json| format!("{what}\n{}", json.text()))
    }

    /// Records a trust statement in a ledger that is connected to.
    pub(crate) async fn record_in(
        &self,
        global: &Global,
        ledger: &Ledger,
        body: Body,
    ) -> CommandResult<TrustReceiptJson> {
        self.open(global, ledger).await?.record(body).await
    }

    /// The key that was named, or the one that is kept here.
    pub(crate) async fn key(
        &self,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<Option<SigningKey>> {
        if !self.may_be_at_hand(global, ledger)? {
            return Ok(None);
        }
        let trust = ledger.trust_chain().await?;
        match &self.authority_key {
            Some(path) => named_authority(path, &trust).map(Some),
            None => kept_authority(&global.state()?, ledger.name(), &trust),
        }
    }

    /// Opens the authority's session, and finishes what an earlier command did not.
    pub(crate) async fn open(&self, global: &Global, ledger: &Ledger) -> CommandResult<Authority> {
        let trust = ledger.trust_chain().await?;
        let state = global.state()?;
        let key = match &self.authority_key {
            Some(path) => named_authority(path, &trust)?,
            None => kept_authority(&state, ledger.name(), &trust)?.ok_or_else(|| {
                Failure::usage(
                    "no authority key of this ledger is kept here; give one with --authority-key",
                )
            })?,
        };
        let key = Arc::new(key);
        let key_id = signature::key_id(key.public_key());
        let stored = StoredSession::open(
            &state,
            ledger.ledger_id(),
            &format!("authority {key_id}"),
            AUTHORITY_PRODUCER,
            &Signing::Each(Arc::clone(&key)),
            Sync::Each,
        );
        let mut authority = Authority {
            ledger: ledger.clone(),
            key,
            key_id,
            stored: stored.map_err(Error::from)?,
        };
        authority.finish_earlier().await?;
        Ok(authority)
    }
}

impl TrustReceiptJson {
    /// Adds the digests of the contents that an Erasure names.
    pub(crate) fn erases(&mut self, contents: &[CommitmentDigest]) {
        self.erases = contents.iter().map(ToString::to_string).collect();
    }

    pub(crate) fn text(&self) -> String {
        let erased = self.erased.map(|count| match count {
            1 => "\nerased     1 content".to_owned(),
            count => format!("\nerased     {count} contents"),
        });
        let erases = self.erases.iter();
        let erases: String = erases.map(|one| format!("\nnamed      {one}")).collect();
        format!(
            "leaf       {}\nleaf hash  {}\nsigned by  {}{}{erases}",
            self.leaf_index,
            self.leaf_hash,
            self.signed_by,
            erased.unwrap_or_default()
        )
    }
}

impl Authority {
    /// Makes a trust statement, has it recorded, and checks that it is in the trust chain, where
    /// the ledger says.
    pub(crate) async fn record(&mut self, body: Body) -> CommandResult<TrustReceiptJson> {
        let header = Header {
            occurred_at: now(),
            ..Header::default()
        };
        let (receipt, erased) = self.append(&header, body).await?;
        Ok(TrustReceiptJson {
            leaf_index: receipt.leaf_index.get(),
            leaf_hash: receipt.leaf_hash.to_string(),
            received_at_us: receipt.received_at.get(),
            signed_by: self.key_id.to_string(),
            erased,
            erases: Vec::new(),
        })
    }

    /// The session of the authority, which stays locked as long as the authority is open.
    pub(crate) const fn session(&mut self) -> &mut StoredSession {
        &mut self.stored
    }

    /// The key that signs.
    pub(crate) const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The session, and the sequence of the next statement.
    pub(crate) fn position(&self) -> (SessionId, Sequence) {
        (self.stored.id(), self.stored.next().0)
    }

    /// Makes a statement and records it. For an Erasure it also returns the number of erased contents.
    pub(crate) async fn append(
        &mut self,
        header: &Header<'_>,
        body: Body,
    ) -> CommandResult<(Receipt, Option<u32>)> {
        let mut session = self.stored.maker();
        let made = session
            .make(header, body)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let statement = Statement::from(made);
        self.stored
            .append(std::slice::from_ref(&statement))
            .map_err(Error::from)?;
        self.deliver(&statement).await
    }

    /// Sends what was signed and has no receipt. It may be recorded, so it must not be signed anew.
    async fn finish_earlier(&mut self) -> CommandResult {
        let earlier: Vec<_> = self.stored.unacknowledged().cloned().collect();
        for statement in earlier {
            let delivered = self.deliver(&statement).await;
            delivered.map_err(|failure| {
                failure.context("an earlier statement of this authority, sent again")
            })?;
        }
        Ok(())
    }

    async fn deliver(&mut self, statement: &Statement) -> CommandResult<(Receipt, Option<u32>)> {
        let signing = Signing::Each(Arc::clone(&self.key));
        let header = statement::parse(&statement.payload)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let sequence = header.sequence;
        let sent = if header.body == BodyKind::Erasure {
            let sent = self.ledger.contents().erase(statement, &signing).await;
            sent.map(|(answer, erased)| (answer, Some(erased)))
        } else {
            let statements = std::slice::from_ref(statement);
            let sent = self.ledger.append_signed(statements, &signing).await;
            sent.map(|answer| (answer, None))
        };
        let (answer, erased) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                forget_if_refused(&self.ledger, &mut self.stored, sequence, &error).await?;
                return Err(error.into());
            }
        };
        let receipt = match only(answer)? {
            Appended::Accepted(receipt) | Appended::Duplicate(receipt) => receipt,
            Appended::Rejected(rejection) => {
                let expected = rejection.expected_sequence.map(Sequence::new);
                let kept = self.stored.refused(sequence, expected);
                kept.map_err(Error::from)?;
                return Err(rejected(&rejection));
            }
        };
        let after = Sequence::new(sequence.get().saturating_add(1));
        self.stored.acknowledge(after).map_err(Error::from)?;
        if header.body.is_trust() {
            self.check_in_chain(&receipt).await?;
        }
        Ok((receipt, erased))
    }

    /// The entry links to the trust statement before it, by the server's word. If that is not the
    /// one that everybody else is shown, the chain shows it.
    async fn check_in_chain(&self, receipt: &Receipt) -> CommandResult {
        let trust = self.ledger.trust_chain().await?;
        self.ledger.flush().await?;
        let found = trust
            .entries
            .iter()
            .find(|(index, _)| *index == receipt.leaf_index);
        match found {
            Some((_, entry)) if deed_tlog::leaf_hash(entry) == receipt.leaf_hash => Ok(()),
            _ => Err(Failure::does_not_verify(format!(
                "the trust statement at leaf {} is not in the server's trust chain",
                receipt.leaf_index
            ))),
        }
    }
}

/// Sends a kept statement no more that was refused, if the ledger does not have it, by its word:
/// kept, it would be refused again before each later command. Its place stays used, unless it was
/// never sent.
pub(crate) async fn forget_if_refused(
    ledger: &Ledger,
    stored: &mut StoredSession,
    sequence: Sequence,
    error: &Error,
) -> CommandResult {
    let forgotten = if matches!(error, Error::Input(_)) {
        stored.go_back(sequence)
    } else if !ledger.may_have(stored.id(), sequence, error).await {
        stored.refused(sequence, None)
    } else {
        Ok(())
    };
    Ok(forgotten.map_err(Error::from)?)
}

fn only(answer: Answer) -> CommandResult<Appended> {
    let item = answer.items.into_iter().next();
    item.ok_or_else(|| Failure::does_not_verify("the server's answer lacks the result"))
}

/// Returns the failure for a statement that the ledger rejected.
pub(crate) fn rejected(rejection: &Rejection) -> Failure {
    let field = match rejection.field.as_str() {
        "" => String::new(),
        field => format!(" ({field})"),
    };
    Failure::Unavailable(anyhow::anyhow!(
        "rejected, {}{field}: {}",
        reason(rejection),
        with_times(&rejection.message)
    ))
}

fn is_authority(trust: &ProvenTrust, key: &SigningKey) -> bool {
    let id = signature::key_id(key.public_key());
    trust.state.is_authority(id).is_some()
}

fn named_authority(path: &Path, trust: &ProvenTrust) -> CommandResult<SigningKey> {
    let key = key::read_private(path).map_err(|error| Failure::Usage(error.into()))?;
    if !is_authority(trust, &key) {
        return Err(Failure::usage(format!(
            "key {} is no authority of this ledger; `deed key list` shows them",
            signature::key_id(key.public_key())
        )));
    }
    Ok(key)
}

/// The authority key of this ledger that is in the state directory, if one is.
pub(crate) fn kept_authority(
    state: &StateDir,
    ledger: &str,
    trust: &ProvenTrust,
) -> CommandResult<Option<SigningKey>> {
    for path in kept_keys(state, ledger)? {
        let key = key::read_private(&path).map_err(|error| Failure::Usage(error.into()))?;
        if is_authority(trust, &key) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Files of keys that were made for ledgers of this name; those of other servers too.
fn kept_keys(state: &StateDir, ledger: &str) -> CommandResult<Vec<PathBuf>> {
    let prefix = format!("{}-", readable(ledger));
    let directory = keys_directory(state);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let what = format!("cannot read {}", directory.display());
            return Err(Failure::Usage(anyhow::Error::new(error).context(what)));
        }
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".key"))
        })
        .collect();
    paths.sort();
    Ok(paths)
}
