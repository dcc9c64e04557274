//! What the fake tells about acts: clearance, tasks, findings, search.

use std::collections::BTreeSet;

use bytes::Bytes;
use deed_evidence::{
    Micros, TaskId,
    batch::{Manifest, VerifiedPath},
    entry::Entry,
    replay::task::{Covered, TaskReplay, TaskVerdict},
    statement,
};
use deed_proto::v1::{
    self, Author, IntentState, PayloadType, actions_server::Actions as ActionsService,
    statement::Body,
};
use deed_tlog::{BatchPosition, LeafIndex};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Fake, Lie,
    history::{History, hashes},
};
use crate::merkle;

/// An entry of a task, as the fake finds it.
struct OfTask {
    leaf: u64,
    body: Body,
}

impl Fake {
    /// Adds a statement of the ledger itself.
    pub fn say(&self, task: TaskId, body: Body) -> u64 {
        let mut state = self.lock();
        let leaf = say_in(&mut state.histories[0], task, body);
        drop(state);
        self.tell_watches();
        leaf
    }

    /// Adds an entry, whatever it is.
    pub fn take(&self, entry: Bytes) -> u64 {
        let leaf = self.lock().histories[0].take(entry);
        self.tell_watches();
        leaf
    }

    /// The leaf hash of an entry.
    pub fn leaf_ref(&self, leaf: u64) -> v1::LeafRef {
        let hash = self.lock().histories[0].leaves[leaf as usize];
        v1::LeafRef {
            leaf_index: leaf,
            leaf_hash: Bytes::copy_from_slice(hash.as_bytes()),
        }
    }

    /// Has the ledger clear an Intent.
    pub fn clear(&self, task: TaskId, intent: v1::LeafRef) -> u64 {
        // What it was cleared on stands behind it.
        let evidence = vec![v1::LeafRef {
            leaf_index: intent.leaf_index + 1,
            leaf_hash: intent.leaf_hash.clone(),
        }];
        let clearance = v1::Clearance {
            intent: Some(intent),
            policy_leaf: 1,
            evidence,
        };
        self.say(task, Body::Clearance(clearance))
    }

    /// Whether this stream is one of those that break after their first message.
    fn cut(&self) -> bool {
        let cuts = &mut self.lock().script.cuts;
        let is_cut = *cuts > 0;
        *cuts = cuts.saturating_sub(1);
        is_cut
    }

    fn story(&self, task: &Bytes) -> Result<Vec<v1::GetTaskResponse>, Status> {
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let mut all = entries_of(history, task);
        if all.is_empty() {
            return Err(Status::not_found("no such task"));
        }
        all.retain(|one| !state.script.hidden.contains(&one.leaf));
        let is_receipt = |one: &OfTask| matches!(one.body, Body::TaskReceipt(_));
        all.retain(|one| lie != Lie::ReceiptHidden || !is_receipt(one));
        let id = TaskId::from_slice(task).unwrap();
        let verdict = judged(history, id, &all);
        let mut info = match &verdict {
            Some(verdict) => verdict.info.clone(),
            None => info(history, task, &all),
        };
        if matches!(lie, Lie::TaskOmitted | Lie::TaskRewritten) {
            all.remove(1);
        }
        if lie == Lie::TaskRewritten {
            info = self::info(history, task, &all);
        }
        if lie == Lie::TaskLong {
            info.count = 530_000;
            all.clear();
        }
        if lie == Lie::TaskDigest {
            info.digest = Bytes::from_static(&[6; 32]);
        }
        let acts = acts(&all, lie, &state.script.acts, verdict.as_ref());
        let grants = match &verdict {
            Some(verdict) => verdict.grants.clone(),
            None => grants(history, &all),
        };
        let findings = match &verdict {
            _ if state.script.no_findings => Vec::new(),
            Some(verdict) if state.findings.is_empty() => verdict.findings.clone(),
            _ => of_task(&state.findings, task),
        };
        let first = v1::GetTaskResponse {
            task: Some(info),
            checkpoint: self.checkpoint(&history.leaves, lie),
            ..v1::GetTaskResponse::default()
        };
        let entries = all.iter().map(|one| v1::GetTaskResponse {
            entries: vec![proven(history, one.leaf, lie)],
            ..v1::GetTaskResponse::default()
        });
        let last = v1::GetTaskResponse {
            grants,
            acts,
            findings,
            ..v1::GetTaskResponse::default()
        };
        let mut messages = vec![first];
        messages.extend(entries);
        messages.push(last);
        Ok(messages)
    }

    fn found(&self, request: &v1::SearchRequest) -> Vec<v1::SearchResponse> {
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let size = history.leaves.len() as u64;
        let leaves = (request.start..size).filter(|leaf| {
            lie == Lie::SearchOther || has_terms(&history.entries[*leaf as usize], request)
        });
        let bound = match request.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let found = leaves.take(bound).map(|leaf| v1::SearchResponse {
            checkpoint: self.checkpoint(&history.leaves, lie),
            entries: vec![proven(history, leaf, lie)],
            searched_to: leaf + 1,
            indexed_to: size,
        });
        let mut found: Vec<_> = found.collect();
        found.push(v1::SearchResponse {
            checkpoint: self.checkpoint(&history.leaves, lie),
            searched_to: size + u64::from(lie == Lie::SearchBeyond),
            indexed_to: size,
            ..v1::SearchResponse::default()
        });
        found
    }

    fn findings(&self, from: (u64, u32), kinds: &[i32]) -> (Vec<v1::Finding>, Bytes, u64) {
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let found = state.findings.iter().filter(|one| {
            let asked = (one.leaf_index, one.number) >= from
                && (kinds.is_empty() || kinds.contains(&one.kind));
            asked || lie == Lie::FindingsOther
        });
        let checkpoint = self.checkpoint(&history.leaves, lie);
        (
            found.cloned().collect(),
            checkpoint,
            history.leaves.len() as u64,
        )
    }
}

/// No earlier than the fake's trust statements.
const TIME_US: i64 = 1_700_000_000_000_001;

/// The verdict of an honest ledger over these entries of a task, if one could have them.
fn judged(history: &History, task: TaskId, all: &[OfTask]) -> Option<TaskVerdict> {
    let trust = history.trust.iter().copied();
    let leaves: BTreeSet<u64> = trust.chain(all.iter().map(|one| one.leaf)).collect();
    let mut replay = TaskReplay::begin(&history.entries[0], task).ok()?;
    for leaf in leaves.into_iter().skip(1) {
        let entry = &history.entries[leaf as usize];
        let covered = covered(history, leaf);
        replay.leaf(leaf, entry, covered.as_ref()).ok()?;
    }
    replay.end(history.leaves.len() as u64).ok()
}

/// The verdict of an honest ledger on the Intent at a leaf.
fn standing(history: &History, leaf: u64) -> Option<v1::ClearanceResponse> {
    let entry = Entry::parse(&history.entries[leaf as usize]).ok()?;
    let said = statement::decode(&Bytes::copy_from_slice(entry.payload)).ok()?;
    let task = TaskId::from_slice(&said.task)?;
    let verdict = judged(history, task, &entries_of(history, &said.task))?;
    let act = verdict.act(leaf)?;
    Some(v1::ClearanceResponse {
        state: act.state,
        missing: act.missing.clone(),
        denied: act.denied.clone(),
        clearance_leaf: act.clearance_leaf,
        ..v1::ClearanceResponse::default()
    })
}

fn covered(history: &History, leaf: u64) -> Option<Covered> {
    let parsed = |leaf: u64| Entry::parse(&history.entries[leaf as usize]).unwrap();
    if parsed(leaf).author != Author::Batched {
        return None;
    }
    let is_manifest = |at: &u64| parsed(*at).payload_type == PayloadType::BatchManifest;
    let manifest_leaf = (0..leaf).rev().find(is_manifest)?;
    let manifest = parsed(manifest_leaf);
    let path = VerifiedPath {
        manifest: Manifest::parse(manifest.payload).unwrap(),
        key_id: manifest.signature.unwrap().key(),
        manifest_index: LeafIndex::new(manifest_leaf),
        statement_index: LeafIndex::new(leaf),
        statement_hash: history.leaves[leaf as usize],
        position: BatchPosition::new((leaf - manifest_leaf - 1) as u32),
    };
    let proof = v1::GetBatchProofResponse {
        manifest_entry: history.entries[manifest_leaf as usize].clone(),
        ..v1::GetBatchProofResponse::default()
    };
    Covered::of(&proof, path).ok()
}

fn say_in(history: &mut History, task: TaskId, body: Body) -> u64 {
    let payload = statement::encode(&v1::Statement {
        ledger_id: Bytes::copy_from_slice(history.leaves[0].as_bytes()),
        producer: statement::LEDGER_PRODUCER.to_owned(),
        occurred_at_us: TIME_US,
        task: Bytes::copy_from_slice(task.as_bytes()),
        body: Some(body),
        ..v1::Statement::default()
    })
    .unwrap();
    let entry = Entry {
        author: Author::Ledger,
        ..Entry::unsigned(&payload, Micros::new(TIME_US))
    };
    history.push(entry.encode())
}

fn proven(history: &History, leaf: u64, lie: Lie) -> v1::ProvenEntry {
    let index = leaf as usize;
    v1::ProvenEntry {
        leaf_index: leaf,
        entry: history.entries[index].clone(),
        inclusion_proof: hashes(&merkle::path(index, &history.leaves), lie == Lie::Inclusion),
    }
}

fn entries_of(history: &History, task: &Bytes) -> Vec<OfTask> {
    let read = |(leaf, bytes): (u64, &Bytes)| {
        let entry = Entry::parse(bytes).ok()?;
        if entry.payload_type != PayloadType::Statement {
            return None;
        }
        let decoded = statement::decode(&Bytes::copy_from_slice(entry.payload)).ok()?;
        let body = decoded.body.filter(|_| decoded.task == *task)?;
        Some(OfTask { leaf, body })
    };
    (0..).zip(&history.entries).filter_map(read).collect()
}

fn info(history: &History, task: &Bytes, all: &[OfTask]) -> v1::TaskInfo {
    let (count, digest) = running(history, all);
    let leaf_of = |is: fn(&Body) -> bool| {
        let found = all.iter().rev().find(|one| is(&one.body));
        found.map(|one| one.leaf)
    };
    v1::TaskInfo {
        task: task.clone(),
        state: v1::TaskState::Open.into(),
        opened_leaf: leaf_of(|body| matches!(body, Body::TaskOpened(_))),
        closed_leaf: leaf_of(|body| matches!(body, Body::TaskClosed(_))),
        count,
        digest,
        receipt_leaf: leaf_of(|body| matches!(body, Body::TaskReceipt(_))),
        last_leaf: all.last().unwrap().leaf,
        risk_tier: v1::RiskTier::Payment.into(),
        opened: v1::LayerState::Proven.into(),
        ..v1::TaskInfo::default()
    }
}

fn running(history: &History, all: &[OfTask]) -> (u64, Bytes) {
    let mut digest = [0; 32];
    for one in all {
        let leaf = history.leaves[one.leaf as usize];
        digest = Sha256::new()
            .chain_update([2])
            .chain_update(digest)
            .chain_update(leaf.as_bytes())
            .finalize()
            .into();
    }
    (all.len() as u64, Bytes::copy_from_slice(&digest))
}

fn acts(
    all: &[OfTask],
    lie: Lie,
    known: &[v1::ActInfo],
    verdict: Option<&TaskVerdict>,
) -> Vec<v1::ActInfo> {
    let intents = all.iter().filter(|one| matches!(one.body, Body::Intent(_)));
    let told = |one: &OfTask| {
        let known = known.iter().find(|known| known.intent_leaf == one.leaf);
        let known = known.or_else(|| verdict?.act(one.leaf));
        let mut act = known.cloned().unwrap_or_else(|| v1::ActInfo {
            intent_leaf: one.leaf,
            state: IntentState::Waiting.into(),
            missing: vec!["approval".to_owned()],
            layers: Some(v1::Layers::default()),
            ..v1::ActInfo::default()
        });
        if lie == Lie::TaskPointer {
            act.intent_leaf = all[0].leaf;
        }
        act
    };
    intents.map(told).collect()
}

fn grants(history: &History, all: &[OfTask]) -> Vec<v1::GrantInfo> {
    let grants = all.iter().filter(|one| matches!(one.body, Body::Grant(_)));
    let told = |one: &OfTask| v1::GrantInfo {
        leaf_index: one.leaf,
        leaf_hash: Bytes::copy_from_slice(history.leaves[one.leaf as usize].as_bytes()),
        state: v1::GrantState::Active.into(),
        rooted: v1::LayerState::Proven.into(),
        ..v1::GrantInfo::default()
    };
    grants.map(told).collect()
}

fn of_task(findings: &[v1::Finding], task: &Bytes) -> Vec<v1::Finding> {
    let of_it = findings.iter().filter(|one| one.task == *task);
    of_it.cloned().collect()
}

fn has_terms(entry: &Bytes, request: &v1::SearchRequest) -> bool {
    let entry = Entry::parse(entry).unwrap();
    let decoded = statement::decode(&Bytes::copy_from_slice(entry.payload));
    let Ok(decoded) = decoded else { return false };
    let (action, resource) = match &decoded.body {
        Some(Body::Intent(intent)) => (intent.action.as_str(), intent.resource.as_str()),
        _ => ("", ""),
    };
    (request.agent.is_empty() || request.agent == decoded.producer)
        && (request.task.is_empty() || request.task == decoded.task)
        && (request.action.is_empty() || request.action == action)
        && (request.resource.is_empty() || request.resource == resource)
        && request
            .correlation_key
            .as_ref()
            .is_none_or(|key| decoded.correlation_keys.contains(key))
}

type Sent<T> = Response<ReceiverStream<Result<T, Status>>>;

/// Sends what is there, and breaks after the first message if it shall.
fn stream<T>(messages: Vec<T>, cut: bool) -> Sent<T> {
    let (sender, receiver) = mpsc::channel(messages.len() + 1);
    for (position, message) in messages.into_iter().enumerate() {
        if cut && position == 1 {
            let _ = sender.try_send(Err(Status::unavailable("cut")));
            break;
        }
        sender.try_send(Ok(message)).ok().unwrap();
    }
    Response::new(ReceiverStream::new(receiver))
}

#[tonic::async_trait]
impl ActionsService for Fake {
    type AwaitClearanceStream = ReceiverStream<Result<v1::ClearanceResponse, Status>>;

    async fn await_clearance(
        &self,
        request: Request<v1::AwaitClearanceRequest>,
    ) -> Result<Sent<v1::ClearanceResponse>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let cut = self.cut();
        let mut state = self.lock();
        state.script.clearances += 1;
        let size = state.histories[0].leaves.len() as u64;
        let leaf = request.intent_leaf;
        if leaf >= size {
            return Err(Status::not_found("no such Intent"));
        }
        let checkpoint = self.checkpoint(&state.histories[0].leaves, state.script.lie);
        let mut standings = state.script.standings.clone();
        if standings.is_empty() {
            standings.extend(standing(&state.histories[0], leaf));
        }
        let told = standings.into_iter().map(|standing| v1::ClearanceResponse {
            tree_size: size,
            checkpoint: checkpoint.clone(),
            ..standing
        });
        Ok(stream(told.collect(), cut))
    }

    async fn request_task_receipt(
        &self,
        request: Request<v1::RequestTaskReceiptRequest>,
    ) -> Result<Response<v1::RequestTaskReceiptResponse>, Status> {
        let task = request.into_inner().task;
        let id = TaskId::from_slice(&task).unwrap();
        let mut state = self.lock();
        let lie = state.script.lie;
        let history = &mut state.histories[0];
        let all = entries_of(history, &task);
        let last = all
            .last()
            .ok_or_else(|| Status::not_found("no such task"))?;
        let (count, mut digest) = running(history, &all);
        if lie == Lie::ReceiptDigest {
            digest = Bytes::from_static(&[6; 32]);
        }
        let trusted = *history.trust.last().unwrap();
        let receipt = v1::TaskReceipt {
            through_leaf: last.leaf,
            count,
            digest,
            trust_head: Some(v1::LeafRef {
                leaf_index: trusted,
                leaf_hash: Bytes::copy_from_slice(history.leaves[trusted as usize].as_bytes()),
            }),
            assessment_digest: Bytes::from_static(&[5; 32]),
            requested: true,
        };
        let mut leaf = say_in(history, id, Body::TaskReceipt(receipt));
        if lie == Lie::OtherReceipt {
            leaf = all[0].leaf;
        }
        let history = &state.histories[0];
        let proven = proven(history, leaf, lie);
        Ok(Response::new(v1::RequestTaskReceiptResponse {
            leaf_index: leaf,
            entry: proven.entry,
            inclusion_proof: proven.inclusion_proof,
            checkpoint: self.checkpoint(&history.leaves, lie),
        }))
    }

    type GetTaskStream = ReceiverStream<Result<v1::GetTaskResponse, Status>>;

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Sent<v1::GetTaskResponse>, Status> {
        if self.lock().script.lie == Lie::MayNotRead {
            return Err(Status::permission_denied("reading"));
        }
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let cut = self.cut();
        Ok(stream(self.story(&request.task)?, cut))
    }

    type SearchStream = ReceiverStream<Result<v1::SearchResponse, Status>>;

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Sent<v1::SearchResponse>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let cut = self.cut();
        Ok(stream(self.found(&request), cut))
    }

    async fn list_findings(
        &self,
        request: Request<v1::ListFindingsRequest>,
    ) -> Result<Response<v1::ListFindingsResponse>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let from = (request.start_leaf, request.start_number);
        let (mut findings, checkpoint, _) = self.findings(from, &request.kinds);
        findings.retain(|one| request.task.is_empty() || one.task == request.task);
        let page = if request.page_size == 0 {
            100
        } else {
            request.page_size
        } as usize;
        let next = findings
            .get(page)
            .map(|next| (next.leaf_index, next.number));
        findings.truncate(page);
        Ok(Response::new(v1::ListFindingsResponse {
            findings,
            next_leaf: next.map(|(leaf, _)| leaf),
            next_number: next.map_or(0, |(_, number)| number),
            checkpoint,
        }))
    }

    type WatchFindingsStream = ReceiverStream<Result<v1::WatchFindingsResponse, Status>>;

    async fn watch_findings(
        &self,
        request: Request<v1::WatchFindingsRequest>,
    ) -> Result<Sent<v1::WatchFindingsResponse>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let cut = self.cut();
        let from = (request.start_leaf, request.start_number);
        let (findings, checkpoint, size) = self.findings(from, &request.kinds);
        let one_by_one = findings.into_iter().map(|one| v1::WatchFindingsResponse {
            searched_to: one.leaf_index,
            findings: vec![one],
            checkpoint: checkpoint.clone(),
        });
        let mut messages: Vec<_> = one_by_one.collect();
        messages.push(v1::WatchFindingsResponse {
            findings: Vec::new(),
            searched_to: size,
            checkpoint,
        });
        Ok(stream(messages, cut))
    }
}
