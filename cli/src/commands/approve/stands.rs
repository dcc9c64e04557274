//! The state of the Intent that an approver is asked about, worked out here.

use deed_client::JudgedTask;
use deed_evidence::replay::task::{Signed, TaskVerdict, Unshown};
use deed_proto::v1::{self, IntentState};

use crate::{
    failure::{CommandResult, Failure},
    render::{
        names::{self, words},
        printable,
    },
};

/// The state of an Intent, as the entries of its task have it.
pub(super) struct Stands {
    act: v1::ActInfo,
    /// The server's later state of it, if time has passed by entries elsewhere.
    later: Option<IntentState>,
    /// Facts about it that stay the server's word.
    pub(super) unshown: Vec<Unshown>,
}

impl Stands {
    /// Reads the state of the Intent at a leaf from its judged task. A report that does not hold is an
    /// error, and so is an Intent that is no act: who approves it has approved nothing, or another one.
    pub(super) fn of(judged: &JudgedTask, leaf: u64) -> CommandResult<Self> {
        let mut told = judged.report.acts.iter();
        let told = told.find(|act| act.intent_leaf == leaf);
        let task = hex::encode(&judged.report.info.task);
        // An Intent that the ledger keeps as evidence only has no act, neither here nor in the server's
        // report, so there is nothing to compare.
        let verdict = judged.agreed().map_err(|error| {
            Failure::does_not_verify(format!(
                "nobody is asked about the Intent at leaf {leaf}: {error}; `deed task show {task}` \
                 shows all of it"
            ))
        })?;
        let act = verdict.act(leaf).ok_or_else(|| {
            Failure::does_not_verify(format!(
                "the Intent at leaf {leaf} is no act: the ledger keeps it as evidence only, because \
                 its place in its session was taken, and nothing that is said of it clears anything. \
                 The agent has to say it again, in a place of its own; `deed task show {task}` shows \
                 what was found"
            ))
        })?;
        let later = told.map(v1::ActInfo::state);
        Ok(Self {
            act: act.clone(),
            later: later.filter(|state| *state != act.state()),
            unshown: unshown(verdict, leaf),
        })
    }

    /// Returns true if an approval can still change something.
    pub(super) fn waits(&self) -> bool {
        let done = self.act.outcome_leaf.is_some();
        self.act.state() == IntentState::Waiting && self.later.is_none() && !done
    }

    /// Describes the state in our own words.
    pub(super) fn words(&self) -> String {
        match self.act.state() {
            // An act that was done before its clearance is never cleared, though its state stays waiting.
            IntentState::Waiting if self.act.outcome_leaf.is_some() => format!(
                "the act is DONE, and was not cleared: its Outcome is at leaf {}",
                self.act.outcome_leaf.unwrap_or_default()
            ),
            IntentState::Waiting => {
                let missing = self.act.missing.join(", ");
                match missing.is_empty() {
                    true => "the Intent is waiting for the ledger to clear it".to_owned(),
                    false => format!("the Intent is waiting for {}", printable(&missing)),
                }
            }
            IntentState::Denied => "the Intent was DENIED".to_owned(),
            IntentState::Cleared => match self.act.clearance_leaf {
                Some(leaf) => format!("the Intent is CLEARED already, at leaf {leaf}"),
                None => "the Intent is CLEARED already, and waited for nobody".to_owned(),
            },
            IntentState::Completed => match self.act.outcome_leaf {
                Some(leaf) => format!("the act is DONE already: its Outcome is at leaf {leaf}"),
                None => "the act is DONE already".to_owned(),
            },
            IntentState::Lapsed => "the Intent has LAPSED: its time ended as it waited".to_owned(),
            IntentState::Overdue => {
                "the Intent was CLEARED, and its time ended without an Outcome".to_owned()
            }
            IntentState::Unspecified => "where the Intent stands is NOT KNOWN".to_owned(),
        }
    }

    /// The reasons for a denial. Policies have a part in these words.
    pub(super) fn reasons(&self) -> Option<String> {
        let reasons = &self.act.denied;
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Says the server's later state.
    pub(super) fn server_says(&self) -> Option<String> {
        let state = words(&names::intent(self.later?));
        Some(format!("{state} by now, by the server's word"))
    }

    /// All of it, for a message.
    pub(super) fn sentence(&self) -> String {
        let reasons = self.reasons().map(|reasons| format!(": {reasons}"));
        let later = self.server_says().map(|words| format!(", and {words}"));
        self.words() + &reasons.unwrap_or_default() + &later.unwrap_or_default()
    }
}

/// Returns the facts about an act's state that its task's entries do not show. Trust statements that may be
/// missing are mentioned with the keys.
fn unshown(verdict: &TaskVerdict, leaf: u64) -> Vec<Unshown> {
    let batch = match verdict.signed.get(&leaf) {
        Some(Signed::Batch { manifest, .. }) => Some(*manifest),
        _ => None,
    };
    let unshown = verdict.unshown.iter().copied();
    let of_it = unshown.filter(|one| match one {
        Unshown::Entries { .. } => true,
        Unshown::Batch { manifest } => Some(*manifest) == batch,
        _ => false,
    });
    of_it.collect()
}
