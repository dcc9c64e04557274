//! Tests of the encoding of admitted batches: golden bytes, and the refusal of all other bytes.

use std::{fs, path::Path};

use deed_evidence::{
    CommitmentDigest, PrincipalHash, TaskId,
    policy::{self, DEFAULT_SCHEMA},
    trust::Reference,
};
use deed_proto::v1::statement::Body;
use deed_tlog::{SigningKey, leaf_hash};

use super::{encoding::DecodeError, *};
use crate::{
    content::ContentStatus,
    testing::{Authority, Producer, batched, genesis, policy_set, registration, signed},
};

#[path = "../../../tlog/fuzz/driver/mod.rs"]
mod driver;

const GOLDEN: &str = "src/admission/golden/admitted-batch-1.hex";

fn admitted(envelopes: &[v1::Envelope], trust: &RwLock<trust::TrustState>) -> AdmittedBatch {
    let (_, ledger_id, _) = genesis();
    let (batch, rejected) = Admission {
        ledger_id,
        trust,
        sender: &Sender::anybody(),
        received_at: Micros::new(1_700_000_000_000_000),
        holds_contents: false,
        log_signers: None,
    }
    .admit_here(envelopes);
    assert_eq!(rejected, []);
    batch
}

/// Returns evidence policies under the default schema without its comments, which may change.
fn policies() -> v1::PolicySet {
    let lines = DEFAULT_SCHEMA.lines().filter(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("//")
    });
    let schema: String = lines.map(|line| format!("{line}\n")).collect();
    let set = policy_set("permit (principal, action, resource);");
    v1::PolicySet {
        digest: policy::digest(&set.policies, &schema).to_vec().into(),
        schema,
        ..set
    }
}

/// Returns a batch with one of everything, and the ledger that it is for.
fn everything() -> (AdmittedBatch, LedgerId) {
    batch_with(Body::PolicySet(policies()))
}

/// Returns the same without policies, which take long to compile.
fn nearly_everything() -> (AdmittedBatch, LedgerId) {
    batch_with(Body::PrincipalBound(v1::PrincipalBound {
        principal: "bob".to_owned(),
        producer: "spiffe://example.org/unsigned".to_owned(),
        ..v1::PrincipalBound::default()
    }))
}

fn batch_with(body: Body) -> (AdmittedBatch, LedgerId) {
    let (_, id, trust) = genesis();
    let key = SigningKey::from_seed(&[3; 32]);
    let mut producer = Producer::new(id, 1);
    let known = registration(id, &key, &producer.producer);
    let mut authority = Authority::new(id);
    let registered = authority.says(Body::KeyRegistered(known.clone()));
    let statement = TrustStatement::parse(&registered.payload).unwrap().unwrap();
    let hash = leaf_hash(b"its entry");
    let leaf = deed_tlog::LeafIndex::new(1);
    trust.write().apply(&statement, Micros::new(1), leaf, hash);
    let mut other = Producer::new(id, 2);
    other.producer = "spiffe://example.org/unsigned".to_owned();
    let mut all = vec![
        other.intent("unsigned"),
        signed(producer.intent("signed"), &key),
        authority.says(body),
        authority.says(Body::KeyRegistered(known)),
    ];
    let members = (0..3).map(|n| producer.intent(&format!("batched {n}")));
    all.extend(batched(members.collect(), &key));
    all.push(other.intent_after_gap(2));
    let mut batch = admitted(&all, &trust);
    batch.principal = Some(("alice".into(), PrincipalHash::of("alice")));
    let digest = |byte| CommitmentDigest::new([byte; 32]);
    batch.set_references(vec![(0, digest(1)), (0, digest(2)), (5, digest(3))]);
    batch.set_erased(vec![(1, digest(4), 7), (5, digest(5), 8)]);
    let reference = |leaf, task| Reference {
        leaf: deed_tlog::LeafIndex::new(leaf),
        recorded_at: Micros::new(9),
        task,
    };
    batch.set_erasable(vec![
        Erasable {
            content: digest(6),
            state: ContentStatus::Held,
            references: vec![reference(3, None), reference(4, Some(TaskId::new([8; 16])))],
        },
        Erasable {
            content: digest(7),
            state: ContentStatus::Erased(300),
            references: Vec::new(),
        },
        Erasable {
            content: digest(8),
            state: ContentStatus::Unknown,
            references: Vec::new(),
        },
    ]);
    (batch, id)
}

/// Returns everything in a batch that the step reads.
fn told(batch: &AdmittedBatch) -> Vec<String> {
    let mut told = vec![format!(
        "{:?} {:?} {:?} {:?}",
        batch.received_at, batch.principal, batch.erased, batch.erasable
    )];
    for piece in batch.pieces() {
        told.push(match piece {
            Piece::Single(_, trust) => format!("{trust:?}"),
            Piece::Batch(group) => format!("{:?} {}", group.step, group.members.len()),
        });
        told.extend(piece.payloads().map(|one| {
            format!(
                "{} {} {:?} {:?} {} {}",
                one.envelope,
                one.leaf_hash,
                one.authorship,
                one.principal_leaf,
                hex::encode(batch.entry(one)),
                hex::encode(batch.payload(one)),
            )
        }));
        told.extend(piece.statements().iter().map(|one| {
            format!(
                "{:?} {:?} {:?} {:?} {:?}",
                one.payload_digest,
                one.said,
                batch.header(one),
                batch.binding(one),
                batch.references(one),
            )
        }));
    }
    told
}

/// The encoding never changes: a change here is another version.
#[test]
fn golden_batch() {
    let (batch, id) = everything();
    let bytes = batch.encode().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    let golden = fs::read_to_string(golden).unwrap();
    assert_eq!(hex::encode(&bytes), golden.trim_end());
    let decoded = AdmittedBatch::decode(&bytes, id).unwrap();
    assert_eq!(told(&decoded), told(&batch));
    assert_eq!(decoded.encode().unwrap(), bytes);
    assert!(decoded.gate.is_none());
}

#[test]
fn nothing_but_a_batch_is_read() {
    let (batch, id) = nearly_everything();
    let bytes = batch.encode().unwrap();
    let refused = |bytes: &[u8], id| AdmittedBatch::decode(bytes, id).unwrap_err();
    for end in 0..bytes.len() {
        refused(&bytes[..end], id);
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(refused(&longer, id), DecodeError::Trailing { found: 1 });
    for version in [0, 2, 255] {
        let mut other = bytes.clone();
        other[0] = version;
        assert_eq!(refused(&other, id), DecodeError::Version { found: version });
    }
    let other_ledger = LedgerId::new(leaf_hash(b"another genesis"));
    assert!(matches!(
        refused(&bytes, other_ledger),
        DecodeError::Statement { position: 0, .. }
    ));
    let huge = vec![0; encoding::ENCODED_BYTES_MAX + 1];
    assert!(matches!(refused(&huge, id), DecodeError::TooLarge { .. }));
    // Counts of more than there can be are no reason to allocate.
    let mut count = vec![1];
    count.extend([0; 9]);
    count.extend(u32::MAX.to_be_bytes());
    assert_eq!(refused(&count, id), DecodeError::Truncated);
    // A changed byte is refused, or is another batch with these very bytes.
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        if let Ok(batch) = AdmittedBatch::decode(&changed, id) {
            assert_eq!(batch.encode().unwrap(), changed, "byte {at}");
        }
    }
}

#[test]
fn what_admission_promises_is_asked_for() {
    let (_, id, trust) = genesis();
    let mut producer = Producer::new(id, 1);
    let [first, second] = ["a", "b"].map(|resource| producer.intent(resource));
    let words = |change: &dyn Fn(&mut AdmittedBatch)| {
        let mut batch = admitted(&[first.clone(), second.clone()], &trust);
        change(&mut batch);
        let error = AdmittedBatch::decode(&batch.encode().unwrap(), id);
        error.unwrap_err().to_string()
    };
    let order = words(&|batch| batch.pieces.swap(0, 1));
    assert!(order.contains("ascending order"), "{order}");
    let time = words(&|batch| batch.received_at = Micros::new(1));
    assert!(time.contains("receive time"), "{time}");
    let envelope = words(&|batch| match &mut batch.pieces[1] {
        Piece::Single(statement, _) => statement.written.envelope = ENVELOPES_MAX,
        other => panic!("{other:?}"),
    });
    assert!(envelope.contains("no such envelope"), "{envelope}");
    // A manifest with one statement too few, and its statements without it.
    let (mut short, _) = nearly_everything();
    let mut all = short.pieces.iter();
    let at = all.position(|one| matches!(one, Piece::Batch(_))).unwrap();
    short.pieces.truncate(at + 1);
    let (mut without, _) = nearly_everything();
    if let Piece::Batch(group) = &mut short.pieces[at] {
        drop(group.members.pop());
    }
    if let Piece::Batch(group) = without.pieces.remove(at) {
        let members = group.members.into_iter();
        let singles = members.map(|member| Piece::Single(member, None));
        drop(without.pieces.splice(at..at, singles));
    }
    for (batch, words) in [
        (short, "2 statements follow it of 3"),
        (without, "its author is not known as its place demands"),
    ] {
        let error = AdmittedBatch::decode(&batch.encode().unwrap(), id).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_name_or_batch_that_is_too_long_has_no_encoding() {
    let (mut batch, _) = nearly_everything();
    let digest = CommitmentDigest::new([1; 32]);
    batch.set_erased(vec![(0, digest, 1); encoding::ENCODED_BYTES_MAX / 42 + 1]);
    assert!(
        batch
            .encode()
            .unwrap_err()
            .to_string()
            .contains("more than 8388608")
    );
    batch.set_erased(Vec::new());
    let name = "x".repeat(1 << 16);
    batch.principal = Some((name.as_str().into(), PrincipalHash::of(&name)));
    assert!(
        batch
            .encode()
            .unwrap_err()
            .to_string()
            .contains("65536 bytes")
    );
}

#[test]
fn the_fuzz_target_has_seeds_and_survives_mutations() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let targets = [(
        "admitted_batch",
        crate::bench::fuzz_admitted_batch as driver::Body,
        driver::MANY,
    )];
    driver::run_all(
        &fuzz,
        &targets,
        b"\x00\x01\x02\x08\x0a\x12\x1a\x20\x7f\x80\xff",
    );
}
