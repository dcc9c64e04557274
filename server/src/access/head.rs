//! The head of a request: bounds on its size, and the fields of it that are kept.
//!
//! Header compression (RFC 7541) turns one byte into a field of a hundred bytes in memory, and a
//! request may wait for its body for a long time. So the number of fields is bounded, and while a
//! request is served only those fields are kept that are read behind the access layer.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header,
    uri::{Parts, PathAndQuery},
};

/// Most fields of one request's head.
const FIELDS_MAX: usize = 64;

/// Largest path and query of one request, in bytes. The longest path that is served is that of a
/// tile.
const TARGET_BYTES_MAX: usize = 1 << 10;

/// The fields that the bodies' codecs, the time limits of gRPC and the router read.
const NEEDED: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::HOST,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-timeout"),
];

/// Returns an error, with the HTTP answer to it, if the head is too large.
///
/// Source: RFC 6585 section 5, RFC 9110 section 15.5.15.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
    if request.headers().len() > FIELDS_MAX {
        let why = "the request's head has more than 64 fields";
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
    }
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        let why = "the request's path has more than 1,024 bytes";
        return Err((StatusCode::URI_TOO_LONG, why));
    }
    Ok(())
}

/// Drops all fields of the head that are not needed, and copies the rest into memory of its own, so
/// that the buffer in which the head arrived is released.
pub(super) fn lighten<B>(request: &mut Request<B>) {
    let all = std::mem::take(request.headers_mut());
    let mut needed = HeaderMap::with_capacity(NEEDED.len());
    for name in NEEDED {
        let value = all
            .get(&name)
            .map(|value| HeaderValue::from_bytes(value.as_bytes()));
        if let Some(Ok(value)) = value {
            needed.insert(name, value);
        }
    }
    *request.headers_mut() = needed;
    let path = request.uri().path();
    if let Ok(path) = PathAndQuery::try_from(path) {
        let mut parts = Parts::default();
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &Request<()>) -> Option<u16> {
        check(request).err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn heads_have_few_fields_and_short_paths() {
        let fields = |count: usize| {
            let fields = (0..count).map(|n| format!("x-{n}"));
            let request = fields.fold(Request::get("/"), |request, name| request.header(name, "a"));
            request.body(()).unwrap()
        };
        assert_eq!(status(&fields(FIELDS_MAX)), None);
        assert_eq!(status(&fields(FIELDS_MAX + 1)), Some(431));
        // A name that is repeated counts once for each field.
        let same = (0..=FIELDS_MAX).fold(Request::get("/"), |request, _| request.header("a", "b"));
        assert_eq!(status(&same.body(()).unwrap()), Some(431));
        let path = |bytes: usize| {
            let path = format!("/{}?b", "a".repeat(bytes - 3));
            Request::get(path).body(()).unwrap()
        };
        assert_eq!(status(&path(TARGET_BYTES_MAX)), None);
        assert_eq!(status(&path(TARGET_BYTES_MAX + 1)), Some(414));
    }

    #[test]
    fn nothing_stays_but_what_is_needed() {
        let mut request = Request::post("http://deed.test/deed.v1.Log/GetTreeHead?more")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "1S")
            .header("authorization", "Bearer secret")
            .header("user-agent", "somebody")
            .header("x-filler", "a")
            .body(())
            .unwrap();
        lighten(&mut request);
        assert_eq!(request.uri(), "/deed.v1.Log/GetTreeHead");
        let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "grpc-timeout"]);
    }
}
