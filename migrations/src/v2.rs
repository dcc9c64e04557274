//! Version 2: contents.
//!
//! Family `content`, empty; RocksDB creates it when the store is opened. What version 1 wrote stays
//! as it is: new kinds and fields of its families (trust statements, keys of sessions) are absent
//! from what it wrote, which is what they mean there.

use rocksdb::{DB, Error, WriteBatch};

pub(crate) fn run(_: &DB, _: &mut WriteBatch) -> Result<(), Error> {
    Ok(())
}
