//! The commands, one a file.

pub(crate) mod append;
pub(crate) mod bench;
pub(crate) mod consistency;
pub(crate) mod entry;
pub(crate) mod follow;
pub(crate) mod head;
pub(crate) mod import;
pub(crate) mod ledger;
pub(crate) mod prove;
pub(crate) mod receipts;
pub(crate) mod show;
pub(crate) mod verify;
