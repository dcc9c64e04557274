//! The errors of append requests.

use thiserror::Error;

use crate::{
    content::ContentError,
    ledger::{read::ReadError, registry::LedgerRegistryError},
    pressure::quota::OverQuota,
    shard::NoAnswer,
    store::disk::NoSpace,
};

/// The reason why an append request has no answer: it was not taken, or its outcome is unknown.
#[derive(Debug, Error)]
pub enum AppendError {
    #[error("{field}: {what}")]
    Field { field: &'static str, what: String },
    #[error("too much waits to be written already")]
    Overloaded,
    #[error("{}", .0.what)]
    Quota(OverQuota),
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// Nothing can be recorded at the moment. The same bytes can be sent again.
    #[error("{0}")]
    Unavailable(String),
    /// An Erasure that does not name all commitments to the bytes that it erases.
    #[error("{message}")]
    Twins {
        message: String,
        /// The missing commitments, separated by commas.
        commitments: String,
    },
    #[error("the shard stopped before it could answer")]
    Stopped,
    /// Another writer's turn came first; to be sent again, byte for byte.
    #[error("another writer's turn came first")]
    Superseded,
    #[error(transparent)]
    LedgerRegistry(#[from] LedgerRegistryError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An error in this program.
    #[error("{0}")]
    Defect(String),
}

impl AppendError {
    pub(super) fn field(field: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Field { field, what }
    }
}

impl From<NoAnswer> for AppendError {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Stopped => Self::Stopped,
            NoAnswer::Superseded => Self::Superseded,
        }
    }
}

impl From<OverQuota> for AppendError {
    fn from(over: OverQuota) -> Self {
        Self::Quota(over)
    }
}

/// Runs `read`, which reads the disk, on a thread that serves no connections.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, AppendError> + Send + 'static,
) -> Result<T, AppendError> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(AppendError::Defect(format!("a read ended early: {error}"))))
}
