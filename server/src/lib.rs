//! The process of a server: access control, gRPC and HTTP, settings, and background jobs. The
//! engine keeps the ledgers.
//!
//! See `ARCHITECTURE.md` for a statement's way through both. The library exists for the binary, for
//! tests that run a server in their own process, and for benches.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod access;
pub mod address;
mod admin;
mod background;
mod blocking;
#[cfg(test)]
mod clock_tests;
pub mod config;
mod context;
mod cors;
mod descriptors;
mod grpc;
mod http;
pub mod listener;
pub mod options;
pub mod principal;
mod serve;
mod services;
mod start_error;
mod status;
pub mod telemetry;
#[cfg(test)]
mod testing;

pub use deed_engine::{
    cause::with_causes,
    clock::{Clock, ConfirmError, SystemClock, confirm as confirm_clock},
    content::{ContentStartError, ContentsReport, KeyFileError},
    data_dir::DataDirError,
    guard::GuardError,
    identity::IdentityError,
    offline,
    secret_file::Exposed,
    store::{DiskOptions, StoreError, StoreOptions},
};
pub use descriptors::DescriptorError;
pub use options::ServerOptions;
pub use serve::Server;
pub use start_error::{StartError, StopError};
