//! `deed intend` and `deed await`

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use deed_client::{Basis, Error, Header, Ledger, Standing};
use deed_evidence::{Micros, RULES_ASSESSED, TaskId, replay::task::Unshown};
use deed_proto::v1::{self, IntentState, statement::Body};
use deed_tlog::LeafIndex;
use serde::Serialize;

use crate::{
    args::{
        AboutArgs, AmountArgs, EntryName, Global, When, effect, entry_name, hex_bytes, moment, now,
    },
    author::{AuthorArgs, StatementReceipt, StatementReceiptJson},
    failure::{CommandResult, Failure},
    render::{names, printable, report},
};

/// Announce an act, and learn whether it may happen
///
/// The ledger answers: cleared, waiting (and for what), or denied (and why). Act only on "cleared". With
/// --wait the command waits for an answer, and succeeds only if it is "cleared". "Cleared" is computed
/// here from the task's entries; everything else is the server's word. The Intent commits to --arguments
/// and --prompt, which are stored encrypted beside the ledger.
#[derive(Args)]
#[command(after_help = "\
Exit codes: 1 if it is denied, or with --wait if it is not cleared in the end.

Examples:
  deed intend --key agent.pem --task 0001..0f --action payments.refund \\
       --resource order/7 --amount 1999 --currency EUR --grant 12 \\
       --arguments call.json --prompt prompt.txt --deadline 10m --wait")]
pub(crate) struct MakeIntent {
    /// The task: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>)]
    task: [u8; 16],
    /// Action, for example payments.refund
    #[arg(long)]
    action: String,
    /// Resource that it acts on: a URI or a path
    #[arg(long)]
    resource: String,
    #[command(flatten)]
    amount: AmountArgs,
    /// The grant that it relies on, by leaf index or leaf hash
    #[arg(long, value_name = "LEAF|HASH", value_parser = entry_name)]
    grant: Option<EntryName>,
    /// Time by which the outcome must be reported: a time, or a duration from now [default: none]
    #[arg(long, value_name = "TIME")]
    deadline: Option<When>,
    /// File with the arguments of the call; - for stdin
    #[arg(long, value_name = "FILE|-")]
    arguments: Option<PathBuf>,
    /// File with the prompt that led to it
    #[arg(long, value_name = "FILE")]
    prompt: Option<PathBuf>,
    /// Name and version of the model
    #[arg(
        long,
        default_value = "",
        value_name = "NAME",
        hide_default_value = true
    )]
    model: String,
    /// SHA-256 of the system prompt: 64 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<32>)]
    system_prompt_digest: Option<[u8; 32]>,
    /// SHA-256 of the list of tools that the model was offered: 64 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<32>)]
    tool_manifest_digest: Option<[u8; 32]>,
    /// The platform's id of the call
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    tool_call_id: String,
    /// Expected change, for example kind=refund,resource=accounts/12,amount=1999,currency=EUR; up to 64
    /// times. It is compared with what independent systems see. Without --expect all effects must be on
    /// exactly the resource
    #[arg(long, value_name = "EFFECT", value_parser = effect::parse)]
    expect: Vec<v1::Effect>,
    /// Wait until it is cleared, denied or lapsed
    #[arg(long)]
    wait: bool,
    /// Accept the server's answer without computing it here; for callers without the role read
    #[arg(long)]
    by_servers_word: bool,
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    author: AuthorArgs,
}

/// Wait until an Intent is cleared or denied
///
/// Prints the Intent's state at each change, and ends when no further evidence can change it. The Intent
/// counts as cleared only if the task's entries, judged here, clear it: an Intent that waited needs a
/// Clearance in the log whose evidence is valid. Everything else is the server's word.
#[derive(Args)]
#[command(after_help = "\
Exit codes: 1 if it is denied, has lapsed or is done already, or if the server's
answer contradicts the entries.

Examples:
  deed await 14 && ./pay.sh")]
pub(crate) struct Await {
    /// Leaf index of the Intent
    #[arg(value_name = "INTENT")]
    intent: u64,
    /// Accept the server's answer without computing it here; for callers without the role read
    #[arg(long)]
    by_servers_word: bool,
}

#[derive(Serialize)]
struct AwaitedJson {
    intent_leaf: u64,
    #[serde(flatten)]
    stands: StandsJson,
}

#[derive(Serialize)]
struct IntentJson {
    #[serde(flatten)]
    receipt: StatementReceiptJson,
    #[serde(flatten)]
    stands: StandsJson,
}

/// The state of an Intent.
#[derive(Serialize, Default)]
struct StandsJson {
    /// The state; `None` if the ledger assesses nothing, or if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// The proven trust chain says that the ledger assesses nothing.
    #[serde(skip)]
    assesses_nothing: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    denied: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clearance_leaf: Option<u64>,
    /// `checked` or `servers_word`.
    #[serde(skip_serializing_if = "Option::is_none")]
    basis: Option<&'static str>,
    /// Facts that stay the server's word although the state was checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    by_servers_word: Vec<String>,
}

impl MakeIntent {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let mut author = self.author.open(global, &ledger).await?;
        let mut contents = author.content_committer(global)?;
        let copied = |digest: Option<[u8; 32]>| {
            digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest))
        };
        let deadline = self.deadline.map(|when| moment("--deadline", when));
        let intent = v1::Intent {
            action: self.action.clone(),
            resource: self.resource.clone(),
            amount: self.amount.amount(),
            grant: match self.grant {
                Some(grant) => grant.grant_hash(&ledger).await?,
                None => Bytes::new(),
            },
            deadline_us: deadline.transpose()?.map_or(0, Micros::get),
            arguments: contents.file("intent.arguments", self.arguments.as_deref())?,
            prompt: contents.file("intent.prompt", self.prompt.as_deref())?,
            model: self.model.clone(),
            system_prompt_digest: copied(self.system_prompt_digest),
            tool_manifest_digest: copied(self.tool_manifest_digest),
            tool_call_id: self.tool_call_id.clone(),
            expected_effects: self.expect.clone(),
        };
        let header = Header {
            task: Some(TaskId::new(self.task)),
            occurred_at: now(),
            trace: self.about.trace(),
            correlation_keys: &self.about.correlation_keys(),
        };
        let receipt = author
            .record(&header, Body::Intent(intent), Some(contents))
            .await?;
        // The Intent is recorded, so its receipt is printed even if the waiting fails.
        let (state, stands, waited) = self.stands(&ledger, &receipt).await;
        let json = IntentJson {
            receipt: receipt.json(),
            stands,
        };
        let printed = global.output().print(&json, IntentJson::text);
        waited?;
        verdict(state, receipt.receipt.leaf_index.get(), self.wait)?;
        printed
    }

    async fn stands(
        &self,
        ledger: &Ledger,
        receipt: &StatementReceipt,
    ) -> (IntentState, StandsJson, CommandResult) {
        let assessed = receipt.receipt.assessed.as_ref();
        let stands = assessed.map_or_else(StandsJson::default, |assessed| {
            StandsJson::new(assessed.intent(), &assessed.missing, &assessed.denied)
        });
        let state = assessed.map_or(IntentState::Unspecified, v1::Assessed::intent);
        let asks = match state {
            // A false denial allows no act, so it needs no check.
            IntentState::Denied => false,
            // The receipt of a statement that was recorded before does not tell its state.
            IntentState::Unspecified => true,
            IntentState::Cleared => !self.by_servers_word,
            _ => self.wait,
        };
        if !asks {
            return (state, stands, Ok(()));
        }
        let leaf = receipt.receipt.leaf_index;
        let told = state == IntentState::Waiting;
        if told {
            report(&format!("leaf {leaf} {}", stands.words()));
        }
        // Without --wait the command reports the present state, and waits only to check "cleared".
        let to_the_end = self.wait || state == IntentState::Cleared;
        let failure = match watched(ledger, leaf, told, self.by_servers_word, to_the_end).await {
            Ok(Some(standing)) => {
                return (standing.state, StandsJson::of(&standing), Ok(()));
            }
            Ok(None) => no_state(),
            Err(Error::Refused {
                code: tonic::Code::FailedPrecondition,
                ..
            }) if state == IntentState::Unspecified => match assesses_nothing(ledger).await {
                Ok(true) => return (state, StandsJson::not_assessed(), Ok(())),
                Ok(false) => Failure::does_not_verify(
                    "the server says that this ledger assesses nothing, and its trust statements \
                     say that it does",
                ),
                Err(failure) => failure,
            },
            Err(error) => error.into(),
        };
        (state, stands, Err(failure))
    }
}

impl Await {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let ledger = global.connect().await?;
        let leaf = LeafIndex::new(self.intent);
        let (state, stands) = settled(&ledger, leaf, self.by_servers_word).await?;
        let json = AwaitedJson {
            intent_leaf: self.intent,
            stands,
        };
        let printed = global.output().print(&json, |json| json.stands.text());
        verdict(state, self.intent, true)?;
        printed
    }
}

/// Waits until evidence can change nothing more, and says what it waits for meanwhile.
async fn settled(
    ledger: &Ledger,
    leaf: LeafIndex,
    by_servers_word: bool,
) -> CommandResult<(IntentState, StandsJson)> {
    let last = watched(ledger, leaf, false, by_servers_word, true).await?;
    let last = last.ok_or_else(no_state)?;
    Ok((last.state, StandsJson::of(&last)))
}

/// Follows an Intent to the end, or takes its present state, and reports what it waits for meanwhile.
/// `told` is true if the present state was reported already.
async fn watched(
    ledger: &Ledger,
    leaf: LeafIndex,
    mut told: bool,
    by_servers_word: bool,
    to_the_end: bool,
) -> Result<Option<Standing>, Error> {
    let mut watch = ledger.await_clearance(leaf);
    if by_servers_word {
        watch = watch.by_servers_word();
    }
    let mut last: Option<Standing> = None;
    while let Some(standing) = watch.next().await? {
        let ends = !to_the_end || standing.is_settled();
        if !ends && !std::mem::take(&mut told) {
            let words = StandsJson::of(&standing).words();
            report(&format!("leaf {leaf} {words}"));
        }
        last = Some(standing);
        if ends {
            break;
        }
    }
    ledger.flush().await?;
    Ok(last)
}

fn no_state() -> Failure {
    Failure::does_not_verify("the server gives no state")
}

/// Returns true if the ledger's rules assess nothing, by its proven trust statements.
async fn assesses_nothing(ledger: &Ledger) -> CommandResult<bool> {
    let trust = ledger.trust_chain().await?;
    ledger.flush().await?;
    Ok(trust.state.rules_version() < RULES_ASSESSED)
}

/// Returns a failure for an Intent that may not be acted on, so that the exit code shows it. With `waited`
/// every state but cleared is a failure.
fn verdict(state: IntentState, leaf: u64, waited: bool) -> CommandResult {
    match state {
        IntentState::Denied => Err(Failure::denied(format!("the Intent at leaf {leaf}"))),
        IntentState::Lapsed | IntentState::Overdue => Err(Failure::denied(format!(
            "the time of the Intent at leaf {leaf} is over"
        ))),
        // A success would make a script that acts on the exit code act again.
        IntentState::Completed => Err(Failure::denied(format!(
            "the Intent at leaf {leaf} has its Outcome already"
        ))),
        IntentState::Cleared => Ok(()),
        _ if waited => Err(Failure::denied(format!(
            "the Intent at leaf {leaf} is not cleared"
        ))),
        _ => Ok(()),
    }
}

impl IntentJson {
    fn text(&self) -> String {
        format!("{}\nstate      {}", self.receipt.text(), self.stands.text())
    }
}

impl StandsJson {
    fn new(state: IntentState, missing: &[String], denied: &[String]) -> Self {
        Self {
            state: Some(names::intent(state)),
            missing: missing.to_vec(),
            denied: denied.to_vec(),
            basis: Some(names::basis(Basis::ServersWord)),
            ..Self::default()
        }
    }

    fn not_assessed() -> Self {
        Self {
            assesses_nothing: true,
            ..Self::default()
        }
    }

    fn of(standing: &Standing) -> Self {
        let clearance = standing.clearance.as_ref();
        Self {
            clearance_leaf: clearance.map(|clearance| clearance.index.get()),
            basis: Some(names::basis(standing.basis)),
            by_servers_word: standing.unshown.iter().map(Unshown::to_string).collect(),
            ..Self::new(standing.state, &standing.missing, &standing.denied)
        }
    }

    /// The state, and on lines of their own all that stays the server's word of it.
    fn text(&self) -> String {
        let words = self.by_servers_word.iter();
        let words = words.map(|word| format!("\nby the server's word: {}", printable(word)));
        self.words() + &words.collect::<String>()
    }

    /// The state, on one line.
    fn words(&self) -> String {
        let Some(state) = &self.state else {
            return match self.assesses_nothing {
                true => "recorded; this ledger assesses nothing (rules version 1)".to_owned(),
                false => "recorded; where it stands is not known".to_owned(),
            };
        };
        let list = |list: &[String]| {
            let items = list.iter().map(|item| printable(item).into_owned());
            items.collect::<Vec<_>>().join(", ")
        };
        let by = match self.basis {
            Some("checked") => "checked",
            _ => "by the server's word",
        };
        match (state.as_str(), self.clearance_leaf) {
            ("waiting", _) => format!("waiting for {}, {by}", list(&self.missing)),
            ("denied", _) => format!("denied: {}, {by}", list(&self.denied)),
            (state, Some(leaf)) => format!("{state} (Clearance at leaf {leaf}), {by}"),
            (state, None) => format!("{state}, {by}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_words() {
        let strings = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let missing = strings(&["approval", "decision"]);
        let waiting = StandsJson::new(IntentState::Waiting, &missing, &[]);
        assert_eq!(
            waiting.words(),
            "waiting for approval, decision, by the server's word"
        );
        let denied = StandsJson::new(IntentState::Denied, &[], &strings(&["scope_exceeded"]));
        let words = "denied: scope_exceeded, by the server's word";
        assert_eq!(denied.words(), words);
        let cleared = StandsJson {
            clearance_leaf: Some(9),
            basis: Some("checked"),
            ..StandsJson::new(IntentState::Cleared, &[], &[])
        };
        assert_eq!(cleared.words(), "cleared (Clearance at leaf 9), checked");
        let nothing = StandsJson::not_assessed();
        assert!(nothing.words().contains("rules version 1"));
        let unknown = StandsJson::default().words();
        assert!(unknown.contains("not known"), "{unknown}");
        let checked = StandsJson {
            by_servers_word: strings(&["that nothing follows"]),
            ..cleared
        };
        assert_eq!(
            checked.text(),
            "cleared (Clearance at leaf 9), checked\nby the server's word: that nothing follows"
        );
    }

    #[test]
    fn what_may_not_be_acted_on_fails() {
        for (state, fails) in [
            (IntentState::Cleared, false),
            (IntentState::Waiting, false),
            (IntentState::Unspecified, false),
            (IntentState::Denied, true),
            (IntentState::Lapsed, true),
            (IntentState::Overdue, true),
            (IntentState::Completed, true),
        ] {
            assert_eq!(verdict(state, 1, false).is_err(), fails, "{state:?}");
            let is_cleared = state == IntentState::Cleared;
            assert_eq!(verdict(state, 1, true).is_ok(), is_cleared, "{state:?}");
        }
    }
}
