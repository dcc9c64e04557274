//! A task's report for a terminal of 80 columns.

use deed_client::{Basis, ProvenStatement, ProvenTask};
use deed_evidence::Micros;
use deed_proto::v1::{self, LayerState, TaskState, task_opened::Objective};

use super::{
    answers::{self, Answers},
    check::Checked,
    json::opened,
    text::{COLUMNS, head, labelled, tail},
};
use crate::render::{
    self,
    names::{self, short, words},
    printable, shown, summary,
};

/// Draws the whole report: header, timeline, acts, findings, and what is the server's word.
pub(super) fn draw(checked: &Checked) -> String {
    let task = &checked.task;
    let mut lines = header(checked);
    lines.push(String::new());
    lines.extend(timeline(&task.entries));
    for (number, act) in (1_u64..).zip(&task.acts) {
        lines.push(String::new());
        lines.extend(act_of(task, checked.basis, number, act));
    }
    lines.push(String::new());
    lines.extend(findings(checked));
    lines.push(String::new());
    lines.push("by the server's word".to_owned());
    let by_word = checked.by_word.iter();
    lines.extend(by_word.map(|word| render::labelled("-", word, 4)));
    lines.join("\n")
}

fn header(checked: &Checked) -> Vec<String> {
    let task = &checked.task;
    let (info, opened) = (&task.info, opened(task));
    let tier = short(info.risk_tier().as_str_name(), "RISK_TIER_");
    let tier = match info.opened_leaf {
        Some(_) => format!(", {}", words(&tier)),
        None => String::new(),
    };
    let mut lines = vec![format!(
        "task {}  {}{tier}",
        hex::encode(&info.task),
        names::task(info.state())
    )];
    let objective = match opened.map(|opened| &opened.objective) {
        Some(Some(Objective::ObjectiveText(text))) => text.clone(),
        Some(Some(Objective::ObjectiveCommitment(commitment))) => {
            format!("committed to as {}", hex::encode(&commitment.digest))
        }
        Some(None) => "unsaid".to_owned(),
        None => "unknown: no TaskOpened is among the entries".to_owned(),
    };
    lines.push(labelled("objective", &objective));
    if let Some(opened) = opened {
        lines.push(labelled("requested by", &opened.requested_by));
        let layer = words(&names::layer(info.opened()));
        let leaf = info.opened_leaf.unwrap_or_default();
        lines.push(labelled("opened", &format!("at leaf {leaf}, {layer}")));
    }
    if info.state() == TaskState::Closed {
        let at = shown(Micros::new(info.closed_at_us));
        let how = match info.closed_leaf {
            Some(leaf) => format!("{at}, at leaf {leaf}"),
            None => format!("{at}, by its deadline"),
        };
        lines.push(labelled("ended", &how));
    }
    lines.push(labelled("receipt", &receipt(checked)));
    lines.push(labelled(
        "in the log",
        &format!(
            "each of its {} entries is proven to be in the tree of {} leaves",
            task.entries.len(),
            task.head.head.size
        ),
    ));
    let basis = match checked.basis {
        Basis::Checked => "states, layers and findings were worked out here from these entries",
        Basis::ServersWord => {
            "nothing else: its entries do not hold, and what follows is the server's word"
        }
    };
    lines.push(labelled("checked", basis));
    lines.push(labelled("digest", &hex::encode(&info.digest)));
    lines.push(labelled("signatures", &checked.signatures.words()));
    lines
}

fn receipt(checked: &Checked) -> String {
    let Some(receipt) = checked.receipted else {
        return match checked.task.info.receipt_leaf {
            Some(leaf) => format!("at leaf {leaf}, by the server's word"),
            None => "none: that no entry is left out is the server's word".to_owned(),
        };
    };
    format!(
        "leaf {}: these are all {} entries up to leaf {}, and their digest is the receipt's",
        receipt.leaf, receipt.count, receipt.through_leaf
    )
}

const WHO: usize = 24;

fn timeline(entries: &[ProvenStatement]) -> Vec<String> {
    let last = entries.last().map_or(0, |entry| entry.index.get());
    let leaf_width = last.to_string().len().max(4);
    let mut lines = vec![format!(
        "  {:<8}  {:>leaf_width$}  {:<WHO$}  what",
        "time", "leaf", "who"
    )];
    let mut day = String::new();
    for entry in entries {
        let at = shown(entry.received_at);
        let (date, time) = at.split_once('T').unwrap_or((&at, ""));
        if day != date {
            date.clone_into(&mut day);
            lines.push(format!("  {day} (UTC, by the ledger's clock)"));
        }
        let what_width = COLUMNS - (2 + 8 + 2 + leaf_width + 2 + WHO + 2);
        lines.push(format!(
            "  {:<8}  {:>leaf_width$}  {:<WHO$}  {}",
            head(time.get(..8).unwrap_or(time), 8),
            entry.index.get(),
            tail(&entry.statement.producer, WHO),
            head(&summary::of(&entry.statement), what_width)
        ));
    }
    lines
}

fn act_of(task: &ProvenTask, basis: Basis, number: u64, act: &v1::ActInfo) -> Vec<String> {
    let state = words(&names::intent(act.state()));
    let by = by_word(basis);
    let mut lines = vec![format!(
        "act {number}  leaf {}, {state}{by}",
        act.intent_leaf
    )];
    for (label, list) in [("waits for", &act.missing), ("denied for", &act.denied)] {
        if !list.is_empty() {
            lines.push(labelled(label, &list.join(", ")));
        }
    }
    lines.extend(layers(&act.layers.unwrap_or_default()));
    match answers::of(task, basis, act) {
        Some(answers) => lines.extend(answered(&answers)),
        None => lines.push(labelled("", "its Intent is not among the task's entries")),
    }
    lines
}

fn layers(layers: &v1::Layers) -> [String; 2] {
    let word = |layer: LayerState| words(&names::layer(layer));
    let row = |[a, b, c]: [(&str, LayerState); 3]| {
        let row = format!(
            "  {:<9} {:<13} {:<10} {:<13} {:<14} {}",
            a.0,
            word(a.1),
            b.0,
            word(b.1),
            c.0,
            word(c.1)
        );
        row.trim_end().to_owned()
    };
    [
        row([
            ("identity", layers.identity()),
            ("authority", layers.authority()),
            ("intent", layers.intent()),
        ]),
        row([
            ("approval", layers.approval()),
            ("result", layers.result()),
            ("corroboration", layers.corroboration()),
        ]),
    ]
}

fn answered(answers: &Answers) -> Vec<String> {
    let mut lines = vec![labelled("who acted", &answers.agent)];
    lines.extend(list_of("authority", &answers.authority));
    lines.push(labelled("on what", &answers.resource));
    lines.extend(list_of("result", &answers.result));
    lines
}

/// A label before the first line alone.
fn list_of<'a>(label: &'a str, list: &'a [String]) -> impl Iterator<Item = String> + 'a {
    let labels = std::iter::once(label).chain(std::iter::repeat(""));
    labels.zip(list).map(|(label, line)| labelled(label, line))
}

/// Words to put behind something that was not checked.
const fn by_word(basis: Basis) -> &'static str {
    match basis {
        Basis::Checked => "",
        Basis::ServersWord => ", by the server's word",
    }
}

fn findings(checked: &Checked) -> Vec<String> {
    let findings = &checked.task.findings;
    if findings.is_empty() {
        return vec![match checked.basis {
            Basis::Checked => "no findings follow from these entries".to_owned(),
            Basis::ServersWord => "the server names no findings".to_owned(),
        }];
    }
    let mut lines = vec![format!("findings{}", by_word(checked.basis))];
    for finding in findings {
        let disposition = finding.disposition_leaf.map(|leaf| {
            let kind = names::disposition(finding.disposition());
            format!(" ({kind} at leaf {leaf})")
        });
        let about = if finding.about_leaf == finding.leaf_index {
            String::new()
        } else {
            format!(", about leaf {}", finding.about_leaf)
        };
        let contradicts = finding
            .contradicts_leaf
            .map(|leaf| format!(", against leaf {leaf}"));
        lines.push(labelled(
            &names::severity(finding.severity()),
            &format!(
                "{}.{} {}{about}{}: {}{}",
                finding.leaf_index,
                finding.number,
                words(&names::finding(finding.kind())),
                contradicts.unwrap_or_default(),
                printable(&finding.detail),
                disposition.unwrap_or_default()
            ),
        ));
    }
    lines
}

#[cfg(test)]
#[path = "task_report_tests.rs"]
mod tests;
