//! Counts of what a replayed ledger holds.

use std::collections::{BTreeMap, HashMap};

use deed_proto::v1::{self, IntentState};
use prost::Message as _;

use super::Replay;
use crate::assess::{
    cells::{Act, CellKey, Task},
    finding, layers,
};

/// Counts over a whole ledger. Names are those of the protos' values, in lower case and without
/// their prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries by body.
    pub entries: BTreeMap<&'static str, u64>,
    /// Signatures that were verified; one over a batch counts once.
    pub signatures: u64,
    /// Sessions.
    pub sessions: u64,
    /// Tasks of which there is an entry.
    pub tasks: u64,
    /// Grants, those that never were in force among them.
    pub grants: u64,
    /// Intents by where they stand.
    pub intents: BTreeMap<String, u64>,
    /// Outcomes by where they stand.
    pub outcomes: BTreeMap<String, u64>,
    /// Findings by kind.
    pub findings: BTreeMap<String, u64>,
    /// Findings by severity.
    pub severities: BTreeMap<String, u64>,
}

impl Replay {
    /// Counts what is there, after [`Replay::end`].
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary {
            entries: self.bodies.clone(),
            signatures: self.signatures,
            sessions: self.sessions.len() as u64,
            ..Summary::default()
        };
        // Tasks come before acts: their cells are in order of their keys.
        let mut tasks = HashMap::new();
        let mut cleared = self.implicit.len();
        for (key, bytes) in &self.kept.cells {
            match key {
                CellKey::Task(id) => {
                    summary.tasks += 1;
                    let task = Task::decode(bytes.clone()).unwrap_or_default();
                    tasks.insert(id.as_bytes().to_vec(), task);
                }
                CellKey::Grant(_) => summary.grants += 1,
                CellKey::Act(leaf) => {
                    // The machine has encoded it.
                    let act = Act::decode(bytes.clone()).unwrap_or_default();
                    cleared -= usize::from(self.implicit.contains_key(leaf));
                    summary.count(&act, &tasks);
                }
                _ => {}
            }
        }
        if cleared > 0 {
            // Nothing was said of them since their open task cleared them.
            let state = short(IntentState::Cleared.as_str_name(), "INTENT_STATE_");
            *summary.intents.entry(state).or_default() += cleared as u64;
        }
        for finding in self.findings() {
            let severity = short(finding.severity().as_str_name(), "SEVERITY_");
            *summary.severities.entry(severity).or_default() += 1;
            let kind = finding::name(finding.kind());
            *summary.findings.entry(kind).or_default() += 1;
        }
        summary
    }
}

impl Summary {
    fn count(&mut self, act: &Act, tasks: &HashMap<Vec<u8>, Task>) {
        let state: IntentState = layers::standing(act, tasks.get(&act.task[..]));
        let state = short(state.as_str_name(), "INTENT_STATE_");
        *self.intents.entry(state).or_default() += 1;
        if let Some(outcome) = &act.outcome {
            let state: v1::OutcomeState = outcome.state();
            let state = short(state.as_str_name(), "OUTCOME_STATE_");
            *self.outcomes.entry(state).or_default() += 1;
        }
    }
}

fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}
