//! The command `deed-server reindex`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use deed_server::{
    config::{Flags, Settings},
    offline::reindex,
};

use crate::log_as;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The server's directory (default: the configuration's, which is ./deed-data if it is not
    /// set).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// File of settings; without it ./deed.toml is read, if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Rebuild only this ledger's index (default: that of every ledger).
    #[arg(long, value_name = "NAME")]
    ledger: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, mut flags: Flags) -> anyhow::Result<ExitCode> {
    flags.file.clone_from(&arguments.config);
    if let Some(data_dir) = &arguments.data_dir {
        flags.set("data_dir", data_dir, "--data-dir");
    }
    let settings = Settings::load(&flags)?;
    log_as(&settings)?;
    let ledger = arguments.ledger.as_deref();
    let rebuilt = reindex::rebuild(&settings.server.data_dir, ledger, &mut |progress| {
        eprintln!("{progress}");
    });
    match rebuilt {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("deed-server reindex: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}
