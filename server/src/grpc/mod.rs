//! The gRPC services: translation between messages and the ledger, and nothing else.

pub(crate) mod content;
pub(crate) mod ledger;
pub(crate) mod log;

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::TreeHead;
use futures::Stream;
use tokio::sync::{Semaphore, watch};
use tonic::Status;

use crate::{
    append::Appends,
    content::ContentStore,
    ledger::{Ledger, registry::Registry},
    status::Refusal,
    store::records::LedgerRecord,
};

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What every service needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) registry: Arc<Registry>,
    pub(crate) appends: Arc<Appends>,
    pub(crate) contents: Arc<ContentStore>,
    /// Bounds the reads that run at once, so that they leave room for appends.
    pub(crate) reads: Arc<Semaphore>,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Context {
    /// A ledger by its name, loaded if need be.
    pub(crate) async fn ledger(&self, name: &str) -> Result<Arc<Ledger>, Refusal> {
        // After a failure the store may hold more than was guarded; that is not to be told.
        if self.appends.shards.has_failed() {
            return Err(stopping());
        }
        if let Some(ledger) = self.registry.loaded(name) {
            return Ok(ledger);
        }
        let (registry, name) = (Arc::clone(&self.registry), name.to_owned());
        self.read(move || Ok(registry.ledger(&name)?)).await
    }

    /// Runs a read where it may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.reads)
            .acquire_owned()
            .await
            .map_err(|_| stopping())?;
        // The permit goes along: a caller that gives up does not end the read.
        blocking(move || {
            let _permit = permit;
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
    }
}
