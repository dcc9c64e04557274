//! The order of a partition's turns: each is numbered, and bound to the one before it, in the batch
//! that it is written with.

use std::sync::Arc;

use prost::Message as _;

use crate::{
    ledger::{Ledger, PublishedTree},
    store::{
        Batch, Family, Store, StoreError, keys,
        turn::{Outcome, TurnRecord},
    },
};

/// Numbers the turns of a partition.
pub(super) struct Chain {
    store: Arc<Store>,
    partition: u8,
    /// The newest turn, in the store or about to be written; `None` until the first one is numbered.
    newest: Option<TurnRecord>,
}

impl Chain {
    pub(super) fn new(store: Arc<Store>, partition: u8) -> Self {
        Self {
            store,
            partition,
            newest: None,
        }
    }

    /// Numbers the turn that `batch` writes and that led to `changed`, and adds its record to `batch`.
    /// Must be called in the order in which turns are written. If one is not written, nothing behind it
    /// may be.
    pub(super) fn append(
        &mut self,
        batch: &mut Batch,
        changed: &[(Arc<Ledger>, Arc<PublishedTree>)],
    ) -> Result<TurnRecord, StoreError> {
        let before = match self.newest.take() {
            Some(newest) => newest,
            None => self.store.newest_turn(self.partition)?,
        };
        let outcomes = changed.iter().map(|(ledger, readable)| Outcome {
            ledger: ledger.number,
            head: readable.head,
            effective_time: readable.effective_time,
        });
        let turn = before.next(self.partition, outcomes);
        let key = keys::turn(self.partition);
        self.store
            .put(batch, Family::Meta, &key, &turn.encode_to_vec());
        self.newest = Some(turn.clone());
        Ok(turn)
    }
}
