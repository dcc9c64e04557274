//! Batches: what a manifest covers, what it refuses, and the path from a statement to its
//! signature.

use bytes::Bytes;
use deed_evidence::{
    LedgerId, PayloadDigest, Problem, Sequence, SessionId, WireError,
    batch::{BatchError, Manifest, PathError, VerifiedPath, check, signer, verify_path},
    entry::{Entry, KeyedSignature},
    session::BatchStep,
    signature::{self, SignatureError},
    statement::{self, Header},
};
use deed_proto::v1::{self, PayloadType, statement::Body};
use deed_tlog::{BatchCount, BatchPosition, BatchTree, Hash, LeafIndex, TreeHead, leaf_hash};
use proptest::prelude::*;
use prost::Message as _;

use crate::{
    fixtures::{self, LEDGER, TIME_US, signing_key},
    fuzz,
    mutations::any_mutation,
    receipts::{path, root},
};

const TIME: deed_evidence::Micros = deed_evidence::Micros::new(TIME_US);

/// Heartbeats of one session from `first` on; the last one may be another statement.
fn payloads(first: u64, count: usize, last: Option<v1::Statement>) -> Vec<Bytes> {
    let mut made: Vec<_> = (0..count as u64)
        .map(|position| heartbeat(first + position))
        .collect();
    if let (Some(place), Some(last)) = (made.last_mut(), last) {
        *place = last;
    }
    made.iter()
        .map(|made| statement::encode(made).unwrap())
        .collect()
}

fn heartbeat(sequence: u64) -> v1::Statement {
    let mut made = fixtures::heartbeat();
    (made.sequence, made.skipped_from) = (sequence, None);
    made.previous = Bytes::new();
    if let Some(Body::Heartbeat(beat)) = &mut made.body {
        (beat.last_sequence, beat.count) = (sequence, 1);
    }
    made
}

fn closed(sequence: u64) -> v1::Statement {
    let mut made = heartbeat(sequence);
    made.body = Some(Body::SessionClosed(v1::SessionClosed {
        last_sequence: sequence,
        count: 1,
    }));
    made
}

fn headers<'a>(payloads: &'a [Bytes]) -> Vec<(Header<'a>, &'a [u8])> {
    let parse = |payload: &'a Bytes| (statement::parse(payload).unwrap(), &payload[..]);
    payloads.iter().map(parse).collect()
}

#[test]
fn what_a_producer_makes_a_ledger_takes() {
    for count in [1, 2, 3, 7, 8, 100, 4096] {
        let first = if count == 7 { u64::MAX - 6 } else { 5 };
        for closes in [false, true] {
            let last = first + (count as u64 - 1);
            let last = closes.then(|| closed(last));
            let payloads = payloads(first, count, last);
            let manifest = Manifest::over(&payloads).unwrap();
            assert_eq!(Manifest::parse(&manifest.encode()), Ok(manifest.clone()));
            assert_eq!(manifest.head(), BatchTree::new(&payloads).unwrap().head());
            let wanted = BatchStep {
                first_sequence: Sequence::new(first),
                count: BatchCount::new(count).unwrap(),
                last_payload: PayloadDigest::of(&payloads[count - 1]),
                closed: closes,
            };
            assert_eq!(check(&manifest, headers(&payloads)), Ok(wanted));
        }
    }
    let chained = fixtures::batch_payloads();
    check(&fixtures::manifest(), headers(&chained)).unwrap();
}

/// One row for each way in which statements do not fit their manifest.
#[test]
fn every_misfit_is_refused() {
    let good = payloads(5, 4, None);
    let manifest = Manifest::over(&good).unwrap();
    let with = |position: usize, change: &dyn Fn(&mut v1::Statement)| {
        let mut payloads = good.clone();
        let mut made = v1::Statement::decode(&payloads[position][..]).unwrap();
        change(&mut made);
        payloads[position] = statement::encode(&made).unwrap();
        payloads
    };
    let other = |position, field| BatchError::Other { position, field };
    let sequence = |position, found, wanted| BatchError::Sequence {
        position,
        found: Sequence::new(found),
        wanted,
    };
    let count = |found| BatchError::Count {
        found,
        wanted: manifest.count,
    };
    let swapped = vec![
        good[0].clone(),
        good[2].clone(),
        good[1].clone(),
        good[3].clone(),
    ];
    let longer = payloads(5, 5, None);
    let trust = statement::encode(&v1::Statement {
        sequence: 6,
        skipped_from: None,
        ..fixtures::retention_set()
    })
    .unwrap();
    let mut with_trust = good.clone();
    with_trust[1] = trust;
    let wrong_previous = with(2, &|made| made.previous = vec![9; 32].into());
    let rows: Vec<(&str, Vec<Bytes>, BatchError)> = vec![
        ("none", vec![], count(0)),
        ("one missing", good[..3].to_vec(), count(3)),
        ("one too many", longer.clone(), count(5)),
        ("the first missing", good[1..].to_vec(), sequence(0, 6, 5)),
        ("two swapped", swapped, sequence(1, 7, 6)),
        (
            "another ledger's",
            with(3, &|made| made.ledger_id = vec![1; 32].into()),
            other(3, "ledger_id"),
        ),
        (
            "another producer's",
            with(1, &|made| made.producer.push('x')),
            other(1, "producer"),
        ),
        ("a trust statement", with_trust, other(1, "producer")),
        (
            "another session's",
            with(2, &|made| made.session = vec![1; 16].into()),
            other(2, "session"),
        ),
        (
            "a hole inside",
            with(2, &|made| made.skipped_from = Some(5)),
            BatchError::Skipped { position: 2 },
        ),
        (
            "a previous that is not",
            wrong_previous,
            BatchError::Previous { position: 2 },
        ),
        (
            "something after the end",
            with(1, &|made| made.body = closed(6).body),
            BatchError::ClosedEarly { position: 1 },
        ),
    ];
    for (case, payloads, wanted) in rows {
        assert_eq!(check(&manifest, headers(&payloads)), Err(wanted), "{case}");
    }

    // Other bytes at the right places: spliced from another batch of the same session.
    let spliced = with(2, &|made| made.occurred_at_us += 1);
    let wanted = BatchError::Root {
        found: BatchTree::new(&spliced).unwrap().head().root,
        wanted: manifest.root,
    };
    assert_eq!(check(&manifest, headers(&spliced)), Err(wanted));

    // The first one may own up to a hole, and name what came before the batch.
    let first = with(0, &|made| {
        (made.skipped_from, made.previous) = (Some(1), vec![9; 32].into());
    });
    let manifest = Manifest::over(&first).unwrap();
    check(&manifest, headers(&first)).unwrap();
}

#[test]
fn a_producer_is_told_what_does_not_make_a_batch() {
    let none: [Bytes; 0] = [];
    let refused = Manifest::over(&none).unwrap_err();
    assert_eq!(refused, BatchError::Size { found: 0 });
    let refused = Manifest::over(&payloads(0, 4097, None)).unwrap_err();
    assert_eq!(refused, BatchError::Size { found: 4097 });
    let mut broken = payloads(0, 3, None);
    broken[1] = Bytes::from_static(b"p");
    let refused = Manifest::over(&broken).unwrap_err();
    assert!(matches!(refused, BatchError::Statement { position: 1, .. }));
    let trust = statement::encode(&fixtures::retention_set()).unwrap();
    let body = BatchError::Body {
        position: 0,
        body: "retention_set",
    };
    assert_eq!(Manifest::over(&[trust]), Err(body));
    let genesis = statement::encode(&fixtures::genesis_statement()).unwrap();
    let body = BatchError::Body {
        position: 0,
        body: "genesis",
    };
    assert_eq!(Manifest::over(&[genesis]), Err(body));
}

/// Each rule of a manifest, and what no manifest encodes to.
#[test]
fn each_rule_of_a_manifest_names_its_field() {
    let good = v1::BatchManifest::decode(fixtures::manifest().encode()).unwrap();
    let with = |change: &dyn Fn(&mut v1::BatchManifest)| {
        let mut made = good.clone();
        change(&mut made);
        made.encode_to_vec()
    };
    let length = |found, exactly| Problem::Length {
        found,
        min: exactly,
        max: exactly,
    };
    let uri = Problem::Rule("must be a URI, for example spiffe://example.org/agent");
    let authority = Problem::Rule("must not be deed:authority: what it says is signed one by one");
    let ledger = Problem::Rule("must not be deed:ledger: the ledger signs nothing but tree heads");
    let room = Problem::Rule("leaves no room for so many statements");
    let bytes = good.encode_to_vec();
    let front = |more: &[u8]| [more, &bytes].concat();
    let back = |more: &[u8]| [&bytes, more].concat();
    // The count, 28 03, stands before the root.
    let count_at = bytes.len() - 36;
    assert_eq!(bytes[count_at..count_at + 2], [0x28, 3]);
    let count = |written: &[u8]| [&bytes[..count_at], written, &bytes[count_at + 2..]].concat();
    let rows: Vec<(Vec<u8>, &str, Problem)> = vec![
        (
            with(&|m| m.ledger_id.clear()),
            "ledger_id",
            Problem::Missing,
        ),
        (
            with(&|m| m.ledger_id = vec![1; 31].into()),
            "ledger_id",
            length(31, 32),
        ),
        (with(&|m| m.producer.clear()), "producer", Problem::Missing),
        (with(&|m| m.producer = "agent".into()), "producer", uri),
        (
            with(&|m| m.producer = "deed:authority".into()),
            "producer",
            authority,
        ),
        (
            with(&|m| m.producer = "deed:ledger".into()),
            "producer",
            ledger,
        ),
        (with(&|m| m.session.clear()), "session", Problem::Missing),
        (
            with(&|m| m.session = vec![1; 17].into()),
            "session",
            length(17, 16),
        ),
        (with(&|m| m.count = 0), "count", Problem::Missing),
        (
            with(&|m| m.count = 4097),
            "count",
            Problem::Range { value: 4097 },
        ),
        (
            with(&|m| m.count = u32::MAX),
            "count",
            Problem::Range {
                value: u64::from(u32::MAX),
            },
        ),
        (
            with(&|m| m.first_sequence = u64::MAX - 1),
            "first_sequence",
            room,
        ),
        (with(&|m| m.root.clear()), "root", Problem::Missing),
        (
            with(&|m| m.root = vec![1; 33].into()),
            "root",
            length(33, 32),
        ),
        // Encodings: order, twice, unknown, overlong, defaults, cut off, the wrong type.
        (front(&[0x28, 3]), "ledger_id", Problem::Missing),
        (count(&[0x28, 3, 0x20, 7]), "message", Problem::Order),
        (back(&bytes[count_at + 2..]), "root", Problem::Order),
        (
            back(&[0x38, 1]),
            "message",
            Problem::UnknownField { number: 7 },
        ),
        (
            front(&[0x08, 1]),
            "ledger_id",
            Problem::WireType {
                found: 0,
                wanted: 2,
            },
        ),
        (count(&[0x28, 0x83, 0]), "count", Problem::Varint),
        (count(&[0xa8, 0, 3]), "message", Problem::Varint),
        (count(&[0x28, 0]), "count", Problem::DefaultWritten),
        (count(&[0x20, 0, 0x28, 3]), "first_sequence", Problem::Order),
        (
            bytes[..bytes.len() - 1].to_vec(),
            "root",
            Problem::CutOff {
                wanted: 32,
                have: 31,
            },
        ),
        (
            Vec::new(),
            "payload",
            Problem::Length {
                found: 0,
                min: 1,
                max: 60_000,
            },
        ),
    ];
    for (bytes, field, problem) in rows {
        let wanted = WireError {
            field: field.into(),
            problem,
        };
        assert_eq!(Manifest::parse(&bytes), Err(wanted), "{bytes:02x?}");
        fuzz::manifest::check(&bytes).unwrap_err();
    }
    assert!(fuzz::manifest::check(&bytes).is_ok());
    let last = with(&|m| m.first_sequence = u64::MAX - 2);
    assert!(fuzz::manifest::check(&last).is_ok());
    let most = with(&|m| (m.first_sequence, m.count) = (0, 4096));
    assert!(fuzz::manifest::check(&most).is_ok());
}

#[test]
fn a_manifest_is_no_statement_nor_the_other_way_round() {
    assert!(statement::parse(&fixtures::manifest().encode()).is_err());
    for (name, made) in fixtures::all() {
        assert!(Manifest::parse(&made.encode_to_vec()).is_err(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn a_changed_manifest_is_canonical_or_refused(
        changes in prop::collection::vec(any_mutation(), 1..3),
    ) {
        let bytes = fixtures::manifest().encode().to_vec();
        let changed = changes.iter().fold(bytes, |bytes, change| change.apply(&bytes));
        fuzz::manifest::check(&changed).ok();
    }
}

/// An honest answer about statement `position` of a batch that lies at leaf 3 of 12.
fn honest(position: u32) -> (v1::GetBatchProofResponse, TreeHead) {
    let payloads = fixtures::batch_payloads();
    let manifest = fixtures::manifest().encode();
    let key = signing_key(5);
    let signed = signature::sign(&key, PayloadType::BatchManifest, &manifest);
    let key_id = signature::key_id(key.public_key());
    let keyed = KeyedSignature {
        key_id: key_id.as_bytes(),
        signature: &signed,
    };
    let mut leaves: Vec<Hash> = (0..12_u8).map(|leaf| leaf_hash(&[leaf])).collect();
    let manifest_entry = Entry::manifest(&manifest, keyed, TIME).encode();
    leaves[3] = leaf_hash(&manifest_entry);
    for (at, payload) in payloads.iter().enumerate() {
        leaves[4 + at] = leaf_hash(&Entry::batched(payload, TIME).encode());
    }
    let hashes = |hashes: &[Hash]| {
        hashes
            .iter()
            .map(|h| h.as_bytes().to_vec().into())
            .collect()
    };
    let at = 4 + position as usize;
    let tree = BatchTree::new(&payloads).unwrap();
    let batch_path = tree.prove(BatchPosition::new(position)).unwrap();
    let proof = v1::GetBatchProofResponse {
        manifest_index: 3,
        position,
        manifest_entry,
        statement_entry: Entry::batched(&payloads[position as usize], TIME).encode(),
        batch_path: hashes(batch_path.hashes()),
        manifest_inclusion: hashes(&path(3, &leaves)),
        statement_inclusion: hashes(&path(at, &leaves)),
        checkpoint: Bytes::new(),
    };
    (proof, TreeHead::new(12.into(), root(&leaves)))
}

#[test]
fn a_statement_is_followed_to_its_signature() {
    let key = signing_key(5);
    for position in 0..3 {
        let (proof, head) = honest(position);
        let key_id = signature::key_id(key.public_key());
        assert_eq!(signer(&proof).unwrap(), key_id);
        let wanted = VerifiedPath {
            manifest: fixtures::manifest(),
            key_id,
            manifest_index: LeafIndex::new(3),
            statement_index: LeafIndex::new(4 + u64::from(position)),
            statement_hash: leaf_hash(&proof.statement_entry),
            position: BatchPosition::new(position),
        };
        let verified = verify_path(&proof, LEDGER, key.public_key(), &head);
        assert_eq!(verified.unwrap(), wanted);
    }
}

#[test]
fn every_error_of_a_path() {
    let (good, head) = honest(1);
    let key = signing_key(5);
    let refused = |change: &dyn Fn(&mut v1::GetBatchProofResponse)| {
        let mut proof = good.clone();
        change(&mut proof);
        verify_path(&proof, LEDGER, key.public_key(), &head).unwrap_err()
    };
    macro_rules! row {
        ($change:expr, $wanted:pat) => {
            let error = refused(&$change);
            assert!(matches!(error, $wanted), "{error:?}");
        };
    }
    let statement = good.statement_entry.clone();
    row!(
        |p| p.manifest_entry.clear(),
        PathError::Entry {
            which: "manifest",
            ..
        }
    );
    row!(
        |p| p.statement_entry.clear(),
        PathError::Entry {
            which: "statement",
            ..
        }
    );
    row!(
        |p| p.manifest_entry = statement.clone(),
        PathError::NotManifest
    );
    row!(
        |p| p.statement_entry = p.manifest_entry.clone(),
        PathError::NotBatched
    );
    // The very payload, but with an author of its own, and without any.
    let payload = fixtures::batch_payloads()[1].clone();
    row!(
        |p| p.statement_entry = Entry::unsigned(&payload, TIME).encode(),
        PathError::NotBatched
    );
    row!(
        |p| p.statement_entry = Entry::batched(b"p", TIME).encode(),
        PathError::Payload {
            which: "statement",
            ..
        }
    );
    // Its neighbour at its place, and it at its neighbour's.
    let neighbour = honest(2).0;
    row!(
        |p| p.statement_entry = neighbour.statement_entry.clone(),
        PathError::Batch(BatchError::Sequence { position: 1, .. })
    );
    row!(
        |p| p.position = 2,
        PathError::Batch(BatchError::Sequence { position: 2, .. })
    );
    row!(
        |p| p.position = 3,
        PathError::Path(deed_tlog::BatchError::PositionOutOfRange { .. })
    );
    // Another statement of the same producer, session and sequence: in no batch.
    let mut made = v1::Statement::decode(&payload[..]).unwrap();
    made.occurred_at_us += 1;
    let made = statement::encode(&made).unwrap();
    row!(
        |p| p.statement_entry = Entry::batched(&made, TIME).encode(),
        PathError::Path(deed_tlog::BatchError::RootMismatch { .. })
    );
    row!(
        |p| drop(p.batch_path.pop()),
        PathError::Path(deed_tlog::BatchError::ProofLength { .. })
    );
    row!(
        |p| p.batch_path[0] = vec![0; 31].into(),
        PathError::Malformed
    );
    row!(
        |p| p.batch_path.resize(13, vec![0; 32].into()),
        PathError::Path(deed_tlog::BatchError::ProofLength { .. })
    );
    row!(
        |p| p.manifest_index = 4,
        PathError::Inclusion {
            which: "manifest",
            ..
        }
    );
    row!(|p| p.manifest_index = u64::MAX, PathError::Index { .. });
    row!(
        |p| drop(p.statement_inclusion.pop()),
        PathError::Inclusion {
            which: "statement",
            ..
        }
    );
    row!(
        |p| p.statement_inclusion[0] = vec![0; 32].into(),
        PathError::Inclusion {
            which: "statement",
            ..
        }
    );
    row!(
        |p| p.manifest_inclusion[0] = vec![0; 33].into(),
        PathError::Malformed
    );
    // A signature of another payload.
    let parsed = Entry::parse(&good.manifest_entry).unwrap();
    let other = KeyedSignature {
        key_id: parsed.signature.unwrap().key_id,
        signature: &[1; 64],
    };
    let forged = Entry::manifest(parsed.payload, other, TIME).encode();
    row!(
        |p| p.manifest_entry = forged.clone(),
        PathError::Signature(SignatureError::Mismatch { .. })
    );

    // Another key, another ledger.
    let other = signing_key(6);
    let error = verify_path(&good, LEDGER, other.public_key(), &head).unwrap_err();
    assert!(matches!(error, PathError::OtherKey { .. }), "{error}");
    let elsewhere = LedgerId::new(Hash::new([0x12; 32]));
    let error = verify_path(&good, elsewhere, key.public_key(), &head).unwrap_err();
    assert!(matches!(error, PathError::OtherLedger { .. }), "{error}");
    assert_eq!(fixtures::manifest().session, SessionId::new([0x55; 16]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// One bit of either entry.
    #[test]
    fn no_bit_of_an_entry_may_change(
        position in 0..3_u32,
        manifest in any::<bool>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let (mut proof, head) = honest(position);
        let entry = if manifest { &mut proof.manifest_entry } else { &mut proof.statement_entry };
        let mut bytes = entry.to_vec();
        bytes[at.index(entry.len())] ^= 1 << bit;
        *entry = bytes.into();
        let key = signing_key(5);
        prop_assert!(verify_path(&proof, LEDGER, key.public_key(), &head).is_err());
    }
}
