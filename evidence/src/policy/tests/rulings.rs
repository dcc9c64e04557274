use crate::policy::{
    DEFAULT_POLICIES, DEFAULT_SCHEMA, Duties, Evidence, EvidencePolicy, Need, Request, Ruling,
};
use deed_proto::v1::RiskTier;
use proptest::prelude::*;

use super::{FULL, NO_DUTIES, default_policy, denied, judge, policy, request};

const NOTHING: Evidence = Evidence {
    signed: false,
    grant: false,
    arguments: false,
    prompt: false,
    model: false,
    decision: false,
    approvals: 0,
    approvals_multi_factor: 0,
    approvals_phishing_resistant: 0,
};

fn waiting(missing: &[Need]) -> Ruling {
    Ruling::Waiting {
        missing: missing.to_vec(),
        duties: NO_DUTIES,
    }
}

fn permit_when(condition: &str) -> String {
    format!("permit (principal, action, resource) when {{ {condition} }};")
}

#[test]
fn approvals_are_asked_for_in_the_smallest_numbers() {
    use Need::{Approvals, ApprovalsMultiFactor, ApprovalsPhishingResistant, Decision};
    for (condition, missing) in [
        ("context.evidence.decision", vec![Decision]),
        ("context.evidence.approvals >= 2", vec![Approvals(2)]),
        ("context.evidence.approvals >= 16", vec![Approvals(16)]),
        // Either would do: the decision is left out first.
        (
            "context.evidence.decision || context.evidence.approvals >= 1",
            vec![Approvals(1)],
        ),
        (
            "context.evidence.approvals_multi_factor >= 1",
            vec![ApprovalsMultiFactor(1)],
        ),
        (
            "context.evidence.approvals >= 3 && context.evidence.approvals_multi_factor >= 1",
            vec![Approvals(3), ApprovalsMultiFactor(1)],
        ),
        (
            "context.evidence.approvals_phishing_resistant >= 2 && context.evidence.decision",
            vec![Decision, ApprovalsPhishingResistant(2)],
        ),
        (
            "context.evidence.approvals >= 3 && context.evidence.approvals_multi_factor >= 2 &&
             context.evidence.approvals_phishing_resistant >= 1",
            vec![
                Approvals(3),
                ApprovalsMultiFactor(2),
                ApprovalsPhishingResistant(1),
            ],
        ),
        // One that resists phishing is better than two that do not.
        (
            "context.evidence.approvals >= 2 ||
             context.evidence.approvals_phishing_resistant >= 1",
            vec![ApprovalsPhishingResistant(1)],
        ),
    ] {
        assert_eq!(
            judge(&permit_when(condition), NOTHING),
            waiting(&missing),
            "{condition}"
        );
    }
}

#[test]
fn what_is_there_is_not_asked_for_again() {
    let one = Evidence {
        approvals: 1,
        ..NOTHING
    };
    let two = permit_when("context.evidence.approvals >= 2");
    assert_eq!(judge(&two, one), waiting(&[Need::Approvals(1)]));
    let both = Evidence {
        approvals: 2,
        ..NOTHING
    };
    assert_eq!(judge(&two, both), Ruling::Cleared(NO_DUTIES));
    let strong = permit_when("context.evidence.approvals_multi_factor >= 1");
    assert_eq!(
        judge(&strong, one),
        waiting(&[Need::ApprovalsMultiFactor(1)])
    );
    let too_many = permit_when("context.evidence.approvals >= 17");
    assert_eq!(judge(&too_many, one), denied(&["no policy permits it"]));
}

#[test]
fn needs_are_readable() {
    for (need, text) in [
        (Need::Decision, "decision"),
        (Need::Approvals(1), "approval"),
        (Need::Approvals(2), "2 approvals"),
        (
            Need::ApprovalsMultiFactor(1),
            "approval with multi-factor authentication",
        ),
        (
            Need::ApprovalsMultiFactor(3),
            "3 approvals with multi-factor authentication",
        ),
        (
            Need::ApprovalsPhishingResistant(2),
            "2 approvals with phishing-resistant authentication",
        ),
    ] {
        assert_eq!(need.to_string(), text);
    }
}

#[test]
fn a_policy_that_fails_is_never_an_allow() {
    let overflow = "context has amount && context.amount.minor_units * 9223372036854775807 > 0";
    for effect in ["permit", "forbid"] {
        let text = format!(
            "@id(\"all\") permit (principal, action, resource);
             @id(\"odd\") {effect} (principal, action, resource) when {{ {overflow} }};"
        );
        // Cedar alone would say yes.
        match judge(&text, FULL) {
            Ruling::Error { diagnostics } => {
                assert_eq!(diagnostics.len(), 1);
                assert!(diagnostics[0].contains("`odd`"), "{diagnostics:?}");
                assert!(diagnostics[0].contains("overflow"), "{diagnostics:?}");
            }
            other => panic!("{other:?}"),
        }
        let mut without = request(RiskTier::Payment, FULL);
        without.amount = None;
        assert_eq!(policy(&text).judge(&without), Ruling::Cleared(NO_DUTIES));
    }
}

#[test]
fn a_failure_that_only_later_evidence_would_reach_counts_too() {
    let text = "@id(\"one\") permit (principal, action, resource)
        when { context.evidence.decision };
        @id(\"two\") permit (principal, action, resource)
        when { context.evidence.decision && context has amount &&
               context.amount.minor_units * 9223372036854775807 > 0 };";
    assert!(matches!(judge(text, NOTHING), Ruling::Error { .. }));
}

#[test]
fn several_failures_are_sorted() {
    let fails = |name: &str| {
        format!(
            "@id(\"{name}\") permit (principal, action, resource)
             when {{ context.evidence.approvals * 9223372036854775807 > context.evidence.approvals }};"
        )
    };
    let text: String = ["c", "a", "b"].map(fails).concat();
    let evidence = Evidence {
        approvals: 2,
        ..NOTHING
    };
    let Ruling::Error { diagnostics } = judge(&text, evidence) else {
        panic!("no error");
    };
    assert_eq!(diagnostics.len(), 3);
    for (diagnostic, name) in diagnostics.iter().zip(["`a`", "`b`", "`c`"]) {
        assert!(diagnostic.contains(name), "{diagnostics:?}");
    }
}

#[test]
fn forbid_wins_and_is_named() {
    let text = format!(
        "{DEFAULT_POLICIES}
         @id(\"no large refunds\") forbid (principal, action, resource)
         when {{ context has amount && context.amount.minor_units > 10000 }};
         @id(\"freeze\") forbid (principal, action, resource) unless {{ context.evidence.model }};"
    );
    assert_eq!(judge(&text, FULL), denied(&["freeze", "no large refunds"]));
    let mut small = request(RiskTier::Payment, FULL);
    small.amount = Some((10_000, "EUR"));
    small.evidence.model = true;
    assert!(matches!(policy(&text).judge(&small), Ruling::Cleared(_)));
    let unnamed = "permit (principal, action, resource); forbid (principal, action, resource);";
    assert_eq!(judge(unnamed, FULL), denied(&["policy1"]));
}

#[test]
fn a_forbid_that_evidence_lifts_is_waited_for() {
    let text = "permit (principal, action, resource);
        @id(\"eyes\") forbid (principal, action, resource)
        unless { context.evidence.approvals >= 1 };";
    assert_eq!(judge(text, NOTHING), waiting(&[Need::Approvals(1)]));
}

#[test]
fn only_what_is_lacking_is_named() {
    let text = permit_when("context.evidence.model && context.evidence.approvals >= 1");
    assert_eq!(
        judge(&text, NOTHING),
        denied(&["needs the model to be named"])
    );
    // Either would do: the one that comes first is not asked for.
    let text = permit_when("context.evidence.signed || context.evidence.grant");
    assert_eq!(judge(&text, NOTHING), denied(&["needs a grant"]));
    let text = permit_when("context.tier == \"other\"");
    assert_eq!(judge(&text, NOTHING), denied(&["no policy permits it"]));
}

#[test]
fn duties_of_all_permits_that_allow_are_owed() {
    let text = "
        @keep(\"tool_call, result\") @corroborate(\"3600\")
        permit (principal, action, resource);
        @keep(\"response\") @corroborate(\"60\")
        permit (principal, action, resource) when { context.evidence.signed };
        @corroborate(\"1\")
        permit (principal, action, resource) when { context.evidence.model };";
    assert_eq!(
        judge(text, FULL),
        Ruling::Cleared(Duties {
            tool_call: true,
            response: true,
            result: true,
            corroborate_within_us: Some(60_000_000),
        })
    );
}

#[test]
fn policies_see_who_what_and_how_much() {
    for (condition, holds) in [
        (
            "principal == Agent::\"spiffe://example.org/agents/refunds\"",
            true,
        ),
        ("principal == Agent::\"another\"", false),
        (
            "principal has controller && principal.controller == \"https://example.org\"",
            true,
        ),
        ("resource.name like \"orders/*\"", true),
        ("resource.name like \"users/*\"", false),
        ("resource == Resource::\"orders/1234\"", true),
        ("context.tier == \"payment\"", true),
        (
            "context has amount && context.amount.minor_units == 12900",
            true,
        ),
        (
            "context has amount && context.amount.currency == \"EUR\"",
            true,
        ),
    ] {
        let cleared = matches!(judge(&permit_when(condition), FULL), Ruling::Cleared(_));
        assert_eq!(cleared, holds, "{condition}");
    }
    let mut nobody = request(RiskTier::Low, FULL);
    nobody.controller = None;
    let text = permit_when("principal has controller");
    assert!(matches!(
        policy(&text).judge(&nobody),
        Ruling::Denied { .. }
    ));
}

#[test]
fn actions_have_groups_and_need_not_be_declared() {
    let schema = format!(
        "{DEFAULT_SCHEMA}
         action \"money\";
         action \"payments.refund\", \"payments.charge\" in [\"money\"] appliesTo {{
             principal: Agent, resource: Resource, context: Facts,
         }};"
    );
    let text = "@id(\"free\") permit (principal, action, resource)
        unless { action in Action::\"money\" };
        @id(\"money\") permit (principal, action in Action::\"money\", resource)
        when { context.evidence.approvals >= 2 };";
    let policy = EvidencePolicy::compile(text, &schema).unwrap();
    let judge = |action: &'static str| {
        policy.judge(&Request {
            action,
            ..request(RiskTier::Low, NOTHING)
        })
    };
    assert_eq!(judge("payments.refund"), waiting(&[Need::Approvals(2)]));
    assert_eq!(judge("payments.charge"), waiting(&[Need::Approvals(2)]));
    assert_eq!(judge("nobody.declared.this"), Ruling::Cleared(NO_DUTIES));
}

fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\"\\\\\n\r\t\0 \u{202e}:Agentä🦀*]{0,40}",
        Just("x".repeat(1_024)),
        Just("\"".repeat(1_024)),
        Just("\\".repeat(1_024)),
        Just("🦀".repeat(256)),
        Just(String::new()),
        Just("Action::\"any\"".to_owned()),
    ]
}

proptest! {
    #[test]
    fn odd_texts_are_only_texts(
        texts in [odd_text(), odd_text(), odd_text(), odd_text(), odd_text()],
        minor_units in any::<i64>(),
        approvals in any::<[u32; 3]>(),
        tier in 0..6,
    ) {
        let [agent, controller, action, resource, currency] = &texts;
        let request = Request {
            agent,
            controller: Some(controller),
            action,
            resource,
            tier: RiskTier::try_from(tier).unwrap(),
            amount: Some((minor_units, currency)),
            evidence: Evidence {
                approvals: approvals[0],
                approvals_multi_factor: approvals[1],
                approvals_phishing_resistant: approvals[2],
                ..FULL
            },
        };
        let ruling = default_policy().judge(&request);
        prop_assert_eq!(&ruling, &default_policy().judge(&request));
        let errs = matches!(ruling, Ruling::Error { .. });
        prop_assert!(!errs, "{:?}", ruling);
    }

    #[test]
    fn needs_are_enough_and_none_can_be_left_out(
        any in 0_u32..5, multi in 0_u32..5, resistant in 0_u32..5, decision: bool, there in 0_u32..4,
    ) {
        let text = permit_when(&format!(
            "context.evidence.approvals >= {any} &&
             context.evidence.approvals_multi_factor >= {multi} &&
             context.evidence.approvals_phishing_resistant >= {resistant} &&
             (context.evidence.decision || !{decision})"
        ));
        let policy = policy(&text);
        let before = Evidence { approvals: there, ..NOTHING };
        let apply = |needs: &[Need]| {
            let mut after = before;
            for need in needs {
                match need {
                    Need::Decision => after.decision = true,
                    Need::Approvals(_) => {}
                    Need::ApprovalsMultiFactor(more) => after.approvals_multi_factor += more,
                    Need::ApprovalsPhishingResistant(more) => {
                        after.approvals_phishing_resistant += more;
                    }
                }
            }
            let multi = after.approvals_multi_factor.max(after.approvals_phishing_resistant);
            after.approvals_multi_factor = multi;
            let more = needs.iter().map(|need| match need {
                Need::Approvals(more) => *more,
                _ => multi,
            });
            after.approvals += more.max().unwrap_or(0);
            policy.judge(&request(RiskTier::Low, after))
        };
        match policy.judge(&request(RiskTier::Low, before)) {
            Ruling::Cleared(_) => {}
            Ruling::Waiting { missing, .. } => {
                prop_assert!(missing.is_sorted());
                prop_assert_eq!(apply(&missing), Ruling::Cleared(NO_DUTIES), "{:?}", missing);
                for left_out in 0..missing.len() {
                    let mut less = missing.clone();
                    less.remove(left_out);
                    let cleared = matches!(apply(&less), Ruling::Cleared(_));
                    prop_assert!(!cleared, "{missing:?} without {left_out}");
                }
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
