//! The effects that a mapping finds in a record.

use deed_proto::v1;
use serde::Deserialize;
use serde_json::Value;

use super::{
    condition::{Condition, all, is_empty},
    pointer::{FirstOf, Pointer, Scope, Template, text_of},
};

/// Effects of one record.
const EFFECTS_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EffectRule {
    #[serde(default)]
    only: Vec<Condition>,
    /// Only where no rule before this one gave an effect.
    #[serde(default)]
    pub(super) otherwise: bool,
    /// Lists: the first of them that is there gives one effect for each of its elements.
    each: Option<FirstOf<Pointer>>,
    /// Only of elements for which all of these hold.
    #[serde(default)]
    of: Vec<Condition>,
    kind: FirstOf,
    /// The changed object. A template without a value in it names none.
    resource: Option<FirstOf>,
    /// The text in its place if nothing above is there: the effect is a claim then.
    claim: Option<FirstOf>,
    /// Other names in the record. Each must stand in `resource`, in a place of its own. Otherwise the
    /// change was to something within the resource or beside it, and the effect is a claim.
    #[serde(default)]
    whole: Vec<Pointer>,
    external_id: Option<FirstOf>,
    /// A whole number of minor units.
    amount: Option<Template>,
    currency: Option<Template>,
}

impl EffectRule {
    pub(super) fn conditions(&self) -> &[Condition] {
        &self.only
    }

    /// Names of the mapping's that it uses.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let texts = [
            Some(&self.kind),
            self.resource.as_ref(),
            self.claim.as_ref(),
            self.external_id.as_ref(),
        ];
        let conditions = self.of.iter().flat_map(Condition::names);
        let whole = self.whole.iter().filter_map(Pointer::name);
        texts
            .into_iter()
            .flatten()
            .flat_map(FirstOf::names)
            .chain(conditions)
            .chain(whole)
    }

    /// Refuses a rule that no effect can come of.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.resource.is_none() && self.claim.is_none() {
            return Err("an [[effect]] needs a resource, or a claim".to_owned());
        }
        self.of.iter().try_for_each(Condition::check)
    }

    /// Adds the effects that it finds.
    ///
    /// # Errors
    /// An amount that is none, or too many effects.
    pub(super) fn effects(
        &self,
        scope: Scope<'_>,
        effects: &mut Vec<v1::Effect>,
        claims: &mut Vec<v1::Effect>,
    ) -> Result<(), String> {
        let Some(each) = &self.each else {
            self.effect(scope, effects, claims)?;
            return Ok(());
        };
        for element in elements(each, scope) {
            let scope = Scope {
                element: Some(element),
                ..scope
            };
            if all(&self.of, scope) && !self.effect(scope, effects, claims)? {
                return Err("one of its parts does not say what was changed".to_owned());
            }
        }
        Ok(())
    }

    /// Returns false if what it needs is not there.
    fn effect(
        &self,
        scope: Scope<'_>,
        effects: &mut Vec<v1::Effect>,
        claims: &mut Vec<v1::Effect>,
    ) -> Result<bool, String> {
        let Some(kind) = self.kind.fill(scope) else {
            return Ok(false);
        };
        let filled = |text: &Option<FirstOf>| text.as_ref()?.filled(scope);
        let (resource, is_claim) = match (filled(&self.resource), filled(&self.claim)) {
            (Some(resource), _) => {
                let is_claim = resource.is_constant || !self.is_whole(&resource.text, scope);
                (resource.text, is_claim)
            }
            (None, Some(claim)) => (claim.text, true),
            (None, None) => return Ok(false),
        };
        let external_id = self.external_id.as_ref().and_then(|id| id.fill(scope));
        let list = if is_claim { claims } else { effects };
        if list.len() >= EFFECTS_MAX {
            return Err(format!("it has more than {EFFECTS_MAX} effects"));
        }
        list.push(v1::Effect {
            kind,
            resource,
            external_id: external_id.unwrap_or_default(),
            amount: self.amount(scope)?,
            ..v1::Effect::default()
        });
        Ok(true)
    }

    /// Returns true if the resource says all that the record names.
    fn is_whole(&self, resource: &str, scope: Scope<'_>) -> bool {
        let mut left = segments(resource);
        let mut values = self.whole.iter().flat_map(|pointer| pointer.values(scope));
        values.all(|value| match text_of(value) {
            Some(text) if text.starts_with("arn:") => text == resource,
            Some(text) => text == resource || takes(&mut left, &segments(&text)),
            None => is_empty(value),
        })
    }

    fn amount(&self, scope: Scope<'_>) -> Result<Option<v1::Amount>, String> {
        let fill = |template: &Option<Template>| template.as_ref()?.fill(scope);
        let (amount, currency) = match (fill(&self.amount), fill(&self.currency)) {
            (Some(amount), Some(currency)) => (amount, currency),
            _ if self.amount.is_none() && self.currency.is_none() => return Ok(None),
            _ => return Err("its amount is not there, or its currency".to_owned()),
        };
        let minor_units = amount.parse();
        Ok(Some(v1::Amount {
            minor_units: minor_units
                .map_err(|_| format!("its amount {amount:?} is no whole number of minor units"))?,
            currency,
        }))
    }
}

/// The parts of a name; of an ARN those that name something within its account.
fn segments(name: &str) -> Vec<&str> {
    let own = match name.starts_with("arn:") {
        true => name.splitn(6, ':').nth(5).unwrap_or_default(),
        false => name,
    };
    let parts = own.split(['/', ':']);
    parts.filter(|part| !part.is_empty()).collect()
}

/// Removes the consecutive parts `wanted` from `left`; returns false if they are not there.
fn takes(left: &mut Vec<&str>, wanted: &[&str]) -> bool {
    if wanted.is_empty() {
        return false;
    }
    let mut runs = left.windows(wanted.len());
    let found = runs.position(|run| run == wanted);
    found.is_some_and(|at| {
        // An empty part stays in its place, so that the parts before and after it do not become neighbours.
        left.splice(at..at + wanted.len(), [""]);
        true
    })
}

/// The elements of the first list that is there and has some; something that is no list is one
/// element.
fn elements<'a>(each: &FirstOf<Pointer>, scope: Scope<'a>) -> Vec<&'a Value> {
    let mut lists = each.0.iter().map(|pointer| {
        let values = pointer.values(scope).into_iter();
        values.fold(Vec::new(), |mut elements: Vec<&Value>, value| {
            match value {
                Value::Array(list) => elements.extend(list),
                other => elements.push(other),
            }
            elements
        })
    });
    lists
        .find(|elements| !elements.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_resource_does_not_name_makes_a_claim() {
        let rule: EffectRule =
            toml::from_str("kind = 'k'\nresource = '{/r}'\nwhole = ['/in/<(?i)(name|id|arn)s?$>']")
                .unwrap();
        let rule_of = "arn:aws:events:eu-central-1:1:rule/staging/nightly";
        for (resource, inside, is_whole) in [
            (
                rule_of,
                json!({"name": "nightly", "busName": "staging"}),
                true,
            ),
            (rule_of, json!({"name": "nightly", "state": "x"}), true),
            (
                rule_of,
                json!({"name": "nightly", "busName": "prod"}),
                false,
            ),
            // Each has a place of its own, which is not in what all names of the account have.
            (
                rule_of,
                json!({"name": "nightly", "busName": "nightly"}),
                false,
            ),
            (
                rule_of,
                json!({"name": "nightly", "busName": "events"}),
                false,
            ),
            (
                rule_of,
                json!({"name": "staging/nightly", "busName": "rule"}),
                true,
            ),
            (rule_of, json!({"name": "rule/nightly"}), false),
            (rule_of, json!({"name": "night"}), false),
            (rule_of, json!({"name": "/"}), false),
            (rule_of, json!({"arn": rule_of, "name": "nightly"}), true),
            (
                rule_of,
                json!({"arn": "arn:aws:events:eu-central-1:2:rule/staging/nightly"}),
                false,
            ),
            (rule_of, json!({"ids": ["a"]}), false),
            (rule_of, json!({"ids": [], "name": "", "id": null}), true),
            ("shop/7", json!({"id": 7}), true),
            ("shop/7", json!({"id": 8}), false),
        ] {
            let record = json!({"r": resource, "in": inside});
            let named = BTreeMap::new();
            let (mut effects, mut claims) = (Vec::new(), Vec::new());
            let scope = Scope::of(&record, &named);
            rule.effects(scope, &mut effects, &mut claims).unwrap();
            assert_eq!(
                (effects.len() == 1, claims.len() == 1),
                (is_whole, !is_whole),
                "{record}"
            );
        }
    }
}
