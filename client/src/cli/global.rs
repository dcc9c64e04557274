//! The options that all commands share.

use std::{env, path::PathBuf};

use clap::Args;
use deed_client::{Event, Ledger, Options, StateDir};
use deed_tlog::VerifierKey;

use super::{Failure, Outcome, output, printable};

#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Address of the server
    #[arg(
        long,
        global = true,
        env = "DEED_SERVER",
        default_value = "http://127.0.0.1:7733",
        value_name = "URL",
        help_heading = "Common options"
    )]
    pub(crate) server: String,

    /// Name of the ledger
    #[arg(
        long,
        global = true,
        env = "DEED_LEDGER",
        value_name = "NAME",
        help_heading = "Common options"
    )]
    pub(crate) ledger: Option<String>,

    /// Print JSON, one object a line
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) json: bool,

    /// Where trusted keys and tree heads are kept
    /// [default: $XDG_STATE_HOME/deed or ~/.local/state/deed]
    #[arg(
        long,
        global = true,
        env = "DEED_STATE",
        value_name = "DIR",
        help_heading = "Common options"
    )]
    state_dir: Option<PathBuf>,

    /// The ledger's log key, instead of trusting the one seen first
    #[arg(
        long,
        global = true,
        value_name = "VKEY",
        help_heading = "Common options"
    )]
    pub(crate) vkey: Option<VerifierKey>,
}

impl Global {
    /// The ledger that was named.
    pub(crate) fn ledger_name(&self) -> Outcome<&str> {
        self.ledger
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Failure::usage("name a ledger with --ledger or DEED_LEDGER"))
    }

    /// Connects to the ledger that was named.
    pub(crate) async fn connect(&self) -> Outcome<Ledger> {
        let options = self.options(self.ledger_name()?)?;
        Ok(Ledger::connect(options).await?)
    }

    pub(crate) fn options(&self, ledger: &str) -> Outcome<Options> {
        let mut options = Options::new(&self.server, ledger)
            .state(self.state()?)
            .observer(tell);
        if let Some(vkey) = &self.vkey {
            options = options.vkey(vkey.clone());
        }
        Ok(options)
    }

    pub(crate) fn state(&self) -> Outcome<StateDir> {
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

/// Tells a person what happens on the way.
fn tell(event: &Event) {
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
        Event::ForksKept { count, directory } => format!(
            "warning: this ledger has shown {count} fork(s); see {}/fork-*.json",
            directory.display()
        ),
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
        Event::NotSettled { reason } => format!(
            "the heads seen so far could not yet be shown to be of one history: {}",
            printable(reason)
        ),
        _ => return,
    };
    output::tell(&message);
}
