//! The order of a partition's turns. Each turn is numbered and bound to the one before it, in the
//! batch that it is written with.

use std::sync::Arc;

use prost::Message as _;

use super::journal::{Journal, ProposedTurn};
use crate::{
    ledger::{Ledger, Tree},
    store::{
        Batch, Family, Store, StoreError, keys,
        turn::{Outcome, TurnRecord},
    },
};

/// Numbers the turns of a partition.
pub(super) struct Chain {
    store: Arc<Store>,
    partition: u8,
    /// The turn that the next one continues; `None` if the journal has to be asked.
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

    /// Numbers the turn that writes `records` and that led to `changed`, and adds its record to them.
    /// Must be called in the order in which turns are written. If one is not written, nothing behind it
    /// may be before [`Chain::forget`].
    pub(super) fn propose(
        &mut self,
        journal: &dyn Journal,
        mut records: Batch,
        changed: &[(Arc<Ledger>, Arc<Tree>)],
    ) -> Result<ProposedTurn, StoreError> {
        let after = match self.newest.take() {
            Some(newest) => newest,
            None => journal.newest()?,
        };
        let outcomes = changed.iter().map(|(ledger, tree)| Outcome {
            ledger: ledger.number,
            head: tree.head,
            effective_time: tree.effective_time,
        });
        let turn = after.next(self.partition, outcomes);
        let key = keys::turn(self.partition);
        self.store
            .put(&mut records, Family::Meta, &key, &turn.encode_to_vec());
        self.newest = Some(turn.clone());
        Ok(ProposedTurn {
            after,
            turn,
            records,
        })
    }

    /// Forgets the newest turn, which is void: the next one continues what the journal has instead.
    pub(super) fn forget(&mut self) {
        self.newest = None;
    }
}
