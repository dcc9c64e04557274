//! Indexing while the server runs.

use deed_engine::{
    ledger::Ledger,
    search::{Indexed, Wrote, index_segment},
};
use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{context::Context, status::ApiError};

/// Interval between two looks for complete segments.
const INTERVAL: Duration = Duration::from_secs(1);

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
            // One segment is written at a time, so that a stop waits for no more than one.
            while !*context.stopping.borrow() {
                match index_next(&context, &ledger, indexed).await {
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

/// Writes a ledger's next segment, if one is complete and not there. Returns false if none is.
async fn index_next(
    context: &Context,
    ledger: &Arc<Ledger>,
    indexed: &mut Indexed,
) -> Result<bool, ApiError> {
    let (store, ledger) = (Arc::clone(context.registry.store()), Arc::clone(ledger));
    let mut next = *indexed;
    let write = move || Ok((index_segment(&store, &ledger, &mut next)?, next));
    let (wrote, next) = context.read(write).await?;
    *indexed = next;
    if wrote == Wrote::Terms {
        context.metrics.segment_indexed();
    }
    Ok(wrote != Wrote::Nothing)
}
