//! What is done to a stopped server's data directory.

pub mod fsck;
#[cfg(test)]
mod fsck_tests;
pub mod reindex;
pub mod secret;
