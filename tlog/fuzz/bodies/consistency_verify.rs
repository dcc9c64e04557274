//! The verifier agrees with RFC 9162's algorithm, which is written down here once more, step
//! by step as section 2.1.4.2 has it.

use deed_tlog::{
    ConsistencyProof, EMPTY_ROOT, Hash, TreeHead, TreeSize, node_hash, verify_consistency,
};

/// Input: old and new size (u64 big-endian), old root, new root, hashes of the proof.
pub(crate) fn run(data: &[u8]) {
    let Some((numbers, hashes)) = data.split_first_chunk::<16>() else {
        return;
    };
    let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().unwrap());
    let (old, new) = (number(0), number(8));
    let hashes: Vec<Hash> = hashes
        .chunks_exact(32)
        .map(|h| Hash::try_from(h).unwrap())
        .collect();
    let [old_root, new_root, path @ ..] = hashes.as_slice() else {
        return;
    };
    let Ok(proof) = ConsistencyProof::from_hashes(path.to_vec()) else {
        assert!(path.len() > 65);
        return;
    };

    let old_head = TreeHead::new(TreeSize::new(old), *old_root);
    let new_head = TreeHead::new(TreeSize::new(new), *new_root);
    let found = verify_consistency(&proof, &old_head, &new_head);
    let wanted = match (old, new) {
        // RFC 9162 leaves these to the reader: nothing to prove, so nothing in the proof.
        (0, 0) => path.is_empty() && *old_root == EMPTY_ROOT && *new_root == EMPTY_ROOT,
        (0, _) => path.is_empty() && *old_root == EMPTY_ROOT,
        _ if old == new => path.is_empty() && old_root == new_root,
        _ => old < new && rfc9162(old, new, *old_root, *new_root, path),
    };
    assert_eq!(found.is_ok(), wanted, "{found:?}");
}

fn rfc9162(first: u64, second: u64, first_hash: Hash, second_hash: Hash, path: &[Hash]) -> bool {
    if path.is_empty() {
        return false; // 1
    }
    let mut path = path.to_vec();
    if first.is_power_of_two() {
        path.insert(0, first_hash); // 2
    }
    let (mut fn_, mut sn) = (first - 1, second - 1); // 3
    while fn_ & 1 == 1 {
        fn_ >>= 1; // 4
        sn >>= 1;
    }
    let (mut fr, mut sr) = (path[0], path[0]); // 5
    for c in &path[1..] {
        // 6
        if sn == 0 {
            return false; // a
        }
        if fn_ & 1 == 1 || fn_ == sn {
            // b
            fr = node_hash(c, &fr);
            sr = node_hash(c, &sr);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            sr = node_hash(&sr, c);
        }
        fn_ >>= 1; // c
        sn >>= 1;
    }
    fr == first_hash && sr == second_hash && sn == 0 // 7
}
