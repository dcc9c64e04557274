//! Whether a call failed, by what its result says: flags first, and only where there are none how
//! its text begins.

use serde_json::{Map, Value};

/// Words after which a text that begins with "Error" tells of one.
const AFTER_ERROR: [&str; 8] = [
    "in", "on", "at", "from", "while", "when", "code", "occurred",
];

/// Whether a result says that its call failed. `fields` are those of the message or part that it
/// stands in, `content` is what came back, and `bytes` is that as it is kept.
pub(super) fn told(
    fields: &Map<String, Value>,
    content: &Value,
    bytes: &[u8],
    is_text: bool,
) -> bool {
    if let Some(failed) = flags(fields) {
        return failed;
    }
    let parts = match content {
        Value::Array(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let told = parts
        .iter()
        .filter_map(Value::as_object)
        .filter_map(of_part);
    if let Some(failed) = worst(told) {
        return failed;
    }
    if !is_text {
        return false;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    // Many tools answer with the text of an object.
    if text.trim_start().starts_with('{')
        && let Ok(Value::Object(fields)) = serde_json::from_str(text)
        && let Some(failed) = of_part(&fields)
    {
        return failed;
    }
    begins_as_failure(text)
}

/// The flags of an object that came back, and its type.
fn of_part(fields: &Map<String, Value>) -> Option<bool> {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or("");
    let is_error = kind == "error"
        || kind.starts_with("error-")
        || kind.ends_with("_error")
        || kind == "execution-denied";
    // Of a shell or an interpreter that the platform runs.
    let code = |fields: &Map<String, Value>, name: &str| fields.get(name).and_then(Value::as_i64);
    let ran = code(fields, "return_code").filter(|_| kind.ends_with("_result"));
    let outcome = fields.get("outcome").and_then(Value::as_object);
    let exited = outcome.map(
        |outcome| match outcome.get("type").and_then(Value::as_str) {
            Some("exit") => code(outcome, "exit_code").unwrap_or(0),
            Some("timeout") => 1,
            _ => 0,
        },
    );
    let told = [
        is_error.then_some(true),
        ran.filter(|code| *code != 0).map(|_| true),
        exited.filter(|code| *code != 0).map(|_| true),
        flags(fields),
    ];
    worst(told.into_iter().flatten())
}

/// What flags say, if there are any: one that tells of a failure outweighs the others.
fn flags(fields: &Map<String, Value>) -> Option<bool> {
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
    let status = fields.get("status").and_then(|status| match status {
        Value::String(status) => match status.to_ascii_lowercase().as_str() {
            "error" | "errored" | "failed" | "failure" => Some(true),
            "success" | "successful" | "succeeded" | "ok" => Some(false),
            // Of the message, not of the call: "completed" and others.
            _ => None,
        },
        Value::Number(status) => status
            .as_u64()
            .filter(|n| (400..600).contains(n))
            .map(|_| true),
        _ => None,
    });
    let error = fields.get("error").map(|error| match error {
        Value::Null => false,
        Value::Bool(failed) => *failed,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(code) => code.as_f64() != Some(0.0),
    });
    let told = [
        flag("is_error"),
        flag("isError"),
        flag("success").map(|succeeded| !succeeded),
        flag("ok").map(|succeeded| !succeeded),
        status,
        error,
    ];
    worst(told.into_iter().flatten())
}

fn worst(told: impl Iterator<Item = bool>) -> Option<bool> {
    told.reduce(|a, b| a || b)
}

/// Whether a text begins as messages of failures do: "Error: ...", "error 404", "Error executing
/// ...", "ValueError: ...", a traceback. A word that only begins so, as in "ErrorLog.txt:12", is
/// none.
fn begins_as_failure(text: &str) -> bool {
    let text = text.trim_start();
    if text.starts_with("Traceback (most recent call last)") {
        return true;
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word.trim_end_matches('.').eq_ignore_ascii_case("error") {
        let next = rest.trim_start();
        let begins_so = |c: char| c.is_ascii_digit() || matches!(c, ':' | '(' | '[' | '-' | '!');
        let after = next
            .split(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or("");
        return next.is_empty()
            || next.starts_with(begins_so)
            || AFTER_ERROR.contains(&after)
            || (after.len() > 4 && after.ends_with("ing"));
    }
    // An exception with its name, as Python and others print it.
    rest.starts_with(':') && (word.ends_with("Error") || word.ends_with("Exception"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::parts, *};

    fn failed(message: &Value, content: &Value) -> bool {
        let (bytes, is_text) = parts::result(content);
        told(message.as_object().unwrap(), content, &bytes, is_text)
    }

    #[test]
    fn texts() {
        for (text, wanted) in [
            ("Error: card declined", true),
            ("error: card declined", true),
            ("ERROR", true),
            ("  Error 404: no such order", true),
            ("error[E0308]: mismatched types", true),
            ("Error executing tool pay: declined", true),
            ("Error while paying", true),
            ("ValueError: no funds", true),
            ("requests.exceptions.HTTPError: 404", true),
            ("Traceback (most recent call last):\n  File", true),
            ("ErrorLog.txt:12: all fine", false),
            ("Errors: none", false),
            ("Error rates went down", false),
            ("errors_total 0", false),
            ("No error: done", false),
            ("ok", false),
            ("", false),
            ("{\"isError\": true}", true),
            ("{\"success\": false, \"reason\": \"declined\"}", true),
            ("{\"error\": \"declined\"}", true),
            ("{\"error\": null, \"id\": 7}", false),
            ("{\"status\": \"error\"}", true),
            ("{\"status\": \"cancelled\"}", false),
            ("{\"status\": 503}", true),
            ("[\"Error: \"]", false),
        ] {
            assert_eq!(failed(&json!({}), &json!(text)), wanted, "{text}");
        }
    }

    #[test]
    fn flags_come_before_texts() {
        let error = json!("Error: card declined");
        for (message, content, wanted) in [
            (json!({"is_error": false}), error.clone(), false),
            (json!({"isError": true}), json!("ok"), true),
            (json!({"status": "success"}), error.clone(), false),
            (json!({"status": "error"}), json!("declined"), true),
            (json!({"status": "completed"}), error.clone(), true),
            (json!({"error": null}), json!("fine"), false),
            (json!({"error": "ValueError: no funds"}), json!(""), true),
            (json!({"error": {}}), json!(""), false),
            (json!({"success": false}), json!("fine"), true),
            (
                json!({}),
                json!([{"type": "text", "text": "Error: no"}]),
                true,
            ),
            (json!({}), json!([{"type": "text", "text": "fine"}]), false),
            (json!({}), json!([{"type": "error", "message": "no"}]), true),
            (
                json!({}),
                json!({"type": "web_search_tool_result_error", "error_code": "unavailable"}),
                true,
            ),
            (
                json!({}),
                json!({"type": "code_execution_result", "return_code": 1}),
                true,
            ),
            (
                json!({}),
                json!({"type": "code_execution_result", "return_code": 0}),
                false,
            ),
            (
                json!({}),
                json!([{"outcome": {"type": "exit", "exit_code": 2}}]),
                true,
            ),
            (json!({}), json!([{"outcome": {"type": "timeout"}}]), true),
            (
                json!({}),
                json!([{"outcome": {"type": "exit", "exit_code": 0}}]),
                false,
            ),
            (json!({}), json!({"isError": true, "content": []}), true),
            (json!({}), Value::Null, false),
        ] {
            assert_eq!(failed(&message, &content), wanted, "{message} {content}");
        }
    }
}
