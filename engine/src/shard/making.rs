//! A turn that is being made.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Reply,
    held::Held,
    pieces::Stopwatch,
    pipeline::PendingReply,
    queue::Leaving,
    turn::{TURN_BYTES, TURN_JOBS},
};
use crate::{
    ledger::{Ledger, Tree, step::Turn},
    metrics::Assessments,
    store::{Batch, LedgerNumber},
};

/// A turn that is being made.
pub(super) struct Making {
    /// The shard's epoch in which it was begun.
    pub(super) epoch: u64,
    pub(super) began: Instant,
    pub(super) watch: Stopwatch,
    pub(super) ledgers: Vec<InTurn>,
    pub(super) batch: Batch,
    /// The answers of jobs that are done.
    pub(super) placed: Vec<PendingReply>,
    /// Waits for the answer of the job that is being served.
    pub(super) in_hand: Option<Reply>,
    pub(super) changed: Vec<(Arc<Ledger>, Arc<Tree>)>,
    pub(super) unchanged: Vec<Arc<Ledger>>,
    pub(super) assessments: Assessments,
    pub(super) jobs: usize,
    pub(super) bytes: usize,
    pub(super) leaves: usize,
}

/// A ledger in a turn.
pub(super) struct InTurn {
    pub(super) number: LedgerNumber,
    /// The turn's.
    pub(super) epoch: u64,
    pub(super) held: Option<Held>,
    /// What is stepped; `None` if nothing was.
    pub(super) open: Option<(Arc<Ledger>, Turn)>,
    pub(super) used: u64,
    pub(super) longest: Duration,
}

impl InTurn {
    pub(super) fn new(number: LedgerNumber, epoch: u64) -> Self {
        Self {
            number,
            epoch,
            held: None,
            open: None,
            used: 0,
            longest: Duration::ZERO,
        }
    }
}

impl Making {
    pub(super) fn new() -> Self {
        Self {
            epoch: 0,
            began: Instant::now(),
            watch: Stopwatch::start(),
            ledgers: Vec::new(),
            batch: Batch::default(),
            placed: Vec::new(),
            in_hand: None,
            changed: Vec::new(),
            unchanged: Vec::new(),
            assessments: Assessments::default(),
            jobs: 0,
            bytes: 0,
            leaves: 0,
        }
    }

    /// Whether it takes nothing more. It takes something in any case.
    pub(super) fn is_full(&self, turn_time: Duration) -> bool {
        self.jobs > 0
            && (self.jobs >= TURN_JOBS
                || self.bytes >= TURN_BYTES
                || self.began.elapsed() >= turn_time)
    }
}

pub(super) fn leaving(ledger: &InTurn) -> Leaving {
    Leaving {
        ledger: ledger.number,
        used: ledger.used,
        longest: ledger.longest,
    }
}
