//! Everything that deed-evidence promises, checked from outside of the crate: against prost,
//! against a second telling of the rules, and against files that another program wrote again.

mod acts;
mod assess;
mod batches;
mod canonical;
mod coalition;
mod commitments;
mod contributing;
mod cost;
mod entries;
mod fixtures;
mod forms;
mod fuzz;
mod genesis;
mod golden;
mod hostile;
mod implicit;
mod imported;
mod ledger;
mod log_keys;
mod mutations;
mod one_task;
mod receipts;
mod replay;
mod rules;
mod sessions;
mod signatures;
mod statements;
mod trust;

#[path = "../../fuzz/oracle.rs"]
mod oracle;
