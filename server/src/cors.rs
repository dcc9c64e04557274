//! CORS headers: a page in a browser may read checkpoints and hash tiles, so that it can verify a
//! ledger.
//!
//! A browser shows a page the answer of another origin only if that says so. Paths that need a role
//! say nothing, also where access control is off: such a server listens on a developer's machine, and
//! a web page there must not read the entries of its ledgers.
//!
//! Source: the Fetch standard, section 3.2, CORS protocol.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};

use crate::access::table::{Method, Need};

/// The methods that a page may use for an open path.
const METHODS: &str = "GET, HEAD";

/// Seconds for which a browser may remember the answer to its question: it never changes.
const REMEMBERED: &str = "86400";

/// Returns true if `method` needs no role of any caller.
fn is_open(method: Method) -> bool {
    method.row().need == Need::Open
}

/// Lets pages read an answer, if `method` needs no role.
pub(crate) fn readable(method: Method, mut response: Response<Body>) -> Response<Body> {
    if is_open(method) {
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
    }
    response
}

/// Answers a browser that asks, with OPTIONS, whether a page may ask for `method`. Any header may
/// be sent along, because none is read; by the standard, `authorization` is not one of them.
pub(crate) fn preflight(method: Method) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let allowed: &[(HeaderName, &'static str)] = if is_open(method) {
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
    readable(method, response)
}
