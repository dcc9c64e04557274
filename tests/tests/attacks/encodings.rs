//! Every other encoding of every message that is signed or hashed, each with a valid signature over
//! these very bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use deed_evidence::{LedgerId, PayloadDigest, entry::Entry, signature, statement};
use deed_proto::v1::{self, PayloadType, rejection::Reason, statement::Body};
use deed_tests::{
    keys::{self, AUTHORITY, batch, key, registration, signed, signed_as},
    run,
    statements::{Producer, envelope, intent},
    wire::Schema,
};
use prost::Message as _;

use crate::{AGENT, Scene, agent, expect_rejected, reasons_of};

/// Envelopes of a request in these tests: their answers must fit into a message.
const AT_ONCE: usize = 1000;

#[test]
fn every_other_encoding_of_every_statement() {
    run(async {
        let mut scene = Scene::set().await;
        let mut base = scene.session(500);
        let zero = base.intent("orders/0");
        let previous = PayloadDigest::of(&zero);
        let revocable = scene
            .authority
            .registers(&key(40), "spiffe://example.org/agent/40");
        scene
            .records(vec![signed(&zero, &agent()), revocable])
            .await;

        let schema = Schema::new();
        let valid = statements(scene.ledger.id, &previous);
        let mut count = 0;
        for (what, message) in &valid {
            let canonical = statement::encode(message).unwrap_or_else(|e| panic!("{what}: {e}"));
            let key = signer(message);
            let variants = schema.variants("Statement", &canonical);
            let at_once = if message.producer == AUTHORITY {
                // A request may have this many trust statements.
                256
            } else {
                AT_ONCE
            };
            for chunk in variants.chunks(at_once) {
                let envelopes = chunk.iter().map(|variant| {
                    if variant.same_value {
                        let read = v1::Statement::decode(&variant.bytes[..]);
                        assert_eq!(read.as_ref(), Ok(message), "{what}: {}", variant.what);
                    }
                    signed(&Bytes::from(variant.bytes.clone()), &key)
                });
                let answer = scene.send(envelopes.collect()).await;
                for (variant, result) in chunk.iter().zip(&answer.results) {
                    let what = format!("{what}: {}", variant.what);
                    let rejection = deed_tests::rpc::rejected(result);
                    assert_eq!(
                        rejection.reason(),
                        Reason::Malformed,
                        "{what}: {rejection:?}"
                    );
                }
                assert_eq!(answer.results.len(), chunk.len());
                count += chunk.len();
            }
        }
        assert!(count > 1900, "{count} variants");

        // The control: every statement is accepted in its canonical encoding, with the same key.
        for (what, message) in &valid {
            let canonical = statement::encode(message).expect("as before");
            let sent = signed(&canonical, &signer(message));
            if matches!(message.body, Some(Body::Erasure(_))) {
                // It belongs to another rpc; the rejection shows that it was parsed.
                scene
                    .refuses(what, sent, Reason::BodyNotAccepted, "erasure")
                    .await;
            } else {
                let answer = scene.send(vec![sent.clone()]).await;
                assert!(crate::is_accepted(&answer.results[0]), "{what}: {answer:?}");
                scene.sees_duplicate(sent).await;
            }
        }
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn every_other_encoding_of_a_manifest() {
    run(async {
        let mut scene = Scene::set().await;
        let mut base = scene.session(500);
        let zero = signed(&base.intent("orders/0"), &agent());
        scene.records(vec![zero]).await;
        // The first sequence is 0, a default value; these statements have other ones, so no field
        // is left out.
        let statements = base.intents(3);
        let canonical = keys::manifest(&statements);
        let message = v1::BatchManifest::decode(&canonical[..]).expect("a manifest");
        let variants = Schema::new().variants("BatchManifest", &canonical);
        assert!(variants.len() >= 40, "{}", variants.len());
        for chunk in variants.chunks(AT_ONCE / 4) {
            let envelopes = chunk.iter().flat_map(|variant| {
                if variant.same_value {
                    let read = v1::BatchManifest::decode(&variant.bytes[..]);
                    assert_eq!(read.as_ref(), Ok(&message), "{}", variant.what);
                }
                let bytes = Bytes::from(variant.bytes.clone());
                let manifest = signed_as(PayloadType::BatchManifest, &bytes, &agent());
                std::iter::once(manifest).chain(statements.iter().map(envelope))
            });
            let answer = scene.send(envelopes.collect()).await;
            assert_eq!(answer.results.len(), 4 * chunk.len());
            for (variant, reasons) in chunk.iter().zip(reasons_of(&answer).chunks(4)) {
                let refused = Reason::BatchRefused;
                let wanted = [Reason::Malformed, refused, refused, refused];
                assert_eq!(reasons, wanted, "{}", variant.what);
            }
        }
        scene.records(batch(&statements, &agent())).await;
        scene.nothing_was_recorded().await;
    });
}

/// The genesis statement is hashed, and accepted from nobody.
#[test]
fn a_genesis_in_any_encoding() {
    run(async {
        let scene = Scene::set().await;
        let entry = Entry::parse(&scene.ledger.info.genesis_entry).expect("an entry");
        let canonical = Bytes::copy_from_slice(entry.payload);
        for sent in [
            envelope(&canonical),
            signed(&canonical, &agent()),
            signed(&canonical, &keys::authority()),
        ] {
            scene
                .refuses("genesis", sent, Reason::BodyNotAccepted, "genesis")
                .await;
        }
        let variants = Schema::new().variants("Statement", &canonical);
        assert!(variants.len() > 50, "{}", variants.len());
        let envelopes = variants
            .iter()
            .map(|variant| envelope(&Bytes::from(variant.bytes.clone())));
        let answer = scene.send(envelopes.collect()).await;
        for (variant, reason) in variants.iter().zip(reasons_of(&answer)) {
            assert_eq!(reason, Reason::Malformed, "{}", variant.what);
        }
        // Bodies of a later version are not ignored.
        let mut producer = scene.session(1);
        let mut message = producer.message(intent("orders/1"));
        message.body = None;
        for number in [33_u64, 38, 39, 50, 51, 63] {
            let mut payload = message.encode_to_vec();
            payload.extend(deed_tests::wire::varint(number << 3 | 2));
            payload.push(0);
            let answer = scene.send(vec![signed(&payload.into(), &agent())]).await;
            let rejection = deed_tests::rpc::rejected(&answer.results[0]);
            assert_eq!(rejection.reason(), Reason::BodyNotAccepted, "body {number}");
        }
        let _ = producer.intent("orders/1");
        let empty = signed(&Bytes::new(), &agent());
        let answer = scene.send(vec![empty]).await;
        expect_rejected("empty", &answer.results[0], Reason::Malformed, "payload");
        scene.nothing_was_recorded().await;
    });
}

impl Scene {
    /// Sends a statement that was recorded, and notes the log as it is now as the expected one.
    async fn sees_duplicate(&mut self, envelope: v1::Envelope) {
        let answer = self.send(vec![envelope]).await;
        deed_tests::rpc::duplicate(&answer.results[0]);
        self.takes_for_granted(&answer);
    }
}

fn signer(message: &v1::Statement) -> deed_tlog::SigningKey {
    if message.producer == AUTHORITY {
        keys::authority()
    } else {
        agent()
    }
}

/// Returns a statement with every body and every field of it, all of them valid in this order.
fn statements(ledger_id: LedgerId, previous: &PayloadDigest) -> Vec<(&'static str, v1::Statement)> {
    let mut all = Vec::new();
    for (number, (what, body)) in (600..).zip(said_by_producers()) {
        let producer = Producer::new(ledger_id, number).named(AGENT);
        let mut message = producer.message(body);
        message.occurred_at_us = 1_700_000_000_000_001;
        message.trace_id = Bytes::from_static(&[3; 16]);
        message.span_id = Bytes::from_static(&[4; 8]);
        message.correlation_keys = ["order", "ticket"]
            .map(|kind| v1::CorrelationKey {
                kind: kind.to_owned(),
                value: "0815".to_owned(),
            })
            .to_vec();
        all.push((what, message));
    }
    // It has the fields that only a later statement of a session has.
    let mut later = Producer::new(ledger_id, 500)
        .named(AGENT)
        .message(intent("orders/later"));
    later.sequence = 300;
    later.nonce = Bytes::new();
    later.skipped_from = Some(1);
    later.previous = Bytes::copy_from_slice(previous.as_bytes());
    all.push(("later", later));
    for (number, (what, body)) in (700..).zip(said_by_authorities(ledger_id)) {
        let authority = Producer::new(ledger_id, number).named(AUTHORITY);
        all.push((what, authority.message(body)));
    }
    all
}

fn commitment(byte: u8) -> Option<v1::Commitment> {
    Some(v1::Commitment {
        digest: vec![byte; 32].into(),
        media_type: "application/json".to_owned(),
    })
}

fn amount() -> Option<v1::Amount> {
    Some(v1::Amount {
        minor_units: -1250,
        currency: "EUR".to_owned(),
    })
}

/// Returns a time in a year. A deadline may be ten years ahead at most.
fn in_a_year() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later than 1970").as_micros();
    i64::try_from(now).expect("it is early enough") + 365 * 86_400 * 1_000_000
}

fn said_by_producers() -> Vec<(&'static str, Body)> {
    use v1::task_opened::Objective;
    let opened = |objective| {
        Body::TaskOpened(v1::TaskOpened {
            objective: Some(objective),
            requested_by: "https://example.org/person/7".to_owned(),
            risk_tier: v1::RiskTier::Payment.into(),
            deadline_us: in_a_year(),
            nonce: Bytes::new(),
        })
    };
    let effect = v1::Effect {
        kind: "order.cancelled".to_owned(),
        resource: "orders/1".to_owned(),
        external_id: "x-1".to_owned(),
        amount: amount(),
        before_digest: vec![5; 32].into(),
        after_digest: vec![6; 32].into(),
    };
    vec![
        (
            "task opened",
            opened(Objective::ObjectiveText("refund".to_owned())),
        ),
        (
            "task opened, committed",
            opened(Objective::ObjectiveCommitment(
                commitment(1).expect("a commitment"),
            )),
        ),
        (
            "task closed",
            Body::TaskClosed(v1::TaskClosed {
                end: v1::TaskEnd::Cancelled.into(),
                reason: "nobody wants it".to_owned(),
            }),
        ),
        (
            "intent",
            Body::Intent(v1::Intent {
                action: "payments.refund".to_owned(),
                resource: "orders/1".to_owned(),
                amount: amount(),
                grant: vec![7; 32].into(),
                deadline_us: in_a_year(),
                arguments: commitment(2),
                prompt: commitment(3),
                model: "some model 1.0".to_owned(),
                system_prompt_digest: vec![8; 32].into(),
                tool_manifest_digest: vec![9; 32].into(),
                tool_call_id: "call-1".to_owned(),
                ..v1::Intent::default()
            }),
        ),
        (
            "outcome",
            Body::Outcome(v1::Outcome {
                intent: Some(v1::StatementRef {
                    session: vec![1; 16].into(),
                    sequence: 200,
                    payload_digest: vec![2; 32].into(),
                }),
                status: v1::OutcomeStatus::Reverted.into(),
                effects: vec![effect.clone(), effect],
                tool_call: commitment(4),
                response: commitment(5),
                result: commitment(6),
                arguments: commitment(7),
            }),
        ),
        (
            "heartbeat",
            Body::Heartbeat(v1::Heartbeat {
                last_sequence: 0,
                count: 1,
                next_within_us: 1,
            }),
        ),
        (
            "session closed",
            Body::SessionClosed(v1::SessionClosed {
                last_sequence: 0,
                count: 1,
            }),
        ),
    ]
}

fn said_by_authorities(ledger_id: LedgerId) -> Vec<(&'static str, Body)> {
    use v1::legal_hold_placed::Scope;
    let mut authority_keys: Vec<_> = [keys::authority(), key(41)]
        .iter()
        .map(|key| v1::AuthorityKey {
            public_key: Bytes::copy_from_slice(key.public_key().as_bytes()),
        })
        .collect();
    authority_keys.sort_by(|one, other| one.public_key.cmp(&other.public_key));
    let mut registered = registration(ledger_id, &key(42), "spiffe://example.org/agent/42");
    registered.valid_from_us = 1;
    registered.valid_until_us = 1_900_000_000_000_000;
    let revoked = signature::key_id(key(40).public_key());
    let hold = |number: u8, scope| {
        Body::LegalHoldPlaced(v1::LegalHoldPlaced {
            hold: vec![number; 16].into(),
            scope,
            reason: "case 4711".to_owned(),
        })
    };
    vec![
        (
            "authorities changed",
            Body::AuthoritiesChanged(v1::AuthoritiesChanged {
                authority_keys,
                reason: "a second one".to_owned(),
            }),
        ),
        ("key registered", Body::KeyRegistered(registered)),
        (
            "key revoked",
            Body::KeyRevoked(v1::KeyRevoked {
                key_id: Bytes::copy_from_slice(revoked.as_bytes()),
                compromised_since_us: Some(1_700_000_000_000_000),
                reason: "lost".to_owned(),
            }),
        ),
        (
            "principal bound",
            Body::PrincipalBound(v1::PrincipalBound {
                principal: "spiffe://example.org/gateway".to_owned(),
                producer: AGENT.to_owned(),
                valid_until_us: 1_900_000_000_000_000,
            }),
        ),
        (
            "retention set",
            Body::RetentionSet(v1::RetentionSet {
                floor_us: 3_600_000_000,
                reason: "by law".to_owned(),
            }),
        ),
        ("hold on everything", hold(1, None)),
        (
            "hold on a task",
            hold(2, Some(Scope::Task(vec![0x7a; 16].into()))),
        ),
        (
            "hold on a content",
            hold(3, Some(Scope::Commitment(vec![9; 32].into()))),
        ),
        (
            "hold released",
            Body::LegalHoldReleased(v1::LegalHoldReleased {
                hold: vec![1; 16].into(),
                reason: "case closed".to_owned(),
            }),
        ),
        (
            "erasure",
            Body::Erasure(v1::Erasure {
                commitments: vec![vec![1; 32].into(), vec![2; 32].into()],
                requested_by: "https://example.org/person/7".to_owned(),
                reason: "asked to be forgotten".to_owned(),
                legal_basis: "GDPR Art. 17(1)(b)".to_owned(),
            }),
        ),
    ]
}
