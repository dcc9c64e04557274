//! Messages in the forms in which LangChain writes them.

use serde_json::{Map, Value};

use super::{fields, message::text};

/// The speaker of a message, and the message.
type Spoken<'m> = (&'static str, &'m Map<String, Value>);

/// Returns the speaker of a message of this type, or of this class.
pub(super) fn speaker(kind: &str) -> Option<&'static str> {
    let kind = kind.strip_suffix("Chunk").unwrap_or(kind);
    Some(match kind {
        "human" | "HumanMessage" => "user",
        "ai" | "AIMessage" => "assistant",
        "system" | "SystemMessage" => "system",
        "tool" | "ToolMessage" => "tool",
        "function" | "FunctionMessage" => "function",
        _ => return None,
    })
}

/// Returns the content and the speaker of a wrapped message: `{"type": "ai", "data": {..}}`, or
/// `{"lc": 1, "type": "constructor", "id": [.., "AIMessage"], "kwargs": {..}}`.
pub(super) fn inner(outer: &Map<String, Value>) -> Result<Option<Spoken<'_>>, String> {
    let Some(kind) = text(outer, "type")? else {
        return Ok(None);
    };
    let (kind, within) = match (outer.get("data"), outer.get("kwargs")) {
        (_, Some(Value::Object(kwargs))) if kind == "constructor" => {
            let path = outer.get("id").and_then(Value::as_array);
            let class = path.and_then(|path| path.last()?.as_str());
            (class.unwrap_or_default(), kwargs)
        }
        (Some(Value::Object(data)), _) if !outer.contains_key("content") => (kind, data),
        _ => return Ok(None),
    };
    let said = || format!("{kind:?} is no message that is known");
    let speaker = speaker(kind).ok_or_else(said)?;
    let mut rest = outer.clone();
    for read in ["data", "kwargs", "id"] {
        rest.remove(read);
    }
    fields::of_message(&rest, false, false)?;
    Ok(Some((speaker, within)))
}
