//! Acts: clearance, tasks, findings, search.
//!
//! States, layers and findings follow from the entries. Of one task they are worked out here, from
//! its own entries and the trust chain, by the code that the ledger runs ([`JudgedTask`]), and so is
//! whether an Intent is cleared. What is not, or cannot be, is called the server's word: findings of
//! a whole ledger, that nothing was left out of a search. In all cases every entry's inclusion is
//! proven, a task's running digest and receipts are compared, and what was found has the terms that
//! were searched for.

mod checked;
mod clearance;
mod compare;
mod findings;
mod gathered;
mod proven;
mod search;
mod task;
mod task_report;

pub use checked::{JudgedTask, SignatureCheck, SignatureChecker, VouchedEntry};
pub use clearance::{Basis, ClearanceWatch, Standing};
pub use compare::Difference;
pub use findings::{FindingFilter, FindingsPage, FindingsWatch, SeenFindings};
pub use proven::ProvenStatement;
pub use search::{Search, SearchTerms};
pub use task::{ActError, Cleared, Task};
pub use task_report::ProvenTask;
