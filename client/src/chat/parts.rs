//! Reading a message's content, which may be text or parts.

use serde_json::{Map, Value};

use super::{
    canonical::canonical_json,
    failure,
    message::{Act, ToolCall, ToolResult, first, id, text, written},
};

/// Parts that only show or say something.
const SHOWN: [&str; 25] = [
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
    "source_url",
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
    /// What is said, if that is text and nothing else.
    pub(super) text: Option<String>,
    /// Calls and results among the parts.
    pub(super) acts: Vec<Act>,
}

enum Part<'a> {
    Text(&'a str),
    Act(Act),
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
            Part::Act(act) => acts.push(act),
            Part::Thought => {}
            Part::Shown => is_text = false,
        }
    }
    Ok(Parts {
        text: (is_text && !texts.is_empty()).then(|| texts.join("\n")),
        acts,
    })
}

/// Whether any of the parts is a call or a result.
pub(super) fn has_acts(content: &Value) -> bool {
    let Value::Array(all) = content else {
        return false;
    };
    all.iter()
        .any(|part| matches!(part_of(part), Ok(Part::Act(_))))
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
    let Some(kind) = text(fields, "type")? else {
        return untyped(fields);
    };
    match kind {
        "text" | "input_text" | "output_text" => text_of(fields)
            .map(Part::Text)
            .ok_or_else(|| "has no text".to_owned()),
        "thinking" | "redacted_thinking" | "reasoning" | "reasoning_text" => Ok(Part::Thought),
        kind if SHOWN.contains(&kind) => Ok(Part::Shown),
        "tool_use" | "server_tool_use" | "mcp_tool_use" | "tool-call" => call(fields),
        "tool-result" | "tool_result" => answer(fields),
        // What a platform's own tools answer: web_search_tool_result and others.
        kind if kind.ends_with("_tool_result") => answer(fields),
        kind => Err(format!("type {kind:?} is not known")),
    }
}

/// Parts that say what they are by the field that they have.
fn untyped(fields: &Map<String, Value>) -> Result<Part<'_>, String> {
    let inner = |name: &str| fields.get(name).and_then(Value::as_object);
    if let Some(used) = inner("toolUse") {
        return call(used);
    }
    if let Some(result) = inner("toolResult") {
        return answer(result);
    }
    match text_of(fields) {
        Some(text) => Ok(Part::Text(text)),
        None => Err("has no type".to_owned()),
    }
}

fn call(fields: &Map<String, Value>) -> Result<Part<'_>, String> {
    let name = id(fields, &["name", "toolName"])?;
    Ok(Part::Act(Act::Call(ToolCall {
        id: id(fields, &["id", "toolCallId", "toolUseId"])?.unwrap_or_default(),
        item_id: String::new(),
        name: name.ok_or("names no tool")?,
        arguments: written(first(fields, &["input", "args", "arguments"])),
        whole: Value::Object(fields.clone()),
    })))
}

fn answer(fields: &Map<String, Value>) -> Result<Part<'_>, String> {
    let names = ["content", "output", "result"];
    let content = first(fields, &names).unwrap_or(&Value::Null);
    // One of a few kinds that says which: {"type": "text", "value": ...}.
    let inner = match content {
        Value::Object(output) if output.contains_key("type") => output.get("value"),
        _ => None,
    };
    let (bytes, is_text) = result(inner.unwrap_or(content));
    Ok(Part::Act(Act::Result(ToolResult {
        call_id: id(fields, &["tool_use_id", "toolCallId", "toolUseId"])?,
        name: id(fields, &["name", "toolName"])?,
        answers_last: false,
        failed: failure::told(fields, content, &bytes, is_text),
        content: bytes,
        is_text,
    })))
}
