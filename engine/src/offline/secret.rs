//! A new secret for a server whose secret may be known to others.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{
    identity::{Identity, IdentityError},
    store::{DirectoryLock, StoreError},
};

/// Why a server has no new secret.
#[derive(Debug, Error)]
pub enum RenewError {
    /// No server's data directory.
    #[error("{path} holds no deed server")]
    NoServer {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be had, for example because the server is running.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server's key cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Adds a new secret to `server.key` of a stopped server. The next log key of every ledger derives
/// from it; the keys that sign now stay until an authority of their ledger replaces them.
///
/// # Errors
/// [`RenewError`]; the file is as it was then.
pub fn renew(data_dir: &Path) -> Result<(), RenewError> {
    let no_server = || RenewError::NoServer {
        path: data_dir.to_owned(),
    };
    // Before the lock, which would make a directory that is not there.
    Identity::load(data_dir)?.ok_or_else(no_server)?;
    let _lock = DirectoryLock::acquire(data_dir)?;
    // Again under the lock: nobody else adds one meanwhile.
    let mut identity = Identity::load(data_dir)?.ok_or_else(no_server)?;
    identity.renew(data_dir)?;
    Ok(())
}
