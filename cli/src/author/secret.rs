//! The secret of a state directory, from which the salts of commitments and the nonces of imports
//! derive.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context as _;
use deed_client::StateDir;

use crate::{
    failure::{CommandResult, Failure},
    files::{Readers, WholeFile, make_directory},
};

/// Reads a secret: 32 bytes, or 64 hex digits.
pub(crate) fn read(path: &Path) -> CommandResult<[u8; 32]> {
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
pub(crate) fn made_once(state: &StateDir) -> CommandResult<[u8; 32]> {
    let path = state.path().join("import.secret");
    if !path.exists() {
        make(state.path(), &path)
            .with_context(|| format!("cannot make {}", path.display()))
            .map_err(Failure::Usage)?;
    }
    read(&path)
}

/// Writes the secret as a whole or not at all, and never replaces another one, because two imports may
/// begin at once. After this the secret survives a power failure: runs that were imported with it could
/// not be imported again with another one.
fn make(directory: &Path, path: &Path) -> anyhow::Result<()> {
    make_directory(directory)?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("no random bytes")?;
    let made = WholeFile::create(path, Readers::Owner).and_then(|mut file| {
        file.write_all(&secret)?;
        file.keep_new()
    });
    secret.fill(0);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => Ok(made?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(directory.path().join("a/state"));
        let secret = made_once(&state).unwrap();
        assert_ne!(secret, [0; 32]);
        assert_eq!(made_once(&state).unwrap(), secret);
        let path = state.path().join("import.secret");
        make(state.path(), &path).unwrap();
        assert_eq!(read(&path).unwrap(), secret);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
    }
}
