//! Tests with a server in this process, and with a collector and a log that they read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::State,
    response::Response,
    routing::post,
};
use bytes::Bytes;
use deed_evidence::LedgerId;
use deed_proto::v1::{self, ledger_client::LedgerClient};
use deed_testkit::statements::observe;
use deed_tlog::Hash;
use http::HeaderMap;
use hyper::body::Frame;
use parking_lot::Mutex;
use prost::Message;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{Request, metadata::MetadataMap};
use tracing_subscriber::{EnvFilter, Layer as _, fmt::MakeWriter, layer::SubscriberExt as _};

use super::{OtlpOptions, TraceExport};
use crate::{
    Server, ServerOptions, SystemClock,
    testing::{AUTHORITY_KEY, Producer, briefs},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// This text is in a payload, and in a credential.
const PAYLOAD: &str = "orders/Passenger-Mia-Li-3668";
const TOKEN: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ";

/// The fields of OTLP's request that the tests read.
#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<ExportedSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportedSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
}

/// Starts a collector; the messages that it is sent come out of the channel unchanged.
async fn collector() -> (String, mpsc::Receiver<Bytes>) {
    let (sender, received) = mpsc::channel(64);
    let router = Router::new()
        .route(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            post(export),
        )
        .with_state(sender);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    (endpoint, received)
}

async fn export(State(sender): State<mpsc::Sender<Bytes>>, body: Bytes) -> Response {
    sender.send(body).await.unwrap();
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(EmptyAnswer(0)))
        .unwrap()
}

/// An answer with an empty message and a status, as gRPC sends it.
struct EmptyAnswer(u8);

impl HttpBody for EmptyAnswer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0 += 1;
        Poll::Ready(match self.0 {
            1 => Some(Ok(Frame::data(Bytes::from_static(&[0; 5])))),
            2 => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                Some(Ok(Frame::trailers(trailers)))
            }
            _ => None,
        })
    }
}

/// Log lines in memory.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    /// Returns the number of lines that contain `word`.
    pub(super) fn with(&self, word: &str) -> usize {
        let text = self.text();
        text.lines().filter(|line| line.contains(word)).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Runs the test on one thread, so that the thread's subscriber sees everything.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

fn request<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in metadata {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    request
}

/// Starts a server, creates a ledger, appends a valid and an invalid request with these headers,
/// and stops. Returns the headers of both answers.
async fn exercise(metadata: &[(&'static str, &str)]) -> (MetadataMap, MetadataMap) {
    let dir = TempDir::new().unwrap();
    let options = ServerOptions::new(dir.path().join("data"));
    let server = Server::start(options, Arc::new(SystemClock)).await.unwrap();
    let url = format!("http://{}", server.address());
    let mut client = LedgerClient::connect(url).await.unwrap();
    let created = client.create_ledger(v1::CreateLedgerRequest {
        name: "traced".to_owned(),
        authority_keys: vec![Bytes::from_static(&AUTHORITY_KEY)],
    });
    let created = created.await.unwrap().into_inner().ledger.unwrap();
    let id = LedgerId::new(Hash::try_from(&created.ledger_id[..]).unwrap());
    let append = v1::AppendRequest {
        ledger: "traced".to_owned(),
        envelopes: vec![Producer::new(id, 1).intent(PAYLOAD)],
        ..v1::AppendRequest::default()
    };
    let answer = client.append(request(append, metadata)).await.unwrap();
    assert_eq!(briefs(answer.get_ref()), ["accepted 1"]);
    let nothing = v1::AppendRequest::default();
    let refused = client.append(request(nothing, metadata)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    drop(client);
    server.stop().await.unwrap();
    (answer.metadata().clone(), refused.metadata().clone())
}

#[test]
fn traces_reach_a_collector_as_part_of_the_callers_trace() {
    run(async {
        let (endpoint, mut received) = collector().await;
        let export = TraceExport::begin(&OtlpOptions {
            endpoint,
            queue_spans: 64,
            timeout_ms: 5000,
        })
        .unwrap();
        let collecting = observe(tracing_subscriber::registry().with(export.layer()));
        let caller = format!("00-{TRACE}-{CALLER}-01");
        let token = format!("Bearer {TOKEN}");
        exercise(&[("traceparent", &caller), ("authorization", &token)]).await;
        drop(collecting);
        // The last traces are sent now, and this thread has to serve the collector meanwhile.
        tokio::task::spawn_blocking(move || export.end())
            .await
            .unwrap();

        let mut spans = Vec::new();
        while let Ok(message) = received.try_recv() {
            for secret in [PAYLOAD, TOKEN] {
                let mut windows = message.windows(secret.len());
                assert!(
                    !windows.any(|window| window == secret.as_bytes()),
                    "{secret}"
                );
            }
            // Each message of gRPC has one byte and its length before it.
            let request = ExportRequest::decode(&message[5..]).unwrap();
            let scopes = request
                .resource_spans
                .into_iter()
                .flat_map(|r| r.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
        }
        let of = |name: &str| -> Vec<_> { spans.iter().filter(|s| s.name == name).collect() };
        let appends = of("deed.v1.Ledger/Append");
        assert_eq!(appends.len(), 2, "{spans:?}");
        for append in appends {
            assert_eq!(hex::encode(&append.trace_id), TRACE);
            assert_eq!(hex::encode(&append.parent_span_id), CALLER);
        }
        let created = of("deed.v1.Ledger/CreateLedger");
        assert_eq!(created.len(), 1, "{spans:?}");
        assert!(
            created[0].parent_span_id.is_empty(),
            "it has no caller: {created:?}"
        );
    });
}

#[test]
fn a_collector_that_is_not_there_holds_nothing_up() {
    run(async {
        // This port was free a moment ago, and nothing listens on it.
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", socket.local_addr().unwrap());
        drop(socket);
        let export = TraceExport::begin(&OtlpOptions {
            endpoint,
            queue_spans: 2,
            timeout_ms: 200,
        })
        .unwrap();
        let collecting = observe(tracing_subscriber::registry().with(export.layer()));
        exercise(&[]).await;
        drop(collecting);
        tokio::task::spawn_blocking(move || export.end())
            .await
            .unwrap();
    });
}

#[test]
fn json_logs_parse_line_by_line_and_hold_no_payload_and_no_token() {
    run(async {
        let lines = Lines::default();
        let json = tracing_subscriber::fmt::layer()
            .json()
            .with_writer(lines.clone())
            .with_filter(EnvFilter::new(
                "deed_server=trace,deed_engine=trace,tonic=debug,info",
            ));
        let logging = observe(tracing_subscriber::registry().with(json));
        let token = format!("Bearer {TOKEN}");
        let caller = format!("00-{TRACE}-{CALLER}-01");
        let (good, bad) = exercise(&[
            ("x-request-id", "Run-7.try_2"),
            ("authorization", &token),
            ("traceparent", &caller),
        ])
        .await;
        drop(logging);
        for headers in [good, bad] {
            assert_eq!(headers.get("x-request-id").unwrap(), "Run-7.try_2");
        }
        let text = lines.text();
        let mut ended = Vec::new();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                line["timestamp"].is_string() && line["level"].is_string(),
                "{line}"
            );
            if line["fields"]["message"] == "ended" && line["span"]["request_id"] == "Run-7.try_2" {
                assert_eq!(line["span"]["rpc"], "deed.v1.Ledger/Append", "{line}");
                assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
                ended.push(line["fields"]["status"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(ended, ["Ok", "InvalidArgument"], "{text}");
        for secret in [PAYLOAD, TOKEN] {
            assert!(!text.contains(secret), "{text}");
        }
    });
}
