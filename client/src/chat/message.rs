//! Reading one message, or one item of OpenAI's responses: who speaks, and which acts are in it.

use serde_json::{Map, Value};

use super::{canonical::canonical_json, failure, items, parts};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whoever runs the agent: `system` or `developer`.
    System,
    /// Whom it works for.
    User,
    /// The agent.
    Assistant,
    /// A tool: `tool` or `function`.
    Tool,
    /// Nobody: what a platform keeps beside the messages, for example its reasoning.
    Platform,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Calls and results, in their order.
    pub acts: Vec<Act>,
    /// Where it stands, for example `messages[3]`.
    pub place: String,
    /// What is said, if that is text and nothing else.
    text: Option<String>,
    /// The whole message as it was read.
    whole: Value,
}

/// What is done in a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// An agent calls a tool.
    Call(ToolCall),
    /// A call is answered.
    Result(ToolResult),
}

/// One call of a tool.
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

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The id of the call, if it names one.
    pub call_id: Option<String>,
    /// The tool's name, if it names it.
    pub name: Option<String>,
    /// It answers the call right before it: both stand in one item.
    pub answers_last: bool,
    /// Of a text, or of parts that are texts, exactly that; of anything else canonical JSON.
    pub content: Vec<u8>,
    /// Whether the content is text.
    pub is_text: bool,
    /// The call failed.
    pub failed: bool,
}

/// Fields that hold calls or results in forms that are not read here.
const NOT_READ: [&str; 4] = [
    "toolInvocations",
    "invalid_tool_calls",
    "parts",
    "tool_responses",
];

impl Message {
    pub(super) fn read(whole: &Value) -> Result<Self, String> {
        let Value::Object(fields) = whole else {
            return Err("is no object".to_owned());
        };
        let kind = text(fields, "type")?;
        let role = match (text(fields, "role")?, kind) {
            // Frameworks that say who speaks by the type.
            (None, Some("human")) => "user",
            (None, Some("ai")) => "assistant",
            (None, Some(kind @ ("system" | "tool" | "function"))) => kind,
            (None, Some("message")) => return Err("is a message and has no role".to_owned()),
            (None, Some(kind)) => return Self::of_item(kind, fields, whole),
            (None, None) => return Err("has neither role nor type".to_owned()),
            (Some(_), Some(kind)) if items::is_known(kind) => {
                return Self::of_item(kind, fields, whole);
            }
            (Some(role), _) => role,
        };
        for name in NOT_READ {
            if fields.get(name).is_some_and(|value| !is_nothing(value)) {
                return Err(format!("{name} is in a form that is not read here"));
            }
        }
        let role = match role {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            role => return Err(format!("role {role:?} is not known")),
        };
        let content = fields.get("content").unwrap_or(&Value::Null);
        let parts = match (role, content) {
            // A tool may answer with anything.
            (Role::Tool, Value::Object(_) | Value::Number(_) | Value::Bool(_)) => {
                parts::Parts::default()
            }
            (Role::Tool, Value::Array(_)) if !parts::has_acts(content) => parts::Parts::default(),
            _ => parts::read(content)?,
        };
        let mut acts = parts.acts;
        acts.extend(calls(fields)?.into_iter().map(Act::Call));
        if role == Role::Tool && acts.is_empty() {
            acts.push(Act::Result(result(fields, content)?));
        }
        let is_call = |act: &Act| matches!(act, Act::Call(_));
        if role != Role::Assistant && acts.iter().any(is_call) {
            return Err("has calls of tools; only an assistant's message may".to_owned());
        }
        if role == Role::System && !acts.is_empty() {
            return Err("has results of tools, and is of the system's role".to_owned());
        }
        Ok(Self {
            role,
            acts,
            place: String::new(),
            text: parts.text,
            whole: whole.clone(),
        })
    }

    fn of_item(kind: &str, fields: &Map<String, Value>, whole: &Value) -> Result<Self, String> {
        let acts = items::read(kind, fields)?;
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
            whole: whole.clone(),
        })
    }

    pub(super) fn at(mut self, place: String) -> Self {
        self.place = place;
        self
    }

    /// What is said, if that is text and nothing else.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The content's bytes: of a text exactly its own, of anything else canonical JSON, none if
    /// there is no content.
    #[must_use]
    pub fn content_bytes(&self) -> Vec<u8> {
        match (&self.text, self.whole.get("content")) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, None | Some(Value::Null)) => Vec::new(),
            (None, Some(content)) => canonical_json(content),
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

    /// Reads one of an assistant's `tool_calls`.
    fn read(whole: &Value) -> Result<Self, String> {
        let Value::Object(fields) = whole else {
            return Err("is no object".to_owned());
        };
        match text(fields, "type")? {
            None | Some("function" | "custom" | "tool_call") => {}
            Some(kind) => return Err(format!("type {kind:?} is not known")),
        }
        fn arguments(fields: &Map<String, Value>) -> Option<&Value> {
            first(fields, &["arguments", "args", "input"])
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

/// An assistant's calls beside its content.
fn calls(fields: &Map<String, Value>) -> Result<Vec<ToolCall>, String> {
    let legacy = fields.get("function_call").filter(|call| !call.is_null());
    let calls = match fields.get("tool_calls") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err("tool_calls is no list".to_owned()),
    };
    if let Some(call) = legacy {
        if !calls.is_empty() {
            return Err("has both tool_calls and function_call".to_owned());
        }
        let call = ToolCall::read(call).map_err(|reason| format!("function_call: {reason}"))?;
        return Ok(vec![call]);
    }
    let read = |(position, call)| {
        ToolCall::read(call).map_err(|reason| format!("tool_calls[{position}]: {reason}"))
    };
    calls.iter().enumerate().map(read).collect()
}

/// A tool's message as the result that it is.
fn result(fields: &Map<String, Value>, content: &Value) -> Result<ToolResult, String> {
    let (bytes, is_text) = parts::result(content);
    Ok(ToolResult {
        call_id: id(fields, &["tool_call_id", "toolCallId", "call_id"])?,
        name: id(fields, &["name", "tool_name", "toolName"])?,
        answers_last: false,
        failed: failure::told(fields, content, &bytes, is_text),
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

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
