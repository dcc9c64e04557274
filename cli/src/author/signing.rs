//! Signing of what a command sends, and keys that are made for one purpose.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use deed_client::{Error, Ledger, ProvenTrust, Signing, StateDir, key};
use deed_evidence::{KeyId, signature::Possession, uri};
use deed_proto::v1::{self, KeyRole, statement::Body};
use deed_tlog::SigningKey;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{AuthorityArgs, keys_directory, readable, write_private};
use crate::{
    args::{Global, now},
    failure::{CommandResult, Failure},
    files::make_private_directory,
    render::report,
};

/// A way of signing statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SignMode {
    /// One signature for each statement
    Each,
    /// One signature for all statements that wait: up to 4,096 of a session, recorded together or not
    /// at all
    Batch,
    /// No signature: the producer is only claimed
    None,
}

impl SignMode {
    pub(crate) fn with(self, key: Arc<SigningKey>) -> Signing {
        match self {
            Self::Each => Signing::Each(key),
            Self::Batch => Signing::Batch(key),
            Self::None => Signing::None,
        }
    }
}

/// The key of a producer that has one already.
#[derive(Args)]
pub(crate) struct SignArgs {
    /// Private key to sign with; it must be registered for the producer (`deed keygen`, `deed key
    /// register`)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Way of signing [default: batch with --key, else none]
    #[arg(long, value_enum, value_name = "HOW")]
    sign: Option<SignMode>,
}

impl SignArgs {
    pub(crate) fn signing(&self) -> CommandResult<Signing> {
        match (&self.key, self.sign) {
            (_, Some(SignMode::None)) | (None, None) => Ok(Signing::None),
            (None, Some(_)) => Err(Failure::usage(
                "signing needs a key: name its file with --key (deed keygen makes one)",
            )),
            (Some(path), how) => {
                let key = key::read_private(path).map_err(|error| Failure::Usage(error.into()))?;
                Ok(how.unwrap_or(SignMode::Batch).with(Arc::new(key)))
            }
        }
    }
}

/// A key that a command makes for itself, keeps in the state directory, and has registered by an
/// authority.
pub(crate) struct OwnKey<'a> {
    /// The purpose of the key, which is part of its file's name.
    pub(crate) purpose: &'a str,
    pub(crate) role: KeyRole,
    pub(crate) producer: &'a str,
    /// The controller behind it: an https or spiffe URI.
    pub(crate) controller: Option<&'a str>,
}

impl OwnKey<'_> {
    /// Returns the registered key. Registers it if needed; returns `None` if there is no authority key for
    /// that.
    pub(crate) async fn registered(
        &self,
        global: &Global,
        ledger: &Ledger,
        authority: &AuthorityArgs,
    ) -> CommandResult<Option<Arc<SigningKey>>> {
        let state = global.state()?;
        let path = self.path(&state, ledger);
        let kept = read(&path)?;
        if kept.is_none() && !authority.may_be_at_hand(global, ledger)? {
            return Ok(None);
        }
        let trust = match (ledger.trust_chain().await, &kept) {
            // A caller without the role read signs with the kept key; the ledger refuses a key that is not
            // in force.
            (Err(Error::NotAllowed { .. }), Some(_)) => return Ok(kept.map(Arc::new)),
            (trust, _) => trust?,
        };
        if let Some(key) = kept {
            let id = deed_evidence::signature::key_id(key.public_key());
            if trust.state.key(id).is_some() {
                self.check(&trust, id, &path)?;
                return Ok(Some(Arc::new(key)));
            }
        }
        if !authority.is_at_hand(global, ledger, &trust)? {
            return Ok(None);
        }
        let mut authority = authority.open(global, ledger).await?;
        let key = self.made_once(&path)?;
        let recorded = authority.record(self.registration(ledger, &key)).await?;
        report(&format!(
            "registered a key for {}: {} (leaf {}, private key in {})",
            self.producer,
            deed_evidence::signature::key_id(key.public_key()),
            recorded.leaf_index,
            path.display()
        ));
        Ok(Some(Arc::new(key)))
    }

    /// Returns the key that [`registered`](Self::registered) would return, or another one in its place if
    /// the key would have to be made. Makes and registers nothing.
    pub(crate) async fn is_at_hand(
        &self,
        global: &Global,
        ledger: &Ledger,
        authority: &AuthorityArgs,
    ) -> CommandResult<Option<Arc<SigningKey>>> {
        let path = self.path(&global.state()?, ledger);
        let kept = read(&path)?;
        if kept.is_none() && !authority.may_be_at_hand(global, ledger)? {
            return Ok(None);
        }
        let trust = match (ledger.trust_chain().await, &kept) {
            (Err(Error::NotAllowed { .. }), Some(_)) => return Ok(kept.map(Arc::new)),
            (trust, _) => trust?,
        };
        if let Some(key) = &kept {
            let id = deed_evidence::signature::key_id(key.public_key());
            if trust.state.key(id).is_some() {
                self.check(&trust, id, &path)?;
                return Ok(kept.map(Arc::new));
            }
        }
        if !authority.is_at_hand(global, ledger, &trust)? {
            return Ok(None);
        }
        let key = match kept {
            Some(key) => key,
            None => key::generate().map_err(|error| Failure::Usage(error.into()))?,
        };
        Ok(Some(Arc::new(key)))
    }

    fn check(&self, trust: &ProvenTrust, id: KeyId, path: &Path) -> CommandResult {
        let spoken = trust.state.speaks(id, self.producer, now());
        spoken.map(|_| ()).map_err(|refusal| {
            Failure::usage(refusal.to_string()).context(format!(
                "the key in {} cannot be used; move the file away to have another one made, \
                 for a producer of another name",
                path.display()
            ))
        })
    }

    fn registration(&self, ledger: &Ledger, key: &SigningKey) -> Body {
        let controller = self.controller();
        let possession = Possession {
            ledger_id: ledger.ledger_id(),
            public_key: key.public_key().as_bytes(),
            role: self.role,
            producer: self.producer,
            controller: &controller,
        };
        Body::KeyRegistered(v1::KeyRegistered {
            public_key: Bytes::copy_from_slice(key.public_key().as_bytes()),
            role: self.role.into(),
            producer: self.producer.to_owned(),
            possession: Bytes::copy_from_slice(&possession.sign(key)),
            controller,
            ..v1::KeyRegistered::default()
        })
    }

    /// The producer answers for itself if its name is one that a controller may have. Otherwise
    /// nobody does: RFC 2606 keeps `.invalid` free of owners.
    fn controller(&self) -> String {
        let own = uri::canonical_controller(self.producer);
        match (self.controller, own) {
            (Some(named), _) => named.to_owned(),
            (None, Some(form)) if form == self.producer => form,
            (None, _) => format!("https://deed.invalid/{}", self.purpose),
        }
    }

    /// Before it is registered: a key that was lost in a crash would speak for nobody, for ever.
    fn made_once(&self, path: &Path) -> CommandResult<SigningKey> {
        if let Some(key) = read(path)? {
            return Ok(key);
        }
        if let Some(directory) = path.parent() {
            make_private_directory(directory)
                .with_context(|| format!("cannot make {}", directory.display()))
                .map_err(Failure::Usage)?;
        }
        let key = key::generate().map_err(|error| Failure::Usage(error.into()))?;
        write_private(path, &key)?;
        Ok(key)
    }

    /// Returns the file of the key. Each ledger and producer has its own, because ledgers of other
    /// servers may have the same name.
    fn path(&self, state: &StateDir, ledger: &Ledger) -> PathBuf {
        let mut hasher = Sha256::new();
        hasher.update(ledger.ledger_id().as_bytes());
        hasher.update(self.producer.as_bytes());
        let hash = hasher.finalize();
        let name = format!(
            "{}-{}.pem",
            readable(ledger.name()),
            hex::encode(&hash[..8])
        );
        keys_directory(state).join(self.purpose).join(name)
    }
}

fn read(path: &Path) -> CommandResult<Option<SigningKey>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => {
            let key = key::read_private(path).map_err(|error| Failure::Usage(error.into()))?;
            Ok(Some(key))
        }
    }
}
