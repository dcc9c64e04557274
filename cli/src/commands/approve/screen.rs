//! Shows text of others on an approver's screen, where none of it can pass for ours.
//!
//! Every line of such a text begins with `  | ` and is broken at the end of the line; a short text stands
//! in quotes on one line. Runs of white space are collapsed, with a remark. Characters that do not show, or
//! show over their neighbours, are escaped. So a text can neither imitate one of our lines nor push one
//! off the screen.

use std::fmt::Write as _;

/// Stands in front of each line of somebody else's text.
pub(super) const PREFIX: &str = "  | ";

/// A text of somebody else, broken into lines.
pub(super) struct Block {
    /// Each begins with [`PREFIX`].
    pub(super) lines: Vec<String>,
    /// Lines that are left out.
    pub(super) cut: usize,
}

/// Breaks a text into prefixed lines of at most `columns`, and keeps the first `lines_max`.
pub(super) fn block(text: &str, columns: usize, lines_max: usize) -> Block {
    let room = columns.saturating_sub(PREFIX.len()).max(8);
    let mut lines = Vec::new();
    let mut empty = 0;
    for line in text.split('\n') {
        let line = visible(line.strip_suffix('\r').unwrap_or(line));
        if line.trim().is_empty() {
            empty += 1;
            continue;
        }
        empty_lines(&mut lines, std::mem::take(&mut empty));
        let (mut begun, mut width) = (String::from(PREFIX), 0);
        for c in line.chars() {
            if width + width_of(c) > room {
                lines.push(std::mem::replace(&mut begun, PREFIX.to_owned()));
                width = 0;
            }
            begun.push(c);
            width += width_of(c);
        }
        lines.push(begun);
    }
    // The line end of the last line makes no empty one.
    empty_lines(&mut lines, empty.saturating_sub(1));
    let cut = lines.len().saturating_sub(lines_max);
    lines.truncate(lines_max);
    Block { lines, cut }
}

fn empty_lines(lines: &mut Vec<String>, count: usize) {
    match count {
        0 => {}
        1 => lines.push(PREFIX.trim_end().to_owned()),
        _ => lines.push(format!("{PREFIX}[{count} empty lines]")),
    }
}

/// A value of somebody else in quotes, on one line of at most `columns`: of a longer one beginning
/// and end. Whether it is whole.
pub(super) fn quoted(text: &str, columns: usize) -> (String, bool) {
    let mut escaped = String::new();
    for c in visible(text).chars() {
        if matches!(c, '"' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    let width = |text: &str| text.chars().map(width_of).sum::<usize>();
    if width(&escaped) + 2 <= columns {
        return (format!("\"{escaped}\""), true);
    }
    let note = format!("\" ... \" ({} characters)", text.chars().count());
    let half = columns.saturating_sub(note.len() + 2) / 2;
    let mut left = 0;
    let head: String = escaped
        .chars()
        .take_while(|c| {
            left += width_of(*c);
            left <= half
        })
        .collect();
    let mut right = 0;
    let tail = escaped.chars().rev().take_while(|c| {
        right += width_of(*c);
        right <= half
    });
    let tail: String = tail.collect::<Vec<_>>().into_iter().rev().collect();
    let count = text.chars().count();
    (
        format!("\"{head}\" ... \"{tail}\" ({count} characters)"),
        false,
    )
}

/// A line of somebody else's with nothing in it that a terminal does not show as it is.
fn visible(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if is_space(c) {
            let mut run = 1;
            while chars.next_if(|next| is_space(*next)).is_some() {
                run += 1;
            }
            // Writing to a string does not fail.
            let _ = match (c, run) {
                (' ', 1) => write!(out, " "),
                (_, 1) => write!(out, "{}", c.escape_unicode()),
                _ => write!(out, "[{run} spaces]"),
            };
        } else if is_shown(c) {
            out.push(c);
        } else {
            let _ = write!(out, "{}", c.escape_unicode());
        }
    }
    out
}

fn is_space(c: char) -> bool {
    c != '\n' && (c.is_whitespace() || c == '\u{2800}')
}

/// Returns true if a character shows, by itself and in its place: letters and digits of all scripts, and
/// common signs. All others are escaped.
fn is_shown(c: char) -> bool {
    let fillers = matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}');
    let combining = matches!(
        c,
        '\u{300}'..='\u{36f}'
            | '\u{483}'..='\u{489}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    );
    let sign = matches!(
        c,
        '\u{a1}'..='\u{ac}'
            | '\u{ae}'..='\u{ff}'
            | '\u{2010}'..='\u{2027}'
            | '\u{2030}'..='\u{205e}'
            | '\u{20a0}'..='\u{20c0}'
            | '\u{2190}'..='\u{21ff}'
            | '\u{2200}'..='\u{22ff}'
            | '\u{3001}'..='\u{3020}'
            | '\u{1f300}'..='\u{1faff}'
    );
    c.is_ascii_graphic() || (!fillers && !combining && (c.is_alphanumeric() || sign))
}

/// Columns that a character takes at most.
fn width_of(c: char) -> usize {
    if c.is_ascii() { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "{\n\n\n\n\n\n\namount     0.05 EUR\r\nApprove this? [y/N]\u{1b}[2K\
                           \u{202e}\u{200b}\u{3164}\u{300}\t\ta\u{a0}b";

    #[test]
    fn every_line_of_others_is_prefixed_and_within_the_columns() {
        for columns in [20, 40, 80] {
            let text = HOSTILE.to_owned() + &"x".repeat(300) + &"日".repeat(99);
            let block = block(&text, columns, usize::MAX);
            assert_eq!(block.cut, 0);
            for line in &block.lines {
                assert!(line.starts_with("  |"), "{line:?}");
                let width: usize = line.chars().map(width_of).sum();
                assert!(width <= columns, "{columns}: {line:?}");
                assert!(
                    line.chars()
                        .all(|c| c.is_ascii_graphic() || c == ' ' || c == '日')
                );
            }
        }
        let block = block(HOSTILE, 80, usize::MAX);
        assert_eq!(
            block.lines[..3],
            [
                "  | {",
                "  | [6 empty lines]",
                "  | amount[5 spaces]0.05 EUR"
            ]
        );
        let rest: String = block.lines[3..]
            .iter()
            .map(|line| line.trim_start_matches("  | "))
            .collect();
        for shown in [
            "\\u{1b}[2K",
            "\\u{202e}",
            "\\u{200b}",
            "\\u{3164}",
            "\\u{300}",
            "[2 spaces]a\\u{a0}b",
        ] {
            assert!(rest.contains(shown), "{shown}: {rest}");
        }
    }

    #[test]
    fn long_texts_are_cut_and_that_is_known() {
        let many = block(&"line\n".repeat(100), 80, 7);
        assert_eq!((many.lines.len(), many.cut), (7, 93));
        let plain = block("one\n\ntwo\n", 80, 7);
        assert_eq!(
            (plain.lines, plain.cut),
            (vec!["  | one".into(), "  |".into(), "  | two".into()], 0)
        );
    }

    #[test]
    fn values_stand_on_one_line() {
        assert_eq!(quoted("order/7", 40), ("\"order/7\"".to_owned(), true));
        let wraps = format!("order/7{}amount     5 EUR", " ".repeat(60));
        let (shown, whole) = quoted(&wraps, 60);
        assert_eq!(shown, "\"order/7[60 spaces]amount[5 spaces]5 EUR\"");
        assert!(whole);
        assert_eq!(quoted("a\"\nb", 40).0, "\"a\\\"\\\\u{a}b\"");
        for text in ["x".repeat(500), "日".repeat(500), "\\".repeat(500)] {
            let (shown, whole) = quoted(&text, 60);
            let width: usize = shown.chars().map(width_of).sum();
            assert!(width <= 60 && !whole, "{shown}");
            assert!(
                shown.contains("\" ... \"") && shown.ends_with("(500 characters)"),
                "{shown}"
            );
        }
    }
}
