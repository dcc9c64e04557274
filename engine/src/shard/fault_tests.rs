//! The fault table: every write fails once before it has persisted and once after. Every
//! acknowledged statement is still there afterwards.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use deed_proto::v1;

use super::Disk;
use crate::{
    guard::GuardSlot,
    offline::fsck,
    store::{Family, LedgerNumber, StoreError},
    testing::{Engine, Producer, brief, briefs},
};

const LEDGER: &str = "faults";

/// Number of requests of a run, each with three statements of one session.
const REQUESTS: usize = 6;

/// The write that fails, and whether it has reached the disk by then.
#[derive(Debug, Clone, Copy)]
enum Fault {
    CommitBefore(usize),
    CommitAfter(usize),
    GuardBefore(usize),
    GuardAfter(usize),
}

fn with_fault(mut disk: Disk, fault: Fault) -> Disk {
    let commits = Arc::new(AtomicUsize::new(0));
    let guards = Arc::new(AtomicUsize::new(0));
    Disk {
        commit: Box::new(move |batch| {
            let number = commits.fetch_add(1, Ordering::SeqCst);
            let injected = || StoreError::corrupt(Family::Meta, LedgerNumber(0), "injected");
            match fault {
                Fault::CommitBefore(at) if at == number => Err(injected()),
                Fault::CommitAfter(at) if at == number => {
                    (disk.commit)(batch)?;
                    Err(injected())
                }
                _ => (disk.commit)(batch),
            }
        }),
        guard: Box::new(move |head| {
            let number = guards.fetch_add(1, Ordering::SeqCst);
            match fault {
                Fault::GuardBefore(at) if at == number => Err(io::Error::other("injected")),
                Fault::GuardAfter(at) if at == number => {
                    (disk.guard)(head)?;
                    Err(io::Error::other("injected"))
                }
                _ => (disk.guard)(head),
            }
        }),
    }
}

/// Returns the requests of a run, which are the same for the same ledger.
fn requests(ledger_id: deed_evidence::LedgerId) -> Vec<Vec<v1::Envelope>> {
    let mut producer = Producer::new(ledger_id, 1);
    (0..REQUESTS)
        .map(|request| {
            (0..3)
                .map(|n| producer.intent(&format!("{request}/{n}")))
                .collect()
        })
        .collect()
}

/// Appends until the fault strikes, and returns the acknowledged statements.
fn run_into(data_dir: &Path, fault: Fault) -> Vec<(v1::Envelope, v1::AppendResult)> {
    let engine = Engine::open_on(data_dir, |disk| with_fault(disk, fault));
    let mut acknowledged = Vec::new();
    // The first commit and the first guard write create the ledger.
    if let Ok(ledger) = engine.create(LEDGER) {
        for envelopes in requests(ledger.id) {
            let Ok(answer) = engine.append(LEDGER, envelopes.clone()) else {
                break;
            };
            acknowledged.extend(envelopes.into_iter().zip(answer.results));
        }
    }
    // After a failure the engine answers nothing more.
    let failure = engine.appends.shards.failure().borrow().clone();
    assert!(failure.is_some_and(|why| why.contains("injected")));
    let mut other = Producer::new(deed_evidence::LedgerId::new(deed_tlog::leaf_hash(b"x")), 9);
    if let Ok(ledger) = engine.registry.ledger(LEDGER) {
        other.ledger_id = ledger.id;
        assert!(engine.append(LEDGER, vec![other.intent("late")]).is_err());
    }
    engine.close();
    acknowledged
}

/// Checks that every acknowledged statement is at its leaf, and that sending all again neither
/// loses nor doubles any.
fn recover(data_dir: &Path, acknowledged: &[(v1::Envelope, v1::AppendResult)], fault: Fault) {
    let engine = Engine::open(data_dir);
    let ledger = match engine.registry.ledger(LEDGER) {
        Ok(ledger) => ledger,
        // The creation of the ledger was not acknowledged.
        Err(_) if acknowledged.is_empty() => engine.create(LEDGER).unwrap(),
        Err(error) => panic!("{fault:?}: {error}"),
    };
    // A turn that was committed and not acknowledged is guarded, too, before anybody can read it.
    let newest = engine.store.stored_tree(ledger.number).unwrap();
    let guarded = GuardSlot::open(data_dir, 0).unwrap().head();
    assert_eq!(guarded, Some(newest.head), "{fault:?}");
    // The head of the newest turn is signed now, and the store may have that of the turn before.
    let readable = ledger.readable();
    let signed = ledger.trust.read().log_keys().open(&readable.checkpoint);
    assert_eq!(signed.unwrap(), newest.head, "{fault:?}");
    for (envelope, result) in acknowledged {
        let again = engine.append(LEDGER, vec![envelope.clone()]).unwrap();
        let expected = brief(result).replace("accepted", "duplicate");
        assert_eq!(briefs(&again), [expected], "{fault:?}");
    }
    let all = requests(ledger.id);
    for envelopes in &all {
        let answer = engine.append(LEDGER, envelopes.clone()).unwrap();
        assert!(
            briefs(&answer)
                .iter()
                .all(|brief| !brief.starts_with("REASON")),
            "{fault:?}: {answer:?}"
        );
    }
    let payloads: Vec<_> = all
        .concat()
        .into_iter()
        .map(|envelope| envelope.payload)
        .collect();
    let recorded: Vec<_> = engine
        .store
        .entries(ledger.number, 1)
        .map(|item| {
            let (_, entry) = item.unwrap();
            let payload = deed_evidence::entry::Entry::parse(&entry).unwrap().payload;
            entry.slice_ref(payload)
        })
        .collect();
    assert_eq!(recorded, payloads, "{fault:?}");
    drop(ledger);
    engine.close();
    fsck::check(data_dir, &mut |_| {}).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
}

#[test]
fn every_write_may_fail_before_and_after_it_persisted() {
    for write in 0..=REQUESTS {
        for fault in [
            Fault::CommitBefore(write),
            Fault::CommitAfter(write),
            Fault::GuardBefore(write),
            Fault::GuardAfter(write),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let acknowledged = run_into(dir.path(), fault);
            // Write 0 is the creation; each request after it is one turn of three statements.
            assert_eq!(acknowledged.len(), write.saturating_sub(1) * 3, "{fault:?}");
            recover(dir.path(), &acknowledged, fault);
        }
    }
}
