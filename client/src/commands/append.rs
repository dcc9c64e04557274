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
/// and the lines after it are not sent. So does a server that fails or refuses, and an output that
/// nobody reads any more.
#[derive(Args)]
#[command(after_help = "\
Receipts: {line, status: accepted|duplicate|rejected, leaf_index, leaf_hash,
session, sequence, ...}. Any rejected one makes the exit code 3, and so does a
receipt that nobody reads.

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

/// Longest line that is read: the longest payload (60,000 bytes) as hex, and as much again for
/// names, spaces and escapes.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// Lines that are read ahead: at most 64 MiB.
const LINES_AHEAD: usize = 256;
/// Requests whose receipts are not printed yet: of about 1 MiB at most.
const REQUESTS_UNPRINTED: usize = 64;
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
        let (sent, receipts) = mpsc::channel(REQUESTS_UNPRINTED);
        let printer = tokio::spawn(print_receipts(receipts, Output::new(global)));
        let mut batches = Batches::new(&ledger, &appender, sent, usize::from(self.batch))?;
        let input = batches.read_all(read_lines()).await;
        let last_sent = batches.last_sent;
        drop(batches);
        let printed = printer
            .await
            .map_err(|error| Failure::Unavailable(error.into()))?;
        let finished = appender.finish().await.map_err(Failure::from);
        outcome(printed, finished, input, last_sent)
    }
}

/// What it all comes to: the worst that happened.
fn outcome(
    printed: Printed,
    finished: Outcome,
    input: Result<(), Stopped>,
    last_sent: u64,
) -> Outcome {
    // What does not verify, or could not be sent, is worse than a malformed line.
    printed.answered?;
    finished?;
    if let Err(Stopped::Input(failure)) = input {
        return Err(failure);
    }
    match printed.written {
        // Statements whose receipts nobody has are no success.
        Err(Failure::OutputClosed) => {
            let nobody = format!("nobody reads the receipts; stopped after line {last_sent}");
            return Err(Failure::Unavailable(anyhow::Error::msg(nobody)));
        }
        written => written?,
    }
    if let Err(Stopped::Ended) = input {
        return Err(deed_client::Error::Ended.into());
    }
    printed.tally.check()
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
    /// The last line that was handed over; 0 if none was.
    last_sent: u64,
}

/// Why reading stopped before the end of the input.
#[derive(Debug)]
enum Stopped {
    /// The input is not right, or no request can be made of it.
    Input(Failure),
    /// Appending or printing has ended; the printer or the appender says why.
    Ended,
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
            last_sent: 0,
        })
    }

    /// Reads to the end of the input, to the first malformed line, or until something ends.
    async fn read_all(
        &mut self,
        mut lines: mpsc::Receiver<io::Result<Vec<u8>>>,
    ) -> Result<(), Stopped> {
        let mut number = 0;
        loop {
            let line = match lines.try_recv() {
                Ok(line) => line,
                Err(_) => {
                    // Nothing more at the moment: whoever types gets the answer now.
                    self.send().await?;
                    // Meanwhile all may end: the pipe need not say anything ever again.
                    let line = tokio::select! {
                        () = self.sent.closed() => return Err(Stopped::Ended),
                        line = lines.recv() => line,
                    };
                    match line {
                        Some(line) => line,
                        None => return Ok(()),
                    }
                }
            };
            number += 1;
            if let Err(failure) = self.take(number, line) {
                self.send().await?;
                let failure = failure.context(format!("line {number}"));
                return Err(Stopped::Input(failure));
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

    async fn send(&mut self) -> Result<(), Stopped> {
        if self.payloads.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        // The place at the printer first: what is sent is also counted, if not printed.
        let place = self.sent.reserve().await.map_err(|_| Stopped::Ended)?;
        let payloads = std::mem::take(&mut self.payloads);
        let pending = match self.appender.send(payloads.clone()).await {
            Ok(pending) => pending,
            Err(deed_client::Error::Ended) => return Err(Stopped::Ended),
            Err(error) => return Err(Stopped::Input(error.into())),
        };
        let lines = std::mem::take(&mut self.lines);
        self.last_sent = lines.last().copied().unwrap_or(self.last_sent);
        place.send(Sent {
            lines,
            payloads,
            pending,
        });
        Ok(())
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

/// What became of the requests.
#[derive(Debug)]
struct Printed {
    tally: Tally,
    /// Why a request has no answer, if one has none.
    answered: Outcome,
    /// Why a receipt is not printed, if one is not.
    written: Outcome,
}

/// Prints the receipts. Once a request fails, or a receipt cannot be printed, no further request
/// is taken; those that were are still awaited and counted.
async fn print_receipts(mut sent: mpsc::Receiver<Sent>, output: Output) -> Printed {
    let mut printed = Printed {
        tally: Tally::default(),
        answered: Ok(()),
        written: Ok(()),
    };
    while let Some(request) = sent.recv().await {
        let answer = match request.pending.await {
            Ok(answer) => answer,
            Err(error) => {
                sent.close();
                // The first says most.
                printed.answered = printed.answered.and(Err(error.into()));
                continue;
            }
        };
        let statements = request.lines.iter().zip(&request.payloads);
        for ((line, payload), item) in statements.zip(&answer.items) {
            printed.tally.count(item);
            if printed.written.is_ok() {
                let receipt = to_json(&ReceiptJson::new(*line, None, payload, item));
                printed.written = receipt.and_then(|receipt| output.line(&receipt));
            }
        }
        if printed.written.is_err() {
            sent.close();
        }
    }
    printed
}

/// Reads lines of stdin on a thread of its own: a read from a terminal cannot be given up.
fn read_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn end(
        answered: Outcome,
        written: Outcome,
        finished: Outcome,
        input: Result<(), Stopped>,
        rejected: u64,
    ) -> Outcome {
        let tally = Tally {
            rejected,
            ..Tally::default()
        };
        let printed = Printed {
            tally,
            answered,
            written,
        };
        outcome(printed, finished, input, 7)
    }

    #[test]
    fn the_worst_is_reported() {
        let forked = || Err(Failure::does_not_verify("forked"));
        let malformed = || Err(Stopped::Input(Failure::usage("malformed")));
        let closed = || Err(Failure::OutputClosed);
        let ended = || Err(Stopped::Ended);
        assert!(end(Ok(()), Ok(()), Ok(()), Ok(()), 0).is_ok());
        for (found, wanted) in [
            (end(forked(), closed(), Ok(()), malformed(), 1), "forked"),
            (end(Ok(()), closed(), forked(), malformed(), 1), "forked"),
            (end(Ok(()), closed(), Ok(()), malformed(), 1), "malformed"),
            (end(Ok(()), closed(), Ok(()), ended(), 1), "after line 7"),
            (end(Ok(()), closed(), Ok(()), Ok(()), 0), "after line 7"),
            (end(Ok(()), Ok(()), Ok(()), ended(), 1), "has ended"),
            (end(Ok(()), Ok(()), Ok(()), Ok(()), 1), "1 statements were"),
        ] {
            let found = format!("{:?}", found.unwrap_err());
            assert!(found.contains(wanted), "{wanted} in {found}");
        }
    }
}
