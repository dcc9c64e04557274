//! Objects to the bytes of their messages, and back.

use bytes::{Buf as _, Bytes};
use deed_proto::{
    rules::{COMMITMENT, Field, Kind, Message, Presence},
    v1,
};
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint},
};

use super::object::{Object, Value};

/// Encodes an object. Writes default values too if the object holds them; decoding gives them again.
pub(super) fn encode(object: &Object) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (field, value) in object.fields() {
        write(field.number, value, &mut bytes);
    }
    bytes
}

fn write(number: u32, value: &Value, to: &mut Vec<u8>) {
    let bytes = match value {
        Value::Number(value) => {
            encode_key(number, WireType::Varint, to);
            return encode_varint(*value, to);
        }
        Value::List(values) => return values.iter().for_each(|value| write(number, value, to)),
        Value::Bytes(bytes) => bytes.clone(),
        Value::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        Value::Object(object) => encode(object).into(),
        Value::Commitment(json) => v1::Commitment::from(json.clone()).encode_to_vec().into(),
    };
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.extend_from_slice(&bytes);
}

/// Decodes what was encoded from a value of this message, field by field.
pub(super) fn decode(message: &'static Message, mut bytes: Bytes) -> Object {
    let mut object = Object::new(message);
    while let Some((number, value)) = next(&mut bytes) {
        let field = message.fields.iter().find(|field| field.number == number);
        if let Some((field, value)) = field.and_then(|field| Some((field, read(field, value)?))) {
            match field.presence {
                Presence::Repeated { .. } => object.push(number, value),
                _ => object.set(number, value),
            }
        }
    }
    object
}

/// A field's value as it stands in the message.
enum Raw {
    Number(u64),
    Bytes(Bytes),
}

/// Takes a field off the bytes. Ends where they are not a message, which what was encoded from a
/// value never is.
fn next(bytes: &mut Bytes) -> Option<(u32, Raw)> {
    let (number, wire_type) = decode_key(bytes).ok()?;
    let value = decode_varint(bytes).ok()?;
    match wire_type {
        WireType::Varint => Some((number, Raw::Number(value))),
        WireType::LengthDelimited => {
            let length = usize::try_from(value).ok()?;
            let value = (length <= bytes.remaining()).then(|| bytes.split_to(length))?;
            Some((number, Raw::Bytes(value)))
        }
        _ => None,
    }
}

fn read(field: &Field, value: Raw) -> Option<Value> {
    Some(match (field.kind, value) {
        (Kind::Bytes { .. }, Raw::Bytes(bytes)) => Value::Bytes(bytes),
        (Kind::Text { .. }, Raw::Bytes(text)) => Value::Text(String::from_utf8(text.into()).ok()?),
        (Kind::Message(message), Raw::Bytes(bytes)) if std::ptr::eq(message, &COMMITMENT) => {
            Value::Commitment(v1::Commitment::decode(bytes).ok()?.into())
        }
        (Kind::Message(message), Raw::Bytes(bytes)) => Value::Object(decode(message, bytes)),
        (_, Raw::Number(number)) => Value::Number(number),
        (_, Raw::Bytes(_)) => return None,
    })
}
