//! Awkward chats: each is imported as expected, or refused with its run and place.

mod acts;
mod growing;

use std::collections::HashMap;

use deed_client::{
    Made,
    chat::{Checked, Counts, Earlier, Given, Grantor, Import, Recorded, Speaker, Transcript},
    records::{Records, open},
};
use deed_evidence::{LedgerId, Micros, Sequence, statement};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::{Hash, LeafIndex, leaf_hash};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::shared::shared;

fn import() -> Import {
    Import {
        ledger_id: LedgerId::new(Hash::new([1; 32])),
        producer: "import:chat".to_owned(),
        grantor: Grantor::Authority,
        claimant: "import:chat/unsigned".to_owned(),
        secret: [5; 32],
        model: String::new(),
        risk_tier: v1::RiskTier::Low,
        runs_are_over: false,
    }
}

/// The result of importing a run.
#[derive(Debug, PartialEq)]
enum Came {
    /// Action of each Intent, and of each Outcome the Intent's number and whether it failed.
    Acts(Vec<String>, Vec<(usize, bool)>),
    Refused(String),
}

fn acts(actions: &[&str], outcomes: &[(usize, bool)]) -> Came {
    let actions = actions.iter().map(|action| (*action).to_owned());
    Came::Acts(actions.collect(), outcomes.to_vec())
}

/// Makes a run's statements.
fn came(record: &str) -> Came {
    let transcript = match Transcript::parse(record) {
        Ok(transcript) => transcript,
        Err(error) => return Came::Refused(error.reason),
    };
    if let Err(error) = import().check(&transcript) {
        return Came::Refused(error.to_string());
    }
    let import = import();
    let mut making = import.begin(&transcript);
    let (mut actions, mut outcomes, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    while let Some(part) = making.next(last.as_ref()).unwrap() {
        last = Some(deed_client::chat::Recorded::STAND_IN);
        if part.speaker == Speaker::Grantor {
            continue;
        }
        for made in part.statements {
            match statement::decode(&made.payload).unwrap().body.unwrap() {
                Body::Intent(intent) => {
                    actions.push(intent.action);
                    places.push(made.sequence.get());
                }
                Body::Outcome(outcome) => {
                    let of = outcome.intent.as_ref().unwrap().sequence;
                    let number = places.iter().position(|place| *place == of).unwrap();
                    let failed = outcome.status() == v1::OutcomeStatus::Failed;
                    outcomes.push((number, failed));
                }
                _ => {}
            }
        }
    }
    assert_eq!(making.left_out(), []);
    Came::Acts(actions, outcomes)
}

/// Where the shared files are at hand.
#[test]
fn each_file_comes_to_what_it_says() {
    let one = |action: &str| acts(&[action], &[(0, false)]);
    let failed = |action: &str| acts(&[action], &[(0, true)]);
    let many: Vec<String> = (0..65).map(|number| format!("tool_{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let answered: Vec<(usize, bool)> = (0..65).map(|number| (number, false)).collect();
    for (name, wanted) in [
        (
            "c02-legacy-function-call.jsonl",
            vec![one("delete_account")],
        ),
        (
            "c03-arguments-object.jsonl",
            vec![one("click"), acts(&[], &[])],
        ),
        (
            "c04-failures.jsonl",
            vec![
                failed("pay"),
                failed("pay"),
                failed("pay"),
                failed("pay"),
                one("grep"),
            ],
        ),
        ("c05-custom.jsonl", vec![one("code_exec")]),
        ("c06-anthropic.jsonl", vec![failed("refund_order")]),
        ("c07-roles.jsonl", vec![one("lookup")]),
        ("c09-65-tools.jsonl", {
            let quiet = std::iter::repeat_with(|| acts(&[], &[]));
            let mut all = vec![acts(&[], &[]), acts(&many, &answered)];
            all.extend(quiet.take(40));
            all
        }),
        (
            "c10-empty.jsonl",
            vec![Came::Refused(
                "messages[1]: tool_calls[0]: names no tool".to_owned(),
            )],
        ),
        ("c14-agentdojo.jsonl", vec![failed("send_money")]),
        ("c15-bom-crlf.jsonl", vec![acts(&[], &[])]),
        (
            "c17-late-result.jsonl",
            vec![acts(&["start_deploy", "weather"], &[(0, false), (1, true)])],
        ),
        ("c19-callid.jsonl", vec![one("t")]),
    ] {
        let Some(path) = shared(&format!("imports/{name}")) else {
            return;
        };
        let records = Records::new(open(&path).unwrap(), Vec::new());
        let found: Vec<Came> = records.map(|record| came(&record.unwrap().text)).collect();
        assert_eq!(found, wanted, "{name}");
    }
}

/// The kinds, from the formats as they are published.
#[test]
fn each_kind_is_imported_or_refused_by_name() {
    let user = json!({"role": "user", "content": "go"});
    let refused = |reason: &str| Came::Refused(reason.to_owned());
    let cases: Vec<(&str, Value, Came)> = vec![
        (
            "OpenAI's responses",
            json!({"input": "go", "instructions": "be kind", "output": [
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "pay",
                 "arguments": "{}", "status": "completed"},
                {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "mail",
                 "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_2", "output": "sent"},
                {"type": "function_call_output", "call_id": "call_1",
                 "output": "{\"error\": \"declined\"}"},
                {"type": "message", "role": "assistant",
                 "content": [{"type": "output_text", "text": "Done.", "annotations": []}]},
            ]}),
            acts(&["pay", "mail"], &[(1, false), (0, true)]),
        ),
        (
            "a platform's own tools",
            json!({"items": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
                {"type": "web_search_call", "id": "ws_1", "status": "completed",
                 "action": {"type": "search", "query": "weather"}},
                {"type": "computer_call", "id": "cu_1", "call_id": "c9", "status": "completed",
                 "action": {"type": "click", "x": 1, "y": 2}, "pending_safety_checks": []},
                {"type": "mcp_call", "id": "mcp_1", "server_label": "shop", "name": "refund",
                 "arguments": "{}", "error": "no such order", "output": null},
                {"type": "computer_call_output", "call_id": "c9",
                 "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AA"}},
                {"type": "code_interpreter_call", "id": "ci_1", "code": "1+1", "status": "in_progress"},
                {"type": "custom_tool_call", "call_id": "c10", "name": "sql", "input": "select 1"},
                {"type": "custom_tool_call_output", "call_id": "c10", "output": "1"},
            ]}),
            acts(
                &[
                    "web_search",
                    "computer",
                    "refund",
                    "code_interpreter",
                    "sql",
                ],
                &[(0, false), (2, true), (1, false), (4, false)],
            ),
        ),
        (
            "Anthropic's messages",
            json!({"system": [{"type": "text", "text": "be kind"}], "messages": [
                user,
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "Both."},
                    {"type": "tool_use", "id": "t1", "name": "pay", "input": {"order": 7}},
                    {"type": "tool_use", "id": "t2", "name": "mail", "input": {}},
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
                    {"type": "web_search_tool_result", "tool_use_id": "s1",
                     "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t2",
                     "content": [{"type": "text", "text": "Error: sent"}], "is_error": false},
                    {"type": "tool_result", "tool_use_id": "t1", "content": "declined", "is_error": true},
                    {"type": "text", "text": "and now?"},
                ]},
            ]}),
            acts(
                &["pay", "mail", "web_search"],
                &[(2, true), (1, false), (0, true)],
            ),
        ),
        (
            "two legacy calls in a row",
            json!({"messages": [
                user,
                {"role": "assistant", "function_call": {"name": "a", "arguments": "{}"}},
                {"role": "function", "name": "a", "content": "ok"},
                {"role": "assistant", "function_call": {"name": "b", "arguments": "{}"}, "content": null},
                {"role": "function", "name": "b", "content": "{\"success\": false}"},
            ]}),
            acts(&["a", "b"], &[(0, false), (1, true)]),
        ),
        (
            "calls without ids, arguments as objects",
            json!({"messages": [
                user,
                {"role": "assistant", "content": "", "tool_calls": [
                    {"function": {"name": "a", "arguments": {"x": 1}}},
                    {"function": {"name": "b", "arguments": {}}},
                ]},
                {"role": "tool", "content": "1", "tool_name": "b"},
                {"role": "tool", "content": "Error: 2", "tool_name": "a"},
            ]}),
            acts(&["a", "b"], &[(1, false), (0, true)]),
        ),
        (
            "frameworks that name who speaks by the type",
            json!({"messages": [
                {"type": "human", "content": "go"},
                {"type": "ai", "content": "", "tool_calls":
                    [{"name": "pay", "args": {"order": 7}, "id": "l1", "type": "tool_call"}]},
                {"type": "tool", "content": "declined", "tool_call_id": "l1", "status": "error"},
            ]}),
            acts(&["pay"], &[(0, true)]),
        ),
        (
            "calls and results as parts",
            json!({"messages": [
                user,
                {"role": "assistant", "content": [
                    {"type": "tool-call", "toolCallId": "v1", "toolName": "pay", "input": {}},
                ]},
                {"role": "tool", "content": [
                    {"type": "tool-result", "toolCallId": "v1", "toolName": "pay",
                     "output": {"type": "error-text", "value": "declined"}},
                ]},
                {"role": "assistant", "content": [{"toolUse": {"toolUseId": "b1", "name": "mail", "input": {}}}]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "b1", "status": "success", "content": [{"text": "Error"}]}},
                ]},
            ]}),
            acts(&["pay", "mail"], &[(0, true), (1, false)]),
        ),
        (
            "a refusal",
            json!({"messages": [
                {"role": "developer", "content": "be kind"},
                user,
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "assistant", "content": null, "refusal": "No."},
            ]}),
            acts(&[], &[]),
        ),
        (
            "a tool that answers with parts, null, or an object",
            json!({"messages": [
                user,
                {"role": "assistant", "tool_calls": [
                    {"id": "1", "function": {"name": "a", "arguments": null}},
                    {"id": "2", "function": {"name": "b"}},
                    {"id": "3", "function": {"name": "c", "arguments": "{}"}},
                ]},
                {"role": "tool", "tool_call_id": "1", "content": null},
                {"role": "tool", "tool_call_id": "2", "content": {"ok": false}},
                {"role": "tool", "tool_call_id": "3", "content":
                    [{"type": "text", "text": "fine"}, {"type": "image_url", "image_url": {"url": "x"}}]},
            ]}),
            acts(&["a", "b", "c"], &[(0, false), (1, true), (2, false)]),
        ),
        (
            "a role that is not known",
            json!({"messages": [user, {"role": "oracle", "content": "x"}]}),
            refused("messages[1]: role \"oracle\" is not known"),
        ),
        (
            "a part that is not known",
            json!({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}),
            refused("messages[0]: content[0]: type \"hologram\" is not known"),
        ),
        (
            "a call that is not known",
            json!({"messages": [user, {"role": "assistant", "tool_calls": [{"type": "quantum"}]}]}),
            refused("messages[1]: tool_calls[0]: type \"quantum\" is not known"),
        ),
        (
            "a user that calls",
            json!({"messages": [{"role": "user", "content": "x", "tool_calls":
                [{"id": "1", "function": {"name": "a", "arguments": "{}"}}]}]}),
            refused("messages[0]: has calls of tools; only an assistant's message may"),
        ),
        (
            "an item that is kept elsewhere",
            json!({"items": [{"type": "item_reference", "id": "rs_1"}]}),
            refused("items[0]: refers to an item that is kept elsewhere; export it whole"),
        ),
        (
            "acts in a form that is not read",
            json!({"messages": [{"role": "assistant", "content": "", "toolInvocations": [{"x": 1}]}]}),
            refused("messages[0]: toolInvocations[0]: has no toolCallId"),
        ),
        (
            "no message at all",
            json!({"messages": [user, "hello"]}),
            refused("messages[1]: is no object"),
        ),
    ];
    for (what, mut run, wanted) in cases {
        run["run_id"] = json!("run-1");
        assert_eq!(came(&run.to_string()), wanted, "{what}");
    }
}

/// `Import::check` counts the same statements as the import makes.
#[test]
fn a_check_counts_what_is_made() {
    let run = json!({"run_id": "a", "messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "ok"},
    ]});
    let checked = import().check(&Transcript::read(&run).unwrap()).unwrap();
    let wanted = Checked {
        statements: 4,
        counts: Counts {
            grants: 1,
            intents: 1,
            outcomes: 1,
            ..Counts::default()
        },
        left_out: Vec::new(),
    };
    assert_eq!(checked, wanted);
}
