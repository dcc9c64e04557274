//! A private certificate authority for development and tests: the commands `deed-server tls`.
//!
//! ```text
//! ca.pem       the authority; clients trust it, and the server checks clients against it
//! ca.key       its private key
//! server.pem   the server's certificate and server.key its private key
//! <name>.pem   a client's certificate and <name>.key its private key
//! ```
//!
//! All files have mode 0600, and none is ever overwritten. The authority's key lies beside the
//! certificates that it signs; a production system gets its certificates elsewhere.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use deed_evidence::Micros;
use deed_files::Readers;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::principal::{self, PrincipalError};

const AUTHORITY_NAME: &str = "deed development authority";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Validity of the certificates: ten years for the authority; for others as long as on the web,
/// which some TLS libraries demand.
const AUTHORITY_DAYS: u32 = 3652;
const CERTIFICATE_DAYS: u32 = 397;

/// The reason for which certificates were not made.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum IssueError {
    /// The file system failed.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// A file of that name exists.
    #[error("{path} exists and is not overwritten; choose another directory or name")]
    Exists { path: PathBuf },
    /// There is no authority in the directory yet.
    #[error("{path} is not there; make an authority first: `deed-server tls init --dir DIR`")]
    NoAuthority { path: PathBuf },
    /// No name of the server was given.
    #[error("give at least one name or address of the server, for example localhost,127.0.0.1")]
    NoNames,
    /// A certificate cannot carry the principal.
    #[error("{principal:?} is no SPIFFE ID; use spiffe://<trust domain>/<path>, in ASCII")]
    Spiffe { principal: String },
    /// The principal is invalid.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// The name of the files is invalid.
    #[error("{name:?} cannot name a client's files; use a-z, 0-9 and '-'")]
    Name { name: String },
    /// A certificate cannot be made with this name or key.
    #[error("cannot make the certificate: {0}")]
    Certificate(rcgen::Error),
}

impl From<rcgen::Error> for IssueError {
    fn from(cause: rcgen::Error) -> Self {
        Self::Certificate(cause)
    }
}

/// Makes an authority and a server certificate for `names`, valid from `now` on. Returns the files'
/// paths.
///
/// # Errors
/// [`IssueError`]; no existing file is changed.
pub fn init(dir: &Path, names: &[String], now: Micros) -> Result<Vec<PathBuf>, IssueError> {
    if names.iter().all(String::is_empty) {
        return Err(IssueError::NoNames);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|cause| IssueError::Io {
            path: dir.to_owned(),
            cause,
        })?;
    let files = ["ca.pem", "ca.key", "server.pem", "server.key"].map(|name| dir.join(name));
    refuse_existing(&files)?;

    let authority_key = KeyPair::generate()?;
    let mut authority_params = authority_params()?;
    set_validity(&mut authority_params, now, AUTHORITY_DAYS);
    let authority = authority_params.self_signed(&authority_key)?;
    let issuer = Issuer::from_params(&authority_params, &authority_key);

    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = common_name(&names[0]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_validity(&mut params, now, CERTIFICATE_DAYS);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;

    write(&files[0], &authority.pem())?;
    write(&files[1], &Zeroizing::new(authority_key.serialize_pem()))?;
    write(&files[2], &certificate.pem())?;
    write(&files[3], &Zeroizing::new(key.serialize_pem()))?;
    Ok(files.into())
}

/// Makes a client certificate that names `principal`, valid from `now` on, in `<name>.pem` and
/// `<name>.key`. If `name` is `None`, it is the last part of the principal. Returns the files'
/// paths.
///
/// # Errors
/// [`IssueError`]; no existing file is changed.
pub fn client(
    dir: &Path,
    principal: &str,
    name: Option<&str>,
    now: Micros,
) -> Result<Vec<PathBuf>, IssueError> {
    principal::check(principal)?;
    let not_spiffe = || IssueError::Spiffe {
        principal: principal.to_owned(),
    };
    let id = principal.strip_prefix("spiffe://").ok_or_else(not_spiffe)?;
    if id.is_empty() || id.starts_with('/') || id.contains(' ') {
        return Err(not_spiffe());
    }
    let uri = principal.try_into().map_err(|_| not_spiffe())?;
    let name = name.unwrap_or_else(|| id.rsplit('/').next().unwrap_or(id));
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err(IssueError::Name {
            name: name.to_owned(),
        });
    }
    let files = ["pem", "key"].map(|kind| dir.join(format!("{name}.{kind}")));
    refuse_existing(&files)?;

    let path = dir.join("ca.key");
    let authority_key = match fs::read_to_string(&path) {
        Ok(pem) => KeyPair::from_pem(&Zeroizing::new(pem))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IssueError::NoAuthority { path });
        }
        Err(cause) => return Err(IssueError::Io { path, cause }),
    };
    // A certificate refers to its authority by nothing but name and key.
    let authority_params = authority_params()?;
    let issuer = Issuer::from_params(&authority_params, &authority_key);

    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    set_validity(&mut params, now, CERTIFICATE_DAYS);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;

    write(&files[0], &certificate.pem())?;
    write(&files[1], &Zeroizing::new(key.serialize_pem()))?;
    Ok(files.into())
}

pub(super) fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name(AUTHORITY_NAME);
    // The authority signs only end certificates, no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Sets the validity: from a day before `now`, because clocks differ, to `days` days after it.
fn set_validity(params: &mut CertificateParams, now: Micros, days: u32) {
    let since_1970 = Duration::from_micros(u64::try_from(now.get()).unwrap_or(0));
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn refuse_existing(files: &[PathBuf]) -> Result<(), IssueError> {
    match files.iter().find(|path| path.exists()) {
        Some(path) => Err(IssueError::Exists { path: path.clone() }),
        None => Ok(()),
    }
}

fn write(path: &Path, pem: &str) -> Result<(), IssueError> {
    let written = deed_files::create_new(path, Readers::Owner, pem.as_bytes());
    written.map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => IssueError::Exists {
            path: path.to_owned(),
        },
        _ => IssueError::Io {
            path: path.to_owned(),
            cause,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let now = Micros::new(1_795_481_100_000_000);
        let dir = dir.path().join("tls");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut made = init(&dir, &names, now).unwrap();
        made.extend(client(&dir, "spiffe://example.org/agent", None, now).unwrap());
        assert_eq!(made.last(), Some(&dir.join("agent.key")));
        let before = made.iter().map(|path| {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            fs::read(path).unwrap()
        });
        let before = before.collect::<Vec<_>>();
        assert!(matches!(
            init(&dir, &names, now),
            Err(IssueError::Exists { .. })
        ));
        let again = client(&dir, "spiffe://example.org/other", Some("agent"), now);
        assert!(matches!(again, Err(IssueError::Exists { .. })));
        let after = made.iter().map(|path| fs::read(path).unwrap());
        assert!(before.into_iter().eq(after));
    }

    #[test]
    fn what_cannot_be_certified_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let now = Micros::new(1_795_481_100_000_000);
        let client = |principal: &str, name: Option<&str>| {
            client(dir.path(), principal, name, now).unwrap_err()
        };
        let error = client("spiffe://example.org/agent", None);
        assert!(matches!(error, IssueError::NoAuthority { .. }));
        for bad in ["agent", "spiffe://", "spiffe:///a", "spiffe://ä/a"] {
            assert!(matches!(client(bad, None), IssueError::Spiffe { .. }));
        }
        for bad in ["../a", "", ".a", "a/b"] {
            let error = client("spiffe://example.org/agent", Some(bad));
            assert!(matches!(error, IssueError::Name { .. }), "{bad:?}");
        }
        assert!(matches!(
            init(dir.path(), &[], now),
            Err(IssueError::NoNames)
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn certificates_are_good_for_a_bounded_time() {
        use x509_parser::prelude::{FromDer as _, X509Certificate, parse_x509_pem};
        let dir = tempfile::tempdir().unwrap();
        let now_s = 1_795_481_100;
        let now = Micros::new(now_s * 1_000_000);
        init(dir.path(), &["localhost".to_owned()], now).unwrap();
        client(dir.path(), "spiffe://example.org/agent", None, now).unwrap();
        for (name, days) in [("ca", 3652), ("server", 397), ("agent", 397)] {
            let pem = fs::read(dir.path().join(format!("{name}.pem"))).unwrap();
            let (_, pem) = parse_x509_pem(&pem).unwrap();
            let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
            let validity = certificate.validity();
            assert_eq!(validity.not_before.timestamp(), now_s - 86_400, "{name}");
            assert_eq!(
                validity.not_after.timestamp(),
                now_s + days * 86_400,
                "{name}"
            );
        }
    }
}
