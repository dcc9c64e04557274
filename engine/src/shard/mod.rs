//! Shards: each a few OS threads for a fixed share of the ledgers, and a pipeline to the disk.
//!
//! ```text
//! queue -> turn threads: step, sign, batch -> commit thread: append -> guard thread: confirm,
//! (bounded in bytes)                          (one synced batch a turn) publish, answer
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
mod past;
mod pieces;
mod pipeline;
mod queue;
mod schedule;
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

use bytes::Bytes;
use deed_evidence::{Micros, TaskId, assess::Assessed};
use tokio::sync::{oneshot, watch};

use crate::{
    admission::{AdmittedBatch, Kind},
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
pub(crate) use turn::TURN_TIME;
use turn::{TurnThread, Turns};

/// The most that a statement may take to step: a time for itself, and a time for each of its bytes.
const STATEMENT_WORST_US: usize = 50;
const BYTE_WORST_US: usize = 1;

/// What a job costs at least of the budget, in bytes: so many bytes, so many jobs at most.
const JOB_BYTES_MIN: usize = 1024;

/// What a shard does for somebody.
enum Work {
    Append(Arc<Ledger>, AdmittedBatch),
    Create(Box<NewLedger>),
    /// Time has come to this point, and nobody says anything.
    Tick(Arc<Ledger>, Micros),
    /// A receipt of a task, at this time.
    Receipt(Arc<Ledger>, TaskId, Micros),
    /// An operator has confirmed the clock.
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
    share: Option<BudgetPermit>,
    /// The shard's epoch, and how often the ledger's trust state was replaced, when its place was
    /// reserved: before it was admitted.
    epoch: u64,
    restorations: u64,
    /// When it was queued.
    queued: Instant,
    /// Whether a turn has served it.
    begun: bool,
    /// What was placed and said in turns before, if it was cut.
    placements: Vec<Placement>,
    assessed: Vec<(usize, Assessed)>,
}

impl Job {
    /// Whether nobody waits for it any more, and nothing of it was begun.
    fn is_abandoned(&self) -> bool {
        !self.begun && self.reply.as_ref().is_some_and(Reply::is_closed)
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

    /// Whether a piece of it, which cannot be cut, may take so long that those who share a turn with it
    /// would be held up. If it never does, any number of ledgers have such ones at once and hold up
    /// nobody else.
    fn is_heavy(&self) -> bool {
        let Self::Append(_, batch) = self else {
            return false;
        };
        let statements = batch.statements();
        let worst = |count: usize| count * STATEMENT_WORST_US + batch.byte_len() * BYTE_WORST_US;
        let is_long = |count: usize| worst(count) as u128 > OVERDUE.as_micros();
        // Most requests are not long enough as a whole.
        is_long(statements.len())
            && statements.iter().any(|statement| match &statement.kind {
                Kind::Manifest(step) => is_long(step.count.get() as usize),
                Kind::Statement | Kind::Trust(_) => false,
            })
    }
}

/// A job's end: on disk, under a signed and guarded head.
pub struct Answer {
    /// One for each admitted statement, in order; empty for a new ledger.
    pub placements: Vec<Placement>,
    pub batch: AdmittedBatch,
    /// What is said of them, by position in the request.
    pub assessed: Vec<(usize, Assessed)>,
    /// The head that covers them.
    pub readable: Arc<PublishedTree>,
}

/// Why a shard has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is stopping, or has failed: whether the job was done is not known.
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
    /// The real one.
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
    /// Stopped when the server ends: the turn threads end then.
    queue: Arc<Queue<Job>>,
    progress: Progress,
    budget: Budget,
}

/// What keeps a shard from serving ledgers that ask for little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// A turn on its way to the disk.
    Disk { shard: usize, since: Duration },
    /// Turns in work: a ledger has waited for so long.
    Turns { shard: usize, since: Duration },
}

/// The threads of all shards; they end after [`Shards::stop`].
pub struct ShardThreads(Vec<thread::JoinHandle<()>>);

impl ShardThreads {
    /// Waits until everything that was queued is on disk and answered.
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
            // One turn is on its way to the disk, one waits for it, one is being made.
            let (to_commit, commits) = mpsc::sync_channel(1);
            let (to_guard, guards) = mpsc::sync_channel(2);
            let mut spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
                let progress = progress.clone();
                let thread = thread::Builder::new()
                    .name(name.clone())
                    .spawn(move || {
                        // A defect must stop the server, not leave it up without a shard. What the
                        // thread held is never looked at again.
                        if catch_unwind(AssertUnwindSafe(run)).is_err() {
                            progress.fail(&format!("thread {name} panicked"));
                        }
                    })
                    .expect("the system can start a thread");
                threads.push(thread);
            };
            let slot = u8::try_from(number).expect("there are at most 64 slots");
            let chain = Chain::new(Arc::clone(store), slot);
            let line = Arc::new(CommitPipeline::new(
                journal,
                chain,
                Arc::clone(&queue),
                progress.clone(),
                Arc::clone(metrics),
            ));
            let turns = Arc::new(Turns {
                store: Arc::clone(store),
                queue: Arc::clone(&queue),
                progress: progress.clone(),
                line: Arc::clone(&line),
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
            // The commit thread ends when the last of these does.
            drop(to_commit);
            let committing = Arc::clone(&line);
            spawn(
                format!("commit-{number}"),
                Box::new(move || committing.commit_all(&commits, &to_guard)),
            );
            spawn(
                format!("guard-{number}"),
                Box::new(move || line.guard_all(&guards)),
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

    /// Bytes of the budget of a ledger's shard that jobs hold.
    #[cfg(test)]
    pub fn waiting_bytes(&self, ledger: &Ledger) -> usize {
        self.shards[ledger.partition.index()].budget.held()
    }

    /// Bytes of the budget of each shard that jobs hold.
    pub fn queue_bytes(&self) -> Vec<u64> {
        let held = |shard: &Shard| shard.budget.held() as u64;
        self.shards.iter().map(held).collect()
    }

    /// Whether a shard has failed: what is on disk beyond the guard must not be told.
    pub fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Takes no more jobs, and refuses those that no turn has begun. The threads end when the turns
    /// in work are done. Returns how many were refused.
    pub fn stop(&self) -> usize {
        self.shards.iter().map(|shard| shard.queue.stop()).sum()
    }

    /// Gives up turns in work that are in the middle of a batch, which is recorded whole or not at
    /// all, and takes nothing more. What is on its way to the disk still gets there.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Relaxed);
        self.stop();
    }

    /// What has kept a shard, for `bound` or longer, from serving ledgers that ask for little. (What
    /// ledgers with long batches or slow statements wait for, others do not.)
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

    /// Turns that are in work and not handed over yet.
    #[cfg(test)]
    pub(crate) fn turns_in_work(&self) -> usize {
        let in_work = self.shards.iter().map(|shard| shard.queue.turns_in_work());
        in_work.sum()
    }

    /// How long the oldest turn is in work that is not handed over yet, of all shards.
    pub fn oldest_turn(&self) -> Duration {
        let since = self
            .shards
            .iter()
            .filter_map(|one| one.queue.in_work_since());
        since.min().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Ledgers that get turns of their own, for they have long batches or were seen to be slow.
    pub fn slow_ledgers(&self) -> u64 {
        let slow = self
            .shards
            .iter()
            .map(|one| one.queue.slow_ledgers() as u64);
        slow.sum()
    }

    /// Says why once a shard has failed.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failed.clone()
    }

    /// Returns how many turns were superseded so far. A caller that sends in order notes it when it begins,
    /// and gives it to [`AppendService::begin`](crate::append::AppendService::begin) with each request.
    pub fn superseded(&self) -> u64 {
        self.superseded.load(SeqCst)
    }

    /// Waits for room in the queue of a ledger's shard, of which one ledger holds half at most.
    /// Bytes beyond that count as that.
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
        let share = shard.budget.take(&key, bytes).await;
        let epoch = shard.progress.epoch();
        Reservation {
            shard,
            source,
            share,
            epoch,
            // After the epoch: if that is the new one, so is this.
            superseded: self.superseded(),
            restorations: ledger.restorations(),
        }
    }
}

/// Room in a shard's queue.
pub struct Reservation<'s> {
    shard: &'s Shard,
    source: SourceKey,
    share: BudgetPermit,
    epoch: u64,
    /// [`Shards::superseded`] when the place was reserved.
    pub(crate) superseded: u64,
    restorations: u64,
}

/// A job that was handed over.
pub struct Pending(oneshot::Receiver<Result<Answer, NoAnswer>>);

impl Reservation<'_> {
    /// Hands admitted statements over, which were received at `received`.
    pub(crate) fn append(
        self,
        ledger: Arc<Ledger>,
        batch: AdmittedBatch,
        received: Instant,
    ) -> Pending {
        self.submit_received(Work::Append(ledger, batch), received)
    }

    /// Lets time come to `now` in a ledger.
    pub fn tick(self, ledger: Arc<Ledger>, now: Micros) -> Pending {
        self.submit(Work::Tick(ledger, now))
    }

    /// Asks for a receipt of a task: the answer has one placement, or none if there is no such task.
    pub(crate) fn receipt(self, ledger: Arc<Ledger>, task: TaskId, now: Micros) -> Pending {
        self.submit(Work::Receipt(ledger, task, now))
    }

    /// Has it noted in a ledger that an operator has confirmed the clock, if that is news there.
    pub(crate) fn clock(self, ledger: Arc<Ledger>, confirmed: Confirmed) -> Pending {
        self.submit(Work::Clock(ledger, confirmed))
    }

    /// Hands a new ledger over.
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
            share: Some(self.share),
            epoch: self.epoch,
            restorations: self.restorations,
            queued: Instant::now(),
            begun: false,
            placements: Vec::new(),
            assessed: Vec::new(),
        };
        // If the shard has stopped, the reply is dropped and the answer says so.
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

    /// The same, on a thread that may block.
    pub fn blocking_answer(self) -> Result<Answer, NoAnswer> {
        self.0.blocking_recv().unwrap_or(Err(NoAnswer::Stopped))
    }
}

/// What the guard holds of a head.
fn guarded(ledger: &Ledger, readable: &PublishedTree) -> GuardedHead {
    GuardedHead {
        ledger: ledger.number.0,
        name: ledger.name().to_owned(),
        vkey: ledger.log_key(readable.size()).to_string(),
        checkpoint: Bytes::clone(&readable.checkpoint),
        // Known when the turn is written.
        ..GuardedHead::default()
    }
}
