//! A ledger's content gate: many may store and name contents at the same time, only one may delete
//! them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::store::LedgerNumber;

#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<LedgerNumber, Arc<RwLock<()>>>>);

/// Shared access: while it lives, contents of the ledger are neither erased nor collected.
#[derive(Debug)]
#[must_use]
pub struct SharedGate {
    ledger: LedgerNumber,
    _guard: OwnedRwLockReadGuard<()>,
}

impl SharedGate {
    pub fn ledger(&self) -> LedgerNumber {
        self.ledger
    }
}

/// Exclusive access: while it lives, nothing else stores or names contents of the ledger.
pub(super) struct LoneGate {
    _guard: OwnedRwLockWriteGuard<()>,
}

impl Gates {
    pub(super) async fn enter(&self, ledger: LedgerNumber) -> SharedGate {
        let gate = self.of(ledger);
        SharedGate {
            ledger,
            _guard: gate.read_owned().await,
        }
    }

    /// Waits for exclusive access. The order is that of the calls: later calls for shared access
    /// wait behind it.
    pub(super) async fn enter_alone(&self, ledger: LedgerNumber) -> LoneGate {
        let gate = self.of(ledger);
        LoneGate {
            _guard: gate.write_owned().await,
        }
    }

    fn of(&self, ledger: LedgerNumber) -> Arc<RwLock<()>> {
        Arc::clone(self.0.lock().entry(ledger).or_default())
    }
}
