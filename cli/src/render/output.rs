//! Data goes to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::printable::{printable, printable_json, printable_lines};
use crate::failure::{CommandResult, Failure};

/// Standard output, as text or JSON lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one value: as a line of JSON, or as the text that `text` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> CommandResult {
        if self.json {
            self.line(&to_json(value)?)
        } else {
            self.line(&text(value))
        }
    }

    /// Prints one line, or a text of several lines. Escapes characters that a terminal would not show as
    /// they are. The caller escapes strings of others that may contain line ends.
    pub(crate) fn line(self, line: &str) -> CommandResult {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{}", printable_lines(line)).and_then(|()| stdout.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Usage(anyhow::Error::new(error).context("cannot write to stdout")),
        })
    }
}

/// Prints a message for a person to stderr. Does nothing if stderr is closed.
pub(crate) fn report(message: &str) {
    let _ = writeln!(io::stderr(), "{}", printable_lines(message));
}

/// One line of JSON, fit for a terminal.
pub(crate) fn to_json(value: &impl Serialize) -> CommandResult<String> {
    let json = serde_json::to_string(value).map_err(|error| Failure::Usage(error.into()))?;
    Ok(printable_json(&json).into_owned())
}

/// JSON in several lines, fit for a terminal.
pub(crate) fn to_json_pretty(value: &impl Serialize) -> CommandResult<String> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::Usage(error.into()))?;
    Ok(printable_json(&json).into_owned())
}

/// Prose in lines of at most 80 columns, the first indented by two and the others by four. A
/// longer word has a line of its own.
pub(crate) fn indented(prose: &str) -> String {
    const COLUMNS: usize = 80;
    let mut out = String::from(" ");
    let (mut column, mut empty) = (1, true);
    for word in prose.split_whitespace() {
        let width = word.chars().count();
        if column + 1 + width > COLUMNS && !empty {
            out.push_str("\n   ");
            column = 3;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + width;
        empty = false;
    }
    out
}

/// Columns of a terminal that nothing printed for a person exceeds.
const COLUMNS: usize = 80;

/// A field of a list's item: indented, its value made printable and broken into lines.
pub(crate) fn folded(name: &str, value: &str) -> String {
    labelled(name, value, 18)
}

/// A label, and prose that begins at column `indent`, broken at words and indented below itself. A
/// word that is longer than a line is broken where the line ends.
pub(crate) fn labelled(label: &str, prose: &str, indent: usize) -> String {
    let prose = printable(prose);
    // A label that fills its column would run into the prose.
    let label = format!("  {label} ");
    let (mut out, mut column) = (
        format!("{label:<indent$}"),
        indent.max(label.chars().count()),
    );
    let mut begun = false;
    let next_line = |out: &mut String, column: &mut usize| {
        out.push('\n');
        out.push_str(&" ".repeat(indent));
        *column = indent;
    };
    for word in prose.split_whitespace() {
        let width = word.chars().count();
        if begun {
            if column + 1 + width <= COLUMNS {
                out.push(' ');
                column += 1;
            } else {
                next_line(&mut out, &mut column);
            }
        }
        for c in word.chars() {
            if column == COLUMNS {
                next_line(&mut out, &mut column);
            }
            out.push(c);
            column += 1;
        }
        begun = true;
    }
    out
}

/// Returns a progress bar on stderr for work of `total` bytes or items. It is hidden where the output
/// is JSON and where stderr is no terminal.
pub(crate) fn progress_bar(json: bool, total: u64, template: &str) -> ProgressBar {
    let target = if json || !io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_within_80_columns() {
        assert_eq!(folded("name", "value"), "  name            value");
        let text = folded("name", &format!("{}\n", "x".repeat(200)));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() <= 80));
        let whole: String = lines.iter().map(|line| &line[18..]).collect();
        assert_eq!(whole, "x".repeat(200) + "\\u{a}");
        let prose = folded("detail", &"word ".repeat(30));
        assert!(prose.lines().all(|line| line.len() <= 80), "{prose}");
        assert!(
            !prose.contains("wo\n") && prose.matches("word").count() == 30,
            "{prose}"
        );
        // A label as long as its column keeps a space behind it.
        assert_eq!(folded("contradicts leaf", "13"), "  contradicts leaf 13");
    }

    #[test]
    fn prose_stays_within_80_columns() {
        assert_eq!(indented("short prose"), "  short prose");
        let prose = "seven words of prose, again and again. ".repeat(20);
        let lines = indented(&prose);
        for (number, line) in lines.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            assert_eq!(indent, if number == 0 { 2 } else { 4 });
            assert!(line.len() <= 80 && !line.ends_with(' '), "{line:?}");
        }
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&lines), words(&prose));
        let long = "x".repeat(100);
        assert_eq!(
            indented(&format!("a {long} b")),
            format!("  a\n    {long}\n    b")
        );
    }
}
