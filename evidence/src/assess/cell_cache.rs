//! The cells at hand.

use std::collections::{HashMap, hash_map::Entry};

use bytes::Bytes;

use super::{
    cells::{Cell, CellContent, CellKey, Task, TimerCount},
    timer::Owner,
    view::View,
    weigh::Weigh,
    work::Work,
};
use crate::TaskId;

#[derive(Debug)]
struct Slot {
    key: CellKey,
    /// `None` if there is no such cell.
    cell: Option<Cell>,
    changed: bool,
    /// The bytes that it is taken to hold; weighed when it is loaded and when its changes are taken.
    bytes: usize,
}

/// Bytes of a slot besides its cell's content: itself, and its place in the table, of which half may be
/// empty.
const SLOT_BYTES: usize = size_of::<Slot>() + 2 * size_of::<(CellKey, usize)>();

/// Cells that were asked for, and whether they changed in this turn.
#[derive(Debug)]
pub(super) struct CellCache {
    places: HashMap<CellKey, usize>,
    slots: Vec<Slot>,
    /// Slots that changed.
    changed: Vec<usize>,
    /// The task that was asked for last, and its slot: most statements are of the same task as the
    /// one before, and ask for it more than once.
    last_task: Option<(TaskId, usize)>,
    /// The slot of the ledger's numbers of timers, which every statement asks for.
    timers: Option<usize>,
    /// No cell of acts from this leaf on is kept anywhere yet.
    acts_fresh_from: u64,
    /// Bytes that all slots hold.
    held: usize,
    work: Work,
}

impl CellCache {
    pub(super) fn new() -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            changed: Vec::new(),
            last_task: None,
            timers: None,
            acts_fresh_from: u64::MAX,
            held: 0,
            work: Work::default(),
        }
    }

    /// Bytes that the cells at hand hold, those that are known to be none among them.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Work that was done so far.
    pub(super) const fn work(&self) -> Work {
        self.work
    }

    /// Notes that pairs of effects were compared.
    pub(super) const fn compared(&mut self, pairs: usize) {
        self.work.compared += pairs as u64;
    }

    /// Notes units that policies took.
    pub(super) const fn judged(&mut self, units: u64) {
        self.work.judged += units;
    }

    /// Notes that a timer was set, or is not any more.
    pub(super) const fn moved_timer(&mut self) {
        self.work.timers += 1;
    }

    /// Notes that a timer fired.
    pub(super) const fn fired_timer(&mut self) {
        self.work.fired += 1;
    }

    /// Notes that an entry was read.
    pub(super) const fn read(&mut self, bytes: usize) {
        self.work.loaded += 1;
        self.work.decoded += bytes as u64;
    }

    /// Forgets all cells. Only when all changes have been taken and can be read again.
    pub(super) fn forget(&mut self) {
        debug_assert!(self.changed.is_empty(), "changes were taken");
        // What was a great deal is given back.
        self.places = HashMap::new();
        self.slots = Vec::new();
        self.held = 0;
        self.last_task = None;
        self.timers = None;
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
                let bytes = SLOT_BYTES + cell.heap();
                self.held = self.held - slot.bytes + bytes;
                slot.bytes = bytes;
                let encoded = cell.encode();
                self.work.written += 1;
                self.work.encoded += encoded.len() as u64;
                cells.push((slot.key, encoded));
            }
        }
        cells.sort_unstable_by_key(|(key, _)| *key);
        cells
    }

    fn slot<V: View>(&mut self, view: &mut V, key: CellKey) -> Result<usize, V::Error> {
        match self.places.entry(key) {
            Entry::Occupied(place) => Ok(*place.get()),
            Entry::Vacant(vacant) => {
                let fresh = matches!(key, CellKey::Act(leaf) if leaf >= self.acts_fresh_from);
                let kept = if fresh {
                    None
                } else {
                    self.work.loaded += 1;
                    view.cell(&key)?
                };
                self.work.decoded += kept.as_ref().map_or(0, Bytes::len) as u64;
                let cell = match kept {
                    None => None,
                    Some(bytes) => match Cell::decode(&key, &bytes) {
                        Some(cell) => Some(cell),
                        None => return Err(view.damaged(&key)),
                    },
                };
                let bytes = SLOT_BYTES + cell.as_ref().map_or(0, Weigh::heap);
                self.held += bytes;
                self.slots.push(Slot {
                    key,
                    cell,
                    changed: false,
                    bytes,
                });
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

    fn seen<T: CellContent>(&self, at: usize) -> Option<&T> {
        self.slots[at].cell.as_ref().and_then(CellContent::of)
    }

    /// Returns the content of a slot, which is about to change.
    fn changing<T: CellContent>(&mut self, at: usize) -> Option<&mut T> {
        if self.slots[at].cell.is_some() {
            self.mark(at);
        }
        self.slots[at].cell.as_mut().and_then(CellContent::of_mut)
    }

    fn mark(&mut self, at: usize) {
        if !std::mem::replace(&mut self.slots[at].changed, true) {
            self.changed.push(at);
        }
    }

    /// The cells of a ledger, of which `view` reads those that are not at hand.
    pub(super) fn with<'a, V>(&'a mut self, view: &'a mut V) -> Cells<'a, V> {
        Cells { cache: self, view }
    }
}

/// The cells of a ledger: those at hand, and the view through which the others are read.
pub(super) struct Cells<'a, V> {
    pub(super) cache: &'a mut CellCache,
    pub(super) view: &'a mut V,
}

impl<V: View> Cells<'_, V> {
    /// Looks at a cell.
    pub(super) fn look<T: CellContent>(&mut self, key: CellKey) -> Result<Option<&T>, V::Error> {
        let at = self.cache.slot(self.view, key)?;
        Ok(self.cache.seen(at))
    }

    /// A cell that is about to change; `None` if there is none.
    pub(super) fn change<T: CellContent>(
        &mut self,
        key: CellKey,
    ) -> Result<Option<&mut T>, V::Error> {
        let at = self.cache.slot(self.view, key)?;
        Ok(self.cache.changing(at))
    }

    /// A cell that is about to change, and that begins as its default if there is none.
    pub(super) fn change_or_default<T: CellContent + Default>(
        &mut self,
        key: CellKey,
    ) -> Result<&mut T, V::Error> {
        let at = self.cache.slot(self.view, key)?;
        self.cache.mark(at);
        let cell = self.cache.slots[at]
            .cell
            .get_or_insert_with(|| T::default().wrap());
        match T::of_mut(cell) {
            Some(content) => Ok(content),
            None => Err(self.view.damaged(&key)),
        }
    }

    /// The numbers of timers that the whole ledger holds.
    pub(super) fn timers(&mut self) -> Result<TimerCount, V::Error> {
        let at = match self.cache.timers {
            Some(at) => at,
            None => self.cache.slot(self.view, CellKey::Timers(Owner::ALL))?,
        };
        self.cache.timers = Some(at);
        Ok(self.cache.seen(at).copied().unwrap_or_default())
    }

    /// A task.
    pub(super) fn task(&mut self, task: TaskId) -> Result<Option<&Task>, V::Error> {
        let at = self.cache.slot_of_task(self.view, task)?;
        Ok(self.cache.seen(at))
    }

    /// A task that is about to change.
    pub(super) fn change_task(&mut self, task: TaskId) -> Result<Option<&mut Task>, V::Error> {
        let at = self.cache.slot_of_task(self.view, task)?;
        Ok(self.cache.changing(at))
    }

    /// Puts a cell in the place of what is there, if that is another one.
    pub(super) fn put_if_other<T: CellContent + PartialEq>(
        &mut self,
        key: CellKey,
        content: T,
    ) -> Result<(), V::Error> {
        let at = self.cache.slot(self.view, key)?;
        if self.cache.seen(at) != Some(&content) {
            self.cache.slots[at].cell = Some(content.wrap());
            self.cache.mark(at);
        }
        Ok(())
    }

    /// Puts a cell in the place of what is there.
    pub(super) fn put<T: CellContent>(&mut self, key: CellKey, content: T) {
        let (slots, held) = (&mut self.cache.slots, &mut self.cache.held);
        let at = *self.cache.places.entry(key).or_insert_with(|| {
            *held += SLOT_BYTES;
            slots.push(Slot {
                key,
                cell: None,
                changed: false,
                bytes: SLOT_BYTES,
            });
            slots.len() - 1
        });
        self.cache.slots[at].cell = Some(content.wrap());
        self.cache.mark(at);
    }
}
