//! The table of settings: the key, kind, default and documentation of each.
//!
//! All other code for the configuration uses it: reading, the check for unknown keys, the output of
//! `deed-server config`, and `deploy/deed.toml`.

use crate::address::ListenAddress;

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Key in the file, with dots between levels. The environment variable is `DEED__` and the key
    /// in upper case, with two underscores for each dot.
    pub key: &'static str,
    /// Kind of its values.
    pub kind: Kind,
    /// Default value, as it would be in the environment; empty for none.
    pub default: &'static str,
    /// Documentation in one or two sentences.
    pub doc: &'static str,
}

/// A kind of values.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number between these two, both included.
    Integer(u64, u64),
    /// Text that is not empty.
    Text,
    /// A path; a relative one is relative to the working directory.
    Path,
    /// An address, a name or nothing, and a port.
    Address,
    /// An address as above, or `none`.
    AddressOrNone,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `http://` and a host, without a name or password in it.
    Endpoint,
}

/// A value that fits its setting's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Integer(u64),
    Text(String),
}

impl Kind {
    /// Describes the allowed values, for error messages.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Text => "text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Address => {
                "an address or name with a port, such as \"127.0.0.1:7733\" or \"localhost:7733\""
                    .to_owned()
            }
            Self::AddressOrNone => {
                "an address or name with a port, such as \"127.0.0.1:7734\", or \"none\"".to_owned()
            }
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Endpoint => {
                "an http:// address without a password, such as \"http://127.0.0.1:4317\" (a \
                 collector on this machine can do TLS)"
                    .to_owned()
            }
        }
    }

    /// Parses a value as it is written in the environment or after a flag.
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::Bool => text.parse().ok().map(Value::Bool),
            Self::Integer(..) => self.integer(text.parse().ok()?),
            _ => self.text(text),
        }
    }

    pub(super) fn boolean(self, value: bool) -> Option<Value> {
        matches!(self, Self::Bool).then_some(Value::Bool(value))
    }

    pub(super) fn integer(self, value: u64) -> Option<Value> {
        match self {
            Self::Integer(min, max) if (min..=max).contains(&value) => Some(Value::Integer(value)),
            _ => None,
        }
    }

    pub(super) fn text(self, text: &str) -> Option<Value> {
        let fits = match self {
            Self::Bool | Self::Integer(..) => false,
            Self::Text | Self::Path => !text.is_empty(),
            Self::Address => text.parse::<ListenAddress>().is_ok(),
            Self::AddressOrNone => text == NONE || text.parse::<ListenAddress>().is_ok(),
            Self::Choice(words) => words.contains(&text),
            Self::Endpoint => text.parse::<http::Uri>().is_ok_and(|uri| {
                uri.scheme_str() == Some("http")
                    && uri
                        .authority()
                        .is_some_and(|authority| !authority.as_str().contains('@'))
            }),
        };
        fits.then(|| Value::Text(text.to_owned()))
    }
}

/// The value that turns an address off.
pub(super) const NONE: &str = "none";

/// Returns the setting with this key.
#[must_use]
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

const fn row(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting {
        key,
        kind,
        default,
        doc,
    }
}

/// TOML's largest integer.
const INTEGER_MAX: u64 = i64::MAX.unsigned_abs();

/// An hour, a day and a hundred years.
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const CENTURY_MS: u64 = 36_525 * DAY_MS;

/// All settings, in the order in which they are printed: those without a level first.
pub static SETTINGS: &[Setting] = &[
    row(
        "data_dir",
        Kind::Path,
        "./deed-data",
        "Directory of the store, the head guard and the server's key; created if missing.",
    ),
    row(
        "listen",
        Kind::Address,
        "127.0.0.1:7733",
        "Address or name, and port, on which gRPC and HTTP are served; \":7733\" is every address \
         of this machine. Beyond loopback it needs TLS and access control.",
    ),
    row(
        "name",
        Kind::Text,
        "",
        "The server's name, for a new data directory: the first part of every ledger's origin.",
    ),
    row(
        "shards",
        Kind::Integer(1, 64),
        "1",
        "Shards: each writes for a share of the ledgers, with threads of its own.",
    ),
    row(
        "queue_mib",
        Kind::Integer(8, 1024),
        "64",
        "MiB of statements that may wait for each shard.",
    ),
    row(
        "drain_ms",
        Kind::Integer(0, HOUR_MS),
        "10000",
        "Milliseconds that stopping may take: half of them for requests that wait for their turn, \
         which are refused after that, the rest for open connections and the turn in work.",
    ),
    row(
        "core_dumps",
        Kind::Bool,
        "false",
        "True if a crash may leave a core file, and other processes of the same user may read this \
         one's memory: both show keys and contents in clear.",
    ),
    row(
        "store.block_cache_mib",
        Kind::Integer(0, 1 << 20),
        "256",
        "MiB of memory for blocks read from disk.",
    ),
    row(
        "store.memtable_mib",
        Kind::Integer(1, 4096),
        "64",
        "MiB at which a family's newest records are written out to a sorted file.",
    ),
    row(
        "store.open_files",
        Kind::Integer(64, 1 << 20),
        "512",
        "Sorted files of the store that stay open. Lowered at the start if the process may not open \
         as many.",
    ),
    row(
        "store.contents_floor_mib",
        Kind::Integer(0, 1 << 30),
        "1024",
        "MiB of the disk that are kept for the log: with less free, contents are refused, and \
         those that no statement names are collected at once.",
    ),
    row(
        "store.contents_floor_percent",
        Kind::Integer(0, 90),
        "5",
        "Part of the disk, in per cent, that is kept for the log in the same way; the larger one \
         counts.",
    ),
    row(
        "store.log_floor_mib",
        Kind::Integer(0, 1 << 30),
        "512",
        "MiB of the disk: with less free, statements are refused, too, until there is room again. \
         A write that fails would end the server.",
    ),
    row(
        "clock.jump_max_ms",
        Kind::Integer(1000, DAY_MS),
        "60000",
        "Milliseconds that the machine's clock may be ahead of the time that has passed, or behind it. \
         Beyond that nothing is recorded until it comes back or `deed-server clock confirm`.",
    ),
    row(
        "clock.start_ahead_max_ms",
        Kind::Integer(60_000, CENTURY_MS),
        "2592000000",
        "Milliseconds that the clock may be ahead of the newest entries when the server starts \
         after a boot: 30 days without being set. Beyond that it has to be confirmed, too.",
    ),
    row(
        "tls.certificate",
        Kind::Path,
        "",
        "PEM file of the listener's certificate chain, the server's own first. Read again when it \
         changes.",
    ),
    row(
        "tls.key",
        Kind::Path,
        "",
        "PEM file of its private key. Nobody but its owner may read it; where that is another user \
         than the server's, the file's group may.",
    ),
    row(
        "tls.client_authorities",
        Kind::Path,
        "",
        "PEM file of the authorities that sign clients' certificates; without it the server \
         requests no client certificates.",
    ),
    row(
        "tls.require_client_certificate",
        Kind::Bool,
        "false",
        "True if a connection without a client certificate is refused. Otherwise its callers may \
         show a token.",
    ),
    row(
        "access.required",
        Kind::Bool,
        "",
        "True if callers must say who they are. Not set: exactly if the listener has TLS.",
    ),
    row(
        "access.insecure",
        Kind::Bool,
        "false",
        "True if the server may listen beyond loopback without TLS or without access control: \
         everyone who reaches it may then read and write.",
    ),
    row(
        "limits.connections",
        Kind::Integer(1, 1_000_000),
        "1024",
        "Connections open at once. Lowered at the start if the process may not open as many files.",
    ),
    row(
        "limits.requests_per_connection",
        Kind::Integer(1, 65_536),
        "128",
        "Requests that one connection may have open at once.",
    ),
    row(
        "limits.connection_mib",
        Kind::Integer(8, 4095),
        "16",
        "MiB of statements of one connection that may wait or be on their way to the disk.",
    ),
    row(
        "limits.ledger_mib",
        Kind::Integer(8, 4095),
        "64",
        "MiB of statements of one ledger that may wait or be on their way to the disk; no more \
         than half of queue_mib counts.",
    ),
    row(
        "limits.server_mib",
        Kind::Integer(8, 1 << 20),
        "256",
        "MiB of statements and contents, of all ledgers and connections together, that may wait or \
         be on their way to the disk.",
    ),
    row(
        "limits.answers_mib",
        Kind::Integer(8, 1 << 20),
        "64",
        "MiB of answers, of all callers, that are made and not taken yet. One caller holds an \
         eighth of it at most, and all anonymous callers together a quarter.",
    ),
    row(
        "limits.read_streams",
        Kind::Integer(16, 1 << 20),
        "4096",
        "Streams of reads open at once. A ledger has half of them at most, a caller a quarter, all \
         anonymous callers together a quarter, and one of their addresses a sixteenth.",
    ),
    row(
        "limits.reads",
        Kind::Integer(1, 1024),
        "32",
        "Reads that run at once.",
    ),
    row(
        "limits.handshake_ms",
        Kind::Integer(1, HOUR_MS),
        "10000",
        "Milliseconds that a connection may take for its TLS handshake and first request.",
    ),
    row(
        "limits.idle_ms",
        Kind::Integer(1, DAY_MS),
        "300000",
        "Milliseconds that a connection may stay without traffic.",
    ),
    row(
        "limits.stall_ms",
        Kind::Integer(1, HOUR_MS),
        "30000",
        "Milliseconds that a caller may take to send a request that is no stream, and within which \
         it must take something of an answer that waits.",
    ),
    row(
        "limits.append_streams",
        Kind::Integer(8, 1_000_000),
        "4096",
        "Append streams open at once. One principal has a quarter of them at most; without access \
         control, one connection has.",
    ),
    row(
        "limits.stuck_ms",
        Kind::Integer(100, HOUR_MS),
        "10000",
        "Milliseconds for which a shard may serve no ledger that asks for little, or get nothing \
         to disk, before /readyz says that the server is not ready.",
    ),
    row(
        "limits.quota.statements_per_second",
        Kind::Integer(0, u32::MAX as u64),
        "0",
        "Statements a second of each principal, and task receipts on request; 0 is no bound.",
    ),
    row(
        "limits.quota.bytes_per_second",
        Kind::Integer(0, u32::MAX as u64),
        "0",
        "Bytes of payloads and contents a second of each principal; 0 is no bound.",
    ),
    row(
        "limits.quota.streams",
        Kind::Integer(0, u32::MAX as u64),
        "0",
        "Append streams that each principal may have open; 0 is no bound.",
    ),
    row(
        "limits.quota.stored_bytes",
        Kind::Integer(0, INTEGER_MAX),
        "0",
        "Bytes of contents held for each principal; 0 is no bound.",
    ),
    row(
        "content.key_file",
        Kind::Path,
        "",
        "File of the key that wraps the contents' keys; made at the first start. Not set: beside \
         the data directory, with .content-key added to its name. Keep it out of the data \
         directory's backups.",
    ),
    row(
        "content.bytes_max",
        Kind::Integer(1, INTEGER_MAX),
        "67108864",
        "Bytes of the largest content.",
    ),
    row(
        "content.orphan_ms",
        Kind::Integer(1000, CENTURY_MS),
        "86400000",
        "Milliseconds after which a content that no statement names is collected.",
    ),
    row(
        "content.uploads",
        Kind::Integer(4, 65_536),
        "64",
        "Uploads that run at once. A ledger has half of them at most, and a principal a quarter.",
    ),
    row(
        "content.stall_ms",
        Kind::Integer(100, HOUR_MS),
        "20000",
        "Milliseconds that an upload may wait for its client before it is ended and its place is \
         given back; each 64 KiB that arrive add a second.",
    ),
    row(
        "admin.listen",
        Kind::AddressOrNone,
        "127.0.0.1:7734",
        "Address on which /metrics, /healthz and /readyz are served, without access control; \
         \"none\" for no such port.",
    ),
    row(
        "admin.insecure",
        Kind::Bool,
        "false",
        "True if the admin port may be beyond loopback: everyone who reaches it may then read the \
         metrics.",
    ),
    row(
        "admin.connections",
        Kind::Integer(1, 1024),
        "64",
        "Connections to the admin port that are open at once; beyond, the oldest gives way.",
    ),
    row(
        "log.format",
        Kind::Choice(&["text", "json"]),
        "text",
        "Format of log lines on stderr.",
    ),
    row(
        "log.filter",
        Kind::Text,
        "info",
        "Filter of the log lines, in the syntax of RUST_LOG. RUST_LOG itself is used too, below \
         DEED__LOG__FILTER.",
    ),
    row(
        "otlp.endpoint",
        Kind::Endpoint,
        "",
        "OTLP collector (gRPC) to which the server's own traces are sent; without it none are \
         made.",
    ),
    row(
        "otlp.queue_spans",
        Kind::Integer(1, 1 << 20),
        "2048",
        "Spans that may wait to be sent; those beyond are dropped.",
    ),
    row(
        "otlp.timeout_ms",
        Kind::Integer(1, 60_000),
        "5000",
        "Milliseconds that sending may take, also the last sending when the server stops.",
    ),
];
