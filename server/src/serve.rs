//! A running server: its start and its stop.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use deed_engine::{
    append::AppendService,
    clock::{Clock, keeper::Timekeeper},
    content::ContentStore,
    data_dir,
    ledger::registry::LedgerRegistry,
    metrics::Metrics,
    pressure::{Pressure, QUEUE_WAIT, quota::MachineTicks},
    shard::{ShardThreads, Shards},
    store::DirectoryLock,
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport;

use crate::{
    access::{Access, file as access_file},
    address::{ListenAddress, Sockets},
    admin::{self, Admin, AdminPort},
    background::{collector::keep_collected, indexer::keep_indexed, ticker::keep_ticking},
    context::Context,
    descriptors,
    listener::{self, Counters, tls::Certificates},
    options::{LimitOptions, ServerOptions},
    services::serve_all,
    start_error::{StartError, StopError},
};

/// Files that may be in a data directory before the first start, because roles and tokens may be
/// given by then.
const BEFORE_START: [&str; 3] = [
    access_file::FILE,
    access_file::LOCK,
    access_file::UNFINISHED,
];

/// A running server.
pub struct Server {
    addresses: Vec<SocketAddr>,
    admin_addresses: Vec<SocketAddr>,
    name: String,
    created: bool,
    drain: Duration,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<Result<(), transport::Error>>,
    indexer: JoinHandle<()>,
    admin: Option<AdminPort>,
    collector: JoinHandle<()>,
    ticker: JoinHandle<()>,
    contents: Arc<ContentStore>,
    shards: Arc<Shards>,
    threads: ShardThreads,
    _lock: DirectoryLock,
}

impl Server {
    /// Opens the data directory, creating it if need be, and listens.
    ///
    /// # Errors
    /// [`StartError`]; nothing is listening then, and an existing store is unchanged.
    pub async fn start(
        mut options: ServerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        descriptors::fit(&mut options)?;
        let listen = find(&options.listen, |listen, cause| StartError::Listen {
            listen,
            cause,
        });
        let listen = listen.await?;
        // If there are several addresses, each one has to keep the rules.
        let rules = listener::check_rules(&listen, options.tls.as_ref(), &options.access)?;
        if rules.exposed {
            tracing::warn!(
                listen = %options.listen,
                tls = options.tls.is_some(),
                access_control = rules.required,
                "insecure: listening beyond loopback without TLS or without access control"
            );
        }
        let certificates = match &options.tls {
            Some(tls) => Some(Certificates::load(tls)?),
            None => None,
        };
        let admin = match &options.admin {
            Some(listen) => {
                let found = find(listen, |listen, cause| StartError::ListenAdmin {
                    listen,
                    cause,
                });
                found.await?
            }
            None => Vec::new(),
        };
        for &listen in &admin {
            if !admin::may_listen(listen, options.admin_insecure) {
                return Err(StartError::AdminNotLoopback { listen });
            }
        }
        // The port is bound before anything is created: a port that is taken must leave no trace.
        let (sockets, addresses) = bind(&listen, |listen, cause| StartError::Listen {
            listen,
            cause,
        })
        .await?;
        let (admin_sockets, admin_addresses) = bind(&admin, |listen, cause| {
            StartError::ListenAdmin { listen, cause }
        })
        .await?;
        let (opening, opening_clock) = (options.clone(), Arc::clone(&clock));
        let (opened, contents, time) = tokio::task::spawn_blocking(move || {
            let name = opening.name.as_deref();
            let opened = data_dir::open(
                &opening.data_dir,
                name,
                &opening.store,
                opening.shards,
                &BEFORE_START,
            )?;
            let recorded = opened.store.newest_times()?;
            let time = Arc::new(Timekeeper::open(
                opening_clock,
                opening.clock,
                Some(opening.data_dir.clone()),
                recorded,
            ));
            let contents = ContentStore::open(
                &opening.data_dir,
                &opening.content,
                opening.limits.quota.stored_bytes,
                &opened.store,
                Arc::clone(&time) as _,
            )?;
            Ok::<_, StartError>((opened, contents, time))
        })
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;

        let access = Access::open(options.data_dir.clone(), rules.required, clock)?;
        let metrics = Arc::new(Metrics::new(&[tonic_health::pb::FILE_DESCRIPTOR_SET]));
        metrics.found_damaged_guard_slots(opened.damaged_guard_slots);
        let (shards, threads) = Shards::start(
            &options.data_dir,
            &opened.store,
            options.shards,
            options.queue_bytes,
            &metrics,
        )?;
        let shards = Arc::new(shards);
        let name = opened.identity.name().to_owned();
        let registry = Arc::new(LedgerRegistry::new(
            Arc::clone(&opened.store),
            opened.identity,
            Arc::clone(&time),
        ));
        let limits = LimitOptions {
            // A caller that writes to a full ledger then waits for the ledger, and not for the
            // shard.
            ledger_bytes: options.limits.ledger_bytes.min(options.queue_bytes / 2),
            ..options.limits.clone()
        };
        let ticks = Arc::new(MachineTicks::default());
        let pressure = Arc::new(Pressure::new(&limits, ticks));
        let (stopping, stopped) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let context = Context {
            appends: Arc::new(AppendService {
                registry: Arc::clone(&registry),
                shards: Arc::clone(&shards),
                contents: Arc::clone(&contents),
                clock: time,
                pressure: Arc::clone(&pressure),
                queue_wait: QUEUE_WAIT,
                metrics: Arc::clone(&metrics),
            }),
            listener: Arc::clone(&counters),
            contents: Arc::clone(&contents),
            registry: Arc::clone(&registry),
            pressure,
            stopping: stopped,
            metrics,
        };
        tokio::spawn(Arc::clone(&access).keep_up(context.stopping.clone()));
        if let Some(certificates) = &certificates {
            tokio::spawn(Arc::clone(certificates).keep_up(context.stopping.clone()));
        }
        let accepting = listener::accept(sockets, certificates, &options.limits, counters)
            .map_err(|cause| StartError::Listen {
                listen: options.listen.to_string(),
                cause,
            })?;
        let indexer = tokio::spawn(keep_indexed(context.clone()));
        let collector = tokio::spawn(keep_collected(context.clone()));
        let ticker = tokio::spawn(keep_ticking(context.clone()));
        let admin = options.admin.is_some().then(|| {
            let admin = Admin {
                context: context.clone(),
                stuck: Duration::from_millis(options.limits.stuck_ms),
            };
            AdminPort::serve(admin, admin_sockets, options.admin_connections)
        });
        let listener = tokio::spawn(serve_all(accepting, access, &options.limits, context).await);
        Ok(Self {
            addresses,
            admin_addresses,
            name,
            created: opened.created,
            drain: Duration::from_millis(options.drain_ms),
            stopping,
            listener,
            indexer,
            admin,
            collector,
            ticker,
            contents,
            shards,
            threads,
            _lock: opened.lock,
        })
    }

    /// Returns the first address on which the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Returns all addresses on which the server listens; a name may stand for several.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the first address of metrics and health; `None` if they are not served.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_addresses.first().copied()
    }

    /// Returns all addresses of metrics and health.
    #[must_use]
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        &self.admin_addresses
    }

    /// Returns the server's name, the first part of its ledgers' origins.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if the data directory was new.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// Waits until a shard or the content store has failed, so that the server must be stopped.
    /// Returns the reason.
    pub async fn failed(&self) -> String {
        let (mut failure, mut contents) = (self.shards.failure(), self.contents.failure());
        let failed = tokio::select! {
            failed = failure.wait_for(Option::is_some) => failed,
            failed = contents.wait_for(Option::is_some) => failed,
        };
        match failed {
            Ok(why) => why.as_deref().unwrap_or_default().to_owned(),
            Err(_) => "the shards are gone".to_owned(),
        }
    }

    /// Stops the server: takes nothing new, answers the requests that were taken, and returns when
    /// everything is on disk. Requests that no turn has begun within half of the drain bound are
    /// refused, and a batch that is in work at the end of the bound is given up. So neither the
    /// number of waiting requests nor their slowness holds up the end.
    ///
    /// # Errors
    /// [`StopError`] if a shard or the listener had failed.
    pub async fn stop(self) -> Result<(), StopError> {
        self.stopping.send_replace(true);
        self.indexer.abort();
        self.collector.abort();
        self.ticker.abort();
        let until = tokio::time::Instant::now() + self.drain;
        let (refusing, within) = (Arc::clone(&self.shards), self.drain / 2);
        let refusing = tokio::spawn(async move {
            tokio::time::sleep(within).await;
            refuse_waiting(&refusing);
        });
        let abort = self.listener.abort_handle();
        let listened = match tokio::time::timeout(self.drain, self.listener).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(StopError::Listener(error.to_string())),
            Ok(Err(error)) => Err(StopError::Listener(error.to_string())),
            Err(_) => {
                // Their tasks end with the runtime. The server takes nothing more that they ask
                // for.
                tracing::warn!("some connections did not end in time; they are left behind");
                abort.abort();
                Ok(())
            }
        };
        // Until here the admin port tells that the server is stopping.
        if let Some(admin) = self.admin {
            admin.stop();
        }
        refusing.abort();
        refuse_waiting(&self.shards);
        let (threads, contents) = (self.threads, self.contents);
        // This waits for the last turns. The store is closed when the last reference to it goes.
        let mut closing = tokio::task::spawn_blocking(move || {
            threads.join();
            contents.close();
            contents
        });
        let closed = match tokio::time::timeout_at(until, &mut closing).await {
            Ok(closed) => closed,
            Err(_) => {
                self.shards.interrupt();
                closing.await
            }
        };
        let contents_failure = closed
            .map(|contents| contents.failure().borrow().clone())
            .unwrap_or_default();
        // This is read only now, because the last turns may have failed as well.
        let failure = self.shards.failure().borrow().clone().or(contents_failure);
        match failure {
            Some(why) => Err(StopError::ShardFailed {
                why: why.to_string(),
            }),
            None => listened,
        }
    }
}

/// Refuses requests that wait for a turn. Their callers are told to send them again.
fn refuse_waiting(shards: &Shards) {
    let refused = shards.stop();
    if refused > 0 {
        tracing::warn!(
            refused,
            "requests that waited for their turn were refused, for the server stops; their callers \
             were told to send the same bytes again"
        );
    }
}

/// Returns the addresses that `listen` stands for; `failed` makes the error of a name that is not
/// found.
async fn find(
    listen: &ListenAddress,
    failed: impl FnOnce(String, io::Error) -> StartError,
) -> Result<Vec<SocketAddr>, StartError> {
    let found = listen.resolve().await;
    found.map_err(|cause| failed(listen.to_string(), cause))
}

/// Listens on all of these addresses; `failed` makes the error of an address that cannot be bound.
async fn bind(
    listen: &[SocketAddr],
    failed: impl Fn(String, io::Error) -> StartError,
) -> Result<(Sockets, Vec<SocketAddr>), StartError> {
    let bound = Sockets::bind(listen).await;
    let sockets = bound.map_err(|(address, cause)| failed(address.to_string(), cause))?;
    let addresses = sockets.addresses();
    let addresses = addresses.map_err(|cause| failed(texts(listen).join(", "), cause))?;
    Ok((sockets, addresses))
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}
