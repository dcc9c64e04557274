//! Arguments that several commands take, and the values in them.

mod about;
mod amount;
pub(crate) mod effect;
mod entry;
mod global;
mod public_key;
mod server;
mod text;

pub(crate) use about::AboutArgs;
pub(crate) use amount::AmountArgs;
pub(crate) use entry::{EntryName, entry_name, intent_at};
pub(crate) use global::Global;
pub(crate) use public_key::{authority_key, public_key};
pub(crate) use text::{ascending, controller, hex_bytes, kind_and_value, moment, producer, token};

pub(crate) use crate::time::{Span, TimeError, When, now};
