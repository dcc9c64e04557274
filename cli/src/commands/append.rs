//! `deed append`

mod kept;
mod lines;
mod maker;
mod printer;
mod requests;

use clap::Args;
use deed_client::AppenderOptions;
use deed_evidence::Sequence;
use tokio::sync::mpsc;

use crate::{
    args::Global,
    author::SignArgs,
    failure::{CommandResult, Failure},
};
use kept::Kept;
use lines::read_lines;
use maker::Maker;
use printer::{Printed, print_receipts};
use requests::{Requests, Stopped};

/// Append statements, and print a receipt for each
///
/// Reads one JSON object a line from stdin, and prints one JSON object a line.
///
/// Fields have the names of deed/v1/statement.proto; byte fields are hex, enum values short names.
/// ledger_id defaults to the ledger's, and occurred_at_us to the current time. session and sequence
/// default to those of one session that counts up: a new one, or the one that --session names (then no
/// line may name them). Each statement names the digest of the one before it. A task that is opened
/// without an id gets one, and later lines without a task belong to it.
///
/// In place of a commitment ({"digest": ..., "media_type": ...}) a line may give the content
/// itself, as {"text": ..., "media_type": ...} or {"file": ..., "media_type": ...}. The statement then
/// commits to it with a salt of its own, and the server keeps it beside the ledger, encrypted. A content
/// of up to 64 KiB travels with the statement; a longer one is put before it.
///
/// With --key the statements are signed. Statements that wait at the same time get one signature (a
/// batch, which is recorded as a whole or not at all); no statement waits for others to come.
///
/// A malformed line ends the input: the lines before it are appended and keep their receipts; it
/// and the lines after it are not sent. A server that fails or refuses, and a closed stdout, end it too.
///
/// With --session every statement is on disk before it is sent, and stays there until its receipt is
/// printed. After a crash the same command sends the rest again, as the same bytes: the ledger answers
/// "duplicate" for what it has, so nothing is recorded twice. Receipts of lines that an earlier process
/// read have no line number. The command stops at the first rejected statement. No other statement is
/// ever sent in the place of one that was sent: the session continues after it, and declares the gap
/// (skipped_from).
#[derive(Args)]
#[command(after_help = "\
Receipts: {line, status: accepted|duplicate|rejected, leaf_index, leaf_hash,
session, sequence, ...}, of a signed batch also manifest_leaf, where the
signature is. The exit code is 3 if a statement was rejected, or if stdout was
closed before the last receipt.

Example (one line each):
  {\"producer\": \"spiffe://example.org/agent\",
   \"task_opened\": {\"objective_text\": \"refund order 7\",
                   \"requested_by\": \"order-service\", \"risk_tier\": \"payment\"}}
  {\"producer\": \"spiffe://example.org/agent\",
   \"intent\": {\"action\": \"payments.refund\", \"resource\": \"order/7\",
              \"amount\": {\"minor_units\": 1999, \"currency\": \"EUR\"}}}

  deed append --ledger payments < statements.jsonl > receipts.jsonl
  deed append --key agent.pem --session refunds < statements.jsonl")]
pub(crate) struct Append {
    /// Largest number of statements in one request
    #[arg(long, default_value_t = 256, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Do not ask for inclusion proofs; receipts are then checked against leaf hash and signed head only
    #[arg(long)]
    no_proofs: bool,
    #[command(flatten)]
    signing: SignArgs,
    /// Continue the session with this name, kept in the state directory, or begin it. A session belongs
    /// to one producer and one way of signing
    #[arg(long, value_name = "NAME",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    session: Option<String>,
}

/// Requests whose receipts are not printed yet: of about 1 MiB at most.
const REQUESTS_UNPRINTED: usize = 64;

impl Append {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let signing = self.signing.signing()?;
        let state = global.state()?;
        let ledger = global.connect().await?;
        let (kept, left) = match &self.session {
            Some(name) => {
                let (state, signing) = (state.clone(), signing.clone());
                let found =
                    tokio::task::block_in_place(|| Kept::find(state, &ledger, name, signing));
                let (kept, left) = found?;
                (Some(kept), left)
            }
            None => (None, Vec::new()),
        };
        let is_batch = signing.is_batch();
        let appender = ledger.appender(AppenderOptions {
            with_proofs: !self.no_proofs,
            signing,
            ..AppenderOptions::default()
        });
        let (sent, receipts) = mpsc::channel(REQUESTS_UNPRINTED);
        let printer = print_receipts(receipts, kept.clone(), global.output());
        let printer = tokio::spawn(printer);
        let maker = Maker::new(ledger.clone(), state, kept.clone());
        let batch_max = usize::from(self.batch);
        let mut requests = Requests::new(&appender, sent, batch_max, is_batch, maker, kept.clone());
        let input = match requests.send_again(left).await {
            Ok(()) => requests.read_all(read_lines()).await,
            ended => ended,
        };
        let last_sent = requests.last_sent;
        drop(requests);
        let printed = printer
            .await
            .map_err(|error| Failure::Unavailable(error.into()))?;
        let finished = appender.finish().await.map_err(Failure::from);
        let set_back = kept.and_then(|kept| kept.set_back_to());
        outcome(printed, finished, input, last_sent, set_back)
    }
}

/// Returns the result of the command: the worst of what happened.
fn outcome(
    printed: Printed,
    finished: CommandResult,
    input: Result<(), Stopped>,
    last_sent: u64,
    set_back: Option<Sequence>,
) -> CommandResult {
    // An answer that does not verify, or a failed request, is worse than a malformed line.
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
    if let Some(sequence) = set_back {
        let stands = format!("the session goes on at sequence {sequence}, after line {last_sent}");
        return printed
            .tally
            .check()
            .map_err(|failure| failure.context(stands));
    }
    if let Err(Stopped::Ended) = input {
        return Err(deed_client::Error::Ended.into());
    }
    printed.tally.check()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Tally;

    fn end(
        answered: CommandResult,
        written: CommandResult,
        finished: CommandResult,
        input: Result<(), Stopped>,
        rejected: u64,
    ) -> CommandResult {
        let tally = Tally {
            rejected,
            ..Tally::default()
        };
        let printed = Printed {
            tally,
            answered,
            written,
        };
        outcome(printed, finished, input, 7, None)
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
