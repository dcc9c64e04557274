//! Compares the server's report of a task with the verdict over its entries.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use deed_evidence::{
    assess::finding,
    entry::Entry,
    replay::task::{Signed, TaskVerdict, Unshown},
    statement,
};
use deed_proto::v1::{
    self, FindingKind, GrantState, IntentState, LayerState, OutcomeState, TaskState,
    statement::Body,
};

use super::{gathered::Gathered, task_report::ProvenTask};

/// Something that the server says, and that its own entries do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The subject of the difference.
    pub what: String,
    /// The server's version of it.
    pub server: String,
    /// The entries' version of it.
    pub entries: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            server,
            entries,
        } = self;
        write!(
            f,
            "{what}: the server says {server}; its own entries say {entries}"
        )
    }
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Differences that contradict the entries.
    pub(super) differences: Vec<Difference>,
    /// Differences that may be so, because time has passed by entries elsewhere, or other tasks have a
    /// part in it.
    pub(super) by_word: Vec<Difference>,
}

/// The entries that were given, and those that leave something open.
struct Unsettled<'a> {
    report: &'a ProvenTask,
    verdict: &'a TaskVerdict,
    given: &'a BTreeMap<u64, Bytes>,
    missed: &'a BTreeSet<u64>,
    /// Observations that may be of acts of other tasks.
    correlated: BTreeSet<u64>,
}

/// Compares the server's report with the verdict over the entries that were gathered.
pub(super) fn with(gathered: &Gathered, verdict: &TaskVerdict) -> Compared {
    let (reported, mut compared) = (&gathered.report, Compared::default());
    let correlated = verdict.unshown.iter().filter_map(|one| match one {
        Unshown::Correlated { leaf } => Some(*leaf),
        _ => None,
    });
    let unsettled = Unsettled {
        report: reported,
        verdict,
        given: &gathered.given,
        missed: &gathered.missed,
        correlated: correlated.collect(),
    };
    compared.task(&reported.info, &verdict.info);
    compared.acts(reported, &unsettled);
    compared.grants(reported, &unsettled);
    compared.findings(reported, &unsettled);
    compared
}

/// The batch of an Intent that may be evidence of an equivocation alone, by its manifest's leaf.
pub(super) fn doubtful_batch(verdict: &TaskVerdict, intent: u64) -> Option<u64> {
    let Some(Signed::Batch { manifest, .. }) = verdict.signed.get(&intent) else {
        return None;
    };
    let batch = Unshown::Batch {
        manifest: *manifest,
    };
    verdict.unshown.contains(&batch).then_some(*manifest)
}

impl Unsettled<'_> {
    /// Returns true if the report points to more than was fetched: then time may have passed unseen.
    fn is_cut(&self) -> bool {
        !self.missed.is_empty()
    }

    /// Returns true if the Observations that the server and the entries have of an act differ only in those
    /// that were not fetched, or that may be of another task's act.
    fn may_differ(&self, reported: &[u64], own: &[u64]) -> bool {
        let (reported, own): (BTreeSet<_>, BTreeSet<_>) =
            (reported.iter().collect(), own.iter().collect());
        let known = |leaf: &&u64| self.missed.contains(leaf) || self.correlated.contains(leaf);
        let mut other = reported.symmetric_difference(&own).peekable();
        other.peek().is_some() && other.all(known)
    }

    /// Returns true if an act is denied, or not, by a time that may have come already when it was
    /// judged.
    fn is_by_clock(&self, intent: u64, reported: IntentState, own: IntentState) -> bool {
        let close = self.verdict.close.get(&intent);
        reported != own
            && close.is_some_and(|close| {
                (close.ends && reported == IntentState::Denied)
                    || (close.begins && own == IntentState::Denied)
            })
    }

    fn is_correlated(&self, one: &v1::Finding) -> bool {
        let leaves = [
            Some(one.leaf_index),
            Some(one.about_leaf),
            one.contradicts_leaf,
        ];
        let mut leaves = leaves.into_iter().flatten();
        leaves.any(|leaf| self.correlated.contains(&leaf))
    }

    /// Returns true if a finding that the server does not tell may be none of a whole ledger.
    fn may_be_none(&self, own: &v1::Finding) -> bool {
        is_of_shared_lists(own)
            || matches!(
                own.kind(),
                // The ledger's lists of a token's grants are bounded, a key's tasks are looked at by and by,
                // and a clock is ahead of a time that is known from below.
                FindingKind::TokenUsedAfterClose
                    | FindingKind::CompromisedKeyUse
                    | FindingKind::ClockSkew
            )
            || (own.kind() == FindingKind::Uncorroborated && self.is_cut())
            || self.may_name_others(own)
            || self.is_correlated(own)
            || self.is_about_unsettled(own)
    }

    /// Returns true if a finding that these entries do not give may be one of a whole ledger.
    fn may_be_one(&self, reported: &v1::Finding) -> bool {
        !self.given.contains_key(&reported.leaf_index)
            || self.is_cut()
            || is_of_time(reported.kind())
            || is_of_shared_lists(reported)
            || self.names_others(reported)
            || self.is_correlated(reported)
            || self.is_about_unsettled(reported)
    }

    /// Returns true if a finding is of a grant or an act of another task, which is not known here.
    fn names_others(&self, reported: &v1::Finding) -> bool {
        use FindingKind as F;
        let of_what_is_named = matches!(
            reported.kind(),
            F::UnknownGrant
                | F::ExpiredGrant
                | F::RevokedKeyUse
                | F::ScopeExceeded
                | F::LimitExceeded
                | F::TaskClosed
                | F::DelegationEscalation
                | F::DelegationUnaccepted
                | F::ApprovalOfOtherIntent
                | F::OutcomeWithoutIntent
                | F::UnprovenClaim
        );
        let is_elsewhere = |leaf: u64| self.report.entry(leaf).is_none();
        of_what_is_named && reported.contradicts_leaf.is_some_and(is_elsewhere)
    }

    /// Returns true if a grant that is unknown here is one of another task, of which the server finds
    /// something else.
    fn may_name_others(&self, own: &v1::Finding) -> bool {
        own.kind() == FindingKind::UnknownGrant
            && own.contradicts_leaf.is_none()
            && self.report.findings.iter().any(|reported| {
                (reported.leaf_index, reported.about_leaf) == (own.leaf_index, own.about_leaf)
                    && self.names_others(reported)
            })
    }

    fn is_about_unsettled(&self, one: &v1::Finding) -> bool {
        self.verdict.close.contains_key(&one.about_leaf)
            || doubtful_batch(self.verdict, one.about_leaf).is_some()
    }
}

impl Compared {
    fn differs(&mut self, what: &str, server: String, entries: String) {
        self.differs_unless(false, what, server, entries);
    }

    /// A difference that is no lie if it `may_be`.
    fn differs_unless(&mut self, may_be: bool, what: &str, server: String, entries: String) {
        if server == entries {
            return;
        }
        let kind = match may_be {
            true => &mut self.by_word,
            false => &mut self.differences,
        };
        kind.push(Difference {
            what: what.to_owned(),
            server,
            entries,
        });
    }

    fn task(&mut self, reported: &v1::TaskInfo, own: &v1::TaskInfo) {
        // Entries of other tasks may have moved the time past the deadline.
        let by_time = reported.state() == TaskState::Closed
            && own.state() == TaskState::Open
            && reported.closed_leaf.is_none();
        let (server, entries) = (
            word(reported.state().as_str_name(), "TASK_STATE_"),
            word(own.state().as_str_name(), "TASK_STATE_"),
        );
        self.differs_unless(by_time, "the task", server, entries);
        let tier = |info: &v1::TaskInfo| word(info.risk_tier().as_str_name(), "RISK_TIER_");
        self.differs("the task's risk tier", tier(reported), tier(own));
        let opened = |info: &v1::TaskInfo| layer(info.opened());
        self.differs("how the task was opened", opened(reported), opened(own));
        for (what, server, entries) in [
            (
                "where the task opened",
                reported.opened_leaf,
                own.opened_leaf,
            ),
            (
                "where the task closed",
                reported.closed_leaf,
                own.closed_leaf,
            ),
            (
                "the task's newest receipt",
                reported.receipt_leaf,
                own.receipt_leaf,
            ),
        ] {
            self.differs(what, leaf(server), leaf(entries));
        }
    }

    fn acts(&mut self, reported: &ProvenTask, unsettled: &Unsettled<'_>) {
        let verdict = unsettled.verdict;
        let server: BTreeMap<u64, &v1::ActInfo> = reported
            .acts
            .iter()
            .map(|act| (act.intent_leaf, act))
            .collect();
        for own in &verdict.acts {
            let what = format!("the act of the Intent at leaf {}", own.intent_leaf);
            match server.get(&own.intent_leaf) {
                Some(reported) => self.act(&what, reported, own, unsettled),
                None => {
                    let in_doubt = doubtful_batch(verdict, own.intent_leaf).is_some();
                    let state = word(own.state().as_str_name(), "INTENT_STATE_");
                    self.differs_unless(in_doubt, &what, "nothing".to_owned(), state);
                }
            }
        }
        for (intent, reported) in server {
            if verdict.act(intent).is_none() {
                let what = format!("the act of the Intent at leaf {intent}");
                let state = word(reported.state().as_str_name(), "INTENT_STATE_");
                self.differs(&what, state, "that it is none".to_owned());
            }
        }
    }

    fn act(
        &mut self,
        what: &str,
        reported: &v1::ActInfo,
        own: &v1::ActInfo,
        unsettled: &Unsettled<'_>,
    ) {
        let by_clock = unsettled.is_by_clock(own.intent_leaf, reported.state(), own.state());
        let by_time = passed(own.state(), reported.state(), unsettled.is_cut());
        let state = |act: &v1::ActInfo| word(act.state().as_str_name(), "INTENT_STATE_");
        self.differs_unless(by_clock || by_time, what, state(reported), state(own));
        if by_clock {
            // All else follows from it.
            return;
        }
        let seen = (&reported.observation_leaves, &own.observation_leaves);
        let seen_otherwise = unsettled.may_differ(seen.0, seen.1);
        let outcome = |act: &v1::ActInfo| word(act.outcome().as_str_name(), "OUTCOME_STATE_");
        let unseen = own.outcome() == OutcomeState::Unobserved
            && reported.outcome() == OutcomeState::Uncorroborated;
        let of = format!("the Outcome of {what}");
        self.differs_unless(
            unseen || seen_otherwise,
            &of,
            outcome(reported),
            outcome(own),
        );
        for (field, server, entries) in [
            ("Clearance", reported.clearance_leaf, own.clearance_leaf),
            ("Outcome", reported.outcome_leaf, own.outcome_leaf),
            ("grant", reported.grant_leaf, own.grant_leaf),
        ] {
            let of = format!("the {field} of {what}");
            self.differs(&of, leaf(server), leaf(entries));
        }
        let leaves = |leaves: &[u64]| format!("{leaves:?}");
        let of = format!("the evidence for {what}, by leaf");
        let own_leaves = leaves(&own.evidence_leaves);
        self.differs(&of, leaves(&reported.evidence_leaves), own_leaves);
        let of = format!("the Observations of {what}, by leaf");
        self.differs_unless(seen_otherwise, &of, leaves(seen.0), leaves(seen.1));
        let (server, entries) = (
            reported.layers.unwrap_or_default(),
            own.layers.unwrap_or_default(),
        );
        // Time and observations can change some of the layers (`true`); the others are fixed.
        let late = by_time || seen_otherwise;
        for (name, may_be, server, entries) in [
            ("identity", false, server.identity(), entries.identity()),
            ("authority", false, server.authority(), entries.authority()),
            ("intent", late, server.intent(), entries.intent()),
            ("approval", false, server.approval(), entries.approval()),
            ("result", seen_otherwise, server.result(), entries.result()),
            (
                "corroboration",
                late || unseen,
                server.corroboration(),
                entries.corroboration(),
            ),
        ] {
            let of = format!("the layer {name} of {what}");
            self.differs_unless(may_be, &of, layer(server), layer(entries));
        }
    }

    fn grants(&mut self, reported: &ProvenTask, unsettled: &Unsettled<'_>) {
        let verdict = unsettled.verdict;
        // An act that is denied after all has spent nothing.
        let in_doubt = |act: &v1::ActInfo| doubtful_batch(verdict, act.intent_leaf).is_some();
        let may_be_spent = !verdict.close.is_empty() || verdict.acts.iter().any(in_doubt);
        let server: BTreeMap<u64, &v1::GrantInfo> = reported
            .grants
            .iter()
            .map(|one| (one.leaf_index, one))
            .collect();
        let state = |grant: &v1::GrantInfo| word(grant.state().as_str_name(), "GRANT_STATE_");
        for own in &verdict.grants {
            let what = format!("the grant at leaf {}", own.leaf_index);
            let Some(reported) = server.get(&own.leaf_index) else {
                self.differs(&what, "nothing".to_owned(), state(own));
                continue;
            };
            let by_time = matches!(
                (own.state(), reported.state()),
                (
                    GrantState::Pending,
                    GrantState::Active | GrantState::Expired
                ) | (
                    GrantState::Active | GrantState::Exhausted,
                    GrantState::Expired | GrantState::TaskClosed
                ) | (_, GrantState::TaskClosed)
            ) && reported.state() != own.state();
            self.differs_unless(by_time, &what, state(reported), state(own));
            let of = format!("who stands at the root of {what}");
            self.differs(&of, layer(reported.rooted()), layer(own.rooted()));
            let of = format!("the acceptance of {what}");
            self.differs(&of, leaf(reported.accepted_leaf), leaf(own.accepted_leaf));
            let spent =
                |one: &v1::GrantInfo| format!("{} uses, {}", one.uses_spent, one.amount_spent);
            let of = format!("what is spent of {what}");
            self.differs_unless(may_be_spent, &of, spent(reported), spent(own));
        }
        for (at, reported) in server {
            if !verdict.grants.iter().any(|own| own.leaf_index == at) {
                let what = format!("the grant at leaf {at}");
                self.differs(&what, state(reported), "that it is none".to_owned());
            }
        }
    }

    /// Numbers are not compared: at a leaf they count the findings of all tasks.
    fn findings(&mut self, report: &ProvenTask, unsettled: &Unsettled<'_>) {
        for reported in &report.findings {
            self.disposition(reported, unsettled);
        }
        let mut left: Vec<&v1::Finding> = report.findings.iter().collect();
        for own in &unsettled.verdict.findings {
            let same = |reported: &&v1::Finding| {
                // The last statement of a stolen key in the task may be one elsewhere that is in no list.
                let of_stolen_key = own.kind() == FindingKind::CompromisedKeyUse;
                let about = reported.about_leaf == own.about_leaf || of_stolen_key;
                // The ledger finds the uses of a stolen key in very many tasks one after the other, so they may
                // arise at any leaf.
                let anywhere = is_of_time(own.kind()) || of_stolen_key;
                reported.kind == own.kind
                    && about
                    && (reported.leaf_index == own.leaf_index || anywhere)
            };
            let exactly = |reported: &&v1::Finding| {
                same(reported) && reported.contradicts_leaf == own.contradicts_leaf
            };
            // A grant or an act of another task that somebody names is none that is known here.
            let of_others = |reported: &&v1::Finding| {
                let of_none = |leaf: u64| report.entry(leaf).is_none();
                same(reported)
                    && own.contradicts_leaf.is_none()
                    && reported.contradicts_leaf.is_some_and(of_none)
            };
            let found = left.iter().position(exactly);
            let found = found.or_else(|| left.iter().position(of_others));
            let Some(at) = found else {
                let may_be = unsettled.may_be_none(own);
                self.differs_unless(may_be, &place(own), "nothing".to_owned(), in_words(own));
                continue;
            };
            let reported = left.swap_remove(at);
            let of = format!("the severity of {}", place(own));
            let severity = |one: &v1::Finding| word(one.severity().as_str_name(), "SEVERITY_");
            self.differs(&of, severity(reported), severity(own));
        }
        left.sort_by_key(|one| (one.leaf_index, one.number));
        for reported in left {
            let may_be = unsettled.may_be_one(reported);
            self.differs_unless(
                may_be,
                &place(reported),
                in_words(reported),
                "nothing".to_owned(),
            );
        }
    }

    /// A disposition names a finding by its number, which counts those of all tasks: which one it is
    /// of is the server's word. That it is there, and names that number, is not.
    fn disposition(&mut self, reported: &v1::Finding, unsettled: &Unsettled<'_>) {
        let Some(at) = reported.disposition_leaf else {
            return;
        };
        let named = unsettled.given.get(&at).and_then(disposed_in);
        let is_it = named.is_some_and(|said| {
            (said.leaf_index, said.number, said.kind)
                == (reported.leaf_index, reported.number, reported.disposition)
        });
        let of = format!("the disposition of {}", place(reported));
        let entries = "none that is known to be of it".to_owned();
        let may_be = is_it || unsettled.missed.contains(&at);
        self.differs_unless(may_be, &of, leaf(Some(at)), entries);
    }
}

fn disposed_in(entry: &Bytes) -> Option<v1::FindingDisposition> {
    let parsed = Entry::parse(entry).ok()?;
    match statement::decode(&entry.slice_ref(parsed.payload))
        .ok()?
        .body
    {
        Some(Body::FindingDisposition(disposition)) => Some(disposition),
        _ => None,
    }
}

/// Findings of lists that all tasks share: acts by a correlation key, grants by an outside token. What
/// was pushed out of them depends on other tasks.
fn is_of_shared_lists(one: &v1::Finding) -> bool {
    one.kind() == FindingKind::NotCompared && one.contradicts_leaf.is_none()
}

/// Returns true if an Intent may have come from state `own` to state `reported` because time has passed.
/// `unseen`: the leaves that show it were not fetched.
const fn passed(own: IntentState, reported: IntentState, unseen: bool) -> bool {
    use IntentState as S;
    match (own, reported) {
        (S::Waiting, S::Lapsed) | (S::Cleared, S::Overdue) => true,
        (S::Completed, S::Overdue) => unseen,
        _ => false,
    }
}

/// Findings that arise when time has passed, wherever that shows.
const fn is_of_time(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::IntentLapsed | FindingKind::IntentOverdue | FindingKind::Uncorroborated
    )
}

fn place(finding: &v1::Finding) -> String {
    format!("a finding at leaf {}", finding.leaf_index)
}

fn in_words(one: &v1::Finding) -> String {
    let kind = finding::name(one.kind()).replace('_', " ");
    format!("{kind} about leaf {}", one.about_leaf)
}

fn leaf(leaf: Option<u64>) -> String {
    leaf.map_or_else(|| "none".to_owned(), |leaf| format!("leaf {leaf}"))
}

fn layer(layer: LayerState) -> String {
    word(layer.as_str_name(), "LAYER_STATE_")
}

fn word(name: &str, prefix: &str) -> String {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    name.to_ascii_lowercase().replace('_', " ")
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
