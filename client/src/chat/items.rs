//! Reading the items of OpenAI's responses: what stands beside the messages.

use serde_json::{Map, Value};

use super::{
    failure,
    message::{Act, ToolCall, ToolResult, first, id, text, written},
    parts,
};

/// The meaning of a kind of item.
enum Kind {
    /// A call: the tool's name if the item does not name it, and the fields of its arguments.
    Call(Option<&'static str>, &'static [&'static str]),
    /// A call that the platform answers in the same item, and the fields that may hold the answer.
    Whole(
        Option<&'static str>,
        &'static [&'static str],
        &'static [&'static str],
    ),
    /// A result.
    Result,
    /// No act.
    Nothing,
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "function_call" => Kind::Call(None, &["arguments"]),
        "custom_tool_call" => Kind::Call(None, &["input"]),
        "computer_call" => Kind::Call(Some("computer"), &["action", "actions"]),
        "local_shell_call" => Kind::Call(Some("local_shell"), &["action"]),
        "shell_call" => Kind::Call(Some("shell"), &["action"]),
        "apply_patch_call" => Kind::Call(Some("apply_patch"), &["operation"]),
        "function_call_output"
        | "custom_tool_call_output"
        | "computer_call_output"
        | "local_shell_call_output"
        | "shell_call_output"
        | "apply_patch_call_output" => Kind::Result,
        "web_search_call" => Kind::Whole(Some("web_search"), &["action"], &["results"]),
        "file_search_call" => Kind::Whole(Some("file_search"), &["queries"], &["results"]),
        "code_interpreter_call" => Kind::Whole(Some("code_interpreter"), &["code"], &["outputs"]),
        "image_generation_call" => {
            Kind::Whole(Some("image_generation"), &["revised_prompt"], &["result"])
        }
        "mcp_call" => Kind::Whole(None, &["arguments"], &["error", "output"]),
        "reasoning"
        | "compaction"
        | "mcp_list_tools"
        | "mcp_approval_request"
        | "mcp_approval_response" => Kind::Nothing,
        _ => return None,
    })
}

/// Returns true if a type is that of such an item.
pub(super) fn is_known(name: &str) -> bool {
    kind(name).is_some()
}

/// The acts in an item.
pub(super) fn read(name: &str, fields: &Map<String, Value>) -> Result<Vec<Act>, String> {
    let Some(kind) = kind(name) else {
        if name == "item_reference" {
            return Err("refers to an item that is kept elsewhere; export it whole".to_owned());
        }
        return Err(format!("type {name:?} is not known"));
    };
    match kind {
        Kind::Nothing => Ok(Vec::new()),
        Kind::Call(tool, arguments) => Ok(vec![call(tool, arguments, fields)?]),
        Kind::Result => {
            let content = first(fields, &["output"]).unwrap_or(&Value::Null);
            // A shell that lets local_shell_call_output name its call by `id` alone.
            let call_id = id(fields, &["call_id", "id"])?;
            Ok(vec![Act::Result(result(fields, content, call_id, false)?)])
        }
        Kind::Whole(tool, arguments, results) => {
            let mut acts = vec![call(tool, arguments, fields)?];
            let content = first(fields, results);
            let ended = match text(fields, "status")? {
                Some("completed" | "failed") => true,
                None => content.is_some(),
                // The call is under way or was cut off, so its result is unknown.
                Some(_) => false,
            };
            if ended {
                let content = content.unwrap_or(&Value::Null);
                acts.push(Act::Result(result(fields, content, None, true)?));
            }
            Ok(acts)
        }
    }
}

fn call(
    tool: Option<&str>,
    arguments: &[&str],
    fields: &Map<String, Value>,
) -> Result<Act, String> {
    let name = match tool {
        Some(tool) => tool,
        None => text(fields, "name")?.ok_or("names no tool")?,
    };
    let item_id = id(fields, &["id"])?.unwrap_or_default();
    Ok(Act::Call(ToolCall {
        id: id(fields, &["call_id"])?.unwrap_or_else(|| item_id.clone()),
        item_id,
        name: name.to_owned(),
        arguments: written(first(fields, arguments)),
        whole: Value::Object(fields.clone()),
    }))
}

fn result(
    fields: &Map<String, Value>,
    content: &Value,
    call_id: Option<String>,
    answers_last: bool,
) -> Result<ToolResult, String> {
    let (bytes, is_text) = parts::result(content);
    Ok(ToolResult {
        call_id,
        name: None,
        answers_last,
        failed: failure::told(fields, content, &bytes, is_text)?,
        content: bytes,
        is_text,
    })
}
