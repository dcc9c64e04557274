//! Heads are signed behind commit and guard, and stored with a later turn. Tests of what that leaves on
//! disk, and of what a restart makes of it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use deed_evidence::trust::LogKeys;
use deed_tlog::{TreeHead, TreeSize};
use parking_lot::Mutex;

use super::{Disk, effects_tests::copy};
use crate::{
    ledger::Ledger,
    offline::fsck,
    store::{LedgerNumber, Store},
    testing::{Engine, Producer, briefs},
};

const LEDGER: &str = "signing";
const NUMBER: LedgerNumber = LedgerNumber(0);

/// Within this time a thread does what it should; nothing that is measured.
const LONG: Duration = Duration::from_secs(60);

fn keys(ledger: &Ledger) -> LogKeys {
    ledger.trust.read().log_keys().clone()
}

/// Returns the newest signed head that the store has.
fn signed(store: &Store, keys: &LogKeys) -> Option<TreeHead> {
    let record = store.latest_head(NUMBER).unwrap();
    record.map(|record| keys.open(&record.checkpoint).unwrap())
}

fn clean(data_dir: &Path) -> fsck::Report {
    fsck::check(data_dir, &mut |_| {}).unwrap()
}

#[test]
fn a_head_is_signed_when_it_is_guarded_and_stored_with_the_next_turn() {
    let dir = tempfile::tempdir().unwrap();
    let watched = Arc::new(Mutex::new(None::<(Arc<Ledger>, Arc<Store>)>));
    let guards = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (Arc::clone(&watched), Arc::clone(&guards));
    let engine = Engine::open_on(dir.path(), move |mut disk| Disk {
        commit: disk.commit,
        guard: Box::new(move |guarded| {
            if let Some((ledger, store)) = &*seen.lock() {
                let published = ledger.readable().head;
                let stored = signed(store, &keys(ledger));
                let tree = store.stored_tree(NUMBER).unwrap().head;
                assert_eq!(guarded.size, tree.size.get());
                assert!(published.size < tree.size, "nobody was told of it");
                // What is signed by now is in the turn's batch.
                assert_eq!(stored, Some(published));
                count.fetch_add(1, SeqCst);
            }
            (disk.guard)(guarded)
        }),
    });
    let ledger = engine.create(LEDGER).unwrap();
    *watched.lock() = Some((Arc::clone(&ledger), Arc::clone(&engine.store)));
    let mut producer = Producer::new(ledger.id, 1);
    for turn in 0..4 {
        let answer = engine.append(LEDGER, vec![producer.intent("r")]).unwrap();
        assert!(briefs(&answer)[0].starts_with("accepted"));
        let head = keys(&ledger).open(&answer.checkpoint).unwrap();
        assert_eq!(head, ledger.readable().head);
        assert_eq!(guards.load(SeqCst), turn + 1);
    }
    *watched.lock() = None;
    let (newest, keys) = (ledger.readable().head, keys(&ledger));
    drop(ledger);
    engine.close();
    // An orderly end leaves nothing unsigned.
    let store = Store::open(dir.path(), &crate::store::StoreOptions::default()).unwrap();
    assert_eq!(signed(&store, &keys), Some(newest));
    drop(store);
    clean(dir.path());
}

/// Each prefix of a ledger's life, as a power failure would leave it: the same head is signed again with
/// the same bytes, and the ledger goes on.
#[test]
fn what_was_published_and_not_stored_is_signed_again_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [origin, crashed] = ["origin", "crashed"].map(|name| dir.path().join(name));
    std::fs::create_dir(&origin).unwrap();
    let engine = Engine::open(&origin);
    let ledger = engine.create(LEDGER).unwrap();
    let mut producer = Producer::new(ledger.id, 1);
    for turn in 0..5_u64 {
        copy(&origin, &crashed);
        let published = ledger.readable();
        // The newest signed head in the store is a turn behind, and before the second turn there is none.
        let store = Store::open(&crashed, &crate::store::StoreOptions::default()).unwrap();
        let (tree, behind) = (
            store.stored_tree(NUMBER).unwrap(),
            signed(&store, &keys(&ledger)),
        );
        assert_eq!(tree.head, published.head);
        assert_eq!(
            behind.map(|head| head.size.get()),
            turn.checked_sub(1).map(|before| before + 1)
        );
        drop(store);
        clean(&crashed);
        let again = Engine::open(&crashed);
        let listed = again.registry.page("", 10).unwrap().ledgers;
        assert_eq!(listed[0].1, Some(published.head), "read without loading");
        let loaded = again.registry.ledger(LEDGER).unwrap();
        assert_eq!(loaded.readable().checkpoint, published.checkpoint);
        for size in 1..=published.size().get() {
            let size = TreeSize::new(size);
            assert_eq!(
                loaded.checkpoint_at(&loaded.readable(), size).unwrap(),
                ledger.checkpoint_at(&published, size).unwrap()
            );
        }
        let next = producer.intent("r");
        let answer = again.append(LEDGER, vec![next.clone()]).unwrap();
        assert_eq!(briefs(&answer), [format!("accepted {}", turn + 1)]);
        drop(loaded);
        again.close();
        clean(&crashed);
        std::fs::remove_dir_all(&crashed).unwrap();
        engine.append(LEDGER, vec![next]).unwrap();
    }
    drop(ledger);
    engine.close();
    clean(&origin);
}

/// Turns that wait for the guard together get one signature, and each answer the head that covers all.
#[test]
fn one_signature_serves_the_turns_that_are_guarded_together() {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(AtomicUsize::new(0));
    let (count, waits_for) = (Arc::clone(&commits), Arc::new(AtomicUsize::new(0)));
    let wanted = Arc::clone(&waits_for);
    let engine = Engine::open_on(dir.path(), move |mut disk| {
        let committed = Arc::clone(&count);
        Disk {
            commit: Box::new(move |batch| {
                (disk.commit)(batch)?;
                count.fetch_add(1, SeqCst);
                Ok(())
            }),
            guard: Box::new(move |head| {
                let since = Instant::now();
                while committed.load(SeqCst) < wanted.load(SeqCst) && since.elapsed() < LONG {
                    thread::sleep(Duration::from_millis(1));
                }
                (disk.guard)(head)
            }),
        }
    });
    let ledger = engine.create(LEDGER).unwrap();
    // The first turn is guarded when the second and the third are in the store.
    waits_for.store(commits.load(SeqCst) + 3, SeqCst);
    let heads: Vec<TreeHead> = thread::scope(|scope| {
        let mut appends = Vec::new();
        for session in 1..=3_u8 {
            let before = commits.load(SeqCst);
            let intent = Producer::new(ledger.id, session).intent("r");
            let engine = &engine;
            appends.push(scope.spawn(move || engine.append(LEDGER, vec![intent]).unwrap()));
            let since = Instant::now();
            while commits.load(SeqCst) == before && since.elapsed() < LONG {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let answers = appends.into_iter().map(|append| append.join().unwrap());
        let keys = keys(&ledger);
        answers
            .map(|answer| keys.open(&answer.checkpoint).unwrap())
            .collect()
    });
    let sizes: Vec<u64> = heads.iter().map(|head| head.size.get()).collect();
    assert_eq!(
        sizes[1..],
        [4, 4],
        "the second and the third turn: {sizes:?}"
    );
    // Those in between are signed when somebody asks.
    let readable = ledger.readable();
    for size in 1..=4 {
        ledger
            .checkpoint_at(&readable, TreeSize::new(size))
            .unwrap();
    }
    drop((readable, ledger));
    engine.close();
    clean(dir.path());
}
