//! The `deed` command before servers that are honest, flaky or lying. All on loopback.

mod actions;
mod basics;
mod evidence;
mod imports;
mod offline;
mod policy;
mod scene;
mod servers;
mod trust_shown;
mod whims;
mod words;

/// A ledger that is made without a server, as deed-evidence tests it.
#[path = "../../../evidence/tests/it/ledger.rs"]
mod stories;
