//! `deed bench append|content`

mod content;
mod payload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use deed_client::{
    Appended, Appender, AppenderOptions, Header, Ledger, Pending, Session, Signing, Verification,
    random_nonce,
};
use deed_evidence::TaskId;
use deed_proto::v1::{self, KeyRole, statement::Body};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use crate::{
    args::Global,
    author::{AuthorityArgs, OwnKey, SignMode, rejected},
    failure::{CommandResult, Failure},
    render::progress_bar,
};
use content::BenchContent;
use payload::{Payloads, Place};

#[derive(Subcommand)]
pub(crate) enum Bench {
    Append(BenchAppend),
    Content(BenchContent),
}

/// Producer of unsigned statements.
const PRODUCER_UNSIGNED: &str = "bench:append/unsigned";
/// Producer of signed statements. (The ledger's own URIs get no key.)
const PRODUCER: &str = "bench:append";
/// Producer that opens the tasks of signed statements: an agent may open none.
const PLATFORM: &str = "bench:platform";

/// The options for signing.
#[derive(Args, Clone, Serialize)]
struct BenchSigning {
    /// Way of signing. The key is made once, kept in the state directory, and registered by the
    /// authority key that is kept here or named
    #[arg(long, value_enum, default_value_t = SignMode::None, value_name = "HOW")]
    signed: SignMode,
    #[command(flatten)]
    #[serde(skip)]
    authority: AuthorityArgs,
}

impl BenchSigning {
    /// Returns the signing and the producer of the statements.
    async fn open(
        &self,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<(Signing, &'static str)> {
        self.open_as(global, ledger, "bench", KeyRole::Agent, PRODUCER)
            .await
    }

    /// Returns the signing and the producer of the TaskOpened statements.
    async fn open_platform(
        &self,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<(Signing, &'static str)> {
        let purpose = "bench-platform";
        self.open_as(global, ledger, purpose, KeyRole::Platform, PLATFORM)
            .await
    }

    async fn open_as(
        &self,
        global: &Global,
        ledger: &Ledger,
        purpose: &'static str,
        role: KeyRole,
        producer: &'static str,
    ) -> CommandResult<(Signing, &'static str)> {
        if self.signed == SignMode::None {
            return Ok((Signing::None, PRODUCER_UNSIGNED));
        }
        let key = OwnKey {
            purpose,
            role,
            producer,
            controller: None,
        };
        match key.registered(global, ledger, &self.authority).await? {
            Some(key) => Ok((self.signed.with(key), producer)),
            None => Err(Failure::usage(
                "no authority key of this ledger is kept here to register a key for the bench; \
                 name one with --authority-key",
            )),
        }
    }
}

/// Measure how fast a ledger takes statements
///
/// Each producer streams Intents of its own random session, always with as many requests in flight as
/// allowed. Answers are verified as in production, except with --no-verify. The statements stay in the
/// ledger: use a ledger made for measuring.
#[derive(Args, Clone, Serialize)]
#[command(after_help = "\
Latency is from handing a request to the stream until its answer is verified.

Examples:
  deed bench append --ledger bench --seconds 30
  deed bench append --ledger bench --producers 1 --batch 1 --in-flight 1
  deed bench append --ledger bench --seconds 30 --signed batch
  deed bench append --ledger bench --seconds 30 --no-verify --json")]
pub(crate) struct BenchAppend {
    /// Streams at the same time, each with a session of its own
    #[arg(long, default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    producers: u32,
    /// Connections that the producers share
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Statements in one request
    #[arg(long, default_value_t = 256, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Bytes of one statement
    #[arg(long, default_value_t = 256, value_name = "N",
          value_parser = clap::value_parser!(u32).range(160..=4096))]
    payload_bytes: u32,
    /// Requests in flight for each producer
    #[arg(long, default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Duration of the measurement
    #[arg(
        long,
        default_value_t = 10,
        value_name = "S",
        conflicts_with = "statements"
    )]
    seconds: u32,
    /// Measure this many statements instead
    #[arg(long, value_name = "N")]
    statements: Option<u64>,
    /// Duration of the warm-up
    #[arg(long, default_value_t = 2, value_name = "S")]
    warmup_seconds: u32,
    /// Ask for, and verify, an inclusion proof for each statement
    #[arg(long)]
    with_proofs: bool,
    /// Verify nothing, to measure what verification costs
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    #[serde(flatten)]
    signing: BenchSigning,
}

#[derive(Serialize)]
struct Measured<'a> {
    parameters: &'a BenchAppend,
    verification: bool,
    elapsed_s: f64,
    statements: u64,
    requests: u64,
    statements_per_s: f64,
    requests_per_s: f64,
    latency_us: Latency,
    rejected: u64,
    tree_size: Option<u64>,
}

#[derive(Serialize)]
struct Latency {
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
    mean: f64,
}

/// The begin and the end of the measurement.
#[derive(Clone)]
struct Window {
    from: Instant,
    /// `None` if statements are counted instead.
    until: Option<Instant>,
    /// Statements that are left to be sent within the window, if those are counted.
    left: Option<Arc<AtomicI64>>,
}

/// The results of one producer within the window.
struct Part {
    latency_us: Histogram<u64>,
    statements: u64,
    requests: u64,
    rejected: u64,
    last_answer: Option<Instant>,
    tree_size: Option<u64>,
}

/// A request that is under way.
struct Sent {
    at: Instant,
    statements: u64,
    /// True if its statements count, in a measurement of a number of statements.
    counted: bool,
    pending: Pending,
}

impl Bench {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        match self {
            Self::Append(append) => append.run(global).await,
            Self::Content(content) => content.run(global).await,
        }
    }
}

async fn connect(global: &Global, no_verify: bool) -> CommandResult<Ledger> {
    let mut options = global.options(global.ledger_name()?)?;
    if no_verify {
        options = options.verification(Verification::Off);
    }
    Ok(Ledger::connect(options).await?)
}

impl BenchAppend {
    async fn run(&self, global: &Global) -> CommandResult {
        let mut ledgers = vec![connect(global, self.no_verify).await?];
        let agent = self.signing.open(global, &ledgers[0]).await?;
        for _ in 1..self.connections.min(self.producers) {
            ledgers.push(ledgers[0].connect_again().await?);
        }
        let platform = self.signing.open_platform(global, &ledgers[0]).await?;
        let mut sessions = Vec::with_capacity(self.producers as usize);
        for _ in 0..self.producers {
            sessions.push(open_task(&ledgers[0], &agent, &platform).await?);
        }
        let (signing, producer) = agent;
        // The measurement starts after the tasks are open.
        let from = Instant::now() + Duration::from_secs(self.warmup_seconds.into());
        let window = Window {
            from,
            until: match self.statements {
                None => Some(from + Duration::from_secs(self.seconds.into())),
                Some(_) => None,
            },
            left: self.statements.map(|statements| {
                Arc::new(AtomicI64::new(
                    i64::try_from(statements).unwrap_or(i64::MAX),
                ))
            }),
        };
        let bar = self.show_progress(global);
        let mut producers = JoinSet::new();
        for (ledger, place) in ledgers.iter().cycle().zip(sessions) {
            let size = self.payload_bytes as usize;
            let payloads = Payloads::new(ledger.ledger_id(), producer, place, size)
                .map_err(|error| Failure::Usage(error.into()))?;
            producers.spawn(produce(
                ledger.clone(),
                payloads,
                self.clone(),
                window.clone(),
                signing.clone(),
            ));
        }
        let total = Part::sum(producers).await;
        bar.abort();
        let total = total?;
        let elapsed = match (window.until, total.last_answer) {
            (Some(until), _) => until - window.from,
            (None, Some(last)) => last.saturating_duration_since(window.from),
            (None, None) => Duration::ZERO,
        };
        self.report(global, &total, elapsed)
    }

    /// Shows a spinner with the elapsed time.
    fn show_progress(&self, global: &Global) -> JoinHandle<()> {
        let seconds = u64::from(self.warmup_seconds + self.seconds);
        let template = "{spinner} measuring, {elapsed} of {len} s";
        let bar = progress_bar(global.json, seconds, template);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                bar.tick();
            }
        })
    }

    fn report(&self, global: &Global, total: &Part, elapsed: Duration) -> CommandResult {
        let elapsed_s = elapsed.as_secs_f64();
        let per_second = |count: u64| {
            if elapsed_s > 0.0 {
                count as f64 / elapsed_s
            } else {
                0.0
            }
        };
        let json = Measured {
            parameters: self,
            verification: !self.no_verify,
            elapsed_s,
            statements: total.statements,
            requests: total.requests,
            statements_per_s: per_second(total.statements),
            requests_per_s: per_second(total.requests),
            latency_us: Latency::of(&total.latency_us),
            rejected: total.rejected,
            tree_size: total.tree_size,
        };
        let printed = global.output().print(&json, text);
        total.check()?;
        printed
    }
}

impl Latency {
    fn of(latency_us: &Histogram<u64>) -> Self {
        Self {
            p50: latency_us.value_at_quantile(0.5),
            p90: latency_us.value_at_quantile(0.9),
            p99: latency_us.value_at_quantile(0.99),
            p99_9: latency_us.value_at_quantile(0.999),
            max: latency_us.max(),
            mean: latency_us.mean(),
        }
    }

    fn text(&self) -> String {
        format!(
            "latency p50    {} us\nlatency p90    {} us\nlatency p99    {} us\n\
             latency p99.9  {} us\nlatency max    {} us",
            self.p50, self.p90, self.p99, self.p99_9, self.max
        )
    }
}

/// Begins a session, and has `platform` open the task that its Intents are of, so that they are cleared
/// and not denied. (Where statements are signed, an agent opens no task.)
async fn open_task(
    ledger: &Ledger,
    (signing, producer): &(Signing, &str),
    (platform_signing, platform): &(Signing, &str),
) -> CommandResult<Place> {
    let mut opening = begin(ledger, platform)?;
    let task_nonce = random_nonce().map_err(|error| Failure::Usage(error.into()))?;
    let task = opening.task_id(&task_nonce);
    let opened = v1::TaskOpened {
        objective: None,
        requested_by: "deed:bench".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        deadline_us: 0,
        nonce: Bytes::copy_from_slice(task_nonce.as_bytes()),
    };
    let opened = Body::TaskOpened(opened);
    say(ledger, &mut opening, platform_signing, task, opened).await?;
    let mut session = begin(ledger, producer)?;
    let alive = Body::Heartbeat(v1::Heartbeat {
        last_sequence: 0,
        count: 1,
        next_within_us: 0,
    });
    say(ledger, &mut session, signing, task, alive).await?;
    Ok(Place {
        session: session.id(),
        next: session.next(),
        task,
        task_nonce,
    })
}

fn begin(ledger: &Ledger, producer: &str) -> CommandResult<Session> {
    Session::begin(ledger.ledger_id(), producer).map_err(|error| Failure::Usage(error.into()))
}

async fn say(
    ledger: &Ledger,
    session: &mut Session,
    signing: &Signing,
    task: TaskId,
    body: Body,
) -> CommandResult {
    let header = Header {
        task: Some(task),
        ..Header::default()
    };
    let made = session
        .make(&header, body)
        .map_err(|error| Failure::Usage(error.into()))?;
    let answer = ledger.append_signed(&[made.into()], signing).await?;
    match answer.items.first() {
        Some(Appended::Rejected(rejection)) => Err(rejected(rejection)),
        _ => Ok(()),
    }
}

async fn produce(
    ledger: Ledger,
    mut payloads: Payloads,
    parameters: BenchAppend,
    window: Window,
    signing: Signing,
) -> CommandResult<Part> {
    let in_flight = parameters.in_flight as usize;
    let appender = ledger.appender(AppenderOptions {
        requests_in_flight_max: in_flight,
        // Bounded by requests alone.
        bytes_in_flight_max: usize::MAX,
        with_proofs: parameters.with_proofs,
        signing,
        ..AppenderOptions::default()
    });
    let (sent, answers) = mpsc::channel(in_flight);
    let collector = tokio::spawn(collect(answers, window.clone()));
    let sending = send_all(&appender, &mut payloads, &parameters, &window, &sent).await;
    drop(sent);
    finish(collector, appender, sending).await
}

/// Waits for the answers of a stream. The first answer that failed tells most, so it is returned first.
async fn finish(
    collector: JoinHandle<CommandResult<Part>>,
    appender: Appender,
    sending: CommandResult,
) -> CommandResult<Part> {
    let part = collector
        .await
        .map_err(|error| Failure::Unavailable(error.into()))?;
    let finished = appender.finish().await;
    let part = part?;
    finished?;
    sending?;
    Ok(part)
}

async fn send_all(
    appender: &Appender,
    payloads: &mut Payloads,
    parameters: &BenchAppend,
    window: &Window,
    sent: &mpsc::Sender<Sent>,
) -> CommandResult {
    loop {
        let now = Instant::now();
        let mut batch = u64::from(parameters.batch);
        let counted = window.left.is_some() && now >= window.from;
        if window.until.is_some_and(|until| now >= until) {
            return Ok(());
        }
        if let Some(left) = window.left.as_ref().filter(|_| counted) {
            let wanted = i64::try_from(batch).unwrap_or(i64::MAX);
            let left = left.fetch_sub(wanted, Ordering::Relaxed);
            if left <= 0 {
                return Ok(());
            }
            batch = u64::try_from(left.min(wanted)).unwrap_or(0);
        }
        let statements = payloads.next_batch(batch);
        let pending = match appender.send(statements).await {
            Ok(pending) => pending,
            Err(deed_client::Error::Ended) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // The request is under way now.
        let request = Sent {
            at: Instant::now(),
            statements: batch,
            counted,
            pending,
        };
        if sent.send(request).await.is_err() {
            return Ok(());
        }
    }
}

async fn collect(mut sent: mpsc::Receiver<Sent>, window: Window) -> CommandResult<Part> {
    let mut part = Part::new()?;
    while let Some(request) = sent.recv().await {
        let answer = request.pending.await?;
        let now = Instant::now();
        part.tree_size = answer.head.map(|head| head.size.get()).or(part.tree_size);
        let rejected = answer
            .items
            .iter()
            .filter(|item| item.receipt().is_none())
            .count();
        part.rejected += rejected as u64;
        // With a time window, requests count whose answers came within it.
        let measured = match window.until {
            Some(until) => (window.from..until).contains(&now),
            None => request.counted,
        };
        if !measured {
            continue;
        }
        let latency_us = u64::try_from((now - request.at).as_micros()).unwrap_or(u64::MAX);
        part.latency_us.saturating_record(latency_us);
        part.statements += request.statements;
        part.requests += 1;
        part.last_answer = Some(now);
    }
    Ok(part)
}

impl Part {
    fn new() -> CommandResult<Self> {
        Ok(Self {
            // 1 us to 10 minutes, three significant digits.
            latency_us: Histogram::new_with_bounds(1, 600_000_000, 3)
                .map_err(|error| Failure::Usage(error.into()))?,
            statements: 0,
            requests: 0,
            rejected: 0,
            last_answer: None,
            tree_size: None,
        })
    }

    /// Adds up the results of all streams; fails with the first failure of one.
    async fn sum(mut streams: JoinSet<CommandResult<Self>>) -> CommandResult<Self> {
        let (mut total, mut outcome) = (Self::new()?, Ok(()));
        while let Some(part) = streams.join_next().await {
            match part.map_err(|error| Failure::Unavailable(error.into()))? {
                Ok(part) => total.add(part)?,
                Err(failure) => outcome = outcome.and(Err(failure)),
            }
        }
        outcome.map(|()| total)
    }

    fn add(&mut self, other: Self) -> CommandResult {
        self.latency_us
            .add(&other.latency_us)
            .map_err(|error| Failure::Usage(error.into()))?;
        self.statements += other.statements;
        self.requests += other.requests;
        self.rejected += other.rejected;
        self.last_answer = self.last_answer.max(other.last_answer);
        self.tree_size = self.tree_size.max(other.tree_size);
        Ok(())
    }

    /// Fails if statements were rejected: the figures are worth nothing then.
    fn check(&self) -> CommandResult {
        match self.rejected {
            0 => Ok(()),
            rejected => Err(Failure::Unavailable(anyhow::anyhow!(
                "{rejected} statements were rejected"
            ))),
        }
    }
}

fn text(measured: &Measured<'_>) -> String {
    let verification = if measured.verification { "on" } else { "off" };
    format!(
        "statements/s   {:.0}\nrequests/s     {:.0}\n{}\nstatements     {} in {:.2} s\n\
         verification   {verification}\nrejected       {}",
        measured.statements_per_s,
        measured.requests_per_s,
        measured.latency_us.text(),
        measured.statements,
        measured.elapsed_s,
        measured.rejected
    )
}
