//! The report of a check: its progress, its counts, or the first difference.

use std::{fmt, path::PathBuf};

use thiserror::Error;

use crate::{
    content::ContentsReport, guard::GuardError, identity::IdentityError, store::StoreError,
};

/// The first defect that was found.
#[derive(Debug, Error)]
pub enum FsckError {
    /// The directory is no server's data directory.
    #[error("{path} holds no deed server")]
    NoServer { path: PathBuf },
    /// The store contradicts itself.
    #[error("ledger {ledger:?}: {what}")]
    Difference {
        ledger: String,
        /// The difference, and its place.
        what: String,
    },
    /// This build cannot judge some entries.
    #[error("ledger {ledger:?}: cannot be checked by this build: {what}")]
    Unjudgeable {
        ledger: String,
        /// The first such leaf, and the reason.
        what: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not fit its guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The server's key cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The counts of a check that found no difference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Ledgers.
    pub ledgers: u64,
    /// Entries, each parsed, judged and hashed.
    pub leaves: u64,
    /// Full tiles, each compared byte for byte.
    pub tiles: u64,
    /// Signed tree heads, each verified and compared with the tree of its size.
    pub heads: u64,
    /// Records of sessions and of the assessment, each compared with what the entries give.
    pub records: u64,
    /// Leaves behind the newest signed heads: a crash came before the heads of their turns were stored.
    pub unsigned: u64,
    /// Guarded heads that the store reproduces.
    pub guarded: u64,
    /// Slots of the guards of which one half is damaged, in words; the other half is good.
    pub damaged_guards: Vec<String>,
    /// Ledgers in which nothing was judged by the evidence policy in force because this build
    /// cannot read it; each with the reason.
    pub unreadable: Vec<String>,
    /// The contents beside the log; its integrity does not depend on them.
    pub contents: ContentsReport,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "clean: {} ledgers, {} leaves, {} tiles, {} heads, {} records, {} guarded heads",
            self.ledgers, self.leaves, self.tiles, self.heads, self.records, self.guarded
        )?;
        if self.unsigned > 0 {
            write!(
                f,
                "\n{} leaves are not under a signed head in the store yet, which the next start mends",
                self.unsigned
            )?;
        }
        let mut unreadable = self.unreadable.iter();
        unreadable.try_for_each(|what| write!(f, "\n{what}"))
    }
}

/// The progress of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The ledger.
    pub ledger: String,
    /// Leaves checked.
    pub leaves: u64,
    /// Leaves of the ledger.
    pub size: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.leaves * 100).checked_div(self.size).unwrap_or(100);
        write!(
            f,
            "{}: {} of {} leaves ({percent} %)",
            self.ledger, self.leaves, self.size
        )
    }
}
