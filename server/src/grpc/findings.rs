//! `Actions.ListFindings` and `Actions.WatchFindings`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use deed_evidence::TaskId;
use deed_proto::v1;
use deed_tlog::TreeSize;
use tokio::time::{Instant, sleep_until};
use tonic::Response;

use super::{
    Answers, Context,
    answer::{Messages, Reading, Step},
    stopping,
};
use deed_engine::{
    ledger::{Ledger, read::Heads},
    pressure::answers::CHUNK_ROOM,
    store::{LedgerNumber, Store, search::FindingAt},
};

use crate::{
    access::{Caller, table::Method},
    status::ApiError,
};

/// Most findings on a page, and their number if the request names none.
const PAGE_MAX: u32 = 1_000;
const PAGE_DEFAULT: u32 = 100;

/// Most findings in one message of a stream.
const WATCH_FINDINGS: usize = 128;

/// Most findings that one read examines.
const LOOKED_AT_MAX: usize = 16_384;

/// Time between two messages that bring no findings and say only how far the search has come.
const QUIET_INTERVAL: Duration = Duration::from_secs(1);

/// The filter of a request.
struct Wanted {
    kinds: Vec<i32>,
    severity_min: i32,
    task: Bytes,
}

impl Wanted {
    fn parse(kinds: Vec<i32>, severity_min: i32, task: Bytes) -> Result<Self, ApiError> {
        let unknown = |kind: &&i32| v1::FindingKind::try_from(**kind).is_err();
        if let Some(kind) = kinds.iter().find(unknown) {
            let what = format!("{kind} is no kind of finding that is known here");
            return Err(ApiError::field("kinds", what));
        }
        if v1::Severity::try_from(severity_min).is_err() {
            let what = format!("{severity_min} is no severity that is known here");
            return Err(ApiError::field("severity_min", what));
        }
        if !task.is_empty() && TaskId::from_slice(&task).is_none() {
            let what = format!("{} bytes where 16 are wanted", task.len());
            return Err(ApiError::field("task", what));
        }
        Ok(Self {
            kinds,
            severity_min,
            task,
        })
    }

    fn holds(&self, finding: &v1::Finding) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&finding.kind))
            && finding.severity >= self.severity_min
            && (self.task.is_empty() || self.task == finding.task)
    }

    /// Reads the findings that match, in a tree of `size` leaves, from `from` on, at most `room` of
    /// them; returns them, and where to go on if there may be more.
    fn read(
        &self,
        store: &Store,
        ledger: LedgerNumber,
        size: TreeSize,
        from: FindingAt,
        room: usize,
    ) -> Result<(Vec<v1::Finding>, Option<FindingAt>), ApiError> {
        let mut found = Vec::new();
        for (looked_at, item) in store.findings(ledger, from).enumerate() {
            let (at, finding) = item?;
            // The store may be a turn ahead of the published tree.
            if at.leaf >= size.get() {
                break;
            }
            if found.len() == room || looked_at == LOOKED_AT_MAX {
                return Ok((found, Some(at)));
            }
            if self.holds(&finding) {
                found.push(finding);
            }
        }
        Ok((found, None))
    }
}

/// A request for a page of findings.
pub(super) struct List {
    wanted: Wanted,
    from: FindingAt,
    room: usize,
}

/// Reads findings of a task from a position on, a bounded number at a time.
pub(super) fn of_task(
    store: &Store,
    ledger: LedgerNumber,
    size: TreeSize,
    task: TaskId,
    from: FindingAt,
) -> Result<(Vec<v1::Finding>, Option<FindingAt>), ApiError> {
    let wanted = Wanted {
        kinds: Vec::new(),
        severity_min: 0,
        task: Bytes::copy_from_slice(task.as_bytes()),
    };
    wanted.read(store, ledger, size, from, WATCH_FINDINGS)
}

impl List {
    pub(super) fn parse(request: v1::ListFindingsRequest) -> Result<Self, ApiError> {
        let room = match request.page_size {
            0 => PAGE_DEFAULT,
            size if size <= PAGE_MAX => size,
            size => {
                let what = format!("{size} where {PAGE_MAX} is the most");
                return Err(ApiError::field("page_size", what));
            }
        };
        Ok(Self {
            wanted: Wanted::parse(request.kinds, request.severity_min, request.task)?,
            from: FindingAt {
                leaf: request.start_leaf,
                number: request.start_number,
            },
            room: room as usize,
        })
    }

    pub(super) fn page(
        &self,
        store: &Store,
        ledger: &Ledger,
    ) -> Result<v1::ListFindingsResponse, ApiError> {
        let readable = ledger.readable();
        let (findings, next) =
            self.wanted
                .read(store, ledger.number, readable.size(), self.from, self.room)?;
        Ok(v1::ListFindingsResponse {
            findings,
            next_leaf: next.map(|at| at.leaf),
            next_number: next.map_or(0, |at| at.number),
            checkpoint: readable.checkpoint.clone(),
        })
    }
}

/// Returns the stream of a ledger's findings.
pub(super) fn watch(
    context: &Context,
    caller: Caller,
    ledger: &Arc<Ledger>,
    request: v1::WatchFindingsRequest,
) -> Result<Response<Answers<v1::WatchFindingsResponse>>, ApiError> {
    let wanted = Wanted::parse(request.kinds, request.severity_min, Bytes::new())?;
    let mut heads = ledger.watch();
    // The tree that is published now is examined first.
    heads.mark_changed();
    let reading = context.open_reading(caller, Method::WatchFindings, ledger)?;
    let watching = Watching {
        wanted: Arc::new(wanted),
        from: FindingAt {
            leaf: request.start_leaf,
            number: request.start_number,
        },
        more: false,
        said: None,
        heads,
    };
    Ok(reading.stream(None, Some(watching)))
}

/// A stream of findings.
struct Watching {
    heads: Heads,
    wanted: Arc<Wanted>,
    from: FindingAt,
    /// True if there is more to examine in the tree that was examined last.
    more: bool,
    /// Time of the last message; `None` before the first.
    said: Option<Instant>,
}

impl Messages for Watching {
    type Message = v1::WatchFindingsResponse;

    async fn next(mut self, reading: &Reading) -> Step<v1::WatchFindingsResponse, Self> {
        // The answer without findings, which is sent when it is time for one.
        let mut quiet = None;
        loop {
            if !self.more {
                let due = self
                    .said
                    .map_or_else(Instant::now, |said| said + QUIET_INTERVAL);
                tokio::select! {
                    biased;
                    () = reading.context.stopped() => return Err(stopping()),
                    () = sleep_until(due), if quiet.is_some() => {
                        if let Some(answer) = quiet.take() {
                            self.said = Some(Instant::now());
                            return Ok((Some(answer), Some(self)));
                        }
                    }
                    changed = self.heads.changed() => changed.map_err(|_| stopping())?,
                }
            }
            let share = reading.take_room(CHUNK_ROOM).await?;
            let answer = self.look(reading).await?;
            if !answer.findings.is_empty() {
                reading.made(share, &answer);
                self.said = Some(Instant::now());
                return Ok((Some(answer), Some(self)));
            }
            quiet = Some(answer);
        }
    }
}

impl Watching {
    /// Examines a bounded number of findings in the published tree.
    async fn look(&mut self, reading: &Reading) -> Result<v1::WatchFindingsResponse, ApiError> {
        reading.require()?;
        let readable = self.heads.borrow_and_update().clone();
        let (ledger, wanted) = (reading.ledger.number, Arc::clone(&self.wanted));
        let store = Arc::clone(reading.context.registry.store());
        let (from, size) = (self.from, readable.size());
        let read = move || wanted.read(&store, ledger, size, from, WATCH_FINDINGS);
        let (findings, next) = reading.read(read).await?;
        self.more = next.is_some();
        // A reader may begin at leaves that are still to come.
        let looked_to = FindingAt::leaf(readable.size().get()).max(self.from);
        self.from = next.unwrap_or(looked_to);
        Ok(v1::WatchFindingsResponse {
            findings,
            searched_to: self.from.leaf.min(readable.size().get()),
            checkpoint: readable.checkpoint.clone(),
        })
    }
}
