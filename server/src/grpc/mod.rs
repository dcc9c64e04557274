//! The gRPC services: translation between messages and the ledger, and nothing else.

pub(crate) mod actions;
#[cfg(test)]
mod actions_tests;
mod answer;
#[cfg(test)]
mod append_stream_tests;
mod clearance;
pub(crate) mod content;
mod cut;
mod findings;
pub(crate) mod ledger;
pub(crate) mod log;
mod log_keys;
mod min_size;
mod search;
mod task;

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::TreeHead;
use futures::Stream;
use tonic::Status;

use cut::Cut;
use deed_engine::{
    admission::Sender,
    ledger::Ledger,
    store::{Store, records::LedgerRecord},
};

use crate::{
    access::{Caller, role::Role},
    blocking::blocking,
    context::{Context, stopping},
    status::ApiError,
};

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Context {
    /// Runs a read of the assessment's records at one moment; returns its result, and that moment
    /// for further reads. The store may be a turn ahead of the published tree, and that turn must
    /// not be told of before it is released: this call waits for that.
    async fn read_settled<T: Send + 'static>(
        &self,
        caller: &Caller,
        ledger: &Arc<Ledger>,
        read: impl FnOnce(&Store) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Cut), ApiError> {
        let (store, number) = (Arc::clone(self.registry.store()), ledger.number);
        let (found, store, tree) = self
            .read_for(caller, move || {
                let store = store.frozen();
                let found = read(&store)?;
                let tree = store.stored_tree(number)?;
                Ok((found, store, tree))
            })
            .await?;
        let mut heads = ledger.watch();
        let covered = heads.wait_for(|readable| readable.size() >= tree.head.size);
        let readable = tokio::select! {
            biased;
            () = self.stopped() => return Err(stopping()),
            readable = covered => readable.map_err(|_| stopping())?.clone(),
        };
        let checkpoint = if readable.size() == tree.head.size {
            readable.checkpoint.clone()
        } else {
            // A later turn was released with this one, or since. The caller has had its turn to read.
            let (ledger, readable) = (Arc::clone(ledger), Arc::clone(&readable));
            blocking(move || Ok(ledger.checkpoint_at(&readable, tree.head.size)?)).await?
        };
        let cut = Cut {
            store,
            ledger: Arc::clone(ledger),
            size: tree.head.size,
            checkpoint,
            effective_time: tree.effective_time,
            trust: None,
            readable,
        };
        Ok((found, cut))
    }
}

/// Returns the sender of a caller's requests, with its present permissions in a ledger.
fn sender(caller: &Caller, ledger: &str) -> Sender {
    Sender {
        principal: caller.principal().cloned(),
        may_append: caller.may(ledger, Role::Append),
        may_change_trust: caller.may(ledger, Role::Authority),
    }
}

/// Returns the public information about a ledger.
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

/// Returns the public information about a loaded ledger, as of its published tree.
fn info_of(ledger: &Ledger) -> v1::LedgerInfo {
    let head = ledger.readable().head;
    info(&ledger.record_at(head.size), Some(head))
}
