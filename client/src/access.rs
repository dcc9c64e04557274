//! The client's credentials, and the authorities that it trusts for the server's.

use std::fmt;

use thiserror::Error;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig, Identity},
};
use zeroize::Zeroizing;

/// The credentials of a connection. All of them are optional.
#[derive(Clone, Default)]
pub struct Access {
    ca_pem: Option<Vec<u8>>,
    identity: Option<Identity>,
    token: Option<Token>,
}

/// A bearer token. Printed nowhere.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

/// Text that is no token. Never says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a token is one word of 1 to {TOKEN_BYTES_MAX} visible ASCII characters, as \
         deed-server token create prints it"
)]
pub struct TokenError;

/// Longest token that is taken.
const TOKEN_BYTES_MAX: usize = 512;

impl Access {
    /// Returns an access with the system's certificate authorities for `https://`, and no credentials.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificate authorities of this PEM text instead of the system's.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// Shows a client certificate; both as PEM text.
    #[must_use]
    pub fn identity_pem(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Identity::from_pem(certificate, key));
        self
    }

    /// Sends a token with every request.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Returns true if something was given that means nothing without TLS.
    pub(crate) const fn needs_tls(&self) -> bool {
        self.ca_pem.is_some() || self.identity.is_some()
    }

    pub(crate) fn tls(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new();
        let config = match &self.ca_pem {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_native_roots(),
        };
        match &self.identity {
            Some(identity) => config.identity(identity.clone()),
            None => config,
        }
    }

    pub(crate) fn bearer(&self) -> Bearer {
        Bearer(self.token.as_ref().map(|token| token.0.clone()))
    }
}

/// Says what is there, not what it is.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("ca_pem", &self.ca_pem.is_some())
            .field("identity", &self.identity.is_some())
            .field("token", &self.token.is_some())
            .finish()
    }
}

impl Token {
    /// Takes a token as it was printed; spaces and line ends around it are left out.
    ///
    /// # Errors
    /// [`TokenError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !visible {
            return Err(TokenError);
        }
        let header = Zeroizing::new(format!("Bearer {text}"));
        let mut value: MetadataValue<Ascii> = header.parse().map_err(|_| TokenError)?;
        // Kept out of the tables of HTTP/2's header compression, and out of debug output.
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Puts the token into each request.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_and_never_shown() {
        let token = Token::parse(" deed_7_secret\n").unwrap();
        let access = Access::new().token(token.clone());
        let request = access.bearer().call(Request::new(())).unwrap();
        let sent = request.metadata().get("authorization").unwrap();
        assert_eq!(sent, "Bearer deed_7_secret");
        for shown in [
            format!("{token:?}"),
            format!("{access:?}"),
            format!("{:?}", access.bearer()),
            format!("{sent:?}"),
        ] {
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_unseen() {
        for text in [
            "",
            " \n",
            "two words",
            "two\nlines",
            "gr\u{fc}n",
            &"x".repeat(513),
        ] {
            let error = Token::parse(text).unwrap_err().to_string();
            assert!(text.trim().is_empty() || !error.contains(text), "{error}");
        }
    }
}
