//! `Actions.Search`: parses the request and makes the stream of results.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{Micros, TaskId};
use deed_proto::v1;
use deed_tlog::{LeafIndex, TreeSize};
use tonic::Response;

use super::{Answers, Context, answer::Step};
use deed_engine::{
    append::hashes,
    ledger::{Ledger, PublishedTree},
    metrics::Metrics,
    pressure::answers::CHUNK_ROOM,
    search::query::{Bounds, Cursor, Page, Query},
    store::Store,
};

use crate::{
    access::{Caller, table::Method},
    status::ApiError,
};

/// Most entries of one search.
const LIMIT_MAX: u64 = 1_000_000;

/// Begins a search. The stream does the work: one step each time the caller has its turn.
pub(super) fn answers(
    context: &Context,
    caller: Caller,
    ledger: Arc<Ledger>,
    request: &v1::SearchRequest,
) -> Result<Response<Answers<v1::SearchResponse>>, ApiError> {
    let readable = ledger.readable();
    let (query, bounds) = parse(request, readable.size())?;
    let reading = context.open_reading(caller, Method::Search, &ledger)?;
    context.metrics.search();
    let searching = Searching {
        store: Arc::clone(context.registry.store()),
        metrics: Arc::clone(&context.metrics),
        query,
        bounds,
        cursor: None,
        page: Page::default(),
        with_proofs: request.with_proofs,
        checkpoint: readable.checkpoint.clone(),
        readable,
        ledger,
    };
    Ok(
        reading.stream_steps(None, Some(Box::new(searching)), CHUNK_ROOM, |searching| {
            searching.step()
        }),
    )
}

/// A search whose caller waits.
struct Searching {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    /// The tree that is searched, and under which results are proven.
    readable: Arc<PublishedTree>,
    query: Query,
    bounds: Bounds,
    /// `None` before the first step, because finding where a time begins reads the store.
    cursor: Option<Cursor>,
    page: Page,
    with_proofs: bool,
    /// The signed head, for the first message.
    checkpoint: Bytes,
}

impl Searching {
    fn step(mut self: Box<Self>) -> Step<v1::SearchResponse, Box<Self>> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => {
                let (number, size) = (self.ledger.number, self.readable.size().get());
                let (query, bounds) = (self.query.clone(), self.bounds.clone());
                Cursor::new(&self.store, number, size, query, bounds)?
            }
        };
        let looked = cursor.step(&self.store, &mut self.page)?;
        self.metrics.searched(looked);
        let done = cursor.is_done();
        if !done && !self.page.is_full() {
            self.cursor = Some(cursor);
            return Ok((None, Some(self)));
        }
        let answer = v1::SearchResponse {
            checkpoint: std::mem::take(&mut self.checkpoint),
            entries: self.proven()?,
            searched_to: cursor.searched_to(),
            indexed_to: cursor.indexed_to(),
        };
        self.cursor = Some(cursor);
        Ok((Some(answer), (!done).then_some(self)))
    }

    /// Returns the page's entries, with proofs if the request wants them.
    fn proven(&mut self) -> Result<Vec<v1::ProvenEntry>, ApiError> {
        let found = std::mem::take(&mut self.page).entries;
        let proofs = if self.with_proofs {
            let leaves: Vec<_> = found
                .iter()
                .map(|found| LeafIndex::new(found.leaf))
                .collect();
            self.ledger.inclusions(&self.readable, &leaves)?
        } else {
            Vec::new()
        };
        let mut proofs = proofs.iter().map(|proof| hashes(proof.hashes()));
        let entries = found.into_iter().map(|found| v1::ProvenEntry {
            leaf_index: found.leaf,
            entry: found.entry,
            inclusion_proof: proofs.next().unwrap_or_default(),
        });
        Ok(entries.collect())
    }
}

fn parse(request: &v1::SearchRequest, size: TreeSize) -> Result<(Query, Bounds), ApiError> {
    let bounds = bounds(request, size)?;
    for (field, id) in [("task", &request.task), ("trace_id", &request.trace_id)] {
        if !id.is_empty() && TaskId::from_slice(id).is_none() {
            let what = format!("{} bytes where 16 are wanted", id.len());
            return Err(ApiError::field(field, what));
        }
    }
    let finding = match request.finding() {
        v1::FindingKind::Unspecified if request.finding != 0 => {
            let what = format!(
                "{} is no kind of finding that is known here",
                request.finding
            );
            return Err(ApiError::field("finding", what));
        }
        v1::FindingKind::Unspecified => None,
        kind => Some(kind),
    };
    let query = Query {
        task: request.task.clone(),
        agent: request.agent.clone(),
        resource: request.resource.clone(),
        action: request.action.clone(),
        trace_id: request.trace_id.clone(),
        correlation_key: request.correlation_key.clone(),
        finding,
    };
    Ok((query, bounds))
}

fn bounds(request: &v1::SearchRequest, size: TreeSize) -> Result<Bounds, ApiError> {
    let end = match request.end {
        0 => size.get(),
        end => end,
    };
    for (what, asked) in [("start", request.start), ("end", end)] {
        if asked > size.get() {
            let message = format!("{what} {asked} is beyond the tree, which has {size} leaves");
            return Err(ApiError::BeyondTree { message, size });
        }
    }
    if request.start > end {
        let what = format!("{} is larger than end, which is {end}", request.start);
        return Err(ApiError::field("start", what));
    }
    for (field, time) in [("from_us", request.from_us), ("until_us", request.until_us)] {
        if time < 0 {
            return Err(ApiError::field(field, "must not be negative"));
        }
    }
    if request.until_us != 0 && request.until_us < request.from_us {
        let what = format!("must not be before from_us, which is {}", request.from_us);
        return Err(ApiError::field("until_us", what));
    }
    let limit = match request.limit {
        0 => u64::MAX,
        limit if limit <= LIMIT_MAX => limit,
        limit => {
            let what = format!("{limit} where {LIMIT_MAX} is the most, and 0 stands for no bound");
            return Err(ApiError::field("limit", what));
        }
    };
    let time = |us: i64| (us != 0).then(|| Micros::new(us));
    Ok(Bounds {
        leaves: request.start..end,
        from: time(request.from_us),
        until: time(request.until_us),
        limit,
    })
}
