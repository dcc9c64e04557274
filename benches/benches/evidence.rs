//! Measures the work before a statement is recorded: its form, its entry, its place.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deed_benches::{Keys, Statements};
use deed_engine::bench::{Step, Trust};
use deed_evidence::{LedgerId, Micros, entry::Entry, statement};
use deed_proto::v1;

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

/// The way in which a batch of statements is signed.
#[derive(Clone, Copy)]
enum Signed {
    Not,
    Batch,
    Each,
}

impl Signed {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Not, "unsigned"),
        (Self::Batch, "batch"),
        (Self::Each, "each"),
    ];

    fn envelopes(self, keys: &Keys, session: u128) -> Vec<v1::Envelope> {
        let mut statements = Statements::new(keys.ledger_id, session.to_be_bytes());
        let envelopes = statements.envelopes(0, 256);
        match self {
            Self::Not => envelopes,
            Self::Batch => keys.batch(envelopes),
            Self::Each => keys.each(envelopes),
        }
    }
}

fn batches(c: &mut Criterion) {
    let keys = Keys::new();
    let mut group = c.benchmark_group("batch_of_256");
    group.throughput(Throughput::Elements(256));
    for (signed, name) in Signed::ALL {
        let trust = Trust::new(keys.ledger_id, &keys.genesis);
        // Each batch has a session of its own, so that every statement is the next one.
        let mut step = Step::new(&trust);
        if !matches!(signed, Signed::Not) {
            step.turn(&[trust.admit(&[keys.registration()])]);
        }
        let envelopes = signed.envelopes(&keys, 1);
        group.bench_function(format!("admit_{name}"), |b| {
            b.iter(|| trust.admit(black_box(&envelopes)));
        });
        let mut session = 1_u128;
        group.bench_function(format!("step_{name}"), |b| {
            b.iter_batched(
                || {
                    session += 1;
                    [trust.admit(&signed.envelopes(&keys, session))]
                },
                |batch| step.turn(&batch),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Measures the assessment within the step: the same Intents of one open task, under rules without
/// an assessment and under rules with it.
fn rules_1_and_2(c: &mut Criterion) {
    let mut group = c.benchmark_group("step_of_256_intents");
    group.throughput(Throughput::Elements(256));
    for (signed, name) in Signed::ALL {
        for rules in [1, 2] {
            let keys = Keys::with_rules(rules);
            let trust = Trust::new(keys.ledger_id, &keys.genesis);
            if !matches!(signed, Signed::Not) {
                Step::new(&trust).turn(&[trust.admit(&[keys.registration()])]);
            }
            let envelopes = signed.envelopes(&keys, 1);
            let opening = Statements::opening(keys.ledger_id);
            group.bench_function(format!("{name}/rules_{rules}"), |b| {
                b.iter_batched(
                    || {
                        // The step is new each time, so nothing has to be forgotten.
                        let mut step = Step::new(&trust);
                        step.turn(&[trust.admit(std::slice::from_ref(&opening))]);
                        (step, [trust.admit(&envelopes)])
                    },
                    |(mut step, batch)| {
                        step.turn(&batch);
                        step
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, one_statement, batches, rules_1_and_2);
criterion_main!(benches);
