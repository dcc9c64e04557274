//! Prints receipts as they come.

use deed_client::Appended;
use tokio::sync::mpsc;

use super::{kept::Kept, requests::Sent};
use crate::{
    args::now,
    failure::CommandResult,
    render::{Output, ReceiptJson, Tally, from_the_future, report, to_json},
};

/// The result of the requests.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) tally: Tally,
    /// The reason why a request has no answer, or is not known to have one.
    pub(super) answered: CommandResult,
    /// The reason why a receipt is not printed.
    pub(super) written: CommandResult,
}

/// Prints the receipts. Once a request fails, or a receipt cannot be printed, no further request
/// is taken; those that were are still awaited and counted. A kept session stops at the first
/// rejected statement.
pub(super) async fn print_receipts(
    mut sent: mpsc::Receiver<Sent>,
    kept: Option<Kept>,
    output: Output,
) -> Printed {
    let mut printed = Printed {
        tally: Tally::default(),
        answered: Ok(()),
        written: Ok(()),
    };
    let mut warned = false;
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
        let receipts = answer.items.iter().filter_map(Appended::receipt);
        let latest = receipts.map(|receipt| receipt.received_at).max();
        if !warned && let Some(warning) = latest.and_then(|at| from_the_future(at, now())) {
            report(&warning);
            warned = true;
        }
        let statements = request.lines.iter().zip(&request.payloads);
        for ((line, payload), item) in statements.zip(&answer.items) {
            printed.tally.count(item);
            if printed.written.is_ok() {
                let receipt = to_json(&ReceiptJson::new(*line, None, payload, item));
                printed.written = receipt.and_then(|receipt| output.line(&receipt));
            }
        }
        // Acknowledged after printing: a receipt that was not printed must come again.
        if let Some(kept) = kept.as_ref().filter(|_| printed.written.is_ok()) {
            let settled =
                tokio::task::block_in_place(|| kept.settle(&request.payloads, &answer.items));
            let settled = settled.map_err(|error| deed_client::Error::from(error).into());
            if settled.is_err() || kept.set_back_to().is_some() {
                sent.close();
            }
            printed.answered = printed.answered.and(settled);
        }
        if printed.written.is_err() {
            sent.close();
        }
    }
    printed
}
