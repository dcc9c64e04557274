//! Bounds on the cost of policies: refused when they are set, and denied when an Intent asks for too much.

use super::*;
use crate::policy::{ASKS_MAX, JUDGEMENT_UNITS_MAX, LIKE_STEPS_MAX, PolicyError, SET_ELEMENTS_MAX};

fn error(policies: &str) -> PolicyError {
    EvidencePolicy::compile(policies, DEFAULT_SCHEMA).unwrap_err()
}

fn forbid_when(name: &str, condition: &str) -> String {
    format!("@id(\"{name}\") forbid (principal, action, resource) when {{ {condition} }};\n")
}

/// A pattern with so many characters behind its first wildcard.
fn like(characters: usize) -> String {
    format!("resource.name like \"*{}b\"", "a".repeat(characters - 1))
}

fn elements(count: usize) -> String {
    let all: Vec<_> = (0..count).map(|number| format!("\"{number}\"")).collect();
    format!("[{}].contains(context.tier)", all.join(", "))
}

/// As many different numbers as there are, compared with one kind of approvals.
fn thresholds(kind: &str, count: usize) -> String {
    let all = (1..=count).map(|number| format!("context.evidence.{kind} == {}", 2 * number));
    all.collect::<Vec<_>>().join(" || ")
}

const APPROVE: &str =
    "permit (principal, action, resource) when { context.evidence.approvals >= 1 };";

/// 60 patterns without an end, and every number of approvals of each kind: it held up a server for
/// seconds.
fn patterns_and_approvals() -> String {
    let forbids: String = (0..60)
        .map(|number| forbid_when(&number.to_string(), &like(400)))
        .collect();
    format!(
        "permit (principal, action, resource) when {{
             context.evidence.approvals * 1 >= 16 &&
             context.evidence.approvals_multi_factor * 1 >= 16 &&
             context.evidence.approvals_phishing_resistant * 1 >= 16 }};
         {forbids}"
    )
}

#[test]
fn hostile_sets_are_refused_by_the_name_of_the_limit() {
    type IsIt = fn(&PolicyError) -> bool;
    let many = |count: usize, condition: &str| -> String {
        let forbids = (0..count).map(|number| forbid_when(&number.to_string(), condition));
        forbids.collect()
    };
    let cases: [(&str, String, IsIt, &[&str]); 12] = [
        (
            "patterns and approvals",
            patterns_and_approvals(),
            |e| matches!(e, PolicyError::Like { .. }),
            &["`0`", "like"],
        ),
        (
            "a pattern",
            forbid_when("odd", &like(400)),
            |e| {
                matches!(
                    e,
                    PolicyError::Like {
                        max: LIKE_STEPS_MAX,
                        ..
                    }
                )
            },
            &["policy `odd`", "aaa", "65536"],
        ),
        (
            "a pattern on a text of the policy's own",
            forbid_when(
                "odd",
                &format!(
                    "(if context.evidence.signed then resource.name else \"{}\") like \"*abc\"",
                    "a".repeat(20_000)
                ),
            ),
            |e| matches!(e, PolicyError::Like { .. }),
            &["policy `odd`"],
        ),
        (
            "patterns that are not too dear one by one",
            many(60, &like(60)),
            |e| {
                matches!(
                    e,
                    PolicyError::Cost {
                        max: JUDGEMENT_UNITS_MAX,
                        ..
                    }
                )
            },
            &["units where 2048 are allowed", "policy `", "like"],
        ),
        (
            "a set",
            forbid_when("odd", &elements(SET_ELEMENTS_MAX + 1)),
            |e| {
                matches!(
                    e,
                    PolicyError::Set {
                        max: SET_ELEMENTS_MAX,
                        ..
                    }
                )
            },
            &["policy `odd`", "257 elements"],
        ),
        (
            "sets",
            many(16, &elements(200)),
            |e| matches!(e, PolicyError::Cost { .. }),
            &["policy `", "\"1\""],
        ),
        (
            "sets of sets",
            forbid_when(
                "odd",
                &format!(
                    "[[{0}], [{0}]].containsAny([[{0}], [{0}, \"x\"]])",
                    vec!["context.tier"; 60].join(", ")
                ),
            ),
            |e| matches!(e, PolicyError::Cost { .. }),
            &["policy `odd`", "context.tier"],
        ),
        (
            "records that are compared",
            many(
                120,
                "{a: principal, b: resource} == {a: principal, b: resource}",
            ),
            |e| matches!(e, PolicyError::Cost { .. }),
            &["principal"],
        ),
        (
            "numbers of approvals that are calculated with",
            "permit (principal, action, resource) when {
                 context.evidence.approvals * 1 >= 16 &&
                 context.evidence.approvals_multi_factor * 1 >= 16 };"
                .to_owned(),
            |e| matches!(e, PolicyError::Asks { max: ASKS_MAX, .. }),
            &["evaluations where 24 are allowed"],
        ),
        (
            "many numbers of approvals of each kind",
            format!(
                "permit (principal, action, resource) when {{ {} || {} || {} }};",
                thresholds("approvals", 7),
                thresholds("approvals_multi_factor", 7),
                thresholds("approvals_phishing_resistant", 7)
            ),
            |e| matches!(e, PolicyError::Asks { .. }),
            &["evaluations"],
        ),
        (
            "the evidence as one value",
            "permit (principal, action, resource) when { context.evidence == context.evidence };"
                .to_owned(),
            |e| matches!(e, PolicyError::Asks { .. }),
            &["evaluations"],
        ),
        (
            "many conditions that evidence decides, for all tiers",
            APPROVE.repeat(100),
            |e| matches!(e, PolicyError::Cost { .. }),
            &["approvals"],
        ),
    ];
    for (what, policies, is_it, words) in cases {
        let found = error(&policies);
        assert!(is_it(&found), "{what}: {found:?}");
        assert!(!found.is_of_schema());
        let said = found.to_string();
        for word in words {
            assert!(said.contains(word), "{what}: {said:?} lacks {word:?}");
        }
        assert!(said.len() < 600, "{what}: {said}");
    }
}

#[test]
fn checking_is_bounded_by_policies_and_combinations_and_types() {
    let actions: Vec<_> = (0..200).map(|number| format!("\"a{number}\"")).collect();
    let many_actions = format!(
        "{DEFAULT_SCHEMA} action {} appliesTo {{
             principal: Agent, resource: Resource, context: Facts }};",
        actions.join(", ")
    );
    let condition = vec!["context.tier == \"low\""; 20].join(" || ");
    let policies: String = (0..40)
        .map(|number| forbid_when(&number.to_string(), &condition))
        .collect();
    let fields: Vec<_> = (0..1_000)
        .map(|number| format!("f{number}: Long"))
        .collect();
    let wide = DEFAULT_SCHEMA.replace(
        "tier: String,",
        &format!("tier: String, {},", fields.join(", ")),
    ) + "action \"b\", \"c\", \"d\", \"e\" appliesTo {
             principal: Agent, resource: Resource, context: Facts };";
    for schema in [many_actions, wide] {
        let found = EvidencePolicy::compile(&policies, &schema).unwrap_err();
        assert!(matches!(found, PolicyError::Check { .. }), "{found:?}");
        assert!(found.to_string().contains("combinations"), "{found}");
        assert!(found.is_of_schema());
        EvidencePolicy::compile(DEFAULT_POLICIES, &schema).unwrap();
    }
}

/// The largest number that is taken, and the error of the next one.
fn boundary(
    policies: impl Fn(usize) -> String,
    most: usize,
) -> (usize, EvidencePolicy, PolicyError) {
    let compile = |count| EvidencePolicy::compile(&policies(count), DEFAULT_SCHEMA);
    let (mut taken, mut refused) = (1, most);
    while refused - taken > 1 {
        let middle = usize::midpoint(taken, refused);
        match compile(middle) {
            Ok(_) => taken = middle,
            Err(_) => refused = middle,
        }
    }
    (
        taken,
        compile(taken).unwrap(),
        compile(refused).unwrap_err(),
    )
}

#[test]
fn what_is_just_within_the_limits_is_judged_for_no_more_than_its_estimate() {
    type Written = Box<dyn Fn(usize) -> String>;
    let sets: [(&str, Written, usize); 5] = [
        (
            "a pattern",
            Box::new(|count| format!("{APPROVE}{}", forbid_when("x", &like(count)))),
            400,
        ),
        (
            "patterns",
            Box::new(|count| {
                let forbids = (0..count)
                    .map(|n| forbid_when(&n.to_string(), "resource.name like \"*/secret\""));
                format!("{APPROVE}{}", forbids.collect::<String>())
            }),
            200,
        ),
        (
            "elements",
            Box::new(|count| format!("{APPROVE}{}", forbid_when("x", &elements(count)))),
            400,
        ),
        (
            "numbers",
            Box::new(|count| {
                format!(
                    "permit (principal, action, resource) when {{ {} || {} }};",
                    thresholds("approvals", count),
                    thresholds("approvals_multi_factor", count)
                )
            }),
            16,
        ),
        ("policies", Box::new(|count| APPROVE.repeat(count)), 200),
    ];
    for (what, policies, most) in sets {
        let (count, policy, error) = boundary(policies, most);
        assert!(count > 1, "{what}: {error}");
        let cost = policy.cost();
        assert!(
            cost.units <= JUDGEMENT_UNITS_MAX && cost.asks <= ASKS_MAX,
            "{what}: {cost:?}"
        );
        // The longest texts that a statement has room for, and the worst of them.
        let (resource, agent) = ("a".repeat(1_024), "a".repeat(512));
        for evidence in [
            Evidence::default(),
            FULL,
            Evidence {
                approvals: 0,
                ..FULL
            },
        ] {
            let request = Request {
                resource: &resource,
                agent: &agent,
                controller: Some(&agent),
                ..request(RiskTier::Low, evidence)
            };
            let mut judging = policy.judging();
            let ruling = judging.judge(&request).unwrap();
            assert!(
                !matches!(ruling, Ruling::Error { .. }),
                "{what}: {ruling:?}"
            );
            assert!(
                judging.spent() <= cost.units,
                "{what}: {} of {cost:?}",
                judging.spent()
            );
        }
    }
}

/// The default policies stay far from the limit, and the numbers in docs/policies.md are theirs.
#[test]
fn the_default_policies_are_cheap() {
    let cost = default_policy().cost();
    assert_eq!((cost.units, cost.asks), (408, 5));
    let told = include_str!("../../../../docs/policies.md");
    assert!(told.contains("The default policies cost up to 408 units"));
    assert_eq!(JUDGEMENT_UNITS_MAX, 2_048);
    assert!(told.contains("| judging an Intent | 2,048 units |"));
    assert!(cost.units < JUDGEMENT_UNITS_MAX / 4, "{cost:?}");
    let waits = Evidence {
        decision: false,
        approvals: 0,
        ..FULL
    };
    let policy = default_policy();
    let mut judging = policy.judging();
    let ruling = judging.judge(&request(RiskTier::Payment, waits)).unwrap();
    assert!(matches!(ruling, Ruling::Waiting { .. }));
    assert!(
        judging.spent() < JUDGEMENT_UNITS_MAX / 8,
        "{}",
        judging.spent()
    );
}

/// Policies for other tiers and actions are not counted together.
#[test]
fn what_never_applies_together_is_not_added_up() {
    let of = |tier: &str| {
        let text = "permit (principal, action, resource) when { context.tier == \"TIER\" && \
                    context.evidence.approvals >= 1 };";
        text.replace("TIER", tier).repeat(15)
    };
    let together = policy(&of("low").repeat(2)).cost().units;
    let apart = policy(&(of("low") + &of("payment"))).cost().units;
    let one = policy(&of("low")).cost().units;
    assert!(one < apart && apart < together, "{one} {apart} {together}");
}

#[test]
fn resources_of_one_intent_share_a_budget() {
    let text = format!(
        "{APPROVE} {}",
        (0..9)
            .map(|number| forbid_when(&number.to_string(), "resource.name like \"*/secret/*\""))
            .collect::<String>()
    );
    let policy = policy(&text);
    let waits = Evidence {
        approvals: 0,
        ..FULL
    };
    let run = || {
        let mut judging = policy.judging();
        let names: Vec<_> = (0..65)
            .map(|number| format!("{number}/{}", "a".repeat(100)))
            .collect();
        let rulings: Vec<_> = names
            .iter()
            .map(|resource| {
                judging.judge(&Request {
                    resource,
                    ..request(RiskTier::Low, waits)
                })
            })
            .collect();
        (rulings, judging.spent())
    };
    let (rulings, spent) = run();
    assert!(
        matches!(rulings[0], Some(Ruling::Waiting { .. })),
        "{rulings:?}"
    );
    // The same for the next ones, which is not said again.
    assert_eq!(rulings[1], None);
    let denied = rulings
        .iter()
        .position(|ruling| matches!(ruling, Some(Ruling::Error { .. })));
    let denied = denied.unwrap();
    assert!(denied > 1, "{rulings:?}");
    let Some(Ruling::Error { diagnostics }) = &rulings[denied] else {
        panic!();
    };
    assert!(
        diagnostics[0].contains("more than 2048 units"),
        "{diagnostics:?}"
    );
    assert_eq!(spent, JUDGEMENT_UNITS_MAX);
    // Whatever machine judges, and whenever.
    assert_eq!(run(), (rulings, spent));
}

#[test]
fn policies_that_read_no_resource_are_asked_once_for_all_of_them() {
    let policy = default_policy();
    let mut judging = policy.judging();
    let first = request(RiskTier::Payment, FULL);
    assert!(judging.judge(&first).is_some());
    let spent = judging.spent();
    let other = Request {
        resource: "orders/2",
        ..first
    };
    assert_eq!(judging.judge(&other), None);
    assert_eq!(judging.spent(), spent);
}

#[test]
fn resources_that_the_policies_tell_apart_are_ruled_apart() {
    let text = "permit (principal, action, resource)
            when { resource.name like \"open/*\" || context.evidence.approvals >= 1 };
        @id(\"never\") forbid (principal, action, resource)
            when { resource == Resource::\"secret/1\" };";
    let policy = policy(text);
    let mut judging = policy.judging();
    let none = Evidence {
        approvals: 0,
        ..FULL
    };
    let mut judge = |resource: &'static str| {
        judging.judge(&Request {
            resource,
            ..request(RiskTier::Low, none)
        })
    };
    assert_eq!(judge("open/1"), Some(Ruling::Cleared(NO_DUTIES)));
    assert!(matches!(judge("orders/1"), Some(Ruling::Waiting { .. })));
    assert_eq!(judge("secret/1"), Some(denied(&["never"])));
}

#[test]
fn only_so_many_failures_are_named() {
    let fails = "permit (principal, action, resource) when {
        context has amount && context.amount.minor_units * 9223372036854775807 > 0 };";
    let Ruling::Error { diagnostics } = judge(&fails.repeat(12), FULL) else {
        panic!("no error");
    };
    assert_eq!(diagnostics.len(), 9);
    assert_eq!(diagnostics[8], "policies beyond these: 4");
}
