//! Signature lines of notes, which witnesses also return by themselves.
//!
//! ```text
//! — <name> base64(key id (4 bytes) || signature) LF
//! ```
//!
//! Source: c2sp.org/signed-note, "Signatures".

use std::fmt;

use crate::cosignature::verify_cosignature;
use crate::ed25519::{SIGNATURE_BYTES, SignatureError};
use crate::key::{KeyId, KeyName, SignatureType, VerifierKey};
use crate::note::{NOTE_SIGNATURES_MAX, NoteError, VerifiedSignature, checked_utf8};
use crate::text::{decode_base64, encode_base64};

/// A signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: KeyName,
    id: KeyId,
    /// The bytes behind the key id. Invariant: not empty.
    signature: Vec<u8>,
}

impl NoteSignature {
    /// Makes a line of a key and the bytes of its signature.
    pub(crate) fn new(key: &VerifierKey, signature: Vec<u8>) -> NoteSignature {
        NoteSignature {
            name: key.name().clone(),
            id: key.id(),
            signature,
        }
    }

    /// Parses one or more signature lines without a note, as a witness returns them.
    ///
    /// # Errors
    /// [`NoteError`] as [`SignedNote::parse`](crate::SignedNote::parse).
    pub fn parse_lines(lines: &[u8]) -> Result<Vec<NoteSignature>, NoteError> {
        parse_lines(checked_utf8(lines)?)
    }

    /// Returns the name of the key.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Returns the id of the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Returns the signature behind the key id: at least one byte. Its form depends on the key.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Returns true if the line names this key. Anyone may have made the signature.
    #[must_use]
    pub fn names(&self, key: &VerifierKey) -> bool {
        self.name == *key.name() && self.id == key.id()
    }

    /// Verifies the signature over a note's text with a key that it names.
    pub(crate) fn verify_by<'k>(
        &self,
        key: &'k VerifierKey,
        text: &str,
    ) -> Result<VerifiedSignature<'k>, NoteError> {
        let time = match key.signature_type() {
            SignatureType::Cosignature => Some(verify_cosignature(self, key, text)?),
            SignatureType::Ed25519 => {
                let signature = self.sized::<SIGNATURE_BYTES>()?;
                key.public_key()
                    .verify_strict(text.as_bytes(), signature)
                    .map_err(|cause| self.bad(cause))?;
                None
            }
        };
        Ok(VerifiedSignature { key, time })
    }

    /// Returns the signature as an array, if it has the right length.
    pub(crate) fn sized<const N: usize>(&self) -> Result<&[u8; N], NoteError> {
        self.signature
            .as_slice()
            .try_into()
            .map_err(|_| NoteError::SignatureLength {
                name: self.name.clone(),
                found: self.signature.len(),
                wanted: N,
            })
    }

    pub(crate) fn bad(&self, cause: SignatureError) -> NoteError {
        NoteError::BadSignature {
            name: self.name.clone(),
            cause,
        }
    }

    /// Parses one line without its line feed.
    fn parse_line(line: &str, number: usize) -> Result<NoteSignature, NoteError> {
        let form = NoteError::SignatureForm { line: number };
        let Some((name, base64)) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
        else {
            return Err(form);
        };
        let name = KeyName::new(name).map_err(|cause| NoteError::SignatureName {
            line: number,
            cause,
        })?;
        let bytes = decode_base64(base64).map_err(|cause| NoteError::SignatureBase64 {
            line: number,
            cause,
        })?;
        match bytes.split_first_chunk::<4>() {
            Some((id, signature)) if !signature.is_empty() => Ok(NoteSignature {
                name,
                id: KeyId::new(*id),
                signature: signature.to_vec(),
            }),
            _ => Err(NoteError::SignatureTooShort {
                line: number,
                found: bytes.len(),
            }),
        }
    }
}

/// Prints the signature line, with its line feed.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.as_bytes().as_slice(), &self.signature].concat();
        writeln!(f, "\u{2014} {} {}", self.name, encode_base64(&bytes))
    }
}

pub(crate) fn parse_lines(lines: &str) -> Result<Vec<NoteSignature>, NoteError> {
    if lines.is_empty() {
        return Err(NoteError::NoSignatures);
    }
    let lines = lines.strip_suffix('\n').ok_or(NoteError::SignatureEnd)?;
    let mut signatures = Vec::new();
    for (position, line) in lines.split('\n').enumerate() {
        if position == NOTE_SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        signatures.push(NoteSignature::parse_line(line, position + 1)?);
    }
    Ok(signatures)
}
