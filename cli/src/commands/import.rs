//! `deed import chat`

mod earlier;
mod producer;
mod reader;
mod receipt_file;
mod summary;

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use clap::{Args, Subcommand, ValueEnum};
use deed_client::{
    Error, Ledger, Signing,
    chat::{Grantor, Import as ChatImport},
    records,
};
use deed_proto::v1;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    args::{Global, controller},
    author::{AuthorityArgs, OwnKey, SignMode, secret},
    failure::{CommandResult, Failure},
    render::{progress_bar, report},
};
use producer::Producer;
use reader::Runs;
use receipt_file::ReceiptFile;
use summary::{Refusals, Summary, text};

#[derive(Subcommand)]
pub(crate) enum Import {
    Chat(Chat),
}

/// Import chat transcripts with tool calls
///
/// Each record is an object {run_id, messages}: as JSON lines, or as one object or a list of them over
/// many lines, gzipped or not. The messages are in the style of OpenAI's chat completions (also with
/// function_call, custom tools and content as parts), of Anthropic's messages, or items of OpenAI's
/// responses. A run with a message of any other form is refused.
///
/// Each run becomes a task: TaskOpened, a Grant of the tools that it calls, an Intent and an Outcome
/// for each call. The statements only commit to the conversation. The arguments and results of tool calls
/// are kept beside the ledger, encrypted, where they can be read (deed content get) and erased.
///
/// Each run is made and checked as a whole before anything of it is sent. A refused run is named with its
/// line; the others are imported, and the exit code at the end is 2.
///
/// The statements are signed in batches, with a key that is made for importing and kept in the state
/// directory. The authority whose key is kept here, or named, registers it with the role importer and
/// signs the grants. Without an authority key nothing is signed, and the command says so. An import is a
/// claim even if it is signed: a customer's "yes" in a transcript is recorded as an Approval, but never
/// counts as one.
///
/// Sessions, tasks and the salts of the commitments derive from the run_id, the producer and a secret.
/// A second import with the same secret gives duplicates only, and nobody else can take or guess the
/// ids. A run that has grown is continued; a run whose messages changed is refused. A second import must
/// be signed in the same way, because a session belongs to the key that began it. A credential with the
/// role append alone can import new runs; comparing runs that have grown needs the role read
/// (docs/imports-chats.md).
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed import chat runs.jsonl --ledger airline
  deed import chat runs.jsonl --receipts receipts.jsonl --producers 8 \\
       --model gpt-4o --risk-tier customer-communication
  deed import chat runs.jsonl --unsigned --no-contents
  deed import chat runs.json.gz --dry-run

The producer is import:chat in signed statements and import:chat/unsigned in
others, unless --producer names one.")]
pub(crate) struct Chat {
    /// Transcripts; - is stdin
    file: PathBuf,
    /// Write a receipt for each statement to this file, one JSON object a line. An existing file is
    /// replaced when the import ends. After an error or Ctrl-C it holds the receipts that came before,
    /// or is left alone if there are none
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// Number of producers that share the runs, each with its own stream
    #[arg(long, default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    producers: u16,
    /// Producer of the statements: a URI [default: import:chat, or import:chat/unsigned if
    /// unsigned]
    #[arg(long, value_name = "URI", value_parser = producer_uri)]
    producer: Option<String>,
    /// Way of signing [default: batch if there is a key, or an authority to register one]
    #[arg(long, value_enum, value_name = "HOW")]
    sign: Option<SignMode>,
    /// Do not sign: the same as --sign none
    #[arg(long, conflicts_with_all = ["sign", "authority_key", "controller"])]
    unsigned: bool,
    #[command(flatten)]
    authority: AuthorityArgs,
    /// Controller of the new key: an https or spiffe URI [default: the producer if it is such a URI,
    /// else `https://deed.invalid/import`, which stands for nobody]
    #[arg(long, value_name = "URI", value_parser = controller)]
    controller: Option<String>,
    /// Commit to arguments and results, and keep neither
    #[arg(long)]
    no_contents: bool,
    /// Name of the model, for runs that do not name one
    #[arg(
        long,
        default_value = "",
        value_name = "NAME",
        hide_default_value = true
    )]
    model: String,
    /// Risk: the harm that the tasks may do
    #[arg(long, value_enum, default_value_t = RiskTier::Low)]
    risk_tier: RiskTier,
    /// The runs are over: close their tasks and sessions. Without it they stay open, and a run that has
    /// grown goes on where it was
    #[arg(long)]
    ended: bool,
    /// Send nothing: make all statements, check them, compare them with what is recorded, and say
    /// what would be sent
    #[arg(long, conflicts_with = "receipts")]
    dry_run: bool,
    /// 32 secret bytes that ids and salts derive from [default: made once in the state directory]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RiskTier {
    Low,
    Payment,
    CustomerCommunication,
    Deployment,
    Deletion,
}

impl From<RiskTier> for v1::RiskTier {
    fn from(tier: RiskTier) -> Self {
        match tier {
            RiskTier::Low => Self::Low,
            RiskTier::Payment => Self::Payment,
            RiskTier::CustomerCommunication => Self::CustomerCommunication,
            RiskTier::Deployment => Self::Deployment,
            RiskTier::Deletion => Self::Deletion,
        }
    }
}

/// Speaks in signed imports. Never changes: a second import would be another producer's.
const PRODUCER: &str = "import:chat";
/// Speaks in unsigned ones, and in grants that nobody signs: from its first key on a producer is
/// taken at its signature only. (Not a `deed:` URI, for which no key is registered: those are
/// granted nothing.)
const PRODUCER_UNSIGNED: &str = "import:chat/unsigned";

/// The file of receipts, shared by the producers.
type Receipts = Option<Arc<ReceiptFile>>;

impl Import {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Chat(chat) => chat.run(global).await,
        }
    }
}

impl Chat {
    async fn run(&self, global: &Global) -> CommandResult {
        let begin = Instant::now();
        // Local files first: nothing is sent if one of them is not there.
        let file = records::open(&self.file).map_err(|error| {
            let what = format!("cannot read {}", self.file.display());
            Failure::Usage(anyhow::Error::new(error).context(what))
        })?;
        let file_bytes = fs::metadata(&self.file).map_or(0, |metadata| metadata.len());
        let secret = match &self.secret_file {
            Some(path) => secret::read(path)?,
            None => secret::made_once(&global.state()?)?,
        };
        let ledger = global.connect().await?;
        let bar = progress_bar(
            global.json,
            file_bytes,
            "{bar:30} {binary_bytes}/{binary_total_bytes}  {elapsed}, {eta} left",
        );
        let refusals = Refusals::default();
        let runs = Runs::read(
            file,
            usize::from(self.producers),
            bar.clone(),
            refusals.clone(),
        );
        let import = |unsigned: bool, grantor: Grantor| ChatImport {
            ledger_id: ledger.ledger_id(),
            producer: self.producer(unsigned).to_owned(),
            grantor,
            claimant: PRODUCER_UNSIGNED.to_owned(),
            secret,
            model: self.model.clone(),
            risk_tier: self.risk_tier.into(),
            runs_are_over: self.ended,
        };
        // An input without a run must not lead to a registration.
        let stand_in = import(false, Grantor::Claimed(PRODUCER_UNSIGNED.to_owned()));
        let found = runs
            .find(|run| producer::check(&stand_in, &run.transcript))
            .await;
        let (mut summary, outcome, interrupts, receipts) = if found {
            let signing = self.signing(global, &ledger).await?;
            let (grantor, granting) = self.granting(global, &ledger, &signing).await?;
            let receipts: Receipts = match &self.receipts {
                Some(path) if !self.dry_run => Some(Arc::new(ReceiptFile::create(path)?)),
                _ => None,
            };
            let import = Arc::new(import(signing == Signing::None, grantor));
            let mut producers = JoinSet::new();
            for _ in 0..self.producers {
                let producer = Producer {
                    import: Arc::clone(&import),
                    runs: runs.clone(),
                    receipts: receipts.clone(),
                    ledger: ledger.clone(),
                    signing: signing.clone(),
                    granting: granting.clone(),
                    keeps_contents: !self.no_contents,
                    is_dry: self.dry_run,
                    refusals: refusals.clone(),
                };
                producers.spawn(producer.run());
            }
            let (summary, outcome, interrupts) = wait_for(producers, &runs).await?;
            (summary, outcome, interrupts, receipts)
        } else {
            (Summary::default(), Ok(()), 0, None)
        };
        bar.finish_and_clear();
        let flushed = match interrupts {
            0 | 1 => ledger.flush().await.map_err(Failure::from),
            // A second Ctrl-C does not wait for the proof that the heads are linked; the next command
            // makes it.
            _ => Ok(()),
        };
        let at_the_end = outcome.is_ok() && interrupts == 0;
        let kept = receipts.map_or(Ok(()), |receipts| receipts.keep(at_the_end));
        summary.dry_run = self.dry_run;
        refusals.sum_up(&mut summary);
        summary.elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        // The summary is printed even if the import failed; a closed stdout does not hide that failure.
        // A second Ctrl-C cuts off the summary too.
        let printed = match interrupts {
            0 | 1 => global.output().print(&summary, text),
            _ => Ok(()),
        };
        outcome?;
        flushed?;
        kept?;
        if interrupts > 0 {
            return Err(Failure::Unavailable(anyhow::Error::msg(
                "interrupted; import the file again for the rest",
            )));
        }
        summary.tally.check()?;
        summary.check(runs.is_empty())?;
        printed
    }

    fn producer(&self, unsigned: bool) -> &str {
        match &self.producer {
            Some(producer) => producer,
            None if unsigned => PRODUCER_UNSIGNED,
            None => PRODUCER,
        }
    }

    /// The way of signing, with a key that is registered by now.
    async fn signing(&self, global: &Global, ledger: &Ledger) -> CommandResult<Signing> {
        if self.unsigned || self.sign == Some(SignMode::None) {
            return Ok(Signing::None);
        }
        let producer = self.producer(false);
        let key = OwnKey {
            purpose: "import",
            role: v1::KeyRole::Importer,
            producer,
            controller: self.controller.as_deref(),
        };
        if self.dry_run {
            // The very statements, and nothing signed.
            let is_at_hand = key.is_at_hand(global, ledger, &self.authority).await?;
            return Ok(match is_at_hand {
                Some(key) => self.sign.unwrap_or(SignMode::Batch).with(key),
                None => Signing::None,
            });
        }
        match (
            key.registered(global, ledger, &self.authority).await?,
            self.sign,
        ) {
            (Some(key), how) => Ok(how.unwrap_or(SignMode::Batch).with(key)),
            (None, Some(_)) => Err(Failure::usage(
                "no authority key of this ledger is kept here to register a key for the import; \
                 name one with --authority-key, or import with --unsigned",
            )),
            (None, None) => {
                report(
                    "not signed: no authority key of this ledger is kept here to register a key \
                     for the import (--authority-key names one, --unsigned says that this is meant)",
                );
                Ok(Signing::None)
            }
        }
    }

    /// The author of the grants, and the way in which they are signed.
    async fn granting(
        &self,
        global: &Global,
        ledger: &Ledger,
        signing: &Signing,
    ) -> CommandResult<(Grantor, Signing)> {
        if *signing == Signing::None {
            // All of it is somebody's word.
            let producer = self.producer(true).to_owned();
            return Ok((Grantor::Claimed(producer), Signing::None));
        }
        // A caller without the role read cannot learn who the authorities are.
        let may_read = !self.authority.may_be_at_hand(global, ledger)?
            || match ledger.trust_chain().await {
                Err(Error::NotAllowed { .. }) => false,
                other => other.map(|_| true)?,
            };
        if may_read && let Some(key) = self.authority.key(global, ledger).await? {
            return Ok((Grantor::Authority, Signing::Each(Arc::new(key))));
        }
        report(if may_read {
            "grants not signed: no authority key of this ledger is kept here to grant what the \
             runs did (--authority-key names one)"
        } else {
            "grants not signed: whether an authority's key is kept here to grant what the runs did \
             is not known without the role read"
        });
        let producer = PRODUCER_UNSIGNED.to_owned();
        Ok((Grantor::Claimed(producer), Signing::None))
    }
}

/// `deed:` URIs are the ledger's own, and nothing is granted to them.
fn producer_uri(text: &str) -> Result<String, String> {
    if text.to_ascii_lowercase().starts_with("deed:") {
        return Err("is a deed: URI, which is the ledger's own; choose another".to_owned());
    }
    crate::args::producer(text)
}

/// Waits for the producers. The first interrupt lets them finish the runs that they are at, the
/// second does not; how many there were is returned too.
async fn wait_for(
    mut producers: JoinSet<(Summary, CommandResult)>,
    runs: &Runs,
) -> CommandResult<(Summary, CommandResult, u32)> {
    let cannot_listen = |error: std::io::Error| Failure::Usage(error.into());
    let mut interrupted = signal(SignalKind::interrupt()).map_err(cannot_listen)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(cannot_listen)?;
    let mut interrupts = 0;
    let mut summary = Summary::default();
    let mut outcome = Ok(());
    loop {
        let producer = tokio::select! {
            producer = producers.join_next() => producer,
            _ = interrupted.recv() => {
                interrupts += 1;
                None
            }
            _ = terminated.recv() => {
                interrupts += 1;
                None
            }
        };
        match producer {
            Some(Ok((part, end))) => {
                summary.merge(part);
                outcome = outcome.and(end);
            }
            // A producer is cancelled only after a second interrupt, which is reported already.
            Some(Err(error)) if error.is_cancelled() => {}
            Some(Err(error)) => {
                runs.stop();
                outcome = outcome.and(Err(Failure::Unavailable(error.into())));
            }
            None if producers.is_empty() => return Ok((summary, outcome, interrupts)),
            None => {
                runs.stop();
                match interrupts {
                    1 => report("stopping; once more to give up what is under way"),
                    _ => producers.abort_all(),
                }
            }
        }
    }
}
