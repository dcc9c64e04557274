//! Sessions: their promises, their holes, their clocks.

use deed_proto::v1::FindingKind;

use super::{
    SKEW_US,
    apply::Apply,
    assessor::RecordedStatement,
    body::Body,
    cells::{CellKey, Promise},
    table::{self, Event, Machine, State},
    timer::{Timer, TimerKind},
    view::View,
};
use crate::{Micros, SessionId};

impl<V: View> Apply<'_, V> {
    /// Takes what any statement says of its session: it goes on, its producer's clock may be wrong, and
    /// sequences may be skipped.
    pub(super) fn session_spoke(
        &mut self,
        statement: &RecordedStatement<'_>,
    ) -> Result<(), V::Error> {
        let session = statement.header.session;
        self.kept_promise(session)?;
        if let Body::Heartbeat { next_within_us } = statement.parsed.body
            && next_within_us > 0
        {
            let at = Micros::new(self.at.get().saturating_add(next_within_us));
            self.promise(session, at, self.leaf);
        }
        if let Some(from) = statement.header.skipped_from {
            let lost = statement.header.sequence.get().saturating_sub(from.get());
            let detail =
                format!("{lost} statements of the session are lost, from sequence {from} on");
            self.find(FindingKind::SequenceGap).says(detail)?;
        }
        let ahead = statement
            .parsed
            .occurred_at
            .get()
            .saturating_sub(self.at.get());
        if ahead > SKEW_US {
            let detail = format!("the producer's clock is {} s ahead", ahead / 1_000_000);
            self.find(FindingKind::ClockSkew).says(detail)?;
        }
        Ok(())
    }

    /// Notes that the session has kept its promise, if it gave one.
    fn kept_promise(&mut self, session: SessionId) -> Result<(), V::Error> {
        if self.cells.timers()?.promises == 0 {
            return Ok(());
        }
        let key = CellKey::Promise(session);
        let given = self.cells.look::<Promise>(key)?.copied();
        if let Some(Promise { at_us, leaf }) = given.filter(|given| given.at_us != 0) {
            self.cells.put(key, Promise::default());
            self.timers.undo(Timer {
                at: Micros::new(at_us),
                leaf,
                kind: TimerKind::Session(session),
            });
        }
        Ok(())
    }

    /// Notes that the session promises to go on by `at`.
    fn promise(&mut self, session: SessionId, at: Micros, leaf: u64) {
        let at_us = at.get();
        self.cells
            .put(CellKey::Promise(session), Promise { at_us, leaf });
        self.timers.set(Timer {
            at,
            leaf,
            kind: TimerKind::Session(session),
        });
    }

    /// Finds that a session has broken the promise of the Heartbeat at this leaf.
    pub(super) fn session_silent(&mut self, heartbeat: u64) -> Result<(), V::Error> {
        let row = table::find(Machine::Session, State::Running, Event::PromiseBroken);
        match row.and_then(|row| row.finding) {
            Some(kind) => self
                .find(kind)
                .in_no_task()
                .about(heartbeat)
                .says("the session promised another statement by now; its end may be cut off"),
            None => Ok(()),
        }
    }
}
