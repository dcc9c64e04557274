//! Every rpc: what it answers, and how it refuses.

mod common {
    use bytes::Bytes;
    use deed_tests::{
        process::ServerProcess,
        rpc::{Clients, TestLedger},
        statements::Producer,
    };
    use tempfile::TempDir;

    /// A server with one ledger.
    pub(crate) struct Set {
        pub(crate) server: ServerProcess,
        pub(crate) clients: Clients,
        pub(crate) ledger: TestLedger,
        _dir: TempDir,
    }

    impl Set {
        pub(crate) async fn up() -> Self {
            let dir = TempDir::new().expect("a temporary directory");
            let server = ServerProcess::start(&dir.path().join("data"));
            let clients = Clients::connect(&server).await;
            let ledger = TestLedger::create(&clients, "payments").await;
            Self {
                server,
                clients,
                ledger,
                _dir: dir,
            }
        }

        /// Fills the ledger up to `size` leaves, `batch` at a time, and returns the payloads.
        pub(crate) async fn fill(&self, size: u64, batch: usize) -> Vec<Bytes> {
            let mut producer = Producer::new(self.ledger.id, 1).unchained();
            let left = usize::try_from(size - 1).expect("a small ledger");
            let payloads = producer.intents(left);
            for chunk in payloads.chunks(batch) {
                self.ledger.append(&self.clients, chunk).await;
            }
            payloads
        }
    }
}

use std::collections::HashSet;

use bytes::Bytes;
use common::Set;
use deed_evidence::{Micros, PayloadDigest, entry, entry::Entry, genesis::Genesis, receipt};
use deed_proto::v1::{self, get_inclusion_proof_request::Leaf, rejection::Reason, statement::Body};
use deed_tests::{
    http::Http,
    oracle::{self, Log},
    rpc::{
        Clients, TestLedger, accepted, authority_key, consistency_proof, duplicate, expect_beyond,
        expect_violation, hash, rejected,
    },
    run,
    statements::{Producer, envelope, intent},
    within,
};
use deed_tlog::{TreeHead, TreeSize, decode_entry_bundle, verify_consistency};
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Endpoint};

// ---- ledgers

#[test]
fn ledgers_are_created_listed_and_found() {
    run(async {
        let set = Set::up().await;
        let names = ["alpha", "b2", "c-3", "d", "z".repeat(63).as_str()].map(str::to_owned);
        for name in &names {
            let ledger = TestLedger::create(&set.clients, name).await;
            let info = &ledger.info;
            let (genesis, id) = Genesis::from_entry(&info.genesis_entry).expect("a genesis entry");
            assert_eq!(id, ledger.id);
            assert_eq!(genesis.log_key, ledger.vkey);
            assert_eq!(genesis.origin.as_str(), info.origin);
            assert!(
                info.origin.ends_with(&format!("/logs/{name}")),
                "{}",
                info.origin
            );
            let keys: Vec<_> = genesis.authority_keys.iter().map(|key| &key[..]).collect();
            assert_eq!(keys, [&authority_key(1)[..]]);
            assert_eq!((info.size, hash(&info.root)), (1, *id.hash()));
            let head = ledger.head(&set.clients).await;
            assert_eq!(head, TreeHead::new(TreeSize::new(1), *id.hash()));
        }
        let mut wanted: Vec<_> = names.to_vec();
        wanted.push("payments".to_owned());
        wanted.sort();

        // Pages of two, then all at once.
        let mut client = set.clients.ledger.clone();
        let mut listed = Vec::new();
        let mut token = String::new();
        for _ in 0..wanted.len() {
            let request = v1::ListLedgersRequest {
                page_size: 2,
                page_token: token,
            };
            let page = client.list_ledgers(request).await.unwrap().into_inner();
            assert!(page.ledgers.len() <= 2);
            listed.extend(page.ledgers);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert!(token.is_empty(), "the pages end");
        let found: Vec<_> = listed.iter().map(|info| info.name.clone()).collect();
        assert_eq!(found, wanted);
        let whole = client
            .list_ledgers(v1::ListLedgersRequest::default())
            .await
            .unwrap();
        assert_eq!(whole.into_inner().ledgers, listed);
        let keys: HashSet<_> = listed.iter().map(|info| info.vkey.clone()).collect();
        assert_eq!(keys.len(), wanted.len(), "each ledger has a key of its own");

        // What is listed is what is found by name.
        for info in listed {
            let name = info.name.clone();
            let found = client
                .get_ledger(v1::GetLedgerRequest { name })
                .await
                .unwrap();
            assert_eq!(found.into_inner(), info);
        }
    });
}

#[test]
fn malformed_ledgers_are_refused() {
    run(async {
        let set = Set::up().await;
        let mut client = set.clients.ledger.clone();
        let mut create = async |name: &str, keys: Vec<Bytes>| {
            let request = v1::CreateLedgerRequest {
                name: name.to_owned(),
                authority_keys: keys,
            };
            client
                .create_ledger(request)
                .await
                .expect_err("it is refused")
        };
        let long = "a".repeat(64);
        for name in ["", "-a", "a-", "A", "a_b", "a/b", "..", "ä", "a b", &long] {
            expect_violation(&create(name, vec![authority_key(1)]).await, "name");
        }
        let one = authority_key(1);
        let mut identity = vec![0; 32];
        identity[0] = 1;
        let bad_keys = [
            vec![],
            (1..=17).map(authority_key).collect(),
            vec![one.slice(..31)],
            vec![Bytes::new()],
            vec![Bytes::from(identity)],
            vec![one.clone(), authority_key(2), one.clone()],
        ];
        for keys in bad_keys {
            expect_violation(&create("fresh", keys).await, "authority_keys");
        }
        let taken = create("payments", vec![one.clone()]).await;
        assert_eq!(taken.code(), Code::AlreadyExists, "{taken:?}");

        // None of them left anything behind.
        let mut client = set.clients.ledger.clone();
        let all = client
            .list_ledgers(v1::ListLedgersRequest::default())
            .await
            .unwrap();
        let names: Vec<_> = all
            .into_inner()
            .ledgers
            .into_iter()
            .map(|info| info.name)
            .collect();
        assert_eq!(names, ["payments"]);

        let mut list = async |page_size, page_token: &str| {
            let request = v1::ListLedgersRequest {
                page_size,
                page_token: page_token.to_owned(),
            };
            client.list_ledgers(request).await
        };
        expect_violation(&list(1001, "").await.unwrap_err(), "page_size");
        expect_violation(&list(10, "Not A Token").await.unwrap_err(), "page_token");
        list(1000, "").await.expect("the largest page");
        let sixteen = v1::CreateLedgerRequest {
            name: "sixteen".to_owned(),
            authority_keys: (1..=16).map(authority_key).collect(),
        };
        set.clients
            .ledger
            .clone()
            .create_ledger(sixteen)
            .await
            .expect("16 keys are allowed");
    });
}

#[test]
fn two_creators_of_one_name_get_one_ledger() {
    run(async {
        let set = Set::up().await;
        let creating: Vec<_> = (1..=8_u8)
            .map(|seed| {
                let mut client = set.clients.ledger.clone();
                tokio::spawn(async move {
                    let request = v1::CreateLedgerRequest {
                        name: "contested".to_owned(),
                        authority_keys: vec![authority_key(seed)],
                    };
                    client.create_ledger(request).await
                })
            })
            .collect();
        let mut created = Vec::new();
        for task in creating {
            match within("an answer", task).await.unwrap() {
                Ok(answer) => created.push(answer.into_inner().ledger.unwrap()),
                Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status:?}"),
            }
        }
        assert_eq!(created.len(), 1);
        let found = TestLedger::find(&set.clients, "contested").await;
        assert_eq!(found.info, created[0]);
    });
}

#[test]
fn unknown_ledgers_are_not_found_anywhere() {
    run(async {
        let set = Set::up().await;
        for name in [
            "nobody",
            "",
            "../payments",
            "Payments",
            "payments/",
            &"x".repeat(10_000),
        ] {
            let name = name.to_owned();
            let clients = &set.clients;
            let producer = &mut Producer::new(set.ledger.id, 1);
            let request = v1::AppendRequest {
                ledger: name.clone(),
                ..set.ledger.request(&producer.intents(1))
            };
            let mut answers = vec![clients.ledger.clone().append(request.clone()).await.err()];
            answers.push(stream_error(clients, request).await);
            let by_name = v1::GetLedgerRequest { name: name.clone() };
            answers.push(clients.ledger.clone().get_ledger(by_name).await.err());
            answers.push(clients.checkpoint(&name).await.err());
            let watch = v1::WatchTreeHeadsRequest {
                ledger: name.clone(),
                consistency_from: None,
            };
            answers.push(match clients.log.clone().watch_tree_heads(watch).await {
                Ok(stream) => stream.into_inner().message().await.err(),
                Err(status) => Some(status),
            });
            answers.push(
                clients
                    .inclusion(&name, Some(Leaf::LeafIndex(0)), 0)
                    .await
                    .err(),
            );
            answers.push(clients.consistency(&name, 0, 0).await.err());
            answers.push(clients.entries(&name, 0, 0).await.err());
            for (rpc, status) in answers.into_iter().enumerate() {
                let status = status.unwrap_or_else(|| panic!("rpc {rpc} finds {name:?}"));
                assert_eq!(
                    status.code(),
                    Code::NotFound,
                    "rpc {rpc}, {name:?}: {status:?}"
                );
            }
        }
    });
}

async fn stream_error(clients: &Clients, request: v1::AppendRequest) -> Option<Status> {
    let requests = tokio_stream::once(request);
    match clients.ledger.clone().append_stream(requests).await {
        Ok(answers) => answers.into_inner().message().await.err(),
        Err(status) => Some(status),
    }
}

// ---- appending

#[test]
fn requests_beyond_the_limits_are_refused_whole() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 1).unchained();
        let payloads = producer.intents(4097);
        let nothing = ledger.try_append(clients, &[]).await.unwrap_err();
        expect_violation(&nothing, "envelopes");
        let too_many = ledger.try_append(clients, &payloads).await.unwrap_err();
        expect_violation(&too_many, "envelopes");

        // The limit is about payload bytes, whatever they are.
        let chunk = Bytes::from(vec![0xff; 64 << 10]);
        let mut four_mib = vec![chunk; 64];
        let answer = ledger
            .try_append(clients, &four_mib)
            .await
            .expect("4 MiB are allowed");
        for result in &answer.results {
            assert_eq!(rejected(result).reason(), Reason::Oversized);
        }
        four_mib.push(Bytes::from_static(&[0xff]));
        let too_large = ledger.try_append(clients, &four_mib).await.unwrap_err();
        expect_violation(&too_large, "envelopes");
        assert_eq!(
            ledger.head(clients).await.size.get(),
            1,
            "nothing was recorded"
        );

        let (receipts, head) = ledger.append(clients, &payloads[..4096]).await;
        assert_eq!(head.size.get(), 4097);
        let indexes: Vec<_> = receipts.iter().map(|receipt| receipt.leaf_index).collect();
        assert_eq!(indexes, (1..=4096).collect::<Vec<_>>());
    });
}

/// A message so large that it is not decoded at all.
#[test]
fn huge_requests_are_refused_and_the_connection_lives() {
    run(async {
        let set = Set::up().await;
        let huge = vec![Bytes::from(vec![0xff; 1 << 20]); 12];
        let status = set
            .ledger
            .try_append(&set.clients, &huge)
            .await
            .unwrap_err();
        let codes = [
            Code::InvalidArgument,
            Code::OutOfRange,
            Code::ResourceExhausted,
        ];
        assert!(codes.contains(&status.code()), "{status:?}");
        set.ledger
            .append(&set.clients, &Producer::new(set.ledger.id, 1).intents(3))
            .await;
    });
}

#[test]
fn receipts_are_of_what_was_sent() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 7);
        let mut trusted = ledger.head(clients).await;
        for batch in [1, 2, 5, 300] {
            let payloads = producer.intents(batch);
            let request = v1::AppendRequest {
                with_proofs: true,
                consistency_from: Some(trusted.size.get()),
                ..ledger.request(&payloads)
            };
            let answer = clients
                .ledger
                .clone()
                .append(request)
                .await
                .unwrap()
                .into_inner();
            let head = ledger.open(&answer.checkpoint);
            for (result, payload) in answer.results.iter().zip(&payloads) {
                let receipt = accepted(result);
                assert!(!receipt.inclusion_proof.is_empty());
                receipt::verify(&receipt, payload, &head, true).expect("a receipt that holds");
                assert!(
                    receipt.received_at_us > 1_700_000_000_000_000,
                    "microseconds since 1970"
                );
            }
            let consistency = answer.consistency.expect("the proof that was asked for");
            assert_eq!(consistency.old_size, trusted.size.get());
            let proof = consistency_proof(&consistency.hashes);
            verify_consistency(&proof, &trusted, &head).expect("one history");
            assert_eq!(answer.witnessed_size, 0);
            trusted = head;
        }

        // Neither is sent unasked, and a size beyond the tree is left alone.
        let payloads = producer.intents(2);
        let request = v1::AppendRequest {
            consistency_from: Some(1_000_000),
            ..ledger.request(&payloads)
        };
        let answer = clients
            .ledger
            .clone()
            .append(request)
            .await
            .unwrap()
            .into_inner();
        assert!(
            answer
                .results
                .iter()
                .all(|result| accepted(result).inclusion_proof.is_empty())
        );
        assert_eq!(answer.consistency, None);
        let log = Log::read(clients, ledger).await;
        log.expect_heads([trusted, ledger.open(&answer.checkpoint)]);
    });
}

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
            // A default value written out: field 4, varint 0, in its place.
            ("sequence", {
                let until_session = v1::Statement {
                    body: None,
                    task: Bytes::new(),
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
        let answer = clients
            .ledger
            .clone()
            .append(request)
            .await
            .unwrap()
            .into_inner();
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

        // An unknown field, and one that stands twice: never recorded either.
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
            let answer = clients
                .ledger
                .clone()
                .append(request)
                .await
                .unwrap()
                .into_inner();
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

        // The genesis statement itself, and a body of a later version (field 26).
        let entry = Entry::parse(&ledger.info.genesis_entry).unwrap();
        let genesis = Bytes::copy_from_slice(entry.payload);
        let wanted = (Reason::BodyNotAccepted, "genesis".to_owned());
        assert_eq!(reason(envelope(&genesis)).await, wanted);
        let mut later = v1::Statement {
            body: None,
            ..producer.message(intent("orders/1"))
        }
        .encode_to_vec();
        later.extend_from_slice(&[0xd2, 0x01, 0x00]);
        assert_eq!(
            reason(envelope(&later.into())).await.0,
            Reason::BodyNotAccepted
        );

        let payload = producer.clone().intent("orders/1");
        let mut signed = envelope(&payload);
        signed.signature = Bytes::from_static(&[1; 64]);
        let wanted = (Reason::SignatureNotAccepted, "signature".to_owned());
        assert_eq!(reason(signed.clone()).await, wanted);
        signed.signature = Bytes::new();
        signed.key_id = Bytes::from_static(&[1; 16]);
        let wanted = (Reason::SignatureNotAccepted, "key_id".to_owned());
        assert_eq!(reason(signed).await, wanted);

        // Unsigned, in its own ledger, the very same payload is taken.
        ledger.append(clients, &[payload]).await;
        assert_eq!(ledger.head(clients).await.size.get(), 2);
    });
}

/// 60,000 bytes and not one more.
#[test]
fn the_largest_statement_is_taken() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 1);
        producer.intent("binds nothing yet");
        let of_length = |length: usize| {
            (1..1000).find_map(|last| {
                let mut body = large_outcome(59);
                if let Body::Outcome(outcome) = &mut body {
                    outcome.effects[58].resource = "r".repeat(last);
                }
                let message = v1::Statement {
                    sequence: 0,
                    previous: Bytes::new(),
                    ..producer.message(body)
                };
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

#[test]
fn sessions_are_strict() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let one = async |payload: &Bytes| {
            let answer = ledger
                .try_append(clients, std::slice::from_ref(payload))
                .await
                .unwrap();
            answer.results[0].clone()
        };
        let refusal = async |payload: &Bytes| {
            let rejection = rejected(&one(payload).await);
            (
                rejection.reason(),
                rejection.field,
                rejection.expected_sequence,
            )
        };
        let made = |message: &v1::Statement| Bytes::from(message.encode_to_vec());
        let mut producer = Producer::new(ledger.id, 1);

        // A session begins at 0.
        let early = v1::Statement {
            sequence: 1,
            ..producer.message(intent("early"))
        };
        let wanted = (Reason::SequenceNotNext, "sequence".to_owned(), Some(0));
        assert_eq!(refusal(&made(&early)).await, wanted);
        let chained = v1::Statement {
            previous: Bytes::from_static(&[9; 32]),
            ..producer.message(intent("chained to nothing"))
        };
        // Nothing can come before the first one: that shows without the session.
        let wanted = (Reason::Malformed, "previous".to_owned(), None);
        assert_eq!(refusal(&made(&chained)).await, wanted);

        let payloads = producer.intents(3);
        let (receipts, _) = ledger.append(clients, &payloads).await;

        // Somebody else in it, with the very next sequence or an earlier one.
        for sequence in [1, 3] {
            let stranger = v1::Statement {
                producer: "spiffe://example.org/stranger".to_owned(),
                sequence,
                previous: Bytes::new(),
                ..producer.message(intent("mine now"))
            };
            let (reason, field, _) = refusal(&made(&stranger)).await;
            assert_eq!((reason, field.as_str()), (Reason::SessionTaken, "session"));
        }

        // Too far ahead; an earlier place with other bytes; the wrong predecessor.
        let ahead = v1::Statement {
            sequence: 5,
            ..producer.message(intent("ahead"))
        };
        let wanted = (Reason::SequenceNotNext, "sequence".to_owned(), Some(3));
        assert_eq!(refusal(&made(&ahead)).await, wanted);
        let reused = v1::Statement {
            sequence: 1,
            ..producer.message(intent("another past"))
        };
        let wanted = (Reason::SequenceReused, "sequence".to_owned(), Some(3));
        assert_eq!(refusal(&made(&reused)).await, wanted);
        let broken = v1::Statement {
            previous: Bytes::from_static(&[9; 32]),
            ..producer.message(intent("after something else"))
        };
        let wanted = (Reason::PreviousMismatch, "previous".to_owned(), Some(3));
        assert_eq!(refusal(&made(&broken)).await, wanted);

        // What was recorded comes back with its first receipt.
        for (payload, receipt) in payloads.iter().zip(&receipts) {
            assert_eq!(duplicate(&one(payload).await), *receipt);
        }

        // A hole that is owned up to: from exactly the sequence that is expected, not another.
        let hole = |skipped_from| v1::Statement {
            sequence: 7,
            skipped_from: Some(skipped_from),
            ..producer.message(intent("after a hole"))
        };
        for wrong in [2, 4] {
            assert_eq!(
                refusal(&made(&hole(wrong))).await.0,
                Reason::SequenceNotNext
            );
        }
        let after_hole = made(&hole(3));
        let in_place = accepted(&one(&after_hole).await);
        assert_eq!(duplicate(&one(&after_hole).await), in_place);
        let inside = v1::Statement {
            sequence: 5,
            ..producer.message(intent("inside of the hole"))
        };
        let wanted = (Reason::SequenceReused, "sequence".to_owned(), Some(8));
        assert_eq!(refusal(&made(&inside)).await, wanted);

        // Closed is closed; what was recorded before still answers.
        let mut closing = Producer::new(ledger.id, 2);
        let before = closing.intent("before");
        let close = closing.close();
        ledger
            .append(clients, &[before.clone(), close.clone()])
            .await;
        let after = made(&closing.message(intent("after")));
        let (reason, field, _) = refusal(&after).await;
        assert_eq!((reason, field.as_str()), (Reason::SessionClosed, "session"));
        duplicate(&one(&before).await);
        duplicate(&one(&close).await);

        let log = Log::read(clients, ledger).await;
        assert_eq!(
            log.head.size.get(),
            1 + 3 + 1 + 2,
            "only what was accepted is in the log"
        );
    });
}

#[test]
fn each_envelope_of_a_request_has_its_own_result() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let (mut a, mut b) = (Producer::new(ledger.id, 1), Producer::new(ledger.id, 2));
        let first = a.intent("first");
        let (before, _) = ledger.append(clients, std::slice::from_ref(&first)).await;
        let [second, third] = [a.intent("second"), a.intent("third")];
        let of_b = b.intent("of b");
        let junk = Bytes::from_static(b"junk");
        let ahead = {
            a.intent("never sent");
            a.intent("too far ahead")
        };
        let payloads = [&second, &first, &junk, &of_b, &ahead, &third, &second].map(Bytes::clone);
        let request = v1::AppendRequest {
            with_proofs: true,
            ..ledger.request(&payloads)
        };
        let answer = clients
            .ledger
            .clone()
            .append(request)
            .await
            .unwrap()
            .into_inner();
        let head = ledger.open(&answer.checkpoint);
        let results = &answer.results;
        assert_eq!(results.len(), payloads.len());
        let new = [&results[0], &results[3], &results[5]].map(accepted);
        assert_eq!(new.each_ref().map(|receipt| receipt.leaf_index), [2, 3, 4]);
        let mut known = duplicate(&results[1]);
        receipt::verify(&known, &first, &head, true).expect("a proof also for a duplicate");
        known.inclusion_proof.clear();
        assert_eq!(known, before[0]);
        assert_eq!(rejected(&results[2]).reason(), Reason::Malformed);
        let too_far = rejected(&results[4]);
        assert_eq!(too_far.reason(), Reason::SequenceNotNext);
        assert_eq!(
            too_far.expected_sequence,
            Some(2),
            "before the third one was taken"
        );
        assert_eq!(
            duplicate(&results[6]).leaf_index,
            2,
            "a repetition inside of one request"
        );
        for (receipt, payload) in new.iter().zip([&second, &of_b, &third]) {
            receipt::verify(receipt, payload, &head, true).expect("a receipt that holds");
        }
        assert_eq!(head.size.get(), 5);
        Log::read(clients, ledger).await.expect_heads([head]);
    });
}

#[test]
fn streams_answer_in_order_until_a_request_is_malformed() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let other = TestLedger::create(clients, "other").await;
        let mut producers = [Producer::new(ledger.id, 1), Producer::new(other.id, 1)];
        let ledgers = [ledger, &other];

        // Two ledgers in turn, batches of growing size; nothing is read before all is sent.
        let (sender, receiver) = tokio::sync::mpsc::channel(128);
        let mut sent = Vec::new();
        for round in 0..50_usize {
            let payloads = producers[round % 2].intents(1 + round % 7);
            sender
                .send(ledgers[round % 2].request(&payloads))
                .await
                .unwrap();
            sent.push(payloads);
        }
        // An item that is rejected does not end a stream, a request that is malformed does.
        sender
            .send(ledger.request(&[Bytes::from_static(b"junk")]))
            .await
            .unwrap();
        sender.send(ledger.request(&[])).await.unwrap();
        let unseen = producers[0].intents(1);
        sender.send(ledger.request(&unseen)).await.unwrap();
        let call = clients
            .ledger
            .clone()
            .append_stream(ReceiverStream::new(receiver))
            .await;
        let mut answers = call.unwrap().into_inner();
        let mut next = [1, 1];
        for (round, payloads) in sent.iter().enumerate() {
            let answer = within("an answer", answers.message())
                .await
                .unwrap()
                .unwrap();
            let which = round % 2;
            let head = ledgers[which].open(&answer.checkpoint);
            assert_eq!(answer.results.len(), payloads.len());
            for (result, payload) in answer.results.iter().zip(payloads) {
                let receipt = accepted(result);
                assert_eq!(receipt.leaf_index, next[which], "in the order of sending");
                next[which] += 1;
                receipt::verify(&receipt, payload, &head, false).expect("a receipt that holds");
            }
        }
        let answer = within("an answer", answers.message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rejected(&answer.results[0]).reason(), Reason::Malformed);
        let end = within("the end", answers.message()).await.unwrap_err();
        expect_violation(&end, "envelopes");
        assert_eq!(
            ledger.head(clients).await.size.get(),
            next[0],
            "nothing behind it was taken"
        );

        // A stream that its sender ends well, ends well.
        let requests = tokio_stream::iter([ledger.request(&unseen)]);
        let call = clients.ledger.clone().append_stream(requests).await;
        let mut answers = call.unwrap().into_inner();
        accepted(
            &within("an answer", answers.message())
                .await
                .unwrap()
                .unwrap()
                .results[0],
        );
        assert_eq!(within("the end", answers.message()).await.unwrap(), None);
    });
}

/// A sender whose answers nobody reads is held back; nothing piles up, and nothing is lost.
#[test]
fn a_stream_that_is_not_read_is_held_back() {
    const REQUESTS: usize = 1500;
    const STATEMENTS: usize = 100;

    run(async {
        let set = Set::up().await;
        let ledger = &set.ledger;
        let mut producer = Producer::new(ledger.id, 1).unchained();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let call = set
            .clients
            .ledger
            .clone()
            .append_stream(ReceiverStream::new(receiver))
            .await;
        let mut answers = call.unwrap().into_inner();
        let mut sent = 0;
        while sent < REQUESTS {
            let request = v1::AppendRequest {
                with_proofs: true,
                ..ledger.request(&producer.intents(STATEMENTS))
            };
            // Held back, or slow: in both cases the answers tell.
            let patience = std::time::Duration::from_secs(2);
            let handed_over = tokio::time::timeout(patience, sender.send(request)).await;
            if handed_over.is_err() {
                break;
            }
            sent += 1;
        }
        assert!(
            sent < REQUESTS,
            "all {sent} requests were taken without an answer being read"
        );
        drop(sender);
        let mut next = 1;
        for _ in 0..sent {
            let answer = within("an answer", answers.message())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(answer.results.len(), STATEMENTS);
            for result in &answer.results {
                assert_eq!(accepted(result).leaf_index, next);
                next += 1;
            }
        }
        assert_eq!(within("the end", answers.message()).await.unwrap(), None);
        assert_eq!(ledger.head(&set.clients).await.size.get(), next);
    });
}

// ---- heads and proofs

#[test]
fn every_tree_size_of_a_small_ledger_is_proven() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        // Seven at a time: most sizes never had a head of their own.
        let payloads = set.fill(24, 7).await;
        let log = Log::read(clients, ledger).await;
        let session = Producer::new(ledger.id, 1).session();
        let mut heads = Vec::new();
        for size in 1..=24_u64 {
            let root = oracle::root(&log.leaf_hashes[..usize::try_from(size).unwrap()]);
            let head = TreeHead::new(TreeSize::new(size), root);
            for index in 0..size {
                let leaf_hash = log.leaf_hashes[usize::try_from(index).unwrap()];
                let mut leaves = vec![
                    Leaf::LeafIndex(index),
                    Leaf::LeafHash(Bytes::copy_from_slice(leaf_hash.as_bytes())),
                ];
                if index > 0 {
                    leaves.push(Leaf::Statement(v1::StatementPosition {
                        session: session.clone(),
                        sequence: index - 1,
                    }));
                }
                for leaf in leaves {
                    let asked = format!("{leaf:?} in {size}");
                    let answer = clients
                        .inclusion(&ledger.name, Some(leaf), size)
                        .await
                        .unwrap();
                    assert_eq!(answer.leaf_index, index, "{asked}");
                    assert_eq!(hash(&answer.leaf_hash), leaf_hash, "{asked}");
                    assert_eq!(answer.tree_size, size, "{asked}");
                    assert_eq!(ledger.check_inclusion(&answer), head, "{asked}");
                }
            }
            heads.push(head);
        }
        for new in &heads {
            let empty = clients
                .consistency(&ledger.name, 0, new.size.get())
                .await
                .unwrap();
            assert_eq!(
                (empty.hashes.len(), ledger.open(&empty.checkpoint)),
                (0, *new)
            );
            for old in heads.iter().filter(|old| old.size <= new.size) {
                let (old_size, new_size) = (old.size.get(), new.size.get());
                let answer = clients
                    .consistency(&ledger.name, old_size, new_size)
                    .await
                    .unwrap();
                assert_eq!((answer.old_size, answer.new_size), (old_size, new_size));
                assert_eq!(
                    ledger.open(&answer.checkpoint),
                    *new,
                    "signed for exactly that size"
                );
                verify_consistency(&consistency_proof(&answer.hashes), old, new).unwrap();
            }
        }

        // 0 is the newest.
        let newest = clients
            .inclusion(&ledger.name, Some(Leaf::LeafIndex(3)), 0)
            .await
            .unwrap();
        assert_eq!(ledger.check_inclusion(&newest), heads[23]);
        let newest = clients.consistency(&ledger.name, 5, 0).await.unwrap();
        assert_eq!(newest.new_size, 24);
        let request = v1::GetTreeHeadRequest {
            ledger: ledger.name.clone(),
            consistency_from: Some(9),
        };
        let answer = clients
            .log
            .clone()
            .get_tree_head(request)
            .await
            .unwrap()
            .into_inner();
        let proof = answer.consistency.expect("the proof that was asked for");
        assert_eq!(
            (proof.old_size, ledger.open(&answer.checkpoint)),
            (9, heads[23])
        );
        verify_consistency(&consistency_proof(&proof.hashes), &heads[8], &heads[23]).unwrap();

        // The entries are those that were sent.
        for (entry, payload) in log.entries[1..].iter().zip(&payloads) {
            assert_eq!(Entry::parse(entry).unwrap().payload, payload);
        }
    });
}

#[test]
fn proofs_that_cannot_be_are_refused() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        set.fill(10, 3).await;
        let size = TreeSize::new(10);
        let inclusion = async |leaf: Option<Leaf>, tree_size| {
            clients
                .inclusion(&ledger.name, leaf, tree_size)
                .await
                .expect_err("it is refused")
        };
        expect_violation(&inclusion(None, 0).await, "leaf");
        for length in [0, 31, 33] {
            let leaf = Leaf::LeafHash(Bytes::from(vec![1; length]));
            expect_violation(&inclusion(Some(leaf), 0).await, "leaf_hash");
        }
        let statement = |session: &Bytes, sequence| {
            Leaf::Statement(v1::StatementPosition {
                session: session.clone(),
                sequence,
            })
        };
        let short = Bytes::from_static(&[1; 15]);
        expect_violation(
            &inclusion(Some(statement(&short, 0)), 0).await,
            "statement.session",
        );

        let session = Producer::new(ledger.id, 1).session();
        for leaf in [
            Leaf::LeafHash(Bytes::from_static(&[1; 32])),
            statement(&session, 9),
            statement(&session, u64::MAX),
            statement(&Producer::new(ledger.id, 2).session(), 0),
        ] {
            let status = inclusion(Some(leaf.clone()), 0).await;
            assert_eq!(status.code(), Code::NotFound, "{leaf:?}: {status:?}");
        }
        for beyond in [10, 11, u64::MAX] {
            expect_beyond(&inclusion(Some(Leaf::LeafIndex(beyond)), 0).await, size);
        }
        for beyond in [11, u64::MAX] {
            expect_beyond(&inclusion(Some(Leaf::LeafIndex(0)), beyond).await, size);
        }
        // In the log, but not yet in a tree of that size.
        let early = inclusion(Some(Leaf::LeafIndex(7)), 7).await;
        expect_violation(&early, "tree_size");
        let recorded = clients
            .inclusion(&ledger.name, Some(Leaf::LeafIndex(7)), 0)
            .await
            .unwrap();
        for leaf in [Leaf::LeafHash(recorded.leaf_hash), statement(&session, 6)] {
            let status = inclusion(Some(leaf.clone()), 7).await;
            assert_eq!(status.code(), Code::NotFound, "{leaf:?}: {status:?}");
            clients
                .inclusion(&ledger.name, Some(leaf), 8)
                .await
                .expect("one leaf later");
        }

        let consistency = async |old, new| {
            clients
                .consistency(&ledger.name, old, new)
                .await
                .expect_err("it is refused")
        };
        expect_violation(&consistency(5, 4).await, "old_size");
        expect_beyond(&consistency(5, 11).await, size);
        expect_beyond(&consistency(12, 13).await, size);
        expect_beyond(&consistency(0, u64::MAX).await, size);
        let request = v1::GetTreeHeadRequest {
            ledger: ledger.name.clone(),
            consistency_from: Some(11),
        };
        expect_beyond(
            &clients
                .log
                .clone()
                .get_tree_head(request)
                .await
                .unwrap_err(),
            size,
        );
        let watch = v1::WatchTreeHeadsRequest {
            ledger: ledger.name.clone(),
            consistency_from: Some(11),
        };
        let status = match clients.log.clone().watch_tree_heads(watch).await {
            Ok(heads) => within("a refusal", heads.into_inner().message())
                .await
                .unwrap_err(),
            Err(status) => status,
        };
        expect_beyond(&status, size);
    });
}

// ---- entries

#[test]
fn entries_come_in_ranges() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 1).unchained();
        for _ in 0..3 {
            ledger.append(clients, &producer.intents(1000)).await;
        }
        // 100 entries of more than 20,000 bytes: more than one message by their bytes alone.
        let large: Vec<_> = (0..100).map(|_| producer.make(large_outcome(25))).collect();
        ledger.append(clients, &large).await;
        let log = Log::read(clients, ledger).await;
        let size = log.head.size.get();
        assert_eq!(size, 3101);

        let range = async |start: u64, end: u64| {
            let messages = clients.entries(&ledger.name, start, end).await.unwrap();
            let mut next = start;
            let mut all = Vec::new();
            for message in messages {
                assert_eq!(message.start, next, "without a hole");
                assert_eq!(message.tree_size, size);
                assert!((1..=1024).contains(&message.entries.len()));
                let last = message.entries.last().map_or(0, Bytes::len);
                let bytes: usize = message.entries.iter().map(Bytes::len).sum();
                assert!(bytes - last < 1 << 20, "{bytes} bytes in one message");
                next += message.entries.len() as u64;
                all.extend(message.entries);
            }
            all
        };
        for (start, end) in [
            (0, size),
            (0, 1),
            (size - 1, size),
            (255, 257),
            (999, 2050),
            (0, 0),
        ] {
            let wanted = if end == 0 { size } else { end };
            let slice =
                &log.entries[usize::try_from(start).unwrap()..usize::try_from(wanted).unwrap()];
            assert!(
                range(start, end).await == slice,
                "entries of {start}..{end}"
            );
        }
        for empty in [1, 256, size] {
            assert!(range(empty, empty).await.is_empty());
        }

        // A reader that goes away in the middle resumes behind what it has.
        let request = v1::GetEntriesRequest {
            ledger: ledger.name.clone(),
            start: 0,
            end: 0,
        };
        let mut cut = clients
            .log
            .clone()
            .get_entries(request)
            .await
            .unwrap()
            .into_inner();
        let mut entries = cut
            .message()
            .await
            .unwrap()
            .expect("a first message")
            .entries;
        drop(cut);
        assert!(
            entries.len() < log.entries.len(),
            "it does not fit one message"
        );
        entries.extend(range(entries.len() as u64, 0).await);
        assert!(entries == log.entries, "the same entries in two pieces");

        let refused =
            async |start, end| clients.entries(&ledger.name, start, end).await.unwrap_err();
        expect_violation(&refused(5, 4).await, "start");
        expect_beyond(&refused(size + 1, 0).await, log.head.size);
        expect_beyond(&refused(0, size + 1).await, log.head.size);
        expect_beyond(&refused(u64::MAX, u64::MAX).await, log.head.size);
    });
}

/// An outcome with effects of about 1,000 bytes each.
fn large_outcome(effects: usize) -> Body {
    let effect = v1::Effect {
        kind: "row.updated".to_owned(),
        resource: "r".repeat(1000),
        ..v1::Effect::default()
    };
    Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            session: Bytes::new(),
            sequence: 0,
            payload_digest: Bytes::copy_from_slice(PayloadDigest::of(b"").as_bytes()),
        }),
        status: v1::OutcomeStatus::Succeeded.into(),
        effects: vec![effect; effects],
        ..v1::Outcome::default()
    })
}

/// An entry is what the envelope and the receipt say, and nothing else.
#[test]
fn entries_are_rebuilt_from_receipts() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let payloads = Producer::new(ledger.id, 1).intents(300);
        let (receipts, _) = ledger.append(clients, &payloads).await;
        let log = Log::read(clients, ledger).await;
        for (receipt, payload) in receipts.iter().zip(&payloads) {
            let index = usize::try_from(receipt.leaf_index).unwrap();
            let rebuilt = Entry::unsigned(payload, Micros::new(receipt.received_at_us));
            assert_eq!(rebuilt.encode(), log.entries[index]);
            assert_eq!(entry::hash(&rebuilt), hash(&receipt.leaf_hash));
            assert_eq!(log.leaf_hashes[index], hash(&receipt.leaf_hash));
        }
    });
}

// ---- watching

#[test]
fn watchers_see_the_newest_head_and_then_newer_ones() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 1);
        ledger.append(clients, &producer.intents(4)).await;
        let request = v1::WatchTreeHeadsRequest {
            ledger: ledger.name.clone(),
            consistency_from: Some(2),
        };
        let mut heads = clients
            .log
            .clone()
            .watch_tree_heads(request)
            .await
            .unwrap()
            .into_inner();
        let mut last = {
            let proof = clients
                .inclusion(&ledger.name, Some(Leaf::LeafIndex(0)), 2)
                .await;
            ledger.check_inclusion(&proof.unwrap())
        };
        let mut size = 5;
        for round in 0..20 {
            let answer = within("a head", heads.message()).await.unwrap().unwrap();
            let head = ledger.open(&answer.checkpoint);
            assert_eq!(
                head.size.get(),
                size,
                "round {round}: one head for each change"
            );
            let proof = answer.consistency.expect("a proof with every head");
            assert_eq!(proof.old_size, last.size.get());
            verify_consistency(&consistency_proof(&proof.hashes), &last, &head).unwrap();
            last = head;
            ledger.append(clients, &producer.intents(1 + round)).await;
            size += 1 + round as u64;
        }
        Log::read(clients, ledger).await.expect_heads([last]);
    });
}

#[test]
fn slow_watchers_skip_heads() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        // A window of 1 KiB holds a handful of heads; the rest must not pile up anywhere.
        let endpoint = Endpoint::from_shared(set.server.url()).unwrap();
        let slow = endpoint
            .initial_stream_window_size(1024)
            .connect()
            .await
            .map(Clients::over)
            .unwrap();
        let request = v1::WatchTreeHeadsRequest {
            ledger: ledger.name.clone(),
            consistency_from: None,
        };
        let mut heads = slow
            .log
            .clone()
            .watch_tree_heads(request)
            .await
            .unwrap()
            .into_inner();
        let first = within("the first head", heads.message())
            .await
            .unwrap()
            .unwrap();
        let mut seen = vec![ledger.open(&first.checkpoint)];
        let mut producer = Producer::new(ledger.id, 1);
        for _ in 0..300 {
            ledger.append(clients, &producer.intents(1)).await;
        }
        while seen.last().unwrap().size.get() < 301 {
            let answer = within("a newer head", heads.message())
                .await
                .unwrap()
                .unwrap();
            seen.push(ledger.open(&answer.checkpoint));
        }
        let grows = seen.windows(2).all(|pair| pair[0].size < pair[1].size);
        assert!(grows, "never an older one: {seen:?}");
        assert!(
            seen.len() < 60,
            "{} of 301 heads were kept for a reader that slept",
            seen.len()
        );
        Log::read(clients, ledger).await.expect_heads(seen);
    });
}

// ---- what every gRPC server has

#[test]
fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    };

    run(async {
        let set = Set::up().await;
        let channel = set.clients.channel.clone();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        for service in ["", "deed.v1.Ledger", "deed.v1.Log"] {
            let service = service.to_owned();
            let answer = health
                .check(HealthCheckRequest { service })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
        }
        let service = "deed.v1.Nothing".to_owned();
        let unknown = health
            .check(HealthCheckRequest { service })
            .await
            .unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);

        let mut reflection =
            tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
                channel,
            );
        let mut ask = async |question: MessageRequest| {
            let request = tokio_stream::once(ServerReflectionRequest {
                host: String::new(),
                message_request: Some(question),
            });
            let answer = reflection.server_reflection_info(request).await.unwrap();
            let answer = answer.into_inner().message().await.unwrap().unwrap();
            answer.message_response.expect("an answer")
        };
        let MessageResponse::ListServicesResponse(services) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("not a list of services")
        };
        let services: HashSet<_> = services
            .service
            .into_iter()
            .map(|service| service.name)
            .collect();
        for wanted in ["deed.v1.Ledger", "deed.v1.Log", "grpc.health.v1.Health"] {
            assert!(services.contains(wanted), "{wanted} in {services:?}");
        }
        for symbol in [
            "deed.v1.Ledger",
            "deed.v1.Log",
            "deed.v1.Statement",
            "deed.v1.Entry",
        ] {
            let question = MessageRequest::FileContainingSymbol(symbol.to_owned());
            let MessageResponse::FileDescriptorResponse(files) = ask(question).await else {
                panic!("no file of {symbol}")
            };
            let name = symbol.rsplit('.').next().unwrap().as_bytes();
            let files = files.file_descriptor_proto;
            let found = files
                .iter()
                .any(|file| file.windows(name.len()).any(|at| at == name));
            assert!(found, "{symbol} is in its file");
        }
    });
}
