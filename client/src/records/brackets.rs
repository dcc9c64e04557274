//! Brackets that are open, of a value that is no JSON any more.

use super::grammar::Grammar;

/// Counts brackets outside of texts. A text ends with its line at the latest, so that a quote that is
/// lost costs no more than that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brackets {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Brackets {
    /// Returns the brackets that are open after the bytes that `grammar` took; it does not take `next`.
    pub(super) fn behind(grammar: &Grammar, next: Option<u8>) -> Self {
        // A line's end within a text: the text was torn off there.
        let in_text = grammar.is_in_text() && !matches!(next, Some(b'\r' | b'\n'));
        Self::open(grammar.depth(), in_text)
    }

    const fn open(depth: usize, in_text: bool) -> Self {
        Self {
            depth,
            in_text,
            escaped: false,
        }
    }

    /// Returns true if none is open.
    pub(super) const fn is_outside(&self) -> bool {
        self.depth == 0
    }

    /// Reads the next byte. Returns true if it closes the last bracket.
    pub(super) const fn read(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' => (self.in_text, self.escaped) = (false, false),
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            _ if self.in_text => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_texts_do_not_count_and_texts_end_with_their_lines() {
        for (open, rest, closes_at) in [
            (
                Brackets::open(1, false),
                r#""a": "}]\"}", "b": [1]}, 2"#,
                Some(22),
            ),
            (Brackets::open(1, true), r#"}", "b": 1}"#, Some(10)),
            (Brackets::open(1, true), "lost\n}", Some(5)),
            (Brackets::open(2, false), "}", None),
        ] {
            let mut open = open;
            let found = rest.bytes().position(|byte| open.read(byte));
            assert_eq!(found, closes_at, "{rest}");
        }
    }
}
