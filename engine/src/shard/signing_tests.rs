//! Heads are signed behind commit and guard, and stored with a later turn. Tests of what that leaves on
//! disk, and of what a restart makes of it.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Instant,
};

use deed_evidence::trust::LogKeys;
use deed_tlog::{TreeHead, TreeSize};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::{
    Disk,
    chain::Chain,
    effects_tests::copy,
    journal::{Appended, Journal, ProposedTurn},
    pipeline::{CommitPipeline, CommittableTurn, PendingReply, Progress},
    queue::Queue,
    signed_heads::SignedHeads,
};
use crate::{
    admission::AdmittedBatch,
    guard::GuardedHead,
    ledger::Ledger,
    metrics::Assessments,
    offline::fsck,
    store::{Batch, LedgerNumber, Store, StoreError, StoreOptions, turn::TurnRecord},
    testing::{Engine, Producer, briefs},
};

const LEDGER: &str = "signing";
const NUMBER: LedgerNumber = LedgerNumber(0);

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
                // The turn's batch has taken the head that was signed before.
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
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
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
        let store = Store::open(&crashed, &StoreOptions::default()).unwrap();
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
        assert_eq!(clean(&crashed).unsigned, 1);
        let again = Engine::open(&crashed);
        let listed = again.registry.page("", 10).unwrap().ledgers;
        assert_eq!(listed[0].1, Some(published.head), "read without loading");
        let loaded = again.registry.ledger(LEDGER).unwrap();
        assert_eq!(loaded.readable().checkpoint, published.checkpoint);
        // It is in the store now, whatever comes: another crash does not add to what is not.
        assert_eq!(signed(&again.store, &keys(&ledger)), Some(published.head));
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
        assert_eq!(clean(&crashed).unsigned, 0);
        std::fs::remove_dir_all(&crashed).unwrap();
        engine.append(LEDGER, vec![next]).unwrap();
    }
    drop(ledger);
    engine.close();
    clean(&origin);
}

/// A journal that has whatever it is given.
struct Agreeable;

impl Journal for Agreeable {
    fn newest(&self) -> Result<TurnRecord, StoreError> {
        Ok(TurnRecord::none())
    }

    fn append(&self, _: ProposedTurn) -> Appended {
        Appended::Next
    }

    fn confirm(&self, _: &GuardedHead) -> io::Result<()> {
        Ok(())
    }
}

/// Turns that wait for the guard together get one signature, and each answer the head that covers all.
#[test]
fn one_signature_serves_the_turns_that_are_guarded_together() {
    let dir = tempfile::tempdir().unwrap();
    let [ahead, behind] = ["ahead", "behind"].map(|name| dir.path().join(name));
    std::fs::create_dir(&ahead).unwrap();
    let engine = Engine::open(&ahead);
    drop(engine.create(LEDGER).unwrap());
    engine.close();
    copy(&ahead, &behind);

    let engine = Engine::open(&ahead);
    let mut producer = Producer::new(engine.registry.ledger(LEDGER).unwrap().id, 1);
    let trees = [2, 3].map(|size| {
        engine.append(LEDGER, vec![producer.intent("r")]).unwrap();
        let ledger = engine.registry.ledger(LEDGER).unwrap();
        let tree = Arc::clone(ledger.readable().tree());
        assert_eq!(tree.size().get(), size);
        tree
    });
    engine.close();

    // The same ledger, where neither turn was made: both wait for the guard.
    let engine = Engine::open(&behind);
    let ledger = engine.registry.ledger(LEDGER).unwrap();
    let progress = Progress::new(Arc::new(watch::Sender::new(None)), Arc::default());
    let pipeline = CommitPipeline::new(
        Box::new(Agreeable),
        Chain::new(Arc::clone(&engine.store), 0),
        SignedHeads::new(Arc::clone(&engine.store)),
        Arc::new(Queue::new()),
        progress.clone(),
        Arc::default(),
    );
    let (to_guard, guards) = mpsc::sync_channel(2);
    let answers = trees.map(|tree| {
        progress.begin();
        let (reply, answer) = oneshot::channel();
        let pending = PendingReply {
            reply: Some(reply),
            ledger: Arc::clone(&ledger),
            placements: Vec::new(),
            batch: AdmittedBatch::default(),
            assessed: Vec::new(),
            permit: None,
        };
        let turn = CommittableTurn {
            epoch: 0,
            batch: Batch::default(),
            guarded: Some(GuardedHead::of(ledger.number, LEDGER, tree.head)),
            changed: vec![(Arc::clone(&ledger), tree)],
            unchanged: Vec::new(),
            answers: vec![pending],
            leaves: 1,
            entry_bytes: 1,
            assessments: Assessments::default(),
            since: Instant::now(),
            is_void: false,
        };
        assert!(to_guard.send(turn).is_ok());
        answer
    });
    drop(to_guard);
    pipeline.guard_all(&guards);
    for answer in answers {
        let readable = answer.blocking_recv().unwrap().unwrap().readable;
        assert_eq!(readable.size().get(), 3);
        assert_eq!(
            keys(&ledger).open(&readable.checkpoint).unwrap(),
            readable.head
        );
    }
    let stored = signed(&engine.store, &keys(&ledger));
    assert_eq!(stored, Some(ledger.readable().head));
    drop(ledger);
    engine.close();
}
