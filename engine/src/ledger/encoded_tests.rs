//! Tests that a ledger that is stepped from decoded batches has the same records, to the byte.

use deed_evidence::{CommitmentDigest, LedgerId, Micros};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::SigningKey;
use proptest::prelude::*;

use super::step_tests::{ByHand, NUMBER, acts, admit_with, envelopes};
use crate::{
    admission::AdmittedBatch,
    ledger::{step::Placement, write::write_records},
    store::Batch,
    testing::{Authority, Producer, batched, policy_set, registration, signed},
};

/// Makes a turn of one batch; returns the placements, and the digest of the writes.
fn turn(ledger: &mut ByHand, admitted: &AdmittedBatch) -> (Vec<Placement>, [u8; 32]) {
    let mut reader = ledger.reader();
    let mut turn = ledger.state.begin(&mut reader).unwrap();
    let placements = ledger
        .state
        .apply(&mut turn, admitted, &mut reader)
        .unwrap();
    let records = ledger.state.finish(turn).unwrap();
    let mut batch = Batch::default();
    write_records(&ledger.store, &mut batch, NUMBER, &records);
    let effects = batch.effects(&ledger.store);
    ledger.store.commit(batch).unwrap();
    (placements, effects)
}

/// Steps the admitted requests in one ledger, and the same encoded and decoded in another one, and
/// compares the results.
fn compare(
    requests: Vec<Vec<v1::Envelope>>,
    complete: impl Fn(usize, &mut AdmittedBatch),
) -> Vec<Placement> {
    let (mut original, mut other) = (ByHand::new(), ByHand::new());
    let id: LedgerId = original.id;
    let mut all = Vec::new();
    for (position, envelopes) in requests.into_iter().enumerate() {
        let time = 5 + i64::try_from(position).unwrap();
        let mut admitted = admit_with(&original.trust, id, time, &envelopes);
        complete(position, &mut admitted);
        let bytes = admitted.encode().unwrap();
        let decoded = AdmittedBatch::decode(&bytes, id).unwrap();
        assert_eq!(decoded.received_at(), Micros::new(time));
        let expected = turn(&mut original, &admitted);
        assert_eq!(turn(&mut other, &decoded), expected, "request {position}");
        all.extend(expected.0);
    }
    assert_eq!(other.entries(), original.entries());
    assert_eq!(other.records(), original.records());
    assert_eq!(other.state.edge().head(), original.state.edge().head());
    all
}

/// The requests have trust statements, policies, batches, contents, duplicates and refusals.
#[test]
fn decoded_batches_step_to_the_same_bytes() {
    let id = ByHand::new().id;
    let key = SigningKey::from_seed(&[3; 32]);
    let mut authority = Authority::new(id);
    let mut producer = Producer::new(id, 1);
    let mut unsigned = Producer::new(id, 2);
    unsigned.producer = "spiffe://example.org/unsigned".to_owned();
    let known = Body::KeyRegistered(registration(id, &key, &producer.producer));
    let policies = policy_set("permit (principal, action, resource);");
    let digest = CommitmentDigest::new([9; 32]);
    let members = (0..20).map(|n| producer.intent(&format!("batched/{n}")));
    let batch = batched(members.collect(), &key);
    let single = signed(producer.chained_intent("single"), &key);
    let requests = vec![
        vec![authority.says(known), unsigned.intent("r")],
        batch.clone(),
        vec![authority.says(Body::PolicySet(policies)), single.clone()],
        vec![single, unsigned.intent_after_gap(2), unsigned.closed()],
        batch,
        vec![signed(producer.intent("attached"), &key)],
        vec![authority.revokes(&key)],
        vec![
            signed(producer.intent("too late"), &key),
            unsigned.intent("closed"),
        ],
    ];
    let placements = compare(requests, |position, batch| match position {
        1 => batch.set_references(vec![(3, digest), (7, digest)]),
        5 => batch.set_erased(vec![(0, digest, 4)]),
        _ => {}
    });
    let told: Vec<_> = super::step_tests::brief(&placements);
    for words in ["recorded", "linked", "duplicate", "AttachmentErased"] {
        assert!(
            told.iter().any(|one| one.starts_with(words)),
            "{words}: {told:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_producers_do_decodes_to_the_same_bytes(
        acts in acts(),
        length in 1_usize..60,
    ) {
        let all = envelopes(ByHand::new().id, &acts);
        compare(all.chunks(length).map(<[_]>::to_vec).collect(), |_, _| {});
    }
}
