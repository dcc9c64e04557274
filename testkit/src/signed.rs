//! Signed envelopes, batches, and registrations of keys.

use bytes::Bytes;
use deed_evidence::{
    LedgerId,
    batch::Manifest,
    signature::{self, Possession},
};
use deed_proto::v1::{self, PayloadType};
use deed_tlog::SigningKey;

/// A payload in an envelope, not signed.
pub fn envelope(payload: &Bytes) -> v1::Envelope {
    v1::Envelope {
        payload_type: PayloadType::Statement.into(),
        payload: payload.clone(),
        ..v1::Envelope::default()
    }
}

/// A statement in an envelope, signed.
pub fn signed(payload: &Bytes, key: &SigningKey) -> v1::Envelope {
    signed_as(PayloadType::Statement, payload, key)
}

/// Returns an envelope with a payload of any type, signed as that type.
pub fn signed_as(payload_type: PayloadType, payload: &Bytes, key: &SigningKey) -> v1::Envelope {
    let signature = signature::sign(key, payload_type, payload);
    v1::Envelope {
        payload_type: payload_type.into(),
        key_id: Bytes::copy_from_slice(signature::key_id(key.public_key()).as_bytes()),
        signature: Bytes::copy_from_slice(&signature),
        ..envelope(payload)
    }
}

/// The payload of a manifest over some statements. Panics if they are no batch.
#[track_caller]
pub fn manifest(payloads: &[Bytes]) -> Bytes {
    Manifest::over(payloads).expect("a batch").encode()
}

/// A signed manifest over some statements, and these. Panics if they are no batch.
#[track_caller]
pub fn batch(payloads: &[Bytes], key: &SigningKey) -> Vec<v1::Envelope> {
    let manifest = signed_as(PayloadType::BatchManifest, &manifest(payloads), key);
    std::iter::once(manifest)
        .chain(payloads.iter().map(envelope))
        .collect()
}

/// The registration of an agent's key, with its proof of possession.
pub fn registration(ledger_id: LedgerId, key: &SigningKey, producer: &str) -> v1::KeyRegistered {
    let controller = "https://example.org/team";
    registration_as(ledger_id, key, v1::KeyRole::Agent, producer, controller)
}

/// Returns the registration of a key of any role; that of a downstream system is for all resources.
pub fn registration_as(
    ledger_id: LedgerId,
    key: &SigningKey,
    role: v1::KeyRole,
    producer: &str,
    controller: &str,
) -> v1::KeyRegistered {
    let public_key = key.public_key().as_bytes();
    let possession = Possession {
        ledger_id,
        public_key,
        role,
        producer,
        controller,
    };
    v1::KeyRegistered {
        public_key: Bytes::copy_from_slice(public_key),
        role: role.into(),
        producer: producer.to_owned(),
        controller: controller.to_owned(),
        possession: Bytes::copy_from_slice(&possession.sign(key)),
        resources: match role {
            v1::KeyRole::DownstreamSystem => vec!["*".to_owned()],
            _ => Vec::new(),
        },
        ..v1::KeyRegistered::default()
    }
}
