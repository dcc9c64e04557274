//! The importer's secret, from which the salts of commitments derive.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use deed_client::StateDir;

use crate::cli::{Failure, Outcome};

/// Reads a secret: 32 bytes, or 64 hex digits.
pub(super) fn read(path: &Path) -> Outcome<[u8; 32]> {
    let mut bytes = fs::read(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(Failure::Usage)?;
    let mut secret = [0; 32];
    let known = match <[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(raw) => {
            secret = raw;
            true
        }
        Err(_) => hex::decode_to_slice(bytes.trim_ascii(), &mut secret).is_ok(),
    };
    bytes.fill(0);
    if known {
        return Ok(secret);
    }
    Err(Failure::usage(format!(
        "{} is no secret of 32 bytes (or 64 hex digits)",
        path.display()
    )))
}

/// The secret of this state directory, made at first use and readable by its owner alone.
pub(super) fn made_once(state: &StateDir) -> Outcome<[u8; 32]> {
    let path = state.path().join("import.secret");
    if !path.exists() {
        make(state.path(), &path)
            .with_context(|| format!("cannot make {}", path.display()))
            .map_err(Failure::Usage)?;
    }
    read(&path)
}

/// Whole or not at all, and never in place of another: two imports may begin at once.
fn make(directory: &Path, path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("no random bytes")?;
    let temporary = directory.join(format!("import.secret.{}", std::process::id()));
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(&secret)?;
            file.sync_all()
        })
        .and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    secret.fill(0);
    let _ = fs::remove_file(&temporary);
    Ok(made?)
}
