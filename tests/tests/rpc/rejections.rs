//! Statements that are rejected, each with its reason and field, and the largest one that is
//! accepted.

use bytes::Bytes;
use deed_evidence::entry::Entry;
use deed_proto::v1::{self, rejection::Reason, statement::Body};
use deed_tests::{
    http::Http,
    oracle::Log,
    rpc::{TestLedger, accepted, rejected},
    run,
    statements::{Producer, envelope, intent},
};
use deed_tlog::decode_entry_bundle;
use prost::Message as _;

use crate::{Set, large_outcome};

#[test]
fn statements_that_break_a_rule_are_rejected_by_name() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let producer = Producer::new(ledger.id, 1);
        let good = producer.message(intent("orders/1"));
        let with = |change: &dyn Fn(&mut v1::Statement)| {
            let mut message = good.clone();
            change(&mut message);
            Bytes::from(message.encode_to_vec())
        };
        let with_intent = |change: &dyn Fn(&mut v1::Intent)| {
            with(&|message| {
                if let Some(Body::Intent(intent)) = &mut message.body {
                    change(intent);
                }
            })
        };
        let encoded = good.encode_to_vec();
        let malformed = [
            ("payload", Bytes::new()),
            ("producer", with(&|message| message.producer.clear())),
            (
                "producer",
                with(&|message| message.producer = "a\nb".to_owned()),
            ),
            ("session", with(&|message| message.session.truncate(15))),
            (
                "previous",
                with(&|message| message.previous = Bytes::from_static(&[1; 31])),
            ),
            ("task", with(&|message| message.task = Bytes::new())),
            (
                "span_id",
                with(&|message| message.span_id = Bytes::from_static(&[1; 8])),
            ),
            (
                "occurred_at_us",
                with(&|message| message.occurred_at_us = -1),
            ),
            ("body", with(&|message| message.body = None)),
            (
                "intent.action",
                with_intent(&|intent| intent.action.clear()),
            ),
            (
                "intent.resource",
                with_intent(&|intent| intent.resource = "x".repeat(1025)),
            ),
            (
                "intent.amount.currency",
                with_intent(&|intent| {
                    intent.amount = Some(v1::Amount {
                        minor_units: 1,
                        currency: "eur".to_owned(),
                    });
                }),
            ),
            (
                "intent.arguments.digest",
                with_intent(&|intent| {
                    intent.arguments = Some(v1::Commitment {
                        digest: Bytes::from_static(&[7; 31]),
                        media_type: "text/plain".to_owned(),
                    });
                }),
            ),
            // A default value is written out: field 4, varint 0, in its place.
            ("sequence", {
                let until_session = v1::Statement {
                    body: None,
                    task: Bytes::new(),
                    nonce: Bytes::new(),
                    ..good.clone()
                }
                .encode_to_vec();
                let rest = &encoded[until_session.len()..];
                [&until_session[..], &[0x20, 0x00], rest].concat().into()
            }),
        ];
        let mut request = ledger.request(&[]);
        for (_, payload) in &malformed {
            request.envelopes.push(envelope(payload));
        }
        let mut untyped = envelope(&Bytes::from(encoded.clone()));
        untyped.payload_type = v1::PayloadType::Unspecified.into();
        request.envelopes.push(untyped);
        let answer = clients.append(request).await.unwrap();
        let fields = malformed
            .iter()
            .map(|(field, _)| *field)
            .chain(["payload_type"]);
        assert_eq!(answer.results.len(), malformed.len() + 1);
        for (result, field) in answer.results.iter().zip(fields) {
            let rejection = rejected(result);
            assert_eq!(
                rejection.reason(),
                Reason::Malformed,
                "{field}: {rejection:?}"
            );
            assert_eq!(rejection.field, field, "{rejection:?}");
            assert!(!rejection.message.is_empty(), "{rejection:?}");
        }
        assert_eq!(
            ledger.open(&answer.checkpoint).size.get(),
            1,
            "nothing was recorded"
        );

        // An unknown field, and one that occurs twice, are never recorded either.
        for tail in [&[0xa0, 0x06, 0x01][..], &encoded[..2 + 32]] {
            let payload = Bytes::from([&encoded[..], tail].concat());
            let answer = ledger.try_append(clients, &[payload]).await.unwrap();
            assert_eq!(rejected(&answer.results[0]).reason(), Reason::Malformed);
        }
    });
}

#[test]
fn statements_that_this_version_does_not_take_are_rejected() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let other = TestLedger::create(clients, "other").await;
        let producer = Producer::new(ledger.id, 1);
        let reason = async |envelope: v1::Envelope| {
            let request = v1::AppendRequest {
                envelopes: vec![envelope],
                ..ledger.request(&[])
            };
            let answer = clients.append(request).await.unwrap();
            let rejection = rejected(&answer.results[0]);
            assert!(!rejection.message.is_empty(), "{rejection:?}");
            (rejection.reason(), rejection.field)
        };
        let oversized = Bytes::from(vec![0x0a; 60_001]);
        assert_eq!(
            reason(envelope(&oversized)).await,
            (Reason::Oversized, "payload".to_owned())
        );

        let foreign = Producer::new(other.id, 1).intent("orders/1");
        let wanted = (Reason::WrongLedger, "ledger_id".to_owned());
        assert_eq!(reason(envelope(&foreign)).await, wanted);

        // The bodies are the genesis statement itself, and one of a later version (field 33).
        let entry = Entry::parse(&ledger.info.genesis_entry).unwrap();
        let genesis = Bytes::copy_from_slice(entry.payload);
        let wanted = (Reason::BodyNotAccepted, "genesis".to_owned());
        assert_eq!(reason(envelope(&genesis)).await, wanted);
        let mut later = v1::Statement {
            body: None,
            ..producer.message(intent("orders/1"))
        }
        .encode_to_vec();
        later.extend_from_slice(&[0x8a, 0x02, 0x00]);
        assert_eq!(
            reason(envelope(&later.into())).await.0,
            Reason::BodyNotAccepted
        );

        let payload = producer.clone().intent("orders/1");
        let mut signed = envelope(&payload);
        signed.signature = Bytes::from_static(&[1; 64]);
        let wanted = (Reason::Malformed, "key_id".to_owned());
        assert_eq!(reason(signed.clone()).await, wanted);
        signed.key_id = Bytes::from_static(&[1; 16]);
        let wanted = (Reason::KeyUnknown, "key_id".to_owned());
        assert_eq!(reason(signed.clone()).await, wanted);
        signed.signature = Bytes::new();
        let wanted = (Reason::Malformed, "signature".to_owned());
        assert_eq!(reason(signed).await, wanted);

        // Unsigned, in its own ledger, the very same payload is accepted.
        ledger.append(clients, &[payload]).await;
        assert_eq!(ledger.head(clients).await.size.get(), 2);
    });
}

/// 60,000 bytes are accepted, and not one more.
#[test]
fn the_largest_statement_is_taken() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let producer = Producer::new(ledger.id, 1);
        let of_length = |length: usize| {
            (1..1000).find_map(|last| {
                let mut body = large_outcome(59);
                if let Body::Outcome(outcome) = &mut body {
                    outcome.effects[58].resource = "r".repeat(last);
                }
                let message = producer.message(body);
                Some(Bytes::from(message.encode_to_vec())).filter(|it| it.len() == length)
            })
        };
        let [right, too_long] = [60_000, 60_001].map(|length| of_length(length).expect("one"));
        let answer = ledger
            .try_append(clients, &[too_long, right.clone()])
            .await
            .unwrap();
        assert_eq!(rejected(&answer.results[0]).reason(), Reason::Oversized);
        assert_eq!(accepted(&answer.results[1]).leaf_index, 1);
        let log = Log::read(clients, ledger).await;
        assert_eq!(Entry::parse(&log.entries[1]).unwrap().payload, right);
        let mut http = Http::connect(set.server.address()).await;
        let bundle = http.fetch("/logs/payments/tile/entries/000.p/2").await;
        assert_eq!(decode_entry_bundle(&bundle).unwrap(), log.entries);
    });
}
