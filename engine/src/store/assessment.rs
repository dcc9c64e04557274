//! What the assessment keeps: cells, and what is due.

use bytes::Bytes;
use deed_evidence::{
    Micros, TaskId,
    assess::{
        Due, Owner, Recorded,
        cells::{Act, CellKey, Clock, Grant, Leaves, Task, Timers},
    },
    entry::EntryError,
};
use deed_tlog::Hash;

use super::{Family, LedgerNumber, Store, StoreError, keys, read::Scan, records::HeadRecord};

/// Why an Intent cannot be read from its entry.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Store {
    /// A cell's bytes.
    pub fn cell(&self, ledger: LedgerNumber, cell: &CellKey) -> Result<Option<Bytes>, StoreError> {
        self.value(Family::State, &keys::cell(ledger, cell))
    }

    /// The owner of a timer; `None` if it is not set.
    pub fn due(&self, ledger: LedgerNumber, due: &Due) -> Result<Option<Owner>, StoreError> {
        let key = keys::due(ledger, due);
        let value = self.value(Family::State, &key)?;
        let owner =
            |value: Bytes| Owner::from_bytes(&value).ok_or_else(|| damaged_due(ledger, &key));
        value.map(owner).transpose()
    }

    /// The first `limit` timers of a ledger behind `after`, in order.
    pub fn dues_after(
        &self,
        ledger: LedgerNumber,
        after: Option<&Due>,
        limit: usize,
    ) -> Result<Vec<(Due, Owner)>, StoreError> {
        let dues = self.due_from(ledger, after).filter(|item| match item {
            Ok((due, _)) => Some(due) != after,
            Err(_) => true,
        });
        dues.take(limit).collect()
    }

    /// When something is due in a ledger next.
    pub fn next_due(&self, ledger: LedgerNumber) -> Result<Option<Micros>, StoreError> {
        let first = self.due_from(ledger, None).next().transpose()?;
        Ok(first.map(|(due, _)| due.at))
    }

    /// Number of timers that a ledger holds.
    pub(crate) fn count_due(&self, ledger: LedgerNumber) -> Result<u64, StoreError> {
        let timers: Option<Timers> = self.decoded(ledger, &CellKey::Timers(Owner::ALL))?;
        Ok(timers.unwrap_or_default().held)
    }

    /// The last confirmation of the ledger's clock by an operator.
    pub(crate) fn confirmed_clock(
        &self,
        ledger: LedgerNumber,
    ) -> Result<Option<Clock>, StoreError> {
        self.decoded(ledger, &CellKey::Clock)
    }

    fn due_from(
        &self,
        ledger: LedgerNumber,
        from: Option<&Due>,
    ) -> impl Iterator<Item = Result<(Due, Owner), StoreError>> {
        let prefix = keys::due_prefix(ledger);
        let begin = from.map_or_else(|| prefix.clone(), |due| keys::due(ledger, due));
        self.scan(Scan::Lookup, Family::State, ledger, &begin)
            .map_while(move |item| match item {
                Ok((key, _)) if !key.starts_with(&prefix) => None,
                Ok((key, owner)) => {
                    let due = Due::from_bytes(keys::behind_kind(&key));
                    let both = due.zip(Owner::from_bytes(&owner));
                    Some(both.ok_or_else(|| damaged_due(ledger, &key)))
                }
                Err(error) => Some(Err(error)),
            })
    }
}

fn damaged_due(ledger: LedgerNumber, key: &[u8]) -> StoreError {
    let what = format!("what is due under {} is damaged", hex::encode(key));
    StoreError::corrupt(Family::State, ledger, what)
}

/// Cells as readers ask for them.
impl Store {
    /// A task.
    pub fn task(&self, ledger: LedgerNumber, task: TaskId) -> Result<Option<Task>, StoreError> {
        self.decoded(ledger, &CellKey::Task(task))
    }

    /// A grant, by the leaf hash of its statement.
    pub fn grant(
        &self,
        ledger: LedgerNumber,
        leaf_hash: Hash,
    ) -> Result<Option<Grant>, StoreError> {
        self.decoded(ledger, &CellKey::Grant(leaf_hash))
    }

    /// The act whose Intent is at a leaf: as it is kept, or as its entry has it. `None` if no Intent
    /// is there, or nothing is.
    pub fn act(&self, ledger: LedgerNumber, leaf: u64) -> Result<Option<Act>, StoreError> {
        match self.kept_act(ledger, leaf)? {
            Some(act) => Ok(Some(act)),
            None if leaf >= self.stored_size(ledger)? => Ok(None),
            None => self.unkept_act(ledger, leaf, &self.entry(ledger, leaf)?),
        }
    }

    /// The same for somebody who has the entry at the leaf.
    pub fn act_of(
        &self,
        ledger: LedgerNumber,
        leaf: u64,
        entry: &Bytes,
    ) -> Result<Option<Act>, StoreError> {
        match self.kept_act(ledger, leaf)? {
            Some(act) => Ok(Some(act)),
            None => self.unkept_act(ledger, leaf, entry),
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

    fn unkept_act(
        &self,
        ledger: LedgerNumber,
        leaf: u64,
        entry: &Bytes,
    ) -> Result<Option<Act>, StoreError> {
        let recorded = Recorded::read(leaf, entry, |session| {
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
            // Kept as evidence, and at the place of something else, or at none.
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

    /// The size of the newest tree in the store, which may be a turn ahead of what is readable.
    fn stored_size(&self, ledger: LedgerNumber) -> Result<u64, StoreError> {
        self.stored_head(ledger).map(|(size, _)| size)
    }

    /// The newest head in the store with its size. It is written with the turn that it covers, so
    /// everything that is read with it of one moment is as of this size.
    pub fn stored_head(&self, ledger: LedgerNumber) -> Result<(u64, HeadRecord), StoreError> {
        let sized = self.latest_head(ledger)?.and_then(|record| {
            // A checkpoint's second line (C2SP tlog-checkpoint).
            let text = std::str::from_utf8(&record.checkpoint).ok()?;
            Some((text.lines().nth(1)?.parse().ok()?, record))
        });
        sized
            .ok_or_else(|| StoreError::corrupt(Family::Heads, ledger, "the newest head is damaged"))
    }
}
