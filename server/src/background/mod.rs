//! What a running server does by itself.

pub(crate) mod collector;
pub(crate) mod indexer;
pub(crate) mod ticker;
