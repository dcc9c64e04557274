//! Reading a ledger again from the store, in place: what is in memory rests on a turn that is void.
//!
//! Admission shares the trust state, and readers the published tree, so neither is made anew.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use super::Ledger;
use crate::store::{
    Family, StoreError,
    recover::{self, LoadError},
};

impl Ledger {
    /// Returns the epoch of its shard in which the ledger was last read from the store.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Notes that what is in memory is of this epoch.
    pub(crate) fn begin_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, SeqCst);
    }

    /// Returns how often the trust state was replaced. What was admitted before the last time may have
    /// been admitted by what never was.
    pub(crate) fn restorations(&self) -> u64 {
        self.restorations.load(SeqCst)
    }

    /// Reads the trust state and the tree again from the store, and begins `epoch`. The caller is the only
    /// one that steps the ledger, nothing of it is on its way to the store, and everything of it that the
    /// store has is guarded.
    pub(crate) fn restore(&self, epoch: u64) -> Result<(), LoadError> {
        let record = self.store.ledger(self.name())?;
        let Some(record) = record.filter(|found| found.ledger_id == self.record.ledger_id) else {
            // Its creation is void, and nobody else has it.
            return Ok(());
        };
        let loaded = recover::right_edge(&self.store, self.number)?.ok_or_else(|| {
            StoreError::corrupt(Family::Heads, self.number, "the newest tree is missing")
        })?;
        let trust = recover::trust(&self.store, self.number, &record.genesis_entry)?;
        recover::check_signed_head(&self.store, self.number, &loaded.edge, trust.log_keys())?;
        if let Some(in_force) = trust.policy() {
            // Not while admission waits. If it cannot be compiled, that is told where it has to judge.
            let _ = in_force.policy.compiled();
        }
        let mut current = self.trust.write();
        if current.head() != trust.head() {
            *current = trust;
            self.restorations.fetch_add(1, SeqCst);
        }
        drop(current);
        self.publish_stored(Arc::new(loaded.into()));
        self.begin_epoch(epoch);
        Ok(())
    }
}
