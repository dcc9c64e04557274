//! The library against servers that are honest, flaky or lying. All in this process, on loopback.

mod actions;
mod appending;
mod audit;
mod batching;
mod chat;
mod chat_imports;
mod cli;
mod cli_actions;
mod cli_evidence;
mod cli_policy;
mod evidence;
mod fake;
mod following;
mod imports;
mod lying;
mod merkle;
mod offline;
mod proxy;
mod reading;
mod rotation;
mod settling;
mod shared;
mod silence;
mod statement_json;
mod statement_json_forms;
mod tls;
mod trust_shown;
mod trust_store;
mod whims;
mod words;

/// A ledger that is made without a server, as deed-evidence tests it.
#[path = "../../../evidence/tests/it/ledger.rs"]
mod stories;
