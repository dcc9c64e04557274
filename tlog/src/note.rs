//! Signed notes: a text with the signatures of any number of keys below it.
//!
//! ```text
//! text (ends with LF)
//! LF
//! one or more:  — <name> base64(key id (4 bytes) || signature) LF
//! ```
//!
//! Source: c2sp.org/signed-note, "Format".

use std::collections::HashMap;
use std::fmt;

use thiserror::Error;

use crate::cosignature::PosixSeconds;
use crate::ed25519::SignatureError;
use crate::key::{KeyError, KeyId, KeyName, VerifierKey};
use crate::note_signature::{NoteSignature, parse_lines};
use crate::signer::NoteSigner;
use crate::text::Base64Error;

/// The longest note that is parsed, in bytes. 64 signatures of the largest kind that the
/// specification foresees ("nearly 5 kB") take 320 kB; the texts here are tiny.
pub const NOTE_BYTES_MAX: usize = 512 * 1024;
/// The most signatures that a note may have. The specification asks for at least 16.
pub const NOTE_SIGNATURES_MAX: usize = 64;

/// A text and its signatures, parsed but not verified: nothing in it may be trusted before
/// [`verify`](SignedNote::verify).
///
/// Printing it returns exactly the bytes that were parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    /// The signatures. Invariant: 1 to 64.
    signatures: Vec<NoteSignature>,
}

/// A signature of a known key that was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedSignature<'a> {
    /// The key that signed.
    pub key: &'a VerifierKey,
    /// Time of signing by the signer's own clock; cosignatures only.
    pub time: Option<PosixSeconds>,
}

/// The reason for which bytes are not a signed note, or a note is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The note is longer than is accepted.
    #[error("note has {found} bytes, at most {NOTE_BYTES_MAX} are accepted")]
    TooLong {
        /// Bytes of the note.
        found: usize,
    },
    /// The note is not UTF-8.
    #[error("note is not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 {
        /// Number of bytes before the invalid ones.
        valid_up_to: usize,
    },
    /// The note has a control character other than LF.
    #[error("note has the control character {found:?} at byte {offset}")]
    ControlCharacter {
        /// The character.
        found: char,
        /// Position of the character, in bytes.
        offset: usize,
    },
    /// There is no blank line between text and signatures.
    #[error("note has no blank line between text and signatures")]
    NoBlankLine,
    /// The text does not end with a line feed.
    #[error("note text does not end with a line feed")]
    TextEnd,
    /// The signatures do not end with a line feed.
    #[error("signature lines do not end with a line feed")]
    SignatureEnd,
    /// There are no signatures.
    #[error("note has no signatures")]
    NoSignatures,
    /// There are more signatures than are accepted.
    #[error("note has more than {NOTE_SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// A line is not an em dash, a name and base64, separated by one space each.
    #[error("signature line {line} is not of the form: em dash, name, base64")]
    SignatureForm {
        /// Number of the signature line, from 1.
        line: usize,
    },
    /// The name in a signature line cannot be a key's name.
    #[error("signature line {line}: {cause}")]
    SignatureName {
        /// Number of the signature line, from 1.
        line: usize,
        /// The defect of the name.
        cause: KeyError,
    },
    /// The signature is not base64.
    #[error("signature line {line}: {cause}")]
    SignatureBase64 {
        /// Number of the signature line, from 1.
        line: usize,
        /// The defect of the base64.
        cause: Base64Error,
    },
    /// The signature is too short to hold a key id and more.
    #[error("signature line {line} has {found} bytes, which is no key id and signature")]
    SignatureTooShort {
        /// Number of the signature line, from 1.
        line: usize,
        /// Bytes that the line holds.
        found: usize,
    },
    /// Two of the known keys have the same name and id.
    #[error("two known keys have the name {name} and the id {id}")]
    AmbiguousKey {
        /// Name of both keys.
        name: KeyName,
        /// Id of both keys.
        id: KeyId,
    },
    /// A signature by a known key has the wrong length for its type.
    #[error("signature by {name} has {found} bytes, wanted {wanted}")]
    SignatureLength {
        /// The key's name.
        name: KeyName,
        /// Bytes of the signature.
        found: usize,
        /// Bytes that a signature of this type has.
        wanted: usize,
    },
    /// A cosignature's time is beyond what the specification allows.
    #[error("cosignature by {name} has the time {found}, beyond 2^63 - 1")]
    CosignatureTime {
        /// The key's name.
        name: KeyName,
        /// Seconds since 1970.
        found: u64,
    },
    /// A signature by a known key does not verify. The whole note is rejected.
    #[error("signature by {name}: {cause}")]
    BadSignature {
        /// The key's name.
        name: KeyName,
        /// The reason for which it does not verify.
        cause: SignatureError,
    },
    /// None of the signatures is by a known key.
    #[error("none of the {found} signatures is by a known key")]
    NoKnownSignature {
        /// Number of signatures of the note.
        found: usize,
    },
}

impl SignedNote {
    /// Parses a note.
    ///
    /// Only its form is checked: the signatures are not verified, and two of them may be of the
    /// same key.
    ///
    /// # Errors
    /// [`NoteError`] for all bytes that [`Display`](fmt::Display) would not print.
    pub fn parse(note: &[u8]) -> Result<SignedNote, NoteError> {
        let note = checked_utf8(note)?;
        // The text may contain blank lines, signature lines cannot: the last one separates them.
        let blank = note.rfind("\n\n").ok_or(NoteError::NoBlankLine)?;
        let (text, signatures) = (&note[..blank + 1], &note[blank + 2..]);
        let signatures = parse_lines(signatures)?;
        Ok(SignedNote {
            text: text.to_owned(),
            signatures,
        })
    }

    /// Signs a text, which must end with a line feed and have no other control characters.
    ///
    /// # Errors
    /// [`NoteError::TextEnd`], [`NoteError::ControlCharacter`] or [`NoteError::TooLong`] if the
    /// text is not allowed.
    pub fn sign(text: impl Into<String>, signer: &NoteSigner) -> Result<SignedNote, NoteError> {
        let text = text.into();
        checked_utf8(text.as_bytes())?;
        if !text.ends_with('\n') {
            return Err(NoteError::TextEnd);
        }
        let signature = NoteSignature::new(
            signer.verifier_key(),
            signer.sign_bytes(text.as_bytes()).to_vec(),
        );
        Ok(SignedNote {
            text,
            signatures: vec![signature],
        })
    }

    /// Returns the text, with its final line feed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the signatures, 1 to 64, in their order.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Appends a signature line, unless the note has the very same line already. The line is not
    /// verified.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`] if there are 64 already.
    pub fn push_signature(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= NOTE_SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Verifies all signatures of known keys and returns them, in their order.
    ///
    /// Signatures of unknown keys are ignored; a key is known by name and id together. A key that
    /// signed twice (a witness may cosign the same head again with another time) is returned twice.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`], [`NoteError::SignatureLength`] or
    /// [`NoteError::CosignatureTime`] if any signature of a known key is bad;
    /// [`NoteError::NoKnownSignature`] if there is none; [`NoteError::AmbiguousKey`] if two
    /// different keys share name and id.
    pub fn verify<'k>(
        &self,
        known: impl IntoIterator<Item = &'k VerifierKey>,
    ) -> Result<Vec<VerifiedSignature<'k>>, NoteError> {
        let mut keys: HashMap<(&str, KeyId), &VerifierKey> = HashMap::new();
        for key in known {
            match keys.insert((key.name().as_str(), key.id()), key) {
                Some(other) if other != key => {
                    return Err(NoteError::AmbiguousKey {
                        name: key.name().clone(),
                        id: key.id(),
                    });
                }
                _ => {}
            }
        }
        let mut verified = Vec::new();
        for signature in &self.signatures {
            if let Some(key) = keys.get(&(signature.name().as_str(), signature.id())) {
                verified.push(signature.verify_by(key, &self.text)?);
            }
        }
        if verified.is_empty() {
            return Err(NoteError::NoKnownSignature {
                found: self.signatures.len(),
            });
        }
        Ok(verified)
    }
}

/// Prints the note as it is sent and stored.
impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| signature.fmt(f))
    }
}

pub(crate) fn checked_utf8(bytes: &[u8]) -> Result<&str, NoteError> {
    if bytes.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLong { found: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| NoteError::NotUtf8 {
        valid_up_to: error.valid_up_to(),
    })?;
    match text.bytes().position(|byte| byte < b' ' && byte != b'\n') {
        Some(offset) => Err(NoteError::ControlCharacter {
            found: bytes[offset].into(),
            offset,
        }),
        None => Ok(text),
    }
}
