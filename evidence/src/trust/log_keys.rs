//! The keys that sign a ledger's tree heads, one after the other.
//!
//! The genesis entry names the first; each LogKeyRotated replaces the one before it. Which key is in
//! force is a function of a head's size alone: a rotation at leaf n holds for all trees that contain
//! it, from size n + 1 on. The head of exactly that size, the *handover head*, bears the signatures
//! of both keys. So whoever trusts the key before sees that very key sign the tree whose last leaf
//! names the next one.

use deed_tlog::{
    Checkpoint, CheckpointError, NoteError, SignedNote, TreeHead, TreeSize, VerifierKey,
};
use thiserror::Error;

/// Keys that a ledger may have, from first to last: more than 20 years of one a month.
pub const LOG_KEYS_MAX: usize = 256;

/// A key, and the trees that it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey {
    /// The key.
    pub key: VerifierKey,
    /// The smallest tree that it signs. It signs all larger ones up to its successor's, whose
    /// smallest it signs as well.
    pub first_size: TreeSize,
}

/// All keys of a ledger so far, oldest first.
///
/// Invariant: at least one, all of one name; ids differ; sizes ascend strictly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKeys(Vec<LogKey>);

/// The keys that sign the head of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signers<'k> {
    /// Number of keys before it.
    pub generation: usize,
    /// The one in force.
    pub key: &'k VerifierKey,
    /// The one before it, if this is the handover head.
    pub handed_over_by: Option<&'k VerifierKey>,
}

/// The reason why a signed note is not a head of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeadError {
    /// Malformed, or not signed by any key that is known.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Signed with a key that was replaced before. Whoever has that key makes another history.
    #[error(
        "the tree head of size {size} is signed with a log key that was replaced from size \
         {replaced} on"
    )]
    Retired {
        /// The head.
        head: TreeHead,
        /// Its size.
        size: TreeSize,
        /// The smallest tree that the next key signs.
        replaced: TreeSize,
    },
    /// Signed with a key that came into force later.
    #[error(
        "the tree head of size {size} is signed with a log key that signs from size {first_size} on"
    )]
    Early {
        /// Its size.
        size: TreeSize,
        /// The smallest tree that the key signs.
        first_size: TreeSize,
    },
    /// The first head of a new key, and the key before has not signed it.
    #[error(
        "the tree head of size {size} hands over to another log key; the one before has not signed it"
    )]
    NotHandedOver {
        /// Its size.
        size: TreeSize,
    },
}

impl HeadError {
    /// Returns true if none of the known keys has signed: there may be one that is not known yet.
    #[must_use]
    pub const fn is_unknown_key(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(CheckpointError::Note(NoteError::NoKnownSignature { .. }))
        )
    }
}

impl LogKeys {
    /// Begins with the genesis entry's key.
    #[must_use]
    pub fn new(first: VerifierKey) -> Self {
        Self(vec![LogKey {
            key: first,
            first_size: TreeSize::new(1),
        }])
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn all(&self) -> &[LogKey] {
        &self.0
    }

    /// The key of the genesis entry.
    #[must_use]
    pub fn first(&self) -> &LogKey {
        &self.0[0]
    }

    /// The one that signs the newest tree.
    #[must_use]
    pub fn newest(&self) -> &LogKey {
        &self.0[self.0.len() - 1]
    }

    /// Returns true if it is, or was, a key of the ledger.
    #[must_use]
    pub fn contains(&self, key: &VerifierKey) -> bool {
        self.0.iter().any(|known| known.key == *key)
    }

    /// The first size at which the key signed that `key` would be taken for: a signature line names
    /// its key by name and id, 4 bytes, so two keys that share both cannot be told apart.
    #[must_use]
    pub fn namesake(&self, key: &VerifierKey) -> Option<TreeSize> {
        let same = |known: &&LogKey| known.key.name() == key.name() && known.key.id() == key.id();
        self.0.iter().find(same).map(|known| known.first_size)
    }

    /// Adds the next key. `false`, and nothing changes, if it has another name, is a namesake of an
    /// earlier one, does not begin behind the newest, or is one too many.
    #[must_use]
    pub fn push(&mut self, key: VerifierKey, first_size: TreeSize) -> bool {
        let fits = self.0.len() < LOG_KEYS_MAX
            && key.name() == self.first().key.name()
            && self.namesake(&key).is_none()
            && self.newest().first_size < first_size;
        if fits {
            self.0.push(LogKey { key, first_size });
        }
        fits
    }

    /// The signers of the head of `size`.
    #[must_use]
    pub fn at(&self, size: TreeSize) -> Signers<'_> {
        // Few, and the newest is nearly always the one.
        let later = |known: &LogKey| known.first_size <= size;
        let generation = self.0.iter().rposition(later).unwrap_or(0);
        let LogKey { key, first_size } = &self.0[generation];
        let before = generation.checked_sub(1).and_then(|at| self.0.get(at));
        Signers {
            generation,
            key,
            handed_over_by: before
                .filter(|_| *first_size == size)
                .map(|before| &before.key),
        }
    }

    /// Reads a signed note and verifies that it is a head of the ledger, signed by the key, or both
    /// keys, that sign trees of its size. Every signature by any of the ledger's keys must hold.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn open(&self, note: &[u8]) -> Result<TreeHead, HeadError> {
        let note = SignedNote::parse(note).map_err(CheckpointError::from)?;
        let signed = note
            .verify(self.0.iter().map(|known| &known.key))
            .map_err(CheckpointError::from)?;
        let by = |key: &VerifierKey| signed.iter().any(|signature| signature.key == key);
        // Also its form, and that the keys are named after its origin: all of them have one name.
        let any = signed[0].key;
        let head = Checkpoint::open_note(&note, any)?.head;
        let size = head.size;
        let Signers {
            generation,
            key,
            handed_over_by,
        } = self.at(size);
        if !by(key) {
            let earlier = self.0[..generation]
                .iter()
                .rposition(|known| by(&known.key));
            if let Some(successor) = earlier.and_then(|at| self.0.get(at + 1)) {
                return Err(HeadError::Retired {
                    head,
                    size,
                    replaced: successor.first_size,
                });
            }
            let first_size = self.0[generation..]
                .iter()
                .find(|known| by(&known.key))
                .map_or(size, |known| known.first_size);
            return Err(HeadError::Early { size, first_size });
        }
        match handed_over_by {
            Some(before) if !by(before) => Err(HeadError::NotHandedOver { size }),
            _ => Ok(head),
        }
    }
}
