use crate::policy::{Duties, Evidence, Need, Ruling};
use deed_proto::v1::RiskTier;
use proptest::prelude::*;

use super::{FULL, NO_DUTIES, any_evidence, default_policy, denied, request};

const STRICT: [RiskTier; 4] = [
    RiskTier::Payment,
    RiskTier::CustomerCommunication,
    RiskTier::Deployment,
    RiskTier::Deletion,
];

fn duties(tier: RiskTier) -> Duties {
    Duties {
        tool_call: true,
        response: true,
        result: false,
        corroborate_within_us: (tier == RiskTier::Payment).then_some(86_400_000_000),
    }
}

fn ruling(tier: RiskTier, evidence: Evidence) -> Ruling {
    default_policy().judge(&request(tier, evidence))
}

#[test]
fn the_default_policies_are_valid_and_raise_no_warning() {
    let policy = default_policy();
    assert_eq!(policy.warnings(), &[] as &[String]);
    let names: Vec<_> = policy.infos().iter().map(|info| &*info.name).collect();
    let tiers = [
        "low",
        "payment",
        "customer_communication",
        "deployment",
        "deletion",
    ];
    assert_eq!(names, tiers);
    assert!(policy.infos().iter().all(|info| info.permits));
}

#[test]
fn low_risk_takes_a_signature() {
    let signed = Evidence {
        signed: true,
        ..Evidence::default()
    };
    assert_eq!(ruling(RiskTier::Low, signed), Ruling::Cleared(NO_DUTIES));
    let unsigned = Evidence {
        signed: false,
        ..FULL
    };
    assert_eq!(
        ruling(RiskTier::Low, unsigned),
        denied(&["needs a signature"])
    );
}

#[test]
fn an_unopened_task_permits_nothing() {
    assert_eq!(
        ruling(RiskTier::Unspecified, FULL),
        denied(&["no policy permits it"])
    );
}

#[test]
fn the_strict_tiers_are_cleared_with_everything_and_say_what_is_owed() {
    for tier in STRICT {
        assert_eq!(
            ruling(tier, FULL),
            Ruling::Cleared(duties(tier)),
            "{tier:?}"
        );
    }
}

#[test]
fn each_fixed_item_that_is_missing_denies_and_is_named() {
    type Without = (&'static str, fn(&mut Evidence));
    let without: [Without; 4] = [
        ("needs a signature", |evidence| evidence.signed = false),
        ("needs a grant", |evidence| evidence.grant = false),
        ("needs arguments to be committed", |evidence| {
            evidence.arguments = false;
        }),
        ("needs the prompt to be committed", |evidence| {
            evidence.prompt = false;
        }),
    ];
    for tier in STRICT {
        for (reason, remove) in without {
            let mut evidence = FULL;
            remove(&mut evidence);
            assert_eq!(ruling(tier, evidence), denied(&[reason]), "{tier:?}");
            // Also while other evidence could still come.
            (evidence.decision, evidence.approvals) = (false, 0);
            assert_eq!(ruling(tier, evidence), denied(&[reason]), "{tier:?}");
        }
        assert_eq!(
            ruling(tier, Evidence::default()),
            denied(&without.map(|(reason, _)| reason))
        );
    }
}

#[test]
fn what_can_still_come_is_waited_for() {
    for tier in STRICT {
        for (decision, approvals, missing) in [
            (false, 1, vec![Need::Decision]),
            (true, 0, vec![Need::Approvals(1)]),
            (false, 0, vec![Need::Decision, Need::Approvals(1)]),
        ] {
            let evidence = Evidence {
                decision,
                approvals,
                ..FULL
            };
            let duties = duties(tier);
            let waiting = Ruling::Waiting { missing, duties };
            assert_eq!(ruling(tier, evidence), waiting, "{tier:?}");
        }
    }
}

fn union(a: Evidence, b: Evidence) -> Evidence {
    Evidence {
        signed: a.signed || b.signed,
        grant: a.grant || b.grant,
        arguments: a.arguments || b.arguments,
        prompt: a.prompt || b.prompt,
        model: a.model || b.model,
        decision: a.decision || b.decision,
        approvals: a.approvals.max(b.approvals),
        approvals_multi_factor: a.approvals_multi_factor.max(b.approvals_multi_factor),
        approvals_phishing_resistant: a
            .approvals_phishing_resistant
            .max(b.approvals_phishing_resistant),
    }
}

/// 0 denied, 1 waiting, 2 cleared.
fn rank(ruling: &Ruling) -> u8 {
    match ruling {
        Ruling::Denied { .. } => 0,
        Ruling::Waiting { .. } => 1,
        Ruling::Cleared(_) => 2,
        Ruling::Error { diagnostics } => panic!("{diagnostics:?}"),
    }
}

proptest! {
    #[test]
    fn more_evidence_never_makes_it_worse(tier in 0..6, a in any_evidence(20), b in any_evidence(20)) {
        let tier = RiskTier::try_from(tier).unwrap();
        let policy = default_policy();
        let before = policy.judge(&request(tier, a));
        let after = policy.judge(&request(tier, union(a, b)));
        prop_assert!(rank(&before) <= rank(&after), "{before:?}, then {after:?}");
        prop_assert_eq!(&before, &default_policy().judge(&request(tier, a)));
    }
}
