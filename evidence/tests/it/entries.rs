//! Entries are written as the generated encoder writes them, and read back whole.

use deed_evidence::{
    ENTRY_BYTES_MAX, Micros, PAYLOAD_BYTES_MAX, Problem, WireError,
    entry::{Entry, EntryError, KeyedSignature, OVERHEAD_BYTES_MAX, TrustLink, hash},
    statement,
};
use deed_proto::v1::{Author, PayloadType};
use deed_tlog::{Hash, LeafIndex};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message as _;

use crate::{fuzz::entry, mutations::any_mutation};

const TIME: Micros = Micros::new(crate::fixtures::TIME_US);

const LINK: TrustLink = TrustLink {
    leaf_index: LeafIndex::new(u64::MAX),
    leaf_hash: Hash::new([5; 32]),
};

fn signed(payload: &[u8]) -> Entry<'_> {
    Entry {
        signature: Some(KeyedSignature {
            key_id: &[3; 16],
            signature: &[4; 64],
        }),
        author: Author::Signed,
        principal_leaf: Some(0),
        ..Entry::unsigned(payload, TIME)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Also where the fields break rules: then nothing reads it, but nothing differs either.
    #[test]
    fn any_fields_are_written_as_prost_writes_them(
        payload in vec(any::<u8>(), 0..300),
        payload_type in select(vec![
            PayloadType::Unspecified, PayloadType::Statement, PayloadType::BatchManifest,
        ]),
        key in option::of((any::<[u8; 16]>(), vec(any::<u8>(), 64))),
        author in select(vec![
            Author::Unspecified, Author::Signed, Author::Batched, Author::Unsigned, Author::Ledger,
        ]),
        received_at in prop_oneof![any::<i64>(), 0..3_i64, Just(i64::MAX), Just(i64::MIN)],
        principal_leaf in option::of(crate::statements::number()),
        link in option::of((crate::statements::number(), any::<[u8; 32]>())),
    ) {
        let previous_trust = link.map(|(index, hash)| TrustLink {
            leaf_index: LeafIndex::new(index),
            leaf_hash: Hash::new(hash),
        });
        let signature = key.as_ref().map(|(key_id, signature)| KeyedSignature {
            key_id,
            signature: signature.as_slice().try_into().unwrap(),
        });
        let made = Entry {
            payload_type,
            payload: &payload,
            signature,
            author,
            received_at: Micros::new(received_at),
            principal_leaf,
            previous_trust,
        };
        let bytes = made.encode();
        prop_assert_eq!(&bytes[..], entry::message(&made).encode_to_vec());
        let mut appended = b"before".to_vec();
        made.encode_into(&mut appended);
        prop_assert_eq!(&appended[6..], &bytes[..]);
        prop_assert_eq!(hash(&made), deed_tlog::leaf_hash(&bytes));

        let signed = author == Author::Signed;
        let well_formed = payload_type != PayloadType::Unspecified
            && (signed || payload_type == PayloadType::Statement)
            && ((signed && payload_type == PayloadType::Statement) || previous_trust.is_none())
            && !payload.is_empty()
            && (author == Author::Signed) == key.is_some()
            && author != Author::Unspecified
            && received_at > 0;
        match entry::check(&bytes) {
            Ok(parsed) => {
                prop_assert!(well_formed);
                prop_assert_eq!(parsed, made);
            }
            Err(error) => prop_assert!(!well_formed, "{}", error),
        }
    }

    /// Whatever becomes of the bytes: what is read is canonical (`entry::check` asserts it).
    #[test]
    fn what_parses_after_changes_is_canonical(
        leaf in option::of(any::<u64>()),
        signed_one in any::<bool>(),
        changes in vec(any_mutation(), 1..3),
    ) {
        let mut made = if signed_one { signed(b"payload") } else { Entry::unsigned(b"p", TIME) };
        made.principal_leaf = leaf;
        if signed_one && leaf.is_none() {
            made.previous_trust = Some(LINK);
        }
        let bytes = made.encode().to_vec();
        let changed = changes.iter().fold(bytes, |bytes, change| change.apply(&bytes));
        entry::check(&changed).ok();
    }
}

#[test]
fn constructors_name_the_author() {
    assert_eq!(Entry::unsigned(b"p", TIME).author, Author::Unsigned);
    assert_eq!(Entry::by_ledger(b"p", TIME).author, Author::Ledger);
    for made in [Entry::unsigned(b"p", TIME), Entry::by_ledger(b"p", TIME)] {
        assert_eq!(made.payload_type, PayloadType::Statement);
        assert_eq!((made.signature, made.principal_leaf), (None, None));
        assert_eq!(Entry::parse(&made.encode()), Ok(made));
    }
}

/// The largest of everything is exactly as long as the constant says, and fits into a leaf.
#[test]
fn the_overhead_is_that_of_the_worst_case() {
    let payload = vec![1; PAYLOAD_BYTES_MAX];
    let worst = Entry {
        received_at: Micros::new(i64::MAX),
        principal_leaf: Some(u64::MAX),
        previous_trust: Some(LINK),
        ..signed(&payload)
    };
    let bytes = worst.encode();
    assert_eq!(bytes.len() - payload.len(), OVERHEAD_BYTES_MAX);
    assert_eq!(Entry::parse(&bytes), Ok(worst));
    // No author and no shorter payload has more.
    for length in [1, 127, 128, 16_383, 16_384, PAYLOAD_BYTES_MAX] {
        let made = Entry {
            payload: &payload[..length],
            ..worst
        };
        let overhead = made.encode().len() - length;
        assert!(overhead <= OVERHEAD_BYTES_MAX, "{length}: {overhead}");
    }
}

#[test]
fn each_rule_names_its_field() {
    let valid = Entry::unsigned(b"p", TIME);
    let broken = |made: Entry<'_>| match Entry::parse(&made.encode()) {
        Err(EntryError::Malformed(WireError { field, problem })) => (field, problem),
        other => panic!("{other:?}"),
    };
    let wanted = |field: &str, problem| (field.to_owned(), problem);
    let long = vec![1; PAYLOAD_BYTES_MAX + 1];
    assert_eq!(
        broken(Entry {
            payload_type: PayloadType::Unspecified,
            ..valid
        }),
        wanted("payload_type", Problem::Missing)
    );
    assert_eq!(
        broken(Entry {
            payload: b"",
            ..valid
        }),
        wanted("payload", Problem::Missing)
    );
    assert_eq!(
        broken(Entry {
            payload: &long,
            ..valid
        }),
        wanted(
            "payload",
            Problem::Length {
                found: 60_001,
                min: 1,
                max: 60_000
            }
        )
    );
    assert_eq!(
        broken(Entry {
            author: Author::Unspecified,
            ..valid
        }),
        wanted("author", Problem::Missing)
    );
    assert_eq!(
        broken(Entry {
            received_at: Micros::new(0),
            ..valid
        }),
        wanted("received_at_us", Problem::Missing)
    );
    assert_eq!(
        broken(Entry {
            received_at: Micros::new(-1),
            ..valid
        }),
        wanted("received_at_us", Problem::Range { value: u64::MAX })
    );
    let author = Problem::Rule("is signed exactly if there is a signature");
    assert_eq!(
        broken(Entry {
            author: Author::Signed,
            ..valid
        }),
        wanted("author", author.clone())
    );
    for author_without in [Author::Batched, Author::Unsigned, Author::Ledger] {
        assert_eq!(
            broken(Entry {
                author: author_without,
                ..signed(b"p")
            }),
            wanted("author", author.clone())
        );
    }
}

#[test]
fn key_and_signature_come_together_and_whole() {
    let parsed = |key_id: usize, signature: usize| {
        let mut message = entry::message(&signed(b"p"));
        message.key_id = vec![1; key_id].into();
        message.signature = vec![1; signature].into();
        match Entry::parse(&message.encode_to_vec()) {
            Ok(_) => None,
            Err(EntryError::Malformed(error)) => Some((error.field, error.problem)),
            Err(error) => panic!("{error}"),
        }
    };
    let together = Problem::Rule("needs a key_id, and the other way round");
    let length = |found, exactly| Problem::Length {
        found,
        min: exactly,
        max: exactly,
    };
    assert_eq!(parsed(16, 64), None);
    assert_eq!(parsed(16, 0), Some(("signature".into(), together.clone())));
    assert_eq!(parsed(0, 64), Some(("signature".into(), together)));
    assert_eq!(parsed(15, 64), Some(("key_id".into(), length(15, 16))));
    assert_eq!(parsed(16, 63), Some(("signature".into(), length(63, 64))));
}

#[test]
fn what_is_not_canonical_is_refused() {
    let valid = Entry::unsigned(b"p", Micros::new(1)).encode();
    assert_eq!(hex::encode(&valid), "080112017028033001");
    let rows: [(&str, &str, Problem); 11] = [
        ("", "payload_type", Problem::Missing),
        (
            "0803120170280330",
            "payload_type",
            Problem::UnknownEnum { value: 3 },
        ),
        (
            "08011201702803300138",
            "principal_leaf",
            Problem::CutOff { wanted: 1, have: 0 },
        ),
        (
            "0801120170280330014801",
            "message",
            Problem::UnknownField { number: 9 },
        ),
        (
            "080112017028053001",
            "author",
            Problem::UnknownEnum { value: 5 },
        ),
        ("08011201701a00", "key_id", Problem::DefaultWritten),
        ("08011201702803308100", "received_at_us", Problem::Varint),
        ("080112017030012803", "author", Problem::Missing),
        ("080112017028032803", "author", Problem::Order),
        (
            "0801120370",
            "payload",
            Problem::CutOff { wanted: 3, have: 1 },
        ),
        ("08810012017028033001", "payload_type", Problem::Varint),
    ];
    for (bytes, field, problem) in rows {
        let error = WireError {
            field: field.into(),
            problem,
        };
        let bytes = hex::decode(bytes).unwrap();
        assert_eq!(Entry::parse(&bytes), Err(EntryError::Malformed(error)));
        entry::check(&bytes).unwrap_err();
    }
    // Leaf 0 is named by a zero that is written out: no leaf and leaf 0 differ.
    let zero = hex::decode("0801120170280330013800").unwrap();
    assert_eq!(entry::check(&zero).unwrap().principal_leaf, Some(0));

    let found = ENTRY_BYTES_MAX + 1;
    let too_long = EntryError::TooLong {
        found,
        max: ENTRY_BYTES_MAX,
    };
    assert_eq!(Entry::parse(&vec![0; found]), Err(too_long));
}

/// The link's own bytes: what could be varied is refused.
#[test]
fn a_link_has_one_form() {
    let signature = KeyedSignature {
        key_id: &[3; 16],
        signature: &[4; 64],
    };
    let zero = TrustLink {
        leaf_index: LeafIndex::new(0),
        ..LINK
    };
    let one = TrustLink {
        leaf_index: LeafIndex::new(1),
        ..LINK
    };
    let plain = Entry::signed(b"p", signature, TIME).encode();
    let with = |link: &str| {
        let bytes = [&plain[..], &hex::decode(link).unwrap()].concat();
        match entry::check(&bytes) {
            Ok(entry) => Ok(entry.previous_trust),
            Err(EntryError::Malformed(error)) => Err((error.field, error.problem)),
            Err(error) => panic!("{error}"),
        }
    };
    let hash = "1220".to_owned() + &"05".repeat(32);
    assert_eq!(with(&format!("4222{hash}")), Ok(Some(zero)));
    assert_eq!(with(&format!("42240801{hash}")), Ok(Some(one)));
    let at = |field: &str, problem| Err((field.to_owned(), problem));
    let rows = [
        // Nothing in it, no hash, a short one, an index of zero written out, an overlong one, both
        // fields the other way round, one twice, an unknown one.
        (
            "4200".to_owned(),
            "previous_trust.leaf_hash",
            Problem::Missing,
        ),
        (
            "42020801".to_owned(),
            "previous_trust.leaf_hash",
            Problem::Missing,
        ),
        (
            "4203120105".to_owned(),
            "previous_trust.leaf_hash",
            Problem::Length {
                found: 1,
                min: 32,
                max: 32,
            },
        ),
        (
            format!("42240800{hash}"),
            "previous_trust.leaf_index",
            Problem::DefaultWritten,
        ),
        (
            format!("4225088100{hash}"),
            "previous_trust.leaf_index",
            Problem::Varint,
        ),
        (format!("4224{hash}0801"), "previous_trust", Problem::Order),
        (
            format!("4244{hash}{hash}"),
            "previous_trust.leaf_hash",
            Problem::Order,
        ),
        (
            format!("4224{hash}1801"),
            "previous_trust",
            Problem::UnknownField { number: 3 },
        ),
        (
            format!("4222{hash}4222{hash}"),
            "previous_trust",
            Problem::Order,
        ),
    ];
    for (link, field, problem) in rows {
        assert_eq!(with(&link), at(field, problem), "{link}");
    }
}

/// Who may say what: the entry against the statement in it.
#[test]
fn entry_and_statement_agree() {
    let signature = KeyedSignature {
        key_id: &[3; 16],
        signature: &[4; 64],
    };
    let encode = |made| statement::encode(&made).unwrap();
    let ordinary = encode(crate::fixtures::intent());
    let trust = encode(crate::fixtures::retention_set());
    let genesis = encode(crate::fixtures::genesis_statement());
    let by_authority = encode(crate::fixtures::revocation());
    let of_ledger = [
        encode(crate::fixtures::tick()),
        encode(crate::fixtures::clearance()),
        encode(crate::fixtures::task_receipt()),
    ];
    let unlinked = Entry::signed(&trust, signature, TIME);
    let good = [
        Entry::unsigned(&ordinary, TIME),
        Entry::batched(&ordinary, TIME),
        Entry::signed(&ordinary, signature, TIME),
        Entry::by_ledger(&genesis, TIME),
        Entry::trust(&trust, signature, TIME, LINK),
        // An authority's, but not in the chain of trust.
        Entry::signed(&by_authority, signature, TIME),
        Entry::unsigned(&by_authority, TIME),
    ];
    for entry in good {
        assert!(entry.statement().is_ok(), "{entry:?}");
    }
    for payload in &of_ledger {
        let header = Entry::by_ledger(payload, TIME).statement().unwrap();
        assert_eq!(header.producer, statement::LEDGER_PRODUCER);
        for by_another in [
            Entry::unsigned(payload, TIME),
            Entry::batched(payload, TIME),
            Entry::signed(payload, signature, TIME),
        ] {
            assert_eq!(by_another.statement().unwrap_err().field, "author");
        }
        let linked = Entry::trust(payload, signature, TIME, LINK);
        assert_eq!(linked.statement().unwrap_err().field, "author");
    }
    let bad = [
        (Entry::by_ledger(&ordinary, TIME), "author"),
        (Entry::by_ledger(&trust, TIME), "author"),
        (Entry::by_ledger(&by_authority, TIME), "author"),
        (
            Entry::trust(&by_authority, signature, TIME, LINK),
            "previous_trust",
        ),
        (Entry::unsigned(&genesis, TIME), "author"),
        (Entry::signed(&genesis, signature, TIME), "author"),
        (unlinked, "previous_trust"),
        (Entry::unsigned(&trust, TIME), "previous_trust"),
        (Entry::batched(&trust, TIME), "previous_trust"),
        (
            Entry::trust(&ordinary, signature, TIME, LINK),
            "previous_trust",
        ),
        (
            Entry {
                previous_trust: Some(LINK),
                ..Entry::unsigned(&trust, TIME)
            },
            "previous_trust",
        ),
        (Entry::manifest(&ordinary, signature, TIME), "payload_type"),
        (Entry::unsigned(b"p", TIME), "message"),
    ];
    for (entry, field) in bad {
        assert_eq!(entry.statement().unwrap_err().field, field, "{entry:?}");
    }
    // A manifest is signed, and a link stands in signed entries alone: seen without the payload.
    let bad = [
        (
            Entry {
                payload_type: PayloadType::BatchManifest,
                ..Entry::unsigned(b"p", TIME)
            },
            "author",
        ),
        (
            Entry {
                payload_type: PayloadType::BatchManifest,
                ..Entry::batched(b"p", TIME)
            },
            "author",
        ),
        (
            Entry {
                previous_trust: Some(LINK),
                ..Entry::by_ledger(b"p", TIME)
            },
            "previous_trust",
        ),
        (
            Entry {
                previous_trust: Some(LINK),
                ..Entry::manifest(b"p", signature, TIME)
            },
            "previous_trust",
        ),
    ];
    for (made, field) in bad {
        let Err(EntryError::Malformed(error)) = entry::check(&made.encode()).map(drop) else {
            panic!("{made:?}");
        };
        assert_eq!(error.field, field);
    }
}
