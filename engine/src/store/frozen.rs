//! The store as it was at one moment.
//!
//! A turn is one batch, so every moment lies between two turns: all reads of a frozen store agree
//! with each other, and with its newest head.

use std::sync::Arc;

use rocksdb::{DB, ReadOptions, Snapshot};

use super::Store;

self_cell::self_cell!(
    /// A snapshot of RocksDB, together with the database, which it must not outlive.
    pub(super) struct Frozen {
        owner: Arc<DB>,

        #[covariant]
        dependent: Snapshot,
    }
);

impl Store {
    /// Returns the store as it is at this moment, for reading. While it lives, RocksDB keeps data
    /// that is overwritten meanwhile: hold it for one answer, and no longer.
    pub fn frozen(&self) -> Self {
        let db = Arc::clone(&self.db);
        Self {
            at: Some(Frozen::new(Arc::clone(&db), |db| db.snapshot())),
            db,
            disk: Arc::clone(&self.disk),
        }
    }

    /// Returns the options of every read, which make it see the store at its moment.
    pub(super) fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(frozen) = &self.at {
            options.set_snapshot(frozen.borrow_dependent());
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{Batch, Family, LedgerNumber, StoreOptions, keys, read::Scan};

    use super::*;

    /// Returns the results of every kind of read.
    fn seen(store: &Store) -> Vec<String> {
        let ledger = LedgerNumber(7);
        let prefix = keys::ledger_prefix(ledger);
        let key = |n: u8| [&prefix[..], &[n]].concat();
        let mut seen = Vec::new();
        for n in 0..3 {
            let value = store.value(Family::Tiles, &key(n)).unwrap();
            seen.push(format!("{n}: {value:?}"));
        }
        for scan in [Scan::Lookup, Scan::Whole] {
            let all = store.scan(scan, Family::Tiles, ledger, &prefix);
            seen.extend(all.map(|item| format!("{:?}", item.unwrap())));
        }
        let keys = store.keys_from(Family::Tiles, &prefix);
        seen.extend(keys.map(|key| format!("{:?}", key.unwrap())));
        let last = store.last_before(Family::Tiles, &key(9)).unwrap();
        seen.push(format!("{last:?}"));
        seen
    }

    #[test]
    fn a_frozen_store_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
        let key = |n: u8| [&keys::ledger_prefix(LedgerNumber(7))[..], &[n]].concat();
        let write = |values: &[(u8, &[u8])]| {
            let mut batch = Batch::default();
            for (n, value) in values {
                store.put(&mut batch, Family::Tiles, &key(*n), value);
            }
            store.commit(batch).unwrap();
        };
        write(&[(0, b"a"), (1, b"a")]);
        let frozen = store.frozen();
        let before = seen(&frozen);
        write(&[(1, b"b"), (2, b"b")]);
        let mut batch = Batch::default();
        batch.delete(&store, Family::Tiles, &key(0));
        store.commit(batch).unwrap();
        assert_eq!(seen(&frozen), before);
        assert_ne!(seen(&store), before);
        assert_eq!(seen(&store.frozen()), seen(&store));
        // The frozen store keeps the database open by itself.
        drop(store);
        assert_eq!(seen(&frozen), before);
    }
}
