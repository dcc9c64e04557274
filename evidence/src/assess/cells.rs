//! What an assessment keeps, cell by cell: the state that the step reads and changes.
//!
//! Each cell has a key and one encoding, a Protobuf message with the field numbers below. They stay
//! on the machine that keeps them and can be made again from the entries; a change of their
//! meaning is a migration all the same.

use bytes::Bytes;
use deed_proto::v1::{self, FindingKind};
use deed_tlog::Hash;
use prost::Message as _;

pub use super::said::Effect;
use super::{digest, due::Owner};
use crate::{KeyId, Sequence, SessionId, TaskId};

/// Names a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CellKey {
    /// A task.
    Task(TaskId),
    /// A grant, by the leaf hash of its statement: what of it changes.
    Grant(Hash),
    /// What a grant covers; written once.
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
    /// How many tasks a key has spoken in.
    KeyUses(KeyId),
    /// The n-th of them.
    KeyUse(KeyId, u32),
    /// When a key spoke last in a task, if that has no room for it among its own keys.
    KeyIn(TaskId, KeyId),
    /// How far the tasks of a compromised key were looked at.
    Sweep(KeyId),
    /// That two statements were signed for one place in a session: the leaf of the second.
    Equivocation(SessionId, Sequence),
    /// How many timers an owner holds.
    Timers(Owner),
    /// By when a session has promised to go on.
    Promise(SessionId),
    /// What an operator has confirmed last of the ledger's clock.
    Clock,
    /// A finding: the leaf that it arose at, and its number there.
    Finding(u64, u32),
}

/// Names a system: 16 bytes of SHA-256 over its producer.
pub type System = [u8; 16];

impl CellKey {
    /// The key as it is stored: a kind's byte, then integers big-endian. Findings have keys of
    /// their own where they are stored, so that they can be listed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, name, tail): (u8, &[u8], &[u8]) = match self {
            Self::Task(task) => (1, task.as_bytes(), &[]),
            Self::Grant(hash) => (2, hash.as_bytes(), &[]),
            Self::Scope(hash) => (11, hash.as_bytes(), &[]),
            Self::Act(leaf) => (3, &leaf.to_be_bytes(), &[]),
            Self::Expected(leaf) => (12, &leaf.to_be_bytes(), &[]),
            Self::Declared(leaf) => (13, &leaf.to_be_bytes(), &[]),
            Self::Changes(leaf, system) => (14, &leaf.to_be_bytes(), system),
            Self::Correlation(name) => (4, name, &[]),
            Self::Token(name) => (5, name, &[]),
            Self::KeyUses(key) => (6, key.as_bytes(), &[]),
            Self::KeyUse(key, n) => (7, key.as_bytes(), &n.to_be_bytes()),
            Self::Sweep(key) => (15, key.as_bytes(), &[]),
            Self::KeyIn(task, key) => (10, task.as_bytes(), key.as_bytes()),
            Self::Equivocation(session, sequence) => {
                (9, session.as_bytes(), &sequence.get().to_be_bytes())
            }
            Self::Timers(owner) => (11, owner.as_bytes(), &[]),
            Self::Promise(session) => (12, session.as_bytes(), &[]),
            Self::Clock => (13, &[], &[]),
            Self::Finding(leaf, number) => (8, &leaf.to_be_bytes(), &number.to_be_bytes()),
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
    Names(Names),
    Count(Count),
    Use(Use),
    Spoke(Spoke),
    Timers(Timers),
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
            Self::Names(cell) => cell.encode_to_vec(),
            Self::Count(cell) => cell.encode_to_vec(),
            Self::Use(cell) => cell.encode_to_vec(),
            Self::Spoke(cell) => cell.encode_to_vec(),
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
            CellKey::Token(_) => Self::Names(Names::decode(bytes).ok()?),
            CellKey::KeyUses(_) => Self::Count(Count::decode(bytes).ok()?),
            CellKey::KeyUse(..) => Self::Use(Use::decode(bytes).ok()?),
            CellKey::Sweep(_) => Self::Sweep(Sweep::decode(bytes).ok()?),
            CellKey::KeyIn(..) => Self::Spoke(Spoke::decode(bytes).ok()?),
            CellKey::Timers(_) => Self::Timers(Timers::decode(bytes).ok()?),
            CellKey::Promise(_) => Self::Promise(Promise::decode(bytes).ok()?),
            CellKey::Clock => Self::Clock(Clock::decode(bytes).ok()?),
            CellKey::Finding(..) => Self::Finding(Box::new(v1::Finding::decode(bytes).ok()?)),
        })
    }
}

/// A content that a key's cell has.
pub(super) trait Kept: Sized {
    fn wrap(self) -> Cell;
    /// A cell's content, if it is of this kind.
    fn of(cell: &Cell) -> Option<&Self>;
    fn of_mut(cell: &mut Cell) -> Option<&mut Self>;
}

macro_rules! kept {
    ($($kind:ident = $content:ty),*) => {$(
        impl Kept for $content {
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

kept!(
    Task = Task,
    Grant = Box<Grant>,
    Scope = Box<Scope>,
    Act = Box<Act>,
    Expected = Expected,
    Declared = Declared,
    Changes = Changes,
    Leaves = Leaves,
    Correlated = Correlated,
    Names = Names,
    Count = Count,
    Use = Use,
    Spoke = Spoke,
    Timers = Timers,
    Promise = Promise,
    Clock = Clock,
    Sweep = Sweep,
    Finding = Box<v1::Finding>
);

/// A task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Task {
    /// Leaf of TaskOpened.
    #[prost(uint64, optional, tag = "1")]
    pub opened_leaf: Option<u64>,
    /// `v1::RiskTier`.
    #[prost(enumeration = "v1::RiskTier", tag = "2")]
    pub tier: i32,
    /// 0 for none.
    #[prost(int64, tag = "3")]
    pub deadline_us: i64,
    /// How the opening is known.
    #[prost(enumeration = "v1::LayerState", tag = "4")]
    pub opened: i32,
    /// Who opened it: the controller of its key; empty for an authority, and if nobody signed.
    #[prost(string, tag = "5")]
    pub opened_by: String,
    /// `v1::TaskState`.
    #[prost(enumeration = "v1::TaskState", tag = "6")]
    pub state: i32,
    /// Leaf of TaskClosed; none if its deadline ended it.
    #[prost(uint64, optional, tag = "7")]
    pub closed_leaf: Option<u64>,
    /// Effective time.
    #[prost(int64, tag = "8")]
    pub closed_at_us: i64,
    /// Entries so far.
    #[prost(uint64, tag = "9")]
    pub count: u64,
    /// Running digest over them; 32 bytes, written over in place.
    #[prost(bytes = "vec", tag = "10")]
    pub digest: Vec<u8>,
    /// Running digest over findings and moves; 32 bytes, likewise.
    #[prost(bytes = "vec", tag = "11")]
    pub assessment: Vec<u8>,
    /// Its newest entry.
    #[prost(uint64, tag = "12")]
    pub last_leaf: u64,
    /// Its newest TaskReceipt.
    #[prost(uint64, optional, tag = "13")]
    pub receipt_leaf: Option<u64>,
    /// Findings so far.
    #[prost(uint64, tag = "14")]
    pub findings: u64,
    /// Intents so far.
    #[prost(uint64, tag = "15")]
    pub acts: u64,
    /// Intents without an Outcome whose effects were seen; at most 64.
    #[prost(uint64, repeated, tag = "16")]
    pub seen_open: Vec<u64>,
    /// Keys that spoke in it: the first 64. Others have cells of their own.
    #[prost(message, repeated, tag = "17")]
    pub keys: Vec<Spoke>,
    /// Its first entry.
    #[prost(uint64, tag = "18")]
    pub first_leaf: u64,
    /// Producer of TaskOpened.
    #[prost(string, tag = "19")]
    pub opener: String,
    /// Key that signed TaskOpened; 16 bytes, or empty. An authority's is not looked at again.
    #[prost(bytes = "bytes", tag = "20")]
    pub opener_key: Bytes,
    /// Effective time at TaskOpened.
    #[prost(int64, tag = "21")]
    pub opened_at_us: i64,
}

/// Timers that somebody holds.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timers {
    /// How many.
    #[prost(uint64, tag = "1")]
    pub held: u64,
    /// How many of them are promises of sessions; counted for the whole ledger alone.
    #[prost(uint64, tag = "2")]
    pub promises: u64,
}

/// By when a session has promised to go on.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Promise {
    /// 0 once it has kept its promise, or broken it.
    #[prost(int64, tag = "1")]
    pub at_us: i64,
    /// Leaf of the Heartbeat.
    #[prost(uint64, tag = "2")]
    pub leaf: u64,
}

/// What an operator has confirmed of the ledger's clock.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Clock {
    /// What the clock said.
    #[prost(int64, tag = "1")]
    pub clock_us: i64,
    /// Effective time at the Tick that says so.
    #[prost(int64, tag = "2")]
    pub at_us: i64,
    /// The Tick.
    #[prost(uint64, tag = "3")]
    pub leaf: u64,
}

/// When a key spoke last in a task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Spoke {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its last statement there.
    #[prost(uint64, tag = "2")]
    pub last_leaf: u64,
    /// Effective time then.
    #[prost(int64, tag = "3")]
    pub last_at_us: i64,
}

/// A grant.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Grant {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub task: Bytes,
    /// Who may act.
    #[prost(string, tag = "3")]
    pub subject: String,
    /// 16 bytes, or empty for any key.
    #[prost(bytes = "bytes", tag = "4")]
    pub subject_key: Bytes,
    /// 0 for at once.
    #[prost(int64, tag = "7")]
    pub not_before_us: i64,
    /// Itself excluded.
    #[prost(int64, tag = "8")]
    pub expires_us: i64,
    /// 0 for any number.
    #[prost(uint64, tag = "9")]
    pub uses: u64,
    /// Bound on the sum of amounts.
    #[prost(int64, optional, tag = "10")]
    pub minor_units: Option<i64>,
    /// Its currency.
    #[prost(string, tag = "11")]
    pub currency: String,
    /// Leaf hash of the parent; empty for a root grant.
    #[prost(bytes = "bytes", tag = "12")]
    pub parent: Bytes,
    /// Leaf of the parent.
    #[prost(uint64, optional, tag = "13")]
    pub parent_leaf: Option<u64>,
    /// 1 for a root grant.
    #[prost(uint32, tag = "14")]
    pub depth: u32,
    /// `Active` or `Pending` at first; what time decides is worked out when asked.
    #[prost(enumeration = "v1::GrantState", tag = "15")]
    pub state: i32,
    /// Whether an authority signed the root, and everybody's key what they delegated.
    #[prost(enumeration = "v1::LayerState", tag = "16")]
    pub rooted: i32,
    /// Leaf of GrantAccepted.
    #[prost(uint64, optional, tag = "17")]
    pub accepted_leaf: Option<u64>,
    /// Whether the acceptance was signed.
    #[prost(bool, tag = "18")]
    pub accepted_signed: bool,
    /// Uses charged.
    #[prost(uint64, tag = "19")]
    pub uses_spent: u64,
    /// Amount charged.
    #[prost(int64, tag = "20")]
    pub amount_spent: i64,
    /// Leaf of the Revocation.
    #[prost(uint64, optional, tag = "21")]
    pub revoked_leaf: Option<u64>,
    /// Key that signed it; 16 bytes, or empty. An authority's is not looked at again.
    #[prost(bytes = "bytes", tag = "22")]
    pub issuer_key: Bytes,
    /// Effective time at its leaf.
    #[prost(int64, tag = "23")]
    pub at_us: i64,
    /// Key that signed the acceptance; 16 bytes, or empty.
    #[prost(bytes = "bytes", tag = "24")]
    pub accepted_key: Bytes,
    /// Effective time at the acceptance.
    #[prost(int64, tag = "25")]
    pub accepted_at_us: i64,
}

/// What a grant covers. It never changes, so that charging a use to the grant does not write it again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Scope {
    /// Patterns.
    #[prost(string, repeated, tag = "1")]
    pub actions: Vec<String>,
    /// Patterns.
    #[prost(string, repeated, tag = "2")]
    pub resources: Vec<String>,
    /// Producers that may carry out what is cleared under it.
    #[prost(string, repeated, tag = "3")]
    pub gateways: Vec<String>,
}

/// An Intent and what came of it. Its lists of effects are kept in cells of their own: whoever needs
/// them puts them in, or has them put in ([`Act::join`]).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Act {
    /// Leaf of the Intent.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub leaf_hash: Bytes,
    /// SHA-256 of the payload; 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload_digest: Bytes,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub task: Bytes,
    /// Key that signed it; 16 bytes, or empty.
    #[prost(bytes = "bytes", tag = "5")]
    pub key: Bytes,
    /// Effective time at the Intent.
    #[prost(int64, tag = "6")]
    pub at_us: i64,
    /// 0 for none.
    #[prost(int64, tag = "7")]
    pub deadline_us: i64,
    /// Digest of the arguments' commitment; 32 bytes, or empty.
    #[prost(bytes = "bytes", tag = "8")]
    pub arguments: Bytes,
    /// Whether the prompt is committed to.
    #[prost(bool, tag = "9")]
    pub prompt: bool,
    /// Leaf of the grant that it names, if that is there.
    #[prost(uint64, optional, tag = "10")]
    pub grant_leaf: Option<u64>,
    /// What its grant shows.
    #[prost(enumeration = "v1::LayerState", tag = "11")]
    pub authority: i32,
    /// `v1::IntentState`.
    #[prost(enumeration = "v1::IntentState", tag = "12")]
    pub state: i32,
    /// Kinds of the findings about it: bit n for kind n.
    #[prost(uint64, tag = "13")]
    pub findings: u64,
    /// What it waits for.
    #[prost(string, repeated, tag = "14")]
    pub missing: Vec<String>,
    /// Why it is denied.
    #[prost(string, repeated, tag = "15")]
    pub denied: Vec<String>,
    /// What it is judged by again, while it waits.
    #[prost(message, optional, tag = "16")]
    pub waiting: Option<Waiting>,
    /// Decisions and Approvals that count, in order.
    #[prost(message, repeated, tag = "17")]
    pub evidence: Vec<Evidence>,
    /// Leaf of the PolicySet that it was judged by.
    #[prost(uint64, optional, tag = "18")]
    pub policy_leaf: Option<u64>,
    /// Leaf of the Clearance, if one had to be written.
    #[prost(uint64, optional, tag = "19")]
    pub clearance_leaf: Option<u64>,
    /// What the policy wants kept and seen.
    #[prost(message, optional, tag = "20")]
    pub duties: Option<Duties>,
    /// What came of it.
    #[prost(message, optional, tag = "21")]
    pub outcome: Option<Outcome>,
    /// Observations of it: at most 64; one that proves something displaces one that does not.
    #[prost(message, repeated, tag = "22")]
    pub observations: Vec<Observed>,
    /// Whether the policy asked for an approval.
    #[prost(bool, tag = "23")]
    pub approval_asked: bool,
    /// Whether the policy asked for a decision.
    #[prost(bool, tag = "24")]
    pub decision_asked: bool,
    /// Whether somebody claimed an approval that counts for nothing.
    #[prost(bool, tag = "25")]
    pub approval_claimed: bool,
    /// True if an approver refused before it was cleared.
    #[prost(bool, tag = "26")]
    pub refused: bool,
    /// True if a policy engine denied before it was cleared.
    #[prost(bool, tag = "27")]
    pub decision_denied: bool,
    /// Whether a Clearance is on its way into the log.
    #[prost(bool, tag = "28")]
    pub clearing: bool,
    /// Whether somebody claimed an Outcome that counts for nothing.
    #[prost(bool, tag = "29")]
    pub outcome_claimed: bool,
    /// The amount that it names.
    #[prost(int64, optional, tag = "30")]
    pub minor_units: Option<i64>,
    /// Its currency; empty without an amount.
    #[prost(string, tag = "31")]
    pub currency: String,
    /// Its session; 16 bytes.
    #[prost(bytes = "bytes", tag = "32")]
    pub session: Bytes,
    /// The resource that it acts on.
    #[prost(string, tag = "33")]
    pub resource: String,
    /// The changes that it said it would make; not in its own cell.
    #[prost(message, repeated, tag = "34")]
    pub expected_effects: Vec<Effect>,
    /// Keys that it relied on when it was judged, of its task's opening and its grants; of those who
    /// refused it; and of those who gave a further Outcome of it.
    #[prost(message, repeated, tag = "35")]
    pub relied: Vec<Relied>,
    /// Producers that its grant lets carry it out, if that is well founded.
    #[prost(string, repeated, tag = "36")]
    pub gateways: Vec<String>,
    /// Changes that independent systems saw on resources of their own; at most 64 for each. Not in its
    /// own cell.
    #[prost(message, repeated, tag = "37")]
    pub changes: Vec<Change>,
    /// Effective time at its Clearance; 0 if it was cleared at once, or is not.
    #[prost(int64, tag = "38")]
    pub cleared_at_us: i64,
    /// True if only a strength that its approvers claim let it be cleared.
    #[prost(bool, tag = "39")]
    pub strength_claimed: bool,
    /// How many changes it said it would make.
    #[prost(uint32, tag = "40")]
    pub expected: u32,
    /// Bytes of these in their cell.
    #[prost(uint32, tag = "41")]
    pub expected_bytes: u32,
    /// The systems that saw changes of it; at most 8, shared between controllers.
    #[prost(message, repeated, tag = "42")]
    pub systems: Vec<SystemSaw>,
    /// For each declared effect the first 8 bytes of the hash of the external id that it was confirmed
    /// under first; 0 for none.
    #[prost(fixed64, repeated, tag = "43")]
    pub named: Vec<u64>,
}

/// What a system saw of an act, in short.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SystemSaw {
    /// The system: 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub system: Bytes,
    /// The declared effects that its changes confirm: bit n for effect n.
    #[prost(fixed64, tag = "2")]
    pub confirmed: u64,
    /// How many changes of it are kept.
    #[prost(uint32, tag = "3")]
    pub count: u32,
    /// Leaf of its first Observation that is kept.
    #[prost(uint64, tag = "4")]
    pub first_leaf: u64,
    /// Key that signed that one; 16 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub key: Bytes,
}

/// The effects that an Intent expects.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Expected {
    /// In their order.
    #[prost(message, repeated, tag = "1")]
    pub effects: Vec<Effect>,
}

/// The effects that an Outcome declares.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Declared {
    /// In their order.
    #[prost(message, repeated, tag = "1")]
    pub effects: Vec<Print>,
}

/// The changes that a system saw of an act.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Changes {
    /// In order of their leaves.
    #[prost(message, repeated, tag = "1")]
    pub changes: Vec<Change>,
}

/// An effect as it is compared with another one. Names are hashed: two effects are of one kind on one
/// resource if these are equal, and however long the names are, what is kept is not. So the work of
/// comparing does not depend on what somebody else has written.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Print {
    /// 16 bytes of SHA-256 over its kind.
    #[prost(bytes = "bytes", tag = "1")]
    pub kind: Bytes,
    /// The same of what was changed.
    #[prost(bytes = "bytes", tag = "2")]
    pub resource: Bytes,
    /// The same of the downstream system's id of the change; empty for none.
    #[prost(bytes = "bytes", tag = "3")]
    pub external_id: Bytes,
    /// How much, in minor units.
    #[prost(int64, optional, tag = "4")]
    pub minor_units: Option<i64>,
    /// Of which currency; empty without an amount.
    #[prost(string, tag = "5")]
    pub currency: String,
    /// SHA-256 of the state before; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "6")]
    pub before: Bytes,
    /// SHA-256 of the state after; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "7")]
    pub after: Bytes,
}

/// A signed statement that an act's layers rest on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Relied {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its leaf.
    #[prost(uint64, tag = "2")]
    pub leaf: u64,
    /// Effective time there.
    #[prost(int64, tag = "3")]
    pub at_us: i64,
    /// The statement's part in the act's evidence.
    #[prost(enumeration = "v1::EvidencePart", tag = "4")]
    pub part: i32,
}

/// What a waiting Intent is judged by again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Waiting {
    /// The agent.
    #[prost(string, tag = "1")]
    pub agent: String,
    /// The action.
    #[prost(string, tag = "2")]
    pub action: String,
    /// The resource.
    #[prost(string, tag = "3")]
    pub resource: String,
    /// The amount.
    #[prost(int64, optional, tag = "4")]
    pub minor_units: Option<i64>,
    /// Its currency.
    #[prost(string, tag = "5")]
    pub currency: String,
    /// Leaf hash of the grant; empty for none.
    #[prost(bytes = "bytes", tag = "6")]
    pub grant: Bytes,
    /// Whether the model is named.
    #[prost(bool, tag = "7")]
    pub model: bool,
}

/// A Decision or an Approval that counts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Evidence {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub leaf_hash: Bytes,
    /// Key that signed it; 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// An approval's; unspecified for a decision.
    #[prost(enumeration = "v1::AuthenticationStrength", tag = "4")]
    pub strength: i32,
    /// Effective time then.
    #[prost(int64, tag = "5")]
    pub at_us: i64,
}

/// What the policy wants of an act besides its clearance.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Duties {
    /// The tool call is committed to.
    #[prost(bool, tag = "1")]
    pub tool_call: bool,
    /// The response is.
    #[prost(bool, tag = "2")]
    pub response: bool,
    /// The result is.
    #[prost(bool, tag = "3")]
    pub result: bool,
    /// Somebody independent sees the effects within so many microseconds of the Outcome.
    #[prost(int64, optional, tag = "4")]
    pub corroborate_within_us: Option<i64>,
}

/// An Outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// `v1::OutcomeState`.
    #[prost(enumeration = "v1::OutcomeState", tag = "2")]
    pub state: i32,
    /// `v1::OutcomeStatus`.
    #[prost(enumeration = "v1::OutcomeStatus", tag = "3")]
    pub status: i32,
    /// True if somebody signed it who stands in a relation to the act.
    #[prost(bool, tag = "4")]
    pub signed: bool,
    /// Whether its result is committed to: a result, a response or effects.
    #[prost(bool, tag = "5")]
    pub committed: bool,
    /// The effects that it declares; not in the act's own cell.
    #[prost(message, repeated, tag = "6")]
    pub effects: Vec<Print>,
    /// When it must be corroborated; 0 for never.
    #[prost(int64, tag = "7")]
    pub corroborate_by_us: i64,
    /// Key that signed it; 16 bytes, or empty.
    #[prost(bytes = "bytes", tag = "8")]
    pub key: Bytes,
    /// Effective time at its leaf.
    #[prost(int64, tag = "9")]
    pub at_us: i64,
    /// How many effects it declares.
    #[prost(uint32, tag = "10")]
    pub declared: u32,
}

/// A change that an independent system saw on a resource of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// Leaf of the Observation.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// Effective time there.
    #[prost(int64, tag = "2")]
    pub at_us: i64,
    /// Key that signed it; 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// The system: 16 bytes of SHA-256 over its producer.
    #[prost(bytes = "bytes", tag = "4")]
    pub system: Bytes,
    /// The effect that the system saw.
    #[prost(message, required, tag = "5")]
    pub effect: Print,
    /// Position of the declared effect that it confirms.
    #[prost(uint32, optional, tag = "6")]
    pub declared: Option<u32>,
    /// Position of the expected effect that it is.
    #[prost(uint32, optional, tag = "7")]
    pub expected: Option<u32>,
}

/// An Observation that was matched to an act.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Observed {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// True if an independent system saw resources of its own change.
    #[prost(bool, tag = "2")]
    pub proves: bool,
}

/// Leaves, ascending.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Leaves {
    /// The leaves.
    #[prost(uint64, repeated, tag = "1")]
    pub leaves: Vec<u64>,
}

/// Acts with a correlation key, ascending by leaf: at most 32, shared between controllers.
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

/// Grants that stand for one outside token: at most 32, the best founded.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Names {
    /// The grants, in order of their leaves.
    #[prost(message, repeated, tag = "1")]
    pub grants: Vec<GrantName>,
}

/// A grant that stands for an outside token.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GrantName {
    /// Its leaf hash.
    #[prost(bytes = "bytes", tag = "1")]
    pub hash: Bytes,
    /// 2 for an authority's, 1 for one that a registered key signed, 0 for one that nobody did.
    #[prost(uint32, tag = "2")]
    pub rank: u32,
    /// Its leaf.
    #[prost(uint64, tag = "3")]
    pub leaf: u64,
    /// Its task; 16 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub task: Bytes,
}

/// A count.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Count {
    /// How many.
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// How far the tasks of a compromised key were looked at: from the newest to the oldest.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sweep {
    /// Leaf of the KeyRevoked.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// Since when somebody else may have had the key.
    #[prost(int64, tag = "2")]
    pub since_us: i64,
    /// So many of its tasks are still to be looked at.
    #[prost(uint32, tag = "3")]
    pub left: u32,
    /// When the next ones are.
    #[prost(int64, tag = "4")]
    pub due_us: i64,
}

/// A task that a key spoke in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Use {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub task: Bytes,
}

impl Task {
    /// Takes an entry into the running digest.
    pub(super) fn add_entry(&mut self, leaf_hash: &Hash) {
        advance(&mut self.digest, |h| digest::entries(h, leaf_hash));
        self.count += 1;
    }

    /// Takes an event into the assessment digest.
    pub(super) fn note(&mut self, event: &digest::Event) {
        advance(&mut self.assessment, |a| digest::assessment(a, event));
        // Every Intent moves once at its own leaf, when it is judged first.
        if let digest::Event::Intent { leaf, intent, .. } = event
            && leaf == intent
        {
            self.acts += 1;
        }
    }
}

fn advance(digest: &mut Vec<u8>, next: impl FnOnce(&Hash) -> Hash) {
    let before = Hash::try_from(&digest[..]).unwrap_or(digest::START);
    digest.clear();
    digest.extend_from_slice(next(&before).as_bytes());
}

impl Print {
    /// The print of an effect.
    #[must_use]
    pub fn of(effect: &Effect) -> Self {
        let hashed = |name: &str| Bytes::copy_from_slice(&hash_of(name));
        Self {
            kind: hashed(&effect.kind),
            resource: hashed(&effect.resource),
            external_id: match &effect.external_id[..] {
                "" => Bytes::new(),
                id => hashed(id),
            },
            minor_units: effect.minor_units,
            currency: effect.currency.clone(),
            before: effect.before.clone(),
            after: effect.after.clone(),
        }
    }
}

/// The first 8 bytes of a hash.
pub(super) fn short(hash: &[u8]) -> u64 {
    let first = hash.first_chunk::<8>();
    first.map_or(0, |first| u64::from_be_bytes(*first))
}

/// The short form of a resource's name.
pub(super) fn short_of(resource: &str) -> u64 {
    short(&hash_of(resource))
}

fn hash_of(name: &str) -> [u8; 16] {
    use sha2::Digest as _;
    let digest: [u8; 32] = sha2::Sha256::digest(name).into();
    std::array::from_fn(|at| digest[at])
}

impl Act {
    /// Reads the act of the Intent at `leaf` from its cells, whole; `None` if none is kept of it. The inner
    /// error says which cell is damaged.
    ///
    /// # Errors
    /// As `cell`, which gives a cell's bytes.
    pub fn read<E>(
        leaf: u64,
        mut cell: impl FnMut(&CellKey) -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Result<Self, CellKey>>, E> {
        let Some(bytes) = cell(&CellKey::Act(leaf))? else {
            return Ok(None);
        };
        let Ok(mut act) = Self::decode(bytes) else {
            return Ok(Some(Err(CellKey::Act(leaf))));
        };
        if act.expected > 0 {
            let key = CellKey::Expected(leaf);
            let expected = cell(&key)?.and_then(|bytes| Expected::decode(bytes).ok());
            let Some(expected) = expected else {
                return Ok(Some(Err(key)));
            };
            act.expected_effects = expected.effects;
        }
        if let Some(outcome) = act.outcome.as_mut().filter(|outcome| outcome.declared > 0) {
            let key = CellKey::Declared(leaf);
            let declared = cell(&key)?.and_then(|bytes| Declared::decode(bytes).ok());
            let Some(declared) = declared else {
                return Ok(Some(Err(key)));
            };
            outcome.effects = declared.effects;
        }
        for at in 0..act.systems.len() {
            let key = CellKey::Changes(leaf, act.systems[at].name());
            if act.systems[at].count > 0 {
                let changes = cell(&key)?.and_then(|bytes| Changes::decode(bytes).ok());
                let Some(changes) = changes else {
                    return Ok(Some(Err(key)));
                };
                act.join(changes.changes);
            }
        }
        Ok(Some(Ok(act)))
    }

    /// Puts in what a system saw, in order of the leaves.
    pub(super) fn join(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes);
        self.changes.sort_by_key(|change| change.leaf);
    }

    /// Sums up what is at hand of what systems saw: in short for each of them, and the external ids that
    /// declared effects were confirmed under first.
    pub(super) fn tally(&mut self) {
        let mut of: Option<usize> = None;
        for one in &mut self.systems {
            if self
                .changes
                .iter()
                .any(|change| change.system == one.system)
            {
                (one.confirmed, one.count) = (0, 0);
            }
        }
        for change in &self.changes {
            let known = of.filter(|at| self.systems[*at].system == change.system);
            let known = known.or_else(|| {
                let mut all = self.systems.iter();
                all.position(|one| one.system == change.system)
            });
            let at = known.unwrap_or_else(|| {
                self.systems.push(SystemSaw {
                    system: change.system.clone(),
                    first_leaf: change.leaf,
                    key: change.key.clone(),
                    ..SystemSaw::default()
                });
                self.systems.len() - 1
            });
            of = Some(at);
            let one = &mut self.systems[at];
            one.count += 1;
            let Some(n) = change.declared else { continue };
            one.confirmed |= 1_u64.checked_shl(n).unwrap_or(0);
            let (n, id) = (n as usize, short(&change.effect.external_id));
            if id != 0 && n < 64 {
                if self.named.len() <= n {
                    self.named.resize(n + 1, 0);
                }
                if self.named[n] == 0 {
                    self.named[n] = id;
                }
            }
        }
    }

    /// Leaf of the first Observation that is kept of those by which an independent system saw something.
    pub(super) fn first_seen(&self) -> Option<u64> {
        self.systems.iter().map(|one| one.first_leaf).min()
    }

    /// Whether there is a finding of this kind about it.
    #[must_use]
    pub const fn has(&self, kind: FindingKind) -> bool {
        self.findings & (1 << kind as u64) != 0
    }

    pub(super) const fn note(&mut self, kind: FindingKind) {
        self.findings |= 1 << kind as u64;
    }
}

impl SystemSaw {
    pub(super) fn name(&self) -> System {
        self.system[..].try_into().unwrap_or_default()
    }
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
