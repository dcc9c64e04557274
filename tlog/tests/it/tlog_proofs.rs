//! Offline proofs.

use deed_tlog::{
    DecimalError, InclusionProof, LeafIndex, NoteError, Policy, PolicyError, ProofTooLong,
    SignedNote, TLOG_PROOF_BYTES_MAX, TlogProof, TlogProofError, VerifyError, leaf_hash,
};
use proptest::prelude::*;

use crate::reference::{self, leaves};

const GOLDEN: &str = include_str!("../golden/proof.tlog-proof");
const COSIGNED: &str = include_str!("../golden/cosigned.txt");

fn policy() -> Policy {
    Policy::parse(include_str!("../golden/policy.txt")).unwrap()
}

fn golden() -> TlogProof {
    TlogProof {
        extra: Some(b"opaque".to_vec()),
        index: LeafIndex::new(137),
        proof: InclusionProof::from_hashes(reference::path(137, &leaves(300))).unwrap(),
        checkpoint: SignedNote::parse(COSIGNED.as_bytes()).unwrap(),
    }
}

#[test]
fn golden_proof() {
    let proof = TlogProof::parse(GOLDEN.as_bytes()).unwrap();
    assert_eq!(proof, golden());
    assert_eq!(proof.to_string(), GOLDEN);
    let verified = proof.verify(&leaf_hash(b"entry 137"), &policy()).unwrap();
    assert_eq!(verified.cosigned_by.len(), 3);
}

#[test]
fn extra_data_is_optional() {
    let mut proof = golden();
    for extra in [None, Some(Vec::new()), Some(vec![0, 255])] {
        proof.extra = extra;
        assert_eq!(
            TlogProof::parse(proof.to_string().as_bytes()),
            Ok(proof.clone())
        );
    }
}

#[test]
fn what_does_not_hold() {
    let leaf = leaf_hash(b"entry 137");
    assert!(matches!(
        golden().verify(&leaf_hash(b"entry 138"), &policy()),
        Err(TlogProofError::Inclusion(VerifyError::RootMismatch { .. }))
    ));
    let moved = TlogProof {
        index: LeafIndex::new(136),
        ..golden()
    };
    assert!(matches!(
        moved.verify(&leaf, &policy()),
        Err(TlogProofError::Inclusion(_))
    ));
    let beyond = TlogProof {
        index: LeafIndex::new(300),
        ..golden()
    };
    assert!(matches!(
        beyond.verify(&leaf, &policy()),
        Err(TlogProofError::Inclusion(
            VerifyError::IndexOutOfRange { .. }
        ))
    ));
    let unwitnessed = SignedNote::parse(include_bytes!("../golden/checkpoint.txt")).unwrap();
    let unwitnessed = TlogProof {
        checkpoint: unwitnessed,
        ..golden()
    };
    assert!(matches!(
        unwitnessed.verify(&leaf, &policy()),
        Err(TlogProofError::Policy(PolicyError::Quorum { .. }))
    ));
}

#[test]
fn malformed_proofs() {
    let hash = leaf_hash(b"").to_base64();
    let first = "c2sp.org/tlog-proof@v1\n";
    let proof = |lines: &str| format!("{first}{lines}\n{COSIGNED}");
    for (text, error) in [
        (String::new(), TlogProofError::FirstLine),
        (first.trim_end().into(), TlogProofError::FirstLine),
        (GOLDEN.replace("@v1", "@v2"), TlogProofError::FirstLine),
        (format!("\n{GOLDEN}"), TlogProofError::FirstLine),
        (GOLDEN.replacen('\n', "\r\n", 1), TlogProofError::FirstLine),
        (first.into(), TlogProofError::NoIndex),
        (
            proof("index  1\n"),
            TlogProofError::Index(DecimalError::NotDigits),
        ),
        (
            proof("index 01\n"),
            TlogProofError::Index(DecimalError::LeadingZero),
        ),
        (
            proof("index 18446744073709551616\n"),
            TlogProofError::Index(DecimalError::TooLarge),
        ),
        (proof("Index 1\n"), TlogProofError::NoIndex),
        (
            proof("index 1\nextra AA==\n").replace("index 1\nextra", "extra"),
            TlogProofError::NoIndex,
        ),
        (
            proof("extra AA==\nextra AA==\nindex 1\n"),
            TlogProofError::NoIndex,
        ),
        (format!("{first}index 1\n"), TlogProofError::NoCheckpoint),
        (format!("{first}index 1"), TlogProofError::NoIndex),
        (
            format!("{first}index 1\n{hash}\n"),
            TlogProofError::NoCheckpoint,
        ),
        (
            format!("{first}index 1\n\n"),
            TlogProofError::Note(NoteError::NoBlankLine),
        ),
        (
            proof(&format!("index 1\n{}", format!("{hash}\n").repeat(65))),
            TlogProofError::ProofTooLong(ProofTooLong { found: 65, max: 64 }),
        ),
    ] {
        assert_eq!(TlogProof::parse(text.as_bytes()), Err(error), "{text}");
    }
    for extra in ["extra AA=\n", "extra AB==\n", "extra  AA==\n"] {
        let error = TlogProof::parse(proof(&format!("{extra}index 1\n")).as_bytes()).unwrap_err();
        assert!(matches!(error, TlogProofError::Extra(_)), "{error}");
    }
    for line in [&hash[1..], &hash[..43], "x", " "] {
        let text = proof(&format!("index 1\n{hash}\n{line}\n"));
        let error = TlogProof::parse(text.as_bytes()).unwrap_err();
        assert!(
            matches!(error, TlogProofError::Hash { position: 1, .. }),
            "{error}"
        );
    }
    let long = vec![b'\n'; TLOG_PROOF_BYTES_MAX + 1];
    assert!(matches!(
        TlogProof::parse(&long),
        Err(TlogProofError::TooLong { .. })
    ));
    let not_utf8 = [first.as_bytes(), b"\xff"].concat();
    assert_eq!(
        TlogProof::parse(&not_utf8),
        Err(TlogProofError::NotUtf8 {
            valid_up_to: first.len()
        })
    );
}

proptest! {
    #[test]
    fn a_flipped_bit_spoils_a_proof_unless_it_is_in_the_extra_data(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut text = GOLDEN.as_bytes().to_vec();
        let at = at.index(text.len());
        text[at] ^= 1 << bit;
        let leaf = leaf_hash(b"entry 137");
        if let Ok(proof) = TlogProof::parse(&text)
            && proof.verify(&leaf, &policy()).is_ok()
        {
            let same = TlogProof { extra: golden().extra, ..proof.clone() };
            // A witness line whose name or key id was hit is ignored; the quorum holds
            // without it.
            let untouched = same.checkpoint.text() == golden().checkpoint.text()
                && same.index == golden().index
                && same.proof == golden().proof;
            prop_assert!(untouched, "byte {} of {:?}", at, String::from_utf8_lossy(&text));
        }
    }
}
