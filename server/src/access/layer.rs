//! The layer that every request passes, over gRPC and HTTP alike: who is it, and may somebody
//! like that ask for this at all.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Status, body::Body};
use tower::{BoxError, Layer, Service};

use super::{
    Access, Caller, SAY_WHO, Who,
    table::{Method, Need},
};
use crate::{
    listener::{Connection, activity::OpenRequest},
    status::Refusal,
};

/// Below this are the paths of tiles. Which of them it is, is known when the path was parsed, and
/// one path can be written in several ways; so it is the handler that looks into the table.
const TILES: &str = "/logs/";

/// Makes [`Authenticated`] services.
#[derive(Clone)]
pub(crate) struct AccessLayer {
    pub(crate) access: Arc<Access>,
    /// Within this time the body of a request that is no stream must have come.
    pub(crate) body_within: Duration,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated {
            layer: self.clone(),
            inner,
        }
    }
}

/// A service whose requests carry a [`Caller`].
#[derive(Clone)]
pub(crate) struct Authenticated<S> {
    layer: AccessLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let connection = request.extensions().get().cloned();
        let connection = connection.unwrap_or_else(Connection::none);
        let open = connection.activity.begin_request();
        let method = Method::of_rpc(request.uri().path());
        match self.layer.admit(&request, method, &connection) {
            Err(refusal) => {
                let response = answer(&request, refusal);
                Box::pin(async move { Ok(response) })
            }
            Ok(caller) => {
                // Nobody behind this needs it, so nobody behind this can let it out.
                request.headers_mut().remove(header::AUTHORIZATION);
                request.extensions_mut().insert(caller);
                if method.is_none_or(|method| !method.row().streams_in) {
                    request = request.map(|body| within(self.layer.body_within, body));
                }
                let answered = self.inner.call(request);
                Box::pin(async move {
                    let response = answered.await.map_err(Into::into)?;
                    Ok(response.map(|body| Body::new(Held { body, _open: open })))
                })
            }
        }
    }
}

impl AccessLayer {
    fn admit(
        &self,
        request: &Request<Body>,
        method: Option<Method>,
        connection: &Connection,
    ) -> Result<Caller, Refusal> {
        let caller = |who| Caller {
            access: Some(Arc::clone(&self.access)),
            who,
            connection: connection.clone(),
        };
        let path = request.uri().path();
        let who = self
            .access
            .authenticate(request.headers(), connection)
            .inspect_err(|refusal| caller(Who::Anonymous).say_refused(path, None, refusal))?;
        let caller = caller(who);
        let open = match method {
            Some(method) => method.row().need == Need::Open,
            None => path.starts_with(TILES),
        };
        if matches!(caller.who, Who::Anonymous) && !open {
            let refusal = Refusal::Unauthenticated(SAY_WHO.to_owned());
            caller.say_refused(path, None, &refusal);
            return Err(refusal);
        }
        Ok(caller)
    }
}

/// A refusal in the words of whoever asked: gRPC or HTTP.
fn answer(request: &Request<Body>, refusal: Refusal) -> Response<Body> {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        return Status::from(refusal).into_http();
    }
    crate::http::refused(refusal).map(Body::new)
}

/// A response's body: as long as it is there, the request counts as open.
struct Held {
    body: Body,
    _open: OpenRequest,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body that must end in time: what it has sent so far takes up memory.
struct Within {
    body: Body,
    sleep: Pin<Box<Sleep>>,
    bound: Duration,
}

fn within(bound: Duration, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Within {
        body,
        sleep: Box::pin(tokio::time::sleep(bound)),
        bound,
    })
}

impl hyper::body::Body for Within {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.sleep.as_mut().poll(context));
        let message = format!(
            "the request was not sent within {} ms",
            self.bound.as_millis()
        );
        Poll::Ready(Some(Err(Status::deadline_exceeded(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
