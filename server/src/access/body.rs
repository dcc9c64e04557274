//! Bodies of requests and answers, with bounds on what they hold and for how long.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use deed_engine::pressure::{
    Place, RETRY_AFTER,
    answers::Made,
    undecoded::{Framing, TooMuchUndecoded, Undecoded},
};
use http::HeaderMap;
use hyper::body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, Sleep},
};
use tonic::{Status, body::Body};

use crate::{
    listener::activity::{Activity, OpenRequest},
    status::Refusal,
};

/// Bytes that the body of a request may have whose caller should have said who they are.
pub(crate) const ANONYMOUS_BODY_BYTES_MAX: usize = 64 << 10;

/// What a request counts for that waits for its body: its head, and what the transport keeps of it.
const WAITING_BYTES: usize = 8 << 10;

/// A request's body: what it has sent so far takes up memory.
pub(super) struct Arriving {
    body: Body,
    framing: Framing,
    begun_bytes: usize,
    /// What it counts for until its first message is there, however little has come.
    waiting_bytes: usize,
    undecoded: Undecoded,
    /// What it may still send, if that is bounded.
    bytes_left: Option<usize>,
    deadline: Deadline,
}

/// What must have come within the bound.
enum Deadline {
    /// The body.
    Body(Pin<Box<Sleep>>, Duration),
    /// Each message, from its first byte on. Not counted is the time in which nobody reads.
    Message(Option<Pin<Box<Sleep>>>, Duration),
}

impl Arriving {
    /// A body that is a `stream` may stay open, and each of its messages must come `within`;
    /// others must be complete.
    ///
    /// # Errors
    /// Too much waits already for bodies to come.
    pub(super) fn wrap(
        body: Body,
        undecoded: Undecoded,
        anonymous: bool,
        stream: bool,
        within: Duration,
    ) -> Result<Body, Refusal> {
        if body.is_end_stream() {
            return Ok(body);
        }
        let deadline = if stream && !anonymous {
            Deadline::Message(None, within)
        } else {
            Deadline::Body(Box::pin(tokio::time::sleep(within)), within)
        };
        // Streams have places, of which there are few.
        let waiting_bytes = if stream { 0 } else { WAITING_BYTES };
        let mut arriving = Self {
            body,
            framing: Framing::default(),
            begun_bytes: 0,
            waiting_bytes,
            undecoded,
            bytes_left: anonymous.then_some(ANONYMOUS_BODY_BYTES_MAX),
            deadline,
        };
        arriving.hold()?;
        Ok(Body::new(arriving))
    }

    fn hold(&mut self) -> Result<(), Refusal> {
        let bytes = self.begun_bytes.max(self.waiting_bytes);
        self.undecoded
            .hold(bytes)
            .map_err(|TooMuchUndecoded| Refusal::Overloaded {
                retry_after: RETRY_AFTER,
            })
    }

    fn count(&mut self, data: &[u8]) -> Result<(), Status> {
        if let Some(left) = &mut self.bytes_left {
            let still_left = left.checked_sub(data.len());
            *left = still_left.ok_or_else(|| Status::from(too_much_of_nobody()))?;
        }
        self.begun_bytes = self.framing.push(data);
        if self.begun_bytes == 0 && !data.is_empty() {
            self.waiting_bytes = 0;
        }
        self.hold()?;
        if self.begun_bytes == 0
            && let Deadline::Message(sleep, _) = &mut self.deadline
        {
            *sleep = None;
        }
        Ok(())
    }

    /// Ready when the bound has passed.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Duration> {
        let (sleep, within) = match &mut self.deadline {
            Deadline::Body(sleep, within) => (sleep, *within),
            Deadline::Message(_, _) if self.begun_bytes == 0 => return Poll::Pending,
            Deadline::Message(sleep, within) => {
                let within = *within;
                let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
                (sleep, within)
            }
        };
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(within)
    }

    /// Lets go of everything.
    fn end(&mut self) {
        self.body = Body::empty();
        self.begun_bytes = 0;
        // Holding nothing needs no room.
        let _ = self.undecoded.hold(0);
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let error = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let counted = match frame.data_ref() {
                    Some(data) => self.count(data),
                    None => Ok(()),
                };
                match counted {
                    Ok(()) => return Poll::Ready(Some(Ok(frame))),
                    Err(error) => error,
                }
            }
            Poll::Ready(ended) => {
                self.end();
                return Poll::Ready(ended);
            }
            Poll::Pending => {
                let within = ready!(self.poll_late(context));
                Status::deadline_exceeded(format!(
                    "the request was not sent within {} ms",
                    within.as_millis()
                ))
            }
        };
        self.end();
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is said to a caller that is nobody and sends much.
pub(super) fn too_much_of_nobody() -> Refusal {
    Refusal::Unauthenticated(format!(
        "requests of more than {ANONYMOUS_BODY_BYTES_MAX} bytes are taken from known callers \
         only; {}",
        super::SAY_WHO
    ))
}

/// Something that an answer holds until the transport has taken it, found among the extensions of
/// a response.
#[derive(Clone)]
#[allow(dead_code, reason = "held for its drop")]
pub(crate) struct Kept(Arc<dyn Send + Sync>);

impl Kept {
    pub(crate) fn new(what: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(what))
    }
}

/// An answer's body. As long as it is there, the request counts as open.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) open: OpenRequest,
    pub(super) _kept: Option<Kept>,
    /// The shares of what it brings.
    pub(super) made: Option<Made>,
    pub(super) _place: Option<Place>,
    /// When it ends, whatever there is to say; for callers that did not say who they are.
    pub(super) ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether it ends with a status of gRPC.
    pub(super) grpc: bool,
}

struct Waiting {
    answer: Answer,
    /// Since when the peer has taken nothing of what is there; `None` if nothing is.
    since: Option<Instant>,
}

/// What has become of an answer.
enum State {
    Waiting(Waiting),
    /// It was ended at this time, and the peer has not taken that either.
    Stalled(Instant, Arc<Activity>),
    Ended,
}

type Slot = Mutex<State>;

/// Answers that are not taken. The transport does not ask for them while the peer's window is
/// closed, so nobody but a third one can end them. What the transport has of them by then only goes
/// with the connection: that is closed when the end is not taken either.
pub(crate) struct Stalls {
    within: Duration,
    slots: Mutex<Vec<Weak<Slot>>>,
}

impl Stalls {
    /// Answers of which nothing is taken `within` this time are ended, and after that time once more
    /// their connections.
    pub(crate) fn new(within: Duration) -> Arc<Self> {
        Arc::new(Self {
            within,
            slots: Mutex::default(),
        })
    }

    /// Looks after them until the server stops.
    pub(crate) async fn keep_up(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        // Often enough that few are remembered that were taken long ago.
        let interval = (self.within / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(interval) => self.end_stalled(Instant::now()),
            }
        }
    }

    fn end_stalled(&self, now: Instant) {
        let mut ended = Vec::new();
        self.slots.lock().retain(|slot| {
            let Some(slot) = slot.upgrade() else {
                return false;
            };
            let mut state = slot.lock();
            let over = |since: Instant| now.saturating_duration_since(since) >= self.within;
            match &*state {
                State::Waiting(waiting) if waiting.since.is_some_and(over) => {
                    let activity = Arc::clone(waiting.answer.open.activity());
                    ended.push(std::mem::replace(
                        &mut *state,
                        State::Stalled(now, activity),
                    ));
                }
                State::Stalled(since, activity) if over(*since) => {
                    activity.tell_to_leave();
                    *state = State::Ended;
                }
                _ => {}
            }
            true
        });
        // What they held goes without any lock.
        drop(ended);
    }

    pub(super) fn watch(&self, answer: Answer) -> Body {
        let grpc = answer.grpc;
        let slot = Arc::new(Mutex::new(State::Waiting(Waiting {
            answer,
            since: Some(Instant::now()),
        })));
        self.slots.lock().push(Arc::downgrade(&slot));
        Body::new(Held {
            slot,
            grpc,
            ended: false,
            within: self.within,
        })
    }
}

struct Held {
    slot: Arc<Slot>,
    grpc: bool,
    ended: bool,
    within: Duration,
}

impl Held {
    /// Ends with a status of ours.
    fn end(&mut self, status: Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.ended = true;
        if self.grpc {
            let mut trailers = HeaderMap::new();
            if status.add_header(&mut trailers).is_ok() {
                return Some(Ok(Frame::trailers(trailers)));
            }
        }
        Some(Err(status))
    }
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let slot = Arc::clone(&self.slot);
        let mut slot = slot.lock();
        let State::Waiting(waiting) = &mut *slot else {
            *slot = State::Ended;
            let within = self.within.as_millis();
            let message = format!("nothing of the answer was taken within {within} ms");
            return Poll::Ready(self.end(Status::deadline_exceeded(message)));
        };
        if let Some(ends) = &mut waiting.answer.ends
            && ends.as_mut().poll(context).is_ready()
        {
            let ended = std::mem::replace(&mut *slot, State::Ended);
            drop(slot);
            drop(ended);
            let status = Status::unavailable(
                "streams of callers that did not say who they are end after some time; ask again",
            );
            return Poll::Ready(self.end(status));
        }
        let polled = Pin::new(&mut waiting.answer.body).poll_frame(context);
        waiting.since = polled.is_ready().then(Instant::now);
        let Some(made) = &waiting.answer.made else {
            return polled;
        };
        // What was made in this poll is in these bytes: the encoder keeps nothing back.
        polled.map(|frame| {
            frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| made.charge(bytes))))
        })
    }

    fn is_end_stream(&self) -> bool {
        let slot = self.slot.lock();
        let ended = match &*slot {
            State::Waiting(waiting) => waiting.answer.body.is_end_stream(),
            State::Stalled(..) | State::Ended => false,
        };
        self.ended || ended
    }

    fn size_hint(&self) -> SizeHint {
        let slot = self.slot.lock();
        match &*slot {
            State::Waiting(waiting) => waiting.answer.body.size_hint(),
            State::Stalled(..) | State::Ended => SizeHint::default(),
        }
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
