//! The deletions that a collection has the writer thread do.

use super::{
    content_keys::{KeyBatch, KeyId},
    erase::delete_content,
    pieces::UploadOf,
    writer::{Writer, is_orphaned_key},
};
use crate::store::{Batch, LedgerNumber, StoreError};
use deed_evidence::CommitmentDigest;

impl Writer {
    /// Deletes contents that no leaf names and that are old enough; returns their number.
    pub(super) fn collect(
        &mut self,
        ledger: LedgerNumber,
        digests: &[CommitmentDigest],
    ) -> Result<usize, StoreError> {
        let (store, pieces) = (&self.shared.store, &*self.shared.pieces);
        let oldest_us = self.shared.orphaned_before_us();
        let (mut batch, mut keys) = (Batch::default(), KeyBatch::default());
        let (mut gone, mut records) = (Vec::new(), Vec::new());
        for digest in digests {
            // The record is read again, now that the gate keeps others from naming or storing the
            // content.
            let record = store.content(ledger, digest)?;
            let old = record.is_some_and(|record| record.stored_at_us <= oldest_us);
            if old
                && !store.is_named(ledger, digest)?
                && let Some(record) = delete_content(store, pieces, &mut batch, ledger, digest)?
            {
                keys.delete(ledger, digest);
                gone.push((ledger, *digest));
                records.push(record);
            }
        }
        if gone.is_empty() {
            return Ok(0);
        }
        (self.disk.contents)(batch)?;
        // After a crash before the next line the keys belong to no content, and are collected later.
        (self.disk.keys)(keys)?;
        for record in &records {
            self.shared.quota.release(&record.principal, record.size);
        }
        self.unpurged.extend(gone);
        Ok(records.len())
    }

    /// Deletes the pieces of uploads that were not finished; returns their number.
    pub(super) fn collect_uploads(&mut self, uploads: &[UploadOf]) -> Result<usize, StoreError> {
        let pieces = &self.shared.pieces;
        let mut batch = Batch::default();
        let mut gone = Vec::new();
        for upload in uploads {
            // An upload that this thread has just completed has no mark any more.
            let unfinished = pieces.is_unfinished(upload)?;
            if unfinished && !self.shared.uploads.lock().contains(&upload.id) {
                pieces.give_up(&mut batch, upload)?;
                gone.push(upload.id);
            }
        }
        let count = gone.len();
        if count > 0 {
            (self.disk.contents)(batch)?;
        }
        for upload in gone {
            self.shared.quota.pieces_gone(&upload);
        }
        Ok(count)
    }

    /// Deletes keys that belong to no content; returns their number.
    pub(super) fn collect_keys(&mut self, orphans: &[KeyId]) -> Result<usize, StoreError> {
        let mut batch = KeyBatch::default();
        let mut gone = Vec::new();
        for (ledger, digest) in orphans {
            if is_orphaned_key(&self.shared, *ledger, digest)? {
                batch.delete(*ledger, digest);
                gone.push((*ledger, *digest));
            }
        }
        let count = gone.len();
        if count > 0 {
            (self.disk.keys)(batch)?;
            self.unpurged.extend(gone);
        }
        Ok(count)
    }

    /// Returns when no file holds the keys that collections have deleted: a collected content is as
    /// unreadable as an erased one.
    pub(super) fn purge(&mut self) -> Result<(), StoreError> {
        if self.unpurged.is_empty() {
            return Ok(());
        }
        (self.disk.destroy)(&std::mem::take(&mut self.unpurged))
    }
}
