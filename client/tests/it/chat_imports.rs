//! What each awkward chat comes to: imported, or refused by name with its place.

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

/// What a run comes to.
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

/// A call of this id, as OpenAI's chat completions have it.
fn call(id: &str, name: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}})
}

/// The same conversation in the forms of other platforms: imported as what it is.
#[test]
fn other_platforms_acts_are_read() {
    let user = json!({"role": "user", "content": "go"});
    let human = json!({"type": "human", "content": "go"});
    let paid = || acts(&["pay"], &[(0, false)]);
    let cases: Vec<(&str, Value, Came)> = vec![
        (
            "LangChain, messages_to_dict",
            json!({"messages": [
                {"type": "human", "data": {"content": "go", "additional_kwargs": {}, "type": "human"}},
                {"type": "ai", "data": {"content": "", "type": "ai", "additional_kwargs": {},
                    "tool_calls": [{"name": "pay", "args": {"x": 1}, "id": "a"}]}},
                {"type": "tool", "data": {"content": "ok", "tool_call_id": "a", "status": "success"}},
            ]}),
            paid(),
        ),
        (
            "LangChain, additional_kwargs",
            json!({"messages": [
                human,
                {"type": "ai", "content": "", "tool_calls": [],
                 "additional_kwargs": {"tool_calls": [call("a", "pay")], "refusal": null}},
                {"type": "tool", "content": "ok", "tool_call_id": "a"},
                {"type": "ai", "content": "", "additional_kwargs":
                    {"function_call": {"name": "mail", "arguments": "{}"}}},
                {"type": "function", "name": "mail", "content": "Error: no"},
            ]}),
            acts(&["pay", "mail"], &[(0, false), (1, true)]),
        ),
        (
            "LangChain with Anthropic: the same call twice is one",
            json!({"messages": [
                human,
                {"type": "ai", "response_metadata": {"stop_reason": "tool_use"}, "content": [
                    {"type": "text", "text": "I pay."},
                    {"type": "tool_use", "id": "a", "name": "pay", "input": {"x": 1, "y": 2}}],
                 "tool_calls": [{"name": "pay", "args": {"y": 2, "x": 1}, "id": "a", "type": "tool_call"}]},
                {"type": "tool", "content": "ok", "tool_call_id": "a", "name": "pay"},
            ]}),
            paid(),
        ),
        (
            "LangChain, dumps",
            json!({"messages": [
                {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
                 "kwargs": {"content": "go", "type": "human"}},
                {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "AIMessageChunk"],
                 "kwargs": {"content": "", "type": "AIMessageChunk",
                    "tool_calls": [{"name": "pay", "args": {}, "id": "a"}],
                    "tool_call_chunks": [{"name": "pay", "args": "{}", "id": "a", "index": 0}]}},
                {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "ToolMessage"],
                 "kwargs": {"content": "ok", "tool_call_id": "a", "artifact": {"tool_calls": [1]}}},
            ]}),
            paid(),
        ),
        (
            "Gemini",
            json!({"systemInstruction": {"parts": [{"text": "be kind"}]}, "contents": [
                {"role": "user", "parts": [{"text": "go"}]},
                {"role": "model", "parts": [
                    {"text": "hm", "thought": true},
                    {"text": "Both.", "thoughtSignature": "x"},
                    {"functionCall": {"name": "pay", "args": {"x": 1}}, "thoughtSignature": "x"},
                    {"functionCall": {"name": "mail", "args": {}}}]},
                {"role": "user", "parts": [
                    {"functionResponse": {"name": "mail", "response": {"error": "no"}}},
                    {"functionResponse": {"name": "pay", "response": {"output": "ok"}}}]},
                {"role": "model", "parts": [
                    {"executableCode": {"language": "PYTHON", "code": "1/0"}},
                    {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "x"}},
                    {"inlineData": {"mimeType": "image/png", "data": "AA"}}]},
            ]}),
            acts(
                &["pay", "mail", "code_execution"],
                &[(1, true), (0, false), (2, true)],
            ),
        ),
        (
            "Gemini with ids, by its Python library",
            json!({"contents": [
                {"role": "user", "parts": [{"text": "go"}]},
                {"role": "model", "parts": [
                    {"text": "I pay.", "function_call": {"id": "1", "name": "pay", "args": {"x": 1}}},
                    {"function_call": {"id": "2", "name": "pay", "args": {"x": 2}}}]},
                {"role": "user", "parts": [
                    {"function_response": {"id": "2", "name": "pay", "response": {"result": "ok"}}},
                    {"function_response": {"id": "1", "name": "pay", "response": {"error": "no"}}}]},
            ]}),
            acts(&["pay", "pay"], &[(1, false), (0, true)]),
        ),
        (
            "Bedrock's Converse",
            json!({"system": [{"text": "be kind"}], "messages": [
                {"role": "user", "content": [{"text": "go"}, {"document": {"name": "x", "source": {}}}]},
                {"role": "assistant", "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                    {"text": "Both."},
                    {"toolUse": {"toolUseId": "t1", "name": "pay", "input": {"x": 1}}},
                    {"toolUse": {"toolUseId": "t2", "name": "mail", "input": {}}}]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "t2", "content": [{"json": {"error": "no"}}]}},
                    {"toolResult": {"toolUseId": "t1", "content": [{"text": "ok"}], "status": "success"}},
                    {"cachePoint": {"type": "default"}}]},
            ]}),
            acts(&["pay", "mail"], &[(1, true), (0, false)]),
        ),
        (
            "Vercel's messages of a page",
            json!({"messages": [
                {"role": "user", "id": "m1", "parts": [{"type": "text", "text": "go"}]},
                {"role": "assistant", "id": "m2", "parts": [
                    {"type": "step-start"},
                    {"type": "tool-pay", "toolCallId": "a", "state": "output-available",
                     "input": {"x": 1}, "output": {"ok": true}},
                    {"type": "dynamic-tool", "toolName": "mail", "toolCallId": "b",
                     "state": "output-error", "input": {}, "errorText": "no"},
                    {"type": "tool-look", "toolCallId": "c", "state": "input-available", "input": {}},
                    {"type": "text", "text": "Done."}]},
            ]}),
            acts(&["pay", "mail", "look"], &[(0, false), (1, true)]),
        ),
        (
            "Vercel's messages of before",
            json!({"messages": [
                user,
                {"role": "assistant", "content": "Done.", "toolInvocations": [
                    {"state": "result", "toolCallId": "a", "toolName": "pay", "args": {"x": 1},
                     "result": "ok"}],
                 "parts": [{"type": "tool-invocation", "toolInvocation":
                    {"state": "result", "toolCallId": "a", "toolName": "pay", "args": {"x": 1},
                     "result": "ok"}}, {"type": "text", "text": "Done."}]},
                {"role": "assistant", "content": "", "toolInvocations": [
                    {"state": "call", "toolCallId": "b", "toolName": "mail", "args": {}}]},
            ]}),
            acts(&["pay", "mail"], &[(0, false)]),
        ),
        (
            "Vercel's errors of tools",
            json!({"messages": [
                user,
                {"role": "assistant", "content": [
                    {"type": "tool-call", "toolCallId": "a", "toolName": "pay", "input": {}},
                    {"type": "tool-error", "toolCallId": "a", "toolName": "pay", "error": "no"}]},
            ]}),
            acts(&["pay"], &[(0, true)]),
        ),
        (
            "ids that repeat, and a result that is missing",
            json!({"messages": [
                user,
                {"role": "assistant", "tool_calls": [call("a", "pay"), call("a", "mail")]},
                {"role": "tool", "tool_call_id": "a", "content": "ok"},
                {"role": "assistant", "tool_calls": [call("a", "look")]},
                {"role": "tool", "tool_call_id": "a", "content": "Error: no"},
            ]}),
            acts(&["pay", "mail", "look"], &[(0, false), (2, true)]),
        ),
        (
            "ids under other names",
            json!({"messages": [
                user,
                {"role": "assistant", "tool_calls": [call("a", "pay"), call("b", "mail")]},
                {"role": "tool", "tool_use_id": "b", "content": "Error: no"},
                {"role": "tool", "tool_call": {"id": "a"}, "content": "ok"},
            ]}),
            acts(&["pay", "mail"], &[(1, true), (0, false)]),
        ),
    ];
    for (what, mut run, wanted) in cases {
        run["run_id"] = json!("run-1");
        assert_eq!(came(&run.to_string()), wanted, "{what}");
    }
    // Arguments are those that were meant, under whatever name.
    for name in ["arguments", "args", "input", "parameters", "kwargs"] {
        let call = json!({"name": "cancel", name: {"reservation_id": "ABC123"}});
        let run = json!({"run_id": "a", "messages": [
            {"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}]});
        let transcript = Transcript::read(&run).unwrap();
        let calls: Vec<_> = transcript.messages[1].calls().collect();
        assert_eq!(
            calls[0].arguments, r#"{"reservation_id":"ABC123"}"#,
            "{name}"
        );
    }
}

/// What may be an act, and is not read, is refused by name wherever it stands.
#[test]
fn what_may_be_an_act_is_never_passed_over() {
    let pay = || call("a", "pay");
    for (message, named) in [
        (json!({"toolCalls": [pay()]}), "toolCalls"),
        (json!({"tool_call": pay()}), "tool_call"),
        (
            json!({"function_calls": [{"name": "pay"}]}),
            "function_calls",
        ),
        (json!({"actions": [{"tool": "pay"}]}), "actions"),
        (json!({"action": "rm -rf /"}), "action"),
        (json!({"message": {"tool_calls": [pay()]}}), "message"),
        (json!({"delta": {"tool_calls": [pay()]}}), "delta"),
        (json!({"data": {"tool_calls": [pay()]}}), "data"),
        (
            json!({"metadata": {"raw": {"tool_calls": [pay()]}}}),
            "metadata",
        ),
        (
            json!({"invalid_tool_calls": [{"name": "pay"}]}),
            "invalid_tool_calls",
        ),
        (
            json!({"tool_call_chunks": [{"name": "pay"}]}),
            "tool_call_chunks",
        ),
        (
            json!({"additional_kwargs": {"tool_outputs": [{"type": "web_search_call",
            "tool_call_id": "a"}]}}),
            "tool_outputs",
        ),
        (
            json!({"type": "tool_use", "name": "pay", "input": {}}),
            "tool_use",
        ),
        (
            json!({"content": [{"type": "text", "text": "x", "tool_calls": [pay()]}]}),
            "content[0]",
        ),
        (
            json!({"content": [{"text": "x", "toolCall": {"name": "pay"}}]}),
            "content[0]",
        ),
        (
            json!({"content": [{"type": "tool-pay", "toolCallId": "a", "state": "input-streaming"}]}),
            "input-streaming",
        ),
        (
            json!({"content": [{"type": "tool_use", "id": "a", "name": "pay", "input": {"x": 1}}],
            "tool_calls": [{"name": "pay", "args": {"x": 2}, "id": "a"}]}),
            "says something else",
        ),
        (
            json!({"content": [{"type": "tool_use", "name": "pay", "input": {}}],
            "tool_calls": [{"name": "mail", "args": {}}]}),
            "no ids",
        ),
        (
            json!({"content": "<tool_call>{\"name\": \"pay\"}</tool_call>"}),
            "<tool_call>",
        ),
        (
            json!({"content": "Action: pay\nAction Input: {}"}),
            "Action Input:",
        ),
    ] {
        let mut message = message;
        message["role"] = json!("assistant");
        let run = json!({"run_id": "a", "messages": [{"role": "user", "content": "go"}, message]});
        match came(&run.to_string()) {
            Came::Refused(reason) => {
                assert!(reason.starts_with("messages[1]: "), "{reason}");
                assert!(reason.contains(named), "{named}: {reason}");
            }
            acts => panic!("{named}: {acts:?}"),
        }
    }
    for (name, value) in [
        ("choices", json!([{"message": {"tool_calls": [pay()]}}])),
        ("response", json!({"choices": []})),
        ("completion", json!([{"role": "assistant"}])),
        (
            "content",
            json!([{"type": "tool_use", "id": "a", "name": "pay", "input": {}}]),
        ),
        ("candidates", json!([{"content": {"parts": []}}])),
        ("trajectory", json!([{"action": "ls"}])),
        ("steps", json!([{"x": 1}])),
        ("required_action", json!({"x": 1})),
        ("toolCalls", json!([1])),
        ("info", json!({"actions": [{"name": "pay"}]})),
        (
            "extra",
            json!({"deep": [{"role": "tool", "content": "ok"}]}),
        ),
    ] {
        let mut run = json!({"run_id": "a", "messages": [{"role": "user", "content": "go"}]});
        run[name] = value;
        match came(&run.to_string()) {
            Came::Refused(reason) => assert!(reason.starts_with(name), "{name}: {reason}"),
            acts => panic!("{name}: {acts:?}"),
        }
    }
    // What says no act, or what may be done, goes along.
    let run = json!({
        "run_id": "a", "reward": 1.0, "metadata": {"user": "x"}, "tool_choice": "auto",
        "tools": [{"type": "function", "function": {"name": "pay", "parameters": {}}}],
        "expected_actions": [{"name": "pay", "arguments": {}}],
        "messages": [
            {"role": "user", "content": "go", "id": "m1", "name": "x", "timestamp": 7},
            {"role": "assistant", "content": "I may call tools.", "annotations": [{"type": "url_citation"}],
             "usage": {"server_tool_use": {"web_search_requests": 1}}, "tool_plan": "none",
             "audio": {"id": "x"}, "reasoning": "hm", "transaction_id": "t1", "tool_calls": []},
        ],
    });
    assert_eq!(came(&run.to_string()), acts(&[], &[]));
    // Flags of a result are not guessed.
    let run = json!({"run_id": "a", "input": "go", "output": [
        {"type": "function_call", "call_id": "a", "name": "pay", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "", "status": "incomplete"},
    ]});
    match came(&run.to_string()) {
        Came::Refused(reason) => assert!(reason.contains("incomplete"), "{reason}"),
        acts => panic!("{acts:?}"),
    }
}

/// What a ledger has of a run.
#[derive(Default)]
struct Held {
    statements: Vec<(Made, Recorded)>,
    grants: Vec<Given>,
    granted: Option<(Sequence, deed_evidence::PayloadDigest)>,
}

/// A ledger that takes what is next, has what was, and never anything else in its place.
#[derive(Default)]
struct Taking {
    runs: HashMap<String, Held>,
    leaves: u64,
    now: i64,
}

impl Taking {
    /// Imports a file's bytes, whatever is in them.
    fn import(&mut self, bytes: &[u8]) {
        let records = Records::new(std::io::Cursor::new(bytes.to_vec()), Vec::new());
        for record in records.flatten() {
            let Ok(transcript) = Transcript::parse(&record.text) else {
                continue;
            };
            self.run(&transcript);
        }
    }

    fn run(&mut self, transcript: &Transcript) {
        let import = import();
        let held = self.runs.entry(transcript.run_id.clone()).or_default();
        let earlier = Earlier {
            next: Sequence::new(held.statements.len() as u64),
            grants: held.grants.clone(),
            granted: held.granted,
            at: Micros::new(self.now),
        };
        let mut making = import.resume(transcript, &earlier);
        let mut last = None;
        while let Some(part) = making.next(last.as_ref()).unwrap() {
            for made in part.statements {
                self.leaves += 1;
                let recorded = Recorded {
                    leaf_index: LeafIndex::new(self.leaves),
                    leaf_hash: leaf_hash(&made.payload),
                    received_at: Micros::new(self.now),
                };
                if part.speaker == Speaker::Grantor {
                    let next = held.granted.map_or(0, |(last, _)| last.get() + 1);
                    assert_eq!(
                        made.sequence.get(),
                        next,
                        "a grant in a place that is taken"
                    );
                    let message = statement::decode(&made.payload).unwrap();
                    held.grants
                        .push(Given::read(recorded.leaf_hash, &message).unwrap());
                    held.granted = Some((made.sequence, made.digest));
                    last = Some(recorded);
                    continue;
                }
                let at = usize::try_from(made.sequence.get()).unwrap();
                if let Some((known, recorded)) = held.statements.get(at) {
                    assert_eq!(known.payload, made.payload, "another one in its place");
                    last = Some(*recorded);
                    continue;
                }
                assert_eq!(at, held.statements.len(), "in its turn");
                held.statements.push((made, recorded));
                last = Some(recorded);
            }
        }
    }

    /// What is said of each run, but for the grants and what names them, and when.
    fn said(&self) -> Vec<(&String, Vec<v1::Statement>)> {
        let plain = |(made, _): &(Made, Recorded)| {
            let mut message = statement::decode(&made.payload).unwrap();
            message.previous.clear();
            match &mut message.body {
                Some(Body::Intent(intent)) => intent.grant.clear(),
                Some(Body::Outcome(outcome)) => {
                    outcome.intent.as_mut().unwrap().payload_digest.clear();
                }
                Some(Body::Approval(approval)) => {
                    approval.intent = None;
                    approval.decided_at_us = 0;
                    message.occurred_at_us = 0;
                }
                _ => {}
            }
            message
        };
        let mut said: Vec<_> = self
            .runs
            .iter()
            .map(|(run, held)| (run, held.statements.iter().map(plain).collect()))
            .collect();
        said.sort_by_key(|(run, _)| *run);
        said
    }
}

/// A run of so many messages, with a yes and parallel calls in it.
fn growing(id: usize, count: usize) -> Value {
    let tools = ["look", "cancel_reservation", "tell", "pay"];
    let mut messages = vec![json!({"role": "user", "content": "go"})];
    for turn in 0..count / 4 {
        let (a, b) = (format!("a{turn}"), format!("b{turn}"));
        messages.extend([
            json!({"role": "assistant", "content": "Shall I?"}),
            json!({"role": "user", "content": "Yes."}),
            json!({"role": "assistant", "tool_calls":
                [call(&a, tools[turn % 4]), call(&b, tools[(turn + id) % 4])]}),
            json!({"role": "tool", "tool_call_id": b, "content": "ok"}),
            json!({"role": "tool", "tool_call_id": a, "content": "Error: no"}),
        ]);
    }
    messages.truncate(count);
    json!({"run_id": format!("run-{id}"), "messages": messages})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever of the files was there when, in whatever order, however often, and wherever their
    /// bytes were cut: it comes to what one import of all of it comes to.
    #[test]
    fn any_cut_any_order_any_repetition_says_the_same(
        lengths in proptest::collection::vec(1_usize..20, 1..4),
        steps in proptest::collection::vec(
            (0_usize..20, 0_usize..4_000, 0_i64..30, any::<bool>()), 0..8),
    ) {
        let file = |longest: usize, reversed: bool| {
            let mut lines: Vec<String> = lengths
                .iter()
                .enumerate()
                .map(|(id, length)| format!("{}\n", growing(id, (*length).min(longest))))
                .collect();
            if reversed {
                lines.reverse();
            }
            lines.concat().into_bytes()
        };
        let hour = 3_600_000_000;
        let begin = Taking { now: 1_795_000_000_000_000, ..Taking::default() };
        let mut cut = Taking { now: begin.now, ..Taking::default() };
        for (longest, bytes, hours, reversed) in steps {
            let file = file(longest, reversed);
            cut.import(&file[..bytes.min(file.len())]);
            cut.now += hours * hour;
        }
        cut.import(&file(20, false));
        // Once more, all is there.
        let leaves: Vec<usize> = cut.runs.values().map(|held| held.grants.len()).collect();
        cut.import(&file(20, true));
        prop_assert_eq!(leaves, cut.runs.values().map(|held| held.grants.len()).collect::<Vec<_>>());
        let mut whole = begin;
        whole.import(&file(20, false));
        prop_assert_eq!(cut.said(), whole.said());
    }
}

/// What it comes to does not depend on who counts.
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
