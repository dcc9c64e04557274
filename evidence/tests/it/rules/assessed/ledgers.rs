//! Statements of the ledger itself.

use super::*;

pub(in crate::rules) fn ledger_rows() -> Vec<Row> {
    [ledger_header_rows(), clearance_rows(), receipt_rows()].concat()
}

fn ledger_header_rows() -> Vec<Row> {
    let header = |change: fn(&mut v1::Statement)| {
        let mut made = fixtures::clearance();
        change(&mut made);
        made
    };
    let key = |s: &mut v1::Statement| {
        s.correlation_keys = vec![v1::CorrelationKey {
            kind: "a".into(),
            value: "b".into(),
        }];
    };
    let too_late = Problem::Rule("must not be later than occurred_at_us");
    vec![
        (
            header(|s| s.ledger_id = Bytes::new()),
            "ledger_id",
            Problem::Missing,
        ),
        (
            header(|s| s.session = bytes(0, 16)),
            "session",
            LEDGER_EMPTY,
        ),
        (header(|s| s.sequence = 1), "sequence", LEDGER_EMPTY),
        (
            header(|s| s.previous = bytes(1, 32)),
            "previous",
            LEDGER_EMPTY,
        ),
        (
            header(|s| s.skipped_from = Some(0)),
            "skipped_from",
            LEDGER_EMPTY,
        ),
        (
            header(|s| s.trace_id = bytes(1, 16)),
            "trace_id",
            LEDGER_EMPTY,
        ),
        (header(|s| s.span_id = bytes(1, 8)), "span_id", SPAN),
        (header(key), "correlation_keys", LEDGER_EMPTY),
        (
            header(|s| s.occurred_at_us = 0),
            "occurred_at_us",
            Problem::Missing,
        ),
        (
            header(|s| s.occurred_at_us = -1),
            "occurred_at_us",
            NEGATIVE,
        ),
        (tick(|t| t.due_us = 0), "tick.due_us", Problem::Missing),
        (tick(|t| t.due_us = -1), "tick.due_us", NEGATIVE),
        (tick(|t| t.clock_us = -1), "tick.clock_us", NEGATIVE),
        (
            tick(|t| t.clock_us = fixtures::TIME_US + 1),
            "tick.clock_us",
            Problem::Rule("must not be later than occurred_at_us"),
        ),
        (
            tick(|t| t.due_us = fixtures::TIME_US + 1),
            "tick.due_us",
            too_late,
        ),
    ]
}

fn clearance_rows() -> Vec<Row> {
    let leaves = |leaves: &[u64]| {
        let leaf = |leaf_index: &u64| v1::LeafRef {
            leaf_index: *leaf_index,
            leaf_hash: bytes(1, 32),
        };
        clearance(|c| c.evidence = leaves.iter().map(leaf).collect())
    };
    let many: Vec<u64> = (301..366).collect();
    vec![
        (
            clearance(|c| c.intent = None),
            "clearance.intent",
            Problem::Missing,
        ),
        (
            clearance(|c| c.intent.as_mut().unwrap().leaf_hash = Bytes::new()),
            "clearance.intent.leaf_hash",
            Problem::Missing,
        ),
        (
            clearance(|c| c.policy_leaf = 0),
            "clearance.policy_leaf",
            Problem::Missing,
        ),
        (leaves(&[]), "clearance.evidence", count(0, 1, 64)),
        (leaves(&many), "clearance.evidence", count(65, 1, 64)),
        (leaves(&[301, 301]), "clearance.evidence", BEHIND),
        (leaves(&[302, 301]), "clearance.evidence", BEHIND),
        (leaves(&[301, 303, 302]), "clearance.evidence", BEHIND),
        // By number, not by the bytes of the varint: 384 is 80 03, 511 is ff 03.
        (leaves(&[511, 384]), "clearance.evidence", BEHIND),
        (leaves(&[300]), "clearance.evidence", BEHIND),
        (leaves(&[0]), "clearance.evidence", BEHIND),
        (
            clearance(|c| c.evidence[2].leaf_hash = bytes(1, 16)),
            "clearance.evidence[2].leaf_hash",
            length(16, 32, 32),
        ),
    ]
}

fn receipt_rows() -> Vec<Row> {
    let counts = |through, count| {
        task_receipt(|r| {
            (r.through_leaf, r.count) = (through, count);
        })
    };
    let most = Problem::Rule("must be at most through_leaf");
    vec![
        (counts(0, 0), "task_receipt.through_leaf", Problem::Missing),
        (counts(900, 0), "task_receipt.count", Problem::Missing),
        (counts(900, 901), "task_receipt.count", most.clone()),
        (counts(1, u64::MAX), "task_receipt.count", most),
        (
            task_receipt(|r| r.digest = Bytes::new()),
            "task_receipt.digest",
            Problem::Missing,
        ),
        (
            task_receipt(|r| r.digest = bytes(1, 31)),
            "task_receipt.digest",
            length(31, 32, 32),
        ),
        (
            task_receipt(|r| r.trust_head = None),
            "task_receipt.trust_head",
            Problem::Missing,
        ),
        (
            task_receipt(|r| r.trust_head.as_mut().unwrap().leaf_hash = Bytes::new()),
            "task_receipt.trust_head.leaf_hash",
            Problem::Missing,
        ),
        (
            task_receipt(|r| r.assessment_digest = Bytes::new()),
            "task_receipt.assessment_digest",
            Problem::Missing,
        ),
        (
            task_receipt(|r| r.assessment_digest = bytes(1, 33)),
            "task_receipt.assessment_digest",
            length(33, 32, 32),
        ),
    ]
}
