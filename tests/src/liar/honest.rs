//! The true assessment of a forged ledger.

use std::collections::BTreeSet;

use bytes::Bytes;
use deed_evidence::{
    TaskId,
    entry::Entry,
    replay::task::{Covered, TaskReplay, TaskVerdict},
    statement,
};
use deed_proto::v1::{self, Author, get_batch_proof_request::Leaf};
use deed_tlog::{TreeHead, TreeSize};
use tonic::Status;

use super::{ledger::index, serve::State};

impl State {
    /// Returns the assessment of a task's entries that are not left out, by the code that a ledger
    /// runs.
    pub(super) fn judged(&self, task: &[u8]) -> Result<TaskVerdict, Status> {
        let fails = |why: &dyn std::fmt::Display| {
            Status::internal(format!("no honest ledger would have this: {why}"))
        };
        let id = TaskId::from_slice(task).ok_or_else(|| fails(&"the task has not 16 bytes"))?;
        let size = self.ledger.size();
        let told = self.told(task).into_iter().map(|(leaf, _)| leaf);
        let trust = self.ledger.trust.iter().copied().skip(1);
        // The newest entry is included, because its time decides what is late.
        let leaves: BTreeSet<_> = told.chain(trust).chain([size - 1]).collect();
        let genesis = &self.ledger.entries[0];
        let mut replay = TaskReplay::begin(genesis, id).map_err(|error| fails(&error))?;
        let head = TreeHead {
            size: TreeSize::new(size),
            root: crate::oracle::root(&self.ledger.leaves),
        };
        for leaf in leaves {
            let bytes = &self.ledger.entries[index(leaf)];
            let is_batched = Entry::parse(bytes).is_ok_and(|it| it.author == Author::Batched);
            let covered = if is_batched {
                let proof = self.batch_proof(&v1::GetBatchProofRequest {
                    leaf: Some(Leaf::LeafIndex(leaf)),
                    ..v1::GetBatchProofRequest::default()
                })?;
                let covered = Covered::verify(&proof, replay.trust(), &head);
                Some(covered.map_err(|error| fails(&error))?)
            } else {
                None
            };
            let taken = replay.leaf(leaf, bytes, covered.as_ref());
            taken.map_err(|error| fails(&error))?;
        }
        replay.end(size).map_err(|error| fails(&error))
    }

    /// Returns the state of the Intent at a leaf, by the entries of its task.
    pub(super) fn stands(&self, intent: u64) -> Result<v1::ActInfo, Status> {
        let bytes = &self.ledger.entries[index(intent)];
        let entry = Entry::parse(bytes).ok();
        let said = entry.and_then(|it| statement::decode(&bytes.slice_ref(it.payload)).ok());
        let task: Bytes = said.map(|said| said.task).unwrap_or_default();
        let verdict = self.judged(&task)?;
        let act = verdict.act(intent).cloned();
        act.ok_or_else(|| Status::not_found("no such Intent"))
    }
}
