//! The rules for addresses to listen on, and for whether callers must say who they are.

use std::net::SocketAddr;

use thiserror::Error;

use crate::options::{AccessOptions, TlsOptions};

/// An address that is too open for the server's settings.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    /// Everyone on the network path could read tokens and statements.
    #[error(
        "refusing to listen on {listen} in clear: set tls.certificate and tls.key (`deed-server tls \
         init` makes them for development), listen on loopback, or set access.insecure if \
         something in front of this server does both TLS and access control"
    )]
    NoTls { listen: SocketAddr },
    /// Everyone who reaches the server could append.
    #[error(
        "refusing to listen on {listen} without access control: do not set access.required to \
         false, listen on loopback, or set access.insecure if everybody who reaches this address \
         may do everything"
    )]
    NoAccessControl { listen: SocketAddr },
}

/// The result of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// True if callers must say who they are.
    pub(crate) required: bool,
    /// True if the server is more open than it should be, because the operator asked for that.
    pub(crate) exposed: bool,
}

/// Decides whether a server may listen on all of these addresses, and whether callers must say who
/// they are: exactly if there is TLS, unless the options say otherwise.
///
/// # Errors
/// [`RuleError`] for the first address beyond loopback without TLS or without access control, unless
/// the options say in so many words that it is meant.
pub(crate) fn check_rules(
    listen: &[SocketAddr],
    tls: Option<&TlsOptions>,
    access: &AccessOptions,
) -> Result<Rules, RuleError> {
    let required = access.required.unwrap_or(tls.is_some());
    let closed = tls.is_some() && required;
    let beyond = listen.iter().find(|address| !address.ip().is_loopback());
    match beyond.copied() {
        Some(listen) if !closed && !access.insecure => Err(match tls {
            None => RuleError::NoTls { listen },
            Some(_) => RuleError::NoAccessControl { listen },
        }),
        beyond => Ok(Rules {
            required,
            exposed: beyond.is_some() && !closed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares every combination with the rule as it was specified.
    #[test]
    fn only_loopback_may_be_open() {
        let tls = TlsOptions {
            certificate: "c".into(),
            key: "k".into(),
            client_authorities: None,
            require_client_certificate: false,
        };
        let addresses = [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
        ];
        for (address, loopback) in addresses {
            for tls in [None, Some(&tls)] {
                for required in [None, Some(false), Some(true)] {
                    for insecure in [false, true] {
                        let local = "127.0.0.1:1".parse().unwrap();
                        let listen = address.parse().unwrap();
                        let access = AccessOptions { required, insecure };
                        let asks = match required {
                            Some(required) => required,
                            None => tls.is_some(),
                        };
                        let allowed = loopback || insecure || (tls.is_some() && asks);
                        let checked = check_rules(&[listen], tls, &access);
                        // An open address is judged the same with a local one beside it.
                        for both in [[listen, local], [local, listen]] {
                            assert_eq!(check_rules(&both, tls, &access), checked);
                        }
                        assert_eq!(checked.is_ok(), allowed, "{address} {access:?}");
                        if let Ok(rules) = checked {
                            assert_eq!(rules.required, asks);
                            let closed = tls.is_some() && asks;
                            assert_eq!(rules.exposed, !loopback && !closed);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_refusal_says_what_to_set() {
        let listen = "0.0.0.0:7733".parse().unwrap();
        let error = check_rules(&[listen], None, &AccessOptions::default()).unwrap_err();
        for word in [
            "0.0.0.0:7733",
            "tls.certificate",
            "tls.key",
            "access.insecure",
        ] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
