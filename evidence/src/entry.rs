//! Entries: the preimages of leaves.

use bytes::Bytes;
use deed_proto::v1::{Author, PayloadType};
use deed_tlog::{Hash, leaf_hash};
use thiserror::Error;

use crate::{
    ENTRY_BYTES_MAX, Micros, PAYLOAD_BYTES_MAX, WireError, schema,
    wire::{self, Value},
};

/// An entry's fields, borrowed.
///
/// [`Entry::encode_into`] and [`Entry::parse`] are inverse to each other: an entry has exactly
/// one encoding, that of `deed.v1.Entry` in canonical form. Fields that break a rule of
/// `deed/v1/entry.proto` (an empty payload, a time that is not after 1970, a signature with
/// another author than [`Author::Signed`]) encode to what `parse` refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the payload is.
    pub payload_type: PayloadType,
    /// The payload as received.
    pub payload: &'a [u8],
    /// Key id and signature of a signed payload.
    pub signature: Option<KeyedSignature<'a>>,
    /// How the author is known.
    pub author: Author,
    /// When the server admitted it.
    pub received_at: Micros,
    /// The leaf that bound the authenticated principal to the producer.
    pub principal_leaf: Option<u64>,
}

/// A signature and the key that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedSignature<'a> {
    /// First 16 bytes of SHA-256 of the public key.
    pub key_id: &'a [u8; 16],
    /// Ed25519.
    pub signature: &'a [u8; 64],
}

/// An entry that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Longer than a leaf may be.
    #[error("the entry has {found} bytes, more than {max}")]
    TooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not canonical, or a field breaks its rule.
    #[error("entry: {0}")]
    Malformed(#[from] WireError),
}

impl<'a> Entry<'a> {
    /// An unsigned statement.
    #[must_use]
    pub const fn unsigned(payload: &'a [u8], received_at: Micros) -> Self {
        Self {
            payload_type: PayloadType::Statement,
            payload,
            signature: None,
            author: Author::Unsigned,
            received_at,
            principal_leaf: None,
        }
    }

    /// A statement of the ledger itself.
    #[must_use]
    pub const fn by_ledger(payload: &'a [u8], received_at: Micros) -> Self {
        Self {
            author: Author::Ledger,
            ..Self::unsigned(payload, received_at)
        }
    }

    /// Appends the entry's bytes to `out`. Fields in ascending order, defaults left out.
    ///
    /// Source: `deed.v1.Entry`. Written by hand because it stands in the path of every
    /// statement; a test compares it with the generated encoder.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        use prost::encoding::{WireType, encode_key, encode_varint};
        let always = |field, value, out: &mut Vec<u8>| {
            encode_key(field, WireType::Varint, out);
            encode_varint(value, out);
        };
        let number = |field, value, out: &mut Vec<u8>| {
            if value != 0 {
                always(field, value, out);
            }
        };
        let bytes = |field, value: &[u8], out: &mut Vec<u8>| {
            if !value.is_empty() {
                encode_key(field, WireType::LengthDelimited, out);
                encode_varint(value.len() as u64, out);
                out.extend_from_slice(value);
            }
        };
        number(1, self.payload_type as u64, out);
        bytes(2, self.payload, out);
        if let Some(signature) = &self.signature {
            bytes(3, signature.key_id, out);
            bytes(4, signature.signature, out);
        }
        number(5, self.author as u64, out);
        number(6, self.received_at.get().cast_unsigned(), out);
        if let Some(leaf) = self.principal_leaf {
            always(7, leaf, out);
        }
    }

    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.payload.len() + OVERHEAD_BYTES_MAX);
        self.encode_into(&mut out);
        out.into()
    }

    /// Reads an entry, checking its canonical form. The payload itself is not looked into.
    ///
    /// # Errors
    /// [`EntryError`] if it is too long, not canonical, or incomplete.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong {
                found: bytes.len(),
                max: ENTRY_BYTES_MAX,
            });
        }
        let mut entry = Self {
            payload_type: PayloadType::Unspecified,
            ..Self::unsigned(&[], Micros::new(0))
        };
        let (mut key_id, mut signature) = (None, None);
        wire::walk(&schema::ENTRY, bytes, |field, value| {
            match (field.number, value) {
                (1, Value::Number(n)) => entry.payload_type = known(n, PayloadType::try_from),
                (2, Value::Bytes(b)) => entry.payload = b,
                (3, Value::Bytes(b)) => key_id = b.try_into().ok(),
                (4, Value::Bytes(b)) => signature = b.try_into().ok(),
                (5, Value::Number(n)) => entry.author = known(n, Author::try_from),
                (6, Value::Number(n)) => entry.received_at = Micros::new(n.cast_signed()),
                (7, Value::Number(n)) => entry.principal_leaf = Some(n),
                _ => {}
            }
        })?;
        entry.signature = match (key_id, signature) {
            (Some(key_id), Some(signature)) => Some(KeyedSignature { key_id, signature }),
            (None, None) => None,
            _ => {
                return Err(WireError::rule(
                    "signature",
                    "needs a key_id, and the other way round",
                )
                .into());
            }
        };
        if entry.signature.is_some() != (entry.author == Author::Signed) {
            return Err(
                WireError::rule("author", "is signed exactly if there is a signature").into(),
            );
        }
        Ok(entry)
    }
}

/// What an entry adds to its payload at most: seven tags, the lengths of payload (3, up to
/// [`PAYLOAD_BYTES_MAX`]), key id and signature; payload type, key id, signature and author; the
/// varints of a time that is not negative (9) and of a principal leaf (10).
pub const OVERHEAD_BYTES_MAX: usize = 7 + (3 + 1 + 1) + (1 + 16 + 64 + 1) + 9 + 10;

const _: () = assert!(PAYLOAD_BYTES_MAX + OVERHEAD_BYTES_MAX <= ENTRY_BYTES_MAX);

/// The leaf hash of an entry's fields.
#[must_use]
pub fn hash(entry: &Entry<'_>) -> Hash {
    leaf_hash(&entry.encode())
}

/// An enum value that the walk has already found to exist.
fn known<T: Default, E>(number: u64, convert: impl Fn(i32) -> Result<T, E>) -> T {
    i32::try_from(number)
        .ok()
        .and_then(|n| convert(n).ok())
        .unwrap_or_default()
}
