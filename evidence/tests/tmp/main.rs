#[path = "../it/ledger.rs"]
mod ledger;
#[path = "../it/replay.rs"]
mod replay;
