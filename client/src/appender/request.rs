//! A request, held until each of its statements has a result.

use std::collections::HashSet;

use bytes::Bytes;
use deed_evidence::{Sequence, SessionId, batch::BatchError, statement};
use deed_proto::v1::{self, Rejection, rejection::Reason};
use deed_tlog::TreeHead;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    answer::{Answer, Appended},
    connection::{REQUEST_BYTES_MAX, REQUEST_ITEMS_MAX},
    error::Error,
    head::SignedHead,
    signing::{Signing, Statement, follows, is_manifest},
};

/// A statement's place.
pub(super) type Place = (SessionId, Sequence);

/// A request from `send` to its answer, or several requests that became one batch.
#[derive(Debug)]
pub(super) struct Request {
    statements: Vec<Statement>,
    bytes: usize,
    results: Vec<Option<Appended>>,
    /// Positions of the statements that were sent last and have no result.
    open: Vec<usize>,
    /// The envelopes that were sent last for the open statements; empty if they must be made anew.
    /// Statements that are sent again are sent as the same bytes.
    envelopes: Vec<v1::Envelope>,
    /// The rejections of the last round, for the open positions; empty if none.
    set_back: Vec<Rejection>,
    /// The head that the last sending asked for a proof from.
    pub(super) base: Option<SignedHead>,
    head: Option<TreeHead>,
    witnessed_size: u64,
    /// The waiting callers, each with the number of its statements, in order.
    replies: Vec<(usize, oneshot::Sender<Result<Answer, Error>>)>,
    /// Given back when the request is dropped, answered or not.
    permits: Vec<[OwnedSemaphorePermit; 2]>,
}

/// The effect of one answer on a request.
#[derive(Debug)]
pub(super) struct Progress {
    /// Statements that have a result now.
    pub(super) resolved: usize,
    /// The position to which the server wants to go back.
    pub(super) back_to: Option<Place>,
}

/// The places of the statements that may still be sent again.
#[derive(Debug, Default)]
struct Held {
    own: HashSet<Place>,
    others: HashSet<Place>,
}

impl Held {
    fn contains(&self, place: &Place) -> bool {
        self.own.contains(place) || self.others.contains(place)
    }
}

impl Request {
    pub(super) fn new(
        statements: Vec<Statement>,
        bytes: usize,
        reply: oneshot::Sender<Result<Answer, Error>>,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Self {
        Self {
            results: vec![None; statements.len()],
            open: (0..statements.len()).collect(),
            envelopes: Vec::new(),
            replies: vec![(statements.len(), reply)],
            statements,
            bytes,
            set_back: Vec::new(),
            base: None,
            head: None,
            witnessed_size: 0,
            permits: vec![permits],
        }
    }

    /// Joins a request that continues this one, so that one signature does for both. Neither may
    /// have been sent. Gives it back if it does not fit.
    pub(super) fn join(&mut self, mut next: Self) -> Result<(), Box<Self>> {
        let ends = (self.statements.last(), next.statements.first());
        let fits = self.statements.len() + next.statements.len() <= REQUEST_ITEMS_MAX
            && self.bytes + next.bytes <= REQUEST_BYTES_MAX
            && matches!(ends, (Some(last), Some(first)) if follows(&last.payload, &first.payload));
        if !fits {
            return Err(Box::new(next));
        }
        self.statements.append(&mut next.statements);
        self.bytes += next.bytes;
        self.results.append(&mut next.results);
        self.open = (0..self.statements.len()).collect();
        self.replies.append(&mut next.replies);
        self.permits.append(&mut next.permits);
        Ok(())
    }

    /// Returns the envelopes to send: the statements without a result, as before if they were sent before.
    pub(super) fn seal(&mut self, signing: &Signing) -> Result<Vec<v1::Envelope>, BatchError> {
        if self.envelopes.is_empty() {
            let open: Vec<_> = self
                .open
                .iter()
                .filter_map(|position| self.statements.get(*position))
                .collect();
            self.envelopes = signing.envelopes(open.iter().copied())?;
        }
        Ok(self.envelopes.clone())
    }

    /// Returns the envelopes that were sent last.
    pub(super) fn envelopes(&self) -> &[v1::Envelope] {
        &self.envelopes
    }

    fn is_batch(&self) -> bool {
        self.envelopes.first().is_some_and(is_manifest)
    }

    /// The places of the statements without a result.
    pub(super) fn open_places(&self) -> impl Iterator<Item = Place> {
        self.open
            .iter()
            .filter_map(|position| self.place(*position))
    }

    /// Takes in the answer to what was sent last. A statement that came too early stays open if
    /// the one that the server expects is still held.
    ///
    /// `others` are the open places of all other requests; computed only if needed. Of this one's
    /// own, those that this very answer rejects for good are not held any more.
    pub(super) fn take(
        &mut self,
        answer: Answer,
        others: impl FnOnce() -> HashSet<Place>,
    ) -> Progress {
        self.head = answer.head.or(self.head);
        self.witnessed_size = self.witnessed_size.max(answer.witnessed_size);
        let progress = if self.is_batch() {
            self.take_batch(answer.items, others)
        } else {
            self.take_each(answer.items, others)
        };
        if progress.resolved > 0 {
            self.envelopes.clear();
        }
        progress
    }

    /// Takes the results of a batch, which is recorded as a whole or not at all.
    fn take_batch(
        &mut self,
        mut items: Vec<Appended>,
        others: impl FnOnce() -> HashSet<Place>,
    ) -> Progress {
        self.set_back.clear();
        let culprit = items.iter().position(is_culprit);
        let wanted = culprit.and_then(|at| {
            let held = Held {
                own: self.open_places().collect(),
                others: others(),
            };
            self.wanted_back(*self.open.get(at)?, &items[at], &held)
        });
        if wanted.is_some() {
            let rejections = items.into_iter().filter_map(|item| match item {
                Appended::Rejected(rejection) => Some(rejection),
                _ => None,
            });
            self.set_back = rejections.collect();
            return Progress {
                resolved: 0,
                back_to: wanted,
            };
        }
        if let Some(at) = culprit {
            self.explain(at, &mut items);
        }
        let sent = std::mem::take(&mut self.open);
        let resolved = sent.len();
        for (position, item) in sent.into_iter().zip(items) {
            if let Some(result) = self.results.get_mut(position) {
                *result = Some(item);
            }
        }
        Progress {
            resolved,
            back_to: None,
        }
    }

    /// The server names the statement that made it refuse a batch by its place in the request,
    /// which nobody knows outside of here.
    fn explain(&self, culprit: usize, items: &mut [Appended]) {
        let Some(Appended::Rejected(why)) = items.get(culprit).cloned() else {
            return;
        };
        let place = self.open.get(culprit).and_then(|at| self.place(*at));
        let sequence = place.map_or(0, |(_, sequence)| sequence.get());
        for item in items {
            if let Appended::Rejected(rejection) = item
                && rejection.reason() == Reason::BatchRefused
            {
                rejection.message = format!(
                    "its batch was refused for the statement with sequence {sequence} ({}): {}",
                    why.reason().as_str_name(),
                    why.message
                );
            }
        }
    }

    /// If a batch was refused because its first statements are recorded already, in another batch:
    /// their positions, places and payloads.
    pub(super) fn recorded_before(&self, items: &[Appended]) -> Vec<(usize, Place, Bytes)> {
        let reused = |rejection: &Rejection| rejection.reason() == Reason::SequenceReused;
        let expected = match items.first() {
            Some(Appended::Rejected(first)) if self.is_batch() && reused(first) => {
                first.expected_sequence.unwrap_or(0)
            }
            _ => return Vec::new(),
        };
        let places = self.open.iter().filter_map(|position| {
            let place = self.place(*position)?;
            let payload = self.statements.get(*position)?.payload.clone();
            Some((*position, place, payload))
        });
        places
            .filter(|(_, (_, sequence), _)| sequence.get() < expected)
            .collect()
    }

    /// Sets the result of an open statement that was found in the log, or is refused for good. The
    /// others are put together anew.
    pub(super) fn resolve(&mut self, position: usize, item: Appended) {
        self.open.retain(|open| *open != position);
        self.envelopes.clear();
        if let Some(result) = self.results.get_mut(position) {
            *result = Some(item);
        }
    }

    fn take_each(
        &mut self,
        items: Vec<Appended>,
        others: impl FnOnce() -> HashSet<Place>,
    ) -> Progress {
        let sent = std::mem::take(&mut self.open);
        let mut held = Held::default();
        if items.iter().any(|item| expected(item).is_some()) {
            held.others = others();
            held.own = sent
                .iter()
                .zip(&items)
                .filter(|(_, item)| expected(item).is_some())
                .filter_map(|(position, _)| self.place(*position))
                .collect();
        }
        let mut progress = Progress {
            resolved: 0,
            back_to: None,
        };
        self.set_back.clear();
        for (position, item) in sent.into_iter().zip(items) {
            match (self.wanted_back(position, &item, &held), item) {
                (Some(place), Appended::Rejected(rejection)) => {
                    progress.back_to.get_or_insert(place);
                    self.open.push(position);
                    self.set_back.push(rejection);
                }
                (_, item) => {
                    progress.resolved += 1;
                    // Later statements that wait for this one will never get their turn.
                    if expected(&item).is_some() {
                        self.place(position).map(|place| held.own.remove(&place));
                    }
                    if let Some(result) = self.results.get_mut(position) {
                        *result = Some(item);
                    }
                }
            }
        }
        progress
    }

    /// Returns the place that the server wants instead of the statement at `position`, if it is held.
    ///
    /// A ledger that expects a sequence before the gap that a statement declares never takes that
    /// statement, however often it is sent.
    fn wanted_back(&self, position: usize, item: &Appended, held: &Held) -> Option<Place> {
        let expected = Sequence::new(expected(item)?);
        let header = statement::parse(&self.statements.get(position)?.payload).ok()?;
        let begins = header.skipped_from.unwrap_or(header.sequence);
        let wanted = (header.session, expected);
        (expected <= begins && held.contains(&wanted)).then_some(wanted)
    }

    fn place(&self, position: usize) -> Option<Place> {
        place(&self.statements.get(position)?.payload)
    }

    /// Gives up going back: the rejections of the last round are final.
    pub(super) fn accept_rejections(&mut self) {
        let open = std::mem::take(&mut self.open);
        for (position, rejection) in open.into_iter().zip(self.set_back.drain(..)) {
            if let Some(result) = self.results.get_mut(position) {
                *result = Some(Appended::Rejected(rejection));
            }
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Sends the answer to the callers that still wait.
    pub(super) fn complete(self) {
        let mut items = self.results.into_iter().flatten();
        for (count, reply) in self.replies {
            let answer = Answer {
                head: self.head,
                witnessed_size: self.witnessed_size,
                items: items.by_ref().take(count).collect(),
            };
            let _ = reply.send(Ok(answer));
        }
    }

    pub(super) fn fail(self, error: &Error) {
        for (_, reply) in self.replies {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// Returns true if an item is refused for a reason of its own.
fn is_culprit(item: &Appended) -> bool {
    matches!(item, Appended::Rejected(rejection) if rejection.reason() != Reason::BatchRefused)
}

/// The sequence that the server expects instead, if that is why an item was rejected.
fn expected(item: &Appended) -> Option<u64> {
    match item {
        Appended::Rejected(rejection) if rejection.reason() == Reason::SequenceNotNext => {
            rejection.expected_sequence
        }
        _ => None,
    }
}

fn place(payload: &Bytes) -> Option<Place> {
    let header = statement::parse(payload).ok()?;
    Some((header.session, header.sequence))
}
