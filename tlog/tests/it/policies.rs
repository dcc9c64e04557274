//! Trust policies: which checkpoints they accept.

use deed_tlog::{
    Checkpoint, CheckpointError, Cosigner, KeyName, NoteError, NoteSigner, Origin, Policy,
    PolicyError, PolicyParseError, PosixSeconds, SignedNote, TreeHead, TreeSize, VerifierKey,
};

const GOLDEN: &str = include_str!("../golden/policy.txt");
const SIGNED: &[u8] = include_bytes!("../golden/checkpoint.txt");
const COSIGNED: &[u8] = include_bytes!("../golden/cosigned.txt");
const LOG: &str = include_str!("../golden/log.vkey");

fn seconds(seconds: u64) -> PosixSeconds {
    PosixSeconds::new(seconds).unwrap()
}

fn witness(i: u8) -> Cosigner {
    Cosigner::from_seed(KeyName::new(format!("w{i}")).unwrap(), &[i; 32])
}

/// The golden log's checkpoint, cosigned by some of the witnesses.
fn cosigned_by(witnesses: impl IntoIterator<Item = u8>) -> SignedNote {
    let mut note = SignedNote::parse(SIGNED).unwrap();
    for i in witnesses {
        note.cosign(&witness(i), seconds(u64::from(i))).unwrap();
    }
    note
}

/// A policy with the golden log and witnesses 0 to `count - 1`, named `w<i>`.
fn policy(count: u8, rules: &str) -> Result<Policy, PolicyParseError> {
    let witnesses: String = (0..count)
        .map(|i| format!("witness w{i} {}\n", witness(i).verifier_key()))
        .collect();
    Policy::parse(format!("log {LOG}\n{witnesses}{rules}"))
}

#[test]
fn golden_policy() {
    let policy = Policy::parse(GOLDEN).unwrap();
    assert_eq!(policy.logs().len(), 1);
    assert_eq!(
        policy.logs()[0].url.as_deref(),
        Some("https://deed.example/logs/golden")
    );
    let names: Vec<&str> = policy.witnesses().iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["one", "two", "\u{e4}"]);
    assert_eq!(
        policy.witnesses()[1].url.as_deref(),
        Some("https://witness.example/w2")
    );
    assert!(policy.needs_cosignatures());

    let verified = policy.verify_checkpoint(COSIGNED).unwrap();
    assert_eq!(verified.checkpoint.head.size, TreeSize::new(300));
    assert_eq!(verified.log_key.to_string(), LOG);
    let by: Vec<String> = verified
        .cosigned_by
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        by,
        ["one at 1700000000", "two at 1700000001", "\u{e4} at 0"]
    );
    assert_eq!(
        policy.verify_checkpoint(SIGNED),
        Err(PolicyError::Quorum {
            cosigned: 0,
            witnesses: 3
        })
    );
}

#[test]
fn every_quorum_over_every_set_of_witnesses() {
    type Wanted = fn(&[bool; 5]) -> bool;
    fn count(cosigned: &[bool]) -> usize {
        cosigned.iter().filter(|cosigned| **cosigned).count()
    }
    let cases: [(&str, Wanted); 9] = [
        ("quorum none", |_| true),
        ("quorum w3", |c| c[3]),
        ("group g any w0 w1 w2 w3 w4\nquorum g", |c| count(c) >= 1),
        ("group g all w0 w1 w2 w3 w4\nquorum g", |c| count(c) == 5),
        ("group g 3 w0 w1 w2 w3 w4\nquorum g", |c| count(c) >= 3),
        ("group g 1 w4\nquorum g", |c| c[4]),
        (
            "group a 2 w0 w1 w2\ngroup b any w3 w4\ngroup c all a b\nquorum c",
            |c| count(&c[..3]) >= 2 && count(&c[3..]) >= 1,
        ),
        (
            "group a all w0 w1\ngroup b any a w2\ngroup c 2 b w3 w4\nquorum c",
            |c| usize::from((c[0] && c[1]) || c[2]) + count(&c[3..]) >= 2,
        ),
        // A group that is not part of the quorum does not matter.
        ("group a all w0 w1\nquorum w4", |c| c[4]),
    ];
    for (rules, wanted) in cases {
        let policy = policy(5, rules).unwrap();
        for set in 0..32u8 {
            let cosigned = std::array::from_fn(|i| set >> i & 1 == 1);
            let note = cosigned_by((0..5).filter(|i| cosigned[usize::from(*i)]));
            let found = policy.verify_note(&note);
            assert_eq!(found.is_ok(), wanted(&cosigned), "{rules} {cosigned:?}");
            match found {
                Ok(verified) => assert_eq!(verified.cosigned_by.len(), count(&cosigned)),
                Err(error) => assert_eq!(
                    error,
                    PolicyError::Quorum {
                        cosigned: count(&cosigned),
                        witnesses: 5
                    }
                ),
            }
        }
    }
}

#[test]
fn strangers_and_repeated_cosignatures() {
    let policy = policy(2, "group g all w0 w1\nquorum g").unwrap();
    // One witness that cosigns again and again is still one, at its latest time.
    let mut note = cosigned_by([0]);
    for time in [9, 4] {
        note.cosign(&witness(0), seconds(time)).unwrap();
    }
    note.cosign(&witness(77), seconds(1)).unwrap();
    assert_eq!(
        policy.verify_note(&note),
        Err(PolicyError::Quorum {
            cosigned: 1,
            witnesses: 2
        })
    );
    note.cosign(&witness(1), seconds(1)).unwrap();
    let verified = policy.verify_note(&note).unwrap();
    let times: Vec<u64> = verified
        .cosigned_by
        .iter()
        .map(|by| by.time.get())
        .collect();
    assert_eq!(times, [9, 1]);

    // A bad cosignature by a known witness rejects even what has its quorum.
    let wrong = witness(1).cosign("something else\n", seconds(2));
    note.push_signature(wrong).unwrap();
    assert!(matches!(
        policy.verify_note(&note),
        Err(PolicyError::Note(NoteError::BadSignature { .. }))
    ));
}

#[test]
fn which_logs_are_accepted() {
    let other = NoteSigner::from_seed(KeyName::new("other/log").unwrap(), &[5; 32]);
    let rotated = NoteSigner::from_seed(KeyName::new("other/log").unwrap(), &[6; 32]);
    let origin = Origin::new("other/log").unwrap();
    let checkpoint = Checkpoint::new(origin.clone(), TreeHead::EMPTY);
    let note = checkpoint.sign(&other).unwrap();
    let rotated_note = checkpoint.sign(&rotated).unwrap();

    let policy = policy(0, "quorum none").unwrap();
    let unknown = Err(PolicyError::UnknownLog {
        origin: origin.clone(),
    });
    assert_eq!(policy.verify_note(&note), unknown);
    // A log of the policy vouches for its own origin only.
    let golden = NoteSigner::parse(include_str!("../golden/log.skey")).unwrap();
    let foreign = SignedNote::sign(checkpoint.to_text(), &golden).unwrap();
    assert_eq!(policy.verify_note(&foreign), unknown);

    // A log with two keys: either will do.
    let two_keys = format!(
        "log {}\nlog {}\n",
        other.verifier_key(),
        rotated.verifier_key()
    );
    let policy = Policy::parse(two_keys + "quorum none").unwrap();
    assert_eq!(
        policy.verify_note(&note).unwrap().log_key,
        *other.verifier_key()
    );
    assert_eq!(
        policy.verify_note(&rotated_note).unwrap().log_key,
        *rotated.verifier_key()
    );

    // Witnesses alone do not make a checkpoint.
    let w0 = witness(0);
    let policy = format!(
        "log {}\nwitness w {}\nquorum w",
        rotated.verifier_key(),
        w0.verifier_key()
    );
    let policy = Policy::parse(policy).unwrap();
    let mut unsigned = note.clone();
    unsigned.cosign(&w0, seconds(1)).unwrap();
    assert_eq!(
        policy.verify_note(&unsigned),
        Err(PolicyError::NotSignedByLog {
            origin: origin.clone()
        })
    );
    assert_eq!(
        policy.verify_note(&note),
        Err(PolicyError::Note(NoteError::NoKnownSignature { found: 1 }))
    );

    // A policy without logs, for who knows the log from elsewhere.
    let policy = Policy::parse(format!("witness w {}\nquorum w", w0.verifier_key())).unwrap();
    assert_eq!(policy.verify_note(&unsigned), unknown);
    assert!(
        policy
            .verify_note_of(&unsigned, other.verifier_key())
            .is_ok()
    );
    assert_eq!(
        policy.verify_note_of(&unsigned, golden.verifier_key()),
        unknown
    );
    assert!(matches!(
        policy.verify_note_of(&note, other.verifier_key()),
        Err(PolicyError::Quorum { .. })
    ));
    assert!(matches!(
        policy.verify_note_of(&unsigned, w0.verifier_key()),
        Err(PolicyError::Checkpoint(CheckpointError::KeyType { .. }))
    ));
}

#[test]
fn names_are_opaque_octets() {
    let w0 = witness(0).verifier_key().to_string();
    let w1 = witness(1).verifier_key().to_string();
    let text = [
        b"# \xff\nwitness \xff " as &[u8],
        w0.as_bytes(),
        b"\nwitness \xfe ",
        w1.as_bytes(),
        b"\nquorum \xfe\n",
    ]
    .concat();
    let policy = Policy::parse(&text).unwrap();
    let log = VerifierKey::parse(LOG).unwrap();
    assert!(policy.verify_note_of(&cosigned_by([1]), &log).is_ok());
    assert!(policy.verify_note_of(&cosigned_by([0]), &log).is_err());
    // No-break space separates nothing.
    let error = Policy::parse(format!("log\u{a0}{LOG}")).unwrap_err();
    assert!(matches!(error, PolicyParseError::Line { line: 1, .. }));
}

#[test]
fn the_recommended_sizes_are_supported() {
    let mut rules = String::new();
    for i in 0..40 {
        let below = if i == 0 {
            String::new()
        } else {
            format!(" g{}", i - 1)
        };
        rules += &format!("group g{i} all w{i}{below}\n");
    }
    let logs: String = (0..40)
        .map(|i| NoteSigner::from_seed(KeyName::new(format!("log{i}")).unwrap(), &[100 + i; 32]))
        .map(|log| format!("log {}\n", log.verifier_key()))
        .collect();
    let policy = policy(40, &format!("{rules}{logs}quorum g39")).unwrap();
    assert_eq!((policy.logs().len(), policy.witnesses().len()), (41, 40));
    assert!(policy.verify_note(&cosigned_by(0..40)).is_ok());
    assert!(
        policy
            .verify_note(&cosigned_by((0..40).filter(|i| *i != 20)))
            .is_err()
    );
}
