//! An attack with requests one after the other, over many connections, with more of them under way
//! than are served, and some given up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use deed_proto::v1;
use deed_tests::{access::Token, apart, rpc::Clients, within};
use tokio::{sync::oneshot, time::timeout};

use crate::Scene;

/// Connections of a flood, and requests that each has under way.
pub(crate) const CONNECTIONS: usize = 3;
const UNDER_WAY: u64 = 6;

/// Pause between a refused request and the next one.
const AGAIN: Duration = Duration::from_millis(1);

/// A request, and the time for which its answer is waited for.
pub(crate) struct Wave {
    pub(crate) request: v1::AppendRequest,
    pub(crate) patience: Duration,
}

impl Wave {
    /// Returns a wave whose answer is waited for as long as it takes.
    pub(crate) fn patient(request: v1::AppendRequest) -> Self {
        Self {
            request,
            patience: deed_tests::PATIENCE,
        }
    }
}

/// An attack that is under way.
pub(crate) struct Flood {
    shared: Arc<Shared>,
    connections: Vec<oneshot::Receiver<()>>,
}

struct Shared {
    next: Box<dyn Fn(u64) -> Wave + Send + Sync>,
    token: Token,
    rounds: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

impl Flood {
    /// Begins an attack. `next` makes the requests, each with a number of its own.
    pub(crate) fn begin(scene: &Scene, next: impl Fn(u64) -> Wave + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            next: Box::new(next),
            token: scene.mallory.clone(),
            rounds: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let connections = (0..CONNECTIONS).map(|_| {
            let (url, shared) = (scene.server.url(), Arc::clone(&shared));
            apart(async move {
                let clients = Clients::open(&url).await;
                let all =
                    (0..UNDER_WAY).map(|_| tokio::spawn(Arc::clone(&shared).send(clients.clone())));
                for one in all.collect::<Vec<_>>() {
                    one.await.expect("no panic");
                }
            })
        });
        Self {
            connections: connections.collect(),
            shared,
        }
    }

    /// Ends the attack, when the server is gone; returns the number of requests that were answered.
    pub(crate) async fn end(self) -> u64 {
        self.shared.stop.store(true, Relaxed);
        for connection in self.connections {
            let ended = within("the end of a flood", connection).await;
            ended.expect("no panic");
        }
        self.shared.answered.load(Relaxed)
    }
}

impl Shared {
    async fn send(self: Arc<Self>, clients: Clients) {
        while !self.stop.load(Relaxed) {
            let wave = (self.next)(self.rounds.fetch_add(1, Relaxed));
            let mut ledger = clients.ledger.clone();
            let sending = ledger.append(self.token.on(wave.request));
            // The request was answered, refused or given up: the next one follows.
            match timeout(wave.patience, sending).await {
                Ok(Ok(_)) => {
                    self.answered.fetch_add(1, Relaxed);
                }
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}
