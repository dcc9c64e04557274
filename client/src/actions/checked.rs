//! A task judged in this process: its report fetched, and assessed by the code that the ledger runs.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    TaskId,
    entry::Entry,
    replay::{
        Fault, ReplayError,
        task::{TaskReplay, TaskVerdict},
    },
    trust::KeyRecord,
};
use deed_proto::v1::Author;
use deed_tlog::LeafIndex;

use super::{
    compare::{self, Compared, Difference},
    gathered::{Batches, Gathered},
    task_report::ProvenTask,
};
use crate::{
    error::{Error, InputError},
    ledger::Ledger,
    proofs::KnownTrust,
    read::ProvenEntry,
    trust::TrustError,
};

/// Times that a report is asked for again, because it ends before what is in its tree.
const AGAIN_MAX: usize = 3;

/// A task's report, judged again from its own entries.
#[derive(Debug)]
pub struct JudgedTask {
    /// The server's report.
    pub report: ProvenTask,
    /// The verdict over its entries, or the reason why they cannot be those of an honest ledger.
    pub verdict: Result<TaskVerdict, TrustError>,
    /// Parts of the server's report that the entries contradict.
    pub differences: Vec<Difference>,
    /// Parts of the server's report that the entries neither show nor contradict: time may have passed
    /// by entries elsewhere, other tasks may have a part in it, or it was too much to be fetched.
    pub by_word: Vec<Difference>,
}

impl JudgedTask {
    /// The verdict, if the server's report agrees with it.
    ///
    /// # Errors
    /// [`TrustError`] naming the first thing that is not as the server says.
    pub fn agreed(&self) -> Result<&TaskVerdict, TrustError> {
        let verdict = self.verdict.as_ref().map_err(Clone::clone)?;
        match self.differences.first() {
            None => Ok(verdict),
            Some(first) => Err(TrustError::Task {
                reason: first.to_string(),
            }),
        }
    }
}

impl JudgedTask {
    /// Refuses an Intent a permit, however it is judged, if it is one of a batch of which it is not known
    /// that it counts. An Intent that is there as evidence of an equivocation clears nothing.
    pub(super) fn doubtful(&self, intent: LeafIndex) -> Option<TrustError> {
        let verdict = self.verdict.as_ref().ok()?;
        let manifest = compare::doubtful_batch(verdict, intent.get())?;
        Some(fails(format!(
            "the Intent at leaf {intent} is one of the batch at leaf {manifest}, and the server does \
             not show that the batch counts: what was at the place of its first statement in the \
             session before it, if anything, is not told"
        )))
    }
}

impl Ledger {
    /// Fetches a task's report, verifies it as [`task`](Self::task) does, and judges it: signatures,
    /// standing, clearances, receipts, states, layers and findings are worked out here from its
    /// entries and the trust chain, and compared with the server's.
    ///
    /// # Errors
    /// As [`task`](Self::task); [`Error::Input`] with verification switched off. That the report does
    /// not hold is no error here: see [`JudgedTask::agreed`].
    pub async fn judged_task(&self, task: TaskId) -> Result<JudgedTask, Error> {
        if self.shared.tracker.is_none() {
            return Err(InputError::Unverified.into());
        }
        let mut again = 0;
        let gathered = loop {
            let reported = self.task(task).await?;
            let gathered = self.gather(reported, task).await?;
            if gathered.unreported.is_none() || again == AGAIN_MAX {
                break gathered;
            }
            // The task may have changed while the server sent the report.
            again += 1;
        };
        let verdict = judge(&self.shared.genesis_entry, task, &gathered);
        let Compared {
            differences,
            by_word,
        } = match &verdict {
            Ok(verdict) => compare::with(&gathered, verdict),
            Err(_) => Compared::default(),
        };
        Ok(JudgedTask {
            report: gathered.report,
            verdict,
            differences,
            by_word,
        })
    }

    /// An entry, and how its author is known: its signature is verified, and that the key was in
    /// force there.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub async fn vouched_entry(&self, index: LeafIndex) -> Result<VouchedEntry, Error> {
        let entry = self.entry(index, None).await?;
        let signature = self
            .signature_checker()
            .of(index.get(), &entry.bytes)
            .await?;
        Ok(VouchedEntry { entry, signature })
    }

    /// Returns a checker of the authors of proven entries.
    #[must_use]
    pub fn signature_checker(&self) -> SignatureChecker {
        SignatureChecker {
            ledger: self.clone(),
            batches: Batches::default(),
            known: None,
        }
    }
}

/// Checks the authors of proven entries. Made by [`Ledger::signature_checker`]; entries are best
/// given in the order of their leaves.
#[derive(Debug)]
pub struct SignatureChecker {
    ledger: Ledger,
    batches: Batches,
    known: Option<Known>,
}

/// The trust chain, applied up to a leaf.
#[derive(Debug)]
struct Known {
    trust: Arc<KnownTrust>,
    replay: TaskReplay,
    /// Number of trust entries applied.
    applied: usize,
    leaf: u64,
}

impl SignatureChecker {
    /// Checks the author of the entry that is proven to be at `leaf`, and returns the result.
    ///
    /// # Errors
    /// Any [`Error`] of fetching the trust chain and, for a batched statement, its proof.
    pub async fn of(&mut self, leaf: u64, entry: &Bytes) -> Result<SignatureCheck, Error> {
        let Ok(parsed) = Entry::parse(entry) else {
            return Ok(SignatureCheck::Refused("it cannot be read".to_owned()));
        };
        match parsed.author {
            Author::Signed | Author::Batched => {}
            Author::Ledger => return Ok(SignatureCheck::Ledger),
            _ => return Ok(SignatureCheck::Nobody),
        }
        if self.ledger.shared.tracker.is_none() {
            return Ok(SignatureCheck::Unchecked);
        }
        let ledger = self.ledger.clone();
        let mut batches = std::mem::take(&mut self.batches);
        let known = self.known_at(leaf).await?;
        let applied = known.applied.checked_sub(1);
        let last = applied.and_then(|at| known.trust.entries.get(at));
        if last.is_some_and(|(index, _)| index.get() == leaf) {
            // The chain verifies its own.
            return Ok(SignatureCheck::Verified);
        }
        let newest = match ledger.shared.newest_trusted() {
            Some(trusted) if trusted.head.size.get() > leaf => trusted.head.size,
            _ => ledger.head().await?.signed.head.size,
        };
        let trust = known.replay.trust();
        let key = |id| trust.key(id).map(|record| record.public_key.clone());
        let covered = ledger.covering(&mut batches, key, leaf, entry, newest);
        let covered = match covered.await {
            Ok(covered) => covered,
            Err(Error::Trust(error)) => return Ok(SignatureCheck::Refused(error.to_string())),
            Err(error) => return Err(error),
        };
        let key = match &covered {
            Some(covered) => Some(covered.path().key_id),
            None => parsed.signature.map(|signature| signature.key()),
        };
        // A later statement may say that somebody else had the key by then.
        let doubtful = key.and_then(|key| known.trust.state().key(key));
        let doubtful = doubtful.filter(|record| record.is_doubtful(parsed.received_at));
        let check = match known.replay.speaks(leaf, entry, covered.as_ref()) {
            Ok(()) => doubtful.map_or(SignatureCheck::Verified, |record| {
                SignatureCheck::Refused(compromised(record))
            }),
            Err(error) => SignatureCheck::Refused(error.fault.to_string()),
        };
        self.batches = batches;
        Ok(check)
    }

    async fn known_at(&mut self, leaf: u64) -> Result<&mut Known, Error> {
        let before = self.known.take().filter(|known| known.leaf <= leaf);
        let mut known = match before {
            Some(known) => known,
            None => {
                let trust = self.ledger.follow_trust().await?;
                // Only authors are assessed, so any task id will do.
                let genesis = &self.ledger.shared.genesis_entry;
                let replay = TaskReplay::begin(genesis, TaskId::new([0; 16])).map_err(unfit)?;
                Known {
                    trust,
                    replay,
                    applied: 1,
                    leaf: 0,
                }
            }
        };
        while let Some((index, entry)) = known.trust.entries.get(known.applied)
            && index.get() <= leaf
        {
            known.replay.leaf(index.get(), entry, None).map_err(unfit)?;
            known.applied += 1;
        }
        known.leaf = leaf;
        Ok(self.known.insert(known))
    }
}

fn compromised(record: &KeyRecord) -> String {
    // A later statement than the one at `revoked_leaf` may have reported it, so no leaf is named.
    let since = record.compromised_since.map(|since| since.to_string());
    format!(
        "its key was reported compromised since {}",
        since.unwrap_or_default()
    )
}

/// An entry that is proven to be in the log, and how its author is known.
#[derive(Debug)]
pub struct VouchedEntry {
    /// The entry.
    pub entry: ProvenEntry,
    /// The result of the check of its author.
    pub signature: SignatureCheck,
}

/// The result of checking the author of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureCheck {
    /// The signature, or that of the batch's manifest, holds under a key that was registered for the
    /// producer and in force, and that no known statement reports compromised by then.
    Verified,
    /// The statement is unsigned: the producer is claimed.
    Nobody,
    /// The ledger wrote the entry. It was not checked that the entries before it call for it.
    Ledger,
    /// The signature proves nothing, for this reason.
    Refused(String),
    /// Verification is switched off.
    Unchecked,
}

/// Judges a task from what was gathered of it.
fn judge(genesis: &Bytes, task: TaskId, from: &Gathered) -> Result<TaskVerdict, TrustError> {
    if let Some(leaf) = from.unreported {
        return Err(fails(format!(
            "the entry at leaf {leaf} is the task's, and the server's report, under a head that covers \
             it, does not tell it"
        )));
    }
    if let Some(refused) = &from.refused {
        return Err(refused.clone());
    }
    let mut replay = TaskReplay::begin(genesis, task).map_err(unfit)?;
    for (leaf, entry) in &from.given {
        if from.shows_time(*leaf) {
            replay.passes(*leaf, entry).map_err(unfit)?;
            continue;
        }
        let taken = replay.leaf(*leaf, entry, from.covered.get(leaf));
        taken.map_err(unfit)?;
    }
    replay.end(from.report.head.head.size.get()).map_err(unfit)
}

pub(super) fn unfit(error: ReplayError) -> TrustError {
    unfit_at(error.leaf, &error.fault)
}

pub(super) fn unfit_at(leaf: u64, fault: &Fault) -> TrustError {
    fails(format!(
        "leaf {leaf} is not one that an honest ledger would have: {fault}"
    ))
}

pub(super) fn fails(reason: String) -> TrustError {
    TrustError::Task { reason }
}
