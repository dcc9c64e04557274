//! The command `deed-server fsck`.

use std::process::ExitCode;

use clap::Args;
use deed_server::{config::Flags, offline::fsck};

use super::DirectoryArguments;
use crate::{log_as, print_line};

#[derive(Debug, Args)]
#[command(mut_arg("data_dir", |arg| arg.help(
    "Directory to check (default: the configuration's, which is ./deed-data if it is not set)"
)))]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: DirectoryArguments,
}

pub(crate) fn run(arguments: &Arguments, flags: Flags) -> anyhow::Result<ExitCode> {
    let settings = arguments.directory.load(flags)?;
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
