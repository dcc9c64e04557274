//! Attacks with statements for one ledger, sent to another.

use deed_proto::v1::{rejection::Reason, statement::Body};
use deed_tests::{
    keys::{Authority, batch, key, registration, signed},
    rpc::TestLedger,
    run,
    statements::{Producer, envelope},
};

use crate::{AGENT, MARK, Scene, agent, marked};

/// Creates a second ledger, in which the same agent's key is registered.
async fn other_ledger(scene: &Scene) -> TestLedger {
    let other = TestLedger::create(&scene.clients, "elsewhere").await;
    let registered = Authority::new(other.id, 900).registers(&agent(), AGENT);
    let mut request = other.request(&[]);
    request.envelopes = vec![registered];
    scene.clients.append(request).await.expect("an answer");
    other
}

#[test]
fn a_statement_signed_for_another_ledger() {
    run(async {
        let scene = Scene::set().await;
        let other = other_ledger(&scene).await;
        let mut elsewhere = Producer::new(other.id, 1).named(AGENT);
        let payload = elsewhere.intent(MARK);
        for (what, envelope) in [
            ("signed", signed(&payload, &agent())),
            ("unsigned", envelope(&payload)),
            ("with a key that nobody knows", signed(&payload, &key(77))),
        ] {
            scene
                .refuses(what, envelope, Reason::WrongLedger, "ledger_id")
                .await;
        }
        let batch = batch(&marked(&mut elsewhere, 2), &agent());
        let refused = [
            Reason::WrongLedger,
            Reason::BatchRefused,
            Reason::BatchRefused,
        ];
        scene.refuses_all("a batch", batch, &refused).await;
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn an_envelope_that_was_recorded_elsewhere_is_replayed() {
    run(async {
        let scene = Scene::set().await;
        let other = other_ledger(&scene).await;
        let mut producer = Producer::new(other.id, 1).named(AGENT).unchained();
        let mut authority = Authority::new(other.id, 901);
        let envelopes = [
            vec![signed(&producer.intent("orders/1"), &agent())],
            batch(&producer.intents(2), &agent()),
            vec![authority.registers(&key(20), "spiffe://example.org/agent/20")],
            vec![authority.revokes(&agent())],
        ];
        for recorded in envelopes {
            let mut request = other.request(&[]);
            request.envelopes = recorded.clone();
            let answer = scene.clients.append(request).await.expect("an answer");
            assert!(answer.results.iter().all(crate::is_accepted), "{answer:?}");
            let mut refused = vec![Reason::WrongLedger];
            refused.resize(recorded.len(), Reason::BatchRefused);
            scene.refuses_all("a replay", recorded, &refused).await;
        }
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn a_proof_of_possession_is_forged() {
    run(async {
        let mut scene = Scene::set().await;
        let other = other_ledger(&scene).await;
        let (thief, victim) = (key(21), key(22));
        let honest = registration(scene.ledger.id, &victim, AGENT);
        let of_other_ledger = registration(other.id, &victim, AGENT).possession;
        let of_thief = registration(scene.ledger.id, &thief, AGENT).possession;
        let mut rows = Vec::new();
        let mut forge = |what, change: &dyn Fn(&mut deed_proto::v1::KeyRegistered)| {
            let mut body = honest.clone();
            change(&mut body);
            rows.push((what, body));
        };
        forge("of another ledger", &|body| {
            body.possession = of_other_ledger.clone();
        });
        forge("by another key", &|body| {
            body.possession = of_thief.clone();
        });
        forge("for another producer", &|body| body.producer = MARK.into());
        forge("for another controller", &|body| {
            body.controller = "https://mark.example".into();
        });
        forge("for another role", &|body| body.role = 2);
        forge("of zeros", &|body| body.possession = vec![0; 64].into());
        for (what, body) in rows {
            // A refusal consumes no sequence: each of these statements is the session's next one.
            let envelope = scene.authority.clone().says(Body::KeyRegistered(body));
            let field = "key_registered.possession";
            scene
                .refuses(what, envelope, Reason::TrustRefused, field)
                .await;
        }
        // The control: the same statement without a forgery.
        let honest = scene.authority.says(Body::KeyRegistered(honest));
        scene.records(vec![honest]).await;
        scene.nothing_was_recorded().await;
    });
}
