//! Compares the amounts that an act moves with the one that its Intent named.
//!
//! An Intent that names an amount is cleared, approved and charged for that amount. So what is declared,
//! and what any one system sees, must not move more at any time, nor money of another kind. How much
//! was moved is counted so, in the order of the effects:
//!
//! 1. Amounts of one kind on one resource are added up: what is undone there, as it was done, is not
//!    moved any more. Amounts on *different* resources or of different kinds do not cancel out, or 5,000
//!    that go to one account would be 5 because 4,995 came from another.
//! 2. What is above zero is one sum, and what is below is another: a transfer that is declared as two
//!    entries of a ledger (one account less, another more) moves its amount once.
//!    On *one* resource kinds of opposite signs are added up: two kinds of change there are two.
//! 3. Neither sum may ever be larger than the Intent's amount, after any of the effects: a million that
//!    is moved and undone was moved. Signs are not compared, for they are a system's convention: a
//!    refund of 5 is 5 to one and -5 to another.
//!
//! An Intent without an amount, and without expected effects, was cleared for no amount: what a system
//! sees of one is beyond it. (Of what is only declared, an Intent without an amount says nothing.) An
//! effect without an amount moves nothing that can be counted.

use std::collections::BTreeMap;

use super::{
    body::Effect,
    cells::{Act, Print},
};

/// A change as far as amounts are counted.
pub(super) trait Moves {
    /// The names of what was changed and of the kind of change.
    fn names(&self) -> (&[u8], &[u8]);
    /// The amount in minor units, with its currency.
    fn amount(&self) -> Option<(i64, &str)>;
    /// The change in words, for a finding.
    fn told(&self) -> String;
}

impl Moves for Effect {
    fn names(&self) -> (&[u8], &[u8]) {
        (self.resource.as_bytes(), self.kind.as_bytes())
    }

    fn amount(&self) -> Option<(i64, &str)> {
        Some((self.minor_units?, &self.currency))
    }

    fn told(&self) -> String {
        format!("{} on {}", self.kind, self.resource)
    }
}

impl Moves for Print {
    fn names(&self) -> (&[u8], &[u8]) {
        (&self.resource, &self.kind)
    }

    fn amount(&self) -> Option<(i64, &str)> {
        Some((self.minor_units?, &self.currency))
    }

    fn told(&self) -> String {
        "one of the effects".to_owned()
    }
}

/// Says how the effects that a system saw go beyond what an act's Intent was cleared for; `None` if
/// they do not.
pub(super) fn beyond_intent<'e, M: Moves + 'e>(
    act: &Act,
    seen: impl IntoIterator<Item = &'e M>,
) -> Option<String> {
    let named = act.minor_units.map(|most| (most, act.currency.as_str()));
    if named.is_some() {
        return beyond(named, seen);
    }
    if !act.expected_effects.is_empty() {
        return None;
    }
    let moves = seen.into_iter().find(|effect| effect.amount().is_some())?;
    Some(format!(
        "{} moves an amount, and the Intent names none",
        moves.told()
    ))
}

/// Says how effects go beyond an Intent's amount (minor units and currency); `None` if they do not.
pub(super) fn beyond<'e, M: Moves + 'e>(
    intent: Option<(i64, &str)>,
    effects: impl IntoIterator<Item = &'e M>,
) -> Option<String> {
    let (most, currency) = intent?;
    let most_moved = i128::from(most).abs();
    // Some hundred effects of 64 bits each are far from the end of these.
    let mut left: BTreeMap<(&[u8], &[u8]), i128> = BTreeMap::new();
    let mut resources: BTreeMap<&[u8], Sides> = BTreeMap::new();
    let (mut above, mut below) = (0, 0);
    for effect in effects {
        let Some((minor_units, other)) = effect.amount() else {
            continue;
        };
        if other != currency {
            return Some(format!(
                "{} is in {other}, and the Intent names {currency}",
                effect.told()
            ));
        }
        let names = effect.names();
        let sum = left.entry(names).or_default();
        let sides = resources.entry(names.0).or_default();
        let before = sides.moved();
        sides.take_back(*sum);
        *sum += i128::from(minor_units);
        sides.add(*sum);
        let now = sides.moved();
        above += now.0 - before.0;
        below += now.1 - before.1;
        let moved = above.max(below);
        if moved > most_moved {
            return Some(format!(
                "the effects move {moved} in minor units of {currency}, and the Intent names {most}"
            ));
        }
    }
    None
}

/// The sums of the kinds of change on one resource: of those above zero, and of those below.
#[derive(Debug, Clone, Copy, Default)]
struct Sides {
    above: i128,
    below: i128,
}

impl Sides {
    fn add(&mut self, sum: i128) {
        self.above += sum.max(0);
        self.below -= sum.min(0);
    }

    fn take_back(&mut self, sum: i128) {
        self.above -= sum.max(0);
        self.below += sum.min(0);
    }

    /// The amounts that were moved one way and the other. Where two kinds of change go both ways on
    /// one resource, both were moved: a refund and a voucher of opposite signs are two.
    fn moved(self) -> (i128, i128) {
        if self.above > 0 && self.below > 0 {
            let both = self.above + self.below;
            return (both, both);
        }
        (self.above, self.below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(amounts: &[(&str, Option<i64>, &str)]) -> Vec<Effect> {
        let one = |(resource, minor_units, currency): &(&str, Option<i64>, &str)| Effect {
            kind: "moved".into(),
            resource: (*resource).into(),
            minor_units: *minor_units,
            currency: (*currency).into(),
            ..Effect::default()
        };
        amounts.iter().map(one).collect()
    }

    fn euros(amounts: &[(&str, i64)]) -> Vec<Effect> {
        let amounts: Vec<_> = amounts
            .iter()
            .map(|(to, n)| (*to, Some(*n), "EUR"))
            .collect();
        effects(&amounts)
    }

    #[test]
    fn no_more_is_moved_than_was_named() {
        for (amounts, moved) in [
            (&[][..], 0),
            (&[("a", 500)], 500),
            (&[("a", -500)], 500),
            (&[("a", 501)], 501),
            (&[("a", -501)], 501),
            (&[("a", 500_000)], 500_000),
            // In parts.
            (&[("a", 250), ("a", 250)], 500),
            (&[("a", 250), ("b", 250)], 500),
            (&[("a", 250), ("b", 251)], 501),
            (&[("a", -250), ("b", -251)], 501),
            // Undone, and done again; more was undone than done.
            (&[("a", 500), ("a", -500), ("a", 500)], 500),
            (&[("a", 500), ("a", -1_001)], 501),
            // Moved and undone was moved.
            (&[("a", 1_000_000), ("a", -1_000_000)], 1_000_000),
            (&[("a", -1_000_000), ("a", 1_000_000)], 1_000_000),
            (&[("a", 500), ("a", 1), ("a", -1)], 501),
            // Two entries of a ledger; fees.
            (&[("a", -500), ("b", 500)], 500),
            (&[("a", -500), ("b", 490), ("c", 10)], 500),
            // What comes from elsewhere does not make it less.
            (&[("a", 5_000), ("b", -4_995)], 5_000),
            (&[("a", i64::MAX), ("b", i64::MAX)], i128::from(i64::MAX)),
            (
                &[("a", i64::MIN), ("b", i64::MIN)],
                i128::from(i64::MAX) + 1,
            ),
        ] {
            for most in [500, -500] {
                let beyond = beyond(Some((most, "EUR")), &euros(amounts));
                assert_eq!(beyond.is_some(), moved > 500, "{amounts:?}");
                if let Some(detail) = beyond {
                    assert!(detail.contains(&format!("move {moved} ")), "{detail}");
                }
            }
            assert_eq!(beyond(None, &euros(amounts)), None);
        }
        // Of nothing, nothing.
        assert!(beyond(Some((0, "EUR")), &euros(&[("a", 1)])).is_some());
        assert!(beyond(Some((0, "EUR")), &euros(&[("a", 0)])).is_none());
        let least = Some((i64::MIN, "EUR"));
        assert!(beyond(least, &euros(&[("a", i64::MIN)])).is_none());
    }

    #[test]
    fn kinds_of_change_on_one_resource_are_added_up() {
        let of = |kind: &str, resource: &str, minor_units| Effect {
            kind: kind.into(),
            ..euros(&[(resource, minor_units)]).remove(0)
        };
        for (signs, resources, within) in [
            ([1, 1], ["a", "a"], false),
            ([1, -1], ["a", "a"], false),
            ([-1, -1], ["a", "a"], false),
            // Two entries of a ledger.
            ([1, -1], ["a", "b"], true),
        ] {
            let both = [
                of("refunded", resources[0], signs[0] * 500),
                of("voucher", resources[1], signs[1] * 500),
            ];
            let beyond = beyond(Some((500, "EUR")), &both);
            assert_eq!(beyond.is_none(), within, "{signs:?} {resources:?}");
        }
    }

    #[test]
    fn nothing_of_another_kind_is_moved() {
        let named = Some((500, "EUR"));
        let other = effects(&[("a", Some(500), "EUR"), ("b", Some(1), "USD")]);
        let detail = beyond(named, &other).unwrap();
        assert_eq!(detail, "moved on b is in USD, and the Intent names EUR");
        // Whatever it is called that moves nothing: no amount is in no currency.
        let none = effects(&[("a", Some(500), "EUR"), ("b", None, "")]);
        assert_eq!(beyond(named, &none), None);
        assert_eq!(beyond(None, &other), None);
    }
}
