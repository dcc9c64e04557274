//! Tests that a store of version 1 keeps everything.

use rocksdb::{DB, Options};

use crate::{CURRENT, VERSION_FAMILY, VERSION_KEY, migrate, version};

/// Families, keys and values as version 1 wrote them; frozen.
const V1: [(&str, &[u8], &[u8]); 9] = [
    ("meta", b"schema_version", &[0, 0, 0, 1]),
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
        "index",
        &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        b"a bucket",
    ),
];

const V1_FAMILIES: [&str; 6] = ["meta", "entries", "tiles", "heads", "state", "index"];

fn open(path: &std::path::Path, families: &[&str]) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    DB::open_cf(&options, path, families).unwrap()
}

#[test]
fn a_store_of_version_1_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), &V1_FAMILIES);
    for (family, key, value) in V1 {
        db.put_cf(db.cf_handle(family).unwrap(), key, value)
            .unwrap();
    }
    assert_eq!(version(&db).unwrap(), 1);
    drop(db);

    // The store is opened as the server of version 2 opens it.
    let families = [&V1_FAMILIES[..], &["content"]].concat();
    let db = open(dir.path(), &families);
    let applied = migrate(&db).unwrap();
    assert_eq!(applied.len(), CURRENT as usize - 1);
    assert_eq!(version(&db).unwrap(), CURRENT);
    for (family, key, value) in V1 {
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
    assert!(db.cf_handle("content").is_some());
}
