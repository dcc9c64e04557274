//! Trust statements, which a [`TrustState`](super::TrustState) takes.

use deed_proto::v1::{self, KeyRole, statement::Body};
use deed_tlog::{PublicKey, VerifierKey};
use prost::Message as _;

use super::policy_set;
use crate::{
    CommitmentDigest, HoldId, KeyId, LedgerId, Micros, Problem, TaskId, WireError,
    policy::{CEDAR_VERSION, StoredPolicy},
    signature::{Possession, SignatureError, key_id},
    statement,
};

/// A trust statement, as far as it changes the trust state. Reasons and the like are for people: read
/// them with [`statement::decode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustStatement {
    /// These keys speak for the ledger's owner from here on: 1 to 16, ascending.
    AuthoritiesChanged(Vec<PublicKey>),
    /// A key speaks for a producer.
    KeyRegistered(KeyRegistration),
    /// A key ends.
    KeyRevoked {
        /// The key.
        key_id: KeyId,
        /// Since when somebody else may have had it.
        compromised_since: Option<Micros>,
    },
    /// A principal may deliver a producer's statements.
    PrincipalBound {
        /// The principal.
        principal: String,
        /// The producer whose statements it may deliver.
        producer: String,
        /// Time at which that ends; [`Micros::MAX`] for never.
        valid_until: Micros,
    },
    /// The evidence that actions need.
    PolicySet {
        /// The policies. Nobody has looked at them ([`TrustStatement::check_policy`]).
        policy: StoredPolicy,
        /// The rules in force from here on.
        rules_version: u32,
    },
    /// Contents are kept at least this long, in microseconds; 0 for no floor.
    RetentionSet {
        /// Not negative.
        floor_us: i64,
    },
    /// Contents must not be erased.
    LegalHoldPlaced {
        /// The hold's name.
        hold: HoldId,
        /// The contents that it covers.
        scope: HoldScope,
    },
    /// A hold ends.
    LegalHoldReleased {
        /// The hold's name.
        hold: HoldId,
    },
    /// Another key signs the ledger's tree heads.
    LogKeyRotated {
        /// The next one, of type Ed25519.
        log_key: VerifierKey,
    },
    /// Contents are erased: 1 to 64, ascending.
    Erasure(Vec<CommitmentDigest>),
}

/// A key and what it is registered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRegistration {
    /// The key.
    pub public_key: PublicKey,
    /// Its role.
    pub role: KeyRole,
    /// For whom it speaks.
    pub producer: String,
    /// Its controller: the organization or person behind it.
    pub controller: String,
    /// From when on; 0 for at once.
    pub valid_from: Micros,
    /// Until when, that moment excluded; [`Micros::MAX`] for ever.
    pub valid_until: Micros,
    /// The key's signature over the [`Possession`] message.
    pub possession: [u8; 64],
    /// Producers whose gateway it is; ascending.
    pub acts_for: Vec<String>,
    /// The resources that are a downstream system's own: names and patterns, ascending; `*` for all.
    pub resources: Vec<String>,
}

/// The contents that a legal hold covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldScope {
    /// Every content of the ledger.
    Ledger,
    /// Contents of this task's statements.
    Task(TaskId),
    /// One content.
    Commitment(CommitmentDigest),
}

impl KeyRegistration {
    /// The id of the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        key_id(&self.public_key)
    }

    /// The message that the key signed to be registered in this ledger.
    #[must_use]
    pub fn possession_of(&self, ledger_id: LedgerId) -> Possession<'_> {
        Possession {
            ledger_id,
            public_key: self.public_key.as_bytes(),
            role: self.role,
            producer: &self.producer,
            controller: &self.controller,
        }
    }
}

impl TrustStatement {
    /// Parses a statement's payload; `None` if it is no trust statement.
    ///
    /// # Errors
    /// [`WireError`] as [`statement::parse`], and [`Problem::Policy`] for a set of policies with
    /// another digest than it says.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, WireError> {
        if !statement::parse(payload)?.body.is_trust() {
            return Ok(None);
        }
        // Cannot fail after the walk; a defect there must not become a panic here.
        let decoded = v1::Statement::decode(payload)
            .map_err(|_| WireError::rule("message", "does not decode"))?;
        decoded.body.as_ref().map_or(Ok(None), Self::from_body)
    }

    /// Checks the proof of possession of a registration. Needs no trust state, so it can be done by
    /// any thread before the statement is judged. Nothing to check in any other statement.
    ///
    /// # Errors
    /// [`SignatureError`] if the key did not sign its registration in this ledger.
    pub fn verify_possession(&self, ledger_id: LedgerId) -> Result<(), SignatureError> {
        match self {
            Self::KeyRegistered(key) => key.possession_of(ledger_id).verify(&key.possession),
            _ => Ok(()),
        }
    }

    /// Compiles the policies of a PolicySet that is to be recorded; nothing to check in any other
    /// statement. It may take a fifth of a second, so the signature comes first.
    ///
    /// # Errors
    /// [`Problem::Policy`] for policies of another version of Cedar than this build evaluates, and
    /// for those that nobody can judge by.
    pub fn check_policy(&self) -> Result<(), WireError> {
        match self {
            Self::PolicySet { policy, .. } => policy_set::check(policy),
            _ => Ok(()),
        }
    }

    /// The same for one that was recorded. A set of this build's own version of Cedar was compiled
    /// before it was recorded, so one that cannot be is a fault of the log. Whether one of another
    /// version can be matters where an entry is judged by it
    /// ([`TrustState::can_judge`](super::TrustState::can_judge)).
    ///
    /// # Errors
    /// [`Problem::Policy`] for policies that nobody can judge by.
    pub fn check_recorded_policy(&self) -> Result<(), WireError> {
        match self {
            Self::PolicySet { policy, .. } if policy.cedar_version() == CEDAR_VERSION => {
                policy_set::check(policy)
            }
            _ => Ok(()),
        }
    }

    fn from_body(body: &Body) -> Result<Option<Self>, WireError> {
        Ok(Some(match body {
            Body::AuthoritiesChanged(changed) => {
                let keys = changed.authority_keys.iter();
                let keys = keys.map(|key| public_key("authorities_changed", &key.public_key));
                Self::AuthoritiesChanged(keys.collect::<Result<_, _>>()?)
            }
            Body::KeyRegistered(key) => Self::KeyRegistered(KeyRegistration {
                public_key: public_key("key_registered.public_key", &key.public_key)?,
                role: key.role(),
                producer: key.producer.clone(),
                controller: key.controller.clone(),
                valid_from: Micros::new(key.valid_from_us),
                valid_until: end(key.valid_until_us),
                possession: array("key_registered.possession", &key.possession)?,
                acts_for: key.acts_for.clone(),
                resources: key.resources.clone(),
            }),
            Body::KeyRevoked(key) => Self::KeyRevoked {
                key_id: KeyId::new(array("key_revoked.key_id", &key.key_id)?),
                compromised_since: key.compromised_since_us.map(Micros::new),
            },
            Body::PrincipalBound(bound) => Self::PrincipalBound {
                principal: bound.principal.clone(),
                producer: bound.producer.clone(),
                valid_until: end(bound.valid_until_us),
            },
            Body::PolicySet(set) => policy_set::parse(set)?,
            Body::RetentionSet(set) => Self::RetentionSet {
                floor_us: set.floor_us,
            },
            Body::LegalHoldPlaced(placed) => Self::LegalHoldPlaced {
                hold: HoldId::new(array("legal_hold_placed.hold", &placed.hold)?),
                scope: scope(placed.scope.as_ref())?,
            },
            Body::LegalHoldReleased(released) => Self::LegalHoldReleased {
                hold: HoldId::new(array("legal_hold_released.hold", &released.hold)?),
            },
            Body::LogKeyRotated(rotated) => Self::LogKeyRotated {
                log_key: log_key(rotated)?,
            },
            Body::Erasure(erasure) => {
                let digests = erasure.commitments.iter();
                let digests = digests
                    .map(|digest| array("erasure.commitments", digest).map(CommitmentDigest::new));
                Self::Erasure(digests.collect::<Result<_, _>>()?)
            }
            Body::Genesis(_)
            | Body::Tick(_)
            | Body::Clearance(_)
            | Body::TaskReceipt(_)
            | Body::TaskOpened(_)
            | Body::TaskClosed(_)
            | Body::Grant(_)
            | Body::GrantAccepted(_)
            | Body::Intent(_)
            | Body::Outcome(_)
            | Body::Decision(_)
            | Body::Approval(_)
            | Body::Observation(_)
            | Body::Heartbeat(_)
            | Body::SessionClosed(_)
            | Body::Revocation(_)
            | Body::FindingDisposition(_) => return Ok(None),
        }))
    }
}

fn scope(scope: Option<&v1::legal_hold_placed::Scope>) -> Result<HoldScope, WireError> {
    use v1::legal_hold_placed::Scope;
    Ok(match scope {
        None => HoldScope::Ledger,
        Some(Scope::Task(task)) => {
            HoldScope::Task(TaskId::new(array("legal_hold_placed.task", task)?))
        }
        Some(Scope::Commitment(digest)) => HoldScope::Commitment(CommitmentDigest::new(array(
            "legal_hold_placed.commitment",
            digest,
        )?)),
    })
}

fn log_key(rotated: &v1::LogKeyRotated) -> Result<VerifierKey, WireError> {
    let vkey = rotated.log_key.as_ref().map_or("", |key| key.vkey.as_str());
    let malformed = |_| WireError::rule("log_key_rotated.log_key.vkey", "must be a verifier key");
    vkey.parse().map_err(malformed)
}

/// An end as it is written, where 0 means never.
const fn end(until_us: i64) -> Micros {
    match until_us {
        0 => Micros::MAX,
        until_us => Micros::new(until_us),
    }
}

fn public_key(field: &'static str, bytes: &[u8]) -> Result<PublicKey, WireError> {
    PublicKey::from_bytes(&array(field, bytes)?)
        .map_err(|_| WireError::rule(field, "must be an Ed25519 key"))
}

/// The walk has been here: this cannot fail, and a defect there must not become a panic here.
fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| {
        let problem = Problem::Length {
            found: bytes.len(),
            min: N,
            max: N,
        };
        WireError::new(field, problem)
    })
}
