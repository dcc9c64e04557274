//! `deed findings` and `deed disposition`

use clap::{Args, ValueEnum};
use deed_client::{Basis, FindingFilter, Ledger};
use deed_evidence::TaskId;
use deed_proto::v1::{self, DispositionKind, FindingKind, Severity, statement::Body};
use serde::Serialize;

use super::task::check::Checked;
use crate::{
    args::{Global, hex_bytes},
    author::{AuthorityArgs, StatementAuthor},
    failure::{CommandResult, Failure},
    render::{FindingJson, Output, names, report},
};

/// Findings that one request asks for.
const PAGE: u32 = 1_000;

/// List the findings, or follow them as they arise
///
/// A finding is a contradiction or an omission. With --task the findings are computed here from that
/// task's entries, and a contradiction to the server's answer is an alarm. Without it they are the
/// server's word; `deed audit` computes them from all entries.
///
/// With --json each finding is one line, and a last line ends the list: `end` is true, `findings` is the
/// number of findings, `basis` is `checked` or `servers_word`, `by_servers_word` lists what was not
/// computed here, and `alarms` lists contradictions of the server. A list without that line was cut off.
/// --watch has no such line; there each finding has its `basis`.
#[derive(Args)]
#[command(after_help = "\
Exit codes: with --task, 1 if the server's answer contradicts the entries.

Examples:
  deed findings --severity serious
  deed findings --task 0001..0f
  deed findings --watch --from 1200 --json")]
pub(crate) struct Findings {
    /// Then print new findings as they arise, until interrupted
    #[arg(long)]
    watch: bool,
    /// Only this kind, for example self_approval; may be given several times
    #[arg(long, value_name = "KIND", value_parser = names::parse_finding)]
    kind: Vec<FindingKind>,
    /// Only findings that are at least this severe
    #[arg(long, value_enum, value_name = "LEAST")]
    severity: Option<Least>,
    /// Only findings of this task: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>)]
    task: Option<[u8; 16]>,
    /// First leaf
    #[arg(
        long,
        value_name = "LEAF",
        default_value_t = 0,
        hide_default_value = true
    )]
    from: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Least {
    /// Worth knowing
    Notice,
    /// Somebody should look
    Warning,
    /// Authority was exceeded, or evidence contradicts itself
    Serious,
}

impl From<Least> for Severity {
    fn from(least: Least) -> Self {
        match least {
            Least::Notice => Self::Notice,
            Least::Warning => Self::Warning,
            Least::Serious => Self::Serious,
        }
    }
}

/// Record the result of reviewing a finding
///
/// The finding stays in the list, with the result beside it. An authority signs the result.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed disposition 17.0 explained --by ticket:4711 \\
       --reason \"the approver is the agent's owner in this test ledger\"")]
pub(crate) struct Disposition {
    /// The finding: leaf and number, as `deed findings` shows them
    #[arg(value_name = "LEAF.N", value_parser = place)]
    finding: (u64, u32),
    /// Result of the review
    #[arg(value_enum)]
    kind: Became,
    /// Reviewer: a URI or an opaque id, no person's name
    #[arg(long, value_name = "ID")]
    by: String,
    /// Reason, for readers of the log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    authority: AuthorityArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Became {
    /// Somebody has looked at it
    Reviewed,
    /// There is an explanation
    Explained,
    /// It is contested
    Disputed,
}

impl From<Became> for DispositionKind {
    fn from(became: Became) -> Self {
        match became {
            Became::Reviewed => Self::Reviewed,
            Became::Explained => Self::Explained,
            Became::Disputed => Self::Disputed,
        }
    }
}

/// The last line of a list in JSON. It says the same of a list that is empty.
#[derive(Serialize)]
struct EndJson<'a> {
    end: bool,
    findings: u64,
    /// `checked` or `servers_word`.
    basis: &'static str,
    by_servers_word: &'a [String],
    alarms: &'a [String],
}

impl EndJson<'_> {
    const fn of(findings: u64, basis: Basis) -> Self {
        Self {
            end: true,
            findings,
            basis: names::basis(basis),
            by_servers_word: &[],
            alarms: &[],
        }
    }
}

/// `LEAF.N`
fn place(text: &str) -> Result<(u64, u32), String> {
    let parsed = text
        .split_once('.')
        .and_then(|(leaf, number)| Some((leaf.parse().ok()?, number.parse().ok()?)));
    parsed.ok_or_else(|| "write it as leaf and number, for example 17.0".to_owned())
}

/// Stands with findings that were not worked out here.
const SERVERS_WORD: &str = "by the server's word; `deed audit` works findings out from all entries";
/// The same in a list's last line in JSON.
const NOT_CHECKED: &str = "what each finding says, and that these are all; `deed audit` works findings \
                           out from all entries";

impl Findings {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let filter = FindingFilter {
            start: (self.from, 0),
            kinds: self.kind.clone(),
            severity_min: self.severity.map(Into::into),
            task: self.task.map(TaskId::new),
        };
        if let (Some(task), false) = (filter.task, self.watch) {
            return of_task(&ledger, task, &filter, global.output(), global).await;
        }
        let output = global.output();
        if self.watch {
            if !global.json {
                report(SERVERS_WORD);
            }
            return watch(&ledger, filter, output).await;
        }
        let (mut page_of, mut count) = (filter, 0_u64);
        loop {
            let page = ledger.findings(&page_of, PAGE).await?;
            if count == 0 && !page.findings.is_empty() && !global.json {
                // The remark goes to stdout with the list, so that a pipe passes both on.
                output.line(SERVERS_WORD)?;
            }
            count = count.saturating_add(page.findings.len() as u64);
            print(output, &page.findings, Basis::ServersWord)?;
            match page.next {
                Some(next) => page_of.start = next,
                None => break,
            }
        }
        ledger.flush().await?;
        if global.json {
            let end = EndJson {
                by_servers_word: &[NOT_CHECKED.to_owned()],
                ..EndJson::of(count, Basis::ServersWord)
            };
            return output.print(&end, |_| String::new());
        }
        if count == 0 {
            report(SERVERS_WORD);
            output.line("the server names no findings")?;
        }
        Ok(())
    }
}

async fn watch(ledger: &Ledger, filter: FindingFilter, output: Output) -> CommandResult {
    let mut watch = ledger.watch_findings(filter);
    loop {
        let seen = watch.next().await?;
        print(output, &seen.findings, Basis::ServersWord)?;
    }
}

/// The findings that follow from a task's entries.
async fn of_task(
    ledger: &Ledger,
    task: TaskId,
    filter: &FindingFilter,
    output: Output,
    global: &Global,
) -> CommandResult {
    let judged = ledger.judged_task(task).await?;
    ledger.flush().await?;
    let checked = Checked::of(judged);
    let wanted = |one: &&v1::Finding| {
        one.leaf_index >= filter.start.0
            && (filter.kinds.is_empty() || filter.kinds.contains(&one.kind()))
            && filter
                .severity_min
                .is_none_or(|least| one.severity() >= least)
    };
    let found: Vec<_> = checked
        .task
        .findings
        .iter()
        .filter(wanted)
        .cloned()
        .collect();
    print(output, &found, checked.basis)?;
    if global.json {
        let end = EndJson {
            by_servers_word: &checked.by_word,
            alarms: &checked.alarms,
            ..EndJson::of(found.len() as u64, checked.basis)
        };
        output.print(&end, |_| String::new())?;
    } else {
        if found.is_empty() {
            output.line(match checked.basis {
                Basis::Checked => "no such findings follow from the task's entries",
                Basis::ServersWord => "the server names no such findings",
            })?;
        }
        for word in &checked.by_word {
            report(&format!("by the server's word: {word}"));
        }
    }
    checked.alarm()
}

fn print(output: Output, findings: &[v1::Finding], basis: Basis) -> CommandResult {
    for finding in findings {
        output.print(&FindingJson::new(finding, basis), FindingJson::text)?;
    }
    Ok(())
}

impl Disposition {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let found = self.found(&ledger).await?;
        let mut author = StatementAuthor::authority(&self.authority, global, &ledger).await?;
        let body = Body::FindingDisposition(v1::FindingDisposition {
            leaf_index: self.finding.0,
            number: self.finding.1,
            kind: DispositionKind::from(self.kind).into(),
            reviewed_by: self.by.clone(),
            reason: self.reason.clone(),
        });
        let receipt = author
            .record_in_task(TaskId::from_slice(&found.task), body)
            .await?;
        receipt.print(global)
    }

    /// The finding itself: a disposition of what is not there would be a finding of its own.
    async fn found(&self, ledger: &Ledger) -> CommandResult<v1::Finding> {
        let filter = FindingFilter {
            start: self.finding,
            ..FindingFilter::default()
        };
        let page = ledger.findings(&filter, 1).await?;
        let (leaf, number) = self.finding;
        page.findings
            .into_iter()
            .find(|found| (found.leaf_index, found.number) == self.finding)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "there is no finding {leaf}.{number}; `deed findings --from {leaf}` lists those \
                     from there on"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_named_by_leaf_and_number() {
        assert_eq!(place("17.2"), Ok((17, 2)));
        for text in ["", "17", "17.", ".2", "17.2.3", "-1.0"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
