//! Salts and digests equal what another implementation computes.

use deed_evidence::{
    Sequence, SessionId,
    commitment::{Committer, Salt, commit, digest_of, opens},
    statement,
};
use proptest::prelude::*;

fn salt(session: u8, sequence: u64, slot: &str) -> Salt {
    Salt::derive(
        &[0x42; 32],
        SessionId::new([session; 16]),
        Sequence::new(sequence),
        slot,
    )
}

/// Computed with the `blake3` package of PyPI, as `tests/golden/README.md` says.
#[test]
fn golden_values() {
    let cases = [
        (
            salt(0x55, 7, "intent.arguments"),
            &b"intent.arguments"[..],
            "10894a456ae7cd20a1ad42aab844b1e7b51fe8f2b32a4542677e85796a69c4b6",
            "a9b2dae4f40afec0e2046e499fedc1e4b6acbae0961988bc53eba54653130908",
        ),
        (
            salt(0x55, u64::MAX, "outcome.result"),
            b"",
            "415a6bc66ff02bff5c20670a57544303d0f5f55f02d6da5d2c06ef9ff2c1138f",
            "8da1dd5c826aa4b8d781918081a90df3b69fabb30a368a4d97893dc42054b613",
        ),
        (
            salt(0, 0, ""),
            &[0xff; 3000],
            "5f11ae0005c5574ff6f0fc52d7489de5bf408e519eb97e5fa947252e0ec5b801",
            "15e640a48458b9db09fbdde9415db2af3708a2f5c2c29e6866b9b50d083b427f",
        ),
    ];
    for (salt, content, wanted_salt, wanted_digest) in cases {
        assert_eq!(hex::encode(salt.as_bytes()), wanted_salt);
        let commitment = commit(&salt, content, "text/plain");
        assert_eq!(hex::encode(&commitment.digest), wanted_digest);
        assert_eq!(commitment.media_type, "text/plain");
        assert!(opens(&commitment, &salt, content));
    }
}

#[test]
fn every_part_of_a_salt_counts() {
    let base = salt(1, 1, "intent.arguments");
    let other_secret = Salt::derive(
        &[0x43; 32],
        SessionId::new([1; 16]),
        Sequence::new(1),
        "intent.arguments",
    );
    let others = [
        other_secret,
        salt(2, 1, "intent.arguments"),
        salt(1, 2, "intent.arguments"),
        salt(1, 1, "intent.prompt"),
        salt(1, 1, ""),
    ];
    for other in others {
        assert_ne!(base.as_bytes(), other.as_bytes());
    }
    assert_eq!(
        base.as_bytes(),
        salt(1, 1, "intent.arguments").as_bytes(),
        "sending again gives the same bytes"
    );
}

#[test]
fn a_salt_is_not_printed() {
    assert_eq!(format!("{:?}", salt(1, 1, "x")), "Salt(..)");
}

/// In the order of their fields, and with the slots that their salts were derived with.
#[test]
fn the_commitments_of_a_statement() {
    let listed = |made| {
        let payload = statement::encode(&made).unwrap();
        let found = statement::commitments(&payload).unwrap();
        let header = statement::parse(&payload).unwrap();
        assert_eq!(statement::commitments_of(&header, &payload), found);
        assert_eq!(found.is_empty(), found.count() == 0);
        for slot in found {
            let wanted = match slot.slot {
                // A copy of the Intent's.
                "outcome.arguments" => "intent.arguments",
                slot => slot,
            };
            let wanted = crate::fixtures::commitment_of(wanted);
            assert_eq!(slot.digest.as_bytes()[..], wanted.digest, "{}", slot.slot);
            assert_eq!(slot.media_type, wanted.media_type);
        }
        found.map(|slot| slot.slot).collect::<Vec<_>>()
    };
    assert_eq!(
        listed(crate::fixtures::outcome()),
        ["outcome.tool_call", "outcome.response", "outcome.result"]
    );
    // As many as there is room for.
    assert_eq!(
        listed(crate::fixtures::outcome_with_arguments()),
        [
            "outcome.tool_call",
            "outcome.response",
            "outcome.result",
            "outcome.arguments"
        ]
    );
    assert_eq!(listed(crate::fixtures::approval()), ["approval.shown"]);
    assert_eq!(
        listed(crate::fixtures::intent()),
        ["intent.arguments", "intent.prompt"]
    );
    let opened = crate::fixtures::task_opened_committed();
    assert_eq!(listed(opened), ["task_opened.objective_commitment"]);
    assert!(listed(crate::fixtures::task_opened()).is_empty());
    assert!(listed(crate::fixtures::erasure()).is_empty());
    assert!(listed(crate::fixtures::clearance()).is_empty());
    // The middle one left out.
    let mut made = crate::fixtures::outcome();
    if let Some(deed_proto::v1::statement::Body::Outcome(outcome)) = &mut made.body {
        outcome.response = None;
    }
    assert_eq!(listed(made), ["outcome.tool_call", "outcome.result"]);
    // The last one alone.
    let mut made = crate::fixtures::outcome_with_arguments();
    if let Some(deed_proto::v1::statement::Body::Outcome(outcome)) = &mut made.body {
        (outcome.tool_call, outcome.response, outcome.result) = (None, None, None);
    }
    assert_eq!(listed(made), ["outcome.arguments"]);
    assert!(statement::commitments(b"p").is_err());
}

proptest! {
    #[test]
    fn how_a_content_is_cut_makes_no_difference(
        pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..8),
        sequence in any::<u64>(),
    ) {
        let salt = salt(1, sequence, "slot");
        let mut committer = Committer::new(&salt);
        for piece in &pieces {
            committer.update(piece);
        }
        let digest = committer.finalize();
        prop_assert_eq!(digest, digest_of(&Salt::from_bytes(*salt.as_bytes()), &pieces.concat()));
        let made = commit(&salt, &pieces.concat(), "a/b");
        prop_assert_eq!(&made.digest[..], &digest.as_bytes()[..]);
        prop_assert_eq!(format!("{committer:?}"), "Committer(..)");
    }

    #[test]
    fn a_commitment_opens_to_its_content_alone(
        content in proptest::collection::vec(any::<u8>(), 0..200),
        sequence in any::<u64>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let own = salt(1, sequence, "slot");
        let commitment = commit(&own, &content, "text/plain");
        prop_assert!(opens(&commitment, &own, &content));
        prop_assert!(!opens(&commitment, &salt(2, sequence, "slot"), &content));
        prop_assert!(!opens(&commitment, &own, &[&content[..], &[0]].concat()));
        if !content.is_empty() {
            let mut changed = content.clone();
            changed[at.index(content.len())] ^= 1 << bit;
            prop_assert!(!opens(&commitment, &own, &changed));
            prop_assert!(!opens(&commitment, &own, &content[1..]));
        }
        let mut other = commitment.clone();
        let mut digest = other.digest.to_vec();
        digest[at.index(32)] ^= 1 << bit;
        other.digest = digest.into();
        prop_assert!(!opens(&other, &own, &content));
        other.digest = commitment.digest.slice(..31);
        prop_assert!(!opens(&other, &own, &content));
    }

    /// A commitment made here is one that a statement may carry.
    #[test]
    fn a_commitment_keeps_the_rules(content in any::<Vec<u8>>()) {
        let mut made = crate::fixtures::intent();
        if let Some(deed_proto::v1::statement::Body::Intent(intent)) = &mut made.body {
            intent.arguments = Some(commit(&salt(1, 1, "s"), &content, "application/json"));
        }
        prop_assert!(deed_evidence::statement::encode(&made).is_ok());
    }
}
