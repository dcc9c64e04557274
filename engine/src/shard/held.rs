//! The ledgers that a shard keeps in memory between two turns, and the bounds on their memory.

use std::{collections::HashMap, sync::Arc};

use deed_evidence::LedgerId;

use super::{pipeline::Progress, turn::Turns};
use crate::{
    ledger::{
        Ledger, Tree,
        step::{LedgerState, forget_most},
    },
    store::LedgerNumber,
};

/// Most bytes of sessions and of the cells of assessments that a shard keeps in memory, over all of
/// its ledgers. Beyond that, the ledgers that hold the most forget what they hold, until half is
/// left: they read it from the store when they need it again. So a ledger that holds little does
/// not pay for one that holds much.
const HELD_MAX: usize = 96 << 20;

/// Most ledgers that a shard keeps in memory. Beyond that, it forgets all of them.
const LEDGERS_HELD_MAX: usize = 1024;

/// Most bytes of the evidence policies of those ledgers. Beyond that, the shard drops the ledgers
/// with the longest policies, until half is left. Then the registry may drop them from memory, too.
const POLICIES_HELD_MAX: usize = 128 << 20;

/// Number of turns between two checks of those bounds.
const TURNS_UNCHECKED: u32 = 64;

/// The ledgers that no thread steps at the moment. A thread that steps one takes it out.
#[derive(Default)]
pub(super) struct AllHeld {
    pub(super) ledgers: HashMap<LedgerNumber, Held>,
    /// The shard's epoch that they are of.
    pub(super) epoch: u64,
    turns: u32,
}

impl AllHeld {
    /// Drops the ledgers with the longest evidence policies until half of `most` bytes is left, if
    /// the policies of all ledgers have more than `most`. Returns the number of sessions that went
    /// with them.
    fn let_go_of_policies(&mut self, most: usize, progress: &Progress) -> usize {
        // A dropped ledger comes back with its published tree, so it must have no turn on the way
        // to the disk.
        let settled = self
            .ledgers
            .iter()
            .filter(|(_, held)| progress.has_released(held.handed_over));
        let mut policies: Vec<_> = settled
            .map(|(number, held)| (held.state.policy_bytes(), *number))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        let mut bytes: usize = policies.iter().map(|(bytes, _)| bytes).sum();
        if bytes <= most {
            return 0;
        }
        policies.sort_unstable();
        let mut sessions = 0;
        while bytes > most / 2
            && let Some((size, number)) = policies.pop()
        {
            bytes -= size;
            let gone = self.ledgers.remove(&number);
            sessions += gone.map_or(0, |held| held.state.sessions());
        }
        sessions
    }
}

/// A ledger that this shard has stepped.
pub(super) struct Held {
    pub(super) state: LedgerState,
    /// The ledger's newest tree, on disk or on the way there.
    pub(super) newest: Arc<Tree>,
    /// The number of the last turn with this ledger that was handed over.
    pub(super) handed_over: u64,
}

impl Turns {
    /// Forgets ledgers, or what they hold, if the shard holds more than its bounds allow.
    pub(super) fn forget_beyond_bounds(&self) {
        let mut all = self.held.lock();
        all.turns = all.turns.wrapping_add(1);
        if !all.turns.is_multiple_of(TURNS_UNCHECKED) {
            return;
        }
        let held: usize = all.ledgers.values().map(|held| held.state.held()).sum();
        if all.ledgers.len() > LEDGERS_HELD_MAX {
            // A dropped ledger comes back with its published tree, so it must have no turn on the
            // way to the disk.
            let forgotten = all
                .ledgers
                .extract_if(|_, held| self.progress.has_released(held.handed_over));
            let sessions: usize = forgotten.map(|(_, held)| held.state.sessions()).sum();
            self.metrics.sessions_changed(-signed(sessions));
        } else if held > HELD_MAX {
            // A ledger reads what it forgot from the store, so it must have no turn on the way to
            // the disk.
            let settled = all
                .ledgers
                .values_mut()
                .filter(|held| self.progress.has_released(held.handed_over));
            let states: Vec<_> = settled.map(|held| &mut held.state).collect();
            let before: usize = states.iter().map(|state| state.sessions()).sum();
            let settled: usize = states.iter().map(|state| state.held()).sum();
            let left = forget_most(states, settled.saturating_sub(held - HELD_MAX / 2));
            self.metrics.sessions_changed(signed(left) - signed(before));
        }
        let sessions = all.let_go_of_policies(POLICIES_HELD_MAX, &self.progress);
        self.metrics.sessions_changed(-signed(sessions));
    }
}

impl Held {
    /// Begins with the published tree. That is the newest, because only this shard steps the
    /// ledger, and no turn of it is on the way to the disk.
    pub(super) fn new(ledger: &Ledger) -> Self {
        let newest = Arc::clone(ledger.readable().tree());
        let id: LedgerId = ledger.id;
        Self {
            state: LedgerState::new(
                id,
                newest.edge.clone(),
                newest.effective_time,
                Arc::clone(&ledger.trust),
            ),
            newest,
            handed_over: 0,
        }
    }
}

pub(super) fn signed(sessions: usize) -> i64 {
    i64::try_from(sessions).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{ledger::registry_tests::create_with_policy, testing::Engine};

    #[test]
    fn long_policies_are_not_kept_for_a_shard() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path());
        let [one, two] = ["one", "two"].map(|name| create_with_policy(&engine, name));
        let none = engine.create("none").unwrap();
        let mut all = AllHeld::default();
        for ledger in [&one, &two, &none] {
            all.ledgers.insert(ledger.number, Held::new(ledger));
        }
        let progress = Progress::new(Arc::new(watch::Sender::new(None)), Arc::default());
        let bytes = all.ledgers[&one.number].state.policy_bytes();
        assert!(bytes > 0);
        assert_eq!(all.ledgers[&none.number].state.policy_bytes(), 0);
        all.let_go_of_policies(2 * bytes, &progress);
        assert_eq!(all.ledgers.len(), 3);
        // Ledgers with a turn on the way to the disk stay.
        let on_its_way = progress.begin();
        for number in [one.number, two.number] {
            let held = all.ledgers.get_mut(&number).unwrap();
            held.handed_over = on_its_way;
        }
        all.let_go_of_policies(0, &progress);
        assert_eq!(all.ledgers.len(), 3);
        all.ledgers
            .values_mut()
            .for_each(|held| held.handed_over = 0);
        all.let_go_of_policies(2 * bytes - 1, &progress);
        assert!(all.ledgers.keys().eq([&none.number]));
        drop((all, one, two, none));
        engine.close();
    }
}
