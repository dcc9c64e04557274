//! `deed approve`

mod checked;
mod drawing;
mod screen;
mod stands;

use std::io::{self, BufRead as _, IsTerminal as _};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use deed_client::{Header, ProvenStatement};
use deed_evidence::Micros;
use deed_proto::v1::{self, AuthenticationStrength, Verdict, statement::Body};
use serde::Serialize;

use crate::{
    args::{Global, now},
    author::{AuthorArgs, StatementReceiptJson},
    failure::{CommandResult, Failure},
    render::report,
};
use checked::asked;
use drawing::{EFFECTS_MAX, arguments, drawn};

/// Approve an Intent, or refuse it
///
/// Fetches the Intent and verifies it before it asks: the Intent is in the log, its signature (or that of
/// its batch) verifies, and its key was the agent's there, by the ledger's own trust statements. The state
/// of the Intent is computed here from the entries of its task. The command does not ask about an Intent
/// that does not verify, or that the ledger keeps as evidence only. Text of others stands behind `|`. The
/// act and its state stand right above the question.
///
/// The command asks about an Intent that does not wait (it was denied or cleared, it has lapsed, or the act
/// is done) only with --refuse. It never asks about an Intent with more than 8 expected effects: they do
/// not fit on the screen.
///
/// The Approval names the Intent by its leaf hash, the times at which it was shown, opened and decided, and
/// the Intent's own commitment to its arguments if they were shown whole. It holds no copy of the
/// arguments, so an erasure reaches them all.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed approve 14 --key approver.pem --strength multi-factor
  deed approve 14 --key approver.pem --refuse --rationale \"wrong order\"")]
pub(crate) struct Approve {
    /// Leaf index of the Intent
    #[arg(value_name = "INTENT")]
    intent: u64,
    /// Refuse the Intent
    #[arg(long)]
    refuse: bool,
    /// Way in which you were authenticated
    #[arg(long, value_enum, default_value_t = Strength::SingleFactor)]
    strength: Strength,
    /// Reason, for readers of the log; no personal data
    #[arg(long, default_value = "", hide_default_value = true)]
    rationale: String,
    /// Ask also about an unsigned Intent, whose agent is only claimed
    #[arg(long)]
    unsigned: bool,
    /// Do not ask: record a decision that was made elsewhere, without the times at which the Intent was
    /// shown and opened
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    author: AuthorArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Strength {
    /// One factor
    SingleFactor,
    /// Two factors
    MultiFactor,
    /// Bound to hardware and to the place where it is used
    PhishingResistant,
}

#[derive(Serialize)]
struct ApprovedJson {
    #[serde(flatten)]
    receipt: StatementReceiptJson,
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
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        if !self.yes && !io::stdin().is_terminal() {
            return Err(Failure::usage(
                "nobody can be asked: stdin is no terminal; --yes says that it was decided \
                 elsewhere",
            ));
        }
        let ledger = global.connect().await?;
        let asked = asked(&ledger, self.intent, self.unsigned).await?;
        ledger.flush().await?;
        let effects = asked.intended.expected_effects.len();
        if effects > EFFECTS_MAX && !self.yes {
            return Err(Failure::usage(format!(
                "the Intent at leaf {} expects {effects} effects, and more than {EFFECTS_MAX} are not \
                 shown above the question, so it is not asked; `deed entry {}` shows all",
                self.intent, self.intent
            )));
        }
        if !asked.stands.waits() && !self.yes && !self.refuse {
            return Err(Failure::denied(format!(
                "nobody is asked to approve the Intent at leaf {}: {}; that changes nothing any more. \
                 --refuse asks whether to refuse it all the same, --yes records what was decided \
                 elsewhere",
                self.intent,
                asked.stands.sentence()
            )));
        }
        let mut author = self.author.open(global, &ledger).await?;
        let columns = columns();
        let arguments = arguments(&ledger, &asked.intended, columns).await?;
        let times = self.decide(&drawn(&asked, &arguments, columns))?;
        let found = &asked.found;
        let mut contents = author.content_committer(global)?;
        let shown = match arguments.shown {
            Some(shown) => shown,
            // The text quotes nothing that others wrote: an erased content must not survive here.
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
        let receipt = author
            .record(&header, Body::Approval(approval), Some(contents))
            .await?;
        let json = ApprovedJson {
            receipt: receipt.json(),
            verdict: if self.refuse { "refused" } else { "approved" },
            intent_leaf: self.intent,
            intent_hash: found.hash.to_string(),
            shown: digest,
        };
        global.output().print(&json, |json| {
            let receipt = json.receipt.text();
            format!("{}   leaf {}\n{receipt}", json.verdict, json.intent_leaf)
        })
    }

    /// Shows the Intent and asks. Returns the times at which it was shown, opened and decided. A decision
    /// that was made elsewhere has no times of showing and opening.
    fn decide(&self, text: &str) -> CommandResult<[Micros; 3]> {
        let shown_at = now();
        report(text);
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

/// Columns of the terminal that the question is asked at; 80 if that is not known. One is left free:
/// some terminals break a line that fills them.
fn columns() -> usize {
    let size = console::Term::stderr().size_checked();
    let columns = size.map_or(80, |(_, columns)| usize::from(columns));
    let known = if columns == 0 { 80 } else { columns };
    known.clamp(24, 200) - 1
}

/// Asks on the terminal. Anything but yes is no.
fn ask(refuse: bool) -> CommandResult<bool> {
    report(if refuse {
        "Refuse this? [y/N]"
    } else {
        "Approve this? [y/N]"
    });
    let mut answer = String::new();
    let read = tokio::task::block_in_place(|| io::stdin().lock().read_line(&mut answer));
    read.map_err(|error| Failure::Usage(error.into()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
