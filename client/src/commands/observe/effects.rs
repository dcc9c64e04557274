//! The effects that a mapping finds in a record.

use deed_proto::v1;
use serde::Deserialize;
use serde_json::Value;

use super::{
    condition::{Condition, all},
    pointer::{FirstOf, Pointer, Scope, Template},
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
    /// One effect for each element of the first of these lists that is there.
    each: Option<FirstOf<Pointer>>,
    /// Only of elements for which all of these hold.
    #[serde(default)]
    of: Vec<Condition>,
    kind: FirstOf,
    /// What was changed. A template without a value in it names no object.
    resource: Option<FirstOf>,
    /// What stands for it where nothing above is there: the effect is a claim then.
    claim: Option<FirstOf>,
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
        texts
            .into_iter()
            .flatten()
            .flat_map(FirstOf::names)
            .chain(conditions)
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
            return self.effect(scope, effects, claims);
        };
        for element in elements(each, scope) {
            let scope = Scope {
                element: Some(element),
                ..scope
            };
            if all(&self.of, scope) {
                self.effect(scope, effects, claims)?;
            }
        }
        Ok(())
    }

    fn effect(
        &self,
        scope: Scope<'_>,
        effects: &mut Vec<v1::Effect>,
        claims: &mut Vec<v1::Effect>,
    ) -> Result<(), String> {
        let Some(kind) = self.kind.fill(scope) else {
            return Ok(());
        };
        let filled = |text: &Option<FirstOf>| text.as_ref()?.filled(scope);
        let (resource, is_claim) = match (filled(&self.resource), filled(&self.claim)) {
            (Some(resource), _) => (resource.text, resource.is_constant),
            (None, Some(claim)) => (claim.text, true),
            (None, None) => return Ok(()),
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
        Ok(())
    }

    fn amount(&self, scope: Scope<'_>) -> Result<Option<v1::Amount>, String> {
        let fill = |template: &Option<Template>| template.as_ref()?.fill(scope);
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
