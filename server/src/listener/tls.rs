//! The listener's certificates, read again when their files change.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use deed_engine::secret_file::{self, Exposed};
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use zeroize::Zeroizing;

use crate::options::TlsOptions;

/// Interval between two looks at the files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// HTTP/2 comes first, so that clients with a choice use it.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The reason for which certificates cannot be used.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file system failed.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// Others can read the private key.
    #[error("{path} holds a private key: {exposed}")]
    Exposed { path: PathBuf, exposed: Exposed },
    /// The file is not PEM, or holds something else.
    #[error("{path} is no PEM file with {wanted}: {cause}")]
    Pem {
        path: PathBuf,
        wanted: &'static str,
        cause: pem::Error,
    },
    /// The file is PEM and holds no certificate.
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    /// The file holds an authority's certificate that cannot be read.
    #[error("{path} holds a certificate that cannot be read: {cause}")]
    Authority { path: PathBuf, cause: rustls::Error },
    /// Client certificates cannot be checked with these authorities.
    #[error("{path} cannot be used to check client certificates: {cause}")]
    Authorities {
        path: PathBuf,
        cause: VerifierBuilderError,
    },
    /// Client certificates are required, and no authorities are set to check them.
    #[error(
        "client certificates are required, but tls.client_authorities does not say who signs them"
    )]
    AuthoritiesMissing,
    /// The certificate and the key do not belong together, or cannot be used at all.
    #[error("{certificate} and {key} cannot be used together: {cause}")]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        cause: rustls::Error,
    },
}

/// The content of the files. The bytes are compared: times of changes are too coarse to tell two
/// quick changes apart.
#[derive(PartialEq)]
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    authorities: Option<Vec<u8>>,
}

/// The TLS configuration of new connections. An open connection keeps the one that it began with.
pub(crate) struct Certificates {
    options: TlsOptions,
    pub(super) current: ArcSwap<ServerConfig>,
    /// The files from which `current`, or the last error, was made.
    seen: Mutex<Files>,
}

impl Certificates {
    /// Reads the files that `options` names.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be read or used.
    pub(crate) fn load(options: &TlsOptions) -> Result<Arc<Self>, TlsError> {
        let files = Files::read(options)?;
        Ok(Arc::new(Self {
            options: options.clone(),
            current: ArcSwap::new(configure(options, &files)?),
            seen: Mutex::new(files),
        }))
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files and puts them in use if they have changed; returns false if they have not.
    ///
    /// # Errors
    /// [`TlsError`]; the certificates that were in use stay in use. The same bad contents are
    /// reported once.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock();
        let files = Files::read(&self.options)?;
        if *seen == files {
            return Ok(false);
        }
        let configured = configure(&self.options, &files);
        *seen = files;
        self.current.store(configured?);
        Ok(true)
    }

    /// Reloads the files whenever they change, until the server stops; on SIGHUP at once.
    pub(crate) async fn keep_up(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "certificates are not reloaded: no signal can be had");
                return;
            }
        };
        let mut unreadable = false;
        loop {
            let mut asked = false;
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                _ = hangup.recv() => asked = true,
                () = tokio::time::sleep(RELOAD_INTERVAL) => {}
            }
            let certificates = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || certificates.reload()).await {
                Ok(Ok(changed)) => {
                    unreadable = false;
                    if changed {
                        tracing::info!("the certificates have changed; new connections use them");
                    } else if asked {
                        tracing::info!("SIGHUP: the certificates have not changed");
                    }
                }
                // A file that cannot be opened fails each time, and is logged once.
                Ok(Err(TlsError::Io { .. } | TlsError::Exposed { .. })) if unreadable && !asked => {
                }
                Ok(Err(error)) => {
                    unreadable = matches!(error, TlsError::Io { .. } | TlsError::Exposed { .. });
                    tracing::error!(%error, "the new certificates are not used; the old ones stay");
                }
                Err(error) => tracing::error!(%error, "reading the certificates ended early"),
            }
        }
    }
}

impl Files {
    fn read(options: &TlsOptions) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&options.certificate)?,
            key: read_key(&options.key)?,
            authorities: options
                .client_authorities
                .as_deref()
                .map(read)
                .transpose()?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|cause| TlsError::Io {
        path: path.to_owned(),
        cause,
    })
}

/// Reads a private key, from a file that others must not be able to read.
fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let io = |cause| TlsError::Io {
        path: path.to_owned(),
        cause,
    };
    let (mut file, metadata) = secret_file::open(path).map_err(io)?;
    secret_file::check(path, &metadata).map_err(|exposed| TlsError::Exposed {
        path: path.to_owned(),
        exposed,
    })?;
    // The buffer has its full size from the start: growing would leave copies of the key behind.
    let room = usize::try_from(metadata.len())
        .unwrap_or(0)
        .saturating_add(1);
    let mut key = Zeroizing::new(Vec::with_capacity(room));
    file.read_to_end(&mut key).map_err(io)?;
    Ok(key)
}

fn configure(options: &TlsOptions, files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need");
    let builder = match (&options.client_authorities, &files.authorities) {
        (Some(path), Some(pem)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, pem)? {
                roots.add(authority).map_err(|cause| TlsError::Authority {
                    path: path.clone(),
                    cause,
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if options.require_client_certificate {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier.build().map_err(|cause| TlsError::Authorities {
                path: path.clone(),
                cause,
            })?;
            builder.with_client_cert_verifier(verifier)
        }
        _ if options.require_client_certificate => return Err(TlsError::AuthoritiesMissing),
        _ => builder.with_no_client_auth(),
    };
    let chain = certificates(&options.certificate, &files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|cause| TlsError::Pem {
        path: options.key.clone(),
        wanted: "a private key",
        cause,
    })?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|cause| TlsError::Pair {
            certificate: options.certificate.clone(),
            key: options.key.clone(),
            cause,
        })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // A resumed session would keep its client certificate without checking it again, though it may
    // have expired or its authority may be gone.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| TlsError::Pem {
            path: path.to_owned(),
            wanted: "certificates",
            cause,
        })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(found)
}
