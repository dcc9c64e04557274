//! Assessment: the tasks, grants, acts and findings that a ledger's entries lead to.
//!
//! A pure state machine. [`Assessor`] takes the entries of a ledger in their order, each with its
//! effective time, and says what they do to tasks, grants and acts, which findings arise, and which
//! entries the ledger itself has to write. Its state lies in cells ([`cells::CellKey`]); those that are
//! not at hand are read through [`View`]. An Intent that nothing but its open task cleared has no cell:
//! its entry says everything ([`ImplicitIntent`]). Whoever feeds it the same entries gets the same,
//! wherever it is stopped and begun again: the server's step, `fsck` and `deed audit` all run this code.
//!
//! | module | holds |
//! |---|---|
//! | [`table`] | every transition of a task, grant, Intent, Outcome or session, and its finding |
//! | [`body`] | the bodies of statements, as far as they are assessed |
//! | `apply` | one file for each body that changes a task, grant or act: its effect, and its findings |
//! | `session` | what every statement says of its session |
//! | `judgement` | judging Intents |
//! | [`cells`] | the state |
//! | [`Timer`] | events that happen by time alone |
//! | [`digest`] | the running digests in task receipts |
//! | [`layers`] | the parts of an act's evidence that are proven, claimed, missing or contradicted |
//! | [`finding`] | the kinds of findings, and their severities |
//!
//! Times are effective time: the highest receive time of the entries so far. What is due fires
//! before the next statement that is recorded, in order of (deadline, leaf). In front of one entry fire
//! [`FIRE_MAX`] timers at most: where more are due, the ledger has to write Ticks first.

mod act;
mod amounts;
mod apply;
mod assessor;
pub mod body;
mod cell_cache;
pub mod cells;
mod correlation;
pub mod digest;
mod effects;
mod evidence;
pub mod finding;
mod grant;
mod implicit_intent;
mod judgement;
mod keys;
pub mod layers;
mod session;
pub mod table;
mod task;
mod timer;
mod view;
mod weigh;
mod work;

pub use assessor::{Assessed, Assessor, Changes, IntentVerdict, RecordedStatement};
pub use grant::{covers, effective_state, state_at};
pub use implicit_intent::ImplicitIntent;
pub use keys::{ReliedKey, relied_on};
pub use timer::{
    AHEAD_MAX_US, FIRE_MAX, Owner, TIMERS_MAX, Timer, TimerKind, share, share_unsigned,
};
pub use view::View;
pub use work::Work;

/// An approval that took less than this from the moment it was opened was not read: microseconds.
pub const HASTY_US: i64 = 2_000_000;

/// The time that a producer's clock may be ahead of the ledger's: microseconds.
pub const SKEW_US: i64 = 300_000_000;

/// Grants from the root to the last one.
pub const CHAIN_MAX: u32 = 8;

/// Most members of the small lists in cells: evidence and observations of an act, keys of a task.
pub(crate) const LIST_MAX: usize = 64;

/// Acts with one correlation key, and grants with one outside token. Statements look at such lists.
pub(crate) const SHARED_MAX: usize = 24;

/// Acts of a task whose effects were seen before their Outcomes.
pub(crate) const SEEN_OPEN_MAX: usize = 64;

/// Systems that saw changes of one act: its Outcome looks at all of them.
pub(crate) const SYSTEMS_MAX: usize = 8;
