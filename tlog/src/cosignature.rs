//! Cosignatures: a witness states that it saw a checkpoint at a time, and that it is consistent
//! with all earlier ones of that log that it saw.
//!
//! ```text
//! signature  u64 big-endian POSIX seconds || Ed25519 (64 bytes)
//! over       "cosignature/v1\ntime <seconds>\n" || the note's text
//! ```
//!
//! Source: c2sp.org/tlog-cosignature, signature type 0x04.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::ed25519::SIGNATURE_BYTES;
use crate::key::{KeyError, KeyName, SignatureType, VerifierKey};
use crate::note::{NoteError, SignedNote};
use crate::note_signature::NoteSignature;
use crate::signer::{SEED_BYTES, SecretKey};

/// Bytes of a cosignature after the key id: a time and an Ed25519 signature.
pub const COSIGNATURE_BYTES: usize = 8 + SIGNATURE_BYTES;

/// A point in time: whole seconds since 1970 without leap seconds, at most 2^63 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PosixSeconds(u64);

/// A time beyond 2^63 - 1 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("time of {found} seconds is beyond 2^63 - 1")]
pub struct TimeTooLarge {
    /// The number of seconds that was given.
    pub found: u64,
}

/// A witness's key, which cosigns checkpoints; type 0x04. Handles its seed as
/// [`NoteSigner`](crate::NoteSigner) does.
#[derive(Clone)]
pub struct Cosigner(SecretKey);

impl PosixSeconds {
    /// Checks a number of seconds since 1970.
    ///
    /// # Errors
    /// [`TimeTooLarge`] beyond 2^63 - 1, which the specification rules out.
    pub const fn new(seconds: u64) -> Result<PosixSeconds, TimeTooLarge> {
        if seconds > i64::MAX as u64 {
            return Err(TimeTooLarge { found: seconds });
        }
        Ok(PosixSeconds(seconds))
    }

    /// Returns the seconds since 1970.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Cosigner {
    /// Makes the cosigner of a name and a seed of 32 random bytes. The seed must not be used for
    /// anything else, because the signed bytes do not name the cosigner.
    #[must_use]
    pub fn from_seed(name: impl Into<KeyName>, seed: &[u8; SEED_BYTES]) -> Cosigner {
        Cosigner(SecretKey::from_seed(
            name.into(),
            SignatureType::Cosignature,
            seed,
        ))
    }

    /// Parses a private key of type 0x04, `PRIVATE+KEY+<name>+<key id>+<base64(type || seed)>`.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::UnsupportedType`] for the key of a log.
    pub fn parse(text: &str) -> Result<Cosigner, KeyError> {
        SecretKey::parse(text, SignatureType::Cosignature).map(Cosigner)
    }

    /// Returns the private key as text, to be stored where only the cosigner can read it.
    #[must_use]
    pub fn to_private_key(&self) -> String {
        self.0.to_private_key()
    }

    /// Returns the key that verifies this one's cosignatures.
    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.0.verifier
    }

    /// Cosigns the text of a checkpoint and returns the signature line.
    ///
    /// The caller must know that the checkpoint is consistent with all those cosigned before; a
    /// cosignature means nothing else.
    #[must_use]
    pub fn cosign(&self, checkpoint_text: &str, time: PosixSeconds) -> NoteSignature {
        let signature = self.0.sign_bytes(&signed_message(checkpoint_text, time));
        let stamped = [time.0.to_be_bytes().as_slice(), &signature].concat();
        NoteSignature::new(self.verifier_key(), stamped)
    }
}

impl SignedNote {
    /// Appends this cosigner's cosignature.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`] if there are 64 already.
    pub fn cosign(&mut self, cosigner: &Cosigner, time: PosixSeconds) -> Result<(), NoteError> {
        let line = cosigner.cosign(self.text(), time);
        self.push_signature(line)
    }

    /// Appends a signature line that a witness returned, if the line is of this key and verifies
    /// over this note. Returns the time of a cosignature.
    ///
    /// # Errors
    /// [`NoteError::NoKnownSignature`] if the line names another key; otherwise as
    /// [`SignedNote::verify`] and [`SignedNote::push_signature`].
    pub fn push_verified(
        &mut self,
        signature: NoteSignature,
        key: &VerifierKey,
    ) -> Result<Option<PosixSeconds>, NoteError> {
        if !signature.names(key) {
            return Err(NoteError::NoKnownSignature { found: 1 });
        }
        let time = signature.verify_by(key, self.text())?.time;
        self.push_signature(signature)?;
        Ok(time)
    }
}

/// Verifies a cosignature over a note's text with the key that it names.
pub(crate) fn verify_cosignature(
    line: &NoteSignature,
    key: &VerifierKey,
    text: &str,
) -> Result<PosixSeconds, NoteError> {
    let stamped = line.sized::<COSIGNATURE_BYTES>()?;
    let mut seconds = [0; 8];
    let mut signature = [0; SIGNATURE_BYTES];
    seconds.copy_from_slice(&stamped[..8]);
    signature.copy_from_slice(&stamped[8..]);

    let time = PosixSeconds::new(u64::from_be_bytes(seconds)).map_err(|error| {
        NoteError::CosignatureTime {
            name: line.name().clone(),
            found: error.found,
        }
    })?;
    key.public_key()
        .verify_strict(&signed_message(text, time), &signature)
        .map_err(|cause| line.bad(cause))?;
    Ok(time)
}

fn signed_message(text: &str, time: PosixSeconds) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

impl FromStr for Cosigner {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Cosigner, KeyError> {
        Cosigner::parse(text)
    }
}

impl fmt::Display for PosixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Prints the public half only.
impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({})", self.0.verifier)
    }
}
