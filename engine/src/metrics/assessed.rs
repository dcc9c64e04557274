//! Counts of the results of a turn's assessment.

use deed_evidence::{
    assess::{Assessed, Changes, cells::CellKey, finding::KINDS},
    entry::Entry,
    statement::BodyKind,
};
use deed_proto::v1::{self, FindingKind, IntentState};
use prost::Message as _;

/// The states that an Intent can have when it is recorded, with their labels.
pub(super) const INTENT_STATES: [(IntentState, &str); 3] = [
    (IntentState::Cleared, "cleared"),
    (IntentState::Waiting, "waiting"),
    (IntentState::Denied, "denied"),
];

/// Bodies of the entries that a ledger writes itself, besides its genesis entry.
pub(super) const OWN_BODIES: [BodyKind; 3] =
    [BodyKind::Clearance, BodyKind::TaskReceipt, BodyKind::Tick];

/// Counts of one turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessments {
    pub(super) findings: [u64; KINDS.len()],
    pub(super) intents: [u64; INTENT_STATES.len()],
    pub(super) own_entries: [u64; OWN_BODIES.len()],
}

impl Default for Assessments {
    fn default() -> Self {
        Self {
            findings: [0; KINDS.len()],
            intents: [0; INTENT_STATES.len()],
            own_entries: [0; OWN_BODIES.len()],
        }
    }
}

impl Assessments {
    /// Counts the state of a statement that was recorded.
    pub fn recorded(&mut self, assessed: &Assessed) {
        if let Some(verdict) = &assessed.intent
            && let Some(at) = INTENT_STATES
                .iter()
                .position(|(one, _)| *one == verdict.state)
        {
            self.intents[at] += 1;
        }
    }

    /// Counts an entry that the ledger wrote itself.
    pub fn written(&mut self, entry: &[u8]) {
        let entry = Entry::parse(entry).ok();
        let body = entry.and_then(|entry| Some(entry.statement().ok()?.body));
        if let Some(at) = OWN_BODIES.iter().position(|one| Some(*one) == body) {
            self.own_entries[at] += 1;
        }
    }

    /// Counts the new findings among the changes of a turn that began at leaf `first`. A finding at
    /// an earlier leaf is not new: it is among the changes because it was read.
    pub fn changed(&mut self, changes: &Changes, first: u64) {
        for (key, bytes) in &changes.cells {
            let CellKey::Finding(leaf, _) = key else {
                continue;
            };
            if *leaf < first {
                continue;
            }
            // The assessment has just encoded it.
            let kind = v1::Finding::decode(&bytes[..]).map(|finding| finding.kind());
            self.found(kind.unwrap_or_default());
        }
    }

    fn found(&mut self, kind: FindingKind) {
        if let Some(at) = KINDS.iter().position(|one| *one == kind) {
            self.findings[at] += 1;
        }
    }

    /// Adds the counts of another ledger's turn.
    pub fn add(&mut self, other: &Self) {
        let add = |counts: &mut [u64], others: &[u64]| {
            for (count, other) in counts.iter_mut().zip(others) {
                *count += other;
            }
        };
        add(&mut self.findings, &other.findings);
        add(&mut self.intents, &other.intents);
        add(&mut self.own_entries, &other.own_entries);
    }
}

#[cfg(test)]
mod tests {
    use deed_evidence::{Micros, assess::IntentVerdict, statement::LEDGER_PRODUCER};
    use deed_proto::v1::statement::Body;

    use super::*;

    fn finding(kind: FindingKind) -> Vec<u8> {
        let kind = kind.into();
        v1::Finding {
            kind,
            ..v1::Finding::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn every_state_and_every_body_has_its_count() {
        for (at, (state, _)) in INTENT_STATES.into_iter().enumerate() {
            let mut turn = Assessments::default();
            turn.recorded(&Assessed {
                intent: Some(IntentVerdict {
                    state,
                    ..IntentVerdict::default()
                }),
                findings: Vec::new(),
            });
            let mut wanted = [0; INTENT_STATES.len()];
            wanted[at] = 1;
            assert_eq!(turn.intents, wanted, "{state:?}");
        }
        let clearance = v1::Clearance {
            intent: Some(v1::LeafRef {
                leaf_index: 7,
                leaf_hash: vec![7; 32].into(),
            }),
            policy_leaf: 1,
            evidence: vec![v1::LeafRef {
                leaf_index: 8,
                leaf_hash: vec![8; 32].into(),
            }],
        };
        let receipt = v1::TaskReceipt {
            through_leaf: 8,
            count: 2,
            digest: vec![1; 32].into(),
            trust_head: Some(v1::LeafRef {
                leaf_index: 0,
                leaf_hash: vec![2; 32].into(),
            }),
            assessment_digest: vec![3; 32].into(),
            requested: true,
        };
        let bodies = [
            Body::Clearance(clearance),
            Body::TaskReceipt(receipt),
            Body::Tick(v1::Tick {
                due_us: 1,
                clock_us: 0,
            }),
        ];
        for (at, body) in bodies.into_iter().enumerate() {
            let task = match body {
                Body::Tick(_) => Vec::new(),
                _ => vec![9; 16],
            };
            let statement = v1::Statement {
                ledger_id: vec![1; 32].into(),
                producer: LEDGER_PRODUCER.to_owned(),
                occurred_at_us: 5,
                task: task.into(),
                body: Some(body),
                ..v1::Statement::default()
            };
            let entry = Entry::by_ledger(&statement.encode_to_vec(), Micros::new(5)).encode();
            let mut turn = Assessments::default();
            turn.written(&entry);
            let mut wanted = [0; OWN_BODIES.len()];
            wanted[at] = 1;
            assert_eq!(turn.own_entries, wanted, "{:?}", OWN_BODIES[at]);
        }
    }

    #[test]
    fn a_finding_counts_in_the_turn_that_it_arose_in() {
        let changes = Changes {
            cells: vec![
                (CellKey::Act(0), vec![1]),
                (CellKey::Finding(6, 0), finding(FindingKind::ClockSkew)),
                (CellKey::Finding(7, 0), finding(FindingKind::OutOfPlace)),
                (CellKey::Finding(9, 1), finding(FindingKind::OutOfPlace)),
            ],
            timers: Vec::new(),
        };
        let mut turn = Assessments::default();
        turn.changed(&changes, 7);
        let mut both = turn.clone();
        both.add(&turn);
        for (at, kind) in KINDS.into_iter().enumerate() {
            let wanted = u64::from(kind == FindingKind::OutOfPlace) * 2;
            assert_eq!(turn.findings[at], wanted, "{kind:?}");
            assert_eq!(both.findings[at], wanted * 2, "{kind:?}");
        }
    }
}
