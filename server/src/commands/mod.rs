//! The subcommands, one file each, and the flags that several of them share.

pub(crate) mod access;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod fsck;
pub(crate) mod health;
pub(crate) mod reindex;
pub(crate) mod renew_secret;
pub(crate) mod run;

use std::path::PathBuf;

use clap::{ArgAction, Args};
use deed_server::config::{Flags, Settings};

/// Flags for the settings that are changed most often; `--set` sets any other.
#[derive(Debug, Args)]
pub(crate) struct SettingArguments {
    /// File of settings; without it ./deed.toml is read, if there is one. Flags override the
    /// environment (DEED__TLS__KEY=FILE), which overrides the file. See `deed-server config`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets any setting, named as in the file: --set limits.reads=16.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, action = ArgAction::Append)]
    set: Vec<(String, String)>,
    /// Directory of the store, the head guard and the server's key; created if missing
    /// (default: ./deed-data).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address or name to listen on, with a port; :7733 is every address of this machine (default:
    /// 127.0.0.1:7733).
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The server's name, for a new data directory: the first part of every ledger's origin.
    #[arg(long)]
    name: Option<String>,
    /// Shards, each of which writes for a share of the ledgers: 1 to 64 (default: 1).
    #[arg(long, value_name = "COUNT")]
    shards: Option<String>,
    /// MiB of statements that may wait for each shard: 8 to 1024 (default: 64).
    #[arg(long, value_name = "MIB")]
    queue_mib: Option<String>,
    /// MiB of memory for blocks read from disk (default: 256).
    #[arg(long, value_name = "MIB")]
    block_cache_mib: Option<String>,
    /// Milliseconds that stopping may take, half of them for requests that wait (default: 10000).
    #[arg(long, value_name = "MS")]
    drain_ms: Option<String>,
    /// Address of /metrics, /healthz and /readyz, or none (default: 127.0.0.1:7734).
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// PEM file of the listener's certificate chain; needs --tls-key.
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// PEM file of the listener's private key; needs --tls-certificate.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// PEM file of the authorities that sign clients' certificates.
    #[arg(long, value_name = "FILE")]
    tls_client_authorities: Option<String>,
    /// Listen beyond loopback without TLS or without access control: everyone who reaches the
    /// server may then read and write.
    #[arg(long)]
    insecure: bool,
}

impl SettingArguments {
    /// Loads the settings of all layers, with these flags as the highest.
    pub(crate) fn load(&self, mut flags: Flags) -> anyhow::Result<Settings> {
        flags.file.clone_from(&self.config);
        for (key, value) in &self.set {
            flags.set(key, value, "--set");
        }
        for (key, value, flag) in [
            ("data_dir", &self.data_dir, "--data-dir"),
            ("listen", &self.listen, "--listen"),
            ("name", &self.name, "--name"),
            ("shards", &self.shards, "--shards"),
            ("queue_mib", &self.queue_mib, "--queue-mib"),
            (
                "store.block_cache_mib",
                &self.block_cache_mib,
                "--block-cache-mib",
            ),
            ("drain_ms", &self.drain_ms, "--drain-ms"),
            ("admin.listen", &self.admin, "--admin"),
            (
                "tls.certificate",
                &self.tls_certificate,
                "--tls-certificate",
            ),
            ("tls.key", &self.tls_key, "--tls-key"),
            (
                "tls.client_authorities",
                &self.tls_client_authorities,
                "--tls-client-authorities",
            ),
        ] {
            if let Some(value) = value {
                flags.set(key, value, flag);
            }
        }
        if self.insecure {
            flags.set("access.insecure", true, "--insecure");
        }
        Ok(Settings::load(&flags)?)
    }
}

/// The data directory of a server, for commands that work on it.
#[derive(Debug, Args)]
pub(crate) struct DirectoryArguments {
    /// The server's directory (default: the configuration's, which is ./deed-data if it is not
    /// set).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// File of settings; without it ./deed.toml is read, if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DirectoryArguments {
    /// Loads the settings of that server.
    ///
    /// # Errors
    /// If a setting is wrong, or the file cannot be read.
    pub(crate) fn load(&self, mut flags: Flags) -> anyhow::Result<Settings> {
        flags.file.clone_from(&self.config);
        if let Some(data_dir) = &self.data_dir {
            flags.set("data_dir", data_dir, "--data-dir");
        }
        Ok(Settings::load(&flags)?)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("a key, an equals sign and a value are wanted, such as limits.reads=16")?;
    Ok((key.to_owned(), value.to_owned()))
}
