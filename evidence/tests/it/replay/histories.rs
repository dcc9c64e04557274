//! Random histories: a replay of the entries comes to the same.

use super::*;

/// What must hold.
impl Story {
    /// What must hold after every unit.
    pub(super) fn check(&mut self) {
        // Those of which no cell is kept, too: at once, for they change when something is said of
        // them.
        let leaves = self.checked..self.ledger.next_leaf();
        self.checked = leaves.end;
        for leaf in leaves {
            let act = self.ledger.kept.act(leaf);
            if let Some(act) = act.filter(|act| act.state() == IntentState::Cleared)
                && self.cleared.insert(leaf)
            {
                self.check_chain(&act);
            }
        }
        let mut newly = Vec::new();
        for (key, bytes) in &self.ledger.kept.cells {
            match key {
                CellKey::Grant(_) => {
                    let grant = cells::Grant::decode(bytes.clone()).unwrap();
                    assert!(
                        grant.uses == 0 || grant.uses_spent <= grant.uses,
                        "{grant:?}"
                    );
                    let most = grant.minor_units.unwrap_or(i64::MAX);
                    assert!((0..=most).contains(&grant.amount_spent), "{grant:?}");
                }
                CellKey::Act(_) => {
                    let act = cells::Act::decode(bytes.clone()).unwrap();
                    let cleared = act.state() == IntentState::Cleared
                        || act.state() == IntentState::Completed;
                    if cleared && self.cleared.insert(act.leaf) {
                        assert!(act.denied.is_empty() && act.missing.is_empty(), "{act:?}");
                        newly.push(act);
                    }
                }
                _ => {}
            }
        }
        for act in newly {
            self.check_chain(&act);
        }
        // Counted here, and not by the machine's own books. It may have charged more: what was
        // cleared and refused in one batch stays charged.
        for (name, (uses, spent)) in &self.spent {
            let grant = self.ledger.grant(*name);
            assert!(grant.uses == 0 || *uses <= grant.uses, "{grant:?}");
            assert!(*uses <= grant.uses_spent, "{uses} of {grant:?}");
            if let Some(most) = grant.minor_units {
                assert!(
                    *spent <= most && *spent <= grant.amount_spent,
                    "{spent} of {grant:?}"
                );
            }
        }
    }

    /// The grants that a cleared act stands on, told once more.
    pub(super) fn check_chain(&mut self, act: &cells::Act) {
        let at = self.ledger.now().get();
        let (header, intent) = self
            .intent_at(act.leaf)
            .expect("a cleared act is an Intent's");
        let task = self.ledger.kept.cells[&CellKey::Task(header)].clone();
        let task = cells::Task::decode(task).unwrap();
        assert_eq!(task.state(), TaskState::Open, "{act:?}");
        let mut name = intent.grant.clone();
        if name.is_empty() {
            assert!(
                self.ledger.trust.policy().is_none() || task.tier() == RiskTier::Low,
                "{act:?}"
            );
            return;
        }
        let mut depth = 0;
        let mut child: Option<cells::Grant> = None;
        while let Ok(hash) = Hash::try_from(&name[..]) {
            let grant = self.ledger.grant(hash);
            assert_eq!(grant.state(), GrantState::Active, "{grant:?}");
            assert_eq!(grant.task, act.task);
            assert!(
                grant.not_before_us <= at && at < grant.expires_us,
                "{grant:?}"
            );
            assert!(grant.uses_spent > 0, "{grant:?}");
            let inside = intent.resource.starts_with("orders/");
            assert!(inside && intent.action == "refund", "{intent:?}");
            if grant.minor_units.is_some() {
                assert!(intent.amount.as_ref().unwrap().minor_units >= 0);
            }
            if !grant.parent.is_empty() {
                assert!(grant.accepted_leaf.is_some(), "{grant:?}");
            }
            if let Some(child) = child {
                assert!(
                    child.not_before_us >= grant.not_before_us
                        && child.expires_us <= grant.expires_us
                        && (grant.uses == 0 || (1..=grant.uses).contains(&child.uses))
                        && grant
                            .minor_units
                            .is_none_or(|most| child.minor_units.is_some_and(|own| own <= most)),
                    "{child:?} under {grant:?}"
                );
            }
            let amount = intent
                .amount
                .as_ref()
                .map_or(0, |amount| amount.minor_units);
            let (uses, spent) = self.spent.entry(hash).or_default();
            *uses += 1;
            *spent += amount;
            depth += 1;
            name = grant.parent.clone();
            child = Some(grant);
        }
        assert!((1..=8).contains(&depth));
    }

    pub(super) fn intent_at(&self, leaf: u64) -> Option<(TaskId, v1::Intent)> {
        let entry = Entry::parse(&self.ledger.entries()[leaf as usize]).unwrap();
        let statement = v1::Statement::decode(entry.payload).unwrap();
        let task = TaskId::from_slice(&statement.task)?;
        match statement.body {
            Some(Body::Intent(intent)) => Some((task, intent)),
            _ => None,
        }
    }
}
proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_replay_comes_to_what_the_ledger_came_to(
        policy: bool,
        ops in vec(any_op(), 1..120),
    ) {
        let mut plain = Story::new(Ledger::new(), policy);
        let mut forgetting = Story::new(Ledger::forgetting(), policy);
        for op in ops {
            plain.play(op);
            forgetting.play(op);
        }
        let (plain, forgetting) = (plain.ledger, forgetting.ledger);
        prop_assert_eq!(plain.entries(), forgetting.entries());
        prop_assert_eq!(&plain.kept, &forgetting.kept);
        let replay = replayed(&plain);
        let bodies: u64 = replay.bodies().values().sum();
        prop_assert_eq!(bodies, plain.next_leaf());
        // Every entry of the ledger's own is needed: without it the rest is not in place, but for
        // a Tick, and a receipt that somebody asked for.
        let own = plain.entries().iter().enumerate().skip(1).filter_map(|(leaf, entry)| {
            let entry = Entry::parse(entry).unwrap();
            let own = entry.author == v1::Author::Ledger;
            let statement = own.then(|| v1::Statement::decode(entry.payload).unwrap())?;
            match statement.body {
                Some(Body::Clearance(_)) => Some(leaf),
                Some(Body::TaskReceipt(receipt)) if !receipt.requested => Some(leaf),
                _ => None,
            }
        });
        for leaf in own.take(3) {
            let mut entries = plain.entries().to_vec();
            entries.remove(leaf);
            let (found, _) = fails(&entries);
            prop_assert_eq!(found, leaf as u64);
        }
    }
}
/// Everybody of the cast has another role or controller than those whom they are confused with.
#[test]
fn the_cast_is_what_it_is_said_to_be() {
    let mut ledger = Ledger::new();
    let roles: Vec<KeyRole> = CAST.iter().map(|who| who.role).collect();
    assert_eq!(
        roles
            .iter()
            .filter(|role| **role == KeyRole::Approver)
            .count(),
        3
    );
    assert_eq!(COLLEAGUE.controller, AGENT.controller);
    assert_ne!(APPROVER.controller, AGENT.controller);
    let refused = ledger.try_say(AGENT, Some(1), task_closed(), |made| {
        made.producer = statement::AUTHORITY_PRODUCER.into();
    });
    assert!(refused.is_err());
    let unsigned = ledger.try_say(ANYBODY, Some(1), grant_to(AGENT), |made| {
        made.producer = statement::AUTHORITY_PRODUCER.into();
    });
    assert!(unsigned.is_err());
}
/// The histories above say something: everything that matters happens in some of them.
#[test]
fn the_histories_reach_what_matters() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut kinds, mut states, mut bodies) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut depth, mut spent) = (0, 0);
    for n in 0..240 {
        let ops = vec(any_op(), 100..160).new_tree(&mut runner).unwrap();
        let mut story = Story::new(Ledger::new(), n % 2 == 0);
        for op in ops.current() {
            story.play(op);
        }
        let replay = replayed(&story.ledger);
        bodies.extend(replay.bodies().keys().copied());
        states.extend(replay.summary().intents.into_keys());
        // In the end hardly any still waits: its task has closed, and it has lapsed.
        let waits = |place: &Place| place.state() == Some(IntentState::Waiting);
        if story.intents.iter().any(waits) {
            states.insert("waiting".to_owned());
        }
        kinds.extend(replay.findings().map(v1::Finding::kind));
        for (key, bytes) in &replay.kept().cells {
            if matches!(key, CellKey::Grant(_)) {
                let grant = cells::Grant::decode(bytes.clone()).unwrap();
                if grant.uses_spent > 0 {
                    depth = depth.max(grant.depth);
                }
                if grant.uses > 0 && grant.uses_spent == grant.uses {
                    spent += 1;
                }
            }
        }
    }
    for body in ["clearance", "task_receipt", "tick", "batch_manifest"] {
        assert!(bodies.contains(body), "{body}");
    }
    for state in [
        "waiting",
        "cleared",
        "denied",
        "lapsed",
        "completed",
        "overdue",
    ] {
        assert!(states.contains(state), "{state}");
    }
    let missing: Vec<_> = deed_evidence::assess::finding::KINDS
        .into_iter()
        .filter(|kind| !kinds.contains(kind))
        .collect();
    let seldom = [
        FindingKind::SequenceGap,
        FindingKind::ClockSkew,
        FindingKind::PolicyError,
        // A day passes in none of them.
        FindingKind::Uncorroborated,
        // It takes more than 64 of something.
        FindingKind::NotCompared,
    ];
    assert!(
        missing.iter().all(|kind| seldom.contains(kind)),
        "{missing:?}"
    );
    assert!(depth > 1 && spent > 0, "depth {depth}, {spent} spent");
}
