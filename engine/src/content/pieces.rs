//! The sealed pieces of contents, wherever they are kept. [`Store`] keeps them beside their records.
//!
//! A piece is ciphertext: it is of no use without its content's key, and says nothing once that is
//! destroyed. So pieces may have copies anywhere, and deleting them frees space; erasing is the
//! destruction of keys ([`ContentKeys`](super::content_keys::ContentKeys)).

use bytes::Bytes;
use deed_evidence::CommitmentDigest;
use prost::Message as _;

use super::UploadId;
use crate::store::{
    Batch, Family, LedgerNumber, Store, StoreError,
    content::{ContentRecord, UploadRecord},
    keys,
};

/// An upload of a content. Its id keeps its pieces apart from those of other uploads of the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadOf {
    pub ledger: LedgerNumber,
    pub digest: CommitmentDigest,
    pub id: UploadId,
}

impl UploadOf {
    /// Returns the upload that a content's record names; `None` if its id is malformed.
    pub(super) fn of_record(
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
        record: &ContentRecord,
    ) -> Option<Self> {
        let (digest, id) = (*digest, record.upload_id()?);
        Some(Self { ledger, digest, id })
    }
}

/// Unfinished uploads, one by one.
pub(crate) type Uploads<'p> = Box<dyn Iterator<Item = Result<UploadOf, StoreError>> + 'p>;

/// The place where sealed pieces are kept.
///
/// Writes belong to a batch of the store, with which the content's record is written or deleted:
///
/// - a piece that was put, and the mark of an upload that was begun, are there when the batch is
///   committed, and as durable as it; they may be there before,
/// - what was deleted may be gone when the batch is committed, and not before: a crash must leave no
///   record whose pieces are missing. An implementation that is not part of the store's commit deletes
///   after it; what a crash leaves then has no record, and [`list`](Self::list) names it.
///
/// Pieces never change: an upload's id is used once, so a piece is put once.
pub(crate) trait Pieces: Send + Sync {
    /// Marks an upload as unfinished, with its first piece: its pieces are collected unless it is finished.
    fn begin(&self, batch: &mut Batch, upload: &UploadOf) -> Result<(), StoreError>;

    /// Puts the piece `number`, counted from 0.
    fn put(
        &self,
        batch: &mut Batch,
        upload: &UploadOf,
        number: u32,
        sealed: &[u8],
    ) -> Result<(), StoreError>;

    /// Removes the mark that [`begin`](Self::begin) made: the batch has the content's record.
    fn finish(&self, batch: &mut Batch, upload: &UploadOf) -> Result<(), StoreError>;

    /// Returns the piece `number`; `None` if it is not there.
    fn get(&self, upload: &UploadOf, number: u32) -> Result<Option<Bytes>, StoreError>;

    /// Deletes the `count` pieces of a finished upload.
    fn delete(&self, batch: &mut Batch, upload: &UploadOf, count: u32) -> Result<(), StoreError>;

    /// Deletes the pieces of an unfinished upload, however many there are, and its mark.
    fn give_up(&self, batch: &mut Batch, upload: &UploadOf) -> Result<(), StoreError>;

    /// Returns true if an upload is marked as unfinished.
    fn is_unfinished(&self, upload: &UploadOf) -> Result<bool, StoreError>;

    /// Returns the unfinished uploads of a ledger, in order of their ids.
    fn list(&self, ledger: LedgerNumber) -> Uploads<'_>;
}

impl Pieces for Store {
    fn begin(&self, batch: &mut Batch, upload: &UploadOf) -> Result<(), StoreError> {
        let record = UploadRecord {
            digest: Bytes::copy_from_slice(upload.digest.as_bytes()),
        };
        let mark = keys::upload(upload.ledger, &upload.id);
        Self::put(self, batch, Family::Content, &mark, &record.encode_to_vec());
        Ok(())
    }

    fn put(
        &self,
        batch: &mut Batch,
        upload: &UploadOf,
        number: u32,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        let key = keys::chunk(upload.ledger, &upload.digest, &upload.id, number);
        Self::put(self, batch, Family::Content, &key, sealed);
        Ok(())
    }

    fn finish(&self, batch: &mut Batch, upload: &UploadOf) -> Result<(), StoreError> {
        let mark = keys::upload(upload.ledger, &upload.id);
        batch.delete(self, Family::Content, &mark);
        Ok(())
    }

    fn get(&self, upload: &UploadOf, number: u32) -> Result<Option<Bytes>, StoreError> {
        self.chunk(upload.ledger, &upload.digest, &upload.id, number)
    }

    fn delete(&self, batch: &mut Batch, upload: &UploadOf, count: u32) -> Result<(), StoreError> {
        for number in 0..count {
            let key = keys::chunk(upload.ledger, &upload.digest, &upload.id, number);
            batch.delete(self, Family::Content, &key);
        }
        Ok(())
    }

    fn give_up(&self, batch: &mut Batch, upload: &UploadOf) -> Result<(), StoreError> {
        // A range is deleted instead of single keys: finding these would read the pieces.
        let first = keys::chunk(upload.ledger, &upload.digest, &upload.id, 0);
        let beyond = keys::chunk(upload.ledger, &upload.digest, &upload.id, u32::MAX);
        batch.delete_range(self, Family::Content, &first, &beyond);
        self.finish(batch, upload)
    }

    fn is_unfinished(&self, upload: &UploadOf) -> Result<bool, StoreError> {
        let mark = keys::upload(upload.ledger, &upload.id);
        self.is_there(Family::Content, &mark)
    }

    fn list(&self, ledger: LedgerNumber) -> Uploads<'_> {
        Box::new(
            self.uploads(ledger)
                .map(move |upload| upload.map(|(id, digest)| UploadOf { ledger, digest, id })),
        )
    }
}
