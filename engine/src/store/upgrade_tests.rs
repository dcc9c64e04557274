//! Tests that a data directory of versions 3 and 5 of the layout opens, goes on, and is clean before and
//! after.

use std::path::Path;

use prost::Message as _;

use super::{
    Batch, Family, LedgerNumber, Store, StoreOptions, keys, records::LedgerRecord, turn::TurnRecord,
};
use crate::{
    guard::{GuardSlot, GuardedHead},
    offline::fsck,
    testing::{Engine, Producer, briefs},
};

const LEDGERS: [&str; 3] = ["first", "second", "third"];

fn append(engine: &Engine, name: &str, session: u8) {
    let id = engine.registry.ledger(name).unwrap().id;
    let intent = Producer::new(id, session).intent("r");
    let answer = engine.append(name, vec![intent]).unwrap();
    assert!(briefs(&answer)[0].starts_with("accepted"));
}

/// Makes ledgers, each with one entry behind its genesis.
fn fill(data_dir: &Path) {
    let engine = Engine::open(data_dir);
    for name in LEDGERS {
        drop(engine.create(name).unwrap());
        append(&engine, name, 1);
    }
    engine.close();
}

/// Removes from a data directory everything that versions 4 to 6 have added to the store and the head
/// guard, or only what version 6 has.
fn as_version(version: u32, data_dir: &Path) {
    let store = Store::open(data_dir, &StoreOptions::default()).unwrap();
    let mut batch = Batch::default();
    for record in store.ledgers_after("", 10).unwrap() {
        assert_eq!(record.partition, Some(0));
        let tree = keys::tree_latest(LedgerNumber(record.number));
        batch.delete(&store, Family::Heads, &tree);
        if version < 4 {
            let record = LedgerRecord {
                partition: None,
                ..record
            };
            let key = keys::ledger(&record.name);
            store.put(&mut batch, Family::Meta, &key, &record.encode_to_vec());
        }
    }
    let mut turn = store.newest_turn(0).unwrap();
    if version < 5 {
        turn = TurnRecord::default();
        batch.delete(&store, Family::Meta, &keys::turn(0));
    }
    if version < 4 {
        batch.delete(&store, Family::Meta, keys::PARTITIONS);
    }
    let key = deed_migrations::VERSION_KEY;
    store.put(&mut batch, Family::Meta, key, &version.to_be_bytes());
    store.commit(batch).unwrap();
    let (_, newest) = store.newest().unwrap().remove(0);
    let head = store.latest_head(LedgerNumber(newest.number));
    let guarded = GuardedHead {
        ledger: newest.number,
        name: newest.name,
        vkey: newest.vkey,
        checkpoint: head.unwrap().unwrap().checkpoint,
        turn: turn.number,
        digest: turn.digest,
        ..GuardedHead::default()
    };
    let mut slot = GuardSlot::open(data_dir, 0).unwrap();
    for _half in 0..2 {
        slot.write(&guarded).unwrap();
    }
}

#[test]
fn a_directory_of_version_5_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    for session in 2..4_u8 {
        as_version(5, dir.path());
        let report = fsck::check(dir.path(), &mut |_| {}).unwrap();
        assert_eq!((report.guarded, report.unsigned), (1, 0));
        let engine = Engine::open(dir.path());
        for name in LEDGERS {
            append(&engine, name, session);
        }
        engine.close();
        let guarded = GuardSlot::open(dir.path(), 0).unwrap().head().unwrap();
        assert_eq!(guarded.size.get(), u64::from(session) + 1);
    }
    assert_eq!(fsck::check(dir.path(), &mut |_| {}).unwrap().leaves, 12);
}

#[test]
fn a_directory_of_version_3_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    as_version(3, dir.path());
    let clean = |leaves: u64| {
        let report = fsck::check(dir.path(), &mut |_| {}).unwrap();
        assert_eq!(
            (report.ledgers, report.leaves, report.guarded),
            (3, leaves, 1)
        );
    };
    // The check takes the directory as it is, and migrates nothing.
    clean(6);
    let store = Store::open_read_only(dir.path(), &StoreOptions::default());
    let store = store.unwrap().unwrap();
    assert_eq!(store.partitions().unwrap(), None);
    assert_eq!(store.newest_turn(0).unwrap().number, 0);
    drop(store);

    let engine = Engine::open(dir.path());
    assert_eq!(engine.store.partitions().unwrap(), Some(1));
    for name in LEDGERS {
        append(&engine, name, 2);
    }
    assert_eq!(engine.store.newest_turn(0).unwrap().number, 3);
    engine.close();
    clean(9);
}

#[test]
fn a_record_without_a_partition_is_found_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    drop(engine.create(LEDGERS[0]).unwrap());
    engine.close();
    for (partition, words) in [(None, "no partition"), (Some(1), "partition 1 of 1")] {
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let record = LedgerRecord {
            partition,
            ..store.ledger(LEDGERS[0]).unwrap().unwrap()
        };
        let mut batch = Batch::default();
        let key = keys::ledger(&record.name);
        store.put(&mut batch, Family::Meta, &key, &record.encode_to_vec());
        store.commit(batch).unwrap();
        drop(store);
        let error = fsck::check(dir.path(), &mut |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
        // The server does not guess either.
        let engine = Engine::open(dir.path());
        let error = engine
            .registry
            .ledger(LEDGERS[0])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(words), "{error}");
        engine.close();
    }
}

/// A process that ends while ledgers are laid out anew costs nothing, whichever number the next start has.
#[test]
fn a_directory_that_was_half_laid_out_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    for name in LEDGERS {
        drop(engine.create(name).unwrap());
    }
    engine.close();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    store.lay_out(4).unwrap();
    // As if the process had ended before the number was written.
    let mut batch = Batch::default();
    batch.delete(&store, Family::Meta, keys::PARTITIONS);
    store.commit(batch).unwrap();
    drop(store);
    let report = fsck::check(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(report.ledgers, 3);
    let engine = Engine::open(dir.path());
    for name in LEDGERS {
        append(&engine, name, 1);
    }
    engine.close();
}

#[test]
fn the_number_of_partitions_is_gone_while_ledgers_are_laid_out() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    drop(engine.create(LEDGERS[0]).unwrap());
    engine.close();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    // A record that cannot be read ends the layout in the middle.
    let mut batch = Batch::default();
    store.put(&mut batch, Family::Meta, &keys::ledger("zz"), b"\xff");
    store.commit(batch).unwrap();
    store.lay_out(4).unwrap_err();
    assert_eq!(store.partitions().unwrap(), None);
}
