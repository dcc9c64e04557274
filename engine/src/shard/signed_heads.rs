//! Signed heads that wait for the next turn of their partition, which takes them into the store.
//!
//! A head is signed when its turn is guarded, so that turn's batch is on disk already. A write of its own
//! would cost a sync, and is not needed: until then a restarted server signs the same head again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    ledger::{Publication, PublishedTree, write::write_head},
    store::{Batch, LedgerNumber, Store, StoreError},
};

/// A signed head that was published.
pub(super) struct SignedHead {
    ledger: LedgerNumber,
    published: Arc<PublishedTree>,
    /// It is kept under its size, too: the first of its second.
    keep: bool,
}

impl SignedHead {
    pub(super) fn new(ledger: LedgerNumber, publication: &Publication) -> Self {
        let Publication { before, now, .. } = publication;
        Self {
            ledger,
            published: Arc::clone(now),
            keep: before.checkpoint.is_empty() || before.second() != now.second(),
        }
    }
}

/// The signed heads of a partition that are not in the store yet.
pub(super) struct SignedHeads {
    store: Arc<Store>,
    /// In the order in which they were published.
    waiting: Mutex<Vec<SignedHead>>,
}

impl SignedHeads {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            waiting: Mutex::default(),
        }
    }

    pub(super) fn add(&self, head: SignedHead) {
        self.waiting.lock().push(head);
    }

    /// Adds those that wait to a turn's batch. If that is superseded, they must be put back.
    pub(super) fn write(&self, batch: &mut Batch) -> Vec<SignedHead> {
        let heads = std::mem::take(&mut *self.waiting.lock());
        for head in &heads {
            write_head(&self.store, batch, head.ledger, &head.published, head.keep);
        }
        heads
    }

    /// Has heads wait again, in front of those that came since.
    pub(super) fn put_back(&self, heads: Vec<SignedHead>) {
        self.waiting.lock().splice(0..0, heads);
    }

    /// Writes those that wait when no turn comes any more.
    pub(super) fn write_last(&self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        self.write(&mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.store.commit_derived(batch)
    }
}
