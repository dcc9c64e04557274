//! Measures the assessment of one statement, body by body, with everything that it reads in memory;
//! and the policy alone.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use deed_evidence::{
    Micros, PayloadDigest,
    assess::{Assessor, RecordedStatement, body::ParsedBody},
    policy::{self, Evidence, EvidencePolicy, Ruling},
    statement,
};
use deed_proto::v1::{IntentState, OutcomeStatus, RiskTier, Verdict, statement::Body};

#[path = "../../evidence/tests/it/ledger.rs"]
mod ledger;

use ledger::{
    AGENT, APPROVER, AUTHORITY, DOWNSTREAM, ENGINE, Kept, Ledger, PLATFORM, Place, Who, approval,
    decision, effect, grant_to, heartbeat, intent, observation, outcome, task_opened,
};

/// Statements that are measured together.
const COUNT: u8 = 32;

/// A ledger whose last statements are measured.
struct Story {
    ledger: Ledger,
    said: Vec<(Who, Place, ParsedBody, Micros)>,
}

impl Story {
    fn new() -> Self {
        let mut ledger = Ledger::new();
        ledger.at(100);
        Self {
            ledger,
            said: Vec::new(),
        }
    }

    fn under_policy() -> Self {
        let mut story = Self::new();
        story.ledger.set_default_policy();
        story
    }

    fn say(&mut self, who: Who, task: u8, body: Body) -> Place {
        let mut said = self.ledger.try_say(who, Some(task), body, |made| {
            if let Some(Body::Heartbeat(beat)) = &mut made.body {
                (beat.last_sequence, beat.count) = (made.sequence, made.sequence + 1);
            }
        });
        let place = said.as_mut().expect("nothing is refused").clone();
        let read = ParsedBody::read(&place.payload).expect("it was recorded");
        self.said
            .push((who, place.clone(), read, self.ledger.now()));
        place
    }

    /// Opens a task with a grant for the agent.
    fn task(&mut self, tier: RiskTier) -> Place {
        self.say(PLATFORM, 1, task_opened(tier, 0));
        self.say(AUTHORITY, 1, grant_to(AGENT))
    }

    /// Makes one statement for each of many.
    fn each(&mut self, mut say: impl FnMut(&mut Self, u8) -> Place) -> Vec<Place> {
        (1..=COUNT).map(|n| say(self, n)).collect()
    }

    fn intents(&mut self, grant: Option<&Place>) -> Vec<Place> {
        let grant = grant.map(|place| place.hash);
        self.each(|story, _| story.say(AGENT, 1, Body::Intent(intent("orders/7", 500, grant))))
    }

    /// Measures the last [`COUNT`] statements, together with the entries that the ledger writes
    /// because of them.
    fn measure(&self, group: &mut BenchmarkGroup<'_, WallTime>, name: &str) {
        let headers: Vec<_> = self
            .said
            .iter()
            .map(|(_, place, ..)| statement::parse(&place.payload).expect("it was recorded"))
            .collect();
        let recorded: Vec<_> = self
            .said
            .iter()
            .zip(&headers)
            .map(|((who, place, said, at), header)| RecordedStatement {
                leaf: place.leaf,
                leaf_hash: place.hash,
                at: *at,
                received_at: *at,
                header,
                payload: &place.payload,
                payload_digest: Some(PayloadDigest::of(&place.payload)),
                parsed: said,
                // Deriving a key takes longer than anything that is measured.
                key: who.key(),
            })
            .collect();
        let (before, measured) = recorded.split_at(recorded.len() - usize::from(COUNT));
        let mut view = Kept {
            places: self.ledger.kept.places.clone(),
            entries: self.ledger.kept.entries.clone(),
            ..Kept::default()
        };
        let (mut assessor, mut first) = (Assessor::new(self.ledger.id), view.clone());
        for (one, (_, place, ..)) in recorded.iter().zip(&self.said) {
            let assessed = assessor.record(&mut first, &self.ledger.trust, one);
            assert_eq!(assessed.as_ref(), Ok(&place.assessed));
            self.write_ledger_entries(&mut assessor, &mut first, one);
        }
        group.throughput(Throughput::Elements(COUNT.into()));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || {
                    let mut assessor = Assessor::new(self.ledger.id);
                    self.feed(&mut assessor, &mut first, before);
                    assessor.take_changes();
                    assessor
                },
                |assessor| self.feed(assessor, &mut view, measured),
                BatchSize::SmallInput,
            );
        });
    }

    fn feed(&self, assessor: &mut Assessor, view: &mut Kept, said: &[RecordedStatement<'_>]) {
        for recorded in said {
            let assessed = assessor.record(view, &self.ledger.trust, recorded);
            let _ = black_box(assessed);
            self.write_ledger_entries(assessor, view, recorded);
        }
    }

    fn write_ledger_entries(
        &self,
        assessor: &mut Assessor,
        view: &mut Kept,
        after: &RecordedStatement<'_>,
    ) {
        let mut leaf = after.leaf;
        while assessor.has_pending() {
            leaf += 1;
            let entry = assessor.ledger_entry(view, &self.ledger.trust, leaf, after.at);
            black_box(entry.expect("nothing is damaged"));
        }
    }
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("assess");

    let mut story = Story::new();
    story.each(|story, n| story.say(PLATFORM, n, task_opened(RiskTier::Low, 0)));
    story.measure(&mut group, "task_opened");

    let mut story = Story::new();
    story.task(RiskTier::Low);
    story.each(|story, _| story.say(AUTHORITY, 1, grant_to(AGENT)));
    story.measure(&mut group, "grant");

    let mut story = Story::new();
    let grant = story.task(RiskTier::Low);
    story.each(|story, _| {
        let mut asks_for_nothing = intent("orders/7", 0, None);
        asks_for_nothing.amount = None;
        story.say(AGENT, 1, Body::Intent(asks_for_nothing))
    });
    story.measure(&mut group, "intent_that_asks_for_nothing");
    story.intents(None);
    story.measure(&mut group, "intent_with_amount");
    let intents = story.intents(Some(&grant));
    assert_eq!(intents[0].state(), Some(IntentState::Cleared));
    story.measure(&mut group, "intent_with_grant");
    let effects = || vec![effect("orders/7", 500), effect("orders/8", 1)];
    for intent in &intents {
        story.say(
            AGENT,
            1,
            outcome(intent, OutcomeStatus::Succeeded, effects()),
        );
    }
    story.measure(&mut group, "outcome_with_2_effects");
    for intent in &intents {
        story.say(DOWNSTREAM, 1, observation(Some(intent), effects()));
    }
    story.measure(&mut group, "observation_of_2_effects");
    story.each(|story, _| story.say(AGENT, 1, heartbeat(0, 60)));
    story.measure(&mut group, "heartbeat");

    let mut story = Story::under_policy();
    let grant = story.task(RiskTier::Payment);
    let intents = story.intents(Some(&grant));
    assert_eq!(intents[0].state(), Some(IntentState::Waiting));
    story.measure(&mut group, "intent_that_waits");
    for intent in &intents {
        story.say(ENGINE, 1, decision(intent, Verdict::Allow));
    }
    story.measure(&mut group, "decision");
    for intent in &intents {
        let now = story.ledger.now();
        story.say(APPROVER, 1, approval(intent, Verdict::Allow, now));
    }
    assert_eq!(
        story.ledger.act(intents[0].leaf).state(),
        IntentState::Cleared
    );
    story.measure(&mut group, "approval_that_clears");
    group.finish();
}

fn policies(c: &mut Criterion) {
    let policy = EvidencePolicy::compile(policy::DEFAULT_POLICIES, policy::DEFAULT_SCHEMA)
        .expect("what Deed ships is valid");
    let there = Evidence {
        signed: true,
        grant: true,
        arguments: true,
        prompt: true,
        model: true,
        decision: true,
        approvals: 1,
        approvals_multi_factor: 1,
        approvals_phishing_resistant: 0,
    };
    let waits = Evidence {
        decision: false,
        approvals: 0,
        approvals_multi_factor: 0,
        ..there
    };
    let mut group = c.benchmark_group("policy");
    for (name, evidence) in [("clears", there), ("waits", waits)] {
        let request = policy::Request {
            agent: AGENT.producer,
            controller: Some(AGENT.controller),
            action: "refund",
            resource: "orders/7",
            tier: RiskTier::Payment,
            amount: Some((500, "EUR")),
            evidence,
        };
        let cleared = matches!(policy.judge(&request), Ruling::Cleared(_));
        assert_eq!(cleared, name == "clears");
        group.bench_function(name, |b| b.iter(|| policy.judge(black_box(&request))));
    }
    // The policies are as expensive as a set may be, and the texts as long as a statement allows.
    let resource = "a".repeat(1_024);
    let pattern = format!("resource.name like \"*{}b\"", "a".repeat(60));
    let many = format!(
        "permit (principal, action, resource) when {{ {} && context.evidence.approvals >= 1 }};",
        "resource.name like \"*aa\" && ".repeat(20) + "context.evidence.signed"
    );
    for (name, policies) in [
        (
            "dear_pattern",
            format!("forbid (principal, action, resource) when {{ {pattern} }};"),
        ),
        ("dear_patterns", many),
        (
            "dear_asks",
            "permit (principal, action, resource) when { context.evidence.approvals * 1 >= 16 };"
                .repeat(6),
        ),
    ] {
        let policy =
            EvidencePolicy::compile(&policies, policy::DEFAULT_SCHEMA).expect("within the limits");
        let request = policy::Request {
            agent: AGENT.producer,
            controller: Some(AGENT.controller),
            action: "refund",
            resource: &resource,
            tier: RiskTier::Payment,
            amount: Some((500, "EUR")),
            evidence: waits,
        };
        group.bench_function(name, |b| b.iter(|| policy.judge(black_box(&request))));
    }
    group.finish();
}

criterion_group!(benches, bodies, policies);
criterion_main!(benches);
