//! A task in JSON.

use deed_client::{Basis, ProvenTask};
use deed_proto::v1::{self, statement::Body};
use serde::Serialize;

use super::{
    answers::{self, Answers},
    check::{Checked, Signatures},
};
use crate::{
    failure::CommandResult,
    render::{EntryJson, FindingJson, names},
};

/// The basis of each part: verified, or claimed.
#[derive(Serialize)]
pub(super) struct TaskJson {
    task: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_tier: Option<String>,
    /// The evidence for its opening.
    opened: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_leaf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_leaf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_leaf: Option<u64>,
    count: u64,
    /// The basis of states, layers and findings: `checked` or `servers_word`.
    basis: &'static str,
    /// The last leaf up to which a receipt says that these are all entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipted_through: Option<u64>,
    /// Parts of the server's report that the entries contradict.
    alarms: Vec<String>,
    /// Facts that no entry of the task shows.
    by_servers_word: Vec<String>,
    /// Recomputed from the entries.
    digest: String,
    assessment_digest: String,
    tree_size: u64,
    signatures: Signatures,
    entries: Vec<EntryJson>,
    grants: Vec<GrantJson>,
    acts: Vec<ActJson>,
    findings: Vec<FindingJson>,
}

#[derive(Serialize)]
struct GrantJson {
    leaf_index: u64,
    leaf_hash: String,
    state: String,
    /// The grant above it that the state comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_from_leaf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_leaf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_leaf: Option<u64>,
    uses_spent: u64,
    amount_spent: i64,
    rooted: String,
}

#[derive(Serialize)]
struct ActJson {
    intent_leaf: u64,
    state: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    denied: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_leaf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clearance_leaf: Option<u64>,
    evidence_leaves: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome_leaf: Option<u64>,
    outcome: String,
    observation_leaves: Vec<u64>,
    layers: LayersJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<Answers>,
}

#[derive(Serialize)]
struct LayersJson {
    identity: String,
    authority: String,
    intent: String,
    approval: String,
    result: String,
    corroboration: String,
}

impl TaskJson {
    pub(super) fn new(checked: &Checked) -> CommandResult<Self> {
        let task = &checked.task;
        let info = &task.info;
        let entries = task.entries.iter().map(|entry| {
            EntryJson::decode(&entry.entry, entry.index.get(), entry.hash.to_string())
        });
        let tier = info
            .opened_leaf
            .map(|_| names::short(info.risk_tier().as_str_name(), "RISK_TIER_"));
        Ok(Self {
            task: hex::encode(&info.task),
            state: names::task(info.state()),
            risk_tier: tier,
            opened: names::layer(info.opened()),
            opened_leaf: info.opened_leaf,
            closed_leaf: info.closed_leaf,
            closed_at_us: Some(info.closed_at_us).filter(|at| *at != 0),
            receipt_leaf: info.receipt_leaf,
            count: info.count,
            digest: hex::encode(&info.digest),
            assessment_digest: hex::encode(&info.assessment_digest),
            tree_size: task.head.head.size.get(),
            signatures: checked.signatures,
            basis: names::basis(checked.basis),
            receipted_through: checked.receipted.map(|receipt| receipt.through_leaf),
            alarms: checked.alarms.clone(),
            by_servers_word: checked.by_word.clone(),
            entries: entries.collect::<CommandResult<_>>()?,
            grants: task.grants.iter().map(GrantJson::new).collect(),
            acts: task
                .acts
                .iter()
                .map(|act| ActJson::new(task, checked.basis, act))
                .collect(),
            findings: task
                .findings
                .iter()
                .map(|one| FindingJson::new(one, checked.basis))
                .collect(),
        })
    }
}

impl GrantJson {
    fn new(info: &v1::GrantInfo) -> Self {
        Self {
            leaf_index: info.leaf_index,
            leaf_hash: hex::encode(&info.leaf_hash),
            state: names::grant(info.state()),
            state_from_leaf: info.state_from_leaf,
            accepted_leaf: info.accepted_leaf,
            parent_leaf: info.parent_leaf,
            uses_spent: info.uses_spent,
            amount_spent: info.amount_spent,
            rooted: names::layer(info.rooted()),
        }
    }
}

impl ActJson {
    fn new(task: &ProvenTask, basis: Basis, act: &v1::ActInfo) -> Self {
        let layers = act.layers.unwrap_or_default();
        Self {
            intent_leaf: act.intent_leaf,
            state: names::intent(act.state()),
            missing: act.missing.clone(),
            denied: act.denied.clone(),
            grant_leaf: act.grant_leaf,
            clearance_leaf: act.clearance_leaf,
            evidence_leaves: act.evidence_leaves.clone(),
            outcome_leaf: act.outcome_leaf,
            outcome: names::outcome(act.outcome()),
            observation_leaves: act.observation_leaves.clone(),
            layers: LayersJson {
                identity: names::layer(layers.identity()),
                authority: names::layer(layers.authority()),
                intent: names::layer(layers.intent()),
                approval: names::layer(layers.approval()),
                result: names::layer(layers.result()),
                corroboration: names::layer(layers.corroboration()),
            },
            answers: answers::of(task, basis, act),
        }
    }
}

/// The statement that opened the task.
pub(super) fn opened(task: &ProvenTask) -> Option<&v1::TaskOpened> {
    let entry = task.info.opened_leaf.and_then(|leaf| task.entry(leaf));
    match entry?.body()? {
        Body::TaskOpened(opened) => Some(opened),
        _ => None,
    }
}
