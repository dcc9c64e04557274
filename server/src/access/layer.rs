//! The layer that every request passes, over gRPC and HTTP alike: it authenticates the caller, and
//! refuses early a caller who cannot have the role that is needed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header};
use hyper::body::Body as _;
use tonic::{Status, body::Body};
use tower::{BoxError, Layer, Service};

use super::{
    Access, Caller, SAY_WHO, Who,
    body::{ANONYMOUS_BODY_BYTES_MAX, Answer, Arriving, Kept, Stalls, too_much_of_nobody},
    head,
    table::{Method, Need},
};
use deed_engine::pressure::{Place, Pressure, answers::Made};

use crate::{
    listener::{Connection, activity::Activity, http1},
    status::ApiError,
};

/// Paths of tiles begin with this. One path can be written in several ways, and only the handler
/// that parsed it knows which kind of tile it names; so the handler looks into the table.
const TILES: &str = "/logs/";

/// Wraps services into [`Authenticated`].
#[derive(Clone)]
pub(crate) struct AccessLayer {
    pub(crate) access: Arc<Access>,
    pub(crate) pressure: Arc<Pressure>,
    /// Time within which the body of a request, or a message of a stream, must arrive.
    pub(crate) body_within: Duration,
    /// Time after which answers to anonymous callers end.
    pub(crate) anonymous_within: Duration,
    pub(crate) stalls: Arc<Stalls>,
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

/// A service that attaches a [`Caller`] to each request.
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
        let checked = http1::check(&request).and_then(|()| head::check(&request));
        if let Err((status, why)) = checked {
            connection.activity.refused();
            let response = if is_grpc(&request) {
                Status::resource_exhausted(why).into_http()
            } else {
                crate::status::http::malformed(request.version(), status, why).map(Body::new)
            };
            return Box::pin(async move { Ok(response) });
        }
        let method = Method::of_rpc(request.uri().path());
        match self.layer.admit(&request, method, &connection) {
            Err(refusal) => {
                // A refused request must not keep its connection from giving way to others.
                connection.activity.refused();
                let response = answer(is_grpc(&request), refusal);
                Box::pin(async move { Ok(response) })
            }
            Ok((caller, place)) => {
                let open = connection.activity.begin_request();
                let work = connection.activity.begin_work();
                if !caller.is_anonymous() {
                    connection.activity.set_known();
                }
                let AccessLayer {
                    body_within,
                    anonymous_within,
                    ..
                } = self.layer;
                let stalls = Arc::clone(&self.layer.stalls);
                let anonymous = caller.is_anonymous();
                let grpc = is_grpc(&request);
                let undecoded = caller.undecoded(&self.layer.pressure);
                let stream = method.is_some_and(|method| method.row().streams_in);
                // Streams that record something are in work until they end, all else until it is
                // answered.
                let records =
                    stream && method.is_some_and(|method| method.row().need != Need::Open);
                // Nothing behind this layer needs the token, so it is removed and cannot leak.
                head::lighten(&mut request);
                let (parts, body) = request.into_parts();
                let body = match Arriving::wrap(body, undecoded, anonymous, stream, body_within) {
                    Ok(body) => body,
                    Err(refusal) => {
                        let response = answer(grpc, refusal);
                        return Box::pin(async move { Ok(response) });
                    }
                };
                let mut request = Request::from_parts(parts, body);
                request.extensions_mut().insert(caller);
                let answered = self.inner.call(request);
                let leaving = anonymous.then(|| Arc::clone(open.activity()));
                Box::pin(async move {
                    let answered = unless_leaving(answered, leaving).await;
                    let mut response = answered.ok_or(GAVE_WAY)?.map_err(Into::into)?;
                    let work = records.then_some(work);
                    let kept = response.extensions_mut().remove::<Kept>();
                    let made = response.extensions_mut().remove::<Made>();
                    let ends =
                        anonymous.then(|| ends(Arc::clone(open.activity()), anonymous_within));
                    Ok(response.map(|body| {
                        stalls.watch(Answer {
                            body,
                            open,
                            _work: work,
                            _kept: kept,
                            made,
                            _place: place,
                            ends,
                            grpc,
                        })
                    }))
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
    ) -> Result<(Caller, Option<Place>), ApiError> {
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
            let refusal = ApiError::Unauthenticated(SAY_WHO.to_owned());
            caller.say_refused(path, None, &refusal);
            return Err(refusal);
        }
        // This happens before anything of the body is read: a caller without such a role in any
        // ledger will be refused, whatever the request says.
        if let Some(method) = method
            && caller.principal().is_some()
        {
            caller.require_somewhere(method)?;
        }
        let announced = request.body().size_hint().lower();
        if caller.is_anonymous() && announced > ANONYMOUS_BODY_BYTES_MAX as u64 {
            return Err(too_much_of_nobody());
        }
        // These streams belong to services that know nothing of places; the other handlers take a
        // place where the ledger is known.
        let place = match method {
            Some(Method::HealthWatch | Method::Reflection) => {
                let source = caller.source(&self.pressure);
                Some(self.pressure.open_read_stream(&source, None)?)
            }
            _ => None,
        };
        Ok((caller, place))
    }
}

/// Error text that ends a connection of HTTP/1, or a stream of HTTP/2.
const GAVE_WAY: &str = "the connection gives way to another";

/// Waits for an answer, or until its connection must leave. The transport alone does not notice
/// that: while it waits for an answer over HTTP/1 and has another request at hand, it neither reads
/// nor writes.
async fn unless_leaving<T>(
    answered: impl Future<Output = T>,
    of: Option<Arc<Activity>>,
) -> Option<T> {
    let Some(activity) = of else {
        return Some(answered.await);
    };
    tokio::select! {
        biased;
        answered = answered => Some(answered),
        () = activity.leaving() => None,
    }
}

/// Completes when the answer to an anonymous caller must end, whatever remains to be sent.
fn ends(activity: Arc<Activity>, within: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        tokio::select! {
            () = activity.leaving() => {}
            () = tokio::time::sleep(within) => {}
        }
    })
}

/// Turns a refusal into the caller's protocol: gRPC if `grpc` is true, HTTP otherwise.
fn answer(grpc: bool, refusal: ApiError) -> Response<Body> {
    if grpc {
        return Status::from(refusal).into_http();
    }
    crate::status::http::refused(refusal).map(Body::new)
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
