//! Reading one message, or one item of OpenAI's responses: who speaks, and which acts are in it.

use serde_json::{Map, Value};

use super::{calls, canonical::canonical_json, failure, fields, items, parts, wrapped};

/// The speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator of the agent: `system` or `developer`.
    System,
    /// The user that the agent works for.
    User,
    /// The agent.
    Assistant,
    /// A tool: `tool` or `function`.
    Tool,
    /// No speaker: text that a platform keeps beside the messages, for example its reasoning.
    Platform,
}

/// A message of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The speaker.
    pub role: Role,
    /// Calls and results, in their order.
    pub acts: Vec<Act>,
    /// The position of the message, for example `messages[3]`.
    pub place: String,
    /// The content, if it is text and nothing else.
    text: Option<String>,
    /// The content, if it is not text alone.
    content: Value,
    /// The whole message as it was read.
    whole: Value,
}

/// An act in a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// An agent calls a tool.
    Call(ToolCall),
    /// A call is answered.
    Result(ToolResult),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The platform's id; may be empty.
    pub id: String,
    /// A second id by which results may name it; may be empty.
    pub item_id: String,
    /// The tool.
    pub name: String,
    /// Exactly as the model wrote them if that is a text (usually of JSON), else canonical JSON;
    /// empty if there are none.
    pub arguments: String,
    pub(super) whole: Value,
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The id of the call, if it names one.
    pub call_id: Option<String>,
    /// The tool's name, if it names it.
    pub name: Option<String>,
    /// True if the result belongs to the call right before it: both stand in one item.
    pub answers_last: bool,
    /// The bytes of the text, or of all parts if they are texts; canonical JSON of any other content.
    pub content: Vec<u8>,
    /// True if the content is text.
    pub is_text: bool,
    /// The call failed.
    pub failed: bool,
}

/// The text that begins an act, where a model writes its calls into its text.
const WRITTEN_CALLS: [&str; 8] = [
    "<tool_call>",
    "<tool_calls>",
    "<function_call>",
    "<function_calls>",
    "<function=",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "\nAction Input:",
];
/// Under which names a message may give the id of the call that it answers.
const CALL_IDS: [&str; 5] = [
    "tool_call_id",
    "toolCallId",
    "call_id",
    "tool_use_id",
    "toolUseId",
];

impl Message {
    pub(super) fn read(whole: &Value) -> Result<Self, String> {
        let Value::Object(outer) = whole else {
            return Err("is no object".to_owned());
        };
        let wrapped = wrapped::inner(outer)?;
        let fields = wrapped.map_or(outer, |(_, fields)| fields);
        let kind = text(fields, "type")?;
        let speaker = wrapped.map(|(speaker, _)| speaker);
        let role = match (speaker.or(text(fields, "role")?), kind) {
            (Some(role), None) => role,
            (Some(_), Some(kind)) if items::is_known(kind) => {
                return Self::of_item(kind, fields, whole);
            }
            (Some(role), Some(kind)) if goes_with(role, kind) => role,
            (None, Some(kind)) => match wrapped::speaker(kind) {
                Some(role) => role,
                None if kind == "message" => {
                    return Err("is a message and has no role".to_owned());
                }
                None => return Self::of_item(kind, fields, whole),
            },
            (Some(_), Some(kind)) => return Err(format!("type {kind:?} is not known")),
            (None, None) => return Err("has neither role nor type".to_owned()),
        };
        let role = match wrapped::speaker(role).unwrap_or(role) {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            // The second is Gemini's.
            "assistant" | "model" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            role => return Err(format!("role {role:?} is not known")),
        };
        let content = content(fields)?;
        let parts = match (role, content) {
            // A tool may answer with anything.
            (Role::Tool, Value::Object(_) | Value::Number(_) | Value::Bool(_)) => {
                parts::Parts::default()
            }
            (Role::Tool, Value::Array(_)) if !parts::has_acts(content) => parts::Parts::default(),
            _ => parts::read(content)?,
        };
        let mut acts = parts.acts;
        calls::beside(fields, &mut acts)?;
        if role == Role::Tool && acts.is_empty() {
            acts.push(Act::Result(result(fields, content)?));
        }
        let has_calls = acts.iter().any(|act| matches!(act, Act::Call(_)));
        fields::of_message(fields, role == Role::Tool, has_calls)?;
        if role != Role::Assistant && has_calls {
            return Err("has calls of tools; only an assistant's message may".to_owned());
        }
        if role == Role::System && !acts.is_empty() {
            return Err("has results of tools, and is of the system's role".to_owned());
        }
        if role == Role::Assistant && !has_calls {
            let said = format!("\n{}", parts.said);
            if let Some(found) = WRITTEN_CALLS.iter().find(|call| said.contains(**call)) {
                let found = found.trim();
                return Err(format!(
                    "its text has a call ({found}), which is not read from texts; export calls as such"
                ));
            }
        }
        Ok(Self {
            role,
            acts,
            place: String::new(),
            content: match parts.text {
                Some(_) => Value::Null,
                None => content.clone(),
            },
            text: parts.text,
            whole: whole.clone(),
        })
    }

    fn of_item(kind: &str, fields: &Map<String, Value>, whole: &Value) -> Result<Self, String> {
        let acts = items::read(kind, fields)?;
        for name in ["tool_calls", "function_call", "parts", "toolInvocations"] {
            if fields
                .get(name)
                .is_some_and(|value| !fields::is_nothing(value))
            {
                return Err(format!("has {name} besides its type {kind:?}"));
            }
        }
        let role = match acts.first() {
            Some(Act::Call(_)) => Role::Assistant,
            Some(Act::Result(_)) => Role::Tool,
            None => Role::Platform,
        };
        Ok(Self {
            role,
            acts,
            place: String::new(),
            text: None,
            content: fields.get("content").cloned().unwrap_or_default(),
            whole: whole.clone(),
        })
    }

    pub(super) fn at(mut self, place: String) -> Self {
        self.place = place;
        self
    }

    /// The content, if it is text and nothing else.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The content's bytes: of a text exactly its own, of anything else canonical JSON, none if
    /// there is no content.
    #[must_use]
    pub fn content_bytes(&self) -> Vec<u8> {
        match (&self.text, &self.content) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Value::Null) => Vec::new(),
            (None, content) => canonical_json(content),
        }
    }

    /// The calls in it.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.acts.iter().filter_map(|act| match act {
            Act::Call(call) => Some(call),
            Act::Result(_) => None,
        })
    }

    /// The whole message as canonical JSON.
    #[must_use]
    pub fn canonical_json(&self) -> Vec<u8> {
        canonical_json(&self.whole)
    }
}

impl ToolCall {
    /// The whole call as canonical JSON.
    #[must_use]
    pub fn canonical_json(&self) -> Vec<u8> {
        canonical_json(&self.whole)
    }

    /// Returns true if `other` describes the same call.
    pub(super) fn is(&self, other: &Self) -> bool {
        let arguments = |call: &Self| match call.arguments.trim() {
            "" => serde_json::json!({}),
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        self.name == other.name && arguments(self) == arguments(other)
    }

    /// Reads one of an assistant's `tool_calls`.
    pub(super) fn read(whole: &Value) -> Result<Self, String> {
        let Value::Object(fields) = whole else {
            return Err("is no object".to_owned());
        };
        match text(fields, "type")? {
            None | Some("function" | "custom" | "tool_call") => {}
            Some(kind) => return Err(format!("type {kind:?} is not known")),
        }
        fn arguments(fields: &Map<String, Value>) -> Option<&Value> {
            first(fields, &ARGUMENTS)
        }
        let (name, arguments) = match (fields.get("function"), fields.get("custom")) {
            (Some(Value::Object(function)), _) => (text(function, "name")?, arguments(function)),
            (Some(Value::String(name)), _) => (Some(name.as_str()), arguments(fields)),
            (_, Some(Value::Object(custom))) => (text(custom, "name")?, arguments(custom)),
            _ => (text(fields, "name")?, arguments(fields)),
        };
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or("names no tool")?;
        Ok(Self {
            id: id(fields, &["id"])?.unwrap_or_default(),
            item_id: String::new(),
            name: name.to_owned(),
            arguments: written(arguments),
            whole: whole.clone(),
        })
    }
}

/// Under which names arguments stand.
pub(super) const ARGUMENTS: [&str; 5] = ["arguments", "args", "input", "parameters", "kwargs"];

/// Returns true if a message of a role may have this type.
fn goes_with(role: &str, kind: &str) -> bool {
    let is_result = matches!(kind, "tool_result" | "tool-result" | "tool_response");
    matches!(
        kind,
        "message" | "text" | "chat" | "user" | "assistant" | "developer" | "model"
    ) || wrapped::speaker(kind).is_some()
        || (is_result && matches!(role, "tool" | "function"))
}

/// Returns the content: under `content`, or in parts.
fn content(fields: &Map<String, Value>) -> Result<&Value, String> {
    let content = fields.get("content").unwrap_or(&Value::Null);
    match (content, fields.get("parts")) {
        (content, None) => Ok(content),
        (content, Some(parts)) if fields::is_nothing(parts) => Ok(content),
        // Text that stands in the parts, too.
        (Value::Null | Value::String(_), Some(parts @ Value::Array(_))) => Ok(parts),
        _ => Err("parts is in a form that is not read here".to_owned()),
    }
}

/// A tool's message as the result that it is.
fn result(fields: &Map<String, Value>, content: &Value) -> Result<ToolResult, String> {
    let (bytes, is_text) = parts::result(content);
    Ok(ToolResult {
        call_id: match (id(fields, &CALL_IDS)?, fields.get("tool_call")) {
            // Some repeat the call.
            (None, Some(Value::Object(call))) => id(call, &["id"])?,
            (call_id, _) => call_id,
        },
        name: id(fields, &["name", "tool_name", "toolName"])?,
        answers_last: false,
        failed: failure::told(fields, content, &bytes, is_text)?,
        content: bytes,
        is_text,
    })
}

/// A field's text; `None` if there is none.
pub(super) fn text<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is no text")),
    }
}

/// The first id that is there under one of these names: a text, or a whole number. An empty one is
/// none.
pub(super) fn id(fields: &Map<String, Value>, names: &[&str]) -> Result<Option<String>, String> {
    for name in names {
        match fields.get(*name) {
            None | Some(Value::Null) => {}
            Some(Value::String(id)) if id.is_empty() => {}
            Some(Value::String(id)) => return Ok(Some(id.clone())),
            Some(Value::Number(id)) if id.is_i64() || id.is_u64() => {
                return Ok(Some(id.to_string()));
            }
            Some(_) => return Err(format!("{name} is no text")),
        }
    }
    Ok(None)
}

/// The first field that is there under one of these names.
pub(super) fn first<'a>(fields: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    let mut found = names.iter().filter_map(|name| fields.get(*name));
    found.find(|value| !value.is_null())
}

/// Arguments as they were written.
pub(super) fn written(arguments: Option<&Value>) -> String {
    match arguments {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => String::from_utf8_lossy(&canonical_json(other)).into_owned(),
    }
}
