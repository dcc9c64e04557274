//! Harm: one tenant attacks a real server in every way, and another ledger's appends are not
//! affected.
//!
//! Each module is an attack. This file has what they share: a server with access control and its
//! admin port, a *noisy* ledger whose owner is hostile, and a victim who appends to a *quiet* one
//! ([`deed_tests::harm`] describes the measurements and their bounds). Attacks by strangers are in
//! harm_doors; readers, uploads and a full disk are in harm_readers.

mod flood;
mod idle;
mod observations;
mod policies;
mod repeats;
mod timers;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use deed_evidence::LedgerId;
use deed_proto::v1;
use deed_tests::{
    access::Token,
    harm::{Victim, Watch},
    keys::{Authority, key},
    process::{ServerCommand, ServerProcess, fsck_clean},
    rpc::{Clients, TestLedger, accepted},
    statements::Producer,
    within,
};
use deed_tlog::SigningKey;
use tempfile::TempDir;

use flood::Flood;

pub(crate) const NOISY: &str = "noisy";

const MALLORY: &str = "mallory";

/// The producer of the attacker's statements. The last one has a key.
pub(crate) const AGENT: &str = "spiffe://example.org/agent/hostile";
pub(crate) const SIGNER: &str = "spiffe://example.org/agent/hostile-signer";

/// Settings that bound the server's memory. Those for one ledger and one principal are as shipped,
/// so an attack has as much room as anywhere.
const SERVER_MIB: u64 = 64;
const ANSWERS_MIB: u64 = 16;
const BLOCK_CACHE_MIB: u64 = 16;
const MEMTABLE_MIB: u64 = 4;

/// Most memory of the server beyond that at rest, by its settings and the table of budgets in
/// ARCHITECTURE.md: requests that have room and as many that wait for it, HTTP/2's windows,
/// answers, RocksDB's blocks and memtables (7 families, 4 each), the shard's state of its ledgers,
/// and the allocator and other small parts.
const BOUND_MIB: u64 = 2 * SERVER_MIB
    + (flood::CONNECTIONS as u64 + 1) * 8
    + 2 * ANSWERS_MIB
    + BLOCK_CACHE_MIB
    + 7 * 4 * MEMTABLE_MIB
    + 96
    + 96;

pub(crate) fn signer() -> SigningKey {
    key(10)
}

/// A server and its callers.
pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) server: ServerProcess,
    pub(crate) noisy: TestLedger,
    pub(crate) mallory: Token,
    pub(crate) victim: Victim,
    /// The results of the statements that the owner of the noisy ledger sent before the attack.
    pub(crate) prepared: Vec<v1::AppendResult>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::set(|_| Vec::new(), &[]).await
    }

    /// Creates the ledgers; `prepare` makes the statements that the owner of the noisy one sends
    /// before.
    pub(crate) async fn set(
        prepare: impl FnOnce(&mut Authority) -> Vec<v1::Envelope>,
        settings: &[(&str, &str)],
    ) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        let server = ServerCommand::new(&data).start();
        let clients = Clients::connect(&server).await;
        let noisy = TestLedger::create(&clients, NOISY).await;
        let mut authority = Authority::new(noisy.id, 900);
        let known = vec![
            authority.binds(MALLORY, AGENT),
            authority.registers(&signer(), SIGNER),
            authority.binds(MALLORY, SIGNER),
        ];
        let append = async |envelopes| {
            let answer = within("an answer", clients.append(noisy.request_of(envelopes)));
            answer.await.expect("an answer").results
        };
        for result in &append(known).await {
            accepted(result);
        }
        let mut prepared = Vec::new();
        for envelope in prepare(&mut authority) {
            prepared.extend(append(vec![envelope]).await);
        }
        let victim = Victim::with_token(&clients, &data).await;
        drop(clients);
        server.stop();
        let roles = ["--ledger", NOISY, "--role", "append,read,authority"];
        let mallory = Token::create(&data, MALLORY, &roles);
        let bounds = [
            ("limits.server_mib", SERVER_MIB),
            ("limits.answers_mib", ANSWERS_MIB),
            ("store.block_cache_mib", BLOCK_CACHE_MIB),
            ("store.memtable_mib", MEMTABLE_MIB),
        ];
        let bounds = bounds.map(|(setting, mib)| format!("{setting}={mib}"));
        let settings = settings.iter().map(|(key, value)| format!("{key}={value}"));
        let mut arguments = vec!["--admin".to_owned(), "127.0.0.1:0".to_owned()];
        for setting in settings
            .chain(bounds)
            .chain(["access.required=true".to_owned()])
        {
            arguments.extend(["--set".to_owned(), setting]);
        }
        Self {
            server: ServerCommand::new(&data).arguments(arguments).start(),
            dir,
            noisy,
            mallory,
            victim,
            prepared,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch::begin(&self.server, &self.victim)
    }

    /// Sends one request as the attacker.
    pub(crate) async fn send(&self, request: v1::AppendRequest) -> Vec<v1::AppendResult> {
        let clients = Clients::connect(&self.server).await;
        let mut ledger = clients.ledger.clone();
        let answer = within("an answer", ledger.append(self.mallory.on(request))).await;
        answer.expect("an answer").into_inner().results
    }

    /// Floods the noisy ledger for the time of an attack, which the victim must not notice. The
    /// server stops while requests still wait, and everything that it has recorded is complete.
    pub(crate) async fn expect_flood_without_harm(
        self,
        next: impl Fn(u64) -> flood::Wave + Send + Sync + 'static,
    ) {
        let watch = self.watch();
        let flood = Flood::begin(&self, next);
        tokio::time::sleep(deed_tests::harm::attack_time()).await;
        watch.expect_unharmed(BOUND_MIB).await;
        let data = self.data();
        // It has as much to do as ever; the bound here is only on whether it ends.
        self.server.stop();
        let answered = flood.end().await;
        eprintln!("{answered} requests of the attack were answered");
        assert!(answered > 0, "it was no attack");
        fsck_clean(&data);
        drop(self.dir);
    }
}

/// Sessions of the attacker, each with a number of its own.
#[derive(Debug, Default)]
pub(crate) struct Sessions(AtomicU64);

impl Sessions {
    pub(crate) fn next(&self, ledger: LedgerId, name: &str) -> Producer {
        let number = 1000 + self.0.fetch_add(1, Relaxed);
        Producer::new(ledger, number).named(name).unchained()
    }

    pub(crate) fn shared() -> Arc<Self> {
        Arc::default()
    }
}

/// Makes a token of a principal without a role.
pub(crate) fn token_without_a_role(data: &Path) -> Token {
    Token::create(data, "nobody-in-particular", &[])
}
