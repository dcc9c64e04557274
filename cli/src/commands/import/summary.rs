//! The summary of an import.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use deed_client::chat::Counts;
use serde::Serialize;

use crate::{
    failure::{CommandResult, Failure},
    render::{Omissions, Tally, names::words},
};

/// Something that is not imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    /// The line where its record begins, from 1.
    pub(super) line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run_id: Option<String>,
    pub(super) reason: String,
}

/// The refusals so far, shared by the producers.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<Refused>>);

#[derive(Debug, Default)]
struct Refused {
    count: u64,
    named: Vec<Refusal>,
    lines: Omissions,
}

impl Refusals {
    /// Refuses a run, or a record that is none. The others go on.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.lock().count += 1;
        self.note(&refusal);
    }

    /// Names something that is left out.
    pub(super) fn note(&self, refusal: &Refusal) {
        let mut refused = self.lock();
        if refused.lines.report(&refusal.text()) {
            refused.named.push(refusal.clone());
        }
    }

    /// Puts them into a summary, and says how many were not named.
    pub(super) fn sum_up(&self, summary: &mut Summary) {
        let mut refused = self.lock();
        summary.refused = refused.count;
        summary.refusals = std::mem::take(&mut refused.named);
        refused.lines.end();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusal {
    fn text(&self) -> String {
        let run = self.run_id.as_ref();
        let run = run.map_or_else(String::new, |id| format!("run {id:?}: "));
        format!("line {}: {run}{}", self.line, self.reason)
    }
}

/// The summary of an import.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Summary {
    pub(super) runs: u64,
    pub(super) tasks: u64,
    pub(super) grants: u64,
    /// Tool calls.
    pub(super) intents: u64,
    pub(super) outcomes: u64,
    pub(super) failures: u64,
    /// A customer's yes: recorded, and no approval that counts.
    pub(super) claimed_approvals: u64,
    pub(super) effects: u64,
    /// Calls without a result.
    pub(super) unanswered: u64,
    /// Results that answer no call of their run: they are left out, and named.
    pub(super) stray_results: u64,
    /// Runs, and records that are none, that were refused: nothing of them was sent.
    pub(super) refused: u64,
    /// The first refused runs and left-out results.
    pub(super) refusals: Vec<Refusal>,
    pub(super) statements: u64,
    /// True if nothing was sent.
    pub(super) dry_run: bool,
    /// Statements that a dry run found not recorded yet.
    pub(super) would_be_sent: u64,
    /// Contents that the ledger holds now.
    pub(super) contents: u64,
    pub(super) content_bytes: u64,
    /// Contents that were erased, and are not taken again.
    pub(super) erased: u64,
    #[serde(flatten)]
    pub(super) tally: Tally,
    /// Numbers of findings at the statements that were recorded now, by kind.
    pub(super) findings: BTreeMap<String, u64>,
    pub(super) elapsed_ms: u64,
}

impl Summary {
    pub(super) fn add(&mut self, counts: Counts) {
        self.runs += 1;
        self.tasks += 1;
        self.grants += counts.grants;
        self.intents += counts.intents;
        self.outcomes += counts.outcomes;
        self.failures += counts.failures;
        self.claimed_approvals += counts.approvals;
        self.effects += counts.effects;
        self.unanswered += counts.unanswered;
        self.stray_results += counts.stray_results;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.tasks += other.tasks;
        self.grants += other.grants;
        self.intents += other.intents;
        self.outcomes += other.outcomes;
        self.failures += other.failures;
        self.claimed_approvals += other.claimed_approvals;
        self.effects += other.effects;
        self.unanswered += other.unanswered;
        self.stray_results += other.stray_results;
        self.statements += other.statements;
        self.would_be_sent += other.would_be_sent;
        self.contents += other.contents;
        self.content_bytes += other.content_bytes;
        self.erased += other.erased;
        self.tally += other.tally;
        for (kind, count) in other.findings {
            *self.findings.entry(kind).or_default() += count;
        }
    }

    /// The reason why it is not all of the input.
    ///
    /// # Errors
    /// If something was refused or left out, or if there was nothing.
    pub(super) fn check(&self, is_empty: bool) -> CommandResult {
        if self.refused > 0 || self.stray_results > 0 {
            return Err(Failure::usage(format!(
                "{} runs were imported; {} were refused, and {} results left out, which are named \
                 above",
                self.runs, self.refused, self.stray_results
            )));
        }
        if self.runs == 0 && !is_empty {
            return Err(Failure::usage(
                "no run was found in it: it has to hold objects {run_id, messages}",
            ));
        }
        Ok(())
    }
}

/// Returns the summary as text for people.
pub(super) fn text(summary: &Summary) -> String {
    let mut text = format!(
        "runs        {}\ntasks       {}\ngrants      {}\nintents     {}\n\
         outcomes    {} ({} failed)\napprovals   {} (claimed)\neffects     {}\n\
         statements  {}\naccepted    {}\nduplicates  {}\nrejected    {}",
        summary.runs,
        summary.tasks,
        summary.grants,
        summary.intents,
        summary.outcomes,
        summary.failures,
        summary.claimed_approvals,
        summary.effects,
        summary.statements,
        summary.tally.accepted,
        summary.tally.duplicates,
        summary.tally.rejected
    );
    text.push_str(&format!(
        "\nfindings    {} (new)",
        summary.findings.values().sum::<u64>()
    ));
    for (kind, count) in &summary.findings {
        text.push_str(&format!("\n  {count} {}", words(kind)));
    }
    if summary.contents > 0 {
        text.push_str(&format!(
            "\ncontents    {} ({} bytes)",
            summary.contents, summary.content_bytes
        ));
    }
    if summary.erased > 0 {
        text.push_str(&format!("\nerased      {} contents", summary.erased));
    }
    if summary.unanswered > 0 {
        text.push_str(&format!(
            "\nunanswered  {} tool calls without a result",
            summary.unanswered
        ));
    }
    if summary.refused > 0 {
        text.push_str(&format!(
            "\nrefused     {} runs or records",
            summary.refused
        ));
    }
    if summary.dry_run {
        text.push_str(&format!(
            "\nnothing was sent; {} of the statements are not recorded yet",
            summary.would_be_sent
        ));
    }
    if summary.stray_results > 0 {
        text.push_str(&format!(
            "\nleft out    {} results without a call",
            summary.stray_results
        ));
    }
    text
}
