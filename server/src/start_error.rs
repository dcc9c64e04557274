//! Why a server does not start, or did not stop as it should.

use std::{io, net::SocketAddr};

use deed_engine::{
    content::ContentStartError, data_dir::DataDirError, guard::GuardError, store::StoreError,
};
use thiserror::Error;

use crate::{
    access::file::AccessError,
    descriptors::DescriptorError,
    listener::{RuleError, TlsError},
};

/// A server that does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// It would be open to the network.
    #[error(transparent)]
    Exposed(#[from] RuleError),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Who may do what cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It needs more file descriptors than it may have.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// Its figures would be open to the network.
    #[error(
        "refusing to serve metrics and health on {listen}: they have no access control, so they \
         are on loopback only (for example 127.0.0.1:7734, or \"none\"), unless admin.insecure = \
         true says that everybody who reaches that address may read them"
    )]
    AdminNotLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// Its data directory cannot be opened.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The address cannot be had.
    #[error("cannot listen on {listen}: {cause}")]
    Listen {
        /// The address asked for, or the name.
        listen: String,
        /// Why.
        cause: io::Error,
    },
    /// The admin port cannot be had.
    #[error(
        "cannot serve metrics and health on {listen}: {cause}; --admin takes another address, or none"
    )]
    ListenAdmin {
        /// The address asked for, or the name.
        listen: String,
        /// Why.
        cause: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contents.
    #[error(transparent)]
    Contents(#[from] ContentStartError),
    /// The store does not fit its guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// A server that did not stop as it should.
#[derive(Debug, Error)]
pub enum StopError {
    /// A shard could not write.
    #[error("{why}; nothing was acknowledged that is not on disk, restart to go on")]
    ShardFailed {
        /// What happened.
        why: String,
    },
    /// The listener ended early.
    #[error("the listener failed: {0}")]
    Listener(String),
}

#[cfg(test)]
mod tests {
    use deed_engine::cause::with_causes;

    use super::*;

    #[test]
    fn a_port_that_is_taken_is_said_once() {
        let cause = io::Error::from_raw_os_error(98);
        let words = cause.to_string();
        let listen = "127.0.0.1:1".to_owned();
        let error = StartError::Listen { listen, cause };
        let line = with_causes(&error);
        assert_eq!(line.matches(&words).count(), 1, "{line}");
        let error = anyhow::Error::from(error).context("cannot start");
        let line = with_causes(error.as_ref());
        assert_eq!(line.matches(&words).count(), 1, "{line}");
        assert!(line.starts_with("cannot start: cannot listen on 127.0.0.1:1: "));
    }
}
