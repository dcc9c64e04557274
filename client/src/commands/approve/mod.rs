//! `deed approve`

mod checked;
mod screen;

use std::io::{self, BufRead as _, IsTerminal as _};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use deed_client::{ContentState, Header, KnownAuthor, Ledger, ProvenStatement};
use deed_evidence::{CommitmentDigest, Micros, assess::covers};
use deed_proto::v1::{self, AuthenticationStrength, Verdict, statement::Body};
use serde::Serialize;

use super::{
    authority::now,
    effect::amount_words,
    intent::keep_trust,
    voice::{SaidJson, VoiceArgs},
};
use checked::{Asked, Granted, Opened, asked};

use crate::cli::{Failure, Global, Outcome, Output, printable, shown, tell};

/// Lines of the arguments that are shown; of more nobody reads the rest on a terminal.
const ARGUMENT_LINES_MAX: usize = 60;

/// Lines of an objective, and of a value that does not fit on its line.
const OBJECTIVE_LINES_MAX: usize = 8;
const VALUE_LINES_MAX: usize = 16;

/// Expected effects that fit above the question; about more nobody is asked.
const EFFECTS_MAX: usize = 8;

/// Correlation keys that are shown.
const CORRELATION_KEYS_MAX: usize = 16;

/// Approve an Intent, or refuse it
///
/// Fetches the Intent, and verifies before it asks: that it is in the log, its signature (or that of
/// its batch), and that its key spoke for the agent there, by the ledger's own trust statements. What
/// does not verify is not asked about. What others wrote stands behind `|`, broken at the end of the
/// line; what is asked about stands right above the question.
///
/// Nobody is asked about an Intent that expects more than 8 effects: they do not fit there.
///
/// The approval names this very Intent by its leaf hash, says when it was shown, opened and decided,
/// and what was shown: the Intent's own commitment to its arguments, if they were shown whole. So
/// what is erased there is nowhere else.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed approve 14 --key approver.pem --strength multi-factor
  deed approve 14 --key approver.pem --refuse --rationale \"wrong order\"")]
pub(crate) struct Approve {
    /// Leaf index of the Intent
    #[arg(value_name = "INTENT")]
    intent: u64,
    /// Refuse it
    #[arg(long)]
    refuse: bool,
    /// How it is known that you are who you are
    #[arg(long, value_enum, default_value_t = Strength::SingleFactor)]
    strength: Strength,
    /// Why, for those who read the log; no personal data
    #[arg(long, default_value = "", hide_default_value = true)]
    rationale: String,
    /// Ask also about an Intent that nobody signed: who wants it is then a claim
    #[arg(long)]
    unsigned: bool,
    /// Do not ask: it was decided elsewhere. When it was shown and opened there is left unsaid
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Strength {
    /// One factor, or a session that was begun with one
    SingleFactor,
    /// Two factors
    MultiFactor,
    /// Bound to hardware and to the place where it is used
    PhishingResistant,
}

#[derive(Serialize)]
struct ApprovedJson {
    #[serde(flatten)]
    said: SaidJson,
    verdict: &'static str,
    intent_leaf: u64,
    intent_hash: String,
    /// The commitment to what was shown.
    shown: String,
}

impl From<Strength> for AuthenticationStrength {
    fn from(strength: Strength) -> Self {
        match strength {
            Strength::SingleFactor => Self::SingleFactor,
            Strength::MultiFactor => Self::MultiFactor,
            Strength::PhishingResistant => Self::PhishingResistant,
        }
    }
}

impl Approve {
    pub(crate) async fn run(&self, global: &Global) -> Outcome {
        if !self.yes && !io::stdin().is_terminal() {
            return Err(Failure::usage(
                "nobody can be asked: stdin is no terminal; --yes says that it was decided \
                 elsewhere",
            ));
        }
        let ledger = global.connect().await?;
        let asked = asked(&ledger, self.intent, self.unsigned).await?;
        ledger.flush().await?;
        keep_trust(global, &ledger, asked.newest_trust, asked.trust_size)?;
        let effects = asked.intended.expected_effects.len();
        if effects > EFFECTS_MAX && !self.yes {
            return Err(Failure::usage(format!(
                "the Intent at leaf {} expects {effects} effects, and more than {EFFECTS_MAX} are not \
                 shown above the question, so it is not asked; `deed entry {}` shows all",
                self.intent, self.intent
            )));
        }
        let mut voice = self.voice.open(global, &ledger).await?;
        let columns = columns();
        let arguments = arguments(&ledger, &asked.intended, columns).await?;
        let times = self.decide(&drawn(&asked, &arguments, columns))?;
        let found = &asked.found;
        let mut contents = voice.committing(global)?;
        let shown = match arguments.shown {
            Some(shown) => shown,
            // Nothing that others wrote: what is erased must not be left in here.
            None => {
                let text = format!(
                    "deed approve: the Intent at leaf {} with hash {}; its arguments: {}\n",
                    found.index, found.hash, arguments.words
                );
                contents.commit("approval.shown", Bytes::from(text), "text/plain")
            }
        };
        let digest = hex::encode(&shown.digest);
        let approval = self.body(found, shown, times);
        let header = Header {
            task: found.task(),
            occurred_at: times[2],
            ..Header::default()
        };
        let said = voice
            .say(&header, Body::Approval(approval), Some(contents))
            .await?;
        let json = ApprovedJson {
            said: said.json(),
            verdict: if self.refuse { "refused" } else { "approved" },
            intent_leaf: self.intent,
            intent_hash: found.hash.to_string(),
            shown: digest,
        };
        Output::new(global).print(&json, |json| {
            let said = json.said.text();
            format!("{}   leaf {}\n{said}", json.verdict, json.intent_leaf)
        })
    }

    /// Shows it and asks, and says when it was shown, opened and decided. What was decided elsewhere
    /// was not opened here: of that nothing is said, which is not the same as "at this moment".
    fn decide(&self, text: &str) -> Outcome<[Micros; 3]> {
        let shown_at = now();
        tell(text);
        let opened_at = now().max(shown_at);
        if self.yes {
            let unsaid = Micros::new(0);
            return Ok([unsaid, unsaid, opened_at]);
        }
        if !ask(self.refuse)? {
            return Err(Failure::denied("by you: nothing was recorded"));
        }
        Ok([shown_at, opened_at, now().max(opened_at)])
    }

    fn body(
        &self,
        found: &ProvenStatement,
        shown: v1::Commitment,
        [shown_at, opened_at, decided_at]: [Micros; 3],
    ) -> v1::Approval {
        let verdict = if self.refuse {
            Verdict::Deny
        } else {
            Verdict::Allow
        };
        v1::Approval {
            intent: Some(found.leaf_ref()),
            verdict: verdict.into(),
            shown: Some(shown),
            shown_at_us: shown_at.get(),
            opened_at_us: opened_at.get(),
            decided_at_us: decided_at.get(),
            strength: AuthenticationStrength::from(self.strength).into(),
            rationale: self.rationale.clone(),
            assertion: None,
        }
    }
}

/// The act's arguments, as an approver saw them.
struct Arguments {
    /// The lines of the screen.
    lines: Vec<String>,
    /// The Intent's own commitment, if all that it commits to was on the screen.
    shown: Option<v1::Commitment>,
    /// Says what became of them, in words that hold nothing of them.
    words: String,
}

impl Arguments {
    fn unread(words: impl Into<String>) -> Self {
        let words = words.into();
        Self {
            lines: vec![format!("arguments    {words}")],
            shown: None,
            words,
        }
    }
}

/// Fetches the act's arguments, as far as they may be read here; if they may not, the lines say so.
async fn arguments(ledger: &Ledger, intended: &v1::Intent, columns: usize) -> Outcome<Arguments> {
    let Some(commitment) = &intended.arguments else {
        return Ok(Arguments::unread("none are committed to"));
    };
    let digest = CommitmentDigest::from_slice(&commitment.digest)
        .ok_or_else(|| Failure::does_not_verify("the arguments' commitment has not 32 bytes"))?;
    let mut content = Vec::new();
    let read = ledger.contents().get(digest, &mut content).await;
    Ok(match read {
        Ok(ContentState::Read { .. }) => shown_content(&content, commitment, digest, columns),
        Ok(ContentState::Erased { .. }) => {
            Arguments::unread("NOT SHOWN: the server says that they were erased")
        }
        Ok(ContentState::Unknown) => {
            Arguments::unread("NOT SHOWN: the server says that the ledger does not hold them")
        }
        Err(deed_client::Error::NotAllowed { .. } | deed_client::Error::Refused { .. }) => {
            Arguments::unread("NOT SHOWN: the server says that they may not be read here")
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
        return Arguments::unread(format!(
            "{size} bytes that are no text; `deed content get {digest}` reads them"
        ));
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
    lines.push(format!(
        "NOT SHOWN    {} more lines of the arguments; all of it:",
        block.cut
    ));
    lines.push(format!("  deed content get {digest}"));
    Arguments {
        lines,
        shown: None,
        words: format!("{shown} lines of {}", shown + block.cut),
    }
}

/// Lines of a screen: facts of ours, and values of others in quotes.
struct Lines {
    columns: usize,
    lines: Vec<String>,
}

/// Columns of a label.
const LABEL: usize = 13;

impl Lines {
    fn fact(&mut self, label: &str, words: impl std::fmt::Display) {
        // Our own text may hold words of others: no line of it is longer than the screen either.
        let words = words.to_string();
        let width = self.columns.saturating_sub(LABEL).max(8);
        let chars: Vec<_> = words.chars().collect();
        let mut parts = chars
            .chunks(width)
            .map(|part| part.iter().collect::<String>());
        let first = parts.next().unwrap_or_default();
        self.lines.push(format!("{label:<LABEL$}{first}"));
        let rest = parts.map(|part| format!("{:LABEL$}{part}", ""));
        self.lines.extend(rest);
    }

    /// A value of others: on one line, and if it does not fit there whole above.
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

/// Draws the screen for the approver. The facts that they are asked about stand at the end, right
/// above the question, one line each.
fn drawn(asked: &Asked, arguments: &Arguments, columns: usize) -> String {
    let Asked {
        found, intended, ..
    } = asked;
    let producer = &found.statement.producer;
    let mut lines = Lines {
        columns,
        lines: Vec::new(),
    };
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
    draw_task(&mut lines, asked);
    draw_grant(&mut lines, asked);
    if !intended.model.is_empty() {
        lines.value("model", &intended.model);
    }
    if let Some(prompt) = &intended.prompt {
        let digest = hex::encode(&prompt.digest);
        lines.fact("prompt", "committed to, not shown; all of it:");
        lines.lines.push(format!("  deed content get {digest}"));
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
    lines.value("action", &intended.action);
    lines.value("resource", &intended.resource);
    match &intended.amount {
        Some(amount) => lines.fact("amount", printable(&amount_words(amount))),
        None => lines.fact("amount", "none"),
    }
    draw_effects(&mut lines, &intended.expected_effects);
    draw_correlation(&mut lines, &found.statement.correlation_keys);
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
    lines.lines.join("\n")
}

/// Draws the effects that the act announces.
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
    // With --yes alone.
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
            lines.lines.push(format!("  deed content get {digest}"));
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

/// Draws the author of a statement that the Intent rests on.
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

/// Columns of the terminal that the question is asked at; 80 if that is not known. One is left free:
/// some terminals break a line that fills them.
fn columns() -> usize {
    let size = console::Term::stderr().size_checked();
    let columns = size.map_or(80, |(_, columns)| usize::from(columns));
    let known = if columns == 0 { 80 } else { columns };
    known.clamp(24, 200) - 1
}

/// Asks on the terminal. Anything but yes is no.
fn ask(refuse: bool) -> Outcome<bool> {
    tell(if refuse {
        "Refuse this? [y/N]"
    } else {
        "Approve this? [y/N]"
    });
    let mut answer = String::new();
    let read = tokio::task::block_in_place(|| io::stdin().lock().read_line(&mut answer));
    read.map_err(|error| Failure::Usage(error.into()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
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
        assert_eq!(arguments_of(&[0xff; 3]).shown, None);
    }

    #[test]
    fn expected_effects_are_drawn_and_what_is_left_out_is_said() {
        let effect = v1::Effect {
            kind: "payment.refunded".to_owned(),
            resource: "order/7".to_owned(),
            ..v1::Effect::default()
        };
        let mut lines = Lines {
            columns: 79,
            lines: Vec::new(),
        };
        draw_effects(&mut lines, &vec![effect; EFFECTS_MAX + 1]);
        assert_eq!(lines.lines[0], "expects      \"payment.refunded\"");
        assert_eq!(lines.lines[1], "  on         \"order/7\"");
        assert_eq!(lines.lines.len(), 2 * EFFECTS_MAX + 1);
    }
}
