//! Whatever parses as a policy can be evaluated, and without a quorum of `none` it accepts
//! nothing that no witness cosigned.

use deed_tlog::{Policy, SignedNote};

pub(crate) fn run(data: &[u8]) {
    let Ok(policy) = Policy::parse(data) else {
        return;
    };
    assert_eq!(Policy::parse(data).as_ref(), Ok(&policy));
    let full = include_bytes!("../../tests/golden/cosigned.txt");
    if let Ok(verified) = policy.verify_checkpoint(full) {
        assert!(policy.logs().iter().any(|log| log.key == verified.log_key));
        assert!(verified.cosigned_by.len() <= policy.witnesses().len());
    }
    let bare = SignedNote::parse(include_bytes!("../../tests/golden/checkpoint.txt")).unwrap();
    assert!(policy.verify_note(&bare).is_err() || !policy.needs_cosignatures());
}
