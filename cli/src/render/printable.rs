//! Makes text of others safe for a terminal and for scripts.
//!
//! The author of a ledger's name, a statement's objective or a server's message could put in characters
//! that move the cursor, change colours or turn the direction of writing, so that the screen shows
//! something else. These characters are escaped before they reach the output.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

/// Escapes what is not for showing as `\u{1b}`, line ends included. For a string of somebody
/// else, before it is put into text.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escape(text, is_deceptive, |out, c| {
        write!(out, "{}", c.escape_unicode())
    })
}

/// Does the same as [`printable`], but keeps line ends: for texts of several lines that Deed composes.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    let escaped = |c| c != '\n' && is_deceptive(c);
    escape(text, escaped, |out, c| {
        write!(out, "{}", c.escape_unicode())
    })
}

/// Does the same as [`printable`] for JSON, which keeps its value: in JSON these characters can only be
/// in strings, except for the line ends of a pretty form. (JSON demands an escape only below U+0020.)
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    let escaped = |c| c != '\n' && is_deceptive(c);
    // All these characters are in the basic plane: four digits are enough.
    escape(json, escaped, |out, c| {
        write!(out, "\\u{:04x}", u32::from(c))
    })
}

/// Control characters (C0, DEL, C1), and the marks, embeddings, overrides and isolates that set
/// the direction of text (Unicode Standard Annex 9).
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn escape(
    text: &str,
    escaped: impl Fn(char) -> bool,
    write: impl Fn(&mut String, char) -> fmt::Result,
) -> Cow<'_, str> {
    if !text.contains(&escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escaped(c) {
            // Writing to a string does not fail.
            let _ = write(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECEPTIVE: &str = "\0\u{7}\u{8}\t\n\r\u{1b}\u{7f}\u{80}\u{9b}\u{9f}\u{61c}\u{200e}\
                             \u{200f}\u{202a}\u{202e}\u{2066}\u{2069}";

    #[test]
    fn deceptive_characters_are_escaped_and_no_others() {
        let shown = printable(DECEPTIVE);
        assert!(shown.chars().all(|c| c.is_ascii_graphic()), "{shown}");
        assert_eq!(printable("a\u{1b}[2Kb\u{202e}"), "a\\u{1b}[2Kb\\u{202e}");
        assert_eq!(printable_lines("a\n\u{9b}b\r"), "a\n\\u{9b}b\\u{d}");
        let plain = "orders/7 für Æsop \u{200d} \u{a0} 日本 \\u{1b}";
        assert!(matches!(printable(plain), Cow::Borrowed(text) if text == plain));
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ DECEPTIVE: [DECEPTIVE, "plain", 7] });
        for json in [
            serde_json::to_string(&value).unwrap(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let shown = printable_json(&json);
            assert!(!shown.replace('\n', "").contains(is_deceptive), "{shown}");
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, value);
        }
    }
}
