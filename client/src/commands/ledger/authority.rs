//! Authority keys: reading public ones, making new ones.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use deed_client::StateDir;
use deed_tlog::PublicKey;
use ed25519_dalek::SigningKey;
use tonic::{Code, Status};

use crate::cli::{Failure, Outcome, Readers, WholeFile, make_private_directory};

/// An authority key that was made here.
pub(super) struct NewAuthority {
    pub(super) public_key: [u8; 32],
    /// Where its private half is.
    pub(super) path: PathBuf,
}

impl NewAuthority {
    /// Makes a key and writes it to `<state>/keys/<ledger>-<key>.key`, readable by its owner
    /// alone, and there after a power failure.
    pub(super) fn make(state: &StateDir, ledger: &str) -> Outcome<Self> {
        Self::write(state, ledger).map_err(Failure::Usage)
    }

    fn write(state: &StateDir, ledger: &str) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("no random bytes for a key")?;
        // Wipes itself when dropped.
        let signing = SigningKey::from_bytes(&seed);
        seed.fill(0);
        let public_key = signing.verifying_key().to_bytes();
        let directory = state.path().join("keys");
        make_private_directory(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let readable: String = ledger
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .take(63)
            .collect();
        let name = format!("{readable}-{}.key", hex::encode(&public_key[..4]));
        let path = directory.join(name);
        let text = format!(
            "# Authority key of the Deed ledger {readable}: Ed25519 (RFC 8032). Keep it secret.\n\
             public {}\nprivate {}\n",
            hex::encode(public_key),
            hex::encode(signing.to_bytes())
        );
        WholeFile::create(&path, Readers::Owner)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.keep_new()
            })
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { public_key, path })
    }

    /// Removes the key if no ledger was made with it, for certain.
    pub(super) fn discard_if_refused(&self, status: &Status) {
        let refused = matches!(
            status.code(),
            Code::AlreadyExists | Code::InvalidArgument | Code::PermissionDenied
        );
        if refused {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads a public key: 64 hex digits, or a file that holds them (alone, or in a line
/// `public <hex>` as in the files made here).
pub(super) fn authority_key(argument: &str) -> Outcome<[u8; 32]> {
    if let Some(key) = parse(argument) {
        return checked(key, argument);
    }
    let path = Path::new(argument);
    let text = fs::read_to_string(path)
        .with_context(|| format!("{argument:?} is neither 64 hex digits nor a readable file"))
        .map_err(Failure::Usage)?;
    let key = text
        .lines()
        .map(str::trim)
        .find_map(|line| parse(line.strip_prefix("public ").unwrap_or(line)));
    match key {
        Some(key) => checked(key, argument),
        None => Err(Failure::usage(format!(
            "{argument} holds no public key; write its 64 hex digits there"
        ))),
    }
}

fn parse(hex: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(hex, &mut key).ok()?;
    Some(key)
}

fn checked(key: [u8; 32], argument: &str) -> Outcome<[u8; 32]> {
    match PublicKey::from_bytes(&key) {
        Ok(_) => Ok(key),
        Err(error) => Err(Failure::usage(format!("{argument}: {error}"))),
    }
}
