//! Ids that certify their owner, and names that are one text for one thing. What only rules version
//! 2 refuses is parsed, and found.

use deed_evidence::statement::Breach;

use super::*;

fn certified(change: impl FnOnce(&mut v1::Statement)) -> v1::Statement {
    let mut made = fixtures::task_opened_certified();
    change(&mut made);
    made
}

fn canonical(form: &str) -> Problem {
    Problem::NotCanonical { form: form.into() }
}

const SESSION: Problem = Problem::Rule("does not follow from ledger_id, producer and nonce");
const TASK: Problem =
    Problem::Rule("does not follow from ledger_id, producer and task_opened.nonce");
const FIRST_ALONE: Problem = Problem::Rule("belongs into the first statement of a session alone");
const CONTROLLER: Problem = Problem::Rule("must be an https or spiffe URI with a host");
const DOTS: Problem = Problem::Rule("must have no `.` or `..` segment");
const EMPTY: Problem = Problem::Rule(
    "must have no empty segment: no `//` but behind a URI's scheme, and no `/` at the end",
);
const UNSEEN: Problem = Problem::Rule(
    "must have no character that cannot be seen or that changes the direction of text, and no \
     space but U+0020",
);

/// Refused whatever the rules' version is.
pub(super) fn rows() -> Vec<Row> {
    let set_task_nonce = |made: &mut v1::Statement, nonce: Bytes| {
        if let Some(Body::TaskOpened(opened)) = &mut made.body {
            opened.nonce = nonce;
        }
    };
    let controller = |text: &'static str| key_registered(|k| k.controller = text.into());
    let named = "key_registered.controller";
    vec![
        (
            certified(|s| s.nonce = bytes(0x2a, 15)),
            "nonce",
            length(15, 16, 16),
        ),
        (certified(|s| s.nonce = bytes(0x2b, 16)), "session", SESSION),
        (
            certified(|s| s.session = bytes(0x55, 16)),
            "session",
            SESSION,
        ),
        (certified(|s| s.producer.push('x')), "session", SESSION),
        (
            certified(|s| s.ledger_id = bytes(0x12, 32)),
            "session",
            SESSION,
        ),
        (certified(|s| s.sequence = 1), "nonce", FIRST_ALONE),
        (
            certified(|s| (s.sequence, s.skipped_from) = (3, Some(1))),
            "nonce",
            FIRST_ALONE,
        ),
        (certified(|s| s.task = bytes(0x77, 16)), "task", TASK),
        (
            certified(|s| set_task_nonce(s, bytes(0x2a, 16))),
            "task",
            TASK,
        ),
        (
            certified(|s| set_task_nonce(s, bytes(0x2b, 17))),
            "task_opened.nonce",
            length(17, 16, 16),
        ),
        (
            genesis_header(|s| s.nonce = bytes(1, 16)),
            "nonce",
            GENESIS_EMPTY,
        ),
        (
            controller("https://example.org/teams/payments/"),
            named,
            canonical("https://example.org/teams/payments"),
        ),
        (
            controller("HTTPS://Example.org:443/team%73"),
            named,
            canonical("https://example.org/teams"),
        ),
        (
            controller("spiffe://example.org//a/../b"),
            named,
            canonical("spiffe://example.org/b"),
        ),
        (controller("http://example.org"), named, CONTROLLER),
        (controller("import:chat"), named, CONTROLLER),
        (
            controller("https://example.org/%2e%2E%2f"),
            named,
            CONTROLLER,
        ),
        (
            grant(|g| g.subject = "SPIFFE://example.org/agent".into()),
            "grant.subject",
            canonical("spiffe://example.org/agent"),
        ),
        (
            grant(|g| g.actions[0] = "a/../b".into()),
            "grant.actions[0]",
            DOTS,
        ),
        (
            grant(|g| g.resources = vec!["order//*".into()]),
            "grant.resources[0]",
            EMPTY,
        ),
        (
            grant(|g| g.outside_token.as_mut().unwrap().value.push('\u{200b}')),
            "grant.outside_token.value",
            UNSEEN,
        ),
        (
            observation(|o| o.effects[1].kind = "a/".into()),
            "observation.effects[1].kind",
            EMPTY,
        ),
        (
            observation(|o| o.effects[0].resource = "order/..".into()),
            "observation.effects[0].resource",
            DOTS,
        ),
        (
            observation(|o| o.effects[0].external_id = "R\u{2066}1".into()),
            "observation.effects.external_id",
            UNSEEN,
        ),
        (
            principal_bound(|p| p.principal = "CN=a\u{200e}".into()),
            "principal_bound.principal",
            UNSEEN,
        ),
    ]
}

/// Breaches of rules version 2 are found, which a statement may have under version 1.
#[test]
fn what_rules_version_2_refuses_is_found() {
    let first = |change: fn(&mut v1::Statement)| {
        certified(|s| {
            s.body = fixtures::intent().body;
            change(s);
        })
    };
    let rows: Vec<(v1::Statement, Option<&str>)> = vec![
        (fixtures::intent(), None),
        (fixtures::outcome(), None),
        (fixtures::heartbeat(), None),
        (certified(|_| {}), None),
        (fixtures::task_opened(), Some("task_opened.nonce")),
        (first(|s| s.nonce = Bytes::new()), Some("nonce")),
        (
            first(|s| (s.sequence, s.skipped_from, s.nonce) = (9, Some(0), Bytes::new())),
            Some("nonce"),
        ),
        // Only where a session begins.
        (header(|s| s.producer = "HTTPS://example.org/".into()), None),
        (keys(&[("order", "4711\u{200b}")]), Some("correlation_keys")),
        (
            intent(|i| i.action = "payments//refund".into()),
            Some("intent.action"),
        ),
        (
            intent(|i| i.resource = "order/../../admin".into()),
            Some("intent.resource"),
        ),
        (intent(|i| i.deadline_us = 1), Some("intent.deadline_us")),
        (
            intent(|i| i.deadline_us = fixtures::TIME_US),
            Some("intent.deadline_us"),
        ),
        (intent(|i| i.deadline_us = fixtures::TIME_US + 1), None),
        (intent(|i| i.deadline_us = 0), None),
        (
            outcome(|o| o.status = v1::OutcomeStatus::NotDone.into()),
            Some("outcome.effects"),
        ),
        (
            outcome(|o| {
                o.status = v1::OutcomeStatus::NotDone.into();
                o.effects.clear();
            }),
            None,
        ),
        (
            effect(|e| e.kind = "a/./b".into()),
            Some("outcome.effects.kind"),
        ),
        (
            effect(|e| e.resource = "order/1/".into()),
            Some("outcome.effects.resource"),
        ),
        (
            effect(|e| e.external_id = "\u{ad}".into()),
            Some("outcome.effects.external_id"),
        ),
        (
            key_registered(|k| k.producer = "spiffe://example.org/agent/".into()),
            Some("key_registered.producer"),
        ),
        (
            principal_bound(|p| p.producer = "Test:agent".into()),
            Some("principal_bound.producer"),
        ),
    ];
    for (made, field) in rows {
        let payload = statement::encode(&made).unwrap();
        let found = statement::parse(&payload).unwrap().breach;
        assert_eq!(found.map(Breach::field), field, "{made:?}");
        assert_eq!(crate::oracle::breach(&made), field, "{made:?}");
    }
}

/// A session is opened under a name that no other name reads like.
#[test]
fn a_session_is_opened_under_a_canonical_name() {
    for (producer, taken) in [
        ("spiffe://example.org/agent", true),
        ("test:agent", true),
        ("deed:authority", true),
        ("SPIFFE://example.org/agent", false),
        ("spiffe://example.org/agent/", false),
        ("https://example.org:443", false),
        ("test:a/../b", false),
        ("deed:other", false),
        ("DEED:authority", false),
    ] {
        let made = certified(|s| {
            s.producer = producer.into();
            let nonce = deed_evidence::Nonce::new([0x2a; 16]);
            let id = deed_evidence::SessionId::derive(fixtures::LEDGER, producer, &nonce);
            s.session = id.as_bytes().to_vec().into();
            s.body = fixtures::task_closed().body;
        });
        let payload = statement::encode(&made).unwrap();
        let found = statement::parse(&payload).unwrap().breach;
        let wanted = (!taken).then_some("producer");
        assert_eq!(found.map(Breach::field), wanted, "{producer}");
    }
}
