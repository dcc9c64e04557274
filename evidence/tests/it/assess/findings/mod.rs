//! Every kind of finding, with all that it says, and what it does to its task's digest.

mod acts;
mod authority;

use std::collections::HashSet;

use deed_evidence::assess::{digest, finding};
use deed_proto::v1::{
    self, AuthenticationStrength, FindingKind as F, IntentState, OutcomeState, OutcomeStatus,
    RiskTier, Verdict, statement::Body,
};

use super::*;

/// What a story came to.
struct Told {
    /// The leaf that it was found at.
    leaf: u64,
    /// What it is about, and contradicts.
    about: u64,
    contradicts: Option<u64>,
    detail: &'static str,
    task: Option<u8>,
    /// What moved in the task in the same unit, before and after it was found.
    before: Vec<digest::Event>,
    after: Vec<digest::Event>,
}

/// About the statement that it was found at, in task 1.
fn told(leaf: u64, detail: &'static str) -> Told {
    Told {
        leaf,
        about: leaf,
        contradicts: None,
        detail,
        task: Some(1),
        before: Vec::new(),
        after: Vec::new(),
    }
}

impl Told {
    fn about(mut self, leaf: u64) -> Self {
        self.about = leaf;
        self
    }

    fn contradicts(mut self, leaf: u64) -> Self {
        self.contradicts = Some(leaf);
        self
    }

    fn before(mut self, intent: u64, state: IntentState) -> Self {
        self.before.push(digest::Event::Intent {
            leaf: self.leaf,
            intent,
            state,
        });
        self
    }

    fn after(mut self, intent: u64, state: IntentState) -> Self {
        self.after.push(digest::Event::Intent {
            leaf: self.leaf,
            intent,
            state,
        });
        self
    }

    fn outcome(mut self, intent: u64, state: OutcomeState) -> Self {
        self.after.push(digest::Event::Outcome {
            leaf: self.leaf,
            intent,
            state,
        });
        self
    }
}

type Story = fn(&mut Stage) -> Told;

/// An Intent that is denied at once.
fn denied(intent: &Place, detail: &'static str) -> Told {
    assert_eq!(intent.state(), Some(IntentState::Denied));
    told(intent.leaf, detail).after(intent.leaf, IntentState::Denied)
}

/// An Outcome by the agent, changed.
fn outcome_with(
    s: &mut Stage,
    intent: &Place,
    change: impl FnOnce(&mut v1::Outcome),
    detail: &'static str,
) -> Told {
    s.mark();
    let effects = vec![effect("orders/7", 500)];
    let mut body = outcome(intent, OutcomeStatus::Succeeded, effects);
    let Body::Outcome(said) = &mut body else {
        unreachable!("it is an Outcome")
    };
    change(said);
    let leaf = s.ledger.say(AGENT, Some(1), body).leaf;
    told(leaf, detail)
        .about(intent.leaf)
        .contradicts(leaf)
        .before(intent.leaf, IntentState::Completed)
        .outcome(intent.leaf, OutcomeState::Unobserved)
}

#[test]
fn every_kind_is_found_with_all_that_it_says() {
    let stories = [
        &authority::OF_GRANTS[..],
        &authority::OF_EVIDENCE,
        &acts::OF_OUTCOMES,
        &acts::OF_SESSIONS,
    ]
    .concat();
    let kinds: HashSet<_> = stories.iter().map(|(kind, _)| *kind).collect();
    let untold: Vec<_> = finding::KINDS
        .iter()
        .filter(|kind| !kinds.contains(kind))
        .collect();
    assert!(untold.is_empty(), "no story comes to {untold:?}");
    assert_eq!(stories.len(), finding::KINDS.len());
    for (kind, story) in stories {
        let mut stage = Stage::new();
        check(kind, &mut stage, story);
        stage.replays();
        let mut again = Stage::of(Ledger::forgetting());
        check(kind, &mut again, story);
        assert_eq!(again.ledger.kept, stage.ledger.kept, "{kind:?}");
    }
}

fn check(kind: F, stage: &mut Stage, story: Story) {
    let told = story(stage);
    assert_eq!(stage.kinds(), [kind]);
    let found = stage.found().remove(0);
    let mut wanted = v1::Finding {
        leaf_index: told.leaf,
        number: 0,
        kind: kind.into(),
        severity: finding::severity(kind).into(),
        task: told
            .task
            .map(|task| stage.ledger.task_id(task))
            .map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
        about_leaf: told.about,
        contradicts_leaf: told.contradicts,
        at_us: stage.ledger.now().get(),
        detail: told.detail.into(),
        disposition_leaf: None,
        disposition: 0,
    };
    if told.detail.is_empty() {
        // Cedar's words, or a key's number.
        assert!(!found.detail.is_empty(), "{kind:?}");
        wanted.detail.clone_from(&found.detail);
    }
    assert_eq!(found, wanted);

    // The digests of all tasks have taken exactly this.
    for task in [1, 7] {
        let mut events = Vec::new();
        if told.task.unwrap_or(1) == task {
            events.extend(&told.before);
            events.extend(told.task.map(|_| found_event(&found)));
            events.extend(&told.after);
        }
        let wanted = fold(digest_in(&stage.cells, stage.ledger.task_id(task)), events);
        assert_eq!(stage.digest(task), wanted, "{kind:?}");
    }
}
