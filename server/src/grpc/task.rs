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
use futures::{StreamExt as _, stream};

use super::{Answers, Context, clearance::assessed, findings, stopping};
use crate::{
    access::{Caller, table::Method},
    append::hashes,
    ledger::{Ledger, Readable, step::Placement},
    pressure::OpenStream,
    search::query::{Bounds, Cursor, Page, Query},
    status::Refusal,
    store::{Store, search::FindingAt},
};

fn task_id(bytes: &[u8]) -> Result<TaskId, Refusal> {
    TaskId::from_slice(bytes)
        .ok_or_else(|| Refusal::field("task", format!("{} bytes where 16 are wanted", bytes.len())))
}

fn no_task(task: TaskId) -> Refusal {
    Refusal::NotFound(format!("nothing of task {task} is in this ledger"))
}

/// Has a receipt written, and proves it.
pub(super) async fn receipt(
    context: &Context,
    caller: &Caller,
    ledger: Arc<Ledger>,
    task: &[u8],
) -> Result<v1::RequestTaskReceiptResponse, Refusal> {
    assessed(&ledger)?;
    let task = task_id(task)?;
    let source = context.pressure.source(caller);
    let (answer, _room) = context.appends.task_receipt(&ledger, task, &source).await?;
    let Some(Placement::Recorded { leaf }) = answer.placements.first() else {
        return Err(no_task(task));
    };
    let (index, readable) = (LeafIndex::new(*leaf), answer.readable);
    context
        .read_for(caller, move || {
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

/// A task's story, from its state to its findings.
pub(super) async fn story(
    context: Context,
    caller: Caller,
    ledger: Arc<Ledger>,
    task: &[u8],
) -> Result<Answers<v1::GetTaskResponse>, Refusal> {
    assessed(&ledger)?;
    let task = task_id(task)?;
    let open = context.open_read_stream(&caller)?;
    let number = ledger.number;
    let (found, readable) = context
        .read_settled(&caller, &ledger, move |store| Ok(store.task(number, task)?))
        .await?;
    let kept = found.ok_or_else(|| no_task(task))?;
    let first = v1::GetTaskResponse {
        task: Some(info(task, &kept)),
        checkpoint: readable.checkpoint.clone(),
        ..v1::GetTaskResponse::default()
    };
    let telling = Telling {
        _open: open,
        store: Arc::clone(context.registry.store()),
        kept,
        part: Part::Entries(None),
        ledger,
        readable,
        task,
    };
    let rest = stream::unfold(Some((context, caller, telling)), |going| async {
        let (context, caller, telling) = going?;
        match next(&context, &caller, telling).await {
            Ok(Some((answer, telling))) => Some((Ok(answer), Some((context, caller, telling)))),
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal.into()), None)),
        }
    });
    Ok(stream::once(async { Ok(first) }).chain(rest).boxed())
}

async fn next(
    context: &Context,
    caller: &Caller,
    mut telling: Telling,
) -> Result<Option<(v1::GetTaskResponse, Telling)>, Refusal> {
    loop {
        caller.require(Method::GetTask, telling.ledger.name())?;
        let ledger = Arc::clone(&telling.ledger);
        let step = context.read_settled(caller, &ledger, move |_| {
            let answer = telling.step()?;
            Ok((answer, telling))
        });
        let ((answer, told), _) = tokio::select! {
            biased;
            () = context.stopped() => return Err(stopping()),
            stepped = step => stepped?,
        };
        telling = told;
        match answer {
            Some(answer) => return Ok(Some((answer, telling))),
            None if matches!(telling.part, Part::Told) => return Ok(None),
            None => {}
        }
    }
}

/// A story that is being told.
struct Telling {
    _open: OpenStream,
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    readable: Arc<Readable>,
    task: TaskId,
    kept: cells::Task,
    part: Part,
}

enum Part {
    /// `None` before the first step, which reads the store.
    Entries(Option<Box<Cursor>>),
    Findings(FindingAt),
    Told,
}

impl Telling {
    fn step(&mut self) -> Result<Option<v1::GetTaskResponse>, Refusal> {
        match std::mem::replace(&mut self.part, Part::Told) {
            Part::Entries(cursor) => self.entries(cursor),
            Part::Findings(from) => {
                let (store, ledger) = (&self.store, &self.ledger);
                let (found, next) =
                    findings::of_task(store, ledger, &self.readable, self.task, from)?;
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
    ) -> Result<Option<v1::GetTaskResponse>, Refusal> {
        let size = self.readable.size().get();
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let query = Query {
                    task: self.task.as_bytes().to_vec().into(),
                    ..Query::default()
                };
                // Beyond the last entry there is none, but for those of turns behind the one that
                // the task was read from.
                let last = self.kept.last_leaf.saturating_add(1).min(size);
                let bounds = Bounds {
                    leaves: self.kept.first_leaf..last,
                    from: None,
                    until: None,
                    limit: u64::MAX,
                };
                let number = self.ledger.number;
                Box::new(Cursor::new(&self.store, number, size, query, bounds)?)
            }
        };
        let mut page = Page::default();
        cursor.step(&self.store, &mut page)?;
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
        let proofs = self.ledger.inclusions(&self.readable, &leaves)?;
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

    /// What is kept of a grant or an Intent in this entry.
    fn tell(
        &self,
        answer: &mut v1::GetTaskResponse,
        leaf: u64,
        entry: &Bytes,
    ) -> Result<(), Refusal> {
        let damaged = |what: String| Refusal::Damaged(format!("leaf {leaf}: {what}"));
        let parsed = Entry::parse(entry).map_err(|error| damaged(error.to_string()))?;
        let header = parsed
            .statement()
            .map_err(|error| damaged(error.to_string()))?;
        let number = self.ledger.number;
        match header.body {
            BodyKind::Grant => {
                let hash = leaf_hash(entry);
                let chain = self.chain(hash)?;
                answer.grants.extend(self.grant(&chain, hash));
            }
            BodyKind::Intent => {
                if let Some(act) = self.store.act_of(number, leaf, entry)? {
                    answer.acts.push(self.act(act));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is kept of a grant, of the one that it is a part of, and so on up to the root.
    fn chain(&self, hash: Hash) -> Result<Vec<cells::Grant>, Refusal> {
        let (mut chain, mut next) = (Vec::new(), Some(hash));
        while let Some(hash) = next
            && chain.len() <= CHAIN_MAX as usize
            && let Some(grant) = self.store.grant(self.ledger.number, hash)?
        {
            next = Hash::try_from(&grant.parent[..]).ok();
            chain.push(grant);
        }
        Ok(chain)
    }

    fn grant(&self, chain: &[cells::Grant], hash: Hash) -> Option<v1::GrantInfo> {
        let grant = chain.first()?;
        let at = self.readable.effective_time;
        let trust = self.ledger.trust.read();
        let closed = self.kept.state() == TaskState::Closed;
        let (state, from) = effective_state(chain, &trust, closed, at);
        Some(v1::GrantInfo {
            leaf_index: grant.leaf,
            leaf_hash: hash.as_bytes().to_vec().into(),
            state: state.into(),
            state_from_leaf: Some(from).filter(|from| *from != grant.leaf),
            accepted_leaf: grant.accepted_leaf.filter(|leaf| self.tells(*leaf)),
            parent_leaf: grant.parent_leaf,
            uses_spent: grant.uses_spent,
            amount_spent: grant.amount_spent,
            rooted: grant.rooted,
        })
    }

    /// Returns true if an entry of the task is in this story, which ends where the task stood when
    /// it was begun: entries that were recorded since are kept already, and are not pointed to.
    fn tells(&self, leaf: u64) -> bool {
        leaf <= self.kept.last_leaf
    }

    fn act(&self, act: cells::Act) -> v1::ActInfo {
        let trust = self.ledger.trust.read();
        let mut info = layers::info(act, Some(&self.kept), &trust);
        let size = self.readable.size().get();
        info.keys.retain(|key| key.leaf_index < size);
        info.clearance_leaf = info.clearance_leaf.filter(|leaf| self.tells(*leaf));
        info.evidence_leaves.retain(|leaf| self.tells(*leaf));
        // They need not be the task's.
        info.observation_leaves.retain(|leaf| *leaf < size);
        if info.outcome_leaf.is_some_and(|leaf| !self.tells(leaf)) {
            (info.outcome_leaf, info.outcome) = (None, 0);
        }
        info
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
