//! Reads of the disk, away from the threads that serve connections.

use crate::status::ApiError;

/// Runs `read`, which reads the disk, on a thread that serves no connections.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(ApiError::Internal(format!("a read ended early: {error}"))))
}
