//! The C2SP tlog-tiles read interface, for tools of other projects.
//!
//! ```text
//! GET /logs/<ledger>/checkpoint
//! GET /logs/<ledger>/tile/<level>/<index>[.p/<width>]
//! GET /logs/<ledger>/tile/entries/<index>[.p/<width>]
//! ```

use std::{ops::Range, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Response, StatusCode},
    routing::get,
};
use bytes::Bytes;
use deed_engine::{
    ledger::Ledger,
    pressure::answers::{AnswerPermit, CHUNK_BYTES, CHUNK_ROOM, PROOF_ROOM},
};
use deed_tlog::{EntryBundleId, TilePath, encode_entry_bundle, tile_bytes};
use futures::{StreamExt as _, stream};

use crate::{
    access::{Caller, table::Method},
    context::Context,
    cors,
    status::{
        ApiError,
        http::{NO_CACHE, answer, refused, text},
    },
};

/// Caches may serve a checkpoint that is this old.
const CHECKPOINT_CACHE: &str = "public, max-age=1";

/// Tiles and entries never change.
const TILE_CACHE: &str = "public, max-age=31536000, immutable";

/// The routes, each with the methods that its paths may stand for.
pub(crate) const ROUTES: [(&str, &[Method]); 2] = [
    ("/logs/{ledger}/checkpoint", &[Method::Checkpoint]),
    (
        "/logs/{ledger}/tile/{*path}",
        &[Method::HashTile, Method::EntryBundle],
    ),
];

/// Returns the router for [`ROUTES`].
pub(crate) fn router(context: Context) -> Router {
    let [(checkpoints, _), (tiles, _)] = ROUTES;
    Router::new()
        .route(checkpoints, get(checkpoint).options(may_get_checkpoint))
        .route(tiles, get(tile).options(may_get_tile))
        .with_state(context)
}

async fn checkpoint(
    State(context): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
) -> Response<Body> {
    let response = match context.ledger(&caller, Method::Checkpoint, &name).await {
        Ok(ledger) => {
            let checkpoint = ledger.readable().checkpoint.clone();
            let cache = cache(&caller, Method::Checkpoint, CHECKPOINT_CACHE);
            answer("text/plain; charset=utf-8", cache, checkpoint)
        }
        Err(refusal) => refused(refusal),
    };
    cors::readable(Method::Checkpoint, response)
}

async fn may_get_checkpoint() -> Response<Body> {
    cors::preflight(Method::Checkpoint)
}

async fn may_get_tile(Path(path): Path<(String, String)>) -> Response<Body> {
    match tile_path(&path.1) {
        Some((_, method)) => cors::preflight(method),
        None => not_found("not a tile's path"),
    }
}

/// Parses a tile's path; returns it with the method that it stands for. The parsed path counts, and
/// not how it is written: %65ntries are entries, too.
fn tile_path(path: &str) -> Option<(TilePath, Method)> {
    let path = TilePath::parse(&format!("tile/{path}")).ok()?;
    let method = match path {
        TilePath::Hashes(_) => Method::HashTile,
        TilePath::Entries(_) => Method::EntryBundle,
    };
    Some((path, method))
}

async fn tile(
    State(context): State<Context>,
    caller: Caller,
    Path((name, path)): Path<(String, String)>,
) -> Response<Body> {
    let Some((path, method)) = tile_path(&path) else {
        return not_found("not a tile's path");
    };
    let response = tile_of(context, &caller, (path, method), &name).await;
    cors::readable(method, response)
}

async fn tile_of(
    context: Context,
    caller: &Caller,
    (path, method): (TilePath, Method),
    name: &str,
) -> Response<Body> {
    let ledger = match context.ledger(caller, method, name).await {
        Ok(ledger) => ledger,
        Err(refusal) => return refused(refusal),
    };
    let room = caller.answer_room(&context.pressure);
    let cache = cache(caller, method, TILE_CACHE);
    let bundle = match path {
        TilePath::Hashes(tile) => {
            let read = async {
                let share = room.take(PROOF_ROOM).await?;
                let read = move || Ok((ledger.tile(&ledger.readable(), tile)?, share));
                context.read_for(caller, read).await
            };
            return match read.await {
                Ok((Some(hashes), share)) => {
                    let bytes = Bytes::from(tile_bytes(&hashes));
                    room.made(share, bytes.len());
                    charged(&room, cache, Body::from(bytes))
                }
                Ok((None, _)) => no_such_tile(),
                Err(refusal) => refused(refusal),
            };
        }
        TilePath::Entries(bundle) => bundle,
    };
    let Some(leaves) = leaves_of(&ledger, bundle) else {
        return no_such_tile();
    };
    let parts = Parts {
        context,
        caller: caller.clone(),
        ledger,
        room,
        leaves,
    };
    entries(parts, cache).await
}

/// Returns the Cache-Control of an answer: `public` if every caller may ask for it, else no-store.
fn cache(caller: &Caller, method: Method, public: &'static str) -> &'static str {
    if caller.anybody_may(method) {
        public
    } else {
        NO_CACHE
    }
}

/// Returns the leaves of a bundle of entries; `None` if the tree has fewer.
fn leaves_of(ledger: &Ledger, bundle: EntryBundleId) -> Option<Range<u64>> {
    let size = ledger.readable().size().get();
    let start = bundle.index().checked_mul(256)?;
    let end = start.checked_add(u64::from(bundle.width()))?;
    (end <= size).then_some(start..end)
}

/// A bundle that is sent in parts. Each part is made when the reader has taken the one before.
struct Parts {
    context: Context,
    caller: Caller,
    ledger: Arc<Ledger>,
    room: AnswerPermit,
    leaves: Range<u64>,
}

impl Parts {
    /// Returns the next entries, encoded as in a bundle.
    async fn next(&mut self) -> Result<Bytes, ApiError> {
        let share = self.room.take(CHUNK_ROOM).await?;
        self.caller
            .require(Method::EntryBundle, self.ledger.name())?;
        let (ledger, leaves) = (Arc::clone(&self.ledger), self.leaves.clone());
        let read = move || Ok((part(&ledger, leaves)?, share));
        let ((bytes, next), share) = self.context.read_for(&self.caller, read).await?;
        self.room.made(share, bytes.len());
        self.leaves.start = next;
        Ok(bytes)
    }
}

async fn entries(mut parts: Parts, cache: &'static str) -> Response<Body> {
    let room = parts.room.clone();
    let first = match parts.next().await {
        Ok(first) => first,
        Err(refusal) => return refused(refusal),
    };
    if parts.leaves.is_empty() {
        return charged(&room, cache, Body::from(first));
    }
    let later = stream::unfold(Some(parts), |parts| async {
        let mut parts = parts.filter(|parts| !parts.leaves.is_empty())?;
        match parts.next().await {
            Ok(bytes) => Some((Ok(bytes), Some(parts))),
            // The headers were sent already, so the only way to report the error is to break off
            // the body.
            Err(refusal) => Some((Err(tonic::Status::from(refusal)), None)),
        }
    });
    let all = stream::once(async { Ok(first) }).chain(later);
    charged(&room, cache, Body::from_stream(all))
}

/// Returns the entries of the first of these leaves, and the leaf after them.
fn part(ledger: &Ledger, leaves: Range<u64>) -> Result<(Bytes, u64), ApiError> {
    let (start, end) = (leaves.start, leaves.end);
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for item in ledger.entries(start, end) {
        let entry = item?.1;
        bytes += entry.len();
        entries.push(entry);
        if bytes >= CHUNK_BYTES {
            break;
        }
    }
    let next = start + entries.len() as u64;
    if next != end && bytes < CHUNK_BYTES {
        return Err(ApiError::Damaged(format!(
            "entries of {start}..{end} are missing"
        )));
    }
    let bytes = encode_entry_bundle(&entries)
        .map_err(|error| ApiError::Damaged(format!("entries of {start}..{next}: {error}")))?;
    Ok((bytes.into(), next))
}

/// Returns a response whose bytes keep their permit of the answer budget until they are sent.
fn charged(room: &AnswerPermit, cache: &'static str, body: Body) -> Response<Body> {
    let mut response = answer("application/octet-stream", cache, body);
    response.extensions_mut().insert(room.to_body());
    response
}

fn no_such_tile() -> Response<Body> {
    not_found("the tree has no such tile, or not so wide a one")
}

fn not_found(what: &str) -> Response<Body> {
    text(StatusCode::NOT_FOUND, what.to_owned())
}
