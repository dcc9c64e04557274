//! Lists that acts share, and what is seen by them.

use super::*;

/// Neither what nobody signs nor what another controller's agent announces pushes the act out of what
/// an order number finds; and what is left out is found.
#[test]
fn a_correlation_key_has_room_for_everybody() {
    for (flood, by) in [(70, ANYBODY), (70, HELPER)] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let said = Body::Intent(intent("orders/7", 500, None));
        let real = stage
            .ledger
            .try_say(AGENT, Some(1), said.clone(), with_order);
        let real = real.unwrap();
        let mut left_out = 0;
        for _ in 0..flood {
            let other = stage.ledger.try_say(by, Some(1), said.clone(), with_order);
            left_out += other.unwrap().kinds().len();
        }
        assert_eq!(left_out > 0, by == HELPER);
        stage.done(&real);
        stage.mark();
        let seen = observation(None, vec![effect("orders/7", 500)]);
        let seen = stage.ledger.try_say(DOWNSTREAM, None, seen, with_order);
        assert_eq!(seen.unwrap().kinds(), []);
        assert_eq!(layers_of(&stage, &real).corroboration(), L::Proven);
        stage.replays();
    }
}

/// Acts that cost much to compare do not keep a system's Observation from the act that it is of: the speakers
/// take turns. Where they are all one speaker's, the Observation says that it was not compared with all.
#[test]
fn a_flood_of_acts_does_not_push_out_the_one_that_was_seen() {
    for by in [ANYBODY, HELPER, IMPORTER, AGENT] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let many = |n: u32| v1::Effect {
            resource: format!("orders/{n:03}/{}", "a".repeat(200)),
            ..without_amount()
        };
        for _ in 0..31 {
            let said = v1::Intent {
                amount: None,
                expected_effects: (0..64).map(many).collect(),
                ..intent("orders/7", 0, None)
            };
            let said = Body::Intent(said);
            stage.ledger.try_say(by, Some(1), said, with_order).unwrap();
        }
        let said = Body::Intent(intent("orders/7", 500, None));
        let real = stage.ledger.try_say(AGENT, Some(1), said, with_order);
        let real = real.unwrap();
        stage.done(&real);
        let seen = observation(None, vec![effect("orders/7", 500)]);
        let seen = stage.ledger.try_say(DOWNSTREAM, None, seen, with_order);
        // There is no room for all of them, and none is said to be of no act.
        assert_eq!(seen.unwrap().kinds(), [F::NotCompared], "{by:?}");
        let corroboration = layers_of(&stage, &real).corroboration();
        assert_eq!(corroboration == L::Proven, by != AGENT, "{by:?}");
        // Whoever names the Intent needs no search.
        let seen = observation(Some(&real), vec![effect("orders/7", 500)]);
        let seen = stage.ledger.try_say(DOWNSTREAM, None, seen, with_order);
        if by == AGENT {
            assert_eq!(seen.unwrap().kinds(), []);
            assert_eq!(layers_of(&stage, &real).corroboration(), L::Proven);
        }
        stage.replays();
    }
}

/// 64 acts whose effects were seen wait for the end of their task; the 65th is not forgotten. They are looked
/// at in portions.
#[test]
fn what_is_seen_beyond_the_bound_is_found() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    for n in 0..66 {
        let intent = stage.intend(None, |_| {});
        let seen = stage.seen(&intent, 500);
        assert_eq!(seen.kinds() == [F::NotCompared], n >= 64, "{n}");
    }
    stage.mark();
    stage.close();
    for portion in 1..=8 {
        assert_eq!(stage.kinds().len(), 8 * portion);
        stage.ledger.at(200 + i64::try_from(portion).unwrap());
        assert_eq!(stage.ledger.tick(), portion < 8, "{portion}");
    }
    assert_eq!(stage.kinds(), [F::HiddenSideEffect; 64]);
    stage.replays();
}

#[test]
fn changes_beyond_the_bound_are_found() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.amount = None);
    let seen = |from: u32| {
        let one = |n: u32| v1::Effect {
            external_id: format!("R-{n}"),
            ..without_amount()
        };
        (from..from + 64).map(one).collect::<Vec<_>>()
    };
    assert_eq!(sees(&mut stage, DOWNSTREAM, &intent, seen(0)).kinds(), []);
    let beyond = sees(&mut stage, DOWNSTREAM, &intent, seen(64));
    assert_eq!(beyond.kinds(), [F::NotCompared]);
    stage.replays();
}

/// Grants that nobody signs do not push an authority's grant out of what its token finds.
#[test]
fn a_token_finds_the_authoritys_grant() {
    let token = || {
        Some(v1::OutsideToken {
            kind: "jti".into(),
            value: "t-1".into(),
            ..v1::OutsideToken::default()
        })
    };
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let with_token = |mut grant: v1::Grant| {
        grant.outside_token = token();
        Body::Grant(grant)
    };
    stage
        .ledger
        .say(AUTHORITY, Some(1), with_token(grant(AGENT)));
    stage
        .ledger
        .say(PLATFORM, Some(2), task_opened(RiskTier::Low, 0));
    for _ in 0..70 {
        stage
            .ledger
            .say(ANYBODY, Some(2), with_token(grant(HELPER)));
    }
    stage.close();
    let used = |made: &mut v1::Statement| {
        made.correlation_keys = vec![v1::CorrelationKey {
            kind: "jti".into(),
            value: "t-1".into(),
        }];
    };
    let seen = || observation(None, vec![effect("orders/7", 1)]);
    let claimed = stage.ledger.try_say(ANYBODY, None, seen(), used).unwrap();
    assert_eq!(claimed.kinds(), [F::UnprovenClaim]);
    let seen = stage
        .ledger
        .try_say(DOWNSTREAM, None, seen(), used)
        .unwrap();
    assert_eq!(seen.kinds(), [F::TokenUsedAfterClose, F::HiddenSideEffect]);
    stage.replays();
}

/// A decoy that nobody signed, or that was denied, does not draw the bank's word away.
#[test]
fn a_decoy_takes_no_sight_away() {
    for signed in [false, true] {
        for early in [false, true] {
            let mut stage = Stage::new();
            stage.open(RiskTier::Low);
            let by = if signed { HELPER } else { ANYBODY };
            // The honest act, and the decoy that declares what will be seen.
            let said = Body::Intent(intent("orders/7", 500, None));
            let real = stage
                .ledger
                .try_say(AGENT, Some(1), said, with_order)
                .unwrap();
            let mut decoy = intent("orders/7", 500, None);
            decoy.grant = vec![7; 32].into();
            let body = Body::Intent(decoy);
            let decoy = stage.ledger.try_say(by, Some(1), body, with_order).unwrap();
            assert_eq!(decoy.state(), Some(IntentState::Denied));
            if !signed {
                let done = outcome(
                    &decoy,
                    OutcomeStatus::Succeeded,
                    vec![effect("orders/7", 500)],
                );
                stage.ledger.say(by, Some(1), done);
            }
            if !early {
                stage.done(&real);
            }
            let seen = observation(None, vec![effect("orders/7", 500)]);
            stage
                .ledger
                .try_say(DOWNSTREAM, None, seen, with_order)
                .unwrap();
            if early {
                stage.done(&real);
            }
            let layer = layers_of(&stage, &real).corroboration();
            assert_eq!(layer, L::Proven, "{signed} {early}");
            stage.replays();
        }
    }
}

/// The effects that a denied act asked for and had are not put on another's act that was cleared
/// for less.
#[test]
fn a_denied_act_keeps_its_own_effects() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let said = Body::Intent(intent("orders/7", 500, None));
    let honest = stage
        .ledger
        .try_say(HELPER, Some(1), said, with_order)
        .unwrap();
    let mut said = intent("orders/7", 1_000_000, None);
    said.grant = vec![7; 32].into();
    let body = Body::Intent(said);
    let denied = stage
        .ledger
        .try_say(AGENT, Some(1), body, with_order)
        .unwrap();
    stage.mark();
    let seen = observation(None, vec![effect("orders/7", 1_000_000)]);
    stage
        .ledger
        .try_say(DOWNSTREAM, None, seen, with_order)
        .unwrap();
    assert_eq!(stage.kinds(), [F::HiddenSideEffect]);
    assert_eq!(stage.found()[0].about_leaf, denied.leaf);
    assert_ne!(layers_of(&stage, &honest).corroboration(), L::Contradicted);
    stage.replays();
}

/// A report that a system adds to an id that was confirmed is compared anew.
#[test]
fn more_of_a_report_is_not_taken_for_a_repeat() {
    let report = |amount: Option<i64>, after: &[u8]| v1::Effect {
        external_id: "R-1".into(),
        amount: amount.map(super::amount),
        after_digest: Bytes::copy_from_slice(after),
        ..effect("orders/7", 0)
    };
    for (declared, first, second) in [
        (
            report(None, &[]),
            report(None, &[]),
            report(Some(1_000_000), &[]),
        ),
        (
            report(Some(500), &[1; 32]),
            report(Some(500), &[]),
            report(Some(500), &[2; 32]),
        ),
    ] {
        let mut stage = Stage::new();
        let intent = stage.cleared(0);
        let done = outcome(&intent, OutcomeStatus::Succeeded, vec![declared]);
        stage.ledger.say(AGENT, Some(1), done);
        assert_eq!(
            sees(&mut stage, DOWNSTREAM, &intent, vec![first]).kinds(),
            []
        );
        let more = sees(&mut stage, DOWNSTREAM, &intent, vec![second]);
        assert_eq!(more.kinds(), [F::EffectMismatch]);
        assert_eq!(layers_of(&stage, &intent).corroboration(), L::Contradicted);
        stage.replays();
    }
}

/// Done, kept quiet about, and seen when the deadline has passed.
#[test]
fn what_is_seen_after_the_deadline_is_found() {
    let mut stage = Stage::new();
    let intent = stage.cleared(500);
    stage.tick(500);
    stage.mark();
    assert_eq!(stage.seen(&intent, 500).kinds(), [F::HiddenSideEffect]);
    stage.replays();
}
