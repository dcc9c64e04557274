//! Collection of contents while the server runs.

use std::time::Duration;

use crate::context::Context;

/// Time between two rounds of collection: once all contents were examined, and before that.
const INTERVAL: Duration = Duration::from_secs(60);
const REST_INTERVAL: Duration = Duration::from_secs(1);

/// Collects contents that no statement names, and what crashes and clients left behind.
pub(crate) async fn keep_collected(context: Context) {
    loop {
        let wait = match context.contents.collect().await {
            Ok(collected) => {
                tracing::debug!(?collected, "contents looked through");
                // The rest of the contents comes a little later.
                if collected.complete {
                    INTERVAL
                } else {
                    REST_INTERVAL
                }
            }
            Err(error) => {
                tracing::error!(%error, "contents are not collected");
                INTERVAL
            }
        };
        tokio::select! {
            () = context.stopped() => return,
            () = tokio::time::sleep(wait) => {}
            // Contents or statements were refused for lack of space: the next round begins soon,
            // but no sooner than this, however many are refused.
            () = async {
                context.registry.store().disk().pressed().await;
                tokio::time::sleep(REST_INTERVAL).await;
            } => {}
        }
    }
}
