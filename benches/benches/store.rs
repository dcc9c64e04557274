//! Measures a turn of the shard with the disk: step, batch, synced write.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deed_benches::{Keys, Statements};
use deed_engine::bench::{Step, SyncedStore, Trust};

fn turns(c: &mut Criterion) {
    let keys = Keys::new();
    let id = keys.ledger_id;
    let trust = Trust::new(id, &keys.genesis);
    let dir = tempfile::tempdir().unwrap();
    let store = SyncedStore::open(dir.path());
    let mut step = Step::new(&trust);
    let mut session = 0_u128;
    let mut group = c.benchmark_group("synced_turn");
    for count in [1_u64, 256, 4096] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count}_statements"), |b| {
            b.iter_batched(
                || {
                    session += 1;
                    let envelopes = Statements::new(id, session.to_be_bytes()).envelopes(0, count);
                    [trust.admit(&envelopes)]
                },
                |batch| step.turn_into(&store, &batch),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
