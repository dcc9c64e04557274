//! Version 1: the first layout.
//!
//! The families `meta`, `entries`, `tiles`, `heads`, `state` and `index`, all empty but for the
//! version. RocksDB creates missing families when the store is opened, so there is nothing to move.

use rocksdb::{DB, Error, WriteBatch};

pub(crate) fn run(_: &DB, _: &mut WriteBatch) -> Result<(), Error> {
    Ok(())
}
