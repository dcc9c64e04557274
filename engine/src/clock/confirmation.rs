//! An operator's confirmation of the clock, and the server's own record of it: two small files in
//! the data directory.
//!
//! ```text
//! clock-confirmed   the time that an operator confirmed last, microseconds, UTC
//! clock-base        the id of this boot (- if nobody knows), what has to be added to the time since
//!                   then, and a time that was believed
//! ```
//!
//! Whoever may write to the data directory may confirm the clock; a running server looks every
//! second.

use std::{
    fs::{File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use deed_evidence::Micros;
use deed_files::{Readers, WholeFile};
use thiserror::Error;

use super::{Clock, SystemClock};

const CONFIRMED: &str = "clock-confirmed";
const BASE: &str = "clock-base";

/// Stands in place of a boot's id where the machine has none.
const NO_BOOT: &str = "-";

/// Largest size of such a file, in bytes.
const BYTES_MAX: u64 = 256;

/// Largest difference between the time that an operator names and the machine's clock, in
/// microseconds.
const NAMED_WITHIN_US: i64 = 300_000_000;

/// The reason for which a time is not confirmed.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum ConfirmError {
    /// The machine's clock is too far from the time that was named.
    #[error(
        "the machine's clock says {} (seconds since 1970), which is {} s away from {}; if the machine's \
         clock is wrong, set it; if --time is, read the other clock again",
        .clock.get() / 1_000_000,
        .clock.get().abs_diff(.named.get()) / 1_000_000,
        .named.get() / 1_000_000
    )]
    OtherTime { clock: Micros, named: Micros },
    /// The directory is no server's data directory.
    #[error("{path} holds no server.key; name the data directory of the server")]
    NoServer { path: String },
    /// The confirmation cannot be written.
    #[error("the confirmation cannot be written: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ConfirmError {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

/// Confirms that the machine's clock is right, for a server that runs on `data_dir`; `named` is the
/// time by another clock. Returns the time that is confirmed.
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

/// Records `time` as confirmed.
pub fn note(data_dir: &Path, time: Micros) -> io::Result<()> {
    write(data_dir, CONFIRMED, &time.get().to_string())
}

/// Returns the time that was confirmed last; `None` if none was.
///
/// # Errors
/// The error of the file system if the file is there and cannot be read or holds no time. It
/// confirms nothing then.
pub fn read(data_dir: &Path) -> io::Result<Option<Micros>> {
    let Some(text) = text(&data_dir.join(CONFIRMED), BYTES_MAX)? else {
        return Ok(None);
    };
    let time = text.trim().parse().map_err(|_| no_content(CONFIRMED))?;
    Ok(Some(Micros::new(time)))
}

/// The clock as it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Id of the boot; `None` if the machine has none.
    pub(super) boot_id: Option<String>,
    /// Microseconds to add to the time since that boot.
    pub(super) offset: i64,
    /// A time that was believed when it was saved.
    pub(super) believed: Micros,
}

/// Returns the clock as it was saved; `None` if it was not.
///
/// # Errors
/// The error of the file system if the file is there and cannot be read or is malformed.
pub(super) fn read_base(data_dir: &Path) -> io::Result<Option<Kept>> {
    let Some(text) = text(&data_dir.join(BASE), BYTES_MAX)? else {
        return Ok(None);
    };
    let kept = || {
        let (rest, believed) = text.trim().rsplit_once(' ')?;
        let (boot_id, offset) = rest.rsplit_once(' ')?;
        Some(Kept {
            boot_id: (boot_id != NO_BOOT).then(|| boot_id.to_owned()),
            offset: offset.parse().ok()?,
            believed: Micros::new(believed.parse().ok()?),
        })
    };
    kept().map(Some).ok_or_else(|| no_content(BASE))
}

pub(super) fn write_base(data_dir: &Path, kept: &Kept) -> io::Result<()> {
    let id = kept.boot_id.as_deref().unwrap_or(NO_BOOT);
    let (offset, believed) = (kept.offset, kept.believed.get());
    write(data_dir, BASE, &format!("{id} {offset} {believed}"))
}

fn no_content(name: &str) -> io::Error {
    let what = format!("{name} does not hold what it should");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Returns the content of a small file; `None` if it is not there.
pub(super) fn text(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        let what = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(Some(text))
}

/// Writes a file whole or not at all: beside its place, synced, then renamed.
pub(super) fn write(data_dir: &Path, name: &str, text: &str) -> io::Result<()> {
    // No link is followed: root may run this where another user owns the directory.
    let unfinished = data_dir.join(format!("{name}.unfinished"));
    let mut file = WholeFile::create_as(&data_dir.join(name), &unfinished, Readers::All)?;
    // The file has no secret, and the server must read it whoever wrote it and under whatever
    // umask.
    file.file().set_permissions(Permissions::from_mode(0o644))?;
    writeln!(file, "{}", text.trim_end())?;
    file.keep()
}
