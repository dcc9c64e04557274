//! The gRPC services: translation between messages and the ledger, and nothing else.

pub(crate) mod ledger;
pub(crate) mod log;

use std::{pin::Pin, sync::Arc};

use deed_proto::v1;
use futures::Stream;
use tokio::sync::{Semaphore, watch};
use tonic::Status;

use crate::{
    append::Appends,
    ledger::{Ledger, registry::Registry},
    status::Refusal,
};

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What every service needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) registry: Arc<Registry>,
    pub(crate) appends: Arc<Appends>,
    /// Bounds the reads that run at once, so that they leave room for appends.
    pub(crate) reads: Arc<Semaphore>,
    /// Becomes true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Context {
    /// A ledger by its name, loaded if need be.
    pub(crate) async fn ledger(&self, name: &str) -> Result<Arc<Ledger>, Refusal> {
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
        let answer = blocking(read).await;
        drop(permit);
        answer
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
fn info(ledger: &Ledger) -> v1::LedgerInfo {
    let readable = ledger.readable();
    v1::LedgerInfo {
        name: ledger.record.name.clone(),
        origin: ledger.record.origin.clone(),
        vkey: ledger.record.vkey.clone(),
        ledger_id: ledger.record.ledger_id.clone(),
        size: readable.size().get(),
        root: bytes::Bytes::copy_from_slice(readable.head.root.as_bytes()),
        genesis_entry: ledger.record.genesis_entry.clone(),
    }
}
