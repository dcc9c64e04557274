//! Helpers that the tests of several crates share. Nothing else depends on this crate.

#[cfg(feature = "server")]
pub mod fake;
pub mod merkle;
pub mod signed;
#[cfg(feature = "statements")]
pub mod statements;
