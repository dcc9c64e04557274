//! A task's report with what of it was checked here.

use deed_client::{Basis, Difference, JudgedTask, ProvenStatement, ProvenTask};
use deed_evidence::replay::task::{Receipted, Signed, TaskVerdict, Unshown};
use deed_proto::v1::Author;
use serde::Serialize;

use crate::{
    failure::{CommandResult, Failure},
    render::{printable, report},
};

/// Numbers of entries, by the signature that they bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(in crate::commands) struct Signatures {
    /// Entries with a signature of their own, verified with a key of their producer that was in force.
    pub(super) verified: u64,
    /// Entries that a batch manifest's signature covers, verified in the same way.
    pub(super) batched: u64,
    /// Entries without a signature: their producer is claimed.
    pub(super) unsigned: u64,
    /// The ledger's own: what stands before them calls for them.
    pub(super) ledgers: u64,
    /// Entries that were not checked, because the report does not verify.
    pub(super) unchecked: u64,
}

/// A task as it is shown, and the basis of that.
#[derive(Debug)]
pub(in crate::commands) struct Checked {
    /// The task as computed from its entries, or the server's report if they do not verify.
    pub(in crate::commands) task: ProvenTask,
    pub(in crate::commands) basis: Basis,
    pub(super) signatures: Signatures,
    /// The newest receipt that agrees with the entries.
    pub(super) receipted: Option<Receipted>,
    /// Parts of the server's report that the entries contradict.
    pub(in crate::commands) alarms: Vec<String>,
    /// Other parts of the server's report, and facts that no entry of the task can show.
    pub(in crate::commands) by_word: Vec<String>,
}

impl Checked {
    pub(in crate::commands) fn of(judged: JudgedTask) -> Self {
        let alarms = judged.differences.iter();
        let mut alarms: Vec<_> = alarms.map(ToString::to_string).collect();
        let mut task = judged.report;
        match judged.verdict {
            Ok(verdict) => {
                let said = judged.by_word.iter().map(besides);
                let unshown = verdict.unshown.iter().map(Unshown::to_string);
                let by_word = said.chain(unshown).collect();
                let signatures = Signatures::of(&verdict);
                let receipted = verdict.receipts.last().copied();
                let TaskVerdict {
                    info,
                    grants,
                    acts,
                    findings,
                    ..
                } = verdict;
                task = ProvenTask {
                    info,
                    grants,
                    acts,
                    findings,
                    ..task
                };
                Self {
                    task,
                    basis: Basis::Checked,
                    signatures,
                    receipted,
                    alarms,
                    by_word,
                }
            }
            Err(error) => {
                alarms.push(error.to_string());
                let all = "everything that is said of the task but that its entries are in the log";
                Self {
                    signatures: Signatures::unchecked(&task),
                    task,
                    basis: Basis::ServersWord,
                    receipted: None,
                    alarms,
                    by_word: vec![all.to_owned()],
                }
            }
        }
    }

    /// Adds a receipt that the server has just shown: its number and digest are checked if it is
    /// among the task's entries, each of which follows from those before it.
    pub(super) fn receipt(mut self, found: &ProvenStatement) -> Self {
        let told = self.task.entry(found.index.get());
        if told.is_none_or(|told| told.hash != found.hash) {
            self.basis = Basis::ServersWord;
            self.alarms.push(format!(
                "the receipt at leaf {} is not among the entries that the server shows of the task",
                found.index
            ));
        }
        self
    }

    /// Says what does not agree, and makes it an exit code.
    pub(in crate::commands) fn alarm(&self) -> CommandResult {
        for alarm in &self.alarms {
            report(&format!("ALARM: {}", printable(alarm)));
        }
        match self.alarms.len() {
            0 => Ok(()),
            n => Err(Failure::does_not_verify(format!(
                "the server's report of the task is not what its entries say, in {n} {}",
                if n == 1 { "place" } else { "places" }
            ))),
        }
    }
}

fn besides(difference: &Difference) -> String {
    format!(
        "{}: {} (the entries that were looked at say {})",
        difference.what, difference.server, difference.entries
    )
}

impl Signatures {
    fn of(verdict: &TaskVerdict) -> Self {
        let mut found = Self::default();
        for signed in verdict.signed.values() {
            *match signed {
                Signed::Key(_) => &mut found.verified,
                Signed::Batch { .. } => &mut found.batched,
                Signed::Nobody => &mut found.unsigned,
                Signed::Ledger => &mut found.ledgers,
            } += 1;
        }
        found
    }

    fn unchecked(task: &ProvenTask) -> Self {
        let mut found = Self::default();
        for entry in &task.entries {
            *match entry.author {
                Author::Unsigned | Author::Unspecified => &mut found.unsigned,
                _ => &mut found.unchecked,
            } += 1;
        }
        found
    }

    pub(super) fn words(self) -> String {
        let mut parts = Vec::new();
        for (count, what) in [
            (self.verified, "verified"),
            (self.batched, "verified by their batch manifests"),
            (self.unsigned, "unsigned"),
            (self.ledgers, "the ledger's own"),
            (self.unchecked, "not checked"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        parts.join(", ")
    }
}
