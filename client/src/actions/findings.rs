//! Findings: in pages, and as they arise.

use deed_evidence::TaskId;
use deed_proto::v1::{self, FindingKind, Severity};
use tonic::{Status, Streaming};

use crate::{
    attempts::Attempts,
    error::{AnswerError, Error},
    head::SignedHead,
    ledger::{Ledger, Shared},
    read::check_grown,
    retry::within,
};

/// A filter of findings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FindingFilter {
    /// First leaf index, and number there.
    pub start: (u64, u32),
    /// Only these; empty for all.
    pub kinds: Vec<FindingKind>,
    /// Only from this on.
    pub severity_min: Option<Severity>,
    /// Only of this task.
    pub task: Option<TaskId>,
}

/// Some findings, in order of (leaf index, number).
#[derive(Debug, Clone, PartialEq)]
pub struct FindingsPage {
    /// The findings, by the server's word. It was checked that they fit the filter, are in order, and lie
    /// within the tree.
    pub findings: Vec<v1::Finding>,
    /// The begin of the next page; `None` on the last one.
    pub next: Option<(u64, u32)>,
    /// The head of the tree that this was read from.
    pub head: SignedHead,
}

/// Findings that arose, or the word that there were none.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenFindings {
    /// The findings, checked as in [`FindingsPage`].
    pub findings: Vec<v1::Finding>,
    /// The server searched everything below this leaf, by its own word.
    pub searched_to: u64,
    /// The head of the tree that this was read from.
    pub head: SignedHead,
}

/// Findings as they arise. Survives lost connections. Made by [`Ledger::watch_findings`].
#[derive(Debug)]
pub struct FindingsWatch {
    ledger: Ledger,
    filter: FindingFilter,
    attempts: Attempts,
    stream: Option<Streaming<v1::WatchFindingsResponse>>,
    /// The stream is of trees of at least so many leaves.
    min_size: u64,
}

impl FindingFilter {
    fn list(&self, ledger: &Shared, page_size: u32) -> v1::ListFindingsRequest {
        v1::ListFindingsRequest {
            ledger: ledger.name.clone(),
            start_leaf: self.start.0,
            start_number: self.start.1,
            page_size,
            kinds: self.kinds.iter().map(|kind| (*kind).into()).collect(),
            severity_min: self.severity_min.unwrap_or_default().into(),
            task: self.task.map_or_else(bytes::Bytes::new, |task| {
                bytes::Bytes::copy_from_slice(task.as_bytes())
            }),
            min_size: ledger.min_size(),
        }
    }

    /// Checks that they are what was asked for: in order, from `start` on, in the tree, of the kinds.
    fn check(&self, findings: &[v1::Finding], tree_size: u64) -> Result<(), AnswerError> {
        let mut start = self.start;
        for finding in findings {
            let place = (finding.leaf_index, finding.number);
            let kind = finding.kind();
            let as_asked = place >= start
                && finding.leaf_index < tree_size
                && (self.kinds.is_empty() || self.kinds.contains(&kind))
                && self
                    .severity_min
                    .is_none_or(|least| finding.severity() >= least)
                && self
                    .task
                    .is_none_or(|task| finding.task == task.as_bytes()[..]);
            if !as_asked {
                return Err(AnswerError::Other {
                    what: "the finding",
                    found: format!("{}.{} {}", place.0, place.1, kind.as_str_name()),
                    wanted: format!(
                        "findings from {}.{} on, of the given kinds",
                        start.0, start.1
                    ),
                });
            }
            start = after(place);
        }
        Ok(())
    }
}

const fn after((leaf, number): (u64, u32)) -> (u64, u32) {
    match number.checked_add(1) {
        Some(number) => (leaf, number),
        None => (leaf.saturating_add(1), 0),
    }
}

impl Ledger {
    /// Returns a page of 1 to 1,000 findings.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Answer`] if there are others among them.
    pub async fn findings(
        &self,
        filter: &FindingFilter,
        page_size: u32,
    ) -> Result<FindingsPage, Error> {
        let request = filter.list(&self.shared, page_size);
        let answer = self
            .call(|server| {
                let request = request.clone();
                async move { server.actions().list_findings(request).await }
            })
            .await?;
        let head = self.trust_note(&answer.checkpoint).await?;
        check_grown(&head, request.min_size)?;
        filter.check(&answer.findings, head.head.size.get())?;
        let next = answer.next_leaf.map(|leaf| (leaf, answer.next_number));
        let last = answer.findings.last();
        let least = last.map_or(filter.start, |last| after((last.leaf_index, last.number)));
        // Without progress the pages would never end.
        if let Some(next) = next.filter(|next| *next < least || *next <= filter.start) {
            return Err(AnswerError::Other {
                what: "findings with the next page at",
                found: format!("{}.{}", next.0, next.1),
                wanted: format!("a later one than {}.{}", least.0, least.1),
            }
            .into());
        }
        self.link_heads_if_due();
        Ok(FindingsPage {
            findings: answer.findings,
            next,
            head,
        })
    }

    /// Follows findings, from the filter's start on.
    #[must_use]
    pub fn watch_findings(&self, filter: FindingFilter) -> FindingsWatch {
        FindingsWatch {
            ledger: self.clone(),
            filter,
            attempts: self.attempts(),
            stream: None,
            min_size: 0,
        }
    }
}

impl FindingsWatch {
    /// Waits for the next ones. There may be none among them: then the tree has grown without any.
    ///
    /// # Errors
    /// Any [`Error`]; lost connections are tried again first.
    pub async fn next(&mut self) -> Result<SeenFindings, Error> {
        loop {
            match self.message().await {
                Ok(answer) => return self.take(answer).await,
                Err(status) => {
                    self.stream = None;
                    self.ledger.wait_after(&status, &mut self.attempts).await?;
                }
            }
        }
    }

    async fn message(&mut self) -> Result<v1::WatchFindingsResponse, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let list = self.filter.list(&self.ledger.shared, 0);
                self.min_size = list.min_size;
                let request = v1::WatchFindingsRequest {
                    ledger: list.ledger,
                    start_leaf: list.start_leaf,
                    start_number: list.start_number,
                    kinds: list.kinds,
                    severity_min: list.severity_min,
                    min_size: list.min_size,
                };
                let mut client = self.attempts.server(&self.ledger.connection).actions();
                let call = client.watch_findings(request);
                let answer = within(self.ledger.shared.timeout, call).await?;
                self.stream.insert(answer.into_inner())
            }
        };
        // Each message is due when the tree has grown; the first one too, for it may not have.
        let message = stream.message().await?;
        message.ok_or_else(|| Status::unavailable("the server ended the stream"))
    }

    async fn take(&mut self, answer: v1::WatchFindingsResponse) -> Result<SeenFindings, Error> {
        let head = self.ledger.trust_note(&answer.checkpoint).await?;
        check_grown(&head, self.min_size)?;
        let size = head.head.size.get();
        let of_all_tasks = FindingFilter {
            task: None,
            ..self.filter.clone()
        };
        of_all_tasks.check(&answer.findings, size)?;
        if answer.searched_to > size {
            return Err(AnswerError::Other {
                what: "findings below leaf",
                found: answer.searched_to.to_string(),
                wanted: format!("what is in the tree of {size} leaves"),
            }
            .into());
        }
        let before = self.filter.start;
        if let Some(last) = answer.findings.last() {
            self.filter.start = after((last.leaf_index, last.number));
        }
        self.filter.start = self.filter.start.max((answer.searched_to, 0));
        if self.filter.start > before {
            self.attempts.reset();
        }
        // The rpc knows no task.
        let task = self.filter.task;
        let mut findings = answer.findings;
        findings.retain(|one| task.is_none_or(|task| one.task == task.as_bytes()[..]));
        self.ledger.link_heads_if_due();
        Ok(SeenFindings {
            findings,
            searched_to: answer.searched_to,
            head,
        })
    }
}
