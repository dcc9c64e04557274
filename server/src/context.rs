//! The context of handlers and background jobs. A handler gets a ledger only here, and must name
//! its caller and the method for that.

use std::sync::Arc;

use deed_engine::{
    append::AppendService,
    content::ContentStore,
    ledger::{Ledger, registry::LedgerRegistry},
    metrics::Metrics,
    pressure::{Pressure, QUEUE_WAIT, RETRY_AFTER, SourceKey},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    access::{Caller, table::Method},
    blocking::blocking,
    listener::Counters,
    status::ApiError,
};

/// The parts of the server that every service needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) registry: Arc<LedgerRegistry>,
    pub(crate) appends: Arc<AppendService>,
    pub(crate) contents: Arc<ContentStore>,
    pub(crate) listener: Arc<Counters>,
    /// Bounds what callers hold, and the number of reads that run at once, so that room is left for
    /// appends.
    pub(crate) pressure: Arc<Pressure>,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Context {
    /// Returns the ledger `name`, loaded if necessary, for a caller who may ask for `method` in it.
    /// Handlers have no other way to a ledger.
    pub(crate) async fn ledger(
        &self,
        caller: &Caller,
        method: Method,
        name: &str,
    ) -> Result<Arc<Ledger>, ApiError> {
        // The role is checked first: the existence of a ledger is not public either.
        caller.require(method, name)?;
        // After a failure the store may hold more than was guarded; that must not be published.
        if self.appends.shards.has_failed() {
            return Err(stopping());
        }
        if let Some(ledger) = self.registry.loaded(name) {
            return Ok(ledger);
        }
        let (registry, name) = (Arc::clone(&self.registry), name.to_owned());
        self.read_for(caller, move || Ok(registry.ledger(&name)?))
            .await
    }

    /// Runs a read of the server itself on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.read_as(&SourceKey::Server, read).await
    }

    /// Runs a caller's read on a thread that may block. Callers take turns.
    pub(crate) async fn read_for<T: Send + 'static>(
        &self,
        caller: &Caller,
        read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.read_as(&caller.source(&self.pressure).key(), read)
            .await
    }

    async fn read_as<T: Send + 'static>(
        &self,
        source: &SourceKey,
        read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let share = timeout(QUEUE_WAIT, self.pressure.reads.take(source, 1))
            .await
            .map_err(|_| ApiError::Overloaded {
                retry_after: RETRY_AFTER,
            })?;
        // The permit moves along, because the read goes on if the caller gives up.
        blocking(move || {
            let _share = share;
            read()
        })
        .await
    }

    /// Waits until the server stops.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // A closed channel means that the server is gone, which counts as stopping.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Refuses a caller whose request would outlive the server.
pub(crate) fn stopping() -> ApiError {
    ApiError::Unavailable("the server is stopping; try again in a moment".to_owned())
}
