//! The ledger's server: store, shards, gRPC and HTTP.
//!
//! See `ARCHITECTURE.md` for a statement's way through it. The library exists for the binary, for
//! tests that run a server in their own process, and for benches.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod access;
mod admin;
mod admission;
mod append;
mod background;
#[doc(hidden)]
pub mod bench;
mod blocking;
mod clock;
#[cfg(test)]
mod clock_tests;
pub mod config;
mod content;
mod context;
mod data_dir;
mod descriptors;
mod grpc;
mod guard;
mod http;
mod identity;
mod ledger;
mod ledger_name;
pub mod listener;
mod metrics;
pub mod offline;
pub mod options;
mod pressure;
pub mod principal;
mod search;
mod secret_file;
mod serve;
mod services;
mod shard;
mod start_error;
mod status;
mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;

pub use clock::{Clock, ConfirmError, SystemClock, confirm as confirm_clock};
pub use content::{ContentStartError, ContentsReport, KeyFileError};
pub use data_dir::DataDirError;
pub use descriptors::DescriptorError;
pub use guard::GuardError;
pub use identity::IdentityError;
pub use options::ServerOptions;
pub use secret_file::Exposed;
pub use serve::Server;
pub use start_error::{StartError, StopError};
pub use store::{DiskOptions, StoreError, StoreOptions};
