//! Every good proof verifies, and nothing near it does.

use deed_tlog::{
    ConsistencyProof, Hash, InclusionProof, LeafIndex, TreeHead, TreeSize, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::*;

use crate::reference::{self, leaves};

/// One way to spoil a list of hashes.
#[derive(Debug, Clone)]
enum Mutation {
    FlipBit {
        at: prop::sample::Index,
        bit: u8,
    },
    Drop {
        at: prop::sample::Index,
    },
    Insert {
        at: prop::sample::Index,
        hash: [u8; 32],
    },
    Repeat {
        at: prop::sample::Index,
    },
    Swap {
        at: prop::sample::Index,
    },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, bit)| Mutation::FlipBit { at, bit }),
        at().prop_map(|at| Mutation::Drop { at }),
        (at(), any::<[u8; 32]>()).prop_map(|(at, hash)| Mutation::Insert { at, hash }),
        at().prop_map(|at| Mutation::Repeat { at }),
        at().prop_map(|at| Mutation::Swap { at }),
    ]
}

impl Mutation {
    fn apply(&self, hashes: &mut Vec<Hash>) {
        match self {
            Mutation::Insert { at, hash } => {
                hashes.insert(at.index(hashes.len() + 1), Hash::new(*hash));
            }
            _ if hashes.is_empty() => {}
            Mutation::FlipBit { at, bit } => {
                let at = at.index(hashes.len());
                hashes[at] = flipped(hashes[at], *bit);
            }
            Mutation::Drop { at } => drop(hashes.remove(at.index(hashes.len()))),
            Mutation::Repeat { at } => {
                let at = at.index(hashes.len());
                hashes.insert(at, hashes[at]);
            }
            Mutation::Swap { at } => {
                let at = at.index(hashes.len());
                let next = (at + 1) % hashes.len();
                hashes.swap(at, next);
            }
        }
    }
}

fn flipped(hash: Hash, bit: u8) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[usize::from(bit / 8)] ^= 1 << (bit % 8);
    Hash::new(bytes)
}

fn head(leaves: &[Hash]) -> TreeHead {
    TreeHead::new(TreeSize::new(leaves.len() as u64), reference::root(leaves))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn inclusion(
        (size, index) in (1usize..700).prop_flat_map(|size| (Just(size), 0..size)),
        mutation in mutation(),
        bit in any::<u8>(),
    ) {
        let leaves = leaves(size);
        let head = head(&leaves);
        let path = reference::path(index, &leaves);
        let at = LeafIndex::new(index as u64);
        let verify = |path: &[Hash], leaf: &Hash, at: LeafIndex, head: &TreeHead| {
            let proof = InclusionProof::from_hashes(path.to_vec()).unwrap();
            verify_inclusion(&proof, leaf, at, head)
        };
        prop_assert_eq!(verify(&path, &leaves[index], at, &head), Ok(()));

        let mut mutated = path.clone();
        mutation.apply(&mut mutated);
        let found = verify(&mutated, &leaves[index], at, &head);
        prop_assert_eq!(found.is_ok(), mutated == path);

        let leaf = flipped(leaves[index], bit);
        prop_assert!(verify(&path, &leaf, at, &head).is_err());
        let root = TreeHead::new(head.size, flipped(head.root, bit));
        prop_assert!(verify(&path, &leaves[index], at, &root).is_err());
        for off in [at.get().wrapping_sub(1), at.get() + 1, at.get() ^ 2] {
            prop_assert!(verify(&path, &leaves[index], LeafIndex::new(off), &head).is_err());
        }
        // A size off by one changes nothing for a path that it leaves the same in shape; a
        // head's signature is what binds the size. Where the shape changes, it fails.
        for off in [size - 1, size + 1] {
            let other = TreeHead::new(TreeSize::new(off as u64), head.root);
            let same_shape = off > index && shape(index, off) == shape(index, size);
            prop_assert_eq!(verify(&path, &leaves[index], at, &other).is_ok(), same_shape);
        }
    }

    #[test]
    fn consistency(
        (new, old) in (1usize..700).prop_flat_map(|new| (Just(new), 1..=new)),
        mutation in mutation(),
        bit in any::<u8>(),
    ) {
        let leaves = leaves(new + 1);
        let (old_head, new_head) = (head(&leaves[..old]), head(&leaves[..new]));
        let path = reference::proof(old, &leaves[..new]);
        let verify = |path: &[Hash], old: &TreeHead, new: &TreeHead| {
            let proof = ConsistencyProof::from_hashes(path.to_vec()).unwrap();
            verify_consistency(&proof, old, new)
        };
        prop_assert_eq!(verify(&path, &old_head, &new_head), Ok(()));

        let mut mutated = path.clone();
        mutation.apply(&mut mutated);
        prop_assert_eq!(verify(&mutated, &old_head, &new_head).is_ok(), mutated == path);

        let false_old = TreeHead::new(old_head.size, flipped(old_head.root, bit));
        let false_new = TreeHead::new(new_head.size, flipped(new_head.root, bit));
        prop_assert!(verify(&path, &false_old, &new_head).is_err());
        prop_assert!(verify(&path, &old_head, &false_new).is_err());
        // The neighbouring trees' own heads.
        for other in [old - 1, old + 1] {
            let other = head(&leaves[..other]);
            let is_same = other.size == new_head.size && path.is_empty();
            let nothing_to_prove = other.size.is_zero() && path.is_empty();
            let found = verify(&path, &other, &new_head);
            prop_assert_eq!(found.is_ok(), is_same || nothing_to_prove);
        }
        for other in [new - 1, new + 1] {
            let other = head(&leaves[..other]);
            prop_assert_eq!(verify(&path, &old_head, &other).is_ok(), false);
        }
        // The old size off by one under the old root.
        for other in [old - 1, old + 1] {
            let other = TreeHead::new(TreeSize::new(other as u64), old_head.root);
            prop_assert!(verify(&path, &other, &new_head).is_err());
        }
    }
}

/// The sides of the siblings on a leaf's path, which is all that a size has to do with it.
fn shape(index: usize, size: usize) -> Vec<bool> {
    let (mut index, mut last) = (index, size - 1);
    let mut sides = Vec::new();
    while last > 0 {
        if index % 2 == 1 {
            sides.push(true);
        } else if index < last {
            sides.push(false);
        }
        index /= 2;
        last /= 2;
    }
    sides
}
