//! The trusted state on disk.

use std::sync::{Arc, Barrier};

use deed_client::{
    Advance, ForkEvidence, ForkKind, KnownKeys, Pin, SignedHead, StateDir, StoreError, TrustStore,
};
use deed_evidence::LedgerId;
use deed_tlog::{Checkpoint, Hash, NoteSigner, Origin, TreeHead, TreeSize};

fn signer() -> NoteSigner {
    NoteSigner::from_seed(origin(), &[1; 32])
}

fn origin() -> Origin {
    "example.org/logs/a/../b".parse().unwrap()
}

fn pin() -> Pin {
    Pin {
        origin: origin(),
        vkey: signer().verifier_key().clone(),
        ledger_id: LedgerId::new(Hash::new([4; 32])),
    }
}

fn known() -> KnownKeys {
    KnownKeys::new(pin().vkey)
}

fn head(size: u64, root: u8) -> SignedHead {
    let head = TreeHead::new(TreeSize::new(size), Hash::new([root; 32]));
    let note = Checkpoint::new(origin(), head).sign(&signer()).unwrap();
    SignedHead::open(note.to_string().as_bytes(), signer().verifier_key()).unwrap()
}

struct Scene {
    store: TrustStore,
    state: StateDir,
    _directory: tempfile::TempDir,
}

fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    Scene {
        store: state.store(&origin()),
        state,
        _directory: directory,
    }
}

#[test]
fn an_origin_is_one_directory_inside_of_the_state() {
    let scene = scene();
    scene
        .store
        .pin_first(&pin(), &known(), &head(1, 1))
        .unwrap();
    assert_eq!(
        scene.store.directory().parent().unwrap(),
        scene.state.path()
    );
    let other: Origin = "example.org/logs/a/.._b".parse().unwrap();
    assert_ne!(scene.state.store(&other), scene.store);
}

#[test]
fn the_first_pin_stays() {
    let scene = scene();
    assert_eq!(scene.store.pin().unwrap(), None);
    assert_eq!(
        scene
            .store
            .pin_first(&pin(), &known(), &head(3, 1))
            .unwrap(),
        pin()
    );
    let other = Pin {
        ledger_id: LedgerId::new(Hash::new([5; 32])),
        ..pin()
    };
    assert_eq!(
        scene
            .store
            .pin_first(&other, &known(), &head(9, 9))
            .unwrap(),
        pin()
    );
    assert_eq!(scene.store.pin().unwrap(), Some(pin()));
    assert_eq!(scene.store.head(&pin()).unwrap(), Some(head(3, 1)));
}

#[test]
fn the_head_only_grows_from_the_one_that_is_known() {
    let Scene {
        store, _directory, ..
    } = scene();
    let pin = pin();
    store.pin_first(&pin, &known(), &head(3, 3)).unwrap();
    assert_eq!(
        store.advance(&head(3, 3).head, &head(5, 5), &pin),
        Ok(Advance::Stored)
    );
    // From a head that is not stored (any more), from one that never was, and backwards.
    for (from, to) in [(3, 8), (4, 8), (5, 4), (3, 4)] {
        let advanced = store.advance(&head(from, from as u8).head, &head(to, to as u8), &pin);
        assert_eq!(advanced, Ok(Advance::Moved(head(5, 5))));
    }
    // Another root for the size that is stored.
    assert_eq!(
        store.advance(&head(3, 3).head, &head(5, 6), &pin),
        Ok(Advance::Moved(head(5, 5)))
    );
    assert_eq!(
        store.advance(&head(1, 1).head, &head(5, 5), &pin),
        Ok(Advance::Stored)
    );
    assert_eq!(store.head(&pin).unwrap(), Some(head(5, 5)));
}

#[test]
fn many_processes_at_once_lose_nothing() {
    const THREADS: u8 = 6;
    const STEPS: u64 = 6;
    let Scene {
        store, _directory, ..
    } = scene();
    let pin = pin();
    store.pin_first(&pin, &known(), &head(1, 99)).unwrap();
    let begin = Arc::new(Barrier::new(THREADS.into()));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (store, pin, begin) = (store.clone(), pin.clone(), Arc::clone(&begin));
            std::thread::spawn(move || {
                begin.wait();
                // Each adds one, as often as it takes; no two store the same head.
                let mut done = 0;
                while done < STEPS {
                    let stored = store.head(&pin).unwrap().unwrap();
                    let next = head(stored.head.size.get() + 1, thread);
                    let advanced = store.advance(&stored.head, &next, &pin).unwrap();
                    done += u64::from(advanced == Advance::Stored);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let size = store.head(&pin).unwrap().unwrap().head.size.get();
    assert_eq!(size, 1 + u64::from(THREADS) * STEPS, "a step was lost");
    let left_over: Vec<_> = std::fs::read_dir(store.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["pin.json", "checkpoint", "lock"].contains(&name.as_str()))
        .collect();
    assert_eq!(left_over, [""; 0]);
}

fn evidence(newer: u8) -> ForkEvidence {
    let note = |head: &SignedHead| String::from_utf8(head.note.to_vec()).unwrap();
    ForkEvidence {
        kind: ForkKind::SameSize,
        origin: origin().to_string(),
        vkey: pin().vkey.to_string(),
        newer_vkey: None,
        ledger_id: pin().ledger_id.to_string(),
        server: "http://127.0.0.1:1".to_owned(),
        seen_at_us: 1,
        older_checkpoint: note(&head(5, 1)),
        newer_checkpoint: note(&head(5, newer)),
        consistency_proof: None,
    }
}

#[test]
fn evidence_is_never_overwritten() {
    let scene = scene();
    assert_eq!(
        scene.store.forks().unwrap(),
        [""; 0].map(std::path::PathBuf::from)
    );
    let first = scene.store.keep_fork(&evidence(2)).unwrap();
    let kept = std::fs::read(&first).unwrap();
    let again = ForkEvidence {
        seen_at_us: 99,
        ..evidence(2)
    };
    assert_eq!(scene.store.keep_fork(&again).unwrap(), first);
    assert_eq!(
        std::fs::read(&first).unwrap(),
        kept,
        "the first sighting stays"
    );
    let second = scene.store.keep_fork(&evidence(3)).unwrap();
    assert_ne!(first, second);
    assert_eq!(scene.store.forks().unwrap().len(), 2);
    // Something else under the name: reported, not replaced.
    std::fs::write(&first, std::fs::read(&second).unwrap()).unwrap();
    let other = scene.store.keep_fork(&evidence(2));
    assert_eq!(
        other,
        Err(StoreError::OtherEvidence {
            path: first.clone()
        })
    );
    assert_eq!(
        std::fs::read(&first).unwrap(),
        std::fs::read(&second).unwrap()
    );
}

#[test]
fn damaged_files_are_not_guessed_around() {
    let scene = scene();
    scene
        .store
        .pin_first(&pin(), &known(), &head(3, 3))
        .unwrap();
    let pin = pin();
    for (file, bytes) in [
        ("checkpoint", &b"half a no"[..]),
        ("checkpoint", b""),
        ("pin.json", b"{}"),
        ("pin.json", b""),
        (
            "pin.json",
            b"{\"origin\": \"a\", \"vkey\": \"b\", \"ledger_id\": \"cc\"}",
        ),
    ] {
        let path = scene.store.directory().join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let result = match file {
            "pin.json" => scene.store.pin().map(|_| ()),
            _ => scene.store.head(&pin).map(|_| ()),
        };
        assert!(
            matches!(result, Err(StoreError::Damaged { .. })),
            "{file}: {result:?}"
        );
        if file == "checkpoint" {
            let advanced = scene.store.advance(&head(3, 3).head, &head(5, 5), &pin);
            assert!(matches!(advanced, Err(StoreError::Damaged { .. })));
        }
        std::fs::write(&path, whole).unwrap();
    }
    // Signed by another key.
    let other = NoteSigner::from_seed(origin(), &[2; 32]);
    let result = scene.store.head(&Pin {
        vkey: other.verifier_key().clone(),
        ..pin
    });
    assert!(matches!(result, Err(StoreError::Damaged { .. })));
}

#[test]
fn the_origin_behind_a_server_is_kept_once() {
    let Scene {
        state, _directory, ..
    } = scene();
    let server = "http://127.0.0.1:7733";
    assert_eq!(state.known_origin(server, "a").unwrap(), None);
    state.keep_origin(server, "a", &origin()).unwrap();
    state
        .keep_origin(server, "a", &"other".parse().unwrap())
        .unwrap();
    assert_eq!(
        state.known_origin(server, "a").unwrap(),
        Some(origin().to_string())
    );
    assert_eq!(state.known_origin(server, "b").unwrap(), None);
    assert_eq!(
        state.known_origin("http://127.0.0.1:7734", "a").unwrap(),
        None
    );
}
