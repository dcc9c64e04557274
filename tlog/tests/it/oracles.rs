//! Roots and proofs equal those of two libraries and a Python script that share no code with
//! this crate.

use std::fs::{self, DirEntry};
use std::path::Path;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use deed_tlog::{
    Hash, LeafIndex, SizeRange, TreeHead, TreeSize, prove_consistency, prove_inclusion, root_at,
    tile_bytes, verify_consistency, verify_inclusion,
};
use sha2::{Digest, Sha256};

use crate::reference::{entry, leaves};
use crate::store::Tree;

const EXHAUSTIVE: usize = 128;

fn size(leaves: usize) -> TreeSize {
    TreeSize::new(leaves as u64)
}

fn index(leaf: usize) -> LeafIndex {
    LeafIndex::new(leaf as u64)
}

#[test]
fn ct_merkle_agrees() {
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut ours = Tree::default();
    let mut old_roots = vec![(theirs.root(), ours.edge.head())];
    let all = leaves(EXHAUSTIVE);
    for n in 1..=EXHAUSTIVE {
        theirs.push(entry(n - 1));
        ours.append(&all[n - 1..n]);
        let (their_root, our_head) = (theirs.root(), ours.edge.head());
        assert_eq!(their_root.as_bytes().as_slice(), our_head.root.as_ref());

        for m in 0..n {
            let proof = prove_inclusion(index(m), size(n), &ours.reader()).unwrap();
            let their_proof = theirs.prove_inclusion(m);
            assert_eq!(their_proof.as_bytes(), tile_bytes(proof.hashes()));
            their_root
                .verify_inclusion(&entry(m), m as u64, &their_proof)
                .unwrap();
        }
        for (m, (their_old, our_old)) in old_roots.iter().enumerate().skip(1) {
            let range = SizeRange {
                old: size(m),
                new: size(n),
            };
            let proof = prove_consistency(range, &ours.reader()).unwrap();
            let their_proof = theirs.prove_consistency(n - m);
            assert_eq!(their_proof.as_bytes(), tile_bytes(proof.hashes()));
            their_root
                .verify_consistency(their_old, &their_proof)
                .unwrap();
            verify_consistency(&proof, our_old, &our_head).unwrap();
        }
        old_roots.push((their_root, our_head));
    }
}

/// The seeds of the fuzz targets were computed by `tests/golden/generate.py`.
#[test]
fn python_agrees() {
    fn read(target: &str) -> Vec<(u64, u64, Vec<Hash>)> {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target);
        let read = |file: Result<DirEntry, _>| {
            let data = fs::read(file.unwrap().path()).unwrap();
            let number = |at: usize| u64::from_be_bytes(data[at..at + 8].try_into().unwrap());
            let hashes = data[16..]
                .chunks(32)
                .map(|hash| Hash::try_from(hash).unwrap());
            (number(0), number(8), hashes.collect())
        };
        fs::read_dir(seeds).unwrap().map(read).collect()
    }
    let tree = Tree::of(&leaves(300));
    let inclusion = read("inclusion_verify");
    assert!(inclusion.len() >= 6);
    for (index, size, hashes) in inclusion {
        let [leaf, root, path @ ..] = hashes.as_slice() else {
            panic!("two hashes at least")
        };
        let (index, head) = (
            LeafIndex::new(index),
            TreeHead::new(TreeSize::new(size), *root),
        );
        let proof = prove_inclusion(index, head.size, &tree.reader()).unwrap();
        assert_eq!(proof.hashes(), path);
        verify_inclusion(&proof, leaf, index, &head).unwrap();
    }
    let consistency = read("consistency_verify");
    assert!(consistency.len() >= 8);
    for (old, new, hashes) in consistency {
        let [old_root, new_root, path @ ..] = hashes.as_slice() else {
            panic!("two at least")
        };
        let range = SizeRange {
            old: TreeSize::new(old),
            new: TreeSize::new(new),
        };
        let proof = prove_consistency(range, &tree.reader()).unwrap();
        assert_eq!(proof.hashes(), path);
        let (old, new) = (
            TreeHead::new(range.old, *old_root),
            TreeHead::new(range.new, *new_root),
        );
        verify_consistency(&proof, &old, &new).unwrap();
    }
}

#[test]
fn rs_merkle_agrees() {
    #[derive(Clone)]
    struct Rfc6962;
    impl rs_merkle::Hasher for Rfc6962 {
        type Hash = [u8; 32];
        fn hash(entry: &[u8]) -> [u8; 32] {
            Sha256::new()
                .chain_update([0])
                .chain_update(entry)
                .finalize()
                .into()
        }
        fn concat_and_hash(left: &[u8; 32], right: Option<&[u8; 32]>) -> [u8; 32] {
            right.map_or(*left, |right| {
                Sha256::new()
                    .chain_update([1])
                    .chain_update(left)
                    .chain_update(right)
                    .finalize()
                    .into()
            })
        }
    }
    let hashes: Vec<[u8; 32]> = (0..EXHAUSTIVE)
        .map(|i| <Rfc6962 as rs_merkle::Hasher>::hash(&entry(i)))
        .collect();
    let tree = Tree::of(&leaves(EXHAUSTIVE));
    for n in 1..=EXHAUSTIVE {
        let theirs = rs_merkle::MerkleTree::<Rfc6962>::from_leaves(&hashes[..n]);
        let root = root_at(size(n), &tree.reader()).unwrap();
        assert_eq!(theirs.root().unwrap(), *root.as_bytes());
        for m in 0..n {
            let proof = prove_inclusion(index(m), size(n), &tree.reader()).unwrap();
            assert_eq!(theirs.proof(&[m]).to_bytes(), tile_bytes(proof.hashes()));
        }
    }
}
