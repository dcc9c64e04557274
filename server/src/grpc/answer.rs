//! Answers, made when there is room for them, and those of streams one message at a time.
//!
//! A message of a stream is made when its reader has taken the one before, as far as the transport
//! lets us know; what it may hold was taken from the budget of answers before that
//! ([`deed_engine::pressure::answers`]).

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use prost::Message;
use tonic::{Response, Status};

use super::{Answers, Context, stopping};
use deed_engine::{
    ledger::{Ledger, read::Heads},
    pressure::{BudgetPermit, Place, answers::AnswerPermit},
};

use crate::{
    access::{Caller, table::Method},
    status::ApiError,
};

/// The result of one step of a stream: the next message, if the step made one, and the state to go
/// on from, if there is more.
pub(super) type Step<M, S> = Result<(Option<M>, Option<S>), ApiError>;

/// The state of a stream of reads, which makes its messages one after another.
pub(super) trait Messages: Sized + Send + 'static {
    type Message: Message + 'static;

    /// Makes the next message, for which it takes room; without a message the stream ends.
    fn next(self, reading: &Reading) -> impl Future<Output = Step<Self::Message, Self>> + Send;
}

/// A stream of reads that a caller has open.
pub(super) struct Reading {
    pub(super) context: Context,
    pub(super) caller: Caller,
    pub(super) ledger: Arc<Ledger>,
    method: Method,
    room: AnswerPermit,
    _open: Place,
}

impl Context {
    /// Makes an answer; takes room for `bytes` bytes before.
    pub(crate) async fn answer_for<M: Message + 'static>(
        &self,
        caller: &Caller,
        bytes: usize,
        make: impl FnOnce() -> Result<M, ApiError> + Send + 'static,
    ) -> Result<Response<M>, Status> {
        let room = caller.answer_room(&self.pressure);
        let share = room.take(bytes).await.map_err(ApiError::from)?;
        let made = self.read_for(caller, move || Ok((make()?, share)));
        let (message, share) = made.await?;
        room.made(share, message.encoded_len());
        let mut response = Response::new(message);
        response.extensions_mut().insert(room.to_body());
        Ok(response)
    }

    /// Opens a stream of reads in a ledger, for a caller who was checked for `method` there.
    pub(super) fn open_reading(
        &self,
        caller: Caller,
        method: Method,
        ledger: &Arc<Ledger>,
    ) -> Result<Reading, ApiError> {
        let source = caller.source(&self.pressure);
        let open = self
            .pressure
            .open_read_stream(&source, Some(ledger.number))?;
        Ok(Reading {
            context: self.clone(),
            room: caller.answer_room(&self.pressure),
            caller,
            ledger: Arc::clone(ledger),
            method,
            _open: open,
        })
    }
}

impl Reading {
    /// Takes room for a message of at most `bytes` bytes.
    pub(super) async fn take_room(&self, bytes: usize) -> Result<BudgetPermit, ApiError> {
        tokio::select! {
            biased;
            () = self.context.stopped() => Err(stopping()),
            share = self.room.take(bytes) => Ok(share?),
        }
    }

    /// Reduces `share` to the size of a message that was made, and keeps it until the transport has
    /// taken the message.
    pub(super) fn made(&self, share: BudgetPermit, message: &impl Message) {
        self.room.made(share, message.encoded_len());
    }

    /// Fails unless the caller may still ask for this: a stream may outlive the caller's role.
    pub(super) fn require(&self) -> Result<(), ApiError> {
        self.caller.require(self.method, self.ledger.name())
    }

    /// Runs a read on a thread that may block, and fails if the server stops meanwhile.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        tokio::select! {
            biased;
            () = self.context.stopped() => Err(stopping()),
            read = self.context.read_for(&self.caller, read) => read,
        }
    }

    /// Waits for another tree head.
    pub(super) async fn changed(&self, heads: &mut Heads) -> Result<(), ApiError> {
        tokio::select! {
            biased;
            () = self.context.stopped() => Err(stopping()),
            changed = heads.changed() => changed.map_err(|_| stopping()),
        }
    }

    /// Returns the stream of the messages that `state` makes, with `first` before them.
    pub(super) fn stream<S: Messages>(
        self,
        first: Option<S::Message>,
        state: Option<S>,
    ) -> Response<Answers<S::Message>> {
        let room = self.room.to_body();
        let later = stream::unfold(state.map(|state| (self, state)), |open| async {
            let (reading, state) = open?;
            match state.next(&reading).await {
                Ok((Some(message), rest)) => {
                    Some((Ok(message), rest.map(|state| (reading, state))))
                }
                Ok((None, _)) => None,
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        });
        let messages = stream::iter(first.map(Ok)).chain(later);
        let mut response = Response::new(messages.boxed());
        response.extensions_mut().insert(room);
        response
    }

    /// Returns the stream of the messages that `step` makes from `state` on, each of at most
    /// `bytes` bytes and in as many steps as it takes; with `first` before them.
    pub(super) fn stream_steps<M, S, F>(
        self,
        first: Option<M>,
        state: Option<S>,
        bytes: usize,
        step: F,
    ) -> Response<Answers<M>>
    where
        M: Message + 'static,
        S: Send + 'static,
        F: Fn(S) -> Step<M, S> + Clone + Send + 'static,
    {
        let steps = state.map(|state| Steps { state, bytes, step });
        self.stream(first, steps)
    }
}

/// A stream each of whose messages is made by reads of the store.
struct Steps<S, F> {
    state: S,
    bytes: usize,
    step: F,
}

impl<M, S, F> Messages for Steps<S, F>
where
    M: Message + 'static,
    S: Send + 'static,
    F: Fn(S) -> Step<M, S> + Clone + Send + 'static,
{
    type Message = M;

    async fn next(self, reading: &Reading) -> Step<M, Self> {
        let Self { state, bytes, step } = self;
        let share = reading.take_room(bytes).await?;
        let mut state = state;
        loop {
            reading.require()?;
            let one = step.clone();
            match reading.read(move || one(state)).await? {
                (Some(message), rest) => {
                    reading.made(share, &message);
                    let rest = rest.map(|state| Self { state, bytes, step });
                    return Ok((Some(message), rest));
                }
                (None, None) => return Ok((None, None)),
                (None, Some(rest)) => state = rest,
            }
        }
    }
}
