//! The tables against the compiled `.proto` files: what they declare, and the options in them.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    OneofDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::*;
use crate::v1::{self, FieldRule};

/// A descriptor set as far as the options go. (The messages of prost-types have no place for options
/// of our own.)
#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Declared>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Declared {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<DeclaredField>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeclaredField {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "8")]
    options: Option<FieldOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldOptions {
    #[prost(message, optional, tag = "50120")]
    rule: Option<FieldRule>,
}

/// Every table, by the name of its message.
fn tables() -> BTreeMap<&'static str, &'static Message> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![&STATEMENT, &BATCH_MANIFEST, &ENTRY];
    while let Some(table) = ahead.pop() {
        if found.insert(table.name, table).is_none() {
            ahead.extend(table.fields.iter().filter_map(|field| match field.kind {
                Kind::Message(inner) => Some(inner),
                _ => None,
            }));
        }
    }
    found
}

fn rules() -> BTreeMap<(String, String), Option<FieldRule>> {
    let mut rules = BTreeMap::new();
    let set = Files::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
    for message in set.files.into_iter().flat_map(|file| file.messages) {
        for field in message.fields {
            let rule = field.options.and_then(|options| options.rule);
            rules.insert((message.name.clone(), field.name), rule);
        }
    }
    rules
}

/// Messages that are hashed or signed start here.
const ROOTS: [&str; 3] = ["Statement", "BatchManifest", "Entry"];

/// The compiled .proto files, by the full names that descriptors refer to.
struct Protos {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, BTreeSet<i32>>,
}

impl Protos {
    fn compiled() -> Self {
        let set = FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
        let mut protos = Self {
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
        };
        for file in set.file {
            let package = file.package().to_owned();
            for message in file.message_type {
                let name = format!(".{package}.{}", message.name());
                protos.messages.insert(name, message);
            }
            for of in file.enum_type {
                let values = of
                    .value
                    .iter()
                    .map(EnumValueDescriptorProto::number)
                    .collect();
                protos
                    .enums
                    .insert(format!(".{package}.{}", of.name()), values);
            }
        }
        protos
    }

    fn message(&self, name: &str) -> &DescriptorProto {
        &self.messages[&format!(".deed.v1.{name}")]
    }

    fn reachable(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut ahead: Vec<String> = ROOTS.map(|name| format!(".deed.v1.{name}")).into();
        while let Some(name) = ahead.pop() {
            let inner = self.messages[&name]
                .field
                .iter()
                .filter(|field| field.r#type() == Type::Message)
                .map(|field| field.type_name().to_owned());
            if !found.contains(&name) {
                ahead.extend(inner);
                found.insert(name);
            }
        }
        found
    }
}

#[test]
fn every_reachable_message_has_a_table_and_no_other() {
    let protos = Protos::compiled();
    let names = tables().into_keys();
    let names: BTreeSet<String> = names.map(|name| format!(".deed.v1.{name}")).collect();
    assert_eq!(names, protos.reachable());
    assert_eq!(names.len(), 41);
}

#[test]
fn tables_and_protos_agree_on_every_field() {
    let protos = Protos::compiled();
    let mut fields = 0;
    for (name, table) in tables() {
        let proto = protos.message(name);
        // What could be in a message and that the tables have no word for.
        assert!(proto.extension_range.is_empty() && proto.extension.is_empty());
        assert!(proto.nested_type.is_empty() && proto.enum_type.is_empty());
        let mut declared: Vec<_> = proto.field.iter().collect();
        declared.sort_by_key(|field| field.number());
        let numbers: Vec<i64> = declared.iter().map(|f| f.number().into()).collect();
        let in_table: Vec<i64> = table.fields.iter().map(|f| f.number.into()).collect();
        assert_eq!(in_table, numbers, "{name}: the fields, in ascending order");
        for (field, declared) in table.fields.iter().zip(declared) {
            agrees(&protos, name, proto, field, declared);
            fields += 1;
        }
    }
    // A test that compares nothing passes too.
    let declared: usize = protos
        .reachable()
        .iter()
        .map(|name| protos.messages[name].field.len())
        .sum();
    assert_eq!(fields, declared);
    assert!(fields >= 190, "{fields} fields");
}

fn agrees(
    protos: &Protos,
    message: &str,
    proto: &DescriptorProto,
    field: &Field,
    declared: &FieldDescriptorProto,
) {
    let at = format!("{message}.{}", field.name);
    assert_eq!(field.name, declared.name(), "{at}: name");

    let repeated = matches!(field.presence, Presence::Repeated { .. });
    let label = if repeated {
        Label::Repeated
    } else {
        Label::Optional
    };
    assert_eq!(declared.label(), label, "{at}: label");
    let explicit = field.presence == Presence::Explicit;
    assert_eq!(declared.proto3_optional(), explicit, "{at}: optional");
    // The compiler makes a oneof for each `optional` field, too.
    let in_oneof = declared.oneof_index.is_some() && !declared.proto3_optional();
    assert_eq!(in_oneof, field.presence == Presence::OneOf, "{at}: oneof");

    let wanted = match field.kind {
        Kind::U64 => Type::Uint64,
        Kind::U32 => Type::Uint32,
        Kind::Bool => Type::Bool,
        Kind::I64 { .. } => Type::Int64,
        Kind::Enum { .. } => Type::Enum,
        Kind::Bytes { .. } => Type::Bytes,
        Kind::Text { .. } => Type::String,
        Kind::Message(_) => Type::Message,
    };
    assert_eq!(declared.r#type(), wanted, "{at}: type");
    match field.kind {
        Kind::Enum { max } => {
            let values = &protos.enums[declared.type_name()];
            let without_holes = (0..=i32::try_from(max).unwrap()).collect();
            assert_eq!(values, &without_holes, "{at}: enum values");
        }
        Kind::Message(inner) => {
            let name = format!(".deed.v1.{}", inner.name);
            assert_eq!(declared.type_name(), name, "{at}: type");
        }
        _ => {}
    }
    // The walk knows of one oneof a message; which one matters where it is required.
    if field.presence == Presence::OneOf {
        let oneofs: Vec<_> = proto
            .oneof_decl
            .iter()
            .filter(|oneof| !oneof.name().starts_with('_'))
            .map(OneofDescriptorProto::name)
            .collect();
        assert_eq!(oneofs.len(), 1, "{message}: oneofs");
        assert_eq!(
            declared.oneof_index,
            Some(0),
            "{at}: the oneof that was declared"
        );
    }
}

#[test]
fn a_required_oneof_exists() {
    let protos = Protos::compiled();
    let required: Vec<_> = tables()
        .into_iter()
        .filter_map(|(name, table)| Some((name, table.oneof_required?)))
        .collect();
    assert_eq!(required, [("Statement", "body")]);
    for (name, oneof) in required {
        assert_eq!(protos.message(name).oneof_decl[0].name(), oneof);
    }
}

/// What the walk takes for granted about a table.
#[test]
fn tables_are_what_the_walk_relies_on() {
    for (name, table) in tables() {
        assert!(!table.fields.is_empty(), "{name}");
        for field in table.fields {
            let at = format!("{name}.{}", field.name);
            match field.kind {
                // Zero bytes are the default, which is left out: a rule that allows them would
                // say nothing.
                Kind::Bytes { min, max } | Kind::Text { min, max, .. } => {
                    assert!(1 <= min && min <= max, "{at}");
                }
                // Nobody needs a `oneof` of numbers, where a zero would be written.
                Kind::U64 | Kind::U32 | Kind::Bool | Kind::I64 { .. } | Kind::Enum { .. } => {
                    assert!(field.presence != Presence::OneOf, "{at}");
                }
                Kind::Message(_) => assert!(field.presence != Presence::Explicit, "{at}"),
            }
            if let Presence::Repeated { min, max } = field.presence {
                assert!(min <= max, "{at}");
                // Numbers would be packed, which the walk does not read.
                let delimited = matches!(
                    field.kind,
                    Kind::Message(_) | Kind::Bytes { .. } | Kind::Text { .. }
                );
                assert!(delimited, "{at}");
            }
            if field.ascending {
                ascends(field, &at);
            }
        }
    }
}

/// The walk compares the bytes of elements. Of messages that is right where there is one field, of one
/// length; and the walk's answer calls that a public key.
fn ascends(field: &Field, at: &str) {
    assert!(matches!(field.presence, Presence::Repeated { .. }), "{at}");
    let Kind::Message(element) = field.kind else {
        return;
    };
    let [only] = element.fields else {
        panic!("{at}: one field")
    };
    let Kind::Bytes { min, max } = only.kind else {
        panic!("{at}: of bytes")
    };
    assert_eq!((min, only.name), (max, "public_key"), "{at}");
}

/// In the descriptors that reflection serves, too.
#[test]
fn every_field_has_a_rule_or_says_that_it_is_free() {
    let rules = rules();
    let mut with_rule = 0;
    for (name, table) in tables() {
        for field in table.fields {
            let at = format!("{name}.{}", field.name);
            let rule = &rules[&(name.to_owned(), field.name.to_owned())];
            let Some(rule) = rule else {
                let single = !matches!(field.presence, Presence::Repeated { .. });
                let has_its_own = matches!(field.kind, Kind::Message(_)) && single;
                assert!(has_its_own, "{at} has no rule");
                continue;
            };
            assert_ne!(rule, &FieldRule::default(), "{at}");
            assert_eq!(&declared(field, json(table, field)), rule, "{at}");
            with_rule += 1;
        }
    }
    assert!(with_rule >= 140, "{with_rule}");
}

fn json(table: &Message, field: &Field) -> &'static JsonField {
    let forms = table.json.fields.iter();
    forms
        .clone()
        .find(|form| table.fields[form.index].name == field.name)
        .unwrap()
}

/// The rule that a table's row comes from.
fn declared(field: &Field, form: &JsonField) -> FieldRule {
    let mut rule = FieldRule {
        required: field.presence == Presence::Required,
        ascending: field.ascending,
        ..FieldRule::default()
    };
    let number = |number: usize| u32::try_from(number).unwrap();
    if let Presence::Repeated { min, max } = field.presence {
        (rule.min_count, rule.max_count) = (number(min), number(max));
    }
    match field.kind {
        Kind::Bytes { min, max } | Kind::Text { min, max, .. } if min == max => {
            rule.bytes = number(min);
        }
        Kind::Bytes { min, max } | Kind::Text { min, max, .. } => {
            rule.min_bytes = if min == 1 { 0 } else { number(min) };
            rule.max_bytes = number(max);
        }
        Kind::I64 { non_negative } => rule.not_negative = non_negative,
        _ => {}
    }
    if let Kind::Text { characters, .. } = field.kind {
        rule.set_characters(characters);
    }
    rule.json_required = form.required && !rule.required && rule.min_count == 0;
    let says_nothing = FieldRule {
        json_required: rule.json_required,
        ..FieldRule::default()
    };
    rule.free = rule == says_nothing;
    rule
}

#[test]
fn every_field_has_one_form_in_json() {
    for (name, table) in tables() {
        let mut indexes: Vec<_> = table.json.fields.iter().map(|form| form.index).collect();
        for (written, &index) in table.json.names.iter().zip(&indexes) {
            assert_eq!(*written, table.fields[index].name, "{name}");
        }
        indexes.sort_unstable();
        assert!(indexes.into_iter().eq(0..table.fields.len()), "{name}");
        for form in table.json.fields {
            let max = match table.fields[form.index].kind {
                Kind::Enum { max } => Some(max),
                _ => None,
            };
            let values = form.values.len().checked_sub(1);
            assert_eq!(values.map(|last| last as u64), max, "{name}");
            let first = form.values.first();
            assert!(first.is_none_or(|first| *first == "unspecified"), "{name}");
        }
    }
}

/// Both lists of bodies are the statement's.
#[test]
fn every_body_is_handed_on() {
    macro_rules! collect {
        ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal;)*) => {
            [$((stringify!($kind), $number, $name)),*]
        };
    }
    let bodies: Vec<(&str, u32, &str)> = statement_bodies!(collect).to_vec();
    let in_table: Vec<_> = STATEMENT
        .fields
        .iter()
        .filter_map(|field| match (field.kind, field.presence) {
            (Kind::Message(body), Presence::OneOf) => Some((body.name, field.number, field.name)),
            _ => None,
        })
        .collect();
    assert_eq!(bodies, in_table);
}
