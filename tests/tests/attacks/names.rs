//! Attacks with others' names: sessions and tasks of others, names that lead out of a grant, and
//! controllers that only look like another one.

use bytes::Bytes;
use deed_evidence::{LedgerId, Nonce, SessionId, TaskId};
use deed_proto::v1::{self, rejection::Reason, statement::Body};
use deed_tests::{
    keys::{AUTHORITY, Authority, batch, key, registration, signed},
    rpc::rejected,
    run,
    statements::{Producer, envelope},
};
use prost::Message as _;

use crate::{AGENT, MARK, Scene, agent};

const STRANGER: &str = "spiffe://example.org/agent/stranger";

fn opened(nonce: &[u8]) -> Body {
    Body::TaskOpened(v1::TaskOpened {
        requested_by: "ticket:4711".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        nonce: Bytes::copy_from_slice(nonce),
        ..v1::TaskOpened::default()
    })
}

fn intent(resource: &str) -> Body {
    Body::Intent(v1::Intent {
        action: "orders.update".to_owned(),
        resource: resource.to_owned(),
        ..v1::Intent::default()
    })
}

/// Returns an unsigned envelope. The statement is not checked, so an invalid one is sent, too.
fn unsigned(message: &v1::Statement) -> v1::Envelope {
    envelope(&Bytes::from(message.encode_to_vec()))
}

fn by_agent(message: &v1::Statement) -> v1::Envelope {
    signed(&Bytes::from(message.encode_to_vec()), &agent())
}

fn session_of(ledger: LedgerId, producer: &str, nonce: [u8; 16]) -> Bytes {
    let id = SessionId::derive(ledger, producer, &Nonce::new(nonce));
    Bytes::copy_from_slice(id.as_bytes())
}

/// A stranger knows the id of another producer's next session, and even its nonce.
#[test]
fn a_session_of_another_is_opened_first() {
    run(async {
        let mut scene = Scene::set().await;
        let owner = scene.session(1);
        let theirs = owner.message(intent("orders/1"));
        let stranger = |change: &dyn Fn(&mut v1::Statement)| {
            let mut message = v1::Statement {
                producer: STRANGER.to_owned(),
                ..owner.message(intent(MARK))
            };
            change(&mut message);
            unsigned(&message)
        };
        for (what, envelope, field) in [
            ("with the owner's nonce", stranger(&|_| {}), "session"),
            (
                "with a nonce of its own",
                stranger(&|it| it.nonce = vec![1; 16].into()),
                "session",
            ),
            (
                "without a nonce",
                stranger(&|it| it.nonce = Bytes::new()),
                "nonce",
            ),
            (
                "behind a hole",
                stranger(&|it| {
                    (it.sequence, it.skipped_from, it.nonce) = (5, Some(0), Bytes::new());
                }),
                "nonce",
            ),
            (
                "with a nonce that is too late",
                stranger(&|it| it.sequence = 5),
                "nonce",
            ),
            (
                "with half a nonce",
                stranger(&|it| it.nonce = vec![1; 8].into()),
                "nonce",
            ),
        ] {
            scene
                .refuses(what, envelope, Reason::Malformed, field)
                .await;
        }
        // The session is opened in a batch, with a key of the stranger's own.
        let registered = scene.authority.registers(&key(20), STRANGER);
        scene.records(vec![registered]).await;
        let mut message = Producer::new(scene.ledger.id, 7)
            .named(STRANGER)
            .message(intent(MARK));
        (message.session, message.nonce) = (theirs.session.clone(), Bytes::new());
        let envelopes = batch(&[Bytes::from(message.encode_to_vec())], &key(20));
        let reasons = [Reason::BatchRefused, Reason::Malformed];
        scene.refuses_all("a batch", envelopes, &reasons).await;
        // The rejection says what to do, and the owner can still open the session.
        let bare = by_agent(&v1::Statement {
            nonce: Bytes::new(),
            ..theirs.clone()
        });
        let answer = scene.send(vec![bare]).await;
        let said = rejected(&answer.results[0]).message;
        assert!(said.contains("derive the session"), "{said}");
        scene.records(vec![by_agent(&theirs)]).await;
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn a_task_of_another_is_opened_first() {
    run(async {
        let mut scene = Scene::set().await;
        let ledger = scene.ledger.id;
        let nonce = [0x33; 16];
        let theirs = TaskId::derive(ledger, AUTHORITY, &Nonce::new(nonce));
        let theirs = Bytes::copy_from_slice(theirs.as_bytes());
        let stranger = |number: u64, said: &[u8]| {
            let producer = Producer::new(ledger, number).named(STRANGER);
            let mut message = producer.message(opened(&[9; 16]));
            message.task = theirs.clone();
            message.body = Some(opened(said));
            unsigned(&message)
        };
        for (what, envelope, field) in [
            ("with the owner's nonce", stranger(10, &nonce), "task"),
            ("with a nonce of its own", stranger(11, &[9; 16]), "task"),
            ("without a nonce", stranger(12, &[]), "task_opened.nonce"),
        ] {
            scene
                .refuses(what, envelope, Reason::Malformed, field)
                .await;
        }
        let mut authority = Authority::new(ledger, 901);
        let opening = authority.says_in(nonce, opened(&nonce));
        scene.records(vec![opening]).await;
        scene.nothing_was_recorded().await;
    });
}

/// A byte comparison would find each of these names covered by a grant of `orders/*`, or a reader
/// would take it for another name.
#[test]
fn a_name_leads_elsewhere() {
    run(async {
        let scene = Scene::set().await;
        let mut number = 100;
        let mut message = |body| {
            number += 1;
            scene.session(number).message(body)
        };
        for resource in [
            "orders/../../admin",
            "orders/%2e%2e/admin",
            "orders/%2E%2E%2fadmin",
            "orders/./1",
            "orders//1",
            "orders/1/",
            "orders\\..\\admin",
            "orders/%5c",
            "orders/%252e%252e/admin",
            "orders/..;a=1/admin",
            "orders/1\u{200b}",
            "orders/\u{202e}1",
            "orders/\u{2066}1",
            "orders/1\u{feff}",
            "orders/1\u{2028}",
            "orders/ 1",
        ] {
            let envelope = by_agent(&message(intent(resource)));
            scene
                .refuses(resource, envelope, Reason::Malformed, "intent.resource")
                .await;
            let effect = v1::Effect {
                kind: "order.changed".to_owned(),
                resource: resource.to_owned(),
                ..v1::Effect::default()
            };
            let outcome = Body::Outcome(v1::Outcome {
                intent: Some(v1::StatementRef {
                    sequence: 1,
                    payload_digest: vec![1; 32].into(),
                    ..v1::StatementRef::default()
                }),
                status: v1::OutcomeStatus::Succeeded.into(),
                effects: vec![effect.clone()],
                ..v1::Outcome::default()
            });
            let field = "outcome.effects.resource";
            let envelope = by_agent(&message(outcome));
            scene
                .refuses(resource, envelope, Reason::Malformed, field)
                .await;
            let observation = Body::Observation(v1::Observation {
                effects: vec![effect],
                ..v1::Observation::default()
            });
            let field = "observation.effects[0].resource";
            let envelope = by_agent(&message(observation));
            scene
                .refuses(resource, envelope, Reason::Malformed, field)
                .await;
            let grant = Body::Grant(v1::Grant {
                subject: AGENT.to_owned(),
                actions: vec!["orders.update".to_owned()],
                resources: vec![format!("{resource}/*")],
                expires_us: i64::MAX,
                ..v1::Grant::default()
            });
            let envelope = by_agent(&message(grant));
            scene
                .refuses(resource, envelope, Reason::Malformed, "grant.resources[0]")
                .await;
        }
        let named = |action: &str| {
            Body::Intent(v1::Intent {
                action: action.to_owned(),
                resource: "orders/1".to_owned(),
                ..v1::Intent::default()
            })
        };
        let action = by_agent(&message(named("orders/../admin")));
        scene
            .refuses("an action", action, Reason::Malformed, "intent.action")
            .await;
        scene.nothing_was_recorded().await;
    });
}

/// An act that was not done has no effects, and a deadline in the past cannot be met.
#[test]
fn an_act_speaks_against_itself() {
    run(async {
        let scene = Scene::set().await;
        let outcome = Body::Outcome(v1::Outcome {
            intent: Some(v1::StatementRef {
                sequence: 1,
                payload_digest: vec![1; 32].into(),
                ..v1::StatementRef::default()
            }),
            status: v1::OutcomeStatus::NotDone.into(),
            effects: vec![v1::Effect {
                kind: "order.changed".to_owned(),
                resource: "orders/1".to_owned(),
                ..v1::Effect::default()
            }],
            ..v1::Outcome::default()
        });
        let not_done = by_agent(&scene.session(1).message(outcome));
        scene
            .refuses("not done", not_done, Reason::Malformed, "outcome.effects")
            .await;
        for (occurred_at_us, deadline_us) in [(1_000_000, 1), (1_000_000, 1_000_000)] {
            let body = Body::Intent(v1::Intent {
                action: "orders.update".to_owned(),
                resource: "orders/1".to_owned(),
                deadline_us,
                ..v1::Intent::default()
            });
            let message = v1::Statement {
                occurred_at_us,
                ..scene.session(2).message(body)
            };
            let field = "intent.deadline_us";
            scene
                .refuses("a deadline", by_agent(&message), Reason::Malformed, field)
                .await;
        }
        scene.nothing_was_recorded().await;
    });
}

/// With another spelling of its controller, a party would be independent of itself.
#[test]
fn a_controller_is_spelled_in_another_way() {
    run(async {
        let scene = Scene::set().await;
        let form = "https://example.org/teams/payments";
        for controller in [
            "https://example.org/teams/payments/",
            "HTTPS://example.org/teams/payments",
            "https://EXAMPLE.org/teams/payments",
            "https://example.org/team%73/payments",
            "https://example.org:443/teams/payments",
            "https://example.org/teams//payments",
            "https://example.org/x/../teams/payments",
            "https://example.org./teams/payments",
            "https://a:b@example.org/teams/payments",
            "https://example.org/teams/payments?",
            "https://example.org/teams/payments#",
        ] {
            let mut registered = registration(scene.ledger.id, &key(30), "test:agent");
            controller.clone_into(&mut registered.controller);
            let message = Producer::new(scene.ledger.id, 800)
                .named(AUTHORITY)
                .message(Body::KeyRegistered(registered));
            let payload = Bytes::from(message.encode_to_vec());
            let sent = signed(&payload, &deed_tests::keys::authority());
            let answer = scene.send(vec![sent]).await;
            let said = rejected(&answer.results[0]);
            assert_eq!(said.reason(), Reason::Malformed, "{controller}: {said:?}");
            assert_eq!(said.field, "key_registered.controller");
            let wanted = format!("is not in canonical form; {form} would be taken");
            assert_eq!(said.message, wanted, "{controller}");
        }
        scene.nothing_was_recorded().await;
    });
}

/// A session that is not derived from a producer belongs to the first who opens it; one that is
/// derived from a look-alike can be opened by no one.
#[test]
fn a_producer_is_spelled_in_another_way() {
    run(async {
        let scene = Scene::set().await;
        for (number, name) in (0..).zip([
            "SPIFFE://example.org/agent/known",
            "spiffe://EXAMPLE.org/agent/known",
            "spiffe://example.org/agent/known/",
            "spiffe://example.org/agent/%6bnown",
            "spiffe://example.org/agent//known",
            "Deed:authority",
            "deed:authority/",
        ]) {
            let nonce = [number; 16];
            let message = v1::Statement {
                producer: name.to_owned(),
                session: session_of(scene.ledger.id, name, nonce),
                nonce: Bytes::copy_from_slice(&nonce),
                ..scene.session(1).message(intent(MARK))
            };
            scene
                .refuses(name, unsigned(&message), Reason::Malformed, "producer")
                .await;
        }
        scene.nothing_was_recorded().await;
    });
}
