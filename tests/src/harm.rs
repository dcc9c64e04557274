//! The effects of an attack on others: on a victim who appends to a ledger of its own, on
//! readiness, and on the memory of the server.
//!
//! In `make test` an attack lasts some seconds, and a caller that is not answered within
//! [`PATIENCE`](crate::PATIENCE) counts as hanging: nothing is measured. `make harm` sets
//! DEED_HARM_SECONDS: each attack lasts that long, and 99 of 100 appends must take less than
//! `P99_MAX`.

use std::{
    env,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    access::Token,
    admin::Admin,
    apart,
    keys::Authority,
    process::{ServerProcess, resident_kib},
    rpc::{Clients, TestLedger, accepted},
    statements::Producer,
    until, within,
};

/// Seconds for which an attack goes on, unless the environment says otherwise.
const SECONDS: u64 = 4;

/// Longest time of 99 of 100 appends, where it is measured.
const P99_MAX: Duration = Duration::from_millis(250);

/// Number of appends from which on their times are meaningful.
const ENOUGH: u64 = 10;

const LEDGER: &str = "quiet";
const PRINCIPAL: &str = "victim";
const PRODUCER: &str = "spiffe://example.org/agent/honest";

/// Returns the duration of an attack.
///
/// # Panics
/// If DEED_HARM_SECONDS is not a number.
#[must_use]
pub fn attack_time() -> Duration {
    let seconds = env::var("DEED_HARM_SECONDS").ok();
    let seconds = seconds.map(|seconds| seconds.parse().expect("DEED_HARM_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(SECONDS))
}

/// Returns true if times are compared with their bounds: in `make harm`.
#[must_use]
pub fn is_measured() -> bool {
    env::var_os("DEED_HARM_SECONDS").is_some()
}

/// Returns true if an attack that began at `began`, and has had its effects, is repeated: in `make
/// harm`, until its time is over.
#[must_use]
pub fn goes_on(began: Instant) -> bool {
    is_measured() && began.elapsed() < attack_time()
}

/// Waits, in `make harm`, until the time of an attack is over that only has to last.
pub async fn hold(began: Instant) {
    if is_measured() {
        tokio::time::sleep(attack_time().saturating_sub(began.elapsed())).await;
    }
}

/// A caller who appends to a ledger of its own.
#[derive(Debug, Clone)]
pub struct Victim {
    ledger: TestLedger,
    token: Option<Token>,
}

impl Victim {
    /// Creates the victim's ledger, on a server without access control.
    pub async fn new(clients: &Clients) -> Self {
        Self {
            ledger: TestLedger::create(clients, LEDGER).await,
            token: None,
        }
    }

    /// Creates the victim's ledger, and a token for the time when access control is on.
    ///
    /// # Panics
    /// If the server refuses something.
    pub async fn with_token(clients: &Clients, data_dir: &Path) -> Self {
        let victim = Self::new(clients).await;
        let bound = Authority::new(victim.ledger.id, 900).binds(PRINCIPAL, PRODUCER);
        let request = victim.ledger.request_of(vec![bound]);
        let answer = within("an answer", clients.append(request)).await;
        accepted(&answer.expect("an answer").results[0]);
        let roles = ["--ledger", LEDGER, "--role", "append,read"];
        Self {
            token: Some(Token::create(data_dir, PRINCIPAL, &roles)),
            ..victim
        }
    }

    /// Returns the victim's ledger.
    #[must_use]
    pub fn ledger(&self) -> &TestLedger {
        &self.ledger
    }

    /// Appends one statement after the other, each when the one before is answered; returns the
    /// time that each took.
    async fn append(self, url: String, progress: Arc<Progress>) -> Vec<Duration> {
        let clients = Clients::open(&url).await;
        let mut producer = Producer::new(self.ledger.id, 1).named(PRODUCER);
        let mut took = Vec::new();
        while !progress.stop.load(Relaxed) {
            let request = self.ledger.request(&producer.intents(1));
            let request = match &self.token {
                Some(token) => token.on(request),
                None => tonic::Request::new(request),
            };
            let mut ledger = clients.ledger.clone();
            let began = Instant::now();
            let answer = within("the victim's receipt", ledger.append(request)).await;
            took.push(began.elapsed());
            accepted(&answer.expect("a receipt").into_inner().results[0]);
            progress.appended.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        took
    }
}

#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    appended: AtomicU64,
}

/// The observations of an operator, in order.
#[derive(Debug, Default)]
struct Looks {
    /// The server's answers when it was not ready.
    not_ready: Vec<String>,
    most_kib: u64,
}

/// Observes a victim, readiness and memory from the beginning of an attack to its end.
#[derive(Debug)]
pub struct Watch {
    progress: Arc<Progress>,
    idle_kib: u64,
    appends: oneshot::Receiver<Vec<Duration>>,
    looks: oneshot::Receiver<Looks>,
}

impl Watch {
    /// Begins to observe.
    ///
    /// # Panics
    /// If the server has no admin port.
    #[must_use]
    pub fn begin(server: &ServerProcess, victim: &Victim) -> Self {
        let progress = Arc::<Progress>::default();
        let appends = victim.clone().append(server.url(), Arc::clone(&progress));
        let looks = look(Admin::of(server), server.id(), Arc::clone(&progress));
        Self {
            idle_kib: server.resident_kib(),
            appends: apart(appends),
            looks: apart(looks),
            progress,
        }
    }

    /// Returns the memory of the server when the observation began, in KiB.
    #[must_use]
    pub fn idle_kib(&self) -> u64 {
        self.idle_kib
    }

    /// Ends, and checks that the victim was served, that the server stayed ready if it was at the
    /// beginning, and that its memory grew by no more than `bound_mib`.
    ///
    /// # Panics
    /// If one of these does not hold.
    pub async fn expect_unharmed(self, bound_mib: u64) {
        until("some appends of the victim", || async {
            (self.progress.appended.load(Relaxed) >= ENOUGH).then_some(())
        })
        .await;
        self.progress.stop.store(true, Relaxed);
        let mut took = within("the victim", self.appends).await.expect("no panic");
        let looks = within("the looks", self.looks).await.expect("no panic");
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        let (p50, p99, longest) = (at(50), at(99), at(100));
        let (count, idle_mib, most_mib) = (took.len(), self.idle_kib / 1024, looks.most_kib / 1024);
        eprintln!(
            "the victim: {count} appends, p50 {p50:?}, p99 {p99:?}, longest {longest:?}; the server: \
             {idle_mib} MiB idle, {most_mib} MiB at most"
        );
        assert!(looks.not_ready.is_empty(), "{:?}", looks.not_ready);
        assert!(
            most_mib <= idle_mib + bound_mib,
            "{most_mib} MiB, and {bound_mib} MiB beyond {idle_mib} MiB are the bound"
        );
        if is_measured() {
            assert!(p99 < P99_MAX, "p99 of the victim: {p99:?}");
        }
    }
}

async fn look(admin: Admin, process: u32, progress: Arc<Progress>) -> Looks {
    let mut looks = Looks::default();
    while !progress.stop.load(Relaxed) {
        looks.most_kib = looks.most_kib.max(resident_kib(process));
        let (status, text) = admin.ready().await;
        if status != 200 {
            looks.not_ready.push(text);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    looks
}
