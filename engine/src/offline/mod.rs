//! Work on the data directory of a stopped server.

pub mod fsck;
#[cfg(test)]
mod fsck_tests;
pub mod reindex;
pub mod secret;
