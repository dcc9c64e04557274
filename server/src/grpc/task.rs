//! `Actions.GetTask` and `Actions.RequestTaskReceipt`.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    TaskId,
    assess::{CHAIN_MAX, cells, effective_state, layers},
    entry::Entry,
    statement::BodyKind,
};
use deed_proto::v1::{self, TaskState};
use deed_tlog::{Hash, LeafIndex, leaf_hash};
use tonic::{Response, Status};

use super::{Answers, Context, clearance::assessed, cut::Cut, findings};
use deed_engine::{
    append::hashes,
    ledger::{Ledger, step::Placement},
    pressure::answers::{CHUNK_ROOM, PROOF_ROOM},
    search::query::{Bounds, Cursor, Page, Query},
    store::search::FindingAt,
};

use crate::{
    access::{Caller, table::Method},
    status::ApiError,
};

fn task_id(bytes: &[u8]) -> Result<TaskId, ApiError> {
    TaskId::from_slice(bytes).ok_or_else(|| {
        ApiError::field("task", format!("{} bytes where 16 are wanted", bytes.len()))
    })
}

fn no_task(task: TaskId) -> ApiError {
    ApiError::NotFound(format!("nothing of task {task} is in this ledger"))
}

/// Makes the ledger record a receipt of the task, and proves the receipt.
pub(super) async fn receipt(
    context: &Context,
    caller: &Caller,
    ledger: Arc<Ledger>,
    task: &[u8],
) -> Result<Response<v1::RequestTaskReceiptResponse>, Status> {
    assessed(&ledger)?;
    let task = task_id(task)?;
    let source = caller.source(&context.pressure);
    let receipt = context.appends.task_receipt(&ledger, task, &source);
    let (answer, _room) = receipt.await.map_err(ApiError::from)?;
    let Some(Placement::Recorded { leaf }) = answer.placements.first() else {
        return Err(no_task(task).into());
    };
    let (index, readable) = (LeafIndex::new(*leaf), answer.readable);
    context
        .answer_for(caller, PROOF_ROOM, move || {
            let proof = ledger.inclusion(&readable, index, readable.size())?;
            Ok(v1::RequestTaskReceiptResponse {
                leaf_index: index.get(),
                entry: ledger.entry(&readable, index)?,
                inclusion_proof: hashes(proof.hashes()),
                checkpoint: readable.checkpoint.clone(),
            })
        })
        .await
}

/// Returns the stream of a task: its state, its entries, its findings.
pub(super) async fn story(
    context: &Context,
    caller: Caller,
    ledger: Arc<Ledger>,
    task: &[u8],
) -> Result<Response<Answers<v1::GetTaskResponse>>, ApiError> {
    assessed(&ledger)?;
    let task = task_id(task)?;
    let reading = context.open_reading(caller.clone(), Method::GetTask, &ledger)?;
    let share = reading.take_room(CHUNK_ROOM).await?;
    let number = ledger.number;
    let (found, cut) = context
        .read_settled(&caller, &ledger, move |store| Ok(store.task(number, task)?))
        .await?;
    let kept = found.ok_or_else(|| no_task(task))?;
    let first = v1::GetTaskResponse {
        task: Some(info(task, &kept)),
        checkpoint: cut.checkpoint.clone(),
        ..v1::GetTaskResponse::default()
    };
    reading.made(share, &first);
    let telling = Telling {
        cut,
        kept,
        part: Part::Entries(None),
        ledger,
        task,
    };
    let step = |mut telling: Box<Telling>| {
        let answer = telling.step()?;
        let told = answer.is_none() && matches!(telling.part, Part::Told);
        Ok((answer, (!told).then_some(telling)))
    };
    Ok(reading.stream_steps(Some(first), Some(Box::new(telling)), CHUNK_ROOM, step))
}

/// A task stream under way; all of it is read from one moment.
struct Telling {
    cut: Cut,
    ledger: Arc<Ledger>,
    task: TaskId,
    kept: cells::Task,
    part: Part,
}

enum Part {
    /// The search for entries; `None` before the first step, which reads the store.
    Entries(Option<Box<Cursor>>),
    Findings(FindingAt),
    Told,
}

impl Telling {
    fn step(&mut self) -> Result<Option<v1::GetTaskResponse>, ApiError> {
        match std::mem::replace(&mut self.part, Part::Told) {
            Part::Entries(cursor) => self.entries(cursor),
            Part::Findings(from) => {
                let (store, size) = (&self.cut.store, self.cut.size);
                let (found, next) =
                    findings::of_task(store, self.ledger.number, size, self.task, from)?;
                self.part = next.map_or(Part::Told, Part::Findings);
                Ok((!found.is_empty()).then(|| v1::GetTaskResponse {
                    findings: found,
                    ..v1::GetTaskResponse::default()
                }))
            }
            Part::Told => Ok(None),
        }
    }

    fn entries(
        &mut self,
        cursor: Option<Box<Cursor>>,
    ) -> Result<Option<v1::GetTaskResponse>, ApiError> {
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let query = Query {
                    task: self.task.as_bytes().to_vec().into(),
                    ..Query::default()
                };
                let (number, size) = (self.ledger.number, self.cut.size.get());
                let behind = self.kept.last_leaf.saturating_add(1).min(size);
                let bounds = Bounds {
                    leaves: self.kept.first_leaf..behind,
                    from: None,
                    until: None,
                    limit: u64::MAX,
                };
                Box::new(Cursor::new(&self.cut.store, number, size, query, bounds)?)
            }
        };
        let mut page = Page::default();
        cursor.step(&self.cut.store, &mut page)?;
        self.part = if cursor.is_done() {
            Part::Findings(FindingAt::leaf(self.kept.first_leaf))
        } else {
            Part::Entries(Some(cursor))
        };
        if page.entries.is_empty() {
            return Ok(None);
        }
        let mut answer = v1::GetTaskResponse::default();
        let leaves: Vec<_> = page
            .entries
            .iter()
            .map(|e| LeafIndex::new(e.leaf))
            .collect();
        let proofs = self.cut.inclusions(&leaves)?;
        for (found, proof) in page.entries.into_iter().zip(proofs) {
            self.tell(&mut answer, found.leaf, &found.entry)?;
            answer.entries.push(v1::ProvenEntry {
                leaf_index: found.leaf,
                entry: found.entry,
                inclusion_proof: hashes(proof.hashes()),
            });
        }
        Ok(Some(answer))
    }

    /// Adds the stored state of the grant or Intent in this entry to `answer`.
    fn tell(
        &mut self,
        answer: &mut v1::GetTaskResponse,
        leaf: u64,
        entry: &Bytes,
    ) -> Result<(), ApiError> {
        let damaged = |what: String| ApiError::Damaged(format!("leaf {leaf}: {what}"));
        let parsed = Entry::parse(entry).map_err(|error| damaged(error.to_string()))?;
        let header = parsed
            .statement()
            .map_err(|error| damaged(error.to_string()))?;
        let number = self.ledger.number;
        match header.body {
            BodyKind::Grant => {
                let hash = leaf_hash(entry);
                let chain = self.chain(hash)?;
                answer.grants.extend(self.grant(&chain, hash)?);
            }
            BodyKind::Intent => {
                if let Some(act) = self.cut.store.act_of(number, leaf, entry)? {
                    let kept = &self.kept;
                    let info = self.cut.ask(|trust| layers::info(act, Some(kept), trust))?;
                    answer.acts.push(info);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the cells of a grant, of its parent grant, and so on up to the root.
    fn chain(&self, hash: Hash) -> Result<Vec<cells::Grant>, ApiError> {
        let (mut chain, mut next) = (Vec::new(), Some(hash));
        while let Some(hash) = next
            && chain.len() <= CHAIN_MAX as usize
            && let Some(grant) = self.cut.store.grant(self.ledger.number, hash)?
        {
            next = Hash::try_from(&grant.parent[..]).ok();
            chain.push(grant);
        }
        Ok(chain)
    }

    fn grant(
        &mut self,
        chain: &[cells::Grant],
        hash: Hash,
    ) -> Result<Option<v1::GrantInfo>, ApiError> {
        let Some(grant) = chain.first() else {
            return Ok(None);
        };
        let at = self.cut.effective_time;
        let closed = self.kept.state() == TaskState::Closed;
        let state = |trust: &_| effective_state(chain, trust, closed, at);
        let (state, from) = self.cut.ask(state)?;
        Ok(Some(v1::GrantInfo {
            leaf_index: grant.leaf,
            leaf_hash: hash.as_bytes().to_vec().into(),
            state: state.into(),
            state_from_leaf: Some(from).filter(|from| *from != grant.leaf),
            accepted_leaf: grant.accepted_leaf,
            parent_leaf: grant.parent_leaf,
            uses_spent: grant.uses_spent,
            amount_spent: grant.amount_spent,
            rooted: grant.rooted,
        }))
    }
}

fn info(id: TaskId, task: &cells::Task) -> v1::TaskInfo {
    v1::TaskInfo {
        task: id.as_bytes().to_vec().into(),
        state: task.state,
        opened_leaf: task.opened_leaf,
        closed_leaf: task.closed_leaf,
        closed_at_us: task.closed_at_us,
        count: task.count,
        digest: task.digest.clone().into(),
        assessment_digest: task.assessment.clone().into(),
        receipt_leaf: task.receipt_leaf,
        findings: task.findings,
        acts: task.acts,
        last_leaf: task.last_leaf,
        risk_tier: task.tier,
        opened: task.opened,
    }
}
