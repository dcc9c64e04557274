//! The C2SP tlog-tiles read interface, for tools that nobody here wrote.
//!
//! ```text
//! GET /logs/<ledger>/checkpoint
//! GET /logs/<ledger>/tile/<level>/<index>[.p/<width>]
//! GET /logs/<ledger>/tile/entries/<index>[.p/<width>]
//! ```

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, Response, StatusCode, header},
    routing::get,
};
use bytes::Bytes;
use deed_tlog::{EntryBundleId, TilePath, encode_entry_bundle, tile_bytes};

use crate::{
    access::{Caller, table::Method},
    grpc::Context,
    ledger::Ledger,
    status::Refusal,
};

/// A checkpoint may be as old as this when it is served from a cache.
const CHECKPOINT_CACHE: &str = "public, max-age=1";

/// Tiles and entries never change.
const TILE_CACHE: &str = "public, max-age=31536000, immutable";

/// Where a caller needs a role, what one was sent is for nobody else: a cache in front of the server
/// does not ask who calls.
const NO_CACHE: &str = "no-store";

/// The routes, each with what it answers.
pub(crate) const ROUTES: [(&str, &[Method]); 2] = [
    ("/logs/{ledger}/checkpoint", &[Method::Checkpoint]),
    (
        "/logs/{ledger}/tile/{*path}",
        &[Method::HashTile, Method::EntryBundle],
    ),
];

/// Answers all of [`ROUTES`].
pub(crate) fn router(context: Context) -> Router {
    let [(checkpoints, _), (tiles, _)] = ROUTES;
    Router::new()
        .route(checkpoints, get(checkpoint))
        .route(tiles, get(tile))
        .with_state(context)
}

async fn checkpoint(
    State(context): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
) -> Response<Body> {
    match context.ledger(&caller, Method::Checkpoint, &name).await {
        Ok(ledger) => {
            let checkpoint = ledger.readable().checkpoint.clone();
            let cache = cache(&caller, Method::Checkpoint, CHECKPOINT_CACHE);
            answer("text/plain; charset=utf-8", cache, checkpoint)
        }
        Err(refusal) => refused(refusal),
    }
}

async fn tile(
    State(context): State<Context>,
    caller: Caller,
    Path((name, path)): Path<(String, String)>,
) -> Response<Body> {
    let Ok(path) = TilePath::parse(&format!("tile/{path}")) else {
        return not_found("not a tile's path");
    };
    // By what was parsed, not by how it was written: %65ntries are entries too.
    let method = match path {
        TilePath::Hashes(_) => Method::HashTile,
        TilePath::Entries(_) => Method::EntryBundle,
    };
    let ledger = match context.ledger(&caller, method, &name).await {
        Ok(ledger) => ledger,
        Err(refusal) => return refused(refusal),
    };
    let read = context.read_for(&caller, move || match path {
        TilePath::Hashes(tile) => Ok(ledger
            .tile(&ledger.readable(), tile)?
            .map(|hashes| Bytes::from(tile_bytes(&hashes)))),
        TilePath::Entries(bundle) => entries(&ledger, bundle),
    });
    match read.await {
        Ok(Some(bytes)) => {
            let cache = cache(&caller, method, TILE_CACHE);
            answer("application/octet-stream", cache, bytes)
        }
        Ok(None) => not_found("the tree has no such tile, or not so wide a one"),
        Err(refusal) => refused(refusal),
    }
}

/// How an answer may be cached: by anybody if anybody may ask for it, or else by nobody.
fn cache(caller: &Caller, method: Method, public: &'static str) -> &'static str {
    if caller.anybody_may(method) {
        public
    } else {
        NO_CACHE
    }
}

/// A bundle of entries; `None` if the tree has not so many.
fn entries(ledger: &Ledger, bundle: EntryBundleId) -> Result<Option<Bytes>, Refusal> {
    let size = ledger.readable().size().get();
    let Some(start) = bundle.index().checked_mul(256) else {
        return Ok(None);
    };
    let Some(end) = start
        .checked_add(u64::from(bundle.width()))
        .filter(|&end| end <= size)
    else {
        return Ok(None);
    };
    let mut entries = Vec::with_capacity(usize::from(bundle.width()));
    for item in ledger.entries(start, end) {
        entries.push(item?.1);
    }
    if entries.len() != usize::from(bundle.width()) {
        return Err(Refusal::Damaged(format!(
            "entries of {start}..{end} are missing"
        )));
    }
    let bytes = encode_entry_bundle(&entries)
        .map_err(|error| Refusal::Damaged(format!("entries of {start}..{end}: {error}")))?;
    Ok(Some(bytes.into()))
}

fn answer(media_type: &'static str, cache: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn not_found(what: &str) -> Response<Body> {
    text(StatusCode::NOT_FOUND, what.to_owned())
}

/// The same words as over gRPC, with the status that HTTP has for them.
pub(crate) fn refused(refusal: Refusal) -> Response<Body> {
    let code = match refusal {
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::NotFound(_) | Refusal::BeyondTree { .. } => StatusCode::NOT_FOUND,
        Refusal::AlreadyExists(_) => StatusCode::CONFLICT,
        Refusal::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::Precondition { .. } => StatusCode::CONFLICT,
        Refusal::Quota { .. } | Refusal::Full(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Overloaded { .. } | Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Damaged(_) | Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let status: tonic::Status = refusal.into();
    let mut response = text(code, status.message().to_owned());
    // RFC 9110 section 15.5.2: a 401 says what would be accepted.
    if code == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Refuses a request that was not understood, and the connection that it came over.
pub(crate) fn malformed(code: StatusCode, why: &str) -> Response<Body> {
    let mut response = text(code, why.to_owned());
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn text(code: StatusCode, what: String) -> Response<Body> {
    let mut response = answer(
        "text/plain; charset=utf-8",
        NO_CACHE,
        Bytes::from(what + "\n"),
    );
    *response.status_mut() = code;
    response
}
