//! What the ledger keeps, and what its assessor may read.

use super::*;

/// What an assessor left to be kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Kept {
    pub(crate) cells: BTreeMap<CellKey, Bytes>,
    pub(crate) findings: BTreeMap<(u64, u32), v1::Finding>,
    pub(crate) timers: BTreeMap<Timer, Owner>,
    pub(crate) places: HashMap<(SessionId, Sequence), u64>,
    pub(crate) producers: HashMap<SessionId, String>,
    /// Everything that was recorded, by leaf, and whose key signed it.
    pub(crate) entries: HashMap<u64, (Bytes, Option<KeyId>)>,
}
impl Kept {
    pub(super) fn take(&mut self, changes: Changes) {
        for (key, bytes) in changes.cells {
            let bytes = Bytes::from(bytes);
            match key {
                CellKey::Finding(leaf, number) => {
                    let finding = v1::Finding::decode(bytes).unwrap();
                    self.findings.insert((leaf, number), finding);
                }
                _ => {
                    self.cells.insert(key, bytes);
                }
            }
        }
        for (due, owner) in changes.timers {
            let changed = match owner {
                Some(owner) => self.timers.insert(due, owner).is_none(),
                None => self.timers.remove(&due).is_some(),
            };
            assert!(changed, "{due:?} was {owner:?} before");
        }
    }
}
impl Kept {
    pub(super) fn recorded(&self, leaf: u64) -> Option<ImplicitIntent> {
        let (entry, key) = self.entries.get(&leaf)?;
        let recorded = ImplicitIntent::read::<EntryError>(leaf, entry, |_| Ok(*key)).unwrap()?;
        let place = (recorded.session, recorded.sequence);
        // An Intent that is kept as evidence is no act.
        (self.places.get(&place) == Some(&leaf)).then_some(recorded)
    }

    pub(super) fn cell_of<T: prost::Message + Default>(&self, key: &CellKey) -> Option<T> {
        let bytes = self.cells.get(key)?.clone();
        Some(T::decode(bytes).unwrap())
    }

    /// The act of the Intent at this leaf, if it is one.
    pub(crate) fn act(&self, leaf: u64) -> Option<cells::Act> {
        let kept = cells::Act::read::<()>(leaf, |key| Ok(self.cells.get(key).cloned()));
        let kept = kept.unwrap().map(|kept| kept.expect("no cell is damaged"));
        kept.or_else(|| {
            let recorded = self.recorded(leaf)?;
            let second = CellKey::Equivocation(recorded.session, recorded.sequence);
            let second: Option<cells::Leaves> = self.cell_of(&second);
            let task: Option<cells::Task> = self.cell_of(&CellKey::Task(recorded.task));
            recorded.act(task.as_ref(), second.as_ref())
        })
    }
}
impl View for Kept {
    type Error = String;

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, String> {
        Ok(match key {
            CellKey::Finding(leaf, number) => self
                .findings
                .get(&(*leaf, *number))
                .map(|finding| finding.encode_to_vec().into()),
            _ => self.cells.get(key).cloned(),
        })
    }

    fn leaf_of(&mut self, session: &SessionId, sequence: Sequence) -> Result<Option<u64>, String> {
        Ok(self.places.get(&(*session, sequence)).copied())
    }

    fn producer_of(&mut self, session: &SessionId) -> Result<Option<String>, String> {
        let of = self.producers.get(session);
        Ok(of.cloned())
    }

    fn intent(&mut self, leaf: u64) -> Result<Option<ImplicitIntent>, String> {
        Ok(self.recorded(leaf))
    }

    fn timer(&mut self, timer: &Timer) -> Result<Option<Owner>, String> {
        Ok(self.timers.get(timer).copied())
    }

    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, String> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let dues = self.timers.range((behind, Bound::Unbounded));
        Ok(dues
            .take(limit)
            .map(|(due, owner)| (*due, *owner))
            .collect())
    }

    fn damaged(&self, key: &CellKey) -> String {
        format!("cell {key:?} is damaged")
    }
}
