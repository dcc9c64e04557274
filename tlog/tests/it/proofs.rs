//! Roots and proofs equal RFC 6962's definitions.

use deed_tlog::{
    ConsistencyProof, EMPTY_ROOT, Frontier, Hash, InclusionProof, LeafIndex, ProveError, SizeRange,
    TileReadError, TreeHead, TreeSize, VerifyError, prove_consistency, prove_inclusion,
    prove_inclusions, root_at, verify_consistency, verify_inclusion,
};

use crate::reference::{self, leaves};
use crate::store::{Tampered, Tree};

const EXHAUSTIVE: usize = 128;

fn size(leaves: usize) -> TreeSize {
    TreeSize::new(leaves as u64)
}

fn index(leaf: usize) -> LeafIndex {
    LeafIndex::new(leaf as u64)
}

fn head(leaves: &[Hash]) -> TreeHead {
    TreeHead::new(size(leaves.len()), reference::root(leaves))
}

#[test]
fn every_inclusion_proof_up_to_128_leaves() {
    let all = leaves(EXHAUSTIVE);
    let mut count = 0;
    for n in 0..=EXHAUSTIVE {
        let tree = Tree::of(&all[..n]);
        let head = head(&all[..n]);
        assert_eq!(tree.edge.head(), head);
        assert_eq!(root_at(size(n), &tree.reader()).unwrap(), head.root);
        for m in 0..n {
            let proof = prove_inclusion(index(m), size(n), &tree.reader()).unwrap();
            assert_eq!(
                proof.hashes(),
                reference::path(m, &all[..n]),
                "leaf {m} of {n}"
            );
            verify_inclusion(&proof, &all[m], index(m), &head).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, EXHAUSTIVE * (EXHAUSTIVE + 1) / 2);
}

#[test]
fn every_consistency_proof_up_to_128_leaves() {
    let all = leaves(EXHAUSTIVE);
    // One tree, larger than any of the proofs: older trees' tiles are prefixes of its tiles.
    let tree = Tree::of(&leaves(EXHAUSTIVE + 7));
    let mut count = 0;
    for n in 0..=EXHAUSTIVE {
        let new = head(&all[..n]);
        for m in 0..=n {
            let old = head(&all[..m]);
            let range = SizeRange {
                old: size(m),
                new: size(n),
            };
            let proof = prove_consistency(range, &tree.reader()).unwrap();
            let wanted = if m == 0 {
                Vec::new()
            } else {
                reference::proof(m, &all[..n])
            };
            assert_eq!(proof.hashes(), wanted, "{m} to {n}");
            verify_consistency(&proof, &old, &new).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, (EXHAUSTIVE + 1) * (EXHAUSTIVE + 2) / 2);
}

#[test]
fn three_levels_of_tiles() {
    const LEAVES: usize = 65536 * 2 + 256 * 3 + 17;
    let all = leaves(LEAVES);
    let tree = Tree::of(&all);
    assert_eq!(tree.store.len(), 515 + 2);

    let sizes = [
        255, 256, 257, 511, 512, 65535, 65536, 65537, 65792, 131_072, 131_839, LEAVES,
    ];
    for n in sizes {
        let head = head(&all[..n]);
        assert_eq!(root_at(size(n), &tree.reader()).unwrap(), head.root);
        let spots = [
            0,
            1,
            254,
            255,
            256,
            257,
            65535,
            65536,
            n / 2,
            n / 3,
            n - 2,
            n - 1,
        ];
        for m in spots.into_iter().filter(|m| *m < n) {
            let proof = prove_inclusion(index(m), size(n), &tree.reader()).unwrap();
            assert_eq!(
                proof.hashes(),
                reference::path(m, &all[..n]),
                "leaf {m} of {n}"
            );
            verify_inclusion(&proof, &all[m], index(m), &head).unwrap();
        }
        for m in sizes
            .into_iter()
            .chain(spots)
            .filter(|m| (1..=n).contains(m))
        {
            let range = SizeRange {
                old: size(m),
                new: size(n),
            };
            let proof = prove_consistency(range, &tree.reader()).unwrap();
            assert_eq!(proof.hashes(), reference::proof(m, &all[..n]), "{m} to {n}");
            let old = TreeHead::new(size(m), root_at(size(m), &tree.reader()).unwrap());
            verify_consistency(&proof, &old, &head).unwrap();
        }
    }
}

#[test]
fn many_proofs_are_the_single_ones_from_one_read() {
    let all = leaves(1000);
    let tree = Tree::of(&all);
    let indexes: Vec<LeafIndex> = (0..1000)
        .rev()
        .step_by(3)
        .chain([5, 5])
        .map(index)
        .collect();
    let proofs = prove_inclusions(&indexes, size(1000), &tree.reader()).unwrap();
    assert_eq!(tree.store.reads.get(), 1);
    assert_eq!(proofs.len(), indexes.len());
    for (leaf, proof) in indexes.iter().zip(&proofs) {
        assert_eq!(
            *proof,
            prove_inclusion(*leaf, size(1000), &tree.reader()).unwrap()
        );
    }
    assert_eq!(
        prove_inclusions(&[], size(1000), &tree.reader()).unwrap(),
        []
    );
}

#[test]
fn tiles_are_read_once_each_and_in_one_batch() {
    let tree = Tree::of(&leaves(65536 + 300));
    let check = |what: &str, most: usize| {
        assert!(tree.store.reads.replace(0) <= 1, "{what}: one batch");
        let mut asked = tree.store.asked.take();
        let count = asked.len();
        assert!(count <= most, "{what}: {count} tiles");
        asked.dedup();
        assert_eq!(asked.len(), count, "{what}: no tile twice");
    };
    root_at(size(65836), &tree.reader()).unwrap();
    check("root", 3);
    prove_inclusion(index(300), size(65836), &tree.reader()).unwrap();
    check("inclusion", 4);
    prove_consistency(
        SizeRange {
            old: size(300),
            new: size(65836),
        },
        &tree.reader(),
    )
    .unwrap();
    check("consistency", 5);
}

#[test]
fn what_cannot_be_proved() {
    let tree = Tree::of(&leaves(300));
    for (leaf, leaves) in [(0, 0), (1, 1), (300, 300), (usize::MAX, 300)] {
        let error = prove_inclusion(index(leaf), size(leaves), &tree.reader()).unwrap_err();
        assert!(
            matches!(error, ProveError::IndexOutOfRange { .. }),
            "{error}"
        );
    }
    let reversed = SizeRange {
        old: size(9),
        new: size(8),
    };
    let error = prove_consistency(reversed, &tree.reader()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "old tree size 9 is larger than new tree size 8"
    );
    // The tree has not grown that far.
    let error = prove_inclusion(index(0), size(301), &tree.reader()).unwrap_err();
    assert!(
        matches!(&error, ProveError::Tiles(TileReadError::Short { tile, found: 44 }) if tile.width() == 45),
        "{error}"
    );
    let error = root_at(size(600), &tree.reader()).unwrap_err();
    assert!(matches!(error, TileReadError::Reader(_)), "{error}");
}

#[test]
fn misbehaving_readers_are_noticed() {
    let all = leaves(1000);
    let tree = Tree::of(&all);
    let prove = |tamper: fn(&mut Vec<deed_tlog::TileHashes>)| {
        prove_inclusion(index(3), size(1000), &Tampered(tree.reader(), tamper))
    };
    let error = prove(|tiles| drop(tiles.pop())).unwrap_err();
    assert!(
        matches!(error, ProveError::Tiles(TileReadError::Count { .. })),
        "{error}"
    );
    let error = prove(|tiles| tiles.push(tiles[0].clone())).unwrap_err();
    assert!(
        matches!(error, ProveError::Tiles(TileReadError::Count { .. })),
        "{error}"
    );
    let error = prove(|tiles| {
        std::sync::Arc::make_mut(&mut tiles[0]).pop();
    })
    .unwrap_err();
    assert!(
        matches!(error, ProveError::Tiles(TileReadError::Short { .. })),
        "{error}"
    );
    // Wrong hashes are not noticed by the prover, but by everybody who verifies.
    let proof = prove(|tiles| std::sync::Arc::make_mut(&mut tiles[0])[7] = EMPTY_ROOT).unwrap();
    let error = verify_inclusion(&proof, &all[3], index(3), &head(&all)).unwrap_err();
    assert!(matches!(error, VerifyError::RootMismatch { .. }), "{error}");
}

#[test]
fn empty_and_equal_trees() {
    let all = leaves(5);
    let none = ConsistencyProof::default();
    let some = ConsistencyProof::from_hashes(vec![all[0]]).unwrap();
    let five = head(&all);
    let other_five = TreeHead::new(five.size, all[0]);
    let false_empty = TreeHead::new(TreeSize::ZERO, all[0]);

    assert_eq!(
        verify_consistency(&none, &TreeHead::EMPTY, &TreeHead::EMPTY),
        Ok(())
    );
    assert_eq!(verify_consistency(&none, &TreeHead::EMPTY, &five), Ok(()));
    assert_eq!(verify_consistency(&none, &five, &five), Ok(()));
    let too_long = Err(VerifyError::ProofLength {
        found: 1,
        wanted: 0,
    });
    assert_eq!(
        verify_consistency(&some, &TreeHead::EMPTY, &TreeHead::EMPTY),
        too_long
    );
    assert_eq!(verify_consistency(&some, &TreeHead::EMPTY, &five), too_long);
    assert_eq!(verify_consistency(&some, &five, &five), too_long);
    let not_empty = Err(VerifyError::EmptyTreeRoot { root: all[0] });
    assert_eq!(verify_consistency(&none, &false_empty, &five), not_empty);
    assert_eq!(
        verify_consistency(&none, &false_empty, &false_empty),
        not_empty
    );
    assert!(matches!(
        verify_consistency(&none, &five, &other_five),
        Err(VerifyError::NewRootMismatch { .. })
    ));
    assert!(matches!(
        verify_consistency(&none, &five, &TreeHead::EMPTY),
        Err(VerifyError::SizesReversed { .. })
    ));
    assert!(matches!(
        verify_inclusion(
            &InclusionProof::default(),
            &all[0],
            index(0),
            &TreeHead::EMPTY
        ),
        Err(VerifyError::IndexOutOfRange { .. })
    ));
}

#[test]
fn the_largest_trees_neither_panic_nor_overflow() {
    let hash = leaves(1)[0];
    let edges = [
        0,
        1,
        2,
        255,
        256,
        (1 << 62) - 1,
        1 << 62,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    for a in edges {
        for b in edges {
            let (old, new) = (
                TreeHead::new(TreeSize::new(a), hash),
                TreeHead::new(TreeSize::new(b), hash),
            );
            for count in [0, 1, 2, 62, 63, 64, 65] {
                let hashes = vec![hash; count];
                if let Ok(proof) = InclusionProof::from_hashes(hashes.clone()) {
                    let found = verify_inclusion(&proof, &hash, LeafIndex::new(a), &new);
                    // A lone leaf is its own root; nothing else leads to its own hash.
                    assert_eq!(found.is_ok(), a == 0 && b == 1 && count == 0);
                }
                let proof = ConsistencyProof::from_hashes(hashes).unwrap();
                let found = verify_consistency(&proof, &old, &new);
                assert_eq!(found.is_ok(), a == b && a > 0 && count == 0);
            }
        }
    }
}

#[test]
fn frontier_equals_the_definition() {
    let all = leaves(600);
    let mut pushed = Frontier::new();
    for n in 0..=600 {
        assert_eq!(pushed.head(), head(&all[..n]));
        for height in 0..10u8 {
            let width = 1usize << height;
            let node = (n >> height & 1 == 1).then(|| {
                let start = n >> (height + 1) << (height + 1);
                reference::root(&all[start..start + width])
            });
            assert_eq!(pushed.node(height), node.as_ref(), "height {height} of {n}");
        }
        let mut extended = Frontier::new();
        let (first, second) = all[..n].split_at(n / 3);
        extended.extend(first);
        extended.extend(second);
        assert_eq!(extended, pushed);
        if n < 600 {
            pushed.push(all[n]);
        }
    }
}
