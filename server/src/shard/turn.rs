//! The thread that makes turns: takes what waits, steps, signs, and hands over.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry as MapEntry},
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, Sequence, SessionId, TaskId,
    assess::{Due, Owner, cells::CellKey},
    session::Session,
};

use super::{
    Answer, Confirmed, Job, Work, guarded,
    pipeline::{Answering, Finished, Line, Progress},
    write_head, write_log_key, write_records,
};
use crate::{
    admission::AdmittedBatch,
    ledger::{
        Ledger, Readable,
        registry::NewLedger,
        step::{LedgerState, Past, Placement, StepError, Turn},
    },
    metrics::{Assessments, Metrics, Stage},
    pressure::queue::FairReceiver,
    store::{Batch, Family, LedgerNumber, Store, StoreError, keys, pack::Unpacked, read::Run},
};

/// Jobs of one turn at most.
const TURN_JOBS: usize = 4096;

/// Entry bytes of one turn, roughly: it takes no more jobs once it has so many. Some 25 ms of
/// assessment: whoever sends one statement at a time gets one into each turn.
const TURN_BYTES: usize = 2 << 20;

/// Sessions, cells of assessments and ledgers that a shard keeps in memory, over all of its ledgers:
/// some 200 MB. Beyond that it forgets them all; what is needed again is read from the store.
const SESSIONS_HELD_MAX: usize = 262_144;
const CELLS_HELD_MAX: usize = 131_072;
const LEDGERS_HELD_MAX: usize = 1024;

/// Turns between two looks at those bounds.
const TURNS_UNCHECKED: u32 = 64;

pub(super) struct TurnThread {
    store: Arc<Store>,
    progress: Progress,
    line: Arc<Line>,
    next: SyncSender<Finished>,
    slot: u8,
    metrics: Arc<Metrics>,
    ledgers: HashMap<LedgerNumber, Held>,
    /// Jobs of ledgers in which more was due than one turn lets happen: first in the next one. They
    /// hold their share of the queue's budget, so their bytes are bounded with all that waits.
    waiting: VecDeque<Job>,
    turns: u32,
}

/// A ledger that this shard has stepped.
struct Held {
    state: LedgerState,
    /// Its newest head, on disk or on the way.
    newest: Arc<Readable>,
    /// Second of effective time in which a head was last kept.
    kept_second: i64,
}

/// A job whose statements have been placed; answered with its ledger's head of this turn.
struct Placed {
    answering: Answering,
    ledger: LedgerNumber,
}

impl TurnThread {
    pub(super) fn new(
        store: Arc<Store>,
        progress: Progress,
        line: Arc<Line>,
        next: SyncSender<Finished>,
        slot: u8,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            progress,
            line,
            next,
            slot,
            metrics,
            ledgers: HashMap::new(),
            waiting: VecDeque::new(),
            turns: 0,
        }
    }

    /// Makes turns until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, jobs: FairReceiver<Job>) {
        while let Some(first) = self.waiting.pop_front().or_else(|| jobs.recv()) {
            // Jobs of a failed shard are dropped, which tells whoever waits.
            if self.progress.has_failed() {
                continue;
            }
            match self.turn(first, &jobs) {
                Ok(finished) => {
                    let waits = !self.waiting.is_empty() || !jobs.is_empty();
                    let alone = self.progress.is_idle() && !waits;
                    self.progress.begin();
                    if alone {
                        self.line.take_through(finished);
                    } else if self.next.send(finished).is_err() {
                        return;
                    }
                }
                Err(error) => self
                    .progress
                    .fail(&format!("the store is damaged: {error}")),
            }
        }
    }

    /// Forgets every ledger when the shard holds too much.
    fn forget_beyond_bounds(&mut self) {
        self.turns = self.turns.wrapping_add(1);
        if !self.turns.is_multiple_of(TURNS_UNCHECKED) {
            return;
        }
        let all = |count: fn(&LedgerState) -> usize| -> usize {
            self.ledgers.values().map(|held| count(&held.state)).sum()
        };
        let sessions = all(LedgerState::sessions);
        if sessions > SESSIONS_HELD_MAX
            || all(LedgerState::cells) > CELLS_HELD_MAX
            || self.ledgers.len() > LEDGERS_HELD_MAX
        {
            // A ledger comes back as it is readable, so nothing may be on its way.
            self.progress.drain();
            self.ledgers.clear();
            self.metrics.sessions_changed(-signed(sessions));
        }
    }

    /// One turn over `first` and what waits behind it.
    fn turn(&mut self, first: Job, jobs: &FairReceiver<Job>) -> Result<Finished, StepError> {
        let began = Instant::now();
        self.forget_beyond_bounds();
        let mut batch = Batch::default();
        let mut turns: HashMap<LedgerNumber, (Arc<Ledger>, Turn)> = HashMap::new();
        let mut placed = Vec::new();
        let mut changed = Vec::new();
        let mut assessments = Assessments::default();
        let mut bytes = 0;
        let mut leaves = 0;
        let mut taken = 0;
        // Ledgers that have had their portion of what is due, and have more of it.
        let mut behind = HashSet::new();
        let mut again = std::mem::take(&mut self.waiting);
        let mut next = Some(first);
        while let Some(job) = next {
            taken += 1;
            if let Some(job) = self.unless_behind(&mut turns, &mut behind, job)? {
                let Job {
                    work,
                    reply,
                    share,
                    queued,
                } = job;
                self.metrics.stage(Stage::Queue, queued.elapsed());
                let (ledger, answer) = match work {
                    Work::Append(ledger, statements) => {
                        bytes += statements.byte_len();
                        self.append(&mut turns, &ledger, statements)?
                    }
                    Work::Tick(ledger, now) => self.tick(&mut turns, &ledger, now)?,
                    Work::Receipt(ledger, task, now) => {
                        self.receipt(&mut turns, &ledger, task, now)?
                    }
                    Work::Clock(ledger, confirmed) => self.clock(&mut turns, &ledger, confirmed)?,
                    Work::Create(new) => {
                        // Its records are ready; they only travel in this turn's batch.
                        new.write(&self.store, &mut batch);
                        leaves += 1;
                        changed.push((Arc::clone(&new.ledger), Arc::clone(&new.readable)));
                        self.created(*new)
                    }
                };
                let answering = Answering {
                    reply,
                    answer,
                    share,
                };
                placed.push(Placed { answering, ledger });
            }
            next = if taken < TURN_JOBS && bytes < TURN_BYTES {
                again.pop_front().or_else(|| jobs.try_recv())
            } else {
                None
            };
        }
        // Behind those that were put aside in this turn, which came before them.
        self.waiting.extend(again);
        for (number, (ledger, turn)) in turns {
            leaves += turn.len();
            let closed = self.close(&mut batch, number, &ledger, turn, &mut assessments)?;
            if let Some(readable) = closed {
                changed.push((ledger, readable));
            }
        }
        let mut finished = self.finished(batch, changed, placed);
        finished.leaves = leaves as u64;
        finished.entry_bytes = bytes as u64;
        finished.assessments = assessments;
        finished.since = Instant::now();
        self.metrics.stage(Stage::Step, finished.since - began);
        Ok(finished)
    }

    /// Holds a ledger that is new.
    fn created(&mut self, new: NewLedger) -> (LedgerNumber, Answer) {
        let number = new.ledger.number;
        let held = Held {
            state: new.state,
            kept_second: second(&new.readable),
            newest: Arc::clone(&new.readable),
        };
        self.ledgers.insert(number, held);
        let answer = Answer {
            placements: Vec::new(),
            batch: AdmittedBatch::default(),
            assessed: Vec::new(),
            readable: new.readable,
        };
        (number, answer)
    }

    fn append(
        &mut self,
        turns: &mut HashMap<LedgerNumber, (Arc<Ledger>, Turn)>,
        ledger: &Arc<Ledger>,
        batch: AdmittedBatch,
    ) -> Result<(LedgerNumber, Answer), StepError> {
        self.step(turns, ledger, |state, turn, past| {
            let placements = state.apply(turn, &batch, past)?;
            Ok((placements, batch))
        })
    }

    fn tick(
        &mut self,
        turns: &mut HashMap<LedgerNumber, (Arc<Ledger>, Turn)>,
        ledger: &Arc<Ledger>,
        now: Micros,
    ) -> Result<(LedgerNumber, Answer), StepError> {
        self.step(turns, ledger, |state, turn, past| {
            state.tick(turn, now, past)?;
            Ok((Vec::new(), AdmittedBatch::default()))
        })
    }

    /// Lets one portion of what is due in a job's ledger happen, if there is more than may fire in
    /// front of one entry. The job, or `None` if it has to wait for the next turn.
    fn unless_behind(
        &mut self,
        turns: &mut HashMap<LedgerNumber, (Arc<Ledger>, Turn)>,
        behind: &mut HashSet<LedgerNumber>,
        job: Job,
    ) -> Result<Option<Job>, StepError> {
        let (ledger, at) = match &job.work {
            Work::Append(ledger, statements) => (ledger, statements.received_at()),
            Work::Receipt(ledger, _, now) | Work::Tick(ledger, now) => (ledger, *now),
            // That the clock was confirmed is said before anything fires by it.
            Work::Clock(..) | Work::Create(_) => return Ok(Some(job)),
        };
        if !behind.contains(&ledger.number) {
            let ledger = Arc::clone(ledger);
            let mut is_behind = false;
            self.step(turns, &ledger, |state, turn, past| {
                is_behind = state.is_behind(turn, at, past)?;
                Ok((Vec::new(), AdmittedBatch::default()))
            })?;
            if !is_behind {
                return Ok(Some(job));
            }
            behind.insert(ledger.number);
        }
        self.waiting.push_back(job);
        Ok(None)
    }

    fn clock(
        &mut self,
        turns: &mut HashMap<LedgerNumber, (Arc<Ledger>, Turn)>,
        ledger: &Arc<Ledger>,
        confirmed: Confirmed,
    ) -> Result<(LedgerNumber, Answer), StepError> {
        self.step(turns, ledger, |state, turn, past| {
            state.confirm_clock(turn, confirmed, past)?;
            Ok((Vec::new(), AdmittedBatch::default()))
        })
    }

    fn receipt(
        &mut self,
        turns: &mut HashMap<LedgerNumber, (Arc<Ledger>, Turn)>,
        ledger: &Arc<Ledger>,
        task: TaskId,
        now: Micros,
    ) -> Result<(LedgerNumber, Answer), StepError> {
        self.step(turns, ledger, |state, turn, past| {
            let leaf = state.receipt(turn, task, now, past)?;
            let placements = leaf.map(|leaf| Placement::Recorded { leaf });
            Ok((placements.into_iter().collect(), AdmittedBatch::default()))
        })
    }

    /// Steps a ledger in this turn.
    fn step(
        &mut self,
        turns: &mut HashMap<LedgerNumber, (Arc<Ledger>, Turn)>,
        ledger: &Arc<Ledger>,
        step: impl FnOnce(
            &mut LedgerState,
            &mut Turn,
            &mut StorePast<'_>,
        ) -> Result<(Vec<Placement>, AdmittedBatch), StepError>,
    ) -> Result<(LedgerNumber, Answer), StepError> {
        let number = ledger.number;
        let held = match self.ledgers.entry(number) {
            MapEntry::Occupied(held) => held.into_mut(),
            MapEntry::Vacant(vacant) => vacant.insert(Held::new(ledger)),
        };
        let mut past = StorePast {
            store: &self.store,
            progress: &self.progress,
            ledger: number,
            pack: None,
        };
        let (_, turn) = match turns.entry(number) {
            MapEntry::Occupied(open) => open.into_mut(),
            MapEntry::Vacant(vacant) => {
                let turn = held.state.begin(&mut past)?;
                vacant.insert((Arc::clone(ledger), turn))
            }
        };
        let (placements, batch) = step(&mut held.state, turn, &mut past)?;
        let answer = Answer {
            placements,
            batch,
            assessed: turn.take_assessed(),
            // Replaced by this turn's head when it is made.
            readable: Arc::clone(&held.newest),
        };
        Ok((number, answer))
    }

    /// Ends a ledger's turn: records and signed head go into the batch. `None` if nothing was
    /// recorded; the turn still has to be finished, for it holds the sessions that it looked at.
    fn close(
        &mut self,
        batch: &mut Batch,
        number: LedgerNumber,
        ledger: &Arc<Ledger>,
        turn: Turn,
        assessments: &mut Assessments,
    ) -> Result<Option<Arc<Readable>>, StepError> {
        let held = self
            .ledgers
            .get_mut(&number)
            .expect("it was stepped in this turn");
        let recorded = turn.len();
        let sessions = held.state.sessions();
        let records = held.state.finish(turn)?;
        assessments.add(&records.assessments);
        let change = signed(held.state.sessions()) - signed(sessions);
        self.metrics.sessions_changed(change);
        if recorded == 0 {
            // Duplicates may have brought contents that came too late the first time.
            write_records(&self.store, batch, number, &records);
            return Ok(None);
        }
        let edge = held.state.edge().clone();
        let head = edge.head();
        let readable = Arc::new(Readable {
            edge,
            head,
            checkpoint: ledger.sign(head),
            effective_time: held.state.effective_time(),
            next_due: held.state.next_due(),
            due: held.state.due(),
            clock: held.state.clock(),
        });
        let keep = second(&readable) != held.kept_second;
        held.kept_second = second(&readable);
        write_records(&self.store, batch, number, &records);
        write_head(&self.store, batch, number, &readable, keep);
        let (before, now) = (held.newest.size(), readable.size());
        write_log_key(&self.store, batch, ledger, before, now);
        held.newest = Arc::clone(&readable);
        Ok(Some(readable))
    }

    fn finished(
        &self,
        mut batch: Batch,
        changed: Vec<(Arc<Ledger>, Arc<Readable>)>,
        placed: Vec<Placed>,
    ) -> Finished {
        let guarded = changed.last().map(|(ledger, readable)| {
            // So that a restart knows which head this turn's guard would have held.
            let key = keys::newest(self.slot);
            let name = ledger.name().as_bytes();
            self.store.put(&mut batch, Family::Meta, &key, name);
            guarded(ledger, readable)
        });
        let answers = placed
            .into_iter()
            .map(|mut placed| {
                placed.answering.answer.readable = Arc::clone(&self.ledgers[&placed.ledger].newest);
                placed.answering
            })
            .collect();
        Finished {
            batch,
            changed,
            guarded,
            answers,
            leaves: 0,
            entry_bytes: 0,
            assessments: Assessments::default(),
            since: Instant::now(),
        }
    }
}

impl Held {
    /// This shard is the only one that steps this ledger, and has not yet: what is readable is
    /// the newest there is.
    fn new(ledger: &Ledger) -> Self {
        let newest = ledger.readable();
        let id: LedgerId = ledger.id;
        Self {
            state: LedgerState::new(
                id,
                newest.edge.clone(),
                newest.effective_time,
                Arc::clone(&ledger.trust),
            ),
            kept_second: second(&newest),
            newest,
        }
    }
}

fn signed(sessions: usize) -> i64 {
    i64::try_from(sessions).unwrap_or(i64::MAX)
}

fn second(readable: &Readable) -> i64 {
    readable.effective_time.get().div_euclid(1_000_000)
}

/// The past as the store has it.
struct StorePast<'t> {
    store: &'t Store,
    progress: &'t Progress,
    ledger: LedgerNumber,
    /// The pack that was read last, with its first leaf: duplicates come in rows.
    pack: Option<(u64, Unpacked)>,
}

impl StorePast<'_> {
    fn settled(&self) -> Result<(), StoreError> {
        if self.progress.settle() {
            Ok(())
        } else {
            // The failure has been reported; this only ends the turn.
            let what = "an earlier turn was not committed";
            Err(StoreError::corrupt(Family::State, self.ledger, what))
        }
    }
}

impl Past for StorePast<'_> {
    fn due(&mut self, due: &Due) -> Result<Option<Owner>, StoreError> {
        self.store.due(self.ledger, due)
    }

    fn dues_after(
        &mut self,
        after: Option<&Due>,
        limit: usize,
    ) -> Result<Vec<(Due, Owner)>, StoreError> {
        self.store.dues_after(self.ledger, after, limit)
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.settled()
    }

    fn session(&mut self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError> {
        self.store.session(self.ledger, id)
    }

    fn run_before(
        &mut self,
        id: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<Run>, StoreError> {
        // Runs only grow: one that holds it holds it also when all turns are in the store.
        let stored = self.store.run_before(self.ledger, id, sequence)?;
        if stored.is_some_and(|run| run.leaf_of(sequence).is_some()) {
            return Ok(stored);
        }
        self.settled()?;
        self.store.run_before(self.ledger, id, sequence)
    }

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, StoreError> {
        self.store.cell(self.ledger, key)
    }

    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError> {
        if let Some((first, pack)) = &self.pack
            && let Some(position) = leaf.checked_sub(*first)
            && let Some(entry) = pack.entry(position)
        {
            return Ok(entry);
        }
        let (first, pack) = match self.store.pack_of(self.ledger, leaf) {
            Ok(found) => found,
            Err(_) => {
                self.settled()?;
                self.store.pack_of(self.ledger, leaf)?
            }
        };
        let entry = pack.entry(leaf - first);
        self.pack = Some((first, pack));
        entry.ok_or_else(|| {
            StoreError::corrupt(
                Family::Entries,
                self.ledger,
                format!("leaf {leaf} is missing"),
            )
        })
    }
}
