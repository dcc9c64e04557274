//! A message as a JSON object, along its table in [`deed_proto::rules`].

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use deed_proto::rules::{COMMITMENT, Field, JsonField, Kind, Message, Presence, STATEMENT, number};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess as _, Visitor},
    ser::SerializeMap as _,
};

use super::{commitment::CommitmentJson, hex_bytes::HexBytes};

/// The fields of a message that stand in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    message: &'static Message,
    /// Values by field number.
    fields: BTreeMap<u32, Value>,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A number as its varint has it: negative ones in two's complement, booleans as 0 and 1, enums
    /// by their numbers.
    Number(u64),
    Bytes(Bytes),
    Text(String),
    Object(Object),
    Commitment(CommitmentJson),
    List(Vec<Value>),
}

/// Header fields that have no default: the producer's client fills them in. `null` is the same as
/// leaving them out.
const FILLED_IN: [u32; 5] = [
    number::LEDGER_ID,
    number::SESSION,
    number::SEQUENCE,
    number::OCCURRED_AT_US,
    number::NONCE,
];

impl Object {
    pub(super) const fn new(message: &'static Message) -> Self {
        Self {
            message,
            fields: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Value> {
        self.fields.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Value> {
        self.fields.get_mut(&number)
    }

    pub(super) fn set(&mut self, number: u32, value: Value) {
        self.fields.insert(number, value);
    }

    /// Adds an element to a repeated field.
    pub(super) fn push(&mut self, number: u32, element: Value) {
        match self.fields.get_mut(&number) {
            Some(Value::List(elements)) => elements.push(element),
            _ => self.set(number, Value::List(vec![element])),
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.fields.remove(&number);
    }

    pub(super) fn number(&self, number: u32) -> Option<u64> {
        match self.get(number) {
            Some(Value::Number(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn bytes(&self, number: u32) -> Option<&Bytes> {
        match self.get(number) {
            Some(Value::Bytes(value)) => Some(value),
            _ => None,
        }
    }

    pub(super) fn text(&self, number: u32) -> Option<&str> {
        match self.get(number) {
            Some(Value::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// Fields that are in the message's oneof, with their values.
    pub(super) fn one_of(&self) -> impl Iterator<Item = (&'static Field, &Value)> {
        let fields = self.message.fields.iter();
        fields
            .filter(|field| field.presence == Presence::OneOf)
            .filter_map(|field| Some((field, self.get(field.number)?)))
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static Field, &Value)> {
        let fields = self.message.fields.iter();
        fields.filter_map(|field| Some((field, self.get(field.number)?)))
    }

    fn json_fields(&self) -> impl Iterator<Item = (&'static Field, &'static JsonField)> {
        let message = self.message;
        let forms = message.json.fields.iter();
        forms.map(|form| (&message.fields[form.index], form))
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, form) in self.json_fields() {
            let value = self.get(field.number);
            if value.is_some() || form.required {
                map.serialize_entry(field.name, &Shown { field, form, value })?;
            }
        }
        map.end()
    }
}

/// A value on its way out; the default where there is none.
struct Shown<'a> {
    field: &'static Field,
    form: &'static JsonField,
    value: Option<&'a Value>,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = match self.value {
            Some(Value::Bytes(bytes)) => {
                return HexBytes::from(bytes.clone()).serialize(serializer);
            }
            Some(Value::Text(text)) => return serializer.serialize_str(text),
            Some(Value::Object(object)) => return object.serialize(serializer),
            Some(Value::Commitment(commitment)) => return commitment.serialize(serializer),
            Some(Value::List(values)) => {
                return serializer.collect_seq(values.iter().map(|value| Self {
                    value: Some(value),
                    ..*self
                }));
            }
            Some(Value::Number(number)) => *number,
            None if matches!(self.field.presence, Presence::Repeated { .. }) => {
                return serializer.collect_seq(std::iter::empty::<u64>());
            }
            None => 0,
        };
        match self.field.kind {
            Kind::U64 | Kind::U32 => serializer.serialize_u64(number),
            Kind::I64 { .. } => serializer.serialize_i64(number.cast_signed()),
            Kind::Bool => serializer.serialize_bool(number != 0),
            Kind::Enum { .. } => {
                let known = usize::try_from(number).ok();
                let name = known.and_then(|number| self.form.values.get(number));
                serializer.serialize_str(name.copied().unwrap_or(UNSPECIFIED))
            }
            Kind::Bytes { .. } | Kind::Text { .. } => serializer.serialize_str(""),
            Kind::Message(_) => serializer.serialize_unit(),
        }
    }
}

/// Stands for what no enum has; shown, never taken.
const UNSPECIFIED: &str = "unspecified";

/// Reads an object of this message.
#[derive(Clone, Copy)]
pub(super) struct ObjectOf(pub(super) &'static Message);

impl<'de> DeserializeSeed<'de> for ObjectOf {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_struct(self.0.name, self.0.json.names, self)
    }
}

impl<'de> Visitor<'de> for ObjectOf {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the fields of {}", self.0.name)
    }

    /// Takes the values without their names, as serde does everywhere.
    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Object, A::Error> {
        let mut object = Object::new(self.0);
        for (position, form) in self.0.json.fields.iter().enumerate() {
            let value = ValueOf::new(self.0, form);
            let given = match value.may_be_null() {
                true => values.next_element_seed(OrNull(value))?,
                false => values.next_element_seed(value)?.map(Some),
            };
            match given {
                Some(Some(given)) => object.set(value.field.number, given),
                None if form.required => return Err(de::Error::invalid_length(position, &self)),
                Some(None) | None => {}
            }
        }
        Ok(object)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut object = Object::new(self.0);
        let mut given = vec![false; self.0.fields.len()];
        while let Some(form) = map.next_key_seed(NameOf(self.0))? {
            let field = &self.0.fields[form.index];
            if std::mem::replace(&mut given[form.index], true) {
                return Err(de::Error::duplicate_field(field.name));
            }
            let value = ValueOf::new(self.0, form);
            let value = if value.may_be_null() {
                map.next_value_seed(OrNull(value))?
            } else {
                Some(map.next_value_seed(value)?)
            };
            if let Some(value) = value {
                object.set(field.number, value);
            }
        }
        let missing = self.0.json.fields.iter().find(|form| {
            let may_miss = !form.required || ValueOf::new(self.0, form).may_be_null();
            !may_miss && !given[form.index]
        });
        match missing {
            Some(form) => Err(de::Error::missing_field(self.0.fields[form.index].name)),
            None => Ok(object),
        }
    }
}

/// Reads the name of one of the message's fields.
struct NameOf(&'static Message);

impl<'de> DeserializeSeed<'de> for NameOf {
    type Value = &'static JsonField;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameOf {
    type Value = &'static JsonField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let json = self.0.json;
        let position = json.names.iter().position(|known| *known == name);
        position
            .map(|position| &json.fields[position])
            .ok_or_else(|| de::Error::unknown_field(name, json.names))
    }
}

/// Reads a field's value.
#[derive(Clone, Copy)]
struct ValueOf {
    field: &'static Field,
    form: &'static JsonField,
    is_filled_in: bool,
}

impl ValueOf {
    fn new(message: &'static Message, form: &'static JsonField) -> Self {
        let field = &message.fields[form.index];
        let is_header = std::ptr::eq(message, &STATEMENT);
        Self {
            field,
            form,
            is_filled_in: is_header && FILLED_IN.contains(&field.number),
        }
    }

    /// Returns true if `null` says that it is absent, and so does nothing at all. A message that is
    /// missing is found when the statement is encoded.
    fn may_be_null(self) -> bool {
        match self.field.presence {
            _ if self.is_filled_in => true,
            Presence::Explicit | Presence::OneOf => true,
            Presence::Repeated { .. } => false,
            Presence::Implicit | Presence::Required => matches!(self.field.kind, Kind::Message(_)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueOf {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.field.presence {
            Presence::Repeated { .. } => deserializer.deserialize_seq(ListOf(self)),
            _ => ElementOf(self).deserialize(deserializer),
        }
    }
}

struct OrNull(ValueOf);

impl<'de> DeserializeSeed<'de> for OrNull {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OrNull {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("option")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

struct ListOf(ValueOf);

impl<'de> Visitor<'de> for ListOf {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(ElementOf(self.0))? {
            values.push(value);
        }
        Ok(Value::List(values))
    }
}

/// Reads one value, of a repeated field or of another.
struct ElementOf(ValueOf);

impl<'de> DeserializeSeed<'de> for ElementOf {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Ok(match self.0.field.kind {
            Kind::U64 => Value::Number(u64::deserialize(from)?),
            Kind::U32 => Value::Number(u32::deserialize(from)?.into()),
            Kind::I64 { .. } => Value::Number(i64::deserialize(from)?.cast_unsigned()),
            Kind::Bool => Value::Number(bool::deserialize(from)?.into()),
            Kind::Enum { .. } => {
                let values = &self.0.form.values[1..];
                Value::Number(from.deserialize_enum(self.0.field.name, values, EnumOf(values))?)
            }
            Kind::Bytes { .. } => Value::Bytes(HexBytes::deserialize(from)?.into()),
            Kind::Text { .. } => Value::Text(String::deserialize(from)?),
            Kind::Message(message) if std::ptr::eq(message, &COMMITMENT) => {
                Value::Commitment(CommitmentJson::deserialize(from)?)
            }
            Kind::Message(message) => Value::Object(ObjectOf(message).deserialize(from)?),
        })
    }
}

/// Reads the name of one of these values, and gives its number: the first has 1.
#[derive(Clone, Copy)]
struct EnumOf(&'static [&'static str]);

impl<'de> Visitor<'de> for EnumOf {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.0.join(", "))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<u64, A::Error> {
        let (number, nothing) = data.variant_seed(self)?;
        nothing.unit_variant()?;
        Ok(number)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<u64, E> {
        let known = self.0.iter().zip(1..).find(|(known, _)| **known == name);
        known
            .map(|(_, number)| number)
            .ok_or_else(|| de::Error::unknown_variant(name, self.0))
    }
}

impl<'de> DeserializeSeed<'de> for EnumOf {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}
