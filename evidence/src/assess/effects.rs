//! Effects that were seen against effects that were declared.
//!
//! What is counted is changes, and a system that speaks twice must not make two of one:
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
//!
//! A system is a producer, whatever key it signs with. Claims (nobody signed them, or an importer
//! did) are compared, each for itself, and are not remembered: they confirm nothing.

use bytes::Bytes;
use deed_proto::v1::IntentState;

use super::{
    cells::{Act, Outcome, Sight, name_of},
    said::Effect,
};

/// Matches that are remembered of an Outcome: 64 effects, each seen by four systems. A system that
/// finds no room is compared, and confirms nothing.
pub(super) const SIGHTS_MAX: usize = 256;

/// Effects of an Outcome: as many as a mask has bits.
const EFFECTS_MAX: usize = 64;

/// How what was seen compares with what was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The declared effect at this position.
    Declared(usize),
    /// The same, and this system has reported it before.
    Again(usize),
    /// Of the same kind on the same resource, but different.
    Different,
    /// It was declared, and seen more often than that.
    Beyond,
    /// Nothing like it was declared.
    Hidden,
}

/// How well an act fits what was seen, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Nothing in common.
    Not,
    /// It has no Outcome yet, and the system has seen the same of it already.
    OpenTwice,
    /// It has no Outcome yet.
    Open,
    /// It declares something of it.
    Some,
    /// It declares all of it.
    All,
    /// The system reports it again.
    Again,
}

/// The name under which a system's matches are remembered.
pub(super) fn observer(producer: &str) -> Bytes {
    Bytes::copy_from_slice(&name_of("observer", producer))
}

/// How well an act fits what `observer` saw; an empty one has no memory.
pub(super) fn fit(act: &Act, effects: &[Effect], observer: &[u8]) -> Fit {
    let Some(outcome) = &act.outcome else {
        if act.state() != IntentState::Cleared {
            return Fit::Not;
        }
        let own = act.observations.iter();
        let own = own.filter(|one| !observer.is_empty() && one.observer[..] == *observer);
        let before: Vec<&Effect> = own.flat_map(|one| &one.effects).collect();
        let any = |is: fn(&Effect, &Effect) -> bool| {
            let mut all = effects.iter();
            all.any(|seen| before.iter().any(|before| is(before, seen)))
        };
        return if any(is_named_alike) {
            Fit::Again
        } else if any(is_same_change) {
            Fit::OpenTwice
        } else {
            Fit::Open
        };
    };
    let compared = look_up(outcome, effects, observer);
    let is_there = |seen: &Seen| matches!(seen, Seen::Declared(_));
    if compared.iter().any(|seen| matches!(seen, Seen::Again(_))) {
        Fit::Again
    } else if compared.iter().all(is_there) {
        Fit::All
    } else if compared
        .iter()
        .any(|seen| is_there(seen) || *seen == Seen::Different)
    {
        Fit::Some
    } else {
        Fit::Not
    }
}

/// Finds what `observer` saw, in one Observation, among what was declared; an empty one has no
/// memory. What is named most exactly is looked up first.
pub(super) fn look_up(outcome: &Outcome, observed: &[Effect], observer: &[u8]) -> Vec<Seen> {
    let declared = &outcome.effects[..outcome.effects.len().min(EFFECTS_MAX)];
    let own = |sight: &&Sight| !observer.is_empty() && sight.observer[..] == *observer;
    let own: Vec<&Sight> = outcome.sights.iter().filter(own).collect();
    let spent = own.iter().fold(0, |mask, sight| mask | bit(sight.effect));
    let mut order: Vec<usize> = (0..observed.len()).collect();
    order.sort_by_key(|at| {
        let effect = &observed[*at];
        (effect.external_id.is_empty(), effect.minor_units.is_none())
    });
    let mut compared = vec![Seen::Hidden; observed.len()];
    let mut taken = 0;
    for (place, at) in order.iter().enumerate() {
        let seen = &observed[*at];
        let name = name(seen);
        let is_its = |sight: &&&Sight| {
            let effect = declared.get(sight.effect as usize);
            !name.is_empty() && sight.name == name && effect.is_some_and(|it| is_like(it, seen))
        };
        let listed = order[..place]
            .iter()
            .any(|before| is_named_alike(&observed[*before], seen));
        compared[*at] = if listed {
            Seen::Beyond
        } else if let Some(sight) = own.iter().find(is_its) {
            let n = sight.effect as usize;
            if is_same(&declared[n], seen) {
                Seen::Again(n)
            } else {
                Seen::Different
            }
        } else {
            let same = |n: &usize| is_same(&declared[*n], seen);
            let free = (0..declared.len())
                .filter(same)
                .filter(|n| (taken | spent) & (1 << n) == 0)
                .min_by_key(|n| {
                    let mut sights = outcome.sights.iter();
                    let named = sights.any(|sight| is_its(&&sight) && sight.effect as usize == *n);
                    (!named, outcome.seen & (1 << n) != 0, *n)
                });
            match free {
                Some(n) => {
                    taken |= 1 << n;
                    Seen::Declared(n)
                }
                None if (0..declared.len()).any(|n| same(&n)) => Seen::Beyond,
                None if declared.iter().any(|effect| is_like(effect, seen)) => Seen::Different,
                None => Seen::Hidden,
            }
        };
    }
    compared
}

/// Remembers what `observer` saw. Whether there was room for it.
pub(super) fn remember(
    outcome: &mut Outcome,
    compared: &[Seen],
    effects: &[Effect],
    observer: &Bytes,
) -> bool {
    let matched = compared.iter().zip(effects);
    let sights: Vec<Sight> = matched
        .filter_map(|(seen, effect)| match seen {
            Seen::Declared(n) => Some(Sight {
                effect: u32::try_from(*n).ok()?,
                observer: observer.clone(),
                name: name(effect),
            }),
            _ => None,
        })
        .collect();
    let room = outcome.sights.len() + sights.len() <= SIGHTS_MAX;
    if room {
        outcome.sights.extend(sights);
    }
    room
}

fn bit(effect: u32) -> u64 {
    1_u64.checked_shl(effect).unwrap_or(0)
}

/// An external id as it is remembered; empty for none.
fn name(effect: &Effect) -> Bytes {
    if effect.external_id.is_empty() {
        return Bytes::new();
    }
    Bytes::copy_from_slice(&name_of("effect", &effect.external_id))
}

/// Of the same kind on the same resource.
fn is_like(a: &Effect, b: &Effect) -> bool {
    a.kind == b.kind && a.resource == b.resource
}

/// One change by what a system calls it.
fn is_named_alike(a: &Effect, b: &Effect) -> bool {
    is_like(a, b) && !a.external_id.is_empty() && a.external_id == b.external_id
}

/// Kind and resource must be the same; of the rest what both name.
fn is_same(declared: &Effect, seen: &Effect) -> bool {
    let (a, b) = (&declared.external_id, &seen.external_id);
    is_same_change(declared, seen) && (a.is_empty() || b.is_empty() || a == b)
}

/// The same, whatever the external ids.
fn is_same_change(declared: &Effect, seen: &Effect) -> bool {
    let same_bytes = |a: &[u8], b: &[u8]| a.is_empty() || b.is_empty() || a == b;
    let same_amount = match (declared.minor_units, seen.minor_units) {
        (Some(a), Some(b)) => a == b && declared.currency == seen.currency,
        _ => true,
    };
    is_like(declared, seen)
        && same_amount
        && same_bytes(&declared.before, &seen.before)
        && same_bytes(&declared.after, &seen.after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANK: &[u8] = b"bank";
    const SHOP: &[u8] = b"shop";

    fn effect(kind: &str, resource: &str, id: &str, amount: Option<i64>) -> Effect {
        Effect {
            kind: kind.into(),
            resource: resource.into(),
            external_id: id.into(),
            minor_units: amount,
            currency: amount.map_or_else(String::new, |_| "EUR".into()),
            ..Effect::default()
        }
    }

    fn refund(id: &str) -> Effect {
        effect("refund", "orders/7", id, Some(100))
    }

    fn declares(effects: &[Effect]) -> Outcome {
        Outcome {
            effects: effects.to_vec(),
            ..Outcome::default()
        }
    }

    /// An Observation, remembered as an independent system's is.
    fn sees(outcome: &mut Outcome, who: &'static [u8], effects: &[Effect]) -> Vec<Seen> {
        let compared = look_up(outcome, effects, who);
        assert!(remember(
            outcome,
            &compared,
            effects,
            &Bytes::from_static(who)
        ));
        for seen in &compared {
            if let Seen::Declared(n) | Seen::Again(n) = seen {
                outcome.seen |= 1 << n;
            }
        }
        compared
    }

    #[test]
    fn effects_are_the_same_in_what_both_name() {
        let declared = declares(&[
            effect("refund", "orders/7", "R-1", Some(100)),
            effect("refund", "orders/7", "R-2", Some(200)),
        ]);
        let look = |seen: &Effect| look_up(&declared, std::slice::from_ref(seen), &[])[0];
        assert_eq!(
            look(&effect("refund", "orders/7", "R-2", Some(200))),
            Seen::Declared(1)
        );
        assert_eq!(
            look(&effect("refund", "orders/7", "", None)),
            Seen::Declared(0)
        );
        assert_eq!(
            look(&effect("refund", "orders/7", "R-1", Some(101))),
            Seen::Different
        );
        assert_eq!(
            look(&effect("refund", "orders/8", "R-1", Some(100))),
            Seen::Hidden
        );
        assert_eq!(look(&effect("mail", "orders/7", "", None)), Seen::Hidden);
    }

    #[test]
    fn a_declared_effect_is_there_once() {
        let twice = [refund(""), refund("")];
        let once = declares(&twice[..1]);
        let seen = look_up(&once, &twice, &[]);
        assert_eq!(seen, [Seen::Declared(0), Seen::Beyond]);
        let both = declares(&twice);
        let seen = look_up(&both, &twice, &[]);
        assert_eq!(seen, [Seen::Declared(0), Seen::Declared(1)]);
        // One at a time: the one that was not seen before.
        let first_seen = Outcome { seen: 0b01, ..both };
        assert_eq!(look_up(&first_seen, &twice[..1], &[]), [Seen::Declared(1)]);
        // The exact one first, wherever it stands.
        let named = declares(&[refund("R-1"), refund("R-2")]);
        assert_eq!(
            look_up(&named, &[refund(""), refund("R-1")], &[]),
            [Seen::Declared(1), Seen::Declared(0)]
        );
    }

    #[test]
    fn what_has_no_id_is_another_change_each_time() {
        let mut twice = declares(&[refund(""), refund("")]);
        let one = [refund("")];
        assert_eq!(sees(&mut twice, BANK, &one), [Seen::Declared(0)]);
        assert_eq!(sees(&mut twice, BANK, &one), [Seen::Declared(1)]);
        assert_eq!(sees(&mut twice, BANK, &one), [Seen::Beyond]);
        // An id that was not named before does not make it the same change.
        assert_eq!(sees(&mut twice, BANK, &[refund("R-1")]), [Seen::Beyond]);
        // Somebody else may have seen the same.
        assert_eq!(sees(&mut twice, SHOP, &one), [Seen::Declared(0)]);
        assert_eq!(sees(&mut twice, SHOP, &one), [Seen::Declared(1)]);
        assert_eq!(sees(&mut twice, SHOP, &one), [Seen::Beyond]);
        // Claims have no memory.
        for _ in 0..3 {
            assert_eq!(look_up(&twice, &one, &[]), [Seen::Declared(0)]);
        }
    }

    #[test]
    fn an_id_is_one_change_however_often_it_is_reported() {
        let mut twice = declares(&[refund(""), refund("")]);
        let one = [refund("R-1")];
        assert_eq!(sees(&mut twice, BANK, &one), [Seen::Declared(0)]);
        assert_eq!(sees(&mut twice, BANK, &one), [Seen::Again(0)]);
        assert_eq!((twice.seen, twice.sights.len()), (0b01, 1));
        // Listed twice in one Observation, it does not become two either.
        let listed = [refund("R-2"), refund("R-2")];
        let mut other = twice.clone();
        assert_eq!(
            sees(&mut other, BANK, &listed),
            [Seen::Declared(1), Seen::Beyond]
        );
        // The same by another system is the same change; what that one has no name for is not.
        assert_eq!(sees(&mut twice, SHOP, &one), [Seen::Declared(0)]);
        assert_eq!(twice.seen, 0b01);
        assert_eq!(sees(&mut twice, SHOP, &[refund("")]), [Seen::Declared(1)]);
        assert_eq!(
            sees(&mut twice, BANK, &[refund("R-2")]),
            [Seen::Declared(1)]
        );
        assert_eq!(sees(&mut twice, BANK, &[refund("R-3")]), [Seen::Beyond]);
    }

    #[test]
    fn a_repeat_that_says_something_else_is_different() {
        let refund = |id: &str, amount| effect("refund", "orders/7", id, Some(amount));
        let mut two = declares(&[refund("", 100), refund("", 200)]);
        assert_eq!(
            sees(&mut two, BANK, &[refund("R-1", 100)]),
            [Seen::Declared(0)]
        );
        // It does not stand for the other one.
        assert_eq!(
            sees(&mut two, BANK, &[refund("R-1", 200)]),
            [Seen::Different]
        );
        // Another system's ids may be its own.
        assert_eq!(
            sees(&mut two, SHOP, &[refund("R-1", 200)]),
            [Seen::Declared(1)]
        );
        // An id names a change of a kind on a resource, not any change.
        let mail = effect("mail", "orders/7", "R-1", None);
        assert_eq!(sees(&mut two, BANK, &[mail]), [Seen::Hidden]);
    }

    #[test]
    fn who_finds_no_room_confirms_nothing() {
        let all: Vec<Effect> = (0..64).map(|n| refund(&format!("R-{n}"))).collect();
        let mut outcome = declares(&all);
        for who in [b"1", b"2", b"3", b"4"] {
            let seen = sees(&mut outcome, who, &all);
            assert!(seen.iter().all(|seen| matches!(seen, Seen::Declared(_))));
        }
        assert_eq!(outcome.sights.len(), SIGHTS_MAX);
        let again = look_up(&outcome, &all, b"4");
        assert!(remember(
            &mut outcome,
            &again,
            &all,
            &Bytes::from_static(b"4")
        ));
        let fifth = look_up(&outcome, &all[..1], b"5");
        assert!(!remember(
            &mut outcome,
            &fifth,
            &all[..1],
            &Bytes::from_static(b"5")
        ));
        assert_eq!(outcome.sights.len(), SIGHTS_MAX);
    }

    #[test]
    fn a_report_goes_to_the_act_that_has_it_left() {
        let cleared = |observations| Act {
            state: IntentState::Cleared.into(),
            observations,
            ..Act::default()
        };
        let seen = |effects: &[Effect]| crate::assess::cells::Observed {
            observer: Bytes::from_static(BANK),
            effects: effects.to_vec(),
            ..crate::assess::cells::Observed::default()
        };
        let done = |outcome| Act {
            outcome: Some(outcome),
            ..cleared(Vec::new())
        };
        let one = [refund("R-1")];
        assert_eq!(fit(&Act::default(), &one, BANK), Fit::Not);
        assert_eq!(fit(&cleared(Vec::new()), &one, BANK), Fit::Open);
        assert_eq!(fit(&cleared(vec![seen(&one)]), &one, BANK), Fit::Again);
        assert_eq!(fit(&cleared(vec![seen(&one)]), &one, SHOP), Fit::Open);
        assert_eq!(fit(&cleared(vec![seen(&one)]), &one, &[]), Fit::Open);
        let other = [refund("R-2")];
        assert_eq!(
            fit(&cleared(vec![seen(&one)]), &other, BANK),
            Fit::OpenTwice
        );
        let mail = [effect("mail", "orders/7", "", None)];
        assert_eq!(fit(&cleared(vec![seen(&one)]), &mail, BANK), Fit::Open);

        let mut outcome = declares(&[refund("")]);
        assert_eq!(fit(&done(outcome.clone()), &one, BANK), Fit::All);
        let both = [refund("R-1"), mail[0].clone()];
        assert_eq!(fit(&done(outcome.clone()), &both, BANK), Fit::Some);
        assert_eq!(fit(&done(outcome.clone()), &mail, BANK), Fit::Not);
        sees(&mut outcome, BANK, &one);
        assert_eq!(fit(&done(outcome.clone()), &one, BANK), Fit::Again);
        assert_eq!(fit(&done(outcome.clone()), &other, BANK), Fit::Not);
        assert_eq!(fit(&done(outcome), &other, SHOP), Fit::All);
    }
}
