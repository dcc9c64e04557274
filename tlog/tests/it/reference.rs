//! The recursive definitions of RFC 6962 section 2.1, literally. Slow, and obviously right.

use deed_tlog::{EMPTY_ROOT, Hash, leaf_hash, node_hash};

/// The largest power of two smaller than n, for n > 1.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// MTH(D\[n\]), given the leaf hashes.
pub(crate) fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// PATH(m, D\[n\]).
pub(crate) fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = if m < k {
        (path(m, left), root(right))
    } else {
        (path(m - k, right), root(left))
    };
    path.push(sibling);
    path
}

/// PROOF(m, D\[n\]) for 0 < m <= n.
pub(crate) fn proof(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    subproof(m, leaves, true)
}

fn subproof(m: usize, leaves: &[Hash], is_whole_old_tree: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if is_whole_old_tree {
            Vec::new()
        } else {
            vec![root(leaves)]
        };
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, sibling) = if m <= k {
        (subproof(m, left, is_whole_old_tree), root(right))
    } else {
        (subproof(m - k, right, false), root(left))
    };
    proof.push(sibling);
    proof
}

/// The entries that tests use: distinct, and the same as in the golden files.
pub(crate) fn entry(i: usize) -> Vec<u8> {
    format!("entry {i}").into_bytes()
}

/// Their leaf hashes.
pub(crate) fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|i| leaf_hash(&entry(i))).collect()
}
