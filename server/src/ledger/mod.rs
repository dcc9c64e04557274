//! One ledger: what the rest of the server knows of it.

pub(crate) mod batch_proof;
pub(crate) mod index;
pub(crate) mod load;
#[cfg(test)]
mod raised_tests;
pub(crate) mod read;
pub(crate) mod registry;
#[cfg(test)]
mod signed_tests;
pub(crate) mod step;
#[cfg(test)]
mod step_tests;
pub(crate) mod ticker;

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{LedgerId, Micros};
use deed_tlog::{Checkpoint, NoteSigner, Origin, RightEdge, TreeHead, TreeSize};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::{LedgerNumber, Store, records::LedgerRecord};

/// Longest name of a ledger in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// A ledger that is in use.
pub(crate) struct Ledger {
    pub(crate) number: LedgerNumber,
    pub(crate) id: LedgerId,
    pub(crate) origin: Origin,
    pub(crate) record: LedgerRecord,
    pub(crate) trust: step::SharedTrust,
    signer: NoteSigner,
    store: Arc<Store>,
    readable: watch::Sender<Arc<Readable>>,
    consistency_proofs: Mutex<read::ConsistencyProofs>,
}

/// What readers see: a tree under its signed head. Swapped whole when a turn is on disk, under
/// the head guard, and about to be answered; never before.
#[derive(Debug, Clone)]
pub(crate) struct Readable {
    pub(crate) edge: RightEdge,
    pub(crate) head: TreeHead,
    pub(crate) checkpoint: Bytes,
    pub(crate) effective_time: Micros,
    /// When something happens in it although nobody says anything.
    pub(crate) next_due: Option<Micros>,
    /// How much is due at some time.
    pub(crate) due: u64,
}

impl Readable {
    pub(crate) fn size(&self) -> TreeSize {
        self.head.size
    }
}

impl Ledger {
    pub(crate) fn name(&self) -> &str {
        &self.record.name
    }

    /// What is readable now.
    pub(crate) fn readable(&self) -> Arc<Readable> {
        self.readable.borrow().clone()
    }

    /// Follows what is readable: always the newest, whatever came in between is skipped.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Readable>> {
        self.readable.subscribe()
    }

    /// Makes a turn's result readable. Never goes back to a smaller tree.
    pub(crate) fn publish(&self, readable: Arc<Readable>) {
        self.readable.send_if_modified(|current| {
            // Equal only for a new ledger, which has no signed head until it is published.
            let newer = readable.size() >= current.size();
            if newer {
                *current = readable;
            }
            newer
        });
    }

    /// Signs a tree head. Deterministic: the same head gives the same bytes.
    ///
    /// Callers must know that the head is consistent with every other one of this ledger: it is
    /// the shard's newest, or it was proven to be a beginning of that.
    pub(crate) fn sign(&self, head: TreeHead) -> Bytes {
        let note = Checkpoint::new(self.origin.clone(), head)
            .sign(&self.signer)
            .expect("the key is named after the origin");
        Bytes::from(note.to_string())
    }
}

/// Whether a name is 1 to 63 of `a-z 0-9 -`, without a hyphen at either end.
pub(crate) fn is_valid_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}
