//! Entries: in ranges, in messages of bounded size, rebuilt from receipts.

use bytes::Bytes;
use deed_evidence::{Micros, entry, entry::Entry};
use deed_proto::v1;
use deed_tests::{
    oracle::Log,
    rpc::{expect_beyond, expect_violation, hash},
    run,
    statements::Producer,
};

use crate::{Set, large_outcome};

#[test]
fn entries_come_in_ranges() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        let mut producer = Producer::new(ledger.id, 1).unchained();
        for _ in 0..3 {
            ledger.append(clients, &producer.intents(1000)).await;
        }
        // 100 entries of more than 20,000 bytes take more than one message by their bytes alone.
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
            min_size: 0,
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

/// An entry can be rebuilt from the envelope and the receipt.
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
