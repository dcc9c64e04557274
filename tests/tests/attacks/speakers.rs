//! Attacks with sessions, keys and principals of others.

use bytes::Bytes;
use deed_proto::v1::{self, rejection::Reason, statement::Body};
use deed_tests::{
    keys::{AUTHORITY, batch, key, registration, signed},
    run,
    statements::{Producer, envelope, intent},
};

use crate::{AGENT, MARK, Scene, agent, marked};

#[test]
fn a_session_is_squatted() {
    run(async {
        let mut scene = Scene::set().await;
        let second = scene.authority.registers(&key(11), AGENT);
        let other = "spiffe://example.org/agent/other";
        let of_other = scene.authority.registers(&key(12), other);
        let mut mine = scene.session(1);
        let zero = signed(&mine.intent("orders/1"), &agent());
        // This producer has no key: it is known only by its name.
        let mut plain = Producer::new(scene.ledger.id, 2);
        let plain_zero = envelope(&plain.intent("orders/2"));
        scene
            .records(vec![second, of_other, zero, plain_zero])
            .await;

        let another_key = signed(&mine.clone().intent(MARK), &key(11));
        // The session exists already: opening it is impossible, because its id is derived from its
        // owner.
        let into = |session: &Producer, name: &str| {
            let stranger = session.clone().named(name);
            stranger.intruding(&session.session()).intent(MARK)
        };
        let another_producer = signed(&into(&mine, other), &key(12));
        let unsigned = envelope(&mine.clone().intent(MARK));
        let into_plain = signed(&into(&plain, AGENT), &agent());
        let of_nobody = envelope(&into(&plain, "spiffe://example.org/agent/nobody"));
        for (what, envelope, reason, field) in [
            ("another key", another_key, Reason::SessionTaken, "session"),
            (
                "another producer",
                another_producer,
                Reason::SessionTaken,
                "session",
            ),
            ("unsigned", unsigned, Reason::SessionTaken, "session"),
            (
                "signed into an unsigned one",
                into_plain,
                Reason::SessionTaken,
                "session",
            ),
            (
                "unsigned in another name",
                of_nobody,
                Reason::SessionTaken,
                "session",
            ),
        ] {
            scene.refuses(what, envelope, reason, field).await;
        }
        let stolen = batch(&marked(&mut mine.clone(), 2), &key(11));
        let reasons = [
            Reason::BatchRefused,
            Reason::SessionTaken,
            Reason::BatchRefused,
        ];
        scene.refuses_all("a batch", stolen, &reasons).await;
        // The owners go on as if nothing had happened.
        let next = signed(&mine.intent("orders/3"), &agent());
        let plain_next = envelope(&plain.intent("orders/4"));
        scene.records(vec![next, plain_next]).await;
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn a_key_is_registered_twice() {
    run(async {
        let mut scene = Scene::set().await;
        let field = "";
        let others = "spiffe://example.org/agent/thief";
        let again = scene.authority.clone().registers(&agent(), AGENT);
        let for_another = scene.authority.clone().registers(&agent(), others);
        let authority_key = registration(scene.ledger.id, &deed_tests::keys::authority(), others);
        let of_authority = scene
            .authority
            .clone()
            .says(Body::KeyRegistered(authority_key));
        for (what, envelope) in [
            ("for the same producer", again.clone()),
            ("for another producer", for_another.clone()),
            ("an authority's own", of_authority),
        ] {
            scene
                .refuses(what, envelope, Reason::TrustRefused, field)
                .await;
        }
        // It is refused twice in one request, too, and after the key was revoked.
        let mut authority = scene.authority.clone();
        let first = authority.registers(&key(13), "spiffe://example.org/agent/13");
        let second = authority.registers(&key(13), others);
        let answer = scene.send(vec![first, second]).await;
        assert!(crate::is_accepted(&answer.results[0]), "{answer:?}");
        let second = &answer.results[1];
        crate::expect_rejected("in one request", second, Reason::TrustRefused, field);
        let _ = scene
            .authority
            .registers(&key(13), "spiffe://example.org/agent/13");
        let revoked = scene.authority.revokes(&agent());
        scene.records(vec![revoked]).await;
        let resurrected = scene.authority.clone().registers(&agent(), AGENT);
        scene
            .refuses("a revoked one", resurrected, Reason::TrustRefused, field)
            .await;
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn a_key_is_used_that_is_not_in_force() {
    run(async {
        let mut scene = Scene::set().await;
        let mut mine = scene.session(1);
        let zero = signed(&mine.intent("orders/1"), &agent());
        // One key becomes valid in far more than a hundred years, and one ends in a second.
        let registered_at = scene.records(vec![zero]).await[0].received_at_us;
        let limited = |seed: u8, from: i64, until: i64| {
            let producer = format!("spiffe://example.org/agent/{seed}");
            let mut body = registration(scene.ledger.id, &key(seed), &producer);
            (body.valid_from_us, body.valid_until_us) = (from, until);
            Body::KeyRegistered(body)
        };
        let early = limited(14, i64::MAX - 1, 0);
        let short = limited(15, 0, registered_at + 1_000_000);
        let early = scene.authority.says(early);
        let short = scene.authority.says(short);
        let revoked = scene.authority.revokes(&agent());
        scene.records(vec![early, short, revoked]).await;
        let mut at_its_end = Producer::new(scene.ledger.id, 16)
            .named("spiffe://example.org/agent/15")
            .unchained();
        loop {
            let next = signed(&at_its_end.clone().intent("orders/1"), &key(15));
            let answer = scene.send(vec![next]).await;
            if !crate::is_accepted(&answer.results[0]) {
                break;
            }
            scene.takes_for_granted(&answer);
            let _ = at_its_end.intent("orders/1");
        }

        let in_force = Reason::KeyNotInForce;
        let next = signed(&mine.clone().intent(MARK), &agent());
        scene.refuses("revoked", next, in_force, "key_id").await;
        let new_session = signed(&scene.session(2).intent(MARK), &agent());
        scene
            .refuses("revoked, in a new session", new_session, in_force, "key_id")
            .await;
        let whole = batch(&marked(&mut mine, 2), &agent());
        let reasons = [Reason::BatchRefused, in_force, Reason::BatchRefused];
        scene.refuses_all("revoked, a batch", whole, &reasons).await;
        for (what, seed) in [("not yet in force", 14), ("ended", 15)] {
            let name = format!("spiffe://example.org/agent/{seed}");
            let payload = Producer::new(scene.ledger.id, seed.into())
                .named(&name)
                .intent(MARK);
            let envelope = signed(&payload, &key(seed));
            scene.refuses(what, envelope, in_force, "key_id").await;
        }
        // The key was never registered.
        let unknown = signed(&scene.session(3).intent(MARK), &key(99));
        scene
            .refuses("unknown", unknown, Reason::KeyUnknown, "key_id")
            .await;
        scene.nothing_was_recorded().await;
    });
}

#[test]
fn somebody_speaks_in_a_name_that_is_not_theirs() {
    run(async {
        let scene = Scene::set().await;
        let mine = scene.session(1);
        let foreign = mine.clone().named("spiffe://example.org/agent/other");
        let as_authority = Producer::new(scene.ledger.id, 4).named(AUTHORITY);
        let revocation = Body::KeyRevoked(v1::KeyRevoked {
            key_id: Bytes::from_static(&[7; 16]),
            ..v1::KeyRevoked::default()
        });
        let in_authoritys_name = as_authority.clone().make(revocation);
        let mut flipped = signed(&mine.clone().intent(MARK), &agent());
        let mut bytes = flipped.signature.to_vec();
        bytes[0] ^= 1;
        flipped.signature = bytes.into();
        let mut other_words = signed(&mine.clone().intent("orders/1"), &agent());
        other_words.payload = mine.clone().intent(MARK);
        // RFC 8032's S is below the group's order; a lax verifier would accept S + order.
        let mut malleable = signed(&mine.clone().intent(MARK), &agent());
        malleable.signature = with_larger_s(&malleable.signature);
        let zeros = v1::Envelope {
            signature: vec![0; 64].into(),
            ..signed(&mine.clone().intent(MARK), &agent())
        };
        let short = v1::Envelope {
            signature: vec![1; 63].into(),
            ..signed(&mine.clone().intent(MARK), &agent())
        };
        for (what, envelope, reason, field) in [
            (
                "in another's name",
                signed(&foreign.clone().intent(MARK), &agent()),
                Reason::KeyNotAllowed,
                "producer",
            ),
            (
                "unsigned",
                envelope(&mine.clone().intent(MARK)),
                Reason::SignatureRequired,
                "signature",
            ),
            (
                "an authority's words, with an agent's key",
                signed(&in_authoritys_name, &agent()),
                Reason::KeyNotAllowed,
                "key_id",
            ),
            (
                "an authority's words, unsigned",
                envelope(&in_authoritys_name),
                Reason::SignatureRequired,
                "signature",
            ),
            (
                "an agent's words, with the authority's key",
                signed(&mine.clone().intent(MARK), &deed_tests::keys::authority()),
                Reason::KeyNotAllowed,
                "key_id",
            ),
            (
                "a flipped bit",
                flipped,
                Reason::SignatureInvalid,
                "signature",
            ),
            (
                "other words",
                other_words,
                Reason::SignatureInvalid,
                "signature",
            ),
            (
                "a larger S",
                malleable,
                Reason::SignatureInvalid,
                "signature",
            ),
            ("zeros", zeros, Reason::SignatureInvalid, "signature"),
            ("63 bytes", short, Reason::Malformed, "signature"),
        ] {
            scene.refuses(what, envelope, reason, field).await;
        }
        // An agent's statement under the ledger's own name is refused.
        let mut message = as_authority.message(intent(MARK));
        message.task = Bytes::from_static(&[1; 16]);
        let own_name = Bytes::from(prost::Message::encode_to_vec(&message));
        let sent = signed(&own_name, &agent());
        scene
            .refuses("the ledger's name", sent, Reason::Malformed, "producer")
            .await;
        scene.nothing_was_recorded().await;
    });
}

/// Returns S + L, where L is the order of Ed25519's group: the same point, but another signature.
fn with_larger_s(signature: &Bytes) -> Bytes {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = signature.to_vec();
    let mut carry = 0;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "S is below the order");
    bytes.into()
}
