//! The command `deed-server reindex`.

use std::process::ExitCode;

use clap::Args;
use deed_server::{config::Flags, offline::reindex};

use super::DirectoryArguments;
use crate::log_as;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: DirectoryArguments,
    /// Rebuild only this ledger's index (default: that of every ledger).
    #[arg(long, value_name = "NAME")]
    ledger: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, flags: Flags) -> anyhow::Result<ExitCode> {
    let settings = arguments.directory.load(flags)?;
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
