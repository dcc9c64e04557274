//! Genesis entries: what is written is read, and nothing else is.

use deed_evidence::{
    LedgerId, Micros, Problem, WireError,
    entry::Entry,
    genesis::{Genesis, GenesisError},
};
use deed_proto::v1::{self, Author, statement::Body};
use deed_tlog::{KeyName, NoteSigner, Origin, SignatureType, VerifierKey};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use crate::{
    fixtures::{self, TIME_US},
    fuzz::genesis::check,
    mutations::any_mutation,
};

/// The fixture's entry with its statement changed.
fn changed(change: impl FnOnce(&mut v1::Statement, &mut v1::Genesis)) -> Vec<u8> {
    let mut statement = fixtures::genesis_statement();
    let Some(Body::Genesis(mut genesis)) = statement.body.take() else {
        unreachable!()
    };
    change(&mut statement, &mut genesis);
    if statement.body.is_none() {
        statement.body = Some(Body::Genesis(genesis));
    }
    entry_of(&statement.encode_to_vec())
}

fn entry_of(payload: &[u8]) -> Vec<u8> {
    Entry::by_ledger(payload, Micros::new(TIME_US))
        .encode()
        .into()
}

/// An origin's signer whose key signs what `signature_type` says.
fn key_of(name: &str, signature_type: SignatureType) -> VerifierKey {
    let key = fixtures::signer(name);
    let public_key = key.verifier_key().public_key().clone();
    VerifierKey::new(KeyName::new(name).unwrap(), signature_type, public_key)
}

#[test]
fn a_genesis_is_read_as_it_was_written() {
    let made = fixtures::genesis();
    let entry = made.to_entry().unwrap();
    let (read, id) = check(&entry).unwrap();
    assert_eq!(read, made);
    assert_eq!(id, LedgerId::new(deed_tlog::leaf_hash(&entry)));

    // Keys are put in order: the same owner in another order is the same ledger.
    let mut reversed = made.clone();
    reversed.authority_keys.reverse();
    assert_ne!(reversed, made);
    assert_eq!(reversed.to_entry().unwrap(), entry);

    // The nonce makes two ledgers of one name, at one time, with the same keys differ.
    let other = Genesis {
        nonce: [5; 32],
        ..made
    };
    assert_ne!(check(&other.to_entry().unwrap()).unwrap().1, id);

    // So do other rules.
    let other = fixtures::genesis_of_rules_2();
    let (read, other_id) = check(&other.to_entry().unwrap()).unwrap();
    assert_eq!(read, other);
    assert_ne!(other_id, id);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_genesis_comes_back(
        origin in "[!-*,-~]{1,60}",
        seeds in proptest::collection::btree_set(any::<[u8; 32]>(), 1..=16),
        created_at in 1..=i64::MAX,
        nonce in any::<[u8; 32]>().prop_filter("any", |nonce| *nonce != [0; 32]),
        rules_version in 1..=deed_evidence::RULES_VERSION,
    ) {
        let signer = NoteSigner::from_seed(KeyName::new(&*origin).unwrap(), &nonce);
        let public_key = |seed: &[u8; 32]| {
            let signer = NoteSigner::from_seed(KeyName::new("any").unwrap(), seed);
            *signer.verifier_key().public_key().as_bytes()
        };
        let mut authority_keys: Vec<_> = seeds.iter().map(public_key).collect();
        authority_keys.sort_unstable();
        let made = Genesis {
            origin: Origin::new(&*origin).unwrap(),
            log_key: signer.verifier_key().clone(),
            authority_keys,
            created_at: Micros::new(created_at),
            nonce,
            rules_version,
        };
        let (read, _) = check(&made.to_entry().unwrap()).unwrap();
        prop_assert_eq!(read, made);
    }

    /// What still reads after changes is a genesis of its own, and written back to the byte.
    #[test]
    fn changes_are_refused_or_lead_to_another_id(changes in vec(any_mutation(), 1..3)) {
        let entry = fixtures::genesis().to_entry().unwrap();
        let (_, id) = check(&entry).unwrap();
        let changed = changes.iter().fold(entry.to_vec(), |bytes, change| change.apply(&bytes));
        if let Ok((_, other)) = check(&changed) {
            prop_assert_eq!(other == id, changed == entry);
        }
    }
}

#[test]
fn what_cannot_be_a_genesis_is_not_written() {
    let made = fixtures::genesis();
    let refused = |genesis: Genesis| genesis.to_entry().unwrap_err();
    let statement = |genesis, field: &str, problem| match refused(genesis) {
        GenesisError::Statement(error) => {
            assert_eq!(
                error,
                WireError {
                    field: field.into(),
                    problem
                }
            );
        }
        other => panic!("{other:?}"),
    };
    let keys = |keys: Vec<[u8; 32]>| Genesis {
        authority_keys: keys,
        ..made.clone()
    };
    let seventeen: Vec<_> = (0..17).map(fixtures::public_key).collect();
    let field = "genesis.authority_keys";
    let count = |found| Problem::Count {
        found,
        min: 1,
        max: 16,
    };
    statement(keys(Vec::new()), field, count(0));
    statement(keys(seventeen.clone()), field, count(17));
    let twice = Problem::Rule("must be strictly ascending by public key");
    statement(keys(vec![seventeen[0]; 2]), field, twice);
    let zero = Genesis {
        created_at: Micros::new(0),
        ..made.clone()
    };
    statement(zero, "genesis.created_at_us", Problem::Missing);
    let nonce = Genesis {
        nonce: [0; 32],
        ..made.clone()
    };
    nonce.to_entry().unwrap();

    // The producer is a URI, so origins are ASCII here, and 5 bytes shorter than a producer.
    let named = |origin: &str| Genesis {
        origin: Origin::new(origin).unwrap(),
        log_key: key_of(origin, SignatureType::Ed25519),
        ..made.clone()
    };
    let uri = Problem::Rule("must be a URI, for example spiffe://example.org/agent");
    statement(named("ä.example/logs/x"), "producer", uri);
    named(&"x".repeat(507)).to_entry().unwrap();
    let long = Problem::Length {
        found: 513,
        min: 1,
        max: 512,
    };
    statement(named(&"x".repeat(508)), "producer", long);

    let other_name = Genesis {
        log_key: key_of("deed.example/logs/other", SignatureType::Ed25519),
        ..made.clone()
    };
    match refused(other_name) {
        GenesisError::KeyName { key_name, origin } => {
            assert_eq!(key_name, "deed.example/logs/other");
            assert_eq!(origin, "deed.example/logs/refunds");
        }
        other => panic!("{other:?}"),
    }
    let witness = Genesis {
        log_key: key_of("deed.example/logs/refunds", SignatureType::Cosignature),
        ..made.clone()
    };
    assert!(matches!(
        refused(witness),
        GenesisError::Field {
            field: "log_keys",
            ..
        }
    ));
    // The neutral element: everybody can sign for it.
    let mut small = [0; 32];
    small[0] = 1;
    for key in [small, [0; 32], [0xff; 32]] {
        match refused(keys(vec![made.authority_keys[0], key])) {
            GenesisError::Field { field, reason } => {
                assert_eq!(field, "authority_keys");
                assert!(reason.starts_with("key 1: "), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_error_of_reading() {
    let error = |entry: &[u8]| check(entry).unwrap_err();
    let message = |entry: &[u8]| error(entry).to_string();
    let payload = fixtures::genesis_statement().encode_to_vec();

    assert!(matches!(error(b""), GenesisError::Entry(_)));
    assert!(matches!(error(&[0; 70_000]), GenesisError::Entry(_)));
    let unsigned = Entry::unsigned(&payload, Micros::new(TIME_US)).encode();
    assert!(matches!(error(&unsigned), GenesisError::NotByLedger));
    let batched = Entry {
        author: Author::Batched,
        ..Entry::by_ledger(&payload, Micros::new(1))
    };
    assert!(matches!(
        error(&batched.encode()),
        GenesisError::NotByLedger
    ));
    assert!(matches!(error(&entry_of(b"x")), GenesisError::Statement(_)));
    let heartbeat = entry_of(&fixtures::heartbeat().encode_to_vec());
    assert!(matches!(
        error(&heartbeat),
        GenesisError::NotGenesis { found: "heartbeat" }
    ));

    let rules = changed(|_, genesis| genesis.rules_version = 3);
    assert!(matches!(
        error(&rules),
        GenesisError::UnknownRules { found: 3, known: 2 }
    ));
    assert_eq!(
        message(&rules),
        "the ledger follows rules version 3; this program knows those up to 2"
    );
    let none = changed(|_, genesis| genesis.rules_version = 0);
    assert!(matches!(error(&none), GenesisError::Statement(_)));
    // Another statement of the ledger does not make a genesis entry.
    let tick = entry_of(&fixtures::tick().encode_to_vec());
    assert!(matches!(
        error(&tick),
        GenesisError::NotGenesis { found: "tick" }
    ));
    let origin = changed(|_, genesis| genesis.origin = "a b".into());
    assert!(matches!(
        error(&origin),
        GenesisError::Field {
            field: "origin",
            ..
        }
    ));
    let vkey = changed(|_, genesis| genesis.log_keys[0].vkey.push('='));
    assert!(matches!(
        error(&vkey),
        GenesisError::Field {
            field: "log_keys",
            ..
        }
    ));
    let witness = key_of("deed.example/logs/refunds", SignatureType::Cosignature);
    let witness = changed(|_, genesis| genesis.log_keys[0].vkey = witness.to_string());
    assert_eq!(
        message(&witness),
        "genesis log_keys: the key is a witness's: it does not sign checkpoints"
    );
    let renamed = changed(|_, genesis| genesis.origin = "deed.example/logs/other".into());
    assert!(matches!(error(&renamed), GenesisError::KeyName { .. }));
    let weak = changed(|_, genesis| {
        genesis.authority_keys.truncate(1);
        genesis.authority_keys[0].public_key = vec![0; 32].into();
    });
    assert_eq!(
        message(&weak),
        "genesis authority_keys: key 0: public key has small order"
    );

    // Well-formed statements and entries that say more than a genesis does, or two things.
    let time = Micros::new(TIME_US);
    let leaf = Entry {
        principal_leaf: Some(0),
        ..Entry::by_ledger(&payload, time)
    };
    let later = Entry::by_ledger(&payload, Micros::new(TIME_US + 1));
    let other_forms = [
        leaf.encode().to_vec(),
        later.encode().to_vec(),
        changed(|statement, _| statement.producer = "deed:elsewhere".into()),
        changed(|statement, _| statement.occurred_at_us += 1),
        changed(|statement, _| statement.trace_id = vec![1; 16].into()),
        changed(|statement, _| {
            let key = v1::CorrelationKey {
                kind: "a".into(),
                value: "b".into(),
            };
            statement.correlation_keys.push(key);
        }),
        changed(|_, genesis| genesis.created_at_us += 1),
    ];
    for entry in other_forms {
        assert!(
            matches!(error(&entry), GenesisError::OtherForm),
            "{}",
            message(&entry)
        );
    }
}
