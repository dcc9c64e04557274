//! Appending: the limits of a request, and its receipts.

use bytes::Bytes;
use deed_evidence::receipt::{self, Sent};
use deed_proto::v1::{self, rejection::Reason};
use deed_tests::{
    oracle::Log,
    rpc::{accepted, consistency_proof, duplicate, expect_violation, rejected},
    run,
    statements::Producer,
};
use deed_tlog::verify_consistency;
use tonic::Code;

use crate::Set;

#[test]
fn requests_beyond_the_limits_are_refused_whole() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 1).unchained();
        let payloads = producer.intents(4098);
        let nothing = ledger.try_append(clients, &[]).await.unwrap_err();
        expect_violation(&nothing, "envelopes");
        let too_many = ledger.try_append(clients, &payloads).await.unwrap_err();
        expect_violation(&too_many, "envelopes");

        // The limit is on payload bytes, whatever they contain.
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

/// The message is so large that it is not decoded at all.
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
            let answer = clients.append(request).await.unwrap();
            let head = ledger.open(&answer.checkpoint);
            for (result, payload) in answer.results.iter().zip(&payloads) {
                let receipt = accepted(result);
                assert!(!receipt.inclusion_proof.is_empty());
                receipt::verify(&receipt, &Sent::unsigned(payload), &head, true)
                    .expect("a receipt that holds");
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

        // Neither proof is sent unasked, and a size beyond the tree is ignored.
        let payloads = producer.intents(2);
        let request = v1::AppendRequest {
            consistency_from: Some(1_000_000),
            ..ledger.request(&payloads)
        };
        let answer = clients.append(request).await.unwrap();
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
        let answer = clients.append(request).await.unwrap();
        let head = ledger.open(&answer.checkpoint);
        let results = &answer.results;
        assert_eq!(results.len(), payloads.len());
        let new = [&results[0], &results[3], &results[5]].map(accepted);
        assert_eq!(new.each_ref().map(|receipt| receipt.leaf_index), [2, 3, 4]);
        let mut known = duplicate(&results[1]);
        receipt::verify(&known, &Sent::unsigned(&first), &head, true)
            .expect("a proof also for a duplicate");
        known.inclusion_proof.clear();
        // The assessment of a statement is sent once.
        let mut first_time = before[0].clone();
        assert!(first_time.assessed.take().is_some());
        assert_eq!(known, first_time);
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
            receipt::verify(receipt, &Sent::unsigned(payload), &head, true)
                .expect("a receipt that holds");
        }
        assert_eq!(head.size.get(), 5);
        Log::read(clients, ledger).await.expect_heads([head]);
    });
}
