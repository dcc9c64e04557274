//! Signed notes.

use deed_tlog::{
    Cosigner, KeyError, KeyName, NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, NoteError, NoteSigner,
    PosixSeconds, SignatureError, SignedNote, VerifierKey,
};
use proptest::prelude::*;

const NOTE: &str = include_str!("../golden/note.txt");
const SIGNED: &str = include_str!("../golden/checkpoint.txt");

fn log() -> NoteSigner {
    NoteSigner::parse(include_str!("../golden/log.skey")).unwrap()
}

fn witness() -> Cosigner {
    Cosigner::parse(include_str!("../golden/w1.skey")).unwrap()
}

fn seconds(seconds: u64) -> PosixSeconds {
    PosixSeconds::new(seconds).unwrap()
}

#[test]
fn golden_note() {
    let note = SignedNote::parse(NOTE.as_bytes()).unwrap();
    assert_eq!(note.to_string(), NOTE);
    assert_eq!(
        note.text(),
        "Erste Zeile\n\nnach einer Leerzeile \u{2014} mit Strich\n"
    );
    let [ours, theirs] = note.signatures() else {
        panic!("two signatures")
    };
    assert_eq!(
        (ours.name(), ours.id()),
        (log().name(), log().verifier_key().id())
    );
    assert_eq!(theirs.name().as_str(), "other");
    let verified = note.verify([log().verifier_key()]).unwrap().len();
    assert_eq!(verified, 1, "the other key is not known");
    let alone = SignedNote::sign(note.text(), &log()).unwrap();
    assert_eq!(alone.signatures(), &note.signatures()[..1]);
}

#[test]
fn malformed_notes() {
    let signature = SIGNED.rsplit("\n\n").next().unwrap();
    let name_error = |cause| NoteError::SignatureName { line: 1, cause };
    for (note, error) in [
        (String::new(), NoteError::NoBlankLine),
        ("text\n".into(), NoteError::NoBlankLine),
        (signature.into(), NoteError::NoBlankLine),
        (format!("text\n{signature}"), NoteError::NoBlankLine),
        ("text\n\n".into(), NoteError::NoSignatures),
        (
            format!("text\n\n{}", signature.trim_end()),
            NoteError::SignatureEnd,
        ),
        (format!("text\n\n{signature}\n"), NoteError::NoSignatures),
        (
            format!("text\n\n{signature}x\n"),
            NoteError::SignatureForm { line: 2 },
        ),
        (
            format!("text\n\n- {}", &signature[4..]),
            NoteError::SignatureForm { line: 1 },
        ),
        (
            format!("text\n\n {signature}"),
            NoteError::SignatureForm { line: 1 },
        ),
        (
            format!("text\n\n\u{2014}{}", &signature[4..]),
            NoteError::SignatureForm { line: 1 },
        ),
        (
            "text\n\n\u{2014} name\n".into(),
            NoteError::SignatureForm { line: 1 },
        ),
        (
            "text\n\n\u{2014}  AAAAAAA=\n".into(),
            name_error(KeyError::EmptyName),
        ),
        (
            "text\n\n\u{2014} a+b AAAAAAA=\n".into(),
            name_error(KeyError::NameCharacter { found: '+' }),
        ),
        (
            "text\n\n\u{2014} a\u{2003}b AAAAAAA=\n".into(),
            name_error(KeyError::NameCharacter { found: '\u{2003}' }),
        ),
        (
            "text\n\n\u{2014} name AAAAAA==\n".into(),
            NoteError::SignatureTooShort { line: 1, found: 4 },
        ),
        (
            "text\n\n\u{2014} name \n".into(),
            NoteError::SignatureTooShort { line: 1, found: 0 },
        ),
        (
            format!("te\txt\n\n{signature}"),
            NoteError::ControlCharacter {
                found: '\t',
                offset: 2,
            },
        ),
        (
            format!("text\r\n\r\n{signature}"),
            NoteError::ControlCharacter {
                found: '\r',
                offset: 4,
            },
        ),
        (
            format!("text\0\n\n{signature}"),
            NoteError::ControlCharacter {
                found: '\0',
                offset: 4,
            },
        ),
    ] {
        assert_eq!(SignedNote::parse(note.as_bytes()), Err(error), "{note:?}");
    }
    for base64 in ["AAAAAAA", "AAAAAAB=", "AAAAAAA= ", "AAAA AAA=", "AAAAAA_="] {
        let note = format!("text\n\n\u{2014} name {base64}\n");
        let error = SignedNote::parse(note.as_bytes()).unwrap_err();
        assert!(
            matches!(error, NoteError::SignatureBase64 { line: 1, .. }),
            "{base64}: {error}"
        );
    }
    let not_utf8 = [b"te\xffxt\n\n", signature.as_bytes()].concat();
    assert_eq!(
        SignedNote::parse(&not_utf8),
        Err(NoteError::NotUtf8 { valid_up_to: 2 })
    );
}

#[test]
fn sizes_are_bounded() {
    let line = |i: usize| format!("\u{2014} key-{i} AAAAAAA=\n");
    let note = |count: usize| format!("text\n\n{}", (0..count).map(line).collect::<String>());
    for count in [1, 16, NOTE_SIGNATURES_MAX] {
        let parsed = SignedNote::parse(note(count).as_bytes()).unwrap();
        assert_eq!(parsed.signatures().len(), count);
    }
    let too_many = note(NOTE_SIGNATURES_MAX + 1);
    assert_eq!(
        SignedNote::parse(too_many.as_bytes()),
        Err(NoteError::TooManySignatures)
    );

    let mut full = SignedNote::parse(note(NOTE_SIGNATURES_MAX).as_bytes()).unwrap();
    assert_eq!(
        full.cosign(&witness(), seconds(1)),
        Err(NoteError::TooManySignatures)
    );
    let present = full.signatures()[3].clone();
    assert_eq!(full.push_signature(present), Ok(()), "it is there already");

    let long = vec![b'\n'; NOTE_BYTES_MAX + 1];
    assert_eq!(
        SignedNote::parse(&long),
        Err(NoteError::TooLong {
            found: NOTE_BYTES_MAX + 1
        })
    );
    assert_eq!(SignedNote::parse(&long[1..]), Err(NoteError::NoSignatures));
}

#[test]
fn what_cannot_be_signed() {
    assert_eq!(SignedNote::sign("text", &log()), Err(NoteError::TextEnd));
    assert_eq!(SignedNote::sign("", &log()), Err(NoteError::TextEnd));
    let tab = NoteError::ControlCharacter {
        found: '\t',
        offset: 1,
    };
    assert_eq!(SignedNote::sign("a\tb\n", &log()), Err(tab));
}

#[test]
fn which_signatures_count() {
    let log = log();
    let known = log.verifier_key();
    let stranger = NoteSigner::from_seed(KeyName::new("stranger").unwrap(), &[9; 32]);
    let namesake = NoteSigner::from_seed(log.name().clone(), &[9; 32]);
    let mut note = SignedNote::sign("text\n", &stranger).unwrap();
    let none = Err(NoteError::NoKnownSignature { found: 1 });
    assert_eq!(note.verify([known]), none);
    assert_eq!(note.verify([]), none);

    // The name alone is not enough, nor is the id: such signatures are ignored, bad or not.
    note.push_signature(SignedNote::sign("other\n", &namesake).unwrap().signatures()[0].clone())
        .unwrap();
    assert_eq!(
        note.verify([known]),
        Err(NoteError::NoKnownSignature { found: 2 })
    );
    note.push_signature(SignedNote::sign("text\n", &log).unwrap().signatures()[0].clone())
        .unwrap();
    assert_eq!(note.verify([known]).unwrap().len(), 1);
    assert_eq!(
        note.verify([known, known]).unwrap().len(),
        1,
        "the same key twice is one key"
    );

    // A bad signature by a known key rejects the note, whatever else is in it.
    let bad = SignedNote::sign("other\n", &stranger).unwrap().signatures()[0].clone();
    note.push_signature(bad).unwrap();
    assert_eq!(note.verify([known]).unwrap().len(), 1);
    assert_eq!(
        note.verify([known, stranger.verifier_key()]),
        Err(NoteError::BadSignature {
            name: stranger.name().clone(),
            cause: SignatureError::Mismatch
        })
    );
}

#[test]
fn colliding_keys_are_ambiguous() {
    // Two keys of one name whose ids, of 32 bits, collide; found by trying some 80,000 seeds.
    let name = KeyName::new("n").unwrap();
    let [one, other] = [COLLISION.0, COLLISION.1].map(|i: u64| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&i.to_be_bytes());
        NoteSigner::from_seed(name.clone(), &seed)
    });
    assert_ne!(one.verifier_key(), other.verifier_key());
    assert_eq!(one.verifier_key().id(), other.verifier_key().id());
    let note = SignedNote::sign("text\n", &one).unwrap();
    assert_eq!(note.verify([one.verifier_key()]).unwrap().len(), 1);
    assert_eq!(
        note.verify([one.verifier_key(), other.verifier_key()]),
        Err(NoteError::AmbiguousKey {
            name,
            id: one.verifier_key().id()
        })
    );
}

const COLLISION: (u64, u64) = (37_629, 61_096);

proptest! {
    #[test]
    fn any_text_signs_prints_parses_and_verifies(
        text in "[^\\x00-\\x1f]{0,40}(\n[^\\x00-\\x1f]{0,20}){0,5}",
        name in "[^\\x00-\\x20+\\s]{1,20}",
        seed in any::<[u8; 32]>(),
    ) {
        let signer = NoteSigner::from_seed(KeyName::new(name).unwrap(), &seed);
        let note = SignedNote::sign(format!("{text}\n"), &signer).unwrap();
        let parsed = SignedNote::parse(note.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&parsed, &note);
        prop_assert_eq!(parsed.verify([signer.verifier_key()]).unwrap().len(), 1);
        let key = VerifierKey::parse(&signer.verifier_key().to_string()).unwrap();
        prop_assert_eq!(&key, signer.verifier_key());
        let again = NoteSigner::parse(&signer.to_private_key()).unwrap();
        prop_assert_eq!(again.verifier_key(), signer.verifier_key());
    }

}
