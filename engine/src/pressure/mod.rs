//! Pressure: bounds on what callers can make the server hold, and the order in which they get room.
//!
//! An append request holds permits of four budgets of bytes from its arrival until it is answered.
//! It takes them in a fixed order, from the budget that fewest requests share to the one that all
//! share:
//!
//! ```text
//! connection -> ledger -> shard -> server
//! ```
//!
//! A request that waits for one permit holds only those before it, and the holders of the last one
//! wait for nothing but the disk. So there is no cycle, and some request always goes on. A backlog
//! of one ledger, or of one shard, waits before it takes anything that others need.
//!
//! The requests of a connection share its budget as they come; no source has more than half of a
//! ledger's or of the server's budget, and no ledger more than half of a shard's. An eighth of each
//! of these is kept for sources, or ledgers, that hold nothing of it.
//!
//! The time that a request waits is bounded in all, and so are the bytes of requests that wait.

pub mod answers;
mod budget;
#[cfg(test)]
mod budget_tests;
mod drr;
pub mod places;
pub mod quota;
pub mod undecoded;

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use budget::{Budget, BudgetPermit};
pub use places::Place;

use crate::{options::LimitOptions, store::LedgerNumber};
use answers::{AnswerPermit, Answers};
use places::{Bounds, Places};
use quota::{Quotas, Ticks};
use undecoded::Undecoded;

/// Time that a request waits for room in its shard's queue, unless a test sets another one.
pub const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// Time after which a caller may try again that found no room.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Streams of reads (entries, heads, trust) that one connection may have open. Each holds at most
/// one message that its reader has not taken.
const READ_STREAMS_PER_CONNECTION: usize = 32;

/// Time after which a caller may try again that was refused an append stream: only the end of
/// another stream makes room.
const STREAMS_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Unused ledgers whose budgets are kept.
const UNUSED_LEDGERS_MAX: usize = 1024;

/// The origin of requests, for sharing out room.
#[derive(Debug, Clone)]
pub struct Source {
    /// The connection's number, unique in this process; 0 for none.
    pub id: u64,
    /// The connection's budget, of `LimitOptions::connection_bytes`.
    pub budget: Arc<Semaphore>,
    /// Principal of the caller; `None` if it is not known.
    pub principal: Option<Arc<str>>,
    /// True if access control is on and the caller shows no credential.
    pub anonymous: bool,
    /// The network of the host that the caller uses: the address, or the first 64 bits of an IPv6 address.
    pub network: IpAddr,
}

/// The unit among which room is shared out. A principal counts once, however many connections it
/// opens, and so does an address of anonymous callers. Where access control is off, each connection
/// counts once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKey {
    Principal(Arc<str>),
    /// All anonymous callers from this address.
    Address(IpAddr),
    Connection(u64),
    /// The server itself.
    Server,
    /// All callers who write to a ledger, where ledgers share room.
    Ledger(LedgerNumber),
}

impl SourceKey {
    /// Returns true for anonymous callers.
    pub(crate) fn is_stranger(&self) -> bool {
        matches!(self, Self::Address(_))
    }
}

impl Source {
    pub fn key(&self) -> SourceKey {
        match &self.principal {
            Some(principal) => SourceKey::Principal(Arc::clone(principal)),
            None if self.anonymous => SourceKey::Address(self.network),
            None => SourceKey::Connection(self.id),
        }
    }
}

/// The budgets and quotas of a server.
#[derive(Debug)]
pub struct Pressure {
    connection_bytes: usize,
    ledger_bytes: usize,
    ledgers: Mutex<HashMap<LedgerNumber, Budget>>,
    server: Budget,
    /// Bytes of requests that are decoded and still wait for room.
    arriving: Budget,
    /// Places for reads that run at once.
    pub reads: Budget,
    /// Places for long requests that are checked at once, on threads that serve no connections.
    pub(crate) admissions: Budget,
    /// Places for chunks of signatures that are verified at once, on the same threads.
    pub(crate) verifications: Budget,
    pub quotas: Arc<Quotas>,
    /// Bytes of incomplete messages.
    undecoded: Budget,
    /// Places for open append streams.
    append_streams: Budget,
    append_streams_refused: AtomicU64,
    /// Bytes of answers that are made and not taken.
    answers: Answers,
    /// Places for streams of reads: of entries, heads, findings, contents, trust.
    pub read_streams: Arc<Places>,
    /// Source of requests that came over no known connection.
    unknown: Source,
}

/// There is no room, and the requests that wait for some have as many bytes as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

/// A bound of the server is reached, for this caller or for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitReached {
    pub what: String,
    pub retry_after: Duration,
}

/// The permits that a request holds until it is answered, besides its reservation in the shard's
/// queue.
#[derive(Debug)]
pub struct AppendPermit {
    connection: Option<OwnedSemaphorePermit>,
    ledger: BudgetPermit,
    server: BudgetPermit,
}

impl Pressure {
    pub fn new(limits: &LimitOptions, ticks: Arc<dyn Ticks>) -> Self {
        let connection_bytes = limits.connection_bytes.clamp(1, Semaphore::MAX_PERMITS);
        let server_bytes = limits.server_bytes.max(1);
        let processors = std::thread::available_parallelism().map_or(2, NonZero::get);
        Self {
            connection_bytes,
            ledger_bytes: limits.ledger_bytes.max(1),
            ledgers: Mutex::default(),
            server: Budget::reserving(server_bytes),
            arriving: Budget::with_reserve(server_bytes, server_bytes / 4, server_bytes / 8),
            reads: Budget::of_places(limits.reads.max(1), limits.reads / 2),
            // A long request is checked in one go, so one source has half of the processors at
            // most. Chunks of signatures are short.
            admissions: Budget::of_places(processors.max(2), processors / 2),
            verifications: Budget::of_places(processors, processors),
            quotas: Arc::new(Quotas::new(limits.quota.clone(), ticks)),
            undecoded: undecoded::budget(server_bytes),
            append_streams: Budget::with_reserve(
                limits.append_streams,
                limits.append_streams / 4,
                limits.append_streams / 8,
            ),
            append_streams_refused: AtomicU64::new(0),
            answers: Answers::new(limits.answers_bytes, Duration::from_millis(limits.stall_ms)),
            read_streams: Places::new(
                "streams of reads",
                Bounds::shared(limits.read_streams, READ_STREAMS_PER_CONNECTION),
            ),
            unknown: Source {
                id: 0,
                budget: Arc::new(Semaphore::new(server_bytes.min(Semaphore::MAX_PERMITS))),
                principal: None,
                anonymous: false,
                network: std::net::Ipv4Addr::UNSPECIFIED.into(),
            },
        }
    }

    /// Returns the source of requests that came over no connection, such as those of tests.
    pub fn unknown(&self) -> Source {
        self.unknown.clone()
    }

    /// Counts the bytes of a request's messages that have begun and are not complete.
    pub fn undecoded(&self, connection: Arc<Semaphore>, source: SourceKey) -> Undecoded {
        Undecoded::new(&self.undecoded, connection, source)
    }

    /// Returns the bytes of all incomplete messages.
    #[doc(hidden)]
    pub fn undecoded_bytes(&self) -> usize {
        self.undecoded.held()
    }

    /// Waits for the permits of a request of `bytes` bytes; `shard` waits for its reservation in
    /// the shard's queue. Dropping the future gives back what it has taken.
    ///
    /// # Errors
    /// [`Overloaded`], at once, if too many bytes wait already.
    pub async fn room<P>(
        &self,
        source: &Source,
        ledger: LedgerNumber,
        bytes: usize,
        shard: impl Future<Output = P>,
    ) -> Result<(AppendPermit, P), Overloaded> {
        let key = source.key();
        let arriving = self.arriving.try_take(&key, bytes).ok_or(Overloaded)?;
        let permits = bytes.clamp(1, self.connection_bytes);
        let connection = Arc::clone(&source.budget)
            .acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX))
            .await
            // A closed budget belongs to a connection that is gone.
            .map_err(|_| Overloaded)?;
        let ledger = self.ledger(ledger).take(&key, bytes).await;
        let place = shard.await;
        let server = self.server.take(&key, bytes).await;
        drop(arriving);
        let room = AppendPermit {
            connection: Some(connection),
            ledger,
            server,
        };
        Ok((room, place))
    }

    /// Returns the room for one answer to a source.
    pub fn answer_room(&self, source: SourceKey) -> AnswerPermit {
        self.answers.room(source)
    }

    /// Returns the budget of answers, for `/metrics`.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Takes a place for a stream of reads, of one ledger or of none.
    ///
    /// # Errors
    /// [`LimitReached`] if there is none.
    pub fn open_read_stream(
        &self,
        source: &Source,
        ledger: Option<LedgerNumber>,
    ) -> Result<Place, LimitReached> {
        self.read_streams.take(source, ledger)
    }

    /// Counts an append stream until the returned value is dropped.
    ///
    /// # Errors
    /// [`LimitReached`] if there are as many as there may be, of this source or of all.
    pub fn open_append_stream(&self, source: &Source) -> Result<BudgetPermit, LimitReached> {
        self.append_streams
            .try_take(&source.key(), 1)
            .ok_or_else(|| {
                self.append_streams_refused.fetch_add(1, Relaxed);
                LimitReached {
                    what: "too many append streams are open, of yours or of all callers' \
                           (limits.append_streams); end one that is idle, or send with Append"
                        .to_owned(),
                    retry_after: STREAMS_RETRY_AFTER,
                }
            })
    }

    /// Returns the number of append streams that were refused because there were too many.
    pub fn append_streams_refused(&self) -> u64 {
        self.append_streams_refused.load(Relaxed)
    }

    fn ledger(&self, number: LedgerNumber) -> Budget {
        let mut ledgers = self.ledgers.lock();
        if ledgers.len() >= UNUSED_LEDGERS_MAX && !ledgers.contains_key(&number) {
            ledgers.retain(|_, budget| !budget.is_unused());
        }
        ledgers
            .entry(number)
            .or_insert_with(|| Budget::reserving(self.ledger_bytes))
            .clone()
    }

    /// Returns the bytes that all requests hold.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.server.held()
    }
}

impl AppendPermit {
    /// Keeps only the part for an answer of `bytes` bytes, which is not taken yet: the request
    /// itself is gone, and no longer counts for its ledger.
    pub fn answered(&mut self, bytes: usize) {
        self.ledger.shrink(0);
        self.server.shrink(bytes);
        if let Some(permit) = &mut self.connection {
            let beyond = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(beyond));
        }
    }
}
