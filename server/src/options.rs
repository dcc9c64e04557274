//! The settings of a server, and their defaults.

use std::{net::SocketAddr, path::PathBuf};

pub use deed_engine::options::{ClockOptions, ContentOptions, LimitOptions, QuotaOptions};
use deed_engine::store::StoreOptions;

use crate::address::ListenAddress;

/// Options of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Directory in which the server keeps everything.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 takes any free one.
    pub listen: ListenAddress,
    /// The server's name, for a new data directory.
    pub name: Option<String>,
    /// Shards, 1 to 64. A ledger's record names the shard that writes for it.
    pub shards: usize,
    /// Bytes of payloads that may wait for each shard.
    pub queue_bytes: usize,
    /// The store's memory.
    pub store: StoreOptions,
    /// Bound on the time that stopping takes, in milliseconds: half of it is for what waits for its turn.
    pub drain_ms: u64,
    /// Bounds within which the machine's clock is believed.
    pub clock: ClockOptions,
    /// Certificates of the listener; `None` listens in clear.
    pub tls: Option<TlsOptions>,
    /// Options of access control.
    pub access: AccessOptions,
    /// Bounds on what callers can make the server hold.
    pub limits: LimitOptions,
    /// Options of the content store.
    pub content: ContentOptions,
    /// Address of metrics and health, which have no access control; `None` if they are not served.
    pub admin: Option<ListenAddress>,
    /// True if that address may be beyond loopback.
    pub admin_insecure: bool,
    /// Most connections to that address that are open at once; beyond, the oldest gives way.
    pub admin_connections: usize,
}

impl ServerOptions {
    /// Returns the defaults for a data directory: loopback, any port.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            content: ContentOptions::new(&data_dir),
            access: AccessOptions::default(),
            limits: LimitOptions::default(),
            tls: None,
            admin: None,
            admin_insecure: false,
            admin_connections: 64,
            data_dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            name: None,
            shards: 1,
            queue_bytes: 64 << 20,
            store: StoreOptions::default(),
            drain_ms: 10_000,
            clock: ClockOptions::default(),
        }
    }
}

/// Certificates of the listener. The files are read again when they change.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// PEM file of the certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// PEM file of the certificate's private key.
    pub key: PathBuf,
    /// PEM file of the authorities that sign clients' certificates; with `None` the server requests
    /// no client certificate.
    pub client_authorities: Option<PathBuf>,
    /// If true, a connection without a client certificate is refused; otherwise its callers may
    /// still show a token.
    pub require_client_certificate: bool,
}

/// Options of access control.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    /// True if callers must say who they are. `None`: exactly if the listener has TLS.
    pub required: Option<bool>,
    /// True if the server may listen beyond loopback without TLS or without access control.
    pub insecure: bool,
}
