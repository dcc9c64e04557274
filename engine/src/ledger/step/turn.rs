//! The changes of one turn to one ledger, and what is to be written of them.

use deed_evidence::{
    CommitmentDigest, Micros, SessionId,
    assess::{Assessed, Changes},
    session::Session,
    trust::Reference,
};
use deed_tlog::{FullTile, Hash, LeafIndex};

use super::{placement::RecordedLeaf, touched::SessionDeltas};
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
    pub(super) touched: SessionDeltas,
    /// Leaves of trust statements, each with the effective time at it.
    pub(super) trust_leaves: Vec<(u64, Micros)>,
    pub(super) references: Vec<(CommitmentDigest, Reference)>,
    pub(super) erased: Vec<(CommitmentDigest, u64)>,
    /// What is said of the payloads placed since this was taken last, by position in their request.
    pub(super) assessed: Vec<(usize, Assessed)>,
    pub(super) assessments: Assessments,
}

/// What a turn leaves to be written.
#[derive(Debug)]
pub struct Records {
    pub(crate) packs: Vec<Pack>,
    pub tiles: Vec<FullTile>,
    /// In order of their ids.
    pub sessions: Vec<(SessionId, Session, Vec<Run>)>,
    /// Leaves of trust statements, in order, each with the effective time at it.
    pub trust_leaves: Vec<(u64, Micros)>,
    /// Contents that are held, and the leaves that commit to them.
    pub(crate) references: Vec<(CommitmentDigest, Reference)>,
    /// Contents to be erased, and the leaf that says so.
    pub erased: Vec<(CommitmentDigest, u64)>,
    /// What changed in the assessment.
    pub assessment: Changes,
    /// The same in numbers.
    pub(crate) assessments: Assessments,
}

impl Turn {
    /// What is said of the payloads that were placed since this was asked last.
    pub(crate) fn take_assessed(&mut self) -> Vec<(usize, Assessed)> {
        std::mem::take(&mut self.assessed)
    }

    /// Leaves that it has recorded.
    pub(crate) fn len(&self) -> usize {
        self.leaf_hashes.len()
    }

    pub(super) fn next_leaf(&self) -> u64 {
        self.first_leaf + self.leaf_hashes.len() as u64
    }

    /// The same for a statement that was recorded before, perhaps without its contents.
    pub(super) fn refer_again(
        &mut self,
        batch: &AdmittedBatch,
        statement: &Admitted,
        placed: &RecordedLeaf,
    ) {
        self.refer(batch, statement, placed.leaf, placed.received_at);
    }

    /// Notes the contents that are held and that a leaf commits to.
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
