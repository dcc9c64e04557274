//! A ledger's content gate: many may store and name contents, one alone may take them away.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::store::LedgerNumber;

#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<LedgerNumber, Arc<RwLock<()>>>>);

/// Contents of this ledger are neither erased nor collected while it lives.
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

/// Nobody else stores or names contents of this ledger while it lives.
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

    /// First come, first served: those who ask to share after this wait behind it.
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
