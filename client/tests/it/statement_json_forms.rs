//! The JSON of statements, to the byte: every body with every field and with the fewest, every
//! value of an enum, and every kind of refusal.

use std::collections::BTreeSet;

use bytes::Bytes;
use deed_client::statement_json::{Defaults, JsonError, StatementJson};
use deed_evidence::{LedgerId, Micros, Sequence, SessionId};
use deed_proto::{
    rules::{Field, JsonField, Kind, Message, STATEMENT},
    v1::{self, statement::Body},
};
use deed_tlog::Hash;
use prost::Message as _;
use serde_json::Value;

/// Pairs of lines: a statement in JSON as it is printed, and its encoding in hex.
const FORMS: &str = include_str!("statement_json_forms.txt");

/// Pairs of lines: what is refused, and the words of the refusal.
const REFUSALS: &str = include_str!("statement_json_refusals.txt");

fn read(json: &str) -> Result<v1::Statement, JsonError> {
    StatementJson::parse(json)?.into_statement(&Defaults {
        ledger_id: LedgerId::new(Hash::new([1; 32])),
        place: Some((SessionId::new([2; 16]), Sequence::new(7))),
        nonce: None,
        occurred_at: Micros::new(1234),
    })
}

fn pairs(text: &str) -> Vec<(&str, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks(2).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn every_body_is_read_and_printed_as_ever() {
    for (json, encoding) in pairs(FORMS) {
        let mut statement = read(json).unwrap();
        let is_ledgers = statement.producer == "deed:ledger";
        let is_genesis = matches!(statement.body, Some(Body::Genesis(_)));
        if is_ledgers || is_genesis {
            // Statements of the ledger are in no session; reading fills one in.
            (statement.session, statement.sequence) = (Bytes::new(), 0);
        }
        if is_genesis {
            statement.ledger_id = Bytes::new();
        }
        assert_eq!(hex::encode(statement.encode_to_vec()), encoding, "{json}");
        let printed = serde_json::to_string(&StatementJson::from(statement)).unwrap();
        assert_eq!(printed, json);
    }
}

/// serde takes these for any struct and any enum.
#[test]
fn values_without_names_are_read_as_ever() {
    for (json, plain) in [
        (
            r#"{"producer":"a:b","intent":["a","b",[1,"EUR"]]}"#,
            r#"{"producer":"a:b","intent":{"action":"a","resource":"b",
                "amount":{"minor_units":1,"currency":"EUR"}}}"#,
        ),
        (
            r#"{"producer":"a:b","task_closed":{"end":{"failed":null}}}"#,
            r#"{"producer":"a:b","task_closed":{"end":"failed"}}"#,
        ),
    ] {
        assert_eq!(read(json).unwrap(), read(plain).unwrap());
    }
}

#[test]
fn every_refusal_says_as_ever_what_is_wrong() {
    for (json, words) in pairs(REFUSALS) {
        let refusal = read(json).unwrap_err().to_string();
        assert_eq!(refusal, words, "{json}");
    }
}

/// Every field of every message that can stand in a statement, and every value of its enums.
fn all_of(message: &'static Message, found: &mut BTreeSet<String>) {
    for (field, form) in fields(message) {
        let is_new = found.insert(format!("{}.{}", message.name, field.name));
        for value in form.values.iter().skip(1) {
            found.insert(format!("{}.{} is {value}", message.name, field.name));
        }
        if let (Kind::Message(inner), true) = (field.kind, is_new) {
            all_of(inner, found);
        }
    }
}

/// The same, of those that stand in `json`.
fn standing_in(json: &Value, message: &'static Message, found: &mut BTreeSet<String>) {
    for (field, form) in fields(message) {
        let Some(value) = json.get(field.name) else {
            continue;
        };
        found.insert(format!("{}.{}", message.name, field.name));
        if !form.values.is_empty() {
            let value = value.as_str().unwrap();
            found.insert(format!("{}.{} is {value}", message.name, field.name));
        }
        if let Kind::Message(inner) = field.kind {
            match value {
                Value::Array(values) => {
                    for value in values {
                        standing_in(value, inner, found);
                    }
                }
                value => standing_in(value, inner, found),
            }
        }
    }
}

fn fields(message: &Message) -> impl Iterator<Item = (&Field, &JsonField)> {
    let forms = message.json.fields.iter();
    forms.map(|form| (&message.fields[form.index], form))
}

/// A new field or body has a line among the forms.
#[test]
fn every_field_and_every_value_stands_in_the_forms() {
    let (mut all, mut found) = (BTreeSet::new(), BTreeSet::new());
    all_of(&STATEMENT, &mut all);
    for (json, _) in pairs(FORMS) {
        standing_in(&serde_json::from_str(json).unwrap(), &STATEMENT, &mut found);
    }
    assert_eq!(all, found);
}
