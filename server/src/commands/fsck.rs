//! The command `deed-server fsck`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use deed_server::{
    config::{Flags, Settings},
    offline::fsck,
};

use crate::{log_as, print_line};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory to check (default: the configuration's, which is ./deed-data if it is not set).
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
    log_as(&settings)?;
    let server = &settings.server;
    let key_file = &server.content.key_file;
    let report = fsck::check_with(&server.data_dir, key_file, &mut |progress| {
        eprintln!("{progress}");
    });
    match report {
        Ok(report) => {
            print_line(&report.to_string());
            // This is no sign of a lost head: a power cut during the write leaves the same.
            for what in &report.damaged_guards {
                print_line(&format!(
                    "one half of {what} is damaged, the other one stands: a power cut does that, and \
                     the next writes mend it; otherwise look at the disk"
                ));
            }
            // Contents are reported apart from the log, whose integrity does not depend on them.
            print_line(&report.contents.to_string());
            Ok(if report.contents.damaged == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            eprintln!("deed-server fsck: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}
