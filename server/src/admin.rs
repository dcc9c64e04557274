//! The admin port: metrics and health, for those who run the server.
//!
//! ```text
//! GET /metrics   all metrics, as OpenMetrics text
//! GET /healthz   200 as long as the process answers
//! GET /readyz    200 if the server takes requests, or 503 and the reason
//! ```
//!
//! It has no access control, and its metrics name no ledger and no principal. Everything that it
//! holds for strangers is bounded: connections (beyond the bound the oldest gives way, so that a
//! probe always gets through), their time, and a request's head. A connection serves one request.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
    routing::get,
};
use deed_engine::{ledger::Ledger, metrics::Observed, search, shard::Stuck};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle};
use tower::ServiceExt as _;

use crate::{
    address::Sockets,
    context::Context,
    descriptors,
    listener::{ACCEPT_PAUSE, activity::Activity, places::Places},
    telemetry::limiter,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Longest life of a connection, for its request and the answer to it.
const CONNECTION_WITHIN: Duration = Duration::from_secs(10);

/// Largest head of a request, in bytes; a larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// The parts of the server that the admin port reads.
pub(crate) struct Admin {
    pub(crate) context: Context,
    /// Time for which a shard may be stuck before the server is no longer ready.
    pub(crate) stuck: Duration,
}

/// Requests keep the server alive only while they read it: a connection that stays open must not
/// keep the store open.
type Looking = State<Weak<Admin>>;

/// An admin port that is served until it is stopped.
pub(crate) struct AdminPort {
    _admin: Arc<Admin>,
    serving: JoinHandle<()>,
}

impl AdminPort {
    /// Serves that many connections at once.
    pub(crate) fn serve(admin: Admin, sockets: impl Into<Sockets>, connections: usize) -> Self {
        let admin = Arc::new(admin);
        let router = router(Arc::downgrade(&admin));
        let serving = tokio::spawn(accept(
            sockets.into(),
            router,
            Places::for_anybody(connections),
        ));
        Self {
            _admin: admin,
            serving,
        }
    }

    /// Stops accepting connections and releases the server.
    pub(crate) fn stop(self) {
        self.serving.abort();
    }
}

async fn accept(sockets: Sockets, router: Router, places: Arc<Places>) {
    loop {
        let (stream, peer) = match sockets.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin port cannot accept for the moment; it tries again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // No caller is known here, so every connection may have to give way.
        let activity = Activity::new(CONNECTION_WITHIN, CONNECTION_WITHIN);
        let Ok((place, _)) = places.take(peer.ip(), &activity).await else {
            tracing::warn!(%peer, "the admin port has no place for a connection; it is closed");
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serve_one(stream, router, &activity) => {}
                () = activity.leaving() => {}
                () = tokio::time::sleep(CONNECTION_WITHIN) => {}
            }
            drop(place);
        });
    }
}

/// Answers one request. Errors of the peer are ignored. While the answer is made, connections
/// without a request give way first.
async fn serve_one(stream: TcpStream, router: Router, activity: &Arc<Activity>) {
    let answering = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let open = activity.begin_request();
        let answered = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answered.await;
            drop(open);
            answer
        }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answering);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the admin port failed");
    }
}

fn router(admin: Weak<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(admin)
}

/// The reason for which a server is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotReady(pub(crate) String);

impl NotReady {
    fn stopping() -> Self {
        Self("the server is stopping".to_owned())
    }
}

impl Admin {
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if *self.context.stopping.borrow() {
            return Err(NotReady::stopping());
        }
        if let Some(why) = self.context.appends.shards.failure().borrow().as_deref() {
            return Err(NotReady(format!("a shard has failed: {why}")));
        }
        if let Some(stuck) = self.context.appends.shards.stuck(self.stuck) {
            return Err(NotReady(match stuck {
                Stuck::Disk { shard, since } => format!(
                    "shard {shard} has waited for its disk for {} ms: a write does not come to its \
                     end",
                    since.as_millis()
                ),
                Stuck::Turns { shard, since } => format!(
                    "shard {shard} has not served a ledger for {} ms: all of its threads are in \
                     turns that take too long (see deed_oldest_turn_ms)",
                    since.as_millis()
                ),
            }));
        }
        if let Some(why) = self.context.contents.failure().borrow().as_deref() {
            return Err(NotReady(format!("contents are not written: {why}")));
        }
        let store = self.context.registry.store();
        if let Some(why) = store.write_obstacle() {
            return Err(NotReady(format!("the store cannot be written: {why}")));
        }
        self.on_time()?;
        let disk = store.disk();
        if let Some(since) = disk.silent_for().filter(|since| *since >= self.stuck) {
            return Err(NotReady(format!(
                "the store's disk cannot be checked: its file system has not answered for {} ms",
                since.as_millis()
            )));
        }
        match disk.seen() {
            Ok(space) => writable(space.read_only)?,
            Err(error) => {
                return Err(NotReady(format!(
                    "the store's disk cannot be checked: {error}"
                )));
            }
        }
        if let Err(no_space) = disk.check_log() {
            return Err(NotReady(format!("no statements are taken: {no_space}")));
        }
        Ok(())
    }

    /// Fails if the machine's clock is not believed.
    fn on_time(&self) -> Result<(), NotReady> {
        let appends = &self.context.appends;
        let now = appends.clock.read().map_err(|fault| {
            NotReady(match appends.clock.unreadable() {
                Some(why) => format!("{fault}; clock-confirmed cannot be read: {why}"),
                None => fault.to_string(),
            })
        })?;
        match appends.ahead(now).len() {
            0 => Ok(()),
            ledgers => Err(NotReady(format!(
                "the server's clock is behind the time of {ledgers} ledgers: nothing is recorded in them \
                 until it has come to that, or an operator confirms it (deed-server clock confirm)"
            ))),
        }
    }

    /// Returns the text of /readyz for a server that is ready.
    pub(crate) fn ready_words(&self) -> String {
        let mut words = "ready\n".to_owned();
        let registry = &self.context.registry;
        if let Some(no_space) = registry.store().disk().is_pressed() {
            words += &format!("no contents are taken: {no_space}\n");
        }
        let clock = &self.context.appends.clock;
        let ahead = clock
            .read()
            .map(|now| self.context.appends.standing_still(now));
        if let Ok(ledgers @ 1..) = ahead {
            words += &format!(
                "{ledgers} ledger(s) have a time that is ahead of the clock, which was confirmed: they go on, \
                 and their time stands still\n"
            );
        }
        let ledgers = registry.policies_unreadable();
        if ledgers > 0 {
            words += &format!(
                "{ledgers} ledger(s) take no Intents, Decisions and Approvals: this build cannot read \
                 their evidence policy; the log names them\n"
            );
        }
        words
    }

    fn over_quota(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.context.pressure.quotas.over();
        all.push(("stored", self.context.contents.over_quota()));
        let refused = self.context.pressure.append_streams_refused();
        all.push(("append_streams", refused));
        all
    }

    /// Returns the number of leaves of a ledger that the search index does not cover. A store that
    /// cannot be read is reported elsewhere.
    fn unindexed(&self, ledger: &Ledger) -> u64 {
        let store = self.context.registry.store();
        let indexed_to = search::indexed_to(store, ledger.number).unwrap_or_default();
        ledger.readable().size().get().saturating_sub(indexed_to)
    }

    pub(crate) fn observed(&self) -> Observed {
        let ledgers = self.context.registry.all_loaded();
        let store = self.context.registry.store();
        let shards = &self.context.appends.shards;
        let pressure = &self.context.pressure;
        let places = [
            ("read_streams", &pressure.read_streams),
            ("uploads", &self.context.contents.uploads),
        ];
        Observed {
            answer_bytes: pressure.answers().held() as u64,
            answers_refused: pressure.answers().refused(),
            places_taken: places.map(|(what, it)| (what, it.open() as u64)).into(),
            places_refused: places.map(|(what, it)| (what, it.refused())).into(),
            disk_bytes: store
                .disk()
                .space()
                .map(|space| (space.free_bytes, space.total_bytes)),
            disk_refused: store.disk().refused().into(),
            queue_bytes: shards.queue_bytes(),
            ledgers_loaded: ledgers.len() as u64,
            slow_ledgers: shards.slow_ledgers(),
            oldest_turn_ms: u64::try_from(shards.oldest_turn().as_millis()).unwrap_or(u64::MAX),
            policies_compiled: self.context.registry.policies().compiled(),
            policies_unreadable: self.context.registry.policies_unreadable(),
            leaves: ledgers
                .iter()
                .map(|ledger| ledger.readable().size().get())
                .sum(),
            due: ledgers.iter().map(|ledger| ledger.readable().due).sum(),
            unindexed_leaves: ledgers.iter().map(|ledger| self.unindexed(ledger)).sum(),
            connections: self.context.listener.figures(),
            over_quota: self.over_quota(),
            on_time: self.on_time().is_ok(),
            clock_refusals: self.context.appends.clock.refusals().to_vec(),
            contents: self.context.contents.figures(),
            resident_bytes: resident_bytes(),
            descriptors_open: descriptors::open(),
            log_lines_left_out: limiter::left_out(),
            descriptors_max: descriptors::limit(),
            memtable_bytes: store.memtable_bytes(),
            block_cache_bytes: store.block_cache_bytes(),
            table_reader_bytes: store.table_reader_bytes(),
            table_file_bytes: store.table_file_bytes(),
        }
    }
}

fn writable(read_only: bool) -> Result<(), NotReady> {
    if read_only {
        let what = "the store cannot be written: its file system is mounted read-only";
        return Err(NotReady(what.to_owned()));
    }
    Ok(())
}

async fn metrics(State(admin): Looking) -> Response<Body> {
    let text = look(admin, |admin| {
        admin.context.metrics.to_text(admin.observed())
    });
    match text.await {
        Ok(text) => answer(StatusCode::OK, OPEN_METRICS, text),
        Err(NotReady(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

async fn healthz() -> Response<Body> {
    plain(StatusCode::OK, "alive\n")
}

async fn readyz(State(admin): Looking) -> Response<Body> {
    let ready = look(admin, |admin| admin.ready().map(|()| admin.ready_words()));
    match ready.await.and_then(|ready| ready) {
        Ok(words) => plain(StatusCode::OK, words),
        Err(NotReady(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

/// Reads a server that is still there, on a thread that may block: properties of RocksDB take a
/// lock that a flush may hold.
async fn look<T: Send + 'static>(
    admin: Weak<Admin>,
    look: impl FnOnce(&Admin) -> T + Send + 'static,
) -> Result<T, NotReady> {
    let looking = tokio::task::spawn_blocking(move || {
        let admin = admin.upgrade().ok_or_else(NotReady::stopping)?;
        Ok(look(&admin))
    });
    looking.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the admin port found a defect");
        Err(NotReady(
            "something went wrong here; see the log".to_owned(),
        ))
    })
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text.into())
}

fn answer(status: StatusCode, media_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns true if the admin port may listen on `address`.
pub(crate) fn may_listen(address: SocketAddr, insecure: bool) -> bool {
    insecure || address.ip().is_loopback()
}

/// Returns this process's resident memory in bytes, where Linux reports it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests;
