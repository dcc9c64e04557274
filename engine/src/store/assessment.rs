//! The assessment's records: cells and timers.

use bytes::Bytes;
use deed_evidence::{
    Micros, TaskId,
    assess::{
        ImplicitIntent, Owner, Timer,
        cells::{Act, CellKey, Clock, Grant, Leaves, Task, TimerCount},
    },
    entry::EntryError,
};
use deed_tlog::Hash;

use super::{Family, LedgerNumber, Store, StoreError, keys, read::Scan};

/// The reason for which an Intent cannot be read from its entry.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Store {
    /// Returns the bytes of a cell.
    pub fn cell(&self, ledger: LedgerNumber, cell: &CellKey) -> Result<Option<Bytes>, StoreError> {
        self.value(Family::State, &keys::cell(ledger, cell))
    }

    /// Returns the owner of a timer; `None` if it is not set.
    pub fn due(&self, ledger: LedgerNumber, due: &Timer) -> Result<Option<Owner>, StoreError> {
        let key = keys::due(ledger, due);
        let value = self.value(Family::State, &key)?;
        let owner =
            |value: Bytes| Owner::from_bytes(&value).ok_or_else(|| damaged_due(ledger, &key));
        value.map(owner).transpose()
    }

    /// Returns the first `limit` timers of a ledger behind `after`, in order.
    pub fn timers_after(
        &self,
        ledger: LedgerNumber,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, StoreError> {
        let dues = self.due_from(ledger, after).filter(|item| match item {
            Ok((due, _)) => Some(due) != after,
            Err(_) => true,
        });
        dues.take(limit).collect()
    }

    /// Returns the time of the next timer of a ledger.
    pub fn next_due(&self, ledger: LedgerNumber) -> Result<Option<Micros>, StoreError> {
        let first = self.due_from(ledger, None).next().transpose()?;
        Ok(first.map(|(due, _)| due.at))
    }

    /// Returns the number of timers of a ledger.
    pub(crate) fn count_due(&self, ledger: LedgerNumber) -> Result<u64, StoreError> {
        let timers: Option<TimerCount> = self.decoded(ledger, &CellKey::Timers(Owner::ALL))?;
        Ok(timers.unwrap_or_default().held)
    }

    /// Returns the last confirmation of the clock by an operator, in this ledger.
    pub(crate) fn confirmed_clock(
        &self,
        ledger: LedgerNumber,
    ) -> Result<Option<Clock>, StoreError> {
        self.decoded(ledger, &CellKey::Clock)
    }

    fn due_from(
        &self,
        ledger: LedgerNumber,
        from: Option<&Timer>,
    ) -> impl Iterator<Item = Result<(Timer, Owner), StoreError>> {
        let prefix = keys::due_prefix(ledger);
        let begin = from.map_or_else(|| prefix.clone(), |due| keys::due(ledger, due));
        self.scan(Scan::Lookup, Family::State, ledger, &begin)
            .map_while(move |item| match item {
                Ok((key, _)) if !key.starts_with(&prefix) => None,
                Ok((key, owner)) => {
                    let due = Timer::from_bytes(keys::behind_kind(&key));
                    let both = due.zip(Owner::from_bytes(&owner));
                    Some(both.ok_or_else(|| damaged_due(ledger, &key)))
                }
                Err(error) => Some(Err(error)),
            })
    }
}

fn damaged_due(ledger: LedgerNumber, key: &[u8]) -> StoreError {
    let what = format!("the timer under {} is damaged", hex::encode(key));
    StoreError::corrupt(Family::State, ledger, what)
}

/// Cells, as readers need them.
impl Store {
    /// Returns a task.
    pub fn task(&self, ledger: LedgerNumber, task: TaskId) -> Result<Option<Task>, StoreError> {
        self.decoded(ledger, &CellKey::Task(task))
    }

    /// Returns a grant by the leaf hash of its statement.
    pub fn grant(
        &self,
        ledger: LedgerNumber,
        leaf_hash: Hash,
    ) -> Result<Option<Grant>, StoreError> {
        self.decoded(ledger, &CellKey::Grant(leaf_hash))
    }

    /// Returns the act whose Intent is at a leaf, from its cells or else from its entry; `None` if
    /// there is no Intent or no leaf.
    pub fn act(&self, ledger: LedgerNumber, leaf: u64) -> Result<Option<Act>, StoreError> {
        match self.kept_act(ledger, leaf)? {
            Some(act) => Ok(Some(act)),
            None if leaf >= self.stored_size(ledger)? => Ok(None),
            None => self.implicit_act(ledger, leaf, &self.entry(ledger, leaf)?),
        }
    }

    /// Returns the act at a leaf whose entry the caller has.
    pub fn act_of(
        &self,
        ledger: LedgerNumber,
        leaf: u64,
        entry: &Bytes,
    ) -> Result<Option<Act>, StoreError> {
        match self.kept_act(ledger, leaf)? {
            Some(act) => Ok(Some(act)),
            None => self.implicit_act(ledger, leaf, entry),
        }
    }

    fn kept_act(&self, ledger: LedgerNumber, leaf: u64) -> Result<Option<Act>, StoreError> {
        Act::read(leaf, |key| self.cell(ledger, key))?.map_or(Ok(None), |read| {
            let damaged = |_| {
                let what = format!("the cells of the act at leaf {leaf} are damaged");
                StoreError::corrupt(Family::State, ledger, what)
            };
            read.map(Some).map_err(damaged)
        })
    }

    fn implicit_act(
        &self,
        ledger: LedgerNumber,
        leaf: u64,
        entry: &Bytes,
    ) -> Result<Option<Act>, StoreError> {
        let recorded = ImplicitIntent::read(leaf, entry, |session| {
            let session = self.session(ledger, &session).map_err(Unread::Store)?;
            Ok(session.and_then(|(session, _)| session.bound_to.key()))
        });
        let recorded = match recorded {
            Ok(Some(recorded)) => recorded,
            Ok(None) => return Ok(None),
            Err(Unread::Store(error)) => return Err(error),
            Err(Unread::Entry(error)) => {
                let what = format!("leaf {leaf} is not an entry: {error}");
                return Err(StoreError::corrupt(Family::Entries, ledger, what));
            }
        };
        let run = self.run_before(ledger, &recorded.session, recorded.sequence)?;
        if run.and_then(|run| run.leaf_of(recorded.sequence)) != Some(leaf) {
            // The statement was kept as evidence: another one has its sequence, or none has.
            return Ok(None);
        }
        let second = CellKey::Equivocation(recorded.session, recorded.sequence);
        let second: Option<Leaves> = self.decoded(ledger, &second)?;
        let task = self.task(ledger, recorded.task)?;
        Ok(recorded.act(task.as_ref(), second.as_ref()))
    }

    fn decoded<T: prost::Message + Default>(
        &self,
        ledger: LedgerNumber,
        key: &CellKey,
    ) -> Result<Option<T>, StoreError> {
        self.record(Family::State, ledger, &keys::cell(ledger, key))
    }

    /// Returns the size of the newest tree in the store, which may be a turn ahead of the published
    /// one.
    fn stored_size(&self, ledger: LedgerNumber) -> Result<u64, StoreError> {
        self.stored_tree(ledger).map(|tree| tree.head.size.get())
    }
}
