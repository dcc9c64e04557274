//! Rulings found the long way: Cedar's own authorizer is asked about everything, every number of
//! approvals is tried, and nothing is left out because it cannot matter.

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, RestrictedExpression, Schema,
};
use deed_proto::v1::RiskTier;
use proptest::prelude::*;

use super::*;
use crate::policy::{
    PolicyError,
    evaluate::tier,
    evidence::{FIXED, Need, missing},
};

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn record(fields: Vec<(&str, RestrictedExpression)>) -> RestrictedExpression {
    let fields = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    RestrictedExpression::new_record(fields).unwrap()
}

/// Policies as Cedar alone has them.
struct Oracle {
    policies: PolicySet,
    actions: Entities,
}

impl Oracle {
    fn new(policies: &str, schema: &str) -> Self {
        let (schema, _) = Schema::from_cedarschema_str(schema).unwrap();
        Self {
            policies: policies.parse().unwrap(),
            actions: schema.action_entities().unwrap(),
        }
    }
}

/// Cedar's answer; `None` if a policy failed.
fn cedar(oracle: &Oracle, request: &Request<'_>, evidence: &Evidence) -> Option<bool> {
    let uid = |of: &str, name: &str| {
        let of: EntityTypeName = of.parse().unwrap();
        EntityUid::from_type_name_and_id(of, EntityId::new(name))
    };
    let (agent, resource) = (
        uid("Agent", request.agent),
        uid("Resource", request.resource),
    );
    let entity = |uid: &EntityUid, attribute: Option<(&str, &str)>| {
        let attribute = attribute.map(|(key, value)| (key.to_owned(), text(value)));
        Entity::new(uid.clone(), attribute.into_iter().collect(), [].into()).unwrap()
    };
    let added = [
        entity(&agent, request.controller.map(|name| ("controller", name))),
        entity(&resource, Some(("name", request.resource))),
    ];
    let entities = oracle.actions.clone().add_entities(added, None).unwrap();
    let count = |count: u32| RestrictedExpression::new_long(i64::from(count));
    let flag = RestrictedExpression::new_bool;
    let facts = vec![
        ("signed", flag(evidence.signed)),
        ("grant", flag(evidence.grant)),
        ("arguments", flag(evidence.arguments)),
        ("prompt", flag(evidence.prompt)),
        ("model", flag(evidence.model)),
        ("decision", flag(evidence.decision)),
        ("approvals", count(evidence.approvals)),
        (
            "approvals_multi_factor",
            count(evidence.approvals_multi_factor),
        ),
        (
            "approvals_phishing_resistant",
            count(evidence.approvals_phishing_resistant),
        ),
    ];
    let mut context = vec![
        ("tier", text(tier(request.tier))),
        ("evidence", record(facts)),
    ];
    if let Some((minor_units, currency)) = request.amount {
        let minor_units = RestrictedExpression::new_long(minor_units);
        let amount = vec![("minor_units", minor_units), ("currency", text(currency))];
        context.push(("amount", record(amount)));
    }
    let context = context
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    let context = Context::from_pairs(context).unwrap();
    let action = uid("Action", request.action);
    let asked = cedar_policy::Request::new(agent, action, resource, context, None).unwrap();
    let answer = Authorizer::new().is_authorized(&asked, &oracle.policies, &entities);
    let failed = answer.diagnostics().errors().next().is_some();
    (!failed).then_some(answer.decision() == Decision::Allow)
}

/// The ruling that is expected: cleared, evidence that is missing or that the Intent lacks, or an error.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Cleared,
    Waiting(Vec<Need>),
    /// Something forbids it, whatever comes.
    Denied,
    Lacks(Vec<String>),
    Error,
}

fn by_the_book(oracle: &Oracle, request: &Request<'_>) -> Wanted {
    let ask = |evidence: &Evidence| cedar(oracle, request, evidence);
    let allows = |evidence: &Evidence| ask(evidence) == Some(true);
    let there = request.evidence;
    match ask(&there) {
        None => return Wanted::Error,
        Some(true) => return Wanted::Cleared,
        Some(false) => {}
    }
    let most = Evidence {
        decision: true,
        approvals: 16,
        approvals_multi_factor: 16,
        approvals_phishing_resistant: 16,
        ..there
    };
    match ask(&most) {
        None => return Wanted::Error,
        Some(true) => {}
        Some(false) => return lacking(most, allows),
    }
    let first = |best: Evidence, candidates: Vec<Evidence>| {
        candidates
            .into_iter()
            .find(|one| allows(one))
            .unwrap_or(best)
    };
    let decision = there.decision;
    let best = first(most, vec![Evidence { decision, ..most }]);
    let fewest = (there.approvals..=best.approvals).map(|approvals| Evidence {
        approvals,
        approvals_multi_factor: approvals.max(there.approvals_multi_factor),
        approvals_phishing_resistant: approvals.max(there.approvals_phishing_resistant),
        ..best
    });
    let best = first(best, fewest.collect());
    let counts = there.approvals_phishing_resistant..=best.approvals_phishing_resistant;
    let fewest = counts.map(|approvals_phishing_resistant| Evidence {
        approvals_phishing_resistant,
        ..best
    });
    let best = first(best, fewest.collect());
    let lowest = best.approvals_phishing_resistant;
    let counts = there.approvals_multi_factor.max(lowest)..=best.approvals_multi_factor;
    let fewest = counts.map(|approvals_multi_factor| Evidence {
        approvals_multi_factor,
        ..best
    });
    Wanted::Waiting(missing(&there, &first(best, fewest.collect())))
}

fn lacking(most: Evidence, allows: impl Fn(&Evidence) -> bool) -> Wanted {
    let mut whole = most;
    for (_, part) in FIXED {
        *part(&mut whole) = true;
    }
    if !allows(&whole) {
        return Wanted::Denied;
    }
    let mut reasons = Vec::new();
    for (reason, part) in FIXED {
        let (mut there, mut less) = (most, whole);
        *part(&mut less) = false;
        if *part(&mut there) {
        } else if allows(&less) {
            whole = less;
        } else {
            reasons.push(reason.to_owned());
        }
    }
    Wanted::Lacks(reasons)
}

/// Conditions of every kind: of what is fixed, of what can come, and of both at once.
const CONDITIONS: [&str; 24] = [
    "context.tier == \"payment\"",
    "\"low\" == context.tier",
    "context.evidence.signed",
    "context.evidence.grant && context.evidence.model",
    "context.evidence.decision",
    "context.evidence.approvals >= 2",
    "context.evidence.approvals == 3",
    "context.evidence.approvals != 1",
    "5 > context.evidence.approvals",
    "context.evidence.approvals_multi_factor >= 1",
    "1 <= context.evidence.approvals_phishing_resistant",
    "context.evidence.approvals > context.evidence.approvals_multi_factor",
    "context.evidence.approvals * 2 > 7",
    "context.evidence.approvals < 99999999999",
    "context.evidence has signed && context has amount",
    "if context.evidence.decision then context.evidence.approvals >= 1 else context.evidence.prompt",
    "[1, 3].contains(context.evidence.approvals)",
    "context.evidence == context.evidence",
    "{a: context.evidence.approvals}.a >= 4",
    "context has amount && context.amount.minor_units * 9223372036854775807 > 0",
    "resource.name like \"orders/*\"",
    "principal has controller && principal.controller like \"*.org\"",
    "action in Action::\"money\"",
    "Action::\"payments.refund\" in Action::\"money\" || context.evidence.arguments",
];

fn policies() -> impl Strategy<Value = String> {
    let condition = prop::sample::select(&CONDITIONS[..]);
    let clause = (prop::bool::ANY, condition).prop_map(|(when, condition)| {
        let word = if when { "when" } else { "unless" };
        format!("{word} {{ {condition} }}")
    });
    let scope = prop::sample::select(
        &[
            "principal, action, resource",
            "principal, action == Action::\"payments.refund\", resource",
            "principal, action in [Action::\"money\"], resource",
        ][..],
    );
    let effect = prop::sample::select(&["permit", "permit", "permit", "forbid"][..]);
    let policy = (effect, scope, prop::collection::vec(clause, 0..4));
    let policy = policy
        .prop_map(|(effect, scope, clauses)| format!("{effect} ({scope}) {};", clauses.join(" ")));
    prop::collection::vec(policy, 1..5).prop_map(|policies| policies.join("\n"))
}

proptest! {
    /// That links are evaluated once, that numbers between those that are compared with are left out
    /// and that answers are remembered changes no ruling, and no ruling that may come costs more
    /// than was estimated.
    #[test]
    fn rulings_are_those_of_cedar_asked_about_everything(
        text in policies(),
        evidence in any_evidence(6),
        tier in 0..6,
        action in prop::sample::select(&["payments.refund", "money", "undeclared"][..]),
        resource in prop::sample::select(&["orders/1", "users/1"][..]),
        with_amount: bool,
    ) {
        let schema = format!(
            "{DEFAULT_SCHEMA}
             action \"money\";
             action \"payments.refund\" in [\"money\"] appliesTo {{
                 principal: Agent, resource: Resource, context: Facts,
             }};"
        );
        let policy = match EvidencePolicy::compile(&text, &schema) {
            Ok(policy) => policy,
            Err(PolicyError::Asks { .. } | PolicyError::Cost { .. }) => return Ok(()),
            Err(other) => panic!("{other}: {text}"),
        };
        let request = Request {
            action,
            resource,
            amount: with_amount.then_some((12_900, "EUR")),
            ..request(RiskTier::try_from(tier).unwrap(), evidence)
        };
        let mut judging = policy.judging();
        let ruling = judging.judge(&request).unwrap();
        prop_assert!(judging.spent() <= policy.cost().units, "{} of {:?}", judging.spent(), policy.cost());
        let mut wanted = by_the_book(&Oracle::new(&text, &schema), &request);
        let found = match ruling {
            Ruling::Cleared(_) => Wanted::Cleared,
            Ruling::Waiting { missing, .. } => Wanted::Waiting(missing),
            Ruling::Error { .. } => Wanted::Error,
            Ruling::Denied { reasons } if reasons[0].starts_with("needs ") => {
                Wanted::Lacks(reasons)
            }
            Ruling::Denied { reasons } => {
                // Forbidden by name, whatever the Intent itself should have had.
                if reasons[0] != "no policy permits it" && matches!(wanted, Wanted::Lacks(_)) {
                    wanted = Wanted::Denied;
                }
                Wanted::Denied
            }
        };
        prop_assert_eq!(found, wanted, "{}", text);
    }
}
