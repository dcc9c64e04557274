//! Contents with the disk behind them: sealed, synced together with their keys, read back.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deed_engine::bench::Contents;
use deed_evidence::commitment::Salt;

/// Makes contents that are not in the store yet.
struct Fresh(u64);

impl Fresh {
    fn next(&mut self, len: usize) -> (Salt, Bytes) {
        self.0 += 1;
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&self.0.to_be_bytes());
        (Salt::from_bytes(salt), Bytes::from(vec![7; len]))
    }
}

fn attachments(c: &mut Criterion) {
    const LEN: usize = 8 << 10;
    let dir = tempfile::tempdir().unwrap();
    let contents = Contents::open(dir.path());
    let mut fresh = Fresh(0);
    let mut group = c.benchmark_group("content_hold_8_kib");
    for count in [1_usize, 16, 256] {
        group.throughput(Throughput::Bytes((count * LEN) as u64));
        group.bench_function(format!("{count}_at_once"), |b| {
            b.iter_batched(
                || (0..count).map(|_| fresh.next(LEN)).collect(),
                |all| contents.hold(all),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn uploads(c: &mut Criterion) {
    const LEN: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let contents = Contents::open(dir.path());
    let mut fresh = Fresh(0);
    let mut group = c.benchmark_group("content_1_mib");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("put", |b| {
        b.iter_batched(
            || fresh.next(LEN),
            |(salt, bytes)| contents.put(&salt, &bytes),
            BatchSize::PerIteration,
        );
    });
    let (salt, bytes) = fresh.next(LEN);
    let digest = contents.put(&salt, &bytes);
    group.bench_function("read", |b| b.iter(|| contents.read(digest)));
    group.finish();
}

criterion_group!(benches, attachments, uploads);
criterion_main!(benches);
