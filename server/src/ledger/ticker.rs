//! Time passes in ledgers in which nothing happens: deadlines there fire by a Tick.

use std::{sync::Arc, time::Duration};

use deed_evidence::Micros;
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, sleep};

use super::Ledger;
use crate::{grpc::Context, pressure::SourceKey};

/// Between two looks at the ledgers that are loaded.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks at those that are not: one key is read of each. Loaded is what will be due by
/// the next look, so that nothing is late because nobody has asked for its ledger.
const UNLOADED_INTERVAL: Duration = Duration::from_secs(60);

/// Ledgers that are ticked at the same time.
const TICKS_MAX: usize = 64;

/// Runs until the server stops.
pub(crate) async fn keep_ticking(context: Context) {
    let mut unloaded_at = Instant::now();
    loop {
        if unloaded_at <= Instant::now() {
            unloaded_at = Instant::now() + UNLOADED_INTERVAL;
            load_due(&context).await;
        }
        // Together: they share turns, and one full shard does not hold up the others.
        stream::iter(context.registry.all_loaded())
            .for_each_concurrent(TICKS_MAX, |ledger| tick(&context, ledger))
            .await;
        tokio::select! {
            biased;
            () = context.stopped() => return,
            () = sleep(INTERVAL) => {}
        }
    }
}

/// Lets time come to now in a ledger, if something is due there.
async fn tick(context: &Context, ledger: Arc<Ledger>) {
    let now = context.appends.clock.now();
    let due = ledger.readable().next_due;
    if due.is_none_or(|due| due > now) {
        return;
    }
    // With the disk nearly full nothing is written. What is due stays due.
    if context.registry.store().disk().check_log().is_err() {
        return;
    }
    let shards = &context.appends.shards;
    let place = shards.reserve(ledger.number, SourceKey::Server, 0).await;
    // A shard that has stopped says so elsewhere.
    let _ = place.tick(ledger, now).answer().await;
}

/// Loads the ledgers that nobody has asked for and in which something is due soon.
async fn load_due(context: &Context) {
    let interval = i64::try_from(UNLOADED_INTERVAL.as_micros()).unwrap_or(i64::MAX);
    let now = context.appends.clock.now();
    let by = Micros::new(now.get().saturating_add(interval));
    let registry = Arc::clone(&context.registry);
    let loaded = crate::grpc::blocking(move || {
        for name in registry.due_unloaded(by)? {
            // A damaged one does not stop the time of the others.
            if let Err(error) = registry.ledger(&name) {
                tracing::warn!(
                    ledger = name,
                    %error,
                    "something is due in a ledger that cannot be loaded; it is tried again"
                );
            }
        }
        Ok(())
    });
    if loaded.await.is_err() {
        tracing::warn!("what is due in which ledger could not be read; it is tried again");
    }
}
