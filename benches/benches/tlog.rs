//! Measures the transparency log alone: appending, proving, verifying.

use std::{collections::HashMap, convert::Infallible, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deed_tlog::{
    EdgeReader, Hash, LeafIndex, RightEdge, SizeRange, TileHashes, TileId, TileReader, TreeSize,
    leaf_hash, prove_consistency, prove_inclusion, verify_consistency, verify_inclusion,
};

const LEAVES: u64 = 1_000_000;

struct Tiles(HashMap<(u8, u64), TileHashes>);

impl TileReader for Tiles {
    type Error = Infallible;

    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, Infallible> {
        Ok(tiles
            .iter()
            .map(|tile| Arc::clone(&self.0[&(tile.level(), tile.index())]))
            .collect())
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count)
        .map(|leaf| leaf_hash(&leaf.to_be_bytes()))
        .collect()
}

fn hashing(c: &mut Criterion) {
    let entry = [7; 310];
    let mut group = c.benchmark_group("leaf_hash");
    group.throughput(Throughput::Bytes(entry.len() as u64));
    group.bench_function("310_bytes", |b| b.iter(|| leaf_hash(black_box(&entry))));
    group.finish();
}

fn appending(c: &mut Criterion) {
    let mut group = c.benchmark_group("edge_append");
    for count in [1_u64, 256, 4096] {
        let batch = leaves(count);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count}_leaves"), |b| {
            let mut edge = RightEdge::new();
            b.iter(|| {
                edge.append(black_box(&batch), &mut |tile| {
                    black_box(tile);
                });
                edge.root()
            });
        });
    }
    group.finish();
}

fn proving(c: &mut Criterion) {
    let mut tiles = HashMap::new();
    let mut edge = RightEdge::new();
    let mut keep = |tile: deed_tlog::FullTile| {
        tiles.insert((tile.level, tile.index), Arc::new(tile.hashes));
    };
    let all = leaves(LEAVES);
    edge.append(&all[..900_000], &mut keep);
    let old = edge.head();
    edge.append(&all[900_000..], &mut keep);
    let new = edge.head();
    let reader = EdgeReader::new(&edge, Tiles(tiles));

    let index = LeafIndex::new(123_456);
    let size = TreeSize::new(LEAVES);
    let sizes = SizeRange {
        old: old.size,
        new: new.size,
    };
    let inclusion = prove_inclusion(index, size, &reader).unwrap();
    let consistency = prove_consistency(sizes, &reader).unwrap();
    let leaf = all[123_456];

    let mut group = c.benchmark_group("proofs_in_1M_leaves");
    group.bench_function("prove_inclusion", |b| {
        b.iter(|| prove_inclusion(black_box(index), size, &reader).unwrap());
    });
    group.bench_function("prove_consistency", |b| {
        b.iter(|| prove_consistency(black_box(sizes), &reader).unwrap());
    });
    group.bench_function("verify_inclusion", |b| {
        b.iter(|| verify_inclusion(&inclusion, black_box(&leaf), index, &new).unwrap());
    });
    group.bench_function("verify_consistency", |b| {
        b.iter(|| verify_consistency(&consistency, black_box(&old), &new).unwrap());
    });
    group.bench_function("clone_edge_and_append_256", |b| {
        let batch = leaves(256);
        b.iter_batched(
            || edge.clone(),
            |mut edge| edge.append(&batch, &mut |tile| drop(black_box(tile))),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, hashing, appending, proving);
criterion_main!(benches);
