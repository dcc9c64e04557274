//! Authority keys: making and finding them, and what they sign.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Args;
use deed_client::{
    Answer, Appended, Error, Header, Ledger, ProvenTrust, Receipt, Signing, StateDir, Statement,
    StoredSession, Sync, key,
};
use deed_evidence::{
    CommitmentDigest, KeyId, Micros, Sequence, SessionId, signature,
    statement::{self, AUTHORITY_PRODUCER, BodyKind},
};
use deed_proto::v1::{Rejection, statement::Body};
use deed_tlog::{PublicKey, SigningKey};
use serde::Serialize;
use tonic::{Code, Status};

use super::{keygen::write_private, receipts::reason};
use crate::cli::{Failure, Global, Outcome, Output, make_private_directory, with_times};

/// Whose signature a trust statement gets.
#[derive(Args, Clone)]
pub(crate) struct AuthorityArgs {
    /// Private key of an authority [default: the one that `deed ledger create` made here]
    #[arg(long, value_name = "FILE")]
    authority_key: Option<PathBuf>,
}

/// A trust statement that was recorded.
#[derive(Serialize)]
pub(super) struct RecordedJson {
    pub(super) leaf_index: u64,
    leaf_hash: String,
    received_at_us: i64,
    signed_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) erased: Option<u32>,
    /// The commitments that an Erasure names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    erases: Vec<String>,
}

/// An authority with the ledger that it speaks for.
pub(super) struct Authority {
    ledger: Ledger,
    key: Arc<SigningKey>,
    key_id: KeyId,
    stored: StoredSession,
}

impl AuthorityArgs {
    /// Whether a key was named, or one is kept here.
    pub(super) fn is_at_hand(
        &self,
        global: &Global,
        ledger: &Ledger,
        trust: &ProvenTrust,
    ) -> Outcome<bool> {
        if self.authority_key.is_some() {
            return Ok(true);
        }
        Ok(kept_authority(&global.state()?, ledger.name(), trust)?.is_some())
    }

    /// Whether that is possible, without asking the ledger who its authorities are.
    pub(super) fn may_be_at_hand(&self, global: &Global, ledger: &Ledger) -> Outcome<bool> {
        Ok(self.authority_key.is_some() || !kept_keys(&global.state()?, ledger.name())?.is_empty())
    }

    /// Records a trust statement, and prints where it is.
    pub(super) async fn record(&self, global: &Global, body: Body, what: &str) -> Outcome {
        let ledger = global.connect().await?;
        let json = self.record_in(global, &ledger, body).await?;
        Output::new(global).print(&json, |json| format!("{what}\n{}", json.text()))
    }

    /// Records a trust statement in a ledger that is connected to.
    pub(super) async fn record_in(
        &self,
        global: &Global,
        ledger: &Ledger,
        body: Body,
    ) -> Outcome<RecordedJson> {
        self.open(global, ledger).await?.record(body).await
    }

    /// The key that was named, or the one that is kept here.
    pub(super) async fn key(
        &self,
        global: &Global,
        ledger: &Ledger,
    ) -> Outcome<Option<SigningKey>> {
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
    pub(super) async fn open(&self, global: &Global, ledger: &Ledger) -> Outcome<Authority> {
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

impl RecordedJson {
    /// Says which contents an Erasure names.
    pub(super) fn erases(&mut self, contents: &[CommitmentDigest]) {
        self.erases = contents.iter().map(ToString::to_string).collect();
    }

    pub(super) fn text(&self) -> String {
        let erased = self.erased.map(|n| format!("\nerased     {n} content(s)"));
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
    pub(super) async fn record(&mut self, body: Body) -> Outcome<RecordedJson> {
        let header = Header {
            occurred_at: now(),
            ..Header::default()
        };
        let (receipt, erased) = self.say(&header, body).await?;
        Ok(RecordedJson {
            leaf_index: receipt.leaf_index.get(),
            leaf_hash: receipt.leaf_hash.to_string(),
            received_at_us: receipt.received_at.get(),
            signed_by: self.key_id.to_string(),
            erased,
            erases: Vec::new(),
        })
    }

    /// The key that signs.
    pub(super) const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Where the next statement stands.
    pub(super) fn place(&self) -> (SessionId, Sequence) {
        (self.stored.id(), self.stored.next().0)
    }

    /// Makes a statement and has it recorded. Of an Erasure the number of erased contents comes too.
    pub(super) async fn say(
        &mut self,
        header: &Header<'_>,
        body: Body,
    ) -> Outcome<(Receipt, Option<u32>)> {
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

    /// What was signed and has no receipt was perhaps recorded: it must not be signed anew.
    async fn finish_earlier(&mut self) -> Outcome {
        let earlier: Vec<_> = self.stored.unacknowledged().cloned().collect();
        for statement in earlier {
            let delivered = self.deliver(&statement).await;
            delivered.map_err(|failure| {
                failure.context("an earlier statement of this authority, sent again")
            })?;
        }
        Ok(())
    }

    async fn deliver(&mut self, statement: &Statement) -> Outcome<(Receipt, Option<u32>)> {
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
    async fn check_in_chain(&self, receipt: &Receipt) -> Outcome {
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
pub(super) async fn forget_if_refused(
    ledger: &Ledger,
    stored: &mut StoredSession,
    sequence: Sequence,
    error: &Error,
) -> Outcome {
    let forgotten = if matches!(error, Error::Input(_)) {
        stored.go_back(sequence)
    } else if !ledger.may_have(stored.id(), sequence, error).await {
        stored.refused(sequence, None)
    } else {
        Ok(())
    };
    Ok(forgotten.map_err(Error::from)?)
}

fn only(answer: Answer) -> Outcome<Appended> {
    let item = answer.items.into_iter().next();
    item.ok_or_else(|| Failure::does_not_verify("the server's answer lacks the result"))
}

/// Says why a statement was not recorded.
pub(super) fn rejected(rejection: &Rejection) -> Failure {
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
    trust.registry.is_authority(id).is_some()
}

fn named_authority(path: &Path, trust: &ProvenTrust) -> Outcome<SigningKey> {
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
pub(super) fn kept_authority(
    state: &StateDir,
    ledger: &str,
    trust: &ProvenTrust,
) -> Outcome<Option<SigningKey>> {
    for path in kept_keys(state, ledger)? {
        let key = key::read_private(&path).map_err(|error| Failure::Usage(error.into()))?;
        if is_authority(trust, &key) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Files of keys that were made for ledgers of this name; those of other servers too.
fn kept_keys(state: &StateDir, ledger: &str) -> Outcome<Vec<PathBuf>> {
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

pub(super) fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn keys_directory(state: &StateDir) -> PathBuf {
    state.path().join("keys")
}

/// A ledger's name as it stands in the names of files.
pub(super) fn readable(ledger: &str) -> String {
    ledger
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(63)
        .collect()
}

/// An authority key that was made here.
pub(super) struct NewAuthority {
    pub(super) public_key: [u8; 32],
    /// Where its private half is.
    pub(super) path: PathBuf,
}

impl NewAuthority {
    /// Makes a key and writes it to `<state>/keys/<ledger>-<key>.key`, readable by its owner
    /// alone, and there after a power failure.
    pub(super) fn make(state: &StateDir, ledger: &str) -> Outcome<Self> {
        let made = key::generate().map_err(|error| Failure::Usage(error.into()))?;
        let public_key = *made.public_key().as_bytes();
        let directory = keys_directory(state);
        make_private_directory(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))
            .map_err(Failure::Usage)?;
        let name = format!("{}-{}.key", readable(ledger), hex::encode(&public_key[..4]));
        let path = directory.join(name);
        write_private(&path, &made)?;
        Ok(Self { public_key, path })
    }

    /// Removes the key if no ledger was made with it, for certain.
    pub(super) fn discard_if_refused(&self, status: &Status) {
        let refused = matches!(
            status.code(),
            Code::AlreadyExists
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
        );
        if refused {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads a public key: 64 hex digits, or a file with a public or private key.
pub(super) fn public_key(argument: &str) -> Outcome<PublicKey> {
    let is_hex = argument.len() == 64 && argument.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        return key::parse_public(argument)
            .map_err(|error| Failure::usage(format!("{argument}: {error}")));
    }
    key::read_public(Path::new(argument)).map_err(|error| Failure::Usage(error.into()))
}

/// The same, as its bytes.
pub(super) fn authority_key(argument: &str) -> Outcome<[u8; 32]> {
    Ok(*public_key(argument)?.as_bytes())
}
