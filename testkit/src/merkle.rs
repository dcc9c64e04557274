//! RFC 6962 section 2.1 as it is written there: tlog's own reference, which shares nothing with the
//! code under test but the two hash functions.

#[path = "../../tlog/tests/it/reference.rs"]
#[allow(dead_code, reason = "tlog's tests use more of it")]
mod reference;

use deed_tlog::Hash;

/// MTH(D\[n\]), given the leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    reference::root(leaves)
}

/// PATH(m, D\[n\]).
pub fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    reference::path(m, leaves)
}

/// PROOF(m, D\[n\]); empty for the tree without leaves, of which the RFC does not speak.
pub fn consistency(old: usize, leaves: &[Hash]) -> Vec<Hash> {
    if old == 0 {
        return Vec::new();
    }
    reference::proof(old, leaves)
}
