//! The acts in records of other platforms.

use super::*;

/// A call of this id, as OpenAI's chat completions have it.
pub(super) fn call(id: &str, name: &str) -> Value {
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

/// A field that may hold an act and is not read makes the run refused, wherever the field stands.
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
    // Fields that hold no act, or only list possible acts, are accepted.
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
