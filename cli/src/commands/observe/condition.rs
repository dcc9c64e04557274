//! Conditions of a mapping.

use serde::Deserialize;
use serde_json::Value;

use super::{
    pattern::Pattern,
    pointer::{Pointer, Scope, text_of},
};

/// A condition: a pointer with what must be true of a value that it points to, or conditions
/// together. All parts that are given must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Condition {
    pointer: Option<Pointer>,
    exists: Option<bool>,
    #[serde(rename = "in")]
    one_of: Option<Vec<Value>>,
    not_in: Option<Vec<Value>>,
    less_than: Option<i64>,
    at_least: Option<i64>,
    /// A part of a text, an element of a list, or a key of an object.
    contains: Option<Value>,
    matches: Option<Pattern>,
    /// Holds nothing: an empty text, list or object, false, or nought.
    empty: Option<bool>,
    all: Option<Vec<Condition>>,
    any: Option<Vec<Condition>>,
    not: Option<Box<Condition>>,
}

/// Returns true if all of some conditions hold.
pub(super) fn all(conditions: &[Condition], scope: Scope<'_>) -> bool {
    conditions.iter().all(|condition| condition.holds(scope))
}

impl Condition {
    /// Refuses what says nothing: no pointer, or nothing about it.
    pub(super) fn check(&self) -> Result<(), String> {
        let tests = [
            self.exists.is_some(),
            self.one_of.is_some(),
            self.not_in.is_some(),
            self.less_than.is_some(),
            self.at_least.is_some(),
            self.contains.is_some(),
            self.matches.is_some(),
            self.empty.is_some(),
        ];
        let tests = tests.into_iter().filter(|given| *given).count();
        let lists = self.all.iter().chain(&self.any);
        let mut parts = lists.flatten().chain(self.not.as_deref());
        match &self.pointer {
            Some(_) if tests == 0 => {
                let says = "a condition has a pointer and says nothing of it: exists, in, not_in, \
                            less_than, at_least, contains, matches or empty";
                return Err(says.to_owned());
            }
            None if tests > 0 => {
                return Err("a condition names no pointer".to_owned());
            }
            None if self.all.is_none() && self.any.is_none() && self.not.is_none() => {
                return Err("a condition is empty".to_owned());
            }
            _ => {}
        }
        parts.try_for_each(Self::check)
    }

    /// Names of the mapping's that it uses.
    pub(super) fn names(&self) -> Vec<&str> {
        let lists = self.all.iter().chain(&self.any);
        let parts = lists.flatten().chain(self.not.as_deref());
        let own = self.pointer.as_ref().and_then(Pointer::name);
        own.into_iter().chain(parts.flat_map(Self::names)).collect()
    }

    pub(super) fn holds(&self, scope: Scope<'_>) -> bool {
        let of_pointer = self.pointer.as_ref();
        of_pointer.is_none_or(|pointer| self.holds_of(pointer, scope))
            && self.all.as_ref().is_none_or(|parts| all(parts, scope))
            && self
                .any
                .as_ref()
                .is_none_or(|parts| parts.iter().any(|part| part.holds(scope)))
            && self.not.as_ref().is_none_or(|part| !part.holds(scope))
    }

    fn holds_of(&self, pointer: &Pointer, scope: Scope<'_>) -> bool {
        let texts: Vec<Value>;
        let values = match pointer {
            Pointer::Named(_) => {
                texts = pointer.texts(scope).into_iter().map(Value::from).collect();
                texts.iter().collect()
            }
            _ => pointer.values(scope),
        };
        let any = |holds: &dyn Fn(&Value) -> bool| values.iter().any(|value| holds(value));
        let is_in = |list: &Vec<Value>| any(&|value| list.contains(value));
        self.exists.is_none_or(|exists| values.is_empty() != exists)
            && self.one_of.as_ref().is_none_or(is_in)
            && !self.not_in.as_ref().is_some_and(is_in)
            && self
                .less_than
                .is_none_or(|bound| any(&|value| number(value).is_some_and(|n| n < bound as f64)))
            && self
                .at_least
                .is_none_or(|bound| any(&|value| number(value).is_some_and(|n| n >= bound as f64)))
            && self
                .contains
                .as_ref()
                .is_none_or(|part| any(&|value| contains(value, part)))
            && self.matches.as_ref().is_none_or(|pattern| {
                any(&|value| text_of(value).is_some_and(|text| pattern.matches(&text)))
            })
            && self
                .empty
                .is_none_or(|empty| any(&|value| is_empty(value) == empty))
    }
}

/// A number, also as text. The bounds that it is compared with are far from where a double is not
/// exact, or do not mind.
fn number(value: &Value) -> Option<f64> {
    let as_text = || value.as_str()?.trim().parse().ok();
    let found = value.as_f64().or_else(as_text);
    found.filter(|number: &f64| number.is_finite())
}

/// Returns true if a value holds nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::String(text), Value::String(part)) => text.contains(part),
        (Value::Array(list), part) => list.contains(part),
        (Value::Object(members), Value::String(key)) => members.contains_key(key),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_hold_or_not() {
        let record = json!({"uri": "/x?a=1&dryRun=All", "code": 201, "list": ["a", {"k": 1}],
                            "of": {"key": null}, "on": "true", "text": "201", "none": [], "no": 0,
                            "half": 2.5, "half_text": "1.5", "large": u64::MAX,
                            "deep": {"List": [{"Dry_Run": "yes"}], "failures": []}});
        let named = BTreeMap::from([("n".to_owned(), "v".to_owned())]);
        let scope = Scope {
            record: &record,
            element: None,
            named: &named,
        };
        for (text, holds) in [
            ("pointer = '/uri'\ncontains = 'dryRun='", true),
            ("pointer = '/list'\ncontains = 'a'", true),
            ("pointer = '/list'\ncontains = { k = 1 }", true),
            ("pointer = '/of'\ncontains = 'key'", true),
            ("pointer = '/of/key'\nexists = true", false),
            ("pointer = '/uri'\nmatches = '[?&]dryRun=All(&|$)'", true),
            ("pointer = '/code'\nmatches = '^2..$'", true),
            ("pointer = '/uri'\nmatches = '^dryRun'", false),
            ("pointer = '/code'\nat_least = 200\nless_than = 400", true),
            ("pointer = '/code'\nat_least = 202", false),
            ("pointer = '/text'\nat_least = 200\nless_than = 400", true),
            ("pointer = '/half'\nat_least = 2\nless_than = 3", true),
            ("pointer = '/half_text'\nat_least = 1", true),
            ("pointer = '/large'\nat_least = 1", true),
            ("pointer = '/on'\nat_least = 0", false),
            ("pointer = '/list/*'\nin = ['a']", true),
            ("pointer = '/list/*'\nnot_in = ['a']", false),
            ("pointer = '/on'\nin = [true, 'true']", true),
            ("pointer = '/none'\nempty = true", true),
            ("pointer = '/no'\nempty = false", false),
            ("pointer = '/list'\nempty = false", true),
            ("pointer = '/missing'\nempty = true", false),
            ("pointer = '/**/<(?i)^dry_?run$>'\nin = ['yes']", true),
            ("pointer = '/<(?i)^dry_?run$>'\nexists = true", false),
            ("pointer = '/deep/<^fail>'\nempty = false", false),
            ("pointer = '/deep/**'\nin = ['yes']", true),
            ("pointer = '$n'\nin = ['v']", true),
            ("pointer = '$m'\nexists = false", true),
            (
                "any = [{ pointer = '/missing', exists = true }, { pointer = '/code', in = [201] }]",
                true,
            ),
            (
                "all = [{ pointer = '/missing', exists = true }, { pointer = '/code', in = [201] }]",
                false,
            ),
            ("not = { pointer = '/code', in = [201] }", false),
            (
                "not = { any = [{ pointer = '/code', in = [1] }, { pointer = '/uri', exists = false }] }",
                true,
            ),
        ] {
            let condition: Condition = toml::from_str(text).unwrap();
            condition.check().unwrap();
            assert_eq!(condition.holds(scope), holds, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("pointer = '/a'", "says nothing"),
            ("exists = true", "no pointer"),
            ("", "empty"),
            ("not = { pointer = '/a' }", "says nothing"),
            ("pointer = '/a'\nmatches = '('", "unclosed"),
            ("pointer = '/a'\nmatches = '(\\w{1,100}){1,100}'", "size"),
            ("pointer = '/a'\nequals = 1", "equals"),
        ] {
            let parsed = toml::from_str::<Condition>(text).map_err(|error| error.to_string());
            let error = parsed.and_then(|one| one.check()).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let long = format!("pointer = '/a'\nmatches = '{}'", "a".repeat(5_000));
        assert!(toml::from_str::<Condition>(&long).is_err());
    }
}
