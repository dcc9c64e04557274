//! `deed import chat`

mod reader;
mod receipt_file;

use std::{fs::File, path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use deed_client::{
    Appender, AppenderOptions, Ledger, Pending,
    chat::{Counts, Import as ChatImport},
};
use deed_proto::v1;
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};

use super::{receipts::Tally, secret};
use crate::cli::{Failure, Global, Outcome, Output, progress_bar, tell};
use reader::{NumberedRun, Runs};
use receipt_file::ReceiptFile;

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
    /// Write a receipt for each statement to this file, one JSON object a line. What is there is
    /// replaced at the end. If the import fails or is interrupted (Ctrl-C), it is replaced by the
    /// receipts that came until then, and left alone if there are none
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
type Receipts = Option<Arc<ReceiptFile>>;

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
        let file = File::open(&self.file).map_err(|error| {
            let what = format!("cannot read {}", self.file.display());
            Failure::Usage(anyhow::Error::new(error).context(what))
        })?;
        let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let secret = match &self.secret_file {
            Some(path) => secret::read(path)?,
            None => secret::made_once(&global.state()?)?,
        };
        let ledger = global.connect().await?;
        let receipts: Receipts = match &self.receipts {
            Some(path) => Some(Arc::new(ReceiptFile::create(path)?)),
            None => None,
        };
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
        let (mut summary, outcome, interrupts) = wait_for(producers, &runs).await?;
        bar.finish_and_clear();
        let malformed = runs.failure();
        let flushed = match interrupts {
            0 | 1 => ledger.flush().await.map_err(Failure::from),
            // Whoever asks twice does not wait for it. The next command proves it.
            _ => Ok(()),
        };
        let at_the_end = outcome.is_ok() && malformed.is_none() && interrupts == 0;
        let kept = receipts.map_or(Ok(()), |receipts| receipts.keep(at_the_end));
        summary.elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        // What was done is said, however it ended; that nobody reads it does not hide how. Whoever
        // asked twice to end it has cut off the counts too.
        let printed = match interrupts {
            0 | 1 => Output::new(global).print(&summary, text),
            _ => Ok(()),
        };
        outcome?;
        flushed?;
        malformed.map_or(Ok(()), Err)?;
        kept?;
        if interrupts > 0 {
            return Err(Failure::Unavailable(anyhow::Error::msg(
                "interrupted; import the file again for the rest",
            )));
        }
        summary.tally.check()?;
        printed
    }
}

/// Waits for the producers. The first interrupt lets them finish the runs that they are at, the
/// second does not; how many there were is returned too.
async fn wait_for(
    mut producers: JoinSet<(Summary, Outcome)>,
    runs: &Runs,
) -> Outcome<(Summary, Outcome, u32)> {
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
            // Only after a second interrupt, which is failure enough.
            Some(Err(error)) if error.is_cancelled() => {}
            Some(Err(error)) => {
                runs.stop();
                outcome = outcome.and(Err(Failure::Unavailable(error.into())));
            }
            None if producers.is_empty() => return Ok((summary, outcome, interrupts)),
            None => {
                runs.stop();
                match interrupts {
                    1 => tell("stopping; once more to give up what is under way"),
                    _ => producers.abort_all(),
                }
            }
        }
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
            Some(receipts) => {
                receipts.write(request.line, &request.run_id, &request.payloads, &answer)
            }
            None => Ok(()),
        };
        if written.is_err() {
            return (tally, written);
        }
    }
    (tally, Ok(()))
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
