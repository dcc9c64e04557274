//! Records of another system's log, from any of the files that logs come in.
//!
//! It reads JSON lines, an array, an object that holds a list under a given name
//! (`{"Records": [..]}`), and any of them one behind the other, over as many lines as they like;
//! packed by gzip or not, with a byte order mark or without, with lines that end in CRLF or LF.
//!
//! Memory is bounded by the longest record that is accepted. A record that cannot be read does not affect
//! the others: reading continues at the next line that begins as the bad record did; where records share
//! a line, at the next text that begins as the records before; or after the bad record's last bracket.

mod brackets;
mod grammar;
mod resume;
mod shape;
mod source;

use std::{fmt, io::Read};

use grammar::{Grammar, Step};
use serde_json::Value as Json;
use shape::Shape;
use source::Bytes;

use crate::chat::strict::Strict;

pub use source::open;

/// Longest record that is read, unless something else is asked for.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The bytes between values besides white space: a comma, a byte order mark where files were
/// put together, the separator of RFC 7464, and the zeros of a log that was cut while it was written.
const BETWEEN: [u8; 6] = [b',', 0xef, 0xbb, 0xbf, 0x1e, 0];

/// A record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The place of the record.
    pub place: Place,
    /// The text. Its brackets are balanced; only the parser shows if it is JSON.
    pub text: String,
}

/// A record's place in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line that it begins in, from 1.
    pub line: u64,
    /// The number of the record in the file, bad ones included, from 1.
    pub record: u64,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The place of the bad record.
    pub place: Place,
    /// The reason.
    pub reason: String,
    /// True if the file itself cannot be read further.
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

/// Reads a record's text; an object that has a name twice is refused, for the parser would drop one.
///
/// # Errors
/// It is no JSON, or is ambiguous.
pub fn parse(text: &str) -> Result<Json, serde_json::Error> {
    serde_json::from_str::<Strict>(text).map(|strict| strict.0)
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
    /// The begin of the records of lists.
    shape: Shape,
    /// Bytes of what could not be read.
    passed_over: u64,
    /// The position behind the last flaw.
    flawed_at: Option<u64>,
}

/// The value around a list of records.
struct Around {
    grammar: Grammar,
    begins: Begins,
    /// Within the list; else behind it.
    in_list: bool,
    /// The begin of the last member.
    member: Option<Begins>,
    /// The last member was bad, and reading may go on within what is left of it.
    after_flaw: bool,
}

/// The begin of a value in the file.
#[derive(Debug, Clone, Copy)]
struct Begins {
    first: u8,
    line: u64,
    /// The indentation, if the value is the first of its line.
    indent: Option<usize>,
}

/// The result of reading one value.
enum Value {
    Whole,
    /// An object with a list that is asked for; the next byte is within that list.
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
            shape: Shape::default(),
            passed_over: 0,
            flawed_at: None,
        }
    }

    /// Takes records up to so many bytes.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Bytes so far of what could not be read, and of what was lost with it.
    #[must_use]
    pub const fn passed_over(&self) -> u64 {
        self.passed_over
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
                        member: None,
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
                // Where the file ended within a member, that says it all.
                if around.after_flaw || self.bytes.has_failed() {
                    return None;
                }
                let flaw = self.flaw(around.begins.line, "the list that begins here has no end");
                return Some(Err(flaw));
            };
            if around.in_list {
                let is_lost = self.is_lost(&around);
                match byte {
                    // Commas may be missing, or be too many: nothing is lost by it.
                    b',' => {
                        self.bump(byte);
                        self.around = Some(around);
                        continue;
                    }
                    b']' if !is_lost => {}
                    _ if begins_value(byte)
                        && (!around.after_flaw || is_bracket(byte) && !is_lost) =>
                    {
                        self.around = Some(around);
                        if let Some(one) = self.record(byte) {
                            return Some(one);
                        }
                        continue;
                    }
                    _ => {
                        let is_new = !std::mem::replace(&mut around.after_flaw, true);
                        let line = self.line;
                        self.pass_rest(around, byte);
                        if is_new {
                            let says = "the list is broken off: a record, a comma or ] is expected";
                            return Some(Err(self.flaw(line, says)));
                        }
                        continue;
                    }
                }
            }
            let names_list = || {
                let key = around.grammar.key_of_next();
                key.is_some_and(|key| self.lists.iter().any(|list| list.as_bytes() == key))
            };
            let begins_list = byte == b'[' && !around.in_list && names_list();
            around.after_flaw = false;
            match around.grammar.step(byte) {
                Step::Last => {
                    self.bump(byte);
                    return None;
                }
                Step::More => {
                    self.bump(byte);
                    around.in_list = begins_list;
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

    /// Handles a value around the records that is not JSON.
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
        let began_at = self.bytes.position();
        if let Some(around) = self.around.as_mut().filter(|_| is_bracket(first)) {
            around.member = Some(begins);
        }
        let mut text = Vec::new();
        let mut grammar = Grammar::new();
        let read = self.value(&mut grammar, &mut text);
        let had_failed = self.bytes.has_failed();
        let reason = match read {
            Value::Whole => {
                let place = self.place(begins.line);
                if let Some(around) = &mut self.around {
                    around.after_flaw = false;
                    self.shape.learn(&text);
                }
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
                    member: None,
                    after_flaw: false,
                });
                return None;
            }
            Value::Wrong(reason) => format!("it is no JSON: {reason}, in line {}", self.line),
            Value::TooLong => format!("it is longer than {} bytes", self.record_bytes_max),
            Value::Over => match self.bytes.failure() {
                Some(error) => format!("the file cannot be read any further: {error}"),
                None => "it is no JSON: the file ends within it".to_owned(),
            },
        };
        let mut flaw = self.flaw(begins.line, reason);
        if let Some(around) = &mut self.around {
            around.after_flaw = true;
        }
        self.go_on(&grammar, begins, &text);
        self.passed_over += self.bytes.position() - began_at;
        flaw.is_last = had_failed && self.bytes.peek().is_none();
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
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.around {
            Some(_) => self.within().or_else(|| self.between()),
            None => self.between(),
        };
        // Two flaws at one place would mean that reading makes no progress.
        if let Some(Err(_)) = &next {
            let here = Some(self.bytes.position());
            if self.flawed_at == here
                && let Some(byte) = self.bytes.peek()
            {
                self.bump(byte);
            }
            self.flawed_at = here;
        }
        next.or_else(|| {
            let error = self.bytes.failure()?;
            let mut flaw = self.flaw(
                self.line,
                format!("the file cannot be read any further: {error}"),
            );
            flaw.is_last = true;
            Some(Err(flaw))
        })
    }
}

/// A byte with which a JSON value begins.
const fn begins_value(byte: u8) -> bool {
    is_bracket(byte) || matches!(byte, b'"' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

const fn is_bracket(byte: u8) -> bool {
    matches!(byte, b'{' | b'[')
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
