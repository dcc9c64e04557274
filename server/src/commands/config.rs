//! The command `deed-server config`.

use std::process::ExitCode;

use clap::Args;
use deed_server::config::{self, Flags};

use super::SettingArguments;
use crate::print_line;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingArguments,
    /// Print nothing; exit code 0 if the configuration can be used, otherwise 2 with the reason.
    #[arg(long)]
    check: bool,
    /// Print every setting with its documentation and its default, as a file to start from.
    #[arg(long, conflicts_with = "check")]
    example: bool,
}

pub(crate) fn run(arguments: &Arguments, flags: Flags) -> anyhow::Result<ExitCode> {
    if arguments.example {
        print_line(config::example().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let settings = arguments.settings.load(flags)?;
    settings.log.parsed()?;
    if !arguments.check {
        print_line(settings.to_toml().trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
