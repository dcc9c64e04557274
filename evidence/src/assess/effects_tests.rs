use super::{super::cells::Outcome, *};

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

fn cleared() -> Act {
    Act {
        state: IntentState::Cleared.into(),
        resource: "orders/7".into(),
        ..Act::default()
    }
}

/// The same for an amount.
fn cleared_for(minor_units: i64) -> Act {
    Act {
        minor_units: Some(minor_units),
        currency: "EUR".into(),
        ..cleared()
    }
}

/// An act whose Outcome declares these effects.
fn declares(effects: &[Effect]) -> Act {
    Act {
        outcome: Some(Outcome {
            effects: effects.iter().map(Print::of).collect(),
            declared: u32::try_from(effects.len()).unwrap(),
            ..Outcome::default()
        }),
        ..cleared()
    }
}

/// An Observation, remembered as an independent system's is.
fn sees(act: &mut Act, who: &'static [u8], effects: &[Effect]) -> Vec<EffectMatch> {
    let compared = look_up(act, &ObservedEffect::all(effects), who);
    compared.make_room(act);
    let leaf = 100 + act.changes.len() as u64;
    for (seen, effect) in compared.seen.iter().zip(effects) {
        if matches!(seen, EffectMatch::Again | EffectMatch::Otherwise) {
            continue;
        }
        act.changes.push(Change {
            leaf,
            system: Bytes::from_static(who),
            effect: Print::of(effect),
            declared: match seen {
                EffectMatch::Declared(n) => Some(u32::try_from(*n).unwrap()),
                _ => None,
            },
            ..Change::default()
        });
    }
    act.tally();
    compared.seen
}

fn looked_up(act: &Act, effects: &[Effect], who: &[u8]) -> Vec<EffectMatch> {
    look_up(act, &ObservedEffect::all(effects), who).seen
}

#[test]
fn effects_are_the_same_in_what_both_name() {
    let declared = declares(&[
        effect("refund", "orders/7", "R-1", Some(100)),
        effect("refund", "orders/7", "R-2", Some(200)),
    ]);
    let look = |seen: &Effect| looked_up(&declared, std::slice::from_ref(seen), &[])[0];
    assert_eq!(
        look(&effect("refund", "orders/7", "R-2", Some(200))),
        EffectMatch::Declared(1)
    );
    assert_eq!(
        look(&effect("refund", "orders/7", "", None)),
        EffectMatch::Declared(0)
    );
    assert_eq!(
        look(&effect("refund", "orders/7", "R-1", Some(101))),
        EffectMatch::Different
    );
    assert_eq!(
        look(&effect("refund", "orders/8", "R-1", Some(100))),
        EffectMatch::Hidden
    );
    assert_eq!(
        look(&effect("mail", "orders/7", "", None)),
        EffectMatch::Hidden
    );
}

#[test]
fn a_declared_effect_is_there_once() {
    let twice = [refund(""), refund("")];
    let once = declares(&twice[..1]);
    let seen = looked_up(&once, &twice, &[]);
    assert_eq!(seen, [EffectMatch::Declared(0), EffectMatch::Beyond]);
    let both = declares(&twice);
    let seen = looked_up(&both, &twice, &[]);
    assert_eq!(seen, [EffectMatch::Declared(0), EffectMatch::Declared(1)]);
    // One at a time: the one that was not seen before.
    let mut first_seen = both;
    assert_eq!(
        sees(&mut first_seen, SHOP, &twice[..1]),
        [EffectMatch::Declared(0)]
    );
    assert_eq!(
        looked_up(&first_seen, &twice[..1], &[]),
        [EffectMatch::Declared(1)]
    );
    // The exact one first, wherever it stands.
    let named = declares(&[refund("R-1"), refund("R-2")]);
    assert_eq!(
        looked_up(&named, &[refund(""), refund("R-1")], &[]),
        [EffectMatch::Declared(1), EffectMatch::Declared(0)]
    );
}

#[test]
fn what_has_no_id_is_another_change_each_time() {
    let mut twice = declares(&[refund(""), refund("")]);
    let one = [refund("")];
    assert_eq!(sees(&mut twice, BANK, &one), [EffectMatch::Declared(0)]);
    assert_eq!(sees(&mut twice, BANK, &one), [EffectMatch::Declared(1)]);
    assert_eq!(sees(&mut twice, BANK, &one), [EffectMatch::Beyond]);
    // An id that was not named before does not make it the same change.
    assert_eq!(
        sees(&mut twice, BANK, &[refund("R-1")]),
        [EffectMatch::Beyond]
    );
    // Somebody else may have seen the same.
    assert_eq!(sees(&mut twice, SHOP, &one), [EffectMatch::Declared(0)]);
    assert_eq!(sees(&mut twice, SHOP, &one), [EffectMatch::Declared(1)]);
    assert_eq!(sees(&mut twice, SHOP, &one), [EffectMatch::Beyond]);
    // Claims have no memory.
    for _ in 0..3 {
        assert_eq!(looked_up(&twice, &one, &[]), [EffectMatch::Declared(0)]);
    }
}

#[test]
fn an_id_is_one_change_however_often_it_is_reported() {
    let mut twice = declares(&[refund(""), refund("")]);
    let one = [refund("R-1")];
    assert_eq!(sees(&mut twice, BANK, &one), [EffectMatch::Declared(0)]);
    assert_eq!(sees(&mut twice, BANK, &one), [EffectMatch::Again]);
    assert_eq!((confirmed(&twice), twice.changes.len()), (0b01, 1));
    // Listed twice in one Observation, it does not become two either.
    let listed = [refund("R-2"), refund("R-2")];
    let mut other = twice.clone();
    assert_eq!(
        sees(&mut other, BANK, &listed),
        [EffectMatch::Declared(1), EffectMatch::Beyond]
    );
    // The same by another system is the same change; what that one has no name for is not.
    assert_eq!(sees(&mut twice, SHOP, &one), [EffectMatch::Declared(0)]);
    assert_eq!(confirmed(&twice), 0b01);
    assert_eq!(
        sees(&mut twice, SHOP, &[refund("")]),
        [EffectMatch::Declared(1)]
    );
    assert_eq!(
        sees(&mut twice, BANK, &[refund("R-2")]),
        [EffectMatch::Declared(1)]
    );
    assert_eq!(
        sees(&mut twice, BANK, &[refund("R-3")]),
        [EffectMatch::Beyond]
    );
}

#[test]
fn a_repeat_that_says_something_else_is_different() {
    let refund = |id: &str, amount| effect("refund", "orders/7", id, Some(amount));
    let mut two = declares(&[refund("", 100), refund("", 200)]);
    assert_eq!(
        sees(&mut two, BANK, &[refund("R-1", 100)]),
        [EffectMatch::Declared(0)]
    );
    // It does not stand for the other one.
    assert_eq!(
        sees(&mut two, BANK, &[refund("R-1", 200)]),
        [EffectMatch::Otherwise]
    );
    // Another system's ids may be its own.
    assert_eq!(
        sees(&mut two, SHOP, &[refund("R-1", 200)]),
        [EffectMatch::Declared(1)]
    );
    // An id names a change of a kind on a resource, not any change.
    let mail = effect("mail", "orders/7", "R-1", None);
    assert_eq!(sees(&mut two, BANK, &[mail]), [EffectMatch::Hidden]);
}

/// An amount that the Outcome leaves out stands for no sum where the Intent names one.
#[test]
fn a_missing_amount_matches_a_missing_one_alone() {
    let silent = effect("refund", "orders/7", "", None);
    let loud = effect("refund", "orders/7", "", Some(100));
    for (declared, seen) in [(&silent, &loud), (&loud, &silent)] {
        let mut act = declares(std::slice::from_ref(declared));
        let seen = std::slice::from_ref(seen);
        assert_eq!(looked_up(&act, seen, &[]), [EffectMatch::Declared(0)]);
        act.minor_units = Some(100);
        assert_eq!(looked_up(&act, seen, &[]), [EffectMatch::Different]);
        assert_eq!(
            looked_up(&act, std::slice::from_ref(declared), &[]),
            [EffectMatch::Declared(0)]
        );
    }
}

#[test]
fn effects_are_held_against_what_was_cleared() {
    let on = |resource: &str| beyond_cleared(&cleared(), &effect("refund", resource, "", None), 0);
    for (resource, within) in [
        ("orders/7", true),
        ("orders/7/items/1", false),
        ("orders/77", false),
        ("orders", false),
        ("accounts/7", false),
    ] {
        assert_eq!(on(resource).1.is_none(), within, "{resource}");
    }
    // Expected effects are matched one to one, for each system.
    let expected = |resource: &str, amount| effect("refund", resource, "", amount);
    let mut act = Act {
        expected_effects: vec![
            expected("accounts/*", Some(100)),
            expected("orders/7", None),
            expected("orders/7", None),
        ],
        ..cleared()
    };
    let mut see = |who: &'static [u8], seen: &Effect| {
        let (expected, beyond) = beyond_cleared(&act, seen, expected_taken(&act, who));
        act.changes.push(Change {
            system: Bytes::from_static(who),
            effect: Print::of(seen),
            expected,
            ..Change::default()
        });
        (expected, beyond.is_some())
    };
    assert_eq!(
        see(BANK, &expected("accounts/9", Some(100))),
        (Some(0), false)
    );
    assert_eq!(see(BANK, &expected("accounts/9", Some(100))), (None, true));
    assert_eq!(
        see(SHOP, &expected("accounts/9", Some(100))),
        (Some(0), false)
    );
    assert_eq!(see(SHOP, &expected("accounts/9", Some(101))), (None, true));
    assert_eq!(see(BANK, &expected("orders/7", None)), (Some(1), false));
    assert_eq!(see(BANK, &expected("orders/7", None)), (Some(2), false));
    assert_eq!(see(BANK, &expected("orders/7", None)), (None, true));
    assert_eq!(
        see(BANK, &effect("mail", "orders/7", "", None)),
        (None, true)
    );
}

/// Every order of `n` things.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(n - 1);
    let with = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, n - 1);
        order
    };
    let all = shorter.iter();
    all.flat_map(|order| (0..n).map(move |at| with(order, at)))
        .collect()
}

/// A system's reports come to the same in any order and in any number of Observations.
#[test]
fn the_order_of_reports_does_not_matter() {
    let digest = |after: &'static [u8], id: &str| Effect {
        after: Bytes::from_static(after),
        ..refund(id)
    };
    let declared = [
        refund("R-1"),
        digest(b"a", ""),
        digest(b"b", ""),
        refund(""),
    ];
    // Each fits more than one, and there is one way to give each its own.
    let seen = [
        refund("R-2"),
        digest(b"a", "R-3"),
        digest(b"b", ""),
        refund("R-1"),
    ];
    let mail = effect("mail", "orders/7", "", None);
    for order in orders(seen.len()) {
        let seen: Vec<_> = order.iter().map(|at| seen[*at].clone()).collect();
        for parts in 1..=seen.len() {
            let mut act = declares(&declared);
            for part in seen.chunks(parts) {
                for one in sees(&mut act, BANK, part) {
                    assert!(matches!(one, EffectMatch::Declared(_)), "{order:?} {parts}");
                }
            }
            assert_eq!(confirmed(&act), 0b1111, "{order:?} {parts}");
            // One more is one too many; another one was never declared.
            assert_eq!(sees(&mut act, BANK, &[refund("")]), [EffectMatch::Beyond]);
            assert_eq!(
                sees(&mut act, BANK, std::slice::from_ref(&mail)),
                [EffectMatch::Hidden]
            );
        }
    }
    // The same of what is expected, where patterns lie within each other.
    let expected = ["accounts/*", "accounts/b/*", "accounts/b/1"];
    let act = Act {
        expected_effects: expected
            .iter()
            .map(|pattern| effect("moved", pattern, "", None))
            .collect(),
        ..cleared()
    };
    for order in orders(expected.len()) {
        let seen = ["accounts/b/1", "accounts/b/2", "accounts/c"];
        let mut taken = 0;
        for at in &order {
            let seen = effect("moved", seen[*at], "", None);
            let (expected, beyond) = beyond_cleared(&act, &seen, taken);
            assert_eq!(beyond, None, "{order:?}");
            taken |= expected.map_or(0, bit);
        }
        assert_eq!(taken, 0b111);
    }
}

/// A report that says more may turn out to be of another one of the declared effects.
#[test]
fn what_is_said_later_finds_its_place() {
    let after = |after: &'static [u8], id: &str| Effect {
        after: Bytes::from_static(after),
        ..refund(id)
    };
    let mut act = declares(&[after(b"a", ""), after(b"b", "")]);
    assert_eq!(
        sees(&mut act, BANK, &[refund("R-1")]),
        [EffectMatch::Declared(0)]
    );
    act.changes[0].effect = Print::of(&after(b"b", "R-1"));
    assert!(!is_still_declared(&act, &act.changes[0]));
    assert!(match_again(&mut act, 0));
    assert_eq!(act.changes[0].declared, Some(1));
    assert_eq!(
        sees(&mut act, BANK, &[after(b"a", "R-2")]),
        [EffectMatch::Declared(0)]
    );
    act.changes[1].effect = Print::of(&after(b"b", "R-2"));
    assert!(!match_again(&mut act, 1));
}

#[test]
fn a_report_goes_to_the_act_that_has_it_left() {
    let fit =
        |act: &Act, effects: &[Effect], who: &[u8]| fit(act, &ObservedEffect::all(effects), who);
    let seen = |effects: &[Effect]| {
        let mut act = cleared_for(1_000);
        sees(&mut act, BANK, effects);
        act
    };
    let one = [refund("R-1")];
    let mail = [effect("mail", "orders/7", "", None)];
    let elsewhere = [effect("refund", "orders/8", "", None)];
    let waiting = Act {
        state: IntentState::Waiting.into(),
        ..cleared()
    };
    assert_eq!(fit(&waiting, &one, BANK), Fit::OnResource);
    let asked = Act {
        minor_units: Some(100),
        currency: "EUR".into(),
        ..waiting.clone()
    };
    assert_eq!(fit(&asked, &one, BANK), Fit::Asked);
    assert_eq!(fit(&waiting, &elsewhere, BANK), Fit::Not);
    assert_eq!(fit(&cleared_for(1_000), &one, BANK), Fit::Open);
    // More than it was cleared for, or an amount where it names none.
    assert_eq!(fit(&cleared_for(99), &one, BANK), Fit::OnResource);
    assert_eq!(fit(&cleared(), &one, BANK), Fit::OnResource);
    assert_eq!(fit(&cleared(), &elsewhere, BANK), Fit::Not);
    assert_eq!(fit(&seen(&one), &one, BANK), Fit::Again);
    assert_eq!(fit(&seen(&one), &one, SHOP), Fit::Open);
    assert_eq!(fit(&seen(&one), &one, &[]), Fit::Open);
    assert_eq!(fit(&seen(&one), &[refund("R-2")], BANK), Fit::OpenTwice);
    assert_eq!(fit(&seen(&one), &mail, BANK), Fit::Open);

    let mut done = declares(&[refund("")]);
    assert_eq!(fit(&done, &one, BANK), Fit::All);
    let both = [refund("R-1"), mail[0].clone()];
    assert_eq!(fit(&done, &both, BANK), Fit::Some);
    assert_eq!(fit(&done, &mail, BANK), Fit::OnResource);
    assert_eq!(fit(&done, &elsewhere, BANK), Fit::Not);
    sees(&mut done, BANK, &one);
    assert_eq!(fit(&done, &one, BANK), Fit::Again);
    assert_eq!(fit(&done, &[refund("R-2")], BANK), Fit::OnResource);
    assert_eq!(fit(&done, &[refund("R-2")], SHOP), Fit::All);
}
