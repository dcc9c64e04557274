//! The gRPC services: translation between messages and the ledger, and nothing else.

pub(crate) mod actions;
#[cfg(test)]
mod actions_tests;
mod answer;
mod clearance;
pub(crate) mod content;
mod cut;
mod findings;
pub(crate) mod ledger;
pub(crate) mod log;
mod log_keys;
mod search;
mod task;

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::TreeHead;
use futures::Stream;
use tokio::{sync::watch, time::timeout};
use tonic::Status;

use cut::Cut;

use crate::{
    access::{Caller, table::Method},
    append::Appends,
    content::ContentStore,
    ledger::{Ledger, registry::Registry},
    listener::Counters,
    metrics::Metrics,
    pressure::{Pressure, QUEUE_WAIT, RETRY_AFTER, SourceKey},
    status::Refusal,
    store::{Store, records::LedgerRecord},
};

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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

    /// Runs a read of what the assessment keeps at this moment, and returns what it found, with that
    /// moment for reading on. The store may be a turn ahead of what is readable, and must not be
    /// told of before that is released too: this waits for it.
    async fn read_settled<T: Send + 'static>(
        &self,
        caller: &Caller,
        ledger: &Arc<Ledger>,
        read: impl FnOnce(&Store) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(T, Cut), Refusal> {
        let (store, number) = (Arc::clone(self.registry.store()), ledger.number);
        let (found, store, stored) = self
            .read_for(caller, move || {
                let store = store.frozen();
                let found = read(&store)?;
                let stored = store.stored_head(number)?;
                Ok((found, store, stored))
            })
            .await?;
        let mut heads = ledger.watch();
        let covered = heads.wait_for(|readable| readable.size().get() >= stored.0);
        let readable = tokio::select! {
            biased;
            () = self.stopped() => return Err(stopping()),
            readable = covered => readable.map_err(|_| stopping())?.clone(),
        };
        Ok((found, Cut::released(store, stored, ledger, readable)))
    }

    /// Waits until the server stops.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // A closed channel means that the server is gone: that is stopping too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Runs something that reads the disk, away from the threads that serve connections.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(Refusal::Internal(format!("a read ended early: {error}"))))
}

pub(crate) fn stopping() -> Refusal {
    Refusal::Unavailable("the server is stopping; try again in a moment".to_owned())
}

/// What clients are told of a ledger.
fn info(record: &LedgerRecord, head: Option<TreeHead>) -> v1::LedgerInfo {
    v1::LedgerInfo {
        name: record.name.clone(),
        origin: record.origin.clone(),
        vkey: record.vkey.clone(),
        ledger_id: record.ledger_id.clone(),
        size: head.map_or(0, |head| head.size.get()),
        root: head.map_or_else(Bytes::new, |head| {
            Bytes::copy_from_slice(head.root.as_bytes())
        }),
        genesis_entry: record.genesis_entry.clone(),
        next_log_key: String::new(),
    }
}

/// The same of a ledger in memory, as of what is readable.
fn info_of(ledger: &Ledger) -> v1::LedgerInfo {
    let head = ledger.readable().head;
    info(&ledger.record_at(head.size), Some(head))
}
