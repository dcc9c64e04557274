//! The second port: figures and health, for those who run the server.
//!
//! ```text
//! GET /metrics   everything that is counted, as OpenMetrics text
//! GET /healthz   200 as long as the process answers
//! GET /readyz    200 if it takes requests, or 503 and why not
//! ```
//!
//! It has no access control; its figures name no ledger and no principal.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Weak},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{grpc::Context, metrics::Observed};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the store's file system must have free at least: a few memtables are written out at once.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// What the admin port looks at.
pub(crate) struct Admin {
    pub(crate) context: Context,
    pub(crate) data_dir: PathBuf,
}

/// Requests hold the server only while they look at it: a connection that stays open must not
/// keep the store open.
type Looking = State<Weak<Admin>>;

/// An admin port that is served, until it is stopped.
pub(crate) struct AdminPort {
    _admin: Arc<Admin>,
    serving: JoinHandle<()>,
}

impl AdminPort {
    pub(crate) fn serve(admin: Admin, socket: TcpListener) -> Self {
        let admin = Arc::new(admin);
        let router = router(Arc::downgrade(&admin));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(socket, router).await {
                tracing::error!(%error, "the admin port failed");
            }
        });
        Self {
            _admin: admin,
            serving,
        }
    }

    /// Takes no more connections, and lets go of the server.
    pub(crate) fn stop(self) {
        self.serving.abort();
    }
}

fn router(admin: Weak<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(admin)
}

/// Why a server is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NotReady(String);

impl NotReady {
    fn stopping() -> Self {
        Self("the server is stopping".to_owned())
    }
}

impl Admin {
    fn ready(&self) -> Result<(), NotReady> {
        if *self.context.stopping.borrow() {
            return Err(NotReady::stopping());
        }
        if let Some(why) = self.context.appends.shards.failure().borrow().as_deref() {
            return Err(NotReady(format!("a shard has failed: {why}")));
        }
        let store = self.context.registry.store();
        if let Some(why) = store.write_obstacle() {
            return Err(NotReady(format!("the store cannot be written: {why}")));
        }
        match rustix::fs::statvfs(&self.data_dir) {
            Ok(disk) => writable(
                disk.f_bavail.saturating_mul(disk.f_frsize),
                disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
            ),
            Err(error) => Err(NotReady(format!("the store cannot be looked at: {error}"))),
        }
    }

    fn observed(&self) -> Observed {
        let ledgers = self.context.registry.all_loaded();
        let store = self.context.registry.store();
        Observed {
            queue_bytes: self.context.appends.shards.queue_bytes(),
            ledgers_loaded: ledgers.len() as u64,
            leaves: ledgers
                .iter()
                .map(|ledger| ledger.readable().size().get())
                .sum(),
            resident_bytes: resident_bytes(),
            memtable_bytes: store.memtable_bytes(),
            block_cache_bytes: store.block_cache_bytes(),
            table_reader_bytes: store.table_reader_bytes(),
            table_file_bytes: store.table_file_bytes(),
        }
    }
}

fn writable(free_bytes: u64, read_only: bool) -> Result<(), NotReady> {
    if read_only {
        let what = "the store cannot be written: its file system is mounted read-only";
        return Err(NotReady(what.to_owned()));
    }
    if free_bytes < FREE_BYTES_MIN {
        return Err(NotReady(format!(
            "the store cannot be written for long: its file system has {} MiB free, less than {}",
            free_bytes >> 20,
            FREE_BYTES_MIN >> 20
        )));
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
    let ready = look(admin, Admin::ready).await.and_then(|ready| ready);
    match ready {
        Ok(()) => plain(StatusCode::OK, "ready\n"),
        Err(NotReady(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

/// Looks at a server that is still there, where it may block: properties of RocksDB take a lock
/// that a flush may hold.
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

/// Whether the admin port may be on an address.
pub(crate) fn may_listen(address: SocketAddr, insecure: bool) -> bool {
    insecure || address.ip().is_loopback()
}

/// This process's resident memory, where Linux says it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
