//! The rules of fields, generated from the options in the `.proto` files (`deed/v1/rules.proto`):
//! a table for each message that is hashed or signed, or that stands in one.
//!
//! `deed-evidence` walks over a message's bytes along its table, and `deed-client` reads and
//! writes JSON along it.

pub use crate::v1::Characters;

/// A message's fields and what has to hold for them.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name in the `.proto`, for example `TaskOpened`.
    pub name: &'static str,
    /// In ascending order of their numbers.
    pub fields: &'static [Field],
    /// The name of its oneof, if one field of that has to be there.
    pub oneof_required: Option<&'static str>,
    /// Its form in JSON.
    pub json: &'static JsonForm,
}

/// A field and its rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// Its name in the `.proto`.
    pub name: &'static str,
    /// Its type, and the rule for one value.
    pub kind: Kind,
    /// The number of values.
    pub presence: Presence,
    /// The elements of a repeated field are in strictly ascending order.
    pub ascending: bool,
}

/// The number of values that a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// May be absent; absent means the default.
    Implicit,
    /// Has to be there, with another value than the default.
    Required,
    /// `optional` in the `.proto`: zero may be written.
    Explicit,
    /// At most one of these in a message.
    OneOf,
    /// So many elements.
    Repeated {
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
}

/// A field's type, and the rule for one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `uint64`
    U64,
    /// `uint32`
    U32,
    /// Written only if true.
    Bool,
    /// Signed.
    I64 {
        /// Forbids the negative half.
        non_negative: bool,
    },
    /// Values 0 to `max` exist, without holes.
    Enum {
        /// The highest value.
        max: u64,
    },
    /// Bytes, in so many.
    Bytes {
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
    /// A text of so many bytes.
    Text {
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
        /// Those that may stand in it.
        characters: Characters,
    },
    /// Another message.
    Message(&'static Message),
}

/// A message's form in JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct JsonForm {
    /// The names of its fields, in the order in which they are written.
    pub names: &'static [&'static str],
    /// The same fields.
    pub fields: &'static [JsonField],
}

/// A field's form in JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct JsonField {
    /// Its index in [`Message::fields`].
    pub index: usize,
    /// It must be given, and is always written.
    pub required: bool,
    /// Short names of an enum's values, by number; the first is `unspecified`.
    pub values: &'static [&'static str],
}

/// A field of a body that commits to a content.
#[derive(Debug, PartialEq, Eq)]
pub struct CommitmentField {
    /// The body's number.
    pub body: u32,
    /// The field's number in the body.
    pub field: u32,
    /// Both names, for example `intent.arguments`: salts derive from it.
    pub name: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/rules.rs"));

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
