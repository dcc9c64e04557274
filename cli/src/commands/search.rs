//! `deed search`

use clap::Args;
use deed_client::{ProvenStatement, SearchTerms, SignatureCheck};
use deed_evidence::{Micros, TaskId};
use deed_proto::v1::FindingKind;

use super::entry;
use crate::{
    args::{Global, When, hex_bytes, kind_and_value, now},
    failure::{CommandResult, Failure},
    render::{EntryJson, names, printable, report, shown, summary, trust_words},
};

/// Find entries by task, agent, resource, action and other terms
///
/// Finds entries that have all terms. Each entry is proven to be in the log and to have the terms, and its
/// signature is followed to a key that was the producer's and in force. The server's word is: that no
/// other entry has the terms, that a finding arose there, the times, and that no trust statement follows
/// the newest one that it shows (`trust_through` in --json). It cannot hide a trust statement that it has
/// shown here before.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed search --resource order/7
  deed search --agent spiffe://example.org/agent --action payments.refund \\
       --from-time 7d --limit 20
  deed search --correlation ticket=4711 --json")]
pub(crate) struct SearchCommand {
    /// Statements of this task: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>)]
    task: Option<[u8; 16]>,
    /// Statements of this producer
    #[arg(long, value_name = "URI")]
    agent: Option<String>,
    /// Acts and effects on this resource, exactly
    #[arg(long)]
    resource: Option<String>,
    /// Intents of this action, exactly
    #[arg(long)]
    action: Option<String>,
    /// Statements of this W3C trace: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>)]
    trace: Option<[u8; 16]>,
    /// Statements with this correlation key
    #[arg(long, value_name = "KIND=VALUE", value_parser = kind_and_value)]
    correlation: Option<(String, String)>,
    /// Entries at which such a finding arose
    #[arg(long, value_name = "KIND", value_parser = names::parse_finding)]
    finding: Option<FindingKind>,
    /// Start, inclusive: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    from_time: Option<When>,
    /// End, exclusive: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// First leaf
    #[arg(
        long,
        value_name = "LEAF",
        default_value_t = 0,
        hide_default_value = true
    )]
    from: u64,
    /// Largest number of entries [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: Option<u64>,
}

impl SearchCommand {
    pub(crate) async fn run(&self, global: &Global) -> CommandResult {
        let terms = self.terms()?;
        let ledger = global.connect().await?;
        let mut search = ledger.search(terms);
        let (output, mut none) = (global.output(), true);
        let (mut checker, mut refused) = (ledger.signature_checker(), Ok(()));
        let mut under = None;
        while let Some(found) = search.next().await? {
            // A larger tree may hold trust statements that came since the chain was read.
            let head = search.head().map(|head| head.head);
            if head != under {
                (checker, under) = (ledger.signature_checker(), head);
            }
            for one in found {
                none = false;
                let leaf = one.index.get();
                let check = checker.of(leaf, &one.entry).await?;
                let json = EntryJson::decode(&one.entry, leaf, one.hash.to_string())?
                    .by(&check)
                    .going_by(ledger.newest_trust());
                output.print(&json, |_| line(&one, &check))?;
                refused = refused.and_then(|()| entry::refused(leaf, &check));
            }
        }
        ledger.flush().await?;
        if !global.json {
            if let Some(newest) = ledger.newest_trust() {
                report(&format!("signatures {}", trust_words(Some(newest.get()))));
            }
            let to = search.searched_to();
            report(&match none {
                true => format!("nothing found below leaf {to}, by the server's word"),
                false => format!("that is all below leaf {to}, by the server's word"),
            });
        }
        refused
    }

    fn terms(&self) -> CommandResult<SearchTerms> {
        let time = |option: &'static str, when: Option<When>| -> CommandResult<Option<Micros>> {
            let at = when.map(|when| when.before(now())).transpose();
            at.map_err(|error| Failure::usage(format!("{option}: the time {error}")))
        };
        Ok(SearchTerms {
            task: self.task.map(TaskId::new),
            agent: self.agent.clone(),
            resource: self.resource.clone(),
            action: self.action.clone(),
            trace_id: self.trace,
            correlation_key: self.correlation.clone(),
            finding: self.finding,
            start: self.from,
            end: None,
            from: time("--from-time", self.from_time)?,
            until: time("--until", self.until)?,
            limit: self.limit,
        })
    }
}

/// An entry in two lines: the second one may be long.
fn line(found: &ProvenStatement, check: &SignatureCheck) -> String {
    let signed = match check {
        SignatureCheck::Verified => "signed",
        SignatureCheck::Nobody => "unsigned: a claim",
        SignatureCheck::Ledger => "the ledger's own",
        SignatureCheck::Refused(_) => "ITS SIGNATURE PROVES NOTHING",
        SignatureCheck::Unchecked => "signature not checked",
    };
    format!(
        "{:>8}  {}  {} ({signed})\n          {}",
        found.index,
        shown(found.received_at),
        printable(&found.statement.producer),
        printable(&summary::of(&found.statement))
    )
}
