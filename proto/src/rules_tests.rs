//! The tables against the options in the compiled `.proto` files.

use std::collections::BTreeMap;

use prost::Message as _;

use super::*;
use crate::v1::{self, FieldRule};

/// A descriptor set as far as the rules go. (The messages of prost-types have no place for options
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
