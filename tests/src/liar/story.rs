//! The assessment that a forged ledger's server gives: by default the best possible one.

use bytes::Bytes;
use deed_proto::v1::{
    self, GrantState, IntentState, LayerState, OutcomeState, RiskTier, TaskState,
    actions_server::Actions, statement::Body,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    answers::{Sent, all},
    ledger::index,
    serve::{Forged, State},
};

/// The assessment that the server gives: at first every Intent is cleared or completed, all six
/// layers of every act are proven, and there are no findings.
#[derive(Debug, Clone, Default)]
pub struct Story {
    /// If true, the answers about tasks and Intents are the assessment of the entries that are not
    /// left out. The fields below that say otherwise have no effect then, except `findings` of the
    /// whole ledger.
    pub honest: bool,
    /// State of every Intent, if not the default one.
    pub intent: Option<IntentState>,
    /// Evidence that every Intent waits for, according to `await` and the receipt.
    pub missing: Vec<String>,
    /// Leaf of the Clearance of every Intent; if `None`, the newest Clearance that names the
    /// Intent.
    pub clearance_leaf: Option<u64>,
    /// True if no Clearance is named, even if there is one.
    pub no_clearance: bool,
    /// The findings.
    pub findings: Vec<v1::Finding>,
    /// Leaves that are left out of a task's entries, of a search, and of their counts.
    pub left_out: Vec<u64>,
}

impl Story {
    fn state(&self) -> IntentState {
        self.intent.unwrap_or(IntentState::Cleared)
    }

    pub(super) fn assessed(&self) -> v1::Assessed {
        v1::Assessed {
            intent: self.state().into(),
            missing: self.missing.clone(),
            ..v1::Assessed::default()
        }
    }
}

fn proven() -> v1::Layers {
    let proven = LayerState::Proven.into();
    v1::Layers {
        identity: proven,
        authority: proven,
        intent: proven,
        approval: proven,
        result: proven,
        corroboration: proven,
    }
}

type Told = Vec<(u64, v1::Statement)>;

impl State {
    /// Returns the statements of a task that are not left out.
    pub(super) fn told(&self, task: &[u8]) -> Told {
        let mut told = self.ledger.of_task(task);
        told.retain(|(leaf, _)| !self.story.left_out.contains(leaf));
        told
    }

    fn leaf_ref(&self, leaf: u64) -> v1::LeafRef {
        v1::LeafRef {
            leaf_index: leaf,
            leaf_hash: Bytes::copy_from_slice(self.ledger.leaves[index(leaf)].as_bytes()),
        }
    }

    /// Returns the newest Clearance that names an Intent.
    fn clearance_of(&self, intent: u64) -> Option<u64> {
        if self.story.no_clearance {
            return None;
        }
        let named = Some(self.leaf_ref(intent));
        let clears = |bytes: &Bytes| {
            let entry = deed_evidence::entry::Entry::parse(bytes).ok()?;
            let said = deed_evidence::statement::decode(&bytes.slice_ref(entry.payload)).ok()?;
            Some(matches!(said.body, Some(Body::Clearance(it)) if it.intent == named))
        };
        let entries = self.ledger.entries.iter();
        let found = entries.rev().position(|entry| clears(entry) == Some(true));
        let found = found.map(|from_end| self.ledger.size() - 1 - from_end as u64);
        self.story.clearance_leaf.or(found)
    }

    fn task(&self, task: &Bytes) -> Result<Vec<v1::GetTaskResponse>, Status> {
        let told = self.told(task);
        if told.is_empty() {
            return Err(Status::not_found("no such task"));
        }
        if self.story.honest {
            let verdict = self.judged(task)?;
            let (grants, acts, findings) = (verdict.grants, verdict.acts, verdict.findings);
            return Ok(self.messages(&told, verdict.info, grants, acts, findings));
        }
        let mut info = self.info_of(task, &told);
        let acts = self.acts(&told);
        info.acts = acts.len() as u64;
        // Every Intent that names the grant uses it.
        let under = |hash: &Bytes| {
            let amounts = told.iter().filter_map(|(_, said)| match &said.body {
                Some(Body::Intent(intent)) if intent.grant == *hash => {
                    Some(intent.amount.as_ref().map_or(0, |one| one.minor_units))
                }
                _ => None,
            });
            amounts.fold((0, 0), |(uses, sum), amount| (uses + 1, sum + amount))
        };
        let grants = told.iter().filter_map(|(leaf, said)| match &said.body {
            Some(Body::Grant(_)) => {
                let leaf_hash = self.leaf_ref(*leaf).leaf_hash;
                let (uses_spent, amount_spent) = under(&leaf_hash);
                Some(v1::GrantInfo {
                    leaf_index: *leaf,
                    leaf_hash,
                    state: GrantState::Active.into(),
                    rooted: LayerState::Proven.into(),
                    uses_spent,
                    amount_spent,
                    ..v1::GrantInfo::default()
                })
            }
            _ => None,
        });
        let findings = self.story.findings.iter();
        let findings: Vec<_> = findings.filter(|it| it.task == *task).cloned().collect();
        info.findings = findings.len() as u64;
        Ok(self.messages(&told, info, grants.collect(), acts, findings))
    }

    fn messages(
        &self,
        told: &Told,
        info: v1::TaskInfo,
        grants: Vec<v1::GrantInfo>,
        acts: Vec<v1::ActInfo>,
        findings: Vec<v1::Finding>,
    ) -> Vec<v1::GetTaskResponse> {
        vec![
            v1::GetTaskResponse {
                task: Some(info),
                checkpoint: self.checkpoint(self.ledger.size()),
                ..v1::GetTaskResponse::default()
            },
            v1::GetTaskResponse {
                entries: told.iter().map(|(leaf, _)| self.proven(*leaf)).collect(),
                ..v1::GetTaskResponse::default()
            },
            v1::GetTaskResponse {
                grants,
                acts,
                findings,
                ..v1::GetTaskResponse::default()
            },
        ]
    }

    /// Returns counts that agree with the entries that are not left out.
    fn info_of(&self, task: &Bytes, told: &Told) -> v1::TaskInfo {
        let hashes = told
            .iter()
            .map(|(leaf, _)| &self.ledger.leaves[index(*leaf)]);
        let digest = hashes.fold(deed_evidence::assess::digest::START, |digest, hash| {
            deed_evidence::assess::digest::entries(&digest, hash)
        });
        let newest = |is: fn(&Body) -> bool| {
            let mut found = told.iter().rev();
            found
                .find(|(_, said)| said.body.as_ref().is_some_and(is))
                .map(|(leaf, _)| *leaf)
        };
        let closed = newest(|body| matches!(body, Body::TaskClosed(_)));
        let tier = told.iter().find_map(|(_, said)| match &said.body {
            Some(Body::TaskOpened(opened)) => Some(opened.risk_tier()),
            _ => None,
        });
        let state = match closed {
            Some(_) => TaskState::Closed,
            None => TaskState::Open,
        };
        v1::TaskInfo {
            task: task.clone(),
            state: state.into(),
            opened_leaf: newest(|body| matches!(body, Body::TaskOpened(_))),
            closed_leaf: closed,
            closed_at_us: closed.map_or(0, |_| self.ledger.now()),
            count: told.len() as u64,
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            assessment_digest: Bytes::from_static(&[0x68; 32]),
            receipt_leaf: newest(|body| matches!(body, Body::TaskReceipt(_))),
            last_leaf: told.last().map_or(0, |(leaf, _)| *leaf),
            risk_tier: tier.unwrap_or(RiskTier::Unspecified).into(),
            opened: LayerState::Proven.into(),
            ..v1::TaskInfo::default()
        }
    }

    fn acts(&self, told: &Told) -> Vec<v1::ActInfo> {
        let intents = told.iter().filter_map(|(leaf, said)| match &said.body {
            Some(Body::Intent(intent)) => Some((*leaf, said, intent)),
            _ => None,
        });
        let act = |(leaf, said, intent): (u64, &v1::Statement, &v1::Intent)| {
            let named = Some(self.leaf_ref(leaf));
            let of = |is: &dyn Fn(&Body) -> bool| -> Vec<u64> {
                let found = told.iter();
                let found = found.filter(|(_, said)| said.body.as_ref().is_some_and(is));
                found.map(|(leaf, _)| *leaf).collect()
            };
            let evidence = of(&|body| match body {
                Body::Decision(it) => it.intent == named,
                Body::Approval(it) => it.intent == named,
                _ => false,
            });
            let observations =
                of(&|body| matches!(body, Body::Observation(it) if it.intent == named));
            let outcome = told.iter().find_map(|(leaf, of)| match &of.body {
                Some(Body::Outcome(it)) => {
                    let it = it.intent.as_ref()?;
                    let same = [&said.session, &Bytes::new()].contains(&&it.session);
                    (same && it.sequence == said.sequence).then_some(*leaf)
                }
                _ => None,
            });
            let grant = told.iter().find_map(|(leaf, _)| {
                let hash = self.leaf_ref(*leaf).leaf_hash;
                (hash == intent.grant).then_some(*leaf)
            });
            let done = match outcome {
                Some(_) => IntentState::Completed,
                None => IntentState::Cleared,
            };
            let seen = match (outcome, observations.is_empty()) {
                (None, _) => OutcomeState::Unspecified,
                (_, true) => OutcomeState::Unobserved,
                (_, false) => OutcomeState::Corroborated,
            };
            v1::ActInfo {
                intent_leaf: leaf,
                state: self.story.intent.unwrap_or(done).into(),
                missing: self.story.missing.clone(),
                denied: Vec::new(),
                grant_leaf: grant,
                clearance_leaf: self
                    .clearance_of(leaf)
                    .filter(|leaf| !self.story.left_out.contains(leaf)),
                evidence_leaves: evidence,
                outcome_leaf: outcome,
                outcome: seen.into(),
                observation_leaves: observations,
                layers: Some(proven()),
                ..v1::ActInfo::default()
            }
        };
        intents.map(act).collect()
    }

    fn standing(&self, intent: u64) -> Result<v1::ClearanceResponse, Status> {
        let size = self.ledger.size();
        if self.story.honest {
            let act = self.stands(intent)?;
            return Ok(v1::ClearanceResponse {
                state: act.state,
                missing: act.missing,
                denied: act.denied,
                clearance_leaf: act.clearance_leaf,
                tree_size: size,
                checkpoint: self.checkpoint(size),
            });
        }
        Ok(v1::ClearanceResponse {
            state: self.story.state().into(),
            missing: self.story.missing.clone(),
            denied: Vec::new(),
            clearance_leaf: self.clearance_of(intent),
            tree_size: size,
            checkpoint: self.checkpoint(size),
        })
    }

    fn found(&self, request: &v1::SearchRequest) -> Vec<v1::SearchResponse> {
        let size = self.ledger.size();
        let end = match request.end {
            0 => size,
            end => end.min(size),
        };
        let leaves = request.start..end;
        let limit = match request.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let found = leaves
            .filter(|leaf| !self.story.left_out.contains(leaf) && self.has(*leaf, request))
            .take(limit)
            .map(|leaf| self.proven(leaf));
        vec![v1::SearchResponse {
            checkpoint: self.checkpoint(size),
            entries: found.collect(),
            searched_to: end,
            indexed_to: size,
        }]
    }

    fn has(&self, leaf: u64, request: &v1::SearchRequest) -> bool {
        let bytes = &self.ledger.entries[index(leaf)];
        let Ok(entry) = deed_evidence::entry::Entry::parse(bytes) else {
            return false;
        };
        let Ok(said) = deed_evidence::statement::decode(&bytes.slice_ref(entry.payload)) else {
            return false;
        };
        let (action, resource) = match &said.body {
            Some(Body::Intent(it)) => (it.action.as_str(), it.resource.as_str()),
            _ => ("", ""),
        };
        (request.task.is_empty() || request.task == said.task)
            && (request.agent.is_empty() || request.agent == said.producer)
            && (request.action.is_empty() || request.action == action)
            && (request.resource.is_empty() || request.resource == resource)
            && (request.trace_id.is_empty() || request.trace_id == said.trace_id)
            && request
                .correlation_key
                .as_ref()
                .is_none_or(|key| said.correlation_keys.contains(key))
            && request.finding == 0
    }

    fn findings(&self, task: &Bytes, from: (u64, u32)) -> Vec<v1::Finding> {
        let findings = self.story.findings.iter();
        let asked = findings.filter(|it| {
            (it.leaf_index, it.number) >= from && (task.is_empty() || it.task == *task)
        });
        asked.cloned().collect()
    }
}

#[tonic::async_trait]
impl Actions for Forged {
    type AwaitClearanceStream = Sent<v1::ClearanceResponse>;

    async fn await_clearance(
        &self,
        request: Request<v1::AwaitClearanceRequest>,
    ) -> Result<Response<Self::AwaitClearanceStream>, Status> {
        let intent = request.get_ref().intent_leaf;
        let standing = {
            let state = self.lock();
            if intent >= state.ledger.size() {
                return Err(Status::not_found("no such Intent"));
            }
            state.standing(intent)?
        };
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            if sender.send(Ok(standing)).await.is_ok() {
                sender.closed().await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn request_task_receipt(
        &self,
        request: Request<v1::RequestTaskReceiptRequest>,
    ) -> Result<Response<v1::RequestTaskReceiptResponse>, Status> {
        let task = request.get_ref().task.clone();
        let mut state = self.lock();
        let named = <[u8; 16]>::try_from(&task[..]);
        let named = named.map_err(|_| Status::invalid_argument("task: needs 16 bytes"))?;
        if state.ledger.of_task(&named).is_empty() {
            return Err(Status::not_found("no such task"));
        }
        let receipt = v1::TaskReceipt {
            requested: true,
            ..state.ledger.receipt(named)
        };
        let leaf = state.ledger.writes(named, Body::TaskReceipt(receipt)).leaf;
        let proven = state.proven(leaf);
        Ok(Response::new(v1::RequestTaskReceiptResponse {
            leaf_index: leaf,
            entry: proven.entry,
            inclusion_proof: proven.inclusion_proof,
            checkpoint: state.checkpoint(state.ledger.size()),
        }))
    }

    type GetTaskStream = Sent<v1::GetTaskResponse>;

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<Self::GetTaskStream>, Status> {
        let messages = self.lock().task(&request.get_ref().task)?;
        Ok(all(messages))
    }

    type SearchStream = Sent<v1::SearchResponse>;

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        Ok(all(self.lock().found(request.get_ref())))
    }

    async fn list_findings(
        &self,
        request: Request<v1::ListFindingsRequest>,
    ) -> Result<Response<v1::ListFindingsResponse>, Status> {
        let (state, request) = (self.lock(), request.into_inner());
        let from = (request.start_leaf, request.start_number);
        Ok(Response::new(v1::ListFindingsResponse {
            findings: state.findings(&request.task, from),
            next_leaf: None,
            next_number: 0,
            checkpoint: state.checkpoint(state.ledger.size()),
        }))
    }

    type WatchFindingsStream = Sent<v1::WatchFindingsResponse>;

    async fn watch_findings(
        &self,
        request: Request<v1::WatchFindingsRequest>,
    ) -> Result<Response<Self::WatchFindingsStream>, Status> {
        let mut from = (request.get_ref().start_leaf, request.get_ref().start_number);
        let (forged, mut changed) = (self.clone(), self.changed.subscribe());
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                changed.mark_unchanged();
                let seen = {
                    let state = forged.lock();
                    let size = state.ledger.size();
                    v1::WatchFindingsResponse {
                        findings: state.findings(&Bytes::new(), from),
                        searched_to: size,
                        checkpoint: state.checkpoint(size),
                    }
                };
                from = from.max((seen.searched_to, 0));
                if sender.send(Ok(seen)).await.is_err() || changed.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
