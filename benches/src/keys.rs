//! A ledger in which a key speaks for the producer of all [`Statements`](crate::Statements).

use bytes::Bytes;
use deed_evidence::{LedgerId, Micros, Nonce, SessionId, genesis::Genesis, statement};
use deed_proto::v1::{self, PayloadType};
use deed_testkit::signed::{manifest, registration, signed, signed_as};
use deed_tlog::{KeyName, NoteSigner, SigningKey};

use crate::PRODUCER;

/// A ledger's first entry, and the keys that matter in it.
pub struct Keys {
    /// Id of the ledger.
    pub ledger_id: LedgerId,
    /// The ledger's first entry.
    pub genesis: Genesis,
    authority: SigningKey,
    /// Key that speaks for the producer, once [`Keys::registration`] is recorded.
    pub agent: SigningKey,
}

impl Keys {
    /// Returns the same keys each time, under rules with an assessment.
    ///
    /// # Panics
    /// Never: everything is valid.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "nothing is a default here")]
    pub fn new() -> Self {
        Self::with_rules(2)
    }

    /// Returns the same keys under rules of this version.
    ///
    /// # Panics
    /// If there is no such version.
    #[must_use]
    pub fn with_rules(rules_version: u32) -> Self {
        let origin = "example.org/logs/bench";
        let authority = SigningKey::from_seed(&[1; 32]);
        let name = KeyName::new(origin).expect("a key name");
        let genesis = Genesis {
            origin: origin.parse().expect("an origin"),
            log_key: NoteSigner::from_seed(name, &[2; 32]).verifier_key().clone(),
            authority_keys: vec![*authority.public_key().as_bytes()],
            created_at: Micros::new(1),
            nonce: [3; 32],
            rules_version,
        };
        let entry = genesis.to_entry().expect("a valid genesis");
        Self {
            ledger_id: LedgerId::new(deed_tlog::leaf_hash(&entry)),
            genesis,
            authority,
            agent: SigningKey::from_seed(&[4; 32]),
        }
    }

    /// Returns the trust statement that registers the agent's key.
    ///
    /// # Panics
    /// Never: it is valid.
    #[must_use]
    pub fn registration(&self) -> v1::Envelope {
        let registered = registration(self.ledger_id, &self.agent, PRODUCER);
        let nonce = Nonce::new([0xff; 16]);
        let session = SessionId::derive(self.ledger_id, statement::AUTHORITY_PRODUCER, &nonce);
        let payload = statement::encode(&v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer: statement::AUTHORITY_PRODUCER.to_owned(),
            session: Bytes::copy_from_slice(session.as_bytes()),
            nonce: Bytes::copy_from_slice(nonce.as_bytes()),
            body: Some(v1::statement::Body::KeyRegistered(registered)),
            ..v1::Statement::default()
        });
        signed(&payload.expect("a valid statement"), &self.authority)
    }

    /// Signs each envelope as the agent.
    #[must_use]
    pub fn each(&self, envelopes: Vec<v1::Envelope>) -> Vec<v1::Envelope> {
        let envelopes = envelopes.into_iter();
        envelopes
            .map(|envelope| signed(&envelope.payload, &self.agent))
            .collect()
    }

    /// Returns a signed manifest, followed by its envelopes.
    ///
    /// # Panics
    /// If they are not the statements of one batch.
    #[must_use]
    pub fn batch(&self, mut envelopes: Vec<v1::Envelope>) -> Vec<v1::Envelope> {
        let payloads: Vec<_> = envelopes.iter().map(|e| e.payload.clone()).collect();
        let manifest = signed_as(
            PayloadType::BatchManifest,
            &manifest(&payloads),
            &self.agent,
        );
        envelopes.insert(0, manifest);
        envelopes
    }
}
