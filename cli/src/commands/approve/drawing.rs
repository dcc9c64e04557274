//! The screen of an approver: what they are asked about, and whose word each part of it is.

use deed_client::{ContentState, KnownAuthor, Ledger, ProvenStatement};
use deed_evidence::{CommitmentDigest, Micros, assess::covers};
use deed_proto::v1;

use super::{
    checked::{Asked, Granted, Opened},
    screen,
};
use crate::{
    args::now,
    failure::{CommandResult, Failure},
    render::{amount_words, printable, shown},
};

/// Lines of the arguments that are shown; of more nobody reads the rest on a terminal.
const ARGUMENT_LINES_MAX: usize = 60;

/// Lines of an objective, and of a value that does not fit on its line.
const OBJECTIVE_LINES_MAX: usize = 8;
const VALUE_LINES_MAX: usize = 16;

/// Expected effects that fit above the question; about more nobody is asked.
pub(super) const EFFECTS_MAX: usize = 8;

/// Correlation keys that are shown.
const CORRELATION_KEYS_MAX: usize = 16;

/// The part of the arguments that the approver saw.
pub(super) struct Arguments {
    /// The lines of the screen.
    lines: Vec<String>,
    /// The Intent's own commitment, if all that it commits to was on the screen.
    pub(super) shown: Option<v1::Commitment>,
    /// Describes what became of the arguments, without quoting them.
    pub(super) words: String,
}

impl Arguments {
    fn unread(words: impl Into<String>, columns: usize) -> Self {
        let words = words.into();
        let mut lines = Lines::of(columns);
        lines.fact("arguments", &words);
        Self {
            lines: lines.lines,
            shown: None,
            words,
        }
    }
}

/// Returns the arguments of the act as far as they may be read here, or the reason why not.
pub(super) async fn arguments(
    ledger: &Ledger,
    intended: &v1::Intent,
    columns: usize,
) -> CommandResult<Arguments> {
    let Some(commitment) = &intended.arguments else {
        return Ok(Arguments::unread("none are committed to", columns));
    };
    let unread = |words| Arguments::unread(words, columns);
    let digest = CommitmentDigest::from_slice(&commitment.digest)
        .ok_or_else(|| Failure::does_not_verify("the arguments' commitment has not 32 bytes"))?;
    let mut content = Vec::new();
    let read = ledger.contents().get(digest, &mut content).await;
    Ok(match read {
        Ok(ContentState::Read { .. }) => shown_content(&content, commitment, digest, columns),
        Ok(ContentState::Erased { .. }) => {
            unread("NOT SHOWN: the server says that they were erased")
        }
        Ok(ContentState::Unknown) => {
            unread("NOT SHOWN: the server says that the ledger does not hold them")
        }
        Err(deed_client::Error::NotAllowed { .. } | deed_client::Error::Refused { .. }) => {
            unread("NOT SHOWN: the server says that they may not be read here")
        }
        Err(error) => return Err(error.into()),
    })
}

fn shown_content(
    content: &[u8],
    commitment: &v1::Commitment,
    digest: CommitmentDigest,
    columns: usize,
) -> Arguments {
    let size = content.len();
    let Ok(text) = std::str::from_utf8(content) else {
        let words = format!("NOT SHOWN: {size} bytes that are no text; all of it:");
        let mut unread = Arguments::unread(words, columns);
        unread.lines.extend(reading(&digest.to_string(), columns));
        return unread;
    };
    let block = screen::block(text, columns, ARGUMENT_LINES_MAX);
    let mut lines = vec![format!("arguments    {size} bytes, as committed to")];
    let shown = block.lines.len();
    lines.extend(block.lines);
    if block.cut == 0 {
        return Arguments {
            lines,
            shown: Some(commitment.clone()),
            words: "shown".to_owned(),
        };
    }
    let mut left_out = Lines::of(columns);
    let cut = block.cut;
    left_out.fact(
        "NOT SHOWN",
        format!("{cut} more lines of the arguments; all of it:"),
    );
    lines.extend(left_out.lines);
    lines.extend(reading(&digest.to_string(), columns));
    Arguments {
        lines,
        shown: None,
        words: format!("{shown} lines of {}", shown + block.cut),
    }
}

/// The command that reads a content, in lines of at most `columns` that a shell takes as one.
fn reading(digest: &str, columns: usize) -> Vec<String> {
    let command = "  deed content get ";
    if command.len() + digest.len() <= columns {
        return vec![format!("{command}{digest}")];
    }
    let mut lines = vec![format!("{command}\\")];
    let mut rest = digest;
    while rest.len() > columns {
        let (line, more) = rest.split_at(columns.saturating_sub(1).max(1));
        lines.push(format!("{line}\\"));
        rest = more;
    }
    lines.push(rest.to_owned());
    lines
}

/// Lines of a screen: our own facts, and values of others in quotes.
struct Lines {
    columns: usize,
    lines: Vec<String>,
}

/// Columns of a label.
const LABEL: usize = 13;

impl Lines {
    const fn of(columns: usize) -> Self {
        Self {
            columns,
            lines: Vec::new(),
        }
    }

    fn fact(&mut self, label: &str, words: impl std::fmt::Display) {
        // Our own text may quote others, so its lines are broken at the screen's width too.
        let width = self.columns.saturating_sub(LABEL).max(8);
        let mut label = label;
        for line in broken(&words.to_string(), width) {
            self.lines.push(format!("{label:<LABEL$}{line}"));
            label = "";
        }
    }

    /// Adds a value of others, on one line. `in_full` shows a value above that does not fit.
    fn value(&mut self, label: &str, value: &str) {
        let width = self.columns.saturating_sub(LABEL).max(8);
        let (shown, _) = screen::quoted(value, width);
        self.lines.push(format!("{label:<LABEL$}{shown}"));
    }

    /// The whole of a value that does not fit on its line.
    fn in_full(&mut self, label: &str, value: &str) {
        let width = self.columns.saturating_sub(LABEL).max(8);
        if !screen::quoted(value, width).1 {
            self.lines.push(format!("{label}, in full"));
            self.text(value, VALUE_LINES_MAX);
        }
    }

    fn text(&mut self, text: &str, lines_max: usize) {
        let block = screen::block(text, self.columns, lines_max);
        self.lines.extend(block.lines);
        if block.cut > 0 {
            let cut = block.cut;
            self.fact(
                "NOT SHOWN",
                format!("{cut} more lines; deed entry shows them"),
            );
        }
    }
}

/// Breaks a text into lines of at most `width` characters, at spaces if the words are not longer.
fn broken(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() {
            if line.chars().count() + 1 + word.chars().count() <= width {
                line.push(' ');
            } else {
                lines.push(std::mem::take(&mut line));
            }
        }
        for c in word.chars() {
            if line.chars().count() == width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

/// Returns the lines for the approver. The act that they decide on stands at the end, right above the
/// question, one line each.
pub(super) fn drawn(asked: &Asked, arguments: &Arguments, columns: usize) -> String {
    let Asked {
        found, intended, ..
    } = asked;
    let producer = &found.statement.producer;
    let mut lines = Lines::of(columns);
    lines.fact("Intent", format!("at leaf {}", found.index));
    lines.fact("hash", found.hash);
    lines.fact(
        "received",
        format!("{}, by the server's word", shown(found.received_at)),
    );
    lines.fact(
        "keys",
        format!(
            "by trust statements up to leaf {}; that none follows is the server's word",
            asked.newest_trust
        ),
    );
    for unshown in &asked.stands.unshown {
        lines.fact("unshown", format!("{unshown}; by the server's word"));
    }
    draw_task(&mut lines, asked);
    draw_grant(&mut lines, asked);
    if !intended.model.is_empty() {
        lines.value("model", &intended.model);
    }
    if let Some(prompt) = &intended.prompt {
        let digest = hex::encode(&prompt.digest);
        lines.fact("prompt", "committed to, not shown; all of it:");
        lines.lines.extend(reading(&digest, columns));
    }
    lines.lines.extend(arguments.lines.iter().cloned());
    lines.in_full("action", &intended.action);
    lines.in_full("resource", &intended.resource);
    for effect in intended.expected_effects.iter().take(EFFECTS_MAX) {
        lines.in_full("expects", &effect.kind);
        lines.in_full("  on", &effect.resource);
    }
    lines.in_full("agent", producer);

    lines.lines.push(String::new());
    if intended.deadline_us > 0 {
        lines.fact("deadline", shown(Micros::new(intended.deadline_us)));
    }
    // The agent says how many lines these take, so they stand above what must stay on the screen.
    draw_effects(&mut lines, &intended.expected_effects);
    draw_correlation(&mut lines, &found.statement.correlation_keys);
    lines.value("action", &intended.action);
    lines.value("resource", &intended.resource);
    match &intended.amount {
        Some(amount) => lines.fact("amount", printable(&amount_words(amount))),
        None => lines.fact("amount", "none"),
    }
    lines.value("agent", producer);
    match (&asked.author.key, &asked.author.record) {
        (Some(key), Some(record)) => {
            lines.value("controller", &record.controller);
            lines.fact("signed", format!("checked, by key {key}"));
        }
        (Some(key), None) => lines.fact("signed", format!("checked, by an authority's key {key}")),
        (None, _) => lines.fact("NOT SIGNED", "nobody signed this: the agent is a claim"),
    }
    if let Some(leaf) = asked.author.revoked_leaf {
        lines.fact(
            "REVOKED",
            format!("that key was revoked later, at leaf {leaf}"),
        );
    }
    draw_state(&mut lines, asked);
    lines.lines.join("\n")
}

/// The state of the act. It is the last line before the question.
fn draw_state(lines: &mut Lines, asked: &Asked) {
    let (stands, ends) = (&asked.stands, asked.intended.deadline_us);
    lines.fact("state", stands.words());
    // Reasons hold words of policies.
    if let Some(reasons) = stands.reasons() {
        lines.value("  because", &reasons);
    }
    if let Some(words) = stands.server_says() {
        lines.fact("  LATER", words);
    } else if stands.waits() && ends > 0 && ends < now().get() {
        lines.fact(
            "  LATE",
            "its deadline has passed, by the clock of this machine",
        );
    }
}

/// The effects that the act declares.
fn draw_effects(lines: &mut Lines, effects: &[v1::Effect]) {
    for effect in effects.iter().take(EFFECTS_MAX) {
        lines.value("expects", &effect.kind);
        lines.value("  on", &effect.resource);
        if !effect.external_id.is_empty() {
            lines.value("  id", &effect.external_id);
        }
        if let Some(amount) = &effect.amount {
            lines.fact("  amount", printable(&amount_words(amount)));
        }
    }
    // Only --yes gets this far with more effects than fit.
    if let Some(more @ 1..) = effects.len().checked_sub(EFFECTS_MAX) {
        lines.fact(
            "NOT SHOWN",
            format!("{more} more expected effects; deed entry shows them"),
        );
    }
}

/// Draws the keys by which the act is found in other systems.
fn draw_correlation(lines: &mut Lines, keys: &[v1::CorrelationKey]) {
    for key in keys.iter().take(CORRELATION_KEYS_MAX) {
        lines.value("correlates", &format!("{}={}", key.kind, key.value));
    }
    if let Some(more @ 1..) = keys.len().checked_sub(CORRELATION_KEYS_MAX) {
        lines.fact(
            "NOT SHOWN",
            format!("{more} more correlation keys; deed entry shows them"),
        );
    }
}

fn draw_task(lines: &mut Lines, asked: &Asked) {
    lines.fact("task", hex::encode(&asked.found.statement.task));
    let Some(Opened {
        found,
        opened,
        author,
    }) = &asked.opened
    else {
        lines.fact(
            "tier",
            match asked.opened_by_others {
                true => "UNKNOWN: the task was opened by nobody who may open a task",
                false => "UNKNOWN: no TaskOpened of this task is known",
            },
        );
        return;
    };
    let tier = opened.risk_tier().as_str_name();
    let tier = tier.trim_start_matches("RISK_TIER_").to_ascii_lowercase();
    lines.fact(
        "tier",
        format!("{tier}, by the TaskOpened at leaf {}", found.index),
    );
    by_whom(lines, found, author);
    lines.value("requested by", &opened.requested_by);
    if opened.deadline_us > 0 {
        lines.fact("task ends", shown(Micros::new(opened.deadline_us)));
    }
    match &opened.objective {
        Some(v1::task_opened::Objective::ObjectiveText(text)) => {
            lines.lines.push("objective".to_owned());
            lines.text(text, OBJECTIVE_LINES_MAX);
        }
        Some(v1::task_opened::Objective::ObjectiveCommitment(commitment)) => {
            let digest = hex::encode(&commitment.digest);
            lines.fact("objective", "committed to, not shown; all of it:");
            lines.lines.extend(reading(&digest, lines.columns));
        }
        None => lines.fact("objective", "left unsaid"),
    }
}

fn draw_grant(lines: &mut Lines, asked: &Asked) {
    let Some(Granted {
        found,
        grant,
        author,
        spent,
    }) = &asked.grant
    else {
        lines.fact("grant", "none: the Intent relies on no grant");
        return;
    };
    lines.fact("grant", format!("at leaf {}", found.index));
    by_whom(lines, found, author);
    lines.value("  subject", &grant.subject);
    if grant.subject != asked.found.statement.producer {
        lines.fact(
            "  OTHER",
            "the subject of the grant is not the agent of the Intent",
        );
    }
    if found.statement.task != asked.found.statement.task {
        lines.fact("  OTHER", "the grant is for another task than the Intent");
    }
    for (label, patterns, name) in [
        ("  actions", &grant.actions, &asked.intended.action),
        ("  resources", &grant.resources, &asked.intended.resource),
    ] {
        let cover = patterns.iter().find(|pattern| covers(pattern, name));
        match cover {
            Some(pattern) => lines.value(label, pattern),
            None => lines.fact(
                label,
                "NOT COVERED: nothing in the grant covers the Intent's",
            ),
        }
        let others = patterns.len() - usize::from(cover.is_some());
        if others > 0 {
            lines.fact(
                "",
                format!("and {others} more; deed entry {} shows all", found.index),
            );
        }
    }
    lines.fact("  until", shown(Micros::new(grant.expires_us)));
    let server = "by the server's word";
    let (uses, amount) = match spent {
        Some(spent) => (
            format!("{} spent, {server}", spent.uses_spent),
            format!("{} spent, {server}", spent.amount_spent),
        ),
        None => ("spent: unknown".to_owned(), "spent: unknown".to_owned()),
    };
    match grant.uses {
        0 => lines.fact("  uses", format!("any number; {uses}")),
        of => lines.fact("  uses", format!("{of}; {uses}")),
    }
    if let Some(bound) = &grant.amount {
        lines.fact("  amount", printable(&amount_words(bound)));
        lines.fact("", amount);
    }
}

/// Draws whose word a statement is that the Intent rests on.
fn by_whom(lines: &mut Lines, found: &ProvenStatement, author: &Result<KnownAuthor, String>) {
    lines.value("  said by", &found.statement.producer);
    match author {
        Ok(KnownAuthor { key: None, .. }) => lines.fact("  NOT SIGNED", "nobody signed it"),
        Ok(KnownAuthor {
            key: Some(key),
            record,
            ..
        }) => {
            let whose = if record.is_some() {
                "key"
            } else {
                "an authority's key"
            };
            lines.fact("  signed", format!("checked, by {whose} {key}"));
        }
        Err(error) => {
            lines.fact("  UNVERIFIED", printable(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commitment() -> v1::Commitment {
        v1::Commitment {
            digest: vec![7; 32].into(),
            media_type: "text/plain".to_owned(),
        }
    }

    fn arguments_of(content: &[u8]) -> Arguments {
        shown_content(content, &commitment(), CommitmentDigest::new([7; 32]), 80)
    }

    #[test]
    fn what_was_shown_is_the_intents_own_commitment_if_all_of_it_was() {
        let shown = arguments_of(b"{\"order\": 7}");
        assert_eq!(shown.shown, Some(commitment()));
        assert_eq!(shown.lines[1], "  | {\"order\": 7}");
        let long = arguments_of("line\n".repeat(1000).as_bytes());
        assert_eq!(long.shown, None);
        assert_eq!(long.words, format!("{ARGUMENT_LINES_MAX} lines of 1000"));
        assert!(long.lines.iter().any(|line| line.starts_with("NOT SHOWN")));
        let binary = arguments_of(&[0xff; 3]);
        assert_eq!(binary.shown, None);
        assert!(binary.lines[0].starts_with("arguments    NOT SHOWN: 3 bytes"));
    }

    #[test]
    fn text_is_broken_at_spaces_and_long_words_anywhere() {
        for (text, lines) in [
            ("", &[""][..]),
            ("a bc", &["a bc"]),
            ("a bcd", &["a", "bcd"]),
            ("ab cdefghi j", &["ab", "cdef", "ghi", "j"]),
            ("abcdef", &["abcd", "ef"]),
            ("\u{e4}\u{f6} \u{fc}", &["\u{e4}\u{f6} \u{fc}"]),
        ] {
            assert_eq!(broken(text, 4), lines, "{text}");
        }
    }

    #[test]
    fn commands_are_no_longer_than_the_screen() {
        let digest = "0123456789abcdef".repeat(4);
        for columns in [24, 39, 79, 82, 83, 199] {
            let lines = reading(&digest, columns);
            assert!(lines.iter().all(|line| line.len() <= columns), "{lines:?}");
            assert_eq!(lines.len() == 1, columns >= 83, "{lines:?}");
            // A shell takes them as one.
            let pasted = lines.join("\n").replace("\\\n", "");
            assert_eq!(pasted, format!("  deed content get {digest}"));
        }
    }

    #[test]
    fn expected_effects_are_drawn_and_what_is_left_out_is_said() {
        let effect = v1::Effect {
            kind: "payment.refunded".to_owned(),
            resource: "order/7".to_owned(),
            ..v1::Effect::default()
        };
        let mut lines = Lines::of(79);
        draw_effects(&mut lines, &vec![effect; EFFECTS_MAX + 1]);
        assert_eq!(lines.lines[0], "expects      \"payment.refunded\"");
        assert_eq!(lines.lines[1], "  on         \"order/7\"");
        assert_eq!(lines.lines.len(), 2 * EFFECTS_MAX + 1);
    }
}
