//! Heads and proofs of every size that the ledger had, and of no other.

use bytes::Bytes;
use deed_evidence::entry::Entry;
use deed_proto::v1::{self, get_inclusion_proof_request::Leaf};
use deed_tests::{
    oracle::{self, Log},
    rpc::{consistency_proof, expect_beyond, expect_violation, hash},
    run,
    statements::Producer,
    within,
};
use deed_tlog::{TreeHead, TreeSize, verify_consistency};
use tonic::Code;

use crate::Set;

#[test]
fn every_tree_size_of_a_small_ledger_is_proven() {
    run(async {
        let set = Set::up().await;
        let (ledger, clients) = (&set.ledger, &set.clients);
        // Seven statements at a time are appended: most sizes never had a head of their own.
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
        let answer = clients.tree_head(&ledger.name, Some(9)).await.unwrap();
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
        // The leaf is in the log, but not yet in a tree of that size.
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
        let head = clients.tree_head(&ledger.name, Some(11)).await;
        expect_beyond(&head.unwrap_err(), size);
        let status = match clients.watch(&ledger.name, Some(11)).await {
            Ok(mut heads) => within("a refusal", heads.message()).await.unwrap_err(),
            Err(status) => status,
        };
        expect_beyond(&status, size);
    });
}
