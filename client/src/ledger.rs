//! A connection to one ledger.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use deed_evidence::LedgerId;
use deed_tlog::VerifierKey;

use crate::{
    connection::Connection,
    error::Error,
    head::SignedHead,
    head_tracker::HeadTracker,
    options::Observer,
    proofs::KnownTrust,
    retry::RetryPolicy,
    trust::{KnownKeys, Pin, TrustError},
};

/// A verifying connection to one ledger. Clones share it, and what it trusts.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) connection: Connection,
    pub(crate) shared: Arc<Shared>,
}

/// The state that all clones and connections of one ledger share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) pin: Pin,
    /// The log key that the server named when the client connected. It is not trusted by itself.
    pub(crate) claimed: VerifierKey,
    pub(crate) genesis_entry: Bytes,
    pub(crate) retry: RetryPolicy,
    /// Time limit for each attempt of a call.
    pub(crate) timeout: Duration,
    pub(crate) observer: Observer,
    /// `None` with verification switched off.
    pub(crate) tracker: Option<HeadTracker>,
    /// The trust chain, once somebody has asked for it.
    pub(crate) trust: tokio::sync::Mutex<Option<Arc<KnownTrust>>>,
}

impl Ledger {
    /// The log keys that are known, from the genesis entry's on: with verification switched off, the
    /// one that the server names.
    #[must_use]
    pub fn log_keys(&self) -> KnownKeys {
        match &self.shared.tracker {
            Some(tracker) => tracker.keys(),
            None => KnownKeys::new(self.shared.claimed.clone()),
        }
    }

    /// Opens a further connection to the same ledger, which trusts what this one trusts.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn connect_again(&self) -> Result<Self, Error> {
        Ok(Self {
            connection: self.connection.again().await?,
            shared: Arc::clone(&self.shared),
        })
    }

    /// The ledger's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Origin, first log key and id.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.shared.pin
    }

    /// The id that every statement for this ledger carries.
    #[must_use]
    pub fn ledger_id(&self) -> LedgerId {
        self.shared.pin.ledger_id
    }

    /// The connection, for rpcs that this library does not wrap. Nothing is verified there.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Shared {
    /// Opens a head with verification switched off: the server's key by its own word.
    pub(crate) fn open_unverified(&self, note: &[u8]) -> Result<SignedHead, TrustError> {
        SignedHead::open(note, &self.claimed).map_err(|source| TrustError::Checkpoint {
            origin: self.pin.origin.to_string(),
            source,
        })
    }

    /// Returns the head from which an append asks for a proof, and marks it as asked from.
    pub(crate) fn take_base(&self) -> Option<SignedHead> {
        self.tracker.as_ref().map(HeadTracker::take_base)
    }

    /// Returns the largest verified head; `None` if nothing is verified.
    pub(crate) fn newest_trusted(&self) -> Option<SignedHead> {
        self.tracker.as_ref().map(HeadTracker::newest)
    }
}
