//! Prints a configuration as TOML.

use std::{fmt::Write as _, path::Path};

use super::{
    layers::{Layer, Origin, variable},
    table::{Kind, SETTINGS, Setting, Value},
};

/// Largest width of comments, in columns.
const WIDTH: usize = 92;

/// Returns the values in force, each with its source in a comment.
pub(super) fn in_force(layer: &Layer, content_key_file: &Path) -> String {
    let mut text = String::new();
    let mut level = "";
    for setting in SETTINGS {
        begin_level(&mut text, &mut level, setting);
        // This is the only default that depends on another setting.
        let derived = || {
            let path = content_key_file.to_str()?.to_owned();
            (setting.key == "content.key_file").then_some((Value::Text(path), Origin::Default))
        };
        let value = layer.get(setting.key).cloned().or_else(derived);
        let _ = match value {
            Some((value, origin)) => {
                writeln!(text, "{} = {} # {origin}", name(setting), toml(&value))
            }
            None => writeln!(text, "# {} is not set", name(setting)),
        };
    }
    text
}

/// Returns every setting with its documentation; everything but the headers of levels is commented
/// out.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# Settings of deed-server, each with what it is when it is not set.\n\
         #\n\
         # Read from ./deed.toml, or the file that `deed-server run --config FILE` names. Above it\n\
         # goes the environment (the variable that each setting names), above that go flags.\n\
         # `deed-server config` prints what is in force and where it comes from; `deed-server\n\
         # config --check` only says whether it can be used.\n",
    );
    let mut level = "";
    for setting in SETTINGS {
        begin_level(&mut text, &mut level, setting);
        text.push('\n');
        let doc = format!(
            "{} Takes {}. {}.",
            setting.doc,
            setting.kind.wanted(),
            variable(setting.key)
        );
        for line in wrapped(&doc, WIDTH) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = match setting.kind.parse(setting.default) {
            Some(value) => writeln!(text, "#{} = {}", name(setting), toml(&value)),
            None => writeln!(text, "#{} = {}", name(setting), blank(setting.kind)),
        };
    }
    text
}

fn begin_level<'s>(text: &mut String, level: &mut &'s str, setting: &'s Setting) {
    let of = setting.key.rsplit_once('.').map_or("", |(of, _)| of);
    if of != *level {
        *level = of;
        let _ = write!(text, "\n[{of}]\n");
    }
}

fn name(setting: &Setting) -> &str {
    setting.key.rsplit('.').next().unwrap_or(setting.key)
}

/// Returns an example in place of a default, for a setting without one.
fn blank(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true",
        Kind::Integer(..) => "0",
        _ => "\"\"",
    }
}

fn toml(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Text(text) => quoted(text),
    }
}

/// Returns a basic string of TOML 1.0: only quotes, backslashes and control characters are escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
