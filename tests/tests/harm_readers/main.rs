//! Readers, uploads and watchers that want to harm others: what they make the server hold is theirs,
//! and bounded, and what they leave is enough for everybody else.

mod disk;
mod places;
mod readers;

use std::path::Path;

use deed_tests::{
    admin::Admin,
    process::{ServerCommand, ServerProcess},
    rpc::{Clients, TestLedger},
    statements::Producer,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub(crate) const MIB: u64 = 1 << 20;

/// Statements that a ledger is filled with; each of its entries has more than a kilobyte.
const FILLED: usize = 4096;

/// A server, and the operator's view of it.
pub(crate) struct Scene {
    pub(crate) server: ServerProcess,
    pub(crate) dir: TempDir,
}

impl Scene {
    /// Starts a server with these settings.
    pub(crate) fn set(settings: &[(&str, &str)]) -> Self {
        Self::set_in(TempDir::new().expect("a temporary directory"), settings)
    }

    /// The same in a directory that is there.
    pub(crate) fn set_in(dir: TempDir, settings: &[(&str, &str)]) -> Self {
        let server = command(&dir.path().join("data"), settings).start();
        Self { server, dir }
    }

    pub(crate) async fn clients(&self) -> Clients {
        Clients::connect(&self.server).await
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::of(&self.server)
    }
}

pub(crate) fn command(data: &Path, settings: &[(&str, &str)]) -> ServerCommand {
    let settings = settings
        .iter()
        .map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
    ServerCommand::new(data)
        .arguments(settings.collect::<Vec<_>>().concat())
        .arguments(["--admin", "127.0.0.1:0"])
}

/// A ledger with much in it.
pub(crate) async fn filled(clients: &Clients, name: &str) -> TestLedger {
    let ledger = TestLedger::create(clients, name).await;
    let mut producer = Producer::new(ledger.id, 1);
    let resource = "r".repeat(1000);
    for _ in 0..FILLED / 512 {
        let payloads: Vec<_> = (0..512).map(|_| producer.intent(&resource)).collect();
        ledger.append(clients, &payloads).await;
    }
    ledger
}

/// A connection that lets the server send next to nothing of each answer, and as many answers as it
/// likes.
pub(crate) async fn stingy(server: &ServerProcess) -> Channel {
    let endpoint = Endpoint::from_shared(server.url())
        .expect("a URL")
        .initial_stream_window_size(1024)
        .initial_connection_window_size(1 << 30);
    endpoint.connect().await.expect("a connection")
}
