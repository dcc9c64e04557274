//! Measures the most expensive statements in the step, each in a ledger that was filled for it,
//! with nothing in memory. Their bound is printed beside them: 50 us and 1 us for each byte.
//!
//! Cells are read from a map in memory. The cost of reading them from RocksDB is in the units that
//! `evidence/tests/it/cost.rs` counts.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deed_evidence::{
    PayloadDigest,
    assess::{Assessor, RecordedStatement, body::ParsedBody},
    statement,
};

#[path = "../../evidence/tests/it/hostile.rs"]
#[allow(
    dead_code,
    reason = "the test counts what the bench measures, and needs more of a scene"
)]
mod hostile;
#[path = "../../evidence/tests/it/ledger.rs"]
mod ledger;

fn statements(c: &mut Criterion) {
    let mut group = c.benchmark_group("hostile");
    group.sample_size(20);
    for (name, scene) in hostile::SCENES {
        let mut scene = scene();
        let mut kept = scene.ledger.kept.clone();
        let placed = scene.say();
        // A trust statement is assessed by the trust state after it.
        let trust = scene.ledger.trust.clone();
        kept.places
            .insert((placed.session, placed.sequence), placed.leaf);
        let header = statement::parse(&placed.payload).expect("it was recorded");
        let said = ParsedBody::read(&placed.payload).expect("it was recorded");
        let at = scene.ledger.now();
        let recorded = RecordedStatement {
            leaf: placed.leaf,
            leaf_hash: placed.hash,
            at,
            received_at: at,
            header: &header,
            payload: &placed.payload,
            payload_digest: Some(PayloadDigest::of(&placed.payload)),
            parsed: &said,
            key: scene.who.key(),
        };
        group.throughput(Throughput::Bytes(placed.payload.len() as u64));
        let id = format!("{name}/{}_us", scene.allowed(placed.payload.len() as u64));
        group.bench_function(id, |b| {
            b.iter_batched_ref(
                || Assessor::restore(scene.ledger.id),
                |assessor| {
                    let assessed = assessor.record(&mut kept, &trust, &recorded);
                    black_box(assessed.expect("nothing is damaged"));
                    black_box(assessor.take_changes())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, statements);
criterion_main!(benches);
