//! The digest of a turn's writes, for tests: two servers that step the same must write the same.

use rocksdb::{WriteBatch, WriteBatchIteratorCf};

use super::{Batch, FAMILIES, Family, Store};

const PUT: u8 = 1;
const DELETE: u8 = 2;

impl Batch {
    /// Returns a second batch with the same writes.
    pub(crate) fn copy(&self) -> Self {
        Self {
            batch: WriteBatch::from_data(self.batch.data()),
        }
    }

    /// Returns BLAKE3 over family, key and value of every write, in the order of the batch. Heads
    /// are left out: which ones are signed and kept depends on when turns are made.
    ///
    /// # Panics
    /// If the batch deletes a range of keys, which no turn does.
    pub(crate) fn effects(&self, store: &Store) -> [u8; 32] {
        let mut effects = Effects {
            families: families(store),
            hasher: blake3::Hasher::new(),
            writes: 0,
        };
        self.batch.iterate_cf(&mut effects);
        assert_eq!(effects.writes, self.batch.len(), "every write was seen");
        *effects.hasher.finalize().as_bytes()
    }
}

/// Returns RocksDB's numbers of the families.
fn families(store: &Store) -> Vec<(u32, Family)> {
    struct Ids(Vec<u32>);
    impl WriteBatchIteratorCf for Ids {
        fn put_cf(&mut self, id: u32, _: &[u8], _: &[u8]) {
            self.0.push(id);
        }
        fn delete_cf(&mut self, _: u32, _: &[u8]) {}
        fn merge_cf(&mut self, _: u32, _: &[u8], _: &[u8]) {}
    }
    let mut one_each = Batch::default();
    for family in FAMILIES {
        store.put(&mut one_each, family, b"k", b"v");
    }
    let mut ids = Ids(Vec::new());
    one_each.batch.iterate_cf(&mut ids);
    ids.0.into_iter().zip(FAMILIES).collect()
}

struct Effects {
    families: Vec<(u32, Family)>,
    hasher: blake3::Hasher,
    writes: usize,
}

impl Effects {
    fn write(&mut self, id: u32, kind: u8, key: &[u8], value: &[u8]) {
        self.writes += 1;
        let known = self.families.iter().find(|(known, _)| *known == id);
        let (_, family) = known.expect("a family of the store");
        if *family == Family::Heads {
            return;
        }
        for part in [family.name().as_bytes(), &[kind], key, value] {
            self.hasher.update(&(part.len() as u64).to_be_bytes());
            self.hasher.update(part);
        }
    }
}

impl WriteBatchIteratorCf for Effects {
    fn put_cf(&mut self, id: u32, key: &[u8], value: &[u8]) {
        self.write(id, PUT, key, value);
    }

    fn delete_cf(&mut self, id: u32, key: &[u8]) {
        self.write(id, DELETE, key, &[]);
    }

    fn merge_cf(&mut self, _: u32, _: &[u8], _: &[u8]) {
        unreachable!("nothing is merged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    /// A family, a key, and the value that is put there; `None` if it is deleted.
    type Write<'a> = (Family, &'a [u8], Option<&'a [u8]>);

    #[test]
    fn every_write_counts_but_a_heads() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
        let of = |writes: &[Write<'_>]| {
            let mut batch = Batch::default();
            for (family, key, value) in writes {
                match value {
                    Some(value) => store.put(&mut batch, *family, key, value),
                    None => batch.delete(&store, *family, key),
                }
            }
            assert_eq!(batch.copy().effects(&store), batch.effects(&store));
            batch.effects(&store)
        };
        let put = (Family::State, &b"key"[..], Some(&b"value"[..]));
        let all = [
            of(&[]),
            of(&[put]),
            of(&[put, put]),
            of(&[(Family::Entries, b"key", Some(b"value"))]),
            of(&[(Family::State, b"keyv", Some(b"alue"))]),
            of(&[(Family::State, b"key", Some(b""))]),
            of(&[(Family::State, b"key", None)]),
        ];
        for (position, one) in all.iter().enumerate() {
            assert!(!all[position + 1..].contains(one), "{position}");
        }
        let head = (Family::Heads, &b"key"[..], Some(&b"head"[..]));
        assert_eq!(of(&[put, head]), of(&[put]));
    }
}
