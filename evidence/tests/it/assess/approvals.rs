//! Attacks on decisions and approvals.

use deed_evidence::assess::layers;
use deed_proto::v1::{
    self, FindingKind as F, IntentState, KeyRole, LayerState, RiskTier, Verdict, statement::Body,
};

use super::*;

#[test]
fn an_approval_is_of_this_very_intent() {
    let mut stage = Stage::new();
    let wanted = stage.waits(0);
    stage.decide(&wanted, Verdict::Allow);
    // A second Intent that looks the same but for its resource, and one in another task.
    let root = stage.root(|_| {});
    let other = stage.intend(Some(&root), |said| said.resource = "orders/8".into());
    let opened = task_opened(RiskTier::Payment, 0);
    let elsewhere = stage.ledger.say(PLATFORM, Some(2), opened);
    let wrong = [
        // Another hash at this leaf, this hash at another leaf, a leaf that is no Intent's, one
        // that is not there.
        (1, other.hash, wanted.leaf),
        (1, wanted.hash, other.leaf),
        (1, root.hash, root.leaf),
        (1, wanted.hash, 1_000_000),
        // The right one, in another task.
        (2, wanted.hash, wanted.leaf),
        (2, elsewhere.hash, elsewhere.leaf),
    ];
    for (task, hash, leaf) in wrong {
        let named = Place {
            leaf,
            hash,
            ..wanted.clone()
        };
        let now = stage.ledger.now();
        let said = approval(&named, Verdict::Allow, now);
        let approved = stage.ledger.say(APPROVER, Some(task), said);
        assert_eq!(approved.kinds(), [F::ApprovalOfOtherIntent]);
        assert_eq!(stage.state(&wanted), IntentState::Waiting);
    }
    // That of the second one does not help the first.
    stage.approve(APPROVER, &other, Verdict::Allow);
    assert_eq!(stage.state(&wanted), IntentState::Waiting);
    assert_eq!(stage.state(&other), IntentState::Waiting);
    stage.approve(APPROVER, &wanted, Verdict::Allow);
    assert_eq!(stage.state(&wanted), IntentState::Cleared);
    stage.replays();
}

#[test]
fn approver_and_preparer_have_other_controllers() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    let own = stage.approve(COLLEAGUE, &intent, Verdict::Allow);
    assert_eq!(own.kinds(), [F::SelfApproval]);
    assert_eq!(stage.state(&intent), IntentState::Waiting);
    assert!(
        stage
            .ledger
            .act(intent.leaf)
            .evidence
            .iter()
            .all(|one| one.strength == 0)
    );
    // A no of the same controller proves as little.
    let no = stage.approve(COLLEAGUE, &intent, Verdict::Deny);
    assert_eq!(no.kinds(), [F::SelfApproval]);
    assert_eq!(stage.state(&intent), IntentState::Waiting);
    stage.replays();
}

#[test]
fn two_approvals_of_one_controller_are_one() {
    let mut stage = Stage::new();
    stage.ledger.set_policy(
        "permit (principal, action, resource) when { context.evidence.approvals >= 2 };",
    );
    let twin = Who {
        seed: Some(41),
        producer: "https://example.org/people/ann/phone",
        ..APPROVER
    };
    stage.ledger.register(twin);
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |_| {});
    let missing = |stage: &Stage| stage.ledger.act(intent.leaf).missing;
    for who in [APPROVER, twin, APPROVER, twin, COLLEAGUE] {
        stage.approve(who, &intent, Verdict::Allow);
        assert_eq!(stage.state(&intent), IntentState::Waiting, "{who:?}");
        assert_eq!(missing(&stage), ["approval"]);
    }
    stage.approve(SECOND, &intent, Verdict::Allow);
    assert_eq!(stage.state(&intent), IntentState::Cleared);
    let act = stage.ledger.act(intent.leaf);
    assert_eq!(act.evidence.len(), 2);
    assert_eq!(stage.kinds(), [F::SelfApproval]);
    stage.replays();
}

#[test]
fn a_stronger_approval_takes_the_place_of_a_weaker_one() {
    let mut stage = Stage::new();
    stage.ledger.set_policy(
        "permit (principal, action, resource) \
         when { context.evidence.approvals_phishing_resistant >= 1 };",
    );
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |_| {});
    let now = stage.ledger.now();
    let mut last = 0;
    for strength in [1, 2, 1, 3] {
        let Body::Approval(mut said) = approval(&intent, Verdict::Allow, now) else {
            unreachable!("it is an approval")
        };
        said.strength = strength;
        assert_eq!(stage.state(&intent), IntentState::Waiting);
        last = stage
            .ledger
            .say(APPROVER, Some(1), Body::Approval(said))
            .leaf;
    }
    let act = stage.ledger.act(intent.leaf);
    assert_eq!(act.state(), IntentState::Cleared);
    let leaves: Vec<_> = act.evidence.iter().map(|one| one.leaf).collect();
    assert_eq!(leaves, [last]);
    stage.replays();
}

#[test]
fn a_decision_is_a_registered_engines() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.approve(APPROVER, &intent, Verdict::Allow);
    // An engine that nobody registered signs in vain.
    let unknown = Who {
        seed: Some(66),
        producer: "https://example.org/rogue",
        ..ENGINE
    };
    let refused = stage
        .ledger
        .try_say(unknown, Some(1), decision(&intent, Verdict::Allow), |_| {});
    assert!(
        refused
            .unwrap_err()
            .contains("is registered in this ledger")
    );
    // Other roles do not count, whether they say yes or no; nobody's word neither.
    for verdict in [Verdict::Allow, Verdict::Deny] {
        for who in [AGENT, PLATFORM, APPROVER, DOWNSTREAM, IMPORTER, ANYBODY] {
            let said = stage.ledger.say(who, Some(1), decision(&intent, verdict));
            let wanted: &[F] = if who == ANYBODY { &[] } else { &[F::WrongRole] };
            assert_eq!(said.kinds(), wanted, "{who:?}");
            assert_eq!(stage.state(&intent), IntentState::Waiting, "{who:?}");
        }
    }
    assert_eq!(stage.ledger.act(intent.leaf).missing, ["decision"]);
    stage.decide(&intent, Verdict::Allow);
    assert_eq!(stage.state(&intent), IntentState::Cleared);
    stage.replays();
}

#[test]
fn a_customers_yes_is_claimed_and_never_proven() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    for who in [ANYBODY, IMPORTER, AGENT, PLATFORM] {
        stage.approve(who, &intent, Verdict::Allow);
        assert_eq!(stage.state(&intent), IntentState::Waiting, "{who:?}");
        let layers = layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust);
        assert_eq!(layers.approval(), LayerState::Claimed, "{who:?}");
    }
    // A customer's no is no more than that: it is an approver who refuses.
    stage.approve(ANYBODY, &intent, Verdict::Deny);
    assert_eq!(stage.state(&intent), IntentState::Waiting);
    stage.done(&intent);
    stage.approve(ANYBODY, &intent, Verdict::Allow);
    let layers = layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust);
    assert_eq!(layers.approval(), LayerState::Claimed);
    stage.replays();
}

#[test]
fn a_no_is_final_and_stays_on_record() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Deny);
    for _ in 0..2 {
        stage.decide(&intent, Verdict::Allow);
        stage.approve(APPROVER, &intent, Verdict::Allow);
    }
    assert_eq!(stage.state(&intent), IntentState::Denied);
    // Of what is cleared, too: it does not undo the Clearance, and it is seen.
    let mut stage = Stage::new();
    let intent = stage.cleared(0);
    stage.mark();
    stage.approve(SECOND, &intent, Verdict::Deny);
    stage.decide(&intent, Verdict::Deny);
    assert_eq!(stage.kinds(), [F::DecisionDenied, F::DecisionDenied]);
    assert_eq!(stage.state(&intent), IntentState::Cleared);
    let layers = layers::of(&stage.ledger.act(intent.leaf), &stage.ledger.trust);
    assert_eq!(layers.approval(), LayerState::Proven);
    assert_eq!(layers.authority(), LayerState::Proven);
    stage.replays();
}

/// The last word in a batch counts: no Clearance is written for what was refused in it.
#[test]
fn yes_and_no_in_one_batch_are_no() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    let now = stage.ledger.now();
    let said = [Verdict::Allow, Verdict::Deny, Verdict::Allow];
    let bodies = said.map(|verdict| (Some(1), approval(&intent, verdict, now)));
    let before = stage.ledger.next_leaf();
    stage.ledger.say_batch(APPROVER, bodies.to_vec());
    assert_eq!(
        stage.ledger.next_leaf(),
        before + 4,
        "a manifest and three statements"
    );
    let act = stage.ledger.act(intent.leaf);
    assert_eq!(act.state(), IntentState::Denied);
    assert_eq!((act.clearance_leaf, act.clearing), (None, false));
    stage.replays();
    // Twice yes is one Clearance.
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    let bodies = [(); 2].map(|()| (Some(1), approval(&intent, Verdict::Allow, now)));
    let before = stage.ledger.next_leaf();
    stage.ledger.say_batch(APPROVER, bodies.to_vec());
    assert_eq!(stage.ledger.next_leaf(), before + 4, "and a Clearance");
    stage.replays();
}

/// The work of judging is bounded, in units that a replay counts as well.
#[test]
fn an_intent_that_costs_too_much_to_judge_is_denied() {
    let forbids = (0..9).map(|number| {
        format!(
            "@id(\"{number}\") forbid (principal, action, resource)
             when {{ resource.name like \"*/secret/*\" }};"
        )
    });
    let policies = format!(
        "permit (principal, action, resource); {}",
        forbids.collect::<String>()
    );
    let mut stage = Stage::new();
    let policy = stage.ledger.set_policy(&policies);
    stage.open(RiskTier::Low);
    let effects = |count: usize| {
        let effects = (0..count).map(|number| v1::Effect {
            kind: "order.changed".into(),
            resource: format!("{number}/{}", "a".repeat(1_000)),
            ..v1::Effect::default()
        });
        effects.collect::<Vec<_>>()
    };
    let cheap = stage.intend(None, |said| said.expected_effects = effects(1));
    assert_eq!(cheap.kinds(), [F::ScopeExceeded]);
    let denied = stage.intend(None, |said| said.expected_effects = effects(8));
    assert_eq!(denied.kinds(), [F::ScopeExceeded, F::PolicyError]);
    let error = &denied.assessed.findings[1];
    assert!(error.detail.contains("more than 2048 units"), "{error:?}");
    assert_eq!(error.contradicts_leaf, Some(policy.leaf));
    assert_eq!(stage.state(&denied), IntentState::Denied);
    stage.replays();
}

#[test]
fn a_policy_that_fails_denies() {
    let mut stage = Stage::new();
    // That another policy would permit it does not help.
    let both = format!("{FAILS} permit (principal, action, resource);");
    let policy = stage.ledger.set_policy(&both);
    stage.open(RiskTier::Low);
    let denied = stage.intend(None, |_| {});
    assert_eq!(denied.kinds(), [F::PolicyError]);
    let verdict = denied.assessed.intent.clone().unwrap();
    assert_eq!(verdict.state, IntentState::Denied);
    assert_eq!(verdict.denied, ["policy: could not be evaluated"]);
    assert_eq!(
        denied.assessed.findings[0].contradicts_leaf,
        Some(policy.leaf)
    );
    // No evidence opens it again.
    stage.decide(&denied, Verdict::Allow);
    stage.approve(APPROVER, &denied, Verdict::Allow);
    assert_eq!(stage.state(&denied), IntentState::Denied);
    let cleared = stage.intend(None, |said| said.amount = None);
    assert_eq!(cleared.state(), Some(IntentState::Cleared));
    stage.replays();
}

/// Somebody else's approver: what the role is registered for counts, not what the name says.
#[test]
fn roles_are_the_keys() {
    let mut stage = Stage::new();
    let intent = stage.waits(0);
    stage.decide(&intent, Verdict::Allow);
    let posing = Who {
        seed: Some(41),
        role: KeyRole::Agent,
        producer: "https://example.org/people/approver",
        controller: "https://example.org/people/eve",
    };
    stage.ledger.register(posing);
    let approved = stage.approve(posing, &intent, Verdict::Allow);
    assert_eq!(approved.kinds(), [F::WrongRole]);
    assert_eq!(stage.state(&intent), IntentState::Waiting);
    // And nobody speaks under the approver's name without its key.
    let said = approval(&intent, Verdict::Allow, stage.ledger.now());
    let as_approver = |made: &mut v1::Statement| made.producer = APPROVER.producer.into();
    for who in [posing, ANYBODY] {
        assert!(
            stage
                .ledger
                .try_say(who, Some(1), said.clone(), as_approver)
                .is_err()
        );
    }
    stage.replays();
}
