//! RocksDB's reports about itself.

use super::{FAMILIES, Store};

impl Store {
    /// Returns the reason for which RocksDB accepts no writes now, if it does not.
    pub fn write_obstacle(&self) -> Option<String> {
        let of_database = |name: &str| self.db.property_int_value(name).ok().flatten();
        if let Some(errors) = of_database("rocksdb.background-errors").filter(|&n| n > 0) {
            return Some(format!("{errors} errors while writing sorted files"));
        }
        of_database("rocksdb.is-write-stopped")
            .filter(|&stopped| stopped > 0)
            .map(|_| "too much waits to be written to sorted files".to_owned())
    }

    /// Returns the bytes of all memtables, including those that are being flushed.
    pub fn memtable_bytes(&self) -> u64 {
        self.sum("rocksdb.cur-size-all-mem-tables")
    }

    /// Returns the bytes of the block cache, which all families share.
    pub fn block_cache_bytes(&self) -> u64 {
        let usage = self
            .db
            .property_int_value_cf(self.family(FAMILIES[0]), "rocksdb.block-cache-usage");
        usage.ok().flatten().unwrap_or_default()
    }

    /// Returns the bytes that open sorted files hold in addition to the block cache.
    pub fn table_reader_bytes(&self) -> u64 {
        self.sum("rocksdb.estimate-table-readers-mem")
    }

    /// Returns the bytes of all sorted files on disk.
    pub fn table_file_bytes(&self) -> u64 {
        self.sum("rocksdb.total-sst-files-size")
    }

    /// Returns the sum of a property over all families.
    fn sum(&self, property: &str) -> u64 {
        let values = FAMILIES.map(|family| {
            let value = self.db.property_int_value_cf(self.family(family), property);
            value.ok().flatten().unwrap_or_default()
        });
        values.iter().sum()
    }
}
