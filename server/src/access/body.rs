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
    listener::activity::{Activity, OpenRequest, Work},
    status::ApiError,
};

/// Largest request body, in bytes, of an anonymous caller where access control is on.
pub(crate) const ANONYMOUS_BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes that a request counts for while it waits for its body: its head, and the transport's state
/// for it.
const WAITING_BYTES: usize = 8 << 10;

/// A request's body. The bytes of a message that is not complete yet are counted as held memory.
pub(super) struct Arriving {
    body: Body,
    framing: Framing,
    begun_bytes: usize,
    /// Bytes counted until the first message is complete, however little has arrived.
    waiting_bytes: usize,
    undecoded: Undecoded,
    /// Bytes that may still arrive; `None` for no bound.
    bytes_left: Option<usize>,
    deadline: Deadline,
}

/// The part of a body that must arrive within the bound.
enum Deadline {
    /// The whole body.
    Body(Pin<Box<Sleep>>, Duration),
    /// Each message, from its first byte on. Time in which the server does not read is not counted.
    Message(Option<Pin<Box<Sleep>>>, Duration),
}

impl Arriving {
    /// Wraps a request's body. If `stream` is true, the body may stay open, and each of its
    /// messages must arrive `within` this time; any other body must be complete by then.
    ///
    /// # Errors
    /// [`ApiError`] if the bodies that are under way take up all the room there is for them.
    pub(super) fn wrap(
        body: Body,
        undecoded: Undecoded,
        anonymous: bool,
        stream: bool,
        within: Duration,
    ) -> Result<Body, ApiError> {
        if body.is_end_stream() {
            return Ok(body);
        }
        let deadline = if stream && !anonymous {
            Deadline::Message(None, within)
        } else {
            Deadline::Body(Box::pin(tokio::time::sleep(within)), within)
        };
        // Streams have a bounded number of places, so they need no such charge.
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

    fn hold(&mut self) -> Result<(), ApiError> {
        let bytes = self.begun_bytes.max(self.waiting_bytes);
        self.undecoded
            .hold(bytes)
            .map_err(|TooMuchUndecoded| ApiError::Overloaded {
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

    /// Returns `Ready` with the bound once it has passed.
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

    /// Releases all memory that the body is counted for.
    fn end(&mut self) {
        self.body = Body::empty();
        self.begun_bytes = 0;
        // Holding zero bytes cannot fail.
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

/// Returns the refusal for an anonymous caller whose body is too large.
pub(super) fn too_much_of_nobody() -> ApiError {
    ApiError::Unauthenticated(format!(
        "requests of more than {ANONYMOUS_BODY_BYTES_MAX} bytes are taken from known callers \
         only; {}",
        super::SAY_WHO
    ))
}

/// Something that a handler puts into a response's extensions, and that is dropped when the
/// transport has taken the answer.
#[derive(Clone)]
#[allow(dead_code, reason = "held for its drop")]
pub(crate) struct Kept(Arc<dyn Send + Sync>);

impl Kept {
    pub(crate) fn new(what: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(what))
    }
}

/// An answer's body. The request counts as open until it is dropped.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) open: OpenRequest,
    pub(super) _work: Option<Work>,
    pub(super) _kept: Option<Kept>,
    /// The permits of the answer budget for the bytes that the body brings.
    pub(super) made: Option<Made>,
    pub(super) _place: Option<Place>,
    /// Completes when an anonymous caller's answer must end, whatever remains to be sent.
    pub(super) ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// True if the answer ends with a gRPC status.
    pub(super) grpc: bool,
}

struct Waiting {
    answer: Answer,
    /// The time since when the peer has taken none of the bytes that are ready; `None` if none are.
    since: Option<Instant>,
}

/// The state of an answer.
enum State {
    Waiting(Waiting),
    /// The answer was ended at this time, and the peer has not taken the end yet.
    Stalled(Instant, Arc<Activity>),
    Ended,
}

type Slot = Mutex<State>;

/// Ends answers that the peer does not take. The transport does not poll a body while the peer's
/// window is closed, so a third party has to end it. Bytes that are in the transport's own buffers
/// are released only with the connection, which is closed if the peer does not take the end either.
pub(crate) struct Stalls {
    within: Duration,
    slots: Mutex<Vec<Weak<Slot>>>,
}

impl Stalls {
    /// Ends an answer of which nothing is taken `within` this time, and closes its connection after
    /// the same time once more.
    pub(crate) fn new(within: Duration) -> Arc<Self> {
        Arc::new(Self {
            within,
            slots: Mutex::default(),
        })
    }

    /// Checks all answers until the server stops.
    pub(crate) async fn keep_up(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        // The interval is short, so that few answers are remembered that were taken long ago.
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
        // Dropping releases what the answers held; no lock may be held meanwhile.
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
    /// Ends the body with this status.
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
                "streams of anonymous callers end after some time; open a new one",
            );
            return Poll::Ready(self.end(status));
        }
        let polled = Pin::new(&mut waiting.answer.body).poll_frame(context);
        waiting.since = polled.is_ready().then(Instant::now);
        let Some(made) = &waiting.answer.made else {
            return polled;
        };
        // The bytes were made in this poll and are all in this frame: the encoder keeps nothing
        // back.
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
