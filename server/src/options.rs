//! What can be set about a server, and the defaults.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::store::StoreOptions;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The server's name, for a new data directory.
    pub name: Option<String>,
    /// Shards, 1 to 64: ledgers are spread over them by number.
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
    /// Who may do what.
    pub access: AccessOptions,
    /// Bounds on what callers can make the server hold.
    pub limits: LimitOptions,
    /// Where and how contents are kept.
    pub content: ContentOptions,
    /// Where metrics and health are served, without access control; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// Whether that may be beyond loopback.
    pub admin_insecure: bool,
    /// Connections to it that are open at once; beyond, the oldest gives way.
    pub admin_connections: usize,
}

impl ServerOptions {
    /// The defaults for a data directory: loopback, any port.
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
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
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
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities that sign clients' certificates; `None` asks for none.
    pub client_authorities: Option<PathBuf>,
    /// Whether a connection without a client certificate is refused. Otherwise such a caller may
    /// still show a token.
    pub require_client_certificate: bool,
}

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    /// Whether callers must say who they are. `None`: exactly if the listener has TLS.
    pub required: Option<bool>,
    /// Whether the server may listen beyond loopback without TLS or without access control.
    pub insecure: bool,
}

/// Bounds within which the machine's clock is believed.
#[derive(Debug, Clone, Copy)]
pub struct ClockOptions {
    /// Milliseconds that it may be ahead of the time that has passed since it was believed last, or
    /// behind it.
    pub jump_max_ms: u64,
    /// Milliseconds that it may be ahead of the newest entries at a start, where nobody knows how much
    /// time has passed.
    pub start_ahead_max_ms: u64,
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self {
            jump_max_ms: 60_000,
            start_ahead_max_ms: 30 * 86_400_000,
        }
    }
}

/// Bounds on what callers can make the server hold, and on what each of them may use.
#[derive(Debug, Clone)]
pub struct LimitOptions {
    /// Connections open at once. One peer address, unless it is loopback, has a quarter of them at
    /// most, and 8 at least; of IPv6 the first 64 bits count.
    pub connections: usize,
    /// Requests that one connection may have open at once.
    pub requests_per_connection: u32,
    /// Bytes of statements of one connection that may wait or be on their way to the disk. As many
    /// bytes (one largest message at least) may its messages have that are not complete yet.
    pub connection_bytes: usize,
    /// The same of one ledger.
    pub ledger_bytes: usize,
    /// The same of all ledgers and connections together, contents included.
    pub server_bytes: usize,
    /// Bytes of answers that are made and not taken yet, over all. One source holds an eighth at
    /// most, and all together who do not say who they are a quarter.
    pub answers_bytes: usize,
    /// Streams of reads that may be open at once. A ledger has half of them at most, a principal a
    /// quarter, and so have all together who do not say who they are; one address of these has a
    /// sixteenth.
    pub read_streams: usize,
    /// Reads that run at once.
    pub reads: usize,
    /// Milliseconds that a connection may take for its TLS handshake and first request, and that
    /// one may stay without traffic.
    pub handshake_ms: u64,
    /// See [`LimitOptions::handshake_ms`].
    pub idle_ms: u64,
    /// Milliseconds that a caller may take to send a request that is no stream, and to take
    /// anything of what waits for it.
    pub stall_ms: u64,
    /// Append streams open at once. One principal has a quarter of them at most; without access
    /// control, one connection has.
    pub append_streams: usize,
    /// Milliseconds for which a shard may be stuck before the server is not ready.
    pub stuck_ms: u64,
    /// What each principal may use.
    pub quota: QuotaOptions,
}

/// What one principal may use; 0 is no bound.
#[derive(Debug, Clone, Default)]
pub struct QuotaOptions {
    /// Statements a second.
    pub statements_per_second: u32,
    /// Bytes of payloads and contents a second.
    pub bytes_per_second: u32,
    /// Append streams open at once.
    pub streams: u32,
    /// Bytes of contents held.
    pub stored_bytes: u64,
}

/// Where and how contents are kept.
#[derive(Debug, Clone)]
pub struct ContentOptions {
    /// File of the key that wraps the contents' keys: outside of the data directory, so that a
    /// copy of that one alone opens nothing. Made at the first start.
    pub key_file: PathBuf,
    /// Largest content, in bytes.
    pub bytes_max: u64,
    /// Milliseconds after which a content that no statement names is collected.
    pub orphan_ms: u64,
    /// Uploads that may run at once. A ledger has half of them at most, a principal a quarter.
    pub uploads: usize,
    /// Milliseconds that an upload may wait for its client, all in all; what comes of it buys more.
    pub stall_ms: u64,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests_per_connection: 128,
            connection_bytes: 16 << 20,
            ledger_bytes: 64 << 20,
            server_bytes: 256 << 20,
            answers_bytes: 64 << 20,
            read_streams: 4096,
            reads: 32,
            handshake_ms: 10_000,
            idle_ms: 300_000,
            stall_ms: 30_000,
            append_streams: 4096,
            stuck_ms: 10_000,
            quota: QuotaOptions::default(),
        }
    }
}

impl ContentOptions {
    /// The defaults for a data directory: the key beside it, `<data dir>.content-key`.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        let mut key_file = data_dir.as_os_str().to_owned();
        key_file.push(".content-key");
        Self {
            key_file: key_file.into(),
            bytes_max: 64 << 20,
            orphan_ms: 24 * 60 * 60 * 1000,
            uploads: 64,
            stall_ms: 20_000,
        }
    }
}
