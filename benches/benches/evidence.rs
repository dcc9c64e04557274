//! What stands in front of every statement: its form, its entry, its place.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deed_benches::Statements;
use deed_evidence::{LedgerId, Micros, entry::Entry, statement};
use deed_server::bench::{Step, admit};

fn ledger_id() -> LedgerId {
    LedgerId::new(deed_tlog::leaf_hash(b"genesis"))
}

fn one_statement(c: &mut Criterion) {
    let payload = Statements::new(ledger_id(), [1; 16]).payload(70_000);
    let mut group = c.benchmark_group("statement_of_256_bytes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse", |b| {
        b.iter(|| statement::parse(black_box(&payload)).unwrap());
    });
    group.bench_function("decode", |b| {
        b.iter(|| statement::decode(black_box(&payload)).unwrap());
    });
    group.bench_function("encode_entry", |b| {
        let mut out = Vec::with_capacity(512);
        b.iter(|| {
            out.clear();
            Entry::unsigned(black_box(&payload), Micros::new(1)).encode_into(&mut out);
        });
    });
    group.finish();
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch_of_256");
    group.throughput(Throughput::Elements(256));
    let envelopes = Statements::new(ledger_id(), [1; 16]).envelopes(0, 256);
    group.bench_function("admit", |b| {
        b.iter(|| admit(black_box(&envelopes), ledger_id()));
    });
    group.bench_function("step", |b| {
        // A session of its own for each batch, so that every statement is the next one.
        let mut step = Step::new(ledger_id());
        let mut session = 0_u128;
        b.iter_batched(
            || {
                session += 1;
                let envelopes =
                    Statements::new(ledger_id(), session.to_be_bytes()).envelopes(0, 256);
                [admit(&envelopes, ledger_id())]
            },
            |batch| step.turn(&batch),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, one_statement, batches);
criterion_main!(benches);
