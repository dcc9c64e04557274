//! What is signed: the inputs byte for byte, and nothing else verifies.

use deed_evidence::{
    KeyId, LedgerId, PrincipalHash,
    signature::{Possession, SignatureError, dsse_type, key_id, pae, pae_into, sign, verify},
};
use deed_proto::v1::{KeyRole, PayloadType};
use deed_tlog::{Hash, SigningKey};
use proptest::{collection::vec, prelude::*};

use crate::fixtures::{public_key, signing_key};

#[test]
fn the_input_is_that_of_dsse() {
    let cases = [
        (
            PayloadType::Statement,
            "DSSEv1 42 application/vnd.deed.statement.v1+protobuf 11 hello world",
        ),
        (
            PayloadType::BatchManifest,
            "DSSEv1 38 application/vnd.deed.batch.v1+protobuf 11 hello world",
        ),
    ];
    for (payload_type, wanted) in cases {
        assert_eq!(pae(payload_type, b"hello world"), wanted.as_bytes());
        let mut used = b"from before".to_vec();
        pae_into(payload_type, b"hello world", &mut used);
        assert_eq!(used, wanted.as_bytes());
    }
    let empty = pae(PayloadType::Statement, b"");
    assert!(empty.ends_with(b" 0 "));
    assert_eq!(dsse_type(PayloadType::Unspecified), None);
}

/// RFC 8032 section 7.1, test 1: seed and public key.
#[test]
fn a_seed_is_rfc_8032s_private_key() {
    let seed: [u8; 32] =
        hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap()
            .try_into()
            .unwrap();
    let key = SigningKey::from_seed(&seed);
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(hex::encode(key.public_key().as_bytes()), public);
    assert_eq!(key.seed(), &seed);
    assert_eq!(format!("{key:?}"), format!("SigningKey({public})"));
    let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
    assert_eq!(hex::encode(key.sign(b"")), signature);
}

#[test]
fn a_key_id_is_the_start_of_a_hash_and_has_one_spelling() {
    let key = signing_key(5);
    let id = key_id(key.public_key());
    assert_eq!(id, KeyId::of(&public_key(5)));
    // Python: hashlib.sha256(bytes.fromhex("6e7a1cdd...")).hexdigest()[:32]
    assert_eq!(id.to_string(), "7599776c3085e3f9da0d13071eb0b4ab");
    let text = id.to_string();
    assert_eq!(text.len(), 32);
    assert_eq!(text.parse(), Ok(id));
    let upper = "AB".repeat(16);
    for bad in [
        "",
        &text[1..],
        &format!("{text}0"),
        &upper,
        &"zz".repeat(16),
    ] {
        assert!(bad.parse::<KeyId>().is_err(), "{bad}");
    }
    assert_eq!("ab".repeat(16).parse(), Ok(KeyId::new([0xab; 16])));
    // SHA-256 of "abc" begins so.
    let abc = PrincipalHash::of("abc").to_string();
    assert_eq!(abc, "ba7816bf8f01cfea414140de5dae2223");
}

#[test]
fn what_is_not_signed_does_not_verify() {
    let key = signing_key(5);
    let signature = sign(&key, PayloadType::Unspecified, b"payload");
    let refused = verify(
        key.public_key(),
        PayloadType::Unspecified,
        b"payload",
        &signature,
    );
    assert_eq!(refused, Err(SignatureError::PayloadType));
}

/// A payload's signature is never a proof of possession, nor the other way round.
#[test]
fn possession_is_no_payload() {
    let key = signing_key(5);
    let possession = Possession {
        ledger_id: crate::fixtures::LEDGER,
        public_key: key.public_key().as_bytes(),
        role: KeyRole::Importer,
        producer: "a:b",
        controller: "c:d",
    };
    let wanted = format!(
        "deed/key-possession/v1\n{}\n{}\n6\na:b\nc:d\n",
        "11".repeat(32),
        hex::encode(public_key(5))
    );
    assert_eq!(possession.message(), wanted.as_bytes());
    let signature = sign(&key, PayloadType::Statement, &possession.message());
    possession.verify(&signature).unwrap_err();
    let signature = possession.sign(&key);
    possession.verify(&signature).unwrap();
    for payload_type in [PayloadType::Statement, PayloadType::BatchManifest] {
        verify(
            key.public_key(),
            payload_type,
            &possession.message(),
            &signature,
        )
        .unwrap_err();
    }
}

/// Each line counts.
#[test]
fn possession_is_of_one_registration() {
    let key = signing_key(5);
    let other = public_key(6);
    let own = Possession {
        ledger_id: crate::fixtures::LEDGER,
        public_key: key.public_key().as_bytes(),
        role: KeyRole::Agent,
        producer: "a:b",
        controller: "c:d",
    };
    let signature = own.sign(&key);
    let others = [
        Possession {
            ledger_id: LedgerId::new(Hash::new([0x12; 32])),
            ..own
        },
        Possession {
            public_key: &other,
            ..own
        },
        Possession {
            role: KeyRole::Approver,
            ..own
        },
        Possession {
            producer: "a:bc",
            ..own
        },
        Possession {
            controller: "c:de",
            ..own
        },
        // The neutral element: nobody's key, and everybody's.
        Possession {
            public_key: &[
                1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0,
            ],
            ..own
        },
    ];
    own.verify(&signature).unwrap();
    for other in others {
        let refused = SignatureError::Mismatch {
            key_id: KeyId::of(other.public_key),
        };
        assert_eq!(other.verify(&signature), Err(refused), "{other:?}");
    }
}

proptest! {
    #[test]
    fn no_bit_of_payload_or_signature_may_change(
        payload in vec(any::<u8>(), 1..300),
        seed in any::<u8>(),
        manifest in any::<bool>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let types = [PayloadType::Statement, PayloadType::BatchManifest];
        let (own, other) = (types[usize::from(manifest)], types[usize::from(!manifest)]);
        let key = signing_key(seed);
        let signature = sign(&key, own, &payload);
        let holds = |payload_type, payload: &[u8], signature: &[u8; 64]| {
            verify(key.public_key(), payload_type, payload, signature).is_ok()
        };
        prop_assert!(holds(own, &payload, &signature));
        prop_assert!(!holds(other, &payload, &signature), "a manifest is no statement");
        let mut changed = payload.clone();
        changed[at.index(payload.len())] ^= 1 << bit;
        prop_assert!(!holds(own, &changed, &signature));
        let mut changed = signature;
        changed[at.index(64)] ^= 1 << bit;
        prop_assert!(!holds(own, &payload, &changed));
        let another = signing_key(seed.wrapping_add(1));
        prop_assert!(verify(another.public_key(), own, &payload, &signature).is_err());
    }
}
