//! Which key signs which tree heads, and what shows that a key took over.

use deed_evidence::{
    signature::key_id,
    trust::{
        ChainError, HeadError, LOG_KEYS_MAX, LogKeyChain, LogKeys, TrustRefusal, TrustStatement,
    },
};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::{Checkpoint, Hash, LeafIndex, NoteSigner, Origin, SignedNote, TreeHead, TreeSize};

use crate::{
    fixtures::{self, log_signer, signing_key},
    trust::{Chain, registered_body, rotated_body},
};

const FIRST: u8 = 1;

fn size(size: u64) -> TreeSize {
    TreeSize::new(size)
}

fn head(at: u64) -> TreeHead {
    TreeHead::new(size(at), Hash::new([7; 32]))
}

fn signed_as(origin: &str, at: u64, signers: &[&NoteSigner]) -> Vec<u8> {
    let text = Checkpoint::new(Origin::new(origin).unwrap(), head(at)).to_text();
    let mut notes = signers
        .iter()
        .map(|signer| SignedNote::sign(text.clone(), signer).unwrap());
    let mut note = notes.next().unwrap();
    for other in notes {
        note.push_signature(other.signatures()[0].clone()).unwrap();
    }
    note.to_string().into_bytes()
}

/// A head that the keys of these seeds sign.
fn signed(at: u64, seeds: &[u8]) -> Vec<u8> {
    let signers: Vec<_> = seeds.iter().map(|seed| log_signer(*seed)).collect();
    let signers: Vec<_> = signers.iter().collect();
    signed_as("deed.example/logs/refunds", at, &signers)
}

/// Key 1 signs up to size 4, key 2 from 5 on, key 3 from 6, key 4 from 20.
fn keys() -> LogKeys {
    let key = |seed| log_signer(seed).verifier_key().clone();
    let mut keys = LogKeys::new(key(FIRST));
    for (seed, first_size) in [(2, 5), (3, 6), (4, 20)] {
        assert!(keys.push(key(seed), size(first_size)));
    }
    keys
}

/// For every size and every set of signers: accepted exactly if those sign that have to.
#[test]
fn a_head_is_signed_by_the_key_of_its_size() {
    let keys = keys();
    let wanted: &[(u64, &[u8])] = &[
        (1, &[1]),
        (4, &[1]),
        (5, &[1, 2]),
        (6, &[2, 3]),
        (7, &[3]),
        (19, &[3]),
        (20, &[3, 4]),
        (21, &[4]),
        (u64::MAX, &[4]),
    ];
    for (at, wanted) in wanted {
        for set in 1_u8..32 {
            // Key 5 is nobody's: its signature neither helps nor hurts.
            let seeds: Vec<u8> = (1..=5).filter(|seed| set >> (seed - 1) & 1 == 1).collect();
            let opened = keys.open(&signed(*at, &seeds));
            let enough = wanted.iter().all(|seed| seeds.contains(seed));
            assert_eq!(
                opened.is_ok(),
                enough,
                "size {at} signed by {seeds:?}: {opened:?}"
            );
            if enough {
                assert_eq!(opened, Ok(head(*at)));
            }
        }
        let signers = keys.at(size(*at));
        let newest = *wanted.last().unwrap();
        assert_eq!(signers.key, log_signer(newest).verifier_key());
        assert_eq!(signers.generation, usize::from(newest) - 1);
        assert_eq!(signers.handed_over_by.is_some(), wanted.len() == 2);
    }
}

#[test]
fn errors_say_what_is_wrong_with_the_key() {
    let keys = keys();
    let open = |at, seeds: &[u8]| keys.open(&signed(at, seeds)).unwrap_err();
    assert_eq!(
        open(21, &[3]),
        HeadError::Retired {
            head: head(21),
            size: size(21),
            replaced: size(20)
        }
    );
    // The one that took over from the very key that signed.
    let replaced = |error| match error {
        HeadError::Retired { replaced, .. } => replaced,
        other => panic!("{other}"),
    };
    assert_eq!(replaced(open(21, &[1])), size(5));
    assert_eq!(replaced(open(21, &[1, 2])), size(6));
    assert_eq!(
        open(4, &[2]),
        HeadError::Early {
            size: size(4),
            first_size: size(5)
        }
    );
    assert_eq!(open(5, &[2]), HeadError::NotHandedOver { size: size(5) });
    assert!(matches!(open(5, &[1]), HeadError::Retired { .. }));
    assert!(open(5, &[9]).is_unknown_key());
    assert!(!open(5, &[2]).is_unknown_key());
    // A signature by a known key that does not hold spoils the note, also beside a good one.
    let note = String::from_utf8(signed(21, &[4, 3])).unwrap();
    let (start, last) = note.trim_end().rsplit_once('\n').unwrap();
    let other = String::from_utf8(signed(22, &[3])).unwrap();
    let other = other.trim_end().rsplit_once('\n').unwrap().1;
    assert_ne!(last, other);
    keys.open(note.as_bytes()).unwrap();
    keys.open(format!("{start}\n{other}\n").as_bytes())
        .unwrap_err();
    // Another log's head, though a key of that name signs it.
    let foreign = signed_as("deed.example/logs/refund", 4, &[&log_signer(1)]);
    assert!(matches!(keys.open(&foreign), Err(HeadError::Checkpoint(_))));
}

#[test]
fn keys_follow_each_other() {
    let key = |seed| log_signer(seed).verifier_key().clone();
    let mut keys = keys();
    let before = keys.clone();
    assert!(!keys.push(key(2), size(30)), "it signed before");
    assert!(!keys.push(key(5), size(20)), "not behind the newest");
    let name: deed_tlog::KeyName = "deed.example/logs/other".parse().unwrap();
    let other = NoteSigner::from_seed(name, &[5; 32]);
    assert!(!keys.push(other.verifier_key().clone(), size(30)));
    assert_eq!(keys, before);
    assert!(keys.contains(&key(3)) && !keys.contains(&key(5)));
    assert_eq!(
        (keys.first().key.clone(), keys.newest().key.clone()),
        (key(1), key(4))
    );
    // Up to the bound, which the trust state names.
    let mut many = LogKeys::new(fixtures::genesis().log_key);
    let seed = |n: usize| {
        let mut seed = [0x77; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        let name: deed_tlog::KeyName = "deed.example/logs/refunds".parse().unwrap();
        NoteSigner::from_seed(name, &seed).verifier_key().clone()
    };
    for n in 1..LOG_KEYS_MAX {
        assert!(many.push(seed(n), size(n as u64 + 1)));
    }
    assert!(!many.push(seed(LOG_KEYS_MAX), size(LOG_KEYS_MAX as u64 + 1)));
    assert_eq!(many.all().len(), LOG_KEYS_MAX);
}

#[test]
fn a_trust_state_takes_no_log_key_too_many() {
    let entry = fixtures::genesis().to_entry().unwrap();
    let (genesis, id) = deed_evidence::genesis::Genesis::from_entry(&entry).unwrap();
    let mut trust = deed_evidence::trust::TrustState::genesis(id, &genesis);
    let authority = key_id(signing_key(2).public_key());
    let at = genesis.created_at;
    let key = |n: u64| {
        let mut seed = [0x78; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        let name = genesis.log_key.name().clone();
        TrustStatement::LogKeyRotated {
            log_key: NoteSigner::from_seed(name, &seed).verifier_key().clone(),
        }
    };
    for n in 1..LOG_KEYS_MAX as u64 {
        trust.judge(&key(n), authority, at).unwrap();
        trust.apply(&key(n), at, LeafIndex::new(n), Hash::new([1; 32]));
    }
    let judged = trust.judge(&key(LOG_KEYS_MAX as u64), authority, at);
    assert_eq!(judged, Err(TrustRefusal::LogKeysMany));
    assert_eq!(trust.log_key_leaves().len(), LOG_KEYS_MAX - 1);
}

fn authorities(seeds: &[u8]) -> Body {
    let mut keys: Vec<_> = seeds
        .iter()
        .map(|seed| fixtures::public_key(*seed))
        .collect();
    keys.sort_unstable();
    let key = |key: [u8; 32]| v1::AuthorityKey {
        public_key: key.to_vec().into(),
    };
    Body::AuthoritiesChanged(v1::AuthoritiesChanged {
        authority_keys: keys.into_iter().map(key).collect(),
        reason: String::new(),
    })
}

/// A whole trust chain in which keys 8 and 9 take over, the second one by a later authority.
fn rotated() -> Chain {
    let mut chain = Chain::new();
    chain.push(registered_body(5, "spiffe://example.org/agent"));
    chain.push(rotated_body(8));
    chain.push(authorities(&[2, 4]));
    chain.push(registered_body(6, "spiffe://example.org/agent"));
    chain.push(rotated_body(9));
    chain
}

/// Positions in [`rotated`] of what log keys follow from.
const SHOWN: [usize; 3] = [1, 2, 4];

fn begun() -> LogKeyChain {
    LogKeyChain::begin(&fixtures::genesis().to_entry().unwrap()).unwrap()
}

#[test]
fn log_keys_follow_from_the_few_entries_that_say_so() {
    let whole = rotated();
    let trust = whole.verify().unwrap();
    let leaf = |at: usize| whole.entries[at].0;
    assert_eq!(trust.log_key_leaves(), SHOWN.map(leaf));
    let mut chain = begun();
    for at in SHOWN {
        let (index, entry) = &whole.entries[at];
        chain.push(*index, entry).unwrap();
    }
    assert_eq!(chain.log_keys(), trust.log_keys());
    assert_eq!(chain.ledger_id(), trust.ledger_id());
    let all = trust.log_keys().all();
    let sizes: Vec<_> = all.iter().map(|key| key.first_size.get()).collect();
    assert_eq!(sizes, [1, leaf(1).get() + 1, leaf(4).get() + 1]);
    assert_eq!(all[2].key, *log_signer(9).verifier_key());
}

#[test]
fn a_log_key_that_no_authority_named_does_not_follow() {
    let whole = rotated();
    let (index, entry) = &whole.entries[1];
    // Something else than what is to be shown.
    let error = begun().push(whole.entries[0].0, &whole.entries[0].1);
    assert!(matches!(error, Err(ChainError::NotOfLogKeys { .. })));
    // By a key that is no authority's, and by one whose authority ended before.
    let foreign = whole.entry(rotated_body(8), &signing_key(5), whole.link);
    let error = begun().push(*index, &foreign);
    assert!(matches!(
        error,
        Err(ChainError::Refused {
            source: TrustRefusal::SignerUnknown { .. },
            ..
        })
    ));
    let mut ended = begun();
    let changed = whole.entry(authorities(&[4]), &signing_key(2), whole.link);
    ended.push(LeafIndex::new(3), &changed).unwrap();
    let before = ended.log_keys().clone();
    assert!(ended.push(*index, entry).is_err());
    assert_eq!(ended.log_keys(), &before);
    // Twice, and out of order.
    let mut chain = begun();
    chain.push(*index, entry).unwrap();
    assert!(matches!(
        chain.push(*index, entry),
        Err(ChainError::Order { .. })
    ));
    // Bytes that the authority did not sign.
    let mut bent = entry.to_vec();
    let at = bent
        .windows(7)
        .position(|window| window == b"exposed")
        .unwrap();
    bent[at] ^= 1;
    assert!(matches!(
        begun().push(*index, &bent),
        Err(ChainError::Signature { .. })
    ));
}
