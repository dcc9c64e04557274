//! Facts that the entries of one task do not show.

use std::fmt;

use crate::{Micros, assess::SHARED_MAX};

/// Something that follows from entries that were not looked at: the operator's word, until somebody
/// replays the whole ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unshown {
    /// The task has no further entries. A refusal, a revocation or an end of the task that was left
    /// out would change what is said of its acts.
    Entries {
        /// Up to this leaf a receipt in the log says that these are all; none if there is no receipt.
        receipted: Option<u64>,
    },
    /// No key was revoked, and no policy set, behind this trust statement.
    Trust {
        /// The newest one that is known.
        leaf: u64,
    },
    /// No system reported effects, or the use of a credential, without naming the task.
    Outside,
    /// The entries were received at the times that they bear: the ledger's server writes these, and
    /// they are held only against each other.
    Received,
    /// Deadlines that lie ahead have not passed by the time of entries elsewhere.
    Time {
        /// A lower bound of the time.
        known: Micros,
    },
    /// This Observation is of the act to which it was matched: it names none, and was matched by
    /// correlation keys that acts of other tasks may share.
    Correlated {
        /// The Observation.
        leaf: u64,
    },
    /// The findings by correlation keys and outside tokens of the task: the ledger compares so many
    /// acts, and as many grants, of each, and those of other tasks count.
    Shared,
    /// This disposition is of the finding that was taken: its number counts those of other tasks
    /// too.
    Disposition {
        /// The FindingDisposition.
        leaf: u64,
    },
    /// The statements of this batch count as said: if the place of its first one was taken, all of it
    /// is evidence of an equivocation and nothing more, and it was not found out what is there.
    Batch {
        /// The batch's manifest.
        manifest: u64,
    },
    /// The digest over the assessment in this receipt is right: it depends on when time had passed
    /// by entries elsewhere, or on the numbers of findings of other tasks.
    Assessment {
        /// The TaskReceipt.
        leaf: u64,
    },
}

impl fmt::Display for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { receipted: None } => f.write_str(
                "that none of the task's entries is left out: no receipt in the log covers them",
            ),
            Self::Entries {
                receipted: Some(leaf),
            } => write!(
                f,
                "that none of the task's entries behind leaf {leaf} is left out: no receipt in the \
                 log covers any"
            ),
            Self::Trust { leaf } => write!(
                f,
                "that no key was revoked and no policy set behind the trust statement at leaf {leaf}"
            ),
            Self::Outside => f.write_str(
                "that no system reported effects, or the use of a credential, without naming the \
                 task",
            ),
            Self::Received => {
                f.write_str("when entries were received: that is the operator's word")
            }
            Self::Time { known } => write!(
                f,
                "that deadlines after {known} have not passed: other entries may be later"
            ),
            Self::Correlated { leaf } => write!(
                f,
                "which act the Observation at leaf {leaf} is of: it names none, and acts of other \
                 tasks may share its correlation keys"
            ),
            Self::Shared => write!(
                f,
                "what is found by the task's correlation keys and outside tokens alone: other tasks \
                 may name the same, and the ledger compares no more than {SHARED_MAX} of each"
            ),
            Self::Disposition { leaf } => {
                write!(f, "which finding the disposition at leaf {leaf} is of")
            }
            Self::Batch { manifest } => write!(
                f,
                "that the statements of the batch at leaf {manifest} count as said, and are not kept \
                 as evidence of an equivocation alone: what is at its first statement's place in the \
                 session was not shown"
            ),
            Self::Assessment { leaf } => write!(
                f,
                "the digest over the assessment in the receipt at leaf {leaf}"
            ),
        }
    }
}
