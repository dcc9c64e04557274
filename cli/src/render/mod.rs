//! Text and JSON that the commands print.

mod amount;
mod effect;
mod entry;
mod finding;
pub(crate) mod names;
mod omissions;
mod output;
mod printable;
mod receipt;
pub(crate) mod summary;
mod time;

pub(crate) use amount::amount_words;
pub(crate) use effect::effect_words;
pub(crate) use entry::{EntryJson, trust_words};
pub(crate) use finding::FindingJson;
pub(crate) use omissions::Omissions;
pub(crate) use output::{
    Output, folded, indented, labelled, progress_bar, report, to_json, to_json_pretty,
};
pub(crate) use printable::printable;
pub(crate) use receipt::{ReceiptJson, Tally, from_the_future, reason};
pub(crate) use time::with_times;

pub(crate) use crate::time::{shown, shown_span};
