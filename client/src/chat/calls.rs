//! Calls that stand beside a message's content.

use serde_json::{Map, Value};

use super::{
    fields::{holds_act, is_nothing},
    message::{Act, ToolCall},
    parts,
};

/// Adds the acts of all fields that hold some: those that stand in several of them are the same.
pub(super) fn beside(fields: &Map<String, Value>, acts: &mut Vec<Act>) -> Result<(), String> {
    merge(acts, listed(fields)?, "tool_calls")?;
    merge(acts, legacy(fields)?, "function_call")?;
    // Where LangChain keeps what a platform said.
    match fields.get("additional_kwargs") {
        Some(Value::Object(kept)) => {
            let place = |reason| format!("additional_kwargs: {reason}");
            merge(acts, listed(kept).map_err(place)?, "additional_kwargs")?;
            merge(acts, legacy(kept).map_err(place)?, "additional_kwargs")?;
            for (name, value) in kept {
                if !matches!(name.as_str(), "tool_calls" | "function_call") && holds_act(value) {
                    let what = format!("{name} is in a form that is not read here");
                    return Err(place(what));
                }
            }
        }
        Some(other) if !is_nothing(other) => {
            return Err("additional_kwargs is in a form that is not read here".to_owned());
        }
        _ => {}
    }
    merge(acts, invocations(fields)?, "toolInvocations")
}

fn listed(fields: &Map<String, Value>) -> Result<Vec<Act>, String> {
    let calls = match fields.get("tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err("tool_calls is no list".to_owned()),
    };
    let read = |(position, call)| {
        let call = ToolCall::read(call);
        call.map(Act::Call)
            .map_err(|reason| format!("tool_calls[{position}]: {reason}"))
    };
    calls.iter().enumerate().map(read).collect()
}

fn legacy(fields: &Map<String, Value>) -> Result<Vec<Act>, String> {
    match fields.get("function_call").filter(|call| !call.is_null()) {
        None => Ok(Vec::new()),
        Some(call) => match ToolCall::read(call) {
            Ok(call) => Ok(vec![Act::Call(call)]),
            Err(reason) => Err(format!("function_call: {reason}")),
        },
    }
}

fn invocations(fields: &Map<String, Value>) -> Result<Vec<Act>, String> {
    let all = match fields.get("toolInvocations") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(all)) => all,
        Some(_) => return Err("toolInvocations is no list".to_owned()),
    };
    let mut acts = Vec::new();
    for (position, one) in all.iter().enumerate() {
        let place = |reason| format!("toolInvocations[{position}]: {reason}");
        let Value::Object(one) = one else {
            return Err(place("is no object".to_owned()));
        };
        acts.extend(parts::invocation(one, None).map_err(place)?);
    }
    Ok(acts)
}

/// Adds acts that may be there already. An act that is named twice counts once; two acts that may or may
/// not be the same are refused.
fn merge(acts: &mut Vec<Act>, more: Vec<Act>, what: &str) -> Result<(), String> {
    let calls = |acts: &[Act]| -> Vec<ToolCall> {
        let call = |act: &Act| match act {
            Act::Call(call) => Some(call.clone()),
            Act::Result(_) => None,
        };
        acts.iter().filter_map(call).collect()
    };
    let (known, told) = (calls(acts), calls(&more));
    if known.is_empty() || told.is_empty() {
        acts.extend(more);
        return Ok(());
    }
    if known.iter().chain(&told).any(|call| call.id.is_empty()) {
        let same = known.len() == told.len() && known.iter().zip(&told).all(|(a, b)| a.is(b));
        return if same {
            Ok(())
        } else {
            Err(format!(
                "{what} has calls besides others of the message, and as they have no ids it cannot \
                 be told which are the same"
            ))
        };
    }
    for act in more {
        let is_known = match &act {
            Act::Call(call) => match known.iter().find(|one| one.id == call.id) {
                Some(one) if !one.is(call) => {
                    return Err(format!(
                        "{what} has the call {:?}, of which the message says something else, too",
                        call.id
                    ));
                }
                found => found.is_some(),
            },
            Act::Result(result) => acts
                .iter()
                .any(|one| matches!(one, Act::Result(known) if known.call_id == result.call_id)),
        };
        if !is_known {
            acts.push(act);
        }
    }
    Ok(())
}
