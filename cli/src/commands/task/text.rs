//! Text within 80 columns.

use crate::render::{self, printable};

pub(super) const COLUMNS: usize = 80;

/// A labelled line, its prose broken at words and indented below itself.
pub(super) fn labelled(label: &str, prose: &str) -> String {
    render::labelled(label, prose, 16)
}

/// The end of a text that is too long: of URIs it tells most.
pub(super) fn tail(text: &str, width: usize) -> String {
    let text = printable(text);
    let count = text.chars().count();
    if count <= width {
        return text.into_owned();
    }
    let kept = text.chars().skip(count + 1 - width);
    std::iter::once('…').chain(kept).collect()
}

/// The beginning of a text that is too long.
pub(super) fn head(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text.into_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_at_words() {
        let text = labelled("who", &"seven words of prose again and again ".repeat(9));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() > 3);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS));
        assert!(lines[1].starts_with(&" ".repeat(16)) && !lines[1][16..].starts_with(' '));
        let long = labelled("who", &"x".repeat(200));
        assert!(long.lines().all(|line| line.chars().count() <= COLUMNS));
        let short = labelled("who", "a\u{1b}b");
        assert_eq!(short, "  who           a\\u{1b}b");
    }

    #[test]
    fn long_names_keep_the_end_that_tells_most() {
        assert_eq!(tail("spiffe://example.org/agent", 12), "…e.org/agent");
        assert_eq!(tail("short", 12), "short");
        assert_eq!(head("refund order 7", 7), "refund…");
        assert_eq!(head("", 3), "");
    }
}
