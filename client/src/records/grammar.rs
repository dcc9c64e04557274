//! The end of a JSON value.

/// Brackets within brackets that are followed, as serde_json does.
const DEPTH_MAX: usize = 128;
/// Bytes of a key that are kept: longer ones name no list.
const KEY_BYTES_MAX: usize = 64;

/// Follows one JSON value byte by byte. It knows where the value ends and where it cannot go on;
/// numbers and words are left to the parser.
#[derive(Debug)]
pub(super) struct Grammar {
    /// Brackets that are open.
    open: Vec<Bracket>,
    expects: Expects,
    /// The last key of the outermost object.
    key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Object,
    Array,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Text {
        is_key: bool,
    },
    Escaped {
        is_key: bool,
    },
    /// The rest of a number or a word.
    Word,
}

/// The meaning of a byte for the value under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A byte within the value.
    More,
    /// The last byte of the value.
    Last,
    /// A byte after the value.
    Behind,
    /// A byte that cannot stand here.
    Wrong(&'static str),
}

impl Grammar {
    pub(super) const fn new() -> Self {
        Self {
            open: Vec::new(),
            expects: Expects::Value,
            key: Vec::new(),
        }
    }

    /// Brackets that are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Returns true within a text.
    pub(super) const fn is_in_text(&self) -> bool {
        matches!(self.expects, Expects::Text { .. } | Expects::Escaped { .. })
    }

    /// Returns the key of the outermost object whose value comes next.
    pub(super) fn key_of_next(&self) -> Option<&[u8]> {
        let is_next = self.open[..] == [Bracket::Object] && self.expects == Expects::Value;
        is_next.then_some(&self.key[..])
    }

    pub(super) fn step(&mut self, byte: u8) -> Step {
        match self.expects {
            Expects::Text { is_key } => self.text(byte, is_key),
            Expects::Escaped { is_key } => {
                self.keep(byte, is_key);
                self.expects = Expects::Text { is_key };
                Step::More
            }
            Expects::Word if is_of_word(byte) => Step::More,
            Expects::Word if !byte.is_ascii_whitespace() && !b",]}".contains(&byte) => {
                Step::Wrong("a number or a word goes on where it should end")
            }
            Expects::Word if self.open.is_empty() => Step::Behind,
            Expects::Word => {
                self.expects = Expects::CommaOrEnd;
                self.step(byte)
            }
            _ if byte.is_ascii_whitespace() => Step::More,
            Expects::Value | Expects::ValueOrEnd => self.value(byte),
            Expects::Key | Expects::KeyOrEnd => match byte {
                b'"' => {
                    if self.open.len() == 1 {
                        self.key.clear();
                    }
                    self.expects = Expects::Text { is_key: true };
                    Step::More
                }
                b'}' if self.expects == Expects::KeyOrEnd => self.close(),
                _ => Step::Wrong("a name in quotes is expected"),
            },
            Expects::Colon if byte == b':' => {
                self.expects = Expects::Value;
                Step::More
            }
            Expects::Colon => Step::Wrong("a colon is expected"),
            Expects::CommaOrEnd => self.comma_or_end(byte),
        }
    }

    fn text(&mut self, byte: u8, is_key: bool) -> Step {
        match byte {
            b'\\' => self.expects = Expects::Escaped { is_key },
            b'"' if is_key => self.expects = Expects::Colon,
            b'"' => return self.after_value(),
            0..=0x1f => return Step::Wrong("a text holds a line's end or a control character"),
            _ => self.keep(byte, is_key),
        }
        Step::More
    }

    fn keep(&mut self, byte: u8, is_key: bool) {
        if is_key && self.open.len() == 1 && self.key.len() <= KEY_BYTES_MAX {
            self.key.push(byte);
        }
    }

    fn value(&mut self, byte: u8) -> Step {
        let (bracket, next) = match byte {
            b'{' => (Bracket::Object, Expects::KeyOrEnd),
            b'[' => (Bracket::Array, Expects::ValueOrEnd),
            b'"' => {
                self.expects = Expects::Text { is_key: false };
                return Step::More;
            }
            b']' if self.expects == Expects::ValueOrEnd => return self.close(),
            _ if is_of_word(byte) => {
                self.expects = Expects::Word;
                return Step::More;
            }
            _ => return Step::Wrong("a value is expected"),
        };
        if self.open.len() >= DEPTH_MAX {
            return Step::Wrong("it is nested too deeply");
        }
        self.open.push(bracket);
        self.expects = next;
        Step::More
    }

    fn comma_or_end(&mut self, byte: u8) -> Step {
        match (byte, self.open.last()) {
            (b',', Some(Bracket::Object)) => self.expects = Expects::Key,
            (b',', Some(Bracket::Array)) => self.expects = Expects::Value,
            (b'}', Some(Bracket::Object)) | (b']', Some(Bracket::Array)) => return self.close(),
            (_, Some(Bracket::Object)) => return Step::Wrong("a comma or } is expected"),
            _ => return Step::Wrong("a comma or ] is expected"),
        }
        Step::More
    }

    fn close(&mut self) -> Step {
        self.open.pop();
        self.after_value()
    }

    fn after_value(&mut self) -> Step {
        if self.open.is_empty() {
            return Step::Last;
        }
        self.expects = Expects::CommaOrEnd;
        Step::More
    }
}

/// A byte of a number, or of true, false and null.
const fn is_of_word(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the length of a value, or the position of its first wrong byte.
    fn ends(text: &str) -> Result<usize, usize> {
        let mut grammar = Grammar::new();
        for (at, byte) in text.bytes().enumerate() {
            match grammar.step(byte) {
                Step::More => {}
                Step::Last => return Ok(at + 1),
                Step::Behind => return Ok(at),
                Step::Wrong(_) => return Err(at),
            }
        }
        Err(text.len())
    }

    #[test]
    fn values_end_where_json_says() {
        for (text, end) in [
            ("{} x", Ok(2)),
            (r#"{"a": [1, {"b": "}\"]"}], "c": null} {}"#, Ok(36)),
            ("[1,2]]", Ok(5)),
            (r#""x" y"#, Ok(3)),
            ("12,", Ok(2)),
            (r#"{"a": {"b": 1,{"#, Err(14)),
            (r#"{"a" "b"}"#, Err(5)),
            ("{\"a\": \"b\n", Err(8)),
            ("[1}", Err(2)),
            ("{,}", Err(1)),
        ] {
            assert_eq!(ends(text), end, "{text}");
        }
        assert_eq!(ends(&"[".repeat(200)), Err(DEPTH_MAX));
    }
}
