//! Configuration in four layers: defaults, a file, the environment, flags; each overrides the one
//! before.
//!
//! [`SETTINGS`] is the one table of all settings. A new setting is a row there and a line in
//! `Settings::build`; a test fails if one of the two is missing, or if `deploy/deed.toml` is out of
//! date.

mod layers;
mod print;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use deed_engine::store::{DiskOptions, StoreOptions};
pub use layers::Origin;
pub use table::{Kind, SETTINGS, Setting, setting};

use crate::{
    address::ListenAddress,
    options::{
        ClockOptions, ContentOptions, LimitOptions, QuotaOptions, ServerOptions, TlsOptions,
    },
    telemetry::{LogFormat, LogOptions, OtlpOptions},
};
use layers::Layer;
use table::{NONE, Value};

/// The file that is read from the working directory if no file is named; it may be missing.
pub const FILE_DEFAULT: &str = "deed.toml";

/// The reason for which a configuration cannot be used.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    /// The file is not TOML.
    #[error("{path} is not TOML: {reason}")]
    Syntax { path: PathBuf, reason: String },
    /// The environment cannot be read.
    #[error("the environment: {0}")]
    Environment(String),
    /// No setting has this key.
    #[error("{key} is not a setting ({origin}); the nearest one is {nearest}")]
    UnknownKey {
        key: String,
        /// The known key that is most similar to it.
        nearest: &'static str,
        origin: Origin,
    },
    /// The value has the wrong type, or is out of range.
    #[error("{key} is {found} where {wanted} is wanted ({origin})")]
    WrongType {
        key: String,
        found: String,
        wanted: String,
        origin: Origin,
    },
    /// A setting is of no use without another one.
    #[error("{key} is set ({origin}) and {missing} is not; set both or neither")]
    Incomplete {
        key: &'static str,
        missing: &'static str,
        origin: Origin,
    },
}

/// The settings in the flags of a command.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// File to read; `None` for [`FILE_DEFAULT`], if there is one.
    pub file: Option<PathBuf>,
    /// Key, value and the flag's name, in the order of the command line.
    values: Vec<(String, String, String)>,
}

impl Flags {
    /// Sets a key to the value of a flag.
    pub fn set(&mut self, key: &str, value: impl ToString, flag: &str) {
        self.values
            .push((key.to_owned(), value.to_string(), flag.to_owned()));
    }
}

/// The configuration in force.
#[derive(Debug)]
pub struct Settings {
    /// Options of the server.
    pub server: ServerOptions,
    /// Options of the log.
    pub log: LogOptions,
    /// Options of the export of the server's own traces; `None` for no export.
    pub otlp: Option<OtlpOptions>,
    /// True if the process's memory may be written to a core file.
    pub core_dumps: bool,
    layer: Layer,
}

impl Settings {
    /// Reads all layers: this process's environment, and the file that `flags` names.
    ///
    /// # Errors
    /// [`ConfigError`] of the lowest layer that has a mistake.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut variables = Vec::new();
        for (name, text) in std::env::vars_os() {
            // A name that is not UTF-8 cannot be one of Deed's variables.
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

    /// Reads all layers with another environment and, for [`FILE_DEFAULT`], another working
    /// directory.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Settings::load`].
    pub fn from_layers(
        flags: &Flags,
        environment: impl IntoIterator<Item = (String, String)>,
        directory: &Path,
    ) -> Result<Self, ConfigError> {
        let file = match &flags.file {
            Some(path) => Some(layers::file(path)?.ok_or_else(|| ConfigError::Read {
                path: path.clone(),
                cause: io::ErrorKind::NotFound.into(),
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

    /// Returns the source of a setting's value; `None` if it has no value.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.layer.get(key).map(|(_, origin)| origin)
    }

    /// Returns all values in force as a file that can be read again, each with its source.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::in_force(&self.layer, &self.server.content.key_file)
    }
}

/// Returns the file `deploy/deed.toml`, from which an operator starts: every setting with its
/// documentation, commented out.
#[must_use]
pub fn example() -> String {
    print::example()
}

/// Typed values by key. The types are right, because [`Kind`] has checked them.
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

    fn address(&self, key: &str) -> Option<ListenAddress> {
        self.text(key).filter(|text| *text != NONE)?.parse().ok()
    }

    fn bool(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(value) => Some(*value),
            Value::Integer(_) | Value::Text(_) => None,
        }
    }

    /// Returns a number that has a default.
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
