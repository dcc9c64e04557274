//! A receipt holds for what was sent, where it says, and for nothing else.

use deed_evidence::{
    Micros, Problem, WireError,
    entry::{self, Entry, EntryError, KeyedSignature, TrustLink},
    receipt::{self, ReceiptError, Sent, VerifiedReceipt, consistency_proof, inclusion_proof},
    statement,
};
use deed_proto::v1;
use deed_tlog::{Hash, LeafIndex, TreeHead, TreeSize, VerifyError, leaf_hash, node_hash};
use proptest::prelude::*;

use crate::fixtures::TIME_US;

const PAYLOAD: &[u8] = b"what was sent";

/// For what was sent unsigned.
fn verify(
    receipt: &v1::Receipt,
    payload: &[u8],
    head: &TreeHead,
    proof_wanted: bool,
) -> Result<VerifiedReceipt, ReceiptError> {
    receipt::verify(receipt, &Sent::unsigned(payload), head, proof_wanted)
}

/// RFC 6962 section 2.1: the root of these leaves.
pub(crate) fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => deed_tlog::EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root(left), &root(right))
        }
    }
}

/// RFC 6962 section 2.1.1: the audit path of a leaf.
pub(crate) fn path(at: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let middle = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) = if at < middle {
        (path(at, left), root(right))
    } else {
        (path(at - middle, right), root(left))
    };
    path.push(sibling);
    path
}

/// An honest server's answer: the statement is leaf `at` of `size`.
fn honest(at: usize, size: usize, principal_leaf: Option<u64>) -> (v1::Receipt, TreeHead) {
    let entry = Entry {
        principal_leaf,
        ..Entry::unsigned(PAYLOAD, Micros::new(TIME_US))
    };
    let own = leaf_hash(&entry.encode());
    let leaves: Vec<_> = (0..size)
        .map(|leaf| {
            if leaf == at {
                own
            } else {
                leaf_hash(&leaf.to_be_bytes())
            }
        })
        .collect();
    let hash = |hash: &Hash| hash.as_bytes().to_vec().into();
    let receipt = v1::Receipt {
        leaf_index: at as u64,
        leaf_hash: hash(&own),
        received_at_us: TIME_US,
        principal_leaf,
        inclusion_proof: path(at, &leaves).iter().map(hash).collect(),
        previous_trust: None,
        assessed: None,
    };
    (
        receipt,
        TreeHead::new(TreeSize::new(size as u64), root(&leaves)),
    )
}

#[test]
fn an_honest_receipt_holds() {
    for size in 1..=20 {
        for at in 0..size {
            for principal_leaf in [None, Some(0), Some(3)] {
                let (mut receipt, head) = honest(at, size, principal_leaf);
                let wanted = VerifiedReceipt {
                    leaf_index: LeafIndex::new(at as u64),
                    leaf_hash: Hash::try_from(&receipt.leaf_hash[..]).unwrap(),
                    received_at: Micros::new(TIME_US),
                    inclusion_verified: true,
                    principal_leaf: principal_leaf.map(LeafIndex::new),
                };
                assert_eq!(verify(&receipt, PAYLOAD, &head, true), Ok(wanted.clone()));
                // A proof that was not asked for is checked all the same. In a tree of one leaf
                // it is empty, and nobody can tell that it came.
                let inclusion_verified = size > 1;
                let unasked = VerifiedReceipt {
                    inclusion_verified,
                    ..wanted.clone()
                };
                assert_eq!(verify(&receipt, PAYLOAD, &head, false), Ok(unasked));

                receipt.inclusion_proof.clear();
                let without = VerifiedReceipt {
                    inclusion_verified: false,
                    ..wanted
                };
                assert_eq!(verify(&receipt, PAYLOAD, &head, false), Ok(without));
            }
        }
    }
}

#[test]
fn every_error() {
    let (good, head) = honest(2, 7, Some(1));
    let index = LeafIndex::new(2);
    let refused =
        |receipt: &v1::Receipt, head: &TreeHead| verify(receipt, PAYLOAD, head, true).unwrap_err();
    let other_entry = |receipt: &v1::Receipt, payload: &[u8]| {
        let error = verify(receipt, payload, &head, true).unwrap_err();
        assert!(matches!(error, ReceiptError::OtherEntry { .. }), "{error}");
    };
    other_entry(&good, b"what was not sent");
    other_entry(
        &v1::Receipt {
            received_at_us: TIME_US + 1,
            ..good.clone()
        },
        PAYLOAD,
    );
    other_entry(
        &v1::Receipt {
            principal_leaf: None,
            ..good.clone()
        },
        PAYLOAD,
    );
    other_entry(
        &v1::Receipt {
            principal_leaf: Some(2),
            ..good.clone()
        },
        PAYLOAD,
    );
    other_entry(
        &v1::Receipt {
            leaf_hash: good.leaf_hash.slice(..31),
            ..good.clone()
        },
        PAYLOAD,
    );
    other_entry(
        &v1::Receipt {
            leaf_hash: Vec::new().into(),
            ..good.clone()
        },
        PAYLOAD,
    );

    // The right hash with something behind it, as long as a message may be.
    let mut long = good.leaf_hash.to_vec();
    long.resize(1 << 20, 0);
    match refused(
        &v1::Receipt {
            leaf_hash: long.into(),
            ..good.clone()
        },
        &head,
    ) {
        ReceiptError::OtherEntry { claimed, computed } => {
            assert_eq!(
                claimed,
                format!("{}... (1048576 bytes)", hex::encode(computed.as_bytes()))
            );
        }
        other => panic!("{other}"),
    }

    // An entry as hashed, but of a time that no reader of the log accepts.
    for (received_at_us, problem) in [
        (0, Problem::Missing),
        (-1, Problem::Range { value: u64::MAX }),
    ] {
        let entry = Entry::unsigned(PAYLOAD, Micros::new(received_at_us)).encode();
        let hash = leaf_hash(&entry);
        let receipt = v1::Receipt {
            leaf_index: 0,
            leaf_hash: hash.as_bytes().to_vec().into(),
            received_at_us,
            ..v1::Receipt::default()
        };
        let error = WireError {
            field: "received_at_us".into(),
            problem,
        };
        let wanted = ReceiptError::Entry(EntryError::Malformed(error));
        assert_eq!(
            refused(&receipt, &TreeHead::new(TreeSize::new(1), hash)),
            wanted
        );
    }

    for size in [0, 1, 2] {
        let small = TreeHead::new(TreeSize::new(size), head.root);
        assert_eq!(
            refused(&good, &small),
            ReceiptError::NotCovered { index, size }
        );
    }
    let far = v1::Receipt {
        leaf_index: u64::MAX,
        ..good.clone()
    };
    let wanted = ReceiptError::NotCovered {
        index: LeafIndex::new(u64::MAX),
        size: 7,
    };
    assert_eq!(refused(&far, &head), wanted);
    let largest = TreeHead::new(TreeSize::new(u64::MAX), head.root);
    assert!(matches!(
        refused(&far, &largest),
        ReceiptError::NotCovered { .. }
    ));

    let mut without = good.clone();
    without.inclusion_proof.clear();
    assert_eq!(
        refused(&without, &head),
        ReceiptError::ProofMissing { index }
    );

    let mut short = good.clone();
    short.inclusion_proof[1] = short.inclusion_proof[1].slice(..31);
    assert_eq!(refused(&short, &head), ReceiptError::MalformedProof);
    let mut many = good.clone();
    many.inclusion_proof.resize(65, good.leaf_hash.clone());
    assert_eq!(refused(&many, &head), ReceiptError::MalformedProof);

    let source = |error| match error {
        ReceiptError::Inclusion { index: at, source } if at == index => source,
        other => panic!("{other}"),
    };
    let other_root = TreeHead::new(head.size, deed_tlog::EMPTY_ROOT);
    assert!(matches!(
        source(refused(&good, &other_root)),
        VerifyError::RootMismatch { .. }
    ));
    let mut dropped = good;
    dropped.inclusion_proof.pop();
    assert!(matches!(
        source(refused(&dropped, &head)),
        VerifyError::ProofLength { .. }
    ));
}

#[test]
fn proofs_as_they_travel() {
    let hashes = |count: usize| vec![[7_u8; 32]; count];
    assert_eq!(inclusion_proof(&hashes(64)).unwrap().hashes().len(), 64);
    assert_eq!(
        inclusion_proof(&hashes(65)),
        Err(ReceiptError::MalformedProof)
    );
    assert_eq!(consistency_proof(&hashes(65)).unwrap().hashes().len(), 65);
    assert_eq!(
        consistency_proof(&hashes(66)),
        Err(ReceiptError::MalformedProof)
    );
    assert_eq!(
        consistency_proof(&[[1_u8; 31]]),
        Err(ReceiptError::MalformedProof)
    );
    assert_eq!(
        inclusion_proof(&[[1_u8; 33]]),
        Err(ReceiptError::MalformedProof)
    );
    assert!(inclusion_proof(&hashes(0)).unwrap().hashes().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// One bit of anything that the receipt says, of the payload, or of the head.
    #[test]
    fn no_bit_may_change(
        size in 2..40_usize,
        at in any::<prop::sample::Index>(),
        principal_leaf in prop::option::of(any::<u64>()),
        part in 0..8_u8,
        bit in any::<prop::sample::Index>(),
    ) {
        let (mut receipt, mut head) = honest(at.index(size), size, principal_leaf);
        let mut payload = PAYLOAD.to_vec();
        let flip = |bytes: &mut [u8]| {
            let bit = bit.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
        };
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            flip(&mut bytes);
            bytes
        };
        match part {
            0 => receipt.leaf_index ^= 1 << bit.index(64),
            1 => receipt.leaf_hash = flipped(&receipt.leaf_hash).into(),
            2 => receipt.received_at_us ^= 1 << bit.index(64),
            3 => receipt.principal_leaf = match principal_leaf {
                None => Some(bit.index(64) as u64),
                Some(leaf) => Some(leaf ^ 1 << bit.index(64)),
            },
            4 => {
                let hash = bit.index(receipt.inclusion_proof.len());
                let proof = &mut receipt.inclusion_proof[hash];
                *proof = flipped(proof).into();
            }
            5 => flip(&mut payload),
            6 => head.root = Hash::try_from(&flipped(head.root.as_bytes())[..]).unwrap(),
            _ => {
                let hash = bit.index(receipt.inclusion_proof.len());
                receipt.inclusion_proof.remove(hash);
            }
        }
        prop_assert!(verify(&receipt, &payload, &head, true).is_err());
    }
}

/// Every way of sending: its receipt holds for that one, and for none of the others.
#[test]
fn a_receipt_is_of_the_form_that_was_sent() {
    let statement = statement::encode(&crate::fixtures::intent()).unwrap();
    let trust = statement::encode(&crate::fixtures::key_revoked()).unwrap();
    let (one, two) = (
        KeyedSignature {
            key_id: &[1; 16],
            signature: &[3; 64],
        },
        KeyedSignature {
            key_id: &[2; 16],
            signature: &[3; 64],
        },
    );
    let three = KeyedSignature {
        signature: &[4; 64],
        ..one
    };
    let time = Micros::new(TIME_US);
    let link = TrustLink {
        leaf_index: LeafIndex::new(5),
        leaf_hash: Hash::new([6; 32]),
    };
    let forms = [
        (
            Sent::unsigned(&statement),
            Entry::unsigned(&statement, time),
        ),
        (Sent::batched(&statement), Entry::batched(&statement, time)),
        (
            Sent::signed(&statement, one),
            Entry::signed(&statement, one, time),
        ),
        (
            Sent::signed(&statement, two),
            Entry::signed(&statement, two, time),
        ),
        (
            Sent::signed(&statement, three),
            Entry::signed(&statement, three, time),
        ),
        (
            Sent::manifest(&statement, one),
            Entry::manifest(&statement, one, time),
        ),
        (
            Sent::signed(&trust, one),
            Entry::trust(&trust, one, time, link),
        ),
    ];
    for (at, (_, entry)) in forms.iter().enumerate() {
        let hash = entry::hash(entry);
        let receipt = v1::Receipt {
            leaf_hash: hash.as_bytes().to_vec().into(),
            received_at_us: TIME_US,
            previous_trust: entry.previous_trust.map(|link| link.to_message()),
            ..v1::Receipt::default()
        };
        let head = TreeHead::new(TreeSize::new(1), hash);
        for (other, (sent, _)) in forms.iter().enumerate() {
            let verified = receipt::verify(&receipt, sent, &head, true);
            assert_eq!(verified.is_ok(), at == other, "{at} {other}: {verified:?}");
        }
    }

    // A ledger that links what is no trust statement, or does not link what is: the hash is of
    // that very entry, and the entry is one that no reader of the log accepts.
    let wrong = [
        (
            Sent::signed(&statement, one),
            Entry::trust(&statement, one, time, link),
        ),
        (Sent::signed(&trust, one), Entry::signed(&trust, one, time)),
        (
            Sent::manifest(&statement, one),
            Entry {
                previous_trust: Some(link),
                ..Entry::manifest(&statement, one, time)
            },
        ),
    ];
    for (at, (sent, entry)) in wrong.into_iter().enumerate() {
        let hash = entry::hash(&entry);
        let mut receipt = v1::Receipt {
            leaf_hash: hash.as_bytes().to_vec().into(),
            received_at_us: TIME_US,
            previous_trust: entry.previous_trust.map(|link| link.to_message()),
            ..v1::Receipt::default()
        };
        let head = TreeHead::new(TreeSize::new(1), hash);
        let refused = receipt::verify(&receipt, &sent, &head, true).unwrap_err();
        let ReceiptError::Entry(EntryError::Malformed(error)) = refused else {
            panic!("{at}: {refused}");
        };
        assert_eq!(error.field, "previous_trust", "{at}");
        if let Some(link) = &mut receipt.previous_trust {
            link.leaf_hash = link.leaf_hash.slice(..31);
            let refused = receipt::verify(&receipt, &sent, &head, true).unwrap_err();
            assert!(matches!(refused, ReceiptError::Entry(_)), "{at}: {refused}");
        }
    }
}
