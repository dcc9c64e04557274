//! The commands, one a file.

pub(crate) mod append;
mod authority;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod consistency;
pub(crate) mod content;
pub(crate) mod entry;
pub(crate) mod follow;
pub(crate) mod head;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod keygen;
pub(crate) mod ledger;
pub(crate) mod policy;
pub(crate) mod prove;
pub(crate) mod receipts;
pub(crate) mod rules;
mod secret;
pub(crate) mod session;
pub(crate) mod show;
mod signing;
pub(crate) mod verify;
