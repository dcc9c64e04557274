//! The changes of one turn to one ledger, and the records that come of them.

use deed_evidence::{
    CommitmentDigest, Micros, SessionId,
    assess::{Assessed, Changes},
    session::Session,
    trust::Reference,
};
use deed_tlog::{FullTile, Hash, LeafIndex};

use super::{placement::RecordedLeaf, session_delta::SessionDeltas};
use crate::{
    admission::{Admitted, AdmittedBatch},
    metrics::Assessments,
    store::{
        pack::{Pack, Packer},
        read::Run,
    },
};

/// The changes of one turn to one ledger.
#[derive(Debug)]
pub struct Turn {
    pub(super) packer: Packer,
    pub(super) leaf_hashes: Vec<Hash>,
    pub(super) first_leaf: u64,
    pub(super) deltas: SessionDeltas,
    /// Leaves of trust statements, each with the effective time at it.
    pub(super) trust_leaves: Vec<(u64, Micros)>,
    pub(super) references: Vec<(CommitmentDigest, Reference)>,
    pub(super) erased: Vec<(CommitmentDigest, u64)>,
    /// Assessments of the payloads that were placed since these were last taken, by position in
    /// their request.
    pub(super) assessed: Vec<(usize, Assessed)>,
    pub(super) assessments: Assessments,
}

/// The records of a turn, which are to be written.
#[derive(Debug)]
pub struct Records {
    pub(crate) packs: Vec<Pack>,
    pub tiles: Vec<FullTile>,
    /// Changed sessions with their changed runs, in the order of their ids.
    pub sessions: Vec<(SessionId, Session, Vec<Run>)>,
    /// Leaves of trust statements, in order, each with the effective time at it.
    pub trust_leaves: Vec<(u64, Micros)>,
    /// References from leaves to the held contents that they commit to.
    pub(crate) references: Vec<(CommitmentDigest, Reference)>,
    /// Contents to be erased, each with the leaf of its Erasure.
    pub erased: Vec<(CommitmentDigest, u64)>,
    /// Changes of the assessment.
    pub assessment: Changes,
    /// Counts of what was assessed, for the metrics.
    pub(crate) assessments: Assessments,
}

impl Turn {
    /// Takes the assessments of the payloads that were placed since the last call.
    pub(crate) fn take_assessed(&mut self) -> Vec<(usize, Assessed)> {
        std::mem::take(&mut self.assessed)
    }

    /// Returns the number of leaves that the turn has recorded.
    pub(crate) fn len(&self) -> usize {
        self.leaf_hashes.len()
    }

    pub(super) fn next_leaf(&self) -> u64 {
        self.first_leaf + self.leaf_hashes.len() as u64
    }

    /// Notes the held contents of a statement that was recorded before, perhaps without them.
    pub(super) fn refer_again(
        &mut self,
        batch: &AdmittedBatch,
        statement: &Admitted,
        placed: &RecordedLeaf,
    ) {
        self.refer(batch, statement, placed.leaf, placed.received_at);
    }

    /// Notes the held contents that a leaf commits to.
    pub(super) fn refer(
        &mut self,
        batch: &AdmittedBatch,
        statement: &Admitted,
        leaf: u64,
        at: Micros,
    ) {
        let references = batch.references(statement);
        self.references.extend(references.iter().map(|content| {
            let reference = Reference {
                leaf: LeafIndex::new(leaf),
                recorded_at: at,
                task: statement.task(),
            };
            (*content, reference)
        }));
    }

    pub(super) fn push(&mut self, entry: &[u8], leaf_hash: Hash) {
        self.packer.push(entry);
        self.leaf_hashes.push(leaf_hash);
    }
}
