//! `deed bench content`

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use deed_client::{
    Appender, AppenderOptions, CONTENT_INLINE_BYTES_MAX, Header, Ledger, Pending, Session, Signing,
    Statement, random_nonce,
};
use deed_evidence::{
    CommitmentDigest, TaskId,
    commitment::{Salt, digest_of},
};
use deed_proto::v1::{self, statement::Body};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};

use super::{BenchSigning, Latency, Part, connect, finish};
use crate::{
    args::{Global, now},
    failure::{CommandResult, Failure},
    render::progress_bar,
};

/// A request takes contents up to this many bytes.
const REQUEST_BYTES: usize = 1024 * 1024;
/// Requests of one stream without an answer.
const IN_FLIGHT: usize = 8;
const MIB: f64 = (1024 * 1024) as f64;

/// Measure how fast a ledger takes contents
///
/// Each content is committed to by an Intent of its own. Those of up to 64 KiB travel with their
/// statements, about 1 MiB in a request; longer ones are put first, one at a time in each stream.
/// Answers are verified as in production, except with --no-verify. The contents stay beside the ledger:
/// use a ledger made for measuring.
#[derive(Args, Clone, Serialize)]
#[command(after_help = "\
Latency is from the first byte of a content's request until the receipt of its
statement is verified.

Examples:
  deed bench content --ledger bench --size 8KiB --count 20000
  deed bench content --ledger bench --size 1MiB --count 500 \\
       --signed batch --json")]
pub(crate) struct BenchContent {
    /// Bytes of one content: a number, or one with KiB or MiB (16 bytes to 64 MiB)
    #[arg(long, default_value = "8KiB", value_name = "SIZE", value_parser = size)]
    size: u64,
    /// Number of contents
    #[arg(long, default_value_t = 10_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Streams at the same time, each with a session of its own
    #[arg(long, default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    streams: u32,
    /// Verify nothing, to measure what verification costs
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    #[serde(flatten)]
    signing: BenchSigning,
}

#[derive(Serialize)]
struct Measured<'a> {
    parameters: &'a BenchContent,
    verification: bool,
    elapsed_s: f64,
    contents: u64,
    contents_per_s: f64,
    mib_per_s: f64,
    latency_us: Latency,
    rejected: u64,
    tree_size: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1024), ("MiB", 1024 * 1024)];
    let unit = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let bytes = number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| (16..=64 * 1024 * 1024).contains(bytes))
        .ok_or_else(|| "16 to 67108864 bytes, for example 512, 8KiB or 1MiB".to_owned())
}

impl BenchContent {
    pub(super) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = connect(global, self.no_verify).await?;
        let (signing, producer) = self.signing.open(global, &ledger).await?;
        let bar = progress_bar(
            global.json,
            self.count,
            "{bar:30} {pos}/{len}  {elapsed}, {eta} left",
        );
        let left = Arc::new(AtomicU64::new(self.count));
        let begin = Instant::now();
        let mut streams = JoinSet::new();
        for _ in 0..self.streams {
            let maker = Maker::new(&ledger, producer, self.size, Arc::clone(&left))?;
            streams.spawn(produce(ledger.clone(), maker, signing.clone(), bar.clone()));
        }
        let total = Part::sum(streams).await;
        bar.finish_and_clear();
        let total = total?;
        let last = total.last_answer.unwrap_or(begin);
        self.report(global, &total, last.saturating_duration_since(begin))
    }

    fn report(&self, global: &Global, total: &Part, elapsed: Duration) -> CommandResult {
        let elapsed_s = elapsed.as_secs_f64();
        let contents_per_s = total.statements as f64 / elapsed_s.max(f64::MIN_POSITIVE);
        let json = Measured {
            parameters: self,
            verification: !self.no_verify,
            elapsed_s,
            contents: total.statements,
            contents_per_s,
            mib_per_s: contents_per_s * self.size as f64 / MIB,
            latency_us: Latency::of(&total.latency_us),
            rejected: total.rejected,
            tree_size: total.tree_size,
        };
        let printed = global.output().print(&json, text);
        total.check()?;
        printed
    }
}

/// Makes one session's contents and statements.
struct Maker {
    session: Session,
    task: TaskId,
    secret: [u8; 32],
    /// The source of the contents: random bytes, so that nothing can be compressed.
    pattern: Vec<u8>,
    /// Contents that are left, of all streams.
    left: Arc<AtomicU64>,
}

/// A content that is committed to, and its statement.
struct Made {
    statement: Bytes,
    digest: CommitmentDigest,
    salt: Salt,
    content: Bytes,
}

impl Maker {
    fn new(
        ledger: &Ledger,
        producer: &str,
        size: u64,
        left: Arc<AtomicU64>,
    ) -> CommandResult<Self> {
        let unstarted = |error: deed_client::RandomError| Failure::Usage(error.into());
        let session = Session::begin(ledger.ledger_id(), producer).map_err(unstarted)?;
        let task = session.task_id(&random_nonce().map_err(unstarted)?);
        let no_random = |error: getrandom::Error| Failure::usage(error.to_string());
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(no_random)?;
        let size = usize::try_from(size).map_err(|error| Failure::Usage(error.into()))?;
        let mut pattern = vec![0; size];
        blake3::Hasher::new_keyed(&secret)
            .finalize_xof()
            .fill(&mut pattern);
        Ok(Self {
            task,
            session,
            secret,
            pattern,
            left,
        })
    }

    /// The next contents, up to a request's bytes; a long one alone.
    fn next(&mut self) -> CommandResult<Vec<Made>> {
        let wanted = match self.pattern.len() {
            bytes if bytes > CONTENT_INLINE_BYTES_MAX => 1,
            bytes => (REQUEST_BYTES / bytes) as u64,
        };
        // A request has 4,096 items at most, and one of them may be a manifest.
        let wanted = wanted.min(4_000);
        let take = |left: u64| Some(left.saturating_sub(wanted));
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let count = left.unwrap_or(0).min(wanted);
        (0..count).map(|_| self.make()).collect()
    }

    fn make(&mut self) -> CommandResult<Made> {
        let sequence = self.session.next();
        let mut content = self.pattern.clone();
        // The first bytes make every content different.
        if let Some(begin) = content.get_mut(..8) {
            begin.copy_from_slice(&sequence.get().to_be_bytes());
        }
        let salt = Salt::derive(
            &self.secret,
            self.session.id(),
            sequence,
            "intent.arguments",
        );
        let digest = digest_of(&salt, &content);
        let header = Header {
            task: Some(self.task),
            occurred_at: now(),
            ..Header::default()
        };
        let intent = v1::Intent {
            action: "bench.content".to_owned(),
            resource: "bench:content".to_owned(),
            arguments: Some(v1::Commitment {
                digest: Bytes::copy_from_slice(digest.as_bytes()),
                media_type: "application/octet-stream".to_owned(),
            }),
            ..v1::Intent::default()
        };
        let made = self.session.make(&header, Body::Intent(intent));
        Ok(Made {
            statement: made
                .map_err(|error| Failure::usage(error.to_string()))?
                .payload,
            digest,
            salt,
            content: content.into(),
        })
    }
}

/// A request that is under way.
struct Sent {
    at: Instant,
    contents: u64,
    pending: Pending,
}

async fn produce(
    ledger: Ledger,
    mut maker: Maker,
    signing: Signing,
    bar: ProgressBar,
) -> CommandResult<Part> {
    let appender = ledger.appender(AppenderOptions {
        requests_in_flight_max: IN_FLIGHT,
        with_proofs: false,
        signing,
        ..AppenderOptions::default()
    });
    let (sent, answers) = mpsc::channel(IN_FLIGHT);
    let collector = tokio::spawn(collect(answers, bar));
    let sending = send_all(&ledger, &appender, &mut maker, &sent).await;
    drop(sent);
    finish(collector, appender, sending).await
}

async fn send_all(
    ledger: &Ledger,
    appender: &Appender,
    maker: &mut Maker,
    sent: &mpsc::Sender<Sent>,
) -> CommandResult {
    loop {
        let made = maker.next()?;
        if made.is_empty() {
            return Ok(());
        }
        let (at, contents) = (Instant::now(), made.len() as u64);
        let mut statements = Vec::with_capacity(made.len());
        for made in made {
            let mut statement = Statement::from(made.statement);
            if made.content.len() <= CONTENT_INLINE_BYTES_MAX {
                statement.attachments.push(v1::Attachment {
                    salt: Bytes::copy_from_slice(made.salt.as_bytes()),
                    content: made.content,
                });
            } else {
                let contents = ledger.contents();
                contents
                    .put_bytes(made.digest, &made.salt, made.content)
                    .await?;
            }
            statements.push(statement);
        }
        let pending = match appender.send(statements).await {
            Ok(pending) => pending,
            Err(deed_client::Error::Ended) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let request = Sent {
            at,
            contents,
            pending,
        };
        if sent.send(request).await.is_err() {
            return Ok(());
        }
    }
}

async fn collect(mut sent: mpsc::Receiver<Sent>, bar: ProgressBar) -> CommandResult<Part> {
    let mut part = Part::new()?;
    while let Some(request) = sent.recv().await {
        let answer = request.pending.await?;
        let now = Instant::now();
        part.tree_size = answer.head.map(|head| head.size.get()).or(part.tree_size);
        let recorded = answer.items.iter().filter(|item| item.receipt().is_some());
        let recorded = recorded.count() as u64;
        part.rejected += request.contents.saturating_sub(recorded);
        let latency_us = u64::try_from((now - request.at).as_micros()).unwrap_or(u64::MAX);
        part.latency_us
            .saturating_record_n(latency_us, request.contents);
        part.statements += recorded;
        part.requests += 1;
        part.last_answer = Some(now);
        bar.inc(request.contents);
    }
    Ok(part)
}

fn text(measured: &Measured<'_>) -> String {
    let verification = if measured.verification { "on" } else { "off" };
    format!(
        "contents/s     {:.0}\nMiB/s          {:.1}\n{}\ncontents       {} in {:.2} s\n\
         verification   {verification}\nrejected       {}",
        measured.contents_per_s,
        measured.mib_per_s,
        measured.latency_us.text(),
        measured.contents,
        measured.elapsed_s,
        measured.rejected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("16", 16),
            ("8KiB", 8_192),
            ("1 MiB", 1 << 20),
            ("64MiB", 64 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in [
            "",
            "15",
            "KiB",
            "-1",
            "1.5KiB",
            "65MiB",
            "8KB",
            "99999999999999999999MiB",
        ] {
            size(text).unwrap_err();
        }
    }
}
