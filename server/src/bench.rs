//! Entry points for the benches: pieces of the server that nobody else calls from outside.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, Sequence, SessionId, genesis::Genesis, session::Session, trust::Registry,
};
use deed_proto::v1;
use deed_tlog::RightEdge;
use parking_lot::RwLock;

use crate::{
    admission::{Admission, AdmittedBatch, Sender},
    ledger::step::{LedgerState, Past, Placement, SharedTrust},
    shard::write_records,
    store::{Batch, LedgerNumber, Store, StoreError, StoreOptions, read::Run},
};

/// Statements that were admitted.
pub struct Admitted(AdmittedBatch);

/// A ledger's trust state.
#[derive(Clone)]
pub struct Trust {
    id: LedgerId,
    registry: SharedTrust,
}

impl Trust {
    /// The state of a ledger that has its genesis entry alone.
    #[must_use]
    pub fn new(id: LedgerId, genesis: &Genesis) -> Self {
        Self {
            registry: Arc::new(RwLock::new(Registry::genesis(id, genesis))),
            id,
        }
    }

    /// Admits envelopes, all of which must be acceptable. Signatures are verified on this thread.
    ///
    /// # Panics
    /// If one is rejected.
    #[must_use]
    pub fn admit(&self, envelopes: &[v1::Envelope]) -> Admitted {
        let admission = Admission {
            ledger_id: self.id,
            trust: &self.registry,
            sender: &Sender::anybody(),
            received_at: Micros::new(1),
            holds_contents: false,
        };
        let (batch, rejected) = admission.admit_here(envelopes);
        assert!(rejected.is_empty(), "{rejected:?}");
        Admitted(batch)
    }
}

/// A ledger's step, on its own or with a store behind it.
pub struct Step {
    state: LedgerState,
}

/// A past in which nothing has happened.
struct Nothing;

impl Past for Nothing {
    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn session(&mut self, _: &SessionId) -> Result<Option<(Session, Run)>, StoreError> {
        Ok(None)
    }

    fn run_before(&mut self, _: &SessionId, _: Sequence) -> Result<Option<Run>, StoreError> {
        Ok(None)
    }

    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError> {
        unreachable!("leaf {leaf}: nothing is asked for twice")
    }
}

impl Step {
    /// A ledger with no entries.
    #[must_use]
    pub fn new(trust: &Trust) -> Self {
        let registry = Arc::clone(&trust.registry);
        Self {
            state: LedgerState::new(trust.id, RightEdge::new(), Micros::new(0), registry),
        }
    }

    /// One turn over these statements, up to the new root.
    ///
    /// # Panics
    /// If one is not recorded.
    pub fn turn(&mut self, batches: &[Admitted]) -> deed_tlog::Hash {
        self.records(batches);
        self.state.edge().root()
    }

    /// The same, and everything that it gives written to a store and synced.
    ///
    /// # Panics
    /// If one is not recorded, or the store fails.
    pub fn turn_into(&mut self, store: &SyncedStore, batches: &[Admitted]) {
        let records = self.records(batches);
        let mut batch = Batch::default();
        write_records(&store.0, &mut batch, LedgerNumber(0), &records);
        store.0.commit(batch).expect("the bench's disk works");
    }

    fn records(&mut self, batches: &[Admitted]) -> crate::ledger::step::Records {
        let mut turn = self.state.begin(&mut Nothing).expect("nothing can fail");
        for batch in batches {
            let placements = self
                .state
                .apply(&mut turn, &batch.0, &mut Nothing)
                .expect("nothing can fail");
            assert!(placements.iter().all(|placement| matches!(
                placement,
                Placement::Recorded { .. } | Placement::Linked(_)
            )));
        }
        self.state.finish(turn).expect("nothing can fail")
    }
}

/// A store that syncs every turn.
pub struct SyncedStore(Arc<Store>);

impl SyncedStore {
    /// Opens a store below `data_dir`.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn open(data_dir: &Path) -> Self {
        let store = Store::create(data_dir, &StoreOptions::default());
        Self(Arc::new(store.expect("the bench's disk works")))
    }
}
