//! The server's name and the secret that its log keys derive from.
//!
//! `server.key`, mode 0600, in the data directory:
//!
//! ```text
//! deed-server-key-v1
//! name <server name>
//! secret <base64 of 32 bytes>
//! secret <...>                    after each renewal, at most 16 in all, the newest last
//! ```
//!
//! Each ledger has a log key of its own: its Ed25519 seed is BLAKE3 derive-key("deed.v1 log key",
//! secret || key generation (u32, big-endian) || origin). One file is to be kept safe, and no key
//! serves two uses.
//!
//! The generation is the number of keys that the ledger had before. Its next key always derives
//! from the newest secret. Nobody writes down which secret an earlier key derives from: trying them
//! shows it. Secrets stay, because a ledger signs with its old key until an authority has it
//! replaced, and the old key signs the first head of the new one once more.

pub(crate) mod log_signers;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use deed_files::Readers;
use deed_tlog::{NoteSigner, Origin, VerifierKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// BLAKE3 context of log keys. It never changes.
const LOG_KEY_CONTEXT: &str = "deed.v1 log key";

const MAGIC: &str = "deed-server-key-v1";

/// Longest server name in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Most secrets of a server. Finding a key's secret tries them all.
const SECRETS_MAX: usize = 16;

/// A secret that is wiped when it is dropped.
type Secret = Zeroizing<[u8; 32]>;

/// The server's name, and the secrets of its log keys.
pub struct Identity {
    name: String,
    /// The secrets, oldest first. Invariant: 1 to [`SECRETS_MAX`].
    secrets: Vec<Secret>,
}

/// The reason for which a key file cannot be used.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file system failed.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// Others can read the file.
    #[error("{path} has mode {mode:o}: it holds a secret, so `chmod 600` it first")]
    Mode { path: PathBuf, mode: u32 },
    /// The file has another form.
    #[error("{path}: line {line} is not what a server key has there; restore it from a copy")]
    Malformed {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The name cannot be the first part of an origin.
    #[error(
        "server name {name:?}: use 1 to {NAME_BYTES_MAX} of a-z, 0-9, '.', '-' and '/', for example \
         ledger.example.org"
    )]
    Name { name: String },
    /// The name is not the one that the ledgers' origins have.
    #[error(
        "this data directory belongs to server {found:?}, not {wanted:?}; a name never changes"
    )]
    OtherName { found: String, wanted: String },
    /// The file has as many secrets as it may.
    #[error(
        "{path} has {SECRETS_MAX} secrets, which is the most; begin new ledgers on a new server"
    )]
    Secrets { path: PathBuf },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Identity {
    /// Loads the identity in `data_dir`; returns `None` if there is none yet.
    ///
    /// # Errors
    /// [`IdentityError`] if the file cannot be read, is open to others, or is malformed.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = path_in(data_dir);
        let io = |cause| IdentityError::Io {
            path: path.clone(),
            cause,
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mode = fs::metadata(&path).map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Mode { path, mode });
        }
        Self::parse(&text)
            .map(Some)
            .map_err(|line| IdentityError::Malformed { path, line })
    }

    /// Makes a new identity and writes it, synced, with mode 0600. If `name` is `None`, the name is
    /// random.
    ///
    /// # Errors
    /// [`IdentityError`] if the name is invalid, the file cannot be written, or there are no random
    /// bytes.
    pub fn create(data_dir: &Path, name: Option<&str>) -> Result<Self, IdentityError> {
        let secrets = vec![new_secret()?];
        let name = match name {
            Some(name) => checked_name(name)?,
            None => {
                let mut suffix = [0; 4];
                getrandom::fill(&mut suffix).map_err(IdentityError::Random)?;
                format!("deed-{}", hex::encode(suffix))
            }
        };
        let identity = Self { name, secrets };
        let path = path_in(data_dir);
        write_secret(&path, &identity.to_text())
            .map_err(|cause| IdentityError::Io { path, cause })?;
        Ok(identity)
    }

    /// Adds a new secret, from which the next log key of each ledger derives. The server must not
    /// be running.
    ///
    /// # Errors
    /// [`IdentityError`] if there are too many secrets, or the file cannot be written.
    pub fn renew(&mut self, data_dir: &Path) -> Result<(), IdentityError> {
        let path = path_in(data_dir);
        if self.secrets.len() >= SECRETS_MAX {
            return Err(IdentityError::Secrets { path });
        }
        self.secrets.push(new_secret()?);
        write_secret(&path, &self.to_text()).map_err(|cause| IdentityError::Io { path, cause })
    }

    /// Returns the server's name: the first part of its ledgers' origins.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fails if `wanted` is another name than this server's.
    ///
    /// # Errors
    /// [`IdentityError::OtherName`] if it is.
    pub(crate) fn expect_name(&self, wanted: Option<&str>) -> Result<(), IdentityError> {
        match wanted {
            Some(wanted) if wanted != self.name => Err(IdentityError::OtherName {
                found: self.name.clone(),
                wanted: wanted.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the signer that a ledger gets as its log key number `generation`.
    pub(crate) fn log_signer(&self, origin: &Origin, generation: u32) -> NoteSigner {
        let newest = &self.secrets[self.secrets.len() - 1];
        derive(newest, origin, generation)
    }

    /// Returns the signer of a key that the ledger got as number `generation`; `None` if none of
    /// the secrets gives that key.
    pub(crate) fn log_signer_of(
        &self,
        origin: &Origin,
        generation: u32,
        key: &VerifierKey,
    ) -> Option<NoteSigner> {
        let mut derived = self
            .secrets
            .iter()
            .rev()
            .map(|secret| derive(secret, origin, generation));
        derived.find(|signer| signer.verifier_key() == key)
    }

    fn to_text(&self) -> Zeroizing<String> {
        // The buffer has its full size from the start: growing would leave copies of the secrets
        // behind.
        let room = self.name.len() + 64 + self.secrets.len() * 64;
        let mut text = Zeroizing::new(String::with_capacity(room));
        text.push_str(&format!("{MAGIC}\nname {}\n", self.name));
        for secret in &self.secrets {
            text.push_str("secret ");
            text.push_str(&Zeroizing::new(BASE64.encode(**secret)));
            text.push('\n');
        }
        text
    }

    /// Parses the file's text; the error is the number of the line that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(1);
        }
        let name = lines
            .next()
            .and_then(|line| line.strip_prefix("name "))
            .and_then(|name| checked_name(name).ok())
            .ok_or(2_usize)?;
        let secret = |line: &str| {
            let decoded = Zeroizing::new(BASE64.decode(line.strip_prefix("secret ")?).ok()?);
            let mut secret = Zeroizing::new([0; 32]);
            (decoded.len() == secret.len()).then(|| secret.copy_from_slice(&decoded))?;
            Some(secret)
        };
        let mut secrets = Vec::new();
        for (number, line) in (3..).zip(lines) {
            match secret(line) {
                Some(secret) if secrets.len() < SECRETS_MAX && !secrets.contains(&secret) => {
                    secrets.push(secret);
                }
                _ => return Err(number),
            }
        }
        if secrets.is_empty() {
            return Err(3);
        }
        Ok(Self { name, secrets })
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn derive(secret: &Secret, origin: &Origin, generation: u32) -> NoteSigner {
    let mut hasher = blake3::Hasher::new_derive_key(LOG_KEY_CONTEXT);
    hasher.update(&**secret);
    hasher.update(&generation.to_be_bytes());
    hasher.update(origin.as_str().as_bytes());
    let seed = Zeroizing::new(*hasher.finalize().as_bytes());
    NoteSigner::from_seed(origin.key_name().clone(), &seed)
}

fn new_secret() -> Result<Secret, IdentityError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret).map_err(IdentityError::Random)?;
    Ok(secret)
}

fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("server.key")
}

fn checked_name(name: &str) -> Result<String, IdentityError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-/".contains(&b);
    let whole = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('/')
        && !name.ends_with('/');
    if whole {
        Ok(name.to_owned())
    } else {
        Err(IdentityError::Name {
            name: name.to_owned(),
        })
    }
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    // After a crash before the new file is in place the old one is still there, and nothing derives
    // from the new secret yet.
    let unfinished = path.with_extension("key.new");
    deed_files::replace_as(path, &unfinished, Readers::Owner, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_none());
        let made = Identity::create(dir.path(), Some("ledger.example.org")).unwrap();
        let loaded = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(
            (made.name(), &made.secrets),
            (loaded.name(), &loaded.secrets)
        );
        let mode = fs::metadata(path_in(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains(&BASE64.encode(*made.secrets[0])));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::create(dir.path(), None).unwrap();
        fs::set_permissions(path_in(dir.path()), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load(dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Mode { mode: 0o644, .. }));
    }

    #[test]
    fn malformed_keys_name_the_line() {
        let good = Identity {
            name: "a.b".to_owned(),
            secrets: vec![Zeroizing::new([7; 32])],
        }
        .to_text();
        assert!(Identity::parse(&good).is_ok());
        assert_eq!(Identity::parse("").err(), Some(1));
        assert_eq!(Identity::parse(&good.replace("a.b", "A B")).err(), Some(2));
        assert_eq!(
            Identity::parse(&good.replace("secret ", "secret x")).err(),
            Some(3)
        );
        assert_eq!(Identity::parse(&format!("{}more\n", *good)).err(), Some(4));
        let secret = good.lines().last().unwrap();
        let twice = format!("{}{secret}\n", *good);
        assert_eq!(Identity::parse(&twice).err(), Some(4));
        let without = good.replace(secret, "");
        assert_eq!(Identity::parse(without.trim_end()).err(), Some(3));
    }

    #[test]
    fn a_renewed_secret_gives_the_next_key_and_the_old_one_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Identity::create(dir.path(), Some("a.b")).unwrap();
        let origin: Origin = "a.b/logs/x".parse().unwrap();
        let first = made.log_signer(&origin, 0).verifier_key().clone();
        let never = made.log_signer(&origin, 1).verifier_key().clone();
        made.renew(dir.path()).unwrap();
        let loaded = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.secrets, made.secrets);
        let next = loaded.log_signer(&origin, 1).verifier_key().clone();
        assert_ne!(next, never, "it derives from the new secret");
        for (generation, key, is_ours) in [
            (0, &first, true),
            (1, &next, true),
            // This key of the old secret never signed anything, but it would be found.
            (1, &never, true),
            (1, &first, false),
            (0, &next, false),
        ] {
            let found = loaded.log_signer_of(&origin, generation, key);
            assert_eq!(found.is_some(), is_ours, "{generation} {key}");
            assert!(found.is_none_or(|found| found.verifier_key() == key));
        }
        // Secrets are added up to the bound, and not beyond it.
        for _ in made.secrets.len()..SECRETS_MAX {
            made.renew(dir.path()).unwrap();
        }
        let error = made.renew(dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Secrets { .. }));
        let loaded = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.secrets, made.secrets);
        let mode = fs::metadata(path_in(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn names_fit_into_origins() {
        for bad in ["", "/a", "a/", "A", "a b", "a+b", "ä", &"a".repeat(129)] {
            assert!(checked_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "ledger.example.org", "example.org/ledger-1"] {
            assert!(checked_name(good).is_ok(), "{good:?}");
        }
    }

    /// Golden (computed with other tools): every later version must derive the same log keys.
    #[test]
    fn log_keys_are_derived_for_each_origin_and_generation() {
        let identity = Identity {
            name: "a.b".to_owned(),
            secrets: vec![Zeroizing::new([7; 32])],
        };
        let vkey = |origin: &str, generation| {
            let origin: Origin = origin.parse().unwrap();
            identity
                .log_signer(&origin, generation)
                .verifier_key()
                .to_string()
        };
        let all = [
            vkey("a.b/logs/x", 0),
            vkey("a.b/logs/x", 1),
            vkey("a.b/logs/y", 0),
        ];
        assert_eq!(
            all[0],
            "a.b/logs/x+b7ba8cc5+Ab4yFbIqiXxjtBl856alIQwlBJc8GotbepQjfHXBMoXE"
        );
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }
}
