//! An estimate of the memory that the cells at hand hold, in bytes, containers included.
//!
//! A text or a list counts what it has allocated and [`ALLOCATION`] for the allocator; shared bytes count
//! as if they were not shared. So the estimate is a little more than what is really held.

use bytes::Bytes;
use deed_proto::v1;

use super::cells::{
    Act, Cell, Change, Correlated, Effect, Evidence, Grant, GrantList, KeyActivity, Outcome, Print,
    Relied, Scope, SystemSaw, Task, Waiting,
};

/// Bytes that the allocator takes for an allocation besides those asked for.
const ALLOCATION: usize = 16;

/// The bytes that a value holds on the heap, besides its own size.
pub(super) trait Weigh {
    fn heap(&self) -> usize;
}

impl Weigh for String {
    fn heap(&self) -> usize {
        match self.capacity() {
            0 => 0,
            capacity => capacity + ALLOCATION,
        }
    }
}

impl Weigh for Bytes {
    fn heap(&self) -> usize {
        match self.len() {
            0 => 0,
            // And the count of those who share it.
            len => len + 2 * ALLOCATION,
        }
    }
}

impl<T: Weigh> Weigh for Vec<T> {
    fn heap(&self) -> usize {
        if self.capacity() == 0 {
            return 0;
        }
        let own = self.capacity() * size_of::<T>() + ALLOCATION;
        own + self.iter().map(Weigh::heap).sum::<usize>()
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn heap(&self) -> usize {
        self.as_ref().map_or(0, Weigh::heap)
    }
}

impl<T: Weigh> Weigh for Box<T> {
    fn heap(&self) -> usize {
        size_of::<T>() + ALLOCATION + T::heap(self)
    }
}

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl Weigh for $kind {
            fn heap(&self) -> usize {
                0
            }
        }
    )*};
}

plain!(u8, u64, super::cells::Observed);

macro_rules! fields {
    ($($kind:ty { $($field:ident),* })*) => {$(
        impl Weigh for $kind {
            fn heap(&self) -> usize {
                let all = [$(self.$field.heap()),*];
                all.iter().sum()
            }
        }
    )*};
}

fields! {
    Effect { kind, resource, external_id, currency, before, after }
    Print { kind, resource, external_id, currency, before, after }
    Change { key, system, effect }
    SystemSaw { system, key }
    Relied { key }
    KeyActivity { key }
    Evidence { leaf_hash, key }
    Waiting { agent, action, resource, currency, grant }
    Outcome { effects, key }
    Scope { actions, resources, gateways }
    Task { opened_by, digest, assessment, seen_open, keys, opener, opener_key }
    Grant { task, subject, subject_key, currency, parent, issuer_key, accepted_key }
    Act {
        leaf_hash, payload_digest, task, key, arguments, missing, denied, waiting, evidence, outcome,
        observations, currency, session, resource, expected_effects, relied, gateways, changes, systems,
        named
    }
    super::cells::CorrelatedAct { key, task }
    super::cells::GrantName { hash, task }
    Correlated { acts }
    GrantList { grants }
    v1::Finding { task, detail }
}

impl Weigh for Cell {
    fn heap(&self) -> usize {
        match self {
            Self::Task(cell) => cell.heap(),
            Self::Grant(cell) => cell.heap(),
            Self::Scope(cell) => cell.heap(),
            Self::Act(cell) => cell.heap(),
            Self::Expected(cell) => cell.effects.heap(),
            Self::Declared(cell) => cell.effects.heap(),
            Self::Changes(cell) => cell.changes.heap(),
            Self::Leaves(cell) => cell.leaves.heap(),
            Self::Correlated(cell) => cell.heap(),
            Self::GrantList(cell) => cell.heap(),
            Self::Count(_)
            | Self::Sweep(_)
            | Self::Timers(_)
            | Self::Promise(_)
            | Self::Clock(_) => 0,
            Self::KeyTask(cell) => cell.task.heap(),
            Self::KeyActivity(cell) => cell.heap(),
            Self::Finding(cell) => cell.heap(),
        }
    }
}
