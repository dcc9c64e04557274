//! What a session takes next: a table, and a model that counts in 128 bits.

use deed_evidence::{
    KeyId, PayloadDigest, PrincipalHash, Sequence, SessionId,
    session::{BatchStep, Binding, Refusal, SequencePosition, Session},
    statement::{BodyKind, SessionHeader},
};
use proptest::{collection::vec, option, prelude::*};

const PRODUCER: &str = "spiffe://example.org/agent";
const MAX: u64 = u64::MAX;

fn header(sequence: u64) -> SessionHeader<'static> {
    SessionHeader {
        producer: PRODUCER,
        session: SessionId::new([1; 16]),
        sequence: Sequence::new(sequence),
        previous: None,
        skipped_from: None,
        task: None,
        body: BodyKind::Heartbeat,
        breach: None,
    }
}

fn skipping(from: u64, sequence: u64) -> SessionHeader<'static> {
    SessionHeader {
        skipped_from: Some(Sequence::new(from)),
        ..header(sequence)
    }
}

fn after(previous: u8, sequence: u64) -> SessionHeader<'static> {
    SessionHeader {
        previous: Some(digest(previous)),
        ..header(sequence)
    }
}

fn closing(sequence: u64) -> SessionHeader<'static> {
    SessionHeader {
        body: BodyKind::SessionClosed,
        ..header(sequence)
    }
}

/// The judgement where everybody is the same speaker; whom a session is bound to has a test of its
/// own.
fn judge(
    session: Option<&Session>,
    header: &SessionHeader<'_>,
) -> Result<SequencePosition, Refusal> {
    deed_evidence::session::judge(session, header, Binding::Nobody)
}

fn digest(byte: u8) -> PayloadDigest {
    PayloadDigest::new([byte; 32])
}

/// The session after these statements, each judged to be the next; the last payload's digest
/// is that of its position.
fn session(statements: &[SessionHeader<'_>]) -> Option<Session> {
    let mut session: Option<Session> = None;
    for (position, header) in statements.iter().enumerate() {
        assert_eq!(
            judge(session.as_ref(), header),
            Ok(SequencePosition::Next),
            "{header:?}"
        );
        let digest = digest(position as u8);
        match &mut session {
            Some(session) => session.advance(header, digest),
            None => session = Some(Session::opened(header, digest, Binding::Nobody)),
        }
    }
    session
}

#[test]
fn every_case() {
    let next = Ok(SequencePosition::Next);
    let behind = Ok(SequencePosition::Behind);
    let not_next = |expected| {
        Err(Refusal::NotNext {
            expected: Sequence::new(expected),
        })
    };
    let mismatch = |expected| {
        Err(Refusal::PreviousMismatch {
            expected: Sequence::new(expected),
        })
    };
    let closed = Err(Refusal::SessionClosed);

    let fresh = None;
    let one = session(&[header(0)]);
    let three = session(&[header(0), header(1), header(2)]);
    let with_gap = session(&[header(0), skipping(1, 5)]);
    let ended = session(&[header(0), closing(1)]);
    let begun_late = session(&[skipping(0, 4)]);
    let nearly_full = session(&[header(0), skipping(1, MAX - 1)]);
    let full = session(&[header(0), skipping(1, MAX - 1), header(MAX)]);
    let full_at_once = session(&[skipping(0, MAX)]);
    let closed_before_last = session(&[
        header(0),
        SessionHeader {
            body: BodyKind::SessionClosed,
            ..skipping(1, MAX - 1)
        },
    ]);
    let other = |header| SessionHeader {
        producer: "spiffe://example.org/other",
        ..header
    };

    let rows = [
        ("the first", &fresh, header(0), next),
        ("not the first", &fresh, header(1), not_next(0)),
        ("not the first, by far", &fresh, header(MAX), not_next(0)),
        ("the first ones lost", &fresh, skipping(0, 3), next),
        (
            "lost, but not from the first",
            &fresh,
            skipping(1, 3),
            not_next(0),
        ),
        ("nothing before the first", &fresh, after(0, 0), mismatch(0)),
        (
            "nothing before the first, skipping",
            &fresh,
            SessionHeader {
                previous: Some(digest(0)),
                ..skipping(0, 3)
            },
            mismatch(0),
        ),
        ("closing at once", &fresh, closing(0), next),
        ("the next", &one, header(1), next),
        ("the next, chained", &one, after(0, 1), next),
        (
            "the next, chained to another",
            &one,
            after(9, 1),
            mismatch(1),
        ),
        (
            "chained to the one before the last",
            &three,
            after(1, 3),
            mismatch(3),
        ),
        ("chained to the last", &three, after(2, 3), next),
        ("again", &one, header(0), behind),
        ("again, chained to anything", &three, after(9, 1), behind),
        ("one too far", &one, header(2), not_next(1)),
        ("owning up", &one, skipping(1, 2), next),
        ("owning up to much", &one, skipping(1, MAX), next),
        ("owning up to too little", &one, skipping(2, 3), not_next(1)),
        (
            "owning up to what is there",
            &one,
            skipping(0, 3),
            not_next(1),
        ),
        ("owning up to nothing", &one, skipping(1, 1), not_next(1)),
        ("within a gap", &with_gap, header(3), behind),
        ("within a gap, owning up", &with_gap, skipping(3, 4), behind),
        ("after a gap", &with_gap, header(6), next),
        (
            "owning up to the gap again",
            &with_gap,
            skipping(1, 6),
            not_next(6),
        ),
        ("a gap at the start", &begun_late, header(0), behind),
        ("after a gap at the start", &begun_late, header(5), next),
        ("after the end", &ended, header(2), closed),
        ("after the end, skipping", &ended, skipping(2, 9), closed),
        ("after the end, not the next", &ended, header(7), closed),
        ("the end again", &ended, closing(1), behind),
        ("before the end again", &ended, header(0), behind),
        (
            "somebody else's first",
            &one,
            other(header(0)),
            Err(Refusal::SessionTaken),
        ),
        (
            "somebody else's next",
            &one,
            other(header(1)),
            Err(Refusal::SessionTaken),
        ),
        (
            "somebody else's after the end",
            &ended,
            other(header(2)),
            Err(Refusal::SessionTaken),
        ),
        ("the last of all", &nearly_full, header(MAX), next),
        (
            "behind the last but one",
            &nearly_full,
            header(MAX - 1),
            behind,
        ),
        ("the last of all again", &full, header(MAX), behind),
        ("behind the last of all", &full, header(MAX - 1), behind),
        (
            "the last of all again, alone",
            &full_at_once,
            header(MAX),
            behind,
        ),
        ("the first of a full one", &full_at_once, header(0), behind),
        (
            "the last of all, closed before",
            &closed_before_last,
            header(MAX),
            closed,
        ),
    ];
    for (case, session, header, wanted) in rows {
        assert_eq!(judge(session.as_ref(), &header), wanted, "{case}");
    }
}

#[test]
fn what_a_session_remembers() {
    let with_gap = session(&[header(0), header(1), skipping(2, 7)]).unwrap();
    assert_eq!(
        with_gap,
        Session {
            producer: PRODUCER.into(),
            bound_to: Binding::Nobody,
            next: Sequence::new(8),
            last_payload: Some(digest(2)),
            recorded: 3,
            skipped: 5,
            closed: false,
        }
    );
    let full = session(&[skipping(0, MAX)]).unwrap();
    assert_eq!((full.recorded, full.skipped, full.closed), (1, MAX, true));
    assert!(session(&[closing(0)]).unwrap().closed);
    assert_eq!(session(&[skipping(0, 3)]).unwrap().skipped, 3);
}

/// A session as one would write it down without regard to the size of numbers.
#[derive(Default)]
struct Model {
    producer: Option<u8>,
    /// 0 to 2^64.
    next: u128,
    last: Option<u8>,
    closed: bool,
    recorded: u64,
    skipped: u128,
}

#[derive(Debug, Clone)]
struct Step {
    producer: u8,
    /// Relative to what the session takes next, so that much of it is taken.
    offset: i8,
    from: Option<i8>,
    previous: Option<Option<u8>>,
    closes: bool,
    digest: u8,
}

impl Model {
    fn judge(&self, step: &Step, header: &SessionHeader<'_>) -> Result<SequencePosition, Refusal> {
        let sequence = u128::from(header.sequence.get());
        let expected = Sequence::new(u64::try_from(self.next).unwrap_or(MAX));
        if self
            .producer
            .is_some_and(|producer| producer != step.producer)
        {
            return Err(Refusal::SessionTaken);
        }
        if sequence < self.next {
            return Ok(SequencePosition::Behind);
        }
        if self.closed {
            return Err(Refusal::SessionClosed);
        }
        let from = header
            .skipped_from
            .map_or(sequence, |from| from.get().into());
        if from != self.next || (header.skipped_from.is_some() && sequence == from) {
            return Err(Refusal::NotNext { expected });
        }
        if header
            .previous
            .is_some_and(|previous| Some(previous) != self.last.map(digest))
        {
            return Err(Refusal::PreviousMismatch { expected });
        }
        Ok(SequencePosition::Next)
    }

    fn advance(&mut self, step: &Step, header: &SessionHeader<'_>) {
        let sequence = u128::from(header.sequence.get());
        self.producer = Some(step.producer);
        self.skipped += sequence - self.next;
        self.next = sequence + 1;
        self.last = Some(step.digest);
        self.closed = step.closes || self.next > u128::from(MAX);
        self.recorded += 1;
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let offset = || prop_oneof![6 => Just(0_i8), 1 => -3..5_i8];
    let previous = option::of(option::weighted(0.2, any::<u8>()));
    let from = option::weighted(0.4, offset());
    (0..20_u8, offset(), from, previous, 0..20_u8, any::<u8>()).prop_map(
        |(producer, offset, from, previous, closes, digest)| Step {
            producer: u8::from(producer == 0),
            offset,
            from,
            previous,
            closes: closes == 0,
            digest,
        },
    )
}

const PRODUCERS: [&str; 2] = ["spiffe://example.org/a", "spiffe://example.org/b"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn judge_agrees_with_the_model(
        // How far a first skip leads: to the middle of nowhere, or close to the end.
        leap in prop_oneof![Just(0), 1..20_u64, (0..6_u64).prop_map(|n| MAX - n)],
        steps in vec(any_step(), 1..30),
    ) {
        let mut model = Model::default();
        let mut session: Option<Session> = None;
        for (position, step) in steps.iter().enumerate() {
            let base = if position == 0 { leap } else { u64::try_from(model.next).unwrap_or(MAX) };
            let moved = |offset: i8| base.saturating_add_signed(offset.into());
            let from = match (position, leap) {
                (0, 1..) => Some(0),
                _ => step.from.map(moved),
            };
            let header = SessionHeader {
                producer: PRODUCERS[usize::from(step.producer)],
                previous: step.previous.map(|other| {
                    digest(other.or(model.last).unwrap_or_default())
                }),
                skipped_from: from.map(Sequence::new),
                body: if step.closes { BodyKind::SessionClosed } else { BodyKind::Intent },
                ..header(moved(step.offset.max(i8::from(step.from == Some(step.offset)))))
            };
            let wanted = model.judge(step, &header);
            prop_assert_eq!(judge(session.as_ref(), &header), wanted, "{:?}", header);
            if wanted != Ok(SequencePosition::Next) {
                continue;
            }
            model.advance(step, &header);
            match &mut session {
                Some(session) => session.advance(&header, digest(step.digest)),
                None => session = Some(Session::opened(&header, digest(step.digest), Binding::Nobody)),
            }
            let known = session.as_ref().unwrap();
            prop_assert_eq!(known.producer.as_str(), PRODUCERS[usize::from(step.producer)]);
            prop_assert_eq!(u128::from(known.next.get()), model.next.min(MAX.into()));
            prop_assert_eq!(known.last_payload, Some(digest(step.digest)));
            prop_assert_eq!(known.recorded, model.recorded);
            prop_assert_eq!(u128::from(known.skipped), model.skipped);
            prop_assert_eq!(known.closed, model.closed);
        }
    }
}

/// Every speaker against every session: its own takes it, even behind; nobody else's does.
#[test]
fn a_session_belongs_to_whoever_began_it() {
    let speakers = [
        Binding::Nobody,
        Binding::Key(KeyId::new([1; 16])),
        Binding::Key(KeyId::new([2; 16])),
        // The same bytes mean another thing.
        Binding::Principal(PrincipalHash::new([1; 16])),
        Binding::Principal(PrincipalHash::of("spiffe://example.org/gateway")),
    ];
    for owner in speakers {
        let session = Session::opened(&header(0), digest(0), owner);
        assert_eq!(session.bound_to, owner);
        for speaker in speakers {
            for (sequence, wanted) in [(0, SequencePosition::Behind), (1, SequencePosition::Next)] {
                let judged =
                    deed_evidence::session::judge(Some(&session), &header(sequence), speaker);
                if speaker == owner {
                    assert_eq!(judged, Ok(wanted));
                } else {
                    assert_eq!(judged, Err(Refusal::SessionTaken));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A batch in one go, or its statements one by one.
    #[test]
    fn a_batch_advances_a_session_as_its_statements_do(
        before in prop_oneof![Just(None), (0..20_u64).prop_map(Some)],
        leap in prop_oneof![Just(0), 1..20_u64],
        // Relative to the end of all sequences instead.
        from_the_end in any::<bool>(),
        count in prop_oneof![1..20_u64, Just(4096)],
        closes in any::<bool>(),
    ) {
        let speaker = Binding::Key(KeyId::new([7; 16]));
        let mut one_by_one =
            before.map(|at| Session::opened(&skipping_or_not(at), digest(1), speaker));
        let mut at_once = one_by_one.clone();
        let next = before.map_or(0, |at| at + 1);
        let first = if from_the_end { MAX - (count - 1) - leap } else { next + leap };
        for position in 0..count {
            let sequence = first + position;
            let header = SessionHeader {
                skipped_from: (position == 0 && sequence > next).then(|| Sequence::new(next)),
                body: if closes && position + 1 == count {
                    BodyKind::SessionClosed
                } else {
                    BodyKind::Intent
                },
                ..header(sequence)
            };
            let judged = deed_evidence::session::judge(one_by_one.as_ref(), &header, speaker);
            prop_assert_eq!(judged, Ok(SequencePosition::Next));
            let digest = digest(position as u8);
            match &mut one_by_one {
                Some(session) => session.advance(&header, digest),
                None => one_by_one = Some(Session::opened(&header, digest, speaker)),
            }
        }
        let batch = BatchStep {
            first_sequence: Sequence::new(first),
            count: deed_tlog::BatchCount::new(count as usize).unwrap(),
            last_payload: digest((count - 1) as u8),
            closed: closes,
        };
        match &mut at_once {
            Some(session) => session.advance_over(&batch),
            None => at_once = Some(Session::opened_over(PRODUCER, &batch, speaker)),
        }
        prop_assert_eq!(at_once, one_by_one);
    }
}

fn skipping_or_not(sequence: u64) -> SessionHeader<'static> {
    match sequence {
        0 => header(0),
        _ => skipping(0, sequence),
    }
}
