//! The verifier agrees with RFC 9162's algorithm, which is written down here once more, step
//! by step as section 2.1.3.2 has it.

use deed_tlog::{Hash, InclusionProof, LeafIndex, TreeHead, TreeSize, node_hash, verify_inclusion};

/// Input: leaf index and tree size (u64 big-endian), leaf hash, root, hashes of the proof.
pub(crate) fn run(data: &[u8]) {
    let Some((numbers, hashes)) = data.split_first_chunk::<16>() else {
        return;
    };
    let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().unwrap());
    let (index, size) = (number(0), number(8));
    let hashes: Vec<Hash> = hashes
        .chunks_exact(32)
        .map(|h| Hash::try_from(h).unwrap())
        .collect();
    let [leaf, root, path @ ..] = hashes.as_slice() else {
        return;
    };
    let Ok(proof) = InclusionProof::from_hashes(path.to_vec()) else {
        assert!(path.len() > 64);
        return;
    };

    let head = TreeHead::new(TreeSize::new(size), *root);
    let found = verify_inclusion(&proof, leaf, LeafIndex::new(index), &head);
    assert_eq!(
        found.is_ok(),
        rfc9162(index, size, *leaf, *root, path),
        "{found:?}"
    );
}

fn rfc9162(index: u64, size: u64, leaf: Hash, root: Hash, path: &[Hash]) -> bool {
    if index >= size {
        return false; // 1
    }
    let (mut fn_, mut sn) = (index, size - 1); // 2
    let mut r = leaf; // 3
    for p in path {
        // 4
        if sn == 0 {
            return false; // a
        }
        if fn_ & 1 == 1 || fn_ == sn {
            // b
            r = node_hash(p, &r);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            r = node_hash(&r, p);
        }
        fn_ >>= 1; // c
        sn >>= 1;
    }
    sn == 0 && r == root // 5
}
