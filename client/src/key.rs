//! Key files.
//!
//! A private key is PKCS#8 in PEM (RFC 8410, RFC 5958 version 1), a public one SubjectPublicKeyInfo
//! in PEM: what `openssl genpkey -algorithm ed25519` writes and key stores export. C2SP's note keys
//! are not used here: they carry a name and are made for signing notes, and a producer's or an
//! authority's key must never sign one. The files `public <hex>`, `private <hex>` of earlier
//! versions are read as well.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deed_tlog::{PublicKey, SigningKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::session::{RandomError, random};

/// DER of a PKCS#8 private key before its 32 bytes: version 0, id-Ed25519, two octet strings.
const PRIVATE_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// DER of a SubjectPublicKeyInfo before its 32 bytes: id-Ed25519, a bit string.
const PUBLIC_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";
/// Longest key file that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// A key file that is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's message.
        reason: String,
    },
    /// Others may read it.
    #[error("{} can be read by others (mode {mode:04o}); chmod 600 it, and consider who has \
             had it", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// The permissions of the file.
        mode: u32,
    },
    /// The file holds no key.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: KeyError,
    },
}

/// Text that is no key. Never says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No private key.
    #[error("no Ed25519 private key (PKCS#8 in PEM); make one with deed keygen")]
    NoPrivate,
    /// No public key.
    #[error("no Ed25519 public key (PEM, or 64 hex digits)")]
    NoPublic,
    /// The two halves do not belong together.
    #[error("the public key is not that of the private key")]
    Halves,
    /// The key is of a kind that is never accepted.
    #[error(transparent)]
    Public(#[from] deed_tlog::SignatureError),
}

/// Makes a key of random bytes of the system.
///
/// # Errors
/// [`RandomError`] if there are none.
pub fn generate() -> Result<SigningKey, RandomError> {
    let seed = Zeroizing::new(random::<32>()?);
    Ok(SigningKey::from_seed(&seed))
}

/// The private key as PEM, to be stored where nobody else can read it.
#[must_use]
pub fn private_to_pem(key: &SigningKey) -> Zeroizing<String> {
    let mut der = Zeroizing::new(PRIVATE_PREFIX.to_vec());
    der.extend_from_slice(key.seed());
    Zeroizing::new(pem(PRIVATE_LABEL, &der))
}

/// The public key as PEM.
#[must_use]
pub fn public_to_pem(key: &PublicKey) -> String {
    pem(PUBLIC_LABEL, &[&PUBLIC_PREFIX[..], key.as_bytes()].concat())
}

/// Reads a private key.
///
/// # Errors
/// [`KeyError`] if there is none in it.
pub fn parse_private(text: &str) -> Result<SigningKey, KeyError> {
    if let Some(der) = from_pem(text, PRIVATE_LABEL) {
        let seed = der.strip_prefix(&PRIVATE_PREFIX);
        let seed = seed.and_then(|seed| <&[u8; 32]>::try_from(seed).ok());
        return seed.map(SigningKey::from_seed).ok_or(KeyError::NoPrivate);
    }
    let seed = line(text, "private ").ok_or(KeyError::NoPrivate)?;
    let key = SigningKey::from_seed(&seed);
    match line(text, "public ") {
        Some(public) if *public != *key.public_key().as_bytes() => Err(KeyError::Halves),
        _ => Ok(key),
    }
}

/// Reads a public key: PEM, 64 hex digits, or the public half of a private key's text.
///
/// # Errors
/// [`KeyError`] if there is none in it, or none that is ever accepted.
pub fn parse_public(text: &str) -> Result<PublicKey, KeyError> {
    if let Some(der) = from_pem(text, PUBLIC_LABEL) {
        let bytes = der.strip_prefix(&PUBLIC_PREFIX);
        let bytes = bytes.and_then(|bytes| <&[u8; 32]>::try_from(bytes).ok());
        return Ok(PublicKey::from_bytes(bytes.ok_or(KeyError::NoPublic)?)?);
    }
    let bytes = line(text, "public ").or_else(|| text.lines().find_map(|line| hex(line.trim())));
    match bytes {
        Some(bytes) => Ok(PublicKey::from_bytes(&bytes)?),
        None => match parse_private(text) {
            Ok(key) => Ok(key.public_key().clone()),
            Err(KeyError::NoPrivate) => Err(KeyError::NoPublic),
            Err(error) => Err(error),
        },
    }
}

/// Reads a file with a private key, which its owner alone may be able to read.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_private(path: &Path) -> Result<SigningKey, KeyFileError> {
    let text = read_secret(path)?;
    parse_private(&text).map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file with a public key.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    let text = read(path)?;
    parse_public(&text).map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file with a secret in text, which its owner alone may be able to read.
///
/// # Errors
/// [`KeyFileError::Io`] and [`KeyFileError::Readable`].
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let metadata = fs::metadata(path).map_err(|error| io_error(path, &error))?;
    let mode = metadata.permissions().mode() & 0o777;
    // A pipe (`--token-file <(...)`) has no such bits that mean anything.
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(KeyFileError::Readable {
            path: path.to_owned(),
            mode,
        });
    }
    read(path)
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    let file = fs::File::open(path).map_err(|error| io_error(path, &error))?;
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| io_error(path, &error))?;
    Ok(text)
}

fn io_error(path: &Path, error: &std::io::Error) -> KeyFileError {
    KeyFileError::Io {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    // Ed25519 keys fit into one line of 64 columns.
    let body = Zeroizing::new(STANDARD.encode(der));
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        *body
    )
}

/// The bytes of the first block with this label.
fn from_pem(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}

fn line(text: &str, name: &str) -> Option<Zeroizing<[u8; 32]>> {
    text.lines()
        .find_map(|line| hex(line.trim().strip_prefix(name)?.trim()))
}

fn hex(digits: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 section 10.3 and 10.1: the same key, by somebody else.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn keys_are_those_of_rfc_8410() {
        let key = parse_private(PRIVATE).unwrap();
        assert_eq!(*private_to_pem(&key), PRIVATE);
        assert_eq!(public_to_pem(key.public_key()), PUBLIC);
        assert_eq!(parse_public(PUBLIC).unwrap(), *key.public_key());
        assert_eq!(parse_public(PRIVATE).unwrap(), *key.public_key());
        let hex = hex::encode(key.public_key().as_bytes());
        assert_eq!(parse_public(&hex).unwrap(), *key.public_key());
    }

    #[test]
    fn files_of_earlier_versions_are_read() {
        let key = parse_private(PRIVATE).unwrap();
        let (public, seed) = (key.public_key().as_bytes(), key.seed());
        let text = format!(
            "# ...\npublic {}\nprivate {}\n",
            hex::encode(public),
            hex::encode(seed)
        );
        assert_eq!(parse_private(&text).unwrap().public_key(), key.public_key());
        assert_eq!(parse_public(&text).unwrap(), *key.public_key());
        let other = text.replace(&hex::encode(public), &"07".repeat(32));
        assert_eq!(parse_private(&other).unwrap_err(), KeyError::Halves);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "nothing", PUBLIC, &PRIVATE.replace("MC4C", "MC5C")] {
            assert_eq!(parse_private(text).unwrap_err(), KeyError::NoPrivate);
        }
        for text in ["", "07", &PUBLIC.replace("MCow", "MDow")] {
            assert_eq!(parse_public(text).unwrap_err(), KeyError::NoPublic);
        }
        // The neutral element: it verifies what nobody signed.
        let neutral = format!("01{}", "00".repeat(31));
        assert!(matches!(parse_public(&neutral), Err(KeyError::Public(_))));
    }

    #[test]
    fn a_private_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        fs::write(&path, PRIVATE).unwrap();
        for (mode, fine) in [(0o644, false), (0o640, false), (0o600, true), (0o400, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read_private(&path);
            assert_eq!(read.is_ok(), fine, "{mode:o}");
            if let Err(error) = read {
                assert_eq!(
                    error,
                    KeyFileError::Readable {
                        path: path.clone(),
                        mode
                    }
                );
            }
        }
        assert!(read_public(&path).is_ok());
    }
}
