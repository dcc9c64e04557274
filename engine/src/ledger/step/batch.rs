//! Batches in the step: all statements of a batch are recorded, or none is.

use bytes::Bytes;

use super::{
    Judgement, LedgerState, StateReader, brings_erased, entry_at,
    placement::{Placement, RecordedLeaf, RejectReason, StepError},
    recorded_at,
    turn::Turn,
};
use crate::admission::{Admitted, AdmittedBatch, StatementBatch};

impl StatementBatch {
    /// Returns the placements of a batch that is to be sent again as a whole.
    pub(super) fn late(&self) -> Vec<Placement> {
        vec![Placement::Late; 1 + self.members.len()]
    }

    /// Returns the placements of a batch that is refused as a whole: that of `why` has the reason,
    /// and the others name its envelope.
    pub(super) fn refused(&self, why: &Admitted, refusal: RejectReason) -> Vec<Placement> {
        let culprit = why.envelope;
        let members = self.members.iter().map(|member| member.envelope);
        let all = std::iter::once(self.manifest.envelope).chain(members);
        all.map(|envelope| {
            Placement::Refused(if envelope == culprit {
                refusal.clone()
            } else {
                RejectReason::Batch { culprit }
            })
        })
        .collect()
    }
}

impl LedgerState {
    /// Places a batch. Only its first statement is judged: admission has checked that the others
    /// follow it without a gap. So all of them can be recorded, or none.
    pub(super) fn place_batch(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        group: &StatementBatch,
        reader: &mut impl StateReader,
    ) -> Result<Vec<Placement>, StepError> {
        let Some(first) = group.members.first() else {
            // Admission takes no empty batch.
            let culprit = group.manifest.envelope;
            return Ok(vec![Placement::Refused(RejectReason::Batch { culprit })]);
        };
        let erased = group.members.iter().find_map(|member| {
            let refusal = brings_erased(batch, member)?;
            Some((member, refusal))
        });
        let beyond_timers = self.batch_beyond_timers(turn, batch, group, reader)?;
        match self.judge(turn, batch, first, reader)? {
            Judgement::Next if self.is_late(batch) => Ok(group.late()),
            Judgement::Next if let Some((member, refusal)) = erased => {
                Ok(group.refused(member, refusal))
            }
            Judgement::Next
                if let Some((member, refusal)) = self.batch_beyond_rules(batch, group) =>
            {
                Ok(group.refused(member, refusal))
            }
            Judgement::Next if let Some((member, refusal)) = &beyond_timers => {
                Ok(group.refused(member, refusal.clone()))
            }
            Judgement::Next => {
                self.advance_time(turn, batch.received_at(), reader)?;
                let manifest_leaf = turn.next_leaf();
                let producer = batch.header(first).producer;
                let session = turn.deltas.of(first.session());
                session.record_batch(
                    producer,
                    batch.binding(first),
                    &group.step,
                    manifest_leaf + 1,
                );
                turn.push(batch.entry(&group.manifest), group.manifest.leaf_hash);
                for member in &group.members {
                    if reader.is_interrupted() {
                        return Err(StepError::Interrupted);
                    }
                    let leaf = turn.next_leaf();
                    turn.push(batch.entry(member), member.leaf_hash);
                    turn.refer(batch, member, leaf, self.effective_time);
                    let placed = (leaf, member.leaf_hash);
                    self.assess(turn, batch, member, placed, reader)?;
                }
                let leaves = manifest_leaf..turn.next_leaf();
                // These come behind the batch, which must lie in one piece.
                self.write_ledger_entries(turn, reader)?;
                Ok(leaves.map(|leaf| Placement::Recorded { leaf }).collect())
            }
            Judgement::Refused(refusal) => Ok(group.refused(first, refusal)),
            Judgement::Behind { at, expected } => {
                let header = batch.header(first);
                let recorded = recorded_at(turn, &header, at, reader)?;
                let duplicates = match recorded {
                    Some(recorded) => recorded_batch(turn, batch, group, recorded, reader)?,
                    None => None,
                };
                match duplicates {
                    Some(duplicates) => Ok(duplicates),
                    None => self.equivocating_batch(turn, batch, group, expected, reader),
                }
            }
        }
    }

    fn batch_beyond_rules<'b>(
        &self,
        batch: &AdmittedBatch,
        group: &'b StatementBatch,
    ) -> Option<(&'b Admitted, RejectReason)> {
        group.members.iter().find_map(|member| {
            let refusal = self.beyond_rules(batch, member)?;
            Some((member, refusal))
        })
    }
}

/// Returns the leaves of a batch that was recorded before; `None` if another manifest lies there.
/// The manifest's root covers its statements, so the same manifest has the same statements behind
/// it. `first` is the statement that is recorded at the sequence of the first one.
fn recorded_batch(
    turn: &mut Turn,
    batch: &AdmittedBatch,
    group: &StatementBatch,
    (first, _): (RecordedLeaf, Bytes),
    reader: &mut impl StateReader,
) -> Result<Option<Vec<Placement>>, StepError> {
    let Some(manifest_leaf) = first.leaf.checked_sub(1) else {
        return Ok(None);
    };
    let (manifest, payload) = entry_at(turn, manifest_leaf, reader)?;
    if payload != batch.payload(&group.manifest) {
        return Ok(None);
    }
    let mut all = vec![Placement::Duplicate(manifest)];
    for (leaf, member) in (first.leaf..).zip(&group.members) {
        let placed = entry_at(turn, leaf, reader)?.0;
        turn.refer_again(batch, member, &placed);
        all.push(Placement::Duplicate(placed));
    }
    Ok(Some(all))
}
