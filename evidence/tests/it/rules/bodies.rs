//! The rules of the bodies.

use bytes::Bytes;
use deed_evidence::Problem;
use deed_proto::v1::{self, task_opened::Objective};

use super::*;

pub(super) fn task_rows() -> Vec<Row> {
    let text = |text: String| task_opened(|t| t.objective = Some(Objective::ObjectiveText(text)));
    let empty = v1::Commitment::default();
    vec![
        (
            text(String::new()),
            "task_opened.objective_text",
            length(0, 1, 4096),
        ),
        (
            text(x(4097)),
            "task_opened.objective_text",
            length(4097, 1, 4096),
        ),
        (
            task_opened(|t| t.objective = Some(Objective::ObjectiveCommitment(empty))),
            "task_opened.objective_commitment.digest",
            Problem::Missing,
        ),
        (
            task_opened(|t| t.requested_by.clear()),
            "task_opened.requested_by",
            Problem::Missing,
        ),
        (
            task_opened(|t| t.requested_by = x(513)),
            "task_opened.requested_by",
            length(513, 1, 512),
        ),
        (
            task_opened(|t| t.requested_by = "\0".into()),
            "task_opened.requested_by",
            CONTROL,
        ),
        (
            task_opened(|t| t.risk_tier = 0),
            "task_opened.risk_tier",
            Problem::Missing,
        ),
        (
            task_opened(|t| t.risk_tier = 6),
            "task_opened.risk_tier",
            Problem::UnknownEnum { value: 6 },
        ),
        (
            task_opened(|t| t.risk_tier = -1),
            "task_opened.risk_tier",
            Problem::UnknownEnum { value: u64::MAX },
        ),
        (
            task_opened(|t| t.deadline_us = -1),
            "task_opened.deadline_us",
            NEGATIVE,
        ),
        (
            task_closed(|t| t.end = 0),
            "task_closed.end",
            Problem::Missing,
        ),
        (
            task_closed(|t| t.end = 5),
            "task_closed.end",
            Problem::UnknownEnum { value: 5 },
        ),
        (
            task_closed(|t| t.reason = x(1025)),
            "task_closed.reason",
            length(1025, 1, 1024),
        ),
    ]
}

pub(super) fn intent_rows() -> Vec<Row> {
    let currency =
        |currency: &str| intent(|i| i.amount.as_mut().unwrap().currency = currency.into());
    let media_type = |text: &str| commitment(|c| c.media_type = text.into());
    let field = "intent.arguments.media_type";
    vec![
        (
            intent(|i| i.action.clear()),
            "intent.action",
            Problem::Missing,
        ),
        (
            intent(|i| i.action = x(257)),
            "intent.action",
            length(257, 1, 256),
        ),
        (
            intent(|i| i.action = "a\u{9f}".into()),
            "intent.action",
            CONTROL,
        ),
        (
            intent(|i| i.resource.clear()),
            "intent.resource",
            Problem::Missing,
        ),
        (
            intent(|i| i.resource = x(1025)),
            "intent.resource",
            length(1025, 1, 1024),
        ),
        (
            intent(|i| i.resource = "\u{1b}[2J".into()),
            "intent.resource",
            CONTROL,
        ),
        (currency(""), "intent.amount.currency", Problem::Missing),
        (currency("EU"), "intent.amount.currency", length(2, 3, 16)),
        (
            currency(&"X".repeat(17)),
            "intent.amount.currency",
            length(17, 3, 16),
        ),
        (currency("eur"), "intent.amount.currency", CURRENCY),
        (currency("€"), "intent.amount.currency", CURRENCY),
        (
            intent(|i| i.grant = bytes(1, 31)),
            "intent.grant",
            length(31, 32, 32),
        ),
        (
            intent(|i| i.deadline_us = -1),
            "intent.deadline_us",
            NEGATIVE,
        ),
        (
            commitment(|c| c.digest = Bytes::new()),
            "intent.arguments.digest",
            Problem::Missing,
        ),
        (
            commitment(|c| c.digest = bytes(1, 64)),
            "intent.arguments.digest",
            length(64, 32, 32),
        ),
        (media_type(""), field, Problem::Missing),
        (media_type("a/"), field, length(2, 3, 127)),
        (
            media_type(&format!("a/{}", x(126))),
            field,
            length(128, 3, 127),
        ),
        (media_type("json"), field, MEDIA_TYPE),
        (media_type("/json"), field, MEDIA_TYPE),
        (media_type("application/"), field, MEDIA_TYPE),
        (media_type("application/;q"), field, MEDIA_TYPE),
        (media_type("a/b/c"), field, MEDIA_TYPE),
        (media_type("a b/c"), field, MEDIA_TYPE),
        (media_type("a/.b"), field, MEDIA_TYPE),
        (media_type(";a/b"), field, MEDIA_TYPE),
        (media_type("a/b; c=\n"), field, MEDIA_TYPE),
        (media_type("a/b; c=ä"), field, MEDIA_TYPE),
        (
            intent(|i| i.prompt.as_mut().unwrap().media_type.clear()),
            "intent.prompt.media_type",
            Problem::Missing,
        ),
        (
            intent(|i| i.model = x(257)),
            "intent.model",
            length(257, 1, 256),
        ),
        (intent(|i| i.model = "\r".into()), "intent.model", CONTROL),
        (
            intent(|i| i.system_prompt_digest = bytes(1, 1)),
            "intent.system_prompt_digest",
            length(1, 32, 32),
        ),
        (
            intent(|i| i.tool_manifest_digest = bytes(1, 1)),
            "intent.tool_manifest_digest",
            length(1, 32, 32),
        ),
        (
            intent(|i| i.tool_call_id = x(257)),
            "intent.tool_call_id",
            length(257, 1, 256),
        ),
        (
            intent(|i| i.tool_call_id = "\0".into()),
            "intent.tool_call_id",
            CONTROL,
        ),
    ]
}

pub(super) fn outcome_rows() -> Vec<Row> {
    let reference =
        |change: fn(&mut v1::StatementRef)| outcome(|o| change(o.intent.as_mut().unwrap()));
    let empty = Some(v1::Commitment::default());
    let small = v1::Effect {
        kind: "k".into(),
        resource: "r".into(),
        ..Default::default()
    };
    vec![
        (
            outcome(|o| o.intent = None),
            "outcome.intent",
            Problem::Missing,
        ),
        (
            reference(|r| r.session = bytes(1, 17)),
            "outcome.intent.session",
            length(17, 16, 16),
        ),
        (
            reference(|r| r.payload_digest = Bytes::new()),
            "outcome.intent.payload_digest",
            Problem::Missing,
        ),
        (
            reference(|r| r.payload_digest = bytes(1, 31)),
            "outcome.intent.payload_digest",
            length(31, 32, 32),
        ),
        (
            outcome(|o| o.status = 0),
            "outcome.status",
            Problem::Missing,
        ),
        (
            outcome(|o| o.status = 5),
            "outcome.status",
            Problem::UnknownEnum { value: 5 },
        ),
        (
            outcome(|o| o.effects = vec![small.clone(); 65]),
            "outcome.effects",
            count(65, 0, 64),
        ),
        // Counting stops at the first one too many.
        (
            outcome(|o| o.effects = vec![small; 90]),
            "outcome.effects",
            count(65, 0, 64),
        ),
        (
            effect(|e| e.kind.clear()),
            "outcome.effects[3].kind",
            Problem::Missing,
        ),
        (
            effect(|e| e.kind = x(129)),
            "outcome.effects[3].kind",
            length(129, 1, 128),
        ),
        (
            effect(|e| e.kind = "\0".into()),
            "outcome.effects[3].kind",
            CONTROL,
        ),
        (
            effect(|e| e.resource.clear()),
            "outcome.effects[3].resource",
            Problem::Missing,
        ),
        (
            effect(|e| e.resource = x(1025)),
            "outcome.effects[3].resource",
            length(1025, 1, 1024),
        ),
        (
            effect(|e| e.resource = "\0".into()),
            "outcome.effects[3].resource",
            CONTROL,
        ),
        (
            effect(|e| e.external_id = x(257)),
            "outcome.effects[3].external_id",
            length(257, 1, 256),
        ),
        (
            effect(|e| e.external_id = "\0".into()),
            "outcome.effects[3].external_id",
            CONTROL,
        ),
        (
            effect(|e| e.amount.as_mut().unwrap().currency = "$$$".into()),
            "outcome.effects[3].amount.currency",
            CURRENCY,
        ),
        (
            effect(|e| e.before_digest = bytes(1, 5)),
            "outcome.effects[3].before_digest",
            length(5, 32, 32),
        ),
        (
            effect(|e| e.after_digest = bytes(1, 5)),
            "outcome.effects[3].after_digest",
            length(5, 32, 32),
        ),
        (
            outcome(|o| o.tool_call = empty.clone()),
            "outcome.tool_call.digest",
            Problem::Missing,
        ),
        (
            outcome(|o| o.response = empty.clone()),
            "outcome.response.digest",
            Problem::Missing,
        ),
        (
            outcome(|o| o.result = empty.clone()),
            "outcome.result.digest",
            Problem::Missing,
        ),
        (
            outcome(|o| o.arguments = empty.clone()),
            "outcome.arguments.digest",
            Problem::Missing,
        ),
    ]
}

pub(super) fn count_rows() -> Vec<Row> {
    let max = u64::MAX;
    vec![
        (
            heartbeat(|h| h.count = 0),
            "heartbeat.count",
            Problem::Missing,
        ),
        (
            heartbeat(|h| h.last_sequence = 6),
            "heartbeat.last_sequence",
            OWN_SEQUENCE,
        ),
        (
            heartbeat(|h| h.last_sequence = 0),
            "heartbeat.last_sequence",
            OWN_SEQUENCE,
        ),
        (heartbeat(|h| h.count = 9), "heartbeat.count", COUNT_MOST),
        (
            heartbeat(|h| h.next_within_us = -1),
            "heartbeat.next_within_us",
            NEGATIVE,
        ),
        (beat(0, 0, 2), "heartbeat.count", COUNT_MOST),
        (beat(0, 0, max), "heartbeat.count", COUNT_MOST),
        (beat(0, max, 1), "heartbeat.last_sequence", OWN_SEQUENCE),
        (beat(max, 0, 1), "heartbeat.last_sequence", OWN_SEQUENCE),
        (
            beat(max, max - 1, 1),
            "heartbeat.last_sequence",
            OWN_SEQUENCE,
        ),
        (
            session_closed(|c| c.count = 0),
            "session_closed.count",
            Problem::Missing,
        ),
        (
            session_closed(|c| c.count = 9),
            "session_closed.count",
            COUNT_MOST,
        ),
        (
            session_closed(|c| c.last_sequence = 8),
            "session_closed.last_sequence",
            OWN_SEQUENCE,
        ),
    ]
}
