//! Tests of log key rotations: in the step, over restarts, and with failing writes.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use deed_evidence::trust::{HeadError, LogKeys, TrustRefusal};
use deed_proto::v1::{self, rejection::Reason, statement::Body};
use deed_tlog::{Checkpoint, Origin, TreeSize, VerifierKey};

use super::{
    Ledger,
    step::{Placement, RejectReason},
    step_tests::ByHand,
};
use crate::{
    admission::{Admission, AdmittedBatch, Rejected, Sender},
    guard::GuardSlot,
    identity::{Identity, log_signers::LogSigners},
    offline::fsck,
    offline::secret,
    shard::Disk,
    store::{Family, LedgerNumber, StoreError},
    testing::{Authority, Engine, Producer, brief, briefs},
};

const LEDGER: &str = "rotates";

fn rotated(log_key: &VerifierKey) -> Body {
    Body::LogKeyRotated(v1::LogKeyRotated {
        log_key: Some(v1::LogKey {
            vkey: log_key.to_string(),
        }),
        reason: "Yearly.".to_owned(),
    })
}

fn log_keys(ledger: &Ledger) -> LogKeys {
    ledger.trust.read().log_keys().clone()
}

fn by(note: &[u8], key: &VerifierKey) -> bool {
    Checkpoint::open(note, key).is_ok()
}

/// A ledger that is stepped by hand, with the log keys that follow the first one.
struct Stepped {
    ledger: ByHand,
    signers: LogSigners,
    _dir: tempfile::TempDir,
}

impl Stepped {
    fn new() -> Self {
        let ledger = ByHand::new();
        let dir = tempfile::tempdir().unwrap();
        // Both servers have the same secret, because their results are compared.
        let text = format!(
            "deed-server-key-v1\nname example.org\nsecret {}=\n",
            "A".repeat(43)
        );
        let path = dir.path().join("server.key");
        std::fs::write(&path, text).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).unwrap();
        let identity = Arc::new(Identity::load(dir.path()).unwrap().unwrap());
        let origin: Origin = "example.org/logs/by-hand".parse().unwrap();
        Self {
            ledger,
            signers: LogSigners::new(identity, origin),
            _dir: dir,
        }
    }

    fn next(&self) -> VerifierKey {
        self.signers.next(self.ledger.trust.read().log_keys())
    }

    fn admit(&self, envelopes: &[v1::Envelope]) -> (AdmittedBatch, Vec<Rejected>) {
        Admission {
            ledger_id: self.ledger.id,
            trust: &self.ledger.trust,
            sender: &Sender::anybody(),
            received_at: deed_evidence::Micros::new(5),
            holds_contents: false,
            log_signers: Some(&self.signers),
        }
        .admit_here(envelopes)
    }

    fn admitted(&self, envelopes: &[v1::Envelope]) -> AdmittedBatch {
        let (batch, rejected) = self.admit(envelopes);
        assert_eq!(rejected, []);
        batch
    }
}

/// Cuts statements and two rotations into turns in every way, and compares the results.
#[test]
fn where_turns_are_cut_does_not_matter() {
    let run = |cuts: u8| {
        let mut stepped = Stepped::new();
        let mut authority = Authority::new(stepped.ledger.id);
        let mut agent = Producer::new(stepped.ledger.id, 1);
        let mut open = Vec::new();
        for step in 0..6 {
            if step == 4 {
                // The second key is known only when the first rotation was stepped.
                let waiting = std::mem::take(&mut open);
                stepped.ledger.turn(&waiting);
            }
            let said = match step {
                1 | 4 => authority.says(rotated(&stepped.next())),
                _ => agent.intent(&format!("orders/{step}")),
            };
            open.push(stepped.admitted(&[said]));
            if cuts >> step & 1 == 1 {
                let turn = std::mem::take(&mut open);
                stepped.ledger.turn(&turn);
            }
        }
        stepped.ledger.turn(&open);
        let keys = stepped.ledger.trust.read().log_keys().clone();
        let sizes: Vec<_> = keys.all().iter().map(|key| key.first_size.get()).collect();
        assert_eq!(sizes, [1, 3, 6], "cuts {cuts:b}");
        let ledger = &stepped.ledger;
        let root = ledger.state.edge().root();
        (keys, root, ledger.entries(), ledger.records())
    };
    let whole = run(0);
    for cuts in 1..64 {
        assert_eq!(run(cuts), whole, "cuts {cuts:b}");
    }
}

#[test]
fn the_server_takes_no_key_that_it_does_not_have() {
    let mut stepped = Stepped::new();
    let authority = || Authority::new(stepped.ledger.id);
    let refused = |body: Body| {
        let (_, rejected) = stepped.admit(&[authority().says(body)]);
        let [rejected] = &rejected[..] else {
            panic!("{rejected:?}");
        };
        (rejected.reason, rejected.message.clone())
    };
    let name = "example.org/logs/by-hand".parse::<Origin>().unwrap();
    let foreign = deed_tlog::NoteSigner::from_seed(&name, &[9; 32]);
    let (reason, message) = refused(rotated(foreign.verifier_key()));
    assert_eq!(reason, Reason::TrustRefused);
    assert!(message.contains(&stepped.next().to_string()), "{message}");

    // Two rotations are admitted before either is stepped: the second one comes too late. Each one,
    // sent again, is a duplicate.
    let next = stepped.next();
    let mut first = authority();
    let first = first.says(rotated(&next));
    let mut second = authority();
    second.says(rotated(&next));
    let second = second.says(rotated(&next));
    let both = [
        stepped.admitted(std::slice::from_ref(&first)),
        stepped.admitted(&[second]),
    ];
    let placed = stepped.ledger.turn(&both);
    assert!(matches!(placed[0], Placement::Linked(at) if at.leaf == 1));
    assert_eq!(
        placed[1],
        Placement::Refused(RejectReason::Trust(TrustRefusal::LogKeyUsed {
            first_size: TreeSize::new(2)
        }))
    );
    let again = stepped.admitted(&[first]);
    let placed = stepped.ledger.turn(&[again]);
    assert!(matches!(placed[0], Placement::Duplicate(at) if at.leaf == 1));
    // Without signers, as in a program that does not sign, no log key is accepted.
    let (_, rejected) = Admission {
        ledger_id: stepped.ledger.id,
        trust: &stepped.ledger.trust,
        sender: &Sender::anybody(),
        received_at: deed_evidence::Micros::new(5),
        holds_contents: false,
        log_signers: None,
    }
    .admit_here(&[Authority::new(stepped.ledger.id).says(rotated(&stepped.next()))]);
    assert_eq!(rejected.len(), 1);
}

/// Checks that every head of the ledger, signed anew, has its size and the same bytes twice.
fn check_heads(ledger: &Ledger) {
    let keys = log_keys(ledger);
    let readable = ledger.readable();
    for size in 1..=readable.size().get() {
        let size = TreeSize::new(size);
        let note = ledger.checkpoint_at(&readable, size).unwrap();
        let head = keys.open(&note).unwrap();
        assert_eq!(head.size, size);
        assert_eq!(note, ledger.sign(head), "size {size}");
        // No other key signs it.
        let signers = keys.at(size);
        let signed = keys.all().iter().filter(|known| by(&note, &known.key));
        let wanted = 1 + usize::from(signers.handed_over_by.is_some());
        assert_eq!(signed.count(), wanted, "size {size}");
    }
}

fn check_fsck(data_dir: &Path) {
    let report = fsck::check_with(data_dir, &data_dir.join("content.key"), &mut |_| {}).unwrap();
    assert_eq!(report.ledgers, 1);
}

#[test]
fn heads_are_signed_by_the_key_of_their_size_over_restarts_and_new_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create(LEDGER).unwrap();
    let mut authority = Authority::new(ledger.id);
    let mut agent = Producer::new(ledger.id, 1);
    let before = engine.append(LEDGER, vec![agent.intent("before")]).unwrap();
    let old_note = before.checkpoint.clone();

    // Both are in one request: the head of size 4 has only the new key's signature, that of size 3
    // hands over.
    let next = ledger.next_log_key();
    let both = vec![authority.says(rotated(&next)), agent.intent("after")];
    let answer = engine.append(LEDGER, both).unwrap();
    assert_eq!(briefs(&answer), ["accepted 2", "accepted 3"]);
    let first = log_keys(&ledger).first().key.clone();
    assert!(by(&answer.checkpoint, &next) && !by(&answer.checkpoint, &first));
    assert!(by(&old_note, &first) && !by(&old_note, &next));
    assert_eq!(ledger.log_key(ledger.readable().size()), next);
    assert_ne!(ledger.next_log_key(), next);
    check_heads(&ledger);
    let stored = engine.store.ledger(LEDGER).unwrap().unwrap();
    assert_eq!((stored.key_generation, stored.vkey), (1, next.to_string()));
    let listed = engine.registry.page("", 10).unwrap().ledgers;
    assert_eq!(listed[0].0.vkey, next.to_string());
    drop(ledger);
    engine.close();
    check_fsck(dir.path());

    // A new secret changes the next key, and none of the earlier ones.
    let engine = Engine::open(dir.path());
    let unloaded = engine.registry.page("", 10).unwrap().ledgers;
    assert_eq!(unloaded[0].1.unwrap().size.get(), 4, "read without loading");
    let ledger = engine.registry.ledger(LEDGER).unwrap();
    let of_the_old_secret = ledger.next_log_key();
    check_heads(&ledger);
    drop(ledger);
    // The secret cannot be renewed while the server runs.
    secret::renew(dir.path()).unwrap_err();
    engine.close();
    secret::renew(dir.path()).unwrap();
    check_fsck(dir.path());

    let engine = Engine::open(dir.path());
    let ledger = engine.registry.ledger(LEDGER).unwrap();
    check_heads(&ledger);
    let third = ledger.next_log_key();
    assert_ne!(third, of_the_old_secret);
    let mut late = authority.clone();
    let refused = engine.append(LEDGER, vec![late.says(rotated(&of_the_old_secret))]);
    assert_eq!(
        briefs(&refused.unwrap()),
        ["REASON_TRUST_REFUSED"],
        "whoever knows the old secret has that key"
    );
    let rotation = authority.says(rotated(&third));
    let answer = engine.append(LEDGER, vec![rotation.clone()]).unwrap();
    assert_eq!(briefs(&answer), ["accepted 4"]);
    assert!(by(&answer.checkpoint, &third) && by(&answer.checkpoint, &next));
    let again = engine.append(LEDGER, vec![rotation]).unwrap();
    assert_eq!(briefs(&again), ["duplicate 4"]);
    let answer = engine.append(LEDGER, vec![agent.intent("later")]).unwrap();
    assert!(by(&answer.checkpoint, &third) && !by(&answer.checkpoint, &next));
    check_heads(&ledger);
    drop(ledger);
    engine.close();
    check_fsck(dir.path());

    // A head that the first key signed stays valid for ever; one that it signs now is not.
    let engine = Engine::open(dir.path());
    let ledger = engine.registry.ledger(LEDGER).unwrap();
    let keys = log_keys(&ledger);
    let old = keys.open(&old_note).unwrap();
    assert_eq!(old.size.get(), 2);
    let identity = Identity::load(dir.path()).unwrap().unwrap();
    let signer = identity.log_signer_of(&ledger.origin, 0, &first).unwrap();
    let head = ledger.readable().head;
    let forged = Checkpoint::new(ledger.origin.clone(), head)
        .sign(&signer)
        .unwrap();
    assert!(matches!(
        keys.open(forged.to_string().as_bytes()),
        Err(HeadError::Retired { .. })
    ));
    drop(ledger);
    engine.close();
}

#[test]
fn a_record_or_a_secret_that_names_other_keys_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create(LEDGER).unwrap();
    let mut authority = Authority::new(ledger.id);
    let first = log_keys(&ledger).first().key.clone();
    let rotation = authority.says(rotated(&ledger.next_log_key()));
    engine.append(LEDGER, vec![rotation]).unwrap();
    let good = ledger.record_at(ledger.readable().size());
    drop(ledger);
    let put = |engine: &Engine, record: &crate::store::records::LedgerRecord| {
        let mut batch = crate::store::Batch::default();
        let key = crate::store::keys::ledger(LEDGER);
        let record = prost::Message::encode_to_vec(record);
        engine.store.put(&mut batch, Family::Meta, &key, &record);
        engine.store.commit(batch).unwrap();
    };
    // The old key opens the handover head, too: only the entries show that it is the old one.
    let old = crate::store::records::LedgerRecord {
        key_generation: 0,
        vkey: first.to_string(),
        ..good.clone()
    };
    put(&engine, &old);
    engine.close();
    let error = fsck::check_with(dir.path(), &dir.path().join("content.key"), &mut |_| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("its record names log key"), "{error}");
    let engine = Engine::open(dir.path());
    let error = engine.registry.ledger(LEDGER).err().unwrap().to_string();
    assert!(
        error.contains("another log key than its trust statements"),
        "{error}"
    );
    put(&engine, &good);
    engine.registry.ledger(LEDGER).unwrap();
    engine.close();

    // This server.key lacks the secret that the keys derive from.
    secret::renew(dir.path()).unwrap();
    let path = dir.path().join("server.key");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let without = [lines[0], lines[1], lines[3], ""].join("\n");
    std::fs::write(&path, without).unwrap();
    let engine = Engine::open(dir.path());
    let error = engine.registry.ledger(LEDGER).err().unwrap().to_string();
    assert!(
        error.contains("does not give this ledger's log keys"),
        "{error}"
    );
    engine.close();
    let error = fsck::check_with(dir.path(), &dir.path().join("content.key"), &mut |_| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("server.key does not give"), "{error}");
}

/// The write that fails, and whether it has reached the disk by then.
#[derive(Debug, Clone, Copy)]
struct Fault {
    guard: bool,
    after: bool,
}

/// Makes write number `at` fail.
fn with_fault(mut disk: Disk, fault: Fault, at: usize) -> Disk {
    let (commits, guards) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Disk {
        commit: Box::new(move |batch| {
            let fails = commits.fetch_add(1, Ordering::SeqCst) == at && !fault.guard;
            if !fails || fault.after {
                (disk.commit)(batch)?;
            }
            if fails {
                let what = "injected";
                return Err(StoreError::corrupt(Family::Meta, LedgerNumber(0), what));
            }
            Ok(())
        }),
        guard: Box::new(move |head| {
            let fails = guards.fetch_add(1, Ordering::SeqCst) == at && fault.guard;
            if !fails || fault.after {
                (disk.guard)(head)?;
            }
            if fails {
                return Err(io::Error::other("injected"));
            }
            Ok(())
        }),
    }
}

/// Writes 0 and 1 make the ledger and a first entry; the rotation is write 2. Whatever happens to
/// that write, the next start signs with the key of its tree, and the statement is recorded once.
#[test]
fn a_rotation_is_whole_or_absent_whatever_write_fails() {
    for (guard, after) in [(false, false), (false, true), (true, false), (true, true)] {
        let fault = Fault { guard, after };
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open_on(dir.path(), |disk| with_fault(disk, fault, 2));
        let ledger = engine.create(LEDGER).unwrap();
        let mut authority = Authority::new(ledger.id);
        let mut agent = Producer::new(ledger.id, 1);
        engine.append(LEDGER, vec![agent.intent("before")]).unwrap();
        let (first, next) = (ledger.log_key(TreeSize::new(2)), ledger.next_log_key());
        let both = vec![authority.says(rotated(&next)), agent.intent("after")];
        engine.append(LEDGER, both.clone()).unwrap_err();
        drop(ledger);
        engine.close();

        let engine = Engine::open(dir.path());
        let ledger = engine.registry.ledger(LEDGER).unwrap();
        check_heads(&ledger);
        let there = guard || after;
        let readable = ledger.readable();
        let (size, key) = if there { (4, &next) } else { (2, &first) };
        assert_eq!(readable.size().get(), size, "{fault:?}");
        assert!(by(&readable.checkpoint, key), "{fault:?}");
        let guarded = GuardSlot::open(dir.path(), 0).unwrap().head();
        assert_eq!(guarded, Some(readable.head), "{fault:?}");
        let again = engine.append(LEDGER, both).unwrap();
        let word = if there { "duplicate" } else { "accepted" };
        let wanted = [format!("{word} 2"), format!("{word} 3")];
        let found: Vec<_> = again.results.iter().map(brief).collect();
        assert_eq!(found, wanted, "{fault:?}");
        assert!(by(&again.checkpoint, &next) && !by(&again.checkpoint, &first));
        check_heads(&ledger);
        drop(ledger);
        engine.close();
        check_fsck(dir.path());
    }
}
