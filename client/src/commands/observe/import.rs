//! `deed observe import`

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _},
    path::{Path, PathBuf},
};

use clap::Args;
use deed_client::{Appended, Header, Ledger, Session, Signing, Statement};
use deed_evidence::{Micros, Nonce, TaskId};
use deed_proto::v1::statement::Body;
use serde::Serialize;
use serde_json::Value;

use super::mapping::{Mapped, Mapping, shipped};
use crate::{
    cli::{Failure, Global, Outcome, Output},
    commands::{
        authority::rejected,
        receipts::Tally,
        rules::hex_bytes,
        secret,
        show::read_file,
        voice::{Who, WhoArgs},
    },
};

/// Longest line that is read: a whole CloudTrail file may be one.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Statements of one request.
const REQUEST_STATEMENTS: usize = 256;

/// Import another system's log as observations: JSON lines
///
/// A mapping says where effects, times, references and correlation keys come from, and which
/// records count. Two come with this program, cloudtrail (AWS) and kubernetes (audit log); they are
/// examples for others too. The session derives from file, mapping, producer and a secret that is
/// made once in the state directory, so importing the same file again records nothing twice, and
/// nobody else can take or guess the session.
///
/// Signed by the system's own key the observations are its word; signed by an importer's, or not at
/// all, they are claims.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed observe import trail.jsonl --mapping cloudtrail --key importer.pem
  deed observe import audit.log --mapping kubernetes --producer import:k8s
  deed observe import bank.jsonl --mapping bank.toml --key bank.pem --dry-run")]
pub(super) struct ImportLog {
    /// The log, one JSON value a line
    file: PathBuf,
    /// cloudtrail, kubernetes, or a file of your own (TOML)
    #[arg(long, value_name = "NAME|FILE")]
    mapping: String,
    /// The task that all of it belongs to: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>)]
    task: Option<[u8; 16]>,
    /// Send nothing: say what would be sent
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    who: WhoArgs,
}

/// What was imported.
#[derive(Debug, Default, Serialize)]
struct Summary {
    lines: u64,
    records: u64,
    observations: u64,
    /// Filtered out, or without effect.
    left_out: u64,
    #[serde(flatten)]
    tally: Tally,
}

/// The lines of a file.
struct Lines {
    file: BufReader<File>,
    number: u64,
}

/// Sends observations, some at a time.
struct Sender {
    ledger: Ledger,
    signing: Signing,
    session: Session,
    task: Option<TaskId>,
    waiting: Vec<Statement>,
    tally: Tally,
}

impl ImportLog {
    pub(super) async fn run(&self, global: &Global) -> Outcome {
        let text = mapping_text(&self.mapping)?;
        let mapping = Mapping::parse(&text)
            .map_err(|error| Failure::usage(error).context(self.mapping.clone()))?;
        let mut file = File::open(&self.file).map_err(|error| self.unreadable(error))?;
        let digest = digest_of(&mut file).map_err(|error| self.unreadable(error))?;
        let mut sender = match self.dry_run {
            true => None,
            false => Some(self.sender(global, &text, &digest).await?),
        };
        let mut summary = Summary::default();
        let read = self.import(file, &mapping, &mut summary, &mut sender).await;
        let sent = match &mut sender {
            Some(sender) => sender.finish().await,
            None => Ok(()),
        };
        summary.tally = sender.map_or_else(Tally::default, |sender| sender.tally);
        // What was done is said, however it ended.
        let printed = Output::new(global).print(&summary, Summary::text);
        sent.and(read)?;
        summary.tally.check()?;
        printed
    }

    async fn sender(&self, global: &Global, mapping: &str, file: &blake3::Hash) -> Outcome<Sender> {
        let ledger = global.connect().await?;
        let Who { producer, key } = self.who.required(&ledger).await?;
        let secret = secret::made_once(&global.state()?)?;
        let nonce = session_nonce(&secret, &producer, mapping, file, self.task.as_ref());
        Ok(Sender {
            session: Session::with_nonce(ledger.ledger_id(), producer, nonce),
            ledger,
            signing: key.map_or(Signing::None, Signing::Batch),
            task: self.task.map(TaskId::new),
            waiting: Vec::new(),
            tally: Tally::default(),
        })
    }

    async fn import(
        &self,
        file: File,
        mapping: &Mapping,
        summary: &mut Summary,
        sender: &mut Option<Sender>,
    ) -> Outcome {
        let mut lines = Lines {
            file: BufReader::new(file),
            number: 0,
        };
        while let Some(line) = lines.next()? {
            summary.lines += 1;
            let all = observed(mapping, &line, summary);
            for one in all.map_err(|error| lines.at(Failure::usage(error)))? {
                if let Some(sender) = sender {
                    let taken = sender.take(one).await;
                    taken.map_err(|failure| lines.at(failure))?;
                }
            }
        }
        Ok(())
    }

    fn unreadable(&self, error: io::Error) -> Failure {
        let what = format!("cannot read {}", self.file.display());
        Failure::Usage(anyhow::Error::new(error).context(what))
    }
}

/// A mapping that comes with the program, or a file's text.
fn mapping_text(name: &str) -> Outcome<String> {
    if let Some(text) = shipped(name) {
        return Ok(text.to_owned());
    }
    let bytes = read_file(Path::new(name))?;
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{name} is not UTF-8")))
}

/// Digest of a whole file, which then stands at its beginning again.
fn digest_of(file: &mut File) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(file, &mut hasher)?;
    file.rewind()?;
    Ok(hasher.finalize())
}

/// The same for the same import, and another one if anything in it differs: the same place in a
/// session never gets two different statements. Nobody without the secret computes it.
fn session_nonce(
    secret: &[u8; 32],
    producer: &str,
    mapping: &str,
    file: &blake3::Hash,
    task: Option<&[u8; 16]>,
) -> Nonce {
    let key = blake3::derive_key("deed.v1 observe import session nonce", secret);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    let task = task.map_or(&[][..], |task| &task[..]);
    for part in [
        producer.as_bytes(),
        mapping.as_bytes(),
        &file.as_bytes()[..],
        task,
    ] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut nonce = [0; Nonce::LEN];
    hasher.finalize_xof().fill(&mut nonce);
    Nonce::new(nonce)
}

/// The observations of a line.
fn observed(mapping: &Mapping, line: &Value, summary: &mut Summary) -> Result<Vec<Mapped>, String> {
    let mut all = Vec::new();
    for record in mapping.records(line) {
        summary.records += 1;
        match mapping.map(record)? {
            Some(mapped) => {
                summary.observations += 1;
                all.push(mapped);
            }
            None => summary.left_out += 1,
        }
    }
    Ok(all)
}

impl Lines {
    /// The next line that is not empty.
    fn next(&mut self) -> Outcome<Option<Value>> {
        loop {
            let mut line = Vec::new();
            self.number += 1;
            let mut bounded = self.file.by_ref().take(LINE_BYTES_MAX + 1);
            let read = bounded
                .read_until(b'\n', &mut line)
                .map_err(|error| self.at(Failure::Usage(error.into())))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 > LINE_BYTES_MAX {
                let long = format!("longer than {LINE_BYTES_MAX} bytes");
                return Err(self.at(Failure::usage(long)));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let value = serde_json::from_slice(&line);
            return value
                .map(Some)
                .map_err(|error| self.at(Failure::usage(format!("is no JSON: {error}"))));
        }
    }

    fn at(&self, failure: Failure) -> Failure {
        failure.context(format!("line {}", self.number))
    }
}

impl Sender {
    async fn take(&mut self, mapped: Mapped) -> Outcome {
        let keys: Vec<_> = mapped
            .correlation_keys
            .iter()
            .map(|(kind, value)| (kind.as_str(), value.as_str()))
            .collect();
        let header = Header {
            task: self.task,
            // Not now: a second import must make the same bytes.
            occurred_at: Micros::new(mapped.observation.observed_at_us),
            correlation_keys: &keys,
            ..Header::default()
        };
        let made = self
            .session
            .make(&header, Body::Observation(mapped.observation))
            .map_err(|error| Failure::usage(error.to_string()))?;
        self.waiting.push(made.into());
        if self.waiting.len() < REQUEST_STATEMENTS {
            return Ok(());
        }
        self.send().await
    }

    async fn send(&mut self) -> Outcome {
        let statements = std::mem::take(&mut self.waiting);
        if statements.is_empty() {
            return Ok(());
        }
        let sent = self.ledger.append_signed(&statements, &self.signing).await;
        let items = sent?.items;
        items.iter().for_each(|item| self.tally.count(item));
        let first = items.iter().find_map(|item| match item {
            Appended::Rejected(rejection) => Some(rejection),
            _ => None,
        });
        match first {
            // Nothing behind it would be taken either.
            Some(rejection) => Err(rejected(rejection)),
            None => Ok(()),
        }
    }

    async fn finish(&mut self) -> Outcome {
        self.send().await?;
        Ok(self.ledger.flush().await?)
    }
}

impl Summary {
    fn text(&self) -> String {
        format!(
            "lines         {}\nrecords       {}\nobservations  {}\nleft out      {}\n\
             accepted      {}\nduplicates    {}\nrejected      {}",
            self.lines,
            self.records,
            self.observations,
            self.left_out,
            self.tally.accepted,
            self.tally.duplicates,
            self.tally.rejected
        )
    }
}
