//! Looking for entries by what they say.

use bytes::Bytes;
use deed_evidence::{Micros, TaskId};
use deed_proto::v1::{self, FindingKind, statement::Body};
use deed_tlog::TreeHead;
use tonic::{Status, Streaming};

use super::proven::{ProvenStatement, missing};
use crate::{
    attempts::Attempts,
    error::{AnswerError, Error},
    head::SignedHead,
    ledger::{Ledger, Shared},
    read::check_grown,
    retry::within,
    trust::TrustError,
};

/// The terms of a search: all of them must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchTerms {
    /// The statement's task.
    pub task: Option<TaskId>,
    /// The statement's producer.
    pub agent: Option<String>,
    /// The resource of an Intent, or of an effect of an Outcome or Observation.
    pub resource: Option<String>,
    /// The action of an Intent.
    pub action: Option<String>,
    /// W3C trace id.
    pub trace_id: Option<[u8; 16]>,
    /// Kind and value.
    pub correlation_key: Option<(String, String)>,
    /// Entries at which such a finding arose. That it did is the server's word.
    pub finding: Option<FindingKind>,
    /// First leaf index.
    pub start: u64,
    /// The leaf index after the last one.
    pub end: Option<u64>,
    /// Effective time, the first included, the second not. That the entry is not too old is the
    /// server's word.
    pub from: Option<Micros>,
    /// See `from`.
    pub until: Option<Micros>,
    /// At most so many entries.
    pub limit: Option<u64>,
}

/// The results of a search, one by one. Survives lost connections. Made by [`Ledger::search`].
#[derive(Debug)]
pub struct Search {
    ledger: Ledger,
    /// The rest of the search.
    terms: SearchTerms,
    attempts: Attempts,
    stream: Option<Open>,
    searched_to: u64,
    indexed_to: u64,
    ended: bool,
}

#[derive(Debug)]
struct Open {
    messages: Streaming<v1::SearchResponse>,
    /// The head that the inclusion proofs lead to; in the first message.
    head: Option<SignedHead>,
    /// It is of a tree of at least so many leaves.
    min_size: u64,
}

impl Ledger {
    /// Looks for entries, in the order of their index.
    #[must_use]
    pub fn search(&self, terms: SearchTerms) -> Search {
        Search {
            ledger: self.clone(),
            attempts: self.attempts(),
            searched_to: terms.start,
            indexed_to: 0,
            ended: terms.limit == Some(0),
            terms,
            stream: None,
        }
    }
}

impl Search {
    /// The next ones that were found, possibly none; `None` at the end. Each was proven to be in the
    /// log and to have the terms. That no other one has is the server's word.
    ///
    /// # Errors
    /// Any [`Error`]; lost connections are tried again first, from behind the last entry.
    /// [`Error::Trust`] if an entry is not what was asked for.
    pub async fn next(&mut self) -> Result<Option<Vec<ProvenStatement>>, Error> {
        while !self.ended {
            match self.message().await {
                Ok(Some(answer)) => return self.take(answer).await.map(Some),
                Ok(None) => self.ended = true,
                Err(status) => {
                    self.stream = None;
                    self.ledger.wait_after(&status, &mut self.attempts).await?;
                }
            }
        }
        Ok(None)
    }

    /// The head of the tree that what was found last is proven to be in.
    #[must_use]
    pub fn head(&self) -> Option<&SignedHead> {
        self.stream.as_ref()?.head.as_ref()
    }

    /// Everything below this leaf was searched, by the server's word.
    #[must_use]
    pub const fn searched_to(&self) -> u64 {
        self.searched_to
    }

    /// Up to where the server's derived index reached; what lies behind was read entry by entry.
    #[must_use]
    pub const fn indexed_to(&self) -> u64 {
        self.indexed_to
    }

    async fn message(&mut self) -> Result<Option<v1::SearchResponse>, Status> {
        let timeout = self.ledger.shared.timeout;
        let open = match &mut self.stream {
            Some(open) => open,
            None => {
                let with_proofs = self.ledger.shared.tracker.is_some();
                let request = request(&self.terms, &self.ledger.shared, with_proofs);
                let mut client = self.attempts.server(&self.ledger.connection).actions();
                let min_size = request.min_size;
                let answer = within(timeout, client.search(request)).await?;
                self.stream.insert(Open {
                    messages: answer.into_inner(),
                    head: None,
                    min_size,
                })
            }
        };
        within(timeout, open.messages.message()).await
    }

    async fn take(&mut self, answer: v1::SearchResponse) -> Result<Vec<ProvenStatement>, Error> {
        let Some(open) = &mut self.stream else {
            return Ok(Vec::new());
        };
        if open.head.is_none() || !answer.checkpoint.is_empty() {
            let head = self.ledger.trust_note(&answer.checkpoint).await?;
            check_grown(&head, open.min_size)?;
            open.head = Some(head);
        }
        let head = open.head.as_ref().ok_or(missing("the tree head"))?;
        let proven = self.ledger.shared.tracker.as_ref().map(|_| &head.head);
        // Whoever goes on from there later must not pass over leaves that do not exist yet.
        let size = head.head.size.get().max(self.terms.start);
        if proven.is_some() && answer.searched_to > size {
            return Err(AnswerError::Other {
                what: "a search below leaf",
                found: answer.searched_to.to_string(),
                wanted: format!("what is in the tree of {size} leaves"),
            }
            .into());
        }
        let mut found = Vec::new();
        for entry in &answer.entries {
            if let Some(one) = self.terms.read(entry, proven)? {
                found.push(one);
            }
            self.terms.start = entry.leaf_index.saturating_add(1);
            if let Some(limit) = &mut self.terms.limit {
                *limit = limit.saturating_sub(1);
            }
        }
        let before = self.searched_to;
        self.searched_to = before.max(answer.searched_to).max(self.terms.start);
        self.terms.start = self.searched_to;
        self.indexed_to = self.indexed_to.max(answer.indexed_to);
        self.ended = self.terms.limit == Some(0);
        if self.searched_to > before {
            self.attempts.reset();
        }
        self.ledger.link_heads_if_due();
        Ok(found)
    }
}

fn request(terms: &SearchTerms, ledger: &Shared, with_proofs: bool) -> v1::SearchRequest {
    let key = terms.correlation_key.clone();
    v1::SearchRequest {
        ledger: ledger.name.clone(),
        start: terms.start,
        end: terms.end.unwrap_or_default(),
        limit: terms.limit.unwrap_or_default(),
        from_us: terms.from.map_or(0, Micros::get),
        until_us: terms.until.map_or(0, Micros::get),
        task: terms
            .task
            .map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
        agent: terms.agent.clone().unwrap_or_default(),
        resource: terms.resource.clone().unwrap_or_default(),
        action: terms.action.clone().unwrap_or_default(),
        trace_id: terms
            .trace_id
            .map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id)),
        correlation_key: key.map(|(kind, value)| v1::CorrelationKey { kind, value }),
        finding: terms.finding.unwrap_or_default().into(),
        with_proofs,
        min_size: ledger.min_size(),
    }
}

impl SearchTerms {
    /// Reads an entry, and verifies its inclusion and that it has the terms. Returns `None` for a batch
    /// manifest in a search by place only: it is no statement of its own.
    fn read(
        &self,
        entry: &v1::ProvenEntry,
        head: Option<&TreeHead>,
    ) -> Result<Option<ProvenStatement>, Error> {
        let index = entry.leaf_index;
        let wrong = |reason: String| TrustError::Found { index, reason };
        if index < self.start || self.end.is_some_and(|end| index >= end) {
            let start = self.start;
            return Err(wrong(format!("asked was from leaf {start} on, in order")).into());
        }
        let found = ProvenStatement::read(entry, head)?;
        let lacks = match &found {
            Some(found) => self.lacking(found),
            None => self.asks().then_some("is a batch manifest"),
        };
        match lacks {
            Some(lacks) => Err(wrong(format!("it {lacks}")).into()),
            None => Ok(found),
        }
    }

    /// Returns true if something is asked for that only statements have.
    const fn asks(&self) -> bool {
        self.task.is_some()
            || self.resource.is_some()
            || self.action.is_some()
            || self.trace_id.is_some()
            || self.correlation_key.is_some()
    }

    /// The first term that a statement does not have.
    fn lacking(&self, found: &ProvenStatement) -> Option<&'static str> {
        let statement = &found.statement;
        let has_key = |(kind, value): &(String, String)| {
            let mut keys = statement.correlation_keys.iter();
            keys.any(|key| key.kind == *kind && key.value == *value)
        };
        let lacks = [
            (
                self.task.is_some_and(|task| found.task() != Some(task)),
                "is not of that task",
            ),
            (
                self.agent
                    .as_ref()
                    .is_some_and(|a| *a != statement.producer),
                "is another producer's",
            ),
            (
                self.resource
                    .as_ref()
                    .is_some_and(|it| !has_resource(statement, it)),
                "names another resource",
            ),
            (
                self.action
                    .as_ref()
                    .is_some_and(|it| !has_action(statement, it)),
                "names another action",
            ),
            (
                self.trace_id.is_some_and(|id| statement.trace_id != id[..]),
                "is of another trace",
            ),
            (
                self.correlation_key
                    .as_ref()
                    .is_some_and(|key| !has_key(key)),
                "lacks the correlation key",
            ),
            (
                // The effective time is the highest receive time up to there, so no lower.
                self.until.is_some_and(|until| found.received_at >= until),
                "was received later",
            ),
        ];
        lacks
            .iter()
            .find_map(|(lacks, what)| lacks.then_some(*what))
    }
}

fn has_resource(statement: &v1::Statement, resource: &str) -> bool {
    let among = |effects: &[v1::Effect]| effects.iter().any(|one| one.resource == resource);
    match &statement.body {
        Some(Body::Intent(intent)) => intent.resource == resource,
        Some(Body::Outcome(outcome)) => among(&outcome.effects),
        Some(Body::Observation(observation)) => among(&observation.effects),
        _ => false,
    }
}

fn has_action(statement: &v1::Statement, action: &str) -> bool {
    matches!(&statement.body, Some(Body::Intent(intent)) if intent.action == action)
}
