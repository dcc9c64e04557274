//! A client before a server in memory.

use bytes::Bytes;
use deed_client::{ForkEvidence, Ledger, StateDir};
use deed_testkit::fake::{Fake, Lie};

pub(crate) struct Scene {
    pub(crate) fake: Fake,
    pub(crate) ledger: Ledger,
    pub(crate) state: StateDir,
    /// Requests that a test may send.
    pub(crate) requests: Vec<Vec<Bytes>>,
    _directory: tempfile::TempDir,
}

/// A server with a new ledger, and a client that is connected to it.
pub(crate) async fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let fake = Fake::start().await;
    let ledger = fake.connect(&state).await;
    Scene {
        fake,
        ledger,
        state,
        requests: Vec::new(),
        _directory: directory,
    }
}

impl Scene {
    pub(crate) fn lie(&self, lie: Lie) {
        self.fake.lock().script.lie = lie;
    }

    /// The size of the trusted tree on disk.
    pub(crate) fn stored_size(&self) -> u64 {
        let pin = self.ledger.pin();
        let stored = self.state.store(&pin.origin).head(pin).unwrap().unwrap();
        stored.head.size.get()
    }

    pub(crate) fn forks(&self) -> Vec<ForkEvidence> {
        let store = self.state.store(&self.ledger.pin().origin);
        let forks = store.forks().unwrap();
        forks
            .iter()
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect()
    }
}
