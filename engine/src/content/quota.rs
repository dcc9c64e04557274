//! The bytes of contents that each principal has stored, and their bound.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use deed_evidence::CommitmentDigest;
use parking_lot::Mutex;

use super::{ContentError, UploadId};
use crate::store::{Store, StoreError};

/// Bytes that a content counts beyond its own: its records and its key. So empty contents are not
/// free.
const RECORD_BYTES: u64 = 256;

/// Counters in memory, rebuilt at each start from the records of the contents.
pub(super) struct Quota {
    /// Bound in bytes for each principal; 0 for none.
    max: u64,
    stored: Mutex<HashMap<Arc<str>, u64>>,
    /// Uploads that broke off and have pieces on the disk, with their principal and the bytes that
    /// they count.
    broken_off: Mutex<HashMap<UploadId, (Arc<str>, u64)>>,
    /// Number of times that a bound was exceeded.
    over: AtomicU64,
}

/// Bytes that are reserved for a content until it is stored or given up.
pub(super) struct Reservation {
    quota: Arc<Quota>,
    principal: Arc<str>,
    bytes: u64,
    /// The upload whose pieces are on the disk already: the bytes count until these are collected.
    pieces: Option<UploadId>,
}

impl Quota {
    /// Counts the contents in the store.
    pub(super) fn rebuild(store: &Store, max: u64) -> Result<Arc<Self>, StoreError> {
        let mut stored = HashMap::<Arc<str>, u64>::new();
        for ledger in store.content_ledgers()? {
            for content in store.contents(ledger, &CommitmentDigest::new([0; 32])) {
                let (_, record) = content?;
                let counted = stored.entry(record.principal.into()).or_default();
                *counted = counted.saturating_add(charge(record.size));
            }
        }
        Ok(Arc::new(Self {
            max,
            stored: Mutex::new(stored),
            broken_off: Mutex::default(),
            over: AtomicU64::default(),
        }))
    }

    /// Reserves room for a content of `size` bytes.
    pub(super) fn reserve(
        self: &Arc<Self>,
        principal: &Arc<str>,
        size: u64,
    ) -> Result<Reservation, ContentError> {
        let bytes = charge(size);
        let mut stored = self.stored.lock();
        let held = stored.get(principal).copied().unwrap_or(0);
        let sum = held.saturating_add(bytes);
        if self.max != 0 && sum > self.max {
            self.over.fetch_add(1, Relaxed);
            return Err(ContentError::Quota {
                held,
                wanted: bytes,
                max: self.max,
            });
        }
        stored.insert(Arc::clone(principal), sum);
        Ok(Reservation {
            quota: Arc::clone(self),
            principal: Arc::clone(principal),
            bytes,
            pieces: None,
        })
    }

    /// Returns the number of times that a bound was exceeded.
    pub(super) fn over(&self) -> u64 {
        self.over.load(Relaxed)
    }

    /// Gives back the room of a content of `size` bytes that was deleted.
    pub(super) fn release(&self, principal: &str, size: u64) {
        self.give_back(principal, charge(size));
    }

    /// Gives back the room of an upload that broke off, whose pieces were deleted.
    pub(super) fn pieces_gone(&self, upload: &UploadId) {
        let broken_off = self.broken_off.lock().remove(upload);
        if let Some((principal, bytes)) = broken_off {
            self.give_back(&principal, bytes);
        }
    }

    fn give_back(&self, principal: &str, bytes: u64) {
        let mut stored = self.stored.lock();
        if let Some(held) = stored.get_mut(principal) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                stored.remove(principal);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn stored(&self, principal: &str) -> u64 {
        self.stored.lock().get(principal).copied().unwrap_or(0)
    }
}

impl Reservation {
    /// Ends the reservation of a content that is stored: its bytes stay counted.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }

    /// Notes that pieces are on the disk. If the reservation is dropped, it stays counted until
    /// [`Quota::pieces_gone`].
    pub(super) fn has_pieces(&mut self, upload: UploadId) {
        self.pieces = Some(upload);
    }

    /// Gives the room back: nothing was stored, and the pieces are gone.
    pub(super) fn release(mut self) {
        self.pieces = None;
    }

    pub(super) fn principal(&self) -> &str {
        &self.principal
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        match self.pieces.take() {
            Some(upload) => {
                let broken_off = (Arc::clone(&self.principal), self.bytes);
                self.quota.broken_off.lock().insert(upload, broken_off);
            }
            None => self.quota.give_back(&self.principal, self.bytes),
        }
    }
}

fn charge(size: u64) -> u64 {
    size.saturating_add(RECORD_BYTES)
}
