//! `deed`: writes to a Deed ledger and verifies everything that it reads from one.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod cli;
mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
