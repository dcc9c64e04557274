//! KeyRevoked, of a key that somebody else may have had.

use deed_proto::v1::FindingKind;

use super::Apply;
use crate::{
    KeyId, Micros, TaskId,
    assess::{
        View,
        cells::{CellKey, Count, KeyActivity, KeyTask, Sweep},
        timer::{Timer, TimerKind},
    },
};

/// Tasks of a compromised key that are looked at at one moment.
const SWEPT_AT_ONCE: u32 = 5;

impl<V: View> Apply<'_, V> {
    /// Everything that the key said from `since` on may be somebody else's: a finding for each task. The
    /// newest come first: they are the likeliest to be somebody else's. A key may have spoken in very many
    /// tasks, so they are looked at in portions, the next one when time has gone on.
    pub(super) fn key_compromised(&mut self, key: KeyId, since: Micros) -> Result<(), V::Error> {
        let before = self.cells.look::<Sweep>(CellKey::Sweep(key))?;
        if let Some(before) = before.copied().filter(|before| before.left > 0) {
            self.timers.undo(sweep_due(key, &before));
        }
        let uses = self.cells.look::<Count>(CellKey::KeyUses(key))?;
        let sweep = Sweep {
            leaf: self.leaf,
            since_us: since.get(),
            left: uses.copied().unwrap_or_default().count,
            due_us: self.at.get(),
        };
        self.sweep(key, sweep)
    }

    pub(super) fn sweep_due(&mut self, key: KeyId) -> Result<(), V::Error> {
        let sweep = self.cells.look::<Sweep>(CellKey::Sweep(key))?;
        match sweep.copied() {
            Some(sweep) => self.by_proven(|ctx| ctx.sweep(key, sweep)),
            None => Ok(()),
        }
    }

    /// Looks at the next tasks of a compromised key.
    fn sweep(&mut self, key: KeyId, mut sweep: Sweep) -> Result<(), V::Error> {
        let behind = sweep.left;
        sweep.left = behind.saturating_sub(SWEPT_AT_ONCE);
        for n in sweep.left..behind {
            let Some(used) = self.cells.look::<KeyTask>(CellKey::KeyUse(key, n))? else {
                continue;
            };
            let Some(id) = TaskId::from_slice(&used.task) else {
                continue;
            };
            let last = self
                .cells
                .task(id)?
                .and_then(|task| task.keys.iter().find(|k| k.key[..] == key.as_bytes()[..]))
                .map(|spoke| (spoke.last_leaf, spoke.last_at_us));
            let last = match last {
                Some(last) => Some(last),
                None => self
                    .cells
                    .look::<KeyActivity>(CellKey::KeyIn(id, key))?
                    .map(|spoke| (spoke.last_leaf, spoke.last_at_us)),
            };
            if let Some((leaf, at_us)) = last
                && at_us >= sweep.since_us
            {
                let detail =
                    format!("key {key} spoke in this task when somebody else may have had it");
                self.find(FindingKind::CompromisedKeyUse)
                    .in_task(id)
                    .about(leaf)
                    .contradicts(sweep.leaf)
                    .says(detail)?;
            }
        }
        if sweep.left > 0 {
            sweep.due_us = self.at.get().saturating_add(1);
            self.timers.set(sweep_due(key, &sweep));
        }
        self.cells.put_if_other(CellKey::Sweep(key), sweep)
    }
}

/// The timer at which the next tasks of a compromised key are looked at.
const fn sweep_due(key: KeyId, sweep: &Sweep) -> Timer {
    Timer {
        at: Micros::new(sweep.due_us),
        leaf: sweep.leaf,
        kind: TimerKind::Compromised(key),
    }
}
