//! Losing a race is no damage: another writer's turn came first, so this shard's is void, and with it what
//! was stepped on it since.
//!
//! ```text
//! commit thread   the turn is void: the next epoch begins; this turn and all that were begun before go on
//!                 empty, and whoever waits for them is told to try again
//! turn threads    forget what the shard has in memory, and give up what they make of it
//! the next step   of a ledger reads it from the store first: tree and trust state are replaced in place
//! ```
//!
//! A job is void too if its place was reserved before: what it was admitted by, or what its caller sent
//! before it, may be. A ledger that a void turn has stepped is read again at once, for its trust state may
//! refuse callers at admission, and then nothing of theirs would reach a step.

use std::{sync::Arc, time::Instant};

use super::{
    Job, NoAnswer, Work,
    held::signed,
    making::{InTurn, Making, leaving},
    queue::{Claim, Queue},
    schedule::Waits,
    turn::Turns,
};
use crate::{
    ledger::{Ledger, step::StepError},
    pressure::SourceKey,
};

/// Has a ledger read again from the store by whoever steps it next. Must be called for each ledger that a
/// void turn has stepped, when the next epoch has begun: callers may be refused by its trust state before
/// anything of them reaches the step.
pub(super) fn restore_soon(queue: &Queue<Job>, ledger: Arc<Ledger>) {
    let (number, now) = (ledger.number, Instant::now());
    let job = Job {
        work: Work::Restore(ledger),
        reply: None,
        permit: None,
        epoch: 0,
        restorations: 0,
        queued: now,
        begun: false,
        placements: Vec::new(),
        assessed: Vec::new(),
    };
    let waits = Waits {
        item: job,
        is_heavy: false,
        received: now,
        begun: false,
    };
    queue.push(number, SourceKey::Server, waits);
}

impl Turns {
    /// Forgets all ledgers if a turn was superseded: what is in memory may rest on it. Returns the epoch
    /// of what is in memory from here on.
    pub(super) fn forget_void(&self) -> u64 {
        let epoch = self.progress.epoch();
        let mut all = self.held.lock();
        if all.epoch < epoch {
            all.epoch = epoch;
            let void = std::mem::take(&mut all.ledgers).into_values();
            let sessions: usize = void.map(|held| held.state.sessions()).sum();
            self.metrics.sessions_changed(-signed(sessions));
        }
        all.epoch
    }

    /// Gives the ledgers of a turn back, after it was handed over.
    pub(super) fn give_back(&self, claim: &Claim, making: Making, handed_over: Option<u64>) {
        let leaving: Vec<_> = making.ledgers.iter().map(leaving).collect();
        let mut all = self.held.lock();
        // What rests on a void turn is forgotten with the others.
        let is_void = all.epoch != making.epoch;
        let mut forgotten = 0;
        for InTurn { number, held, .. } in making.ledgers {
            if let Some(mut held) = held {
                if is_void {
                    forgotten += held.state.sessions();
                    continue;
                }
                held.handed_over = handed_over.unwrap_or(held.handed_over);
                all.ledgers.insert(number, held);
            }
        }
        drop(all);
        if is_void {
            self.metrics.sessions_changed(-signed(forgotten));
        }
        self.queue.end(claim, leaving);
    }

    /// Gives a turn up that rests on a void one: it is not handed over, and whoever waits is told.
    pub(super) fn give_up(&self, claim: &Claim, making: Making) {
        let leaving: Vec<_> = making.ledgers.iter().map(leaving).collect();
        let mut stepped = making.unchanged;
        stepped.extend(making.changed.into_iter().map(|(ledger, _)| ledger));
        let mut forgotten = 0;
        for InTurn { held, open, .. } in making.ledgers {
            forgotten += held.map_or(0, |held| held.state.sessions());
            stepped.extend(open.map(|(ledger, _)| ledger));
        }
        self.metrics.sessions_changed(-signed(forgotten));
        for ledger in stepped {
            restore_soon(&self.queue, ledger);
        }
        let mut replies: Vec<_> = making.in_hand.into_iter().collect();
        replies.extend(making.placed.into_iter().filter_map(|placed| placed.reply));
        for reply in replies {
            let _ = reply.send(Err(NoAnswer::Superseded));
        }
        self.queue.end(claim, leaving);
    }

    /// Returns true if a job rests on a turn that is void: its place was reserved before, or it was
    /// admitted under a trust state that has been replaced. Reads the ledger again, if need be.
    pub(super) fn is_void(&self, making: &Making, job: &Job) -> Result<bool, StepError> {
        if self.progress.epoch() != making.epoch {
            if let Work::Restore(ledger) = &job.work {
                restore_soon(&self.queue, Arc::clone(ledger));
            }
            return Err(StepError::Superseded);
        }
        if making.epoch == 0 {
            return Ok(false);
        }
        let ledger = match &job.work {
            Work::Create(new) => {
                let (number, name) = (new.ledger.number, new.ledger.name());
                let is_free =
                    self.store.next_ledger()? == number && self.store.ledger(name)?.is_none();
                return Ok(job.epoch != making.epoch || !is_free);
            }
            Work::Append(ledger, _)
            | Work::Tick(ledger, _)
            | Work::Receipt(ledger, ..)
            | Work::Clock(ledger, _)
            | Work::Restore(ledger) => ledger,
        };
        if ledger.epoch() != making.epoch {
            // Then nothing of it is ahead of what is readable.
            if !making.watch.wait(|| self.progress.settle_released()) {
                return Err(StepError::Superseded);
            }
            ledger.restore(making.epoch)?;
        }
        let is_old = job.epoch != making.epoch || job.restorations != ledger.restorations();
        Ok(is_old && !matches!(job.work, Work::Restore(_)))
    }
}
