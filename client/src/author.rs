//! The author of an entry, by the ledger's own trust statements.
//!
//! [`TrustHistory`] is a trust chain with its past: it says who could speak at any leaf, which a
//! newest trust state does not. Nothing here asks a server, so `deed verify` uses it on
//! files, and `deed approve` on what it has fetched and proven.

use bytes::Bytes;
use deed_evidence::{
    KeyId, LedgerId,
    entry::Entry,
    signature::{self, SignatureError},
    statement::Header,
    trust::{ChainError, KeyRecord, Speaker, SpeakerRefusal, TrustChain, TrustState},
};
use deed_proto::v1::{self, Author, PayloadType};
use deed_tlog::{LeafIndex, Policy, PublicKey, TreeHead, leaf_hash, verify_inclusion};
use prost::Message as _;
use thiserror::Error;

/// A ledger's trust statements, checked from the genesis entry on.
#[derive(Debug, Clone)]
pub struct TrustHistory {
    /// The genesis entry is the first.
    entries: Vec<(LeafIndex, Bytes)>,
    state: TrustState,
}

/// The author of an entry, with the key and the registration that show it.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownAuthor {
    /// The key that signed it, or the manifest over it; `None` if nobody has signed.
    pub key: Option<KeyId>,
    /// The key's registration; `None` for an authority, and if nobody has signed.
    pub record: Option<KeyRecord>,
    /// True if the chain reaches beyond the leaf. If it does not, a trust statement that stands
    /// between its end and the leaf may be missing: a revocation, for example.
    pub complete: bool,
    /// Leaf of a later statement that revoked the key, as of the chain's end.
    pub revoked_leaf: Option<LeafIndex>,
}

/// An entry's author is not who it says.
#[derive(Debug, Error)]
pub enum AuthorError {
    /// The trust chain is another ledger's.
    #[error("the statement is for ledger {found}, the trust chain is of {wanted}")]
    OtherLedger {
        /// The ledger that the statement names.
        found: String,
        /// The ledger of the trust chain.
        wanted: LedgerId,
    },
    /// The key was not registered at that leaf.
    #[error("no key {key} was registered at that leaf")]
    KeyUnknown {
        /// The key.
        key: KeyId,
    },
    /// The signature does not verify.
    #[error("the signature of key {key}: {source}")]
    Signature {
        /// The key.
        key: KeyId,
        /// The error of the verification.
        source: SignatureError,
    },
    /// The key did not speak for the producer at that leaf.
    #[error("at that leaf, {0}")]
    Speaker(#[from] SpeakerRefusal),
    /// Somebody else may have had the key when the statement was received.
    #[error(
        "key {key} was reported compromised by leaf {leaf}, as of a time before the statement was \
         received"
    )]
    Compromised {
        /// The key.
        key: KeyId,
        /// The leaf of that statement.
        leaf: LeafIndex,
    },
    /// A trust statement at a leaf at which the chain has none, or another one.
    #[error("the trust chain has another statement at that leaf, or none")]
    NotInChain,
    /// A trust statement that does not continue the chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A trust file that does not hold.
#[derive(Debug, Error)]
pub enum TrustFileError {
    /// The file has another form.
    #[error("is no trust file, as `deed prove --trust-out` writes it")]
    Form,
    /// The tree head of the file is not trusted.
    #[error("its tree head: {0}")]
    Head(String),
    /// An entry is not in that tree.
    #[error("the trust statement at leaf {leaf} is not in the tree of its head")]
    Inclusion {
        /// Leaf of that trust statement.
        leaf: LeafIndex,
    },
    /// The statements do not hang together.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl TrustHistory {
    /// Checks trust entries with their leaf indexes, the genesis entry first. That they are in a
    /// tree is for the caller to know.
    ///
    /// # Errors
    /// [`ChainError`] for the first entry that does not hold.
    pub fn new(entries: Vec<(LeafIndex, Bytes)>) -> Result<Self, ChainError> {
        let state = replayed(&entries)?.into_trust();
        Ok(Self { entries, state })
    }

    /// Reads a trust file: the statements, and that each is in the tree of a head that the policy
    /// trusts. Returns that head as well.
    ///
    /// # Errors
    /// [`TrustFileError`].
    pub fn from_file(file: &[u8], policy: &Policy) -> Result<(Self, TreeHead), TrustFileError> {
        let file = v1::GetTrustChainResponse::decode(file).map_err(|_| TrustFileError::Form)?;
        if file.entries.is_empty() {
            return Err(TrustFileError::Form);
        }
        let verified = policy.verify_checkpoint(&file.checkpoint);
        let verified = verified.map_err(|error| TrustFileError::Head(error.to_string()))?;
        let head = verified.checkpoint.head;
        let mut entries = Vec::with_capacity(file.entries.len());
        for entry in file.entries {
            let leaf = LeafIndex::new(entry.leaf_index);
            let fails = || TrustFileError::Inclusion { leaf };
            let proof = deed_evidence::receipt::inclusion_proof(&entry.inclusion_proof)
                .map_err(|_| fails())?;
            verify_inclusion(&proof, &leaf_hash(&entry.entry), leaf, &head).map_err(|_| fails())?;
            entries.push((leaf, entry.entry));
        }
        if entries.first().is_some_and(|(leaf, _)| leaf.get() != 0) {
            let leaf = LeafIndex::new(0);
            return Err(TrustFileError::Inclusion { leaf });
        }
        let history = Self::new(entries)?;
        if history.state.log_keys().first().key.name().as_str()
            != verified.checkpoint.origin.as_str()
        {
            let what = "it is not of the log that the genesis entry names";
            return Err(TrustFileError::Head(what.to_owned()));
        }
        Ok((history, head))
    }

    /// The trust state after all the statements.
    #[must_use]
    pub const fn state(&self) -> &TrustState {
        &self.state
    }

    /// The leaf of the newest statement.
    #[must_use]
    pub fn newest(&self) -> LeafIndex {
        self.state.head().leaf_index
    }

    /// Returns the public key of a key id, of any producer and even if it is not in force.
    #[must_use]
    pub fn public_key(&self, id: KeyId) -> Option<&PublicKey> {
        public_key(&self.state, id)
    }

    /// Judges the author of the entry at `leaf`. `batch_key` is the key that signed the manifest over
    /// it, if it is of a batch: that the manifest covers it is for the caller to have checked.
    ///
    /// An entry that the ledger wrote has no author here: `None`.
    ///
    /// # Errors
    /// [`AuthorError`] if it contradicts the trust chain.
    pub fn author(
        &self,
        leaf: LeafIndex,
        bytes: &Bytes,
        entry: &Entry<'_>,
        header: &Header<'_>,
        batch_key: Option<KeyId>,
    ) -> Result<Option<KnownAuthor>, AuthorError> {
        let wanted = self.state.ledger_id();
        if entry.author == Author::Ledger {
            return Ok(None);
        }
        if header.ledger_id != Some(wanted) {
            let found = header.ledger_id.map(|found| found.to_string());
            let found = found.unwrap_or_default();
            return Err(AuthorError::OtherLedger { found, wanted });
        }
        let before = self.entries.partition_point(|(index, _)| *index < leaf);
        let mut chain = replayed(&self.entries[..before])?;
        let key = match entry.author {
            Author::Batched => batch_key,
            _ => entry.signature.map(|signature| signature.key()),
        };
        if let (Some(key), Some(signed)) = (key, entry.signature) {
            let public = public_key(chain.trust(), key).ok_or(AuthorError::KeyUnknown { key })?;
            let payload_type = PayloadType::Statement;
            signature::verify(public, payload_type, entry.payload, signed.signature)
                .map_err(|source| AuthorError::Signature { key, source })?;
        }
        let complete = self.newest() >= leaf;
        if header.body.is_trust() {
            match self.entries.get(before) {
                Some((index, known)) if *index == leaf && known == bytes => {}
                Some(_) => return Err(AuthorError::NotInChain),
                None => chain.push(leaf, bytes)?,
            }
        } else {
            let at = chain.effective_time().max(entry.received_at);
            let speaker = Speaker {
                key,
                principal_leaf: entry.principal_leaf.map(LeafIndex::new),
            };
            let trust = chain.trust();
            trust.may_speak(&speaker, header.producer, at)?;
        }
        let record = key.and_then(|key| chain.trust().key(key)).cloned();
        let now = key.and_then(|key| self.state.key(key));
        if let Some(now) = now
            && let (Some(since), Some(leaf)) = (now.compromised_since, now.revoked_leaf)
            && since <= entry.received_at
        {
            let key = now.key_id;
            return Err(AuthorError::Compromised { key, leaf });
        }
        Ok(Some(KnownAuthor {
            key,
            record,
            complete,
            revoked_leaf: now.and_then(|now| now.revoked_leaf),
        }))
    }
}

fn public_key(trust: &TrustState, id: KeyId) -> Option<&PublicKey> {
    let registered = || trust.key(id).map(|record| &record.public_key);
    trust.was_authority(id).or_else(registered)
}

fn replayed(entries: &[(LeafIndex, Bytes)]) -> Result<TrustChain, ChainError> {
    let nothing = Bytes::new();
    let mut entries = entries.iter();
    let genesis = entries.next().map_or(&nothing, |(_, entry)| entry);
    let mut chain = TrustChain::begin(genesis)?;
    for (index, entry) in entries {
        chain.push(*index, entry)?;
    }
    Ok(chain)
}
