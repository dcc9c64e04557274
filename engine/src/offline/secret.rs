//! Renewal of a server's secret, for one that others may know.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{
    identity::{Identity, IdentityError},
    store::{DirectoryLock, StoreError},
};

/// The reason for which a secret was not renewed.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum RenewError {
    /// The directory is no server's data directory.
    #[error("{path} holds no deed server")]
    NoServer { path: PathBuf },
    /// The directory cannot be locked, for example because the server is running.
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
/// [`RenewError`]; the file is unchanged then.
pub fn renew(data_dir: &Path) -> Result<(), RenewError> {
    let no_server = || RenewError::NoServer {
        path: data_dir.to_owned(),
    };
    // This comes before the lock, which would create a missing directory.
    Identity::load(data_dir)?.ok_or_else(no_server)?;
    let _lock = DirectoryLock::acquire(data_dir)?;
    // The identity is loaded again under the lock, because another process may have added a secret
    // meanwhile.
    let mut identity = Identity::load(data_dir)?.ok_or_else(no_server)?;
    identity.renew(data_dir)?;
    Ok(())
}
