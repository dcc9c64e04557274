//! Mappings: where an observation's parts come from in another system's records.
//!
//! A mapping is a TOML file; cli/mappings/ has two of them, and docs/imports.md describes the language.
//! A record gives an observation, or nothing for a reason that the mapping names, or it is not understood;
//! then it is left out and reported.

use std::collections::{BTreeMap, HashSet};

use deed_client::records::parse;
use deed_proto::v1;
use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;

use super::{
    condition::{Condition, all},
    effects::EffectRule,
    pattern::Pattern,
    pointer::{FirstOf, Pointer, Scope},
    time::moment,
};
use crate::args::ascending;

/// Mappings that come with the program, by name.
const SHIPPED: [(&str, &str); 3] = [
    (
        "cloudtrail",
        include_str!("../../../mappings/cloudtrail.toml"),
    ),
    (
        "kubernetes",
        include_str!("../../../mappings/kubernetes.toml"),
    ),
    ("k8s", include_str!("../../../mappings/kubernetes.toml")),
];

/// Wrappings within each other that are opened: a list in a message in a list.
const WRAPPINGS_MAX: usize = 4;

/// The reason why a record says nothing, where the mapping names none.
const FILTERED: &str = "the mapping takes other records only";
const NO_RULE: &str = "no effect of the mapping is for it";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mapping {
    /// The kind of record, in words.
    what: Option<String>,
    /// Lists of records within a record; without one of them it is one record.
    records: Option<FirstOf<Pointer>>,
    /// Where the record may be packed within another one, itself or as text. Looked into only where
    /// what is expected does not hold.
    unwrap: Option<FirstOf<Pointer>>,
    /// The time of the record (see [`super::time`]).
    time: FirstOf,
    /// The system's own id of the record.
    reference: Option<FirstOf>,
    /// The condition for records that are understood.
    #[serde(default)]
    expect: Vec<Condition>,
    /// Records that say nothing, each kind with its reason.
    #[serde(default)]
    nothing: Vec<Because>,
    /// The doubt that makes all effects of a record claims.
    #[serde(default)]
    doubt: Vec<Because>,
    /// Only records for which all of these hold; the others say nothing.
    #[serde(default)]
    only: Vec<Condition>,
    /// Names for values.
    #[serde(default, rename = "let")]
    names: Vec<Named>,
    #[serde(default)]
    correlation: Vec<Correlation>,
    effect: Vec<EffectRule>,
}

/// Records of one kind, for which all of `only` hold, with what there is to say of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Because {
    because: String,
    only: Vec<Condition>,
}

/// A name for a value. Of several with one name the first counts that holds and is there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    #[serde(default)]
    only: Vec<Condition>,
    value: FirstOf,
    /// The part of the value that this finds, in place of the whole.
    capture: Option<Pattern>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Correlation {
    kind: String,
    value: FirstOf,
}

/// The result of mapping a record.
#[derive(Debug, PartialEq)]
pub(super) enum Reading {
    Nothing(String),
    Seen(Mapped),
}

/// The observed effects.
#[derive(Debug, PartialEq)]
pub(super) struct Mapped {
    /// Effects that name what was changed.
    pub(super) effects: Vec<v1::Effect>,
    /// Effects that do not, and those of which the record leaves a doubt: they can prove nothing.
    pub(super) claims: Vec<v1::Effect>,
    pub(super) reference: String,
    pub(super) observed_at_us: i64,
    pub(super) correlation_keys: Vec<(String, String)>,
    /// The reason why nothing of it proves anything.
    pub(super) doubts: Vec<String>,
}

/// Text of a mapping that comes with the program.
pub(super) fn shipped(name: &str) -> Option<&'static str> {
    let found = SHIPPED.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

impl Mapping {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mapping: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            match before {
                Some(before) => format!(
                    "line {}: {}",
                    before.matches('\n').count() + 1,
                    error.message()
                ),
                None => error.message().to_owned(),
            }
        })?;
        if mapping.effect.is_empty() {
            return Err("a mapping needs at least one [[effect]]".to_owned());
        }
        mapping.check()?;
        Ok(mapping)
    }

    /// Refuses conditions that say nothing, and names that are not given before they are used.
    fn check(&self) -> Result<(), String> {
        let mut known: Vec<&str> = Vec::new();
        let check = |conditions: &[Condition], known: &[&str]| -> Result<(), String> {
            for condition in conditions {
                condition.check()?;
                is_known(condition.names(), known)?;
            }
            Ok(())
        };
        check(&self.expect, &[])?;
        for named in &self.names {
            check(&named.only, &known)?;
            is_known(named.value.names(), &known)?;
            known.push(&named.name);
        }
        for kind in self.nothing.iter().chain(&self.doubt) {
            if kind.only.is_empty() {
                return Err(format!("{:?} needs a condition", kind.because));
            }
            check(&kind.only, &known)?;
        }
        check(&self.only, &known)?;
        let texts = [Some(&self.time), self.reference.as_ref()];
        let keys = self.correlation.iter().map(|key| &key.value);
        for text in texts.into_iter().flatten().chain(keys) {
            is_known(text.names(), &known)?;
        }
        for rule in &self.effect {
            rule.check()?;
            check(rule.conditions(), &known)?;
            is_known(rule.names(), &known)?;
        }
        Ok(())
    }

    /// Names of lists of records at the top of a file.
    pub(super) fn lists(&self) -> Vec<String> {
        let lists = self.records.iter().flat_map(|lists| &lists.0);
        lists
            .filter_map(Pointer::top)
            .map(ToOwned::to_owned)
            .collect()
    }

    /// The records that a value holds: itself, the members of its lists, what is packed in it.
    pub(super) fn records(&self, value: Value) -> Vec<Value> {
        let mut records = Vec::new();
        self.unpack(value, WRAPPINGS_MAX, &mut records);
        records
    }

    fn unpack(&self, value: Value, depth: usize, records: &mut Vec<Value>) {
        if let Some(inner) = packed(&value).filter(|_| depth > 0) {
            return self.unpack(inner, depth - 1, records);
        }
        let value = match value {
            Value::Array(members) if depth > 0 => {
                return members
                    .into_iter()
                    .for_each(|member| self.unpack(member, depth - 1, records));
            }
            other => other,
        };
        let named = BTreeMap::new();
        let scope = Scope::of(&value, &named);
        if depth == 0 || (!self.expect.is_empty() && all(&self.expect, scope)) {
            return records.push(value);
        }
        let first = |pointers: &Option<FirstOf<Pointer>>, is: fn(&Value) -> bool| {
            let mut all = pointers.iter().flat_map(|pointers| &pointers.0);
            all.find_map(|pointer| {
                let found = pointer.values(scope);
                let any = found.iter().any(|value| is(value));
                any.then(|| {
                    found
                        .into_iter()
                        .filter(|value| is(value))
                        .cloned()
                        .collect()
                })
            })
        };
        // All of them: a record may hold one that is empty, and another that is not.
        let pointers = self.records.iter().flat_map(|pointers| &pointers.0);
        let lists = pointers.flat_map(|pointer| pointer.values(scope));
        let lists: Vec<&Vec<Value>> = lists.filter_map(Value::as_array).collect();
        if !lists.is_empty() {
            let members = lists.into_iter().flatten();
            return members
                .cloned()
                .for_each(|member| self.unpack(member, depth - 1, records));
        }
        let inner: Option<Vec<Value>> = first(&self.unwrap, |value| {
            value.is_object() || packed(value).is_some()
        });
        match inner {
            Some(inner) => inner
                .into_iter()
                .for_each(|value| self.unpack(value, depth - 1, records)),
            None => records.push(value),
        }
    }

    /// The result of mapping a record.
    ///
    /// # Errors
    /// The reason why it is not understood.
    pub(super) fn map(&self, record: &Value) -> Result<Reading, String> {
        if !record.is_object() {
            return Err("it is no object".to_owned());
        }
        let mut named = BTreeMap::new();
        for one in &self.names {
            let value = one.value(Scope::of(record, &named));
            if let Some(value) = value.filter(|_| !named.contains_key(&one.name)) {
                named.insert(one.name.clone(), value);
            }
        }
        let scope = Scope::of(record, &named);
        let mut nothing = self.nothing.iter();
        if let Some(nothing) = nothing.find(|nothing| all(&nothing.only, scope)) {
            return Ok(Reading::Nothing(nothing.because.clone()));
        }
        if !all(&self.expect, scope) {
            let what = self.what.as_deref();
            return Err(format!(
                "it is no {}",
                what.unwrap_or("record of this mapping")
            ));
        }
        if !all(&self.only, scope) {
            return Ok(Reading::Nothing(FILTERED.to_owned()));
        }
        self.seen(scope)
    }

    fn seen(&self, scope: Scope<'_>) -> Result<Reading, String> {
        let (mut effects, mut claims) = (Vec::new(), Vec::new());
        let mut holds_any = false;
        for rule in &self.effect {
            let is_over = !effects.is_empty() || !claims.is_empty();
            if (rule.otherwise && is_over) || !all(rule.conditions(), scope) {
                continue;
            }
            holds_any = true;
            rule.effects(scope, &mut effects, &mut claims)?;
        }
        if effects.is_empty() && claims.is_empty() {
            return match holds_any {
                true => Err("it does not say what was changed".to_owned()),
                false => Ok(Reading::Nothing(NO_RULE.to_owned())),
            };
        }
        let doubts = self.doubt.iter().filter(|doubt| all(&doubt.only, scope));
        let doubts: Vec<_> = doubts.map(|doubt| doubt.because.clone()).collect();
        if !doubts.is_empty() {
            claims.splice(..0, effects.drain(..));
        }
        // Two equal effects in one record are one change.
        for list in [&mut effects, &mut claims] {
            let mut seen = HashSet::new();
            list.retain(|effect| seen.insert(effect.encode_to_vec()));
        }
        let time = self.time.fill(scope).ok_or("it has no time")?;
        let keys = self
            .correlation
            .iter()
            .filter_map(|key| Some((key.kind.clone(), key.value.fill(scope)?)));
        let reference = self.reference.as_ref();
        Ok(Reading::Seen(Mapped {
            effects,
            claims,
            reference: reference
                .and_then(|reference| reference.fill(scope))
                .unwrap_or_default(),
            observed_at_us: moment(&time)?.get(),
            correlation_keys: ascending(&keys.collect::<Vec<_>>()),
            doubts,
        }))
    }
}

impl Named {
    fn value(&self, scope: Scope<'_>) -> Option<String> {
        let value = all(&self.only, scope).then(|| self.value.fill(scope))??;
        match &self.capture {
            Some(pattern) => pattern.captured(&value).filter(|found| !found.is_empty()),
            None => Some(value),
        }
    }
}

/// JSON within a text.
fn packed(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim_start();
    let is_json = text.starts_with(['{', '[']);
    is_json.then(|| parse(text).ok())?
}

fn is_known<'a>(names: impl IntoIterator<Item = &'a str>, known: &[&str]) -> Result<(), String> {
    match names.into_iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "${name} is used, and no [[let]] before gives that name"
        )),
    }
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
