//! Streams: appends are answered in order, heads are watched, and nothing piles up for a slow
//! reader.

use bytes::Bytes;
use deed_evidence::receipt::{self, Sent};
use deed_proto::v1::{self, get_inclusion_proof_request::Leaf, rejection::Reason};
use deed_tests::{
    oracle::Log,
    rpc::{Clients, TestLedger, accepted, consistency_proof, expect_violation, rejected},
    run,
    statements::Producer,
    within,
};
use deed_tlog::verify_consistency;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::Set;

#[test]
fn streams_answer_in_order_until_a_request_is_malformed() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let other = TestLedger::create(clients, "other").await;
        let mut producers = [Producer::new(ledger.id, 1), Producer::new(other.id, 1)];
        let ledgers = [ledger, &other];

        // Two ledgers take turns, with batches of growing size; nothing is read before everything
        // is sent.
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
        // A rejected item does not end a stream, a malformed request does.
        sender
            .send(ledger.request(&[Bytes::from_static(b"junk")]))
            .await
            .unwrap();
        sender.send(ledger.request(&[])).await.unwrap();
        let unseen = producers[0].intents(1);
        sender.send(ledger.request(&unseen)).await.unwrap();
        let mut answers = clients
            .append_stream(ReceiverStream::new(receiver))
            .await
            .unwrap();
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
                receipt::verify(&receipt, &Sent::unsigned(payload), &head, false)
                    .expect("a receipt that holds");
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

        // A stream that its sender ends properly ends without an error.
        let requests = tokio_stream::iter([ledger.request(&unseen)]);
        let mut answers = clients.append_stream(requests).await.unwrap();
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

/// A sender whose answers are not read is held back; nothing piles up, and nothing is lost.
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
            // The sender is held back, or slow: in both cases the answers show it.
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

#[test]
fn watchers_see_the_newest_head_and_then_newer_ones() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 1);
        ledger.append(clients, &producer.intents(4)).await;
        let mut heads = clients.watch(&ledger.name, Some(2)).await.unwrap();
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
        // A window of 1 KiB holds a few heads; the rest must not pile up anywhere.
        let endpoint = Endpoint::from_shared(set.server.url()).unwrap();
        let slow = endpoint
            .initial_stream_window_size(1024)
            .connect()
            .await
            .map(Clients::over)
            .unwrap();
        let mut heads = slow.watch(&ledger.name, None).await.unwrap();
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
