//! `deed append`

use std::{
    io::{self, BufRead as _, Read as _},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use clap::Args;
use deed_client::{
    Appender, AppenderOptions, Ledger, Pending, Session,
    statement_json::{Defaults, StatementJson},
};
use deed_evidence::{LedgerId, Micros, Sequence, SessionId, statement};
use tokio::sync::mpsc;

use super::receipts::{ReceiptJson, Tally};
use crate::cli::{Failure, Global, Outcome, Output, to_json};

/// Appends statements, one JSON object a line on stdin, and prints a receipt for each, one JSON
/// object a line.
///
/// Fields have the names of deed/v1/statement.proto; byte fields are hex, enum values short names.
/// Left out, ledger_id is the ledger's, occurred_at_us is now, and session and sequence are those
/// of one fresh session that counts up (then no line may name them).
///
/// A malformed line ends the input: the lines before it are appended and keep their receipts, it
/// and the lines after it are not sent.
#[derive(Args)]
#[command(after_help = "\
Receipts: {line, status: accepted|duplicate|rejected, leaf_index, leaf_hash,
session, sequence, ...}. Any rejected one makes the exit code 3.

Example (one line each):
  {\"producer\": \"spiffe://example.org/agent\",
   \"task\": \"000102030405060708090a0b0c0d0e0f\",
   \"task_opened\": {\"objective_text\": \"refund order 7\",
                   \"requested_by\": \"order-service\", \"risk_tier\": \"payment\"}}
  {\"producer\": \"spiffe://example.org/agent\",
   \"task\": \"000102030405060708090a0b0c0d0e0f\",
   \"intent\": {\"action\": \"payments.refund\", \"resource\": \"order/7\",
              \"amount\": {\"minor_units\": 1999, \"currency\": \"EUR\"}}}

  deed append --ledger payments < statements.jsonl > receipts.jsonl")]
pub(crate) struct Append {
    /// Most statements in one request
    #[arg(long, default_value_t = 256, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Do not ask for inclusion proofs: a receipt then rests on the leaf hash and the signed head
    #[arg(long)]
    no_proofs: bool,
}

/// Longest line that is read: the longest payload as hex, with room for names and spaces.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// A request is sent once it has this many payload bytes.
const REQUEST_BYTES: usize = 1024 * 1024;

/// A request that is under way.
struct Sent {
    lines: Vec<u64>,
    payloads: Vec<Bytes>,
    pending: Pending,
}

impl Append {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        let ledger = global.connect().await?;
        let options = AppenderOptions {
            with_proofs: !self.no_proofs,
            ..AppenderOptions::default()
        };
        let appender = ledger.appender(options);
        let (sent, receipts) = mpsc::channel(1024);
        let printer = tokio::spawn(print_receipts(receipts, Output::new(global)));
        let mut batches = Batches::new(&ledger, &appender, sent, usize::from(self.batch))?;
        let input = batches.read_all(read_lines()).await;
        drop(batches);
        let tally = printer
            .await
            .map_err(|error| Failure::Unavailable(error.into()))?;
        let finished = appender.finish().await;
        // What does not verify, or could not be sent, is worse than a malformed line.
        let tally = tally?;
        finished?;
        input?;
        tally.check()
    }
}

/// Makes requests of lines.
struct Batches<'a> {
    appender: &'a Appender,
    sent: mpsc::Sender<Sent>,
    batch_max: usize,
    places: Places,
    lines: Vec<u64>,
    payloads: Vec<Bytes>,
    bytes: usize,
}

/// Where the statements' sessions and sequences come from: the first line decides.
struct Places {
    ledger_id: LedgerId,
    given: Option<bool>,
    session: SessionId,
    next: u64,
}

impl<'a> Batches<'a> {
    fn new(
        ledger: &Ledger,
        appender: &'a Appender,
        sent: mpsc::Sender<Sent>,
        batch_max: usize,
    ) -> Outcome<Self> {
        let fresh =
            Session::begin(ledger.ledger_id(), "").map_err(|error| Failure::Usage(error.into()))?;
        Ok(Self {
            appender,
            sent,
            batch_max,
            places: Places {
                ledger_id: ledger.ledger_id(),
                given: None,
                session: fresh.id(),
                next: 0,
            },
            lines: Vec::new(),
            payloads: Vec::new(),
            bytes: 0,
        })
    }

    /// Reads to the end of the input, or to the first malformed line.
    async fn read_all(&mut self, mut lines: mpsc::Receiver<io::Result<Vec<u8>>>) -> Outcome {
        let mut number = 0;
        loop {
            let line = match lines.try_recv() {
                Ok(line) => line,
                Err(_) => {
                    // Nothing more at the moment: whoever types gets the answer now.
                    self.send().await?;
                    match lines.recv().await {
                        Some(line) => line,
                        None => return Ok(()),
                    }
                }
            };
            number += 1;
            if let Err(failure) = self.take(number, line) {
                self.send().await?;
                return Err(failure.context(format!("line {number}")));
            }
            if self.payloads.len() >= self.batch_max || self.bytes >= REQUEST_BYTES {
                self.send().await?;
            }
        }
    }

    fn take(&mut self, number: u64, line: io::Result<Vec<u8>>) -> Outcome {
        let line = line.map_err(|error| Failure::Usage(error.into()))?;
        let line = String::from_utf8(line).map_err(|_| Failure::usage("not UTF-8"))?;
        if line.trim().is_empty() {
            return Ok(());
        }
        let payload = self.places.payload(&line)?;
        self.bytes += payload.len();
        self.lines.push(number);
        self.payloads.push(payload);
        Ok(())
    }

    async fn send(&mut self) -> Outcome {
        if self.payloads.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let payloads = std::mem::take(&mut self.payloads);
        let pending = match self.appender.send(payloads.clone()).await {
            Ok(pending) => pending,
            // What is under way says why; the printer reports it.
            Err(deed_client::Error::Ended) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let lines = std::mem::take(&mut self.lines);
        let sent = Sent {
            lines,
            payloads,
            pending,
        };
        // The printer ended early: it knows why.
        self.sent
            .send(sent)
            .await
            .map_err(|_| Failure::OutputClosed)
    }
}

impl Places {
    fn payload(&mut self, line: &str) -> Outcome<Bytes> {
        let malformed = |error: &dyn ToString| Failure::usage(error.to_string());
        let json = StatementJson::parse(line).map_err(|error| malformed(&error))?;
        let given = json.has_place().map_err(|error| malformed(&error))?;
        if *self.given.get_or_insert(given) != given {
            return Err(Failure::usage(
                "either all lines name session and sequence, or none does",
            ));
        }
        let defaults = Defaults {
            ledger_id: self.ledger_id,
            place: Some((self.session, Sequence::new(self.next))),
            occurred_at: now(),
        };
        let statement = json
            .into_statement(&defaults)
            .map_err(|error| malformed(&error))?;
        let payload = statement::encode(&statement).map_err(|error| malformed(&error))?;
        self.next += 1;
        Ok(payload)
    }
}

async fn print_receipts(mut sent: mpsc::Receiver<Sent>, output: Output) -> Outcome<Tally> {
    let mut tally = Tally::default();
    while let Some(request) = sent.recv().await {
        let answer = request.pending.await?;
        let statements = request.lines.iter().zip(&request.payloads);
        for ((line, payload), item) in statements.zip(&answer.items) {
            tally.count(item);
            output.line(&to_json(&ReceiptJson::new(*line, None, payload, item))?)?;
        }
    }
    Ok(tally)
}

/// Reads lines of stdin on a thread of its own: a read from a terminal cannot be given up.
fn read_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(4096);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = stdin
                .by_ref()
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut line)
                .and_then(|read| match read {
                    read if read > LINE_BYTES_MAX => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("longer than {LINE_BYTES_MAX} bytes"),
                    )),
                    read => Ok(read),
                });
            let (message, last) = match read {
                Ok(0) => return,
                Ok(_) => (Ok(line), false),
                Err(error) => (Err(error), true),
            };
            if sender.blocking_send(message).is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
