//! Changes to encoded messages: blind ones to bytes, and ones that know fields, at every depth.

use proptest::{
    prelude::*,
    sample::{Index, select},
};

/// A field as it stands in a message.
#[derive(Debug, Clone)]
struct Item {
    number: u64,
    /// Bytes that tag, length and value are longer than they have to be.
    padding: [usize; 3],
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Number(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Nested(Vec<Item>),
    Group,
}

/// Reads a message; whatever has the form of messages is taken for such, which is right often
/// enough: texts that are taken apart are put together again.
fn read(mut rest: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        let tag = prost::encoding::decode_varint(&mut rest).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(prost::encoding::decode_varint(&mut rest).ok()?),
            2 => {
                let length = prost::encoding::decode_varint(&mut rest).ok()?;
                let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                rest = after;
                match read(bytes) {
                    Some(items) if !items.is_empty() => Value::Nested(items),
                    _ => Value::Bytes(bytes.to_vec()),
                }
            }
            _ => return None,
        };
        items.push(Item {
            number: tag >> 3,
            padding: [0; 3],
            value,
        });
    }
    Some(items)
}

fn varint(mut value: u64, padding: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    if padding == 0 {
        out.push(value as u8);
    } else {
        out.push(value as u8 | 0x80);
        out.extend(std::iter::repeat_n(0x80, padding - 1));
        out.push(0);
    }
}

fn write(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let wire_type = match item.value {
            Value::Number(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) | Value::Nested(_) => 2,
            Value::Group => 3,
            Value::Fixed32(_) => 5,
        };
        let [tag, length, number] = item.padding;
        varint(item.number << 3 | wire_type, tag, &mut out);
        match &item.value {
            Value::Number(value) => varint(*value, number, &mut out),
            Value::Fixed64(bytes) => out.extend(bytes),
            Value::Fixed32(bytes) => out.extend(bytes),
            Value::Bytes(bytes) => {
                varint(bytes.len() as u64, length, &mut out);
                out.extend(bytes);
            }
            Value::Nested(items) => {
                let bytes = write(items);
                varint(bytes.len() as u64, length, &mut out);
                out.extend(bytes);
            }
            Value::Group => varint(item.number << 3 | 4, 0, &mut out),
        }
    }
    out
}

/// A change. Which field, which byte: as far as there are any.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, u8),
    Delete(Index),
    Truncate(Index),
    Field {
        /// Which message: the whole one, or one within.
        level: Index,
        field: Index,
        change: Change,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Duplicate,
    Repeat(usize),
    Swap(Index),
    Remove,
    Pad(usize, usize),
    Number(u64),
    Default,
    Length(usize),
    Renumber(u64),
    Unknown(u64, u8),
    Retype(u8),
    WriteDefault(u64, bool),
    NestedNothing,
    NotUtf8,
    Control,
}

impl Mutation {
    pub(crate) fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        if out.is_empty() {
            return out;
        }
        match self {
            Self::Flip(at, bit) => out[at.index(bytes.len())] ^= 1 << (bit % 8),
            Self::Set(at, byte) => out[at.index(bytes.len())] = *byte,
            Self::Insert(at, byte) => out.insert(at.index(bytes.len() + 1), *byte),
            Self::Delete(at) => drop(out.remove(at.index(bytes.len()))),
            Self::Truncate(at) => out.truncate(at.index(bytes.len())),
            Self::Field {
                level,
                field,
                change,
            } => {
                if let Some(mut items) = read(bytes) {
                    let levels = count_levels(&items);
                    at_level(&mut items, &mut level.index(levels), &mut |items| {
                        change.apply(items, field);
                    });
                    return write(&items);
                }
            }
        }
        out
    }
}

fn count_levels(items: &[Item]) -> usize {
    let below = |item: &Item| match &item.value {
        Value::Nested(items) => count_levels(items),
        _ => 0,
    };
    1 + items.iter().map(below).sum::<usize>()
}

/// Changes the message number `skip`, in depth-first order.
fn at_level(items: &mut Vec<Item>, skip: &mut usize, change: &mut dyn FnMut(&mut Vec<Item>)) {
    if *skip == 0 {
        change(items);
        // Far enough that no later one is meant.
        *skip = usize::MAX;
        return;
    }
    *skip -= 1;
    for item in items {
        if let Value::Nested(inner) = &mut item.value {
            at_level(inner, skip, change);
        }
    }
}

impl Change {
    fn apply(&self, items: &mut Vec<Item>, field: &Index) {
        if items.is_empty() {
            return;
        }
        let at = field.index(items.len());
        let item = &mut items[at];
        match self {
            Self::Duplicate => {
                let copy = item.clone();
                items.insert(at, copy);
            }
            Self::Repeat(times) => {
                let copy = item.clone();
                items.splice(at..at, std::iter::repeat_n(copy, *times));
            }
            Self::Swap(other) => {
                let other = other.index(items.len());
                items.swap(at, other);
            }
            Self::Remove => drop(items.remove(at)),
            Self::Pad(which, by) => item.padding[which % 3] = by % 10,
            Self::Number(number) => {
                // Of a field that is a number, where there is one.
                let numbers: Vec<usize> = (0..items.len())
                    .filter(|&at| matches!(items[at].value, Value::Number(_)))
                    .collect();
                let at = match numbers.as_slice() {
                    [] => at,
                    numbers => numbers[field.index(numbers.len())],
                };
                items[at].value = Value::Number(*number);
            }
            Self::Default => match item.value {
                Value::Number(_) => item.value = Value::Number(0),
                _ => item.value = Value::Bytes(Vec::new()),
            },
            Self::Length(length) => {
                if let Value::Bytes(bytes) = &mut item.value {
                    bytes.resize(*length, b'x');
                }
            }
            Self::Renumber(number) => item.number = *number,
            Self::Unknown(number, kind) => {
                let value = match kind % 5 {
                    0 => Value::Number(1),
                    1 => Value::Bytes(b"x".to_vec()),
                    2 => Value::Fixed32([1; 4]),
                    3 => Value::Fixed64([1; 8]),
                    _ => Value::Group,
                };
                items.insert(at, new(*number, value));
                items.sort_by_key(|item| item.number);
            }
            Self::Retype(kind) => {
                item.value = match kind % 3 {
                    0 => Value::Fixed64([1; 8]),
                    1 => Value::Fixed32([1; 4]),
                    _ => Value::Group,
                }
            }
            Self::WriteDefault(number, text) => {
                let value = if *text {
                    Value::Bytes(Vec::new())
                } else {
                    Value::Number(0)
                };
                if items.iter().all(|item| item.number != *number) {
                    items.push(new(*number, value));
                    items.sort_by_key(|item| item.number);
                }
            }
            Self::NestedNothing => item.value = Value::Nested(Vec::new()),
            Self::NotUtf8 => item.value = Value::Bytes(b"a\xc0\x80".to_vec()),
            Self::Control => item.value = Value::Bytes("a\u{85}".into()),
        }
    }
}

const fn new(number: u64, value: Value) -> Item {
    Item {
        number,
        padding: [0; 3],
        value,
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let field_number = || prop_oneof![8 => 0..66_u64, 1 => any::<u64>().prop_map(|n| n >> 3)];
    prop_oneof![
        Just(Change::Duplicate),
        select(vec![15, 16, 63, 64, 65]).prop_map(Change::Repeat),
        any::<Index>().prop_map(Change::Swap),
        Just(Change::Remove),
        (any::<usize>(), 1..10_usize).prop_map(|(which, by)| Change::Pad(which, by)),
        crate::statements::number().prop_map(Change::Number),
        (0..8_u64).prop_map(Change::Number),
        // Negative, and too large for 32 bits.
        select(vec![u64::MAX, 1 << 63, 1 << 31, 1 << 32, (1 << 32) + 1]).prop_map(Change::Number),
        Just(Change::Default),
        prop_oneof![0..40_usize, 250..260_usize, 0..1100_usize].prop_map(Change::Length),
        field_number().prop_map(Change::Renumber),
        (field_number(), any::<u8>()).prop_map(|(number, kind)| Change::Unknown(number, kind)),
        any::<u8>().prop_map(Change::Retype),
        (1..50_u64, any::<bool>()).prop_map(|(number, text)| Change::WriteDefault(number, text)),
        Just(Change::NestedNothing),
        Just(Change::NotUtf8),
        Just(Change::Control),
    ]
}

/// A change of any kind, at any place.
pub(crate) fn any_mutation() -> impl Strategy<Value = Mutation> {
    let field = (any::<Index>(), any::<Index>(), any_change());
    let blind = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Delete),
        any::<Index>().prop_map(Mutation::Truncate),
    ];
    prop_oneof![
        1 => blind,
        2 => field.prop_map(|(level, field, change)| Mutation::Field { level, field, change }),
    ]
}

/// What is taken apart and not changed is put together to the same bytes.
#[test]
fn taking_apart_changes_nothing() {
    for (name, statement) in crate::fixtures::all() {
        let bytes = prost::Message::encode_to_vec(&statement);
        let items = read(&bytes).unwrap();
        assert!(count_levels(&items) > 1, "{name}");
        assert_eq!(write(&items), bytes, "{name}");
    }
}
