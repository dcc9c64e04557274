//! Background jobs of a running server.

pub(crate) mod collector;
pub(crate) mod indexer;
pub(crate) mod ticker;
