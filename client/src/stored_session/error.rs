//! The reasons why a session cannot be kept on disk, or not go on.

use std::{
    io,
    path::{Path, PathBuf},
};

use deed_evidence::WireError;
use thiserror::Error;

use crate::session::RandomError;

/// A session that cannot be kept, or not go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The file system refuses.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The place.
        path: PathBuf,
        /// The system's message.
        reason: String,
    },
    /// A file does not hold what was written there.
    #[error(
        "{} is damaged at byte {offset}; begin a session of another name, and keep this file to \
         see what was not acknowledged", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The place.
        offset: u64,
    },
    /// Another process uses the session.
    #[error("session {name:?} is used by another process; wait for that, or use another name")]
    InUse {
        /// The name of the session.
        name: String,
    },
    /// The session was begun by another producer, or with another way of signing.
    #[error(
        "session {name:?} was begun with another {what} ({kept}, now {found}); use another name \
         for a session of its own"
    )]
    Other {
        /// The name of the session.
        name: String,
        /// The part that differs.
        what: &'static str,
        /// The value with which the session was begun.
        kept: String,
        /// The value that is wanted now.
        found: String,
    },
    /// A statement that is not the next one of this session.
    #[error(
        "the statement is not the next one of this session: its {what} is {found}, not {wanted}"
    )]
    NotNext {
        /// The part that differs.
        what: &'static str,
        /// Found in the statement.
        found: String,
        /// Wanted.
        wanted: String,
    },
    /// The session has ended with SessionClosed.
    #[error("session {name:?} is closed; begin one of another name")]
    Closed {
        /// The name of the session.
        name: String,
    },
    /// No statement.
    #[error(transparent)]
    Statement(#[from] WireError),
    /// No random bytes for its id.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl SessionError {
    pub(super) fn io(action: &'static str, path: &Path, error: &io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }
}
