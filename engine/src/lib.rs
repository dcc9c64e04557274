//! A ledger server without a face: it opens a data directory, creates and finds ledgers, appends,
//! reads, watches and stops. The crates above it decide who may call, and over which protocol.
//!
//! See `ARCHITECTURE.md` for the order of the modules and for a statement's way through them.
//!
//! - [`data_dir::open`] opens a data directory or makes one,
//! - [`ledger::registry::LedgerRegistry`] creates ledgers and finds them,
//! - [`append::AppendService`] appends to them,
//! - [`ledger::Ledger`] is read and watched,
//! - [`shard::Shards`] write, and are stopped,
//! - [`offline`] checks and repairs data directories that no server has open.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    rustdoc::private_intra_doc_links,
    reason = "beyond the face that is named above, what is public here is so for one other crate"
)]

pub mod admission;
pub mod append;
#[doc(hidden)]
pub mod bench;
pub mod cause;
pub mod clock;
pub mod content;
pub mod data_dir;
pub mod guard;
pub mod identity;
pub mod ledger;
pub mod ledger_name;
pub mod metrics;
pub mod offline;
pub mod options;
pub mod pressure;
pub mod search;
pub mod secret_file;
pub mod shard;
pub mod store;
#[doc(hidden)]
pub mod testing;
