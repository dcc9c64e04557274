//! The way from a finished turn to its answers: commit, guard, sign and publish, answer. Strictly in this
//! order.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, SyncSender},
    },
    time::Instant,
};

use deed_evidence::assess::Assessed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::{
    Answer, Job, NoAnswer, Reply,
    chain::Chain,
    journal::{Appended, Journal},
    queue::Queue,
    signed_heads::{SignedHead, SignedHeads},
    void::restore_soon,
};
use crate::{
    admission::AdmittedBatch,
    guard::GuardedHead,
    ledger::{Ledger, Tree, step::Placement},
    metrics::{Assessments, Metrics, Stage, Synced},
    pressure::BudgetPermit,
    store::{Batch, LedgerNumber},
};

/// A turn that is finished but for the writes to the disk.
pub(super) struct CommittableTurn {
    /// [`Progress::epoch`] when it was begun.
    pub(super) epoch: u64,
    pub(super) batch: Batch,
    /// The ledgers that the turn changed, each with its new tree, which is signed and published when the
    /// turn is guarded.
    pub(super) changed: Vec<(Arc<Ledger>, Arc<Tree>)>,
    /// The ledgers that it stepped and did not change.
    pub(super) unchanged: Vec<Arc<Ledger>>,
    /// The newest head, for the head guard; `None` if no ledger changed.
    pub(super) guarded: Option<GuardedHead>,
    pub(super) answers: Vec<PendingReply>,
    /// Number of leaves that the turn adds, for the metrics.
    pub(super) leaves: u64,
    pub(super) entry_bytes: u64,
    pub(super) assessments: Assessments,
    /// The time at which the last stage ended.
    pub(super) since: Instant,
    /// It, or one that it rests on, was superseded: nothing of it is recorded.
    pub(super) is_void: bool,
}

impl CommittableTurn {
    /// Ends a stage, and counts its time.
    fn passed(&mut self, metrics: &Metrics, stage: Stage) {
        let now = Instant::now();
        metrics.stage(stage, now - self.since);
        self.since = now;
    }
}

/// An answer that is sent when its turn is committed and guarded.
pub(super) struct PendingReply {
    /// `None` if nobody asked.
    pub(super) reply: Option<Reply>,
    /// The ledger whose published tree the answer will have.
    pub(super) ledger: Arc<Ledger>,
    pub(super) placements: Vec<Placement>,
    pub(super) batch: AdmittedBatch,
    pub(super) assessed: Vec<(usize, Assessed)>,
    pub(super) permit: Option<BudgetPermit>,
}

/// The progress of a shard's pipeline, and its failure. Turns are numbered in the order in which
/// they are handed over, which is the order in which they reach the disk.
#[derive(Clone)]
pub(crate) struct Progress {
    inner: Arc<Inner>,
    failing: Arc<watch::Sender<Option<Arc<str>>>>,
    /// Turns that were superseded, of all shards.
    superseded: Arc<AtomicU64>,
}

struct Inner {
    state: Mutex<State>,
    moved: Condvar,
    epoch: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Numbers of turns that were handed to the pipeline, that are in the store, and that are
    /// published. Void ones count in their order as well.
    begun: u64,
    committed: u64,
    released: u64,
    /// True while a turn is committed by the thread that made it: no other turn may overtake that
    /// one.
    through: bool,
    /// The time since which turns are on their way and none was released.
    waiting_since: Option<Instant>,
    failed: bool,
}

impl Progress {
    pub(super) fn new(
        failing: Arc<watch::Sender<Option<Arc<str>>>>,
        superseded: Arc<AtomicU64>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                moved: Condvar::new(),
                epoch: AtomicU64::new(0),
            }),
            failing,
            superseded,
        }
    }

    /// Returns how many turns of the shard were superseded. What was begun before the last of them may
    /// rest on it, and is void.
    pub(super) fn epoch(&self) -> u64 {
        self.inner.epoch.load(SeqCst)
    }

    /// Begins the next epoch: a turn was superseded.
    fn supersede(&self) {
        // In this order: whoever sees the new epoch sees the new sum.
        self.superseded.fetch_add(1, SeqCst);
        self.inner.epoch.fetch_add(1, SeqCst);
        tracing::warn!(
            "another writer's turn came first: what this shard has in memory is read again, and whoever \
             waits is told to try again"
        );
    }

    /// Counts a turn that is handed over, and returns its number. The caller must hand it over
    /// before anybody else calls this.
    pub(super) fn begin(&self) -> u64 {
        Self::begin_in(&mut self.inner.state.lock())
    }

    /// Counts a turn that its own thread will commit, and returns its number; `None` if another
    /// turn is on its way.
    pub(super) fn begin_alone(&self) -> Option<u64> {
        let mut state = self.inner.state.lock();
        if state.released != state.begun {
            return None;
        }
        state.through = true;
        Some(Self::begin_in(&mut state))
    }

    fn begin_in(state: &mut State) -> u64 {
        state.begun += 1;
        state.waiting_since.get_or_insert_with(Instant::now);
        state.begun
    }

    /// Waits until no turn is committed by the thread that made it. Returns false if the shard has
    /// failed.
    fn may_commit(&self) -> bool {
        self.wait_while(|state| state.through)
    }

    fn committed(&self) {
        self.inner.state.lock().committed += 1;
        self.inner.moved.notify_all();
    }

    fn released(&self, turns: usize) {
        let mut state = self.inner.state.lock();
        state.released += turns as u64;
        state.waiting_since = (state.released < state.begun).then(Instant::now);
        drop(state);
        self.inner.moved.notify_all();
    }

    fn is_through(&self) {
        self.inner.state.lock().through = false;
        self.inner.moved.notify_all();
    }

    /// Returns true if turn number `turn` is published.
    pub(super) fn has_released(&self, turn: u64) -> bool {
        self.inner.state.lock().released >= turn
    }

    /// Returns the time since which turns are on their way to the disk and none has arrived.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.inner.state.lock().waiting_since
    }

    /// Marks the shard as failed: nothing may be written or answered any more.
    pub(super) fn fail(&self, why: &str) {
        // Only the first reason is reported, because what fails later fails because of it.
        if std::mem::replace(&mut self.inner.state.lock().failed, true) {
            return;
        }
        tracing::error!(
            why,
            "the shard stops; restart the server to go on from what is on disk"
        );
        self.inner.moved.notify_all();
        self.failing.send_replace(Some(why.into()));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.inner.state.lock().failed
    }

    /// Waits until every turn that was handed over by now is in the store; `false` if that failed, or
    /// if the epoch is over, for then some of them are void.
    pub(super) fn settle(&self, epoch: u64) -> bool {
        let begun = self.inner.state.lock().begun;
        self.wait_while(|state| state.committed < begun) && self.epoch() == epoch
    }

    /// Waits until every turn that was handed over by now is readable or void; `false` if that failed.
    pub(super) fn settle_released(&self) -> bool {
        let begun = self.inner.state.lock().begun;
        self.wait_while(|state| state.released < begun)
    }

    fn wait_while(&self, busy: impl Fn(&State) -> bool) -> bool {
        let mut state = self.inner.state.lock();
        while busy(&state) && !state.failed {
            self.inner.moved.wait(&mut state);
        }
        !state.failed
    }
}

/// A shard's way to its journal, and from there to those who wait.
pub(super) struct CommitPipeline {
    journal: Box<dyn Journal>,
    chain: Mutex<Chain>,
    signed_heads: SignedHeads,
    queue: Arc<Queue<Job>>,
    progress: Progress,
    metrics: Arc<Metrics>,
}

impl CommitPipeline {
    pub(super) fn new(
        journal: Box<dyn Journal>,
        chain: Chain,
        signed_heads: SignedHeads,
        queue: Arc<Queue<Job>>,
        progress: Progress,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            journal,
            chain: Mutex::new(chain),
            signed_heads,
            queue,
            progress,
            metrics,
        }
    }

    /// Takes a turn that [`Progress::begin_alone`] has counted through all stages.
    pub(super) fn take_through(&self, turn: CommittableTurn) {
        if let Some(turn) = self.commit(turn) {
            self.guard_and_release(vec![turn]);
        }
        self.progress.is_through();
    }

    /// Commits turns until there are no more.
    pub(super) fn commit_all(
        &self,
        turns: &Receiver<CommittableTurn>,
        next: &SyncSender<CommittableTurn>,
    ) {
        while let Ok(turn) = turns.recv() {
            if self.progress.may_commit()
                && let Some(turn) = self.commit(turn)
                && next.send(turn).is_err()
            {
                return;
            }
        }
    }

    /// Guards, publishes and answers turns until there are no more.
    pub(super) fn guard_all(&self, turns: &Receiver<CommittableTurn>) {
        while let Ok(first) = turns.recv() {
            let mut safe = vec![first];
            // One guard write serves every turn that is in the store already.
            safe.extend(turns.try_iter());
            self.guard_and_release(safe);
        }
        if self.progress.has_failed() {
            return;
        }
        if let Err(error) = self.signed_heads.write_last() {
            // They are signed again when their ledgers are loaded.
            tracing::warn!(%error, "the last signed heads could not be written");
        }
    }

    /// The turn if it is in the store now, or void.
    fn commit(&self, mut turn: CommittableTurn) -> Option<CommittableTurn> {
        if self.progress.has_failed() {
            return None;
        }
        if turn.epoch != self.progress.epoch() {
            return Some(self.void(turn));
        }
        let mut records = std::mem::take(&mut turn.batch);
        let writes = !records.is_empty();
        let began = Instant::now();
        if writes {
            // Only one turn at a time comes here, so this is the order in which turns are written.
            let mut chain = self.chain.lock();
            let heads = self.signed_heads.write(&mut records);
            let proposed = match chain.propose(&*self.journal, records, &turn.changed) {
                Ok(proposed) => proposed,
                Err(error) => {
                    self.progress
                        .fail(&format!("the newest turn cannot be read: {error}"));
                    return None;
                }
            };
            if let Some(guarded) = &mut turn.guarded {
                guarded.turn = proposed.turn.number;
                guarded.digest = proposed.turn.digest.clone();
            }
            match self.journal.append(proposed) {
                Appended::Next => {}
                Appended::Superseded => {
                    chain.forget();
                    drop(chain);
                    self.signed_heads.put_back(heads);
                    self.progress.supersede();
                    return Some(self.void(turn));
                }
                Appended::Unknown(error) => {
                    // Nobody knows whether the turn is on disk. Its answers are dropped with it.
                    self.progress
                        .fail(&format!("a turn could not be committed: {error}"));
                    return None;
                }
            }
        }
        // Commit point: from here on the turn survives a crash, and nobody has been told of it.
        self.progress.committed();
        // The references are in the store, so the gate is released. Otherwise other requests of the
        // ledger would wait until a reader has taken its answer.
        for answering in &mut turn.answers {
            answering.batch.release_gate();
        }
        if writes {
            self.metrics.synced(Synced::Store, began.elapsed());
            self.metrics.committed(turn.leaves, turn.entry_bytes);
            self.metrics.assessed(&turn.assessments);
        }
        turn.passed(&self.metrics, Stage::Commit);
        Some(turn)
    }

    /// Takes everything out of a turn that is void, and has its ledgers read again. It goes on, so that
    /// turns are counted in their order, and whoever waits for it is told.
    fn void(&self, mut turn: CommittableTurn) -> CommittableTurn {
        turn.is_void = true;
        turn.batch = Batch::default();
        turn.guarded = None;
        let changed = std::mem::take(&mut turn.changed).into_iter();
        let unchanged = std::mem::take(&mut turn.unchanged);
        for ledger in changed.map(|(ledger, _)| ledger).chain(unchanged) {
            restore_soon(&self.queue, ledger);
        }
        for answering in &mut turn.answers {
            answering.batch.release_gate();
        }
        self.progress.committed();
        turn
    }

    fn guard_and_release(&self, mut turns: Vec<CommittableTurn>) {
        if self.progress.has_failed() {
            return;
        }
        let newest = turns.iter().rev().find_map(|turn| turn.guarded.as_ref());
        let began = Instant::now();
        if let Some(newest) = newest {
            if let Err(error) = self.journal.confirm(newest) {
                self.progress
                    .fail(&format!("the head guard could not be written: {error}"));
                return;
            }
            self.metrics.synced(Synced::HeadGuard, began.elapsed());
        }
        // From here on a store that lost any of these turns will not open again.
        for (ledger, tree) in newest_trees(&turns) {
            let publication = ledger.publish(Arc::clone(tree));
            if publication.keys_rotated > 0 {
                self.metrics
                    .log_keys_rotated(publication.keys_rotated as u64);
            }
            let head = SignedHead::new(ledger.number, &publication);
            self.signed_heads.add(head);
        }
        // Only now may the turn of another thread overtake the answers below: the trees that it
        // publishes are newer.
        self.progress.released(turns.len());
        for turn in turns.iter_mut().filter(|turn| !turn.is_void) {
            turn.passed(&self.metrics, Stage::Guard);
        }
        for turn in turns {
            for answering in turn.answers {
                drop(answering.permit);
                let Some(reply) = answering.reply else {
                    continue;
                };
                let answer = match turn.is_void {
                    true => Err(NoAnswer::Superseded),
                    false => Ok(Answer {
                        placements: answering.placements,
                        batch: answering.batch,
                        assessed: answering.assessed,
                        // It covers the turn's tree, and may be a later one.
                        readable: answering.ledger.readable(),
                    }),
                };
                // The caller may be gone; the statement is recorded all the same.
                let _ = reply.send(answer);
            }
        }
    }
}

/// Returns each ledger that the turns changed with its newest tree: one signature serves them all.
fn newest_trees(turns: &[CommittableTurn]) -> impl Iterator<Item = (&Arc<Ledger>, &Arc<Tree>)> {
    let mut newest = HashMap::<LedgerNumber, (&Arc<Ledger>, &Arc<Tree>)>::new();
    for (ledger, tree) in turns.iter().flat_map(|turn| &turn.changed) {
        newest.insert(ledger.number, (ledger, tree));
    }
    newest.into_values()
}
