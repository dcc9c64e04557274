//! Reading transcripts.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use thiserror::Error;

use crate::statement_json::plain;

/// One run of an agent. Fields that are not listed are ignored, but count as part of a prompt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Transcript {
    /// Names the run; unique in the file.
    pub run_id: String,
    /// Name of the model, where the transcript says it.
    #[serde(default)]
    pub model: Option<String>,
    /// In the order they were spoken.
    pub messages: Vec<Message>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` or another.
    pub role: String,
    /// The calls that an assistant makes.
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool answers.
    pub tool_call_id: Option<String>,
    /// The whole message as it was read.
    whole: Value,
}

/// One call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The platform's id; may be empty.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Exactly as the model wrote them: usually JSON.
    pub arguments: String,
    whole: Value,
}

/// Why a line is no transcript.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct TranscriptError {
    /// What is wrong.
    pub reason: String,
}

impl Transcript {
    /// Reads one line.
    ///
    /// # Errors
    /// [`TranscriptError`] if it is not JSON of this form.
    pub fn parse(line: &str) -> Result<Self, TranscriptError> {
        // Without its line end, so that all of it is one line to the parser.
        let line = line.trim_end();
        let transcript: Self = serde_json::from_str(line).map_err(|error| TranscriptError {
            reason: plain(&error),
        })?;
        if transcript.run_id.is_empty() {
            return Err(TranscriptError {
                reason: "run_id is empty".to_owned(),
            });
        }
        Ok(transcript)
    }
}

impl Message {
    /// The content's bytes: of a text exactly its own, of anything else canonical JSON, none if
    /// there is no content.
    #[must_use]
    pub fn content_bytes(&self) -> Cow<'_, [u8]> {
        match self.whole.get("content") {
            None | Some(Value::Null) => Cow::Borrowed(&[]),
            Some(Value::String(text)) => Cow::Borrowed(text.as_bytes()),
            Some(other) => Cow::Owned(canonical_json(other)),
        }
    }

    /// The content, if it is a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.whole.get("content")?.as_str()
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
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            role: String,
            #[serde(default)]
            tool_calls: Option<Vec<ToolCall>>,
            #[serde(default)]
            tool_call_id: Option<String>,
        }

        let whole = Value::deserialize(deserializer)?;
        let fields = Fields::deserialize(&whole).map_err(serde::de::Error::custom)?;
        Ok(Self {
            role: fields.role,
            tool_calls: fields.tool_calls.unwrap_or_default(),
            tool_call_id: fields.tool_call_id,
            whole,
        })
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            id: Option<String>,
            function: Function,
        }

        #[derive(Deserialize)]
        struct Function {
            name: String,
            arguments: String,
        }

        let whole = Value::deserialize(deserializer)?;
        let fields = Fields::deserialize(&whole).map_err(serde::de::Error::custom)?;
        Ok(Self {
            id: fields.id.unwrap_or_default(),
            name: fields.function.name,
            arguments: fields.function.arguments,
            whole,
        })
    }
}

/// JSON without spaces, keys of each object in ascending order of their bytes. (The order is
/// made here: whether `serde_json` keeps one depends on features that others switch on.)
fn canonical_json(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| key.as_bytes());
            out.push(b'{');
            for (position, (key, value)) in fields.into_iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_canonical(&Value::String(key.clone()), out);
                out.push(b':');
                write_canonical(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        // Display of a scalar is its JSON.
        scalar => out.extend_from_slice(scalar.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever reads line by line says which line; the parser must not name another.
    #[test]
    fn errors_name_no_line() {
        for wrong in [
            "no JSON\n",
            "{\"run_id\": \"a\"\n",
            "{\"run_id\": \"a\"}\r\n",
            "{\"run_id\": \"a\", \"messages\": [{}]}\n",
        ] {
            let reason = Transcript::parse(wrong).unwrap_err().reason;
            assert!(!reason.contains("line"), "{reason}");
            assert!(reason.contains("at column"), "{reason}");
        }
    }
}
