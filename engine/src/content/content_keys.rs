//! The wrapped data keys of contents, wherever they are kept. A database of its own keeps them here
//! ([`KeyStore`](super::key_store::KeyStore)).
//!
//! Erasing a content is destroying its key: sealed pieces may have copies, keys may not.

use std::collections::HashSet;

use deed_evidence::CommitmentDigest;

use super::{
    UploadId,
    seal::{Tag, WRAPPED_BYTES},
};
use crate::store::{LedgerNumber, StoreError};

/// Ledger and content of a key.
pub(super) type KeyId = (LedgerNumber, CommitmentDigest);

/// A content's key, as it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    pub upload: UploadId,
    /// The content's tag; it is deleted with the key.
    pub tag: Tag,
    pub wrapped: [u8; WRAPPED_BYTES],
}

/// An addition or deletion of a key.
pub(super) enum KeyWrite {
    Put(KeyId, WrappedKey),
    Delete(KeyId),
}

/// Additions and deletions of keys that are written together, in this order.
#[derive(Default)]
pub(crate) struct KeyBatch(pub(super) Vec<KeyWrite>);

impl KeyBatch {
    pub(crate) fn put(
        &mut self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
        key: &WrappedKey,
    ) {
        self.0.push(KeyWrite::Put((ledger, *digest), *key));
    }

    pub(crate) fn delete(&mut self, ledger: LedgerNumber, digest: &CommitmentDigest) {
        self.0.push(KeyWrite::Delete((ledger, *digest)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The place where wrapped keys are kept.
///
/// **Erasure.** A key is destroyed in two steps, each of which is durable before it is acknowledged:
///
/// 1. [`write`](Self::write) with its deletion. From its return on no [`get`](Self::get) finds the key, in
///    this process or after a crash.
/// 2. [`destroy`](Self::destroy). From its return on the key's bytes are in no file, log, object, version
///    or copy that the implementation keeps, and a crash brings none back.
///
/// After a crash in between both are done again, also for keys that are destroyed already.
///
/// An implementation that cannot promise the second step (a bucket with versions, a database with copies)
/// must refuse to be opened.
pub(crate) trait ContentKeys: Send + Sync {
    /// Returns a content's key; `None` if there is none.
    fn get(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<Option<WrappedKey>, StoreError>;

    /// Writes a batch, all of it or nothing, and returns when it is on disk. A put replaces the key that
    /// is there.
    fn write(&self, batch: KeyBatch) -> Result<(), StoreError>;

    /// Returns when the keys of these contents, which must be deleted already, are gone for good.
    fn destroy(&self, deleted: &[KeyId]) -> Result<(), StoreError>;

    /// Returns up to `limit` keys that come after the given one, in order of ledger and digest. The upload
    /// is `None` if the key cannot be read.
    fn after(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(LedgerNumber, CommitmentDigest, Option<UploadId>)>, StoreError>;

    /// Returns up to `limit` contents of a ledger whose bytes have one of `tags`. Reads every key
    /// of the ledger.
    fn tagged(
        &self,
        ledger: LedgerNumber,
        tags: &HashSet<Tag>,
        limit: usize,
    ) -> Result<Vec<CommitmentDigest>, StoreError>;

    /// Returns true if there are no keys.
    fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.after(None, 1)?.is_empty())
    }

    /// Moves what was written to where it stays in the course of time.
    #[cfg(test)]
    fn settle(&self);
}
