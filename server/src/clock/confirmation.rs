//! What an operator says of the clock, and what is kept of it: two small files in the data directory.
//!
//! ```text
//! clock-confirmed   the time that an operator confirmed last, microseconds, UTC
//! clock-base        the id of this boot, and what has to be added to the time since then
//! ```
//!
//! Whoever may write to the data directory may confirm; a running server looks every second.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use deed_evidence::Micros;
use thiserror::Error;

use super::{Clock, SystemClock};

const CONFIRMED: &str = "clock-confirmed";
const BASE: &str = "clock-base";

/// What such a file holds at most.
const BYTES_MAX: u64 = 256;

/// How far the time that an operator names may lie from the machine's clock.
const NAMED_WITHIN_US: i64 = 300_000_000;

/// A time that is not confirmed.
#[derive(Debug, Error)]
pub enum ConfirmError {
    /// The machine's clock says something else.
    #[error(
        "the machine's clock says {clock}, which is {} s away from {named}; set the clock first, then \
         confirm it",
        .clock.get().abs_diff(.named.get()) / 1_000_000
    )]
    OtherTime {
        /// What the clock says.
        clock: Micros,
        /// What was named.
        named: Micros,
    },
    /// No server has been here.
    #[error("{path} holds no server.key; name the data directory of the server")]
    NoServer {
        /// The data directory.
        path: String,
    },
    /// It cannot be written.
    #[error("the confirmation cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Confirms that the machine's clock is right, for a server that runs on this data directory: `named` is
/// the time by another clock. The time that is confirmed.
///
/// # Errors
/// [`ConfirmError`]; nothing is changed then.
pub fn confirm(data_dir: &Path, named: Micros) -> Result<Micros, ConfirmError> {
    if !data_dir.join("server.key").exists() {
        let path = data_dir.display().to_string();
        return Err(ConfirmError::NoServer { path });
    }
    let clock = SystemClock.now();
    if clock.get().abs_diff(named.get()) > NAMED_WITHIN_US.unsigned_abs() {
        return Err(ConfirmError::OtherTime { clock, named });
    }
    note(data_dir, clock)?;
    Ok(clock)
}

/// Notes a time that is confirmed.
pub(super) fn note(data_dir: &Path, time: Micros) -> io::Result<()> {
    write(data_dir, CONFIRMED, &time.get().to_string())
}

/// The time that was confirmed last. A file that cannot be read confirms nothing.
pub(super) fn read(data_dir: &Path) -> Option<Micros> {
    let text = text(&data_dir.join(CONFIRMED))?;
    text.trim().parse().ok().map(Micros::new)
}

/// What was kept of the clock, if the machine was not booted since.
pub(super) fn read_base(data_dir: &Path, boot_id: &str) -> Option<i64> {
    let text = text(&data_dir.join(BASE))?;
    let (id, offset) = text.trim().rsplit_once(' ')?;
    (id == boot_id).then(|| offset.parse().ok()).flatten()
}

pub(super) fn write_base(data_dir: &Path, boot_id: &str, offset: i64) -> io::Result<()> {
    write(data_dir, BASE, &format!("{boot_id} {offset}"))
}

fn text(path: &Path) -> Option<String> {
    let len = fs::metadata(path).ok()?.len();
    (len <= BYTES_MAX).then(|| fs::read_to_string(path).ok())?
}

/// Whole or not at all: beside it, synced, then renamed.
fn write(data_dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let unfinished = data_dir.join(format!("{name}.unfinished"));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&unfinished, data_dir.join(name))
}
