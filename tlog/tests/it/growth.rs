//! The right edge: which tiles it emits, what it keeps, and that it comes back after a
//! restart.

use deed_tlog::{
    EMPTY_ROOT, FullTile, RebuildError, RightEdge, TileId, TileReadError, TileReader, TreeSize,
};
use proptest::prelude::*;

use crate::reference::{self, leaves};
use crate::store::Tree;

#[test]
fn tiles_come_out_by_level_then_index_and_once() {
    let all = leaves(65536 + 700);
    let mut edge = RightEdge::new();
    let mut size = 0;
    let mut emitted: Vec<FullTile> = Vec::new();
    for step in [0, 1, 254, 1, 256, 513, 63000, 2200, 11] {
        let mut batch = Vec::new();
        edge.append(&all[size..size + step], &mut |tile| batch.push(tile));
        let keys: Vec<(u8, u64)> = batch.iter().map(|tile| (tile.level, tile.index)).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        emitted.append(&mut batch);
        size += step;
        assert_eq!(edge.size(), TreeSize::new(size as u64));
        assert_eq!(edge.root(), reference::root(&all[..size]));
        assert_eq!(edge.frontier().root(), edge.root());
    }
    assert_eq!(size, 65536 + 700);

    emitted.sort_by_key(|tile| (tile.level, tile.index));
    let keys: Vec<(u8, u64)> = emitted
        .iter()
        .map(|tile| (tile.level, tile.index))
        .collect();
    let wanted: Vec<(u8, u64)> = (0..258).map(|index| (0, index)).chain([(1, 0)]).collect();
    assert_eq!(keys, wanted);
    for tile in emitted.iter().filter(|tile| tile.level == 0) {
        let start = tile.index as usize * 256;
        assert_eq!(tile.hashes, all[start..start + 256]);
        assert_eq!(tile.id(), TileId::full(0, tile.index).unwrap());
        assert_eq!(
            tile.id().parse_bytes(&tile.to_bytes()).unwrap(),
            tile.hashes
        );
    }
    let level_1: Vec<_> = all[..65536].chunks(256).map(reference::root).collect();
    assert_eq!(emitted.last().unwrap().hashes, level_1);
}

#[test]
fn partials_are_the_rest() {
    let all = leaves(65536 + 256 * 2 + 5);
    let tree = Tree::of(&all);
    assert_eq!(tree.edge.partial(0, 258), Some(&all[65536 + 512..]));
    let roots: Vec<_> = all[65536..65536 + 512]
        .chunks(256)
        .map(reference::root)
        .collect();
    assert_eq!(tree.edge.partial(1, 1), Some(roots.as_slice()));
    assert_eq!(
        tree.edge.partial(2, 0),
        Some([reference::root(&all[..65536])].as_slice())
    );
    for (level, index) in [
        (0, 0),
        (0, 257),
        (0, 259),
        (1, 0),
        (1, 2),
        (2, 1),
        (3, 0),
        (255, 0),
    ] {
        assert_eq!(tree.edge.partial(level, index), None, "{level} {index}");
    }
    let ids: Vec<String> = tree.edge.partials().map(|(id, _)| id.path()).collect();
    assert_eq!(ids, ["tile/0/258.p/5", "tile/1/001.p/2", "tile/2/000.p/1"]);

    let even = Tree::of(&all[..65536]);
    assert_eq!(even.edge.partial(0, 256), None);
    assert_eq!(even.edge.partials().count(), 1);
    assert_eq!(RightEdge::new().partials().count(), 0);
    assert_eq!(RightEdge::new().root(), EMPTY_ROOT);
}

#[test]
fn a_clone_is_a_snapshot() {
    let all = leaves(1000);
    let mut tree = Tree::of(&all[..700]);
    let snapshot = tree.edge.clone();
    let shared = snapshot.shared_partial(0, 2).unwrap();
    assert!(std::sync::Arc::ptr_eq(
        &shared,
        &tree.edge.shared_partial(0, 2).unwrap()
    ));
    tree.append(&all[700..]);
    assert_eq!(snapshot.root(), reference::root(&all[..700]));
    assert_eq!(snapshot.partial(0, 2), Some(&all[512..700]));
    assert_eq!(tree.edge.root(), reference::root(&all));
}

#[test]
fn rebuilding_gives_the_live_edge() {
    let all = leaves(65536 * 2 + 300);
    let mut tree = Tree::default();
    let sizes = [
        0, 1, 2, 255, 256, 257, 511, 512, 513, 1000, 32768, 65279, 65280, 65535, 65536, 65537,
        65791, 65792, 66000, 131_071, 131_072, 131_073, 131_328, 131_372,
    ];
    let mut size = 0;
    for next in sizes {
        tree.append(&all[size..next]);
        size = next;
        let tail = &all[size - size % 256..size];
        tree.store.reads.set(0);
        let rebuilt = RightEdge::rebuild(TreeSize::new(size as u64), tail, &tree.store).unwrap();
        assert_eq!(rebuilt, tree.edge, "size {size}");
        assert!(tree.store.reads.get() <= 1, "one batch");
        // The store refuses partial tiles, so that only full ones were read; and growing on
        // from there is the same, too.
        let mut live = tree.edge.clone();
        let mut rebuilt = rebuilt;
        let (mut from_live, mut from_rebuilt) = (Vec::new(), Vec::new());
        live.append(&all[..777], &mut |tile| from_live.push(tile));
        rebuilt.append(&all[..777], &mut |tile| from_rebuilt.push(tile));
        assert_eq!((&live, from_live), (&rebuilt, from_rebuilt));
    }
    assert_eq!(size, all.len());
}

#[test]
fn rebuilding_refuses_what_is_missing() {
    let all = leaves(1000);
    let tree = Tree::of(&all);
    let size = TreeSize::new(1000);
    for tail in [&all[..231], &all[..233], &[]] {
        let error = RightEdge::rebuild(size, tail, &tree.store).unwrap_err();
        assert!(
            matches!(error, RebuildError::TailLength { wanted: 232, .. }),
            "{error}"
        );
    }
    let empty = Tree::default();
    let error = RightEdge::rebuild(size, &all[768..], &empty.store).unwrap_err();
    assert!(
        matches!(error, RebuildError::Tiles(TileReadError::Reader(_))),
        "{error}"
    );
}

#[test]
fn an_edge_reader_asks_storage_for_full_tiles_only() {
    let tree = Tree::of(&leaves(600));
    let ids = [(0, 1, 17), (0, 2, 88), (1, 0, 2)]
        .map(|(level, index, width)| TileId::new(level, index, width).unwrap());
    let tiles = tree.reader().read_tiles(&ids).unwrap();
    assert_eq!(
        tiles.iter().map(|tile| tile.len()).collect::<Vec<_>>(),
        [256, 88, 2]
    );
    assert_eq!(tree.store.asked.take(), [TileId::full(0, 1).unwrap()]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cutting_into_batches_gives_the_same_tree(
        steps in prop::collection::vec(0usize..600, 0..12),
    ) {
        let all = leaves(steps.iter().sum());
        let at_once = Tree::of(&all);
        let mut tree = Tree::default();
        let mut size = 0;
        for step in steps {
            tree.append(&all[size..size + step]);
            size += step;
        }
        prop_assert_eq!(&tree.edge, &at_once.edge);
        prop_assert_eq!(tree.store.len(), at_once.store.len());
        prop_assert_eq!(tree.edge.root(), reference::root(&all));
    }
}
