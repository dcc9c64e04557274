//! The task that owns an appender's stream.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use deed_proto::v1;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{AppenderOptions, Request, request::Place};
use crate::{
    answer::{Answer, Appended},
    attempts::Attempts,
    error::{AnswerError, Error, InputError},
    ledger::Ledger,
    options::Event,
    retry::timed_out,
    signing::Signing,
};

/// Batches without an answer: enough to keep a server busy while the next one is signed.
const BATCHES_IN_FLIGHT_MAX: usize = 4;

pub(super) struct Task {
    ledger: Ledger,
    with_proofs: bool,
    signing: Signing,
    answer_timeout: Duration,
    requests_max: usize,
    /// The requests of the callers; `None` once they are done.
    incoming: Option<mpsc::Receiver<Request>>,
    /// Taken from `incoming`, but does not continue the batch before it.
    next_request: Option<Request>,
    /// Requests that are sent and not answered, in the order of sending.
    sent: VecDeque<Request>,
    /// Requests to be sent again, in order. All of them were sent before the ones in `sent`.
    held: VecDeque<Request>,
    attempts: Attempts,
}

/// A stream of requests and answers, until it breaks or ends.
struct Stream {
    requests: mpsc::Sender<v1::AppendRequest>,
    answers: Streaming<v1::AppendResponse>,
}

/// The end of a stream, unless all work is done.
enum End {
    Lost(Status),
    Failed(Error),
}

/// The next event on a stream.
enum Next {
    Answer(v1::AppendResponse),
    Request(Box<Request>),
    NoMoreRequests,
}

impl Task {
    pub(super) fn new(
        ledger: Ledger,
        options: AppenderOptions,
        requests_max: usize,
        incoming: mpsc::Receiver<Request>,
    ) -> Self {
        let attempts = ledger.attempts();
        Self {
            ledger,
            with_proofs: options.with_proofs,
            signing: options.signing,
            answer_timeout: Duration::from_millis(options.answer_timeout_ms),
            requests_max,
            incoming: Some(incoming),
            next_request: None,
            sent: VecDeque::new(),
            held: VecDeque::new(),
            attempts,
        }
    }

    /// Runs until the callers are done and everything is answered, or something ends it.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let outcome = self.run_streams().await;
        if let Err(error) = &outcome {
            self.fail_all(error);
        }
        outcome
    }

    async fn run_streams(&mut self) -> Result<(), Error> {
        // A stream is opened only when there is something to send.
        while self.wait_for_work().await {
            let status = match self.run_stream().await {
                Ok(()) => continue,
                Err(End::Failed(error)) => return Err(error),
                Err(End::Lost(status)) => status,
            };
            // Requests without an answer may or may not be recorded. They are sent again, in order; the
            // server answers recorded statements as duplicates.
            self.held.append(&mut self.sent);
            self.ledger.wait_after(&status, &mut self.attempts).await?;
        }
        Ok(())
    }

    /// Joins what waits already and continues a request: one signature then does for all of it.
    fn with_company(&mut self, mut request: Request) -> Request {
        if !self.signing.is_batch() {
            return request;
        }
        while let Some(next) = self.incoming.as_mut().and_then(|all| all.try_recv().ok()) {
            if let Err(next) = request.join(next) {
                self.next_request = Some(*next);
                break;
            }
        }
        request
    }

    /// Returns true if more may go out now. While some batches are on their way, what comes waits and
    /// becomes the next one: batches grow under load, and when nothing is under way nothing waits.
    fn may_send(&self) -> bool {
        !self.signing.is_batch() || self.sent.len() < BATCHES_IN_FLIGHT_MAX
    }

    async fn wait_for_work(&mut self) -> bool {
        if !self.held.is_empty() {
            return true;
        }
        let request = match (self.next_request.take(), &mut self.incoming) {
            (Some(request), _) => Some(request),
            (None, Some(incoming)) => incoming.recv().await,
            (None, None) => None,
        };
        match request {
            Some(request) => {
                let request = self.with_company(request);
                self.held.push_back(request);
                true
            }
            None => false,
        }
    }

    /// Opens a stream and works on it until all is done or it is lost.
    async fn run_stream(&mut self) -> Result<(), End> {
        let mut stream = self.open().await?;
        let mut deadline = Instant::now() + self.answer_timeout;
        loop {
            // Everything that was sent is answered, and some of it must go out again.
            if self.sent.is_empty() && !self.held.is_empty() {
                self.send_held(&stream.requests).await?;
                deadline = Instant::now() + self.answer_timeout;
            }
            if self.sent.is_empty() && self.incoming.is_none() && self.next_request.is_none() {
                return Ok(());
            }
            match self.next(&mut stream, deadline).await? {
                Next::Answer(answer) => {
                    deadline = Instant::now() + self.answer_timeout;
                    self.take_answer(&answer).await?;
                }
                Next::Request(request) => {
                    let request = self.with_company(*request);
                    if self.sent.is_empty() {
                        deadline = Instant::now() + self.answer_timeout;
                    }
                    self.send(request, &stream.requests).await?;
                }
                Next::NoMoreRequests => self.incoming = None,
            }
        }
    }

    async fn open(&mut self) -> Result<Stream, End> {
        // Room for everything that may be under way: sending never waits for the network.
        let (requests, receiver) = mpsc::channel(self.requests_max);
        // First the requests, then the call: a server may answer the call with the first answer.
        self.send_held(&requests).await?;
        let mut client = self.attempts.server(&self.ledger.connection).ledger();
        let call = client.append_stream(ReceiverStream::new(receiver));
        let answers = match timeout_at(Instant::now() + self.answer_timeout, call).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Err(End::Lost(status)),
            Err(_) => return Err(End::Lost(timed_out())),
        };
        Ok(Stream { requests, answers })
    }

    async fn next(&mut self, stream: &mut Stream, deadline: Instant) -> Result<Next, End> {
        // Once something is held, nothing new goes out in front of it.
        let draining = !self.held.is_empty() || !self.may_send();
        if !draining && let Some(request) = self.next_request.take() {
            return Ok(Next::Request(Box::new(request)));
        }
        let waiting = !self.sent.is_empty();
        let incoming = async {
            match &mut self.incoming {
                Some(incoming) if !draining => incoming.recv().await,
                _ => std::future::pending().await,
            }
        };
        let answer = async {
            if waiting {
                timeout_at(deadline, stream.answers.message()).await
            } else {
                Ok(stream.answers.message().await)
            }
        };
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(Ok(Some(answer))) => Ok(Next::Answer(answer)),
                Ok(Ok(None)) => Err(End::Lost(Status::unavailable("the server ended the stream"))),
                Ok(Err(status)) => Err(End::Lost(status)),
                Err(_) => Err(End::Lost(timed_out())),
            },
            request = incoming => Ok(match request {
                Some(request) => Next::Request(Box::new(request)),
                None => Next::NoMoreRequests,
            }),
        }
    }

    async fn send_held(&mut self, requests: &mpsc::Sender<v1::AppendRequest>) -> Result<(), End> {
        while let Some(request) = self.held.pop_front() {
            if let Err(end) = self.send(request, requests).await {
                // Requests that were sent are sent first again, before those that were not.
                let mut in_order = std::mem::take(&mut self.sent);
                in_order.append(&mut self.held);
                self.held = in_order;
                return Err(end);
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        mut request: Request,
        requests: &mpsc::Sender<v1::AppendRequest>,
    ) -> Result<(), End> {
        let envelopes = match request.seal(&self.signing) {
            Ok(envelopes) => envelopes,
            Err(error) => {
                // No ledger would take it; others are none the worse for that.
                request.fail(&InputError::from(error).into());
                return Ok(());
            }
        };
        let shared = &self.ledger.shared;
        request.base = shared.take_base();
        let message = shared.request(envelopes, request.base.as_ref(), self.with_proofs);
        self.sent.push_back(request);
        requests
            .send(message)
            .await
            .map_err(|_| End::Lost(Status::unavailable("the stream is closed")))
    }

    async fn take_answer(&mut self, answer: &v1::AppendResponse) -> Result<(), End> {
        let Some(mut request) = self.sent.pop_front() else {
            return Err(End::Failed(AnswerError::Unasked.into()));
        };
        let read = self
            .ledger
            .read_answer(
                answer,
                request.envelopes(),
                request.base.as_ref(),
                self.with_proofs && self.ledger.shared.tracker.is_some(),
            )
            .await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                // The failure answers this request together with all others.
                self.sent.push_front(request);
                return Err(End::Failed(error));
            }
        };
        let recorded_before = request.recorded_before(&read.items);
        if !recorded_before.is_empty() {
            if let Err(error) = self
                .find_recorded(&mut request, recorded_before, &read)
                .await
            {
                self.sent.push_front(request);
                return Err(End::Failed(error));
            }
            self.attempts.reset();
            if request.is_complete() {
                request.complete();
            } else {
                self.held.push_back(request);
            }
            return Ok(());
        }
        let progress = request.take(read, || {
            let others = self.held.iter().chain(&self.sent);
            others.flat_map(Request::open_places).collect()
        });
        if progress.resolved > 0 {
            self.attempts.reset();
        }
        self.ledger.link_heads_if_due();
        if let Some((session, expected)) = progress.back_to {
            let event = Event::WentBack { session, expected };
            self.ledger.shared.observer.report(&event);
        }
        if request.is_complete() {
            request.complete();
        } else {
            self.held.push_back(request);
        }
        if self.sent.is_empty() && !self.held.is_empty() {
            self.pause_before_going_back(progress.resolved > 0).await;
        }
        Ok(())
    }

    /// The beginning of a batch is recorded, in a batch that was cut elsewhere (before a crash, for
    /// example): its receipts are read from the log.
    async fn find_recorded(
        &self,
        request: &mut Request,
        statements: Vec<(usize, Place, Bytes)>,
        answer: &Answer,
    ) -> Result<(), Error> {
        for (position, (session, sequence), payload) in statements {
            let found = self
                .ledger
                .recorded(session, sequence, &self.signing)
                .await?;
            let item = match found {
                Some(found) if found.payload == payload => Appended::Duplicate(found.receipt),
                // Something else is there, or a hole that was owned up to.
                _ => answer.items.first().cloned().ok_or(Error::Ended)?,
            };
            request.resolve(position, item);
        }
        Ok(())
    }

    /// Going back must lead somewhere. As long as each round resolves something, it goes on at
    /// once; else with growing pauses, and finally the rejections are taken as final.
    async fn pause_before_going_back(&mut self, progressed: bool) {
        if progressed {
            return;
        }
        let jitter = getrandom::u32().unwrap_or_default();
        match self.attempts.pause(jitter) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => {
                for mut request in self.held.drain(..) {
                    request.accept_rejections();
                    request.complete();
                }
                // The next request has no failed attempts behind it.
                self.attempts.reset();
            }
        }
    }

    /// Tells everybody who waits, and everybody who handed over a request meanwhile.
    fn fail_all(&mut self, error: &Error) {
        let mut incoming = self.incoming.take();
        if let Some(incoming) = &mut incoming {
            incoming.close();
        }
        let later = std::iter::from_fn(|| incoming.as_mut()?.try_recv().ok());
        let under_way = self.held.drain(..).chain(self.sent.drain(..));
        for request in under_way.chain(self.next_request.take()).chain(later) {
            request.fail(error);
        }
    }
}
