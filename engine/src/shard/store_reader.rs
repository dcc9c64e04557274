//! The step's reads of the store. They wait for turns on their way to the disk where they must.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use deed_evidence::{
    Sequence, SessionId,
    assess::{Owner, Timer, cells::CellKey},
    session::Session,
};

use super::{pieces::Stopwatch, pipeline::Progress, turn::Turns};
use crate::{
    ledger::step::StateReader,
    store::{Family, LedgerNumber, Store, StoreError, pack::Unpacked, read::Run},
};

/// Reads the store for the step of one ledger.
pub(super) struct StoreReader<'t> {
    store: &'t Store,
    progress: &'t Progress,
    interrupted: &'t AtomicBool,
    watch: &'t Stopwatch,
    epoch: u64,
    ledger: LedgerNumber,
    /// The pack that was read last, with its first leaf: duplicates tend to come in sequence.
    pack: Option<(u64, Unpacked)>,
}

impl<'t> StoreReader<'t> {
    pub(super) fn new(
        turns: &'t Turns,
        ledger: LedgerNumber,
        epoch: u64,
        watch: &'t Stopwatch,
    ) -> Self {
        Self {
            store: &turns.store,
            progress: &turns.progress,
            interrupted: &turns.interrupted,
            watch,
            epoch,
            ledger,
            pack: None,
        }
    }

    fn settled(&self) -> Result<(), StoreError> {
        if self.watch.wait(|| self.progress.settle(self.epoch)) {
            Ok(())
        } else {
            // This only ends the turn: the failure has been reported, or the turn is void.
            let what = "an earlier turn was not committed";
            Err(StoreError::corrupt(Family::State, self.ledger, what))
        }
    }
}

impl StateReader for StoreReader<'_> {
    fn due(&mut self, due: &Timer) -> Result<Option<Owner>, StoreError> {
        self.store.due(self.ledger, due)
    }

    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, StoreError> {
        self.store.timers_after(self.ledger, after, limit)
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.settled()
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    fn session(&mut self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError> {
        self.store.session(self.ledger, id)
    }

    fn run_before(
        &mut self,
        id: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<Run>, StoreError> {
        // Runs only grow: a stored run that holds the sequence still holds it when all turns are in
        // the store.
        let stored = self.store.run_before(self.ledger, id, sequence)?;
        if stored.is_some_and(|run| run.leaf_of(sequence).is_some()) {
            return Ok(stored);
        }
        self.settled()?;
        self.store.run_before(self.ledger, id, sequence)
    }

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, StoreError> {
        self.store.cell(self.ledger, key)
    }

    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError> {
        if let Some((first, pack)) = &self.pack
            && let Some(position) = leaf.checked_sub(*first)
            && let Some(entry) = pack.entry(position)
        {
            return Ok(entry);
        }
        let (first, pack) = match self.store.pack_of(self.ledger, leaf) {
            Ok(found) => found,
            Err(_) => {
                self.settled()?;
                self.store.pack_of(self.ledger, leaf)?
            }
        };
        let entry = pack.entry(leaf - first);
        self.pack = Some((first, pack));
        entry.ok_or_else(|| {
            StoreError::corrupt(
                Family::Entries,
                self.ledger,
                format!("leaf {leaf} is missing"),
            )
        })
    }
}
