//! Tests that a store of version 3 gets the partitions that its server had computed, and that
//! programs of version 3 refuse it afterwards.

use rocksdb::{DB, Options};

use crate::{
    CURRENT, MigrationError, STEPS, VERSION_FAMILY, VERSION_KEY, migrate, migrate_with, version,
};

const FAMILIES: [&str; 7] = [
    "meta", "entries", "tiles", "heads", "state", "index", "content",
];

fn open(path: &std::path::Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    DB::open_cf(&options, path, FAMILIES).unwrap()
}

/// Returns a record of version 3, frozen, with a number and a name.
fn record(number: u8, name: &str) -> Vec<u8> {
    let mut record = Vec::new();
    if number > 0 {
        record.extend([0x08, number]);
    }
    record.extend([0x12, u8::try_from(name.len()).unwrap()]);
    record.extend(name.as_bytes());
    record
}

/// Makes a store of version 3 with these ledgers, in which these shards have made turns.
fn written_by_version_3(path: &std::path::Path, ledgers: &[(u8, &str)], shards: &[u8]) -> DB {
    let db = open(path);
    let meta = db.cf_handle(VERSION_FAMILY).unwrap();
    let put = |key: &[u8], value: &[u8]| db.put_cf(meta, key, value).unwrap();
    put(b"schema_version", &[0, 0, 0, 3]);
    put(b"next_ledger", &[0, 0, 0, 9]);
    for (number, name) in ledgers {
        put(
            &[b"ledger/", name.as_bytes()].concat(),
            &record(*number, name),
        );
    }
    for shard in shards {
        put(
            &[b"newest/", &[*shard][..]].concat(),
            ledgers[0].1.as_bytes(),
        );
    }
    db
}

fn value(db: &DB, key: &[u8]) -> Option<Vec<u8>> {
    db.get_cf(db.cf_handle(VERSION_FAMILY).unwrap(), key)
        .unwrap()
}

#[test]
fn ledgers_keep_the_partitions_that_were_computed() {
    let ledgers = [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (100, "e")];
    for (shards, partitions) in [
        (&[0][..], [0, 0, 0, 0, 0]),
        (&[0, 1, 2], [0, 1, 2, 0, 1]),
        (&[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let db = written_by_version_3(dir.path(), &ledgers, shards);
        assert_eq!(version(&db).unwrap(), 3);
        let applied = migrate(&db).unwrap();
        assert_eq!(applied.len(), CURRENT as usize - 3);
        for ((number, name), partition) in ledgers.into_iter().zip(partitions) {
            let key = [b"ledger/", name.as_bytes()].concat();
            // Field 8 comes behind the others, which stay as they are.
            let expected = [record(number, name), vec![0x40, partition]].concat();
            assert_eq!(value(&db, &key), Some(expected), "{name} of {shards:?}");
        }
        let count = u32::try_from(shards.len()).unwrap();
        assert_eq!(value(&db, b"partitions"), Some(count.to_be_bytes().into()));
        // Nothing else is touched.
        assert_eq!(value(&db, b"next_ledger"), Some(vec![0, 0, 0, 9]));
        assert_eq!(value(&db, b"newest/\0"), Some(b"a".to_vec()));
        assert_eq!(migrate(&db).unwrap(), []);
    }
}

#[test]
fn numbers_of_several_bytes_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let db = written_by_version_3(dir.path(), &[(0, "a")], &[0, 1, 2]);
    let meta = db.cf_handle(VERSION_FAMILY).unwrap();
    // The first number is 300. The second one is 2^32, which is no ledger's number.
    db.put_cf(meta, b"ledger/b", b"\x08\xac\x02\x12\x01b")
        .unwrap();
    let damaged = b"\x08\x80\x80\x80\x80\x10\x12\x01c";
    db.put_cf(meta, b"ledger/c", damaged).unwrap();
    migrate(&db).unwrap();
    let migrated = b"\x08\xac\x02\x12\x01b\x40\x00".to_vec();
    assert_eq!(value(&db, b"ledger/b"), Some(migrated));
    assert_eq!(value(&db, b"ledger/c"), Some(damaged.to_vec()));
}

#[test]
fn a_program_of_version_3_refuses_it_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let db = written_by_version_3(dir.path(), &[(0, "a")], &[0]);
    migrate(&db).unwrap();
    let error = migrate_with(&db, &STEPS[..3]).unwrap_err();
    assert!(matches!(error, MigrationError::Newer { found, known: 3 } if found == CURRENT));
}

#[test]
fn a_store_of_version_4_keeps_everything_and_a_program_of_it_refuses_it_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let db = written_by_version_3(dir.path(), &[(0, "a"), (1, "b")], &[0, 1]);
    migrate_with(&db, &STEPS[..4]).unwrap();
    let all = |db: &DB| {
        let meta = db.cf_handle(VERSION_FAMILY).unwrap();
        let all = db.iterator_cf(meta, rocksdb::IteratorMode::Start);
        all.map(Result::unwrap)
            .filter(|(key, _)| **key != *VERSION_KEY)
            .collect::<Vec<_>>()
    };
    let before = all(&db);
    assert_eq!(migrate(&db).unwrap().len(), CURRENT as usize - 4);
    assert_eq!(all(&db), before);
    let error = migrate_with(&db, &STEPS[..4]).unwrap_err();
    assert!(matches!(error, MigrationError::Newer { found, known: 4 } if found == CURRENT));
}

#[test]
fn a_new_store_has_one_partition() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    migrate(&db).unwrap();
    assert_eq!(value(&db, b"partitions"), Some(vec![0, 0, 0, 1]));
}
