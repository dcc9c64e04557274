//! The command `deed-server renew-secret`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use deed_server::{
    config::{Flags, Settings},
    offline::secret,
};

use crate::print_line;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The server's directory (default: the configuration's, which is ./deed-data if it is not
    /// set).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// File of settings; without it ./deed.toml is read, if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, mut flags: Flags) -> anyhow::Result<ExitCode> {
    flags.file.clone_from(&arguments.config);
    if let Some(data_dir) = &arguments.data_dir {
        flags.set("data_dir", data_dir, "--data-dir");
    }
    let settings = Settings::load(&flags)?;
    match secret::renew(&settings.server.data_dir) {
        Ok(()) => {
            print_line(
                "server.key has a new secret; copy it to where you keep the old one. Each ledger signs \
                 with its old key until an authority runs `deed ledger rotate-log-key`",
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("deed-server renew-secret: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}
