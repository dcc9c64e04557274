//! Mappings: where an observation's parts come from in another system's records.
//!
//! A mapping is a TOML file; client/mappings/ has two of them, which say by example what there is.
//! JSON pointers in braces stand for a record's values (see [`super::pointer`]); where a list of
//! templates is given, the first one counts whose values are all there.

use deed_evidence::Micros;
use deed_proto::v1;
use serde::Deserialize;
use serde_json::Value;

use super::pointer::{FirstOf, Pointer, Template};
use crate::{cli::When, commands::arguments::ascending};

/// Mappings that come with the program, by name.
const SHIPPED: [(&str, &str); 2] = [
    (
        "cloudtrail",
        include_str!("../../../mappings/cloudtrail.toml"),
    ),
    (
        "kubernetes",
        include_str!("../../../mappings/kubernetes.toml"),
    ),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mapping {
    /// Where a line holds several records: the list. A line without it is one record.
    records: Option<Pointer>,
    /// When it was seen: RFC 3339, or a number of seconds, milliseconds or microseconds.
    time: FirstOf,
    /// What the system itself calls the record.
    reference: Option<FirstOf>,
    /// Only records for which all of these hold.
    #[serde(default)]
    only: Vec<Filter>,
    #[serde(default)]
    correlation: Vec<Correlation>,
    effect: Vec<EffectRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Correlation {
    kind: String,
    value: FirstOf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EffectRule {
    #[serde(default)]
    only: Vec<Filter>,
    kind: FirstOf,
    resource: FirstOf,
    external_id: Option<FirstOf>,
    /// A whole number of minor units.
    amount: Option<Template>,
    currency: Option<Template>,
}

/// A condition: all of its parts that are given must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    pointer: Pointer,
    exists: Option<bool>,
    #[serde(rename = "in")]
    one_of: Option<Vec<Value>>,
    not_in: Option<Vec<Value>>,
    less_than: Option<i64>,
}

/// What a record amounts to.
#[derive(Debug, PartialEq)]
pub(super) struct Mapped {
    pub(super) observation: v1::Observation,
    pub(super) correlation_keys: Vec<(String, String)>,
}

/// Text of a mapping: one that is shipped, or a file's.
pub(super) fn shipped(name: &str) -> Option<&'static str> {
    let found = SHIPPED.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

impl Mapping {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mapping: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if mapping.effect.is_empty() {
            return Err("a mapping needs at least one [[effect]]".to_owned());
        }
        Ok(mapping)
    }

    /// The records of a line.
    pub(super) fn records<'a>(&self, line: &'a Value) -> Vec<&'a Value> {
        let list = self.records.as_ref().and_then(|list| list.value(line));
        match list.and_then(Value::as_array) {
            Some(list) => list.iter().collect(),
            None => vec![line],
        }
    }

    /// The observation of a record; `None` if it is filtered out or has no effect.
    ///
    /// # Errors
    /// What is wrong with it: no time, an amount that is none.
    pub(super) fn map(&self, record: &Value) -> Result<Option<Mapped>, String> {
        if !all(&self.only, record) {
            return Ok(None);
        }
        let mut effects = Vec::new();
        for rule in &self.effect {
            effects.extend(rule.effect(record)?);
        }
        if effects.is_empty() {
            return Ok(None);
        }
        let time = self.time.fill(record).ok_or("it has no time")?;
        let keys = self
            .correlation
            .iter()
            .filter_map(|key| Some((key.kind.clone(), key.value.fill(record)?)));
        let reference = self.reference.as_ref();
        Ok(Some(Mapped {
            observation: v1::Observation {
                intent: None,
                effects,
                reference: reference
                    .and_then(|reference| reference.fill(record))
                    .unwrap_or_default(),
                observed_at_us: moment(&time)?.get(),
            },
            correlation_keys: ascending(&keys.collect::<Vec<_>>()),
        }))
    }
}

impl EffectRule {
    fn effect(&self, record: &Value) -> Result<Option<v1::Effect>, String> {
        if !all(&self.only, record) {
            return Ok(None);
        }
        let (Some(kind), Some(resource)) = (self.kind.fill(record), self.resource.fill(record))
        else {
            return Ok(None);
        };
        let external_id = self.external_id.as_ref().and_then(|id| id.fill(record));
        Ok(Some(v1::Effect {
            kind,
            resource,
            external_id: external_id.unwrap_or_default(),
            amount: self.amount(record)?,
            ..v1::Effect::default()
        }))
    }

    fn amount(&self, record: &Value) -> Result<Option<v1::Amount>, String> {
        let fill = |template: &Option<Template>| template.as_ref()?.fill(record);
        let (Some(amount), Some(currency)) = (fill(&self.amount), fill(&self.currency)) else {
            return Ok(None);
        };
        let minor_units = amount.parse();
        Ok(Some(v1::Amount {
            minor_units: minor_units
                .map_err(|_| format!("its amount {amount:?} is no whole number of minor units"))?,
            currency,
        }))
    }
}

fn all(filters: &[Filter], record: &Value) -> bool {
    filters.iter().all(|filter| filter.holds(record))
}

impl Filter {
    fn holds(&self, record: &Value) -> bool {
        let value = self.pointer.value(record);
        let is_in = |list: &Vec<Value>| value.is_some_and(|value| list.contains(value));
        self.exists.is_none_or(|exists| value.is_some() == exists)
            && self.one_of.as_ref().is_none_or(is_in)
            && !self.not_in.as_ref().is_some_and(is_in)
            && self.less_than.is_none_or(|bound| {
                let number = value.and_then(Value::as_i64);
                number.is_some_and(|number| number < bound)
            })
    }
}

/// A time as logs write it: RFC 3339, or a number whose size says its unit.
fn moment(text: &str) -> Result<Micros, String> {
    if let Ok(number) = text.parse::<i64>() {
        // Seconds reach this in 5138, milliseconds had it in 1973.
        const MILLISECONDS: i64 = 100_000_000_000;
        let us = match number {
            number if number < MILLISECONDS => number.checked_mul(1_000_000),
            number if number < MILLISECONDS * 1_000 => number.checked_mul(1_000),
            number => Some(number),
        };
        let us = us.filter(|us| *us > 0);
        return us
            .map(Micros::new)
            .ok_or_else(|| format!("its time {text} is none"));
    }
    match text.parse() {
        Ok(When::At(at)) => Ok(at),
        _ => Err(format!(
            "its time {text:?} is none: RFC 3339 or a number is expected"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(name: &str, log: &str) -> (Vec<Mapped>, usize) {
        let mapping = Mapping::parse(shipped(name).unwrap()).unwrap();
        let (mut all, mut left_out) = (Vec::new(), 0);
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            for record in mapping.records(&line) {
                match mapping.map(record).unwrap() {
                    Some(mapped) => all.push(mapped),
                    None => left_out += 1,
                }
            }
        }
        (all, left_out)
    }

    #[test]
    fn cloudtrail_events_are_observations() {
        let log = include_str!("../../../tests/data/cloudtrail.jsonl");
        let (all, left_out) = mapped("cloudtrail", log);
        // Reads and refused calls changed nothing.
        assert_eq!((all.len(), left_out), (3, 2));
        let first = &all[0].observation;
        assert_eq!(first.effects[0].kind, "s3.amazonaws.com:DeleteObject");
        assert_eq!(
            first.effects[0].resource,
            "arn:aws:s3:::records/customer/7.json"
        );
        assert_eq!(first.observed_at_us, 1_795_485_420_000_000);
        assert_eq!(first.reference, "11111111-2222-4333-8444-000000000001");
        assert!(
            all[0]
                .correlation_keys
                .contains(&("aws-request".to_owned(), "EXAMPLE0001".to_owned()))
        );
        // No ARN: the parameters name it.
        assert_eq!(
            all[1].observation.effects[0].resource,
            "aws:instance/i-0abc"
        );
    }

    #[test]
    fn kubernetes_events_are_observations() {
        let log = include_str!("../../../tests/data/kubernetes.jsonl");
        let (all, left_out) = mapped("kubernetes", log);
        assert_eq!((all.len(), left_out), (2, 3));
        let first = &all[0].observation;
        assert_eq!(first.effects[0].kind, "k8s.patch");
        assert_eq!(first.effects[0].resource, "k8s:shop/deployments/checkout");
        assert_eq!(first.reference, "0d5b4f9e-0000-4000-8000-000000000001");
        // A resource without a namespace.
        assert_eq!(
            all[1].observation.effects[0].resource,
            "k8s:namespaces/old-shop"
        );
    }

    #[test]
    fn filters_compare_values() {
        let text = r#"
            time = "{/t}"
            [[only]]
            pointer = "/code"
            less_than = 400
            [[only]]
            pointer = "/verb"
            not_in = ["get", "list"]
            [[only]]
            pointer = "/error"
            exists = false
            [[effect]]
            kind = "k"
            resource = "r"
            amount = "{/cents}"
            currency = "EUR"
        "#;
        let mapping = Mapping::parse(text).unwrap();
        let record = |json: &str| mapping.map(&serde_json::from_str(json).unwrap());
        let found = record(r#"{"t": 1795485420, "code": 200, "verb": "put", "cents": "5"}"#);
        let found = found.unwrap().unwrap();
        assert_eq!(
            found.observation.effects[0]
                .amount
                .as_ref()
                .unwrap()
                .minor_units,
            5
        );
        for json in [
            r#"{"t": 1, "code": 400, "verb": "put"}"#,
            r#"{"t": 1, "verb": "put"}"#,
            r#"{"t": 1, "code": 200, "verb": "list"}"#,
            r#"{"t": 1, "code": 200, "verb": "put", "error": "no"}"#,
        ] {
            assert_eq!(record(json), Ok(None), "{json}");
        }
        assert!(record(r#"{"code": 200, "verb": "put"}"#).is_err());
        assert!(record(r#"{"t": 1, "code": 200, "verb": "put", "cents": "5.5"}"#).is_err());
    }

    #[test]
    fn times_are_read_in_every_unit() {
        for text in [
            "1795485420",
            "1795485420000",
            "1795485420000000",
            "2026-11-24T01:57:00Z",
        ] {
            assert_eq!(
                moment(text),
                Ok(Micros::new(1_795_485_420_000_000)),
                "{text}"
            );
        }
        for text in ["", "0", "-5", "yesterday", "1h"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mistakes_in_a_mapping_are_named() {
        for (text, says) in [
            ("time = \"{/t}\"\neffect = []", "at least one"),
            (
                "time = \"{t}\"\n[[effect]]\nkind=\"k\"\nresource=\"r\"",
                "JSON pointer",
            ),
            (
                "time = \"{/t}\"\ntmie = 1\n[[effect]]\nkind=\"k\"\nresource=\"r\"",
                "tmie",
            ),
            ("[[effect]]\nkind=\"k\"\nresource=\"r\"", "time"),
        ] {
            let error = Mapping::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
