//! What is held of a request until each of its statements has a result.

use std::collections::HashSet;

use bytes::Bytes;
use deed_evidence::{Sequence, SessionId, statement};
use deed_proto::v1::{Rejection, rejection::Reason};
use deed_tlog::TreeHead;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    answer::{Answer, Appended},
    error::Error,
    head::SignedHead,
};

/// A statement's place.
pub(super) type Place = (SessionId, Sequence);

/// One request, from `send` to its answer.
#[derive(Debug)]
pub(super) struct Request {
    payloads: Vec<Bytes>,
    results: Vec<Option<Appended>>,
    /// Positions of the statements that were sent last and have no result.
    open: Vec<usize>,
    /// The rejections of the last round, for the open positions; empty if none.
    set_back: Vec<Rejection>,
    /// The head that the last sending asked for a proof from.
    pub(super) base: Option<SignedHead>,
    head: Option<TreeHead>,
    witnessed_size: u64,
    reply: oneshot::Sender<Result<Answer, Error>>,
    /// Given back when the request is dropped, answered or not.
    _permits: [OwnedSemaphorePermit; 2],
}

/// What one answer did to a request.
#[derive(Debug)]
pub(super) struct Progress {
    /// Statements that have a result now.
    pub(super) resolved: usize,
    /// Where the server wants to go back to, if it does.
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
        payloads: Vec<Bytes>,
        reply: oneshot::Sender<Result<Answer, Error>>,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Self {
        Self {
            results: vec![None; payloads.len()],
            open: (0..payloads.len()).collect(),
            payloads,
            set_back: Vec::new(),
            base: None,
            head: None,
            witnessed_size: 0,
            reply,
            _permits: permits,
        }
    }

    /// The payloads without a result: what is to be sent.
    pub(super) fn open_payloads(&self) -> Vec<&Bytes> {
        self.open
            .iter()
            .filter_map(|position| self.payloads.get(*position))
            .collect()
    }

    /// The places of the statements without a result.
    pub(super) fn open_places(&self) -> impl Iterator<Item = Place> {
        self.open_payloads().into_iter().filter_map(place)
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
        let sent = std::mem::take(&mut self.open);
        let mut held = Held::default();
        if answer.items.iter().any(|item| expected(item).is_some()) {
            held.others = others();
            held.own = sent
                .iter()
                .zip(&answer.items)
                .filter(|(_, item)| expected(item).is_some())
                .filter_map(|(position, _)| self.place(*position))
                .collect();
        }
        let mut progress = Progress {
            resolved: 0,
            back_to: None,
        };
        self.set_back.clear();
        for (position, item) in sent.into_iter().zip(answer.items) {
            match (self.wanted_back(position, &item, &held), item) {
                (Some(place), Appended::Rejected(rejection)) => {
                    progress.back_to.get_or_insert(place);
                    self.open.push(position);
                    self.set_back.push(rejection);
                }
                (_, item) => {
                    progress.resolved += 1;
                    // Those after it that wait for it wait in vain.
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

    /// The place that the server wants instead of the statement at `position`, if it is held.
    fn wanted_back(&self, position: usize, item: &Appended, held: &Held) -> Option<Place> {
        let expected = expected(item)?;
        let (session, sequence) = self.place(position)?;
        let wanted = (session, Sequence::new(expected));
        (expected <= sequence.get() && held.contains(&wanted)).then_some(wanted)
    }

    fn place(&self, position: usize) -> Option<Place> {
        place(self.payloads.get(position)?)
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

    /// Answers whoever waits. Nobody may be waiting any more; that is their choice.
    pub(super) fn complete(self) {
        let items: Vec<_> = self.results.into_iter().flatten().collect();
        let answer = Answer {
            head: self.head,
            witnessed_size: self.witnessed_size,
            items,
        };
        let _ = self.reply.send(Ok(answer));
    }

    pub(super) fn fail(self, error: &Error) {
        let _ = self.reply.send(Err(error.clone()));
    }
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
