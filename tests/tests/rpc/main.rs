//! Every rpc: its answers and its refusals.

mod appending;
mod entries;
mod ledgers;
mod proofs;
mod rejections;
mod services;
mod sessions;
mod streams;

use bytes::Bytes;
use deed_evidence::PayloadDigest;
use deed_proto::v1::{self, statement::Body};
use deed_tests::{
    process::ServerProcess,
    rpc::{Clients, TestLedger},
    statements::Producer,
};
use tempfile::TempDir;

/// A server with one ledger.
pub(crate) struct Set {
    pub(crate) server: ServerProcess,
    pub(crate) clients: Clients,
    pub(crate) ledger: TestLedger,
    _dir: TempDir,
}

impl Set {
    pub(crate) async fn up() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let server = ServerProcess::start(&dir.path().join("data"));
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        Self {
            server,
            clients,
            ledger,
            _dir: dir,
        }
    }

    /// Fills the ledger up to `size` leaves, `batch` at a time, and returns the payloads.
    pub(crate) async fn fill(&self, size: u64, batch: usize) -> Vec<Bytes> {
        let mut producer = Producer::new(self.ledger.id, 1).unchained();
        let left = usize::try_from(size - 1).expect("a small ledger");
        let payloads = producer.intents(left);
        for chunk in payloads.chunks(batch) {
            self.ledger.append(&self.clients, chunk).await;
        }
        payloads
    }
}

/// Returns an Outcome with effects of about 1,000 bytes each.
pub(crate) fn large_outcome(effects: usize) -> Body {
    let effect = v1::Effect {
        kind: "row.updated".to_owned(),
        resource: "r".repeat(1000),
        ..v1::Effect::default()
    };
    Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            session: Bytes::new(),
            sequence: 0,
            payload_digest: Bytes::copy_from_slice(PayloadDigest::of(b"").as_bytes()),
        }),
        status: v1::OutcomeStatus::Succeeded.into(),
        effects: vec![effect; effects],
        ..v1::Outcome::default()
    })
}
