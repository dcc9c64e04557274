//! What parses as a proof prints as the same bytes, and verification copes with it.

use deed_tlog::{Policy, TlogProof, leaf_hash};

pub(crate) fn run(data: &[u8]) {
    let Ok(proof) = TlogProof::parse(data) else {
        return;
    };
    assert_eq!(proof.to_string().as_bytes(), data);
    let policy = Policy::parse(include_str!("../../tests/golden/policy.txt")).unwrap();
    if let Ok(verified) = proof.verify(&leaf_hash(b"entry 137"), &policy) {
        // No forging: only the golden tree's own leaf verifies.
        assert_eq!(
            (proof.index.get(), verified.checkpoint.head.size.get()),
            (137, 300)
        );
    }
}
