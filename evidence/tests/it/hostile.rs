//! Statements that cost as much as statements can, each against a ledger that was filled for it. Tests
//! count the work; the bench measures the time.

use std::fmt::Write as _;

use deed_evidence::policy::{DEFAULT_SCHEMA, EvidencePolicy, JUDGEMENT_UNITS_MAX};
use deed_proto::v1::{
    self, DispositionKind, IntentState, KeyRole, OutcomeStatus, RiskTier, Verdict, statement::Body,
};

use crate::ledger::{
    AGENT, ANYBODY, APPROVER, AUTHORITY, DOWNSTREAM, ENGINE, HELPER, Ledger, PLATFORM, Place, Who,
    accepted, approval, decision, delegated, effect, grant, intent, key_revoked, observation,
    outcome, seconds, task_closed, task_opened,
};

/// A statement that is about to be said.
pub(crate) struct Scene {
    pub(crate) ledger: Ledger,
    pub(crate) who: Who,
    pub(crate) task: Option<u8>,
    pub(crate) body: Body,
    /// Its correlation keys.
    pub(crate) keys: Vec<v1::CorrelationKey>,
    /// Bytes of the Intent that it has judged again.
    pub(crate) again: Option<u64>,
    /// Units that the ledger's own policy may take besides, where everything that is dear comes
    /// together.
    pub(crate) beyond: u64,
}

/// Units of work that a statement of so many bytes may take: about a microsecond each.
pub(crate) fn bound(bytes: u64) -> u64 {
    50 + bytes
}

/// A scene by its name.
pub(crate) type Named = (&'static str, fn() -> Scene);

pub(crate) const SCENES: [Named; 28] = [
    ("observation_by_nobody_of_16_full_lists", || {
        correlated(ANYBODY, 1)
    }),
    ("observation_of_16_full_lists", || correlated(DOWNSTREAM, 1)),
    ("observation_of_64_effects_and_16_full_lists", || {
        correlated(DOWNSTREAM, 64)
    }),
    ("observation_of_full_lists_of_tokens", tokens),
    ("observation_of_an_act_with_all_effects", || seen(1, false)),
    ("observation_of_64_effects_that_are_all_alike", || {
        seen(64, true)
    }),
    ("observation_by_nobody_of_64_effects", || {
        let scene = seen(64, true);
        Scene {
            who: ANYBODY,
            ..scene
        }
    }),
    ("outcome_after_8_systems", || declared(1)),
    ("outcome_of_64_effects_after_8_systems", || declared(64)),
    ("further_outcome_of_64_effects", || declared_again(64)),
    ("intent_under_8_wide_grants_with_16_full_lists", intended),
    ("grant_within_a_wide_one", granted),
    ("approval_after_63", approved),
    ("decision_after_63_approvals", || {
        let scene = approved();
        let Body::Approval(said) = &scene.body else {
            return scene;
        };
        let said = v1::Decision {
            intent: said.intent.clone(),
            verdict: Verdict::Allow.into(),
            engine: "rules".into(),
            ..v1::Decision::default()
        };
        Scene {
            who: ENGINE,
            body: Body::Decision(said),
            ..scene
        }
    }),
    ("task_closed_with_64_acts_seen", closed),
    ("key_revoked_that_spoke_in_200_tasks", revoked),
    ("disposition_of_a_finding", disposed),
    ("intent_under_the_dearest_policy", || judged(0, false, None)),
    ("intent_of_65_resources_under_the_dearest_policy", || {
        judged(64, true, None)
    }),
    ("decision_under_the_dearest_policy", || {
        judged(0, false, Some(ENGINE))
    }),
    ("approval_under_the_dearest_policy", || {
        judged(0, false, Some(APPROVER))
    }),
    ("decision_of_65_resources_under_the_dearest_policy", || {
        judged(64, false, Some(ENGINE))
    }),
    ("approval_of_65_resources_under_the_dearest_policy", || {
        judged(64, false, Some(APPROVER))
    }),
    (
        "decision_of_resources_that_the_dearest_policy_tells_apart",
        || judged(64, true, Some(ENGINE)),
    ),
    ("approval_after_63_under_the_dearest_policy", || {
        approved_under(&dearest())
    }),
    (
        "decision_under_8_wide_grants_and_the_dearest_policy",
        || judged_under_wide_grants(true),
    ),
    (
        "intent_under_8_wide_grants_with_16_full_lists_and_the_dearest_policy",
        || judged_under_wide_grants(false),
    ),
    ("intent_by_nobody_with_a_deadline", || {
        let said = v1::Intent {
            amount: None,
            deadline_us: seconds(9_000),
            ..intent("orders/7", 0, None)
        };
        Scene::new(opened(), ANYBODY, Body::Intent(said))
    }),
];

impl Scene {
    fn new(ledger: Ledger, who: Who, body: Body) -> Self {
        Self {
            ledger,
            who,
            task: Some(1),
            body,
            keys: Vec::new(),
            again: None,
            beyond: 0,
        }
    }

    /// Units that its statement of so many bytes may take.
    pub(crate) fn allowed(&self, bytes: u64) -> u64 {
        bound(bytes) + self.again.map_or(0, bound) + self.beyond
    }

    /// Says it.
    pub(crate) fn say(&mut self) -> Place {
        let keys = self.keys.clone();
        let said = self.body.clone();
        let placed = self.ledger.try_say(self.who, self.task, said, |made| {
            made.correlation_keys = keys;
        });
        placed.expect("it is recorded")
    }
}

fn opened() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    ledger
}

fn keys(kind: &str) -> Vec<v1::CorrelationKey> {
    let key = |n| v1::CorrelationKey {
        kind: kind.into(),
        value: format!("{n:02}"),
    };
    (0..16).map(key).collect()
}

fn say_with(
    ledger: &mut Ledger,
    (who, task): (Who, u8),
    body: Body,
    key: &v1::CorrelationKey,
) -> Place {
    let said = ledger.try_say(who, Some(task), body, |made| {
        made.correlation_keys = vec![key.clone()];
    });
    said.expect("it is recorded")
}

/// An effect without an amount, that has as long a name as `len` says.
fn named(n: usize, len: usize) -> v1::Effect {
    let mut resource = format!("orders/{n:03}/a");
    while resource.len() < len {
        resource.push('a');
    }
    v1::Effect {
        amount: None,
        ..effect(&resource, 0)
    }
}

/// The same once more, under a name that the system has for the change.
fn with_id(n: usize, effect: v1::Effect) -> v1::Effect {
    v1::Effect {
        external_id: format!("R-{n:03}"),
        ..effect
    }
}

fn system(n: u8) -> Who {
    let producer: &'static str = Box::leak(format!("https://bank.example/{n}").into());
    Who {
        seed: Some(200 + n),
        role: KeyRole::DownstreamSystem,
        producer,
        controller: producer,
    }
}

fn approver(n: u8) -> Who {
    let producer: &'static str = Box::leak(format!("https://example.org/people/{n}").into());
    Who {
        seed: Some(100 + n),
        producer,
        controller: producer,
        ..APPROVER
    }
}

/// Lists of 24 acts that expect 64 effects each, under 16 correlation keys.
fn full_lists(ledger: &mut Ledger) {
    let root = ledger.say(AUTHORITY, Some(1), Body::Grant(grant(AGENT)));
    for key in keys("order") {
        for _ in 0..32 {
            let said = v1::Intent {
                amount: None,
                expected_effects: (0..64).map(|n| named(n, 200)).collect(),
                ..intent("orders/7", 0, Some(root.hash))
            };
            say_with(ledger, (AGENT, 1), Body::Intent(said), &key);
        }
    }
}

fn correlated(who: Who, effects: usize) -> Scene {
    let mut ledger = opened();
    full_lists(&mut ledger);
    // Of none of them, so that all of them have to be looked at.
    let effects = (100..100 + effects).map(|n| named(n, 0)).collect();
    Scene {
        task: None,
        keys: keys("order"),
        ..Scene::new(ledger, who, observation(None, effects))
    }
}

fn tokens() -> Scene {
    let mut ledger = opened();
    for task in 2..130 {
        ledger.say(PLATFORM, Some(task), task_opened(RiskTier::Low, 0));
    }
    for (n, key) in keys("jti").into_iter().enumerate() {
        for at in 0..32 {
            let task = 2 + u8::try_from((n * 8 + at) % 128).expect("there are 128");
            let mut said = grant(AGENT);
            said.outside_token = Some(v1::OutsideToken {
                kind: key.kind.clone(),
                value: key.value.clone(),
                ..v1::OutsideToken::default()
            });
            ledger.say(AUTHORITY, Some(task), Body::Grant(said));
        }
    }
    for task in 2..130 {
        ledger.say(PLATFORM, Some(task), task_closed());
    }
    Scene {
        task: None,
        keys: keys("jti"),
        ..Scene::new(ledger, DOWNSTREAM, observation(None, vec![named(0, 0)]))
    }
}

/// An act that expects 64 effects.
fn expecting(ledger: &mut Ledger, alike: bool) -> Place {
    let root = ledger.say(AUTHORITY, Some(1), Body::Grant(grant(AGENT)));
    let one = |n| if alike { named(0, 750) } else { named(n, 750) };
    let said = v1::Intent {
        amount: None,
        expected_effects: (0..64).map(one).collect(),
        ..intent("orders/7", 0, Some(root.hash))
    };
    ledger.say(AGENT, Some(1), Body::Intent(said))
}

/// Eight systems see 64 effects each, the last one `left` fewer.
fn all_see(ledger: &mut Ledger, act: &Place, alike: bool, left: usize) {
    let one = |n| if alike { named(0, 750) } else { named(n, 750) };
    for at in 1..8 {
        ledger.register(system(at));
        let effects = (0..64).map(|n| with_id(n, one(n))).collect();
        ledger.say(system(at), Some(1), observation(Some(act), effects));
    }
    let effects: Vec<_> = (0..64 - left).map(|n| with_id(n, one(n))).collect();
    if !effects.is_empty() {
        ledger.say(DOWNSTREAM, Some(1), observation(Some(act), effects));
    }
}

fn seen(effects: usize, alike: bool) -> Scene {
    let mut ledger = opened();
    let act = expecting(&mut ledger, alike);
    let one = |n| if alike { named(0, 750) } else { named(n, 750) };
    let declared = (0..64).map(one).collect();
    let said = outcome(&act, OutcomeStatus::Succeeded, declared);
    ledger.say(AGENT, Some(1), said);
    all_see(&mut ledger, &act, alike, effects);
    let effects = (64 - effects..64).map(one).collect();
    Scene::new(ledger, DOWNSTREAM, observation(Some(&act), effects))
}

fn declared(effects: usize) -> Scene {
    let mut ledger = opened();
    let act = expecting(&mut ledger, true);
    all_see(&mut ledger, &act, true, 0);
    // None of them was seen.
    let effects = (0..effects).map(|_| named(1, 0)).collect();
    Scene::new(
        ledger,
        AGENT,
        outcome(&act, OutcomeStatus::Succeeded, effects),
    )
}

fn declared_again(effects: usize) -> Scene {
    let mut scene = seen(1, true);
    let Body::Observation(said) = &scene.body else {
        return scene;
    };
    let leaf = said.intent.as_ref().map_or(0, |act| act.leaf_index);
    let act = scene.ledger.act(leaf);
    let effects = (0..effects).map(|_| named(0, 0)).collect();
    let said = Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            session: act.session.clone(),
            sequence: scene.sequence_of(leaf),
            payload_digest: act.payload_digest,
        }),
        status: OutcomeStatus::Succeeded.into(),
        effects,
        ..v1::Outcome::default()
    });
    (scene.who, scene.body) = (AGENT, said);
    scene
}

impl Scene {
    /// The sequence of the statement at a leaf.
    fn sequence_of(&self, leaf: u64) -> u64 {
        let places = self.ledger.kept.places.iter();
        let mut found = places.filter(|(_, at)| **at == leaf);
        found.next().map_or(0, |((_, sequence), _)| sequence.get())
    }
}

/// A grant that says very much.
fn wide(said: v1::Grant) -> v1::Grant {
    let pattern = |begins: &str, n: usize, len: usize| {
        let mut pattern = String::new();
        write!(pattern, "{begins}/{n:02}/").expect("there is room");
        while pattern.len() < len {
            pattern.push('a');
        }
        pattern
    };
    v1::Grant {
        actions: (0..63)
            .map(|n| pattern("act", n, 200))
            .chain(["refund".into()])
            .collect(),
        resources: std::iter::once("orders/*".into())
            .chain((0..63).map(|n| pattern("other", n, 600)))
            .collect(),
        ..said
    }
}

/// The last of a chain of `depth` wide grants, for the agent or its helper.
fn chain(ledger: &mut Ledger, depth: usize) -> (Place, Who) {
    let root = Body::Grant(wide(grant(AGENT)));
    let mut last = ledger.say(AUTHORITY, Some(1), root);
    let mut subject = AGENT;
    for _ in 1..depth {
        let next = if subject == AGENT { HELPER } else { AGENT };
        let part = Body::Grant(wide(delegated(next, last.hash)));
        last = ledger.say(subject, Some(1), part);
        ledger.say(next, Some(1), accepted(last.hash));
        subject = next;
    }
    (last, subject)
}

fn intended() -> Scene {
    let mut ledger = opened();
    full_lists(&mut ledger);
    let (last, subject) = chain(&mut ledger, 8);
    let said = v1::Intent {
        amount: None,
        ..intent("orders/7", 0, Some(last.hash))
    };
    Scene {
        keys: keys("order"),
        ..Scene::new(ledger, subject, Body::Intent(said))
    }
}

fn granted() -> Scene {
    let mut ledger = opened();
    let (last, subject) = chain(&mut ledger, 3);
    let said = v1::Grant {
        actions: vec!["refund".into()],
        ..delegated(AGENT, last.hash)
    };
    Scene::new(ledger, subject, Body::Grant(said))
}

/// The most of something that a set of policies is taken with.
fn most(of: impl Fn(usize) -> String) -> String {
    let is_taken = |count| EvidencePolicy::compile(&of(count), DEFAULT_SCHEMA).is_ok();
    let (mut taken, mut refused) = (1, 1_000);
    while refused - taken > 1 {
        let middle = usize::midpoint(taken, refused);
        if is_taken(middle) {
            taken = middle;
        } else {
            refused = middle;
        }
    }
    of(taken)
}

const WANTS_BOTH: &str = "permit (principal, action, resource) when {
    context.evidence.decision && context.evidence.approvals >= 1 };";

/// A set that is as dear as sets may be, for whatever Intent: elements of sets that are written out.
fn dearest() -> String {
    most(|count| {
        let all: Vec<_> = (0..count).map(|number| format!("\"{number}\"")).collect();
        let sets = all.chunks(50).map(|some| {
            let elements = some.join(", ");
            format!("forbid (principal, action, resource) when {{ [{elements}].contains(context.tier) }};")
        });
        format!("{WANTS_BOTH} {}", sets.collect::<String>())
    })
}

/// An Intent of so many resources besides its own, or what comes for it: a Decision or an Approval. Where
/// the policy tells resources apart, it waits with as many of them as have room in the budget.
fn judged(resources: usize, told_apart: bool, comes: Option<Who>) -> Scene {
    let mut ledger = Ledger::new();
    ledger.at(100);
    if told_apart {
        let like = "forbid (principal, action, resource) when { resource.name like \"*b\" };";
        ledger.set_policy(&format!("{WANTS_BOTH} {like}"));
    } else {
        ledger.set_policy(&dearest());
    }
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let root = ledger.say(AUTHORITY, Some(1), Body::Grant(grant(AGENT)));
    let said = |count: usize| v1::Intent {
        amount: None,
        expected_effects: (0..count).map(|n| named(n, 900)).collect(),
        ..intent("orders/7", 0, Some(root.hash))
    };
    if comes.is_none() {
        return Scene::new(ledger, AGENT, Body::Intent(said(resources)));
    }
    for count in (0..=resources).rev() {
        let act = ledger.say(AGENT, Some(1), Body::Intent(said(count)));
        if act.state() == Some(IntentState::Waiting) {
            return comes_for(ledger, &act, comes == Some(APPROVER));
        }
    }
    unreachable!("an Intent of its own resource waits")
}

/// A Decision for an act that waits, or the Approval after it.
fn comes_for(mut ledger: Ledger, act: &Place, approves: bool) -> Scene {
    let decided = decision(act, Verdict::Allow);
    let (who, body) = if approves {
        ledger.say(ENGINE, Some(1), decided);
        (APPROVER, approval(act, Verdict::Allow, ledger.now()))
    } else {
        (ENGINE, decided)
    };
    Scene {
        again: Some(act.payload.len() as u64),
        ..Scene::new(ledger, who, body)
    }
}

fn judged_under_wide_grants(decided: bool) -> Scene {
    let mut ledger = opened();
    full_lists(&mut ledger);
    ledger.set_policy(&dearest());
    let (last, subject) = chain(&mut ledger, 8);
    let said = v1::Intent {
        amount: None,
        ..intent("orders/7", 0, Some(last.hash))
    };
    if decided {
        let act = ledger.say(subject, Some(1), Body::Intent(said));
        return comes_for(ledger, &act, false);
    }
    Scene {
        keys: keys("order"),
        beyond: JUDGEMENT_UNITS_MAX / 16,
        ..Scene::new(ledger, subject, Body::Intent(said))
    }
}

fn approved() -> Scene {
    approved_under(deed_evidence::policy::DEFAULT_POLICIES)
}

fn approved_under(policies: &str) -> Scene {
    let mut ledger = Ledger::new();
    ledger.at(100);
    ledger.set_policy(policies);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
    let root = ledger.say(AUTHORITY, Some(1), Body::Grant(grant(AGENT)));
    let said = Body::Intent(intent("orders/7", 500, Some(root.hash)));
    let act = ledger.say(AGENT, Some(1), said);
    for n in 0..63 {
        ledger.register(approver(n));
        let said = approval(&act, Verdict::Allow, ledger.now());
        ledger.say(approver(n), Some(1), said);
    }
    let said = approval(&act, Verdict::Allow, ledger.now());
    Scene {
        again: Some(act.payload.len() as u64),
        ..Scene::new(ledger, APPROVER, said)
    }
}

fn closed() -> Scene {
    let mut ledger = opened();
    for _ in 0..64 {
        let said = v1::Intent {
            amount: None,
            ..intent("orders/7", 0, None)
        };
        let act = ledger.say(AGENT, Some(1), Body::Intent(said));
        let effects = vec![v1::Effect {
            amount: None,
            ..effect("orders/7", 0)
        }];
        ledger.say(DOWNSTREAM, Some(1), observation(Some(&act), effects));
    }
    Scene::new(ledger, PLATFORM, task_closed())
}

fn revoked() -> Scene {
    let mut ledger = opened();
    for task in 2..202 {
        ledger.say(PLATFORM, Some(task), task_opened(RiskTier::Low, 0));
        let said = Body::Intent(intent("orders/7", 1, None));
        ledger.say(AGENT, Some(task), said);
    }
    Scene {
        task: None,
        ..Scene::new(ledger, AUTHORITY, key_revoked(AGENT, Some(1)))
    }
}

fn disposed() -> Scene {
    let mut ledger = opened();
    let nothing = observation(None, vec![named(0, 0)]);
    let found = ledger.say(DOWNSTREAM, Some(1), nothing);
    let said = Body::FindingDisposition(v1::FindingDisposition {
        leaf_index: found.leaf,
        number: 0,
        kind: DispositionKind::Reviewed.into(),
        reviewed_by: "https://example.org/people/dee".into(),
        reason: "looked at".into(),
    });
    Scene::new(ledger, AUTHORITY, said)
}
