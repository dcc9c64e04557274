//! The services of the port: gRPC with health and reflection, and tiles over HTTP.

use std::{sync::Arc, time::Duration};

use deed_engine::pressure::undecoded::MESSAGE_BYTES_MAX;
use deed_proto::v1::{
    self, actions_server::ActionsServer, content_server::ContentServer,
    ledger_server::LedgerServer, log_server::LogServer,
};
use tokio::task::JoinHandle;
use tonic::{server::NamedService, service::Routes, transport};
use tonic_health::server::HealthReporter;

use crate::{
    access::{Access, body::Stalls, layer::AccessLayer},
    context::Context,
    grpc::{
        actions::ActionsService, content::ContentService, ledger::LedgerService, log::LogService,
    },
    http,
    listener::Incoming,
    options::LimitOptions,
    telemetry::Requests,
};

/// Largest message to services that only answer questions: the log, actions, health and reflection.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// Largest message about contents: a chunk, and the fields around it.
const CONTENT_MESSAGE_BYTES_MAX: usize = (1 << 20) + (8 << 10);

/// Longest time that an answer to an anonymous caller may take, where callers could say who they
/// are. The caller may come back; until then, others may have its place.
const ANONYMOUS_WITHIN: Duration = Duration::from_secs(600);

/// HTTP/2 windows, in bytes, and the largest frame. Measured by the prototype: the defaults of
/// 64 KiB halve the throughput of large batches.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const FRAME_BYTES: u32 = 64 << 10;

/// Bytes of one request's headers, as HTTP/2 counts them. The largest header that clients need is a
/// token.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Most streams that a peer may reset before the server has looked at them, and most that the
/// server resets for errors of the peer. Beyond that, the connection is closed. A peer that opens
/// and resets streams as fast as it can would make the server work for nothing (CVE-2023-44487,
/// CVE-2025-8671).
const RESET_STREAMS_MAX: usize = 20;
const ERROR_RESETS_MAX: usize = 128;

/// A peer that does not answer a ping is gone, whatever its streams wait for.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

const LEDGER_SERVICE: &str = <LedgerServer<LedgerService> as NamedService>::NAME;
const LOG_SERVICE: &str = <LogServer<LogService> as NamedService>::NAME;
const ACTIONS_SERVICE: &str = <ActionsServer<ActionsService> as NamedService>::NAME;
const CONTENT_SERVICE: &str = <ContentServer<ContentService> as NamedService>::NAME;

/// Serves everything on the port: gRPC with health and reflection, and tiles over HTTP.
pub(crate) async fn serve_all(
    (incoming, accepting): (Incoming, JoinHandle<()>),
    access: Arc<Access>,
    limits: &LimitOptions,
    context: Context,
) -> impl Future<Output = Result<(), transport::Error>> + use<> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<LedgerServer<LedgerService>>().await;
    health.set_serving::<LogServer<LogService>>().await;
    health.set_serving::<ContentServer<ContentService>>().await;
    health.set_serving::<ActionsServer<ActionsService>>().await;
    tokio::spawn(say_when_stopping(health, context.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are well-formed")
        .max_decoding_message_size(QUESTION_BYTES_MAX);
    let health_service = health_service.max_decoding_message_size(QUESTION_BYTES_MAX);
    let ledger = LedgerServer::new(LedgerService(context.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let log =
        LogServer::new(LogService(context.clone())).max_decoding_message_size(QUESTION_BYTES_MAX);
    let content = ContentServer::new(ContentService(context.clone()))
        .max_decoding_message_size(CONTENT_MESSAGE_BYTES_MAX);
    let actions = ActionsServer::new(ActionsService(context.clone()))
        .max_decoding_message_size(QUESTION_BYTES_MAX);
    let within = Duration::from_millis(limits.stall_ms);
    let stalls = Stalls::new(within);
    tokio::spawn(Arc::clone(&stalls).keep_up(context.stopping.clone()));
    let routes = Routes::from(http::router(context.clone()))
        .add_service(ledger)
        .add_service(log)
        .add_service(content)
        .add_service(actions)
        .add_service(health_service)
        .add_service(reflection);
    let mut server = transport::Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.requests_per_connection)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS_MAX))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .layer(Requests::new(Arc::clone(&context.metrics)))
        .layer(AccessLayer {
            access,
            pressure: Arc::clone(&context.pressure),
            body_within: within,
            anonymous_within: ANONYMOUS_WITHIN,
            stalls,
        });
    async move {
        let stopped = async move { context.stopped().await };
        let served = server
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stopped)
            .await;
        // A caller that waits for the server to stop may want its port.
        let _ = accepting.await;
        served
    }
}

/// Tells those who watch the server's health that it stops, and ends their watches: an open one
/// would hold the drain up to its bound.
async fn say_when_stopping(health: HealthReporter, context: Context) {
    context.stopped().await;
    health
        .set_not_serving::<LedgerServer<LedgerService>>()
        .await;
    health.set_not_serving::<LogServer<LogService>>().await;
    health
        .set_not_serving::<ContentServer<ContentService>>()
        .await;
    health
        .set_not_serving::<ActionsServer<ActionsService>>()
        .await;
    for service in [
        "",
        LEDGER_SERVICE,
        LOG_SERVICE,
        CONTENT_SERVICE,
        ACTIONS_SERVICE,
    ] {
        health.clone().clear_service_status(service).await;
    }
}
