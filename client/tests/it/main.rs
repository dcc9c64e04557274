//! The library against servers that are honest, flaky or lying. All in this process, on loopback.

mod actions;
mod appending;
mod audit;
mod batching;
mod chat;
mod chat_imports;
mod evidence;
mod following;
mod lying;
mod proxy;
mod reading;
mod rotation;
mod scene;
mod settling;
mod several;
mod shared;
mod silence;
mod statement_json;
mod statement_json_forms;
mod tls;
mod trust_store;
mod whims;

/// A ledger that is made without a server, as deed-evidence tests it.
#[path = "../../../evidence/tests/it/ledger.rs"]
mod stories;
