//! Signing keys: seeds, each with a name and one purpose.
//!
//! Source: the form of private keys is that of golang.org/x/mod/sumdb/note, which
//! c2sp.org/signed-note leaves to the signer.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey};

use crate::ed25519::{PublicKey, SIGNATURE_BYTES};
use crate::key::{KeyError, KeyName, SignatureType, VerifierKey, check_id, split, split_material};
use crate::text::encode_base64;

/// Bytes of an Ed25519 seed, RFC 8032's private key.
pub const SEED_BYTES: usize = 32;

/// A key that signs notes as a log does, type 0x01. The seed is wiped when it is dropped, and never
/// printed except by [`to_private_key`](NoteSigner::to_private_key).
#[derive(Clone)]
pub struct NoteSigner(SecretKey);

impl NoteSigner {
    /// Makes the signer of a name and a seed of 32 random bytes.
    #[must_use]
    pub fn from_seed(name: impl Into<KeyName>, seed: &[u8; SEED_BYTES]) -> NoteSigner {
        NoteSigner(SecretKey::from_seed(
            name.into(),
            SignatureType::Ed25519,
            seed,
        ))
    }

    /// Parses a private key of type 0x01, `PRIVATE+KEY+<name>+<key id>+<base64(type || seed)>`.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::UnsupportedType`] for the key of a witness.
    pub fn parse(text: &str) -> Result<NoteSigner, KeyError> {
        SecretKey::parse(text, SignatureType::Ed25519).map(NoteSigner)
    }

    /// Returns the private key as text, to be stored where only the signer can read it.
    #[must_use]
    pub fn to_private_key(&self) -> String {
        self.0.to_private_key()
    }

    /// Returns the key that verifies this one's signatures.
    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.0.verifier
    }

    /// Returns the key's name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        self.0.verifier.name()
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign_bytes(message)
    }
}

/// A seed with its name and purpose, for [`NoteSigner`] and [`Cosigner`](crate::Cosigner). Dropping
/// the signing key wipes the seed.
#[derive(Clone)]
pub(crate) struct SecretKey {
    signing: SigningKey,
    pub(crate) verifier: VerifierKey,
}

impl SecretKey {
    pub(crate) fn from_seed(
        name: KeyName,
        signature_type: SignatureType,
        seed: &[u8; SEED_BYTES],
    ) -> SecretKey {
        let signing = SigningKey::from_bytes(seed);
        // A clamped scalar times the base point is never of small order.
        let public_key = PublicKey::from_bytes(signing.verifying_key().as_bytes())
            .expect("the public key of a seed is a good key");
        SecretKey {
            verifier: VerifierKey::new(name, signature_type, public_key),
            signing,
        }
    }

    pub(crate) fn parse(text: &str, wanted: SignatureType) -> Result<SecretKey, KeyError> {
        let text = text.strip_prefix(PRIVATE_PREFIX).ok_or(KeyError::Prefix)?;
        let (name, id, mut material) = split(text)?;
        let key = split_material(&material).and_then(|(found, seed)| {
            if found != wanted {
                return Err(KeyError::UnsupportedType {
                    found: found.to_byte(),
                });
            }
            Ok(SecretKey::from_seed(name, wanted, seed))
        });
        wipe(&mut material);
        let key = key?;
        check_id(id, key.verifier.id())?;
        Ok(key)
    }

    pub(crate) fn to_private_key(&self) -> String {
        let mut material = [0; 1 + SEED_BYTES];
        material[0] = self.verifier.signature_type().to_byte();
        material[1..].copy_from_slice(self.signing.as_bytes());
        let text = format!(
            "{PRIVATE_PREFIX}{}+{}+{}",
            self.verifier.name(),
            self.verifier.id(),
            encode_base64(&material)
        );
        wipe(&mut material);
        text
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signing.sign(message).to_bytes()
    }
}

pub(crate) const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

/// Overwrites a copy of a seed with zeros, which the optimiser must not leave out.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

impl FromStr for NoteSigner {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<NoteSigner, KeyError> {
        NoteSigner::parse(text)
    }
}

/// Prints the public half only.
impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({})", self.0.verifier)
    }
}
