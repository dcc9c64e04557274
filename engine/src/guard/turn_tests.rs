//! Tests of the turn that a guard's record names. Records of earlier versions name none, and read
//! as before.

use std::{fs, path::Path, sync::Arc};

use prost::Message as _;

use super::*;
use crate::{
    store::{Batch, StoreOptions, keys, turn::TurnRecord},
    testing::{Engine, Producer, briefs},
};

/// A slot's half with one record, written as number 1, before records named turns: frozen.
const OLD_RECORD: &str = "080112046f6e65731a036b6579220468656164";

/// Makes a data directory with `turns` guarded turns, the first of which makes the ledger.
fn with_turns(data_dir: &Path, turns: u64) {
    let engine = Engine::open(data_dir);
    let ledger = engine.create("turns").unwrap();
    let mut producer = Producer::new(ledger.id, 1);
    for _ in 1..turns {
        let answer = engine.append("turns", vec![producer.intent("r")]).unwrap();
        assert!(briefs(&answer)[0].starts_with("accepted"));
    }
    drop(ledger);
    engine.close();
}

fn newest(data_dir: &Path) -> GuardedHead {
    GuardSlot::open(data_dir, 0).unwrap().newest.unwrap()
}

/// Returns the guard's verdict on the store as it is on disk.
fn verdict(data_dir: &Path) -> Result<Guarded, GuardError> {
    let store = Store::open_read_only(data_dir, &StoreOptions::default());
    verify(data_dir, &Arc::new(store.unwrap().unwrap()))
}

/// Writes a record over both halves of slot 0, as a guard of its own.
fn overwrite(data_dir: &Path, record: &GuardedHead) {
    let mut slot = GuardSlot::open(data_dir, 0).unwrap();
    slot.write(record).unwrap();
    slot.write(record).unwrap();
}

#[test]
fn golden_records() {
    let old = GuardedHead {
        ledger: 1,
        name: "ones".to_owned(),
        vkey: "key".to_owned(),
        checkpoint: Bytes::from_static(b"head"),
        ..GuardedHead::default()
    };
    // A record without a turn has the same bytes as before.
    assert_eq!(hex::encode(old.encode_to_vec()), OLD_RECORD);
    let bytes = hex::decode(OLD_RECORD).unwrap();
    assert_eq!(GuardedHead::decode(&bytes[..]).unwrap(), old);
    let now = GuardedHead {
        turn: 300,
        digest: Bytes::from_static(&[0xdd; 32]),
        ..old
    };
    let golden = format!("{OLD_RECORD}28ac023220{}", "dd".repeat(32));
    assert_eq!(hex::encode(now.encode_to_vec()), golden);
    assert!(now.encoded_len() + HEADER_BYTES + DIGEST_BYTES < HALF_BYTES);
    // Since heads are signed behind the guard, a record has the tree's size and root.
    let head = TreeHead::new(TreeSize::new(9), Hash::try_from(&[0xee; 32][..]).unwrap());
    let unsigned = GuardedHead {
        turn: 300,
        digest: Bytes::from_static(&[0xdd; 32]),
        ..GuardedHead::of(LedgerNumber(1), "ones", head)
    };
    let (digest, root) = ("dd".repeat(32), "ee".repeat(32));
    let golden = format!("080112046f6e657328ac023220{digest}38094220{root}");
    assert_eq!(hex::encode(unsigned.encode_to_vec()), golden);
    assert_eq!(guarded_head(&unsigned).unwrap(), head);
    let cut = GuardedHead {
        root: Bytes::from_static(&[0xee; 31]),
        ..unsigned
    };
    assert_eq!(guarded_head(&cut).unwrap_err(), "its root has not 32 bytes");
}

#[test]
fn each_turn_is_numbered_and_guarded() {
    let dir = tempfile::tempdir().unwrap();
    with_turns(dir.path(), 3);
    let guarded = newest(dir.path());
    assert_eq!(guarded.turn, 3);
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let turn = store.newest_turn(0).unwrap();
    assert_eq!((turn.number, &turn.digest), (3, &guarded.digest));
    assert_eq!(store.newest_turn(1).unwrap(), TurnRecord::none());
    drop(store);
    // After a restart the turns are counted on.
    let engine = Engine::open(dir.path());
    let id = engine.registry.ledger("turns").unwrap().id;
    let next = Producer::new(id, 2).intent("r");
    engine.append("turns", vec![next.clone()]).unwrap();
    // A turn that records nothing writes nothing, and gets no number.
    engine.append("turns", vec![next]).unwrap();
    engine.close();
    assert_eq!(newest(dir.path()).turn, 4);
}

#[test]
fn a_record_of_before_is_compared_by_its_head_alone() {
    let dir = tempfile::tempdir().unwrap();
    with_turns(dir.path(), 3);
    let old = GuardedHead {
        turn: 0,
        digest: Bytes::new(),
        ..newest(dir.path())
    };
    overwrite(dir.path(), &old);
    assert_eq!(verdict(dir.path()).unwrap().heads, 1);
    // A store that has not numbered any turn yet is compared in the same way.
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let mut batch = Batch::default();
    batch.delete(&store, Family::Meta, &keys::turn(0));
    store.commit(batch).unwrap();
    drop(store);
    assert_eq!(verdict(dir.path()).unwrap().heads, 1);
    let engine = Engine::open(dir.path());
    assert_eq!(newest(dir.path()), old);
    let id = engine.registry.ledger("turns").unwrap().id;
    let next = Producer::new(id, 2).intent("r");
    engine.append("turns", vec![next]).unwrap();
    engine.close();
    let guarded = newest(dir.path());
    assert_eq!((guarded.turn, guarded.digest.len()), (1, DIGEST_BYTES));
    verdict(dir.path()).unwrap();
}

#[test]
fn a_store_that_lacks_a_turn_or_has_another_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    with_turns(dir.path(), 3);
    let good = newest(dir.path());
    let ahead = GuardedHead {
        turn: 4,
        ..good.clone()
    };
    let mut digest = good.digest.to_vec();
    digest[0] ^= 1;
    let other = GuardedHead {
        digest: digest.clone().into(),
        ..good.clone()
    };
    // The store may be ahead of the guard, which then names an earlier turn.
    let behind = GuardedHead {
        turn: 2,
        digest: digest.into(),
        ..good.clone()
    };
    for (record, words) in [
        (
            ahead,
            Some("turn 4 of partition 0 was acknowledged, but the store ends with turn 3"),
        ),
        (other, Some("has another turn of that number")),
        (behind, None),
        (good, None),
    ] {
        overwrite(dir.path(), &record);
        let before = fs::read(path_in(dir.path())).unwrap();
        match (verdict(dir.path()), words) {
            (Ok(guarded), None) => assert_eq!(guarded.heads, 1),
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (verdict, words) => panic!("{verdict:?} where {words:?} is wanted"),
        }
        assert_eq!(fs::read(path_in(dir.path())).unwrap(), before);
    }
}
