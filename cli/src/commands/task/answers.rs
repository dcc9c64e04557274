//! The four questions about an act: which agent acted, under what authority, on which resource,
//! with exactly what result.

use deed_client::{Basis, ProvenStatement, ProvenTask};
use deed_evidence::Micros;
use deed_proto::v1::{
    self, Author, EvidencePart, GrantState, LayerState, OutcomeState, OutcomeStatus,
    statement::Body,
};
use serde::Serialize;

use crate::render::{
    amount_words, effect_words,
    names::{self, short, words},
    shown,
};

/// Longest chain of grants.
const LINKS_MAX: usize = 8;

/// The answers that the entries give, in sentences. They quote others unchanged, so the caller must make
/// them printable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Answers {
    /// The agent that acted.
    pub(super) agent: String,
    /// The authority: the chain of grants, its root first.
    pub(super) authority: Vec<String>,
    /// The resource that the act is on.
    pub(super) resource: String,
    /// The result, with its effects and who saw them.
    pub(super) result: Vec<String>,
}

/// The answers for an act; `None` if its Intent is not among the task's entries.
pub(super) fn of(task: &ProvenTask, basis: Basis, act: &v1::ActInfo) -> Option<Answers> {
    let entry = task.entry(act.intent_leaf)?;
    let Some(Body::Intent(intent)) = entry.body() else {
        return None;
    };
    let amount = intent.amount.as_ref();
    let amount = amount.map(|amount| format!(", {}", amount_words(amount)));
    Some(Answers {
        agent: agent(entry, basis, intent),
        authority: authority(task, basis, act, intent),
        resource: format!(
            "{} ({}{})",
            intent.resource,
            intent.action,
            amount.unwrap_or_default()
        ),
        result: result(task, basis, act),
    })
}

fn agent(entry: &ProvenStatement, basis: Basis, intent: &v1::Intent) -> String {
    let model = match intent.model.as_str() {
        "" => String::new(),
        model => format!("; model {model}, as it says"),
    };
    format!(
        "{}, {}{model}",
        entry.statement.producer,
        signed_words(entry, basis)
    )
}

/// Returns the evidence for the author of a statement.
pub(super) fn signed_words(entry: &ProvenStatement, basis: Basis) -> String {
    match (entry.author, entry.key_id, basis) {
        (Author::Signed, Some(key), Basis::Checked) => format!("signed with key {key}"),
        (Author::Signed, Some(key), _) => {
            format!("with a signature of key {key} that was not checked")
        }
        (Author::Batched, _, Basis::Checked) => "signed in a batch".to_owned(),
        (Author::Batched, ..) => "in a batch whose signature was not checked".to_owned(),
        (Author::Ledger, ..) => "the ledger itself".to_owned(),
        _ => "not signed: a claim".to_owned(),
    }
}

fn authority(
    task: &ProvenTask,
    basis: Basis,
    act: &v1::ActInfo,
    intent: &v1::Intent,
) -> Vec<String> {
    let mut lines = chain(task, basis, intent);
    for leaf in &act.evidence_leaves {
        match task.entry(*leaf) {
            Some(entry) => lines.push(evidence(entry)),
            None => lines.push(format!(
                "evidence at leaf {leaf}, outside of the task's entries"
            )),
        }
    }
    if let Some(leaf) = act.clearance_leaf {
        lines.push(format!("The ledger cleared it at leaf {leaf}."));
    }
    lines
}

/// The grants from the root to the one that the Intent names.
fn chain(task: &ProvenTask, basis: Basis, intent: &v1::Intent) -> Vec<String> {
    if intent.grant.is_empty() {
        return vec!["None: the Intent names no grant.".to_owned()];
    }
    let (mut links, mut next) = (Vec::new(), intent.grant.clone());
    while !next.is_empty() && links.len() < LINKS_MAX {
        let entry = task.entry_of_hash(&next);
        let Some((entry, Body::Grant(grant))) =
            entry.and_then(|entry| Some((entry, entry.body()?)))
        else {
            links.push(format!(
                "The chain leads to {}, which is no grant of this task.",
                hex::encode(&next)
            ));
            break;
        };
        links.push(link(task, basis, entry, grant));
        next = grant.parent.clone();
    }
    links.reverse();
    links
}

fn link(task: &ProvenTask, basis: Basis, entry: &ProvenStatement, grant: &v1::Grant) -> String {
    let leaf = entry.index.get();
    let info = task.grants.iter().find(|info| info.leaf_index == leaf);
    let gives = if grant.parent.is_empty() {
        "granted it"
    } else {
        "passed it on"
    };
    let accepted = match info.and_then(|info| info.accepted_leaf) {
        Some(accepted) => {
            let by = task
                .entry(accepted)
                .map(|entry| entry.statement.producer.as_str());
            format!(
                ", accepted by {} at leaf {accepted}",
                by.unwrap_or("somebody")
            )
        }
        None if grant.parent.is_empty() => String::new(),
        None => ", not accepted".to_owned(),
    };
    let state = info.map_or(GrantState::Unspecified, v1::GrantInfo::state);
    let above = match info.and_then(|info| info.state_from_leaf) {
        Some(leaf) => format!(", as the grant at leaf {leaf} above it"),
        None => String::new(),
    };
    let rooted = match info.map(v1::GrantInfo::rooted) {
        Some(LayerState::Proven) | None => "",
        Some(_) => "; no authority's signature stands at its root",
    };
    format!(
        "{} {gives} to {} at leaf {leaf} ({}), until {}{accepted}; it {}{above}{rooted}.",
        entry.statement.producer,
        grant.subject,
        signed_words(entry, basis),
        shown(Micros::new(grant.expires_us)),
        standing(state)
    )
}

const fn standing(state: GrantState) -> &'static str {
    match state {
        GrantState::Pending => "is not in force yet",
        GrantState::Active => "is in force",
        GrantState::Exhausted => "is used up",
        GrantState::Expired => "has expired",
        GrantState::Revoked => "was revoked",
        GrantState::TaskClosed => "ended with the task",
        GrantState::Invalid => "never was valid",
        GrantState::Unspecified => "is not assessed",
    }
}

fn evidence(entry: &ProvenStatement) -> String {
    let (producer, leaf) = (&entry.statement.producer, entry.index);
    match entry.body() {
        Some(Body::Decision(decision)) => {
            let verdict = short(decision.verdict().as_str_name(), "VERDICT_");
            format!(
                "{producer} decided with {}: {verdict}, at leaf {leaf}.",
                decision.engine
            )
        }
        Some(Body::Approval(approval)) => {
            let verdict = match approval.verdict() {
                v1::Verdict::Allow => "approved it",
                _ => "refused it",
            };
            let strength = approval.strength().as_str_name();
            let strength = words(&short(strength, "AUTHENTICATION_STRENGTH_"));
            format!("{producer} {verdict} at leaf {leaf} ({strength}, claimed by the approver).")
        }
        _ => format!("{producer} gave evidence at leaf {leaf}."),
    }
}

fn result(task: &ProvenTask, basis: Basis, act: &v1::ActInfo) -> Vec<String> {
    let outcome = act.outcome_leaf.and_then(|leaf| task.entry(leaf));
    let Some((entry, Body::Outcome(outcome))) =
        outcome.and_then(|entry| Some((entry, entry.body()?)))
    else {
        let state = words(&names::intent(act.state()));
        let mut lines = vec![format!("No outcome is recorded; the Intent is {state}.")];
        lines.extend(observed(task, basis, act));
        return lines;
    };
    let status = match outcome.status() {
        OutcomeStatus::Succeeded => "succeeded",
        OutcomeStatus::Failed => "failed",
        OutcomeStatus::Reverted => "was done and undone",
        OutcomeStatus::NotDone => "was not done",
        OutcomeStatus::Unspecified => "came to nothing that is said",
    };
    let mut lines = vec![format!(
        "It {status}, says {} at leaf {} ({}).",
        entry.statement.producer,
        entry.index,
        signed_words(entry, basis)
    )];
    let effects = outcome.effects.iter();
    lines.extend(effects.map(|effect| format!("Effect: {}.", effect_words(effect))));
    if outcome.effects.is_empty() {
        lines.push("It declares no effects.".to_owned());
    }
    for (what, commitment) in [("result", &outcome.result), ("response", &outcome.response)] {
        if let Some(commitment) = commitment {
            let digest = hex::encode(&commitment.digest);
            lines.push(format!("Its {what} is committed to as {digest}"));
        }
    }
    let seen = corroboration(act, basis);
    if !outcome.effects.is_empty() || seen != UNSEEN {
        lines.push(seen.to_owned());
    }
    lines.extend(observed(task, basis, act));
    lines
}

const UNSEEN: &str = "Nobody else has seen its effects.";

/// Combines the Outcome and the layer: the Outcome's state tells what was seen, and the
/// layer alone what that proves.
fn corroboration(act: &v1::ActInfo, basis: Basis) -> &'static str {
    let layer = act.layers.unwrap_or_default().corroboration();
    match (act.outcome(), layer) {
        (OutcomeState::Corroborated, LayerState::Proven) => match basis {
            Basis::Checked => "An independent system saw the same.",
            Basis::ServersWord => "An independent system saw the same, by the server's word.",
        },
        (OutcomeState::Corroborated, LayerState::Contradicted) => {
            let mut seen = act.keys.iter();
            if seen.any(|key| key.part() == EvidencePart::Observation && key.doubtful) {
                "An independent system is said to have seen the same, by a key in doubt."
            } else {
                "More was seen than was declared."
            }
        }
        (OutcomeState::Corroborated, _) => "It is claimed that an independent system saw the same.",
        (OutcomeState::Contradicted, LayerState::Contradicted) => {
            "What was seen is not what was declared."
        }
        (OutcomeState::Contradicted, _) => {
            "It is claimed that what was seen is not what was declared."
        }
        (OutcomeState::Uncorroborated, _) => "Nobody independent saw it in time.",
        (OutcomeState::Unobserved | OutcomeState::Unspecified, LayerState::Claimed) => {
            "That anybody else saw its effects is no more than a claim."
        }
        (OutcomeState::Unobserved | OutcomeState::Unspecified, _) => UNSEEN,
    }
}

fn observed(task: &ProvenTask, basis: Basis, act: &v1::ActInfo) -> Vec<String> {
    let seen = act.observation_leaves.iter().map(|leaf| {
        let entry = task.entry(*leaf);
        let Some((entry, Body::Observation(observation))) =
            entry.and_then(|entry| Some((entry, entry.body()?)))
        else {
            return format!(
                "Somebody says to have seen it at leaf {leaf}, outside of the task's entries."
            );
        };
        let effects: Vec<_> = observation.effects.iter().map(effect_words).collect();
        let saw = if counts(act, basis, *leaf) {
            "saw"
        } else {
            "says it saw"
        };
        format!(
            "{} {saw} at leaf {leaf} ({}): {}.",
            entry.statement.producer,
            signed_words(entry, basis),
            effects.join("; ")
        )
    });
    seen.collect()
}

/// Returns true if the act's layers rest on the observation at a leaf, by a key that nobody else may have
/// had. Other observations are claims: unsigned ones, and those of systems that the resource does not
/// belong to.
fn counts(act: &v1::ActInfo, basis: Basis, leaf: u64) -> bool {
    let mut keys = act.keys.iter();
    basis == Basis::Checked
        && keys.any(|key| {
            key.leaf_index == leaf && key.part() == EvidencePart::Observation && !key.doubtful
        })
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
