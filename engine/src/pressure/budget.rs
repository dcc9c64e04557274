//! A budget of bytes, or of other countable things, that many sources share.
//!
//! A caller that finds no room waits. Room that comes back goes to the sources in turn, by deficit
//! round robin over the amounts that they wait for: a source with a thousand requests waiting gets
//! no more of it than one with a single request. No source holds more than its bound, so that one
//! that never gives anything back cannot keep the others out; and all anonymous callers together
//! hold no more than a bound of theirs, however many addresses they have. The request whose turn it
//! is is not passed by smaller ones, unless it waits because of its own source's bound.
//!
//! A part may be reserved for known callers that hold nothing: however much the others have taken,
//! such a caller with a small request does not wait for them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    SourceKey,
    drr::{Drr, QUANTUM_BYTES, Verdict},
};

/// A budget. A clone is cheap, and shares the amounts with the original.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    source_max: usize,
    /// Most that all anonymous callers (strangers) hold together.
    strangers_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Amount that is free, without the reserve.
    free: usize,
    /// Amount that is free of the reserve.
    reserve: usize,
    /// Amount that each source holds; sources that hold nothing are not in it.
    held: HashMap<SourceKey, usize>,
    /// Amount that all strangers hold together.
    strangers: usize,
    waiting: Drr<SourceKey, Waiter>,
    next_id: u64,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    granted: oneshot::Sender<BudgetPermit>,
}

/// A part of a budget; dropping it gives it back.
#[derive(Debug)]
pub struct BudgetPermit {
    budget: Budget,
    source: SourceKey,
    amount: usize,
    /// True if the part is taken from the reserve.
    is_reserve: bool,
}

impl Budget {
    /// Makes a budget of `total`, of which one source holds `source_max` at most, and all strangers
    /// half.
    pub fn new(total: usize, source_max: usize) -> Self {
        Self::build(total, source_max, 0, total / 2, QUANTUM_BYTES)
    }

    /// Makes a budget of places, which are taken one at a time: waiting sources get them in turn,
    /// one each.
    pub(crate) fn of_places(total: usize, source_max: usize) -> Self {
        Self::build(total, source_max, 0, total / 2, 1)
    }

    /// Makes a budget of `total`, of which `reserve` is kept for known callers that hold nothing;
    /// one source holds `source_max` at most.
    pub(crate) fn with_reserve(total: usize, source_max: usize, reserve: usize) -> Self {
        let free = total.saturating_sub(reserve);
        Self::build(total, source_max, reserve, free / 2, QUANTUM_BYTES)
    }

    /// Makes a budget of which one source holds `source_max` at most, and all strangers
    /// `strangers_max`; `reserve` of it is kept for known callers that hold nothing.
    pub(crate) fn with_strangers(
        total: usize,
        source_max: usize,
        strangers_max: usize,
        reserve: usize,
    ) -> Self {
        Self::build(total, source_max, reserve, strangers_max, QUANTUM_BYTES)
    }

    fn build(
        total: usize,
        source_max: usize,
        reserve: usize,
        strangers_max: usize,
        quantum: usize,
    ) -> Self {
        let free = total.saturating_sub(reserve);
        Self(Arc::new(Inner {
            total,
            source_max: source_max.clamp(1, free.max(1)),
            strangers_max: strangers_max.clamp(1, free.max(1)),
            state: Mutex::new(State {
                free,
                reserve: total - free,
                held: HashMap::new(),
                strangers: 0,
                waiting: Drr::new(quantum),
                next_id: 0,
            }),
        }))
    }

    /// Makes a budget of which an eighth is kept for known callers that hold nothing, and one
    /// source holds half of the rest at most.
    pub fn reserving(total: usize) -> Self {
        let reserve = total / 8;
        Self::with_reserve(total, (total - reserve) / 2, reserve)
    }

    /// Waits for `amount`. If that is more than the source may ever hold, it counts as that much:
    /// the request then waits until its source holds nothing else. Dropping the future gives
    /// everything back.
    pub async fn take(&self, source: &SourceKey, amount: usize) -> BudgetPermit {
        let amount = amount.min(self.most(source));
        let (id, granting) = {
            let mut state = self.0.state.lock();
            if let Some(is_reserve) = self.fits_now(&state, source, amount) {
                return self.hold(&mut state, source.clone(), amount, is_reserve);
            }
            let (granted, granting) = oneshot::channel();
            let id = state.next_id;
            state.next_id += 1;
            let waiter = Waiter { id, granted };
            state.waiting.push(source.clone(), amount, waiter);
            (id, granting)
        };
        // The waiting requests may all be kept back by the bounds of their own sources, which this
        // one may not be.
        self.grant();
        let mut leaving = Leaving {
            budget: self,
            source,
            id: Some(id),
        };
        let share = granting
            .await
            .expect("a waiter leaves the queue with a share or by its own drop");
        leaving.id = None;
        share
    }

    /// Takes `amount` if there is room for it now and no other request waits.
    pub(crate) fn try_take(&self, source: &SourceKey, amount: usize) -> Option<BudgetPermit> {
        let amount = amount.min(self.most(source));
        let mut state = self.0.state.lock();
        let is_reserve = self.fits_now(&state, source, amount)?;
        Some(self.hold(&mut state, source.clone(), amount, is_reserve))
    }

    /// Returns the whole amount of the budget.
    pub(crate) fn total(&self) -> usize {
        self.0.total
    }

    /// Returns the amount that is held.
    pub fn held(&self) -> usize {
        let state = self.0.state.lock();
        self.0.total - state.free - state.reserve
    }

    /// Returns true if no request holds any of it or waits for it.
    pub(crate) fn is_unused(&self) -> bool {
        // Each permit and each waiter has a clone.
        Arc::strong_count(&self.0) == 1
    }

    /// Returns `Some` if there is room without waiting, with true in it if that is room of the
    /// reserve.
    fn fits_now(&self, state: &State, source: &SourceKey, amount: usize) -> Option<bool> {
        if state.waiting.is_empty() && self.fits(state, source, amount) {
            return Some(false);
        }
        let may = !source.is_stranger() && !state.held.contains_key(source);
        let fits = may && amount <= state.reserve;
        fits.then_some(true)
    }

    fn fits(&self, state: &State, source: &SourceKey, amount: usize) -> bool {
        amount <= state.free && self.within_bound(state, source, amount)
    }

    fn within_bound(&self, state: &State, source: &SourceKey, amount: usize) -> bool {
        self.0.allows(&state.held, state.strangers, source, amount)
    }

    /// Returns the most that a source may ever hold.
    fn most(&self, source: &SourceKey) -> usize {
        if source.is_stranger() {
            self.0.source_max.min(self.0.strangers_max)
        } else {
            self.0.source_max
        }
    }

    fn hold(
        &self,
        state: &mut State,
        source: SourceKey,
        amount: usize,
        is_reserve: bool,
    ) -> BudgetPermit {
        state.add(&source, amount, is_reserve);
        BudgetPermit {
            budget: self.clone(),
            source,
            amount,
            is_reserve,
        }
    }

    fn give_back(&self, source: &SourceKey, amount: usize, is_reserve: bool) {
        {
            let mut state = self.0.state.lock();
            state.remove(source, amount, is_reserve);
            if state.waiting.is_empty() {
                return;
            }
        }
        self.grant();
    }

    /// Gives free room to the requests whose turn it is.
    fn grant(&self) {
        loop {
            let mut state = self.0.state.lock();
            let State {
                free,
                reserve,
                held,
                strangers,
                waiting,
                ..
            } = &mut *state;
            let mut next = waiting.pop_if(|source, amount| {
                if !self.0.allows(held, *strangers, source, amount) {
                    Verdict::Skip
                } else if amount > *free {
                    Verdict::Stop
                } else {
                    Verdict::Take
                }
            });
            let is_reserve = next.is_none() && *reserve > 0;
            if is_reserve {
                next = waiting.pop_if(|source, amount| {
                    let may = !source.is_stranger() && !held.contains_key(source);
                    if may && amount <= *reserve {
                        Verdict::Take
                    } else {
                        Verdict::Skip
                    }
                });
            }
            let Some((source, amount, waiter)) = next else {
                return;
            };
            let share = self.hold(&mut state, source, amount, is_reserve);
            drop(state);
            // If the waiter has just given up, its permit comes back here and is dropped. The lock
            // must not be held then, because dropping takes it.
            drop(waiter.granted.send(share));
        }
    }
}

impl Inner {
    /// Returns true if the bounds of the source, and of strangers, allow it to hold `amount` more.
    fn allows(
        &self,
        held: &HashMap<SourceKey, usize>,
        strangers: usize,
        source: &SourceKey,
        amount: usize,
    ) -> bool {
        let holds = held.get(source).copied().unwrap_or(0);
        holds + amount <= self.source_max
            && (!source.is_stranger() || strangers + amount <= self.strangers_max)
    }
}

impl State {
    fn pool(&mut self, is_reserve: bool) -> &mut usize {
        match is_reserve {
            true => &mut self.reserve,
            false => &mut self.free,
        }
    }

    fn add(&mut self, source: &SourceKey, amount: usize, is_reserve: bool) {
        *self.pool(is_reserve) -= amount;
        *self.held.entry(source.clone()).or_insert(0) += amount;
        if source.is_stranger() {
            self.strangers += amount;
        }
    }

    fn remove(&mut self, source: &SourceKey, amount: usize, is_reserve: bool) {
        *self.pool(is_reserve) += amount;
        let held = self.held.get_mut(source);
        let held = held.expect("a source that gives back holds something");
        *held -= amount;
        if *held == 0 {
            self.held.remove(source);
        }
        if source.is_stranger() {
            self.strangers -= amount;
        }
    }
}

/// Removes a waiter from the queue when its future is dropped.
struct Leaving<'b> {
    budget: &'b Budget,
    source: &'b SourceKey,
    id: Option<u64>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else {
            return;
        };
        let mut state = self.budget.0.state.lock();
        state.waiting.remove(self.source, |waiter| waiter.id == id);
        drop(state);
        // This waiter may have been the one that no other could pass.
        self.budget.grant();
    }
}

impl BudgetPermit {
    /// Returns true if another source waits for room in this budget.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.budget.0.state.lock();
        state.waiting.waits_beside(&self.source)
    }

    /// Takes `amount` more if there is room for it now and no other request waits.
    pub(crate) fn try_grow(&mut self, amount: usize) -> bool {
        let mut state = self.budget.0.state.lock();
        let fits = match self.is_reserve {
            true => {
                amount <= state.reserve && self.budget.within_bound(&state, &self.source, amount)
            }
            false => state.waiting.is_empty() && self.budget.fits(&state, &self.source, amount),
        };
        if fits {
            state.add(&self.source, amount, self.is_reserve);
            self.amount += amount;
        }
        fits
    }

    /// Gives back the part beyond `amount`.
    pub(crate) fn shrink(&mut self, amount: usize) {
        if let Some(beyond) = self.amount.checked_sub(amount)
            && beyond > 0
        {
            self.amount = amount;
            let is_reserve = self.is_reserve;
            self.budget.give_back(&self.source, beyond, is_reserve);
        }
    }

    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Splits off a permit of `amount`, or of all that is left.
    pub fn split(&mut self, amount: usize) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self {
            budget: self.budget.clone(),
            source: self.source.clone(),
            amount,
            is_reserve: self.is_reserve,
        }
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        if self.amount > 0 {
            let is_reserve = self.is_reserve;
            self.budget.give_back(&self.source, self.amount, is_reserve);
        }
    }
}
