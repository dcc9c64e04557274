//! Entries: the preimages of leaves.

use bytes::Bytes;
use deed_proto::v1::{self, Author, PayloadType};
use deed_tlog::{Hash, LeafIndex, leaf_hash};
use thiserror::Error;

use crate::{
    ENTRY_BYTES_MAX, KeyId, Micros, PAYLOAD_BYTES_MAX, Problem, WireError, schema,
    statement::{self, BodyKind, Header},
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
    /// The type of the payload.
    pub payload_type: PayloadType,
    /// The payload as received.
    pub payload: &'a [u8],
    /// Key id and signature of a signed payload.
    pub signature: Option<KeyedSignature<'a>>,
    /// The kind of proof of the author.
    pub author: Author,
    /// The time at which the server admitted it.
    pub received_at: Micros,
    /// The leaf that bound the authenticated principal to the producer.
    pub principal_leaf: Option<u64>,
    /// The trust statement before this one, exactly if the payload is a trust statement.
    pub previous_trust: Option<TrustLink>,
}

/// Points to an entry that decides what later ones mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrustLink {
    /// 0 is the genesis entry.
    pub leaf_index: LeafIndex,
    /// Its hash.
    pub leaf_hash: Hash,
}

/// A signature and the key that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedSignature<'a> {
    /// First 16 bytes of SHA-256 of the public key.
    pub key_id: &'a [u8; 16],
    /// Ed25519 over the payload's type and bytes; see [`signature`](crate::signature).
    pub signature: &'a [u8; 64],
}

impl<'a> KeyedSignature<'a> {
    /// Takes both as they travel, if they are as long as they must be.
    #[must_use]
    pub fn from_slices(key_id: &'a [u8], signature: &'a [u8]) -> Option<Self> {
        Some(Self {
            key_id: key_id.try_into().ok()?,
            signature: signature.try_into().ok()?,
        })
    }

    /// The key's id.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        KeyId::new(*self.key_id)
    }
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
            previous_trust: None,
        }
    }

    /// A statement with a signature of its own.
    #[must_use]
    pub const fn signed(
        payload: &'a [u8],
        signature: KeyedSignature<'a>,
        received_at: Micros,
    ) -> Self {
        Self {
            signature: Some(signature),
            author: Author::Signed,
            ..Self::unsigned(payload, received_at)
        }
    }

    /// A statement that the batch manifest before it covers.
    #[must_use]
    pub const fn batched(payload: &'a [u8], received_at: Micros) -> Self {
        Self {
            author: Author::Batched,
            ..Self::unsigned(payload, received_at)
        }
    }

    /// A batch manifest.
    #[must_use]
    pub const fn manifest(
        payload: &'a [u8],
        signature: KeyedSignature<'a>,
        received_at: Micros,
    ) -> Self {
        Self {
            payload_type: PayloadType::BatchManifest,
            ..Self::signed(payload, signature, received_at)
        }
    }

    /// A trust statement; `previous` is the one before it.
    #[must_use]
    pub const fn trust(
        payload: &'a [u8],
        signature: KeyedSignature<'a>,
        received_at: Micros,
        previous: TrustLink,
    ) -> Self {
        Self {
            previous_trust: Some(previous),
            ..Self::signed(payload, signature, received_at)
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
        if let Some(link) = &self.previous_trust {
            let index = link.leaf_index.get();
            let index_bytes = if index == 0 {
                0
            } else {
                1 + varint_bytes(index)
            };
            encode_key(8, WireType::LengthDelimited, out);
            encode_varint(index_bytes + 1 + 1 + Hash::LEN as u64, out);
            number(1, index, out);
            bytes(2, link.leaf_hash.as_bytes(), out);
        }
    }

    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.payload.len() + OVERHEAD_BYTES_MAX);
        self.encode_into(&mut out);
        out.into()
    }

    /// Reads an entry, checking its canonical form and the rules of its fields. The payload itself
    /// is not looked into, so that whether `previous_trust` belongs here is for
    /// [`Entry::statement`] to say.
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
                (8, Value::Bytes(b)) => entry.previous_trust = read_link(b),
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
        let (signed, manifest) = (
            entry.author == Author::Signed,
            entry.payload_type == PayloadType::BatchManifest,
        );
        if manifest && !signed {
            return Err(WireError::rule("author", "of a batch manifest must be signed").into());
        }
        if entry.previous_trust.is_some() && (manifest || !signed) {
            return Err(WireError::rule("previous_trust", TRUST_RULE).into());
        }
        Ok(entry)
    }

    /// Parses the statement in it, and checks what entry and statement must agree on: genesis is
    /// written by the ledger and nothing else is; a trust statement is signed and linked to the one
    /// before it, and nothing else is linked.
    ///
    /// # Errors
    /// [`WireError`] if the payload is no statement, breaks a rule, or does not fit the entry.
    pub fn statement(&self) -> Result<Header<'a>, WireError> {
        if self.payload_type != PayloadType::Statement {
            return Err(WireError::rule("payload_type", "is not a statement's"));
        }
        let header = statement::parse(self.payload)?;
        let by_ledger = self.author == Author::Ledger;
        if by_ledger != header.body.is_ledgers() {
            let rule = "is the ledger for the bodies that only it writes, and for them alone";
            return Err(WireError::rule("author", rule));
        }
        self.check_link(header.body)?;
        Ok(header)
    }

    /// Checks that a trust statement is signed and linked, and that nothing else is linked.
    ///
    /// # Errors
    /// [`WireError`] naming `previous_trust`.
    pub fn check_link(&self, body: BodyKind) -> Result<(), WireError> {
        let is_trust = body.is_trust() && self.author == Author::Signed;
        if body.is_trust() != self.previous_trust.is_some() || body.is_trust() != is_trust {
            return Err(WireError::rule("previous_trust", TRUST_RULE));
        }
        Ok(())
    }
}

const TRUST_RULE: &str = "is set exactly for signed trust statements";

impl TrustLink {
    /// Reads a link as it travels.
    ///
    /// # Errors
    /// [`WireError`] if the hash has not 32 bytes.
    pub fn from_message(link: &v1::TrustLink) -> Result<Self, WireError> {
        let leaf_hash = Hash::try_from(&link.leaf_hash[..]).map_err(|_| {
            let problem = Problem::Length {
                found: link.leaf_hash.len(),
                min: Hash::LEN,
                max: Hash::LEN,
            };
            WireError::new("previous_trust.leaf_hash", problem)
        })?;
        Ok(Self {
            leaf_index: LeafIndex::new(link.leaf_index),
            leaf_hash,
        })
    }

    /// The link as it travels.
    #[must_use]
    pub fn to_message(&self) -> v1::TrustLink {
        v1::TrustLink {
            leaf_index: self.leaf_index.get(),
            leaf_hash: Bytes::copy_from_slice(self.leaf_hash.as_bytes()),
        }
    }
}

/// A link that the walk has already found to be one.
fn read_link(bytes: &[u8]) -> Option<TrustLink> {
    let (mut index, mut hash) = (0, None);
    wire::walk(&schema::TRUST_LINK, bytes, |field, value| {
        match (field.number, value) {
            (1, Value::Number(n)) => index = n,
            (2, Value::Bytes(b)) => hash = Hash::try_from(b).ok(),
            _ => {}
        }
    })
    .ok()?;
    Some(TrustLink {
        leaf_index: LeafIndex::new(index),
        leaf_hash: hash?,
    })
}

/// Bytes of a varint: one for each 7 bits begun.
fn varint_bytes(value: u64) -> u64 {
    u64::from(64 - (value | 1).leading_zeros()).div_ceil(7)
}

/// Bytes that an entry adds to its payload at most: eight tags; the lengths of payload (3, up to
/// [`PAYLOAD_BYTES_MAX`]), key id, signature and link; payload type, key id, signature and author;
/// the varints of a time that is not negative (9) and of a principal leaf (10); the link's index
/// (tag, 10) and hash (tag, length, 32).
pub const OVERHEAD_BYTES_MAX: usize =
    8 + (3 + 1 + 1 + 1) + (1 + 16 + 64 + 1) + 9 + 10 + (1 + 10) + (1 + 1 + 32);

const _: () = assert!(PAYLOAD_BYTES_MAX + OVERHEAD_BYTES_MAX <= ENTRY_BYTES_MAX);

/// Returns true if an entry was received so long before those in front of it that its receive time
/// says something false: where entries are assessed, none is recorded that is more than
/// [`SKEW_US`](crate::assess::SKEW_US) behind effective time.
#[must_use]
pub const fn is_late(received_at: Micros, effective_time: Micros) -> bool {
    let behind = effective_time.get().saturating_sub(received_at.get());
    behind > crate::assess::SKEW_US
}

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
