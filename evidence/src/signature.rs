//! Signatures: the bytes that are signed, and the keys.
//!
//! The input of a payload's signature is DSSE's pre-authentication encoding, which says what the
//! payload is: a manifest is never taken for a statement. Verification is tlog's one strict form.
//! Proofs of possession have a first line of their own, so that no payload's signature is one.

use deed_proto::v1::{KeyRole, PayloadType};
use deed_tlog::{PublicKey, SIGNATURE_BYTES, SigningKey};
use thiserror::Error;

use crate::{KeyId, LedgerId};

/// A signature that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// Not one of this key over this payload.
    #[error("the signature does not verify under key {key_id}")]
    Mismatch {
        /// The key.
        key_id: KeyId,
    },
    /// A payload that nobody signs.
    #[error("payloads of this type are not signed")]
    PayloadType,
}

/// The type in a signature's input; `None` for what is not signed.
#[must_use]
pub const fn dsse_type(payload_type: PayloadType) -> Option<&'static str> {
    match payload_type {
        PayloadType::Unspecified => None,
        PayloadType::Statement => Some("application/vnd.deed.statement.v1+protobuf"),
        PayloadType::BatchManifest => Some("application/vnd.deed.batch.v1+protobuf"),
    }
}

/// The id of a public key: the first 16 bytes of its SHA-256.
#[must_use]
pub fn key_id(public_key: &PublicKey) -> KeyId {
    KeyId::of(public_key.as_bytes())
}

/// The input of a payload's signature. (For a payload that is not signed its type is empty; no
/// signature over that is ever accepted.)
///
/// Source: DSSE v1.0.0, PAE: `DSSEv1 <length> <type> <length> <payload>`.
#[must_use]
pub fn pae(payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 80);
    pae_into(payload_type, payload, &mut out);
    out
}

/// The same, in place of what `out` holds.
pub fn pae_into(payload_type: PayloadType, payload: &[u8], out: &mut Vec<u8>) {
    let name = dsse_type(payload_type).unwrap_or_default();
    out.clear();
    out.extend_from_slice(b"DSSEv1 ");
    out.extend_from_slice(name.len().to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    out.extend_from_slice(payload.len().to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(payload);
}

/// Signs a payload.
#[must_use]
pub fn sign(key: &SigningKey, payload_type: PayloadType, payload: &[u8]) -> [u8; SIGNATURE_BYTES] {
    key.sign(&pae(payload_type, payload))
}

/// Checks a payload's signature. `PublicKey` keeps its point: a key that verifies more than once is
/// worth keeping.
///
/// # Errors
/// [`SignatureError`] if it is not this key's, or the payload is not one that is signed.
pub fn verify(
    public_key: &PublicKey,
    payload_type: PayloadType,
    payload: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), SignatureError> {
    verify_with(
        public_key,
        payload_type,
        payload,
        signature,
        &mut Vec::new(),
    )
}

/// The same, with a buffer to use again.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(
    public_key: &PublicKey,
    payload_type: PayloadType,
    payload: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
    buffer: &mut Vec<u8>,
) -> Result<(), SignatureError> {
    if dsse_type(payload_type).is_none() {
        return Err(SignatureError::PayloadType);
    }
    pae_into(payload_type, payload, buffer);
    check(public_key, buffer, signature)
}

/// A message that a key signs to show that whoever registers it has it: for this ledger, this role, this
/// producer and this controller, and for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Possession<'a> {
    /// The ledger in which the key is registered.
    pub ledger_id: LedgerId,
    /// The key.
    pub public_key: &'a [u8; 32],
    /// Its role.
    pub role: KeyRole,
    /// For whom it speaks.
    pub producer: &'a str,
    /// Its controller: the organization or person behind it.
    pub controller: &'a str,
}

impl Possession<'_> {
    /// The bytes that are signed: six lines, as at `KeyRegistered.possession`. Neither producer nor
    /// controller is a URI if it holds a line feed.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        format!(
            "deed/key-possession/v1\n{}\n{}\n{}\n{}\n{}\n",
            self.ledger_id,
            hex::encode(self.public_key),
            self.role as i32,
            self.producer,
            self.controller
        )
        .into_bytes()
    }

    /// Signs it; `key` must be the one that `public_key` names.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> [u8; SIGNATURE_BYTES] {
        key.sign(&self.message())
    }

    /// Checks it under its own key.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`], also if `public_key` is none.
    pub fn verify(&self, signature: &[u8; SIGNATURE_BYTES]) -> Result<(), SignatureError> {
        let mismatch = SignatureError::Mismatch {
            key_id: KeyId::of(self.public_key),
        };
        let key = PublicKey::from_bytes(self.public_key).map_err(|_| mismatch)?;
        check(&key, &self.message(), signature)
    }
}

fn check(
    public_key: &PublicKey,
    message: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), SignatureError> {
    public_key
        .verify_strict(message, signature)
        .map_err(|_| SignatureError::Mismatch {
            key_id: key_id(public_key),
        })
}
