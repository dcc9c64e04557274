//! The file `access.json` in the data directory: tokens, and the roles of principals.
//!
//! ```json
//! {
//!   "version": 1,
//!   "tokens": [{
//!     "id": "5d0c…", "sha256": "9f86…", "principal": "spiffe://example.org/agent",
//!     "ledgers": ["runs"], "created_us": 1, "expires_us": 2, "revoked_us": 3
//!   }],
//!   "grants": [{"principal": "…", "ledger": "runs", "roles": ["append", "read"]}]
//! }
//! ```
//!
//! The file has mode 0600. It is always written whole, into a file beside it that is synced and
//! then renamed, so a reader sees the old or the new one. Writers hold a lock on `access.lock` from
//! before they read until after they wrote. A running server notices a change within a second or
//! two.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use deed_evidence::Micros;
use deed_files::Readers;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    role::{EVERY_LEDGER, Role},
    token::{self, NewToken, SecretHash},
};
use deed_engine::{
    ledger_name::LedgerName,
    secret_file::{self, Exposed},
};

use crate::principal::{self, PrincipalError};

/// The file's name in the data directory.
pub(crate) const FILE: &str = "access.json";

/// The file that writers lock while they edit.
pub(crate) const LOCK: &str = "access.lock";

/// The file that an interrupted edit may leave behind.
pub(crate) const UNFINISHED: &str = "access.json.new";

const VERSION: u32 = 1;

/// Largest file that is read: some 40,000 tokens.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A token as the file keeps it, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// 16 hexadecimal digits: the part of the token that is no secret.
    pub id: String,
    /// SHA-256 of the secret, hexadecimal.
    sha256: String,
    /// The principal that the token stands for.
    pub principal: String,
    /// The only ledgers that the token is good for; `None` if it is good wherever its principal has
    /// roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledgers: Option<Vec<String>>,
    /// Time of creation, in microseconds since 1970.
    pub created_us: i64,
    /// Time from which on the token is refused, in microseconds since 1970.
    pub expires_us: i64,
    /// Time of revocation, in microseconds since 1970; `None` if the token was not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_us: Option<i64>,
}

/// The roles of a principal in a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRecord {
    /// Name of the principal.
    pub principal: String,
    /// Name of the ledger; [`EVERY_LEDGER`] for all ledgers that there are and will be.
    pub ledger: String,
    /// The roles; never empty, each role once.
    pub roles: Vec<Role>,
}

/// The content of `access.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessFile {
    version: u32,
    tokens: Vec<TokenRecord>,
    grants: Vec<GrantRecord>,
}

/// A defect of the file, or of a change that was asked for.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum AccessError {
    /// The file system failed.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// Others can read or write the file.
    #[error("{path}: {exposed}")]
    Exposed { path: PathBuf, exposed: Exposed },
    /// The file is larger than any valid one.
    #[error("{path} has more than {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    /// The file is not the JSON that is expected.
    #[error(
        "{path} cannot be read: {cause}; restore it, or remove it to begin without tokens and grants"
    )]
    Malformed {
        path: PathBuf,
        cause: serde_json::Error,
    },
    /// The file has a version that this program does not know.
    #[error("access.json has version {found}; this program knows version {VERSION}")]
    Version { found: u32 },
    /// A principal's name is invalid.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// A ledger's name is invalid.
    #[error(
        "{ledger:?} cannot be a ledger's name; use a-z, 0-9 and '-', or '{EVERY_LEDGER}' for all"
    )]
    Ledger { ledger: String },
    /// The role admin was asked for in one ledger; it holds for the whole server.
    #[error(
        "admin is a role in all ledgers or in none: use --ledger '{EVERY_LEDGER}', not {ledger:?}"
    )]
    AdminOfOne { ledger: String },
    /// A token's record is malformed, or stands twice in the file.
    #[error("token {id:?} has a malformed id or hash, or stands twice in access.json")]
    Token { id: String },
    /// No token has this id.
    #[error("there is no token {id:?}; `deed-server token list` shows them")]
    NoSuchToken { id: String },
    /// The token would end before it begins.
    #[error("a token must be good for at least a second")]
    Expiry,
    /// The principal does not have the role that is to be taken away.
    #[error("{principal:?} does not have the role {role} in {ledger:?}")]
    NoSuchGrant {
        principal: String,
        role: Role,
        ledger: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// A request for a new token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The principal that the token will stand for.
    pub principal: String,
    /// The only ledgers that the token will be good for; `None` for no such bound.
    pub ledgers: Option<Vec<String>>,
    /// The present time, which becomes the time of creation.
    pub now: Micros,
    /// Time from which on the token is refused.
    pub expires: Micros,
}

impl Default for AccessFile {
    fn default() -> Self {
        Self {
            version: VERSION,
            tokens: Vec::new(),
            grants: Vec::new(),
        }
    }
}

impl AccessFile {
    /// Reads the file in `data_dir`; returns an empty one if there is none.
    ///
    /// # Errors
    /// [`AccessError`] if it cannot be read or is malformed.
    pub fn load(data_dir: &Path) -> Result<Self, AccessError> {
        match read(data_dir)? {
            Some(text) => Self::parse(&data_dir.join(FILE), &text),
            None => Ok(Self::default()),
        }
    }

    /// Locks the file in `data_dir` (which is created if it is missing), reads it, applies `change`
    /// and writes it. Nothing is written if `change` fails.
    ///
    /// # Errors
    /// [`AccessError`] if the file cannot be read or written, and any error of `change`.
    pub fn edit<T>(
        data_dir: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            |cause| AccessError::Io { path, cause }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(io(data_dir))?;
        let path = data_dir.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io(&path))?;
        lock.lock().map_err(io(&path))?;
        let mut file = Self::load(data_dir)?;
        let changed = change(&mut file)?;
        file.check()?;
        file.write(data_dir).map_err(io(&data_dir.join(FILE)))?;
        Ok(changed)
    }

    /// Returns the tokens, oldest first.
    #[must_use]
    pub fn tokens(&self) -> &[TokenRecord] {
        &self.tokens
    }

    /// Returns the grants, ordered by principal and ledger.
    #[must_use]
    pub fn grants(&self) -> &[GrantRecord] {
        &self.grants
    }

    /// Makes a token. Its text is returned here and stored nowhere.
    ///
    /// # Errors
    /// [`AccessError`] if the request is invalid or the system gives no random bytes.
    pub fn create_token(
        &mut self,
        request: TokenRequest,
    ) -> Result<(TokenRecord, Zeroizing<String>), AccessError> {
        if request.expires.get() < request.now.get().saturating_add(1_000_000) {
            return Err(AccessError::Expiry);
        }
        let NewToken { id, hash, text } = NewToken::draw().map_err(AccessError::Random)?;
        let record = TokenRecord {
            id,
            sha256: hash.to_string(),
            principal: request.principal,
            ledgers: request.ledgers,
            created_us: request.now.get(),
            expires_us: request.expires.get(),
            revoked_us: None,
        };
        record.check()?;
        self.tokens.push(record.clone());
        Ok((record, text))
    }

    /// Revokes the token `id`; a token that was revoked before keeps its time of revocation.
    ///
    /// # Errors
    /// [`AccessError::NoSuchToken`] if there is no such token.
    pub fn revoke_token(&mut self, id: &str, now: Micros) -> Result<&TokenRecord, AccessError> {
        let token = self
            .tokens
            .iter_mut()
            .find(|token| token.id == id)
            .ok_or_else(|| AccessError::NoSuchToken { id: id.to_owned() })?;
        token.revoked_us.get_or_insert(now.get());
        Ok(token)
    }

    /// Gives `role` to a principal; returns `false` if the principal had it already.
    ///
    /// # Errors
    /// [`AccessError`] if the name of the principal or the ledger is invalid.
    pub fn grant(
        &mut self,
        principal: &str,
        ledger: &str,
        role: Role,
    ) -> Result<bool, AccessError> {
        let wanted = GrantRecord {
            principal: principal.to_owned(),
            ledger: ledger.to_owned(),
            roles: vec![role],
        };
        wanted.check()?;
        let place = (principal, ledger);
        match self
            .grants
            .binary_search_by(|grant| grant.place().cmp(&place))
        {
            Ok(at) => {
                let roles = &mut self.grants[at].roles;
                let new = !roles.contains(&role);
                if new {
                    roles.push(role);
                    roles.sort_unstable();
                }
                Ok(new)
            }
            Err(at) => {
                self.grants.insert(at, wanted);
                Ok(true)
            }
        }
    }

    /// Takes `role` away from a principal.
    ///
    /// # Errors
    /// [`AccessError::NoSuchGrant`] if the principal does not have the role.
    pub fn revoke(&mut self, principal: &str, ledger: &str, role: Role) -> Result<(), AccessError> {
        let held = self
            .grants
            .iter()
            .position(|grant| grant.place() == (principal, ledger) && grant.roles.contains(&role))
            .ok_or_else(|| AccessError::NoSuchGrant {
                principal: principal.to_owned(),
                role,
                ledger: ledger.to_owned(),
            })?;
        self.grants[held].roles.retain(|&other| other != role);
        if self.grants[held].roles.is_empty() {
            self.grants.remove(held);
        }
        Ok(())
    }

    /// Parses the file's text; `path` is for error messages.
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, AccessError> {
        let mut file: Self =
            serde_json::from_slice(text).map_err(|cause| AccessError::Malformed {
                path: path.to_owned(),
                cause,
            })?;
        file.check()?;
        // A file that was edited by hand need not have the order that the binary search wants.
        file.grants.sort_by(|a, b| a.place().cmp(&b.place()));
        Ok(file)
    }

    fn check(&self) -> Result<(), AccessError> {
        if self.version != VERSION {
            return Err(AccessError::Version {
                found: self.version,
            });
        }
        let mut ids = std::collections::HashSet::new();
        for token in &self.tokens {
            token.check()?;
            if !ids.insert(&token.id) {
                return Err(AccessError::Token {
                    id: token.id.clone(),
                });
            }
        }
        self.grants.iter().try_for_each(GrantRecord::check)
    }

    fn write(&self, data_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        // A revocation that was reported as done must survive a crash.
        deed_files::replace_as(
            &data_dir.join(FILE),
            &data_dir.join(UNFINISHED),
            Readers::Owner,
            &text,
        )
    }
}

impl TokenRecord {
    fn check(&self) -> Result<(), AccessError> {
        principal::check(&self.principal)?;
        for ledger in self.ledgers.iter().flatten() {
            check_ledger(ledger)?;
        }
        if token::is_id(&self.id) && self.hash().is_some() {
            Ok(())
        } else {
            Err(AccessError::Token {
                id: self.id.clone(),
            })
        }
    }

    pub(crate) fn hash(&self) -> Option<SecretHash> {
        SecretHash::from_hex(&self.sha256)
    }
}

impl GrantRecord {
    fn place(&self) -> (&str, &str) {
        (&self.principal, &self.ledger)
    }

    fn check(&self) -> Result<(), AccessError> {
        principal::check(&self.principal)?;
        if self.ledger == EVERY_LEDGER {
            return Ok(());
        }
        check_ledger(&self.ledger)?;
        if self.roles.contains(&Role::Admin) {
            return Err(AccessError::AdminOfOne {
                ledger: self.ledger.clone(),
            });
        }
        Ok(())
    }
}

fn check_ledger(ledger: &str) -> Result<(), AccessError> {
    match LedgerName::parse(ledger) {
        Some(_) => Ok(()),
        None => Err(AccessError::Ledger {
            ledger: ledger.to_owned(),
        }),
    }
}

/// Returns the file's text; `None` if there is no file.
pub(crate) fn read(data_dir: &Path) -> Result<Option<Vec<u8>>, AccessError> {
    let path = data_dir.join(FILE);
    let (file, metadata) = match secret_file::open(&path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(AccessError::Io { path, cause }),
    };
    if let Err(exposed) = secret_file::check(&path, &metadata) {
        return Err(AccessError::Exposed { path, exposed });
    }
    let mut text = Vec::new();
    match file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text) {
        Ok(read) if read as u64 > FILE_BYTES_MAX => Err(AccessError::TooLarge { path }),
        Ok(_) => Ok(Some(text)),
        Err(cause) => Err(AccessError::Io { path, cause }),
    }
}

#[cfg(test)]
mod tests;
