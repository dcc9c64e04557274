//! Trust statements: what parses is what the header says, and a trust state takes or refuses it without
//! a panic, and the same way each time.

use deed_evidence::{
    LedgerId, Micros, Problem, WireError,
    genesis::Genesis,
    signature,
    statement::{self, BodyKind},
    trust::{TrustState, TrustStatement},
};
use deed_tlog::{Hash, KeyName, LeafIndex, NoteSigner, Origin, SigningKey};

pub(crate) fn run(data: &[u8]) {
    check(data).ok();
}

pub(crate) fn check(data: &[u8]) -> Result<Option<TrustStatement>, WireError> {
    let parsed = TrustStatement::parse(data);
    let header = statement::parse(data);
    match (&parsed, header) {
        (Ok(parsed), Ok(header)) => assert_eq!(parsed.is_some(), header.body.is_trust()),
        (Err(error), Err(wanted)) => assert_eq!(*error, wanted),
        // Policies are compiled for trust statements only.
        (Err(error), Ok(header)) if matches!(error.problem, Problem::Policy(_)) => {
            assert_eq!(header.body, BodyKind::PolicySet);
        }
        (parsed, header) => panic!("{parsed:?}, but {header:?}"),
    }
    let Ok(Some(statement)) = &parsed else {
        return parsed;
    };
    let (mut trust, authority) = trust();
    statement.verify_possession(trust.ledger_id()).ok();
    let hash = Hash::new([9; 32]);
    let at = Micros::new(1);
    let first = trust.judge(statement, authority, at);
    let clone = trust.clone();
    trust.apply(statement, at, LeafIndex::new(1), hash);
    assert_eq!(clone.judge(statement, authority, at), first);
    assert_eq!(trust.version(), clone.version() + 1);
    assert_eq!(trust.head().leaf_hash, hash);
    // Whatever it was, once more: most are refused now.
    trust.judge(statement, authority, at).ok();
    trust.apply(statement, at, LeafIndex::new(2), hash);
    parsed
}

/// A ledger with one authority.
fn trust() -> (TrustState, deed_evidence::KeyId) {
    let origin = "deed.example/logs/fuzz";
    let name: KeyName = origin.parse().unwrap();
    let key = SigningKey::from_seed(&[3; 32]);
    let genesis = Genesis {
        origin: Origin::new(origin).unwrap(),
        log_key: NoteSigner::from_seed(name, &[1; 32]).verifier_key().clone(),
        authority_keys: vec![*key.public_key().as_bytes()],
        created_at: Micros::new(1),
        nonce: [4; 32],
        rules_version: 1,
    };
    let trust = TrustState::genesis(LedgerId::new(Hash::new([0x11; 32])), &genesis);
    (trust, signature::key_id(key.public_key()))
}
