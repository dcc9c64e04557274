//! The fault table: every write of a hold and of an erasure fails before and after it reached the
//! disk.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    ContentError, ContentStatus, NewContent,
    testing::{Fixture, NUMBER, ORPHAN_MS, content, noise},
    writer::Disk,
};
use crate::store::{Family, LedgerNumber, StoreError};

/// The write that fails, and whether it has reached the disk by then.
#[derive(Debug, Clone, Copy)]
struct Fault {
    write: usize,
    persisted: bool,
}

/// Keys and contents of a hold; then keys, purge and contents of an erasure.
const WRITES: usize = 5;

fn with_fault(disk: Disk, fault: Fault) -> Disk {
    let count = Arc::new(AtomicUsize::new(0));
    let Disk {
        mut keys,
        mut contents,
        mut purge,
        guard,
    } = disk;
    // Counts each write; returns whether it is carried out, and its result.
    let strikes = move |count: &AtomicUsize, write: &mut dyn FnMut() -> Result<(), StoreError>| {
        let struck = count.fetch_add(1, Ordering::SeqCst) == fault.write;
        if !struck || fault.persisted {
            write()?;
        }
        if struck {
            return Err(StoreError::corrupt(
                Family::Content,
                LedgerNumber(0),
                "injected",
            ));
        }
        Ok(())
    };
    let counts = [Arc::clone(&count), Arc::clone(&count), count];
    let [a, b, c] = counts;
    Disk {
        keys: Box::new(move |batch| {
            let mut batch = Some(batch);
            strikes(&a, &mut || keys(batch.take().unwrap_or_default()))
        }),
        contents: Box::new(move |batch| {
            let mut batch = Some(batch);
            strikes(&b, &mut || contents(batch.take().unwrap_or_default()))
        }),
        purge: Box::new(move |deleted| strikes(&c, &mut || purge(deleted))),
        guard,
    }
}

/// Holds and erases until the fault strikes; returns whether each of both was answered.
fn run_into(dir: &Path, all: &[NewContent], fault: Fault) -> (bool, bool) {
    let fixture = Fixture::open_on(dir, 0, |disk| with_fault(disk, fault)).unwrap();
    let held = fixture.hold(all.to_vec());
    let erased = if held.is_ok() {
        fixture.erase(&[all[0].digest], 8)
    } else {
        Err(ContentError::Stopped)
    };
    for error in [held.as_ref().err(), erased.as_ref().err()] {
        assert!(
            matches!(error, None | Some(ContentError::Stopped)),
            "{error:?}"
        );
    }
    // After a failure nothing more is written.
    let failure = fixture.contents.failure().borrow().clone();
    assert!(failure.is_some_and(|why| why.contains("injected")));
    let late = fixture.hold(vec![content("late")]);
    assert!(matches!(late, Err(ContentError::Stopped)));
    fixture.close();
    (held.is_ok(), erased.is_ok())
}

#[test]
fn every_write_may_fail_before_and_after_it_persisted() {
    let all: Vec<_> = (0..4).map(|n| content(noise(n, 5000))).collect();
    for write in 0..WRITES {
        for persisted in [false, true] {
            let fault = Fault { write, persisted };
            let dir = tempfile::tempdir().unwrap();
            let (held, erased) = run_into(dir.path(), &all, fault);
            // A hold is two writes, an erasure the other three; the erasure is never answered here.
            assert_eq!((held, erased), (write >= 2, false), "{fault:?}");

            let fixture = Fixture::open(dir.path());
            let states: Vec<_> = all
                .iter()
                .map(|content| fixture.contents.held(NUMBER, &content.digest).unwrap())
                .collect();
            let whole = held || (write == 1 && persisted);
            let expected = if held {
                [
                    ContentStatus::Erased(8),
                    ContentStatus::Held,
                    ContentStatus::Held,
                    ContentStatus::Held,
                ]
            } else if whole {
                [ContentStatus::Held; 4]
            } else {
                [ContentStatus::Unknown; 4]
            };
            assert_eq!(states, expected, "{fault:?}");
            for (content, state) in all.iter().zip(&states) {
                match state {
                    ContentStatus::Held => {
                        assert_eq!(fixture.read(content.digest).unwrap(), content.bytes);
                    }
                    _ => assert!(fixture.read(content.digest).is_err(), "{fault:?}"),
                }
            }
            // The start has finished the erasure, and the keys of a failed hold are collected.
            assert_eq!(fixture.store.erasing(NUMBER).count(), 0, "{fault:?}");
            for (content, state) in all.iter().zip(&states) {
                if *state == ContentStatus::Held {
                    fixture.refer(content.digest, &[2]);
                }
            }
            // The key must be seen without its content once, and again after the bound.
            fixture.collect().unwrap();
            fixture
                .clock
                .set(1_000_000 + ORPHAN_MS.cast_signed() * 1000);
            fixture.collect().unwrap();
            for (content, state) in all.iter().zip(&states) {
                let key = fixture
                    .contents
                    .shared
                    .keys
                    .key(NUMBER, &content.digest)
                    .unwrap();
                assert_eq!(key.is_some(), *state == ContentStatus::Held, "{fault:?}");
            }
            // All contents can be sent again.
            let rest = &all[usize::from(held)..];
            assert!(fixture.hold(rest.to_vec()).is_ok(), "{fault:?}");
            for content in rest {
                assert_eq!(fixture.read(content.digest).unwrap(), content.bytes);
            }
            fixture.close();
        }
    }
}
