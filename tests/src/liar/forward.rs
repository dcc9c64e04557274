//! Forwards rpcs to a server, and changes its answers.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use deed_proto::v1::{
    self,
    actions_client::ActionsClient,
    actions_server::{Actions, ActionsServer},
    content_client::ContentClient,
    content_server::{Content, ContentServer},
    ledger_client::LedgerClient,
    ledger_server::{Ledger, LedgerServer},
    log_client::LogClient,
    log_server::{Log, LogServer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server, server::Router},
};

use super::{
    MESSAGE_BYTES_MAX, bare,
    lies::{Answer, Lie, Lies},
};
use crate::until;

/// Messages of a stream that may wait to be sent.
const MESSAGES_WAITING: usize = 64;

/// All services, which forward to those of a server.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    lies: Arc<Lies>,
    ledger: LedgerClient<Channel>,
    log: LogClient<Channel>,
    actions: ActionsClient<Channel>,
    content: ContentClient<Channel>,
}

type Sent<A> = ReceiverStream<Result<A, Status>>;

impl Forward {
    pub(super) async fn to(url: &str, lies: Arc<Lies>) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        let endpoint = endpoint.tcp_nodelay(true);
        let channel = until("a connection", || async { endpoint.connect().await.ok() }).await;
        Self {
            lies,
            ledger: LedgerClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            log: LogClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            actions: ActionsClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            content: ContentClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    pub(super) fn services(self) -> Router {
        let max = MESSAGE_BYTES_MAX;
        Server::builder()
            .add_service(LedgerServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(LogServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(ActionsServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(ContentServer::new(self).max_decoding_message_size(max))
    }

    fn ask(&self, rpc: &'static str) -> Result<(), Status> {
        self.lies.ask(rpc);
        if self.lies.withholds(rpc) {
            return Err(Status::unavailable("the liar keeps this from the server"));
        }
        Ok(())
    }

    /// Forwards an rpc with one answer.
    async fn one<Q: Clone, A, F>(
        &self,
        (rpc, lie): (&'static str, &Lie<Q, A>),
        request: Request<Q>,
        call: impl FnOnce(Request<Q>) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (asked, request) = passed_on(request);
        let answer = match self.ask(rpc) {
            Ok(()) => call(request).await.map(Response::into_inner),
            Err(withheld) => Err(withheld),
        };
        lie.told(&asked, answer.map_err(|status| bare(&status)))
            .map(Response::new)
    }

    /// Forwards an rpc whose stream ends by itself: the stream is read to its end first.
    async fn whole<Q, A, F>(
        &self,
        rpc: &'static str,
        lie: fn(&Lies) -> &Lie<Q, Vec<A>>,
        request: Request<Q>,
        call: impl FnOnce(Request<Q>) -> F,
    ) -> Result<Response<Sent<A>>, Status>
    where
        Q: Clone + Send + Sync + 'static,
        A: Send + 'static,
        F: Future<Output = Result<Response<Streaming<A>>, Status>>,
    {
        let (asked, request) = passed_on(request);
        let answer = match self.ask(rpc) {
            Ok(()) => match call(request).await {
                Ok(answer) => collected(answer.into_inner()).await,
                Err(status) => Err(status),
            },
            Err(withheld) => Err(withheld),
        };
        let answer = answer.map_err(|status| bare(&status));
        let messages = lie(&self.lies).told(&asked, answer)?;
        let (sender, receiver) = mpsc::channel(messages.len().max(1));
        for message in messages {
            // There is room for all of them, and the receiver exists.
            let _ = sender.try_send(Ok(message));
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// Forwards an rpc whose stream does not end, message by message. A lie about a refusal is the
    /// last message.
    async fn each<Q, A, F>(
        &self,
        rpc: &'static str,
        lie: fn(&Lies) -> &Lie<Q, A>,
        request: Request<Q>,
        call: impl FnOnce(Request<Q>) -> F,
    ) -> Result<Response<Sent<A>>, Status>
    where
        Q: Clone + Send + Sync + 'static,
        A: Send + 'static,
        F: Future<Output = Result<Response<Streaming<A>>, Status>>,
    {
        let (asked, request) = passed_on(request);
        let (sender, receiver) = mpsc::channel(MESSAGES_WAITING);
        let opened = match self.ask(rpc) {
            Ok(()) => call(request).await.map(Response::into_inner),
            Err(withheld) => Err(withheld),
        };
        let lies = Arc::clone(&self.lies);
        let mut messages = match opened {
            Ok(messages) => messages,
            Err(status) => {
                let told = lie(&lies).told(&asked, Err(bare(&status)))?;
                let _ = sender.try_send(Ok(told));
                // The client ends the stream when it has had enough.
                tokio::spawn(async move { sender.closed().await });
                return Ok(Response::new(ReceiverStream::new(receiver)));
            }
        };
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = messages.message() => message,
                    () = sender.closed() => return,
                };
                let answer = match message.transpose() {
                    Some(answer) => answer.map_err(|status| bare(&status)),
                    None => return,
                };
                let told = lie(&lies).told(&asked, answer);
                let is_last = told.is_err();
                if sender.send(told).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Returns the request for the lie, and the one for the server: with the client's credentials, and
/// without any other metadata of its transport.
fn passed_on<Q: Clone>(request: Request<Q>) -> (Q, Request<Q>) {
    let token = request.metadata().get("authorization").cloned();
    let asked = request.into_inner();
    let mut passed_on = Request::new(asked.clone());
    if let Some(token) = token {
        passed_on.metadata_mut().insert("authorization", token);
    }
    (asked, passed_on)
}

async fn collected<A>(mut messages: Streaming<A>) -> Answer<Vec<A>> {
    let mut all = Vec::new();
    while let Some(message) = messages.message().await? {
        all.push(message);
    }
    Ok(all)
}

type Called<'a, A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send + 'a>>;

/// Forwards rpcs with the client's method of the same name; the first word is the method of
/// [`Forward`] that does so. `async_trait` does not see methods that a macro writes inside of an
/// implementation, so this writes what it would have made of them.
macro_rules! pass_on {
    (one $client:ident: $($rpc:ident($request:ty) -> $answer:ty;)*) => {$(
        fn $rpc<'a, 'f>(&'a self, request: Request<$request>) -> Called<'f, $answer>
        where
            'a: 'f,
            Self: 'f,
        {
            let mut client = self.$client.clone();
            let lie = (stringify!($rpc), &self.lies.$rpc);
            Box::pin(self.one(lie, request, move |request| async move {
                client.$rpc(request).await
            }))
        }
    )*};
    ($how:ident $client:ident: $($rpc:ident($request:ty) -> $answer:ty as $stream:ident;)*) => {$(
        type $stream = Sent<$answer>;

        fn $rpc<'a, 'f>(&'a self, request: Request<$request>) -> Called<'f, Self::$stream>
        where
            'a: 'f,
            Self: 'f,
        {
            let mut client = self.$client.clone();
            let call =
                move |request: Request<$request>| async move { client.$rpc(request).await };
            Box::pin(self.$how(stringify!($rpc), |lies| &lies.$rpc, request, call))
        }
    )*};
}

#[tonic::async_trait]
impl Ledger for Forward {
    pass_on! {one ledger:
        append(v1::AppendRequest) -> v1::AppendResponse;
        create_ledger(v1::CreateLedgerRequest) -> v1::CreateLedgerResponse;
        list_ledgers(v1::ListLedgersRequest) -> v1::ListLedgersResponse;
        get_ledger(v1::GetLedgerRequest) -> v1::LedgerInfo;
    }

    type AppendStreamStream = Sent<v1::AppendResponse>;

    /// Answers come in the order of the requests, so each lie gets the request that its answer is
    /// for.
    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        self.ask("append_stream")?;
        let token = request.metadata().get("authorization").cloned();
        let mut requests = request.into_inner();
        let unanswered = Arc::new(Mutex::new(VecDeque::new()));
        let (passed_on, to_pass_on) = mpsc::channel(1);
        let waiting = Arc::clone(&unanswered);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let asked: v1::AppendRequest = request.clone();
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_back(asked);
                if passed_on.send(request).await.is_err() {
                    return;
                }
            }
        });
        let mut request = Request::new(ReceiverStream::new(to_pass_on));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let answers = self.ledger.clone().append_stream(request).await;
        let mut answers = answers.map_err(|status| bare(&status))?.into_inner();
        let (sender, receiver) = mpsc::channel(MESSAGES_WAITING);
        let lies = Arc::clone(&self.lies);
        tokio::spawn(async move {
            loop {
                let answer = match answers.message().await.transpose() {
                    Some(answer) => answer.map_err(|status| bare(&status)),
                    None => return,
                };
                let asked = unanswered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                let told = match asked {
                    Some(asked) => lies.append_stream.told(&asked, answer),
                    None => answer,
                };
                let is_last = told.is_err();
                if sender.send(told).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl Log for Forward {
    pass_on! {one log:
        get_tree_head(v1::GetTreeHeadRequest) -> v1::TreeHeadResponse;
        get_inclusion_proof(v1::GetInclusionProofRequest) -> v1::InclusionProofResponse;
        get_consistency_proof(v1::GetConsistencyProofRequest) -> v1::ConsistencyProofResponse;
        get_batch_proof(v1::GetBatchProofRequest) -> v1::GetBatchProofResponse;
        get_session(v1::GetSessionRequest) -> v1::SessionInfo;
    }
    pass_on! {whole log:
        get_entries(v1::GetEntriesRequest) -> v1::GetEntriesResponse as GetEntriesStream;
        get_trust_chain(v1::GetTrustChainRequest) -> v1::GetTrustChainResponse
            as GetTrustChainStream;
        get_log_keys(v1::GetLogKeysRequest) -> v1::GetLogKeysResponse as GetLogKeysStream;
    }
    pass_on! {each log:
        watch_tree_heads(v1::WatchTreeHeadsRequest) -> v1::TreeHeadResponse
            as WatchTreeHeadsStream;
    }
}

#[tonic::async_trait]
impl Actions for Forward {
    pass_on! {one actions:
        request_task_receipt(v1::RequestTaskReceiptRequest) -> v1::RequestTaskReceiptResponse;
        list_findings(v1::ListFindingsRequest) -> v1::ListFindingsResponse;
    }
    pass_on! {whole actions:
        get_task(v1::GetTaskRequest) -> v1::GetTaskResponse as GetTaskStream;
        search(v1::SearchRequest) -> v1::SearchResponse as SearchStream;
    }
    pass_on! {each actions:
        await_clearance(v1::AwaitClearanceRequest) -> v1::ClearanceResponse
            as AwaitClearanceStream;
        watch_findings(v1::WatchFindingsRequest) -> v1::WatchFindingsResponse
            as WatchFindingsStream;
    }
}

#[tonic::async_trait]
impl Content for Forward {
    pass_on! {one content:
        erase_content(v1::EraseContentRequest) -> v1::EraseContentResponse;
    }
    pass_on! {whole content:
        get_content(v1::GetContentRequest) -> v1::GetContentResponse as GetContentStream;
    }

    async fn put_content(
        &self,
        request: Request<Streaming<v1::PutContentRequest>>,
    ) -> Result<Response<v1::PutContentResponse>, Status> {
        let token = request.metadata().get("authorization").cloned();
        let parts = collected(request.into_inner()).await?;
        let mut request = Request::new(parts);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let mut client = self.content.clone();
        let lie = ("put_content", &self.lies.put_content);
        self.one(lie, request, move |request| async move {
            client.put_content(request.map(tokio_stream::iter)).await
        })
        .await
    }
}
