//! Version 2: contents.
//!
//! The family `content`, empty; RocksDB creates it when the store is opened. The records of version
//! 1 stay unchanged: they lack the new kinds and fields of their families (trust statements, keys
//! of sessions), and that is what their absence means.

use rocksdb::{DB, Error, WriteBatch};

pub(crate) fn run(_: &DB, _: &mut WriteBatch) -> Result<(), Error> {
    Ok(())
}
