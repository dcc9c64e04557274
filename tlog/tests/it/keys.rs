//! Verifier keys, private keys and names.

use deed_tlog::{
    Cosigner, KeyError, KeyName, NoteSigner, Origin, PublicKey, SignatureError, SignatureType,
    SignedNote, VerifierKey,
};

// The example keys and note of golang.org/x/mod/sumdb/note, and the key of Go's checksum
// database: made by an implementation that this one has nothing to do with.
const PETER_VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_SIGNER: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const GO_SUMDB: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

#[test]
fn keys_and_notes_of_go() {
    let key = VerifierKey::parse(PETER_VERIFIER).unwrap();
    assert_eq!(key.to_string(), PETER_VERIFIER);
    assert_eq!(key.name().as_str(), "PeterNeumann");
    assert_eq!(key.id().to_string(), "c74f20a3");
    assert_eq!(key.signature_type(), SignatureType::Ed25519);

    let signer = NoteSigner::parse(PETER_SIGNER).unwrap();
    assert_eq!(signer.to_private_key(), PETER_SIGNER);
    assert_eq!(*signer.verifier_key(), key);

    let note = SignedNote::parse(PETER_NOTE.as_bytes()).unwrap();
    assert_eq!(note.to_string(), PETER_NOTE);
    assert_eq!(note.verify([&key]).unwrap().len(), 1);
    // Ed25519 is deterministic, so signing again gives the very same note.
    assert_eq!(SignedNote::sign(note.text(), &signer).unwrap(), note);

    let sumdb = VerifierKey::parse(GO_SUMDB).unwrap();
    assert_eq!(sumdb.to_string(), GO_SUMDB);
}

#[test]
fn golden_keys() {
    let log = NoteSigner::parse(include_str!("../golden/log.skey")).unwrap();
    assert_eq!(log.to_private_key(), include_str!("../golden/log.skey"));
    assert_eq!(
        log.verifier_key().to_string(),
        include_str!("../golden/log.vkey")
    );
    let seed: [u8; 32] = std::array::from_fn(|i| i as u8);
    let origin = Origin::new("deed.example/logs/golden").unwrap();
    assert_eq!(
        NoteSigner::from_seed(&origin, &seed).verifier_key(),
        log.verifier_key()
    );

    let witness = Cosigner::parse(include_str!("../golden/w1.skey")).unwrap();
    assert_eq!(witness.to_private_key(), include_str!("../golden/w1.skey"));
    assert_eq!(
        witness.verifier_key().to_string(),
        include_str!("../golden/w1.vkey")
    );
    let seed = std::array::from_fn(|i| 32 + i as u8);
    let name = KeyName::new("witness.example/w1").unwrap();
    assert_eq!(
        Cosigner::from_seed(name, &seed).verifier_key(),
        witness.verifier_key()
    );
}

#[test]
fn a_key_has_one_purpose() {
    assert_eq!(
        NoteSigner::parse(include_str!("../golden/w1.skey")).unwrap_err(),
        KeyError::UnsupportedType { found: 4 }
    );
    assert_eq!(
        Cosigner::parse(include_str!("../golden/log.skey")).unwrap_err(),
        KeyError::UnsupportedType { found: 1 }
    );
}

#[test]
fn debug_shows_no_seed() {
    let log = NoteSigner::parse(PETER_SIGNER).unwrap();
    let witness = Cosigner::parse(include_str!("../golden/w1.skey")).unwrap();
    let printed = format!("{log:?} {log:#?} {witness:?} {witness:#?}");
    for secret in [PETER_SIGNER, include_str!("../golden/w1.skey")] {
        let seed = secret.splitn(5, '+').last().unwrap();
        // Neither as base64 nor as decimal or hex bytes, which is how derives print them.
        assert!(!printed.contains(&seed[4..20]), "{printed}");
    }
    assert!(
        !printed.contains("32, 33, 34") && !printed.contains("202122"),
        "{printed}"
    );
    assert!(printed.contains("PeterNeumann+c74f20a3"), "{printed}");
}

#[test]
fn malformed_keys() {
    use KeyError::{Form, IdForm, NoMaterial, Prefix, UnsupportedType};
    let key = PETER_VERIFIER;
    for (text, error) in [
        ("", Form),
        ("PeterNeumann", Form),
        ("PeterNeumann+c74f20a3", Form),
        ("+c74f20a3+AQ==", KeyError::EmptyName),
        (
            "Peter Neumann+c74f20a3+AQ==",
            KeyError::NameCharacter { found: ' ' },
        ),
        (
            "Peter\u{a0}Neumann+c74f20a3+AQ==",
            KeyError::NameCharacter { found: '\u{a0}' },
        ),
        (
            "Peter\u{85}Neumann+c74f20a3+AQ==",
            KeyError::NameCharacter { found: '\u{85}' },
        ),
        (
            "Peter\nNeumann+c74f20a3+AQ==",
            KeyError::NameCharacter { found: '\n' },
        ),
        (
            "Peter\0Neumann+c74f20a3+AQ==",
            KeyError::NameCharacter { found: '\0' },
        ),
        ("PeterNeumann+c74f20a+AQ==", IdForm),
        ("PeterNeumann+c74f20a30+AQ==", IdForm),
        ("PeterNeumann+C74F20A3+AQ==", IdForm),
        ("PeterNeumann++c74f20a+AQ==", IdForm),
        ("PeterNeumann+c74f20a3+", NoMaterial),
        ("PeterNeumann+c74f20a3+Ag==", UnsupportedType { found: 2 }),
        ("PeterNeumann+c74f20a3+Bg==", UnsupportedType { found: 6 }),
        ("PeterNeumann+c74f20a3+/w==", UnsupportedType { found: 255 }),
        (
            "PeterNeumann+c74f20a3+AQ==",
            KeyError::Length {
                found: 0,
                wanted: 32,
            },
        ),
        (PETER_SIGNER, Prefix),
    ] {
        assert_eq!(VerifierKey::parse(text), Err(error), "{text:?}");
    }
    for text in [
        key.replace('/', "_"),
        key.replace("10TW", "10TX=="),
        format!("{key}\n"),
        format!("{key}="),
        format!("{key}AAAA"),
        format!(" {key}"),
    ] {
        assert!(VerifierKey::parse(&text).is_err(), "{text:?}");
    }
    assert!(matches!(
        VerifierKey::parse(&key.replace("c74f20a3", "c74f20a4")),
        Err(KeyError::IdMismatch { .. })
    ));
    assert!(matches!(
        VerifierKey::parse(&key.replace("Peter", "Petra")),
        Err(KeyError::IdMismatch { .. })
    ));
    assert_eq!(NoteSigner::parse(PETER_VERIFIER).unwrap_err(), Prefix);
    assert_eq!(
        UnsupportedType { found: 6 }.to_string(),
        "signature type 0x06 (ML-DSA-44 cosignature) is not supported here"
    );
}

#[test]
fn weak_keys_are_no_keys() {
    let small_order = base64_of([&[1, 1][..], &[0; 31]].concat());
    let text = format!("weak+00000000+{small_order}");
    assert_eq!(
        VerifierKey::parse(&text),
        Err(KeyError::PublicKey(SignatureError::SmallOrderKey))
    );
    assert!(PublicKey::from_bytes(&[0xff; 32]).is_err());
}

fn base64_of(bytes: Vec<u8>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
