//! The options that all commands share.

use std::{borrow::Cow, env, path::PathBuf};

use clap::Args;
use deed_client::{Access, Connection, Event, Ledger, Options, StateDir, Token, TokenError, key};
use deed_tlog::VerifierKey;

use super::server::server_url;
use crate::{
    failure::{CommandResult, Failure},
    files::read_file,
    render::{Output, printable, report},
};

#[derive(Args, Debug)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// Address of the server: a URL, or HOST:PORT (http:// on this machine, https:// elsewhere). Several
    /// servers of one ledger stand between commas, or the option is given again: the next one is asked
    /// when one does not answer
    #[arg(
        long,
        global = true,
        env = "DEED_SERVER",
        default_value = "http://127.0.0.1:7733",
        value_name = "URL",
        value_delimiter = ','
    )]
    server: Vec<String>,

    /// Name of the ledger
    #[arg(long, global = true, env = "DEED_LEDGER", value_name = "NAME")]
    pub(crate) ledger: Option<String>,

    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Directory for trusted keys and tree heads
    /// [default: $XDG_STATE_HOME/deed or ~/.local/state/deed]
    #[arg(long, global = true, env = "DEED_STATE", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Certificate authorities (PEM) to trust for https:// [default: the system's]
    #[arg(long, global = true, env = "DEED_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Client certificate (PEM) to show
    #[arg(long, global = true, env = "DEED_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// Private key (PEM) of the client certificate
    #[arg(long, global = true, env = "DEED_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,

    /// File with a bearer token [default: the token in DEED_TOKEN]
    #[arg(long, global = true, env = "DEED_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Trust this log key, not the first one that the server shows
    #[arg(long, global = true, value_name = "VKEY")]
    pub(crate) vkey: Option<VerifierKey>,
}

impl Global {
    /// The ledger that was named.
    pub(crate) fn ledger_name(&self) -> CommandResult<&str> {
        self.ledger
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Failure::usage("name a ledger with --ledger or DEED_LEDGER"))
    }

    /// The server's URL; of several servers all of them, for a message.
    pub(crate) fn server_url(&self) -> String {
        self.server_urls().join(", ")
    }

    fn server_urls(&self) -> Vec<Cow<'_, str>> {
        let has_certificates = self.ca.is_some() || self.client_cert.is_some();
        let servers = self.server.iter();
        servers
            .map(|server| server_url(server, has_certificates))
            .collect()
    }

    /// Connects to the ledger that was named.
    pub(crate) async fn connect(&self) -> CommandResult<Ledger> {
        let options = self.options(self.ledger_name()?)?;
        Ok(Ledger::connect(options).await?)
    }

    pub(crate) fn options(&self, ledger: &str) -> CommandResult<Options> {
        let mut servers = self.server_urls().into_iter();
        let first = servers.next().unwrap_or_default();
        let mut options = Options::new(first, ledger)
            .access(self.access()?)
            .state(self.state()?)
            .observer(report_event);
        for server in servers {
            options = options.or_server(server);
        }
        if let Some(vkey) = &self.vkey {
            options = options.vkey(vkey.clone());
        }
        Ok(options)
    }

    /// Connects to the server, whatever ledger is meant.
    pub(crate) async fn connection(&self) -> CommandResult<Connection> {
        Ok(Connection::open_any(&self.server_urls(), self.access()?).await?)
    }

    /// Certificates and token. What is secret comes from files that nobody else may read, or from
    /// the environment: arguments are there for every process to see.
    fn access(&self) -> CommandResult<Access> {
        let secret = |path: &PathBuf| {
            key::read_secret(path).map_err(|error| Failure::Usage(anyhow::Error::new(error)))
        };
        let mut access = Access::new();
        if let Some(path) = &self.ca {
            access = access.ca_pem(read_file(path)?);
        }
        match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => {
                access = access.identity_pem(read_file(certificate)?, secret(key)?.as_bytes());
            }
            (None, None) => {}
            _ => {
                let both = "--client-cert and --client-key go together: give both";
                return Err(Failure::usage(both));
            }
        }
        let token = match &self.token_file {
            Some(path) => {
                let wrong = |error: TokenError| {
                    Failure::usage(error.to_string()).context(path.display().to_string())
                };
                Some(Token::parse(&secret(path)?).map_err(wrong)?)
            }
            None => match env::var("DEED_TOKEN") {
                Ok(token) => {
                    let wrong =
                        |error: TokenError| Failure::usage(error.to_string()).context("DEED_TOKEN");
                    Some(Token::parse(&token).map_err(wrong)?)
                }
                Err(env::VarError::NotPresent) => None,
                Err(env::VarError::NotUnicode(_)) => {
                    return Err(Failure::usage(TokenError).context("DEED_TOKEN"));
                }
            },
        };
        Ok(match token {
            Some(token) => access.token(token),
            None => access,
        })
    }

    /// Standard output in the form that was asked for.
    pub(crate) const fn output(&self) -> Output {
        Output::new(self.json)
    }

    /// The state directory, which need not exist yet.
    pub(crate) fn state(&self) -> CommandResult<StateDir> {
        let path = self
            .state_dir
            .clone()
            .or_else(default_state_dir)
            .ok_or_else(|| {
                Failure::usage("there is no home directory; choose a place with --state-dir")
            })?;
        Ok(StateDir::new(path))
    }
}

/// XDG Base Directory Specification: relative paths there are invalid and ignored.
fn default_state_dir() -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local").join("state")))?;
    Some(state.join("deed"))
}

/// Prints an event of the client library to stderr.
fn report_event(event: &Event) {
    let message = match event {
        Event::Pinned {
            origin,
            vkey,
            ledger_id,
            kept_in,
        } => {
            let place = kept_in
                .as_ref()
                .map(|path| format!("\n  kept in    {}", path.display()));
            let origin = printable(origin);
            format!(
                "first use of {origin}, trusted from now on:\n  log key    {vkey}\n  \
                 ledger id  {ledger_id}{}",
                place.unwrap_or_default()
            )
        }
        Event::LogKeyRotated {
            origin,
            vkey,
            first_size,
        } => format!(
            "the log key of {} was replaced, and the old one has signed that:\n  log key    {vkey}\n  \
             from size  {first_size}",
            printable(origin)
        ),
        Event::ForksKept { count, directory } => format!(
            "warning: this ledger has shown {count} fork(s); see {}/fork-*.json",
            directory.display()
        ),
        Event::OtherServer {
            failed,
            next,
            reason,
            behind,
        } => {
            let what = if *behind { "is behind" } else { "failed" };
            format!(
                "{} {what}, {} is asked: {}",
                printable(failed),
                printable(next),
                printable(reason)
            )
        }
        Event::Retrying {
            attempt,
            pause_ms,
            reason,
        } => format!(
            "attempt {attempt} follows in {pause_ms} ms: {}",
            printable(reason)
        ),
        Event::WentBack { session, expected } => {
            format!("going back to sequence {expected} of session {session}")
        }
        Event::HeadsNotLinked { reason } => format!(
            "the heads seen so far could not yet be shown to be of one history: {}",
            printable(reason)
        ),
        _ => return,
    };
    report(&message);
}
