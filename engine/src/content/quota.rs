//! How much each principal has stored.

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

/// What a content counts beyond its bytes: its records and its key. Empty ones are not free.
const RECORD_BYTES: u64 = 256;

/// Counters in memory; the records of the contents are what counts.
pub(super) struct Quota {
    /// 0 is no bound.
    max: u64,
    stored: Mutex<HashMap<Arc<str>, u64>>,
    /// What uploads that broke off have on the disk: whose, and what they count.
    broken_off: Mutex<HashMap<UploadId, (Arc<str>, u64)>>,
    /// Times that somebody was over.
    over: AtomicU64,
}

/// Bytes that are kept free for a content until it is stored, or given up.
pub(super) struct Reservation {
    quota: Arc<Quota>,
    principal: Arc<str>,
    bytes: u64,
    /// The upload whose pieces are on the disk already: they count until they are collected.
    pieces: Option<UploadId>,
}

impl Quota {
    /// Counts what is held.
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

    /// Keeps room for a content of `size` bytes.
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

    /// Times that somebody was over.
    pub(super) fn over(&self) -> u64 {
        self.over.load(Relaxed)
    }

    /// A content of this size is gone.
    pub(super) fn release(&self, principal: &str, size: u64) {
        self.give_back(principal, charge(size));
    }

    /// What an upload that broke off had on the disk is gone.
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
    /// The content is stored: its bytes stay counted.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }

    /// Pieces are on the disk: given up, it stays counted until [`Quota::pieces_gone`].
    pub(super) fn has_pieces(&mut self, upload: UploadId) {
        self.pieces = Some(upload);
    }

    /// Nothing was stored, and the pieces are gone.
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
