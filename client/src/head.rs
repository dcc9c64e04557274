//! Signed tree heads, verified.

use bytes::Bytes;
use deed_tlog::{Checkpoint, CheckpointError, TreeHead, VerifierKey};

/// A tree head together with the note that signs it, whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// Size and root.
    pub head: TreeHead,
    /// The signed note, verbatim.
    pub note: Bytes,
}

impl SignedHead {
    /// Reads a note and verifies that `key` signed it; the origin is the key's name.
    ///
    /// # Errors
    /// [`CheckpointError`] if it is malformed, of another origin, or not signed by `key`.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let (checkpoint, _) = Checkpoint::open(note, key)?;
        Ok(Self {
            head: checkpoint.head,
            // A copy: the slice may belong to an answer of many MiB, and heads live long.
            note: Bytes::copy_from_slice(note),
        })
    }
}

/// The newest tree head, as [`Ledger::head`](crate::Ledger::head) verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The head and its note.
    pub signed: SignedHead,
    /// Size of the largest tree that a witness quorum has cosigned, by the server's word; 0 for
    /// none.
    pub witnessed_size: u64,
    /// The head that was trusted before, with which this one is consistent. `None` if nothing is
    /// verified.
    pub consistent_with: Option<TreeHead>,
}
