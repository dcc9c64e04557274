//! The rules of the header and of genesis.

use bytes::Bytes;
use deed_evidence::Problem;
use deed_proto::v1;

use super::*;

pub(super) fn header_rows() -> Vec<Row> {
    let many: Vec<String> = (10..27).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(|value| ("n", value.as_str())).collect();
    let first = |s: &mut v1::Statement| (s.sequence, s.skipped_from) = (0, None);
    vec![
        (
            header(|s| s.ledger_id = bytes(1, 31)),
            "ledger_id",
            length(31, 32, 32),
        ),
        (
            header(|s| s.ledger_id = bytes(1, 33)),
            "ledger_id",
            length(33, 32, 32),
        ),
        (
            header(|s| s.ledger_id = Bytes::new()),
            "ledger_id",
            Problem::Missing,
        ),
        (
            header(|s| s.producer = String::new()),
            "producer",
            Problem::Missing,
        ),
        (
            header(|s| s.producer = format!("a:{}", x(511))),
            "producer",
            length(513, 1, 512),
        ),
        (header(|s| s.producer = "agent".into()), "producer", URI),
        (header(|s| s.producer = "agent:".into()), "producer", URI),
        (header(|s| s.producer = ":agent".into()), "producer", URI),
        (header(|s| s.producer = "1a:agent".into()), "producer", URI),
        (header(|s| s.producer = "a_b:agent".into()), "producer", URI),
        (header(|s| s.producer = "a:b c".into()), "producer", URI),
        (header(|s| s.producer = "a:b\u{7f}".into()), "producer", URI),
        (header(|s| s.producer = "a:b\n".into()), "producer", URI),
        (header(|s| s.producer = "a:ä".into()), "producer", URI),
        (
            header(|s| s.session = bytes(1, 15)),
            "session",
            length(15, 16, 16),
        ),
        (
            header(|s| s.session = Bytes::new()),
            "session",
            Problem::Missing,
        ),
        (
            header(|s| s.previous = bytes(1, 20)),
            "previous",
            length(20, 32, 32),
        ),
        (header(first), "previous", FIRST),
        (
            header(|s| s.skipped_from = Some(7)),
            "skipped_from",
            SKIPPED,
        ),
        (
            header(|s| s.skipped_from = Some(8)),
            "skipped_from",
            SKIPPED,
        ),
        (
            header(|s| s.skipped_from = Some(u64::MAX)),
            "skipped_from",
            SKIPPED,
        ),
        (
            header(|s| (s.sequence, s.skipped_from, s.previous) = (0, Some(0), Bytes::new())),
            "skipped_from",
            SKIPPED,
        ),
        (
            header(|s| s.occurred_at_us = -1),
            "occurred_at_us",
            NEGATIVE,
        ),
        (
            header(|s| s.occurred_at_us = i64::MIN),
            "occurred_at_us",
            Problem::Range { value: 1 << 63 },
        ),
        (
            header(|s| s.task = bytes(1, 17)),
            "task",
            length(17, 16, 16),
        ),
        (header(|s| s.task = Bytes::new()), "task", Problem::Missing),
        (
            header(|s| s.trace_id = bytes(1, 8)),
            "trace_id",
            length(8, 16, 16),
        ),
        (
            header(|s| s.span_id = bytes(1, 16)),
            "span_id",
            length(16, 8, 8),
        ),
        (header(|s| s.trace_id = Bytes::new()), "span_id", SPAN),
        (keys(&many), "correlation_keys", count(17, 0, 16)),
        (
            keys(&[("b", "1"), ("a", "1")]),
            "correlation_keys",
            KEYS_ORDER,
        ),
        (
            keys(&[("a", "2"), ("a", "1")]),
            "correlation_keys",
            KEYS_ORDER,
        ),
        (
            keys(&[("a", "1"), ("a", "1")]),
            "correlation_keys",
            KEYS_ORDER,
        ),
        // By the bytes of the names, not by those of the encoding, where lengths come first.
        (
            keys(&[("b", "1"), ("aa", "1")]),
            "correlation_keys",
            KEYS_ORDER,
        ),
        (
            keys(&[("a", "b"), ("a", "aa")]),
            "correlation_keys",
            KEYS_ORDER,
        ),
        (
            keys(&[("", "1")]),
            "correlation_keys[0].kind",
            Problem::Missing,
        ),
        (
            keys(&[("a", "1"), ("a", "")]),
            "correlation_keys[1].value",
            Problem::Missing,
        ),
        (
            keys(&[("a", "1"), ("A", "1")]),
            "correlation_keys[1].kind",
            LOWER_NAME,
        ),
        (
            keys(&[("a b", "1")]),
            "correlation_keys[0].kind",
            LOWER_NAME,
        ),
        (
            keys(&[(&x(65), "1")]),
            "correlation_keys[0].kind",
            length(65, 1, 64),
        ),
        (
            keys(&[("a", &x(257))]),
            "correlation_keys[0].value",
            length(257, 1, 256),
        ),
        (keys(&[("a", "\t")]), "correlation_keys[0].value", CONTROL),
        (header(|s| s.body = None), "body", Problem::Missing),
    ]
}

pub(super) fn genesis_rows() -> Vec<Row> {
    let key = |byte| v1::AuthorityKey {
        public_key: bytes(byte, 32),
    };
    let log_key = v1::LogKey { vkey: "v".into() };
    vec![
        (
            genesis_header(|s| s.ledger_id = bytes(1, 32)),
            "ledger_id",
            GENESIS_EMPTY,
        ),
        (
            genesis_header(|s| s.session = bytes(0, 16)),
            "session",
            GENESIS_EMPTY,
        ),
        (
            genesis_header(|s| s.sequence = 1),
            "sequence",
            GENESIS_EMPTY,
        ),
        (
            genesis_header(|s| s.previous = bytes(1, 32)),
            "previous",
            GENESIS_EMPTY,
        ),
        (
            genesis_header(|s| s.skipped_from = Some(0)),
            "skipped_from",
            GENESIS_EMPTY,
        ),
        (
            genesis_header(|s| s.task = bytes(1, 16)),
            "task",
            GENESIS_EMPTY,
        ),
        (
            genesis(|g| g.origin = String::new()),
            "genesis.origin",
            Problem::Missing,
        ),
        (
            genesis(|g| g.origin = x(513)),
            "genesis.origin",
            length(513, 1, 512),
        ),
        (
            genesis(|g| g.origin = "a\nb".into()),
            "genesis.origin",
            CONTROL,
        ),
        (
            genesis(|g| g.log_keys.clear()),
            "genesis.log_keys",
            count(0, 1, 1),
        ),
        (
            genesis(|g| g.log_keys.push(log_key)),
            "genesis.log_keys",
            count(2, 1, 1),
        ),
        (
            genesis(|g| g.log_keys[0].vkey.clear()),
            "genesis.log_keys[0].vkey",
            Problem::Missing,
        ),
        (
            genesis(|g| g.log_keys[0].vkey = x(641)),
            "genesis.log_keys[0].vkey",
            length(641, 1, 640),
        ),
        (
            genesis(|g| g.authority_keys.clear()),
            "genesis.authority_keys",
            count(0, 1, 16),
        ),
        (
            genesis(|g| g.authority_keys = (1..=17).map(key).collect()),
            "genesis.authority_keys",
            count(17, 1, 16),
        ),
        (
            genesis(|g| g.authority_keys.reverse()),
            "genesis.authority_keys",
            AUTHORITY_ORDER,
        ),
        (
            genesis(|g| g.authority_keys = vec![key(1), key(1)]),
            "genesis.authority_keys",
            AUTHORITY_ORDER,
        ),
        (
            genesis(|g| g.authority_keys = vec![key(1), key(3), key(2)]),
            "genesis.authority_keys",
            AUTHORITY_ORDER,
        ),
        (
            genesis(|g| g.authority_keys[1].public_key = bytes(1, 33)),
            "genesis.authority_keys[1].public_key",
            length(33, 32, 32),
        ),
        (
            genesis(|g| g.created_at_us = 0),
            "genesis.created_at_us",
            Problem::Missing,
        ),
        (
            genesis(|g| g.created_at_us = -1),
            "genesis.created_at_us",
            NEGATIVE,
        ),
        (
            genesis(|g| g.nonce = Bytes::new()),
            "genesis.nonce",
            Problem::Missing,
        ),
        (
            genesis(|g| g.nonce = bytes(1, 16)),
            "genesis.nonce",
            length(16, 32, 32),
        ),
        (
            genesis(|g| g.rules_version = 0),
            "genesis.rules_version",
            Problem::Missing,
        ),
    ]
}
