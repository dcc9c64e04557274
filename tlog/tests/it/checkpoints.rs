//! Checkpoints and cosignatures.

use deed_tlog::{
    Checkpoint, CheckpointError, Cosigner, DecimalError, KeyError, KeyName, NoteError,
    NoteSignature, NoteSigner, Origin, PosixSeconds, SignedNote, TreeHead, TreeSize, VerifierKey,
};
use proptest::prelude::*;

use crate::reference::{self, leaves};

const SIGNED: &str = include_str!("../golden/checkpoint.txt");
const COSIGNED: &str = include_str!("../golden/cosigned.txt");

fn log() -> NoteSigner {
    NoteSigner::parse(include_str!("../golden/log.skey")).unwrap()
}

fn witness() -> Cosigner {
    Cosigner::parse(include_str!("../golden/w1.skey")).unwrap()
}

fn seconds(seconds: u64) -> PosixSeconds {
    PosixSeconds::new(seconds).unwrap()
}

fn golden_checkpoint() -> Checkpoint {
    let origin = Origin::new("deed.example/logs/golden").unwrap();
    Checkpoint::new(
        origin,
        TreeHead::new(TreeSize::new(300), reference::root(&leaves(300))),
    )
}

#[test]
fn golden_checkpoint_and_cosignatures() {
    let checkpoint = golden_checkpoint();
    assert_eq!(
        checkpoint.head.root.to_string(),
        include_str!("../golden/root-300.hex")
    );
    let mut note = checkpoint.sign(&log()).unwrap();
    assert_eq!(note.to_string(), SIGNED);

    let (opened, signed) = Checkpoint::open(COSIGNED.as_bytes(), log().verifier_key()).unwrap();
    assert_eq!(opened, checkpoint);
    assert_eq!(signed.signatures().len(), 4);
    assert_eq!(signed.signatures()[0], note.signatures()[0]);

    note.cosign(&witness(), seconds(1_700_000_000)).unwrap();
    assert!(COSIGNED.starts_with(&note.to_string()));
    let witness = witness();
    let verified = signed.verify([witness.verifier_key()]).unwrap();
    assert_eq!(verified[0].time, Some(seconds(1_700_000_000)));

    // What a witness answers are the lines alone.
    let lines = COSIGNED.strip_prefix(SIGNED).unwrap();
    let lines = NoteSignature::parse_lines(lines.as_bytes()).unwrap();
    let mut bare = SignedNote::parse(SIGNED.as_bytes()).unwrap();
    for (line, file) in lines.into_iter().zip([
        include_str!("../golden/w1.vkey"),
        include_str!("../golden/w2.vkey"),
        include_str!("../golden/w3.vkey"),
    ]) {
        let key = VerifierKey::parse(file).unwrap();
        let wrong = bare.push_verified(line.clone(), log().verifier_key());
        assert_eq!(wrong, Err(NoteError::NoKnownSignature { found: 1 }));
        assert!(bare.push_verified(line, &key).unwrap().is_some());
    }
    assert_eq!(bare.to_string(), COSIGNED);
}

#[test]
fn a_log_signs_under_its_own_name() {
    let other = NoteSigner::from_seed(KeyName::new("other").unwrap(), &[7; 32]);
    assert!(matches!(
        golden_checkpoint().sign(&other),
        Err(CheckpointError::KeyName { .. })
    ));
}

#[test]
fn malformed_cosignatures() {
    let key = witness().verifier_key().clone();
    let good = witness().cosign("text\n", seconds(5));
    let line = |bytes: &[u8]| {
        let text = good.to_string();
        let prefix = text.rsplit_once(' ').unwrap().0;
        let bytes = [key.id().as_bytes().as_slice(), bytes].concat();
        let text = format!("text\n\n{prefix} {}\n", base64_of(&bytes));
        SignedNote::parse(text.as_bytes()).unwrap()
    };
    let verify = |bytes: &[u8]| line(bytes).verify([&key]).map(|v| v[0].time.unwrap().get());
    let bytes = good.signature();
    assert_eq!(bytes.len(), 72);
    assert_eq!(verify(bytes), Ok(5));
    for wrong in [
        &bytes[..71],
        &bytes[..64],
        &bytes[8..],
        &[bytes, &[0]].concat(),
    ] {
        assert!(matches!(
            verify(wrong),
            Err(NoteError::SignatureLength { wanted: 72, .. })
        ));
    }
    let mut later = bytes.to_vec();
    later[7] = 6;
    assert!(matches!(
        verify(&later),
        Err(NoteError::BadSignature { .. })
    ));
    later[0] = 0x80;
    assert!(matches!(
        verify(&later),
        Err(NoteError::CosignatureTime { .. })
    ));
    assert!(PosixSeconds::new(1 << 63).is_err());
    assert!(PosixSeconds::new((1 << 63) - 1).is_ok());
    // The same seed signing plainly: neither signature passes for the other.
    let seed = std::array::from_fn(|i| 32 + i as u8);
    let plain = NoteSigner::from_seed(key.name().clone(), &seed);
    assert_eq!(plain.verifier_key().public_key(), key.public_key());
    let plainly_signed = SignedNote::sign("text\n", &plain).unwrap();
    let stamped = [&bytes[..8], plainly_signed.signatures()[0].signature()].concat();
    assert!(matches!(
        verify(&stamped),
        Err(NoteError::BadSignature { .. })
    ));
    let own = plainly_signed.to_string();
    let (start, _) = own.rsplit_once(' ').unwrap();
    let unstamped = [plain.verifier_key().id().as_bytes().as_slice(), &bytes[8..]].concat();
    let forged = format!("{start} {}\n", base64_of(&unstamped));
    let forged = SignedNote::parse(forged.as_bytes()).unwrap();
    assert!(matches!(
        forged.verify([plain.verifier_key()]),
        Err(NoteError::BadSignature { .. })
    ));
}

#[test]
fn malformed_checkpoints() {
    let root = golden_checkpoint().head.root.to_base64();
    for (text, error) in [
        (String::new(), CheckpointError::MissingLines),
        ("o\n".into(), CheckpointError::MissingLines),
        ("o\n1\n".into(), CheckpointError::MissingLines),
        (format!("o\n1\n{root}"), CheckpointError::MissingLines),
        (
            format!("o\n1\n{root}\nextension\n"),
            CheckpointError::ExtensionLines,
        ),
        (format!("o\n1\n{root}\n\n"), CheckpointError::ExtensionLines),
        (format!("o\n1\n{root}\nx"), CheckpointError::ExtensionLines),
        (
            format!("\n1\n{root}\n"),
            CheckpointError::Origin(KeyError::EmptyName),
        ),
        (
            format!("o o\n1\n{root}\n"),
            CheckpointError::Origin(KeyError::NameCharacter { found: ' ' }),
        ),
        (
            format!("o+\n1\n{root}\n"),
            CheckpointError::Origin(KeyError::NameCharacter { found: '+' }),
        ),
        (
            format!("o\n\n{root}\n"),
            CheckpointError::Size(DecimalError::NotDigits),
        ),
        (
            format!("o\n-1\n{root}\n"),
            CheckpointError::Size(DecimalError::NotDigits),
        ),
        (
            format!("o\n+1\n{root}\n"),
            CheckpointError::Size(DecimalError::NotDigits),
        ),
        (
            format!("o\n1 \n{root}\n"),
            CheckpointError::Size(DecimalError::NotDigits),
        ),
        (
            format!("o\n01\n{root}\n"),
            CheckpointError::Size(DecimalError::LeadingZero),
        ),
        (
            format!("o\n00\n{root}\n"),
            CheckpointError::Size(DecimalError::LeadingZero),
        ),
        (
            format!("o\n18446744073709551616\n{root}\n"),
            CheckpointError::Size(DecimalError::TooLarge),
        ),
    ] {
        assert_eq!(Checkpoint::parse(&text), Err(error), "{text:?}");
    }
    for root in [
        &root[..43],
        &format!("{root}="),
        &format!(" {root}"),
        "",
        "AAAA",
    ] {
        let error = Checkpoint::parse(&format!("o\n1\n{root}\n")).unwrap_err();
        assert!(matches!(error, CheckpointError::Root(_)), "{error}");
    }
}

#[test]
fn a_checkpoint_opens_with_its_own_key_only() {
    let log = log();
    let namesake = NoteSigner::from_seed(log.name().clone(), &[9; 32]);
    let open = |note: &str, key: &VerifierKey| Checkpoint::open(note.as_bytes(), key);
    assert!(open(SIGNED, log.verifier_key()).is_ok());
    assert!(matches!(
        open(SIGNED, namesake.verifier_key()),
        Err(CheckpointError::Note(NoteError::NoKnownSignature { .. }))
    ));
    assert!(matches!(
        open(COSIGNED, witness().verifier_key()),
        Err(CheckpointError::KeyType { .. })
    ));
    // A key that signs the checkpoint of another log, as it may by mistake.
    let other = NoteSigner::from_seed(KeyName::new("other").unwrap(), &[7; 32]);
    let borrowed = SignedNote::sign(golden_checkpoint().to_text(), &other).unwrap();
    assert!(matches!(
        open(&borrowed.to_string(), other.verifier_key()),
        Err(CheckpointError::KeyName { .. })
    ));
    let tampered = SIGNED.replace("\n300\n", "\n301\n");
    assert!(matches!(
        open(&tampered, log.verifier_key()),
        Err(CheckpointError::Note(NoteError::BadSignature { .. }))
    ));
}

proptest! {
    #[test]
    fn no_flipped_bit_of_a_checkpoint_is_accepted(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut note = SIGNED.as_bytes().to_vec();
        let at = at.index(note.len());
        note[at] ^= 1 << bit;
        prop_assert!(Checkpoint::open(&note, log().verifier_key()).is_err());
    }

    #[test]
    fn checkpoints_print_and_parse(size in any::<u64>(), root in any::<[u8; 32]>()) {
        let head = TreeHead::new(TreeSize::new(size), root.into());
        let checkpoint = Checkpoint::new(golden_checkpoint().origin, head);
        prop_assert_eq!(Checkpoint::parse(&checkpoint.to_text()), Ok(checkpoint));
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
