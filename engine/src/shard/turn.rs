//! The threads that make turns. Each takes waiting jobs, steps their ledgers, and hands the turn over.
//!
//! A turn is bounded in time, in bytes and in jobs. A request that does not fit is cut between two
//! statements: those that were placed are recorded with this turn, and the rest goes on in a later
//! one, behind the waiting jobs of the ledger's other sources. (A batch under a manifest is one
//! piece and is not cut.) The step does not depend on where turns are cut, so the machine's speed
//! decides no verdict.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool, mpsc::SyncSender},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Job, NoAnswer, Work,
    held::{AllHeld, Held, signed},
    making::{InTurn, Making, leaving},
    pieces::{Pieces, Stopwatch},
    pipeline::{CommitPipeline, CommittableTurn, PendingReply, Progress},
    queue::{Claim, Queue, Served},
    store_reader::StoreReader,
};
use crate::{
    admission::AdmittedBatch,
    guard::GuardedHead,
    ledger::{
        Ledger, Tree,
        step::{LedgerState, Placement, StepError, Turn},
        write::{write_log_key, write_records, write_tree},
    },
    metrics::{Metrics, Stage},
    store::{Family, Store, keys},
};

/// The time that a turn may take; it is checked between two statements.
pub(crate) const TURN_TIME: Duration = Duration::from_millis(40);

/// A ledger gets the turn's time divided by this at once, if other ledgers share the turn.
const SLICES: u32 = 4;

/// Most jobs of one turn.
pub(super) const TURN_JOBS: usize = 4096;

/// Entry bytes after which a turn takes no more statements.
pub(super) const TURN_BYTES: usize = 2 << 20;

/// The cost of an entry's byte, besides the time of its step: the disk takes some 100 MB a second.
const NS_PER_BYTE: u64 = 10;

/// The state that a shard's turn threads share.
pub(super) struct Turns {
    pub(super) store: Arc<Store>,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) progress: Progress,
    pub(super) pipeline: Arc<CommitPipeline>,
    pub(super) slot: u8,
    pub(super) metrics: Arc<Metrics>,
    pub(super) turn_time: Duration,
    /// Set when the server no longer waits for turns in work.
    pub(super) interrupted: Arc<AtomicBool>,
    pub(super) held: Mutex<AllHeld>,
    /// Held while a turn is numbered and handed over, so that both orders are the same.
    pub(super) handing: Mutex<()>,
}

/// A thread that makes turns.
pub(super) struct TurnThread {
    pub(super) shared: Arc<Turns>,
    pub(super) next: SyncSender<CommittableTurn>,
}

impl TurnThread {
    /// Makes turns until the queue is closed and empty.
    pub(super) fn run(self) {
        let Turns {
            queue, progress, ..
        } = &*self.shared;
        while let Some(claim) = queue.begin() {
            // The jobs of a failed shard are dropped, which tells those who wait for them.
            if progress.has_failed() {
                queue.stop();
                queue.end(&claim, [leaving(&InTurn::new(claim.first, 0))]);
                continue;
            }
            let mut making = Making::new();
            match self.shared.make(&claim, &mut making) {
                Ok(finished) => {
                    let handed_over = match finished {
                        Some(finished) => self.hand_over(finished),
                        None => None,
                    };
                    self.shared.give_back(&claim, making, handed_over);
                }
                Err(StepError::Interrupted) => {
                    // The turn leaves no trace: nothing was handed over, and its ledgers are not
                    // given back, so no thread goes on from their state.
                    queue.stop();
                    queue.end(&claim, []);
                }
                // What it met rests on a turn that is void, and says nothing about the store.
                Err(_) if progress.epoch() != making.epoch && !progress.has_failed() => {
                    self.shared.give_up(&claim, making);
                }
                Err(error) => {
                    progress.fail(&format!("the store is damaged: {error}"));
                    queue.stop();
                    queue.end(&claim, making.ledgers.iter().map(leaving));
                }
            }
        }
    }

    /// Hands a turn over to the commit thread, and returns its number. If no other turn is on its
    /// way and nothing waits, this thread commits the turn itself.
    fn hand_over(&self, finished: CommittableTurn) -> Option<u64> {
        let Turns {
            queue,
            progress,
            pipeline,
            handing,
            ..
        } = &*self.shared;
        if queue.is_alone()
            && let Some(number) = progress.begin_alone()
        {
            pipeline.take_through(finished);
            return Some(number);
        }
        let _handing = handing.lock();
        let number = progress.begin();
        if self.next.send(finished).is_err() {
            // Only a panic ends the receiver before the sender.
            progress.fail("the thread that commits turns has ended");
        }
        Some(number)
    }
}

impl Turns {
    /// Makes a turn; `None` if there was nothing to do.
    fn make(
        &self,
        claim: &Claim,
        making: &mut Making,
    ) -> Result<Option<CommittableTurn>, StepError> {
        making.epoch = self.forget_void();
        self.forget_beyond_bounds();
        making.ledgers.push(InTurn::new(claim.first, making.epoch));
        let mut again = VecDeque::new();
        let mut next = Some(0);
        while let Some(place) = next {
            let more = self.serve(making, place)?;
            if more {
                again.push_back(place);
            }
            next = if making.is_full(self.turn_time) {
                None
            } else if let Some(ledger) = self.queue.another(claim) {
                making.ledgers.push(InTurn::new(ledger, making.epoch));
                Some(making.ledgers.len() - 1)
            } else {
                again.pop_front()
            };
        }
        for place in 0..making.ledgers.len() {
            self.close(making, place)?;
        }
        if making.placed.is_empty() && making.batch.is_empty() {
            return Ok(None);
        }
        let finished = self.finished(making);
        self.metrics
            .stage(Stage::Step, finished.since - making.began);
        Ok(Some(finished))
    }

    /// Serves the waiting jobs of a ledger for as long as its slice of the turn lasts. Returns true
    /// if more may be waiting.
    fn serve(&self, making: &mut Making, place: usize) -> Result<bool, StepError> {
        let number = making.ledgers[place].number;
        let until = Instant::now() + self.turn_time / SLICES;
        let mut served = None;
        let mut is_first = true;
        loop {
            let is_over = !is_first && Instant::now() >= until;
            let wants_more = !is_over && !making.is_full(self.turn_time);
            let next = self.queue.next(number, served.take(), wants_more);
            let Some((source, job)) = next else {
                return Ok(is_over);
            };
            is_first = false;
            if job.is_abandoned() {
                // Nobody waits for it, and nothing of it is recorded.
                self.metrics.abandoned();
                served = Some(Served {
                    source,
                    used: 0,
                    unfinished: None,
                });
                continue;
            }
            let (began, bytes, waited) = (Instant::now(), making.bytes, making.watch.waited());
            let unfinished = match self.serve_job(making, place, job) {
                Ok(unfinished) => unfinished,
                Err(error) => {
                    // The source is served again, if the shard goes on.
                    let served = Served {
                        source,
                        used: 0,
                        unfinished: None,
                    };
                    self.queue.next(number, Some(served), false);
                    return Err(error);
                }
            };
            making.jobs += 1;
            // A ledger does not pay for the time in which it waited for earlier turns to reach the
            // disk.
            let waited = making.watch.waited() - waited;
            let time = began.elapsed().saturating_sub(waited);
            let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let used = time.saturating_add((making.bytes - bytes) as u64 * NS_PER_BYTE);
            let ledger = &mut making.ledgers[place];
            ledger.used = ledger.used.saturating_add(used);
            served = Some(Served {
                source,
                used,
                unfinished,
            });
        }
    }

    /// Serves a job, and returns the rest of it if it was cut.
    fn serve_job(
        &self,
        making: &mut Making,
        place: usize,
        mut job: Job,
    ) -> Result<Option<Job>, StepError> {
        if !job.begun && job.reply.is_some() {
            self.metrics.stage(Stage::Queue, job.queued.elapsed());
        }
        // The time before this job is no part of its pieces.
        making.watch.lap();
        making.in_hand = job.reply.take();
        if self.is_void(making, &job)? {
            drop(job);
            if let Some(reply) = making.in_hand.take() {
                let _ = reply.send(Err(NoAnswer::Superseded));
            }
            return Ok(None);
        }
        if self.is_behind(making, place, &job)? {
            return Ok(Some(Job {
                begun: true,
                reply: making.in_hand.take(),
                ..job
            }));
        }
        let Job {
            work,
            permit,
            epoch,
            restorations,
            queued,
            mut placements,
            mut assessed,
            ..
        } = job;
        let in_turn = &mut making.ledgers[place];
        let watch = &making.watch;
        let (ledger, batch) = match work {
            Work::Append(ledger, statements) => {
                let turn_until = making.began + self.turn_time;
                let mut pieces = Pieces::new(watch, turn_until, making.bytes);
                self.step(in_turn, watch, &ledger, |state, turn, reader| {
                    state.apply_some(turn, &statements, &mut placements, reader, &mut |bytes| {
                        pieces.is_enough(bytes)
                    })?;
                    assessed.extend(turn.take_assessed());
                    Ok(())
                })?;
                in_turn.longest = in_turn.longest.max(pieces.longest);
                making.bytes = pieces.bytes;
                if placements.len() < statements.payloads().count() {
                    self.metrics.cut();
                    return Ok(Some(Job {
                        work: Work::Append(ledger, statements),
                        reply: making.in_hand.take(),
                        permit,
                        epoch,
                        restorations,
                        queued,
                        begun: true,
                        placements,
                        assessed,
                    }));
                }
                (ledger, statements)
            }
            Work::Tick(ledger, now) => {
                self.step(in_turn, watch, &ledger, |state, turn, reader| {
                    state.tick(turn, now, reader)
                })?;
                in_turn.longest = in_turn.longest.max(watch.lap());
                (ledger, AdmittedBatch::default())
            }
            Work::Receipt(ledger, task, now) => {
                self.step(in_turn, watch, &ledger, |state, turn, reader| {
                    let leaf = state.receipt(turn, task, now, reader)?;
                    placements.extend(leaf.map(|leaf| Placement::Recorded { leaf }));
                    Ok(())
                })?;
                in_turn.longest = in_turn.longest.max(watch.lap());
                (ledger, AdmittedBatch::default())
            }
            Work::Clock(ledger, confirmed) => {
                self.step(in_turn, watch, &ledger, |state, turn, reader| {
                    state.confirm_clock(turn, confirmed, reader)
                })?;
                in_turn.longest = in_turn.longest.max(watch.lap());
                (ledger, AdmittedBatch::default())
            }
            Work::Create(new) => {
                // The records of the new ledger are ready; this turn's batch only carries them.
                new.ledger.begin_epoch(making.epoch);
                new.write(&self.store, &mut making.batch);
                making.leaves += 1;
                let tree = Arc::clone(&new.tree);
                making.changed.push((Arc::clone(&new.ledger), tree));
                in_turn.held = Some(Held {
                    state: new.state,
                    newest: new.tree,
                    handed_over: 0,
                });
                (new.ledger, AdmittedBatch::default())
            }
            // It is done: nothing of a ledger is served before that is read again.
            Work::Restore(_) => return Ok(None),
        };
        making.placed.push(PendingReply {
            reply: making.in_hand.take(),
            ledger,
            placements,
            batch,
            assessed,
            permit,
        });
        Ok(None)
    }

    /// Fires the due timers of a job's ledger, portion by portion, if more are due than may fire in
    /// front of one entry. Returns true if some are left when the turn's time is over: then the job
    /// waits for the next turn.
    fn is_behind(&self, making: &mut Making, place: usize, job: &Job) -> Result<bool, StepError> {
        let (ledger, at) = match &job.work {
            Work::Append(ledger, statements) => (ledger, statements.received_at()),
            Work::Receipt(ledger, _, now) | Work::Tick(ledger, now) => (ledger, *now),
            // A confirmation of the clock is recorded before any timer fires by it.
            Work::Clock(..) | Work::Create(_) | Work::Restore(_) => return Ok(false),
        };
        loop {
            let in_turn = &mut making.ledgers[place];
            let mut is_behind = false;
            self.step(in_turn, &making.watch, ledger, |state, turn, reader| {
                is_behind = state.is_behind(turn, at, reader)?;
                Ok(())
            })?;
            in_turn.longest = in_turn.longest.max(making.watch.lap());
            if !is_behind || making.began.elapsed() >= self.turn_time {
                return Ok(is_behind);
            }
        }
    }

    /// Runs `step` on a ledger in this turn. Begins the ledger's part of the turn if that is not
    /// open.
    fn step(
        &self,
        in_turn: &mut InTurn,
        watch: &Stopwatch,
        ledger: &Arc<Ledger>,
        step: impl FnOnce(&mut LedgerState, &mut Turn, &mut StoreReader<'_>) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let InTurn {
            number,
            epoch,
            held,
            open,
            ..
        } = in_turn;
        let held = match held {
            Some(held) => held,
            None => {
                let mut all = self.held.lock();
                if all.epoch != *epoch {
                    return Err(StepError::Superseded);
                }
                let known = all.ledgers.remove(number);
                drop(all);
                let known = match known {
                    Some(known) => known,
                    None => Held::new(ledger),
                };
                held.insert(known)
            }
        };
        let mut reader = StoreReader::new(self, *number, *epoch, watch);
        let (_, turn) = match open {
            Some(open) => open,
            None => {
                let turn = held.state.begin(&mut reader)?;
                open.insert((Arc::clone(ledger), turn))
            }
        };
        step(&mut held.state, turn, &mut reader)
    }

    /// Ends a ledger's part of a turn: its records and its new tree go into the batch. This is
    /// done also if nothing was recorded, because the turn holds the sessions that it has read.
    fn close(&self, making: &mut Making, place: usize) -> Result<(), StepError> {
        let InTurn {
            number, held, open, ..
        } = &mut making.ledgers[place];
        let (Some(held), Some((ledger, turn))) = (held, open.take()) else {
            return Ok(());
        };
        let batch = &mut making.batch;
        let recorded = turn.len();
        let sessions = held.state.sessions();
        let records = held.state.finish(turn)?;
        making.leaves += recorded;
        making.assessments.add(&records.assessments);
        let change = signed(held.state.sessions()) - signed(sessions);
        self.metrics.sessions_changed(change);
        if recorded == 0 {
            // A duplicate may have brought contents that were not stored the first time.
            write_records(&self.store, batch, *number, &records);
            making.unchanged.push(ledger);
            return Ok(());
        }
        let edge = held.state.edge().clone();
        let head = edge.head();
        let tree = Arc::new(Tree {
            edge,
            head,
            effective_time: held.state.effective_time(),
            next_due: held.state.next_due(),
            due: held.state.due(),
            clock: held.state.clock(),
        });
        write_records(&self.store, batch, *number, &records);
        write_tree(&self.store, batch, *number, &tree);
        let (before, now) = (held.newest.size(), tree.size());
        write_log_key(&self.store, batch, &ledger, before, now);
        held.newest = Arc::clone(&tree);
        making.changed.push((ledger, tree));
        Ok(())
    }

    fn finished(&self, making: &mut Making) -> CommittableTurn {
        let mut batch = std::mem::take(&mut making.batch);
        let changed = std::mem::take(&mut making.changed);
        let guarded = changed.last().map(|(ledger, tree)| {
            // After a restart, this record tells which head the guard would have held after this
            // turn.
            let key = keys::newest(self.slot);
            let name = ledger.name().as_bytes();
            self.store.put(&mut batch, Family::Meta, &key, name);
            GuardedHead::of(ledger.number, ledger.name(), tree.head)
        });
        CommittableTurn {
            epoch: making.epoch,
            batch,
            changed,
            unchanged: std::mem::take(&mut making.unchanged),
            guarded,
            answers: std::mem::take(&mut making.placed),
            leaves: making.leaves as u64,
            entry_bytes: making.bytes as u64,
            assessments: std::mem::take(&mut making.assessments),
            since: Instant::now(),
            is_void: false,
        }
    }
}
