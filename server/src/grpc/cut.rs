//! A ledger at one moment, from which a whole answer is told.
//!
//! What a story says of a task, and of other entries, changes with every turn. So that all of it fits
//! together, and fits the head under which it is proven, nothing of it is read from two moments.

use std::sync::Arc;

use bytes::Bytes;
use deed_engine::{
    ledger::{Ledger, Readable},
    store::{
        Store,
        records::HeadRecord,
        recover::{self, LoadError},
    },
};
use deed_evidence::{Micros, trust::Registry};
use deed_tlog::{InclusionProof, LeafIndex, TreeSize};

use crate::status::Refusal;

/// A ledger as it stood behind one turn.
pub(super) struct Cut {
    pub(super) store: Store,
    ledger: Arc<Ledger>,
    pub(super) size: TreeSize,
    /// The signed head of exactly this size.
    pub(super) checkpoint: Bytes,
    /// Of the last leaf.
    pub(super) effective_time: Micros,
    /// The trust state of this size, once that of the ledger has gone on.
    trust: Option<Arc<Registry>>,
    /// A tree that is readable and covers this one: only now it may be told of.
    readable: Arc<Readable>,
}

impl Cut {
    /// Of a frozen store with its newest head, which a tree covers that is readable.
    pub(super) fn released(
        store: Store,
        (size, head): (u64, HeadRecord),
        ledger: &Arc<Ledger>,
        readable: Arc<Readable>,
    ) -> Self {
        debug_assert!(size <= readable.size().get(), "it is released");
        Self {
            store,
            ledger: Arc::clone(ledger),
            size: TreeSize::new(size),
            checkpoint: head.checkpoint,
            effective_time: Micros::new(head.effective_time_us),
            trust: None,
            readable,
        }
    }

    /// Proves leaves under the head.
    pub(super) fn inclusions(&self, leaves: &[LeafIndex]) -> Result<Vec<InclusionProof>, Refusal> {
        let (ledger, readable) = (&self.ledger, &self.readable);
        Ok(ledger.inclusions_at(readable, leaves, self.size)?)
    }

    /// Asks the trust state as it was: a key that was revoked since was in force. The step changes
    /// the ledger's before the turn is in the store, so a state without a later statement is the one
    /// of this size; else it is made again from the store.
    pub(super) fn ask<T>(&mut self, ask: impl FnOnce(&Registry) -> T) -> Result<T, Refusal> {
        {
            let trust = self.ledger.trust.read();
            if trust.head().leaf_index.get() < self.size.get() {
                return Ok(ask(&trust));
            }
        }
        let trust = match self.trust.take() {
            Some(trust) => trust,
            None => self.past()?,
        };
        Ok(ask(self.trust.insert(trust)))
    }

    fn past(&self) -> Result<Arc<Registry>, Refusal> {
        let past = self.ledger.past_trust.at(self.size, || self.loaded())?;
        past.ok_or_else(|| {
            Refusal::Unavailable(
                "keys or principals of the ledger changed while this was told, and others are told of \
                 earlier states; ask again"
                    .to_owned(),
            )
        })
    }

    fn loaded(&self) -> Result<Registry, Refusal> {
        let genesis = self.ledger.record_at(self.size).genesis_entry;
        let loaded = recover::trust(&self.store, self.ledger.number, &genesis);
        loaded.map_err(|error| match error {
            LoadError::Store(error) => error.into(),
            other => Refusal::Damaged(other.to_string()),
        })
    }
}
