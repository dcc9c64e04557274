//! Reads of the disk, away from the threads that serve connections.

use crate::status::Refusal;

/// Runs something that reads the disk on a thread that serves no connections.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(Refusal::Internal(format!("a read ended early: {error}"))))
}
