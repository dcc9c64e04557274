//! Tests of every kind of damage that `fsck` must find, one at a time.

use std::path::Path;

use deed_evidence::{
    LedgerId, Micros, Sequence, SessionId,
    assess::cells::CellKey,
    assess::{AHEAD_MAX_US, Owner, Timer, TimerKind},
};
use deed_proto::v1;
use deed_tlog::leaf_hash;
use prost::Message as _;

use crate::{
    offline::fsck,
    store::{
        Batch, Family, LedgerNumber, Store, StoreOptions, keys,
        pack::Packer,
        records::{HeadRecord, RunRecord, SessionRecord, TreeRecord},
    },
    testing::{AGENT, Engine, Producer, session_of},
};

const NUMBER: LedgerNumber = LedgerNumber(0);

/// Enough leaves for two full tiles.
const REQUESTS: i64 = 6;

fn filled(data_dir: &Path) {
    let engine = Engine::open(data_dir);
    let ledger = engine.create("damaged").unwrap();
    let mut producer = Producer::new(ledger.id, 1);
    for request in 0..REQUESTS {
        engine.clock.set(1_000_000 + 600_000 * request);
        let envelopes = (0..100)
            .map(|n| producer.intent(&format!("r{n}")))
            .collect();
        engine.append("damaged", envelopes).unwrap();
    }
    // This deadline is far in the future.
    let mut other = Producer::new(ledger.id, 2);
    let opening = other.opens(
        8,
        v1::TaskOpened {
            requested_by: "https://example.org/somebody".to_owned(),
            risk_tier: v1::RiskTier::Low.into(),
            deadline_us: AHEAD_MAX_US,
            ..v1::TaskOpened::default()
        },
    );
    engine.append("damaged", vec![opening]).unwrap();
    drop(ledger);
    engine.close();
}

/// Returns the id of the first producer's session.
fn first_session(store: &Store) -> SessionId {
    let (_, genesis) = store.entries(NUMBER, 0).next().unwrap().unwrap();
    session_of(LedgerId::new(leaf_hash(&genesis)), AGENT, 1)
}

fn check(data_dir: &Path) -> Result<fsck::Report, String> {
    fsck::check(data_dir, &mut |_| {}).map_err(|error| error.to_string())
}

/// Fills a ledger, applies one change, and returns the error of `fsck`.
fn damaged(change: impl FnOnce(&Store, &mut Batch)) -> String {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let mut batch = Batch::default();
    change(&store, &mut batch);
    store.commit(batch).unwrap();
    drop(store);
    check(dir.path()).expect_err("the damage is found")
}

fn flipped(value: &[u8], at: usize) -> Vec<u8> {
    let mut value = value.to_vec();
    value[at] ^= 1;
    value
}

#[test]
fn a_sound_ledger_is_clean_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let report = check(dir.path()).unwrap();
    assert_eq!((report.ledgers, report.leaves, report.tiles), (1, 602, 2));
    // Two sessions and their runs; a task that was never opened, 600 acts, a finding; a task that is open,
    // and its deadline, counted for the ledger, for its owner and for all who do not sign.
    assert_eq!((report.records, report.guarded), (4 + 1 + 600 + 1 + 5, 1));
    // Heads are kept for each second of effective time, and for the newest tree.
    assert!(report.heads >= 4, "{report}");
}

#[test]
fn a_changed_entry_is_found() {
    // The changed entry is in the range of a full tile: the guard compares roots, which come from
    // tiles, not from entries.
    let error = damaged(|store, batch| {
        let mut packer = Packer::new(0);
        for item in store.packs(NUMBER, 0) {
            let (first, pack) = item.unwrap();
            if first > 0 {
                break;
            }
            for position in 0..pack.len() {
                let entry = pack.entry(position).unwrap();
                // The last byte of an entry belongs to its receive time.
                let at = entry.len() - 1;
                packer.push(&flipped(&entry, at));
            }
        }
        for pack in packer.finish() {
            store.put(
                batch,
                Family::Entries,
                &keys::entries(NUMBER, pack.first),
                &pack.value,
            );
        }
    });
    assert!(
        error.contains("genesis") || error.contains("root"),
        "{error}"
    );
}

#[test]
fn a_missing_pack_is_found() {
    let error = damaged(|store, batch| {
        let (first, _) = store.packs(NUMBER, 1).next().unwrap().unwrap();
        batch.delete(store, Family::Entries, &keys::entries(NUMBER, first));
    });
    assert!(error.contains("leaf 1 is missing"), "{error}");
}

#[test]
fn a_changed_tile_is_found() {
    let error = damaged(|store, batch| {
        let (_, tile) = store.tiles(NUMBER).next().unwrap().unwrap();
        store.put(
            batch,
            Family::Tiles,
            &keys::tile(NUMBER, 0, 0),
            &flipped(&tile, 77),
        );
    });
    // The tree cannot even be rebuilt from this store.
    assert!(
        error.contains("head guard") && error.contains("damaged"),
        "{error}"
    );
}

#[test]
fn a_tile_beyond_the_tree_is_found() {
    let error = damaged(|store, batch| {
        let (_, tile) = store.tiles(NUMBER).next().unwrap().unwrap();
        store.put(batch, Family::Tiles, &keys::tile(NUMBER, 0, 2), &tile);
    });
    assert!(error.contains("tile 0 2 is beyond the tree"), "{error}");
}

#[test]
fn a_kept_head_of_another_size_is_found() {
    let error = damaged(|store, batch| {
        let (size, head) = store.heads(NUMBER).nth(1).unwrap().unwrap();
        let key = keys::head_at(NUMBER, size + 1);
        store.put(batch, Family::Heads, &key, &head.encode_to_vec());
    });
    assert!(error.contains("the signed head stored for size"), "{error}");
}

#[test]
fn a_head_with_a_bad_signature_is_found() {
    let error = damaged(|store, batch| {
        let (size, head) = store.heads(NUMBER).next().unwrap().unwrap();
        let text = String::from_utf8(head.checkpoint.to_vec()).unwrap();
        let (before, after) = text.rsplit_once(' ').unwrap();
        // One bit of the signature changes, in the middle of its base64.
        let mut signature = after.as_bytes().to_vec();
        signature[40] = if signature[40] == b'A' { b'B' } else { b'A' };
        let forged = HeadRecord {
            checkpoint: [before.as_bytes(), b" ", &signature].concat().into(),
            ..head
        };
        store.put(
            batch,
            Family::Heads,
            &keys::head_at(NUMBER, size),
            &forged.encode_to_vec(),
        );
    });
    assert!(error.contains("a signed head:"), "{error}");
}

#[test]
fn a_changed_effective_time_is_found() {
    let error = damaged(|store, batch| {
        let mut head = store.latest_head(NUMBER).unwrap().unwrap();
        head.effective_time_us += 1;
        store.put(
            batch,
            Family::Heads,
            &keys::head_latest(NUMBER),
            &head.encode_to_vec(),
        );
    });
    assert!(error.contains("effective time"), "{error}");
    let error = with_newest_tree(|tree| tree.effective_time_us += 1);
    assert!(error.contains("effective time"), "{error}");
}

/// Changes the record of the newest tree, and returns the error of `fsck`.
fn with_newest_tree(change: impl FnOnce(&mut TreeRecord)) -> String {
    damaged(|store, batch| {
        let mut record = TreeRecord::from(&store.stored_tree(NUMBER).unwrap());
        change(&mut record);
        let key = keys::tree_latest(NUMBER);
        store.put(batch, Family::Heads, &key, &record.encode_to_vec());
    })
}

#[test]
fn a_changed_record_of_the_newest_tree_is_found() {
    let error = with_newest_tree(|tree| tree.size -= 1);
    assert!(error.contains("cannot rebuild its tree"), "{error}");
    let error = with_newest_tree(|tree| tree.size += 1);
    assert!(error.contains("cannot rebuild its tree"), "{error}");
    let error = with_newest_tree(|tree| tree.root = flipped(&tree.root, 9).into());
    assert!(error.contains("was recorded with root"), "{error}");
    let error = with_newest_tree(|tree| tree.root.truncate(31));
    assert!(error.contains("has not 32 bytes"), "{error}");
}

#[test]
fn an_earlier_signed_head_is_good_and_told() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let (size, head) = store.heads(NUMBER).nth(1).unwrap().unwrap();
    let size_now = store.stored_tree(NUMBER).unwrap().head.size.get();
    let mut batch = Batch::default();
    let key = keys::head_latest(NUMBER);
    store.put(&mut batch, Family::Heads, &key, &head.encode_to_vec());
    // Only one kept head is of a later size.
    for kept in store.heads(NUMBER).skip(3) {
        let (size, _) = kept.unwrap();
        batch.delete(&store, Family::Heads, &keys::head_at(NUMBER, size));
    }
    let (last, _) = store.heads(NUMBER).nth(2).unwrap().unwrap();
    store.commit(batch).unwrap();
    drop(store);
    let report = check(dir.path()).unwrap();
    assert!(size < last && last < size_now);
    assert_eq!(report.unsigned, size_now - last);
    assert!(
        report.to_string().contains("not under a signed head"),
        "{report}"
    );
}

#[test]
fn a_missing_newest_head_is_found() {
    let error = damaged(|store, batch| {
        batch.delete(store, Family::Heads, &keys::head_latest(NUMBER));
    });
    assert!(
        error.contains("the newest signed head is missing"),
        "{error}"
    );
}

#[test]
fn a_changed_session_is_found() {
    let error = damaged(|store, batch| {
        let id = first_session(store);
        let (mut session, run) = store.session(NUMBER, &id).unwrap().unwrap();
        session.next = Sequence::new(7);
        let record = SessionRecord::new(&session, run.first).encode_to_vec();
        store.put(batch, Family::State, &keys::session(NUMBER, &id), &record);
    });
    assert!(error.contains("is not what the entries give"), "{error}");
}

#[test]
fn a_missing_run_is_found() {
    let error = damaged(|store, batch| {
        let id = first_session(store);
        batch.delete(
            store,
            Family::State,
            &keys::run(NUMBER, &id, Sequence::FIRST),
        );
    });
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn an_invented_session_is_found() {
    let id = SessionId::new([0; 16]);
    let error = damaged(|store, batch| {
        let run = RunRecord {
            first_leaf: 1,
            count: 1,
        };
        let key = keys::run(NUMBER, &id, Sequence::FIRST);
        store.put(batch, Family::State, &key, &run.encode_to_vec());
    });
    assert!(error.contains("belongs to nothing in the log"), "{error}");
}

/// Returns the prefix of the keys of all cells.
fn any_cell() -> Vec<u8> {
    let mut key = keys::cell(NUMBER, &CellKey::Act(0));
    key.truncate(5);
    key
}

/// Returns the first record of the assessment of this kind, with its key.
fn assessed(store: &Store, begins: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let records = store.state(NUMBER).map(Result::unwrap);
    let mut found = records.filter(|(key, _)| key.starts_with(begins));
    let (key, value) = found.next().unwrap();
    (key.to_vec(), value.to_vec())
}

#[test]
fn a_changed_cell_is_found() {
    let error = damaged(|store, batch| {
        let (key, value) = assessed(store, &any_cell());
        let last = value.len() - 1;
        store.put(batch, Family::State, &key, &flipped(&value, last));
    });
    assert!(error.contains("cell 00"), "{error}");
    assert!(error.contains("is not what the entries give"), "{error}");
}

#[test]
fn a_missing_cell_is_found() {
    let error = damaged(|store, batch| {
        let (key, _) = assessed(store, &any_cell());
        batch.delete(store, Family::State, &key);
    });
    assert!(error.contains("cell 00"), "{error}");
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn a_missing_finding_is_found() {
    let error = damaged(|store, batch| {
        let begins = &keys::finding(NUMBER, 0, 0)[..5];
        let (key, _) = assessed(store, begins);
        batch.delete(store, Family::State, &key);
    });
    assert!(error.contains("finding 00"), "{error}");
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn a_changed_finding_is_found() {
    let error = damaged(|store, batch| {
        let begins = &keys::finding(NUMBER, 0, 0)[..5];
        let (key, value) = assessed(store, begins);
        // The last byte belongs to its detail.
        let last = value.len() - 1;
        store.put(batch, Family::State, &key, &flipped(&value, last));
    });
    assert!(error.contains("finding 00"), "{error}");
    assert!(error.contains("is not what the entries give"), "{error}");
}

#[test]
fn a_missing_deadline_is_found() {
    let error = damaged(|store, batch| {
        let (key, _) = assessed(store, &keys::due_prefix(NUMBER));
        batch.delete(store, Family::State, &key);
    });
    assert!(error.contains("deadline 00"), "{error}");
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn an_invented_deadline_is_found() {
    let error = damaged(|store, batch| {
        let due = Timer {
            at: Micros::new(i64::MAX),
            leaf: 1,
            kind: TimerKind::Intent(1),
        };
        let owner = Owner::ALL;
        let key = keys::due(NUMBER, &due);
        store.put(batch, Family::State, &key, owner.as_bytes());
    });
    assert!(error.contains("deadline 00"), "{error}");
    assert!(error.contains("belongs to nothing in the log"), "{error}");
}

#[test]
fn records_of_no_ledger_are_found() {
    let error = damaged(|store, batch| {
        let key = keys::session(LedgerNumber(7), &SessionId::new([0; 16]));
        store.put(batch, Family::State, &key, b"");
    });
    assert!(error.contains("state holds records of number 7"), "{error}");
}

#[test]
fn a_number_that_would_be_given_twice_is_found() {
    let error = damaged(|store, batch| {
        store.put(batch, Family::Meta, keys::NEXT_LEDGER, &0_u32.to_be_bytes());
    });
    assert!(error.contains("number 0, which is taken"), "{error}");
}

#[test]
fn another_servers_key_is_found() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    std::fs::remove_file(dir.path().join("server.key")).unwrap();
    crate::identity::Identity::create(dir.path(), Some("test")).unwrap();
    let error = check(dir.path()).unwrap_err();
    assert!(
        error.contains("server.key does not give its log key"),
        "{error}"
    );
}

#[test]
fn a_directory_without_a_server_is_said_to_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = check(dir.path()).unwrap_err();
    assert!(error.contains("holds no deed server"), "{error}");
}
