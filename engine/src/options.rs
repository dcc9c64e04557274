//! The settings of the engine, and their defaults.

use std::path::{Path, PathBuf};

/// Bounds within which the server believes the machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct ClockOptions {
    /// Milliseconds by which the clock may differ from the time that has passed since it was
    /// believed last.
    pub jump_max_ms: u64,
    /// Milliseconds by which the clock may be ahead of the newest entries at a start where the time
    /// that has passed is unknown.
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

/// Bounds on what callers can make the server hold, and on what each caller may use.
#[derive(Debug, Clone)]
pub struct LimitOptions {
    /// Most connections that may be open at once. One peer address, unless it is loopback, has a
    /// quarter of them at most, and at least 8; the first 64 bits of an IPv6 address count as one.
    pub connections: usize,
    /// Most requests that one connection may have open at once.
    pub requests_per_connection: u32,
    /// Bytes of statements of one connection that may wait or be on their way to the disk. Its
    /// incomplete messages may have as many bytes in addition (one largest message at least).
    pub connection_bytes: usize,
    /// Bytes of statements of one ledger that may wait or be on their way to the disk.
    pub ledger_bytes: usize,
    /// Bytes of statements and contents, of all ledgers and connections together, that may wait or
    /// be on their way to the disk.
    pub server_bytes: usize,
    /// Bytes of answers, of all callers, that are made and not taken yet. One source holds an
    /// eighth at most, and all anonymous callers together a quarter.
    pub answers_bytes: usize,
    /// Most streams of reads that may be open at once. A ledger has half of them at most; a
    /// principal a quarter; all anonymous callers together a quarter, and one of their addresses a
    /// sixteenth.
    pub read_streams: usize,
    /// Most reads that run at once.
    pub reads: usize,
    /// Milliseconds that a connection may take for its TLS handshake and first request.
    pub handshake_ms: u64,
    /// Milliseconds that a connection may stay open without traffic.
    pub idle_ms: u64,
    /// Milliseconds that a caller may take to send a request that is no stream, and milliseconds in
    /// which a caller must take something of an answer that waits.
    pub stall_ms: u64,
    /// Most append streams that may be open at once. One principal has a quarter of them at most;
    /// without access control, one connection has.
    pub append_streams: usize,
    /// Milliseconds for which a shard may be stuck before the server counts as not ready.
    pub stuck_ms: u64,
    /// Quotas of each principal.
    pub quota: QuotaOptions,
}

/// Quotas of one principal; 0 is no bound.
#[derive(Debug, Clone, Default)]
pub struct QuotaOptions {
    /// Statements per second.
    pub statements_per_second: u32,
    /// Bytes of payloads and contents per second.
    pub bytes_per_second: u32,
    /// Most append streams that are open at once.
    pub streams: u32,
    /// Most bytes of contents that are held.
    pub stored_bytes: u64,
}

/// Options of the content store.
#[derive(Debug, Clone)]
pub struct ContentOptions {
    /// File of the key that wraps the contents' keys. It lies outside of the data directory, so
    /// that a copy of that alone opens no content. The first start makes it.
    pub key_file: PathBuf,
    /// Largest content, in bytes.
    pub bytes_max: u64,
    /// Milliseconds after which a content that no statement names is collected.
    pub orphan_ms: u64,
    /// Most uploads that may run at once. A ledger has half of them at most, a principal a quarter.
    pub uploads: usize,
    /// Milliseconds that an upload may wait for its client, in all; the bytes that arrive add to
    /// it.
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
    /// Returns the defaults for `data_dir`, with the key beside it in `<data dir>.content-key`.
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
