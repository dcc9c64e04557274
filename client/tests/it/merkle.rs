//! RFC 6962 section 2.1 as it is written there: tlog's own reference, which shares nothing with the
//! code under test but the two hash functions.

#[path = "../../../tlog/tests/it/reference.rs"]
#[allow(dead_code, reason = "tlog's tests use more of it")]
mod reference;

use deed_tlog::Hash;

pub(crate) use reference::{path, root};

/// PROOF(m, D[n]); empty for the tree without leaves, of which the RFC does not speak.
pub(crate) fn consistency(old: usize, leaves: &[Hash]) -> Vec<Hash> {
    if old == 0 {
        return Vec::new();
    }
    reference::proof(old, leaves)
}
