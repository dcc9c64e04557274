//! Keys, signatures and batches in admission and step: every refusal, and that a replay and other
//! cuts give the same ledger.

mod cuts;

use deed_evidence::{
    Micros,
    entry::Entry,
    policy::{self, DEFAULT_POLICIES, DEFAULT_SCHEMA},
    trust::{KeyRefusal, SpeakerRefusal, TrustRefusal},
};
use deed_proto::v1::{self, PayloadType, rejection::Reason, statement::Body};
use deed_tlog::SigningKey;
use proptest::prelude::*;

use super::{
    step::{Placement, RejectReason},
    step_tests::{ByHand, NUMBER, admit_with, brief, envelope_of},
};
use crate::{
    admission::{Admission, AdmittedBatch, Rejected, Sender},
    store::recover,
    testing::{Authority, Producer, batched, genesis, policy_set, registration, signed},
};

const AGENT: &str = "spiffe://example.org/agent";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Makes a ledger in which `key(1)` speaks for the agent.
fn ledger() -> (ByHand, Authority) {
    let mut ledger = ByHand::new();
    let mut authority = Authority::new(ledger.id);
    let registered = authority.registers(&key(1), AGENT);
    assert_eq!(brief(&say(&mut ledger, 5, &[registered])), ["linked 1"]);
    (ledger, authority)
}

/// Makes one turn of envelopes that admission accepts.
fn say(ledger: &mut ByHand, received_at: i64, envelopes: &[v1::Envelope]) -> Vec<Placement> {
    let batch = admit_with(&ledger.trust, ledger.id, received_at, envelopes);
    ledger.turn(&[batch])
}

fn try_admit(ledger: &ByHand, envelopes: &[v1::Envelope]) -> (AdmittedBatch, Vec<Rejected>) {
    try_admit_from(ledger, &Sender::anybody(), envelopes)
}

fn try_admit_from(
    ledger: &ByHand,
    sender: &Sender,
    envelopes: &[v1::Envelope],
) -> (AdmittedBatch, Vec<Rejected>) {
    Admission {
        ledger_id: ledger.id,
        trust: &ledger.trust,
        sender,
        received_at: Micros::new(5),
        holds_contents: false,
        log_signers: None,
    }
    .admit_here(envelopes)
}

fn reasons(rejected: &[Rejected]) -> Vec<(usize, Reason)> {
    rejected.iter().map(|r| (r.envelope, r.reason)).collect()
}

fn speaker(placements: &[Placement]) -> SpeakerRefusal {
    match placements {
        [Placement::Refused(RejectReason::Speaker(refusal))] => *refusal,
        other => panic!("{other:?}"),
    }
}

fn trust(placements: &[Placement]) -> TrustRefusal {
    match placements {
        [Placement::Refused(RejectReason::Trust(refusal))] => *refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_registered_key_speaks_for_its_producer_and_no_other() {
    let (mut ledger, _) = ledger();
    let mut agent = Producer::new(ledger.id, 1);
    let good = signed(agent.intent("good"), &key(1));
    assert_eq!(brief(&say(&mut ledger, 5, &[good])), ["recorded 2"]);

    let mut other = Producer::new(ledger.id, 2);
    other.producer = "spiffe://example.org/other".to_owned();
    let foreign = signed(other.intent("in another's name"), &key(1));
    assert!(matches!(
        speaker(&say(&mut ledger, 5, &[foreign])),
        SpeakerRefusal::Key(KeyRefusal::OtherProducer { .. })
    ));
}

#[test]
fn admission_refuses_what_no_key_of_the_ledger_signed() {
    let (ledger, mut authority) = ledger();
    let mut agent = Producer::new(ledger.id, 1);
    let mut forged = signed(agent.clone().intent("forged"), &key(1));
    let mut bytes = forged.signature.to_vec();
    bytes[9] ^= 1;
    forged.signature = bytes.into();
    let mut half = signed(agent.clone().intent("half"), &key(1));
    half.key_id = bytes::Bytes::new();
    let mut short = signed(agent.clone().intent("short"), &key(1));
    short.signature.truncate(63);
    // A manifest's bytes are signed as a statement, and a statement's as a manifest.
    let batch = batched(vec![agent.intent("in a batch")], &key(1));
    let as_statement = v1::Envelope {
        payload_type: PayloadType::Statement.into(),
        ..batch[0].clone()
    };
    let unsigned_trust = v1::Envelope {
        key_id: bytes::Bytes::new(),
        signature: bytes::Bytes::new(),
        ..authority.revokes(&key(1))
    };
    let not_by_authority = signed(
        v1::Envelope {
            key_id: bytes::Bytes::new(),
            signature: bytes::Bytes::new(),
            ..authority.revokes(&key(1))
        },
        &key(1),
    );
    let by_authority = signed(
        agent.clone().intent("by the owner"),
        &crate::testing::authority(),
    );
    let mut stolen = registration(ledger.id, &key(2), AGENT);
    stolen.producer = "spiffe://example.org/thief".to_owned();
    let stolen = authority.says(Body::KeyRegistered(stolen));
    for (envelope, reason) in [
        (forged, Reason::SignatureInvalid),
        (half, Reason::Malformed),
        (short, Reason::Malformed),
        (
            signed(agent.intent("nobody's"), &key(9)),
            Reason::KeyUnknown,
        ),
        (as_statement, Reason::Malformed),
        (unsigned_trust, Reason::SignatureRequired),
        (not_by_authority, Reason::KeyNotAllowed),
        (by_authority, Reason::KeyNotAllowed),
        (stolen, Reason::TrustRefused),
    ] {
        let (admitted, rejected) = try_admit(&ledger, &[envelope]);
        assert_eq!(reasons(&rejected), [(0, reason)], "{rejected:?}");
        assert!(admitted.pieces().is_empty());
    }
}

#[test]
fn admission_refuses_policies_that_nothing_can_be_judged_by() {
    let (mut ledger, mut authority) = ledger();
    for (set, field) in [
        (policy_set("permit (principal);"), "policy_set.policies"),
        (
            v1::PolicySet {
                digest: vec![1; 32].into(),
                ..policy_set(DEFAULT_POLICIES)
            },
            "policy_set.digest",
        ),
        (
            v1::PolicySet {
                cedar_version: "1.0".to_owned(),
                ..policy_set(DEFAULT_POLICIES)
            },
            "policy_set.cedar_version",
        ),
    ] {
        let envelope = Authority::new(ledger.id).says(Body::PolicySet(set));
        let (_, rejected) = try_admit(&ledger, &[envelope]);
        assert_eq!(reasons(&rejected), [(0, Reason::PolicyInvalid)]);
        assert_eq!(rejected[0].field, field, "{rejected:?}");
    }
    let good = authority.says(Body::PolicySet(policy_set(DEFAULT_POLICIES)));
    assert_eq!(brief(&say(&mut ledger, 5, &[good])), ["linked 2"]);
    let trust = ledger.trust.read();
    let in_force = trust.policy().map(|policy| policy.policy.digest());
    assert_eq!(
        in_force,
        Some(policy::digest(DEFAULT_POLICIES, DEFAULT_SCHEMA))
    );
}

#[test]
fn a_producer_with_a_key_is_not_taken_unsigned() {
    let (mut ledger, mut authority) = ledger();
    let mut agent = Producer::new(ledger.id, 1);
    let unsigned = agent.intent("unsigned");
    assert_eq!(
        speaker(&say(&mut ledger, 5, std::slice::from_ref(&unsigned))),
        SpeakerRefusal::SignatureRequired
    );
    // The signature is still required after the only key has ended.
    let revoked = authority.revokes(&key(1));
    assert_eq!(brief(&say(&mut ledger, 5, &[revoked])), ["linked 2"]);
    assert_eq!(
        speaker(&say(&mut ledger, 5, &[unsigned])),
        SpeakerRefusal::SignatureRequired
    );
}

#[test]
fn a_session_belongs_to_the_key_of_its_first_statement() {
    let (mut ledger, mut authority) = ledger();
    let second = authority.registers(&key(2), AGENT);
    say(&mut ledger, 5, &[second]);
    let mut agent = Producer::new(ledger.id, 1);
    let zero = signed(agent.intent("zero"), &key(1));
    let squat = signed(agent.clone().intent("squat"), &key(2));
    let one = signed(agent.intent("one"), &key(1));
    let two = batched(vec![agent.intent("two"), agent.intent("three")], &key(1));
    assert_eq!(
        brief(&say(&mut ledger, 5, &[zero, squat, one])),
        ["recorded 3", "SessionTaken", "recorded 4"]
    );
    ledger.forget_sessions();
    assert_eq!(
        brief(&say(&mut ledger, 5, &two)),
        ["recorded 5", "recorded 6", "recorded 7"]
    );
}

#[test]
fn keys_come_into_force_end_and_are_revoked_at_the_leaf() {
    let (mut ledger, mut authority) = ledger();
    let mut limited = registration(ledger.id, &key(2), "spiffe://example.org/limited");
    limited.valid_from_us = 100;
    limited.valid_until_us = 200;
    let limited = authority.says(Body::KeyRegistered(limited));
    say(&mut ledger, 5, &[limited]);
    let mut producer = Producer::new(ledger.id, 2);
    producer.producer = "spiffe://example.org/limited".to_owned();
    let next = |what: &str| signed(producer.clone().intent(what), &key(2));
    let early = next("early");
    assert!(matches!(
        speaker(&say(&mut ledger, 99, std::slice::from_ref(&early))),
        SpeakerRefusal::Key(KeyRefusal::NotYet { .. })
    ));
    assert_eq!(brief(&say(&mut ledger, 100, &[early])), ["recorded 3"]);
    producer.next = 1;
    let next = |what: &str| signed(producer.clone().intent(what), &key(2));
    let late = next("late");
    // Effective time moves past the key's end, and the statement is judged at its own leaf.
    let mut agent = Producer::new(ledger.id, 1);
    let mover = signed(agent.intent("later"), &key(1));
    let before = admit_with(&ledger.trust, ledger.id, 199, &[]);
    assert!(before.pieces().is_empty());
    say(&mut ledger, 200, &[mover]);
    assert!(matches!(
        speaker(&say(&mut ledger, 150, &[late])),
        SpeakerRefusal::Key(KeyRefusal::Ended { .. })
    ));

    // The key is revoked in the middle of a turn: statements before that are accepted, those after
    // it are not.
    let revoked = authority.revokes(&key(1));
    let (one, two) = (
        signed(agent.intent("before"), &key(1)),
        signed(agent.intent("after"), &key(1)),
    );
    let placements = say(&mut ledger, 201, &[one, revoked, two]);
    assert_eq!(brief(&placements[..2]), ["recorded 5", "linked 6"]);
    assert!(matches!(
        speaker(&placements[2..]),
        SpeakerRefusal::Key(KeyRefusal::Revoked { .. })
    ));
}

#[test]
fn a_key_is_registered_once_and_by_an_authority_in_force() {
    let (mut ledger, mut authority) = ledger();
    let again = authority.registers(&key(1), "spiffe://example.org/again");
    assert!(matches!(
        trust(&say(&mut ledger, 5, &[again])),
        TrustRefusal::KeyRegisteredBefore { .. }
    ));
    // A refusal consumes no sequence: the authority's session still takes the same one.
    let mut authority = Authority::new(ledger.id);
    let _ = authority.registers(&key(1), AGENT);
    let handed_over = authority.says(Body::AuthoritiesChanged(v1::AuthoritiesChanged {
        authority_keys: vec![v1::AuthorityKey {
            public_key: bytes::Bytes::copy_from_slice(key(7).public_key().as_bytes()),
        }],
        ..v1::AuthoritiesChanged::default()
    }));
    assert_eq!(
        brief(&say(&mut ledger, 5, std::slice::from_ref(&handed_over))),
        ["linked 2"]
    );
    // The statements of a former authority are still known as duplicates; new ones are refused.
    assert!(matches!(
        trust(&say(&mut ledger, 5, &[authority.revokes(&key(1))])),
        TrustRefusal::SignerUnknown { .. }
    ));
    assert_eq!(brief(&say(&mut ledger, 6, &[handed_over])), ["duplicate 2"]);
}

#[test]
fn a_batch_is_recorded_whole_or_not_at_all() {
    let (mut ledger, _) = ledger();
    let mut agent = Producer::new(ledger.id, 1);
    let batch = batched(
        (0..3).map(|n| agent.intent(&n.to_string())).collect(),
        &key(1),
    );
    let recorded = ["recorded 2", "recorded 3", "recorded 4", "recorded 5"];
    assert_eq!(brief(&say(&mut ledger, 5, &batch)), recorded);

    // The batch has the same leaves when it is sent again, also when only the store knows them.
    let duplicates = ["duplicate 2", "duplicate 3", "duplicate 4", "duplicate 5"];
    assert_eq!(brief(&say(&mut ledger, 6, &batch)), duplicates);
    ledger.forget_sessions();
    assert_eq!(brief(&say(&mut ledger, 7, &batch)), duplicates);

    // A part of the batch is another batch, and its first sequence is used.
    let other = batched(batch[1..3].to_vec(), &key(1));
    assert_eq!(
        say(&mut ledger, 8, &other)[1..],
        [
            Placement::Refused(
                deed_evidence::session::Refusal::SequenceReused {
                    expected: deed_evidence::Sequence::new(3)
                }
                .into()
            ),
            Placement::Refused(RejectReason::Batch { culprit: 1 }),
        ]
    );
    // One of its statements, signed by itself, has the same payload as the recorded one.
    let alone = signed(batch[2].clone(), &key(1));
    assert_eq!(brief(&say(&mut ledger, 9, &[alone])), ["duplicate 4"]);
    // A sequence before this batch is missing.
    agent.next += 1;
    let ahead = batched(vec![agent.intent("ahead"), agent.intent("of it")], &key(1));
    let placements = say(&mut ledger, 9, &ahead);
    assert_eq!(
        placements[0],
        Placement::Refused(RejectReason::Batch { culprit: 1 })
    );
    assert_eq!(
        placements[2],
        Placement::Refused(RejectReason::Batch { culprit: 1 })
    );
    assert_eq!(ledger.entries().len(), 6);
}

#[test]
fn admission_refuses_batches_that_do_not_fit_their_manifest() {
    let (ledger, _) = ledger();
    let mut agent = Producer::new(ledger.id, 1);
    let good = batched(
        (0..3).map(|n| agent.intent(&n.to_string())).collect(),
        &key(1),
    );
    let after = signed(agent.intent("after"), &key(1));
    let mut foreign_agent = Producer::new(ledger.id, 1);
    let foreign = batched(
        (0..3)
            .map(|n| foreign_agent.intent(&format!("other {n}")))
            .collect(),
        &key(1),
    );
    let with = |position: usize, envelope: v1::Envelope| {
        let mut batch = good.clone();
        batch[position] = envelope;
        batch.push(after.clone());
        batch
    };
    let mut swapped = good.clone();
    swapped.swap(1, 2);
    swapped.push(after.clone());
    let mut forged = good[0].clone();
    forged.signature = vec![1; 64].into();
    let mut unsigned = good[0].clone();
    unsigned.signature = bytes::Bytes::new();
    unsigned.key_id = bytes::Bytes::new();
    let unknown = batched(good[1..].to_vec(), &key(9))[0].clone();
    let (_, other_id, _) = genesis();
    assert_eq!(other_id, ledger.id);
    let elsewhere =
        Producer::new(deed_evidence::LedgerId::new(deed_tlog::leaf_hash(b"x")), 1).intent("0");
    let rows: [(&str, Vec<v1::Envelope>, usize, Reason); 8] = [
        (
            "spliced from another batch",
            with(2, foreign[2].clone()),
            0,
            Reason::BatchMismatch,
        ),
        ("in another order", swapped, 1, Reason::BatchMismatch),
        (
            "signed by itself",
            with(1, signed(good[1].clone(), &key(1))),
            1,
            Reason::SignatureNotAccepted,
        ),
        (
            "a manifest inside",
            with(2, good[0].clone()),
            2,
            Reason::BatchMismatch,
        ),
        (
            "for another ledger",
            with(3, elsewhere),
            3,
            Reason::WrongLedger,
        ),
        (
            "a forged manifest",
            with(0, forged),
            0,
            Reason::SignatureInvalid,
        ),
        (
            "an unsigned manifest",
            with(0, unsigned),
            0,
            Reason::SignatureRequired,
        ),
        ("an unknown key", with(0, unknown), 0, Reason::KeyUnknown),
    ];
    for (what, envelopes, culprit, reason) in rows {
        let (admitted, rejected) = try_admit(&ledger, &envelopes);
        let expected: Vec<_> = (0..4)
            .map(|n| {
                (
                    n,
                    if n == culprit {
                        reason
                    } else {
                        Reason::BatchRefused
                    },
                )
            })
            .collect();
        assert_eq!(reasons(&rejected), expected, "{what}: {rejected:?}");
        // The statement behind the batch is not part of it.
        let left: Vec<_> = admitted.payloads().map(|s| s.envelope).collect();
        assert_eq!(left, [4], "{what}");
    }
    // Fewer statements follow than the manifest counts.
    let (admitted, rejected) = try_admit(&ledger, &good[..3]);
    assert_eq!(
        reasons(&rejected),
        [
            (0, Reason::BatchMismatch),
            (1, Reason::BatchRefused),
            (2, Reason::BatchRefused)
        ]
    );
    assert!(admitted.pieces().is_empty());
    // A statement is not a manifest.
    let as_manifest = v1::Envelope {
        payload_type: PayloadType::BatchManifest.into(),
        ..after
    };
    let (_, rejected) = try_admit(&ledger, &[as_manifest]);
    assert_eq!(reasons(&rejected), [(0, Reason::Malformed)]);
}

#[test]
fn a_principal_speaks_for_the_producers_bound_to_it() {
    let (mut ledger, mut authority) = ledger();
    let gateway = Sender {
        principal: Some("spiffe://example.org/gateway".into()),
        may_append: true,
        may_change_trust: false,
    };
    let mut agent = Producer::new(ledger.id, 1);
    let first = signed(agent.intent("first"), &key(1));
    let (_, rejected) = try_admit_from(&ledger, &gateway, std::slice::from_ref(&first));
    assert_eq!(reasons(&rejected), [(0, Reason::PrincipalNotBound)]);

    let bind = |valid_until_us| {
        Body::PrincipalBound(v1::PrincipalBound {
            principal: "spiffe://example.org/gateway".to_owned(),
            producer: AGENT.to_owned(),
            valid_until_us,
        })
    };
    let bound = authority.says(bind(0));
    // A principal may not bind itself.
    let (_, rejected) = try_admit_from(&ledger, &gateway, std::slice::from_ref(&bound));
    assert_eq!(reasons(&rejected), [(0, Reason::PrincipalNotBound)]);
    assert_eq!(brief(&say(&mut ledger, 5, &[bound])), ["linked 2"]);
    let (batch, rejected) = try_admit_from(&ledger, &gateway, &[first]);
    assert_eq!(rejected, []);
    assert_eq!(brief(&ledger.turn(&[batch])), ["recorded 3"]);
    let entries = ledger.entries();
    assert_eq!(Entry::parse(&entries[3]).unwrap().principal_leaf, Some(2));

    // The binding ends between admission and step.
    let second = signed(agent.intent("second"), &key(1));
    let (batch, rejected) = try_admit_from(&ledger, &gateway, &[second]);
    assert_eq!(rejected, []);
    let ended = authority.says(bind(1));
    say(&mut ledger, 5, &[ended]);
    assert_eq!(
        speaker(&ledger.turn(&[batch])),
        SpeakerRefusal::PrincipalNotBound
    );
    let reader = Sender {
        may_append: false,
        ..gateway
    };
    let third = signed(agent.intent("third"), &key(1));
    let (_, rejected) = try_admit_from(&ledger, &reader, &[third]);
    assert_eq!(reasons(&rejected), [(0, Reason::PrincipalNotBound)]);
}
