//! Building the index while the server runs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    context::Context,
    ledger::{Ledger, index},
    search::{SEGMENT_LEAVES, segment},
    status::Refusal,
};

/// How often it is looked for complete segments.
const INTERVAL: Duration = Duration::from_secs(1);

/// Segments of a ledger that are known to be there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub(crate) hashes: u64,
    pub(crate) terms: u64,
}

/// Writes segments as they become complete, until the server stops.
pub(crate) async fn keep_indexed(context: Context) {
    let mut indexed = HashMap::<_, Indexed>::new();
    loop {
        tokio::select! {
            () = context.stopped() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        for ledger in context.registry.all_loaded() {
            let indexed = indexed.entry(ledger.number).or_default();
            // One segment at a time: stopping waits for no more than that.
            while !*context.stopping.borrow() {
                match index_segment(&context, &ledger, indexed).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(?error, ledger = ledger.name(), "indexing failed");
                        break;
                    }
                }
            }
        }
    }
}

/// Writes a segment that is complete and not there: of leaf hashes, then of terms. `false` if there
/// is none.
pub(crate) async fn index_segment(
    context: &Context,
    ledger: &Ledger,
    indexed: &mut Indexed,
) -> Result<bool, Refusal> {
    let readable = ledger.readable();
    let size = readable.size().get();
    let complete = size / SEGMENT_LEAVES;
    let (store, number) = (Arc::clone(context.registry.store()), ledger.number);
    if indexed.hashes < complete {
        let segment = indexed.hashes;
        let write = move || Ok(index::write_segment(&store, number, &readable, segment)?);
        context.read(write).await?;
        indexed.hashes += 1;
        return Ok(true);
    }
    if indexed.terms == complete {
        return Ok(false);
    }
    let write = move || Ok(segment::write_next(&store, number, size)?);
    match context.read(write).await? {
        Some(written) => {
            context.metrics.segment_indexed();
            indexed.terms = written + 1;
        }
        None => indexed.terms = complete,
    }
    Ok(true)
}
