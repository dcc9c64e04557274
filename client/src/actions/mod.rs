//! Acts: clearance, tasks, findings, search.
//!
//! States, layers and findings are the server's word for what follows from the entries; whoever
//! replays the ledger gets the same. What can be checked without a replay is checked here: every
//! entry's inclusion, a task's running digest and receipts, that a Clearance is in the log and of
//! the Intent that was asked for, that what was found has the terms that were searched for.

mod clearance;
mod findings;
mod proven;
mod search;
mod story;
mod task;

pub use clearance::{ClearanceWatch, Standing};
pub use findings::{FindingFilter, FindingsPage, FindingsWatch, SeenFindings};
pub use proven::ProvenStatement;
pub use search::{Search, SearchTerms};
pub use story::ProvenTask;
pub use task::{ActError, Cleared, Task};
