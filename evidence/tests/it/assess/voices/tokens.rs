//! Grants and outside tokens.

use super::*;

fn with_token(subject: Who) -> Body {
    let mut grant = grant(subject);
    grant.outside_token = Some(v1::OutsideToken {
        kind: "jti".into(),
        value: "t-1".into(),
        ..v1::OutsideToken::default()
    });
    Body::Grant(grant)
}

/// Grants that nobody signs make no finding of an authority's.
#[test]
fn unsigned_grants_do_not_speak_against_an_authoritys() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    for _ in 0..70 {
        stage.ledger.say(ANYBODY, Some(1), with_token(HELPER));
    }
    let given = stage.ledger.say(AUTHORITY, Some(1), with_token(AGENT));
    assert_eq!(given.kinds(), []);
    // Of the authority's own, one more than 24 is found.
    for n in 1..26 {
        let given = stage.ledger.say(AUTHORITY, Some(1), with_token(AGENT));
        assert_eq!(given.kinds() == [F::NotCompared], n >= 24, "{n}");
    }
    stage.replays();
}

/// A claimed acceptance gives way to the subject's own.
#[test]
fn an_unsigned_acceptance_gives_way_to_a_signed_one() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let root = stage.root(|_| {});
    let part = stage.part(&root, |_| {});
    let unsigned = Who {
        seed: None,
        ..HELPER
    };
    let claimed = stage
        .ledger
        .try_say(unsigned, Some(1), accepted(part.hash), |_| {});
    // A producer with a key signs everything; who has none yet may have been spoken for.
    if claimed.is_ok() {
        assert!(!stage.ledger.grant(part.hash).accepted_signed);
    }
    let signed = stage.ledger.say(HELPER, Some(1), accepted(part.hash));
    assert_eq!(signed.kinds(), []);
    assert!(stage.ledger.grant(part.hash).accepted_signed);
    let again = stage.ledger.say(HELPER, Some(1), accepted(part.hash));
    assert_eq!(again.kinds(), [F::OutOfPlace]);
    stage.replays();
}

/// A grant that nobody signed lets an Intent expect nothing beyond its own resource.
#[test]
fn a_claimed_grant_widens_nothing() {
    for (who, state) in [
        (AUTHORITY, IntentState::Cleared),
        (ANYBODY, IntentState::Denied),
    ] {
        let mut stage = Stage::new();
        stage.open(RiskTier::Low);
        let mut given = grant(AGENT);
        given.resources = vec!["accounts/*".into(), "orders/*".into()];
        let given = stage.ledger.say(who, Some(1), Body::Grant(given));
        let intent = stage.intend(Some(&given), |said| {
            said.expected_effects = vec![effect("accounts/9", 500)];
        });
        assert_eq!(intent.state(), Some(state), "{who:?}");
        stage.replays();
    }
}

/// Whoever stands in a grant that is not the agent's is no less a witness of its act.
#[test]
fn somebody_elses_grant_silences_nobody() {
    let banks_agent = Who {
        seed: Some(57),
        producer: "https://bank.example/agent",
        controller: DOWNSTREAM.controller,
        ..HELPER
    };
    let mut stage = Stage::new();
    stage.ledger.register(banks_agent);
    stage.open(RiskTier::Low);
    let root = stage.root(|_| {});
    let mut part = delegated(banks_agent, root.hash);
    part.resources = vec!["orders/7".into()];
    let part = stage.ledger.say(AGENT, Some(1), Body::Grant(part));
    stage.ledger.say(banks_agent, Some(1), accepted(part.hash));
    let said = Body::Intent(intent("orders/7", 500, Some(part.hash)));
    let denied = stage.ledger.say(COLLEAGUE, Some(1), said);
    assert_eq!(denied.state(), Some(IntentState::Denied));
    stage.mark();
    stage.seen(&denied, 1_000_000);
    assert!(is_serious(&stage), "{:?}", stage.kinds());
    stage.replays();
}
