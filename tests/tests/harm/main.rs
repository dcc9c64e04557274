//! Harm: one tenant, one principal or a stranger do what they can to a real server, and another
//! ledger's appends do not feel it.
//!
//! Each module is an attack. What they have in common is here: a server with access control and its
//! admin port, a *noisy* ledger whose owner is hostile, a *quiet* one, and the victim, who appends to
//! the quiet one, one statement at a time, and notes how long each takes.
//!
//! In `make test` an attack goes on for a few seconds, and an append of the victim may take as long
//! as this machine is busy, but not as long as the attack. `make harm` sets DEED_HARM_SECONDS: then
//! attacks go on for so long, and 99 of 100 appends take less than 250 ms.

mod idle;
mod ledgers;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use deed_evidence::LedgerId;
use deed_proto::v1;
use deed_tests::{
    access::Token,
    apart,
    http::Http,
    keys::{Authority, key},
    process::{ServerCommand, ServerProcess},
    rpc::{Clients, TestLedger, accepted},
    statements::Producer,
    within,
};
use deed_tlog::SigningKey;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// How long an attack goes on, unless the environment says otherwise.
const SECONDS: u64 = 6;

/// What an append of the victim takes at most, when the bound is not measured: far more than a busy
/// machine needs, and less than what it took while one ledger could hold up another.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What 99 of 100 take, when it is.
const P99_MAX: Duration = Duration::from_millis(250);

pub(crate) const NOISY: &str = "noisy";
pub(crate) const QUIET: &str = "quiet";

const MALLORY: &str = "mallory";
const VICTIM: &str = "victim";

/// Whom they deliver for. The last one has a key.
pub(crate) const AGENT: &str = "spiffe://example.org/agent/hostile";
pub(crate) const SIGNER: &str = "spiffe://example.org/agent/hostile-signer";
const HONEST: &str = "spiffe://example.org/agent/honest";

/// How long attacks go on, and whether what appends take is held against its bound.
pub(crate) fn attack_time() -> (Duration, bool) {
    let set = env::var("DEED_HARM_SECONDS").ok();
    let seconds = set
        .as_ref()
        .map(|seconds| seconds.parse().expect("a number"));
    (
        Duration::from_secs(seconds.unwrap_or(SECONDS)),
        set.is_some(),
    )
}

pub(crate) fn signer() -> SigningKey {
    key(10)
}

/// A server, and who calls it.
pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) server: ServerProcess,
    pub(crate) noisy: TestLedger,
    pub(crate) quiet: TestLedger,
    pub(crate) mallory: Token,
    victim: Token,
}

impl Scene {
    /// Makes the ledgers; `prepare` is what the owner of the noisy one says there before.
    pub(crate) async fn set(
        prepare: impl FnOnce(&mut Authority) -> Vec<v1::Envelope>,
        arguments: &[&str],
    ) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        let server = ServerCommand::new(&data).start();
        let clients = Clients::connect(&server).await;
        let noisy = TestLedger::create(&clients, NOISY).await;
        let quiet = TestLedger::create(&clients, QUIET).await;
        let mut authority = Authority::new(noisy.id, 900);
        let known = [
            authority.binds(MALLORY, AGENT),
            authority.registers(&signer(), SIGNER),
            authority.binds(MALLORY, SIGNER),
        ];
        record(&clients, &noisy, known.to_vec()).await;
        for envelope in prepare(&mut authority) {
            // The server may refuse what is hostile; then the attack goes on without it.
            let request = request(&noisy, vec![envelope]);
            let answer = within("an answer", clients.append(request)).await;
            let results = answer.map(|answer| answer.results);
            eprintln!("prepared: {results:?}");
        }
        let bound = Authority::new(quiet.id, 900).binds(VICTIM, HONEST);
        record(&clients, &quiet, vec![bound]).await;
        drop(clients);
        server.stop();
        let token = |principal: &str, ledger: &str| {
            let roles = ["--ledger", ledger, "--role", "append,read"];
            Token::create(&data, principal, &roles)
        };
        let (mallory, victim) = (token(MALLORY, NOISY), token(VICTIM, QUIET));
        let server = ServerCommand::new(&data)
            .arguments(["--set", "access.required=true", "--admin", "127.0.0.1:0"])
            .arguments(arguments)
            .start();
        Self {
            dir,
            server,
            noisy,
            quiet,
            mallory,
            victim,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Begins to append as the victim, and to ask whether the server is ready.
    pub(crate) fn watch(&self) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, ledger, token) = (self.server.url(), self.quiet.clone(), self.victim.clone());
        Watch {
            appends: apart(append(url, ledger, token, Arc::clone(&stop))),
            health: apart(ask(self.server.admin_address(), Arc::clone(&stop))),
            stop,
        }
    }
}

fn request(ledger: &TestLedger, envelopes: Vec<v1::Envelope>) -> v1::AppendRequest {
    v1::AppendRequest {
        envelopes,
        ..ledger.request(&[])
    }
}

async fn record(clients: &Clients, ledger: &TestLedger, envelopes: Vec<v1::Envelope>) {
    let answer = within("an answer", clients.append(request(ledger, envelopes))).await;
    for result in &answer.expect("an answer").results {
        accepted(result);
    }
}

/// What is watched while an attack goes on.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    appends: oneshot::Receiver<Vec<Duration>>,
    health: oneshot::Receiver<Vec<String>>,
}

impl Watch {
    /// Ends it, and checks that the victim felt nothing and the server has told the truth.
    pub(crate) async fn expect_unharmed(self) {
        self.stop.store(true, Relaxed);
        let mut took = within("the victim", self.appends).await.expect("no panic");
        let not_ready = within("the health", self.health).await.expect("no panic");
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        let (p50, p99, longest) = (at(50), at(99), at(100));
        let count = took.len();
        eprintln!("the victim: {count} appends, p50 {p50:?}, p99 {p99:?}, longest {longest:?}");
        assert!(count > 10, "{count}");
        assert!(longest < ANSWERED_WITHIN, "{longest:?}");
        // Everybody who asked for little was served.
        assert!(not_ready.is_empty(), "{not_ready:?}");
        if attack_time().1 {
            assert!(p99 < P99_MAX, "{p99:?}");
        }
    }
}

/// Appends one statement after the other, each when the one before is answered; how long each took.
async fn append(
    url: String,
    ledger: TestLedger,
    token: Token,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let clients = Clients::open(&url).await;
    let mut producer = Producer::new(ledger.id, 1).named(HONEST);
    let mut took = Vec::new();
    while !stop.load(Relaxed) {
        let request = token.on(ledger.request(&producer.intents(1)));
        let began = Instant::now();
        let answer = within(
            "the victim's receipt",
            clients.ledger.clone().append(request),
        )
        .await;
        took.push(began.elapsed());
        accepted(&answer.expect("a receipt").into_inner().results[0]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took
}

/// Asks whether the server is ready; what it said whenever it was not.
async fn ask(admin: SocketAddr, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut admin = Http::connect(admin).await;
    let mut not_ready = Vec::new();
    while !stop.load(Relaxed) {
        let answer = admin.get("/readyz").await;
        if !answer.status.is_success() {
            not_ready.push(String::from_utf8_lossy(&answer.body).into_owned());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    not_ready
}

/// Sessions of the attack, each with a number of its own.
#[derive(Debug, Default)]
pub(crate) struct Sessions(AtomicU64);

impl Sessions {
    pub(crate) fn next(&self, ledger: LedgerId, name: &str) -> Producer {
        let number = 1000 + self.0.fetch_add(1, Relaxed);
        Producer::new(ledger, number).named(name).unchained()
    }
}

/// Makes a token of a principal that has no role anywhere.
pub(crate) fn token_without_a_role(data: &Path) -> Token {
    Token::create(data, "nobody-in-particular", &[])
}
