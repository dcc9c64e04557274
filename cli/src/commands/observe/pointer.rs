//! Values of a record: pointers, and templates of them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::pattern::Pattern;

/// The values that pointers point into.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) record: &'a Value,
    /// The element of the record's list that the rule is at.
    pub(super) element: Option<&'a Value>,
    /// The values that the mapping has named.
    pub(super) named: &'a BTreeMap<String, String>,
}

impl<'a> Scope<'a> {
    pub(super) const fn of(record: &'a Value, named: &'a BTreeMap<String, String>) -> Self {
        Self {
            record,
            element: None,
            named,
        }
    }
}

/// A place in a record (`/a/b`, a JSON pointer), in an element of one of its lists (`@`, `@/b`), or
/// a name that the mapping has given (`$name`). In a JSON pointer `*` is every element of a list and
/// every value of an object, `**` the value itself and all that is in it at any depth, and `<expression>`
/// every member of an object whose name the expression matches.
#[derive(Debug, Clone)]
pub(super) enum Pointer {
    Record(Vec<Segment>),
    Element(Vec<Segment>),
    Named(String),
}

#[derive(Debug, Clone)]
pub(super) enum Segment {
    Name(String),
    Every,
    Below,
    Matching(Pattern),
}

impl Segment {
    fn step<'a>(&self, value: &'a Value, next: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Every, Value::Array(list)) => next.extend(list),
            (Self::Every, Value::Object(members)) => next.extend(members.values()),
            (Self::Below, _) => {
                next.push(value);
                match value {
                    Value::Array(list) => list.iter().for_each(|one| self.step(one, next)),
                    Value::Object(members) => members.values().for_each(|one| self.step(one, next)),
                    _ => {}
                }
            }
            (Self::Name(name), Value::Array(list)) => {
                next.extend(name.parse().ok().and_then(|at: usize| list.get(at)));
            }
            (Self::Name(name), Value::Object(members)) => next.extend(members.get(name)),
            (Self::Matching(pattern), Value::Object(members)) => {
                let found = members.iter().filter(|(name, _)| pattern.matches(name));
                next.extend(found.map(|(_, value)| value));
            }
            _ => {}
        }
    }
}

impl FromStr for Segment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = text
            .strip_prefix('<')
            .and_then(|text| text.strip_suffix('>'));
        Ok(match (text, inner) {
            ("*", _) => Self::Every,
            ("**", _) => Self::Below,
            (_, Some(pattern)) => Self::Matching(Pattern::try_from(pattern.to_owned())?),
            _ => Self::Name(text.replace("~1", "/").replace("~0", "~")),
        })
    }
}

impl Pointer {
    /// All that it points to in JSON, but for null; a name is none of it.
    pub(super) fn values<'a>(&self, scope: Scope<'a>) -> Vec<&'a Value> {
        let (root, path) = match self {
            Self::Record(path) => (Some(scope.record), path),
            Self::Element(path) => (scope.element, path),
            Self::Named(_) => return Vec::new(),
        };
        let mut values: Vec<&Value> = root.into_iter().collect();
        for segment in path {
            let mut next = Vec::new();
            values
                .iter()
                .for_each(|value| segment.step(value, &mut next));
            values = next;
        }
        values.retain(|value| !value.is_null());
        values
    }

    /// Returns the values as texts: strings, numbers and truth values that are not empty.
    pub(super) fn texts(&self, scope: Scope<'_>) -> Vec<String> {
        match self {
            Self::Named(name) => scope.named.get(name).cloned().into_iter().collect(),
            _ => self.values(scope).into_iter().filter_map(text_of).collect(),
        }
    }

    /// The name of a list at the top of a file, where it is one.
    pub(super) fn top(&self) -> Option<&str> {
        match self {
            Self::Record(path) => match &path[..] {
                [Segment::Name(one)] => Some(one),
                _ => None,
            },
            _ => None,
        }
    }

    /// The name that the mapping must have given.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            _ => None,
        }
    }
}

/// A value as text, if it is a string, a number or a truth value, and not empty.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |text: &str| -> Result<Vec<Segment>, String> {
            text.split('/').skip(1).map(str::parse).collect()
        };
        match text.as_bytes() {
            [b'/', _, ..] => Ok(Self::Record(path(text)?)),
            [b'@'] => Ok(Self::Element(Vec::new())),
            [b'@', b'/', _, ..] => Ok(Self::Element(path(&text[1..])?)),
            [b'$', _, ..] => Ok(Self::Named(text[1..].to_owned())),
            _ => Err(format!(
                "{text:?} is no JSON pointer: it begins with /, for example /eventName (or with @/ \
                 for an element of a list, or with $ for a name of [[let]])"
            )),
        }
    }
}

/// Text with pointers in braces, for example `k8s:{/objectRef/resource}`.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Value(Pointer),
}

impl Template {
    /// The text for a record; `None` if one of its values is not there. Where a pointer points to
    /// several, the first one counts.
    pub(super) fn fill(&self, scope: Scope<'_>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(pointer) => out.push_str(pointer.texts(scope).first()?),
            }
        }
        Some(out)
    }

    /// Returns true if it says the same of every record.
    fn is_constant(&self) -> bool {
        !self.0.iter().any(|part| matches!(part, Part::Value(_)))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(pointer) => pointer.name(),
            Part::Text(_) => None,
        })
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

/// Alternatives: the first one that is there counts. A file may give a single one without a list.
#[derive(Debug, Clone)]
pub(super) struct FirstOf<T = Template>(pub(super) Vec<T>);

/// The text of the first template that applies.
pub(super) struct Filled {
    pub(super) text: String,
    /// The template says the same of every record.
    pub(super) is_constant: bool,
}

impl FirstOf {
    pub(super) fn fill(&self, scope: Scope<'_>) -> Option<String> {
        self.filled(scope).map(|filled| filled.text)
    }

    pub(super) fn filled(&self, scope: Scope<'_>) -> Option<Filled> {
        self.0.iter().find_map(|template| {
            Some(Filled {
                text: template.fill(scope)?,
                is_constant: template.is_constant(),
            })
        })
    }

    /// Names of the mapping's that it uses.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(Template::names)
    }
}

impl<'de, T: FromStr<Err = String> + Deserialize<'de>> Deserialize<'de> for FirstOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: FromStr<Err = String> + Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = FirstOf<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FirstOf<T>, E> {
                let one = text.parse().map_err(E::custom)?;
                Ok(FirstOf(vec![one]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<FirstOf<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                if all.is_empty() {
                    return Err(de::Error::custom("a list must not be empty"));
                }
                Ok(FirstOf(all))
            }
        }

        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_filled_with_values() {
        let record = json!({"a": {"b": "x", "n": 7, "yes": true, "list": [1, "two"]}, "empty": "",
                            "many": [{"id": null}, {"id": "y"}], "a/b": "slash"});
        let named = BTreeMap::from([("who".to_owned(), "me".to_owned())]);
        let element = json!({"id": "e"});
        let scope = Scope {
            record: &record,
            element: Some(&element),
            named: &named,
        };
        for (template, filled) in [
            ("plain", Some("plain")),
            ("{/a/b}", Some("x")),
            ("k:{/a/n}/{/a/yes}!", Some("k:7/true!")),
            ("{/a/list/1}", Some("two")),
            ("{/many/*/id}", Some("y")),
            ("{/a/list/*}", Some("1")),
            ("{@/id}-{$who}", Some("e-me")),
            ("{/a~1b}", Some("slash")),
            ("{@}", None),
            ("{$other}", None),
            ("{/a/missing}", None),
            ("{/empty}", None),
            ("{/a}", None),
        ] {
            let template: Template = template.parse().unwrap();
            assert_eq!(template.fill(scope).as_deref(), filled, "{template:?}");
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
            ("{$}", "no JSON pointer"),
        ] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(error.contains(says), "{template}: {error}");
        }
    }
}
