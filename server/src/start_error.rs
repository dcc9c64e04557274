//! The reasons why a server does not start, or did not stop as it should.

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

/// The reason why a server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The server would be open to the network.
    #[error(transparent)]
    Exposed(#[from] RuleError),
    /// The listener's certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of tokens and roles cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The server needs more file descriptors than it may have.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// Metrics and health would be open to the network.
    #[error(
        "refusing to serve metrics and health on {listen}: they have no access control, so they \
         are on loopback only (for example 127.0.0.1:7734, or \"none\"), unless admin.insecure = \
         true says that everybody who reaches that address may read them"
    )]
    AdminNotLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// The data directory cannot be opened.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The server cannot listen on its address.
    #[error("cannot listen on {listen}: {cause}")]
    Listen {
        /// The address asked for, or the name.
        listen: String,
        /// The error of the system.
        cause: io::Error,
    },
    /// The server cannot listen on the address of the admin port.
    #[error(
        "cannot serve metrics and health on {listen}: {cause}; --admin takes another address, or none"
    )]
    ListenAdmin {
        /// The address asked for, or the name.
        listen: String,
        /// The error of the system.
        cause: io::Error,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contents cannot be opened.
    #[error(transparent)]
    Contents(#[from] ContentStartError),
    /// The store does not fit its guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// The reason why a server did not stop as it should.
#[derive(Debug, Error)]
pub enum StopError {
    /// A shard could not write.
    #[error("{why}; nothing was acknowledged that is not on disk, restart to go on")]
    ShardFailed {
        /// Description of the failure.
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
