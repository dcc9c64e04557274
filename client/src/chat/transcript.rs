//! Reading runs.

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{fields as unread, message::Message, strict::Strict};
use crate::statement_json::plain;

/// A run of an agent. Unknown fields of a run are ignored unless they may hold acts; all fields of a
/// message count as part of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// Names the run; unique in the file.
    pub run_id: String,
    /// Name of the model, where the transcript says it.
    pub model: Option<String>,
    /// The messages, in the order in which they were sent.
    pub messages: Vec<Message>,
}

/// The reason why a record is no transcript.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct TranscriptError {
    /// The run, if it could be read that far.
    pub run_id: Option<String>,
    /// The reason, with its position.
    pub reason: String,
}

/// The names of a run's own instructions, where they stand beside the messages: by Anthropic's
/// messages, by OpenAI's responses and by Gemini.
const INSTRUCTIONS: [&str; 4] = [
    "system",
    "instructions",
    "systemInstruction",
    "system_instruction",
];
/// The names under which messages stand, in this order: a request's, and an answer's behind them.
const MESSAGES: [&str; 5] = ["messages", "contents", "input", "items", "output"];

impl Transcript {
    /// Reads one record's text.
    ///
    /// # Errors
    /// [`TranscriptError`] if it is not JSON of this form.
    pub fn parse(text: &str) -> Result<Self, TranscriptError> {
        // The line end is removed, so that the parser sees one line.
        let Strict(value) = serde_json::from_str(text.trim()).map_err(|error| TranscriptError {
            run_id: None,
            reason: plain(&error),
        })?;
        Self::read(&value)
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`TranscriptError`] names the message that is not of a form that is known: what is not
    /// understood is refused, for it may be an act.
    pub fn read(record: &Value) -> Result<Self, TranscriptError> {
        let refused = |run_id: Option<&str>, reason: String| TranscriptError {
            run_id: run_id.map(str::to_owned),
            reason,
        };
        let Value::Object(fields) = record else {
            return Err(refused(None, "is no object {run_id, messages}".to_owned()));
        };
        let run_id = match fields.get("run_id") {
            Some(Value::String(run_id)) if run_id.is_empty() => {
                return Err(refused(None, "run_id is empty".to_owned()));
            }
            Some(Value::String(run_id)) => run_id,
            Some(_) => return Err(refused(None, "run_id is no text".to_owned())),
            None => {
                let what = "has no run_id: give each run its own, which stays the same when the \
                            run is imported again";
                return Err(refused(None, what.to_owned()));
            }
        };
        let refused = |reason| refused(Some(run_id), reason);
        let model = match fields.get("model") {
            None | Some(Value::Null) => None,
            Some(Value::String(model)) => Some(model.clone()),
            Some(_) => return Err(refused("model is no text".to_owned())),
        };
        Ok(Self {
            run_id: run_id.clone(),
            model,
            messages: messages(fields).map_err(refused)?,
        })
    }
}

fn messages(fields: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    for name in INSTRUCTIONS {
        // Only text counts as a prompt; other fields may have the same name.
        let content = match fields.get(name) {
            Some(Value::Object(said)) => said.get("parts"),
            content => content,
        };
        if let Some(content @ (Value::String(_) | Value::Array(_))) = content {
            let message = json!({"role": "system", "content": content});
            let message = Message::read(&message).map_err(|reason| format!("{name}: {reason}"))?;
            messages.push(message.at(name.to_owned()));
        }
    }
    let read = ["run_id", "model"].iter().chain(&INSTRUCTIONS);
    let read: Vec<&str> = read.chain(&MESSAGES).copied().collect();
    unread::of_run(fields, &read)?;
    let mut found = false;
    for name in MESSAGES {
        let Some(value) = fields.get(name).filter(|value| !value.is_null()) else {
            continue;
        };
        found = true;
        match value {
            Value::Array(all) => {
                for (position, message) in all.iter().enumerate() {
                    let at = |reason| format!("{name}[{position}]: {reason}");
                    let message = Message::read(message).map_err(at)?;
                    messages.push(message.at(format!("{name}[{position}]")));
                }
            }
            // A response's input may be the user's words alone.
            Value::String(text) if name == "input" => {
                let message = json!({"role": "user", "content": text});
                let message = Message::read(&message).map_err(|e| format!("input: {e}"))?;
                messages.push(message.at("input".to_owned()));
            }
            _ => return Err(format!("{name} is no list of messages")),
        }
    }
    if found {
        return Ok(messages);
    }
    Err("has no messages (nor input, items or output)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reader of a file names the line, so the parser must not name another.
    #[test]
    fn errors_name_no_line() {
        for wrong in ["no JSON\n", "{\"run_id\": \"a\"\n"] {
            let reason = Transcript::parse(wrong).unwrap_err().reason;
            assert!(!reason.contains("line"), "{reason}");
            assert!(reason.contains("at column"), "{reason}");
        }
    }

    #[test]
    fn errors_name_the_message() {
        for (wrong, wanted) in [
            (json!({"run_id": "a"}), "has no messages"),
            (json!({"messages": []}), "has no run_id"),
            (
                json!({"run_id": "a", "messages": {}}),
                "messages is no list",
            ),
            (
                json!({"run_id": "a", "messages": [{"role": "user", "content": "x"}, {}]}),
                "messages[1]: ",
            ),
            (
                json!({"run_id": "a", "input": "x", "output": [{"type": "quantum_call"}]}),
                "output[0]: type \"quantum_call\"",
            ),
        ] {
            let error = Transcript::read(&wrong).unwrap_err();
            assert!(error.reason.starts_with(wanted), "{error} for {wrong}");
            assert_eq!(error.run_id.is_some(), wrong["run_id"].is_string());
        }
    }
}
