//! One pass over a message's bytes: canonical form and the rules of each field.
//!
//! Exactly the bytes are accepted that a Protobuf library would write for some value: fields in
//! ascending order, shortest varints, no defaults written out, nothing unknown. So no two
//! parsers can read a payload differently, and nobody can vary its bytes without changing its
//! meaning. The messages and their rules are tables (`schema.rs`), generated from the .proto files;
//! a property holds this walk against decode-then-encode.
//!
//! The walk allocates nothing unless it fails: it stands in front of every statement.

use std::fmt;

use thiserror::Error;

pub(crate) use crate::schema::{Field, Kind, Message, Presence};
use crate::text;

/// A message that breaks its canonical form or the rules of a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// Path of field names from the message down, for example `intent.amount.currency`.
    pub field: String,
    /// The problem with it.
    pub problem: Problem,
}

/// A problem with a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// The message ends inside of a field.
    #[error("the message is cut off after {have} of {wanted} bytes")]
    CutOff {
        /// Bytes that the field needs.
        wanted: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// A varint that is longer than it has to be, or than 64 bits.
    #[error("a varint is not in its shortest form")]
    Varint,
    /// A field number that the message does not have.
    #[error("unknown field number {number}")]
    UnknownField {
        /// The number found.
        number: u64,
    },
    /// A body that will come with a later version, or never.
    #[error("no body with field number {number} is accepted in this version")]
    UnknownBody {
        /// The number found.
        number: u64,
    },
    /// The field is not encoded as its type is.
    #[error("wire type {found} where {wanted} is wanted")]
    WireType {
        /// Wire type found.
        found: u8,
        /// Wire type of the field's type.
        wanted: u8,
    },
    /// Fields are out of order, or one that is not repeated stands twice.
    #[error("fields must stand in ascending order, each at most once")]
    Order,
    /// A default value that is written out.
    #[error("a default value must be left out")]
    DefaultWritten,
    /// An enum value that the enum does not have.
    #[error("unknown enum value {value}")]
    UnknownEnum {
        /// The value found.
        value: u64,
    },
    /// A number beyond the field's type or rule.
    #[error("the number {value} is out of range")]
    Range {
        /// The value found, as unsigned 64 bits.
        value: u64,
    },
    /// A string that is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// Too few or too many bytes.
    #[error("{found} bytes where {min} to {max} are allowed")]
    Length {
        /// Bytes found.
        found: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed.
        max: usize,
    },
    /// Too few or too many elements of a repeated field.
    #[error("{found} elements where {min} to {max} are allowed")]
    Count {
        /// Elements found; counting stops at the first one too many.
        found: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed.
        max: usize,
    },
    /// A field that has to be there is not.
    #[error("is required")]
    Missing,
    /// More than one field of a oneof.
    #[error("only one of these fields may be set")]
    OneOf,
    /// A rule of this very field.
    #[error("{0}")]
    Rule(&'static str),
    /// A text of which another spelling is the one that is taken.
    #[error("is not in canonical form; {form} would be taken")]
    NotCanonical {
        /// The spelling that is taken.
        form: String,
    },
    /// An evidence policy that cannot be used, with Cedar's own words.
    #[error("{0}")]
    Policy(String),
}

impl WireError {
    pub(crate) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self {
            field: field.into(),
            problem,
        }
    }

    pub(crate) fn rule(field: impl Into<String>, rule: &'static str) -> Self {
        Self::new(field, Problem::Rule(rule))
    }
}

/// A field's value as it stands in the message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// Checks `bytes` against `message` to its last level, and hands every field of the first level
/// to `visit`, in order.
pub(crate) fn walk<'a>(
    message: &Message,
    bytes: &'a [u8],
    mut visit: impl FnMut(&Field, Value<'a>),
) -> Result<(), WireError> {
    walk_at(message, bytes, None, &mut visit)
}

/// Visits the levels below the first. A function, not a closure: the walk is compiled once for
/// it, not once a level.
fn nobody(_: &Field, _: Value<'_>) {}

/// The way down to a message: a list on the stack, spelled out only for an error.
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    name: &'static str,
    element: Option<usize>,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        match self.element {
            Some(element) => write!(f, "[{element}]"),
            None => Ok(()),
        }
    }
}

#[cold]
fn fail(parent: Option<&Path<'_>>, name: &'static str, problem: Problem) -> WireError {
    fail_at(parent, name, None, problem)
}

#[cold]
fn fail_at(
    parent: Option<&Path<'_>>,
    name: &'static str,
    element: Option<usize>,
    problem: Problem,
) -> WireError {
    let field = match (parent, name) {
        (None, "") => "message".to_owned(),
        (Some(parent), "") => parent.to_string(),
        (parent, name) => Path {
            parent,
            name,
            element,
        }
        .to_string(),
    };
    WireError { field, problem }
}

fn walk_at<'a>(
    message: &Message,
    bytes: &'a [u8],
    path: Option<&Path<'_>>,
    visit: &mut impl FnMut(&Field, Value<'a>),
) -> Result<(), WireError> {
    let mut rest = bytes;
    // Position in the table; everything before it has been passed.
    let mut at = 0;
    let mut elements = 0;
    // The element before, of a field whose elements ascend.
    let mut last: &[u8] = &[];
    let mut oneof_seen = false;
    let whole = |problem| fail(path, "", problem);
    while !rest.is_empty() {
        let tag = varint(&mut rest).map_err(whole)?;
        let (number, wire_type) = (tag >> 3, (tag & 7) as u8);
        if u64::from(message.fields[at].number) != number {
            let next = position_of(message, number, at).map_err(whole)?;
            pass(message, at, next, elements, path)?;
            at = next;
            elements = 0;
        }
        let field = &message.fields[at];
        let named = |problem| fail(path, field.name, problem);
        let repeated = match field.presence {
            Presence::Repeated { min, max } if elements >= max => {
                // Here and not at the end, so that the work too is limited by the rule.
                let found = elements + 1;
                return Err(named(Problem::Count { found, min, max }));
            }
            Presence::Repeated { .. } => true,
            _ if elements > 0 => return Err(named(Problem::Order)),
            Presence::OneOf if oneof_seen => return Err(named(Problem::OneOf)),
            _ => false,
        };
        oneof_seen |= field.presence == Presence::OneOf;
        let value = read_value(field, wire_type, &mut rest).map_err(named)?;
        check_value(field, value).map_err(|problem| {
            let element = repeated.then_some(elements);
            fail_at(path, field.name, element, problem)
        })?;
        if let (Kind::Message(inner), Value::Bytes(inner_bytes)) = (field.kind, value) {
            let path = Path {
                parent: path,
                name: field.name,
                element: repeated.then_some(elements),
            };
            walk_at(inner, inner_bytes, Some(&path), &mut nobody)?;
        }
        if let (true, Value::Bytes(element)) = (field.ascending, value) {
            if elements > 0 && element <= last {
                return Err(named(Problem::Rule(order_rule(field))));
            }
            last = element;
        }
        elements += 1;
        visit(field, value);
    }
    pass(message, at, message.fields.len(), elements, path)?;
    match message.oneof_required {
        Some(oneof) if !oneof_seen => Err(fail(path, oneof, Problem::Missing)),
        _ => Ok(()),
    }
}

/// Returns the error text for elements that do not ascend. Messages that do have one field, a public
/// key. Tag and length are the same in each, so the messages' order is the keys' order.
#[cold]
const fn order_rule(field: &Field) -> &'static str {
    match field.kind {
        Kind::Message(_) => "must be strictly ascending by public key",
        _ => "must be strictly ascending",
    }
}

/// Index in the table of field `number`, which must not lie before `at`.
#[inline]
fn position_of(message: &Message, number: u64, at: usize) -> Result<usize, Problem> {
    message.fields[at..]
        .iter()
        .position(|field| u64::from(field.number) == number)
        .map(|ahead| at + ahead)
        .ok_or_else(|| not_ahead(message, number))
}

#[cold]
fn not_ahead(message: &Message, number: u64) -> Problem {
    let known = |field: &Field| u64::from(field.number) == number;
    if message.fields.iter().any(known) {
        Problem::Order
    } else if message.oneof_required == Some("body") && (20..64).contains(&number) {
        Problem::UnknownBody { number }
    } else {
        Problem::UnknownField { number }
    }
}

/// Leaves the fields `from..to` of the table behind: `elements` of the first one were there,
/// none of the others.
fn pass(
    message: &Message,
    from: usize,
    to: usize,
    elements: usize,
    path: Option<&Path<'_>>,
) -> Result<(), WireError> {
    for (index, field) in message.fields[from..to].iter().enumerate() {
        let found = if index == 0 { elements } else { 0 };
        match field.presence {
            Presence::Required if found == 0 => {
                return Err(fail(path, field.name, Problem::Missing));
            }
            Presence::Repeated { min, max } if found < min || found > max => {
                return Err(fail(path, field.name, Problem::Count { found, min, max }));
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_value<'a>(field: &Field, wire_type: u8, rest: &mut &'a [u8]) -> Result<Value<'a>, Problem> {
    let wanted = match field.kind {
        Kind::U64 | Kind::U32 | Kind::Bool | Kind::I64 { .. } | Kind::Enum { .. } => VARINT,
        Kind::Bytes { .. } | Kind::Text { .. } | Kind::Message(_) => LENGTH_DELIMITED,
    };
    if wire_type != wanted {
        return Err(Problem::WireType {
            found: wire_type,
            wanted,
        });
    }
    let number = varint(rest)?;
    if wanted == VARINT {
        return Ok(Value::Number(number));
    }
    let cut_off = Problem::CutOff {
        wanted: number,
        have: rest.len() as u64,
    };
    let length = usize::try_from(number).map_err(|_| cut_off.clone())?;
    let (value, after) = rest.split_at_checked(length).ok_or(cut_off)?;
    *rest = after;
    Ok(Value::Bytes(value))
}

fn check_value(field: &Field, value: Value<'_>) -> Result<(), Problem> {
    let may_be_default = !matches!(field.presence, Presence::Implicit | Presence::Required);
    match (field.kind, value) {
        (_, Value::Number(0)) if !may_be_default => Err(Problem::DefaultWritten),
        (_, Value::Bytes([])) if !may_be_default && !matches!(field.kind, Kind::Message(_)) => {
            Err(Problem::DefaultWritten)
        }
        (Kind::U32, Value::Number(value)) if value > u64::from(u32::MAX) => {
            Err(Problem::Range { value })
        }
        (Kind::Bool, Value::Number(value)) if value > 1 => Err(Problem::Range { value }),
        (Kind::I64 { non_negative: true }, Value::Number(value)) if value > i64::MAX as u64 => {
            Err(Problem::Range { value })
        }
        (Kind::Enum { max }, Value::Number(value)) if value > max => {
            Err(Problem::UnknownEnum { value })
        }
        (Kind::Bytes { min, max }, Value::Bytes(bytes)) => check_length(bytes, min, max),
        (
            Kind::Text {
                min,
                max,
                characters,
            },
            Value::Bytes(bytes),
        ) => {
            check_length(bytes, min, max)?;
            if text::has_only(characters, bytes) {
                Ok(())
            } else if std::str::from_utf8(bytes).is_err() {
                Err(Problem::NotUtf8)
            } else {
                Err(Problem::Rule(text::rule(characters)))
            }
        }
        _ => Ok(()),
    }
}

fn check_length(bytes: &[u8], min: usize, max: usize) -> Result<(), Problem> {
    let found = bytes.len();
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(Problem::Length { found, min, max })
    }
}

/// Reads a varint of at most 64 bits in its shortest form.
#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Problem> {
    // One byte: every tag but those of the bodies, every length but those of long texts.
    match *rest {
        [byte, after @ ..] if *byte < 0x80 => {
            *rest = after;
            Ok(u64::from(*byte))
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, Problem> {
    let mut value = 0_u64;
    for (index, &byte) in rest.iter().enumerate().take(10) {
        // The tenth byte holds bit 63 alone.
        if index == 9 && byte > 1 {
            return Err(Problem::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(Problem::Varint);
            }
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    // Ten bytes have returned above: the tenth ends the varint or makes it too long.
    Err(Problem::CutOff {
        wanted: rest.len() as u64 + 1,
        have: rest.len() as u64,
    })
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
