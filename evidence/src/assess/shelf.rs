//! The cells at hand.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    book::View,
    cells::{ACTS_LEAVES, Cell, CellKey, Kept, Task},
};
use crate::TaskId;

#[derive(Debug)]
struct Slot {
    key: CellKey,
    /// `None` if there is no such cell.
    cell: Option<Cell>,
    changed: bool,
}

/// Cells that were asked for, and whether they changed in this turn.
#[derive(Debug)]
pub(super) struct Shelf {
    places: HashMap<CellKey, usize>,
    slots: Vec<Slot>,
    /// Slots that changed.
    changed: Vec<usize>,
    /// The task that was asked for last, and its slot: most statements are of the same task as the
    /// one before, and ask for it more than once.
    last_task: Option<(TaskId, usize)>,
    /// No cell of acts from this leaf on is kept anywhere yet.
    acts_fresh_from: u64,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            changed: Vec::new(),
            last_task: None,
            acts_fresh_from: u64::MAX,
        }
    }

    /// Cells at hand, those that are known to be none among them.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Forgets all cells. Only when all changes have been taken and can be read again.
    pub(super) fn forget(&mut self) {
        debug_assert!(self.changed.is_empty(), "changes were taken");
        self.places.clear();
        self.slots.clear();
        self.last_task = None;
    }

    /// Cells of acts from `leaf` on need not be asked for: there are none.
    pub(super) fn acts_begin_at(&mut self, leaf: u64) {
        self.acts_fresh_from = leaf;
    }

    /// The cells that changed since this was asked last, encoded, in order of their keys.
    pub(super) fn take_changes(&mut self) -> Vec<(CellKey, Vec<u8>)> {
        let mut cells = Vec::with_capacity(self.changed.len());
        for at in self.changed.drain(..) {
            let slot = &mut self.slots[at];
            slot.changed = false;
            if let Some(cell) = &slot.cell {
                cells.push((slot.key, cell.encode()));
            }
        }
        cells.sort_unstable_by_key(|(key, _)| *key);
        cells
    }

    fn slot<V: View>(&mut self, view: &mut V, key: CellKey) -> Result<usize, V::Error> {
        match self.places.entry(key) {
            Entry::Occupied(place) => Ok(*place.get()),
            Entry::Vacant(vacant) => {
                let fresh = matches!(key, CellKey::Acts(n)
                    if n.saturating_mul(ACTS_LEAVES) >= self.acts_fresh_from);
                let kept = if fresh { None } else { view.cell(&key)? };
                let cell = match kept {
                    None => None,
                    Some(bytes) => match Cell::decode(&key, &bytes) {
                        Some(cell) => Some(cell),
                        None => return Err(view.damaged(&key)),
                    },
                };
                let changed = false;
                self.slots.push(Slot { key, cell, changed });
                Ok(*vacant.insert(self.slots.len() - 1))
            }
        }
    }

    fn slot_of_task<V: View>(&mut self, view: &mut V, task: TaskId) -> Result<usize, V::Error> {
        if let Some((last, at)) = self.last_task
            && last == task
        {
            return Ok(at);
        }
        let at = self.slot(view, CellKey::Task(task))?;
        self.last_task = Some((task, at));
        Ok(at)
    }

    fn seen<T: Kept>(&self, at: usize) -> Option<&T> {
        self.slots[at].cell.as_ref().and_then(Kept::of)
    }

    /// Returns the content of a slot, which is about to change.
    fn changing<T: Kept>(&mut self, at: usize) -> Option<&mut T> {
        if self.slots[at].cell.is_some() {
            self.mark(at);
        }
        self.slots[at].cell.as_mut().and_then(Kept::of_mut)
    }

    fn mark(&mut self, at: usize) {
        if !std::mem::replace(&mut self.slots[at].changed, true) {
            self.changed.push(at);
        }
    }

    /// Looks at a cell.
    pub(super) fn look<T: Kept, V: View>(
        &mut self,
        view: &mut V,
        key: CellKey,
    ) -> Result<Option<&T>, V::Error> {
        let at = self.slot(view, key)?;
        Ok(self.seen(at))
    }

    /// A cell that is about to change; `None` if there is none.
    pub(super) fn change<T: Kept, V: View>(
        &mut self,
        view: &mut V,
        key: CellKey,
    ) -> Result<Option<&mut T>, V::Error> {
        let at = self.slot(view, key)?;
        Ok(self.changing(at))
    }

    /// A cell that is about to change, and that begins as its default if there is none.
    pub(super) fn change_or_default<T: Kept + Default, V: View>(
        &mut self,
        view: &mut V,
        key: CellKey,
    ) -> Result<&mut T, V::Error> {
        let at = self.slot(view, key)?;
        self.mark(at);
        let cell = self.slots[at]
            .cell
            .get_or_insert_with(|| T::default().wrap());
        match T::of_mut(cell) {
            Some(content) => Ok(content),
            None => Err(view.damaged(&key)),
        }
    }

    /// A task.
    pub(super) fn task<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
    ) -> Result<Option<&Task>, V::Error> {
        let at = self.slot_of_task(view, task)?;
        Ok(self.seen(at))
    }

    /// A task that is about to change.
    pub(super) fn change_task<V: View>(
        &mut self,
        view: &mut V,
        task: TaskId,
    ) -> Result<Option<&mut Task>, V::Error> {
        let at = self.slot_of_task(view, task)?;
        Ok(self.changing(at))
    }

    /// Puts a cell in the place of what is there.
    pub(super) fn put<T: Kept>(&mut self, key: CellKey, content: T) {
        let slots = &mut self.slots;
        let at = *self.places.entry(key).or_insert_with(|| {
            slots.push(Slot {
                key,
                cell: None,
                changed: false,
            });
            slots.len() - 1
        });
        self.slots[at].cell = Some(content.wrap());
        self.mark(at);
    }
}
