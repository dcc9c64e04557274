//! The service `deed.v1.Ledger`.

use std::{sync::Arc, time::Duration};

use deed_proto::v1::{self, ledger_server::Ledger};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Context, info, info_of, sender, stopping};
use deed_engine::{
    append::{Answered, InFlight, QuotaPolicy},
    ledger::registry::{LedgerRegistryError, NewLedger, Page},
    ledger_name::LedgerName,
    pressure::{QUEUE_WAIT, Source, answers::PAGE_ROOM},
};

use crate::{
    access::{Caller, body::Kept, role::EVERY_LEDGER, table::Method},
    blocking::blocking,
    status::ApiError,
};

/// Requests of one stream that are taken ahead of their answers. Their bytes are bounded by the
/// connection's budget.
const STREAM_REQUESTS: usize = 64;

/// Answers of one stream that are made and not taken yet, in addition to those that still hold
/// their requests' places.
const STREAM_ANSWERS: usize = 16;

/// Time that an answer waits for a reader that takes nothing, before its stream ends. Recorded
/// statements stay recorded; the producer gets their places when it sends the same bytes again.
const READER_WAIT: Duration = Duration::from_secs(30);

/// Ledgers on a page if the request does not say.
const PAGE_DEFAULT: usize = 100;

/// Most ledgers on a page.
const PAGE_MAX: u32 = 1000;

pub(crate) struct LedgerService(pub(crate) Context);

/// A request of a stream that was taken, or the reason for which the stream ends.
pub(crate) type Taken = Result<InFlight, Status>;

#[tonic::async_trait]
impl Ledger for LedgerService {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let in_flight = begin(
            &self.0,
            &caller,
            Method::Append,
            &caller.source(&self.0.pressure),
            request,
            QuotaPolicy::Refuse,
            self.0.appends.shards.superseded(),
        )
        .await?;
        let answered = in_flight.finish().await.map_err(ApiError::from)?;
        let (answer, room) = answered.into_parts();
        let mut response = Response::new(answer);
        response.extensions_mut().insert(Kept::new(room));
        Ok(response)
    }

    type AppendStreamStream = Answers<v1::AppendResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let caller = Caller::of(request.extensions());
        // This check comes before anything is set up for the stream. Whether the caller has the
        // role in a request's ledger is checked for each request.
        caller.require_somewhere(Method::AppendStream)?;
        let pressure = &self.0.pressure;
        let place = pressure
            .open_append_stream(&caller.source(pressure))
            .map_err(ApiError::from)?;
        let quotas = &pressure.quotas;
        let open = quotas
            .open_stream(caller.principal())
            .map_err(ApiError::from)?;
        let (taking, taken) = mpsc::channel(STREAM_REQUESTS);
        let (answering, answers) = mpsc::channel(STREAM_ANSWERS);
        let context = self.0.clone();
        tokio::spawn(take_in(context, caller, request.into_inner(), taking));
        tokio::spawn(async move {
            // The stream counts as open until its last answer was taken.
            let _open = (open, place);
            answer(taken, answering, READER_WAIT).await;
        });
        // The permit of an answer is dropped when the transport has taken the answer.
        let answers = ReceiverStream::new(answers)
            .map(|answered: Result<Answered, Status>| Ok(answered?.into_response()));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn create_ledger(
        &self,
        request: Request<v1::CreateLedgerRequest>,
    ) -> Result<Response<v1::CreateLedgerResponse>, Status> {
        let caller = Caller::of(request.extensions());
        caller.require(Method::CreateLedger, EVERY_LEDGER)?;
        let store = self.0.registry.store();
        store.disk().room_for_log().map_err(ApiError::from)?;
        let source = caller.source(&self.0.pressure).key();
        let request = request.into_inner();
        let context = self.0.clone();
        let runtime = tokio::runtime::Handle::current();
        let ledger = blocking(move || {
            let shards = &context.appends.shards;
            let commit = |new: NewLedger| {
                let reserving = runtime.block_on(async {
                    let reservation = shards.reserve(&new.ledger, source.clone(), 0);
                    timeout(QUEUE_WAIT, reservation).await
                });
                let reservation = reserving.map_err(|_| LedgerRegistryError::Overloaded)?;
                let answer = reservation.create(new).blocking_answer();
                answer.map(drop).map_err(LedgerRegistryError::from)
            };
            Ok(context
                .registry
                .create(&request.name, &request.authority_keys, commit)?)
        })
        .await?;
        Ok(Response::new(v1::CreateLedgerResponse {
            ledger: Some(info_of(&ledger)),
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
                return Err(ApiError::field("page_size", what).into());
            }
        };
        // The token is the last name of the page before.
        let after = request.page_token;
        if !after.is_empty() && LedgerName::parse(&after).is_none() {
            let what = "is not a token that this server gave out";
            return Err(ApiError::field("page_token", what).into());
        }
        let registry = Arc::clone(&self.0.registry);
        let seen_by = caller.clone();
        let page = move || {
            let Page { ledgers, more } = registry.page(&after, limit)?;
            let next_page_token = match ledgers.last() {
                Some((last, _)) if more => last.name.clone(),
                _ => String::new(),
            };
            Ok(v1::ListLedgersResponse {
                // A page may have fewer ledgers than its size, or none; the token leads on all the
                // same.
                ledgers: ledgers
                    .iter()
                    .filter(|(record, _)| seen_by.sees(&record.name))
                    .map(|(record, head)| info(record, *head))
                    .collect(),
                next_page_token,
            })
        };
        self.0.answer_for(&caller, PAGE_ROOM, page).await
    }

    async fn get_ledger(
        &self,
        request: Request<v1::GetLedgerRequest>,
    ) -> Result<Response<v1::LedgerInfo>, Status> {
        let caller = Caller::of(request.extensions());
        let name = request.into_inner().name;
        let ledger = self.0.ledger(&caller, Method::GetLedger, &name).await?;
        Ok(Response::new(v1::LedgerInfo {
            next_log_key: ledger.next_log_key().to_string(),
            ..info_of(&ledger)
        }))
    }
}

/// Begins to append a request to the ledger that it names.
async fn begin(
    context: &Context,
    caller: &Caller,
    method: Method,
    source: &Source,
    request: v1::AppendRequest,
    on_quota: QuotaPolicy,
    since: u64,
) -> Result<InFlight, ApiError> {
    // A caller without the role learns nothing, and a malformed request is refused before its
    // ledger is looked up.
    caller.require(method, &request.ledger)?;
    let request = context.appends.check(request)?;
    let ledger = context.ledger(caller, method, request.ledger()).await?;
    let sender = sender(caller, request.ledger());
    let appends = &context.appends;
    let begun = appends.begin(ledger, request, &sender, source, on_quota, since);
    Ok(begun.await?)
}

/// Takes requests until the stream ends, one of them is malformed, or the server stops.
async fn take_in(
    context: Context,
    caller: Caller,
    mut requests: Streaming<v1::AppendRequest>,
    taken: mpsc::Sender<Taken>,
) {
    let source = caller.source(&context.pressure);
    // A stream is one order: it ends when a request of it may be void.
    let since = context.appends.shards.superseded();
    let _open = context.metrics.stream();
    loop {
        let request = tokio::select! {
            biased;
            () = context.stopped() => {
                let _ = taken.send(Err(stopping().into())).await;
                return;
            }
            request = requests.message() => request,
        };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => return,
            // The message is too large or cannot be decoded, or the connection broke and no status
            // reaches it.
            Err(status) => {
                let _ = taken.send(Err(status)).await;
                return;
            }
        };
        // This is checked for each request, because a stream may name several ledgers and outlives
        // grants.
        let method = Method::AppendStream;
        let begun = begin(
            &context,
            &caller,
            method,
            &source,
            request,
            QuotaPolicy::HoldBack,
            since,
        );
        let in_flight = begun.await.map_err(Status::from);
        let ends = in_flight.is_err();
        if taken.send(in_flight).await.is_err() || ends {
            return;
        }
    }
}

/// Answers the requests of a stream in their order. This is not driven by the reader of the
/// answers: a recorded request must not hold its place until its caller reads. Once the caller has
/// gone, requests that no turn has begun are dropped and not recorded.
pub(crate) async fn answer(
    mut taken: mpsc::Receiver<Taken>,
    answers: mpsc::Sender<Result<Answered, Status>>,
    reader_wait: Duration,
) {
    while let Some(taken) = taken.recv().await {
        let answered = match taken {
            Ok(in_flight) => tokio::select! {
                biased;
                answered = in_flight.finish() => answered.map_err(|error| ApiError::from(error).into()),
                () = answers.closed() => return,
            },
            Err(status) => Err(status),
        };
        let ends = answered.is_err();
        match timeout(reader_wait, answers.send(answered)).await {
            Ok(Ok(())) if !ends => {}
            // The reader has gone, or has read nothing for too long: the rest is dropped here, and
            // with it the permits that it holds.
            _ => return,
        }
    }
}
