//! The cells of an assessment: the state that the step reads and changes.
//!
//! Each cell has a key and one encoding, a Protobuf message with the field numbers below. They stay
//! on the machine that keeps them and can be made again from the entries; a change of their
//! meaning is a migration all the same.

mod act;
mod grant;
mod task;

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::Hash;
use prost::Message as _;

pub use super::body::Effect;
use super::timer::Owner;
use crate::{KeyId, Sequence, SessionId, TaskId};
pub use act::{
    Act, Change, Changes, Declared, Duties, Evidence, Expected, Observed, Outcome, Print, Relied,
    SystemSaw, Waiting,
};
pub(super) use act::{short, short_of};
pub use grant::{Grant, GrantList, GrantName, Scope};
pub use task::{Count, KeyActivity, KeyTask, Sweep, Task};

/// Names a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CellKey {
    /// A task.
    Task(TaskId),
    /// A grant, by the leaf hash of its statement: what of it changes.
    Grant(Hash),
    /// Actions and resources that a grant covers; written once.
    Scope(Hash),
    /// The act whose Intent is at this leaf, without its lists of effects.
    Act(u64),
    /// The effects that the Intent at this leaf expects; written once.
    Expected(u64),
    /// The effects that the Outcome of the Intent at this leaf declares.
    Declared(u64),
    /// The changes that one system saw of the act of the Intent at this leaf.
    Changes(u64, System),
    /// Acts with a correlation key, by 16 bytes of SHA-256 over kind, a zero byte and value.
    Correlation([u8; 16]),
    /// Grants that stand for another system's credential; likewise.
    Token([u8; 16]),
    /// Number of tasks that a key has spoken in.
    KeyUses(KeyId),
    /// The n-th of them.
    KeyUse(KeyId, u32),
    /// The last statement of a key in a task, if that has no room for it among its own keys.
    KeyIn(TaskId, KeyId),
    /// The tasks of a compromised key that are still to be looked at.
    Sweep(KeyId),
    /// An equivocation at a place in a session: the leaf of the second statement for it.
    Equivocation(SessionId, Sequence),
    /// The numbers of timers that an owner holds.
    Timers(Owner),
    /// The time by which a session has promised to go on.
    Promise(SessionId),
    /// The last confirmation of the ledger's clock by an operator.
    Clock,
    /// A finding: the leaf that it arose at, and its number there.
    Finding(u64, u32),
}

/// Names a system: 16 bytes of SHA-256 over its producer.
pub type System = [u8; 16];

impl CellKey {
    /// The key as it is stored: a kind's byte, which no other kind has, then integers big-endian.
    /// Findings have keys of their own where they are stored, so that they can be listed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, name, tail): (u8, &[u8], &[u8]) = match self {
            Self::Task(task) => (1, task.as_bytes(), &[]),
            Self::Grant(hash) => (2, hash.as_bytes(), &[]),
            Self::Act(leaf) => (3, &leaf.to_be_bytes(), &[]),
            Self::Correlation(name) => (4, name, &[]),
            Self::Token(name) => (5, name, &[]),
            Self::KeyUses(key) => (6, key.as_bytes(), &[]),
            Self::KeyUse(key, n) => (7, key.as_bytes(), &n.to_be_bytes()),
            Self::Finding(leaf, number) => (8, &leaf.to_be_bytes(), &number.to_be_bytes()),
            Self::Equivocation(session, sequence) => {
                (9, session.as_bytes(), &sequence.get().to_be_bytes())
            }
            Self::KeyIn(task, key) => (10, task.as_bytes(), key.as_bytes()),
            Self::Scope(hash) => (11, hash.as_bytes(), &[]),
            Self::Expected(leaf) => (12, &leaf.to_be_bytes(), &[]),
            Self::Declared(leaf) => (13, &leaf.to_be_bytes(), &[]),
            Self::Changes(leaf, system) => (14, &leaf.to_be_bytes(), system),
            Self::Sweep(key) => (15, key.as_bytes(), &[]),
            Self::Timers(owner) => (16, owner.as_bytes(), &[]),
            Self::Promise(session) => (17, session.as_bytes(), &[]),
            Self::Clock => (18, &[], &[]),
        };
        [&[kind], name, tail].concat()
    }
}

/// A cell's content.
#[expect(
    clippy::large_enum_variant,
    reason = "every statement of a task takes its Task; a box would be an allocation each time"
)]
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Task(Task),
    Grant(Box<Grant>),
    Scope(Box<Scope>),
    Act(Box<Act>),
    Expected(Expected),
    Declared(Declared),
    Changes(Changes),
    Leaves(Leaves),
    Correlated(Correlated),
    GrantList(GrantList),
    Count(Count),
    KeyTask(KeyTask),
    KeyActivity(KeyActivity),
    Timers(TimerCount),
    Promise(Promise),
    Clock(Clock),
    Sweep(Sweep),
    Finding(Box<v1::Finding>),
}

impl Cell {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Task(cell) => cell.encode_to_vec(),
            Self::Grant(cell) => cell.encode_to_vec(),
            Self::Scope(cell) => cell.encode_to_vec(),
            Self::Act(cell) => cell.encode_to_vec(),
            Self::Expected(cell) => cell.encode_to_vec(),
            Self::Declared(cell) => cell.encode_to_vec(),
            Self::Changes(cell) => cell.encode_to_vec(),
            Self::Leaves(cell) => cell.encode_to_vec(),
            Self::Correlated(cell) => cell.encode_to_vec(),
            Self::GrantList(cell) => cell.encode_to_vec(),
            Self::Count(cell) => cell.encode_to_vec(),
            Self::KeyTask(cell) => cell.encode_to_vec(),
            Self::KeyActivity(cell) => cell.encode_to_vec(),
            Self::Timers(cell) => cell.encode_to_vec(),
            Self::Promise(cell) => cell.encode_to_vec(),
            Self::Clock(cell) => cell.encode_to_vec(),
            Self::Sweep(cell) => cell.encode_to_vec(),
            Self::Finding(cell) => cell.encode_to_vec(),
        }
    }

    /// `None` if these are not the bytes of such a cell.
    pub(super) fn decode(key: &CellKey, bytes: &Bytes) -> Option<Self> {
        let bytes = bytes.clone();
        Some(match key {
            CellKey::Task(_) => Self::Task(Task::decode(bytes).ok()?),
            CellKey::Grant(_) => Self::Grant(Box::new(Grant::decode(bytes).ok()?)),
            CellKey::Scope(_) => Self::Scope(Box::new(Scope::decode(bytes).ok()?)),
            CellKey::Act(_) => Self::Act(Box::new(Act::decode(bytes).ok()?)),
            CellKey::Expected(_) => Self::Expected(Expected::decode(bytes).ok()?),
            CellKey::Declared(_) => Self::Declared(Declared::decode(bytes).ok()?),
            CellKey::Changes(..) => Self::Changes(Changes::decode(bytes).ok()?),
            CellKey::Correlation(_) => Self::Correlated(Correlated::decode(bytes).ok()?),
            CellKey::Equivocation(..) => Self::Leaves(Leaves::decode(bytes).ok()?),
            CellKey::Token(_) => Self::GrantList(GrantList::decode(bytes).ok()?),
            CellKey::KeyUses(_) => Self::Count(Count::decode(bytes).ok()?),
            CellKey::KeyUse(..) => Self::KeyTask(KeyTask::decode(bytes).ok()?),
            CellKey::Sweep(_) => Self::Sweep(Sweep::decode(bytes).ok()?),
            CellKey::KeyIn(..) => Self::KeyActivity(KeyActivity::decode(bytes).ok()?),
            CellKey::Timers(_) => Self::Timers(TimerCount::decode(bytes).ok()?),
            CellKey::Promise(_) => Self::Promise(Promise::decode(bytes).ok()?),
            CellKey::Clock => Self::Clock(Clock::decode(bytes).ok()?),
            CellKey::Finding(..) => Self::Finding(Box::new(v1::Finding::decode(bytes).ok()?)),
        })
    }
}

/// A content that a key's cell has.
pub(super) trait CellContent: Sized {
    fn wrap(self) -> Cell;
    /// A cell's content, if it is of this kind.
    fn of(cell: &Cell) -> Option<&Self>;
    fn of_mut(cell: &mut Cell) -> Option<&mut Self>;
}

macro_rules! cell_content {
    ($($kind:ident = $content:ty),*) => {$(
        impl CellContent for $content {
            fn wrap(self) -> Cell {
                Cell::$kind(self)
            }
            fn of(cell: &Cell) -> Option<&Self> {
                match cell {
                    Cell::$kind(content) => Some(content),
                    _ => None,
                }
            }
            fn of_mut(cell: &mut Cell) -> Option<&mut Self> {
                match cell {
                    Cell::$kind(content) => Some(content),
                    _ => None,
                }
            }
        }
    )*};
}

cell_content!(
    Task = Task,
    Grant = Box<Grant>,
    Scope = Box<Scope>,
    Act = Box<Act>,
    Expected = Expected,
    Declared = Declared,
    Changes = Changes,
    Leaves = Leaves,
    Correlated = Correlated,
    GrantList = GrantList,
    Count = Count,
    KeyTask = KeyTask,
    KeyActivity = KeyActivity,
    Timers = TimerCount,
    Promise = Promise,
    Clock = Clock,
    Sweep = Sweep,
    Finding = Box<v1::Finding>
);

/// Timers that somebody holds.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TimerCount {
    /// Timers that are set.
    #[prost(uint64, tag = "1")]
    pub held: u64,
    /// Those of them that are promises of sessions; counted for the whole ledger alone.
    #[prost(uint64, tag = "2")]
    pub promises: u64,
    /// Those of them that are charged to nobody; counted for the whole ledger alone.
    #[prost(uint64, tag = "3")]
    pub uncharged: u64,
}

/// The time by which a session has promised to go on.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Promise {
    /// 0 once it has kept its promise, or broken it.
    #[prost(int64, tag = "1")]
    pub at_us: i64,
    /// Leaf of the Heartbeat.
    #[prost(uint64, tag = "2")]
    pub leaf: u64,
}

/// A confirmation of the ledger's clock by an operator.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Clock {
    /// The clock's time.
    #[prost(int64, tag = "1")]
    pub clock_us: i64,
    /// Effective time at the Tick that says so.
    #[prost(int64, tag = "2")]
    pub at_us: i64,
    /// The Tick.
    #[prost(uint64, tag = "3")]
    pub leaf: u64,
}

/// Leaves, ascending.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Leaves {
    /// The leaves.
    #[prost(uint64, repeated, tag = "1")]
    pub leaves: Vec<u64>,
}

/// Acts with a correlation key, ascending by leaf: at most `SHARED_MAX`,
/// shared between controllers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Correlated {
    /// The acts.
    #[prost(message, repeated, tag = "1")]
    pub acts: Vec<CorrelatedAct>,
}

/// An act with a correlation key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CorrelatedAct {
    /// Leaf of its Intent.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// Key that signed the Intent; 16 bytes, or empty.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// True if the act was denied at once.
    #[prost(bool, tag = "3")]
    pub denied: bool,
    /// Its task; 16 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub task: Bytes,
    /// The first 8 bytes of the hash of the resource that it acts on.
    #[prost(fixed64, tag = "5")]
    pub resource: u64,
}

/// The name under which a correlation key or an outside token is kept.
pub(super) fn name_of(kind: &str, value: &str) -> [u8; 16] {
    use sha2::Digest as _;
    let mut sha = sha2::Sha256::new();
    sha.update(kind.as_bytes());
    sha.update([0]);
    sha.update(value.as_bytes());
    let digest: [u8; 32] = sha.finalize().into();
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// One kind of cell has one byte, and no two have the same: it is on disk.
    #[test]
    fn kinds_are_apart() {
        let (hash, id) = (Hash::new([0; 32]), [0; 16]);
        let (task, key, session) = (TaskId::new(id), KeyId::new(id), SessionId::new(id));
        let keys = [
            CellKey::Task(task),
            CellKey::Grant(hash),
            CellKey::Act(0),
            CellKey::Correlation(id),
            CellKey::Token(id),
            CellKey::KeyUses(key),
            CellKey::KeyUse(key, 0),
            CellKey::Finding(0, 0),
            CellKey::Equivocation(session, Sequence::new(0)),
            CellKey::KeyIn(task, key),
            CellKey::Scope(hash),
            CellKey::Expected(0),
            CellKey::Declared(0),
            CellKey::Changes(0, id),
            CellKey::Sweep(key),
            CellKey::Timers(Owner::ALL),
            CellKey::Promise(session),
            CellKey::Clock,
        ];
        let kinds: Vec<u8> = keys.iter().map(|key| key.to_bytes()[0]).collect();
        assert_eq!(kinds, (1..=18).collect::<Vec<u8>>());
        let variants: HashSet<_> = keys.iter().map(std::mem::discriminant).collect();
        assert_eq!(variants.len(), kinds.len());
    }
}
