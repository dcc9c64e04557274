//! Pages in a browser: any of them may read what anybody may read, so that it can verify a ledger.
//!
//! A browser shows a page the answer of another origin only if that says so. Paths that want a role
//! say nothing: a page cannot send a client certificate or a token of its visitor to them.
//!
//! Source: the Fetch standard, section 3.2, CORS protocol.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};

use crate::access::{Caller, table::Method};

/// What may be asked of an open path.
const METHODS: &str = "GET, HEAD";

/// Seconds for which a browser may remember the answer to its question: it never changes.
const REMEMBERED: &str = "86400";

/// Lets pages read an answer, if anybody may ask for `method`.
pub(crate) fn readable(
    caller: &Caller,
    method: Method,
    mut response: Response<Body>,
) -> Response<Body> {
    if caller.anybody_may(method) {
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
    }
    response
}

/// Answers a browser that asks, with OPTIONS, whether a page may ask for `method`. Any header may be
/// sent along, for none is looked at; `authorization` is none of them, by the standard.
pub(crate) fn preflight(caller: &Caller, method: Method) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let allowed: &[(HeaderName, &'static str)] = if caller.anybody_may(method) {
        *response.status_mut() = StatusCode::NO_CONTENT;
        &[
            (header::ALLOW, "GET, HEAD, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
            (header::ACCESS_CONTROL_MAX_AGE, REMEMBERED),
        ]
    } else {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        &[(header::ALLOW, METHODS)]
    };
    for (name, value) in allowed {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    readable(caller, method, response)
}
