//! Time: the timers that are due fire.

use super::Apply;
use crate::assess::{
    View,
    cells::{CellKey, Promise, TimerCount},
    timer::{FIRE_MAX, Owner, TimerKind},
};

impl<V: View> Apply<'_, V> {
    /// Fires what is due by now, [`FIRE_MAX`] timers of it at most.
    pub(in crate::assess) fn advance(&mut self) -> Result<(), V::Error> {
        self.keep_timers(Owner::ALL)?;
        for _ in 0..FIRE_MAX {
            let Some(timer) = self.timers.fire(self.at) else {
                break;
            };
            self.findings.begin(self.leaf);
            self.cells.cache.fired_timer();
            match timer.kind {
                TimerKind::Task(task) => self.task_deadline(task)?,
                TimerKind::Intent(leaf) => self.intent_deadline(leaf)?,
                TimerKind::Observation(leaf) => self.observation_deadline(leaf)?,
                TimerKind::Session(session) => {
                    self.cells
                        .put(CellKey::Promise(session), Promise::default());
                    self.session_silent(timer.leaf)?;
                }
                TimerKind::Compromised(key) => self.sweep_due(key)?,
            }
            self.keep_timers(Owner::ALL)?;
        }
        Ok(())
    }

    /// Finishes what was set and undone of timers: they get `owner`, and are counted.
    pub(in crate::assess) fn keep_timers(&mut self, owner: Owner) -> Result<(), V::Error> {
        self.timers.keep(self.cells.view, owner)?;
        for (owner, timer, set) in self.timers.take_moved() {
            self.cells.cache.moved_timer();
            for counted in owner.counted_as() {
                let key = CellKey::Timers(counted);
                let count: &mut TimerCount = self.cells.change_or_default(key)?;
                let of_all = counted == Owner::ALL;
                let promises = u64::from(of_all && matches!(timer.kind, TimerKind::Session(_)));
                let uncharged = u64::from(of_all && owner == Owner::ALL);
                if set {
                    count.held += 1;
                    count.promises += promises;
                    count.uncharged += uncharged;
                } else {
                    count.held = count.held.saturating_sub(1);
                    count.promises = count.promises.saturating_sub(promises);
                    count.uncharged = count.uncharged.saturating_sub(uncharged);
                }
            }
        }
        Ok(())
    }
}
