//! A whole ledger, checked entry by entry.

use bytes::Bytes;
use deed_evidence::{
    LedgerId,
    genesis::Genesis,
    replay::{Fault, Replay, ReplayError, Summary},
};
use deed_tlog::{Frontier, Hash, Origin, TreeHead, VerifierKey, leaf_hash};
use thiserror::Error;

/// An audit of a ledger: takes its entries in order, replays them and folds them into a tree, and
/// compares that with a signed head in the end.
///
/// [`Replay`] documents the checks and the memory that they need. After the first difference entries are
/// only hashed, to learn if the ledger has committed to them.
#[derive(Debug)]
pub struct Audit {
    frontier: Frontier,
    replay: Option<Replay>,
    genesis: Option<Genesis>,
    difference: Option<ReplayError>,
}

/// A ledger in which everything holds.
#[derive(Debug)]
pub struct Audited {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// The tree that was audited.
    pub head: TreeHead,
    /// Counts of its entries.
    pub summary: Summary,
    /// The replay itself.
    pub replay: Replay,
}

/// A ledger in which something does not hold.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// No entry.
    #[error("there are no entries")]
    Empty,
    /// Another log signed the head.
    #[error("the entries are of log {found}, the head is signed by {wanted}")]
    OtherLog {
        /// The log that the entries name: the origin, and the key that signs a tree of that size.
        found: String,
        /// The log that signed.
        wanted: String,
    },
    /// The head commits to other entries: some were changed, added or left out.
    #[error(
        "the entries are not those that the signed head commits to: {found_size} leaves with \
         root {found}, where the head says {wanted_size} with root {wanted}{}",
        .difference.as_ref().map_or_else(String::new, |it| format!(" ({it})"))
    )]
    OtherEntries {
        /// Entries that were taken.
        found_size: u64,
        /// The root of these entries.
        found: Hash,
        /// The head's size.
        wanted_size: u64,
        /// The head's root.
        wanted: Hash,
        /// The first one that is not in place, if the replay found one.
        difference: Option<ReplayError>,
    },
    /// The entries are those of another ledger.
    #[error("the entries are those of ledger {found}, not of {wanted}")]
    OtherLedger {
        /// The ledger of the genesis entry.
        found: LedgerId,
        /// The ledger that was expected.
        wanted: LedgerId,
    },
    /// The entries are those that the head commits to, and one of them must not be there, or one is
    /// missing: the ledger itself is false, and has signed that.
    #[error("{0}; the signed head commits to that")]
    Difference(#[source] ReplayError),
    /// The entries are those that the head commits to, and this build cannot judge some of them: no
    /// fault of the ledger.
    #[error("{0}; the entries before it are in place, and what follows was not audited")]
    Unjudgeable(#[source] ReplayError),
}

impl AuditError {
    /// The first leaf that is not in place, if one was found.
    #[must_use]
    pub fn leaf(&self) -> Option<u64> {
        match self {
            Self::Difference(error) | Self::Unjudgeable(error) => Some(error.leaf),
            Self::OtherEntries { difference, .. } => difference.as_ref().map(|error| error.leaf),
            _ => None,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self::new()
    }
}

impl Audit {
    /// Begins with nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            frontier: Frontier::new(),
            replay: None,
            genesis: None,
            difference: None,
        }
    }

    /// Takes the next entry; the genesis entry is the first.
    pub fn take(&mut self, entry: &Bytes) {
        let index = self.frontier.size().get();
        self.frontier.push(leaf_hash(entry));
        if self.difference.is_some() {
            return;
        }
        let taken = match &mut self.replay {
            Some(replay) => replay.leaf(index, entry).map(drop),
            None => Replay::begin(entry).map(|replay| {
                self.genesis = Genesis::from_entry(entry).ok().map(|(genesis, _)| genesis);
                self.replay = Some(replay);
            }),
        };
        self.difference = taken.err();
    }

    /// Entries that were taken.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.frontier.size().get()
    }

    /// Returns true if nothing was found yet.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.difference.is_none()
    }

    /// Ends the audit: compares the entries with a head that `log_key` signed for `origin`. `ledger_id` is
    /// the expected ledger, if it is known.
    ///
    /// # Errors
    /// [`AuditError`] with the first thing that does not hold.
    pub fn finish(
        self,
        head: &TreeHead,
        origin: &Origin,
        log_key: &VerifierKey,
        ledger_id: Option<LedgerId>,
    ) -> Result<Audited, AuditError> {
        let found = self.frontier.head();
        let difference = self.difference;
        if found != *head {
            return Err(AuditError::OtherEntries {
                found_size: found.size.get(),
                found: found.root,
                wanted_size: head.size.get(),
                wanted: head.root,
                difference,
            });
        }
        if let Some(difference) = difference {
            return Err(match *difference.fault {
                Fault::PolicyUnreadable(_) => AuditError::Unjudgeable(difference),
                _ => AuditError::Difference(difference),
            });
        }
        let (Some(mut replay), Some(genesis)) = (self.replay, self.genesis) else {
            return Err(AuditError::Empty);
        };
        // The key that the entries put in force for a tree of this size, or the key before it, which hands over.
        let signers = replay.trust().log_keys().at(head.size);
        let signs = signers.key == log_key || signers.handed_over_by == Some(log_key);
        if !signs || genesis.origin != *origin {
            return Err(AuditError::OtherLog {
                found: format!("{} ({})", genesis.origin, signers.key),
                wanted: format!("{origin} ({log_key})"),
            });
        }
        let found = replay.ledger_id();
        if let Some(wanted) = ledger_id.filter(|wanted| *wanted != found) {
            return Err(AuditError::OtherLedger { found, wanted });
        }
        replay.end().map_err(AuditError::Difference)?;
        Ok(Audited {
            ledger_id: replay.ledger_id(),
            head: *head,
            summary: replay.summary(),
            replay,
        })
    }
}
