//! Other encodings of a message: the same value in bytes that no Protobuf library writes, and bytes
//! that different parsers read differently.
//!
//! They are made from the compiled .proto files, so a field that is added is varied, too.

use std::collections::{BTreeSet, HashMap};

use deed_proto::v1;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// A field number that no message has, and that no body will ever get.
const NOBODYS_NUMBER: u64 = 4000;

/// A variant: another encoding of a message.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The changed field and the change, for example `intent.amount: field order`.
    pub what: String,
    /// The encoding.
    pub bytes: Vec<u8>,
    /// True if a lenient parser reads the same value.
    pub same_value: bool,
}

/// The descriptors of the messages.
#[derive(Debug)]
pub struct Schema(HashMap<String, DescriptorProto>);

impl Default for Schema {
    fn default() -> Self {
        Self::new()
    }
}

impl Schema {
    /// Reads the descriptors of deed.v1.
    ///
    /// # Panics
    /// If the descriptors cannot be read.
    #[must_use]
    pub fn new() -> Self {
        let set = FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).expect("descriptors");
        let messages = set.file.into_iter().flat_map(|file| {
            let package = file.package().to_owned();
            let named =
                move |message: DescriptorProto| (format!(".{package}.{}", message.name()), message);
            file.message_type.into_iter().map(named)
        });
        Self(messages.collect())
    }

    /// Returns the paths of all rpcs of deed.v1, as HTTP/2 requests name them.
    ///
    /// # Panics
    /// If the descriptors cannot be read.
    #[must_use]
    pub fn rpcs() -> Vec<String> {
        let set = FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).expect("descriptors");
        let mut paths = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let (package, service) = (file.package(), service.name());
                    paths.push(format!("/{package}.{service}/{}", method.name()));
                }
            }
        }
        paths
    }

    /// Returns every variant of a canonical message: each kind of change at each field, at every
    /// depth.
    ///
    /// # Panics
    /// If the message is not of this type.
    #[must_use]
    pub fn variants(&self, message: &str, canonical: &[u8]) -> Vec<Variant> {
        let mut found = self.below(&format!(".deed.v1.{message}"), canonical);
        let cut = &canonical[..canonical.len() - 1];
        found.push(variant("cut off", cut.to_vec(), false));
        found.push(variant("a byte more", [canonical, &[0]].concat(), false));
        found
    }

    fn below(&self, message: &str, canonical: &[u8]) -> Vec<Variant> {
        let descriptor = self.0.get(message).expect("a message of deed.v1");
        let fields = Field::split(canonical, descriptor);
        let mut found = Vec::new();
        order(&fields, &mut found);
        twice(&fields, &mut found);
        unknown(&fields, &mut found);
        overlong(&fields, &mut found);
        wrong_values(&fields, &mut found);
        defaults(&fields, descriptor, &mut found);
        one_of(&fields, descriptor, &mut found);
        for (at, field) in fields.iter().enumerate() {
            if field.descriptor.r#type() != Type::Message {
                continue;
            }
            for inner in self.below(field.descriptor.type_name(), &field.content) {
                let bytes = with(&fields, at, &[&field.with_content(&inner.bytes)]);
                let what = format!("{}.{}", field.descriptor.name(), inner.what);
                found.push(variant(&what, bytes, inner.same_value));
            }
        }
        found
    }
}

/// A field of an encoded message.
struct Field {
    descriptor: FieldDescriptorProto,
    wire_type: u64,
    /// The bytes of a varint, or of a content with a length before it.
    content: Vec<u8>,
}

impl Field {
    fn split(mut rest: &[u8], descriptor: &DescriptorProto) -> Vec<Self> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = take_varint(&mut rest);
            let number = i32::try_from(key >> 3).expect("a field number");
            let found = descriptor.field.iter().find(|f| f.number() == number);
            let wire_type = key & 7;
            let content = match wire_type {
                0 => {
                    let before = rest;
                    take_varint(&mut rest);
                    &before[..before.len() - rest.len()]
                }
                2 => {
                    let length = usize::try_from(take_varint(&mut rest)).expect("a length");
                    let (content, behind) = rest.split_at(length);
                    rest = behind;
                    content
                }
                other => panic!("wire type {other}"),
            };
            fields.push(Self {
                descriptor: found.expect("a known field").clone(),
                wire_type,
                content: content.to_vec(),
            });
        }
        fields
    }

    fn number(&self) -> u64 {
        number(&self.descriptor)
    }

    fn key(&self) -> Vec<u8> {
        varint(self.number() << 3 | self.wire_type)
    }

    fn encode(&self) -> Vec<u8> {
        self.with_content(&self.content)
    }

    fn with_content(&self, content: &[u8]) -> Vec<u8> {
        let mut out = self.key();
        if self.wire_type == 2 {
            out.extend(varint(content.len() as u64));
        }
        out.extend(content);
        out
    }

    fn is_repeated(&self) -> bool {
        self.descriptor.label() == Label::Repeated
    }
}

fn order(fields: &[Field], found: &mut Vec<Variant>) {
    for (at, pair) in fields.windows(2).enumerate() {
        if pair[0].number() == pair[1].number() {
            continue;
        }
        let mut bytes = join(&fields[..at]);
        bytes.extend(pair[1].encode());
        bytes.extend(pair[0].encode());
        bytes.extend(join(&fields[at + 2..]));
        found.push(of(&pair[0], "field order", bytes, true));
    }
}

fn twice(fields: &[Field], found: &mut Vec<Variant>) {
    for (at, field) in fields.iter().enumerate() {
        if field.is_repeated() {
            continue;
        }
        let once = field.encode();
        // The last one wins, but messages are merged: repeated fields in them come twice.
        let same = field.descriptor.r#type() != Type::Message;
        let bytes = with(fields, at, &[&once, &once]);
        found.push(of(field, "a duplicate field", bytes, same));
        let mut apart = join(fields);
        apart.extend(&once);
        found.push(of(field, "a duplicate field at the end", apart, same));
    }
}

fn unknown(fields: &[Field], found: &mut Vec<Variant>) {
    let key = |wire_type| varint(NOBODYS_NUMBER << 3 | wire_type);
    let all = [
        ("varint", [key(0), vec![1]].concat()),
        ("64 bits", [key(1), vec![0; 8]].concat()),
        ("bytes", [key(2), vec![1, b'x']].concat()),
        ("empty bytes", [key(2), vec![0]].concat()),
        ("group", [key(3), key(4)].concat()),
        ("32 bits", [key(5), vec![0; 4]].concat()),
    ];
    for (kind, field) in all {
        let what = format!("an unknown field, {kind}");
        found.push(variant(&what, [join(fields), field].concat(), true));
    }
}

fn overlong(fields: &[Field], found: &mut Vec<Variant>) {
    for (at, field) in fields.iter().enumerate() {
        let key = longer(&field.key()).expect("a short varint");
        let rest = &field.encode()[field.key().len()..];
        let bytes = with(fields, at, &[&key, rest]);
        found.push(of(field, "an overlong key", bytes, true));
        let (what, changed) = if field.wire_type == 2 {
            let length = longer(&varint(field.content.len() as u64)).expect("a short varint");
            (
                "an overlong length",
                [length, field.content.clone()].concat(),
            )
        } else {
            // A negative number has ten bytes already.
            let Some(value) = longer(&field.content) else {
                continue;
            };
            ("an overlong varint", value)
        };
        let bytes = with(fields, at, &[&field.key(), &changed]);
        found.push(of(field, what, bytes, true));
    }
}

fn wrong_values(fields: &[Field], found: &mut Vec<Variant>) {
    for (at, field) in fields.iter().enumerate() {
        if field.wire_type == 0 {
            let key = varint(field.number() << 3 | 1);
            let bytes = with(fields, at, &[&key, &[1; 8]]);
            found.push(of(field, "a wrong wire type", bytes, false));
        }
        if field.descriptor.r#type() == Type::Enum {
            let bytes = with(fields, at, &[&field.with_content(&[99])]);
            found.push(of(field, "an unknown enum value", bytes, false));
        }
        if field.descriptor.r#type() == Type::String {
            let mut text = field.content.clone();
            text[0] = 0xff;
            let bytes = with(fields, at, &[&field.with_content(&text)]);
            found.push(of(field, "no UTF-8", bytes, false));
        }
    }
}

fn defaults(fields: &[Field], descriptor: &DescriptorProto, found: &mut Vec<Variant>) {
    let present: BTreeSet<u64> = fields.iter().map(Field::number).collect();
    for absent in &descriptor.field {
        let explicit = absent.oneof_index.is_some() || absent.label() == Label::Repeated;
        let wire_type = match absent.r#type() {
            Type::Message => continue,
            Type::String | Type::Bytes => 2,
            _ => 0,
        };
        if explicit || present.contains(&number(absent)) {
            continue;
        }
        let written = [varint(number(absent) << 3 | wire_type), vec![0]].concat();
        let what = format!("{}: a default written out", absent.name());
        found.push(variant(&what, in_order(fields, absent, &written), true));
    }
}

fn one_of(fields: &[Field], descriptor: &DescriptorProto, found: &mut Vec<Variant>) {
    for field in fields {
        let (Some(oneof), false) = (
            field.descriptor.oneof_index,
            field.descriptor.proto3_optional(),
        ) else {
            continue;
        };
        let others = descriptor.field.iter();
        let others = others.filter(|other| other.oneof_index == Some(oneof));
        for other in others.filter(|other| other.number() != field.descriptor.number()) {
            let key = varint(number(other) << 3 | 2);
            let content: &[u8] = match other.r#type() {
                Type::Message => &[0],
                _ => &[1, b'x'],
            };
            let written = [&key, content].concat();
            let what = format!("{} too", other.name());
            let bytes = in_order(fields, other, &written);
            found.push(of(field, &what, bytes, false));
        }
    }
}

/// Returns a message with one more field, in its place.
fn in_order(fields: &[Field], descriptor: &FieldDescriptorProto, written: &[u8]) -> Vec<u8> {
    let at = fields.partition_point(|field| field.number() < number(descriptor));
    let (before, behind) = fields.split_at(at);
    [&join(before), written, &join(behind)].concat()
}

/// Returns a message with other bytes in place of one field.
fn with(fields: &[Field], at: usize, instead: &[&[u8]]) -> Vec<u8> {
    let instead = instead.concat();
    [&join(&fields[..at]), &instead[..], &join(&fields[at + 1..])].concat()
}

fn join(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(Field::encode).collect()
}

fn of(field: &Field, what: &str, bytes: Vec<u8>, same_value: bool) -> Variant {
    let what = format!("{}: {what}", field.descriptor.name());
    variant(&what, bytes, same_value)
}

fn variant(what: &str, bytes: Vec<u8>, same_value: bool) -> Variant {
    Variant {
        what: what.to_owned(),
        bytes,
        same_value,
    }
}

fn number(descriptor: &FieldDescriptorProto) -> u64 {
    u64::try_from(descriptor.number()).expect("a field number")
}

/// Encodes the shortest varint.
#[must_use]
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Returns the same number in one byte more; `None` if it has ten bytes already.
fn longer(varint: &[u8]) -> Option<Vec<u8>> {
    let (last, before) = varint.split_last()?;
    (varint.len() < 10).then(|| [before, &[last | 0x80, 0]].concat())
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().expect("a whole varint");
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint of more than 64 bits");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::{Producer, intent};
    use deed_evidence::LedgerId;
    use deed_tlog::Hash;

    /// A generator that makes nothing would prove nothing, and neither would variants that no
    /// parser reads.
    #[test]
    fn variants_are_other_bytes_of_the_same_value() {
        let producer = Producer::new(LedgerId::new(Hash::new([1; 32])), 1);
        let message = producer.message(intent("orders/1"));
        let canonical = message.encode_to_vec();
        let variants = Schema::new().variants("Statement", &canonical);
        for variant in &variants {
            assert_ne!(variant.bytes, canonical, "{}", variant.what);
            if variant.same_value {
                let read = v1::Statement::decode(&variant.bytes[..]);
                assert_eq!(read.as_ref(), Ok(&message), "{}", variant.what);
            }
        }
        for kind in [
            "producer: field order",
            "producer: a duplicate field",
            "intent.an unknown field, group",
            "session: an overlong length",
            "intent.action: an overlong key",
            "sequence: a default written out",
            "intent.deadline_us: a default written out",
            "intent: outcome too",
        ] {
            let has = variants.iter().any(|variant| variant.what == kind);
            assert!(has, "{kind} is missing");
        }
    }
}
