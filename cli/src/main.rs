//! `deed`: writes to a Deed ledger and verifies everything that it reads from one.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod args;
mod author;
mod command_line;
mod commands;
mod failure;
mod files;
mod render;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    command_line::run()
}
