//! Errors over HTTP: the same words as over gRPC.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, Version, header},
};
use bytes::Bytes;

use super::ApiError;

/// For answers that need a role, and so are for one caller only: a cache in front of the server
/// does not check who calls.
pub(crate) const NO_CACHE: &str = "no-store";

/// Makes an answer whose media type browsers must not guess.
pub(crate) fn answer(
    media_type: &'static str,
    cache: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Turns a refusal into an HTTP response with the same message as over gRPC.
pub(crate) fn refused(refusal: ApiError) -> Response<Body> {
    let code = match refusal {
        ApiError::Malformed(_) => StatusCode::BAD_REQUEST,
        ApiError::NotFound(_) | ApiError::BeyondTree { .. } => StatusCode::NOT_FOUND,
        ApiError::AlreadyExists(_) => StatusCode::CONFLICT,
        ApiError::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
        ApiError::Precondition { .. } => StatusCode::CONFLICT,
        ApiError::Quota { .. } | ApiError::Full(_) => StatusCode::TOO_MANY_REQUESTS,
        ApiError::Overloaded { .. }
        | ApiError::Behind { .. }
        | ApiError::Superseded { .. }
        | ApiError::Unavailable(_)
        | ApiError::NoSpace(_) => StatusCode::SERVICE_UNAVAILABLE,
        ApiError::Damaged(_) | ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let status: tonic::Status = refusal.into();
    let mut response = text(code, status.message().to_owned());
    // RFC 9110 section 15.5.2: a 401 names the accepted scheme.
    if code == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Refuses a malformed request, and over HTTP/1 closes its connection. HTTP/2 has no such header
/// (RFC 9113 section 8.2.2), and its connection carries other requests.
pub(crate) fn malformed(version: Version, code: StatusCode, why: &str) -> Response<Body> {
    let mut response = text(code, why.to_owned());
    if version <= Version::HTTP_11 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Makes an answer of plain text.
pub(crate) fn text(code: StatusCode, what: String) -> Response<Body> {
    let mut response = answer(
        "text/plain; charset=utf-8",
        NO_CACHE,
        Bytes::from(what + "\n"),
    );
    *response.status_mut() = code;
    response
}
