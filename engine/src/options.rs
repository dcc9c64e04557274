//! What can be set about a server without its faces, and the defaults.

use std::path::{Path, PathBuf};

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
