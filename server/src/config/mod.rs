//! Configuration: defaults, below a file, below the environment, below flags.
//!
//! [`SETTINGS`] is the one table of what can be set. A new setting is a row there and a line in
//! `Settings::build`; a test fails if one of the two is missing, or `deploy/deed.toml` is behind.

mod layers;
mod print;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use thiserror::Error;

use deed_engine::store::{DiskOptions, StoreOptions};
pub use layers::Origin;
pub use table::{Kind, SETTINGS, Setting, setting};

use crate::{
    options::{
        ClockOptions, ContentOptions, LimitOptions, QuotaOptions, ServerOptions, TlsOptions,
    },
    telemetry::{LogFormat, LogOptions, OtlpOptions},
};
use layers::Layer;
use table::{NONE, Value};

/// The file that is read if none is named, in the working directory; it need not be there.
pub const FILE_DEFAULT: &str = "deed.toml";

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {reason}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where, and what was expected.
        reason: String,
    },
    /// The environment cannot be read.
    #[error("the environment: {0}")]
    Environment(String),
    /// No setting has this key.
    #[error("{key} is not a setting ({origin}); the nearest one is {nearest}")]
    UnknownKey {
        /// What was given.
        key: String,
        /// The known key that is most like it.
        nearest: &'static str,
        /// Where it was given.
        origin: Origin,
    },
    /// The value does not fit.
    #[error("{key} is {found} where {wanted} is wanted ({origin})")]
    WrongType {
        /// The setting.
        key: String,
        /// What was given.
        found: String,
        /// What it takes.
        wanted: String,
        /// Where it was given.
        origin: Origin,
    },
    /// A setting that means nothing without another.
    #[error("{key} is set ({origin}) and {missing} is not; set both or neither")]
    Incomplete {
        /// What is set.
        key: &'static str,
        /// What it needs.
        missing: &'static str,
        /// Where it is set.
        origin: Origin,
    },
}

/// What flags say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The file to read; without one, [`FILE_DEFAULT`] if it is there.
    pub file: Option<PathBuf>,
    /// Key, value and the flag's name, in the order of the command line.
    values: Vec<(String, String, String)>,
}

impl Flags {
    /// Notes that a flag sets a key.
    pub fn set(&mut self, key: &str, value: impl ToString, flag: &str) {
        self.values
            .push((key.to_owned(), value.to_string(), flag.to_owned()));
    }
}

/// A configuration in force.
#[derive(Debug)]
pub struct Settings {
    /// How the server is set up.
    pub server: ServerOptions,
    /// What it logs.
    pub log: LogOptions,
    /// Where its own traces go, if anywhere.
    pub otlp: Option<OtlpOptions>,
    /// True if the process's memory may be written to a core file.
    pub core_dumps: bool,
    layer: Layer,
}

impl Settings {
    /// Reads all layers: this process's environment, and the file that `flags` names.
    ///
    /// # Errors
    /// [`ConfigError`], of the lowest layer that has one.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut variables = Vec::new();
        for (name, text) in std::env::vars_os() {
            // A name that is not text is none of ours.
            let Ok(name) = name.into_string() else {
                continue;
            };
            match text.into_string() {
                Ok(text) => variables.push((name, text)),
                Err(_) if name.starts_with(layers::ENVIRONMENT_PREFIX) => {
                    return Err(ConfigError::Environment(format!("{name} is not UTF-8")));
                }
                Err(_) => {}
            }
        }
        Self::from_layers(flags, variables, Path::new(""))
    }

    /// The same with another environment and, for the file that need not be there, another
    /// working directory.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from_layers(
        flags: &Flags,
        environment: impl IntoIterator<Item = (String, String)>,
        directory: &Path,
    ) -> Result<Self, ConfigError> {
        let file = match &flags.file {
            Some(path) => Some(layers::file(path)?.ok_or_else(|| ConfigError::Read {
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            })?),
            None => layers::file(&directory.join(FILE_DEFAULT))?,
        };
        let mut layer = layers::defaults();
        layer.extend(file.unwrap_or_default());
        layer.extend(layers::environment(environment)?);
        layer.extend(layers::flags(&flags.values)?);
        Self::build(layer)
    }

    fn build(layer: Layer) -> Result<Self, ConfigError> {
        let values = Values(&layer);
        values.need("tls.certificate", "tls.key")?;
        values.need("tls.key", "tls.certificate")?;
        values.need("tls.client_authorities", "tls.certificate")?;
        if values.bool("tls.require_client_certificate") == Some(true) {
            values.need("tls.require_client_certificate", "tls.client_authorities")?;
        }
        let data_dir = values.path("data_dir").unwrap_or_default();
        let mut content = ContentOptions::new(&data_dir);
        if let Some(key_file) = values.path("content.key_file") {
            content.key_file = key_file;
        }
        content.bytes_max = values.integer("content.bytes_max");
        content.orphan_ms = values.integer("content.orphan_ms");
        content.uploads = values.small("content.uploads");
        content.stall_ms = values.integer("content.stall_ms");
        let tls = values
            .path("tls.certificate")
            .zip(values.path("tls.key"))
            .map(|(certificate, key)| TlsOptions {
                certificate,
                key,
                client_authorities: values.path("tls.client_authorities"),
                require_client_certificate: values
                    .bool("tls.require_client_certificate")
                    .unwrap_or_default(),
            });
        let mut server = ServerOptions {
            listen: values.address("listen").expect("it has a default"),
            name: values.text("name").map(str::to_owned),
            shards: values.small("shards"),
            queue_bytes: values.mib("queue_mib"),
            store: StoreOptions {
                block_cache_bytes: values.mib("store.block_cache_mib"),
                memtable_bytes: values.mib("store.memtable_mib"),
                open_files: values.small("store.open_files"),
                disk: DiskOptions {
                    contents_floor_bytes: values.integer("store.contents_floor_mib") << 20,
                    contents_floor_percent: values.integer("store.contents_floor_percent"),
                    log_floor_bytes: values.integer("store.log_floor_mib") << 20,
                },
            },
            drain_ms: values.integer("drain_ms"),
            clock: ClockOptions {
                jump_max_ms: values.integer("clock.jump_max_ms"),
                start_ahead_max_ms: values.integer("clock.start_ahead_max_ms"),
            },
            tls,
            content,
            admin: values.address("admin.listen"),
            admin_insecure: values.bool("admin.insecure").unwrap_or_default(),
            admin_connections: values.small("admin.connections"),
            limits: LimitOptions {
                connections: values.small("limits.connections"),
                requests_per_connection: values.word("limits.requests_per_connection"),
                connection_bytes: values.mib("limits.connection_mib"),
                ledger_bytes: values.mib("limits.ledger_mib"),
                server_bytes: values.mib("limits.server_mib"),
                answers_bytes: values.mib("limits.answers_mib"),
                read_streams: values.small("limits.read_streams"),
                reads: values.small("limits.reads"),
                handshake_ms: values.integer("limits.handshake_ms"),
                idle_ms: values.integer("limits.idle_ms"),
                stall_ms: values.integer("limits.stall_ms"),
                append_streams: values.small("limits.append_streams"),
                stuck_ms: values.integer("limits.stuck_ms"),
                quota: QuotaOptions {
                    statements_per_second: values.word("limits.quota.statements_per_second"),
                    bytes_per_second: values.word("limits.quota.bytes_per_second"),
                    streams: values.word("limits.quota.streams"),
                    stored_bytes: values.integer("limits.quota.stored_bytes"),
                },
            },
            ..ServerOptions::new(data_dir)
        };
        server.access.required = values.bool("access.required");
        server.access.insecure = values.bool("access.insecure").unwrap_or_default();
        let log = LogOptions {
            format: match values.text("log.format") {
                Some("json") => LogFormat::Json,
                _ => LogFormat::Text,
            },
            filter: values.text("log.filter").unwrap_or_default().to_owned(),
        };
        let otlp = values.text("otlp.endpoint").map(|endpoint| OtlpOptions {
            endpoint: endpoint.to_owned(),
            queue_spans: values.small("otlp.queue_spans"),
            timeout_ms: values.integer("otlp.timeout_ms"),
        });
        let core_dumps = values.bool("core_dumps").unwrap_or_default();
        Ok(Self {
            server,
            log,
            otlp,
            core_dumps,
            layer,
        })
    }

    /// Where the value of a setting comes from; `None` if it has none.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.layer.get(key).map(|(_, origin)| origin)
    }

    /// Everything in force as a file that can be read again, each setting with its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::in_force(&self.layer, &self.server.content.key_file)
    }
}

/// The file that an operator starts from: every setting with what it does, commented out.
/// `deploy/deed.toml` is this.
#[must_use]
pub fn example() -> String {
    print::example()
}

/// Values by key and type. The types fit: [`Kind`] has checked them.
struct Values<'l>(&'l BTreeMap<&'static str, (Value, Origin)>);

impl Values<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        debug_assert!(setting(key).is_some(), "{key} is not in the table");
        self.0.get(key).map(|(value, _)| value)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Integer(_) => None,
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    fn address(&self, key: &str) -> Option<SocketAddr> {
        self.text(key).filter(|text| *text != NONE)?.parse().ok()
    }

    fn bool(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(value) => Some(*value),
            Value::Integer(_) | Value::Text(_) => None,
        }
    }

    /// A number that has a default.
    fn integer(&self, key: &str) -> u64 {
        match self.value(key) {
            Some(Value::Integer(value)) => *value,
            _ => unreachable!("{key} is a number with a default"),
        }
    }

    fn small(&self, key: &str) -> usize {
        usize::try_from(self.integer(key)).unwrap_or(usize::MAX)
    }

    fn word(&self, key: &str) -> u32 {
        u32::try_from(self.integer(key)).unwrap_or(u32::MAX)
    }

    fn mib(&self, key: &str) -> usize {
        self.small(key).saturating_mul(1 << 20)
    }

    fn need(&self, key: &'static str, missing: &'static str) -> Result<(), ConfigError> {
        match self.0.get(key) {
            Some((_, origin)) if !self.0.contains_key(missing) => Err(ConfigError::Incomplete {
                key,
                missing,
                origin: origin.clone(),
            }),
            _ => Ok(()),
        }
    }
}
