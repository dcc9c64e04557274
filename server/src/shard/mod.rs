//! Shards: each one OS thread for a fixed share of the ledgers, and a pipeline to the disk.
//!
//! ```text
//! queue -> turn thread: step, sign, batch -> commit thread: synced write -> guard thread:
//! (bounded in bytes)                         (one synced batch a turn)     head guard, publish,
//!                                                                          answer
//! ```
//!
//! While one turn is being synced the next one is being hashed, and what arrives meanwhile waits
//! in the queue and makes that one larger: group commit without a timer. When nothing is on its
//! way and nothing waits, the turn thread takes its turn to the disk itself: two wake-ups less.
//!
//! After a write whose outcome is not known, the shard stops for good: it answers nobody, writes
//! nothing more, and tells the server, which ends. The next start reads from disk what happened.

#[cfg(test)]
mod fault_tests;
mod pipeline;
mod turn;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use bytes::Bytes;
use deed_evidence::{Micros, TaskId, assess::Assessed};
use deed_tlog::TreeSize;
use prost::Message as _;
use tokio::sync::{oneshot, watch};

use crate::{
    admission::AdmittedBatch,
    content::Reference,
    guard::{GuardError, GuardSlot, GuardedHead, SLOTS},
    ledger::{
        Ledger, Readable,
        registry::NewLedger,
        step::{Placement, Records},
    },
    metrics::Metrics,
    pressure::{
        Budget, Share, SourceKey,
        queue::{FairSender, fair_queue},
    },
    store::{
        Batch, Family, LedgerNumber, Store, StoreError, content, keys,
        records::{HeadRecord, RunRecord, SessionRecord, TrustRecord},
    },
};

use pipeline::{Line, Progress};

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
}

/// What an operator has confirmed: the clock said `clock`, and says `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) clock: Micros,
    pub(crate) now: Micros,
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Answer>,
    /// Given back when the job has been answered.
    share: Share,
    /// When it was queued.
    queued: Instant,
}

/// A job's end: on disk, under a signed and guarded head.
pub(crate) struct Answer {
    /// One for each admitted statement, in order; empty for a new ledger.
    pub(crate) placements: Vec<Placement>,
    pub(crate) batch: AdmittedBatch,
    /// What is said of them, by position in the request.
    pub(crate) assessed: Vec<(usize, Assessed)>,
    /// The head that covers them.
    pub(crate) readable: Arc<Readable>,
}

/// Why a shard has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It is stopping, or has failed: whether the job was done is not known.
    Stopped,
}

/// How shards write. Tests put faults here.
pub(crate) struct Disk {
    pub(crate) commit: CommitFn,
    pub(crate) guard: GuardFn,
}

type CommitFn = Box<dyn FnMut(Batch) -> Result<(), StoreError> + Send>;
type GuardFn = Box<dyn FnMut(&GuardedHead) -> io::Result<()> + Send>;

impl Disk {
    /// The real one.
    pub(crate) fn new(store: Arc<Store>, mut slot: GuardSlot) -> Self {
        Self {
            commit: Box::new(move |batch| store.commit(batch)),
            guard: Box::new(move |head| slot.write(head)),
        }
    }
}

/// All shards of a server.
pub(crate) struct Shards {
    shards: Vec<Shard>,
    failed: watch::Receiver<Option<Arc<str>>>,
}

struct Shard {
    /// Closed once the server stops: the turn thread ends when the queue is empty.
    queue: FairSender<Job>,
    budget: Budget,
}

/// The threads of all shards; they end after [`Shards::close`] when the queues are empty.
pub(crate) struct ShardThreads(Vec<thread::JoinHandle<()>>);

impl ShardThreads {
    /// Waits until everything that was queued is on disk and answered.
    pub(crate) fn join(self) {
        for thread in self.0 {
            // A panic in a shard has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

impl Shards {
    /// Starts `count` shards (1 to [`SLOTS`]), each with a queue of `queue_bytes`.
    pub(crate) fn start(
        data_dir: &Path,
        store: &Arc<Store>,
        count: usize,
        queue_bytes: usize,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, ShardThreads), GuardError> {
        let disks = (0..count.clamp(1, SLOTS))
            .map(|slot| {
                Ok(Disk::new(
                    Arc::clone(store),
                    GuardSlot::open(data_dir, slot)?,
                ))
            })
            .collect::<Result<Vec<_>, GuardError>>()?;
        Ok(Self::start_on(disks, store, queue_bytes, metrics))
    }

    /// As [`Shards::start`], one shard for each disk.
    pub(crate) fn start_on(
        disks: Vec<Disk>,
        store: &Arc<Store>,
        queue_bytes: usize,
        metrics: &Arc<Metrics>,
    ) -> (Self, ShardThreads) {
        let (failing, failed) = watch::channel(None);
        let failing = Arc::new(failing);
        let mut threads = Vec::new();
        let mut shards = Vec::new();
        for (number, disk) in disks.into_iter().enumerate() {
            let (queue, jobs) = fair_queue();
            let progress = Progress::new(Arc::clone(&failing));
            // One turn is on its way to the disk, one waits for it, one is being made.
            let (to_commit, commits) = mpsc::sync_channel(1);
            let (to_guard, guards) = mpsc::sync_channel(2);
            let mut spawn = |what: &str, run: Box<dyn FnOnce() + Send>| {
                let name = format!("{what}-{number}");
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
            let line = Arc::new(Line::new(disk, progress.clone(), Arc::clone(metrics)));
            let slot = u8::try_from(number).expect("there are at most 64 slots");
            let turns = turn::TurnThread::new(
                Arc::clone(store),
                progress.clone(),
                Arc::clone(&line),
                to_commit,
                slot,
                Arc::clone(metrics),
            );
            spawn("turn", Box::new(move || turns.run(jobs)));
            let committing = Arc::clone(&line);
            spawn(
                "commit",
                Box::new(move || committing.commit_all(&commits, &to_guard)),
            );
            spawn("guard", Box::new(move || line.guard_all(&guards)));
            shards.push(Shard {
                queue,
                budget: Budget::halved(queue_bytes),
            });
        }
        (Self { shards, failed }, ShardThreads(threads))
    }

    /// Bytes of the budget of a ledger's shard that jobs hold.
    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self, ledger: LedgerNumber) -> usize {
        self.shards[ledger.0 as usize % self.shards.len()]
            .budget
            .held()
    }

    /// Bytes of the budget of each shard that jobs hold.
    pub(crate) fn queue_bytes(&self) -> Vec<u64> {
        let held = |shard: &Shard| shard.budget.held() as u64;
        self.shards.iter().map(held).collect()
    }

    /// Whether a shard has failed: what is on disk beyond the guard must not be told.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Takes no more jobs. The threads end when what is queued is done.
    pub(crate) fn close(&self) {
        for shard in &self.shards {
            shard.queue.close();
        }
    }

    /// Says why once a shard has failed.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failed.clone()
    }

    /// Waits for room in the queue of a ledger's shard. Bytes beyond what one source may hold of
    /// it count as that.
    pub(crate) async fn reserve(
        &self,
        ledger: LedgerNumber,
        source: SourceKey,
        bytes: usize,
    ) -> Reservation<'_> {
        let shard = &self.shards[ledger.0 as usize % self.shards.len()];
        let share = shard.budget.take(&source, bytes.max(JOB_BYTES_MIN)).await;
        Reservation {
            shard,
            source,
            share,
        }
    }
}

/// Room in a shard's queue.
pub(crate) struct Reservation<'s> {
    shard: &'s Shard,
    source: SourceKey,
    share: Share,
}

/// A job that was handed over.
pub(crate) struct Pending(oneshot::Receiver<Answer>);

impl Reservation<'_> {
    /// Hands admitted statements over.
    pub(crate) fn append(self, ledger: Arc<Ledger>, batch: AdmittedBatch) -> Pending {
        self.submit(Work::Append(ledger, batch))
    }

    /// Lets time come to `now` in a ledger.
    pub(crate) fn tick(self, ledger: Arc<Ledger>, now: Micros) -> Pending {
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
    pub(crate) fn create(self, new: NewLedger) -> Pending {
        self.submit(Work::Create(Box::new(new)))
    }

    fn submit(self, work: Work) -> Pending {
        let (reply, answer) = oneshot::channel();
        let cost = self.share.amount();
        let job = Job {
            work,
            reply,
            share: self.share,
            queued: Instant::now(),
        };
        // If the shard has stopped, the reply is dropped and the answer says so.
        self.shard.queue.send(self.source, cost, job);
        Pending(answer)
    }
}

impl Pending {
    /// Waits for the answer.
    pub(crate) async fn answer(self) -> Result<Answer, NoAnswer> {
        self.0.await.map_err(|_| NoAnswer::Stopped)
    }

    /// The same, on a thread that may block.
    pub(crate) fn blocking_answer(self) -> Result<Answer, NoAnswer> {
        self.0.blocking_recv().map_err(|_| NoAnswer::Stopped)
    }
}

/// Adds a turn's records to the batch that will be committed.
pub(crate) fn write_records(
    store: &Store,
    batch: &mut Batch,
    ledger: LedgerNumber,
    records: &Records,
) {
    for pack in &records.packs {
        let key = keys::entries(ledger, pack.first);
        store.put(batch, Family::Entries, &key, &pack.value);
    }
    for tile in &records.tiles {
        let key = keys::tile(ledger, tile.level, tile.index);
        store.put(batch, Family::Tiles, &key, &tile.to_bytes());
    }
    for (id, session, runs) in &records.sessions {
        let last = runs.last().expect("a changed session has a run");
        let record = SessionRecord::new(session, last.first).encode_to_vec();
        store.put(batch, Family::State, &keys::session(ledger, id), &record);
        for run in runs {
            let record = RunRecord {
                first_leaf: run.first_leaf,
                count: run.count,
            };
            let key = keys::run(ledger, id, run.first);
            store.put(batch, Family::State, &key, &record.encode_to_vec());
        }
    }
    content::write_references(
        store,
        batch,
        ledger,
        records.references.iter().map(|(digest, reference)| {
            let reference = Reference {
                leaf: reference.leaf.get(),
                task: reference.task,
                received_at: reference.recorded_at,
            };
            (digest, reference)
        }),
    );
    for (digest, leaf) in &records.erased {
        content::write_tombstone(store, batch, ledger, digest, *leaf);
    }
    for (key, value) in &records.assessment.cells {
        store.put(batch, Family::State, &keys::cell(ledger, key), value);
    }
    for (due, owner) in &records.assessment.due {
        let key = keys::due(ledger, due);
        match owner {
            Some(owner) => store.put(batch, Family::State, &key, owner.as_bytes()),
            None => batch.delete(store, Family::State, &key),
        }
    }
    for (leaf, effective_time) in &records.trust_leaves {
        let record = TrustRecord {
            effective_time_us: effective_time.get(),
        };
        let key = keys::trust(ledger, *leaf);
        store.put(batch, Family::State, &key, &record.encode_to_vec());
    }
}

/// Adds a signed head to the batch that it covers.
pub(crate) fn write_head(
    store: &Store,
    batch: &mut Batch,
    ledger: LedgerNumber,
    readable: &Readable,
    keep: bool,
) {
    let record = HeadRecord {
        checkpoint: readable.checkpoint.clone(),
        effective_time_us: readable.effective_time.get(),
    }
    .encode_to_vec();
    if keep {
        let key = keys::head_at(ledger, readable.size().get());
        store.put(batch, Family::Heads, &key, &record);
    }
    store.put(batch, Family::Heads, &keys::head_latest(ledger), &record);
}

/// Adds the ledger's record to the batch if the log key is another one since the tree of `before`.
pub(crate) fn write_log_key(
    store: &Store,
    batch: &mut Batch,
    ledger: &Ledger,
    before: TreeSize,
    now: TreeSize,
) {
    if ledger.key_generation(before) != ledger.key_generation(now) {
        let record = ledger.record_at(now).encode_to_vec();
        store.put(batch, Family::Meta, &keys::ledger(ledger.name()), &record);
    }
}

/// What the guard holds of a head.
fn guarded(ledger: &Ledger, readable: &Readable) -> GuardedHead {
    GuardedHead {
        ledger: ledger.number.0,
        name: ledger.name().to_owned(),
        vkey: ledger.log_key(readable.size()).to_string(),
        checkpoint: Bytes::clone(&readable.checkpoint),
    }
}
