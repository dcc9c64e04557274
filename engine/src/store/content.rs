//! The content family: sealed contents, the leaves that name them, and tombstones.
//!
//! | kind | value |
//! |---|---|
//! | content | [`ContentRecord`] of a complete content; its pieces lie under its upload's id |
//! | chunk | one sealed piece, as the sealer made it |
//! | upload | [`UploadRecord`] of an unfinished upload, some of whose pieces may be there |
//! | reference | [`ReferenceRecord`] of a leaf whose statement commits to the content |
//! | erased | [`ErasedRecord`] of a content that was erased, and is not accepted again |
//! | erasing | [`ErasedRecord`] of an erasure that is recorded, whose key may still be there |

use bytes::Bytes;
use deed_evidence::{CommitmentDigest, Micros, TaskId};
use prost::Message as _;
use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::{
    Batch, Family, LedgerNumber, Store, StoreError,
    keys::{self, UploadId},
    read::Scan,
};

/// Most references that are deleted one by one: a deleted range slows down every later scan a
/// little.
const DELETED_APART_MAX: usize = 64;

/// A leaf whose statement commits to a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub leaf: u64,
    pub task: Option<TaskId>,
    pub received_at: Micros,
}

/// A complete content. Field numbers never change, as in [`super::records`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContentRecord {
    /// Bytes of the content itself.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    #[prost(uint32, tag = "2")]
    pub chunks: u32,
    /// Id of the upload, 16 bytes; the record of the content's key has it, too.
    #[prost(bytes = "bytes", tag = "3")]
    pub upload: Bytes,
    /// Time at which the content was stored, in microseconds since 1970, UTC.
    #[prost(int64, tag = "4")]
    pub(crate) stored_at_us: i64,
    /// Principal that stored the content, and whose quota it counts against.
    #[prost(string, tag = "5")]
    pub principal: String,
}

impl ContentRecord {
    pub(crate) fn upload_id(&self) -> Option<UploadId> {
        self.upload.as_ref().try_into().ok().map(UploadId::new)
    }
}

/// An unfinished upload.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct UploadRecord {
    /// The content's commitment, 32 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub digest: Bytes,
}

/// A leaf whose statement commits to a content.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ReferenceRecord {
    /// Task of the statement: 16 bytes, or none.
    #[prost(bytes = "bytes", tag = "1")]
    pub task: Bytes,
    #[prost(int64, tag = "2")]
    pub(crate) received_at_us: i64,
}

/// A tombstone of an erased content.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct ErasedRecord {
    /// Leaf of the Erasure.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
}

impl Store {
    /// Returns the number of the last write of contents; 0 before the first.
    pub(crate) fn content_serial(&self) -> Result<u64, StoreError> {
        let Some(value) = self.value(Family::Meta, keys::CONTENT_SERIAL)? else {
            return Ok(0);
        };
        let bytes = <[u8; 8]>::try_from(&value[..]).map_err(|_| {
            let what = "content_serial has not 8 bytes";
            StoreError::corrupt(Family::Meta, LedgerNumber(0), what)
        })?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Adds the number of a write of contents to its batch.
    pub(crate) fn put_content_serial(&self, batch: &mut Batch, serial: u64) {
        let value = serial.to_be_bytes();
        self.put(batch, Family::Meta, keys::CONTENT_SERIAL, &value);
    }

    pub fn content(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<Option<ContentRecord>, StoreError> {
        self.record(Family::Content, ledger, &keys::content(ledger, digest))
    }

    /// Returns one sealed piece.
    pub fn chunk(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
        upload: &UploadId,
        number: u32,
    ) -> Result<Option<Bytes>, StoreError> {
        self.value(
            Family::Content,
            &keys::chunk(ledger, digest, upload, number),
        )
    }

    /// Returns the leaf of the Erasure that took the content; `None` if it was not erased.
    pub fn erased(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<Option<u64>, StoreError> {
        let key = keys::erased(ledger, digest);
        let record: Option<ErasedRecord> = self.record(Family::Content, ledger, &key)?;
        Ok(record.map(|record| record.leaf))
    }

    /// Returns the erasures of a ledger that were recorded and are not finished.
    pub fn erasing(
        &self,
        ledger: LedgerNumber,
    ) -> impl Iterator<Item = Result<CommitmentDigest, StoreError>> {
        let from = keys::erasing(ledger, &CommitmentDigest::new([0; 32]));
        self.scan_contents(Scan::Lookup, ledger, &from, |key, _| {
            keys::erasing_digest(key).map(Ok)
        })
    }

    /// Returns complete contents of a ledger from `from` on, in order of their digests.
    pub fn contents(
        &self,
        ledger: LedgerNumber,
        from: &CommitmentDigest,
    ) -> impl Iterator<Item = Result<(CommitmentDigest, ContentRecord), StoreError>> {
        let from = keys::content(ledger, from);
        self.scan_contents(Scan::Whole, ledger, &from, move |key, value| {
            let digest = keys::content_digest(key)?;
            Some(decoded(ledger, value).map(|record| (digest, record)))
        })
    }

    /// Returns the unfinished uploads of a ledger.
    pub fn uploads(
        &self,
        ledger: LedgerNumber,
    ) -> impl Iterator<Item = Result<(UploadId, CommitmentDigest), StoreError>> {
        let from = keys::upload(ledger, &UploadId::new([0; 16]));
        self.scan_contents(Scan::Lookup, ledger, &from, move |key, value| {
            let upload = keys::upload_id(key)?;
            Some(decoded(ledger, value).and_then(|record: UploadRecord| {
                let digest = CommitmentDigest::from_slice(&record.digest).ok_or_else(|| {
                    let what = format!("the digest of upload {upload} has not 32 bytes");
                    StoreError::corrupt(Family::Content, ledger, what)
                })?;
                Ok((upload, digest))
            }))
        })
    }

    /// Returns the leaves from `from` on that name a content, in order.
    pub(crate) fn references(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
        from: u64,
    ) -> impl Iterator<Item = Result<Reference, StoreError>> {
        let from = keys::reference(ledger, digest, from);
        let digest = *digest;
        self.scan_contents(Scan::Lookup, ledger, &from, move |key, value| {
            let (found, leaf) = keys::reference_of(key)?;
            (found == digest).then(|| {
                let record: ReferenceRecord = decoded(ledger, value)?;
                Ok(Reference {
                    leaf,
                    task: TaskId::from_slice(&record.task),
                    received_at: Micros::new(record.received_at_us),
                })
            })
        })
    }

    /// Returns true if any leaf names the content.
    pub(crate) fn is_named(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<bool, StoreError> {
        let first = self.references(ledger, digest, 0).next().transpose()?;
        Ok(first.is_some())
    }

    /// Returns all references of a ledger, in order of digest and leaf.
    pub(crate) fn all_references(
        &self,
        ledger: LedgerNumber,
    ) -> impl Iterator<Item = Result<(CommitmentDigest, u64), StoreError>> {
        let from = keys::reference(ledger, &CommitmentDigest::new([0; 32]), 0);
        self.scan_contents(Scan::Whole, ledger, &from, |key, _| {
            keys::reference_of(key).map(Ok)
        })
    }

    /// Returns the numbers of the ledgers that have contents, or traces of them.
    pub(crate) fn content_ledgers(&self) -> Result<Vec<LedgerNumber>, StoreError> {
        self.ledgers_in(Family::Content)
    }

    /// Adds the deletion of a content's record, if there is one, and of its references to a batch. Its
    /// pieces are deleted apart.
    pub(crate) fn delete_content(
        &self,
        batch: &mut Batch,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
        record: Option<&ContentRecord>,
    ) -> Result<(), StoreError> {
        if record.is_some() {
            batch.delete(self, Family::Content, &keys::content(ledger, digest));
        }
        let references = self
            .references(ledger, digest, 0)
            .take(DELETED_APART_MAX + 1);
        let references = references.collect::<Result<Vec<_>, _>>()?;
        if references.len() > DELETED_APART_MAX {
            // A range is deleted, because there are many. No tree has a leaf with the number that
            // it leaves out.
            let first = keys::reference(ledger, digest, 0);
            let beyond = keys::reference(ledger, digest, u64::MAX);
            batch.delete_range(self, Family::Content, &first, &beyond);
        } else {
            for reference in references {
                let key = keys::reference(ledger, digest, reference.leaf);
                batch.delete(self, Family::Content, &key);
            }
        }
        Ok(())
    }

    /// Gives the space of deleted contents back to the disk, as far as that takes almost no space
    /// itself: files in which nothing is left are removed, and none is written anew. Blocks.
    pub(crate) fn reclaim_contents(&self) -> Result<(), StoreError> {
        let family = self.family(Family::Content);
        self.db.flush_cf(family)?;
        let _paused = CollectionPaused::begin(self)?;
        let mut whole = CompactOptions::default();
        // RocksDB may compact the other families meanwhile: this runs when the disk is nearly full,
        // and the log must not stall behind it then.
        whole.set_exclusive_manual_compaction(false);
        // Without this, RocksDB would take a file on the last level for compact already.
        whole.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db
            .compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &whole);
        Ok(())
    }

    /// Returns true if there is a record under a key.
    pub(crate) fn is_there(&self, family: Family, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.value(family, key)?.is_some())
    }

    /// Returns records of one kind, up to the first key that `read` does not accept.
    fn scan_contents<'s, T, R>(
        &'s self,
        scan: Scan,
        ledger: LedgerNumber,
        from: &[u8],
        read: R,
    ) -> impl Iterator<Item = Result<T, StoreError>> + use<'s, T, R>
    where
        R: Fn(&[u8], Bytes) -> Option<Result<T, StoreError>>,
    {
        self.has_family(Family::Content)
            .then(|| self.scan(scan, Family::Content, ledger, from))
            .into_iter()
            .flatten()
            .map_while(move |item| match item {
                Ok((key, value)) => read(&key, value),
                Err(error) => Some(Err(error)),
            })
    }
}

/// While it lives, compactions write no contents anew.
struct CollectionPaused<'s>(&'s Store);

impl<'s> CollectionPaused<'s> {
    fn begin(store: &'s Store) -> Result<Self, StoreError> {
        Self::collect(store, "false")?;
        Ok(Self(store))
    }

    fn collect(store: &Store, on: &str) -> Result<(), StoreError> {
        let option = [("enable_blob_garbage_collection", on)];
        let family = store.family(Family::Content);
        Ok(store.db.set_options_cf(family, &option)?)
    }
}

impl Drop for CollectionPaused<'_> {
    fn drop(&mut self) {
        if let Err(error) = Self::collect(self.0, "true") {
            tracing::error!(%error, "the space of deleted contents is not given back before the next start");
        }
    }
}

fn decoded<R: prost::Message + Default>(
    ledger: LedgerNumber,
    value: Bytes,
) -> Result<R, StoreError> {
    R::decode(value)
        .map_err(|error| StoreError::corrupt(Family::Content, ledger, format!("record: {error}")))
}

/// Adds references from these leaves to these contents, which are held, to a turn's batch.
pub(crate) fn write_references<'r>(
    store: &Store,
    batch: &mut Batch,
    ledger: LedgerNumber,
    references: impl IntoIterator<Item = (&'r CommitmentDigest, Reference)>,
) {
    for (digest, reference) in references {
        let record = ReferenceRecord {
            task: reference
                .task
                .map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
            received_at_us: reference.received_at.get(),
        };
        let key = keys::reference(ledger, digest, reference.leaf);
        store.put(batch, Family::Content, &key, &record.encode_to_vec());
    }
}

/// Adds the tombstone of a content, for the Erasure at `leaf`, to a turn's batch. From the commit
/// on the content counts as erased, and the erasure is finished even if the server ends before.
///
/// The caller holds the ledger's gate exclusively (`ErasureGuard`), and the step erases nothing
/// twice, so no earlier tombstone is overwritten.
pub(crate) fn write_tombstone(
    store: &Store,
    batch: &mut Batch,
    ledger: LedgerNumber,
    digest: &CommitmentDigest,
    leaf: u64,
) {
    let record = ErasedRecord { leaf }.encode_to_vec();
    for key in [keys::erased(ledger, digest), keys::erasing(ledger, digest)] {
        store.put(batch, Family::Content, &key, &record);
    }
}
