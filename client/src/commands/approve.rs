//! `deed approve`

use std::io::{self, BufRead as _, IsTerminal as _};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use deed_client::{ContentState, Header, Ledger, ProvenStatement};
use deed_evidence::{CommitmentDigest, Micros};
use deed_proto::v1::{self, AuthenticationStrength, Verdict, statement::Body};
use serde::Serialize;

use super::{
    arguments::intent,
    authority::now,
    effect::amount_words,
    voice::{SaidJson, VoiceArgs},
};
use crate::cli::{Failure, Global, Outcome, Output, printable, shown, tell};

/// Longest content that is shown; of a longer one nobody reads the rest on a terminal.
const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// Approve an Intent, or refuse it
///
/// Fetches the Intent, verifies that it is in the log, shows it, and asks. The approval names this
/// very Intent by its leaf hash, says when it was shown, opened and decided, and commits to exactly
/// the text that was shown, which is kept beside the ledger.
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
        let (found, intended) = intent(&ledger, self.intent).await?;
        let mut voice = self.voice.open(global, &ledger).await?;
        let arguments = arguments(&ledger, &intended).await?;
        let text = text_of(&found, &intended, &arguments);
        let times = self.decide(&text)?;
        let mut contents = voice.committing(global)?;
        let content = Bytes::from(text.into_bytes());
        let shown = contents.commit("approval.shown", content, "text/plain");
        let digest = hex::encode(&shown.digest);
        let approval = self.body(&found, shown, times);
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

/// What the act is called with, as far as it may be read here, and what is said if it may not.
async fn arguments(ledger: &Ledger, intended: &v1::Intent) -> Outcome<String> {
    let Some(commitment) = &intended.arguments else {
        return Ok("none are committed to".to_owned());
    };
    let digest = CommitmentDigest::from_slice(&commitment.digest)
        .ok_or_else(|| Failure::does_not_verify("the arguments' commitment has not 32 bytes"))?;
    let mut content = Vec::new();
    let read = ledger.contents().get(digest, &mut content).await;
    Ok(match read {
        Ok(ContentState::Read { .. }) => shown_content(&content),
        Ok(ContentState::Erased { .. }) => "they were erased".to_owned(),
        Ok(ContentState::Unknown) => "the ledger does not hold them".to_owned(),
        Err(
            error @ (deed_client::Error::NotAllowed { .. } | deed_client::Error::Refused { .. }),
        ) => {
            format!("they may not be read: {}", printable(&error.to_string()))
        }
        Err(error) => return Err(error.into()),
    })
}

fn shown_content(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) if content.len() <= SHOWN_BYTES_MAX => {
            let lines = text.lines().map(|line| format!("\n  {}", printable(line)));
            lines.collect()
        }
        Ok(_) => format!("{} bytes of text, too long to be shown", content.len()),
        Err(_) => format!("{} bytes that are no text", content.len()),
    }
}

/// What the approver is shown: everything in it is printable, so the commitment is to what they
/// saw.
fn text_of(found: &ProvenStatement, intended: &v1::Intent, arguments: &str) -> String {
    let statement = &found.statement;
    let mut lines = vec![
        format!("Intent at leaf {} ({})", found.index, found.hash),
        format!("  task       {}", hex::encode(&statement.task)),
        format!("  agent      {}", printable(&statement.producer)),
        format!("  received   {}", shown(found.received_at)),
        format!("  action     {}", printable(&intended.action)),
        format!("  resource   {}", printable(&intended.resource)),
    ];
    if let Some(amount) = &intended.amount {
        lines.push(format!("  amount     {}", printable(&amount_words(amount))));
    }
    if intended.deadline_us > 0 {
        let deadline = shown(Micros::new(intended.deadline_us));
        lines.push(format!("  deadline   {deadline}"));
    }
    if !intended.model.is_empty() {
        lines.push(format!("  model      {}", printable(&intended.model)));
    }
    // What has lines of its own begins below.
    let gap = if arguments.starts_with('\n') {
        ""
    } else {
        "  "
    };
    lines.push(format!("  arguments{gap}{arguments}"));
    lines.join("\n")
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

    #[test]
    fn contents_cannot_draw_on_the_approvers_terminal() {
        let shown = shown_content(b"{\"order\": 7}\n\x1b[2Kapprove me");
        assert_eq!(shown, "\n  {\"order\": 7}\n  \\u{1b}[2Kapprove me");
        assert_eq!(shown_content(&[0xff; 3]), "3 bytes that are no text");
        let long = shown_content(&vec![b'a'; SHOWN_BYTES_MAX + 1]);
        assert_eq!(long, "16385 bytes of text, too long to be shown");
    }
}
