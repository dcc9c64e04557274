//! A ledger at one moment, from which a whole answer is made.
//!
//! The state of a task, and of entries of other tasks, changes with every turn. So that all parts
//! of an answer agree with each other and with the head under which they are proven, all of them
//! are read from one moment.

use std::sync::Arc;

use bytes::Bytes;
use deed_engine::{
    ledger::{Ledger, PublishedTree},
    store::{
        Store,
        recover::{self, LoadError},
    },
};
use deed_evidence::{Micros, trust::TrustState};
use deed_tlog::{InclusionProof, LeafIndex, TreeSize};

use crate::status::ApiError;

/// A ledger as it was behind one turn.
pub(super) struct Cut {
    pub(super) store: Store,
    pub(super) ledger: Arc<Ledger>,
    pub(super) size: TreeSize,
    /// The signed head of exactly this size.
    pub(super) checkpoint: Bytes,
    /// The effective time of the last leaf.
    pub(super) effective_time: Micros,
    /// The trust state of this size, if it had to be made again because the ledger's has moved on.
    pub(super) trust: Option<Arc<TrustState>>,
    /// A published tree that covers this one: before that, nothing of this one may be answered.
    pub(super) readable: Arc<PublishedTree>,
}

impl Cut {
    /// Returns inclusion proofs of `leaves` under the head.
    pub(super) fn inclusions(&self, leaves: &[LeafIndex]) -> Result<Vec<InclusionProof>, ApiError> {
        let (ledger, readable) = (&self.ledger, &self.readable);
        Ok(ledger.inclusions_at(readable, leaves, self.size)?)
    }

    /// Passes the trust state of this size to `ask`: a key that was revoked later is in force in
    /// it. The step changes the ledger's state before the turn is in the store, so if that has no
    /// statement beyond this size it is the one; otherwise the state is made again from the store.
    pub(super) fn ask<T>(&mut self, ask: impl FnOnce(&TrustState) -> T) -> Result<T, ApiError> {
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

    fn past(&self) -> Result<Arc<TrustState>, ApiError> {
        let past = self.ledger.past_trust.at(self.size, || self.loaded())?;
        past.ok_or_else(|| {
            ApiError::Unavailable(
                "keys or principals of the ledger changed while this was told, and others are told of \
                 earlier states; ask again"
                    .to_owned(),
            )
        })
    }

    fn loaded(&self) -> Result<TrustState, ApiError> {
        let genesis = self.ledger.record_at(self.size).genesis_entry;
        let loaded = recover::trust(&self.store, self.ledger.number, &genesis);
        loaded.map_err(|error| match error {
            LoadError::Store(error) => error.into(),
            other => ApiError::Damaged(other.to_string()),
        })
    }
}
