//! Keys of signed notes: names, ids, and the verifier keys with which verifiers are configured.
//!
//! Source: c2sp.org/signed-note, "Signatures" and "Verifier keys".

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::ed25519::{PUBLIC_KEY_BYTES, PublicKey, SignatureError};
use crate::signer::PRIVATE_PREFIX;
use crate::text::{Base64Error, decode_base64, encode_base64};

/// The name of a key: not empty, no Unicode white space, no `+`, no ASCII control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

/// The 4 bytes that distinguish keys of one name. They are no commitment to the key: anyone can
/// compute another key with the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

/// The type of a key's signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SignatureType {
    /// 0x01: Ed25519 over the note's text. Logs sign checkpoints with it.
    Ed25519,
    /// 0x04: Ed25519 over a time and the note's text. Witnesses cosign with it.
    Cosignature,
}

/// A public key with its name, with which verifiers are configured.
///
/// It is printed and parsed as `<name>+<key id, 8 hex digits>+<base64(type || public key)>`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    signature_type: SignatureType,
    public_key: PublicKey,
    id: KeyId,
}

/// The reason for which a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The name is empty.
    #[error("key name is empty")]
    EmptyName,
    /// The name has a character that is not allowed.
    #[error("key name has the character {found:?}, which is white space, a control or a plus")]
    NameCharacter {
        /// The first such character.
        found: char,
    },
    /// The text is not three parts separated by plus signs.
    #[error("key is not of the form name+id+base64")]
    Form,
    /// A private key lacks its prefix, or a public one has it.
    #[error("private keys, and only those, start with PRIVATE+KEY+")]
    Prefix,
    /// The key id is not 8 lower-case hex digits.
    #[error("key id is not 8 lower-case hex digits")]
    IdForm,
    /// The key id is not that of the name and the key.
    #[error("key id is {found}, name and key give {wanted}")]
    IdMismatch {
        /// The id in the text.
        found: KeyId,
        /// The id that name and key give.
        wanted: KeyId,
    },
    /// The key material is not base64.
    #[error("key material: {0}")]
    Base64(Base64Error),
    /// There is no key material.
    #[error("key material is empty")]
    NoMaterial,
    /// The type is not implemented, or is not the one that is needed here.
    #[error("signature type 0x{found:02x} ({}) is not supported here", type_name(*found))]
    UnsupportedType {
        /// The type byte.
        found: u8,
    },
    /// The key does not have the length of its type.
    #[error("key has {found} bytes, wanted {wanted}")]
    Length {
        /// Bytes after the type.
        found: usize,
        /// Bytes that a key of this type has.
        wanted: usize,
    },
    /// The public key is invalid.
    #[error(transparent)]
    PublicKey(#[from] SignatureError),
}

impl KeyName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`KeyError::EmptyName`] or [`KeyError::NameCharacter`] if the name is not allowed.
    pub fn new(name: impl Into<String>) -> Result<KeyName, KeyError> {
        let name = name.into();
        if name.is_empty() {
            return Err(KeyError::EmptyName);
        }
        let is_bad = |c: &char| *c < '\u{20}' || *c == '+' || c.is_whitespace();
        match name.chars().find(is_bad) {
            Some(found) => Err(KeyError::NameCharacter { found }),
            None => Ok(KeyName(name)),
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyId {
    /// Wraps the 4 bytes that stand in front of a signature.
    #[must_use]
    pub const fn new(bytes: [u8; 4]) -> KeyId {
        KeyId(bytes)
    }

    /// Returns the 4 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }

    /// Computes SHA-256(name || 0x0A || type || public key)\[..4\].
    fn derive(name: &KeyName, signature_type: SignatureType, public_key: &PublicKey) -> KeyId {
        let digest = Sha256::new()
            .chain_update(name.as_str())
            .chain_update([b'\n', signature_type.to_byte()])
            .chain_update(public_key.as_bytes())
            .finalize();
        KeyId([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl SignatureType {
    /// Returns the type's byte in key ids and encoded keys.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            SignatureType::Ed25519 => 0x01,
            SignatureType::Cosignature => 0x04,
        }
    }

    fn from_byte(byte: u8) -> Result<SignatureType, KeyError> {
        match byte {
            0x01 => Ok(SignatureType::Ed25519),
            0x04 => Ok(SignatureType::Cosignature),
            found => Err(KeyError::UnsupportedType { found }),
        }
    }
}

impl VerifierKey {
    /// Makes a verifier key of a name, a type and a checked public key.
    #[must_use]
    pub fn new(name: KeyName, signature_type: SignatureType, public_key: PublicKey) -> VerifierKey {
        let id = KeyId::derive(&name, signature_type, &public_key);
        VerifierKey {
            name,
            signature_type,
            public_key,
            id,
        }
    }

    /// Parses a verifier key.
    ///
    /// # Errors
    /// [`KeyError`] unless the text is exactly what [`Display`](fmt::Display) prints for a
    /// key of a supported type.
    pub fn parse(text: &str) -> Result<VerifierKey, KeyError> {
        let (name, id, material) = split(text)?;
        let (signature_type, bytes) = split_material(&material)?;
        let key = VerifierKey::new(name, signature_type, PublicKey::from_bytes(bytes)?);
        check_id(id, key.id)?;
        Ok(key)
    }

    /// Returns the key's name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Returns the key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Returns the type of the key's signatures.
    #[must_use]
    pub fn signature_type(&self) -> SignatureType {
        self.signature_type
    }

    /// Returns the public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// Splits `name+id+base64`. Neither a name nor an id contains a plus, base64 may.
pub(crate) fn split(text: &str) -> Result<(KeyName, KeyId, Vec<u8>), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Form);
    };
    if text.starts_with(PRIVATE_PREFIX) {
        return Err(KeyError::Prefix);
    }
    Ok((
        KeyName::new(name)?,
        parse_id(id)?,
        decode_base64(material).map_err(KeyError::Base64)?,
    ))
}

fn parse_id(text: &str) -> Result<KeyId, KeyError> {
    let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 8 || !text.bytes().all(is_lower_hex) {
        return Err(KeyError::IdForm);
    }
    let id = u32::from_str_radix(text, 16).map_err(|_| KeyError::IdForm)?;
    Ok(KeyId(id.to_be_bytes()))
}

pub(crate) fn split_material(material: &[u8]) -> Result<(SignatureType, &[u8; 32]), KeyError> {
    let (type_byte, key) = material.split_first().ok_or(KeyError::NoMaterial)?;
    let signature_type = SignatureType::from_byte(*type_byte)?;
    let wanted = PUBLIC_KEY_BYTES;
    let key = key.try_into().map_err(|_| KeyError::Length {
        found: key.len(),
        wanted,
    })?;
    Ok((signature_type, key))
}

pub(crate) fn check_id(found: KeyId, wanted: KeyId) -> Result<(), KeyError> {
    if found != wanted {
        return Err(KeyError::IdMismatch { found, wanted });
    }
    Ok(())
}

/// Returns what c2sp.org/signed-note assigns to the type byte.
fn type_name(byte: u8) -> &'static str {
    match byte {
        0x01 => "Ed25519",
        0x02 => "ECDSA",
        0x04 => "Ed25519 cosignature",
        0x05 => "RFC 6962 tree head",
        0x06 => "ML-DSA-44 cosignature",
        0xff => "unassigned algorithm",
        _ => "reserved",
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<KeyName, KeyError> {
        KeyName::new(name)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<VerifierKey, KeyError> {
        VerifierKey::parse(text)
    }
}

impl AsRef<str> for KeyName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints 8 lower-case hex digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut material = [0; 1 + PUBLIC_KEY_BYTES];
        material[0] = self.signature_type.to_byte();
        material[1..].copy_from_slice(self.public_key.as_bytes());
        write!(f, "{}+{}+{}", self.name, self.id, encode_base64(&material))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}
