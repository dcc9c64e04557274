//! Producer batches against the recursive definition.

use deed_tlog::{
    BatchCount, BatchError, BatchHead, BatchPosition, BatchProof, BatchRoot, BatchTree, Hash,
    batch_proof, batch_root, leaf_hash, verify_batch_proof,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::reference::entry;

/// RFC 6962's MTH and PATH with the prefixes of batch trees, over payloads.
fn root(payloads: &[Vec<u8>]) -> Hash {
    let digest = match payloads {
        [] => panic!("a batch is not empty"),
        [payload] => Sha256::new().chain_update([0x10]).chain_update(payload),
        _ => {
            let (left, right) = payloads.split_at(payloads.len().next_power_of_two() / 2);
            Sha256::new()
                .chain_update([0x11])
                .chain_update(root(left))
                .chain_update(root(right))
        }
    };
    Hash::new(digest.finalize().into())
}

fn path(position: usize, payloads: &[Vec<u8>]) -> Vec<Hash> {
    if payloads.len() == 1 {
        return Vec::new();
    }
    let k = payloads.len().next_power_of_two() / 2;
    let (left, right) = payloads.split_at(k);
    let (mut path, sibling) = if position < k {
        (path(position, left), root(right))
    } else {
        (path(position - k, right), root(left))
    };
    path.push(sibling);
    path
}

fn payloads(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(entry).collect()
}

fn at(position: usize) -> BatchPosition {
    BatchPosition::new(position as u32)
}

fn verify(path: &[Hash], payload: &[u8], position: usize, head: &BatchHead) -> bool {
    let proof = BatchProof::from_hashes(path.to_vec());
    proof.is_ok_and(|proof| verify_batch_proof(&proof, payload, at(position), head).is_ok())
}

#[test]
fn golden_batch() {
    let payloads = payloads(5);
    let root = batch_root(&payloads).unwrap();
    assert_eq!(root.to_string(), include_str!("../golden/batch-5.hex"));
    let proof = batch_proof(&payloads, at(2)).unwrap();
    let hex: String = proof.hashes().iter().map(ToString::to_string).collect();
    assert_eq!(hex, include_str!("../golden/batch-5-path-2.hex"));
}

#[test]
fn odd_nodes_are_promoted_as_in_rfc_6962() {
    // Every position of every size up to 100, and sizes around the powers of two.
    let all = payloads(4096);
    let sizes = (1..=100).chain([127, 128, 129, 1000, 4095, 4096]);
    let mut count = 0;
    for size in sizes {
        let tree = BatchTree::new(&all[..size]).unwrap();
        let head = tree.head();
        assert_eq!(head.root, root(&all[..size]), "size {size}");
        let step = if size <= 100 { 1 } else { 61 };
        for position in (0..size).step_by(step).chain([size - 1]) {
            let proof = tree.prove(at(position)).unwrap();
            assert_eq!(
                proof.hashes(),
                path(position, &all[..size]),
                "{position} of {size}"
            );
            verify_batch_proof(&proof, &all[position], at(position), &head).unwrap();
            count += 1;
        }
    }
    assert!(count > 5000);
}

/// The root without a tree is that of rs_merkle's tree, whatever the count's bits.
#[test]
fn a_root_takes_no_tree() {
    let counts = (1..=300).chain([511, 512, 513, 1023, 1025, 2047, 3000, 4095, 4096]);
    for count in counts {
        let payloads = payloads(count);
        let mut root = BatchRoot::new();
        for payload in &payloads {
            root.push(payload).unwrap();
        }
        let head = BatchTree::new(&payloads).unwrap().head();
        assert_eq!(root.finish(), Ok(head), "{count}");
        assert_eq!(batch_root(&payloads), Ok(head.root), "{count}");
        let full = root.push(b"one more");
        if count == 4096 {
            assert_eq!(full, Err(BatchError::Count { found: 4097 }));
            assert_eq!(root.finish(), Ok(head), "what was refused changes nothing");
        } else {
            assert_eq!(full, Ok(()));
        }
    }
    let none = BatchRoot::default().finish();
    assert_eq!(none, Err(BatchError::Count { found: 0 }));
}

#[test]
fn limits() {
    assert_eq!(
        batch_root::<&[u8]>(&[]),
        Err(BatchError::Count { found: 0 })
    );
    let over = vec![b""; 4097];
    assert_eq!(batch_root(&over), Err(BatchError::Count { found: 4097 }));
    assert!(batch_root(&over[1..]).is_ok());
    assert!(BatchCount::new(usize::MAX).is_err());

    let payloads = payloads(3);
    let head = BatchTree::new(&payloads).unwrap().head();
    for position in [3, 4, u32::MAX] {
        let position = BatchPosition::new(position);
        let beyond = BatchError::PositionOutOfRange {
            position,
            count: head.count,
        };
        assert_eq!(batch_proof(&payloads, position), Err(beyond.clone()));
        let proof = BatchProof::default();
        assert_eq!(
            verify_batch_proof(&proof, b"", position, &head),
            Err(beyond)
        );
    }
    assert_eq!(
        BatchProof::from_hashes(vec![head.root; 13]),
        Err(BatchError::ProofLength {
            found: 13,
            wanted: 12
        })
    );
}

#[test]
fn a_batch_is_never_a_log() {
    let payload = entry(0);
    assert_ne!(batch_root(&[&payload]).unwrap(), leaf_hash(&payload));
    // A node of the tree is no payload: the 64 bytes of two leaves hash to something else.
    let payloads = payloads(2);
    let tree = BatchTree::new(&payloads).unwrap();
    let inner: Vec<u8> = [1, 0]
        .iter()
        .flat_map(|position| {
            tree.prove(at(*position)).unwrap().hashes()[0]
                .as_bytes()
                .to_vec()
        })
        .collect();
    let one = BatchHead {
        count: BatchCount::new(1).unwrap(),
        root: tree.head().root,
    };
    assert!(!verify(&[], &inner, 0, &one));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_batch_equals_the_definition_and_no_mutation_verifies(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..80),
        position in any::<prop::sample::Index>(),
        spot in any::<prop::sample::Index>(),
        bit in any::<u8>(),
    ) {
        let position = position.index(payloads.len());
        let tree = BatchTree::new(&payloads).unwrap();
        let head = tree.head();
        prop_assert_eq!(head.root, root(&payloads));
        let proof = tree.prove(at(position)).unwrap();
        prop_assert_eq!(proof.hashes(), path(position, &payloads));
        let (path, payload) = (proof.hashes(), payloads[position].as_slice());
        prop_assert!(verify(path, payload, position, &head));

        let flip = |hash: Hash| {
            let mut bytes = *hash.as_bytes();
            bytes[usize::from(bit / 8)] ^= 1 << (bit % 8);
            Hash::new(bytes)
        };
        prop_assert!(!verify(path, &[payload, &[0]].concat(), position, &head));
        let other_root = BatchHead { root: flip(head.root), ..head };
        prop_assert!(!verify(path, payload, position, &other_root));
        prop_assert!(!verify(&[path, &[head.root]].concat(), payload, position, &head));
        prop_assert!(!verify(&[&[head.root], path].concat(), payload, position, &head));
        if !path.is_empty() {
            prop_assert!(!verify(&path[1..], payload, position, &head));
            prop_assert!(!verify(&path[..path.len() - 1], payload, position, &head));
            let mut flipped = path.to_vec();
            let spot = spot.index(path.len());
            flipped[spot] = flip(flipped[spot]);
            prop_assert!(!verify(&flipped, payload, position, &head));
            // Another position, unless the payload there and its surroundings are the same.
            let other = position ^ 1;
            if other < payloads.len() && payloads[other] != payloads[position] {
                prop_assert!(!verify(path, payload, other, &head));
            }
        }
    }
}
