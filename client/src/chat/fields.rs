//! Fields that are not read here: what may be an act in them makes its message or run refused.

use serde_json::{Map, Value};

/// Fields of a message that are read.
const READ: [&str; 22] = [
    "role",
    "type",
    "content",
    "parts",
    "tool_calls",
    "function_call",
    "toolInvocations",
    "additional_kwargs",
    "name",
    "is_error",
    "isError",
    "status",
    "error",
    "success",
    "ok",
    "tool_call_id",
    "toolCallId",
    "call_id",
    "tool_use_id",
    "toolUseId",
    "tool_name",
    "toolName",
];
/// Fields that only go along with a message. Acts in a form that is known are looked for in them.
const BESIDE: [&str; 56] = [
    "annotations",
    "attachments",
    "audio",
    "author",
    "cache_control",
    "citationMetadata",
    "citations",
    "container",
    "content_filter_results",
    "context",
    "context_management",
    "created_at",
    "documents",
    "encrypted_content",
    "example",
    "experimental_attachments",
    "experimental_providerMetadata",
    "extra",
    "extra_info",
    "extras",
    "files",
    "groundingMetadata",
    "grounding_metadata",
    "id",
    "images",
    "lc_attributes",
    "logprobs",
    "metadata",
    "moderation",
    "parent_tool_use_id",
    "placeholder_args",
    "prompt_filter_results",
    "providerMetadata",
    "providerOptions",
    "provider_metadata",
    "provider_options",
    "provider_specific_fields",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "response_metadata",
    "safetyRatings",
    "safety_ratings",
    "search_results",
    "sender",
    "stop_details",
    "stop_reason",
    "summary",
    "thinking",
    "thinking_blocks",
    "tool_choice",
    "tool_plan",
    "usage",
    "usageMetadata",
    "usage_metadata",
];
/// Fields of a tool's message that are part of what came back.
const OF_A_RESULT: [&str; 20] = [
    "artifact",
    "code",
    "error_message",
    "errorMessage",
    "errorText",
    "errorType",
    "errors",
    "exception",
    "exit_code",
    "exitCode",
    "outcome",
    "output",
    "result",
    "return_code",
    "returncode",
    "state",
    "statusCode",
    "status_code",
    "toolUseResult",
    "tool_call",
];
/// Words of a name that say that it is about acts.
const ABOUT_ACTS: [&str; 16] = [
    "action",
    "actions",
    "call",
    "calls",
    "command",
    "commands",
    "delta",
    "function",
    "functions",
    "invocation",
    "invocations",
    "kwargs",
    "tool",
    "toolcall",
    "toolcalls",
    "tools",
];
/// Fields of a run in which platforms put what a model answered.
const ANSWERS: [&str; 22] = [
    "candidates",
    "choices",
    "chunks",
    "completion",
    "completions",
    "content",
    "conversation",
    "conversations",
    "delta",
    "deltas",
    "events",
    "generations",
    "history",
    "intermediate_steps",
    "message",
    "outputs",
    "parts",
    "response",
    "responses",
    "steps",
    "trajectory",
    "turns",
];
/// Words of names under which a run says what might be done, or should have been, and not what was.
const MAY_BE_DONE: [&str; 12] = [
    "available",
    "choice",
    "config",
    "definitions",
    "expected",
    "gold",
    "ground",
    "reference",
    "resources",
    "schema",
    "schemas",
    "specs",
];
/// Does the same by whole names.
const DEFINITIONS: [&str; 2] = ["tools", "functions"];

/// Refuses a message with a field that is not read and may be an act.
pub(super) fn of_message(
    fields: &Map<String, Value>,
    is_result: bool,
    has_calls: bool,
) -> Result<(), String> {
    for (name, value) in fields {
        let name = name.as_str();
        if READ.contains(&name) || is_nothing(value) || (is_result && OF_A_RESULT.contains(&name)) {
            continue;
        }
        let beside = BESIDE.contains(&name);
        let passes = match value {
            // A streamed message repeats its calls in pieces.
            Value::Array(_) if name == "tool_call_chunks" => has_calls,
            Value::Object(_) | Value::Array(_) => beside && !holds_act(value),
            Value::String(_) => beside || has_calls || !is_about_acts(name),
            _ => true,
        };
        if !passes {
            return Err(format!("{name} is in a form that is not read here"));
        }
    }
    Ok(())
}

/// Refuses a run with a field that is not read (`read` are) and holds acts.
pub(super) fn of_run(fields: &Map<String, Value>, read: &[&str]) -> Result<(), String> {
    for (name, value) in fields {
        if read.contains(&name.as_str()) || is_nothing(value) || !is_structured(value) {
            continue;
        }
        let words = words(name);
        let may_be_done = words.iter().any(|word| MAY_BE_DONE.contains(&&**word));
        if may_be_done || DEFINITIONS.contains(&name.as_str()) {
            continue;
        }
        if ANSWERS.contains(&name.as_str()) || is_about_acts(name) || holds_act(value) {
            return Err(format!(
                "{name} is not read, and holds what may be acts; put its messages where the others are"
            ));
        }
    }
    Ok(())
}

/// Returns true if a value holds a call or a result, in one of the usual forms.
pub(super) fn holds_act(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().any(holds_act),
        Value::Object(fields) => is_act(fields) || fields.values().any(holds_act),
        _ => false,
    }
}

fn is_act(fields: &Map<String, Value>) -> bool {
    const FIELDS: [&str; 12] = [
        "actions",
        "toolcall",
        "toolcalls",
        "toolcallid",
        "tooluse",
        "tooluseid",
        "toolresult",
        "toolinvocation",
        "toolinvocations",
        "functioncall",
        "functioncalls",
        "functionresponse",
    ];
    const TYPES: [&str; 5] = [
        "tooluse",
        "toolcall",
        "toolresult",
        "functioncall",
        "functionresponse",
    ];
    let named = fields.iter().any(|(name, value)| {
        let is_some = is_structured(value) || value.is_string();
        is_some && !is_nothing(value) && FIELDS.contains(&&*squeezed(name))
    });
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let typed = text("type").map(squeezed);
    let typed = typed.is_some_and(|kind| TYPES.iter().any(|one| kind.contains(one)));
    let spoken = matches!(text("role"), Some("tool" | "function"));
    let has = |names: &[&str]| names.iter().any(|name| fields.contains_key(*name));
    let called = has(&["arguments", "args", "input"])
        && has(&["name", "function", "tool", "toolName", "tool_name"]);
    named || typed || spoken || called
}

pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

const fn is_structured(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

fn is_about_acts(name: &str) -> bool {
    words(name).iter().any(|word| ABOUT_ACTS.contains(&&**word))
}

/// The words of a name: of `toolCalls` and of `tool_calls` the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if (c.is_uppercase() || !c.is_alphanumeric()) && words.last() != Some(&String::new()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words
}

/// A name without what it is spelled with.
fn squeezed(name: &str) -> String {
    let kept = name.chars().filter(|c| c.is_alphanumeric());
    kept.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_names() {
        for (name, wanted) in [
            ("toolCalls", "tool calls"),
            ("tool_calls", "tool calls"),
            ("transaction_id", "transaction id"),
            ("delta", "delta"),
        ] {
            assert_eq!(words(name).join(" "), wanted);
        }
    }

    #[test]
    fn acts_are_found_wherever_they_are() {
        for act in [
            json!({"tool_calls": [{"id": "a"}]}),
            json!([{"x": {"toolUse": {"name": "pay"}}}]),
            json!({"type": "server_tool_use"}),
            json!({"functionResponse": {"name": "pay"}}),
            json!({"tool_call_id": "a"}),
            json!({"role": "tool", "content": "ok"}),
            json!({"function": {"name": "pay", "arguments": "{}"}}),
            json!([{"name": "pay", "args": {}}]),
        ] {
            assert!(holds_act(&act), "{act}");
        }
        for other in [
            json!({"finish_reason": "tool_calls", "stop_reason": "tool_use"}),
            json!({"tool_calls": 3, "server_tool_use": {"web_search_requests": 1}}),
            json!({"tool_calls": [], "function_call": null}),
            json!({"type": "url_citation", "url": "x"}),
            json!([{"role": "user", "content": "go"}]),
        ] {
            assert!(!holds_act(&other), "{other}");
        }
    }
}
