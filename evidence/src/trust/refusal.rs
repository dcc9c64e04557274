//! Refusals of the trust state.

use deed_tlog::TreeSize;
use thiserror::Error;

use super::LOG_KEYS_MAX;
use crate::{CommitmentDigest, HoldId, KeyId, Micros};

/// The reason why a key does not speak for a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyRefusal {
    /// Nobody registered it.
    #[error("no key {key_id} is registered in this ledger")]
    Unknown {
        /// The key.
        key_id: KeyId,
    },
    /// It is no authority's, and the statement is one of the owner's.
    #[error("key {key_id} is not an authority of this ledger")]
    NoAuthority {
        /// The key.
        key_id: KeyId,
    },
    /// It is an authority's, which speaks for the ledger's owner alone.
    #[error("key {key_id} is an authority's: it signs what the owner says, and nothing else")]
    Authority {
        /// The key.
        key_id: KeyId,
    },
    /// It speaks for somebody else.
    #[error("key {key_id} is registered for another producer")]
    OtherProducer {
        /// The key.
        key_id: KeyId,
    },
    /// An authority ended it.
    #[error("key {key_id} was revoked at {revoked_at} us")]
    Revoked {
        /// The key.
        key_id: KeyId,
        /// Effective time of the revocation.
        revoked_at: Micros,
    },
    /// Its time has not come.
    #[error("key {key_id} is in force from {valid_from} us on; it is {at} us now")]
    NotYet {
        /// The key.
        key_id: KeyId,
        /// Time from which on it is in force.
        valid_from: Micros,
        /// Effective time.
        at: Micros,
    },
    /// Its time is over.
    #[error("key {key_id} ended at {valid_until} us; it is {at} us now")]
    Ended {
        /// The key.
        key_id: KeyId,
        /// Time of its end.
        valid_until: Micros,
        /// Effective time.
        at: Micros,
    },
}

/// The reason why a trust statement is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TrustRefusal {
    /// Signed with a key that nobody knows; also one that was an authority's once.
    #[error("no authority of this ledger has key {signer}")]
    SignerUnknown {
        /// The key.
        signer: KeyId,
    },
    /// Signed with a producer's key.
    #[error("key {signer} speaks for a producer, not for the ledger's owner")]
    SignerNotAuthority {
        /// The key.
        signer: KeyId,
    },
    /// A public key is registered once in a ledger.
    #[error("key {key_id} was registered before; make a new key")]
    KeyRegisteredBefore {
        /// The key.
        key_id: KeyId,
    },
    /// It is, or was, an authority's.
    #[error("key {key_id} is or was an authority's; make a new key")]
    KeyOfAuthority {
        /// The key.
        key_id: KeyId,
    },
    /// It would never be in force.
    #[error("key {key_id} would have ended at {valid_until} us already; it is {at} us now")]
    KeyEnded {
        /// The key.
        key_id: KeyId,
        /// Time at which it would end.
        valid_until: Micros,
        /// Effective time.
        at: Micros,
    },
    /// A new authority's key is a producer's.
    #[error("key {key_id} is registered for a producer; an authority needs a key of its own")]
    AuthorityRegistered {
        /// The key.
        key_id: KeyId,
    },
    /// There is no such key to revoke.
    #[error("no key {key_id} is registered, so none can be revoked")]
    KeyNotRegistered {
        /// The key.
        key_id: KeyId,
    },
    /// It was revoked before.
    #[error("key {key_id} was revoked at {revoked_at} us already")]
    KeyRevokedBefore {
        /// The key.
        key_id: KeyId,
        /// Effective time of the revocation.
        revoked_at: Micros,
    },
    /// A hold's name is used once.
    #[error("hold {hold} was placed before; choose another id")]
    HoldUsed {
        /// The hold.
        hold: HoldId,
    },
    /// There is no such hold to release.
    #[error("hold {hold} is not in force, so it cannot be released")]
    HoldNotInForce {
        /// The hold.
        hold: HoldId,
    },
    /// A log key of another log.
    #[error("the new log key is not named after the ledger's origin")]
    LogKeyName,
    /// Each log key signs once, and is told from the others by its id.
    #[error(
        "the new log key, or one with its id, signs this ledger's tree heads from size \
         {first_size} on already; `deed ledger rotate-log-key` asks the server for the next one"
    )]
    LogKeyUsed {
        /// The smallest tree that it signed.
        first_size: TreeSize,
    },
    /// The ledger has had as many keys as it may have.
    #[error("the ledger has had {LOG_KEYS_MAX} log keys, which is the most; begin a new ledger")]
    LogKeysMany,
    /// Contents that must stay.
    #[error(transparent)]
    Erasure(#[from] ErasureRefusal),
}

/// The reason why a content must not be erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ErasureRefusal {
    /// A legal hold covers it.
    #[error("legal hold {hold} covers content {commitment}; an authority has to release it first")]
    LegalHold {
        /// The content.
        commitment: CommitmentDigest,
        /// The hold with the lowest id of those that do.
        hold: HoldId,
    },
    /// It has not been kept for long enough.
    #[error("content {commitment} has to be kept until {until} us; it is {at} us now")]
    Retention {
        /// The content.
        commitment: CommitmentDigest,
        /// Effective time at which the floor passes.
        until: Micros,
        /// Effective time.
        at: Micros,
    },
}
