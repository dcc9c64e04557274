//! `deed-server config`.

use std::process::ExitCode;

use clap::Args;
use deed_server::config::{self, Flags};

use super::SettingArguments;
use crate::print_line;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingArguments,
    /// Print nothing; exit code 0 if the configuration can be used, 2 and why not otherwise.
    #[arg(long)]
    check: bool,
    /// Print every setting, with what it does and what it is without being set, to begin with.
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
