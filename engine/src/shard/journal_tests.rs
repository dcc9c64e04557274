//! The journal's contract, on a model of an engine that loses, repeats, reorders and delays what it is
//! given, and on the local journal.
//!
//! The model is explored whole: every order in which two writers propose, read and send again, and in
//! which their records arrive, get lost or arrive twice. In each state the chain rule must have left one
//! history, with everything that a writer was told to be in it, and nothing that a writer was told to be
//! void.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use deed_evidence::Micros;
use deed_tlog::{Hash, TreeHead, TreeSize};
use parking_lot::Mutex;
use prost::Message as _;

use super::{
    Disk,
    journal::{Appended, Journal, LocalJournal, ProposedTurn},
};
use crate::{
    guard::{self, GuardSlot, GuardedHead},
    store::{
        Batch, Family, LedgerNumber, Store, StoreError, StoreOptions, keys,
        records::HeadRecord,
        turn::{Outcome, TurnRecord},
    },
};

const WRITERS: usize = 2;

/// The turn that `writer` makes of its record `number` behind `after`.
fn turn_of(partition: u8, after: &TurnRecord, writer: usize, number: u64) -> TurnRecord {
    let outcome = Outcome {
        ledger: LedgerNumber(u32::try_from(writer).unwrap()),
        head: TreeHead {
            size: TreeSize::new(number),
            root: Hash::try_from(&[7; 32][..]).unwrap(),
        },
        effective_time: Micros::new(5),
    };
    after.next(partition, [outcome].into_iter())
}

/// A record on its way to the engine, or in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Record {
    after: TurnRecord,
    turn: TurnRecord,
}

/// A log that takes what arrives, whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Log {
    records: Vec<Record>,
    under_way: Vec<Record>,
    /// Records that may still get lost, and arrive twice.
    losses: usize,
    repeats: usize,
}

impl Log {
    /// The turns that any reader finds, by the chain rule alone.
    fn history(&self) -> Vec<&TurnRecord> {
        let none = TurnRecord::none();
        let mut turns: Vec<&TurnRecord> = Vec::new();
        for record in &self.records {
            if turns
                .last()
                .copied()
                .unwrap_or(&none)
                .is_continued_by(&record.after)
            {
                turns.push(&record.turn);
            }
        }
        turns
    }

    fn send(&mut self, record: Record) {
        self.under_way.push(record);
        // The order is not part of the state: any of them may arrive next.
        self.under_way
            .sort_by(|a, b| (a.turn.number, &a.turn.digest).cmp(&(b.turn.number, &b.turn.digest)));
    }

    fn deliver(&mut self, position: usize) {
        let record = self.under_way.remove(position);
        self.records.push(record);
    }
}

/// A writer as one behind a shared log is: it reads on until its record's place is taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Writer {
    /// The newest turn that it has read.
    newest: TurnRecord,
    /// Records of the log that it has read.
    read: usize,
    proposed: Option<Record>,
    /// Records that are left to append.
    left: u64,
    /// Turns that it was told to be in the history, and those that it was told not to be.
    made: Vec<TurnRecord>,
    void: Vec<TurnRecord>,
}

impl Writer {
    fn new(left: u64) -> Self {
        Self {
            newest: TurnRecord::none(),
            read: 0,
            proposed: None,
            left,
            made: Vec::new(),
            void: Vec::new(),
        }
    }

    /// Sends what it proposes, or sends it again if it got lost. (One that is sent again and was not lost
    /// is one that arrives twice.) Returns false if there is nothing to send.
    fn send(&mut self, number: usize, log: &mut Log) -> bool {
        if self.left == 0 {
            return false;
        }
        let left = self.left;
        let record = self.proposed.get_or_insert_with(|| Record {
            after: self.newest.clone(),
            turn: turn_of(0, &self.newest, number, left),
        });
        if log.under_way.contains(record) || log.records[self.read..].contains(record) {
            return false;
        }
        log.send(record.clone());
        true
    }

    /// Reads the next record. Returns the outcome if that decides about what it proposed.
    fn read(&mut self, log: &Log) -> Option<Appended> {
        let record = log.records.get(self.read)?;
        self.read += 1;
        if !self.newest.is_continued_by(&record.after) {
            return None;
        }
        self.newest = record.turn.clone();
        let proposed = self.proposed.take()?;
        if proposed == *record {
            self.left -= 1;
            self.made.push(proposed.turn);
            Some(Appended::Next)
        } else {
            self.void.push(proposed.turn);
            Some(Appended::Superseded)
        }
    }
}

impl Writer {
    /// Reads up to the record that decides about what it proposed, or to the end.
    fn read_on(&mut self, log: &Log) -> Option<Appended> {
        while self.read < log.records.len() {
            if let Some(outcome) = self.read(log) {
                return Some(outcome);
            }
        }
        None
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    log: Log,
    writers: [Writer; WRITERS],
}

impl State {
    /// Every state that one event makes of this one.
    fn next(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for writer in 0..WRITERS {
            let mut next = self.clone();
            if next.writers[writer].send(writer, &mut next.log) {
                all.push(next);
            }
            if self.writers[writer].read < self.log.records.len() {
                let mut next = self.clone();
                next.writers[writer].read_on(&self.log);
                all.push(next);
            }
        }
        for position in 0..self.log.under_way.len() {
            let mut arrives = self.clone();
            arrives.log.deliver(position);
            if self.log.repeats > 0 {
                let mut twice = arrives.clone();
                twice.log.send(self.log.under_way[position].clone());
                twice.log.repeats -= 1;
                all.push(twice);
            }
            if self.log.losses > 0 {
                let mut lost = self.clone();
                lost.log.under_way.remove(position);
                lost.log.losses -= 1;
                all.push(lost);
            }
            all.push(arrives);
        }
        all
    }

    fn check(&self) {
        let history = self.log.history();
        for (position, turn) in history.iter().enumerate() {
            assert_eq!(turn.number, position as u64 + 1, "{self:?}");
        }
        for writer in &self.writers {
            for turn in &writer.made {
                assert!(history.contains(&turn), "it was told to be in: {self:?}");
            }
            for turn in &writer.void {
                assert!(!history.contains(&turn), "it was told to be void: {self:?}");
            }
            // The turns that a writer has read are a beginning of the history.
            let read = writer.newest.number as usize;
            assert!(read == 0 || history[read - 1] == &writer.newest, "{self:?}");
        }
        let made = self.writers.iter().map(|writer| writer.made.len());
        assert!(made.sum::<usize>() <= history.len(), "{self:?}");
    }
}

/// Explores every state that these writers can come to. Returns how many there are.
fn explore(records: [u64; WRITERS], losses: usize, repeats: usize) -> usize {
    let start = State {
        log: Log {
            losses,
            repeats,
            ..Log::default()
        },
        writers: records.map(Writer::new),
    };
    let mut seen = HashSet::from([start.clone()]);
    let mut left = vec![start];
    while let Some(state) = left.pop() {
        state.check();
        let next = state.next();
        if next.is_empty() {
            // Nothing more can happen, so all are recorded.
            let history = state.log.history().len() as u64;
            assert_eq!(history, records.iter().sum::<u64>(), "{state:?}");
            assert!(state.writers.iter().all(|writer| writer.left == 0));
        }
        for state in next {
            if seen.insert(state.clone()) {
                left.push(state);
            }
        }
    }
    seen.len()
}

#[test]
fn two_writers_and_three_records_make_one_history_whatever_the_engine_does() {
    for records in [[2, 1], [3, 0]] {
        let states = explore(records, 1, 1);
        assert!(states > 100, "{records:?}: {states}");
    }
}

#[test]
fn two_writers_of_a_record_each_make_one_history_when_more_goes_wrong() {
    let states = explore([1, 1], 2, 2);
    assert!(states > 100, "{states}");
}

/// The fate of the messages of one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// The first message gets lost, and the second one arrives.
    Lost,
    Twice,
    /// The first message arrives when the next append is made.
    Late,
}

const FATES: [Fate; 4] = [Fate::Arrives, Fate::Lost, Fate::Twice, Fate::Late];

/// A writer's end of the model.
struct ModelJournal {
    log: Arc<Mutex<Log>>,
    fates: Arc<Mutex<Vec<Fate>>>,
    writer: Mutex<Writer>,
}

impl ModelJournal {
    fn pair(fates: &[Fate]) -> ([Self; WRITERS], Arc<Mutex<Log>>) {
        let log = Arc::new(Mutex::new(Log::default()));
        let fates = Arc::new(Mutex::new(fates.to_vec()));
        let journal = || Self {
            log: Arc::clone(&log),
            fates: Arc::clone(&fates),
            writer: Mutex::new(Writer::new(u64::MAX)),
        };
        ([journal(), journal()], log)
    }
}

impl Journal for ModelJournal {
    fn newest(&self) -> Result<TurnRecord, StoreError> {
        let mut writer = self.writer.lock();
        let undecided = writer.read_on(&self.log.lock());
        assert!(undecided.is_none());
        Ok(writer.newest.clone())
    }

    fn append(&self, proposed: ProposedTurn) -> Appended {
        let mut writer = self.writer.lock();
        let mut log = self.log.lock();
        let record = Record {
            after: proposed.after,
            turn: proposed.turn,
        };
        writer.proposed = Some(record.clone());
        let late = std::mem::take(&mut log.under_way);
        let fate = self.fates.lock().pop().unwrap_or(Fate::Arrives);
        let arriving = if fate == Fate::Twice { 2 } else { 1 };
        log.records.extend(vec![record.clone(); arriving]);
        if fate == Fate::Late {
            log.under_way.push(record);
        }
        log.records.extend(late);
        writer
            .read_on(&log)
            .expect("the record's place is taken by now")
    }

    fn confirm(&self, _: &GuardedHead) -> io::Result<()> {
        Ok(())
    }
}

/// Where a turn's mark is.
fn mark_of(turn: &TurnRecord) -> LedgerNumber {
    LedgerNumber(u32::from_be_bytes(*turn.digest.first_chunk().unwrap()))
}

/// A turn with a mark of its own among its records.
fn proposed(store: &Store, partition: u8, after: &TurnRecord, writer: usize) -> ProposedTurn {
    let turn = turn_of(partition, after, writer, 1);
    let mut records = Batch::default();
    let mark = HeadRecord {
        checkpoint: turn.digest.clone(),
        ..HeadRecord::default()
    };
    let key = keys::head_latest(mark_of(&turn));
    store.put(&mut records, Family::Heads, &key, &mark.encode_to_vec());
    let key = keys::turn(partition);
    store.put(&mut records, Family::Meta, &key, &turn.encode_to_vec());
    ProposedTurn {
        after: after.clone(),
        turn,
        records,
    }
}

/// Has two writers append in this order, each behind the turn that it knows to be the newest; one that
/// is superseded reads on, and proposes again when it is next. Returns what was made, in order, and what
/// is void.
fn race(
    journals: [&dyn Journal; WRITERS],
    store: &Store,
    partition: u8,
    order: &[usize],
) -> (Vec<TurnRecord>, Vec<TurnRecord>) {
    let mut known = journals.map(|journal| journal.newest().unwrap());
    let (mut made, mut void) = (Vec::new(), Vec::new());
    for &writer in order {
        let (journal, after) = (journals[writer], &known[writer]);
        let proposed = proposed(store, partition, after, writer);
        let turn = proposed.turn.clone();
        let is_newest = made.last().unwrap_or(&TurnRecord::none()) == after;
        match journal.append(proposed) {
            Appended::Next => {
                assert!(is_newest, "{order:?}");
                made.push(turn.clone());
                known[writer] = turn;
            }
            Appended::Superseded => {
                assert!(!is_newest, "{order:?}");
                void.push(turn);
                known[writer] = journal.newest().unwrap();
                assert_eq!(Some(&known[writer]), made.last());
            }
            Appended::Unknown(error) => panic!("{error}"),
        }
    }
    for (position, turn) in made.iter().enumerate() {
        assert_eq!(turn.number, position as u64 + 1);
    }
    for journal in journals {
        assert_eq!(Some(&journal.newest().unwrap()), made.last());
    }
    (made, void)
}

/// Every order of `length` appends of two writers.
fn orders(length: u32) -> impl Iterator<Item = Vec<usize>> {
    (0..1_usize << length).map(move |bits| (0..length).map(|at| bits >> at & 1).collect())
}

fn store(dir: &tempfile::TempDir) -> Arc<Store> {
    Arc::new(Store::create(dir.path(), &StoreOptions::default()).unwrap())
}

#[test]
fn the_model_keeps_the_contract_in_every_order_of_appends() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    for order in orders(4) {
        for first in FATES {
            for second in FATES {
                let fates = [second, first, second, first];
                let ([a, b], log) = ModelJournal::pair(&fates);
                let (made, _) = race([&a, &b], &store, 0, &order);
                let log = log.lock();
                assert!(log.history().into_iter().eq(&made), "{order:?} {fates:?}");
            }
        }
    }
}

#[test]
fn the_local_journal_keeps_the_contract_in_every_order_of_appends() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    guard::create(dir.path()).unwrap();
    for (partition, order) in (0..).zip(orders(4)) {
        let slot = GuardSlot::open(dir.path(), usize::from(partition)).unwrap();
        let disk = Disk::new(Arc::clone(&store), slot);
        let journal = LocalJournal::new(Arc::clone(&store), partition, disk);
        let (made, void) = race([&journal, &journal], &store, partition, &order);
        assert_eq!(Some(&store.newest_turn(partition).unwrap()), made.last());
        // A turn is there with all of its records, and one that is void with none.
        let has_mark = |turn: &TurnRecord| store.latest_head(mark_of(turn)).unwrap().is_some();
        assert!(made.iter().all(has_mark) && !void.iter().any(has_mark));
        // A journal that is opened again goes on from there.
        let slot = GuardSlot::open(dir.path(), usize::from(partition)).unwrap();
        let disk = Disk::new(Arc::clone(&store), slot);
        let again = LocalJournal::new(Arc::clone(&store), partition, disk);
        assert_eq!(Some(&again.newest().unwrap()), made.last());
        let stale = proposed(&store, partition, &TurnRecord::none(), 9);
        assert!(matches!(again.append(stale), Appended::Superseded));
    }
}

#[test]
fn a_write_of_unknown_outcome_is_told_and_what_is_there_counts() {
    for persists in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let (written, writes) = (Arc::clone(&store), AtomicUsize::new(0));
        let disk = Disk {
            commit: Box::new(move |batch| {
                let fails = writes.fetch_add(1, SeqCst) == 1;
                if !fails || persists {
                    written.commit(batch)?;
                }
                match fails {
                    true => Err(StoreError::corrupt(
                        Family::Meta,
                        LedgerNumber(0),
                        "injected",
                    )),
                    false => Ok(()),
                }
            }),
            guard: Box::new(|_| Ok(())),
        };
        let journal = LocalJournal::new(Arc::clone(&store), 0, disk);
        let first = proposed(&store, 0, &TurnRecord::none(), 0);
        let after = first.turn.clone();
        assert!(matches!(journal.append(first), Appended::Next));
        let second = proposed(&store, 0, &after, 0);
        let turn = second.turn.clone();
        assert!(matches!(journal.append(second), Appended::Unknown(_)));
        let newest = journal.newest().unwrap();
        assert_eq!(newest, if persists { turn } else { after });
    }
}

#[test]
fn a_turns_number_is_confirmed_with_one_digest() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let confirmed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&confirmed);
    let disk = Disk {
        commit: Box::new(|_| Ok(())),
        guard: Box::new(move |head| {
            seen.lock().push(head.turn);
            Ok(())
        }),
    };
    let journal = LocalJournal::new(Arc::clone(&store), 0, disk);
    let head = |turn, digest: &'static [u8]| GuardedHead {
        turn,
        digest: digest.into(),
        ..GuardedHead::default()
    };
    journal.confirm(&head(1, b"a")).unwrap();
    // Some turns have no head of their own.
    journal.confirm(&head(4, b"d")).unwrap();
    journal.confirm(&head(4, b"d")).unwrap();
    for other in [head(4, b"e"), head(3, b"c")] {
        let refused = journal.confirm(&other).unwrap_err().to_string();
        assert!(refused.contains("turn 4 was confirmed"), "{refused}");
    }
    assert_eq!(*confirmed.lock(), [1, 4, 4]);
}
