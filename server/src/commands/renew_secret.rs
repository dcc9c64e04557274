//! The command `deed-server renew-secret`.

use std::process::ExitCode;

use clap::Args;
use deed_server::{config::Flags, offline::secret};

use super::DirectoryArguments;
use crate::print_line;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: DirectoryArguments,
}

pub(crate) fn run(arguments: &Arguments, flags: Flags) -> anyhow::Result<ExitCode> {
    let settings = arguments.directory.load(flags)?;
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
