//! Helpers for the server's own tests.

use std::sync::Arc;

use tokio::sync::watch;

use deed_engine::append::AppendService;
pub(crate) use deed_engine::testing::{Engine, TestClock, block_on};
pub(crate) use deed_testkit::statements::*;

use crate::context::Context;

/// Returns the services' context, of a server that is not stopped.
pub(crate) fn context_that_stays(engine: &Engine) -> Context {
    context(engine).0
}

/// Returns the services' context, and the sender that stops them.
pub(crate) fn context(engine: &Engine) -> (Context, watch::Sender<bool>) {
    let (stop, stopping) = watch::channel(false);
    let appends = &engine.appends;
    let context = Context {
        registry: Arc::clone(&engine.registry),
        appends: Arc::new(AppendService {
            registry: Arc::clone(&appends.registry),
            shards: Arc::clone(&appends.shards),
            contents: Arc::clone(&appends.contents),
            clock: Arc::clone(&appends.clock),
            pressure: Arc::clone(&appends.pressure),
            queue_wait: appends.queue_wait,
            metrics: Arc::clone(&appends.metrics),
        }),
        contents: Arc::clone(&appends.contents),
        listener: Arc::default(),
        pressure: Arc::clone(&appends.pressure),
        stopping,
        metrics: Arc::clone(&appends.metrics),
    };
    (context, stop)
}
