//! Tests of the step: sessions, duplicates, runs, and equal results for other cuts of batches.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, Sequence, SessionId,
    assess::{Owner, Timer, cells::CellKey},
    entry::Entry,
    session::Session,
};
use deed_proto::v1;
use proptest::prelude::*;

use super::{
    step::{LedgerState, Placement, RejectReason, SharedTrust, StateReader, forget_most},
    write::write_records,
};
use crate::{
    admission::{Admission, AdmittedBatch, Sender},
    store::{Batch, LedgerNumber, Store, StoreError, StoreOptions, read::Run},
    testing::{Producer, genesis},
};

pub(super) const NUMBER: LedgerNumber = LedgerNumber(0);

/// A ledger that is stepped and written by hand, one turn at a time.
pub(super) struct ByHand {
    _dir: tempfile::TempDir,
    pub(super) store: Arc<Store>,
    pub(super) state: LedgerState,
    pub(super) trust: SharedTrust,
    pub(super) id: LedgerId,
}

pub(super) struct Stored(Arc<Store>);

impl StateReader for Stored {
    fn due(&mut self, due: &Timer) -> Result<Option<Owner>, StoreError> {
        self.0.due(NUMBER, due)
    }

    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, StoreError> {
        self.0.timers_after(NUMBER, after, limit)
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn session(&mut self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError> {
        self.0.session(NUMBER, id)
    }

    fn run_before(
        &mut self,
        id: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<Run>, StoreError> {
        self.0.run_before(NUMBER, id, sequence)
    }

    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError> {
        self.0.entry(NUMBER, leaf)
    }

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, StoreError> {
        self.0.cell(NUMBER, key)
    }
}

impl ByHand {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(dir.path(), &StoreOptions::default()).unwrap());
        let (entry, id, trust) = genesis();
        let (state, records) =
            LedgerState::create(&entry, Micros::new(1), Arc::clone(&trust)).unwrap();
        let mut batch = Batch::default();
        write_records(&store, &mut batch, NUMBER, &records);
        store.commit(batch).unwrap();
        Self {
            _dir: dir,
            store,
            state,
            trust,
            id,
        }
    }

    pub(super) fn reader(&self) -> Stored {
        Stored(Arc::clone(&self.store))
    }

    /// Steps the requests in turns that end after each piece.
    pub(super) fn pieces(&mut self, batches: &[AdmittedBatch]) -> Vec<Placement> {
        let mut all = Vec::new();
        for batch in batches {
            let mut placements = Vec::new();
            while placements.len() < batch.payloads().count() {
                let mut reader = self.reader();
                let mut turn = self.state.begin(&mut reader).unwrap();
                self.state
                    .apply_some(&mut turn, batch, &mut placements, &mut reader, &mut |_| {
                        true
                    })
                    .unwrap();
                let records = self.state.finish(turn).unwrap();
                let mut batch = Batch::default();
                write_records(&self.store, &mut batch, NUMBER, &records);
                self.store.commit(batch).unwrap();
            }
            all.extend(placements);
        }
        all
    }

    pub(super) fn turn(&mut self, batches: &[AdmittedBatch]) -> Vec<Placement> {
        let mut reader = self.reader();
        let mut turn = self.state.begin(&mut reader).unwrap();
        let placements = batches
            .iter()
            .flat_map(|batch| self.state.apply(&mut turn, batch, &mut reader).unwrap())
            .collect();
        let records = self.state.finish(turn).unwrap();
        let mut batch = Batch::default();
        write_records(&self.store, &mut batch, NUMBER, &records);
        self.store.commit(batch).unwrap();
        placements
    }

    /// Forgets everything but the tree, as a restart does.
    pub(super) fn forget_sessions(&mut self) {
        let edge = self.state.edge().clone();
        let trust = Arc::clone(&self.trust);
        let at = self.state.effective_time();
        self.state = LedgerState::new(self.id, edge, at, trust);
    }

    pub(super) fn entries(&self) -> Vec<Bytes> {
        self.store
            .entries(NUMBER, 0)
            .map(|item| item.unwrap().1)
            .collect()
    }

    pub(super) fn records(&self) -> Vec<(Bytes, Bytes)> {
        self.store.state(NUMBER).map(Result::unwrap).collect()
    }
}

/// Admits envelopes for which keys and principals do not matter.
fn admit(id: LedgerId, received_at: i64, envelopes: &[v1::Envelope]) -> AdmittedBatch {
    admit_with(&genesis().2, id, received_at, envelopes)
}

pub(super) fn admit_with(
    trust: &SharedTrust,
    ledger_id: LedgerId,
    received_at: i64,
    envelopes: &[v1::Envelope],
) -> AdmittedBatch {
    let (batch, rejected) = Admission {
        ledger_id,
        trust,
        sender: &Sender::anybody(),
        received_at: Micros::new(received_at),
        holds_contents: false,
        log_signers: None,
    }
    .admit_here(envelopes);
    assert_eq!(rejected, []);
    batch
}

pub(super) fn brief(placements: &[Placement]) -> Vec<String> {
    placements
        .iter()
        .map(|placement| match placement {
            Placement::Recorded { leaf } => format!("recorded {leaf}"),
            Placement::Equivocation { leaf, .. } => format!("equivocation {leaf}"),
            Placement::Linked(placed) => format!("linked {}", placed.leaf),
            Placement::Late => "late".to_owned(),
            Placement::Duplicate(placed) => format!("duplicate {}", placed.leaf),
            Placement::Refused(RejectReason::Session(refusal)) => format!("{refusal:?}"),
            Placement::Refused(refusal) => format!("{refusal:?}"),
        })
        .collect()
}

#[test]
fn duplicates_are_found_in_the_turn_in_memory_and_in_the_store() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let all: Vec<_> = (0..4).map(|n| producer.intent(&format!("r{n}"))).collect();
    let batch = |from: usize, to: usize| admit(ledger.id, 5, &all[from..to]);
    // The repetition is in one request, and so in one turn.
    let twice = [all[0].clone(), all[0].clone(), all[1].clone()];
    let first_turn = [admit(ledger.id, 5, &twice), batch(0, 2), batch(2, 3)];
    let (fourth, second_turn, after) = (batch(3, 4), batch(0, 4), batch(0, 4));
    assert_eq!(
        brief(&ledger.turn(&first_turn)),
        [
            "recorded 1",
            "duplicate 1",
            "recorded 2",
            "duplicate 1",
            "duplicate 2",
            "recorded 3"
        ]
    );
    assert_eq!(brief(&ledger.turn(&[fourth])), ["recorded 4"]);
    let duplicates = ["duplicate 1", "duplicate 2", "duplicate 3", "duplicate 4"];
    assert_eq!(brief(&ledger.turn(&[second_turn])), duplicates);
    ledger.forget_sessions();
    assert_eq!(brief(&ledger.turn(&[after])), duplicates);
    assert_eq!(ledger.entries().len(), 5);
}

/// Returns an Intent of some 60 KB that expects 64 effects.
fn large(producer: &mut Producer) -> v1::Envelope {
    let effect = |n: usize| v1::Effect {
        kind: "k".repeat(100),
        resource: format!("{n:03}/{}", "r".repeat(800)),
        ..v1::Effect::default()
    };
    producer.statement(|statement| {
        statement.body = Some(v1::statement::Body::Intent(v1::Intent {
            action: "act".into(),
            resource: "r".into(),
            expected_effects: (0..64).map(effect).collect(),
            ..v1::Intent::default()
        }));
    })
}

/// Memory is bounded in bytes, whatever the size of the cells: each turn begins with little.
#[test]
fn what_a_ledger_holds_is_bounded_in_bytes() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let mut most = 0;
    for _ in 0..20 {
        let ten: Vec<_> = (0..10).map(|_| large(&mut producer)).collect();
        let sent: usize = ten.iter().map(|one| one.payload.len()).sum();
        let admitted = admit(ledger.id, 5, &ten);
        let placed = ledger.turn(&[admitted]);
        assert!(matches!(placed[..], [Placement::Recorded { .. }, ..]));
        most = most.max(ledger.state.held());
        // The cells that one turn loads are in proportion to the bytes that were sent.
        assert!(ledger.state.held() <= (8 << 20) + 3 * sent);
    }
    assert!(most > 8 << 20, "it was reached: {most}");
}

/// The ledger that holds the most memory gives it back; one that holds little keeps its own.
#[test]
fn the_largest_ledgers_forget_first() {
    let (mut one, mut other) = (ByHand::new(), ByHand::new());
    let mut producer = Producer::new(one.id, 1);
    let ten: Vec<_> = (0..10).map(|_| large(&mut producer)).collect();
    one.turn(&[admit(one.id, 5, &ten)]);
    let mut producer = Producer::new(other.id, 1);
    let small = producer.intent("r");
    other.turn(&[admit(other.id, 5, &[small])]);
    let little = other.state.held();
    assert!(little > 0 && one.state.held() > 10 * little);
    forget_most(vec![&mut other.state, &mut one.state], 10 * little);
    assert_eq!((one.state.held(), other.state.held()), (0, little));
    // The ledger goes on with the records in the store.
    let next = large(&mut Producer::new(one.id, 2));
    let placed = one.turn(&[admit(one.id, 6, &[next])]);
    assert!(matches!(placed[..], [Placement::Recorded { .. }]));
}

#[test]
fn a_duplicate_brings_the_first_receipt() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let envelope = producer.intent("r");
    let first = admit(ledger.id, 5, std::slice::from_ref(&envelope));
    let leaf_hash = first.payloads().next().unwrap().leaf_hash;
    ledger.turn(&[first]);
    // The envelope is admitted at another time, so a second entry would have another hash.
    let again = admit(ledger.id, 6, &[envelope]);
    assert_ne!(again.payloads().next().unwrap().leaf_hash, leaf_hash);
    let placements = ledger.turn(&[again]);
    let Placement::Duplicate(placed) = &placements[0] else {
        panic!("{placements:?}");
    };
    assert_eq!((placed.leaf, placed.leaf_hash), (1, leaf_hash));
    assert_eq!(placed.received_at, Micros::new(5));
}

#[test]
fn other_bytes_at_a_used_sequence_are_refused() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let mut other = producer.clone();
    let (one, two) = (producer.intent("one"), other.intent("another"));
    let (one, two) = (admit(ledger.id, 5, &[one]), admit(ledger.id, 5, &[two]));
    assert_eq!(brief(&ledger.turn(&[one])), ["recorded 1"]);
    assert_eq!(
        brief(&ledger.turn(&[two])),
        ["SequenceReused { expected: Sequence(1) }"]
    );
}

#[test]
fn sequences_are_strict_and_gaps_are_owned_up_to() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let zero = producer.intent("zero");
    let lost = producer.intent("lost");
    let two = producer.intent("two");
    producer.next = 1;
    let after_gap = producer.intent_after_gap(2);
    let four = producer.intent("four");
    let requests = [zero, two, after_gap, lost, four];
    let batch = admit(ledger.id, 5, &requests);
    assert_eq!(
        brief(&ledger.turn(&[batch])),
        [
            "recorded 1",
            "NotNext { expected: Sequence(1) }",
            "recorded 2",
            // This sequence is inside of the gap, and was given up.
            "SequenceReused { expected: Sequence(4) }",
            "recorded 3",
        ]
    );
    let (session, run) = ledger
        .store
        .session(NUMBER, &producer.session())
        .unwrap()
        .unwrap();
    assert_eq!((session.recorded, session.skipped), (3, 2));
    assert_eq!(
        (run.first, run.first_leaf, run.count),
        (Sequence::new(3), 2, 2)
    );
}

#[test]
fn sessions_belong_to_their_producer_and_end() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let mut squatter = Producer::new(ledger.id, 1);
    squatter.producer = "spiffe://example.org/other".to_owned();
    squatter.intrudes = Some(producer.session());
    squatter.next = 1;
    let envelopes = [
        producer.intent("mine"),
        squatter.intent("not mine"),
        producer.closed(),
        producer.intent("too late"),
    ];
    let batch = admit(ledger.id, 5, &envelopes);
    assert_eq!(
        brief(&ledger.turn(&[batch])),
        ["recorded 1", "SessionTaken", "recorded 2", "SessionClosed"]
    );
    // A statement that was recorded is still a duplicate after the end.
    let again = admit(ledger.id, 6, &envelopes[..1]);
    assert_eq!(brief(&ledger.turn(&[again])), ["duplicate 1"]);
}

#[test]
fn a_chain_must_hold_within_a_batch_and_across_turns() {
    let mut ledger = ByHand::new();
    let mut producer = Producer::new(ledger.id, 1);
    let (a, b, c) = (
        producer.intent("a"),
        producer.chained_intent("b"),
        producer.chained_intent("c"),
    );
    let mut forged = producer.clone();
    forged.next = 3;
    forged.previous = Some(deed_evidence::PayloadDigest::of(b"something else"));
    let forged = forged.chained_intent("forged");
    let d = producer.chained_intent("d");
    let batches = [
        admit(ledger.id, 5, &[a, b]),
        admit(ledger.id, 5, &[c]),
        admit(ledger.id, 5, &[forged, d]),
    ];
    let mut placements = Vec::new();
    for batch in batches {
        placements.extend(brief(&ledger.turn(&[batch])));
        ledger.forget_sessions();
    }
    assert_eq!(
        placements,
        [
            "recorded 1",
            "recorded 2",
            "recorded 3",
            "PreviousMismatch { expected: Sequence(3) }",
            "recorded 4"
        ]
    );
}

/// A store that is behind the step: it must not be asked about sessions of turns that it lacks.
struct Behind(SessionId);

impl StateReader for Behind {
    fn due(&mut self, _: &Timer) -> Result<Option<Owner>, StoreError> {
        Ok(None)
    }

    fn timers_after(
        &mut self,
        _: Option<&Timer>,
        _: usize,
    ) -> Result<Vec<(Timer, Owner)>, StoreError> {
        Ok(Vec::new())
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn session(&mut self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError> {
        assert_ne!(
            *id, self.0,
            "the turn that made this session is not in the store"
        );
        Ok(None)
    }

    fn run_before(&mut self, _: &SessionId, _: Sequence) -> Result<Option<Run>, StoreError> {
        Ok(None)
    }

    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError> {
        unreachable!("leaf {leaf} is not in the store")
    }

    fn cell(&mut self, _: &CellKey) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }
}

#[test]
fn a_refusal_between_two_turns_makes_nobody_forget_a_session() {
    let (entry, id, trust) = genesis();
    let (mut state, _) = LedgerState::create(&entry, Micros::new(1), trust).unwrap();
    let mut producer = Producer::new(id, 1);
    let (zero, mut ahead) = (producer.intent("zero"), producer.clone());
    ahead.next = 7;
    let (one, seven) = (producer.intent("one"), ahead.intent("seven"));
    let mut placements = Vec::new();
    // Until its first turn is in the store, the session must not be looked up there.
    let mut reader = Behind(SessionId::new([99; 16]));
    for envelope in [zero, seven, one] {
        let mut turn = state.begin(&mut reader).unwrap();
        let batch = admit(id, 5, &[envelope]);
        placements.extend(state.apply(&mut turn, &batch, &mut reader).unwrap());
        state.finish(turn).unwrap();
        reader = Behind(producer.session());
    }
    assert_eq!(
        brief(&placements),
        [
            "recorded 1",
            "NotNext { expected: Sequence(1) }",
            "recorded 2"
        ]
    );
}

/// Returns the envelope that an entry was made of.
pub(super) fn envelope_of(entry: &Entry<'_>) -> v1::Envelope {
    let bytes = |slice: &[u8]| Bytes::copy_from_slice(slice);
    v1::Envelope {
        payload_type: entry.payload_type.into(),
        payload: bytes(entry.payload),
        key_id: entry.signature.map_or_else(Bytes::new, |s| bytes(s.key_id)),
        signature: entry
            .signature
            .map_or_else(Bytes::new, |s| bytes(s.signature)),
        ..v1::Envelope::default()
    }
}

/// One act of a producer.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Intent,
    Chained,
    Gap(u64),
    Repeat(usize),
    Close,
}

pub(super) fn acts() -> impl Strategy<Value = Vec<(u8, Act)>> {
    let act = prop_oneof![
        8 => Just(Act::Intent),
        2 => Just(Act::Chained),
        1 => (1_u64..4).prop_map(Act::Gap),
        2 => any::<usize>().prop_map(Act::Repeat),
        1 => Just(Act::Close),
    ];
    prop::collection::vec((0_u8..5, act), 1..400)
}

/// Returns the envelopes of some acts, each by the producer of its number.
pub(super) fn envelopes(id: LedgerId, acts: &[(u8, Act)]) -> Vec<v1::Envelope> {
    let mut producers: Vec<_> = (0..5).map(|session| Producer::new(id, session)).collect();
    let mut made: Vec<v1::Envelope> = Vec::new();
    for (producer, act) in acts {
        let producer = &mut producers[usize::from(*producer)];
        made.push(match act {
            Act::Intent => producer.intent("r"),
            Act::Chained => producer.chained_intent("r"),
            Act::Gap(lost) => producer.intent_after_gap(*lost),
            Act::Repeat(which) if !made.is_empty() => made[which % made.len()].clone(),
            Act::Repeat(_) => producer.intent("r"),
            Act::Close => producer.closed(),
        });
    }
    made
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same statements in the same order give the same root, entries and records, however
    /// requests and turns are cut, and whether or not memory was lost in between.
    #[test]
    fn cuts_do_not_matter(
        acts in acts(),
        cuts in prop::collection::vec((1_usize..40, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let mut whole = ByHand::new();
        let all = envelopes(whole.id, &acts);
        let batch = admit(whole.id, 5, &all);
        let expected = whole.turn(&[batch]);

        let mut cut = ByHand::new();
        let mut placements = Vec::new();
        let mut waiting = Vec::new();
        let mut rest = &all[..];
        for (length, end_turn, forget) in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*length));
            waiting.push(admit(cut.id, 5, now));
            rest = later;
            if *end_turn || rest.is_empty() || waiting.len() > 8 {
                placements.extend(cut.turn(&std::mem::take(&mut waiting)));
                if *forget {
                    cut.forget_sessions();
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&placements, &expected);
        let mut pieces = ByHand::new();
        let batch = admit(pieces.id, 5, &all);
        prop_assert_eq!(pieces.pieces(&[batch]), expected);
        prop_assert_eq!(pieces.records(), whole.records());
        prop_assert_eq!(pieces.entries(), whole.entries());
        prop_assert_eq!(cut.state.edge().head(), whole.state.edge().head());
        prop_assert_eq!(cut.entries(), whole.entries());
        prop_assert_eq!(cut.records(), whole.records());
    }

    /// The entries of a log, stepped one by one into a second store, give the same root and
    /// records.
    #[test]
    fn a_replay_gives_the_same_ledger(acts in acts(), turn_length in 1_usize..50) {
        let mut original = ByHand::new();
        let all = envelopes(original.id, &acts);
        for (time, now) in (5..).zip(all.chunks(turn_length)) {
            let batch = admit(original.id, time, now);
            original.turn(&[batch]);
        }
        let mut replayed = ByHand::new();
        for entry in original.entries().iter().skip(1) {
            let entry = Entry::parse(entry).unwrap();
            let batch = admit(replayed.id, entry.received_at.get(), &[envelope_of(&entry)]);
            let placements = replayed.turn(&[batch]);
            prop_assert!(matches!(placements[..], [Placement::Recorded { .. }]), "{:?}", placements);
        }
        prop_assert_eq!(replayed.state.edge().head(), original.state.edge().head());
        prop_assert_eq!(replayed.state.effective_time(), original.state.effective_time());
        prop_assert_eq!(replayed.entries(), original.entries());
        prop_assert_eq!(replayed.records(), original.records());
    }
}
