//! `deed import chat`

mod reader;
mod secret;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use deed_client::{
    Answer, Appender, AppenderOptions, Ledger, Pending,
    chat::{Counts, Import as ChatImport},
};
use deed_proto::v1;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};

use super::receipts::{ReceiptJson, Tally};
use crate::cli::{Failure, Global, Outcome, Output, progress_bar, to_json};
use reader::{NumberedRun, Runs};

#[derive(Subcommand)]
pub(crate) enum Import {
    Chat(Chat),
}

/// Import chat transcripts with tool calls
///
/// One object {run_id, messages} a line, the messages in the style of OpenAI's chat completions.
/// Of each run come TaskOpened, an Intent and an Outcome for each tool call, TaskClosed and
/// SessionClosed. Arguments, results and prompts go in as commitments only.
///
/// Sessions derive from the run_id, so a second import is all duplicates. It needs the same
/// secret, from which the salts of the commitments derive.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed import chat runs.jsonl --ledger airline
  deed import chat runs.jsonl --receipts receipts.jsonl --producers 8 \\
       --model gpt-4o --risk-tier customer-communication")]
pub(crate) struct Chat {
    /// Transcripts, one JSON object a line
    file: PathBuf,
    /// Write a receipt for each statement to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// How many producers share the runs, each with its own stream
    #[arg(long, default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    producers: u16,
    /// Who speaks in the statements: a URI
    #[arg(long, default_value = "deed:import/chat", value_name = "URI")]
    producer: String,
    /// Name of the model, for runs that do not name one
    #[arg(
        long,
        default_value = "",
        value_name = "NAME",
        hide_default_value = true
    )]
    model: String,
    /// How much harm the tasks may do
    #[arg(long, value_enum, default_value_t = RiskTier::Low)]
    risk_tier: RiskTier,
    /// 32 secret bytes that the salts derive from [default: made once in the state directory]
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

/// What was imported.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Summary {
    runs: u64,
    tasks: u64,
    tool_calls: u64,
    outcomes: u64,
    failures: u64,
    unanswered: u64,
    stray_results: u64,
    statements: u64,
    #[serde(flatten)]
    tally: Tally,
    elapsed_ms: u64,
}

impl Summary {
    fn add(&mut self, counts: Counts) {
        self.runs += 1;
        self.tasks += 1;
        self.tool_calls += counts.tool_calls;
        self.outcomes += counts.outcomes;
        self.failures += counts.failures;
        self.unanswered += counts.unanswered;
        self.stray_results += counts.stray_results;
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.tasks += other.tasks;
        self.tool_calls += other.tool_calls;
        self.outcomes += other.outcomes;
        self.failures += other.failures;
        self.unanswered += other.unanswered;
        self.stray_results += other.stray_results;
        self.statements += other.statements;
        self.tally += other.tally;
    }
}

/// Where receipts go, shared by the producers.
type Receipts = Option<Arc<Mutex<BufWriter<File>>>>;

impl Import {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        match self {
            Self::Chat(chat) => chat.run(global).await,
        }
    }
}

impl Chat {
    async fn run(&self, global: &Global) -> Outcome {
        let begin = Instant::now();
        // Local files first: nothing is sent if one of them is not there.
        let file = File::open(&self.file).map_err(|error| cannot("read", &self.file, error))?;
        let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let secret = match &self.secret_file {
            Some(path) => secret::read(path)?,
            None => secret::made_once(&global.state()?)?,
        };
        let receipts: Receipts = match &self.receipts {
            Some(path) => {
                let file = File::create(path).map_err(|error| cannot("write", path, error))?;
                Some(Arc::new(Mutex::new(BufWriter::new(file))))
            }
            None => None,
        };
        let ledger = global.connect().await?;
        let import = Arc::new(ChatImport {
            ledger_id: ledger.ledger_id(),
            producer: self.producer.clone(),
            secret,
            model: self.model.clone(),
            risk_tier: self.risk_tier.into(),
        });
        let bar = progress_bar(
            global,
            file_bytes,
            "{bar:30} {binary_bytes}/{binary_total_bytes}  {elapsed}, {eta} left",
        );
        let runs = Runs::read(file, usize::from(self.producers), bar.clone());
        let mut producers = JoinSet::new();
        for _ in 0..self.producers {
            let producer = Producer {
                import: Arc::clone(&import),
                runs: runs.clone(),
                receipts: receipts.clone(),
            };
            producers.spawn(producer.run(ledger.clone()));
        }
        let mut summary = Summary::default();
        let mut outcome = Ok(());
        while let Some(producer) = producers.join_next().await {
            let (part, end) = producer.map_err(|error| Failure::Unavailable(error.into()))?;
            summary.merge(part);
            outcome = outcome.and(end);
        }
        bar.finish_and_clear();
        let malformed = runs.failure();
        let flushed = ledger.flush().await.map_err(Failure::from);
        if let Some(receipts) = &receipts {
            let mut writer = receipts.lock().unwrap_or_else(PoisonError::into_inner);
            writer
                .flush()
                .map_err(|error| Failure::Usage(error.into()))?;
        }
        summary.elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        // What was done is said, however it ended.
        Output::new(global).print(&summary, text)?;
        outcome?;
        flushed?;
        malformed.map_or(Ok(()), Err)?;
        summary.tally.check()
    }
}

/// One stream of runs.
struct Producer {
    import: Arc<ChatImport>,
    runs: Runs,
    receipts: Receipts,
}

/// A request that is under way.
struct Sent {
    line: u64,
    run_id: Arc<str>,
    payloads: Vec<Bytes>,
    pending: Pending,
}

impl Producer {
    async fn run(self, ledger: Ledger) -> (Summary, Outcome) {
        let appender = ledger.appender(AppenderOptions::default());
        let (sent, answers) = mpsc::channel(64);
        let collector = tokio::spawn(collect(answers, self.receipts.clone()));
        let mut summary = Summary::default();
        let produced = self.produce(&appender, &sent, &mut summary).await;
        drop(sent);
        let collected = match collector.await {
            Ok((tally, outcome)) => {
                summary.tally = tally;
                outcome
            }
            Err(error) => Err(Failure::Unavailable(error.into())),
        };
        let finished = appender.finish().await.map_err(Failure::from);
        if collected.is_err() || finished.is_err() {
            self.runs.stop();
        }
        (summary, collected.and(finished).and(produced))
    }

    async fn produce(
        &self,
        appender: &Appender,
        sent: &mpsc::Sender<Sent>,
        summary: &mut Summary,
    ) -> Outcome {
        while let Some(NumberedRun { line, transcript }) = self.runs.next().await {
            let run = match self.import.run(&transcript) {
                Ok(run) => run,
                Err(error) => {
                    self.runs.stop();
                    return Err(Failure::usage(error.to_string()).context(format!("line {line}")));
                }
            };
            summary.add(run.counts);
            summary.statements += run.statements.len() as u64;
            let run_id: Arc<str> = transcript.run_id.into();
            let payloads: Vec<_> = run
                .statements
                .into_iter()
                .map(|made| made.payload)
                .collect();
            for payloads in requests(payloads) {
                let pending = match appender.send(payloads.clone()).await {
                    Ok(pending) => pending,
                    // The collector knows why.
                    Err(deed_client::Error::Ended) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                let request = Sent {
                    line,
                    run_id: Arc::clone(&run_id),
                    payloads,
                    pending,
                };
                if sent.send(request).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Cuts a run into requests of at most 1,024 statements and about 1 MiB.
fn requests(payloads: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    const STATEMENTS_MAX: usize = 1_024;
    const BYTES_MAX: usize = 1024 * 1024;
    let mut requests: Vec<Vec<Bytes>> = Vec::new();
    let mut bytes = 0;
    for payload in payloads {
        let full = |request: &Vec<Bytes>| request.len() >= STATEMENTS_MAX || bytes >= BYTES_MAX;
        if requests.last().is_none_or(full) {
            requests.push(Vec::new());
            bytes = 0;
        }
        bytes += payload.len();
        if let Some(request) = requests.last_mut() {
            request.push(payload);
        }
    }
    requests
}

async fn collect(mut sent: mpsc::Receiver<Sent>, receipts: Receipts) -> (Tally, Outcome) {
    let mut tally = Tally::default();
    while let Some(request) = sent.recv().await {
        let answer = match (&mut { request.pending }).await {
            Ok(answer) => answer,
            Err(error) => return (tally, Err(error.into())),
        };
        answer.items.iter().for_each(|item| tally.count(item));
        let written = match &receipts {
            Some(receipts) => write_receipts(
                receipts,
                request.line,
                &request.run_id,
                &request.payloads,
                &answer,
            ),
            None => Ok(()),
        };
        if written.is_err() {
            return (tally, written);
        }
    }
    (tally, Ok(()))
}

fn write_receipts(
    receipts: &Mutex<BufWriter<File>>,
    line: u64,
    run_id: &str,
    payloads: &[Bytes],
    answer: &Answer,
) -> Outcome {
    let mut receipts = receipts.lock().unwrap_or_else(PoisonError::into_inner);
    for (payload, item) in payloads.iter().zip(&answer.items) {
        let json = to_json(&ReceiptJson::new(line, Some(run_id), payload, item))?;
        writeln!(receipts, "{json}").map_err(|error| {
            Failure::Usage(anyhow::Error::new(error).context("cannot write the receipts"))
        })?;
    }
    Ok(())
}

fn text(summary: &Summary) -> String {
    let mut text = format!(
        "runs        {}\ntasks       {}\ntool calls  {}\noutcomes    {} ({} failed)\n\
         statements  {}\naccepted    {}\nduplicates  {}\nrejected    {}",
        summary.runs,
        summary.tasks,
        summary.tool_calls,
        summary.outcomes,
        summary.failures,
        summary.statements,
        summary.tally.accepted,
        summary.tally.duplicates,
        summary.tally.rejected
    );
    if summary.unanswered > 0 {
        text.push_str(&format!(
            "\nunanswered  {} tool calls without a result",
            summary.unanswered
        ));
    }
    if summary.stray_results > 0 {
        text.push_str(&format!(
            "\nleft out    {} results without a call",
            summary.stray_results
        ));
    }
    text
}

fn cannot(what: &str, path: &std::path::Path, error: std::io::Error) -> Failure {
    Failure::Usage(anyhow::Error::new(error).context(format!("cannot {what} {}", path.display())))
}
