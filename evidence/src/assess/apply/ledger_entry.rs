//! The entries that the ledger writes itself: Clearances, receipts of tasks, Ticks.

use bytes::Bytes;
use deed_proto::v1::{self, FindingKind, statement::Body};
use deed_tlog::leaf_hash;

use super::Apply;
use crate::{
    LedgerId, Micros, TaskId,
    assess::{
        View,
        assessor::PendingEntry,
        cells::{CellKey, Clock},
        timer::Owner,
    },
    entry::Entry,
    statement::LEDGER_PRODUCER,
};

impl<V: View> Apply<'_, V> {
    /// The next entry that the ledger `id` has to write; `None` if there is none. What is returned
    /// counts as written.
    pub(in crate::assess) fn ledger_entry(
        &mut self,
        id: LedgerId,
    ) -> Result<Option<Bytes>, V::Error> {
        while let Some(pending) = self.pending.pop_front() {
            self.findings.begin(self.leaf);
            let (task, body) = match pending {
                PendingEntry::Clearance(intent) => match self.clearance(intent)? {
                    Some((task, body)) => (Some(task), body),
                    None => continue,
                },
                PendingEntry::Receipt { task, requested } => match self.receipt(task, requested)? {
                    Some(body) => (Some(task), body),
                    None => continue,
                },
                PendingEntry::Tick { due } => (None, tick(due.get(), 0)),
                PendingEntry::Confirmed { due, clock, from } => {
                    self.clock_confirmed(clock, from)?;
                    (None, tick(due.map_or(0, Micros::get), clock.get()))
                }
            };
            self.keep_timers(Owner::ALL)?;
            let entry = encoded(id, self.at, task, body);
            if let Some(task) = task {
                self.entry_in(task, &leaf_hash(&entry))?;
            }
            return Ok(Some(entry));
        }
        Ok(None)
    }

    /// Lets time pass where nothing else happens: if something is due, a Tick is pending, and then what
    /// fires.
    pub(in crate::assess) fn tick(&mut self) -> Result<(), V::Error> {
        self.keep_timers(Owner::ALL)?;
        if let Some(due) = self.timers.next().filter(|due| *due <= self.at) {
            self.pending.push_back(PendingEntry::Tick { due });
            self.advance()?;
        }
        Ok(())
    }

    /// Takes the operator's word that the clock is right, which says `clock`; effective time was `from`
    /// before.
    pub(in crate::assess) fn confirm_clock(
        &mut self,
        clock: Micros,
        from: Micros,
    ) -> Result<(), V::Error> {
        self.keep_timers(Owner::ALL)?;
        let at = self.at;
        let due = self.timers.next();
        let due = due.filter(|due| *due <= at && due.get() > 0);
        self.pending
            .push_back(PendingEntry::Confirmed { due, clock, from });
        self.advance()
    }

    /// The finding that the clock was confirmed, for whoever audits the ledger.
    fn clock_confirmed(&mut self, clock: Micros, from: Micros) -> Result<(), V::Error> {
        self.cells.put(
            CellKey::Clock,
            Clock {
                clock_us: clock.get(),
                at_us: self.at.get(),
                leaf: self.leaf,
            },
        );
        let ahead = from.get().saturating_sub(clock.get());
        let detail = if ahead > 0 {
            format!(
                "the operator confirmed the server's clock, which is {} s behind the ledger's time: that \
                 was wrong before, and stands still until the clock has come to it",
                ahead / 1_000_000
            )
        } else {
            format!(
                "the operator confirmed the server's clock, which is {} s ahead of the entries before",
                ahead.saturating_neg() / 1_000_000
            )
        };
        self.find(FindingKind::ClockSkew).says(detail)
    }
}

const fn tick(due_us: i64, clock_us: i64) -> Body {
    Body::Tick(v1::Tick { due_us, clock_us })
}

/// The bytes of an entry of the ledger.
fn encoded(id: LedgerId, at: Micros, task: Option<TaskId>, body: Body) -> Bytes {
    use prost::Message as _;
    let statement = v1::Statement {
        ledger_id: Bytes::copy_from_slice(id.as_bytes()),
        producer: LEDGER_PRODUCER.to_owned(),
        occurred_at_us: at.get(),
        task: task.map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
        body: Some(body),
        ..v1::Statement::default()
    };
    Entry::by_ledger(&statement.encode_to_vec(), at).encode()
}
