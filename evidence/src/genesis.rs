//! A ledger's first entry, and its id.

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::{Origin, PublicKey, SignatureType, VerifierKey, leaf_hash};
use thiserror::Error;

use crate::{
    LedgerId, Micros, RULES_VERSION, WireError,
    entry::{Entry, EntryError},
    statement::{self, BodyKind},
};

/// The first statement of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// First line of its checkpoints.
    pub origin: Origin,
    /// The key that signs its tree heads.
    pub log_key: VerifierKey,
    /// Public keys of the ledger's owner, ascending.
    pub authority_keys: Vec<[u8; 32]>,
    /// Time of its creation, by the server's clock.
    pub created_at: Micros,
    /// Makes two ledgers of the same name and keys different.
    pub nonce: [u8; 32],
    /// The rules that it begins with: 1 to [`RULES_VERSION`].
    pub rules_version: u32,
}

/// A genesis entry that cannot be used.
#[derive(Debug, Error)]
pub enum GenesisError {
    /// The entry is not well-formed.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The statement in it is not.
    #[error("genesis statement: {0}")]
    Statement(#[from] WireError),
    /// The first entry is something else.
    #[error("the first entry holds {found}, not genesis")]
    NotGenesis {
        /// Name of the body found.
        found: &'static str,
    },
    /// It is not written by the ledger.
    #[error("the genesis entry's author is not the ledger")]
    NotByLedger,
    /// Rules that this version does not know.
    #[error("the ledger follows rules version {found}; this program knows those up to {known}")]
    UnknownRules {
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// A key or the origin is not well-formed.
    #[error("genesis {field}: {reason}")]
    Field {
        /// Its name.
        field: &'static str,
        /// The reason.
        reason: String,
    },
    /// The log key is not named after the origin.
    #[error("the log key is named {key_name:?}, not after the origin {origin:?}")]
    KeyName {
        /// Name of the key.
        key_name: String,
        /// Origin of the log.
        origin: String,
    },
    /// It says more than a genesis entry does, or says something twice and differently: its
    /// producer is not `deed:<origin>`, its times are not all the same, there is a trace id.
    #[error("the genesis entry is not the one that its origin, keys, time and nonce give")]
    OtherForm,
}

impl Genesis {
    /// The genesis entry's bytes. Authority keys are put in order.
    ///
    /// # Errors
    /// [`GenesisError::KeyName`] and [`GenesisError::Field`] if a key is not one that it can be;
    /// [`GenesisError::Statement`] if there are no authority keys, too many, or one twice, if
    /// the origin is not ASCII or longer than a producer's name may be, or if the time is not
    /// after 1970.
    pub fn to_entry(&self) -> Result<Bytes, GenesisError> {
        self.check_keys()?;
        let mut keys = self.authority_keys.clone();
        keys.sort_unstable();
        let genesis = v1::Genesis {
            origin: self.origin.to_string(),
            log_keys: vec![v1::LogKey {
                vkey: self.log_key.to_string(),
            }],
            authority_keys: keys
                .iter()
                .map(|key| v1::AuthorityKey {
                    public_key: Bytes::copy_from_slice(key),
                })
                .collect(),
            created_at_us: self.created_at.get(),
            nonce: Bytes::copy_from_slice(&self.nonce),
            rules_version: self.rules_version,
        };
        let payload = statement::encode(&v1::Statement {
            producer: format!("deed:{}", self.origin),
            occurred_at_us: self.created_at.get(),
            body: Some(v1::statement::Body::Genesis(genesis)),
            ..v1::Statement::default()
        })?;
        Ok(Entry::by_ledger(&payload, self.created_at).encode())
    }

    /// Reads a genesis entry and computes the ledger's id from it.
    ///
    /// Exactly the bytes are accepted that [`Genesis::to_entry`] writes: nothing that an entry
    /// says is lost here.
    ///
    /// # Errors
    /// [`GenesisError`] if it is malformed, not a genesis entry, or follows unknown rules.
    pub fn from_entry(bytes: &[u8]) -> Result<(Self, LedgerId), GenesisError> {
        let entry = Entry::parse(bytes)?;
        if entry.author != v1::Author::Ledger {
            return Err(GenesisError::NotByLedger);
        }
        let header = statement::parse(entry.payload)?;
        if header.body != BodyKind::Genesis {
            return Err(GenesisError::NotGenesis {
                found: header.body.name(),
            });
        }
        let decoded = statement::decode(&Bytes::copy_from_slice(entry.payload))?;
        let Some(v1::statement::Body::Genesis(genesis)) = decoded.body else {
            return Err(GenesisError::NotGenesis {
                found: header.body.name(),
            });
        };
        if !(1..=RULES_VERSION).contains(&genesis.rules_version) {
            return Err(GenesisError::UnknownRules {
                found: genesis.rules_version,
                known: RULES_VERSION,
            });
        }
        let genesis = Self::from_message(&genesis)?;
        if genesis.to_entry()? != bytes {
            return Err(GenesisError::OtherForm);
        }
        Ok((genesis, LedgerId::new(leaf_hash(bytes))))
    }

    /// The log key is named after the origin and signs checkpoints; the authority keys are
    /// Ed25519 keys that cannot be signed for by everybody.
    fn check_keys(&self) -> Result<(), GenesisError> {
        if self.log_key.name() != self.origin.key_name() {
            return Err(GenesisError::KeyName {
                key_name: self.log_key.name().to_string(),
                origin: self.origin.to_string(),
            });
        }
        if self.log_key.signature_type() != SignatureType::Ed25519 {
            let reason = "the key is a witness's: it does not sign checkpoints";
            return Err(field("log_keys", &reason));
        }
        for (position, key) in self.authority_keys.iter().enumerate() {
            PublicKey::from_bytes(key)
                .map_err(|error| field("authority_keys", &format!("key {position}: {error}")))?;
        }
        Ok(())
    }

    fn from_message(genesis: &v1::Genesis) -> Result<Self, GenesisError> {
        let origin: Origin = genesis
            .origin
            .parse()
            .map_err(|error| field("origin", &error))?;
        let vkey = genesis.log_keys.first().map_or("", |key| key.vkey.as_str());
        let log_key: VerifierKey = vkey.parse().map_err(|error| field("log_keys", &error))?;
        let authority_keys = genesis
            .authority_keys
            .iter()
            .filter_map(|key| key.public_key.as_ref().try_into().ok())
            .collect();
        Ok(Self {
            origin,
            log_key,
            authority_keys,
            created_at: Micros::new(genesis.created_at_us),
            nonce: genesis.nonce.as_ref().try_into().unwrap_or_default(),
            rules_version: genesis.rules_version,
        })
    }
}

fn field(field: &'static str, reason: &dyn ToString) -> GenesisError {
    GenesisError::Field {
        field,
        reason: reason.to_string(),
    }
}
