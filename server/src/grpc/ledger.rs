//! `deed.v1.Ledger`.

use std::sync::Arc;

use deed_proto::v1::{self, ledger_server::Ledger};
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Context, info, stopping};
use crate::{
    access::{Caller, role::EVERY_LEDGER, table::Method},
    admission::Sender,
    append::{InFlight, QUEUE_WAIT},
    ledger::registry::{NewLedger, Page, RegistryError},
    shard::NoAnswer,
    status::Refusal,
};

/// Requests of one stream that are taken in ahead of their answers.
const STREAM_REQUESTS: usize = 64;

/// Their bytes.
const STREAM_BYTES: usize = 16 << 20;

/// Ledgers on a page when the request does not say.
const PAGE_DEFAULT: usize = 100;

/// Ledgers on a page at most.
const PAGE_MAX: u32 = 1000;

pub(crate) struct LedgerService(pub(crate) Context);

/// A request of a stream, with the share of the stream's window that it holds until it is answered.
type Taken = (Result<InFlight, Status>, Option<OwnedSemaphorePermit>);

#[tonic::async_trait]
impl Ledger for LedgerService {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        caller.require(Method::Append, &request.ledger)?;
        let sender = Sender::of(&caller, &request.ledger);
        let in_flight = self.0.appends.begin(request, &sender).await?;
        Ok(Response::new(in_flight.finish().await?))
    }

    type AppendStreamStream = Answers<v1::AppendResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (taken, answers) = mpsc::channel(STREAM_REQUESTS);
        let caller = Caller::of(request.extensions());
        tokio::spawn(take_in(self.0.clone(), caller, request.into_inner(), taken));
        let answers = ReceiverStream::new(answers).then(|(in_flight, window): Taken| async move {
            let answer = in_flight?.finish().await?;
            drop(window);
            Ok(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn create_ledger(
        &self,
        request: Request<v1::CreateLedgerRequest>,
    ) -> Result<Response<v1::CreateLedgerResponse>, Status> {
        let caller = Caller::of(request.extensions());
        caller.require(Method::CreateLedger, EVERY_LEDGER)?;
        let request = request.into_inner();
        let context = self.0.clone();
        let runtime = tokio::runtime::Handle::current();
        let ledger = super::blocking(move || {
            let shards = &context.appends.shards;
            let commit = |new: NewLedger| {
                let number = new.ledger.number;
                let reserving = runtime.block_on(async {
                    tokio::time::timeout(QUEUE_WAIT, shards.reserve(number, 0)).await
                });
                let room = reserving.map_err(|_| RegistryError::Overloaded)?;
                let answer = room.create(new).blocking_answer();
                answer
                    .map(drop)
                    .map_err(|NoAnswer::Stopped| RegistryError::Stopped)
            };
            Ok(context
                .registry
                .create(&request.name, &request.authority_keys, commit)?)
        })
        .await?;
        Ok(Response::new(v1::CreateLedgerResponse {
            ledger: Some(info(&ledger.record, Some(ledger.readable().head))),
            checkpoint: ledger.readable().checkpoint.clone(),
        }))
    }

    async fn list_ledgers(
        &self,
        request: Request<v1::ListLedgersRequest>,
    ) -> Result<Response<v1::ListLedgersResponse>, Status> {
        let caller = Caller::of(request.extensions());
        caller.require(Method::ListLedgers, EVERY_LEDGER)?;
        let request = request.into_inner();
        let limit = match request.page_size {
            0 => PAGE_DEFAULT,
            size @ 1..=PAGE_MAX => size as usize,
            size => {
                let what = format!("{size} is more than {PAGE_MAX}");
                return Err(Refusal::field("page_size", what).into());
            }
        };
        // The token is the last name of the page before.
        let after = request.page_token;
        if !after.is_empty() && !crate::ledger::is_valid_name(&after) {
            let what = "is not a token that this server gave out";
            return Err(Refusal::field("page_token", what).into());
        }
        let registry = Arc::clone(&self.0.registry);
        let Page { ledgers, more } = self
            .0
            .read(move || Ok(registry.page(&after, limit)?))
            .await?;
        let next_page_token = match ledgers.last() {
            Some((last, _)) if more => last.name.clone(),
            _ => String::new(),
        };
        Ok(Response::new(v1::ListLedgersResponse {
            // A page may show fewer than it holds, or none; the token leads on all the same.
            ledgers: ledgers
                .iter()
                .filter(|(record, _)| caller.sees(&record.name))
                .map(|(record, head)| info(record, *head))
                .collect(),
            next_page_token,
        }))
    }

    async fn get_ledger(
        &self,
        request: Request<v1::GetLedgerRequest>,
    ) -> Result<Response<v1::LedgerInfo>, Status> {
        let caller = Caller::of(request.extensions());
        let name = request.into_inner().name;
        let ledger = self.0.ledger(&caller, Method::GetLedger, &name).await?;
        Ok(Response::new(info(
            &ledger.record,
            Some(ledger.readable().head),
        )))
    }
}

/// Takes requests in until the stream ends, one of them is malformed, or the server stops.
async fn take_in(
    context: Context,
    caller: Caller,
    mut requests: Streaming<v1::AppendRequest>,
    taken: mpsc::Sender<Taken>,
) {
    let window = Arc::new(Semaphore::new(STREAM_BYTES));
    loop {
        let request = tokio::select! {
            biased;
            () = context.stopped() => {
                let _ = taken.send((Err(stopping().into()), None)).await;
                return;
            }
            request = requests.message() => request,
        };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => return,
            // Too large, not decodable, or a connection that broke and hears nothing.
            Err(status) => {
                let _ = taken.send((Err(status), None)).await;
                return;
            }
        };
        let bytes = request
            .envelopes
            .iter()
            .map(|envelope| envelope.payload.len())
            .sum::<usize>()
            .clamp(1, STREAM_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(share) = Arc::clone(&window).acquire_many_owned(permits).await else {
            return;
        };
        // For each request: a stream may name several ledgers, and outlives what was granted.
        let in_flight = match caller.require(Method::AppendStream, &request.ledger) {
            Ok(()) => {
                let sender = Sender::of(&caller, &request.ledger);
                let begun = context.appends.begin(request, &sender).await;
                begun.map_err(Status::from)
            }
            Err(refusal) => Err(refusal.into()),
        };
        let ends = in_flight.is_err();
        if taken.send((in_flight, Some(share))).await.is_err() || ends {
            return;
        }
    }
}
