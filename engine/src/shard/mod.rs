//! Shards: each has a few OS threads for a fixed part of the ledgers, and a pipeline to the disk.
//!
//! ```text
//! queue -> turn threads: step, batch -> commit thread: append -> guard thread: confirm, sign,
//! (bounded in bytes)                    (one synced batch a turn) publish, answer
//! ```
//!
//! While one turn is being synced the next one is being hashed, and what arrives meanwhile waits
//! in the queue and makes that one larger: group commit without a timer. When nothing is on its
//! way and nothing waits, the turn thread takes its turn to the disk itself: two wake-ups less.
//!
//! A ledger is stepped by one thread at a time, and all of its turns go through the pipeline in
//! their order. Usually one thread makes the turns of all ledgers; the others are there for when it
//! is held up, for long batches, and for ledgers that were seen to be slow (`queue`, `schedule`,
//! `pieces`): so what one ledger is sent, another does not wait for.
//!
//! Another writer's turn may come first, where the journal is not this server's alone. Then everything that
//! was stepped and not committed is void: it is dropped, whoever waits for it is told to try again, and the
//! ledgers are read again from the store before anything is stepped on them (`Progress::epoch`).
//!
//! After a write whose outcome is not known, the shard stops for good: it answers nobody, writes
//! nothing more, and tells the server, which ends. The next start reads from disk what happened.

mod chain;
#[cfg(test)]
mod effects_tests;
#[cfg(test)]
mod fault_tests;
mod held;
#[cfg(test)]
mod isolation_tests;
pub(crate) mod journal;
#[cfg(test)]
mod journal_tests;
mod making;
mod pieces;
mod pipeline;
mod queue;
mod schedule;
mod signed_heads;
#[cfg(test)]
mod signing_tests;
mod store_reader;
#[cfg(test)]
mod superseded_tests;
mod turn;
mod void;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use deed_evidence::{Micros, TaskId, assess::Assessed};
use tokio::sync::{oneshot, watch};

use crate::{
    admission::{AdmittedBatch, Piece},
    guard::{GuardError, GuardSlot, GuardedHead, SLOTS},
    ledger::{
        Ledger, PublishedTree,
        registry::{LedgerRegistryError, NewLedger},
        step::{Confirmed, Placement},
    },
    metrics::Metrics,
    pressure::{Budget, BudgetPermit, SourceKey},
    store::{Batch, LedgerNumber, Store, StoreError},
};

use chain::Chain;
use held::AllHeld;
use journal::{Journal, LocalJournal};
use parking_lot::Mutex;
use pipeline::{CommitPipeline, Progress};
use queue::{OVERDUE, Queue, TURN_THREADS};
use schedule::Waits;
use signed_heads::SignedHeads;
pub(crate) use turn::TURN_TIME;
use turn::{TurnThread, Turns};

/// The most time that stepping a statement may take, in microseconds: a part for the statement
/// itself, and a part for each of its bytes.
const STATEMENT_WORST_US: usize = 50;
const BYTE_WORST_US: usize = 1;

/// The least that a job takes of the budget, in bytes. It bounds the number of jobs.
const JOB_BYTES_MIN: usize = 1024;

/// The work of a job.
enum Work {
    Append(Arc<Ledger>, AdmittedBatch),
    Create(Box<NewLedger>),
    /// Advances the ledger's time to this point, without a statement.
    Tick(Arc<Ledger>, Micros),
    /// Writes a receipt of a task, at this time.
    Receipt(Arc<Ledger>, TaskId, Micros),
    /// Records that an operator has confirmed the clock.
    Clock(Arc<Ledger>, Confirmed),
    /// A turn of it is void.
    Restore(Arc<Ledger>),
}

type Reply = oneshot::Sender<Result<Answer, NoAnswer>>;

struct Job {
    work: Work,
    /// `None` if nobody asked.
    reply: Option<Reply>,
    /// Given back when the job has been answered; `None` for what the shard gives to itself.
    permit: Option<BudgetPermit>,
    /// The shard's epoch, and how often the ledger's trust state was replaced, when its place was
    /// reserved: before it was admitted.
    epoch: u64,
    restorations: u64,
    /// The time at which the job was queued.
    queued: Instant,
    /// True once a turn has begun to serve the job.
    begun: bool,
    /// Placements and assessments from earlier turns, if the job was cut.
    placements: Vec<Placement>,
    assessed: Vec<(usize, Assessed)>,
}

impl Job {
    /// Returns true if nobody waits for the answer any more and no turn has begun the job.
    fn is_abandoned(&self) -> bool {
        !self.begun && self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl Work {
    fn ledger(&self) -> LedgerNumber {
        match self {
            Self::Append(ledger, _)
            | Self::Tick(ledger, _)
            | Self::Receipt(ledger, ..)
            | Self::Clock(ledger, _)
            | Self::Restore(ledger) => ledger.number,
            Self::Create(new) => new.ledger.number,
        }
    }

    /// Returns true if the work contains a batch under one manifest, which cannot be cut, and
    /// stepping that batch may take so long that it would hold up other ledgers in the same turn. A
    /// ledger with such work is not served in shared turns, so any number of ledgers may have some
    /// at once.
    fn is_heavy(&self) -> bool {
        let Self::Append(_, batch) = self else {
            return false;
        };
        let worst = |count: usize| count * STATEMENT_WORST_US + batch.byte_len() * BYTE_WORST_US;
        let is_long = |count: usize| worst(count) as u128 > OVERDUE.as_micros();
        // Most requests are too short even as a whole.
        is_long(batch.payloads().count())
            && batch.pieces().iter().any(|piece| match piece {
                Piece::Batch(group) => is_long(group.members.len()),
                Piece::Single(..) => false,
            })
    }
}

/// The result of a job, once it is on disk under a signed and guarded head.
pub struct Answer {
    /// One placement for each admitted statement, in order, or for the receipt; other jobs have
    /// none.
    pub placements: Vec<Placement>,
    pub batch: AdmittedBatch,
    /// The assessments of statements, each with the position of its envelope in the request.
    pub assessed: Vec<(usize, Assessed)>,
    /// The published tree that covers the placements.
    pub readable: Arc<PublishedTree>,
}

/// The reason why a shard gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// The shard is stopping or has failed. It is unknown whether the job was done.
    Stopped,
    /// Another writer's turn came first. What of the job was not recorded in turns before is not
    /// recorded; the same may be sent again.
    Superseded,
}

impl From<NoAnswer> for LedgerRegistryError {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Stopped => Self::Stopped,
            NoAnswer::Superseded => Self::Superseded,
        }
    }
}

/// The writes of a server's own journal. Tests put faults here.
pub struct Disk {
    pub commit: CommitFn,
    pub guard: GuardFn,
}

type CommitFn = Box<dyn FnMut(Batch) -> Result<(), StoreError> + Send>;
type GuardFn = Box<dyn FnMut(&GuardedHead) -> io::Result<()> + Send>;

impl Disk {
    /// Makes a disk that commits to `store` and writes guarded heads to `slot`.
    pub fn new(store: Arc<Store>, mut slot: GuardSlot) -> Self {
        Self {
            commit: Box::new(move |batch| store.commit(batch)),
            guard: Box::new(move |head| slot.write(head)),
        }
    }
}

/// All shards of a server.
pub struct Shards {
    shards: Vec<Shard>,
    interrupted: Arc<AtomicBool>,
    superseded: Arc<AtomicU64>,
    failed: watch::Receiver<Option<Arc<str>>>,
}

struct Shard {
    /// Closed by [`Shards::stop`], which ends the turn threads.
    queue: Arc<Queue<Job>>,
    progress: Progress,
    budget: Budget,
}

/// The reason why a shard does not serve quick ledgers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// A turn has been on its way to the disk for this long.
    Disk { shard: usize, since: Duration },
    /// A quick ledger has waited for this long, because of turns in work.
    Turns { shard: usize, since: Duration },
}

/// The threads of all shards; they end after [`Shards::stop`].
pub struct ShardThreads(Vec<thread::JoinHandle<()>>);

impl ShardThreads {
    /// Waits until the threads have ended: then every turn that was in work is on disk and
    /// answered.
    pub fn join(self) {
        for thread in self.0 {
            // A panic in a shard has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

impl Shards {
    /// Starts `count` shards (1 to [`SLOTS`]), each with a queue of `queue_bytes`.
    pub fn start(
        data_dir: &Path,
        store: &Arc<Store>,
        count: usize,
        queue_bytes: usize,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, ShardThreads), GuardError> {
        let journals = (0..=u8::MAX)
            .take(count.clamp(1, SLOTS))
            .map(|partition| {
                let slot = GuardSlot::open(data_dir, usize::from(partition))?;
                let disk = Disk::new(Arc::clone(store), slot);
                let journal = LocalJournal::new(Arc::clone(store), partition, disk);
                Ok(Box::new(journal) as Box<dyn Journal>)
            })
            .collect::<Result<Vec<_>, GuardError>>()?;
        Ok(Self::start_on(
            journals,
            store,
            queue_bytes,
            TURN_TIME,
            metrics,
        ))
    }

    /// As [`Shards::start`], one shard for each journal, in the order of their partitions, with turns of
    /// `turn_time`.
    pub(crate) fn start_on(
        journals: Vec<Box<dyn Journal>>,
        store: &Arc<Store>,
        queue_bytes: usize,
        turn_time: Duration,
        metrics: &Arc<Metrics>,
    ) -> (Self, ShardThreads) {
        let (failing, failed) = watch::channel(None);
        let failing = Arc::new(failing);
        let interrupted = Arc::new(AtomicBool::new(false));
        let superseded = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        let mut shards = Vec::new();
        for (number, journal) in journals.into_iter().enumerate() {
            let queue = Arc::new(Queue::new());
            let progress = Progress::new(Arc::clone(&failing), Arc::clone(&superseded));
            // One turn is on its way to the disk, one waits for that, and one is being made.
            let (to_commit, commits) = mpsc::sync_channel(1);
            let (to_guard, guards) = mpsc::sync_channel(2);
            let mut spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
                let progress = progress.clone();
                let thread = thread::Builder::new()
                    .name(name.clone())
                    .spawn(move || {
                        // A panic must stop the server, rather than leave it running without a
                        // shard. Nobody reads the thread's data afterwards, so unwind safety does
                        // not matter.
                        if catch_unwind(AssertUnwindSafe(run)).is_err() {
                            progress.fail(&format!("thread {name} panicked"));
                        }
                    })
                    .expect("the system can start a thread");
                threads.push(thread);
            };
            let slot = u8::try_from(number).expect("there are at most 64 slots");
            let chain = Chain::new(Arc::clone(store), slot);
            let pipeline = Arc::new(CommitPipeline::new(
                journal,
                chain,
                SignedHeads::new(Arc::clone(store)),
                Arc::clone(&queue),
                progress.clone(),
                Arc::clone(metrics),
            ));
            let turns = Arc::new(Turns {
                store: Arc::clone(store),
                queue: Arc::clone(&queue),
                progress: progress.clone(),
                pipeline: Arc::clone(&pipeline),
                slot,
                metrics: Arc::clone(metrics),
                turn_time,
                interrupted: Arc::clone(&interrupted),
                held: Mutex::new(AllHeld::default()),
                handing: Mutex::new(()),
            });
            for thread in 0..TURN_THREADS {
                let turns = TurnThread {
                    shared: Arc::clone(&turns),
                    next: to_commit.clone(),
                };
                let run = Box::new(move || turns.run());
                spawn(format!("turn-{number}-{thread}"), run);
            }
            // The commit thread ends when the last sender is dropped.
            drop(to_commit);
            let committing = Arc::clone(&pipeline);
            spawn(
                format!("commit-{number}"),
                Box::new(move || committing.commit_all(&commits, &to_guard)),
            );
            spawn(
                format!("guard-{number}"),
                Box::new(move || pipeline.guard_all(&guards)),
            );
            shards.push(Shard {
                queue,
                progress,
                budget: Budget::reserving(queue_bytes),
            });
        }
        let shards = Self {
            shards,
            interrupted,
            superseded,
            failed,
        };
        (shards, ShardThreads(threads))
    }

    /// Returns the bytes that jobs hold of the budget of the ledger's shard.
    #[cfg(test)]
    pub fn waiting_bytes(&self, ledger: &Ledger) -> usize {
        self.shards[ledger.partition.index()].budget.held()
    }

    /// Returns the bytes that jobs hold of each shard's budget.
    pub fn queue_bytes(&self) -> Vec<u64> {
        let held = |shard: &Shard| shard.budget.held() as u64;
        self.shards.iter().map(held).collect()
    }

    /// Returns true if a shard has failed. Then nobody may be told of records on disk that the head
    /// guard does not cover.
    pub fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Takes no more jobs, drops those that wait, and returns their number. The threads end when
    /// the turns in work are done.
    pub fn stop(&self) -> usize {
        self.shards.iter().map(|shard| shard.queue.stop()).sum()
    }

    /// Stops the shards, and also gives up turns that are in the middle of a batch, which is
    /// recorded whole or not at all. Turns on their way to the disk still get there.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Relaxed);
        self.stop();
    }

    /// Returns what has kept a shard from serving quick ledgers for `bound` or longer, if anything
    /// has. (Ledgers with long batches or slow statements hold up no others, so their waits do not
    /// count.)
    pub fn stuck(&self, bound: Duration) -> Option<Stuck> {
        let long = |since: Option<Instant>| {
            let since = since?.elapsed();
            (since >= bound).then_some(since)
        };
        self.shards.iter().enumerate().find_map(|(shard, one)| {
            let disk = long(one.progress.waiting_since());
            let turns = || long(one.queue.waiting_since());
            disk.map(|since| Stuck::Disk { shard, since })
                .or_else(|| turns().map(|since| Stuck::Turns { shard, since }))
        })
    }

    /// Returns the number of turns in work that are not handed over yet.
    #[cfg(test)]
    pub(crate) fn turns_in_work(&self) -> usize {
        let in_work = self.shards.iter().map(|shard| shard.queue.turns_in_work());
        in_work.sum()
    }

    /// Returns how long the oldest turn in work of all shards has taken so far.
    pub fn oldest_turn(&self) -> Duration {
        let since = self
            .shards
            .iter()
            .filter_map(|one| one.queue.in_work_since());
        since.min().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Returns the number of ledgers that get turns of their own, because they have long batches or
    /// were seen to be slow.
    pub fn slow_ledgers(&self) -> u64 {
        let slow = self
            .shards
            .iter()
            .map(|one| one.queue.slow_ledgers() as u64);
        slow.sum()
    }

    /// Returns a watch that holds the reason once a shard has failed.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failed.clone()
    }

    /// Returns how many turns were superseded so far. A caller that sends in order notes it when it begins,
    /// and gives it to [`AppendService::begin`](crate::append::AppendService::begin) with each request.
    pub fn superseded(&self) -> u64 {
        self.superseded.load(SeqCst)
    }

    /// Waits for `bytes` of the budget of the ledger's shard. One ledger holds half of it at most;
    /// a request for more than that waits for that much.
    pub async fn reserve(
        &self,
        ledger: &Ledger,
        source: SourceKey,
        bytes: usize,
    ) -> Reservation<'_> {
        // A ledger is loaded only if its partition has a shard.
        let shard = &self.shards[ledger.partition.index()];
        let bytes = bytes.max(JOB_BYTES_MIN);
        let key = SourceKey::Ledger(ledger.number);
        let permit = shard.budget.take(&key, bytes).await;
        let epoch = shard.progress.epoch();
        Reservation {
            shard,
            source,
            permit,
            epoch,
            // After the epoch: if that is the new one, so is this.
            superseded: self.superseded(),
            restorations: ledger.restorations(),
        }
    }
}

/// A job's part of the budget of its shard, taken before the job is submitted.
pub struct Reservation<'s> {
    shard: &'s Shard,
    source: SourceKey,
    permit: BudgetPermit,
    epoch: u64,
    /// [`Shards::superseded`] when the place was reserved.
    pub(crate) superseded: u64,
    restorations: u64,
}

/// A job that was submitted, and whose answer is to come.
pub struct Pending(oneshot::Receiver<Result<Answer, NoAnswer>>);

impl Reservation<'_> {
    /// Submits the admitted statements of a request that was received at `received`.
    pub(crate) fn append(
        self,
        ledger: Arc<Ledger>,
        batch: AdmittedBatch,
        received: Instant,
    ) -> Pending {
        self.submit_received(Work::Append(ledger, batch), received)
    }

    /// Submits an advance of the ledger's time to `now`.
    pub fn tick(self, ledger: Arc<Ledger>, now: Micros) -> Pending {
        self.submit(Work::Tick(ledger, now))
    }

    /// Submits a request for a receipt of `task`. The answer has one placement, or none if the
    /// ledger has no such task.
    pub(crate) fn receipt(self, ledger: Arc<Ledger>, task: TaskId, now: Micros) -> Pending {
        self.submit(Work::Receipt(ledger, task, now))
    }

    /// Submits an operator's confirmation of the clock. The ledger records it if it is news there.
    pub(crate) fn clock(self, ledger: Arc<Ledger>, confirmed: Confirmed) -> Pending {
        self.submit(Work::Clock(ledger, confirmed))
    }

    /// Submits a new ledger.
    pub fn create(self, new: NewLedger) -> Pending {
        self.submit(Work::Create(Box::new(new)))
    }

    fn submit(self, work: Work) -> Pending {
        self.submit_received(work, Instant::now())
    }

    fn submit_received(self, work: Work, received: Instant) -> Pending {
        let (reply, answer) = oneshot::channel();
        let (ledger, is_heavy) = (work.ledger(), work.is_heavy());
        let job = Job {
            work,
            reply: Some(reply),
            permit: Some(self.permit),
            epoch: self.epoch,
            restorations: self.restorations,
            queued: Instant::now(),
            begun: false,
            placements: Vec::new(),
            assessed: Vec::new(),
        };
        // A stopped shard drops the job and its reply, and then the receiver reports that.
        let waits = Waits {
            item: job,
            is_heavy,
            received,
            begun: false,
        };
        self.shard.queue.push(ledger, self.source, waits);
        Pending(answer)
    }
}

impl Pending {
    /// Waits for the answer.
    pub async fn answer(self) -> Result<Answer, NoAnswer> {
        self.0.await.unwrap_or(Err(NoAnswer::Stopped))
    }

    /// Waits for the answer, on a thread that may block.
    pub fn blocking_answer(self) -> Result<Answer, NoAnswer> {
        self.0.blocking_recv().unwrap_or(Err(NoAnswer::Stopped))
    }
}
