//! The work around every request: its id, its span, its metrics.

use std::{
    fmt::Write as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::body::HttpBody;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Frame, SizeHint};
use opentelemetry::trace::TraceContextExt as _;
use tonic::Code;
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::trace_context;
use deed_engine::metrics::{CODES, Metrics, Rpc};

/// Header that carries the id of a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a caller that is used, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Wraps a service with ids, spans and metrics. The service may be tonic's or axum's.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    metrics: Arc<Metrics>,
    ids: Arc<Ids>,
}

impl Requests {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            ids: Arc::new(Ids::new()),
        }
    }
}

impl<S> Layer<S> for Requests {
    type Service = Observing<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observing {
            inner,
            requests: self.clone(),
        }
    }
}

/// A service whose requests are observed.
#[derive(Debug, Clone)]
pub(crate) struct Observing<S> {
    inner: S,
    requests: Requests,
}

impl<S, B, A> Service<Request<B>> for Observing<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = Response<ObservedBody<A>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let metrics = &self.requests.metrics;
        let rpc = metrics.rpc(request.uri().path());
        let id = self.requests.ids.of(request.headers());
        let span = span(metrics.rpc_name(rpc), &id, request.headers());
        let mut ending = Ending {
            metrics: Arc::clone(metrics),
            rpc,
            began: Instant::now(),
            status: None,
            span: span.clone(),
        };
        // The call itself belongs to the span, too: a service may work there.
        let answering = span.in_scope(|| self.inner.call(request));
        let answering = async move {
            let mut response = answering.await?;
            ending.status = status_of_head(&response);
            response.headers_mut().insert(REQUEST_ID, id);
            Ok(response.map(|inner| ObservedBody { inner, ending }))
        };
        Box::pin(answering.instrument(span))
    }
}

fn span(rpc: &str, id: &HeaderValue, headers: &HeaderMap) -> Span {
    let id = id.to_str().unwrap_or_default();
    let caller = trace_context::caller(headers);
    let span = tracing::info_span!(
        target: "deed_server::request",
        "request",
        otel.name = rpc,
        rpc,
        request_id = id,
        trace_id = tracing::field::Empty,
        status = tracing::field::Empty,
    );
    if let Some(caller) = caller {
        span.record("trace_id", tracing::field::display(caller.trace_id()));
        let context = opentelemetry::Context::new().with_remote_span_context(caller);
        // This fails if traces are not collected, and then it is not needed.
        let _ = span.set_parent(context);
    }
    span
}

/// Reports the end of a request. If it is dropped before the end, the caller has gone.
#[derive(Debug)]
struct Ending {
    metrics: Arc<Metrics>,
    rpc: Rpc,
    began: Instant,
    status: Option<Code>,
    span: Span,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let status = self.status.unwrap_or(Code::Cancelled);
        let took = self.began.elapsed();
        const { assert!(Code::Unauthenticated as usize + 1 == CODES) };
        self.metrics.answered(self.rpc, status as usize, took);
        self.span.record("status", tracing::field::debug(status));
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(target: "deed_server::request", parent: &self.span, ?status, took_us, "ended");
    }
}

/// Returns the status that an answer's head has, if any: in gRPC it is there if the answer has no
/// message, over HTTP always.
fn status_of_head<A>(response: &Response<A>) -> Option<Code> {
    let is_grpc = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/grpc"));
    match status_of_trailers(response.headers()) {
        Some(status) => Some(status),
        None if is_grpc => None,
        None => Some(status_of_http(response.status())),
    }
}

fn status_of_trailers(trailers: &HeaderMap) -> Option<Code> {
    let status = trailers.get(tonic::Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// Returns the gRPC status for an HTTP status, the inverse of [`crate::http`]'s mapping, so that
/// both are counted alike.
fn status_of_http(status: StatusCode) -> Code {
    match status {
        status if status.is_success() || status.is_redirection() => Code::Ok,
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::CONFLICT => Code::FailedPrecondition,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_server_error() => Code::Internal,
        _ => Code::Unknown,
    }
}

/// An answer's body, which reports its end.
#[derive(Debug)]
pub(crate) struct ObservedBody<A> {
    inner: A,
    ending: Ending,
}

impl<A: HttpBody + Unpin> HttpBody for ObservedBody<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        // Whatever a stream does while it is polled belongs to its request.
        let _entered = this.ending.span.enter();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(status) = frame.trailers_ref().and_then(status_of_trailers)
        {
            this.ending.status = Some(status);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Makes request ids: a random part for the process, and a counter.
#[derive(Debug)]
struct Ids {
    process: [u8; 8],
    next: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        let mut process = [0; 8];
        // Without randomness ids repeat after a restart, which does no harm to requests.
        let _ = getrandom::fill(&mut process);
        Self {
            process,
            next: AtomicU64::new(0),
        }
    }

    /// Returns the caller's id if it is valid, or else a new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(REQUEST_ID) {
            Some(id) if is_request_id(id.as_bytes()) => id.clone(),
            _ => self.fresh(),
        }
    }

    fn fresh(&self) -> HeaderValue {
        let mut id = hex::encode(self.process);
        let _ = write!(id, "-{:x}", self.next.fetch_add(1, Relaxed));
        HeaderValue::try_from(id).expect("hexadecimal digits and a hyphen")
    }
}

/// Returns true if a caller's id is 1 to 64 of `A-Z a-z 0-9 . _ -`: it is put into log lines
/// unchanged.
fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn of(id: &[u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
        Ids::new().of(&headers)
    }

    #[test]
    fn a_callers_id_is_taken_over_if_it_is_one() {
        let longest = [b'a'; REQUEST_ID_BYTES_MAX];
        for good in [&b"a"[..], b"Run-7.retry_2", &longest] {
            assert_eq!(of(good).as_bytes(), good);
        }
        let too_long = [b'a'; REQUEST_ID_BYTES_MAX + 1];
        for bad in [
            &b""[..],
            b"two words",
            b"a\"b",
            b"a=b",
            &too_long,
            b"\xc3\xa9",
        ] {
            assert_ne!(of(bad).as_bytes(), bad);
            assert!(is_request_id(of(bad).as_bytes()));
        }
    }

    #[test]
    fn made_ids_differ() {
        let ids = Ids::new();
        assert_ne!(ids.fresh(), ids.fresh());
        assert_ne!(ids.fresh(), Ids::new().fresh());
    }

    #[tokio::test]
    async fn a_request_is_counted_with_the_status_that_its_trailers_say() {
        let metrics = Arc::new(Metrics::new(&[tonic_health::pb::FILE_DESCRIPTOR_SET]));
        let health = "grpc.health.v1.Health/Check";
        assert_eq!(metrics.rpc_name(metrics.rpc(&format!("/{health}"))), health);
        let answer = |trailers: Option<&'static str>| {
            let service = tower::service_fn(move |_: Request<()>| async move {
                let mut response = Response::new(Trailing(trailers));
                let media_type = HeaderValue::from_static("application/grpc");
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, media_type);
                Ok::<_, std::convert::Infallible>(response)
            });
            let mut service = Requests::new(Arc::clone(&metrics)).layer(service);
            let request = Request::post("/deed.v1.Ledger/Append").body(()).unwrap();
            let answering = service.call(request);
            async move {
                let response = answering.await.unwrap();
                assert!(response.headers().contains_key(REQUEST_ID));
                // The body is read to its end, or dropped before.
                if trailers.is_some() {
                    let body = Body::new(response.into_body());
                    axum::body::to_bytes(body, 1).await.unwrap();
                }
            }
        };
        answer(Some("0")).await;
        answer(Some("0")).await;
        answer(Some("8")).await;
        answer(None).await;
        let text = metrics.to_text(deed_engine::metrics::Observed::default());
        for line in [
            r#"deed_requests_total{rpc="deed.v1.Ledger/Append",status="OK"} 2"#,
            r#"deed_requests_total{rpc="deed.v1.Ledger/Append",status="RESOURCE_EXHAUSTED"} 1"#,
            r#"deed_requests_total{rpc="deed.v1.Ledger/Append",status="CANCELLED"} 1"#,
            r#"deed_request_seconds_count{rpc="deed.v1.Ledger/Append"} 4"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    /// A body that has only trailers.
    struct Trailing(Option<&'static str>);

    impl HttpBody for Trailing {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
            Poll::Ready(self.0.take().map(|status| {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(status));
                Ok(Frame::trailers(trailers))
            }))
        }
    }
}
