//! Reading a message's content, which may be text or parts.

use serde_json::{Map, Value};

use super::{
    canonical::canonical_json,
    failure, fields as unread, items,
    message::{ARGUMENTS, Act, ToolCall, ToolResult, first, id, text, written},
};

/// Kinds of parts that only show something, and hold no act.
const SHOWN: [&str; 27] = [
    "image",
    "image_url",
    "image_file",
    "input_image",
    "output_image",
    "audio",
    "audio_url",
    "input_audio",
    "output_audio",
    "video",
    "video_url",
    "input_video",
    "file",
    "input_file",
    "document",
    "source",
    "source-url",
    "source_url",
    "source-document",
    "search_result",
    "computer_screenshot",
    "container_upload",
    "tool_reference",
    "compaction",
    "refusal",
    "reasoning_content",
    "step-start",
];

/// A content, read.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The content, if it is text and nothing else.
    pub(super) text: Option<String>,
    /// All text in it.
    pub(super) said: String,
    /// Calls and results among the parts.
    pub(super) acts: Vec<Act>,
}

/// Fields by which a part without a type says that it only shows something.
const SHOWN_IN: [&str; 13] = [
    "image",
    "document",
    "video",
    "audio",
    "guardContent",
    "cachePoint",
    "citationsContent",
    "searchResult",
    "inlineData",
    "inline_data",
    "fileData",
    "file_data",
    "reasoningContent",
];
/// The tool that Gemini runs code with.
const CODE: &str = "code_execution";

enum Part<'a> {
    Text(&'a str),
    Acts(Vec<Act>),
    /// Thought, and not said.
    Thought,
    Shown,
}

/// Reads a content. A part of a kind that is not known is refused: it may be an act.
pub(super) fn read(content: &Value) -> Result<Parts, String> {
    let all = match content {
        Value::Null => return Ok(Parts::default()),
        Value::String(text) => {
            return Ok(Parts {
                text: Some(text.clone()),
                said: text.clone(),
                acts: Vec::new(),
            });
        }
        Value::Array(all) => all,
        _ => return Err("content is neither text nor a list of parts".to_owned()),
    };
    let (mut texts, mut acts) = (Vec::new(), Vec::new());
    let mut is_text = true;
    for (position, part) in all.iter().enumerate() {
        let part = part_of(part).map_err(|reason| format!("content[{position}]: {reason}"))?;
        match part {
            Part::Text(text) => texts.push(text),
            Part::Acts(all) => acts.extend(all),
            Part::Thought => {}
            Part::Shown => is_text = false,
        }
    }
    let said = texts.join("\n");
    Ok(Parts {
        text: (is_text && !texts.is_empty()).then(|| said.clone()),
        said,
        acts,
    })
}

/// Returns true if any of the parts is a call or a result.
pub(super) fn has_acts(content: &Value) -> bool {
    let Value::Array(all) = content else {
        return false;
    };
    all.iter()
        .any(|part| matches!(part_of(part), Ok(Part::Acts(acts)) if !acts.is_empty()))
}

/// The bytes of a result's content, and whether they are text.
pub(super) fn result(content: &Value) -> (Vec<u8>, bool) {
    match content {
        Value::Null => (Vec::new(), true),
        Value::String(text) => (text.clone().into_bytes(), true),
        Value::Array(all) => {
            let texts: Option<Vec<&str>> = all.iter().map(only_text).collect();
            match texts {
                Some(texts) => (texts.join("\n").into_bytes(), true),
                None => (canonical_json(content), false),
            }
        }
        other => (canonical_json(other), false),
    }
}

fn only_text(part: &Value) -> Option<&str> {
    match part {
        Value::String(text) => Some(text),
        Value::Object(fields) => match fields.get("type").and_then(Value::as_str) {
            Some("text" | "input_text" | "output_text") => text_of(fields),
            None if fields.len() == 1 => text_of(fields),
            _ => None,
        },
        _ => None,
    }
}

/// A part's text: under `text`, in it under `value`, or under `content`.
fn text_of(fields: &Map<String, Value>) -> Option<&str> {
    match (fields.get("text"), fields.get("content")) {
        (Some(Value::String(text)), _) => Some(text),
        (Some(Value::Object(text)), _) => text.get("value")?.as_str(),
        (None, Some(Value::String(text))) => Some(text),
        _ => None,
    }
}

fn part_of(part: &Value) -> Result<Part<'_>, String> {
    let fields = match part {
        Value::String(text) => return Ok(Part::Text(text)),
        Value::Object(fields) => fields,
        _ => return Err("is neither text nor an object".to_owned()),
    };
    let read = match text(fields, "type")? {
        Some(kind) => typed(kind, fields)?,
        None => untyped(fields)?,
    };
    if !matches!(read, Part::Acts(_)) && unread::holds_act(part) {
        return Err("has a call or a result in a form that is not read here".to_owned());
    }
    Ok(read)
}

fn typed<'a>(kind: &str, fields: &'a Map<String, Value>) -> Result<Part<'a>, String> {
    Ok(match kind {
        "text" | "input_text" | "output_text" => {
            Part::Text(text_of(fields).ok_or_else(|| "has no text".to_owned())?)
        }
        "thinking" | "redacted_thinking" | "reasoning" | "reasoning_text" => Part::Thought,
        kind if SHOWN.contains(&kind) => Part::Shown,
        "tool_use" | "server_tool_use" | "mcp_tool_use" | "tool-call" | "tool_call"
        | "server_tool_call" => Part::Acts(vec![call(fields)?]),
        "tool-result" | "tool_result" => Part::Acts(vec![answer(fields)?]),
        "tool-error" => Part::Acts(vec![failure_of(fields, &["error"])?]),
        // Results of a platform's own tools: web_search_tool_result and others.
        kind if kind.ends_with("_tool_result") => Part::Acts(vec![answer(fields)?]),
        "tool-invocation" => match fields.get("toolInvocation") {
            Some(Value::Object(one)) => Part::Acts(invocation(one, None)?),
            _ => return Err("has no toolInvocation".to_owned()),
        },
        "dynamic-tool" => Part::Acts(invocation(fields, None)?),
        // Parts that a page draws for a tool are named after it.
        kind if kind.starts_with("tool-") && fields.contains_key("state") => {
            Part::Acts(invocation(fields, kind.strip_prefix("tool-"))?)
        }
        kind if kind.starts_with("data-") => Part::Shown,
        kind if items::is_known(kind) => Part::Acts(items::read(kind, fields)?),
        kind => return Err(format!("type {kind:?} is not known")),
    })
}

/// Parts that say what they are by the field that they have.
fn untyped(fields: &Map<String, Value>) -> Result<Part<'_>, String> {
    let inner = |names: &[&str]| first(fields, names).and_then(Value::as_object);
    if let Some(used) = inner(&["toolUse", "functionCall", "function_call"]) {
        return Ok(Part::Acts(vec![call(used)?]));
    }
    if let Some(result) = inner(&["toolResult", "functionResponse", "function_response"]) {
        return Ok(Part::Acts(vec![answer(result)?]));
    }
    if let Some(code) = inner(&["executableCode", "executable_code"]) {
        return Ok(Part::Acts(vec![Act::Call(ToolCall {
            id: id(code, &["id"])?.unwrap_or_default(),
            item_id: String::new(),
            name: CODE.to_owned(),
            arguments: written(first(code, &["code"])),
            whole: Value::Object(code.clone()),
        })]));
    }
    if let Some(ran) = inner(&["codeExecutionResult", "code_execution_result"]) {
        let (bytes, is_text) = result(first(ran, &["output"]).unwrap_or(&Value::Null));
        return Ok(Part::Acts(vec![Act::Result(ToolResult {
            call_id: id(ran, &["id"])?,
            name: Some(CODE.to_owned()),
            answers_last: false,
            failed: match text(ran, "outcome")? {
                Some("OUTCOME_OK") => false,
                Some("OUTCOME_FAILED" | "OUTCOME_DEADLINE_EXCEEDED") => true,
                _ => return Err("does not say what came of the code".to_owned()),
            },
            content: bytes,
            is_text,
        })]));
    }
    match text_of(fields) {
        Some(_) if fields.get("thought") == Some(&Value::Bool(true)) => Ok(Part::Thought),
        Some(text) => Ok(Part::Text(text)),
        None if SHOWN_IN.iter().any(|name| fields.contains_key(*name)) => Ok(Part::Shown),
        None => Err("has no type".to_owned()),
    }
}

fn call(fields: &Map<String, Value>) -> Result<Act, String> {
    let name = id(fields, &["name", "toolName"])?;
    Ok(Act::Call(ToolCall {
        id: id(fields, &["id", "toolCallId", "toolUseId"])?.unwrap_or_default(),
        item_id: String::new(),
        name: name.ok_or("names no tool")?,
        arguments: written(first(fields, &ARGUMENTS)),
        whole: Value::Object(fields.clone()),
    }))
}

/// Ids of the call that a result answers.
const ANSWERED: [&str; 5] = [
    "tool_use_id",
    "toolCallId",
    "toolUseId",
    "tool_call_id",
    "id",
];

fn answer(fields: &Map<String, Value>) -> Result<Act, String> {
    let names = ["content", "output", "result", "response"];
    let content = first(fields, &names).unwrap_or(&Value::Null);
    // The content may name its own kind: {"type": "text", "value": ...}.
    let inner = match content {
        Value::Object(output) if output.contains_key("type") => output.get("value"),
        _ => None,
    };
    let (bytes, is_text) = result(inner.unwrap_or(content));
    Ok(Act::Result(ToolResult {
        call_id: id(fields, &ANSWERED)?,
        name: id(fields, &["name", "toolName", "tool_name"])?,
        answers_last: false,
        failed: failure::told(fields, content, &bytes, is_text)?,
        content: bytes,
        is_text,
    }))
}

/// A result that is there because the call failed.
fn failure_of(fields: &Map<String, Value>, names: &[&str]) -> Result<Act, String> {
    let (bytes, is_text) = result(first(fields, names).unwrap_or(&Value::Null));
    Ok(Act::Result(ToolResult {
        call_id: id(fields, &ANSWERED)?,
        name: id(fields, &["toolName"])?,
        answers_last: false,
        failed: true,
        content: bytes,
        is_text,
    }))
}

/// A call as Vercel's pages keep it: with what came of it, once that is known.
pub(super) fn invocation(
    fields: &Map<String, Value>,
    name: Option<&str>,
) -> Result<Vec<Act>, String> {
    let called = id(fields, &["toolName"])?;
    let name = called.as_deref().or(name).filter(|name| !name.is_empty());
    let call_id = id(fields, &["toolCallId"])?.ok_or("has no toolCallId")?;
    let mut acts = vec![Act::Call(ToolCall {
        id: call_id,
        item_id: String::new(),
        name: name.ok_or("names no tool")?.to_owned(),
        arguments: written(first(fields, &["input", "args", "rawInput"])),
        whole: Value::Object(fields.clone()),
    })];
    let is_preliminary = fields.get("preliminary") == Some(&Value::Bool(true));
    match text(fields, "state")? {
        Some("call" | "input-available" | "approval-requested" | "approval-responded") => {}
        Some("result" | "output-available") if is_preliminary => {}
        Some("result" | "output-available") => acts.push(answer(fields)?),
        Some("output-error") => acts.push(failure_of(fields, &["errorText", "output"])?),
        Some("output-denied") => acts.push(failure_of(fields, &["approval"])?),
        Some(state) => return Err(format!("state {state:?} of a call is not read")),
        None => return Err("does not say in what state the call is".to_owned()),
    }
    Ok(acts)
}
