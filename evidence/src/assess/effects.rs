//! Effects that were seen against effects that were declared, and against what was cleared.
//!
//! Changes are counted, and a system that speaks twice must not make two of one:
//!
//! 1. *One effect that was seen confirms one that was declared.* Each declared effect is matched at
//!    most once by each system. Different systems may see the same change; that is what makes it
//!    believable.
//! 2. *A system that reports a change again says so*, by the external id that it named before. That
//!    is a repeat, which confirms nothing more. Without an id a second report is a second change: if
//!    nothing that was declared is left for it, it was hidden. So is one id that is listed twice in
//!    one Observation.
//! 3. *What nobody has accounted for comes first*: of several declared effects that fit, one that
//!    another system saw under the same external id, else one that nobody has seen, else the first.
//!    If all that fit are taken, those that the system reported before make room where they fit another
//!    one: a change is one too many only if there is no way to give each of them an effect of its own.
//!    So the order of its reports does not matter.
//! 4. *Where the Intent names an amount, an effect without one is another effect* than one with an
//!    amount: what is left unsaid in the Outcome must not stand for any sum.
//!
//! A system is a producer, whatever key it signs with. Claims are compared, each for itself, and are
//! not remembered: they confirm nothing.

use std::cmp::Reverse;

use bytes::Bytes;
use deed_proto::v1::IntentState;

use super::{
    amounts,
    body::Effect,
    cells::{Act, Change, Print, System, name_of, short},
    grant::covers,
};

/// Changes that are remembered of an act for each system: no system uses up what is another's. As many
/// as can be declared.
pub(super) const CHANGES_MAX: usize = 64;

/// Effects of an Outcome: as many as a mask has bits.
const EFFECTS_MAX: usize = 64;

/// An effect that somebody reports, with its print.
#[derive(Debug, Clone)]
pub(super) struct ObservedEffect {
    pub(super) effect: Effect,
    pub(super) print: Print,
}

impl ObservedEffect {
    pub(super) fn of(effect: &Effect) -> Self {
        Self {
            effect: effect.clone(),
            print: Print::of(effect),
        }
    }

    pub(super) fn all(effects: &[Effect]) -> Vec<Self> {
        effects.iter().map(Self::of).collect()
    }
}

/// The comparison of an effect that was seen with those that were declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EffectMatch {
    /// Nothing is declared yet.
    Early,
    /// The declared effect at this position.
    Declared(usize),
    /// This system has reported the change before.
    Again,
    /// This system has reported the change before, and otherwise.
    Otherwise,
    /// Of the same kind on the same resource as a declared one, but different.
    Different,
    /// It was declared, and seen more often than that.
    Beyond,
    /// Nothing like it was declared.
    Hidden,
}

/// The fit of an act with what was seen, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Nothing in common.
    Not,
    /// On the resource that it asked for, and nothing else in common.
    OnResource,
    /// It was not cleared, and asked for exactly this.
    Asked,
    /// It has no Outcome yet, and the system has seen the same of it already.
    OpenTwice,
    /// It has no Outcome yet, and was cleared for the resource.
    Open,
    /// It declares something of it.
    Some,
    /// It declares all of it.
    All,
    /// The system reports it again.
    Again,
}

/// The name under which a system's changes are remembered.
pub(super) fn system(producer: &str) -> System {
    name_of("observer", producer)
}

/// Returns how well an act fits the effects that `system` saw; an empty one has no memory.
pub(super) fn fit(act: &Act, effects: &[ObservedEffect], system: &[u8]) -> Fit {
    let compared = look_up(act, effects, system).seen;
    let any = |wanted: fn(&EffectMatch) -> bool| compared.iter().any(wanted);
    if any(|seen| matches!(seen, EffectMatch::Again | EffectMatch::Otherwise)) {
        return Fit::Again;
    }
    let on_resource = effects.iter().any(|seen| is_on(act, &seen.effect));
    let otherwise = if on_resource {
        Fit::OnResource
    } else {
        Fit::Not
    };
    if act.outcome.is_some() {
        let declared = |seen: &EffectMatch| matches!(seen, EffectMatch::Declared(_));
        return if compared.iter().all(declared) {
            Fit::All
        } else if any(|seen| matches!(seen, EffectMatch::Declared(_) | EffectMatch::Different)) {
            Fit::Some
        } else {
            otherwise
        };
    }
    if !on_resource || exceeds(act, effects, system) {
        return otherwise;
    }
    if act.state() != IntentState::Cleared {
        return Fit::Asked;
    }
    let own = own_of(act, system);
    let twice = effects.iter().any(|seen| {
        let mut own = own.iter();
        own.any(|before| is_same_change(&before.effect, &seen.print, false))
    });
    if twice { Fit::OpenTwice } else { Fit::Open }
}

/// Returns true if the effects that `system` saw are more or other than the Intent asked for.
fn exceeds(act: &Act, effects: &[ObservedEffect], system: &[u8]) -> bool {
    let own = own_of(act, system);
    let mut taken = expected_taken(act, system);
    let seen = effects.iter().map(|seen| &seen.print);
    let all = own.iter().map(|change| &change.effect).chain(seen);
    let other = |seen: &ObservedEffect| {
        let (expected, beyond) = beyond_cleared(act, &seen.effect, taken);
        taken |= expected.map_or(0, bit);
        beyond.is_some()
    };
    effects.iter().any(other) || amounts::beyond_intent(act, all).is_some()
}

fn own_of<'a>(act: &'a Act, system: &[u8]) -> Vec<&'a Change> {
    let own = |change: &&Change| !system.is_empty() && change.system[..] == *system;
    act.changes.iter().filter(own).collect()
}

/// The result of looking up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compared {
    /// The comparison of each of the effects, in their order.
    pub(super) seen: Vec<EffectMatch>,
    /// Changes that make room: their places in the act's list, and the declared effects that they are
    /// now.
    pub(super) moved: Vec<(usize, u32)>,
}

impl Compared {
    /// Lets the changes that make room do so.
    pub(super) fn make_room(&self, act: &mut Act) {
        for (at, declared) in &self.moved {
            if let Some(change) = act.changes.get_mut(*at) {
                change.declared = Some(*declared);
            }
        }
    }
}

/// An effect that was seen and is taken for a declared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The change at this place in the act's list.
    Before(usize),
    /// The effect at this place among those that are looked up.
    Now(usize),
}

/// The declared effects, each with what one system saw of it.
struct Matching<'a> {
    act: &'a Act,
    observed: &'a [ObservedEffect],
    declared: &'a [Print],
    holders: Vec<Option<Holder>>,
    /// The effects that any system has seen so far: bit n for effect n.
    confirmed: u64,
    /// The declared effects that each change fits, and each effect that is looked up: bit n for effect
    /// n. Worked out once for each, so that making room compares nothing again.
    before: Vec<Option<u64>>,
    now: Vec<Option<u64>>,
}

impl<'a> Matching<'a> {
    fn of(act: &'a Act, observed: &'a [ObservedEffect], system: &[u8]) -> Option<Self> {
        let declared = &act.outcome.as_ref()?.effects[..];
        let declared = &declared[..declared.len().min(EFFECTS_MAX)];
        let mut holders = vec![None; declared.len()];
        let own = |change: &Change| !system.is_empty() && change.system[..] == *system;
        for (at, change) in act.changes.iter().enumerate() {
            let n = change.declared.and_then(|n| usize::try_from(n).ok());
            if let Some(holder) = n.and_then(|n| holders.get_mut(n))
                && own(change)
            {
                *holder = Some(Holder::Before(at));
            }
        }
        Some(Self {
            act,
            observed,
            declared,
            holders,
            confirmed: confirmed(act),
            before: vec![None; act.changes.len()],
            now: vec![None; observed.len()],
        })
    }

    fn print(&self, holder: Holder) -> &'a Print {
        match holder {
            Holder::Before(at) => &self.act.changes[at].effect,
            Holder::Now(at) => &self.observed[at].print,
        }
    }

    /// The declared effects that this one fits: bit n for effect n.
    fn fits(&mut self, holder: Holder) -> u64 {
        let print = self.print(holder);
        let (declared, strict) = (self.declared, self.act.minor_units.is_some());
        let known = match holder {
            Holder::Before(at) => &mut self.before[at],
            Holder::Now(at) => &mut self.now[at],
        };
        *known.get_or_insert_with(|| {
            let all = (0..).zip(declared);
            let fitting = all.filter(|(_, declared)| is_same(declared, print, strict));
            fitting.fold(0, |mask, (n, _)| mask | bit(n))
        })
    }

    /// Finds a declared effect for one that was seen; the others make room for it where they can.
    fn place(&mut self, holder: Holder) -> bool {
        let fits = self.fits(holder);
        let id = short(&self.print(holder).external_id);
        let free = (0..self.declared.len())
            .filter(|n| fits & (1 << n) != 0 && self.holders[*n].is_none())
            .min_by_key(|n| {
                let named = id != 0 && self.act.named.get(*n) == Some(&id);
                (!named, self.confirmed & (1 << n) != 0, *n)
            });
        match free {
            Some(n) => {
                self.holders[n] = Some(holder);
                true
            }
            None => self.displace(holder, &mut 0),
        }
    }

    /// Finds it along a way on which each gives its effect to the one before it, and takes another one.
    fn displace(&mut self, holder: Holder, tried: &mut u64) -> bool {
        let fits = self.fits(holder);
        loop {
            let n = (fits & !*tried).trailing_zeros();
            let Some(held) = self.holders.get(n as usize).copied() else {
                return false;
            };
            *tried |= bit(n);
            let gives_way = match held {
                None => true,
                Some(other) => self.displace(other, tried),
            };
            if gives_way {
                self.holders[n as usize] = Some(holder);
                return true;
            }
        }
    }

    /// Changes that are taken for another effect than they were.
    fn moved(&self) -> Vec<(usize, u32)> {
        let holders = (0..).zip(&self.holders);
        holders
            .filter_map(|(n, holder)| match holder {
                Some(Holder::Before(at)) if self.act.changes[*at].declared != Some(n) => {
                    Some((*at, n))
                }
                _ => None,
            })
            .collect()
    }
}

/// Finds what `system` saw, in one Observation, among what was declared; an empty one has no
/// memory. What is named most exactly is looked up first.
pub(super) fn look_up(act: &Act, observed: &[ObservedEffect], system: &[u8]) -> Compared {
    let mut matching = Matching::of(act, observed, system);
    let own = own_of(act, system);
    let order = most_exact_first(observed);
    let mut seen = vec![EffectMatch::Hidden; observed.len()];
    for (place, at) in order.iter().enumerate() {
        let print = &observed[*at].print;
        let before = own
            .iter()
            .find(|change| is_named_alike(&change.effect, print));
        let listed = order[..place]
            .iter()
            .any(|before| is_named_alike(&observed[*before].print, print));
        seen[*at] = match (before, &mut matching) {
            _ if listed => EffectMatch::Beyond,
            (Some(before), _) if is_same(&before.effect, print, false) => EffectMatch::Again,
            (Some(_), _) => EffectMatch::Otherwise,
            (None, None) => EffectMatch::Early,
            (None, Some(matching)) => {
                let holder = Holder::Now(*at);
                if matching.place(holder) {
                    // Which one it is shows at the end.
                    EffectMatch::Declared(0)
                } else if matching.fits(holder) != 0 {
                    EffectMatch::Beyond
                } else if matching.declared.iter().any(|one| is_like(one, print)) {
                    EffectMatch::Different
                } else {
                    EffectMatch::Hidden
                }
            }
        };
    }
    let Some(matching) = matching else {
        let moved = Vec::new();
        return Compared { seen, moved };
    };
    for (n, holder) in matching.holders.iter().enumerate() {
        if let Some(Holder::Now(at)) = holder {
            seen[*at] = EffectMatch::Declared(n);
        }
    }
    let moved = matching.moved();
    Compared { seen, moved }
}

/// Finds a declared effect anew for a change of which more is known now. Returns false if it is none of
/// them, or one too many.
pub(super) fn match_again(act: &mut Act, at: usize) -> bool {
    let system = act.changes[at].system.clone();
    act.changes[at].declared = None;
    let Some(mut matching) = Matching::of(act, &[], &system) else {
        return true;
    };
    if !matching.place(Holder::Before(at)) {
        return false;
    }
    let moved = matching.moved();
    let seen = Vec::new();
    Compared { seen, moved }.make_room(act);
    true
}

/// The declared effects that independent systems have seen: bit n for effect n. Of a system whose
/// changes are not at hand that is what is kept in short.
pub(super) fn confirmed(act: &Act) -> u64 {
    let at_hand = |name: &Bytes| act.changes.iter().any(|change| change.system == name);
    let others = act.systems.iter().filter(|one| !at_hand(&one.system));
    let others = others.fold(0, |mask, one| mask | one.confirmed);
    others | confirmed_by(act, |_| true)
}

/// The declared effects that were seen in changes that count.
pub(super) fn confirmed_by(act: &Act, counts: impl Fn(&Change) -> bool) -> u64 {
    let changes = act.changes.iter().filter(|change| counts(change));
    let declared = changes.filter_map(|change| change.declared);
    declared.fold(0, |mask, n| mask | bit(n))
}

/// Merges two reports of one change, if the second one says more; `None` if it does not. They are
/// the same in what both name.
pub(super) fn merged(before: &Print, again: &Print) -> Option<Print> {
    let mut both = before.clone();
    if both.minor_units.is_none() {
        both.minor_units = again.minor_units;
        both.currency.clone_from(&again.currency);
    }
    if both.before.is_empty() {
        both.before = again.before.clone();
    }
    if both.after.is_empty() {
        both.after = again.after.clone();
    }
    (both != *before).then_some(both)
}

/// Returns true if a change is still the declared effect that it was taken for, if it was taken for one.
pub(super) fn is_still_declared(act: &Act, change: &Change) -> bool {
    let strict = act.minor_units.is_some();
    let n = change.declared.and_then(|n| usize::try_from(n).ok());
    let declared = act.outcome.as_ref().zip(n);
    let declared = declared.and_then(|(outcome, n)| outcome.effects.get(n));
    declared.is_none_or(|one| is_same(one, &change.effect, strict))
}

/// The same of the expected effect; `named` has the change's names.
pub(super) fn is_still_expected(act: &Act, change: &Change, named: &Effect) -> bool {
    let n = change.expected.and_then(|n| usize::try_from(n).ok());
    let expected = n.and_then(|n| act.expected_effects.get(n));
    let now = Effect {
        minor_units: change.effect.minor_units,
        currency: change.effect.currency.clone(),
        ..named.clone()
    };
    expected.is_none_or(|one| is_expected(one, &now))
}

/// Returns true if all declared effects, and at least one, are in a mask.
pub(super) fn is_all(act: &Act, mask: u64) -> bool {
    let all = act
        .outcome
        .as_ref()
        .map_or(0, |outcome| outcome.effects.len());
    all > 0 && mask.count_ones() as usize == all
}

/// Returns the expected effects that `system` has seen already: bit n for effect n.
pub(super) fn expected_taken(act: &Act, system: &[u8]) -> u64 {
    let own = own_of(act, system);
    let expected = own.iter().filter_map(|change| change.expected);
    expected.fold(0, |mask, n| mask | bit(n))
}

/// Returns the position of the expected effect that a change is, and says how the change goes
/// beyond what the act was cleared for; `None` if it does not. `taken` has the expected effects that
/// are somebody's already: bit n for effect n.
pub(super) fn beyond_cleared(
    act: &Act,
    seen: &Effect,
    taken: u64,
) -> (Option<u32>, Option<String>) {
    if act.expected_effects.is_empty() {
        let detail = (!is_on(act, seen)).then(|| {
            format!(
                "{} on {} is not on what the Intent was cleared for",
                seen.kind, seen.resource
            )
        });
        return (None, detail);
    }
    let expected = (0..).zip(&act.expected_effects);
    // The narrowest of those that fit, which others can use least: patterns that cover one name lie
    // within each other.
    let found = expected
        .filter(|(n, expected)| taken & bit(*n) == 0 && is_expected(expected, seen))
        .min_by_key(|(n, expected)| {
            let narrow = Reverse(expected.resource.len());
            (expected.resource != seen.resource, narrow, *n)
        })
        .map(|(n, _)| n);
    let detail = found.is_none().then(|| {
        format!(
            "{} on {} is not, or not so often, among the effects that the Intent expects",
            seen.kind, seen.resource
        )
    });
    (found, detail)
}

/// Says how the effects that an Outcome declares go beyond what the act was cleared for, one by one.
pub(super) fn declared_beyond(act: &Act, effects: &[Effect]) -> Option<String> {
    let mut taken = 0;
    effects.iter().find_map(|effect| {
        let (expected, beyond) = beyond_cleared(act, effect, taken);
        taken |= expected.map_or(0, bit);
        beyond
    })
}

/// Returns true if an effect is on the act's resource, or on one where it expects effects.
fn is_on(act: &Act, effect: &Effect) -> bool {
    let mut expected = act.expected_effects.iter();
    effect.resource == act.resource || expected.any(|one| covers(&one.resource, &effect.resource))
}

pub(super) fn is_expected(expected: &Effect, seen: &Effect) -> bool {
    let amounts = expected.minor_units == seen.minor_units && expected.currency == seen.currency;
    expected.kind == seen.kind && amounts && covers(&expected.resource, &seen.resource)
}

/// Positions of effects: those with an external id first, then those with an amount.
pub(super) fn most_exact_first(effects: &[ObservedEffect]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..effects.len()).collect();
    order.sort_by_key(|at| {
        let effect = &effects[*at].effect;
        (effect.external_id.is_empty(), effect.minor_units.is_none())
    });
    order
}

pub(super) fn bit(effect: u32) -> u64 {
    1_u64.checked_shl(effect).unwrap_or(0)
}

/// Of the same kind on the same resource.
fn is_like(a: &Print, b: &Print) -> bool {
    a.kind == b.kind && a.resource == b.resource
}

/// One change by what a system calls it.
pub(super) fn is_named_alike(a: &Print, b: &Print) -> bool {
    is_like(a, b) && !a.external_id.is_empty() && a.external_id == b.external_id
}

/// Kind and resource must be the same; of the rest what both name.
pub(super) fn is_same(declared: &Print, seen: &Print, strict: bool) -> bool {
    let (a, b) = (&declared.external_id, &seen.external_id);
    is_same_change(declared, seen, strict) && (a.is_empty() || b.is_empty() || a == b)
}

/// The same, whatever the external ids. `strict` tells an effect without an amount from one with.
fn is_same_change(declared: &Print, seen: &Print, strict: bool) -> bool {
    let same_bytes = |a: &[u8], b: &[u8]| a.is_empty() || b.is_empty() || a == b;
    let same_amount = match (declared.minor_units, seen.minor_units) {
        (Some(a), Some(b)) => a == b && declared.currency == seen.currency,
        (None, None) => true,
        _ => !strict,
    };
    is_like(declared, seen)
        && same_amount
        && same_bytes(&declared.before, &seen.before)
        && same_bytes(&declared.after, &seen.after)
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
