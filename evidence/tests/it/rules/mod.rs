//! One row for each rule: the statement that breaks it, the field that is named, and what is
//! said about it.

mod assessed;
mod bodies;
mod encoding;
mod header;
mod names;
mod speakers;
mod trust;

use bytes::Bytes;
use deed_evidence::{Problem, WireError, statement};
use deed_proto::v1::{self, statement::Body};
use prost::Message as _;

use crate::fixtures::{self, bytes};

fn length(found: usize, min: usize, max: usize) -> Problem {
    Problem::Length { found, min, max }
}

fn count(found: usize, min: usize, max: usize) -> Problem {
    Problem::Count { found, min, max }
}

const NEGATIVE: Problem = Problem::Range { value: u64::MAX };
const CONTROL: Problem = Problem::Rule("control characters are not allowed");
const URI: Problem = Problem::Rule("must be a URI, for example spiffe://example.org/agent");
const MEDIA_TYPE: Problem = Problem::Rule("must be a media type, for example application/json");
const CURRENCY: Problem = Problem::Rule("must be a currency code of A-Z and 0-9, for example USD");
const LOWER_NAME: Problem = Problem::Rule("only a-z, 0-9, '.', '_' and '-' are allowed");
const KEYS_ORDER: Problem = Problem::Rule("must be strictly ascending by (kind, value)");
const GENESIS_EMPTY: Problem = Problem::Rule("must be empty in a genesis statement");
const OWN_SEQUENCE: Problem = Problem::Rule("must be the sequence of this statement");
const COUNT_MOST: Problem = Problem::Rule("must be at most last_sequence + 1");
const SKIPPED: Problem = Problem::Rule("must be lower than sequence");
const FIRST: Problem = Problem::Rule("must be empty in the first statement of a session");
const SPAN: Problem = Problem::Rule("needs a trace_id");
const AUTHORITY_ORDER: Problem = Problem::Rule("must be strictly ascending by public key");

type Row = (v1::Statement, &'static str, Problem);

/// A fixture with its header changed.
fn header(change: impl FnOnce(&mut v1::Statement)) -> v1::Statement {
    let mut made = fixtures::intent();
    change(&mut made);
    made
}

macro_rules! with_body {
    ($name:ident, $message:ident) => {
        fn $name(change: impl FnOnce(&mut v1::$message)) -> v1::Statement {
            let mut made = fixtures::$name();
            match &mut made.body {
                Some(Body::$message(body)) => change(body),
                _ => unreachable!(),
            }
            made
        }
    };
}

with_body!(task_opened, TaskOpened);
with_body!(task_closed, TaskClosed);
with_body!(intent, Intent);
with_body!(outcome, Outcome);
with_body!(heartbeat, Heartbeat);
with_body!(tick, Tick);
with_body!(clearance, Clearance);
with_body!(task_receipt, TaskReceipt);
with_body!(grant, Grant);
with_body!(grant_accepted, GrantAccepted);
with_body!(decision, Decision);
with_body!(approval, Approval);
with_body!(observation, Observation);
with_body!(revocation, Revocation);
with_body!(finding_disposition, FindingDisposition);
with_body!(policy_set, PolicySet);
with_body!(session_closed, SessionClosed);
with_body!(authorities_changed, AuthoritiesChanged);
with_body!(key_registered, KeyRegistered);
with_body!(key_revoked, KeyRevoked);
with_body!(principal_bound, PrincipalBound);
with_body!(retention_set, RetentionSet);
with_body!(legal_hold_placed, LegalHoldPlaced);
with_body!(legal_hold_released, LegalHoldReleased);
with_body!(log_key_rotated, LogKeyRotated);
with_body!(erasure, Erasure);

fn genesis(change: impl FnOnce(&mut v1::Genesis)) -> v1::Statement {
    let mut made = fixtures::genesis_statement();
    match &mut made.body {
        Some(Body::Genesis(body)) => change(body),
        _ => unreachable!(),
    }
    made
}

fn genesis_header(change: impl FnOnce(&mut v1::Statement)) -> v1::Statement {
    let mut made = fixtures::genesis_statement();
    change(&mut made);
    made
}

/// An intent with its arguments changed.
fn commitment(change: impl FnOnce(&mut v1::Commitment)) -> v1::Statement {
    intent(|i| change(i.arguments.as_mut().unwrap()))
}

/// An outcome with its last effect changed.
fn effect(change: impl FnOnce(&mut v1::Effect)) -> v1::Statement {
    outcome(|o| change(&mut o.effects[3]))
}

fn keys(pairs: &[(&str, &str)]) -> v1::Statement {
    header(|s| {
        s.correlation_keys = pairs
            .iter()
            .map(|(kind, value)| v1::CorrelationKey {
                kind: (*kind).into(),
                value: (*value).into(),
            })
            .collect();
    })
}

fn x(length: usize) -> String {
    "x".repeat(length)
}

/// A heartbeat of the statement with this sequence.
fn beat(sequence: u64, last_sequence: u64, count: u64) -> v1::Statement {
    let mut made = heartbeat(|h| (h.last_sequence, h.count) = (last_sequence, count));
    (made.sequence, made.skipped_from, made.previous) = (sequence, None, Bytes::new());
    made
}

#[test]
fn each_rule_names_its_field() {
    let rows = [
        header::header_rows(),
        header::genesis_rows(),
        bodies::task_rows(),
        bodies::intent_rows(),
        bodies::outcome_rows(),
        bodies::count_rows(),
        assessed::grant_rows(),
        assessed::evidence_rows(),
        assessed::disposition_rows(),
        assessed::ledger_rows(),
        trust::key_rows(),
        trust::policy_rows(),
        trust::content_rows(),
        trust::log_key_rows(),
        names::rows(),
    ]
    .concat();
    let found = rows.len();
    for (made, field, problem) in rows {
        let wanted = WireError {
            field: field.into(),
            problem,
        };
        assert_eq!(statement::encode(&made), Err(wanted), "{made:?}");
        assert!(crate::oracle::rules(&made).is_err(), "{field}");
    }
    assert!(found > 340, "{found}");
}

/// What lies just inside of the rules. (Longest texts and the like are drawn in `statements.rs`.)
#[test]
fn at_the_edge_of_a_rule() {
    let max = u64::MAX;
    let edges = [
        beat(0, 0, 1),
        beat(7, 7, 8),
        beat(7, 7, 1),
        // There is no count of max + 1: the largest that can be written is allowed.
        beat(max, max, max),
        beat(max, max, 1),
        beat(max - 1, max - 1, max),
        header(|s| s.skipped_from = Some(6)),
        header(|s| s.skipped_from = Some(0)),
        header(|s| (s.sequence, s.skipped_from) = (max, Some(max - 1))),
        header(|s| s.occurred_at_us = 0),
        header(|s| s.occurred_at_us = i64::MAX),
        header(|s| s.span_id = Bytes::new()),
        header(|s| s.producer = "a:b".into()),
        header(|s| s.producer = "h2+x.y-z:~!".into()),
        keys(&[("a", "2"), ("aa", "1"), ("b", "1")]),
        keys(&[("a", "a"), ("a", "aa"), ("a", "b")]),
        commitment(|c| c.media_type = "a/b".into()),
        commitment(|c| c.media_type = "application/x; a=/;b".into()),
        commitment(|c| c.media_type = "text/plain;".into()),
        intent(|i| i.amount.as_mut().unwrap().minor_units = i64::MIN),
        intent(|i| i.amount.as_mut().unwrap().minor_units = 0),
        // No control characters, however odd.
        intent(|i| i.action = "\u{a0}\u{2028}\u{10ffff}".into()),
        task_closed(|t| t.reason = "\0\u{7f}".into()),
        key_registered(|k| (k.valid_from_us, k.valid_until_us) = (5, 6)),
        key_registered(|k| (k.valid_from_us, k.valid_until_us) = (5, 0)),
        key_registered(|k| k.producer = "deeds:x".into()),
        // Not the authority's name, only close to it.
        header(|s| s.producer = "deed:authority/".into()),
        key_revoked(|k| k.compromised_since_us = None),
        principal_bound(|p| p.valid_until_us = 1),
        retention_set(|r| (r.floor_us, r.reason) = (0, String::new())),
        legal_hold_placed(|h| h.scope = None),
        // What the digest is of, and whether the texts are policies, is found out elsewhere.
        policy_set(|p| p.digest = bytes(0, 32)),
        policy_set(|p| p.policies = x(32_768)),
        policy_set(|p| (p.schema, p.cedar_version) = (x(16_384), x(16))),
    ];
    for made in edges.into_iter().chain(assessed::edges()) {
        let header = crate::oracle::header(&made);
        let payload = made.encode_to_vec();
        let parsed = statement::parse(&payload);
        let plain = parsed.map(|mut parsed| {
            parsed.in_session.breach = None;
            parsed
        });
        assert_eq!(plain, Ok(header), "{made:?}");
    }
}

/// What people are told.
#[test]
fn errors_say_where_and_what() {
    let said = |made: v1::Statement| statement::encode(&made).unwrap_err().to_string();
    assert_eq!(
        said(effect(|e| e.kind = x(129))),
        "outcome.effects[3].kind: 129 bytes where 1 to 128 are allowed"
    );
    assert_eq!(
        said(outcome(|o| o.intent = None)),
        "outcome.intent: is required"
    );
    assert_eq!(
        said(intent(|i| i.action = "\n".into())),
        "intent.action: control characters are not allowed"
    );
}
