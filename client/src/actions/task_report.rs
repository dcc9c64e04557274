//! A task's report, with what of it verifies without a replay.

use deed_evidence::{TaskId, assess::digest};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::Hash;
use prost::Message as _;
use tonic::Status;

use super::proven::{ProvenStatement, missing};
use crate::{
    attempts::Attempts,
    error::{AnswerError, Error, InputError},
    head::SignedHead,
    ledger::Ledger,
    read::check_not_stale,
    retry::within,
    trust::TrustError,
};

/// Largest number of entries and findings of a task that are fetched and judged. Anybody who may append
/// can make a task very long, so a reader needs a bound.
const REPORT_MAX: u64 = 1 << 17;

/// Bytes of a report that are held at most.
const REPORT_BYTES_MAX: usize = 256 << 20;

/// A task as the server tells it.
///
/// Proven: every entry is in the tree of `head`; they are exactly those whose number and running
/// digest `info` gives; and every TaskReceipt among them agrees with the entries before it. States,
/// layers and findings are the server's word.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvenTask {
    /// The state of the task.
    pub info: v1::TaskInfo,
    /// The statements of the task, in order.
    pub entries: Vec<ProvenStatement>,
    /// The grants of the task.
    pub grants: Vec<v1::GrantInfo>,
    /// The Intents of the task and their results.
    pub acts: Vec<v1::ActInfo>,
    /// The findings of the task.
    pub findings: Vec<v1::Finding>,
    /// The head that all entries were proven under, consistent with what is trusted.
    pub head: SignedHead,
}

impl ProvenTask {
    /// The entry at a leaf, if it is the task's.
    #[must_use]
    pub fn entry(&self, leaf: u64) -> Option<&ProvenStatement> {
        let found = self
            .entries
            .binary_search_by_key(&leaf, |entry| entry.index.get());
        found.ok().map(|at| &self.entries[at])
    }

    /// The entry with a leaf hash, as grants are named.
    #[must_use]
    pub fn entry_of_hash(&self, hash: &[u8]) -> Option<&ProvenStatement> {
        self.entries
            .iter()
            .find(|entry| entry.hash.as_bytes()[..] == *hash)
    }
}

impl Ledger {
    /// Fetches a task's report and verifies it.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Refused`] if there is no such task; [`Error::Trust`] if an entry is
    /// left out or another one is put in, or a receipt disagrees.
    pub async fn task(&self, task: TaskId) -> Result<ProvenTask, Error> {
        let trusted = self.shared.newest_trusted();
        let messages = self.whole_task(task).await?;
        let first = messages.first().ok_or(missing("the task"))?;
        let info = first.task.clone().ok_or(missing("the task"))?;
        if info.task != task.as_bytes()[..] {
            return Err(AnswerError::Other {
                what: "task",
                found: hex::encode(&info.task),
                wanted: task.to_string(),
            }
            .into());
        }
        let head = self.trust_note(&first.checkpoint).await?;
        if let Some(trusted) = &trusted {
            check_not_stale(&head, trusted)?;
        }
        let verified = self.shared.tracker.as_ref().map(|_| &head.head);
        let mut reported = ProvenTask {
            info,
            entries: Vec::new(),
            grants: Vec::new(),
            acts: Vec::new(),
            findings: Vec::new(),
            head: head.clone(),
        };
        for message in messages {
            for entry in &message.entries {
                let read = ProvenStatement::read(entry, verified)?;
                let read = read
                    .ok_or_else(|| fails(format!("leaf {} is no statement", entry.leaf_index)))?;
                reported.entries.push(read);
            }
            reported.grants.extend(message.grants);
            reported.acts.extend(message.acts);
            reported.findings.extend(message.findings);
        }
        if verified.is_some() {
            check(&reported, task)?;
        }
        self.link_heads_if_due();
        Ok(reported)
    }

    async fn whole_task(&self, task: TaskId) -> Result<Vec<v1::GetTaskResponse>, Error> {
        let mut attempts = self.attempts();
        loop {
            match self.read_task(task, &attempts).await {
                Ok(Ok(messages)) => return Ok(messages),
                Ok(Err(too_long)) => return Err(too_long.into()),
                Err(status) => self.wait_after(&status, &mut attempts).await?,
            }
        }
    }

    /// Each message has its own time: a long report takes long.
    async fn read_task(
        &self,
        task: TaskId,
        attempts: &Attempts,
    ) -> Result<Result<Vec<v1::GetTaskResponse>, InputError>, Status> {
        let request = v1::GetTaskRequest {
            ledger: self.shared.name.clone(),
            task: bytes::Bytes::copy_from_slice(task.as_bytes()),
            min_size: self.shared.min_size(),
        };
        let timeout = self.shared.timeout;
        let mut client = attempts.server(&self.connection).actions();
        let stream = within(timeout, client.get_task(request)).await?;
        let mut stream = stream.into_inner();
        let (mut messages, mut bytes, mut pieces) = (Vec::new(), 0, 0);
        while let Some(message) = within(timeout, stream.message()).await? {
            // The first message says how long it is: what is too long is not read.
            let reported = message.task.as_ref();
            let found = reported.map_or(0, |task| task.count.saturating_add(task.findings));
            if found > REPORT_MAX {
                let max = REPORT_MAX;
                return Ok(Err(InputError::TaskTooLong { found, max }));
            }
            // A server that says more than it says that there is does not end.
            pieces += 1 + message.entries.len() + message.findings.len() + message.acts.len();
            bytes += message.encoded_len();
            if pieces as u64 > 4 * REPORT_MAX || bytes > REPORT_BYTES_MAX {
                return Err(Status::data_loss(
                    "the server's report of the task does not end",
                ));
            }
            messages.push(message);
        }
        Ok(Ok(messages))
    }

    /// Has the ledger write a TaskReceipt of the task as it is now, and verifies that it is one.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Refused`] if there is no such task; [`Error::Trust`] if what the
    /// server names is no receipt of this task, was not asked for, or was there before.
    pub async fn request_task_receipt(&self, task: TaskId) -> Result<ProvenStatement, Error> {
        let trusted = self.shared.newest_trusted();
        let request = v1::RequestTaskReceiptRequest {
            ledger: self.shared.name.clone(),
            task: bytes::Bytes::copy_from_slice(task.as_bytes()),
        };
        let answer = self
            .call(|server| {
                let request = request.clone();
                async move { server.actions().request_task_receipt(request).await }
            })
            .await?;
        let head = self.trust_note(&answer.checkpoint).await?;
        let verified = self.shared.tracker.as_ref().map(|_| &head.head);
        let proven = v1::ProvenEntry {
            leaf_index: answer.leaf_index,
            entry: answer.entry,
            inclusion_proof: answer.inclusion_proof,
        };
        let found = ProvenStatement::read(&proven, verified)?;
        let found = found.filter(|found| {
            matches!(found.body(), Some(Body::TaskReceipt(_))) && found.task() == Some(task)
        });
        self.link_heads_if_due();
        let leaf = answer.leaf_index;
        let found = found.ok_or_else(|| {
            fails(format!(
                "the entry at leaf {leaf} is no receipt of task {task}"
            ))
        })?;
        if !matches!(found.body(), Some(Body::TaskReceipt(receipt)) if receipt.requested) {
            return Err(fails(format!(
                "the receipt at leaf {leaf} is not one that somebody asked for"
            )));
        }
        // A receipt from before the request says nothing about later entries.
        if trusted.is_some_and(|trusted| leaf < trusted.head.size.get()) {
            return Err(fails(format!(
                "the receipt at leaf {leaf} was there before it was asked for"
            )));
        }
        Ok(found)
    }
}

/// The running digest after an entry.
struct Point {
    leaf: u64,
    count: u64,
    digest: Hash,
}

/// Checks that the entries fit the task's numbers and digest, and that the report's references point to the
/// right entries.
fn check(reported: &ProvenTask, task: TaskId) -> Result<(), Error> {
    let points = run(reported, task)?;
    let info = &reported.info;
    let (count, last_leaf) = points.last().map_or((0, 0), |last| (last.count, last.leaf));
    let digest = points.last().map_or(digest::START, |last| last.digest);
    if info.count != count || info.digest != digest.as_bytes()[..] || info.last_leaf != last_leaf {
        return Err(fails(format!(
            "its {count} entries up to leaf {last_leaf} have the digest {}, but the server says {} \
             entries up to leaf {} with the digest {}: some are left out, or others are put in",
            hex::encode(digest.as_bytes()),
            info.count,
            info.last_leaf,
            hex::encode(&info.digest)
        )));
    }
    check_pointers(reported)
}

/// Runs the digest over the entries, and compares the receipts with it on the way.
fn run(reported: &ProvenTask, task: TaskId) -> Result<Vec<Point>, Error> {
    let mut points: Vec<Point> = Vec::with_capacity(reported.entries.len());
    for entry in &reported.entries {
        let leaf = entry.index.get();
        if entry.task() != Some(task) {
            return Err(fails(format!("the entry at leaf {leaf} is another task's")));
        }
        let last = points.last();
        if last.is_some_and(|last| last.leaf >= leaf) {
            return Err(fails(format!("the entry at leaf {leaf} is out of order")));
        }
        if let Some(Body::TaskReceipt(receipt)) = entry.body() {
            check_receipt(receipt, leaf, &points)?;
        }
        let (count, digest) = last.map_or((0, digest::START), |last| (last.count, last.digest));
        points.push(Point {
            leaf,
            count: count + 1,
            digest: digest::entries(&digest, &entry.hash),
        });
    }
    Ok(points)
}

fn check_receipt(receipt: &v1::TaskReceipt, leaf: u64, before: &[Point]) -> Result<(), Error> {
    let point = before
        .binary_search_by_key(&receipt.through_leaf, |point| point.leaf)
        .map(|at| &before[at]);
    let agrees = point.is_ok_and(|point| {
        receipt.count == point.count && receipt.digest == point.digest.as_bytes()[..]
    });
    if agrees {
        return Ok(());
    }
    Err(fails(format!(
        "the receipt at leaf {leaf} speaks of {} entries up to leaf {} with the digest {}, which \
         the entries before it do not have",
        receipt.count,
        receipt.through_leaf,
        hex::encode(&receipt.digest)
    )))
}

/// States and layers are the server's word, but what they are of is not.
fn check_pointers(reported: &ProvenTask) -> Result<(), Error> {
    let is = |leaf: u64, what: &str, is_so: fn(&Body) -> bool| {
        let body = reported.entry(leaf).and_then(ProvenStatement::body);
        match body.is_some_and(is_so) {
            true => Ok(()),
            false => Err(fails(format!("leaf {leaf} is no {what} of it"))),
        }
    };
    let info = &reported.info;
    if let Some(leaf) = info.opened_leaf {
        is(leaf, "TaskOpened", |body| {
            matches!(body, Body::TaskOpened(_))
        })?;
    }
    if let Some(leaf) = info.closed_leaf {
        is(leaf, "TaskClosed", |body| {
            matches!(body, Body::TaskClosed(_))
        })?;
    }
    if let Some(leaf) = info.receipt_leaf {
        is(leaf, "TaskReceipt", |body| {
            matches!(body, Body::TaskReceipt(_))
        })?;
    }
    for grant in &reported.grants {
        let leaf = grant.leaf_index;
        is(leaf, "Grant", |body| matches!(body, Body::Grant(_)))?;
        let hash = reported.entry(leaf).map(|entry| entry.hash);
        if hash.is_none_or(|hash| hash.as_bytes()[..] != grant.leaf_hash) {
            return Err(fails(format!("the grant at leaf {leaf} has another hash")));
        }
    }
    for act in &reported.acts {
        is(act.intent_leaf, "Intent", |body| {
            matches!(body, Body::Intent(_))
        })?;
        // The entry exists, as was checked before.
        let Some(intent) = reported.entry(act.intent_leaf) else {
            continue;
        };
        if let Some(leaf) = act.outcome_leaf {
            is(leaf, "Outcome", |body| matches!(body, Body::Outcome(_)))?;
            let outcome = reported.entry(leaf);
            if outcome.is_none_or(|outcome| !is_outcome_of(outcome, intent)) {
                return Err(of_another(leaf, "Outcome", intent));
            }
        }
        if let Some(leaf) = act.clearance_leaf {
            is(leaf, "Clearance", |body| matches!(body, Body::Clearance(_)))?;
            let clearance = reported.entry(leaf);
            if clearance.is_none_or(|clearance| !clears(clearance, intent)) {
                return Err(of_another(leaf, "Clearance", intent));
            }
        }
    }
    Ok(())
}

fn is_outcome_of(outcome: &ProvenStatement, intent: &ProvenStatement) -> bool {
    let Some(Body::Outcome(said)) = outcome.body() else {
        return false;
    };
    let mut named = said.intent.clone().unwrap_or_default();
    if named.session.is_empty() {
        // The Outcome's own.
        named.session = outcome.statement.session.clone();
    }
    named == intent.statement_ref()
}

fn clears(clearance: &ProvenStatement, intent: &ProvenStatement) -> bool {
    let Some(Body::Clearance(said)) = clearance.body() else {
        return false;
    };
    said.intent == Some(intent.leaf_ref())
}

fn of_another(leaf: u64, what: &str, intent: &ProvenStatement) -> Error {
    fails(format!(
        "the {what} at leaf {leaf} is not of the Intent at leaf {}",
        intent.index
    ))
}

fn fails(reason: String) -> Error {
    TrustError::Task { reason }.into()
}
