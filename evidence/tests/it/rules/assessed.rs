//! The rules of the bodies that are assessed: grants, evidence, and what the ledger says itself.

mod ledgers;

pub(super) use ledgers::ledger_rows;

use super::*;
use bytes::Bytes;
use deed_evidence::Problem;
use deed_proto::v1;
const LEDGERS_OWN: Problem = Problem::Rule("must not begin with deed:, which is the ledger's own");
const ASCENDING: Problem = Problem::Rule("must be strictly ascending");
const BEHIND: Problem =
    Problem::Rule("must be strictly ascending by leaf_index, and behind the Intent");
const LEDGER_EMPTY: Problem = Problem::Rule("must be empty in a statement of the ledger");
pub(super) fn grant_rows() -> Vec<Row> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let actions = |list: &[&str]| grant(|g| g.actions = texts(list));
    let resources = |list: &[&str]| grant(|g| g.resources = texts(list));
    let many: Vec<String> = (10..75).map(|n| format!("a/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let amount = |change: fn(&mut v1::Amount)| grant(|g| change(g.amount.as_mut().unwrap()));
    let token =
        |change: fn(&mut v1::OutsideToken)| grant(|g| change(g.outside_token.as_mut().unwrap()));
    let later = Problem::Rule("must be later than not_before_us");
    let negative = Problem::Rule("must not be negative");
    vec![
        (
            grant(|g| g.subject.clear()),
            "grant.subject",
            Problem::Missing,
        ),
        (grant(|g| g.subject = "agent".into()), "grant.subject", URI),
        (
            grant(|g| g.subject = format!("a:{}", x(511))),
            "grant.subject",
            length(513, 1, 512),
        ),
        (
            grant(|g| g.subject = "Deed:ledger".into()),
            "grant.subject",
            LEDGERS_OWN,
        ),
        (
            grant(|g| g.subject_key = bytes(1, 32)),
            "grant.subject_key",
            length(32, 16, 16),
        ),
        (actions(&[]), "grant.actions", count(0, 1, 64)),
        (actions(&many), "grant.actions", count(65, 1, 64)),
        (actions(&[""]), "grant.actions[0]", length(0, 1, 256)),
        (
            actions(&["a", &x(257)]),
            "grant.actions[1]",
            length(257, 1, 256),
        ),
        (actions(&["a\n"]), "grant.actions[0]", CONTROL),
        (actions(&["a", "a"]), "grant.actions", ASCENDING),
        (actions(&["b", "a"]), "grant.actions", ASCENDING),
        (actions(&["a", "c", "b"]), "grant.actions", ASCENDING),
        // By their bytes alone: neither length nor what a pattern covers decides.
        (actions(&["b", "aa"]), "grant.actions", ASCENDING),
        (actions(&["a/b", "a/*"]), "grant.actions", ASCENDING),
        (resources(&[]), "grant.resources", count(0, 1, 64)),
        (resources(&many), "grant.resources", count(65, 1, 64)),
        (resources(&[""]), "grant.resources[0]", length(0, 1, 1024)),
        (
            resources(&[&x(1025)]),
            "grant.resources[0]",
            length(1025, 1, 1024),
        ),
        (resources(&["\u{7f}"]), "grant.resources[0]", CONTROL),
        (resources(&["a", "a"]), "grant.resources", ASCENDING),
        (resources(&["b", "a"]), "grant.resources", ASCENDING),
        (
            grant(|g| g.not_before_us = -1),
            "grant.not_before_us",
            NEGATIVE,
        ),
        (
            grant(|g| g.expires_us = 0),
            "grant.expires_us",
            Problem::Missing,
        ),
        (grant(|g| g.expires_us = -1), "grant.expires_us", NEGATIVE),
        (
            grant(|g| g.expires_us = g.not_before_us),
            "grant.expires_us",
            later.clone(),
        ),
        (
            grant(|g| g.expires_us = g.not_before_us - 1),
            "grant.expires_us",
            later,
        ),
        (
            amount(|a| a.minor_units = -1),
            "grant.amount.minor_units",
            negative.clone(),
        ),
        (
            amount(|a| a.minor_units = i64::MIN),
            "grant.amount.minor_units",
            negative,
        ),
        (
            amount(|a| a.currency.clear()),
            "grant.amount.currency",
            Problem::Missing,
        ),
        (
            amount(|a| a.currency = "eur".into()),
            "grant.amount.currency",
            CURRENCY,
        ),
        (
            grant(|g| g.parent = bytes(1, 16)),
            "grant.parent",
            length(16, 32, 32),
        ),
        (
            token(|t| t.kind.clear()),
            "grant.outside_token.kind",
            Problem::Missing,
        ),
        (
            token(|t| t.kind = "JTI".into()),
            "grant.outside_token.kind",
            LOWER_NAME,
        ),
        (
            token(|t| t.kind = x(65)),
            "grant.outside_token.kind",
            length(65, 1, 64),
        ),
        (
            token(|t| t.value.clear()),
            "grant.outside_token.value",
            Problem::Missing,
        ),
        (
            token(|t| t.value = x(257)),
            "grant.outside_token.value",
            length(257, 1, 256),
        ),
        (
            token(|t| t.value = "\t".into()),
            "grant.outside_token.value",
            CONTROL,
        ),
        (
            token(|t| t.key_thumbprint = bytes(1, 20)),
            "grant.outside_token.key_thumbprint",
            length(20, 32, 32),
        ),
        (
            grant_accepted(|g| g.grant = Bytes::new()),
            "grant_accepted.grant",
            Problem::Missing,
        ),
        (
            grant_accepted(|g| g.grant = bytes(1, 33)),
            "grant_accepted.grant",
            length(33, 32, 32),
        ),
        (
            revocation(|r| r.grant = Bytes::new()),
            "revocation.grant",
            Problem::Missing,
        ),
        (
            revocation(|r| r.grant = bytes(1, 31)),
            "revocation.grant",
            length(31, 32, 32),
        ),
        (
            revocation(|r| r.reason = x(1025)),
            "revocation.reason",
            length(1025, 1, 1024),
        ),
    ]
}
pub(super) fn evidence_rows() -> Vec<Row> {
    [decision_rows(), approval_rows(), observation_rows()].concat()
}
fn decision_rows() -> Vec<Row> {
    vec![
        (
            decision(|d| d.intent = None),
            "decision.intent",
            Problem::Missing,
        ),
        (
            decision(|d| d.intent.as_mut().unwrap().leaf_hash = Bytes::new()),
            "decision.intent.leaf_hash",
            Problem::Missing,
        ),
        (
            decision(|d| d.intent.as_mut().unwrap().leaf_hash = bytes(1, 31)),
            "decision.intent.leaf_hash",
            length(31, 32, 32),
        ),
        (
            decision(|d| d.verdict = 0),
            "decision.verdict",
            Problem::Missing,
        ),
        (
            decision(|d| d.verdict = 3),
            "decision.verdict",
            Problem::UnknownEnum { value: 3 },
        ),
        (
            decision(|d| d.engine.clear()),
            "decision.engine",
            Problem::Missing,
        ),
        (
            decision(|d| d.engine = x(257)),
            "decision.engine",
            length(257, 1, 256),
        ),
        (
            decision(|d| d.engine = "\0".into()),
            "decision.engine",
            CONTROL,
        ),
        (
            decision(|d| d.policy_version = x(257)),
            "decision.policy_version",
            length(257, 1, 256),
        ),
        (
            decision(|d| d.policy_version = "\n".into()),
            "decision.policy_version",
            CONTROL,
        ),
        (
            decision(|d| d.policy_digest = bytes(1, 20)),
            "decision.policy_digest",
            length(20, 32, 32),
        ),
        (
            decision(|d| d.reason = x(1025)),
            "decision.reason",
            length(1025, 1, 1024),
        ),
    ]
}
fn approval_rows() -> Vec<Row> {
    let times = |shown, opened, decided| {
        approval(|a| (a.shown_at_us, a.opened_at_us, a.decided_at_us) = (shown, opened, decided))
    };
    let shown = Problem::Rule("must not be before shown_at_us");
    let both = Problem::Rule("must not be before opened_at_us and shown_at_us");
    vec![
        (
            approval(|a| a.intent = None),
            "approval.intent",
            Problem::Missing,
        ),
        (
            approval(|a| a.intent.as_mut().unwrap().leaf_hash = bytes(1, 33)),
            "approval.intent.leaf_hash",
            length(33, 32, 32),
        ),
        (
            approval(|a| a.verdict = 0),
            "approval.verdict",
            Problem::Missing,
        ),
        (
            approval(|a| a.verdict = 3),
            "approval.verdict",
            Problem::UnknownEnum { value: 3 },
        ),
        (
            approval(|a| a.shown = None),
            "approval.shown",
            Problem::Missing,
        ),
        (
            approval(|a| a.shown = Some(v1::Commitment::default())),
            "approval.shown.digest",
            Problem::Missing,
        ),
        (
            approval(|a| a.shown.as_mut().unwrap().media_type = "json".into()),
            "approval.shown.media_type",
            MEDIA_TYPE,
        ),
        (times(-1, 5, 5), "approval.shown_at_us", NEGATIVE),
        (times(5, -1, 5), "approval.opened_at_us", NEGATIVE),
        (times(5, 5, -1), "approval.decided_at_us", NEGATIVE),
        (times(0, 0, 0), "approval.decided_at_us", Problem::Missing),
        (times(5, 4, 6), "approval.opened_at_us", shown),
        (times(4, 6, 5), "approval.decided_at_us", both.clone()),
        (times(0, 6, 5), "approval.decided_at_us", both.clone()),
        // That it was opened is not said, and hides nothing.
        (times(6, 0, 5), "approval.decided_at_us", both),
        (
            approval(|a| a.strength = 0),
            "approval.strength",
            Problem::Missing,
        ),
        (
            approval(|a| a.strength = 4),
            "approval.strength",
            Problem::UnknownEnum { value: 4 },
        ),
        (
            approval(|a| a.rationale = x(1025)),
            "approval.rationale",
            length(1025, 1, 1024),
        ),
    ]
}
fn observation_rows() -> Vec<Row> {
    let small = v1::Effect {
        kind: "k".into(),
        resource: "r".into(),
        ..Default::default()
    };
    vec![
        (
            observation(|o| o.intent = Some(v1::LeafRef::default())),
            "observation.intent.leaf_hash",
            Problem::Missing,
        ),
        (
            observation(|o| o.effects.clear()),
            "observation.effects",
            count(0, 1, 64),
        ),
        (
            observation(|o| o.effects = vec![small; 65]),
            "observation.effects",
            count(65, 1, 64),
        ),
        (
            observation(|o| o.effects[1].kind.clear()),
            "observation.effects[1].kind",
            Problem::Missing,
        ),
        (
            observation(|o| o.effects[1].amount.as_mut().unwrap().currency = "$$$".into()),
            "observation.effects[1].amount.currency",
            CURRENCY,
        ),
        (
            observation(|o| o.reference = x(257)),
            "observation.reference",
            length(257, 1, 256),
        ),
        (
            observation(|o| o.reference = "\r".into()),
            "observation.reference",
            CONTROL,
        ),
        (
            observation(|o| o.observed_at_us = -1),
            "observation.observed_at_us",
            NEGATIVE,
        ),
    ]
}
pub(super) fn disposition_rows() -> Vec<Row> {
    vec![
        (
            finding_disposition(|d| d.leaf_index = 0),
            "finding_disposition.leaf_index",
            Problem::Missing,
        ),
        (
            finding_disposition(|d| d.kind = 0),
            "finding_disposition.kind",
            Problem::Missing,
        ),
        (
            finding_disposition(|d| d.kind = 4),
            "finding_disposition.kind",
            Problem::UnknownEnum { value: 4 },
        ),
        (
            finding_disposition(|d| d.reviewed_by.clear()),
            "finding_disposition.reviewed_by",
            Problem::Missing,
        ),
        (
            finding_disposition(|d| d.reviewed_by = x(513)),
            "finding_disposition.reviewed_by",
            length(513, 1, 512),
        ),
        (
            finding_disposition(|d| d.reviewed_by = "\0".into()),
            "finding_disposition.reviewed_by",
            CONTROL,
        ),
        (
            finding_disposition(|d| d.reason.clear()),
            "finding_disposition.reason",
            Problem::Missing,
        ),
        (
            finding_disposition(|d| d.reason = x(1025)),
            "finding_disposition.reason",
            length(1025, 1, 1024),
        ),
    ]
}
/// What lies just inside of these rules.
pub(super) fn edges() -> Vec<v1::Statement> {
    let times = |shown, opened, decided| {
        approval(|a| (a.shown_at_us, a.opened_at_us, a.decided_at_us) = (shown, opened, decided))
    };
    vec![
        grant(|g| (g.not_before_us, g.expires_us) = (0, 1)),
        grant(|g| (g.not_before_us, g.expires_us) = (i64::MAX - 1, i64::MAX)),
        grant(|g| g.amount.as_mut().unwrap().minor_units = 0),
        grant(|g| g.amount.as_mut().unwrap().minor_units = i64::MAX),
        grant(|g| g.subject = "deeds:x".into()),
        grant(|g| g.actions = vec!["*".into(), "/*".into(), "a*b".into()]),
        grant(|g| g.resources = (10..74).map(|n| n.to_string()).collect()),
        times(0, 0, 1),
        times(5, 0, 5),
        times(0, 5, 5),
        times(5, 5, 5),
        observation(|o| o.intent = None),
        finding_disposition(|d| (d.leaf_index, d.number) = (1, 0)),
        finding_disposition(|d| d.number = u32::MAX),
        heartbeat(|h| h.next_within_us = i64::MAX),
        tick(|t| t.due_us = 1),
        tick(|t| t.due_us = fixtures::TIME_US),
        clearance(|c| c.evidence.truncate(1)),
        clearance(|c| c.policy_leaf = u64::MAX),
        task_receipt(|r| (r.through_leaf, r.count) = (1, 1)),
        task_receipt(|r| (r.through_leaf, r.count) = (u64::MAX, u64::MAX)),
        // No trust statement stands behind the genesis entry.
        task_receipt(|r| r.trust_head.as_mut().unwrap().leaf_index = 0),
        task_receipt(|r| r.requested = false),
    ]
}
