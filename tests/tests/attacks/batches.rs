//! Attacks with manifests as statements, statements as manifests, and statements of other batches.

use bytes::Bytes;
use deed_evidence::signature;
use deed_proto::v1::{self, PayloadType, rejection::Reason};
use deed_tests::{
    keys::{batch, key, manifest, signed, signed_as},
    run,
    statements::envelope,
};

use crate::{Scene, agent, marked};

const REFUSED: Reason = Reason::BatchRefused;

#[test]
fn a_manifest_is_sent_as_a_statement_and_a_statement_as_a_manifest() {
    run(async {
        let mut scene = Scene::set().await;
        let statements = marked(&mut scene.session(1), 2);
        let manifest = manifest(&statements);
        let as_type = |payload_type: PayloadType, envelope: v1::Envelope| v1::Envelope {
            payload_type: payload_type.into(),
            ..envelope
        };
        let (statement_type, manifest_type) = (PayloadType::Statement, PayloadType::BatchManifest);
        for signed_for in [statement_type, manifest_type] {
            let what = format!("signed as {signed_for:?}");
            let sent = as_type(statement_type, signed_as(signed_for, &manifest, &agent()));
            let answer = scene.send(vec![sent]).await;
            expect_rejected_as_malformed(&what, &answer);
            let sent = as_type(
                manifest_type,
                signed_as(signed_for, &statements[0], &agent()),
            );
            let answer = scene.send(vec![sent]).await;
            expect_rejected_as_malformed(&what, &answer);
        }
        // Each payload has its true type, and a signature as the other type.
        let sent = as_type(
            statement_type,
            signed_as(manifest_type, &statements[0], &agent()),
        );
        scene
            .refuses("type swapped", sent, Reason::SignatureInvalid, "signature")
            .await;
        let mut swapped = batch(&statements, &agent());
        swapped[0] = as_type(
            manifest_type,
            signed_as(statement_type, &manifest, &agent()),
        );
        let reasons = [Reason::SignatureInvalid, REFUSED, REFUSED];
        scene.refuses_all("type swapped", swapped, &reasons).await;
        // The payload has no type, or one that does not exist.
        for number in [0, 3, -1] {
            let sent = v1::Envelope {
                payload_type: number,
                ..signed(&statements[0], &agent())
            };
            scene
                .refuses("no type", sent, Reason::Malformed, "payload_type")
                .await;
        }
        // The control: the batch as it was made, in another session.
        let good = batch(&scene.session(2).intents(2), &agent());
        scene.records(good).await;
        scene.nothing_was_recorded().await;
    });
}

#[track_caller]
fn expect_rejected_as_malformed(what: &str, answer: &v1::AppendResponse) {
    let reasons = crate::reasons_of(answer);
    assert_eq!(reasons, [Reason::Malformed], "{what}: {answer:?}");
}

#[test]
fn a_statement_is_spliced_from_one_batch_into_another() {
    run(async {
        let mut scene = Scene::set().await;
        let honest = scene.session(1).intents(3);
        let other = marked(&mut scene.session(1), 3);
        let foreign = marked(&mut scene.session(2), 3);
        let good = batch(&honest, &agent());
        let with = |position: usize, payload: &Bytes| {
            let mut spliced = good.clone();
            spliced[position] = envelope(payload);
            spliced
        };
        // Session and sequence are the same and the content differs: only the root shows it.
        for position in 1..=3 {
            let spliced = with(position, &other[position - 1]);
            let reasons = [Reason::BatchMismatch, REFUSED, REFUSED, REFUSED];
            scene
                .refuses_all("another batch's", spliced, &reasons)
                .await;
        }
        // The statement is of another session, or of another position.
        let spliced = with(2, &foreign[1]);
        let reasons = [REFUSED, REFUSED, Reason::BatchMismatch, REFUSED];
        scene
            .refuses_all("another session's", spliced, &reasons)
            .await;
        let spliced = with(2, &honest[2]);
        scene
            .refuses_all("another place's", spliced, &reasons)
            .await;
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        let reasons = [REFUSED, Reason::BatchMismatch, REFUSED, REFUSED];
        scene.refuses_all("swapped", swapped, &reasons).await;
        // One statement is missing; another manifest follows in its place.
        let mut short = good[..3].to_vec();
        let reasons = [Reason::BatchMismatch, REFUSED, REFUSED];
        scene.refuses_all("too few", short.clone(), &reasons).await;
        short.push(good[0].clone());
        let reasons = [REFUSED, REFUSED, REFUSED, Reason::BatchMismatch];
        scene
            .refuses_all("a manifest inside", short, &reasons)
            .await;
        // A statement of a batch, sent by itself, has no signature.
        let alone = envelope(&honest[0]);
        scene
            .refuses("alone", alone, Reason::SignatureRequired, "signature")
            .await;
        // A statement has a signature of its own inside of the batch.
        let mut twice = good.clone();
        twice[1] = signed(&honest[0], &agent());
        let reasons = [REFUSED, Reason::SignatureNotAccepted, REFUSED, REFUSED];
        scene.refuses_all("signed twice", twice, &reasons).await;
        // An authority's statement cannot be part of a batch.
        let mut authority = scene.authority.clone();
        let trust = authority.registers(&key(30), "spiffe://example.org/agent/30");
        let spliced = with(2, &trust.payload);
        let reasons = [REFUSED, REFUSED, Reason::BatchMismatch, REFUSED];
        scene
            .refuses_all("a trust statement", spliced, &reasons)
            .await;
        // The control, and the same statements under another manifest: their sequences are used
        // already.
        let receipts = scene.records(good.clone()).await;
        assert_eq!(receipts.len(), 4);
        let cut = batch(&honest[1..], &agent());
        let reasons = [REFUSED, Reason::SequenceReused, REFUSED];
        scene.refuses_all("cut otherwise", cut, &reasons).await;
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn a_manifest_is_signed_by_nobody_who_may() {
    run(async {
        let mut scene = Scene::set().await;
        let statements = marked(&mut scene.session(1), 2);
        let good = batch(&statements, &agent());
        let with_manifest = |manifest: v1::Envelope| {
            let mut batch = good.clone();
            batch[0] = manifest;
            batch
        };
        let mut flipped = good[0].clone();
        let mut bytes = flipped.signature.to_vec();
        bytes[40] ^= 1;
        flipped.signature = bytes.into();
        let unsigned = v1::Envelope {
            key_id: Bytes::new(),
            signature: Bytes::new(),
            ..good[0].clone()
        };
        let mut unknown = good[0].clone();
        let stranger = signature::key_id(key(88).public_key());
        unknown.key_id = Bytes::copy_from_slice(stranger.as_bytes());
        let half = v1::Envelope {
            key_id: Bytes::new(),
            ..good[0].clone()
        };
        for (what, manifest, reason) in [
            ("a flipped bit", flipped, Reason::SignatureInvalid),
            ("unsigned", unsigned, Reason::SignatureRequired),
            ("an unknown key", unknown, Reason::KeyUnknown),
            ("no key id", half, Reason::Malformed),
            (
                "by the authority",
                signed_as(
                    PayloadType::BatchManifest,
                    &good[0].payload,
                    &deed_tests::keys::authority(),
                ),
                Reason::KeyNotAllowed,
            ),
        ] {
            let reasons = [reason, REFUSED, REFUSED];
            scene
                .refuses_all(what, with_manifest(manifest), &reasons)
                .await;
        }
        // The key is registered for another producer.
        let registered = scene
            .authority
            .registers(&key(31), "spiffe://example.org/agent/31");
        scene.records(vec![registered]).await;
        let foreign = batch(&statements, &key(31));
        // The author is checked at the first statement of a session in a turn.
        let reasons = [REFUSED, Reason::KeyNotAllowed, REFUSED];
        scene
            .refuses_all("another producer's key", foreign, &reasons)
            .await;
        scene.nothing_was_recorded().await;
    });
}
