//! Tests of a ledger of rules version 1 that is brought to version 2.

use bytes::Bytes;
use deed_evidence::{PayloadDigest, replay::Replay, statement::AUTHORITY_PRODUCER};
use deed_proto::v1::{self, FindingKind, IntentState, rejection::Reason, statement::Body};

use crate::{
    offline::fsck,
    store::LedgerNumber,
    testing::{Authority, Engine, Producer, TASK, briefs, policy_set, task_of},
};

const NAME: &str = "old";

/// Returns an Outcome of an Intent of the same session.
fn outcome(producer: &mut Producer, sequence: u64, intent: &v1::Envelope) -> v1::Envelope {
    let digest = PayloadDigest::of(&intent.payload);
    let session = Bytes::copy_from_slice(producer.session().as_bytes());
    let said = Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            session,
            sequence,
            payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
        }),
        status: v1::OutcomeStatus::Succeeded.into(),
        ..v1::Outcome::default()
    });
    producer.statement(|statement| statement.body = Some(said))
}

fn opened(authority: &mut Authority) -> v1::Envelope {
    let opened = v1::TaskOpened {
        requested_by: "ticket:4711".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        ..v1::TaskOpened::default()
    };
    authority.opens(TASK, opened)
}

fn observed(producer: &mut Producer) -> v1::Envelope {
    let seen = v1::Effect {
        kind: "order.changed".to_owned(),
        resource: "orders/7".to_owned(),
        ..v1::Effect::default()
    };
    let said = Body::Observation(v1::Observation {
        effects: vec![seen],
        ..v1::Observation::default()
    });
    producer.statement(|statement| statement.body = Some(said))
}

fn raises(authority: &mut Authority) -> v1::Envelope {
    let policies = policy_set("permit (principal, action, resource);");
    authority.says(Body::PolicySet(policies))
}

fn said_of(answer: &v1::AppendResponse) -> Vec<Option<v1::Assessed>> {
    let results = answer.results.iter();
    results
        .map(|result| match &result.result {
            Some(v1::append_result::Result::Accepted(receipt)) => receipt.assessed.clone(),
            other => panic!("not accepted: {other:?}"),
        })
        .collect()
}

fn kinds(assessed: Option<&v1::Assessed>) -> Vec<FindingKind> {
    let findings = assessed.into_iter().flat_map(|said| &said.findings);
    findings.map(v1::Finding::kind).collect()
}

#[test]
fn an_old_ledger_is_brought_to_the_rules_that_assess() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create_under(1, NAME).unwrap();
    let append = |envelopes| engine.append(NAME, envelopes).unwrap();
    let mut agent = Producer::new(ledger.id, 1);
    agent.task = task_of(ledger.id, AUTHORITY_PRODUCER, TASK);
    let mut authority = Authority::new(ledger.id);

    // Under version 1 statements are recorded and not assessed.
    let before = agent.intent("before");
    let answer = append(vec![before.clone()]);
    assert_eq!(briefs(&answer), ["accepted 1"]);
    assert_eq!(said_of(&answer), [None]);

    // Bodies that the rules do not have are refused, and consume no sequence.
    let new = vec![
        observed(&mut agent.clone()),
        opened(&mut Authority::new(ledger.id)),
    ];
    let answer = append(new);
    for result in &answer.results {
        let Some(v1::append_result::Result::Rejected(refused)) = &result.result else {
            panic!("recorded: {result:?}");
        };
        assert_eq!(refused.reason(), Reason::RulesVersion);
        assert_eq!(
            refused.message,
            "the ledger follows rules version 1, and this body needs 2; an authority brings it \
             there with `deed policy set`"
        );
    }
    assert_eq!(ledger.readable().size().get(), 2);

    // The new rules hold from the next leaf on, also within the request that was admitted under the
    // old ones.
    let answer = append(vec![
        raises(&mut authority),
        opened(&mut authority),
        observed(&mut agent),
    ]);
    assert_eq!(briefs(&answer), ["accepted 2", "accepted 3", "accepted 4"]);
    let [set, opened, seen] = &said_of(&answer)[..] else {
        panic!("three results");
    };
    assert_eq!(kinds(set.as_ref()), []);
    assert_eq!(kinds(opened.as_ref()), []);
    assert_eq!(kinds(seen.as_ref()), [FindingKind::UnprovenClaim]);

    // An Intent from before was not judged, so it is no act.
    let late = outcome(&mut agent, 0, &before);
    let answer = append(vec![late]);
    assert_eq!(
        kinds(said_of(&answer)[0].as_ref()),
        [FindingKind::UnprovenClaim]
    );
    // An Intent under the new rules is.
    let (sequence, after) = (agent.next, agent.intent("after"));
    let done = outcome(&mut agent, sequence, &after);
    let said = said_of(&append(vec![after, done]));
    assert_eq!(said[0].as_ref().unwrap().intent(), IntentState::Cleared);
    assert_eq!(kinds(said[1].as_ref()), []);
    drop(ledger);
    engine.close();

    // A replay gives the same result, and so does the server after a restart.
    fsck::check(dir.path(), &mut |_| {}).unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.registry.ledger(NAME).unwrap();
    let entries: Vec<Bytes> = engine
        .store
        .entries(LedgerNumber(0), 0)
        .map(|entry| entry.unwrap().1)
        .collect();
    let replay = Replay::over(&entries).unwrap();
    let found: Vec<_> = replay.findings().map(v1::Finding::kind).collect();
    assert_eq!(found, [FindingKind::UnprovenClaim; 2]);
    assert_eq!(ledger.trust.read().rules_version(), 2);
    let again = engine.append(NAME, vec![observed(&mut agent)]).unwrap();
    assert_eq!(briefs(&again), ["accepted 8"]);
    let again = said_of(&again);
    // The Outcome is unsigned, so it proves nothing.
    assert_eq!(kinds(again[0].as_ref()), [FindingKind::UnprovenClaim]);
    drop(ledger);
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}

/// Returns the field and the message of a rejection.
fn refused(result: &v1::AppendResult) -> (String, String) {
    match &result.result {
        Some(v1::append_result::Result::Rejected(refused)) => {
            assert_eq!(refused.reason(), Reason::Malformed);
            (refused.field.clone(), refused.message.clone())
        }
        other => panic!("recorded: {other:?}"),
    }
}

fn not_done() -> Body {
    Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            payload_digest: vec![7; 32].into(),
            ..v1::StatementRef::default()
        }),
        status: v1::OutcomeStatus::NotDone.into(),
        effects: vec![v1::Effect {
            kind: "order.changed".to_owned(),
            resource: "orders/7".to_owned(),
            ..v1::Effect::default()
        }],
        ..v1::Outcome::default()
    })
}

/// Shows sessions and forms of version 0.1 before and after the change of rules.
#[test]
fn what_was_taken_before_goes_on_and_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create_under(1, NAME).unwrap();
    let append = |envelopes| engine.append(NAME, envelopes).unwrap();
    // The session id is of the producer's choice, without a nonce.
    let chosen = |session: u8| {
        let mut producer = Producer::new(ledger.id, session);
        producer.intrudes = Some(deed_evidence::SessionId::new([session; 16]));
        producer
    };
    let unnamed = || {
        Body::TaskOpened(v1::TaskOpened {
            requested_by: "ticket:4711".to_owned(),
            risk_tier: v1::RiskTier::Low.into(),
            ..v1::TaskOpened::default()
        })
    };
    let mut old = chosen(1);
    let first = old.statement(|made| made.body = Some(unnamed()));
    let before = vec![
        first.clone(),
        old.intent("orders/../admin"),
        old.statement(|made| made.body = Some(not_done())),
        Producer::new(ledger.id, 2).intent("orders/7"),
    ];
    let wanted = ["accepted 1", "accepted 2", "accepted 3", "accepted 4"];
    assert_eq!(briefs(&append(before)), wanted);

    let mut authority = Authority::new(ledger.id);
    let after = vec![
        raises(&mut authority),
        old.intent("orders/7"),
        // The first statement is sent again, as it was recorded.
        first,
        Producer::new(ledger.id, 4).intent("orders/7"),
    ];
    let wanted = ["accepted 5", "accepted 6", "duplicate 1", "accepted 7"];
    assert_eq!(briefs(&append(after)), wanted);

    let next = |body: Body| old.clone().statement(|made| made.body = Some(body));
    let mut late = Producer::new(ledger.id, 5);
    let answer = append(vec![
        chosen(3).intent("orders/7"),
        next(unnamed()),
        old.clone().intent("orders/../admin"),
        next(not_done()),
        late.statement(|made| {
            made.occurred_at_us = 5;
            made.body = Some(Body::Intent(v1::Intent {
                action: "test.act".to_owned(),
                resource: "orders/7".to_owned(),
                deadline_us: 5,
                ..v1::Intent::default()
            }));
        }),
    ]);
    let fields: Vec<_> = answer.results.iter().map(|one| refused(one).0).collect();
    let wanted = [
        "nonce",
        "task_opened.nonce",
        "intent.resource",
        "outcome.effects",
        "intent.deadline_us",
    ];
    assert_eq!(fields, wanted);
    assert_eq!(
        refused(&answer.results[0]).1,
        "is required in a session's first statement: choose 16 random bytes, and derive the session \
         from them and the producer"
    );
    drop(ledger);
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();
}
