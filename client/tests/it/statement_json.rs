//! Statements as JSON.

use bytes::Bytes;
use deed_client::statement_json::{Defaults, JsonError, StatementJson};
use deed_evidence::{LedgerId, Micros, Nonce, Sequence, SessionId, TaskId, statement};
use deed_proto::v1::{self, statement::Body, task_opened::Objective};
use deed_tlog::Hash;
use proptest::{collection::vec, option, prelude::*};

fn defaults() -> Defaults {
    Defaults {
        ledger_id: LedgerId::new(Hash::new([1; 32])),
        place: Some((SessionId::new([2; 16]), Sequence::new(7))),
        nonce: None,
        occurred_at: Micros::new(1234),
    }
}

fn read(json: &str) -> Result<v1::Statement, JsonError> {
    StatementJson::parse(json)?.into_statement(&defaults())
}

#[test]
fn what_is_left_out_is_filled_in() {
    let statement = read(
        r#"{"producer": "spiffe://example.org/a", "task": "000102030405060708090a0b0c0d0e0f",
            "task_opened": {"requested_by": "x", "risk_tier": "customer_communication"}}"#,
    )
    .unwrap();
    assert_eq!(statement.ledger_id, [1; 32][..]);
    assert_eq!(
        (statement.session, statement.sequence),
        (Bytes::from_static(&[2; 16]), 7)
    );
    assert_eq!(statement.occurred_at_us, 1234);
    let Some(Body::TaskOpened(opened)) = statement.body else {
        panic!()
    };
    assert_eq!(opened.risk_tier(), v1::RiskTier::CustomerCommunication);
}

#[test]
fn what_is_given_stays() {
    let statement = read(
        r#"{"ledger_id": "AB", "producer": "a:b", "session": "03", "sequence": 18446744073709551615,
            "occurred_at_us": 0, "skipped_from": 0, "heartbeat": {"last_sequence": 1, "count": 2}}"#,
    )
    .unwrap();
    assert_eq!(statement.ledger_id, [0xab][..]);
    assert_eq!(
        (statement.session, statement.sequence),
        (Bytes::from_static(&[3]), u64::MAX)
    );
    assert_eq!(
        (statement.occurred_at_us, statement.skipped_from),
        (0, Some(0))
    );
}

/// A nonce stands in place of the session in every statement, and goes into the first one alone.
#[test]
fn a_session_is_named_by_its_nonce() {
    let nonce = Nonce::new([9; 16]);
    let id = SessionId::derive(defaults().ledger_id, "a:b", &nonce);
    let line = |sequence: u64| {
        format!(
            r#"{{"producer": "a:b", "nonce": "{nonce}", "sequence": {sequence},
                "heartbeat": {{"last_sequence": {sequence}, "count": 1}}}}"#
        )
    };
    for sequence in [0, 1] {
        let statement = read(&line(sequence)).unwrap();
        assert_eq!(statement.session, id.as_bytes()[..]);
        assert_eq!(statement.nonce.is_empty(), sequence > 0);
        statement::encode(&statement).unwrap();
        // The JSON that it shows can be read again.
        let shown = serde_json::to_string(&StatementJson::from(statement.clone())).unwrap();
        assert_eq!(read(&shown).unwrap(), statement);
    }
    let place = StatementJson::parse(&line(3)).unwrap();
    let place = place.place(defaults().ledger_id).unwrap();
    assert_eq!(place, (id, Sequence::new(3)));
}

#[test]
fn the_nonce_of_a_task_is_said_in_json() {
    let nonce = Nonce::new([8; 16]);
    let task = TaskId::derive(defaults().ledger_id, "a:b", &nonce);
    let mut statement = of(
        "a:b",
        Body::TaskOpened(v1::TaskOpened {
            requested_by: "x".to_owned(),
            risk_tier: 1,
            nonce: Bytes::copy_from_slice(nonce.as_bytes()),
            ..v1::TaskOpened::default()
        }),
    );
    statement.task = Bytes::copy_from_slice(task.as_bytes());
    statement::encode(&statement).unwrap();
    let json = serde_json::to_string(&StatementJson::from(statement.clone())).unwrap();
    assert!(json.contains(&format!(r#""nonce":"{nonce}""#)), "{json}");
    assert_eq!(read(&json).unwrap(), statement);
}

#[test]
fn mistakes_are_named() {
    for (json, named) in [
        (r#"{"producer": "a:b", "taks": "00"}"#, "`taks`"),
        (
            r#"{"producer": "a:b", "intent": {"action": "a", "resource": "b", "amunt": 1}}"#,
            "`amunt`",
        ),
        (
            r#"{"producer": "a:b", "task_closed": {"end": "done"}}"#,
            "`done`",
        ),
        (
            r#"{"producer": "a:b", "task_closed": {"end": "unspecified"}}"#,
            "`unspecified`",
        ),
        (r#"{"producer": "a:b", "task_closed": {}}"#, "`end`"),
        (r#"{"task_closed": {"end": "failed"}}"#, "`producer`"),
        (r#"{"producer": "a:b", "task": "0"}"#, "hex"),
        (r#"{"producer": "a:b", "task": "zz"}"#, "hex"),
        (r#"{"producer": "a:b", "task": 7}"#, "hex"),
        (r#"{"producer": "a:b", "sequence": -1}"#, "-1"),
        (
            r#"{"producer": "a:b", "producer": "a:c"}"#,
            "duplicate field `producer`",
        ),
        ("[", "EOF"),
        (r#"{"producer": "a:b"}"#, "found 0"),
        (
            r#"{"producer": "a:b", "heartbeat": {"last_sequence": 0, "count": 1}, "task_closed": {"end": "failed"}}"#,
            "found 2",
        ),
        (
            r#"{"producer": "a:b", "sequence": 1, "heartbeat": {"last_sequence": 0, "count": 1}}"#,
            "both or neither",
        ),
        (
            r#"{"producer": "a:b", "task_opened": {"objective_text": "a", "requested_by": "b", "risk_tier": "low",
                "objective_commitment": {"digest": "00", "media_type": "a/b"}}}"#,
            "not both",
        ),
    ] {
        let error = read(json).unwrap_err().to_string();
        assert!(error.contains(named), "{json}: {error}");
    }
    let no_place = Defaults {
        place: None,
        ..defaults()
    };
    let json = StatementJson::parse(r#"{"producer": "a:b", "task_closed": {"end": "failed"}}"#);
    assert_eq!(
        json.unwrap().into_statement(&no_place),
        Err(JsonError::NoPlace)
    );
}

#[test]
fn arguments_of_an_outcome_are_a_copy_and_no_content() {
    let json = r#"{"producer": "a:b", "task": "000102030405060708090a0b0c0d0e0f", "outcome":
        {"intent": {"sequence": 0, "payload_digest": "00"}, "status": "succeeded",
         "arguments": {"text": "again", "media_type": "text/plain"}}}"#;
    let mut json = StatementJson::parse(json).unwrap();
    let error =
        json.resolve(|content| -> Result<v1::Commitment, JsonError> { panic!("{content:?}") });
    assert_eq!(
        error,
        Err(JsonError::Copy {
            slot: "outcome.arguments"
        })
    );
}

#[test]
fn what_an_approver_was_shown_may_stand_in_its_place() {
    let json = r#"{"producer": "a:b", "approval": {"verdict": "allow", "strength": "multi_factor",
        "shown": {"text": "refund?", "media_type": "text/plain"}, "shown_at_us": 1,
        "opened_at_us": 2, "decided_at_us": 3}}"#;
    let mut json = StatementJson::parse(json).unwrap();
    let mut slots = Vec::new();
    json.resolve(|content| -> Result<v1::Commitment, JsonError> {
        slots.push(content.slot);
        Ok(v1::Commitment::default())
    })
    .unwrap();
    assert_eq!(slots, ["approval.shown"]);
}

fn leaf_ref() -> Option<v1::LeafRef> {
    Some(v1::LeafRef {
        leaf_index: 7,
        leaf_hash: Bytes::from_static(&[4; 32]),
    })
}

/// Returns one of each body that rules version 2 brought, with all fields set.
fn acts() -> Vec<Body> {
    let hash = Bytes::from_static(&[5; 32]);
    let effect = v1::Effect {
        kind: "a".to_owned(),
        resource: "b".to_owned(),
        ..v1::Effect::default()
    };
    let money = Some(v1::Amount {
        minor_units: 5_000,
        currency: "EUR".to_owned(),
    });
    vec![
        Body::Grant(v1::Grant {
            subject: "spiffe://example.org/a".to_owned(),
            subject_key: Bytes::from_static(&[1; 16]),
            actions: vec!["a".to_owned(), "b/*".to_owned()],
            resources: vec!["order/*".to_owned()],
            not_before_us: 5,
            expires_us: 6,
            uses: 7,
            amount: money,
            parent: hash.clone(),
            outside_token: Some(v1::OutsideToken {
                kind: "jti".to_owned(),
                value: "8f14".to_owned(),
                key_thumbprint: hash.clone(),
            }),
            gateways: vec!["https://example.org/gateway".to_owned()],
        }),
        Body::GrantAccepted(v1::GrantAccepted {
            grant: hash.clone(),
        }),
        Body::Decision(v1::Decision {
            intent: leaf_ref(),
            verdict: v1::Verdict::Deny.into(),
            engine: "opa".to_owned(),
            policy_version: "7".to_owned(),
            policy_digest: hash.clone(),
            reason: "no".to_owned(),
        }),
        Body::Approval(v1::Approval {
            intent: leaf_ref(),
            verdict: v1::Verdict::Allow.into(),
            shown: Some(v1::Commitment {
                digest: hash.clone(),
                media_type: "text/plain".to_owned(),
            }),
            shown_at_us: 1,
            opened_at_us: 2,
            decided_at_us: 3,
            strength: v1::AuthenticationStrength::PhishingResistant.into(),
            rationale: "yes".to_owned(),
            assertion: Some(v1::Assertion {
                format: "webauthn".to_owned(),
                data: Bytes::from_static(&[7; 9]),
            }),
        }),
        Body::Observation(v1::Observation {
            intent: leaf_ref(),
            effects: vec![effect],
            reference: "tx".to_owned(),
            observed_at_us: 9,
        }),
        Body::Heartbeat(v1::Heartbeat {
            last_sequence: 7,
            count: 8,
            next_within_us: 60,
        }),
        Body::Revocation(v1::Revocation {
            grant: hash,
            reason: "over".to_owned(),
        }),
        Body::FindingDisposition(v1::FindingDisposition {
            leaf_index: 7,
            number: 1,
            kind: v1::DispositionKind::Disputed.into(),
            reviewed_by: "ticket:1".to_owned(),
            reason: "no".to_owned(),
        }),
    ]
}

fn of(producer: &str, body: Body) -> v1::Statement {
    v1::Statement {
        ledger_id: Bytes::from_static(&[1; 32]),
        producer: producer.to_owned(),
        session: Bytes::from_static(&[2; 16]),
        sequence: 7,
        occurred_at_us: 5,
        task: Bytes::from_static(&[3; 16]),
        body: Some(body),
        ..v1::Statement::default()
    }
}

#[test]
fn every_act_is_said_in_json() {
    for body in acts() {
        let by_authority = matches!(body, Body::Revocation(_) | Body::FindingDisposition(_));
        let producer = if by_authority {
            "deed:authority"
        } else {
            "a:b"
        };
        let statement = of(producer, body);
        statement::encode(&statement).unwrap();
        let json = serde_json::to_string(&StatementJson::from(statement.clone())).unwrap();
        assert_eq!(read(&json).unwrap(), statement, "{json}");
    }
}

#[test]
fn what_the_ledger_says_has_no_place_in_a_session() {
    let hash = Bytes::from_static(&[5; 32]);
    for body in [
        Body::Tick(v1::Tick {
            due_us: 5,
            clock_us: 0,
        }),
        Body::Clearance(v1::Clearance {
            intent: leaf_ref(),
            policy_leaf: 3,
            evidence: vec![leaf_ref().unwrap()],
        }),
        Body::TaskReceipt(v1::TaskReceipt {
            through_leaf: 6,
            count: 5,
            digest: hash.clone(),
            trust_head: leaf_ref(),
            assessment_digest: hash,
            requested: true,
        }),
    ] {
        let statement = v1::Statement {
            session: Bytes::new(),
            sequence: 0,
            ..of("deed:ledger", body.clone())
        };
        let json = serde_json::to_value(StatementJson::from(statement)).unwrap();
        assert!(json.get("session").is_none() && json.get("sequence").is_none());
        let read = read(&json.to_string()).unwrap();
        assert_eq!(read.body, Some(body), "{json}");
    }
}

fn bytes(len: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), len).prop_map(Bytes::from)
}

fn maybe(len: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(Bytes::new()), bytes(len)]
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé\"\\\\ ]{1,20}"
}

fn commitment() -> impl Strategy<Value = v1::Commitment> {
    (bytes(32), "[a-z]{1,5}/[a-z]{1,5}")
        .prop_map(|(digest, media_type)| v1::Commitment { digest, media_type })
}

fn amount() -> impl Strategy<Value = v1::Amount> {
    (any::<i64>(), "[A-Z]{3}").prop_map(|(minor_units, currency)| v1::Amount {
        minor_units,
        currency,
    })
}

fn task_opened() -> impl Strategy<Value = Body> {
    let objective = option::of(prop_oneof![
        text().prop_map(Objective::ObjectiveText),
        commitment().prop_map(Objective::ObjectiveCommitment),
    ]);
    (objective, text(), 1..=5i32, 0..i64::MAX).prop_map(
        |(objective, requested_by, risk_tier, deadline_us)| {
            Body::TaskOpened(v1::TaskOpened {
                objective,
                requested_by,
                risk_tier,
                deadline_us,
                nonce: Bytes::new(),
            })
        },
    )
}

fn intent() -> impl Strategy<Value = Body> {
    let names = (
        text(),
        text(),
        prop_oneof![Just(String::new()), text()],
        prop_oneof![Just(String::new()), text()],
    );
    let commitments = (option::of(commitment()), option::of(commitment()));
    let digests = (maybe(32), maybe(32), maybe(32));
    (
        names,
        option::of(amount()),
        commitments,
        digests,
        0..i64::MAX,
    )
        .prop_map(
            |(names, amount, (arguments, prompt), digests, deadline_us)| {
                let (action, resource, model, tool_call_id) = names;
                let (grant, system_prompt_digest, tool_manifest_digest) = digests;
                Body::Intent(v1::Intent {
                    action,
                    resource,
                    amount,
                    grant,
                    deadline_us,
                    arguments,
                    prompt,
                    model,
                    system_prompt_digest,
                    tool_manifest_digest,
                    tool_call_id,
                    expected_effects: Vec::new(),
                })
            },
        )
}

fn outcome() -> impl Strategy<Value = Body> {
    let effect = (text(), text(), option::of(amount()), maybe(32), maybe(32)).prop_map(
        |(kind, resource, amount, before_digest, after_digest)| v1::Effect {
            external_id: resource.clone(),
            kind,
            resource,
            amount,
            before_digest,
            after_digest,
        },
    );
    let reference =
        (maybe(16), any::<u64>(), bytes(32)).prop_map(|(session, sequence, payload_digest)| {
            v1::StatementRef {
                session,
                sequence,
                payload_digest,
            }
        });
    let commitments = (
        option::of(commitment()),
        option::of(commitment()),
        option::of(commitment()),
    );
    (reference, 1..=4i32, vec(effect, 0..3), commitments).prop_map(
        |(intent, status, effects, (tool_call, response, result))| {
            Body::Outcome(v1::Outcome {
                intent: Some(intent),
                status,
                effects,
                tool_call,
                response,
                arguments: result.clone(),
                result,
            })
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let closed = (1..=4i32, prop_oneof![Just(String::new()), text()])
        .prop_map(|(end, reason)| Body::TaskClosed(v1::TaskClosed { end, reason }));
    prop_oneof![task_opened(), closed, intent(), outcome()]
}

fn any_statement() -> impl Strategy<Value = v1::Statement> {
    let header = (
        bytes(32),
        bytes(16),
        1..u64::MAX,
        maybe(32),
        bytes(16),
        0..i64::MAX,
    );
    let keys = option::of(("[a-z]{1,5}", text()));
    (header, any::<bool>(), maybe(16), keys, body()).prop_map(
        |(header, skipped, trace_id, key, body)| {
            let (ledger_id, session, sequence, previous, task, occurred_at_us) = header;
            v1::Statement {
                ledger_id,
                producer: "spiffe://example.org/agent".to_owned(),
                session,
                sequence,
                previous,
                skipped_from: skipped.then_some(sequence - 1),
                occurred_at_us,
                task,
                trace_id,
                span_id: Bytes::new(),
                correlation_keys: key
                    .map(|(kind, value)| v1::CorrelationKey { kind, value })
                    .into_iter()
                    .collect(),
                nonce: Bytes::new(),
                body: Some(body),
            }
        },
    )
}

proptest! {
    #[test]
    fn json_says_everything_that_a_statement_says(statement in any_statement()) {
        // The statement is valid for a ledger, so the test covers real statements.
        let payload = statement::encode(&statement).unwrap();
        let json = serde_json::to_string(&StatementJson::from(statement.clone())).unwrap();
        prop_assert_eq!(&read(&json).unwrap(), &statement, "{}", &json);
        prop_assert_eq!(statement::encode(&read(&json).unwrap()).unwrap(), payload);
    }

    #[test]
    fn no_input_panics(json in "\\PC{0,200}") {
        let _ = read(&json);
    }

    #[test]
    fn no_json_panics(statement in any_statement(), at in any::<prop::sample::Index>(), with in any::<char>()) {
        let json = serde_json::to_string(&StatementJson::from(statement)).unwrap();
        let mut chars: Vec<_> = json.chars().collect();
        let at = at.index(chars.len());
        chars[at] = with;
        let _ = read(&chars.into_iter().collect::<String>());
    }
}
