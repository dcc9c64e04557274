//! `deed session show|list`

use clap::{Args, Subcommand};
use deed_client::{Error, Ledger, ProvenSession, SessionError, StoredSession};
use deed_evidence::SessionId;
use serde::Serialize;

use crate::{
    args::{Global, hex_bytes},
    failure::{CommandResult, Failure},
    render::{folded, printable},
};

#[derive(Subcommand)]
pub(crate) enum Sessions {
    Show(Show),
    List(List),
}

/// Show the position of a session, on this machine and in the ledger
///
/// On this machine: the next sequence, and the statements without a receipt. In the ledger: the server's
/// answer, checked against the session's last entry.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed session show nightly-import
  deed session show 000102030405060708090a0b0c0d0e0f")]
pub(crate) struct Show {
    /// Name of a session that is kept here, or any session's id (32 hex digits)
    #[arg(value_name = "NAME|ID")]
    name: String,
}

/// List the sessions on this machine, of all ledgers or of --ledger
///
/// Asks no server. A session that another process uses is listed without its position.
#[derive(Args)]
pub(crate) struct List {}

#[derive(Serialize)]
struct SessionJson {
    session: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<KeptJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<RecordedJson>,
}

/// A session on disk.
#[derive(Serialize)]
struct KeptJson {
    name: String,
    producer: String,
    signing: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    next_sequence: u64,
    /// The first sequence without a receipt.
    acknowledged: u64,
    unacknowledged: usize,
    closed: bool,
}

/// A session in the ledger.
#[derive(Serialize)]
struct RecordedJson {
    producer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    next_sequence: u64,
    statements: u64,
    skipped: u64,
    closed: bool,
    last_leaf: u64,
}

#[derive(Serialize)]
struct ListedJson {
    name: String,
    ledger_id: String,
    session: String,
    producer: String,
    signing: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unacknowledged: Option<usize>,
}

impl Sessions {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Show(show) => show.run(global).await,
            Self::List(_) => list(global),
        }
    }
}

impl Show {
    async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let stored = StoredSession::find(&global.state()?, ledger.ledger_id(), &self.name)
            .map_err(Error::from)?;
        let session = match (&stored, hex_bytes::<16>(&self.name)) {
            (Some(stored), _) => stored.id(),
            (None, Ok(id)) => SessionId::new(id),
            (None, Err(_)) => {
                return Err(Failure::usage(format!(
                    "no session {:?} of this ledger is kept here; `deed session list` shows them",
                    self.name
                )));
            }
        };
        let recorded = ledger.session(session).await?;
        ledger.flush().await?;
        if let Some(stored) = &stored {
            compare(stored, recorded.as_ref(), &ledger)?;
        }
        let json = SessionJson {
            session: session.to_string(),
            kept: stored
                .as_ref()
                .map(|stored| KeptJson::new(&self.name, stored)),
            recorded: recorded.as_ref().map(RecordedJson::new),
        };
        global.output().print(&json, SessionJson::text)
    }
}

/// Checks that the statements with a receipt are there, and that the last one sent is the last one there.
fn compare(
    stored: &StoredSession,
    recorded: Option<&ProvenSession>,
    ledger: &Ledger,
) -> CommandResult {
    let acknowledged = stored.acknowledged().get();
    let there = recorded.map_or(0, |recorded| recorded.info.next_sequence);
    if there < acknowledged {
        return Err(Failure::does_not_verify(format!(
            "ledger {} shows this session up to sequence {there} (excluded), but gave receipts up \
             to {acknowledged}",
            ledger.name()
        )));
    }
    let (next, digest) = stored.next();
    if let (Some(recorded), Some(digest)) = (recorded, digest) {
        let other = recorded.info.last_payload[..] != digest.as_bytes()[..];
        if there == next.get() && other {
            return Err(Failure::does_not_verify(format!(
                "the ledger holds another statement at sequence {} of this session than the one \
                 kept here",
                next.get().saturating_sub(1)
            )));
        }
    }
    Ok(())
}

impl KeptJson {
    fn new(name: &str, stored: &StoredSession) -> Self {
        let (signing, key_id) = stored.signing();
        Self {
            name: name.to_owned(),
            producer: stored.producer().to_owned(),
            signing: signing.to_owned(),
            key_id: key_id.map(str::to_owned),
            next_sequence: stored.next().0.get(),
            acknowledged: stored.acknowledged().get(),
            unacknowledged: stored.unacknowledged().len(),
            closed: stored.is_closed(),
        }
    }
}

impl RecordedJson {
    fn new(proven: &ProvenSession) -> Self {
        let info = &proven.info;
        Self {
            producer: info.producer.clone(),
            key_id: (!info.key_id.is_empty()).then(|| hex::encode(&info.key_id)),
            next_sequence: info.next_sequence,
            statements: info.recorded,
            skipped: info.skipped,
            closed: info.closed,
            last_leaf: info.last_leaf,
        }
    }
}

impl SessionJson {
    fn text(&self) -> String {
        let mut lines = vec![format!("session {}", self.session)];
        let signed = |how: &str, key: Option<&String>| {
            key.map_or_else(|| how.to_owned(), |key| format!("{how}, key {key}"))
        };
        match &self.kept {
            Some(kept) => {
                let waiting = kept.unacknowledged;
                lines.push("kept here".to_owned());
                lines.push(folded("producer", &kept.producer));
                lines.push(folded(
                    "signing",
                    &signed(&kept.signing, kept.key_id.as_ref()),
                ));
                lines.push(folded("next sequence", &kept.next_sequence.to_string()));
                lines.push(folded("no receipt yet", &waiting.to_string()));
                lines.push(folded("closed", yes_or_no(kept.closed)));
            }
            None => lines.push("not kept here".to_owned()),
        }
        match &self.recorded {
            Some(recorded) => {
                lines.push("in the ledger".to_owned());
                lines.push(folded("producer", &recorded.producer));
                let key = recorded.key_id.as_deref().unwrap_or("none");
                lines.push(folded("key", key));
                lines.push(folded("next sequence", &recorded.next_sequence.to_string()));
                lines.push(folded("statements", &recorded.statements.to_string()));
                lines.push(folded("skipped", &recorded.skipped.to_string()));
                lines.push(folded("closed", yes_or_no(recorded.closed)));
                lines.push(folded("last leaf", &recorded.last_leaf.to_string()));
            }
            None => lines.push("nothing of it is in the ledger".to_owned()),
        }
        if let Some(advice) = self.advice() {
            lines.push(advice.to_owned());
        }
        lines.join("\n")
    }

    /// The meaning of the difference between this machine and the ledger.
    fn advice(&self) -> Option<&'static str> {
        let kept = self.kept.as_ref()?;
        let there = self
            .recorded
            .as_ref()
            .map_or(0, |recorded| recorded.next_sequence);
        if there > kept.next_sequence {
            Some(
                "The ledger has more of it than is kept here: something else uses this session.\n\
                 Go on with a session of another name.",
            )
        } else if kept.unacknowledged > 0 {
            Some("What has no receipt is sent again when the session goes on.")
        } else {
            None
        }
    }
}

const fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn list(global: &Global) -> CommandResult {
    let state = global.state()?;
    let wanted = match &global.ledger {
        Some(name) if !name.is_empty() => {
            let pin = pinned(global, name)?;
            let unknown = || {
                Failure::usage(format!(
                    "ledger {name} of {} was never used from here, so nothing of it is kept",
                    global.server_url()
                ))
            };
            Some(pin.ok_or_else(unknown)?)
        }
        _ => None,
    };
    let output = global.output();
    let mut none = true;
    for about in StoredSession::list(&state).map_err(Error::from)? {
        if wanted.is_some_and(|wanted| wanted != about.ledger_id) {
            continue;
        }
        none = false;
        let stored = match StoredSession::find(&state, about.ledger_id, &about.name) {
            Err(SessionError::InUse { .. }) => None,
            found => found.map_err(Error::from)?,
        };
        let stands = stored.as_ref();
        let json = ListedJson {
            state: match stands {
                None => "in use",
                Some(stored) if stored.is_closed() => "closed",
                Some(_) => "open",
            }
            .to_owned(),
            next_sequence: stands.map(|stored| stored.next().0.get()),
            unacknowledged: stands.map(|stored| stored.unacknowledged().len()),
            name: about.name,
            ledger_id: about.ledger_id.to_string(),
            session: about.id.to_string(),
            producer: about.producer,
            signing: about.signing,
            key_id: about.key_id,
        };
        output.print(&json, ListedJson::text)?;
    }
    if none && !global.json {
        output.line("no sessions are kept here")?;
    }
    Ok(())
}

/// The id of a ledger that is trusted, without asking its server.
fn pinned(global: &Global, name: &str) -> CommandResult<Option<deed_evidence::LedgerId>> {
    let state = global.state()?;
    let origin = state
        .known_origin(&global.server_url(), name)
        .map_err(Error::from)?;
    let Some(origin) = origin.and_then(|origin| origin.parse().ok()) else {
        return Ok(None);
    };
    let pin = state.store(&origin).pin().map_err(Error::from)?;
    Ok(pin.map(|pin| pin.ledger_id))
}

impl ListedJson {
    fn text(&self) -> String {
        let stands = match (self.next_sequence, self.unacknowledged) {
            (Some(next), Some(0)) => format!("{}, next sequence {next}", self.state),
            (Some(next), Some(waiting)) => {
                format!(
                    "{}, next sequence {next}, {waiting} without receipt",
                    self.state
                )
            }
            _ => format!("{} by another process", self.state),
        };
        let signed = match &self.key_id {
            Some(key) => format!("{}, key {key}", self.signing),
            None => self.signing.clone(),
        };
        [
            printable(&self.name).into_owned(),
            folded("session", &self.session),
            folded("ledger id", &self.ledger_id),
            folded("producer", &self.producer),
            folded("signing", &signed),
            folded("stands", &stands),
        ]
        .join("\n")
    }
}
