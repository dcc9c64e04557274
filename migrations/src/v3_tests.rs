//! Tests that a store of version 2 keeps everything, and that programs of version 2 refuse it
//! afterwards.

use rocksdb::{DB, Options};

use crate::{
    CURRENT, MigrationError, STEPS, VERSION_FAMILY, VERSION_KEY, migrate, migrate_with, version,
};

/// Families, keys and values as version 2 wrote them; frozen.
const V2: [(&str, &[u8], &[u8]); 11] = [
    ("meta", b"schema_version", &[0, 0, 0, 2]),
    ("meta", b"next_ledger", &[0, 0, 0, 1]),
    ("meta", b"ledger/acme", b"\x12\x04acme"),
    ("meta", b"newest/\0", b"acme"),
    ("entries", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], b"a pack"),
    ("tiles", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], b"a tile"),
    ("heads", &[0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0], b"a head"),
    (
        "state",
        &[
            0, 0, 0, 0, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
        ],
        b"a session",
    ),
    (
        "state",
        &[0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5],
        b"a trust statement",
    ),
    (
        "index",
        &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        b"a bucket",
    ),
    (
        "content",
        &[
            0, 0, 0, 0, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
        ],
        b"an upload",
    ),
];

const V2_FAMILIES: [&str; 7] = [
    "meta", "entries", "tiles", "heads", "state", "index", "content",
];

fn open(path: &std::path::Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    DB::open_cf(&options, path, V2_FAMILIES).unwrap()
}

fn written_by_version_2(path: &std::path::Path) -> DB {
    let db = open(path);
    for (family, key, value) in V2 {
        db.put_cf(db.cf_handle(family).unwrap(), key, value)
            .unwrap();
    }
    db
}

#[test]
fn a_store_of_version_2_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let db = written_by_version_2(dir.path());
    assert_eq!(version(&db).unwrap(), 2);
    drop(db);

    let db = open(dir.path());
    let applied = migrate(&db).unwrap();
    assert_eq!(applied.len(), CURRENT as usize - 2);
    assert_eq!(version(&db).unwrap(), CURRENT);
    for (family, key, value) in V2 {
        if (family, key) != (VERSION_FAMILY, VERSION_KEY) {
            let found = db.get_cf(db.cf_handle(family).unwrap(), key).unwrap();
            let mut expected = value.to_vec();
            if key == b"ledger/acme" {
                // Since version 4 a ledger's record ends with its partition.
                expected.extend([0x40, 0]);
            }
            assert_eq!(found, Some(expected), "{family}");
        }
    }
}

#[test]
fn a_program_of_version_2_refuses_it_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let db = written_by_version_2(dir.path());
    migrate(&db).unwrap();
    let error = migrate_with(&db, &STEPS[..2]).unwrap_err();
    assert!(matches!(error, MigrationError::Newer { found, known: 2 } if found == CURRENT));
}
