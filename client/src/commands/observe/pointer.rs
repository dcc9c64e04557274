//! Values of a record: JSON pointers, and templates of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// A JSON pointer (RFC 6901), not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer(String);

impl Pointer {
    /// What it points to; `None` if there is nothing, or null.
    pub(super) fn value<'a>(&self, record: &'a Value) -> Option<&'a Value> {
        record.pointer(&self.0).filter(|value| !value.is_null())
    }

    /// The same as text, if it is a string, a number or a truth value, and not empty.
    fn text(&self, record: &Value) -> Option<String> {
        match self.value(record)? {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(is) => Some(is.to_string()),
            _ => None,
        }
    }
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') && text.len() > 1 {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is no JSON pointer: it begins with /, for example /eventName"
        ))
    }
}

/// Text with JSON pointers in braces, for example `k8s:{/objectRef/resource}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Pointer),
}

impl Template {
    /// The text for a record; `None` if one of its values is not there.
    pub(super) fn fill(&self, record: &Value) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(pointer) => out.push_str(&pointer.text(record)?),
            }
        }
        Some(out)
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (pointer, after) = after
                .split_once('}')
                .ok_or_else(|| format!("{text:?} has a {{ without a }}"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Value(pointer.parse()?));
            rest = after;
        }
        if rest.contains('}') {
            return Err(format!("{text:?} has a }} without a {{"));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err("a template must not be empty".to_owned());
        }
        Ok(Self(parts))
    }
}

macro_rules! from_string {
    ($($type:ident),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

from_string!(Pointer, Template);

/// One template, or several of which the first that can be filled counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FirstOf(Vec<Template>);

impl FirstOf {
    pub(super) fn fill(&self, record: &Value) -> Option<String> {
        self.0.iter().find_map(|template| template.fill(record))
    }
}

impl<'de> Deserialize<'de> for FirstOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = FirstOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a template, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FirstOf, E> {
                let one = text.parse().map_err(E::custom)?;
                Ok(FirstOf(vec![one]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<FirstOf, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                if all.is_empty() {
                    return Err(de::Error::custom("a list of templates must not be empty"));
                }
                Ok(FirstOf(all))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_filled_with_values() {
        let record = json!({"a": {"b": "x", "n": 7, "yes": true, "list": [1, "two"]}, "empty": ""});
        for (template, filled) in [
            ("plain", Some("plain")),
            ("{/a/b}", Some("x")),
            ("k:{/a/n}/{/a/yes}!", Some("k:7/true!")),
            ("{/a/list/1}", Some("two")),
            ("{/a/missing}", None),
            ("{/empty}", None),
            ("{/a}", None),
        ] {
            let template: Template = template.parse().unwrap();
            assert_eq!(template.fill(&record).as_deref(), filled, "{template:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (template, says) in [
            ("", "empty"),
            ("{/a", "without a }"),
            ("a}", "without a {"),
            ("{a}", "no JSON pointer"),
            ("{}", "no JSON pointer"),
        ] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(error.contains(says), "{template}: {error}");
        }
    }
}
