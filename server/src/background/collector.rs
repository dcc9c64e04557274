//! Collecting contents while the server runs.

use std::time::Duration;

use crate::context::Context;

/// How often contents are looked through for what may go: once all were looked at, and before.
const INTERVAL: Duration = Duration::from_secs(60);
const REST_INTERVAL: Duration = Duration::from_secs(1);

/// Collects contents that nobody names, and what crashes and clients left behind.
pub(crate) async fn keep_collected(context: Context) {
    loop {
        let wait = match context.contents.collect().await {
            Ok(collected) => {
                tracing::debug!(?collected, "contents looked through");
                // The rest of them, a little later each time.
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
            // Contents or statements were refused: what may go, goes now. Not more often than this,
            // whoever asks.
            () = async {
                context.registry.store().disk().pressed().await;
                tokio::time::sleep(REST_INTERVAL).await;
            } => {}
        }
    }
}
