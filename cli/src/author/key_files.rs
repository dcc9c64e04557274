//! Private keys in the state directory.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use deed_client::{StateDir, key};
use deed_tlog::SigningKey;
use tonic::{Code, Status};

use crate::{
    failure::{CommandResult, Failure},
    files::{Readers, WholeFile, make_private_directory},
};

pub(crate) fn keys_directory(state: &StateDir) -> PathBuf {
    state.path().join("keys")
}

/// A ledger's name as it stands in the names of files.
pub(crate) fn readable(ledger: &str) -> String {
    ledger
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(63)
        .collect()
}

/// An authority key that was made here.
pub(crate) struct NewAuthority {
    pub(crate) public_key: [u8; 32],
    /// The file of its private half.
    pub(crate) path: PathBuf,
}

impl NewAuthority {
    /// Makes a key and writes it to `<state>/keys/<ledger>-<key>.key`, readable by its owner
    /// alone, and there after a power failure.
    pub(crate) fn make(state: &StateDir, ledger: &str) -> CommandResult<Self> {
        let made = key::generate().map_err(|error| Failure::Usage(error.into()))?;
        let public_key = *made.public_key().as_bytes();
        let directory = keys_directory(state);
        make_private_directory(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))
            .map_err(Failure::Usage)?;
        let name = format!("{}-{}.key", readable(ledger), hex::encode(&public_key[..4]));
        let path = directory.join(name);
        write_private(&path, &made)?;
        Ok(Self { public_key, path })
    }

    /// Removes the key if no ledger was made with it, for certain.
    pub(crate) fn discard_if_refused(&self, status: &Status) {
        let refused = matches!(
            status.code(),
            Code::AlreadyExists
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
        );
        if refused {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a private key where there is no file yet.
pub(crate) fn write_private(path: &Path, key: &SigningKey) -> CommandResult {
    let text = key::private_to_pem(key);
    write_new(path, text.as_bytes(), Readers::Owner)
}

pub(crate) fn write_new(path: &Path, bytes: &[u8], readers: Readers) -> CommandResult {
    let written = WholeFile::create(path, readers).and_then(|mut file| {
        file.write_all(bytes)?;
        file.keep_new()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => already_exists(path),
        _ => Failure::Usage(
            anyhow::Error::new(error).context(format!("cannot write {}", path.display())),
        ),
    })
}

pub(crate) fn already_exists(path: &Path) -> Failure {
    Failure::usage(format!(
        "{} is there already and keys are never replaced; choose another name with --out",
        path.display()
    ))
}
