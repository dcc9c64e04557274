//! `deed ledger create|list|show|rotate-log-key`

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use deed_client::{Error, KnownKeys, Ledger, Pin, StateDir};
use deed_evidence::genesis::Genesis;
use deed_proto::v1::{self, LedgerInfo, statement::Body};
use deed_tlog::VerifierKey;
use serde::Serialize;
use tonic::Status;

use crate::{
    args::{Global, authority_key},
    author::{AuthorityArgs, NewAuthority, TrustReceiptJson},
    failure::{CommandResult, Failure},
    render::printable,
};

/// The longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Subcommand)]
pub(crate) enum Ledgers {
    Create(Create),
    List(List),
    Show(Show),
    RotateLogKey(RotateLogKey),
}

/// Create a ledger
///
/// The authority keys sign for the ledger's owner. Without --authority-key the command makes a key and
/// keeps its private half in the state directory; the server never makes one. The answer is verified, and
/// the ledger is trusted from then on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed ledger create payments
  deed ledger create payments --authority-key owner.pub \\
       --authority-key 3b6a27bc...")]
pub(crate) struct Create {
    /// Name of the ledger: 1 to 63 of a-z, 0-9 and '-'
    name: String,
    /// Public Ed25519 key in hex, or a file that holds it; may be repeated
    #[arg(long, value_name = "HEX|FILE")]
    authority_key: Vec<String>,
}

/// List all ledgers of the server
///
/// Checks each ledger id against its genesis entry and against the id that is trusted. Sizes, roots and
/// log keys that replaced another one are the server's word; `deed ledger show` verifies them. With
/// --json each ledger is an object on a line of its own.
#[derive(Args)]
pub(crate) struct List {}

/// Show a ledger, its tree head verified
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed ledger show payments
  deed ledger show payments --json | jq -r .vkey")]
pub(crate) struct Show {
    /// The ledger [default: --ledger]
    name: Option<String>,
}

/// Replace the log key, which signs the ledger's tree heads
///
/// The server derives the next key, and an authority of the ledger signs the change. Clients follow by
/// themselves, because the old key also signs the first head of the new one. If others may know the
/// server's secret, stop the server and run `deed-server renew-secret` first: otherwise they know the next
/// key too.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed ledger rotate-log-key payments --reason 'Yearly.'
  deed ledger rotate-log-key payments \\
       --reason 'The disk was sold.' --authority-key owner.key")]
pub(crate) struct RotateLogKey {
    /// The ledger [default: --ledger]
    name: Option<String>,
    /// Reason, 1 to 1,024 bytes; everybody who sees tree heads can read it
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

#[derive(Serialize)]
struct LogKeyJson {
    vkey: String,
    first_size: u64,
}

#[derive(Serialize)]
struct RotatedJson {
    vkey: String,
    first_size: u64,
    replaced: String,
    #[serde(flatten)]
    recorded: TrustReceiptJson,
}

#[derive(Serialize)]
struct LedgerJson {
    name: String,
    origin: String,
    vkey: String,
    ledger_id: String,
    size: u64,
    root: String,
    /// All log keys, oldest first, and the smallest tree that each signs; not in a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log_keys: Vec<LogKeyJson>,
    /// File of the private authority key that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    authority_key_file: Option<String>,
}

impl LedgerJson {
    fn new(name: &str, pin: &Pin, vkey: String, size: u64, root: String) -> Self {
        Self {
            name: name.to_owned(),
            origin: pin.origin.to_string(),
            vkey,
            ledger_id: pin.ledger_id.to_string(),
            size,
            root,
            log_keys: Vec::new(),
            authority_key_file: None,
        }
    }

    /// Describes a ledger whose keys were verified.
    fn verified(ledger: &Ledger, size: u64, root: String) -> Self {
        let known: KnownKeys = ledger.log_keys();
        let newest = known.keys().newest().key.to_string();
        let mut json = Self::new(ledger.name(), ledger.pin(), newest, size, root);
        let keys = known.keys().all().iter().map(|known| LogKeyJson {
            vkey: known.key.to_string(),
            first_size: known.first_size.get(),
        });
        json.log_keys = keys.collect();
        json
    }

    fn text(&self) -> String {
        let key = self.authority_key_file.as_ref();
        let key = key.map_or(String::new(), |file| {
            format!("\nauthority  {file} (keep it secret)")
        });
        let mut keys = String::new();
        if let [.., _, newest] = &self.log_keys[..] {
            keys = format!("\n           from size {}", newest.first_size);
            for before in self.log_keys.iter().rev().skip(1) {
                keys += &format!(
                    "\nbefore     {}\n           from size {}",
                    printable(&before.vkey),
                    before.first_size
                );
            }
        }
        format!(
            "name       {}\norigin     {}\nlog key    {}{keys}\nledger id  {}\nsize       {}\n\
             root       {}{key}",
            printable(&self.name),
            printable(&self.origin),
            printable(&self.vkey),
            self.ledger_id,
            self.size,
            self.root
        )
    }
}

impl Ledgers {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Create(create) => create.run(global).await,
            Self::List(_) => list(global).await,
            Self::Show(show) => show.run(global).await,
            Self::RotateLogKey(rotate) => rotate.run(global).await,
        }
    }
}

impl Create {
    async fn run(&self, global: &Global) -> CommandResult {
        let mut keys = self
            .authority_key
            .iter()
            .map(|key| authority_key(key))
            .collect::<CommandResult<Vec<_>>>()?;
        let connection = global.connection().await?;
        let mut made = None;
        if keys.is_empty() {
            // The key is on disk before the ledger exists: if a crash lost it, nobody would own the
            // ledger.
            let authority = NewAuthority::make(&global.state()?, &self.name)?;
            keys.push(authority.public_key);
            made = Some(authority);
        }
        let request = v1::CreateLedgerRequest {
            name: self.name.clone(),
            authority_keys: keys.iter().map(|key| Bytes::copy_from_slice(key)).collect(),
        };
        let mut rpc = connection.ledger();
        let answer = match within_deadline(rpc.create_ledger(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let failure = refused(&status, global);
                if let (Failure::Unavailable(_), Some(made)) = (&failure, &made) {
                    made.discard_if_refused(&status);
                }
                return Err(failure);
            }
        };
        let info = answer
            .ledger
            .ok_or_else(|| Failure::does_not_verify("the server's answer lacks the ledger"))?;
        // Before it is pinned: a ledger that speaks for somebody else is not trusted at all.
        check_authority(&info, keys)?;
        let ledger = Ledger::trust(connection, &info, global.options(&self.name)?).await?;
        let head = ledger.trust_note(&answer.checkpoint).await?;
        ledger.flush().await?;
        let (size, root) = (head.head.size.get(), head.head.root.to_string());
        let mut json = LedgerJson::verified(&ledger, size, root);
        json.authority_key_file = made.map(|made| made.path.display().to_string());
        global.output().print(&json, LedgerJson::text)
    }
}

impl Show {
    async fn run(&self, global: &Global) -> CommandResult {
        let name = match &self.name {
            Some(name) => name,
            None => global.ledger_name()?,
        };
        let ledger = Ledger::connect(global.options(name)?).await?;
        let head = ledger.head().await?.signed.head;
        ledger.update_log_keys().await?;
        ledger.flush().await?;
        let json = LedgerJson::verified(&ledger, head.size.get(), head.root.to_string());
        global.output().print(&json, LedgerJson::text)
    }
}

impl RotateLogKey {
    async fn run(&self, global: &Global) -> CommandResult {
        let name = match &self.name {
            Some(name) => name,
            None => global.ledger_name()?,
        };
        let ledger = Ledger::connect(global.options(name)?).await?;
        let next = next_log_key(&ledger, global).await?;
        let replaced = ledger.log_keys().keys().newest().key.to_string();
        let body = Body::LogKeyRotated(v1::LogKeyRotated {
            log_key: Some(v1::LogKey {
                vkey: next.to_string(),
            }),
            reason: self.reason.clone(),
        });
        let recorded = self.authority.record_in(global, &ledger, body).await?;
        let known = ledger.update_log_keys().await?;
        ledger.flush().await?;
        let found = known.keys().all().iter().find(|known| known.key == next);
        let Some(found) = found.filter(|it| it.first_size.get() == recorded.leaf_index + 1) else {
            return Err(Failure::does_not_verify(format!(
                "the statement is recorded at leaf {}, but the server does not sign with {next} from \
                 there on",
                recorded.leaf_index
            )));
        };
        let json = RotatedJson {
            vkey: next.to_string(),
            first_size: found.first_size.get(),
            replaced,
            recorded,
        };
        global.output().print(&json, |json| {
            format!(
                "the log key of {} was replaced\nlog key    {}\n           from size {}\nbefore     \
                 {}\n{}",
                ledger.pin().origin,
                json.vkey,
                json.first_size,
                json.replaced,
                json.recorded.text()
            )
        })
    }
}

/// The key that the server has for the ledger next, by its word. One of another log, or one that has
/// signed before, would be refused: said here in fewer words.
async fn next_log_key(ledger: &Ledger, global: &Global) -> CommandResult<VerifierKey> {
    let request = v1::GetLedgerRequest {
        name: ledger.name().to_owned(),
    };
    let mut rpc = ledger.connection().ledger();
    let info = within_deadline(rpc.get_ledger(request))
        .await
        .map_err(|status| refused(&status, global))?
        .into_inner();
    if info.next_log_key.is_empty() {
        return Err(Failure::usage(
            "the server names no next log key: it is of a version that cannot replace one",
        ));
    }
    let next: VerifierKey = info.next_log_key.parse().map_err(|error| {
        Failure::does_not_verify(format!("the server's next log key is malformed: {error}"))
    })?;
    let known = ledger.log_keys();
    if next.name() != ledger.pin().origin.key_name() || known.keys().contains(&next) {
        return Err(Failure::does_not_verify(format!(
            "the server names {next} as the next log key, which is another log's or has signed before"
        )));
    }
    Ok(next)
}

/// A server that keeps the connection and never answers must not hold the command for ever.
async fn within_deadline<T>(
    rpc: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, tonic::Status> {
    tokio::time::timeout(ANSWER_TIMEOUT, rpc)
        .await
        .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer came in time")))
}

async fn list(global: &Global) -> CommandResult {
    let connection = global.connection().await?;
    let (output, state) = (global.output(), global.state()?);
    let mut order = Order::default();
    let mut request = v1::ListLedgersRequest::default();
    if !global.json {
        output.line(&format!(
            "{:<24} {:>12}  {:<16}  {}",
            "NAME", "SIZE", "LEDGER ID", "ORIGIN"
        ))?;
    }
    loop {
        let mut rpc = connection.ledger();
        let page = within_deadline(rpc.list_ledgers(request.clone()))
            .await
            .map_err(|status| refused(&status, global))?
            .into_inner();
        for info in &page.ledgers {
            let named = |failure: Failure| failure.context(info.name.clone());
            order.check_name(&info.name)?;
            let pin = Pin::from_info(info, &info.name)
                .map_err(|error| named(Error::from(error).into()))?;
            compare_with_pinned(&state, connection.server(), &info.name, &pin).map_err(named)?;
            let (vkey, root) = (info.vkey.clone(), hex::encode(&info.root));
            let json = LedgerJson::new(&info.name, &pin, vkey, info.size, root);
            output.print(&json, |json| {
                let id = json.ledger_id.get(..16).unwrap_or_default();
                let (name, origin) = (printable(&json.name), printable(&json.origin));
                format!("{name:<24} {:>12}  {id}  {origin}", json.size)
            })?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        order.check_token(page.ledgers.len(), &page.next_page_token)?;
        request.page_token = page.next_page_token;
    }
}

/// Pages go forward: a server that repeats itself would keep us here for ever.
#[derive(Debug, Default)]
struct Order {
    last_name: String,
    last_token: String,
}

impl Order {
    fn check_name(&mut self, name: &str) -> CommandResult {
        if name <= self.last_name.as_str() {
            return Err(Failure::does_not_verify(format!(
                "the server lists {name:?} after {:?}; names ascend",
                self.last_name
            )));
        }
        name.clone_into(&mut self.last_name);
        Ok(())
    }

    /// The token of a page that is not the last.
    fn check_token(&mut self, ledgers: usize, token: &str) -> CommandResult {
        if ledgers == 0 {
            return Err(Failure::does_not_verify(
                "the server sends an empty page that is not the last",
            ));
        }
        if token <= self.last_token.as_str() {
            return Err(Failure::does_not_verify(format!(
                "the server's page token {token:?} follows {:?}; tokens ascend",
                self.last_token
            )));
        }
        token.clone_into(&mut self.last_token);
        Ok(())
    }
}

/// Compares a ledger with what is trusted of it, if anything is. Pins nothing: what is merely
/// listed is not used.
fn compare_with_pinned(state: &StateDir, server: &str, name: &str, found: &Pin) -> CommandResult {
    let differs = |what: &str, found: &str, pinned: &str| {
        Failure::does_not_verify(format!(
            "the {what} is {found}, but {pinned} is trusted; do not use it"
        ))
    };
    let origin = state.known_origin(server, name).map_err(Error::from)?;
    if let Some(origin) = origin.filter(|origin| origin != found.origin.as_str()) {
        return Err(differs("origin", found.origin.as_str(), &origin));
    }
    let Some(pinned) = state.store(&found.origin).pin().map_err(Error::from)? else {
        return Ok(());
    };
    for (what, found, pinned) in [
        ("log key", found.vkey.to_string(), pinned.vkey.to_string()),
        (
            "ledger id",
            found.ledger_id.to_string(),
            pinned.ledger_id.to_string(),
        ),
    ] {
        if found != pinned {
            return Err(differs(what, &found, &pinned));
        }
    }
    Ok(())
}

/// The genesis entry must name exactly the authority keys that were sent.
fn check_authority(info: &LedgerInfo, mut sent: Vec<[u8; 32]>) -> CommandResult {
    let (genesis, _) = Genesis::from_entry(&info.genesis_entry)
        .map_err(|error| Failure::does_not_verify(error.to_string()))?;
    sent.sort_unstable();
    if genesis.authority_keys == sent {
        return Ok(());
    }
    Err(Failure::does_not_verify(
        "the server created the ledger with other authority keys than those sent; do not use it",
    ))
}

fn refused(status: &Status, global: &Global) -> Failure {
    Error::of_status(status, &global.server_url()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_forward() {
        let mut order = Order::default();
        for name in ["a", "b", "ba"] {
            order.check_name(name).unwrap();
        }
        for name in ["ba", "b", ""] {
            order.check_name(name).unwrap_err();
        }
        order.check_token(3, "ba").unwrap();
        order.check_token(0, "bb").unwrap_err();
        for token in ["ba", "a"] {
            order.check_token(1, token).unwrap_err();
        }
        order.check_token(1, "c").unwrap();
    }
}
