//! The server's story of a task against what its own entries come to.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use deed_evidence::{
    assess::finding,
    replay::task::{TaskVerdict, Unshown},
};
use deed_proto::v1::{
    self, FindingKind, GrantState, IntentState, LayerState, OutcomeState, TaskState,
};

use super::story::ProvenTask;

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
    /// Differences that may be so, because time has passed by entries elsewhere.
    pub(super) by_word: Vec<Difference>,
}

/// Compares the server's story with the verdict over the entries that were `given`.
pub(super) fn with(
    told: &ProvenTask,
    verdict: &TaskVerdict,
    given: &BTreeMap<u64, Bytes>,
) -> Compared {
    let mut compared = Compared::default();
    compared.task(&told.info, &verdict.info);
    compared.acts(told, verdict);
    compared.grants(told, verdict);
    compared.findings(told, verdict, given);
    compared
}

impl Compared {
    fn differs(&mut self, what: &str, server: String, entries: String) {
        if server != entries {
            self.differences.push(Difference {
                what: what.to_owned(),
                server,
                entries,
            });
        }
    }

    fn task(&mut self, told: &v1::TaskInfo, own: &v1::TaskInfo) {
        // Its deadline may have come by entries elsewhere.
        let by_time = told.state() == TaskState::Closed
            && own.state() == TaskState::Open
            && told.closed_leaf.is_none();
        let (server, entries) = (
            word(told.state().as_str_name(), "TASK_STATE_"),
            word(own.state().as_str_name(), "TASK_STATE_"),
        );
        if by_time {
            self.by_word.push(Difference {
                what: "the task".to_owned(),
                server,
                entries,
            });
        } else {
            self.differs("the task", server, entries);
        }
        let tier = |info: &v1::TaskInfo| word(info.risk_tier().as_str_name(), "RISK_TIER_");
        self.differs("the task's risk tier", tier(told), tier(own));
        let opened = |info: &v1::TaskInfo| layer(info.opened());
        self.differs("how the task was opened", opened(told), opened(own));
        for (what, server, entries) in [
            ("where the task opened", told.opened_leaf, own.opened_leaf),
            ("where the task closed", told.closed_leaf, own.closed_leaf),
            (
                "the task's newest receipt",
                told.receipt_leaf,
                own.receipt_leaf,
            ),
        ] {
            self.differs(what, leaf(server), leaf(entries));
        }
    }

    fn acts(&mut self, told: &ProvenTask, verdict: &TaskVerdict) {
        let server: BTreeMap<u64, &v1::ActInfo> =
            told.acts.iter().map(|act| (act.intent_leaf, act)).collect();
        for own in &verdict.acts {
            let what = format!("the act of the Intent at leaf {}", own.intent_leaf);
            match server.get(&own.intent_leaf) {
                Some(told) => self.act(&what, told, own),
                None => self.differs(
                    &what,
                    "nothing".to_owned(),
                    word(own.state().as_str_name(), "INTENT_STATE_"),
                ),
            }
        }
        for (intent, told) in server {
            if verdict.act(intent).is_none() {
                let what = format!("the act of the Intent at leaf {intent}");
                let state = word(told.state().as_str_name(), "INTENT_STATE_");
                self.differs(&what, state, "that it is none".to_owned());
            }
        }
    }

    fn act(&mut self, what: &str, told: &v1::ActInfo, own: &v1::ActInfo) {
        let by_time = passed(own.state(), told.state());
        let state = |act: &v1::ActInfo| word(act.state().as_str_name(), "INTENT_STATE_");
        if by_time {
            self.by_word.push(Difference {
                what: what.to_owned(),
                server: state(told),
                entries: state(own),
            });
        } else {
            self.differs(what, state(told), state(own));
        }
        let outcome = |act: &v1::ActInfo| word(act.outcome().as_str_name(), "OUTCOME_STATE_");
        let unseen = own.outcome() == OutcomeState::Unobserved
            && told.outcome() == OutcomeState::Uncorroborated;
        if unseen {
            self.by_word.push(Difference {
                what: format!("the Outcome of {what}"),
                server: outcome(told),
                entries: outcome(own),
            });
        } else {
            let of = format!("the Outcome of {what}");
            self.differs(&of, outcome(told), outcome(own));
        }
        for (field, server, entries) in [
            ("Clearance", told.clearance_leaf, own.clearance_leaf),
            ("Outcome", told.outcome_leaf, own.outcome_leaf),
            ("grant", told.grant_leaf, own.grant_leaf),
        ] {
            let of = format!("the {field} of {what}");
            self.differs(&of, leaf(server), leaf(entries));
        }
        let leaves = |leaves: &[u64]| format!("{leaves:?}");
        let of = format!("the evidence for {what}, by leaf");
        let own_leaves = leaves(&own.evidence_leaves);
        self.differs(&of, leaves(&told.evidence_leaves), own_leaves);
        let of = format!("the Observations of {what}, by leaf");
        let own_leaves = leaves(&own.observation_leaves);
        self.differs(&of, leaves(&told.observation_leaves), own_leaves);
        if by_time || unseen {
            // They follow from where it stands.
            return;
        }
        let (server, entries) = (
            told.layers.unwrap_or_default(),
            own.layers.unwrap_or_default(),
        );
        for (name, server, entries) in [
            ("identity", server.identity(), entries.identity()),
            ("authority", server.authority(), entries.authority()),
            ("intent", server.intent(), entries.intent()),
            ("approval", server.approval(), entries.approval()),
            ("result", server.result(), entries.result()),
            (
                "corroboration",
                server.corroboration(),
                entries.corroboration(),
            ),
        ] {
            let of = format!("the layer {name} of {what}");
            self.differs(&of, layer(server), layer(entries));
        }
    }

    fn grants(&mut self, told: &ProvenTask, verdict: &TaskVerdict) {
        let server: BTreeMap<u64, &v1::GrantInfo> = told
            .grants
            .iter()
            .map(|one| (one.leaf_index, one))
            .collect();
        let state = |grant: &v1::GrantInfo| word(grant.state().as_str_name(), "GRANT_STATE_");
        for own in &verdict.grants {
            let what = format!("the grant at leaf {}", own.leaf_index);
            let Some(told) = server.get(&own.leaf_index) else {
                self.differs(&what, "nothing".to_owned(), state(own));
                continue;
            };
            let by_time = matches!(
                (own.state(), told.state()),
                (
                    GrantState::Pending,
                    GrantState::Active | GrantState::Expired
                ) | (
                    GrantState::Active | GrantState::Exhausted,
                    GrantState::Expired | GrantState::TaskClosed
                ) | (_, GrantState::TaskClosed)
            ) && told.state() != own.state();
            if by_time {
                self.by_word.push(Difference {
                    what: what.clone(),
                    server: state(told),
                    entries: state(own),
                });
            } else {
                self.differs(&what, state(told), state(own));
            }
            let of = format!("who stands at the root of {what}");
            self.differs(&of, layer(told.rooted()), layer(own.rooted()));
            let of = format!("the acceptance of {what}");
            self.differs(&of, leaf(told.accepted_leaf), leaf(own.accepted_leaf));
            let spent =
                |one: &v1::GrantInfo| format!("{} uses, {}", one.uses_spent, one.amount_spent);
            self.differs(&format!("what is spent of {what}"), spent(told), spent(own));
        }
        for (at, told) in server {
            if !verdict.grants.iter().any(|own| own.leaf_index == at) {
                let what = format!("the grant at leaf {at}");
                self.differs(&what, state(told), "that it is none".to_owned());
            }
        }
    }

    /// Numbers are not compared: at a leaf they count the findings of all tasks.
    fn findings(&mut self, told: &ProvenTask, verdict: &TaskVerdict, given: &BTreeMap<u64, Bytes>) {
        let mut left: Vec<&v1::Finding> = told.findings.iter().collect();
        let unsure = verdict
            .unshown
            .iter()
            .any(|one| matches!(one, Unshown::Disposition { .. }));
        for own in &verdict.findings {
            let same = |told: &&v1::Finding| {
                told.kind == own.kind
                    && told.about_leaf == own.about_leaf
                    && told.contradicts_leaf == own.contradicts_leaf
                    && (told.leaf_index == own.leaf_index || is_of_time(own.kind()))
            };
            let Some(at) = left.iter().position(same) else {
                self.differs(&place(own), "nothing".to_owned(), in_words(own));
                continue;
            };
            let told = left.swap_remove(at);
            let of = format!("the severity of {}", place(own));
            let severity = |one: &v1::Finding| word(one.severity().as_str_name(), "SEVERITY_");
            self.differs(&of, severity(told), severity(own));
            if !unsure {
                let of = format!("the disposition of {}", place(own));
                self.differs(&of, leaf(told.disposition_leaf), leaf(own.disposition_leaf));
            }
        }
        left.sort_by_key(|one| (one.leaf_index, one.number));
        for told in left {
            let difference = Difference {
                what: place(told),
                server: in_words(told),
                entries: "nothing".to_owned(),
            };
            if given.contains_key(&told.leaf_index) && !is_of_time(told.kind()) {
                self.differences.push(difference);
            } else {
                self.by_word.push(difference);
            }
        }
    }
}

/// Returns true if an Intent may have come from state `own` to state `told` because time has
/// passed.
const fn passed(own: IntentState, told: IntentState) -> bool {
    matches!(
        (own, told),
        (IntentState::Waiting, IntentState::Lapsed) | (IntentState::Cleared, IntentState::Overdue)
    )
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
