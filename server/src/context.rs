//! What handlers and background jobs work with. A handler gets a ledger only here, by saying who asks
//! and for what.

use std::sync::Arc;

use deed_engine::{
    append::Appends,
    content::ContentStore,
    ledger::{Ledger, registry::Registry},
    metrics::Metrics,
    pressure::{Pressure, QUEUE_WAIT, RETRY_AFTER, SourceKey},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    access::{Caller, table::Method},
    blocking::blocking,
    listener::Counters,
    status::Refusal,
};

/// What every service needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) registry: Arc<Registry>,
    pub(crate) appends: Arc<Appends>,
    pub(crate) contents: Arc<ContentStore>,
    pub(crate) listener: Arc<Counters>,
    /// Bounds what callers hold, and the reads that run at once, so that they leave room for
    /// appends.
    pub(crate) pressure: Arc<Pressure>,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Context {
    /// A ledger by its name, loaded if need be, for a caller who may ask for `method` in it. There
    /// is no way to a ledger around this question.
    pub(crate) async fn ledger(
        &self,
        caller: &Caller,
        method: Method,
        name: &str,
    ) -> Result<Arc<Ledger>, Refusal> {
        // First: whether a ledger exists is not for everybody to know either.
        caller.require(method, name)?;
        // After a failure the store may hold more than was guarded; that is not to be told.
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

    /// Runs a read of the server itself where it may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.read_as(&SourceKey::Server, read).await
    }

    /// Runs a caller's read where it may block. Callers take turns.
    pub(crate) async fn read_for<T: Send + 'static>(
        &self,
        caller: &Caller,
        read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.read_as(&caller.source(&self.pressure).key(), read)
            .await
    }

    async fn read_as<T: Send + 'static>(
        &self,
        source: &SourceKey,
        read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let share = timeout(QUEUE_WAIT, self.pressure.reads.take(source, 1))
            .await
            .map_err(|_| Refusal::Overloaded {
                retry_after: RETRY_AFTER,
            })?;
        // The share goes along: a caller that gives up does not end the read.
        blocking(move || {
            let _share = share;
            read()
        })
        .await
    }

    /// Waits until the server stops.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // A closed channel means that the server is gone: that is stopping too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Refuses a caller whose request would outlive the server.
pub(crate) fn stopping() -> Refusal {
    Refusal::Unavailable("the server is stopping; try again in a moment".to_owned())
}
