//! Advances time in ledgers that receive nothing: their deadlines fire by a Tick. A clock that is
//! not believed advances no time; its state is checked here once a second, and changes of it are
//! logged.

use std::{sync::Arc, time::Duration};

use deed_engine::{
    clock::{Clock as _, keeper::BEHIND_MAX_US},
    ledger::{
        Ledger,
        due::{UNLOADED_INTERVAL, next_look},
    },
    pressure::SourceKey,
};
use deed_evidence::Micros;
use futures::{StreamExt as _, stream};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{blocking::blocking, context::Context};

/// Interval between two looks at the ledgers in memory.
const INTERVAL: Duration = Duration::from_secs(1);

/// Most ledgers that are loaded at the same time because of a deadline.
const LOADS_MAX: usize = 4;

/// Most ledgers that are ticked at the same time.
const TICKS_MAX: usize = 64;

/// Runs the ticker until the server stops.
pub(crate) async fn keep_ticking(context: Context) {
    let mut unloaded_at = Instant::now();
    let mut ahead = 0;
    let mut loading = JoinSet::new();
    loop {
        // Loading runs beside the rounds: it may take long, and time must advance in the other
        // ledgers.
        while loading.try_join_next().is_some() {}
        if unloaded_at <= Instant::now() && loading.is_empty() {
            unloaded_at = Instant::now() + UNLOADED_INTERVAL;
            loading.spawn(load_due(context.clone()));
        }
        ahead = round(&context, ahead).await;
        tokio::select! {
            biased;
            () = context.stopped() => return,
            () = sleep(INTERVAL) => {}
        }
    }
}

/// Looks once at the clock and at the ledgers in memory; see [`look_at_clock`] for `ahead` and the
/// result.
pub(crate) async fn round(context: &Context, ahead: usize) -> usize {
    let ahead = look_at_clock(context, ahead).await;
    // The ticks run concurrently: they share turns, and one full shard does not delay the others.
    stream::iter(context.registry.all_loaded())
        .for_each_concurrent(TICKS_MAX, |ledger| tick(context, ledger))
        .await;
    ahead
}

/// Takes a new confirmation by an operator, if there is one, and logs changes of the clock's state.
/// `before` is the number of ledgers that the clock was behind; returns the present number.
async fn look_at_clock(context: &Context, before: usize) -> usize {
    let clock = Arc::clone(&context.appends.clock);
    let confirmed = blocking(move || {
        let confirmed = clock.take_confirmation();
        // The clock is read even without a request, so that a leap is noticed at once.
        let _ = clock.read();
        clock.save();
        Ok(confirmed)
    });
    if let Ok(Some(time)) = confirmed.await {
        release_ahead(context, time).await;
    }
    let ledgers = context.appends.ahead(context.appends.clock.now());
    match (before, ledgers.len(), ledgers.first()) {
        (before, now, Some(one)) if before != now => tracing::error!(
            ledgers = now,
            one = one.name(),
            "the clock is behind the time of ledgers: nothing is recorded in them until it has come to \
             that, or an operator confirms it with `deed-server clock confirm`"
        ),
        (1.., 0, _) => tracing::info!("the clock is behind no ledger's time any more"),
        _ => {}
    }
    ledgers.len()
}

/// Releases the ledgers whose own time is ahead of a clock that an operator has just confirmed.
async fn release_ahead(context: &Context, confirmed: Micros) {
    let latest = Micros::new(confirmed.get().saturating_add(BEHIND_MAX_US));
    let registry = Arc::clone(&context.registry);
    let ledgers = blocking(move || {
        let names = registry.ahead_of(latest)?;
        let ledgers = names.iter().map(|name| registry.ledger(name));
        // A ledger that cannot be loaded is reported when it is asked for.
        Ok(ledgers.filter_map(Result::ok).collect::<Vec<_>>())
    });
    for ledger in ledgers.await.unwrap_or_default() {
        if context
            .appends
            .note_clock(&ledger, confirmed)
            .await
            .is_err()
        {
            tracing::error!(
                ledger = ledger.name(),
                "its time is ahead of the confirmed clock, and that could not be noted; confirm it again"
            );
        }
    }
}

/// Advances time in a ledger to the present if a deadline there has passed.
async fn tick(context: &Context, ledger: Arc<Ledger>) {
    let Ok(now) = context.appends.clock.read() else {
        return;
    };
    let due = ledger.readable().next_due;
    if due.is_none_or(|due| due > now) {
        return;
    }
    // If the disk is nearly full, nothing is written, and the deadlines stay set.
    if context.registry.store().disk().check_log().is_err() {
        return;
    }
    // A shard that has stopped is reported elsewhere.
    if context.appends.note_confirmed(&ledger).await.is_err() {
        return;
    }
    let shards = &context.appends.shards;
    let reservation = shards.reserve(&ledger, SourceKey::Server, 0).await;
    // A shard that has stopped is reported elsewhere.
    let _ = reservation.tick(ledger, now).answer().await;
}

/// Loads ledgers that are not in memory and that have a deadline soon.
async fn load_due(context: Context) {
    let by = next_look(context.appends.clock.now());
    let registry = Arc::clone(&context.registry);
    let Ok(names) = blocking(move || Ok(registry.due_unloaded(by)?)).await else {
        tracing::warn!("what is due in which ledger could not be read; it is tried again");
        return;
    };
    stream::iter(names)
        .for_each_concurrent(LOADS_MAX, |name| {
            let registry = Arc::clone(&context.registry);
            let loaded = blocking(move || {
                // A damaged ledger does not stop time in the others.
                if let Err(error) = registry.ledger(&name) {
                    tracing::warn!(
                        ledger = name,
                        %error,
                        "something is due in a ledger that cannot be loaded; it is tried again"
                    );
                }
                Ok(())
            });
            async {
                let _ = loaded.await;
            }
        })
        .await;
}
