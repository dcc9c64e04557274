//! Signatures, batches and authorities' statements, made without the client library.

use bytes::Bytes;
use deed_evidence::{LedgerId, signature};
use deed_proto::v1::{self, statement::Body};
pub use deed_testkit::signed::{batch, manifest, registration, registration_as, signed, signed_as};
use deed_tlog::SigningKey;

use crate::statements::Producer;

/// The producer of authorities' statements.
pub const AUTHORITY: &str = "deed:authority";

/// Returns a key that is derived from a number.
#[must_use]
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Returns the private key of the authority that
/// [`TestLedger::create`](crate::rpc::TestLedger::create) names.
#[must_use]
pub fn authority() -> SigningKey {
    key(1)
}

/// A session of an authority.
#[derive(Debug, Clone)]
pub struct Authority {
    producer: Producer,
    ledger_id: LedgerId,
}

impl Authority {
    /// Begins a session that is derived from a number.
    #[must_use]
    pub fn new(ledger_id: LedgerId, session: u64) -> Self {
        Self {
            producer: Producer::new(ledger_id, session).named(AUTHORITY),
            ledger_id,
        }
    }

    /// Makes a statement with this body.
    ///
    /// # Panics
    /// If the body breaks a rule.
    #[track_caller]
    pub fn says(&mut self, body: Body) -> v1::Envelope {
        signed(&self.producer.make(body), &authority())
    }

    /// Makes a statement of a task with this body.
    ///
    /// # Panics
    /// If the body breaks a rule.
    #[track_caller]
    pub fn says_in(&mut self, task: [u8; 16], body: Body) -> v1::Envelope {
        signed(&self.producer.make_in(task, body), &authority())
    }

    /// Makes a statement that registers an agent's key.
    pub fn registers(&mut self, key: &SigningKey, producer: &str) -> v1::Envelope {
        self.says(Body::KeyRegistered(registration(
            self.ledger_id,
            key,
            producer,
        )))
    }

    /// Makes a statement that revokes a key.
    pub fn revokes(&mut self, key: &SigningKey) -> v1::Envelope {
        self.says(Body::KeyRevoked(v1::KeyRevoked {
            key_id: Bytes::copy_from_slice(signature::key_id(key.public_key()).as_bytes()),
            ..v1::KeyRevoked::default()
        }))
    }

    /// Makes a statement that lets a principal deliver statements of a producer.
    pub fn binds(&mut self, principal: &str, producer: &str) -> v1::Envelope {
        self.says(Body::PrincipalBound(v1::PrincipalBound {
            principal: principal.to_owned(),
            producer: producer.to_owned(),
            valid_until_us: 0,
        }))
    }

    /// Makes a statement that erases one content.
    pub fn erases(&mut self, commitment: &Bytes) -> v1::Envelope {
        self.erases_all(&[commitment])
    }

    /// Makes a statement that erases contents.
    pub fn erases_all(&mut self, commitments: &[&Bytes]) -> v1::Envelope {
        let mut commitments: Vec<_> = commitments.iter().copied().cloned().collect();
        commitments.sort_unstable();
        self.says(Body::Erasure(v1::Erasure {
            commitments,
            requested_by: "https://example.org/person/7".to_owned(),
            reason: "asked to be forgotten".to_owned(),
            legal_basis: "GDPR Art. 17(1)(b)".to_owned(),
        }))
    }
}
