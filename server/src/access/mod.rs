//! Access control: who calls, and what the caller may do.
//!
//! A request is authenticated once, by `layer`: the client certificate of its connection, or a
//! bearer token, or both if they agree, name a *principal*. What the principal may do is asked for
//! where the request's ledger is known: `Caller::require` looks the method up in `table`.
//! Grants and tokens are looked up again for each request of a stream, so that a revocation also
//! ends what open streams may do.
//!
//! **Invariant:** what is not in the table is not open, and a request that did not come through the
//! layer may do what every caller may, and nothing else.

pub(crate) mod body;
pub mod file;
mod head;
pub(crate) mod layer;
#[cfg(test)]
mod matrix_tests;
pub mod role;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod token;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::{
    file::{AccessError, AccessFile, TokenRecord},
    role::{EVERY_LEDGER, Role, Roles},
    table::{Method, Need},
    token::{SecretHash, Shown},
};
use deed_engine::{
    clock::Clock,
    pressure::{Pressure, Source, answers::AnswerPermit, undecoded::Undecoded},
};

use crate::{
    listener::{Connection, network},
    status::ApiError,
};

/// Interval between two looks at the file.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

const SAY_WHO: &str = "this server must know who calls: send `authorization: Bearer <token>` (an \
                       operator makes one with `deed-server token create`), or connect with a \
                       client certificate";

/// Access control of a running server.
pub(crate) struct Access {
    /// True if callers must say who they are. Otherwise every caller may do everything.
    required: bool,
    data_dir: PathBuf,
    clock: Arc<dyn Clock>,
    state: ArcSwap<State>,
    /// The text of the file from which `state`, or the last error, was made.
    seen: Mutex<Option<Vec<u8>>>,
}

/// The content of access.json, indexed for lookups.
#[derive(Default)]
struct State {
    tokens: HashMap<String, Token>,
    grants: HashMap<Arc<str>, HashMap<String, Roles>>,
}

/// The change of access.json since it was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    Same,
    Changed,
    Removed,
}

impl Reloaded {
    fn say(self) {
        match self {
            Self::Same => {}
            Self::Changed => tracing::info!("access.json has changed and is in force"),
            Self::Removed => tracing::warn!(
                "access.json is gone: no token is good and nobody has a role, until it is put back"
            ),
        }
    }
}

struct Token {
    hash: SecretHash,
    principal: Arc<str>,
    ledgers: Option<Vec<String>>,
    expires_us: i64,
    revoked: bool,
}

impl Access {
    /// Reads access.json in `data_dir`. Nothing is read where access control is off.
    ///
    /// # Errors
    /// [`AccessError`] if the file cannot be read: a server that starts has no earlier version to
    /// go on with.
    pub(crate) fn open(
        data_dir: PathBuf,
        required: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, AccessError> {
        let access = Self {
            required,
            data_dir,
            clock,
            state: ArcSwap::default(),
            seen: Mutex::new(None),
        };
        if required {
            access.reload()?;
            if access.state.load().grants.is_empty() {
                tracing::warn!(
                    "nobody has a role yet: give some with `deed-server role grant`, and tokens \
                     with `deed-server token create`"
                );
            }
        }
        Ok(Arc::new(access))
    }

    /// Reads the file and puts it in force if it has changed.
    ///
    /// # Errors
    /// [`AccessError`]; what was in force stays in force. The same broken file is reported once.
    pub(crate) fn reload(&self) -> Result<Reloaded, AccessError> {
        let mut seen = self.seen.lock();
        let text = file::read(&self.data_dir)?;
        if *seen == text {
            return Ok(Reloaded::Same);
        }
        let reloaded = match &text {
            Some(_) => Reloaded::Changed,
            None => Reloaded::Removed,
        };
        let parsed = match &text {
            Some(text) => AccessFile::parse(&self.data_dir.join(file::FILE), text),
            None => Ok(AccessFile::default()),
        };
        *seen = text;
        self.state.store(Arc::new(State::new(&parsed?)));
        Ok(reloaded)
    }

    /// Reloads the file whenever it changes, until the server stops.
    pub(crate) async fn keep_up(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        if !self.required {
            return;
        }
        let mut unreadable = false;
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(RELOAD_INTERVAL) => {}
            }
            let access = Arc::clone(&self);
            let reloaded = tokio::task::spawn_blocking(move || access.reload()).await;
            match reloaded {
                Ok(Ok(reloaded)) => {
                    unreadable = false;
                    reloaded.say();
                }
                // A file that cannot be opened fails each time, and is logged once.
                Ok(Err(AccessError::Io { .. } | AccessError::Exposed { .. })) if unreadable => {}
                Ok(Err(error)) => {
                    unreadable =
                        matches!(error, AccessError::Io { .. } | AccessError::Exposed { .. });
                    tracing::error!(%error, "access.json is not used; what it said before stays");
                }
                Err(error) => tracing::error!(%error, "reading access.json ended early"),
            }
        }
    }

    /// Returns who sends a request with these `headers` over this `connection`.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`] for an invalid credential, even where none is needed.
    fn authenticate(&self, headers: &HeaderMap, connection: &Connection) -> Result<Who, ApiError> {
        if !self.required {
            return Ok(Who::Off);
        }
        let certified = connection.certificate_principal.clone();
        self.check_certificate(connection)?;
        let Some(shown) = bearer(headers)? else {
            return Ok(match certified {
                Some(principal) => Who::Known {
                    principal,
                    token: None,
                },
                None => Who::Anonymous,
            });
        };
        let state = self.state.load();
        let token = state
            .tokens
            .get(shown.id)
            .filter(|token| shown.opens(&token.hash))
            .ok_or_else(|| refused("this token is not known here"))?;
        token.check(self.clock.now().get())?;
        if certified.is_some_and(|certified| certified != token.principal) {
            return Err(refused(
                "the token and the client certificate name different principals; send one of them",
            ));
        }
        Ok(Who::Known {
            principal: Arc::clone(&token.principal),
            token: Some(shown.id.into()),
        })
    }
}

impl Access {
    /// Fails if the client certificate has expired: a connection may outlive the certificate that
    /// opened it.
    fn check_certificate(&self, connection: &Connection) -> Result<(), ApiError> {
        match connection.certificate_ends {
            Some(ends) if self.clock.now() >= ends => Err(ApiError::Unauthenticated(
                "the client certificate of this connection has expired; connect again with a new \
                 one"
                .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

impl State {
    fn new(file: &AccessFile) -> Self {
        let mut state = Self::default();
        for record in file.tokens() {
            if let Some(token) = Token::new(record) {
                state.tokens.insert(record.id.clone(), token);
            }
        }
        for grant in file.grants() {
            let roles = state
                .grants
                .entry(grant.principal.as_str().into())
                .or_default()
                .entry(grant.ledger.clone())
                .or_default();
            for &role in &grant.roles {
                roles.insert(role);
            }
        }
        state
    }

    fn gives(&self, principal: &str, ledger: &str, role: Role) -> bool {
        let Some(grants) = self.grants.get(principal) else {
            return false;
        };
        [ledger, EVERY_LEDGER]
            .iter()
            .filter_map(|place| grants.get(*place))
            .any(|roles| roles.give(role))
    }
}

impl State {
    /// Returns true if `principal` has one of `roles` in any ledger that the token is good for.
    fn gives_somewhere(&self, principal: &str, token: Option<&Token>, roles: &[Role]) -> bool {
        let is_for =
            |place: &str| place == EVERY_LEDGER || token.is_none_or(|token| token.is_for(place));
        self.grants.get(principal).is_some_and(|grants| {
            let mut places = grants.iter().filter(|(place, _)| is_for(place));
            places.any(|(_, given)| roles.iter().any(|&role| given.give(role)))
        })
    }
}

impl Token {
    fn new(record: &TokenRecord) -> Option<Self> {
        Some(Self {
            hash: record.hash()?,
            principal: record.principal.as_str().into(),
            ledgers: record.ledgers.clone(),
            expires_us: record.expires_us,
            revoked: record.revoked_us.is_some(),
        })
    }

    fn check(&self, now_us: i64) -> Result<(), ApiError> {
        if self.revoked {
            return Err(refused("this token was revoked"));
        }
        if now_us >= self.expires_us {
            return Err(refused("this token has expired"));
        }
        Ok(())
    }

    fn is_for(&self, ledger: &str) -> bool {
        let only = self.ledgers.as_ref();
        only.is_none_or(|only| only.iter().any(|one| one == ledger))
    }
}

/// Returns the token in a request's headers, if there is one.
fn bearer(headers: &HeaderMap) -> Result<Option<Shown<'_>>, ApiError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    let malformed =
        || refused("the authorization header is not `Bearer deed_<id>_<secret>`, sent once");
    if all.next().is_some() {
        return Err(malformed());
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(malformed)?;
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    Shown::parse(token.trim()).map(Some).ok_or_else(malformed)
}

fn refused(why: &str) -> ApiError {
    ApiError::Unauthenticated(format!(
        "{why}; an operator makes tokens with `deed-server token create`"
    ))
}

/// The sender of a request. The layer makes it and puts it into the request's extensions.
#[derive(Clone)]
pub(crate) struct Caller {
    access: Option<Arc<Access>>,
    who: Who,
    connection: Connection,
}

#[derive(Clone)]
enum Who {
    /// Access control is off.
    Off,
    /// The request shows no credential.
    Anonymous,
    Known {
        principal: Arc<str>,
        /// The token's id, if the caller was identified by a token.
        token: Option<Arc<str>>,
    },
}

/// The caller of a request that did not come through the layer.
static NOBODY: LazyLock<Caller> = LazyLock::new(|| Caller {
    access: None,
    who: Who::Anonymous,
    connection: Connection::none(),
});

impl Caller {
    /// Returns the caller of the request with these extensions. Without the layer that is an
    /// anonymous caller.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get().unwrap_or_else(|| &*NOBODY).clone()
    }

    /// Returns a caller who may do everything, as where access control is off.
    #[cfg(test)]
    pub(crate) fn unrestricted() -> Self {
        Self {
            access: None,
            who: Who::Off,
            connection: Connection::none(),
        }
    }

    /// Returns the caller's principal; `None` if the caller is anonymous or access control is off.
    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        match &self.who {
            Who::Known { principal, .. } => Some(principal),
            Who::Off | Who::Anonymous => None,
        }
    }

    /// Returns true if access control is on and the caller shows no credential.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self.who, Who::Anonymous)
    }

    /// Returns true if the caller needs no credential for `method`.
    pub(crate) fn anybody_may(&self, method: Method) -> bool {
        matches!(self.who, Who::Off) || method.row().need == Need::Open
    }

    /// Returns the connection of the request.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the source of the caller's requests.
    pub(crate) fn source(&self, pressure: &Pressure) -> Source {
        let connection = self.connection();
        let budget = match connection.id {
            0 => pressure.unknown().budget,
            _ => Arc::clone(&connection.budget),
        };
        Source {
            id: connection.id,
            budget,
            principal: self.principal().cloned(),
            anonymous: self.is_anonymous(),
            network: network(connection.peer.ip()),
        }
    }

    /// Counts the bytes of a request's messages that have begun and are not complete.
    pub(crate) fn undecoded(&self, pressure: &Pressure) -> Undecoded {
        let connection = Arc::clone(&self.connection().undecoded);
        pressure.undecoded(connection, self.source(pressure).key())
    }

    /// Returns the room for one answer to the caller.
    pub(crate) fn answer_room(&self, pressure: &Pressure) -> AnswerPermit {
        pressure.answer_room(self.source(pressure).key())
    }

    /// Returns true if the caller has `role` in `ledger` now.
    pub(crate) fn may(&self, ledger: &str, role: Role) -> bool {
        match (&self.who, &self.access) {
            (Who::Off, _) => true,
            (Who::Known { principal, .. }, Some(access)) => {
                let state = access.state.load();
                self.check_credential(&state, Some(ledger)).is_ok()
                    && state.gives(principal, ledger, role)
            }
            (Who::Anonymous | Who::Known { .. }, _) => false,
        }
    }

    /// Returns true if a list shows this ledger to the caller: to an admin, and to every caller
    /// with a role in it.
    pub(crate) fn sees(&self, ledger: &str) -> bool {
        Role::ALL.iter().any(|&role| self.may(ledger, role))
    }

    /// Fails unless the caller may ask for `method` in `ledger`.
    ///
    /// # Errors
    /// [`ApiError::Unauthenticated`] if the caller is anonymous or the token has ended since;
    /// [`ApiError::Forbidden`] if the caller lacks the role.
    pub(crate) fn require(&self, method: Method, ledger: &str) -> Result<(), ApiError> {
        let allowed = self.check(method, ledger);
        if let Err(refusal) = &allowed {
            self.say_refused(method.row().path, Some(ledger), refusal);
        }
        allowed
    }

    /// Fails unless the caller may ask for `method` in at least one ledger. For refusals before the
    /// ledger that a request names is known, and before anything is held for the request.
    ///
    /// # Errors
    /// As [`Caller::require`].
    pub(crate) fn require_somewhere(&self, method: Method) -> Result<(), ApiError> {
        let allowed = self.check_somewhere(method);
        if let Err(refusal) = &allowed {
            self.say_refused(method.row().path, None, refusal);
        }
        allowed
    }

    fn check_somewhere(&self, method: Method) -> Result<(), ApiError> {
        let (Who::Known { principal, token }, Some(access)) = (&self.who, &self.access) else {
            // An anonymous caller has no role in any ledger, and is refused as in a single one.
            return match &self.who {
                Who::Off => Ok(()),
                _ => self.check(method, EVERY_LEDGER),
            };
        };
        let roles = match method.row().need {
            Need::InLedger(roles) => roles,
            Need::InServer(_) => return self.check(method, EVERY_LEDGER),
            Need::Open | Need::Authenticated => return Ok(()),
        };
        let state = access.state.load();
        self.check_credential(&state, None)?;
        let token = token.as_ref().and_then(|id| state.tokens.get(&**id));
        if state.gives_somewhere(principal, token, roles) {
            return Ok(());
        }
        let wanted = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>();
        Err(ApiError::Forbidden(format!(
            "this needs the role {} in a ledger, and you have it in none; an operator gives it with \
             `deed-server role grant`",
            wanted.join(" or "),
        )))
    }

    fn check(&self, method: Method, ledger: &str) -> Result<(), ApiError> {
        let need = method.row().need;
        match &self.who {
            Who::Off => return Ok(()),
            Who::Anonymous if need == Need::Open => return Ok(()),
            Who::Anonymous => return Err(ApiError::Unauthenticated(SAY_WHO.to_owned())),
            Who::Known { .. } => {}
        }
        let (place, roles): (_, &[Role]) = match &need {
            Need::Authenticated => (None, &[]),
            Need::Open => (Some(ledger), &[]),
            Need::InLedger(roles) => (Some(ledger), roles),
            Need::InServer(role) => (Some(EVERY_LEDGER), std::slice::from_ref(role)),
        };
        if let Some(access) = &self.access {
            self.check_credential(&access.state.load(), place)?;
        }
        let place = place.unwrap_or(ledger);
        if roles.is_empty() || roles.iter().any(|&role| self.may(place, role)) {
            return Ok(());
        }
        let wanted = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>();
        Err(ApiError::Forbidden(format!(
            "this needs the role {} in {:?}; an operator gives it with `deed-server role grant`",
            wanted.join(" or "),
            shortened(place),
        )))
    }

    /// Fails if the token was revoked or has expired since the request began, if the certificate
    /// has expired, or if the token is not good for this ledger.
    fn check_credential(&self, state: &State, ledger: Option<&str>) -> Result<(), ApiError> {
        let (Who::Known { token, .. }, Some(access)) = (&self.who, &self.access) else {
            return Ok(());
        };
        access.check_certificate(&self.connection)?;
        let Some(id) = token else {
            return Ok(());
        };
        let token = state.tokens.get(&**id);
        let token = token.ok_or_else(|| refused("this token is not known here"))?;
        token.check(access.clock.now().get())?;
        match ledger {
            Some(ledger) if !token.is_for(ledger) => Err(ApiError::Forbidden(format!(
                "this token is good for some ledgers only, and not for {:?}",
                shortened(ledger)
            ))),
            _ => Ok(()),
        }
    }

    /// Logs a refusal. The line quotes text that callers chose, and never contains a token.
    fn say_refused(&self, rpc: &str, ledger: Option<&str>, refusal: &ApiError) {
        let status = match refusal {
            ApiError::Unauthenticated(_) => "UNAUTHENTICATED",
            ApiError::Forbidden(_) => "PERMISSION_DENIED",
            _ => "INTERNAL",
        };
        tracing::info!(
            principal = self.principal().map_or("-", |principal| &**principal),
            peer = %self.connection().peer,
            connection = self.connection().id,
            rpc = ?shortened(rpc),
            ledger = ?shortened(ledger.unwrap_or_default()),
            status,
            "refused"
        );
    }
}

/// Returns the beginning of a text that a caller chose, for messages and logs.
fn shortened(text: &str) -> &str {
    const BYTES_MAX: usize = 96;
    let end = text.floor_char_boundary(BYTES_MAX);
    &text[..end]
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _state: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.extensions))
    }
}
