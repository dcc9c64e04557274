//! Records of another system's log, from any of the files that logs come in.
//!
//! What is read: JSON lines, an array, an object that holds a list under a name that is asked for
//! (`{"Records": [..]}`), and any of them one behind the other, over as many lines as they like;
//! packed by gzip or not, with a byte order mark or without, with lines that end in CRLF or LF.
//!
//! Memory is bounded by the longest record that is taken. A record that cannot be read costs itself:
//! reading goes on at the next line that begins as the bad record did, or behind its last bracket.

mod grammar;
mod source;

use std::{fmt, io::Read};

use grammar::{Grammar, Step};
use source::Bytes;

pub use source::open;

/// Longest record that is read, unless something else is asked for.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What may stand between values besides white space: a comma, a byte order mark where files were
/// put together, the separator of RFC 7464, and the zeros of a log that was cut while it was written.
const BETWEEN: [u8; 6] = [b',', 0xef, 0xbb, 0xbf, 0x1e, 0];

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub place: Place,
    /// Its text. Its brackets are balanced; whether it is JSON shows when it is parsed.
    pub text: String,
}

/// A record's place in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line that it begins in, from 1.
    pub line: u64,
    /// Its number among the file's records, bad ones included, from 1.
    pub record: u64,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where it is.
    pub place: Place,
    /// What is wrong with it.
    pub reason: String,
    /// Nothing behind it can be read either: the file itself cannot.
    pub is_last: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, record {}", self.line, self.record)
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// Reads records one after the other.
pub struct Records<'a> {
    bytes: Bytes<'a>,
    lists: Vec<String>,
    record_bytes_max: usize,
    /// The line that the next byte is in, from 1.
    line: u64,
    /// White space since the last line's end, if there is nothing else.
    indent: Option<usize>,
    /// Records so far.
    count: u64,
    /// The array or object whose members are read as records.
    around: Option<Around>,
}

/// What stands around a list of records.
struct Around {
    grammar: Grammar,
    begins: Begins,
    /// Within the list; else behind it.
    in_list: bool,
    /// The last member was bad: the comma behind it may be lost with it.
    after_flaw: bool,
}

/// How a value begins in the file.
#[derive(Debug, Clone, Copy)]
struct Begins {
    first: u8,
    line: u64,
    /// How far it is indented, if it is the first of its line.
    indent: Option<usize>,
}

/// What reading one value came to.
enum Value {
    Whole,
    /// It holds a list that is asked for, and the next byte is within that.
    Around(Grammar),
    Wrong(&'static str),
    TooLong,
    Over,
}

impl<'a> Records<'a> {
    /// Reads a source. An object with an array under one of the names in `lists` stands for the
    /// members of that.
    pub fn new(source: impl Read + Send + 'a, lists: Vec<String>) -> Self {
        Self {
            bytes: Bytes::new(source),
            lists,
            record_bytes_max: RECORD_BYTES_MAX,
            line: 1,
            indent: Some(0),
            count: 0,
            around: None,
        }
    }

    /// Takes records up to so many bytes.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    fn bump(&mut self, byte: u8) {
        self.bytes.pass();
        match byte {
            b'\n' => {
                self.line += 1;
                self.indent = Some(0);
            }
            b' ' | b'\t' => self.indent = self.indent.map(|indent| indent + 1),
            _ if BETWEEN.contains(&byte) => {}
            _ => self.indent = None,
        }
    }

    /// The next byte that is not white space.
    fn next_visible(&mut self) -> Option<u8> {
        loop {
            let byte = self.bytes.peek()?;
            let between = self.around.is_none() && BETWEEN.contains(&byte);
            if !byte.is_ascii_whitespace() && !between {
                return Some(byte);
            }
            self.bump(byte);
        }
    }

    fn place(&mut self, line: u64) -> Place {
        self.count += 1;
        Place {
            line,
            record: self.count,
        }
    }

    fn flaw(&mut self, line: u64, reason: impl Into<String>) -> Flaw {
        Flaw {
            place: self.place(line),
            reason: reason.into(),
            is_last: false,
        }
    }

    /// Between the values of a file.
    fn between(&mut self) -> Option<Result<Record, Flaw>> {
        loop {
            let first = self.next_visible()?;
            match first {
                b'[' => {
                    let begins = self.begins(first);
                    let mut grammar = Grammar::new();
                    grammar.step(first);
                    self.bump(first);
                    self.around = Some(Around {
                        grammar,
                        begins,
                        in_list: true,
                        after_flaw: false,
                    });
                }
                b'{' => {
                    if let Some(one) = self.record(first) {
                        return Some(one);
                    }
                }
                _ => return Some(self.rest_of_line()),
            }
            if self.around.is_some()
                && let Some(one) = self.within()
            {
                return Some(one);
            }
        }
    }

    /// Within or behind a list; `None` when what stands around it is over.
    fn within(&mut self) -> Option<Result<Record, Flaw>> {
        loop {
            let mut around = self.around.take()?;
            let Some(byte) = self.next_visible_of(&around) else {
                let flaw = self.flaw(around.begins.line, "the list that begins here has no end");
                return Some(Err(flaw));
            };
            let is_member = around.in_list && !matches!(byte, b',' | b']');
            let names_list = || {
                let key = around.grammar.key_of_next();
                key.is_some_and(|key| self.lists.iter().any(|list| list.as_bytes() == key))
            };
            let begins_list = byte == b'[' && !around.in_list && names_list();
            let after_flaw = std::mem::take(&mut around.after_flaw);
            if is_member {
                if after_flaw {
                    around.grammar.step(b',');
                }
                // Only where a member may stand.
                match around.grammar.step(b'0') {
                    Step::More => {
                        around.grammar.step(b' ');
                        self.around = Some(around);
                        if let Some(one) = self.record(byte) {
                            return Some(one);
                        }
                        continue;
                    }
                    _ => return Some(Err(self.broken(around, byte, "a comma or ] is expected"))),
                }
            }
            match around.grammar.step(byte) {
                Step::Last => {
                    self.bump(byte);
                    return None;
                }
                Step::More => {
                    self.bump(byte);
                    around.in_list = begins_list || (around.in_list && byte == b',');
                    self.around = Some(around);
                }
                Step::Wrong(reason) => return Some(Err(self.broken(around, byte, reason))),
                Step::Behind => return None,
            }
        }
    }

    /// The next byte: within texts behind a list white space counts.
    fn next_visible_of(&mut self, around: &Around) -> Option<u8> {
        if !around.grammar.is_in_text() {
            while let Some(byte) = self.bytes.peek().filter(u8::is_ascii_whitespace) {
                self.bump(byte);
            }
        }
        self.bytes.peek()
    }

    /// What stands around the records is not JSON.
    fn broken(&mut self, around: Around, byte: u8, reason: &str) -> Flaw {
        let flaw = self.flaw(self.line, format!("the list is broken off: {reason}"));
        self.skip(&around.grammar, around.begins, byte);
        flaw
    }

    fn begins(&self, first: u8) -> Begins {
        Begins {
            first,
            line: self.line,
            indent: self.indent,
        }
    }

    /// A record that begins here; `None` if it turns out to be what stands around records.
    fn record(&mut self, first: u8) -> Option<Result<Record, Flaw>> {
        let begins = self.begins(first);
        let mut text = Vec::new();
        let mut grammar = Grammar::new();
        let reason = match self.value(&mut grammar, &mut text) {
            Value::Whole => {
                let place = self.place(begins.line);
                let text = String::from_utf8(text).map_err(|_| Flaw {
                    place,
                    reason: "it is not UTF-8".to_owned(),
                    is_last: false,
                });
                return Some(text.map(|text| Record { place, text }));
            }
            Value::Around(grammar) => {
                self.around = Some(Around {
                    grammar,
                    begins,
                    in_list: true,
                    after_flaw: false,
                });
                return None;
            }
            Value::Wrong(reason) => format!("it is no JSON: {reason}, in line {}", self.line),
            Value::TooLong => format!("it is longer than {} bytes", self.record_bytes_max),
            Value::Over => "it is no JSON: the file ends within it".to_owned(),
        };
        let flaw = self.flaw(begins.line, reason);
        if let Some(around) = &mut self.around {
            around.after_flaw = true;
        }
        self.go_on(&grammar, begins, &text);
        Some(Err(flaw))
    }

    fn value(&mut self, grammar: &mut Grammar, text: &mut Vec<u8>) -> Value {
        while let Some(byte) = self.bytes.peek() {
            if text.len() >= self.record_bytes_max {
                return Value::TooLong;
            }
            let lists = &self.lists;
            let is_list = byte == b'['
                && self.around.is_none()
                && grammar
                    .key_of_next()
                    .is_some_and(|key| lists.iter().any(|list| list.as_bytes() == key));
            match grammar.step(byte) {
                Step::More => {}
                Step::Behind => return Value::Whole,
                Step::Wrong(reason) => return Value::Wrong(reason),
                Step::Last => {
                    text.push(byte);
                    self.bump(byte);
                    return Value::Whole;
                }
            }
            self.bump(byte);
            if is_list {
                text.clear();
                return Value::Around(std::mem::replace(grammar, Grammar::new()));
            }
            text.push(byte);
        }
        match grammar.depth() {
            // A number at the end of the file.
            0 if !grammar.is_in_text() && !text.is_empty() => Value::Whole,
            _ => Value::Over,
        }
    }

    /// Something that is no object and no array: its line is read for itself.
    fn rest_of_line(&mut self) -> Result<Record, Flaw> {
        let line = self.line;
        let mut text = Vec::new();
        while let Some(byte) = self.bytes.peek() {
            self.bump(byte);
            if byte == b'\n' {
                break;
            }
            if text.len() < self.record_bytes_max {
                text.push(byte);
            }
        }
        let place = self.place(line);
        let flaw = |reason: String| Flaw {
            place,
            reason,
            is_last: false,
        };
        if text.len() >= self.record_bytes_max {
            let says = format!("it is longer than {} bytes", self.record_bytes_max);
            return Err(flaw(says));
        }
        let text = String::from_utf8(text).map_err(|_| flaw("it is not UTF-8".to_owned()))?;
        let text = text.trim().to_owned();
        Ok(Record { place, text })
    }

    /// Goes on behind a bad record: at a line that begins as it did, which may have been read as
    /// part of it, or behind its last bracket.
    fn go_on(&mut self, grammar: &Grammar, begins: Begins, text: &[u8]) {
        let next = self.bytes.peek();
        // Where the bad record is not the first of its line, the next of what stands around it.
        let like = match (&self.around, begins.indent) {
            (Some(around), None) => around.begins,
            _ => begins,
        };
        if let Some(at) = last_like(text, like) {
            self.bytes.give_back(&text[at..]);
            let lines = text[..at].iter().filter(|byte| **byte == b'\n').count();
            self.line = begins.line + lines as u64;
            self.indent = Some(0);
            self.leave_unless(like, begins);
            return;
        }
        if let Some(byte) = next {
            self.skip(grammar, begins, byte);
        }
    }

    /// What stands around the records is given up if reading goes on at its like.
    fn leave_unless(&mut self, like: Begins, begins: Begins) {
        if begins.indent.is_none() && like.indent.is_some() {
            self.around = None;
        }
    }

    /// Skips to a line that begins as the bad value did, or behind its last bracket.
    fn skip(&mut self, grammar: &Grammar, begins: Begins, next: u8) {
        let like = match (&self.around, begins.indent) {
            (Some(around), None) => around.begins,
            _ => begins,
        };
        let mut depth = grammar.depth();
        // A line's end within a text: the text was torn off there.
        let mut in_text = grammar.is_in_text() && !matches!(next, b'\r' | b'\n');
        let mut escaped = false;
        while let Some(byte) = self.bytes.peek() {
            if depth == 0 && matches!(byte, b',' | b']' | b'\n') {
                return;
            }
            if byte == like.first && like.indent.is_some() && self.indent == like.indent {
                self.leave_unless(like, begins);
                return;
            }
            self.bump(byte);
            match byte {
                b'\n' => (in_text, escaped) = (false, false),
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.around {
            Some(_) => self.within().or_else(|| self.between()),
            None => self.between(),
        };
        next.or_else(|| {
            let error = self.bytes.failure()?;
            let mut flaw = self.flaw(self.line, format!("cannot be read: {error}"));
            flaw.is_last = true;
            Some(Err(flaw))
        })
    }
}

/// The last line of a text but the first that begins as `like` did.
fn last_like(text: &[u8], like: Begins) -> Option<usize> {
    let indent = like.indent?;
    let ends = (0..text.len()).rev().filter(|at| text[*at] == b'\n');
    let mut starts = ends.map(|end| end + 1).filter(|start| {
        let (white, rest) = text[*start..].split_at(indent.min(text.len() - start));
        white.iter().all(|byte| matches!(byte, b' ' | b'\t')) && rest.first() == Some(&like.first)
    });
    starts.next()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
