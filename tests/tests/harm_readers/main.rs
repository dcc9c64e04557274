//! Attacks by readers, uploads and watchers: the memory that they take counts for them and is
//! bounded, and enough is left for all others.

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

/// Statements in the filled ledger; each of its entries has more than a kilobyte.
const FILLED: usize = 4096;

/// A server with its admin port.
pub(crate) struct Scene {
    pub(crate) server: ServerProcess,
    pub(crate) dir: TempDir,
}

impl Scene {
    /// Starts a server with these settings.
    pub(crate) fn set(settings: &[(&str, &str)]) -> Self {
        Self::set_in(TempDir::new().expect("a temporary directory"), settings)
    }

    /// Starts a server with these settings in an existing directory.
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

/// Creates a ledger with many entries.
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

/// Opens a connection whose windows allow almost nothing of each answer, and any number of answers.
pub(crate) async fn stingy(server: &ServerProcess) -> Channel {
    let endpoint = Endpoint::from_shared(server.url())
        .expect("a URL")
        .initial_stream_window_size(1024)
        .initial_connection_window_size(1 << 30);
    endpoint.connect().await.expect("a connection")
}
