//! A running server: opening the data directory, listening, stopping.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use deed_proto::v1::{
    self, actions_server::ActionsServer, content_server::ContentServer,
    ledger_server::LedgerServer, log_server::LogServer,
};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::{server::NamedService, service::Routes, transport};
use tonic_health::server::HealthReporter;

use crate::{
    access::{
        Access,
        body::Stalls,
        file::{self as access_file, AccessError},
        layer::AccessLayer,
    },
    admin::{self, Admin, AdminPort},
    append::Appends,
    background::{collector::keep_collected, indexer::keep_indexed, ticker::keep_ticking},
    clock::{Clock, keeper::Timekeeper},
    content::{ContentStartError, ContentStore},
    context::Context,
    descriptors::{self, DescriptorError},
    grpc::{
        actions::ActionsService, content::ContentService, ledger::LedgerService, log::LogService,
    },
    guard::{self, GuardError},
    http,
    identity::{Identity, IdentityError},
    ledger::registry::Registry,
    listener::{self, Counters, Incoming, RuleError, TlsError, tls::Certificates},
    metrics::Metrics,
    options::{AccessOptions, ClockOptions, ContentOptions, LimitOptions, TlsOptions},
    pressure::{Pressure, QUEUE_WAIT, quota::MachineTicks, undecoded::MESSAGE_BYTES_MAX},
    shard::{ShardThreads, Shards},
    store::{DirectoryLock, Store, StoreError, StoreOptions},
    telemetry::Requests,
};

/// Largest message of services that are asked and not told: the log, actions, health and
/// reflection.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// Largest message about contents: a chunk, and what goes around it.
const CONTENT_MESSAGE_BYTES_MAX: usize = (1 << 20) + (8 << 10);

/// How long a caller may listen that does not say who it is where it could: it comes back, and
/// until then others may have its place.
const ANONYMOUS_WITHIN: Duration = Duration::from_secs(600);

/// HTTP/2 windows, in bytes, and the largest frame. Measured by the prototype: the defaults of
/// 64 KiB halve the throughput of large batches.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const FRAME_BYTES: u32 = 64 << 10;

/// Bytes of one request's headers, as HTTP/2 counts them. The largest that clients have a use for
/// is a token.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Streams that a peer has reset before we looked at them, and streams that we reset for an error
/// of the peer's: beyond, the connection is closed. A peer that opens and resets streams as fast
/// as it can would make us work for nothing (CVE-2023-44487, CVE-2025-8671).
const RESET_STREAMS_MAX: usize = 20;
const ERROR_RESETS_MAX: usize = 128;

/// A peer that does not answer a ping is gone, whatever its streams wait for.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

const LEDGER_SERVICE: &str = <LedgerServer<LedgerService> as NamedService>::NAME;
const LOG_SERVICE: &str = <LogServer<LogService> as NamedService>::NAME;
const ACTIONS_SERVICE: &str = <ActionsServer<ActionsService> as NamedService>::NAME;
const CONTENT_SERVICE: &str = <ContentServer<ContentService> as NamedService>::NAME;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The server's name, for a new data directory.
    pub name: Option<String>,
    /// Shards, 1 to 64: ledgers are spread over them by number.
    pub shards: usize,
    /// Bytes of payloads that may wait for each shard.
    pub queue_bytes: usize,
    /// The store's memory.
    pub store: StoreOptions,
    /// Bound on the time that stopping takes, in milliseconds: half of it is for what waits for its turn.
    pub drain_ms: u64,
    /// Bounds within which the machine's clock is believed.
    pub clock: ClockOptions,
    /// Certificates of the listener; `None` listens in clear.
    pub tls: Option<TlsOptions>,
    /// Who may do what.
    pub access: AccessOptions,
    /// Bounds on what callers can make the server hold.
    pub limits: LimitOptions,
    /// Where and how contents are kept.
    pub content: ContentOptions,
    /// Where metrics and health are served, without access control; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// Whether that may be beyond loopback.
    pub admin_insecure: bool,
    /// Connections to it that are open at once; beyond, the oldest gives way.
    pub admin_connections: usize,
}

impl ServerOptions {
    /// The defaults for a data directory: loopback, any port.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            content: ContentOptions::new(&data_dir),
            access: AccessOptions::default(),
            limits: LimitOptions::default(),
            tls: None,
            admin: None,
            admin_insecure: false,
            admin_connections: 64,
            data_dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: None,
            shards: 1,
            queue_bytes: 64 << 20,
            store: StoreOptions::default(),
            drain_ms: 10_000,
            clock: ClockOptions::default(),
        }
    }
}

/// A server that does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// It would be open to the network.
    #[error(transparent)]
    Exposed(#[from] RuleError),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Who may do what cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It needs more file descriptors than it may have.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// Its figures would be open to the network.
    #[error(
        "refusing to serve metrics and health on {listen}: they have no access control, so they \
         are on loopback only (for example 127.0.0.1:7734, or \"none\"), unless admin.insecure = \
         true says that everybody who reaches that address may read them"
    )]
    AdminNotLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// The directory holds something else.
    #[error("{path} is not empty and holds no deed server ({found:?} is in it); choose another")]
    ForeignDirectory {
        /// The data directory.
        path: PathBuf,
        /// A file that does not belong there.
        found: String,
    },
    /// The directory is open to everybody.
    #[error(
        "{path} has mode {mode:04o}: anybody on this machine may put files of theirs in place of the \
         server's, tokens and roles among them; `chmod o-w` it, and look at what is in it"
    )]
    ExposedDirectory {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Ledgers without the key that signs them.
    #[error("{path} holds ledgers but no server.key; restore it from a copy")]
    KeyMissing {
        /// The data directory.
        path: PathBuf,
    },
    /// A key without the ledgers that it signed for.
    #[error(
        "{path} holds a server.key but no store: what was acknowledged is lost or not mounted. \
         Nothing was changed; restore the directory store/ from a copy"
    )]
    StoreMissing {
        /// The data directory.
        path: PathBuf,
    },
    /// The address cannot be had.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The admin port cannot be had.
    #[error(
        "cannot serve metrics and health on {listen}: {source}; --admin takes another address, or none"
    )]
    ListenAdmin {
        /// The address asked for.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The contents.
    #[error(transparent)]
    Contents(#[from] ContentStartError),
    /// The store does not fit its guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// A server that did not stop as it should.
#[derive(Debug, Error)]
pub enum StopError {
    /// A shard could not write.
    #[error("{why}; nothing was acknowledged that is not on disk, restart to go on")]
    ShardFailed {
        /// What happened.
        why: String,
    },
    /// The listener ended early.
    #[error("the listener failed: {0}")]
    Listener(String),
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
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

/// An opened data directory.
struct Opened {
    lock: DirectoryLock,
    store: Arc<Store>,
    identity: Identity,
    created: bool,
    damaged_guard_slots: u64,
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
        let listen = options.listen;
        let rules = listener::check_rules(listen, options.tls.as_ref(), &options.access)?;
        if rules.exposed {
            tracing::warn!(
                %listen,
                tls = options.tls.is_some(),
                access_control = rules.required,
                "insecure: listening beyond loopback without TLS or without access control"
            );
        }
        let certificates = match &options.tls {
            Some(tls) => Some(Certificates::load(tls)?),
            None => None,
        };
        if let Some(listen) = options.admin
            && !admin::may_listen(listen, options.admin_insecure)
        {
            return Err(StartError::AdminNotLoopback { listen });
        }
        // Before anything is created: a port that is taken must leave no trace.
        let (socket, address) = bind(listen)
            .await
            .map_err(|source| StartError::Listen { listen, source })?;
        let admin = match options.admin {
            Some(listen) => {
                let bound = bind(listen).await;
                Some(bound.map_err(|source| StartError::ListenAdmin { listen, source })?)
            }
            None => None,
        };
        let (opening, opening_clock) = (options.clone(), Arc::clone(&clock));
        let (opened, contents, time) = tokio::task::spawn_blocking(move || {
            let opened = open(&opening)?;
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
        let metrics = Arc::new(Metrics::default());
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
        let registry = Arc::new(Registry::new(
            Arc::clone(&opened.store),
            opened.identity,
            Arc::clone(&time),
        ));
        let limits = LimitOptions {
            // So that who writes to a full ledger waits for that, and not for the shard.
            ledger_bytes: options.limits.ledger_bytes.min(options.queue_bytes / 2),
            ..options.limits.clone()
        };
        let ticks = Arc::new(MachineTicks::default());
        let pressure = Arc::new(Pressure::new(&limits, ticks));
        let (stopping, stopped) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let context = Context {
            appends: Arc::new(Appends {
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
        let accepting = listener::accept(socket, certificates, &options.limits, counters)
            .map_err(|source| StartError::Listen { listen, source })?;
        let indexer = tokio::spawn(keep_indexed(context.clone()));
        let collector = tokio::spawn(keep_collected(context.clone()));
        let ticker = tokio::spawn(keep_ticking(context.clone()));
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        let admin = admin.map(|(socket, _)| {
            let admin = Admin {
                context: context.clone(),
                stuck: Duration::from_millis(options.limits.stuck_ms),
            };
            AdminPort::serve(admin, socket, options.admin_connections)
        });
        let listener = tokio::spawn(serve_all(accepting, access, &options.limits, context).await);
        Ok(Self {
            address,
            admin_address,
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are, if anywhere.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Its name, the first part of its ledgers' origins.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the data directory was new.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// Returns when a shard has failed and the server must be stopped, with what happened.
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

    /// Stops: takes nothing new, answers what was taken in, and returns when everything is on disk.
    /// What no turn has begun within half of the drain bound is refused, and a batch that is in work at
    /// its end is given up: how much waits, and how slow it is, does not hold up the end.
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
                // Their tasks end with the runtime. Nothing they still ask for is taken.
                tracing::warn!("some connections did not end in time; they are left behind");
                abort.abort();
                Ok(())
            }
        };
        // Until here it says that the server is stopping.
        if let Some(admin) = self.admin {
            admin.stop();
        }
        refusing.abort();
        refuse_waiting(&self.shards);
        let (threads, contents) = (self.threads, self.contents);
        // Waits for the last turns; the store is closed when the last reference goes.
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
        // Only now: the last turns may have failed as well.
        let failure = self.shards.failure().borrow().clone().or(contents_failure);
        match failure {
            Some(why) => Err(StopError::ShardFailed {
                why: why.to_string(),
            }),
            None => listened,
        }
    }
}

/// Refuses what no turn has begun; their callers are told to send it again.
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

async fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpListener::bind(listen).await?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn open(options: &ServerOptions) -> Result<Opened, StartError> {
    let data_dir = &options.data_dir;
    let io = |source| StartError::Io {
        path: data_dir.clone(),
        source,
    };
    // Statements are nobody else's business.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(io)?;
    if let Some(mode) = crate::secret_file::open_to_all(data_dir).map_err(io)? {
        return Err(StartError::ExposedDirectory {
            path: data_dir.clone(),
            mode,
        });
    }
    if Identity::load(data_dir)?.is_none() {
        refuse_foreign(data_dir)?;
    }
    let lock = DirectoryLock::acquire(data_dir)?;
    // Again: another server may have made it before we had the lock.
    match Identity::load(data_dir)? {
        Some(identity) => {
            identity.expect_name(options.name.as_deref())?;
            // First without changing anything: a store that lost its tail is evidence. One that
            // is gone altogether must not be begun anew under the same keys.
            let store = Store::open_read_only(data_dir, &options.store)?.ok_or_else(|| {
                StartError::StoreMissing {
                    path: data_dir.clone(),
                }
            })?;
            let guarded = guard::verify(data_dir, &Arc::new(store))?;
            for what in &guarded.damaged {
                tracing::warn!(
                    what,
                    "one half of what guards the store is damaged, the other one stands: a power cut \
                     does that, and the next writes mend it; otherwise look at the disk"
                );
            }
            let store = Arc::new(Store::open(data_dir, &options.store)?);
            // What was committed in the last moment before a crash is guarded before it is told.
            let caught_up = guard::catch_up(data_dir, &store)?;
            tracing::debug!(heads = caught_up, "head guard verified");
            Ok(Opened {
                lock,
                store,
                identity,
                created: false,
                damaged_guard_slots: guarded.damaged.len() as u64,
            })
        }
        None => {
            // The key is made last: until it is there, the directory counts as new, and all of
            // this may be done again.
            let store = Arc::new(Store::create(data_dir, &options.store)?);
            if !store.ledgers_after("", 1)?.is_empty() {
                return Err(StartError::KeyMissing {
                    path: data_dir.clone(),
                });
            }
            guard::create(data_dir)?;
            let identity = Identity::create(data_dir, options.name.as_deref())?;
            Ok(Opened {
                lock,
                store,
                identity,
                created: true,
                damaged_guard_slots: 0,
            })
        }
    }
}

/// A directory without a key may hold what an interrupted first start left, and nothing else.
fn refuse_foreign(data_dir: &Path) -> Result<(), StartError> {
    // Roles and tokens may be given before the first start.
    // (Keys of contents are made after the server's own. Where they are, that one was lost, which
    // the store's ledgers tell better.)
    const OURS: [&str; 16] = [
        access_file::FILE,
        access_file::LOCK,
        access_file::UNFINISHED,
        "clock-ahead",
        "clock-ahead.unfinished",
        "clock-base",
        "clock-base.unfinished",
        "clock-confirmed",
        "clock-confirmed.unfinished",
        "lock",
        "store",
        "head-guard",
        "content-keys",
        "content-guard",
        "server.key.new",
        "direct-io-probe",
    ];
    let io = |source| StartError::Io {
        path: data_dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(data_dir).map_err(io)? {
        let found = entry
            .map_err(io)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if !OURS.contains(&found.as_str()) {
            return Err(StartError::ForeignDirectory {
                path: data_dir.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

/// Everything that the port serves: gRPC with health and reflection, and tiles over HTTP.
async fn serve_all(
    (incoming, accepting): (Incoming, JoinHandle<()>),
    access: Arc<Access>,
    limits: &LimitOptions,
    context: Context,
) -> impl Future<Output = Result<(), transport::Error>> + use<> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<LedgerServer<LedgerService>>().await;
    health.set_serving::<LogServer<LogService>>().await;
    health.set_serving::<ContentServer<ContentService>>().await;
    health.set_serving::<ActionsServer<ActionsService>>().await;
    tokio::spawn(say_when_stopping(health, context.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are well-formed")
        .max_decoding_message_size(QUESTION_BYTES_MAX);
    let health_service = health_service.max_decoding_message_size(QUESTION_BYTES_MAX);
    let ledger = LedgerServer::new(LedgerService(context.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let log =
        LogServer::new(LogService(context.clone())).max_decoding_message_size(QUESTION_BYTES_MAX);
    let content = ContentServer::new(ContentService(context.clone()))
        .max_decoding_message_size(CONTENT_MESSAGE_BYTES_MAX);
    let actions = ActionsServer::new(ActionsService(context.clone()))
        .max_decoding_message_size(QUESTION_BYTES_MAX);
    let within = Duration::from_millis(limits.stall_ms);
    let stalls = Stalls::new(within);
    tokio::spawn(Arc::clone(&stalls).keep_up(context.stopping.clone()));
    let routes = Routes::from(http::router(context.clone()))
        .add_service(ledger)
        .add_service(log)
        .add_service(content)
        .add_service(actions)
        .add_service(health_service)
        .add_service(reflection);
    let mut server = transport::Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.requests_per_connection)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS_MAX))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .layer(Requests::new(Arc::clone(&context.metrics)))
        .layer(AccessLayer {
            access,
            pressure: Arc::clone(&context.pressure),
            body_within: within,
            anonymous_within: ANONYMOUS_WITHIN,
            stalls,
        });
    async move {
        let stopped = async move { context.stopped().await };
        let served = server
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stopped)
            .await;
        // Whoever waits for the server to stop may want its port.
        let _ = accepting.await;
        served
    }
}

/// Tells those who watch the server's health that it stops, and ends their watches: an open one
/// would hold the drain up to its bound.
async fn say_when_stopping(health: HealthReporter, context: Context) {
    context.stopped().await;
    health
        .set_not_serving::<LedgerServer<LedgerService>>()
        .await;
    health.set_not_serving::<LogServer<LogService>>().await;
    health
        .set_not_serving::<ContentServer<ContentService>>()
        .await;
    health
        .set_not_serving::<ActionsServer<ActionsService>>()
        .await;
    for service in [
        "",
        LEDGER_SERVICE,
        LOG_SERVICE,
        CONTENT_SERVICE,
        ACTIONS_SERVICE,
    ] {
        health.clone().clear_service_status(service).await;
    }
}
