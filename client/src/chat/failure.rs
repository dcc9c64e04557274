//! Decides if a call failed, from its result: by flags, or by the beginning of the text if there are no
//! flags.

use serde_json::{Map, Value};

/// Words after which a text that begins with "Error" tells of one.
const AFTER_ERROR: [&str; 8] = [
    "in", "on", "at", "from", "while", "when", "code", "occurred",
];
/// Other beginnings of texts that tell of a failure, in small letters.
const FAILURES: [&str; 11] = [
    "traceback (most recent call last)",
    "<tool_use_error>",
    "<error>",
    "an error occurred",
    "an unexpected error occurred",
    "failed to ",
    "command failed",
    "permission denied",
    "fatal:",
    "err:",
    "the user doesn't want to proceed with this tool use",
];
/// The names under which objects hold the data that came back.
const WITHIN: [&str; 4] = ["json", "result", "output", "response"];

/// The owner of the flags.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Fields of the message or part, which exist to state success or failure: each must be understood.
    Message,
    /// Fields of the returned content, which may have the same names for something else.
    Content,
}

/// Returns true if a result says that its call failed. `fields` are those of the message or part that it
/// stands in, `content` is what came back, and `bytes` is that as it is kept.
///
/// # Errors
/// If a flag says neither.
pub(super) fn told(
    fields: &Map<String, Value>,
    content: &Value,
    bytes: &[u8],
    is_text: bool,
) -> Result<bool, String> {
    if let Some(failed) = flags(fields, Of::Message)? {
        return Ok(failed);
    }
    let parts = match content {
        Value::Array(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let told = parts.iter().filter_map(Value::as_object);
    if let Some(failed) = worst(told.filter_map(of_part)) {
        return Ok(failed);
    }
    if !is_text {
        return Ok(false);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(false);
    };
    // Many tools answer with the text of an object, or of a list of them.
    if text.trim_start().starts_with(['{', '[']) {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => {
                if let Some(failed) = of_part(&fields) {
                    return Ok(failed);
                }
            }
            // In a list, single elements may report other errors: the call failed only if all did.
            Ok(Value::Array(all)) => {
                let failed = |one: &Value| one.as_object().and_then(of_part) == Some(true);
                return Ok(!all.is_empty() && all.iter().all(failed));
            }
            _ => {}
        }
    }
    Ok(begins_as_failure(text))
}

/// The flags of an object that came back, and its type.
fn of_part(fields: &Map<String, Value>) -> Option<bool> {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or("");
    let is_error = kind == "error"
        || kind.starts_with("error-")
        || kind.ends_with("_error")
        || kind == "execution-denied";
    // A shell or an interpreter that the platform runs gives an outcome.
    let outcome = fields.get("outcome").and_then(Value::as_object);
    let exited = outcome.map(
        |outcome| match outcome.get("type").and_then(Value::as_str) {
            Some("exit") => {
                let code = outcome.get("exit_code").and_then(Value::as_i64);
                code.is_some_and(|code| code != 0)
            }
            kind => kind == Some("timeout"),
        },
    );
    // An interpreter shows its failure in its output alone.
    let printed = fields.get("logs").and_then(Value::as_str);
    let broke = printed.filter(|_| kind == "logs").map(begins_as_failure);
    let within = WITHIN.iter().filter_map(|name| fields.get(*name));
    let within = within.filter_map(Value::as_object);
    let told = [
        is_error.then_some(true),
        exited.filter(|failed| *failed),
        broke.filter(|failed| *failed),
        // A result may use these names for its own things: a value that is not understood says nothing.
        flags(fields, Of::Content).unwrap_or_default(),
        worst(within.filter_map(|fields| flags(fields, Of::Content).unwrap_or_default())),
    ];
    worst(told.into_iter().flatten())
}

/// Returns the meaning of the flags, if there are any: one that tells of a failure outweighs the others.
fn flags(fields: &Map<String, Value>, of: Of) -> Result<Option<bool>, String> {
    let is_message = of == Of::Message;
    let unclear = |name: &str, value: &Value| {
        Err(format!(
            "{name} is {value}, which does not say whether the call succeeded"
        ))
    };
    let mut told = Vec::new();
    for (name, value) in fields {
        let name = name.as_str();
        match name {
            "is_error" | "isError" | "success" | "ok" => match as_bool(value) {
                Some(said) => told.push(said == name.ends_with("rror")),
                None if is_message && !value.is_null() => return unclear(name, value),
                None => {}
            },
            "status" | "state" | "outcome" if is_message || name == "status" => match value {
                Value::String(word) => match (of_word(word), is_message) {
                    (Word::Failed, _) => told.push(true),
                    (Word::NotDone, true) => told.push(true),
                    (Word::Succeeded, _) => told.push(false),
                    (Word::Unknown, true) => return unclear(name, value),
                    _ => {}
                },
                Value::Number(_) => told.extend(is_http_failure(value).then_some(true)),
                _ => {}
            },
            "statusCode" | "status_code" => told.extend(is_http_failure(value).then_some(true)),
            // Many things have a code; one that comes with words is of an answer.
            "code" if fields.contains_key("message") => {
                told.extend(is_http_failure(value).then_some(true));
            }
            "exit_code" | "exitCode" | "return_code" | "returncode" => {
                told.extend(value.as_i64().map(|code| code != 0));
            }
            "error" | "Error" => told.push(is_something(value)),
            "errors" | "errorMessage" | "error_message" | "errorText" | "exception"
                if is_something(value) =>
            {
                told.push(true);
            }
            "metadata" => {
                let within = value.as_object();
                told.extend(within.and_then(|fields| flags(fields, Of::Content).ok().flatten()));
            }
            _ => {}
        }
    }
    Ok(worst(told.into_iter()))
}

/// The meaning of a status.
enum Word {
    Failed,
    /// An act was not done. In returned content the word may mean anything.
    NotDone,
    Succeeded,
    /// The word is about the message, and not about the call.
    Neither,
    Unknown,
}

fn of_word(word: &str) -> Word {
    match word.to_ascii_lowercase().as_str() {
        "error" | "errored" | "failed" | "failure" | "output-error" => Word::Failed,
        "cancelled" | "canceled" | "denied" | "rejected" | "refused" | "declined" | "aborted"
        | "timeout" | "timed_out" | "timed-out" | "output-denied" | "unauthorized"
        | "forbidden" => Word::NotDone,
        "success" | "successful" | "succeeded" | "ok" => Word::Succeeded,
        "" | "completed" | "complete" | "done" | "finished" | "result" | "output-available" => {
            Word::Neither
        }
        _ => Word::Unknown,
    }
}

/// A flag, however it is written.
fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(said) => Some(*said),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Value::Number(number) if number.as_u64() == Some(1) => Some(true),
        Value::Number(number) if number.as_u64() == Some(0) => Some(false),
        _ => None,
    }
}

fn is_http_failure(value: &Value) -> bool {
    let code = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    code.is_some_and(|code| (400..600).contains(&code))
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(said) => *said,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(code) => code.as_f64() != Some(0.0),
    }
}

fn worst(told: impl Iterator<Item = bool>) -> Option<bool> {
    told.reduce(|a, b| a || b)
}

/// Returns true if a text begins as messages of failures do: "Error: ...", "error 404", "Error executing
/// ...", "ValueError: ...", "Unexpected error: ...", a traceback. A word that only begins so, as in
/// "ErrorLog.txt:12", is none.
fn begins_as_failure(text: &str) -> bool {
    // Marks, quotes and spaces, seen or not, are not what it begins with.
    let text = text.trim_start_matches(|c: char| {
        !c.is_alphanumeric() && !matches!(c, '<' | '{' | '[' | '(' | '/')
    });
    let line = text.lines().next().unwrap_or_default();
    // The start of the line in small letters, long enough for every known beginning.
    let begin: String = line.chars().take(64).flat_map(char::to_lowercase).collect();
    let begin = begin.replace('\u{2019}', "'");
    if FAILURES.iter().any(|failure| begin.starts_with(failure)) {
        return true;
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let rest = rest.trim_start_matches(['*', '_', '`', '"', '\'']);
    if word.trim_end_matches('.').eq_ignore_ascii_case("error") {
        let next = rest.trim_start_matches([' ', '\t']);
        let begins_so = |c: char| {
            c.is_ascii_digit() || matches!(c, ':' | '(' | '[' | '-' | '!' | ',' | ';' | '\r' | '\n')
        };
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
    if rest.starts_with(':') && (word.ends_with("Error") || word.ends_with("Exception")) {
        return true;
    }
    // A few words that say which: "Tool input validation error: ...".
    let Some((named, _)) = begin.split_once(':') else {
        return false;
    };
    let words: Vec<&str> = named.split(' ').collect();
    let are_words = words
        .iter()
        .all(|word| word.chars().all(char::is_alphabetic));
    let denied = matches!(words.first(), Some(&("no" | "without" | "zero" | "not")));
    are_words && !denied && words.len() <= 5 && words.last() == Some(&"error")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::parts, *};

    fn failed(message: &Value, content: &Value) -> bool {
        let (bytes, is_text) = parts::result(content);
        told(message.as_object().unwrap(), content, &bytes, is_text).unwrap()
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
            ("An error occurred while running the tool. Error: no", true),
            ("AN ERROR OCCURRED", true),
            ("<tool_use_error>no such text</tool_use_error>", true),
            ("Error\ndeclined", true),
            ("Error, card declined", true),
            ("\u{feff}Error: declined", true),
            (" \n\u{200b}Error: declined", true),
            ("**Error**: declined", true),
            ("\"Error: declined\"", true),
            ("Unexpected error: declined", true),
            ("Tool input validation error: declined", true),
            ("Failed to pay: declined", true),
            ("The server.log has an error: none of ours", false),
            ("Without error: done", false),
            ("{\"statusCode\": 500, \"body\": \"x\"}", true),
            ("{\"statusCode\": 200}", false),
            ("{\"code\": 403, \"message\": \"Forbidden\"}", true),
            ("{\"code\": 403}", false),
            ("{\"errors\": [{\"message\": \"x\"}]}", true),
            ("{\"errors\": []}", false),
            (
                "{\"errorMessage\": \"x\", \"errorType\": \"KeyError\"}",
                true,
            ),
            ("{\"exit_code\": 1, \"output\": \"\"}", true),
            (
                "{\"exit_code\": 0, \"output\": \"Error: of the log\"}",
                false,
            ),
            ("{\"success\": 0}", true),
            ("{\"success\": \"false\"}", true),
            ("{\"success\": \"paid\"}", false),
            ("{\"is_error\": \"true\"}", true),
            ("{\"result\": {\"error\": \"x\"}}", true),
            ("[{\"error\": \"x\"}]", true),
            ("[{\"error\": \"x\"}, {\"id\": 7}]", false),
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
            (json!({"is_error": "true"}), json!("fine"), true),
            (json!({"isError": 1}), json!("fine"), true),
            (json!({"success": "false"}), json!("fine"), true),
            (json!({"status": "cancelled"}), json!("fine"), true),
            (json!({"status": "denied"}), json!("fine"), true),
            (json!({"status": "timeout"}), json!("fine"), true),
            (json!({"status_code": 500}), json!("fine"), true),
            (json!({"exit_code": 1}), json!("fine"), true),
            (json!({"state": "output-error"}), json!("fine"), true),
            (json!({"metadata": {"is_error": true}}), json!("fine"), true),
            (json!({}), json!([{"json": {"error": "x"}}]), true),
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

    /// A flag with another value refuses the run, by name.
    #[test]
    fn a_flag_that_says_neither_is_named() {
        for (message, wanted) in [
            (json!({"status": "incomplete"}), "status is \"incomplete\""),
            (
                json!({"status": "in_progress"}),
                "status is \"in_progress\"",
            ),
            (json!({"is_error": "perhaps"}), "is_error is \"perhaps\""),
            (json!({"success": {}}), "success is {}"),
        ] {
            let told = told(message.as_object().unwrap(), &Value::Null, b"", true);
            assert!(told.unwrap_err().starts_with(wanted), "{message}");
        }
    }
}
