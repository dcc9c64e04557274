//! Grants, approvals and effects of an imported run.

use super::*;

/// A customer agrees to a cancellation and does not quite to a certificate.
pub(super) fn agreed() -> Transcript {
    parse(agreed_messages())
}

pub(super) fn agreed_messages() -> serde_json::Value {
    json!([
        {"role": "user", "content": "Cancel EHGLP3. I am mia_li_3668."},
        {"role": "assistant", "content": "I will cancel it. Yes?"},
        {"role": "user", "content": "Yes, please proceed."},
        {"role": "assistant", "content": null, "tool_calls": [
            call("1", "get_reservation_details", "{\"reservation_id\": \"EHGLP3\"}"),
            call("2", "cancel_reservation", "{\"reservation_id\": \"EHGLP3\"}"),
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "{}"},
        {"role": "tool", "tool_call_id": "2", "content": "{\"status\": \"cancelled\"}"},
        {"role": "assistant", "content": "Would you like a certificate?"},
        {"role": "user", "content": "Yes, but of $100.50."},
        {"role": "assistant", "tool_calls": [call("3", "send_certificate",
            "{\"user_id\": \"mia_li_3668\", \"amount\": 100.5}")]},
        {"role": "tool", "tool_call_id": "3",
         "content": "Certificate certificate_17 added to user mia_li_3668 with amount 100.5."},
        {"role": "assistant", "tool_calls": [call("4", "cancel_reservation",
            "{\"reservation_id\": \"EHGLP3\"}")]},
        {"role": "tool", "tool_call_id": "4", "content": "Error: cancelled already"},
    ])
}

#[test]
fn a_run_is_granted_what_it_did_by_an_authority() {
    let import = import();
    let run = record(&import, &agreed()).unwrap();
    let made = run.grant.as_ref().unwrap();
    let message = statement::decode(&made.payload).unwrap();
    assert_eq!(message.producer, "deed:authority");
    assert_eq!(message.task, import.task("run-1").as_bytes()[..]);
    // A session of its own, and what is in it derives from what the ledger says again.
    let [session, claimed] = import.grant_sessions("run-1");
    assert_eq!(
        (&message.session[..], message.sequence),
        (&session.as_bytes()[..], 0)
    );
    let opened_us = BEGIN_US + 1_000_000;
    assert_eq!(message.occurred_at_us, opened_us);
    let Some(Body::Grant(grant)) = message.body else {
        panic!()
    };
    assert_eq!(grant.subject, "import:chat");
    assert_eq!(
        grant.actions,
        [
            "cancel_reservation",
            "get_reservation_details",
            "send_certificate"
        ]
    );
    assert_eq!(
        grant.resources,
        ["flights/*", "reservations/*", "tools/*", "users/*"]
    );
    assert_eq!(grant.expires_us, opened_us + 86_400_000_000);
    // Every Intent names it.
    let hash = leaf_hash(&made.payload);
    for body in bodies(&run) {
        if let Body::Intent(intent) = body {
            assert_eq!(intent.grant, hash.as_bytes()[..]);
        }
    }
    // An import without an authority claims it, in a session that is nobody else's.
    let unsigned = Import {
        grantor: Grantor::Claimed("import:chat/unsigned".to_owned()),
        ..import
    };
    let made = record(&unsigned, &agreed()).unwrap().grant.unwrap();
    let message = statement::decode(&made.payload).unwrap();
    assert_eq!(message.producer, "import:chat/unsigned");
    assert_eq!(message.session, claimed.as_bytes()[..]);
    assert_eq!(unsigned.grant_sessions("run-1"), [claimed, session]);
}

/// The ids of an import cannot be derived from the transcript without the secret.
#[test]
fn ids_of_an_import_follow_from_its_secret() {
    let (import, mut other) = (import(), import());
    let ids = |import: &Import| {
        let [granted, claimed] = import.grant_sessions("run-1");
        let task = *import.task("run-1").as_bytes();
        let sessions = [import.session("run-1"), granted, claimed];
        (sessions.map(|id| *id.as_bytes()), task)
    };
    assert_eq!(ids(&import), ids(&other));
    other.secret[0] ^= 1;
    let ((sessions, task), (others, other_task)) = (ids(&import), ids(&other));
    assert_ne!(task, other_task);
    for (session, other) in sessions.iter().zip(&others) {
        assert_ne!(session, other);
    }
    // And the ledger takes them from their producers alone.
    let run = record(&import, &agreed()).unwrap();
    for made in run.statements.iter().chain(&run.grant) {
        let header = statement::parse(&made.payload).unwrap();
        assert_eq!(header.breach, None);
    }
}

#[test]
fn a_customers_yes_is_an_approval_of_the_importers() {
    let import = import();
    let run = record(&import, &agreed()).unwrap();
    assert_eq!(
        names(&run),
        [
            "task_opened",
            "intent",
            "intent",
            "approval",
            "outcome",
            "outcome",
            "intent",
            "outcome",
            "intent",
            "outcome",
            "task_closed",
            "session_closed"
        ]
    );
    // The approval has the place of the intent before it, the first intent that of the grant.
    assert_eq!(run.ends, [0, 2, 11]);
    let Body::Approval(approval) = &bodies(&run)[3] else {
        panic!()
    };
    // Leaf 1 is the opening, 2 the grant, 3 and 4 the intents.
    let intent = approval.intent.as_ref().unwrap();
    assert_eq!(intent.leaf_index, 4);
    assert_eq!(
        intent.leaf_hash,
        leaf_hash(&run.statements[2].payload).as_bytes()[..]
    );
    let session = import.session("run-1");
    let salt = Salt::derive(&import.secret, session, Sequence::new(3), "approval.shown");
    let shown = approval.shown.as_ref().unwrap();
    assert!(opens(shown, &salt, b"I will cancel it. Yes?"));
    assert!(
        run.contents
            .iter()
            .any(|kept| kept.position == 3 && kept.content[..] == b"I will cancel it. Yes?"[..])
    );
    let times = (
        approval.shown_at_us,
        approval.opened_at_us,
        approval.decided_at_us,
    );
    assert_eq!(times, (0, 0, BEGIN_US + 4_000_000));
    assert_eq!(approval.verdict(), v1::Verdict::Allow);
    let counts = Counts {
        grants: 1,
        intents: 4,
        approvals: 1,
        outcomes: 4,
        failures: 1,
        effects: 2,
        ..Counts::default()
    };
    assert_eq!(run.counts, counts);
}

#[test]
fn a_yes_to_nothing_or_before_what_only_looks_is_none() {
    for messages in [
        json!([
            {"role": "user", "content": "Yes."},
            {"role": "assistant", "tool_calls": [call("1", "cancel_reservation", "{}")]},
        ]),
        json!([
            {"role": "assistant", "content": "Shall I look?"},
            {"role": "user", "content": "Yes."},
            {"role": "assistant", "tool_calls": [call("1", "get_reservation_details", "{}")]},
        ]),
        // The yes is not the customer's last message.
        json!([
            {"role": "assistant", "content": "Shall I?"},
            {"role": "user", "content": "Yes."},
            {"role": "user", "content": "No, wait."},
            {"role": "assistant", "tool_calls": [call("1", "cancel_reservation", "{}")]},
        ]),
        // The message right before the yes has no text, so it is unknown what the customer was shown.
        json!([
            {"role": "assistant", "content": "Shall I?"},
            {"role": "assistant", "content": null},
            {"role": "user", "content": "Yes."},
            {"role": "assistant", "tool_calls": [call("1", "cancel_reservation", "{}")]},
        ]),
    ] {
        let run = record(&import(), &parse(messages.clone())).unwrap();
        assert_eq!(
            (run.counts.intents, run.counts.approvals),
            (1, 0),
            "{messages}"
        );
    }
}

#[test]
fn effects_and_amounts_come_from_the_calls() {
    let run = record(&import(), &agreed()).unwrap();
    let bodies = bodies(&run);
    let intents: Vec<&v1::Intent> = bodies
        .iter()
        .filter_map(|body| match body {
            Body::Intent(intent) => Some(intent),
            _ => None,
        })
        .collect();
    assert_eq!(intents[0].resource, "reservations/EHGLP3");
    assert_eq!(intents[1].resource, "reservations/EHGLP3");
    let user = &intents[2].resource;
    assert!(
        user.starts_with("users/") && !user.contains("mia"),
        "{user}"
    );
    let usd = Some(v1::Amount {
        minor_units: 10_050,
        currency: "USD".to_owned(),
    });
    assert_eq!((&intents[1].amount, &intents[2].amount), (&None, &usd));
    let effects: Vec<&[v1::Effect]> = bodies
        .iter()
        .filter_map(|body| match body {
            Body::Outcome(outcome) => Some(&outcome.effects[..]),
            _ => None,
        })
        .collect();
    let cancelled = v1::Effect {
        kind: "reservation.cancelled".to_owned(),
        resource: "reservations/EHGLP3".to_owned(),
        ..v1::Effect::default()
    };
    let sent = v1::Effect {
        kind: "certificate.sent".to_owned(),
        resource: user.clone(),
        external_id: "certificate_17".to_owned(),
        amount: usd,
        ..v1::Effect::default()
    };
    // A call that only reads, and a call that failed, have no effects.
    assert_eq!(effects, [&[][..], &[cancelled], &[sent], &[]]);
}

#[test]
fn no_text_of_a_transcript_stands_in_clear() {
    let run = record(&import(), &small()).unwrap();
    let all: Vec<u8> = run
        .statements
        .iter()
        .flat_map(|made| made.payload.to_vec())
        .collect();
    for text in ["EHGLP3", "Be careful", "found", "too late", "{\"id\": 1}"] {
        assert!(!contains(&all, text), "{text}");
    }
    assert!(contains(&all, "lookup"), "the test can find what is there");

    let run = record(&import(), &agreed()).unwrap();
    let all: Vec<u8> = run
        .statements
        .iter()
        .chain(&run.grant)
        .flat_map(|made| made.payload.to_vec())
        .collect();
    for text in ["mia_li", "I will cancel", "please proceed", "added to"] {
        assert!(!contains(&all, text), "{text}");
    }
}
