//! The log keys of a ledger that are believed, and what shows that each took over.

use deed_evidence::trust::{HeadError, LogKeys};
use deed_tlog::VerifierKey;

use crate::head::SignedHead;

/// A ledger's log keys, from the genesis entry's to the newest that is known, each with the head
/// that hands over to it: signed with that key and the one before.
///
/// There may be a newer key. The client finds it when a head has only that key's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKeys {
    keys: LogKeys,
    /// The head that hands over to each key but the first.
    handovers: Vec<SignedHead>,
}

impl KnownKeys {
    /// Knows the genesis entry's key alone.
    #[must_use]
    pub fn new(first: VerifierKey) -> Self {
        Self {
            keys: LogKeys::new(first),
            handovers: Vec::new(),
        }
    }

    /// The keys, oldest first, each with the smallest tree that it signs.
    #[must_use]
    pub const fn keys(&self) -> &LogKeys {
        &self.keys
    }

    /// The head that hands over to each key but the first, in their order.
    #[must_use]
    pub fn handovers(&self) -> &[SignedHead] {
        &self.handovers
    }

    /// Opens a head that the keys of its size have signed.
    ///
    /// # Errors
    /// [`HeadError`]; if [`HeadError::is_unknown_key`], there may be a newer key.
    pub fn open(&self, note: &[u8]) -> Result<SignedHead, HeadError> {
        let head = self.keys.open(note)?;
        Ok(SignedHead {
            head,
            // A copy: the slice may belong to an answer of many MiB, and heads live long.
            note: bytes::Bytes::copy_from_slice(note),
        })
    }

    /// Adds the next key, which `note` hands over to: a head that both the newest key and the next one have
    /// signed. The caller checks the last leaf of that head.
    ///
    /// # Errors
    /// [`HeadError`] if one of them has not signed it, or the key cannot be the next one.
    pub fn hand_over(&mut self, key: VerifierKey, note: &[u8]) -> Result<(), HeadError> {
        let by_the_one_before = self.open(note)?;
        let mut next = self.clone();
        let size = by_the_one_before.head.size;
        if !next.keys.push(key, size) {
            return Err(HeadError::NotHandedOver { size });
        }
        let by_both = next.open(note)?;
        next.handovers.push(by_both);
        *self = next;
        Ok(())
    }

    /// Returns true if `self` knows what `other` knows, and perhaps more.
    #[must_use]
    pub fn continues(&self, other: &Self) -> bool {
        self.keys.all().starts_with(other.keys.all())
    }
}
