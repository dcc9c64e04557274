//! Transcripts as statements.

use bytes::Bytes;
use deed_client::{
    Made,
    chat::{
        Checked, Counts, Earlier, Given, Grantor, Import, Making, PartContent, Recorded, Speaker,
        Transcript,
    },
};
use deed_evidence::{
    LedgerId, Micros, PayloadDigest, Sequence, WireError,
    commitment::{Salt, opens},
    session::{self, Judgement},
    statement,
};
use deed_proto::v1::{self, statement::Body, task_opened::Objective};
use deed_tlog::{Hash, LeafIndex, leaf_hash};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::shared::shared;

/// A run that was carried to its end.
#[derive(Debug, PartialEq)]
struct Run {
    /// The importer's.
    statements: Vec<Made>,
    /// Sequences of those that a part ends with.
    ends: Vec<u64>,
    grant: Option<Made>,
    contents: Vec<PartContent>,
    counts: Counts,
}

/// When the ledger that records here gets its first statement; each one after that a second later.
const BEGIN_US: i64 = 1_795_000_000_000_000;

/// Has a run recorded by a ledger that holds nothing else.
fn record(import: &Import, transcript: &Transcript) -> Result<Run, WireError> {
    carry(import.begin(transcript))
}

fn carry(mut making: Making<'_>) -> Result<Run, WireError> {
    let mut run = Run {
        statements: Vec::new(),
        ends: Vec::new(),
        grant: None,
        contents: Vec::new(),
        counts: Counts::default(),
    };
    let (mut last, mut leaf) = (None, 0);
    while let Some(mut part) = making.next(last.as_ref())? {
        leaf += part.statements.len() as u64;
        let end = part.statements.last().unwrap();
        last = Some(Recorded {
            leaf_index: LeafIndex::new(leaf),
            leaf_hash: leaf_hash(&end.payload),
            received_at: Micros::new(BEGIN_US + i64::try_from(leaf).unwrap() * 1_000_000),
        });
        match part.speaker {
            Speaker::Importer => {
                run.ends.push(end.sequence.get());
                for content in &mut part.contents {
                    content.position += run.statements.len();
                }
                run.contents.append(&mut part.contents);
                run.statements.append(&mut part.statements);
            }
            Speaker::Grantor => {
                assert_eq!((part.statements.len(), part.contents.len()), (1, 0));
                assert!(run.grant.is_none(), "one grant");
                run.grant = part.statements.pop();
            }
        }
    }
    run.counts = making.counts();
    Ok(run)
}

fn import() -> Import {
    Import {
        ledger_id: LedgerId::new(Hash::new([1; 32])),
        producer: "import:chat".to_owned(),
        grantor: Grantor::Authority,
        claimant: "import:chat/unsigned".to_owned(),
        secret: [5; 32],
        model: "model-1".to_owned(),
        risk_tier: v1::RiskTier::Low,
        runs_are_over: true,
    }
}

fn call(id: &str, name: &str, arguments: &str) -> serde_json::Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn parse(messages: serde_json::Value) -> Transcript {
    Transcript::parse(&json!({"run_id": "run-1", "messages": messages}).to_string()).unwrap()
}

/// One call that succeeds and one that fails; their ids are the same.
fn small() -> Transcript {
    parse(json!([
        {"role": "system", "content": "Be careful."},
        {"role": "user", "content": "Cancel EHGLP3, please."},
        {"role": "assistant", "content": null, "tool_calls": [call("c1", "lookup", "{\"id\": 1}")]},
        {"role": "tool", "tool_call_id": "c1", "name": "lookup", "content": "found"},
        {"role": "assistant", "content": "", "tool_calls": [call("c1", "cancel", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "content": "Error: too late"},
        {"role": "assistant", "content": "Sorry."},
    ]))
}

fn bodies(run: &Run) -> Vec<Body> {
    run.statements
        .iter()
        .map(|made| statement::decode(&made.payload).unwrap().body.unwrap())
        .collect()
}

fn names(run: &Run) -> Vec<&'static str> {
    run.statements
        .iter()
        .map(|made| statement::parse(&made.payload).unwrap().body.name())
        .collect()
}

#[test]
fn a_small_run() {
    let run = record(&import(), &small()).unwrap();
    assert_eq!(
        names(&run),
        [
            "task_opened",
            "intent",
            "outcome",
            "intent",
            "outcome",
            "task_closed",
            "session_closed"
        ]
    );
    assert_eq!(
        run.counts,
        Counts {
            grants: 1,
            intents: 2,
            outcomes: 2,
            failures: 1,
            ..Counts::default()
        }
    );
    let salt = |sequence, slot| {
        let session = import().session("run-1");
        Salt::derive(&import().secret, session, Sequence::new(sequence), slot)
    };
    let opens = |commitment: &Option<v1::Commitment>, sequence, slot, content: &str| {
        opens(
            commitment.as_ref().unwrap(),
            &salt(sequence, slot),
            content.as_bytes(),
        )
    };
    let bodies = bodies(&run);
    let Body::TaskOpened(opened) = &bodies[0] else {
        panic!()
    };
    let Some(Objective::ObjectiveCommitment(objective)) = &opened.objective else {
        panic!()
    };
    let slot = "task_opened.objective_commitment";
    assert!(opens(
        &Some(objective.clone()),
        0,
        slot,
        "Cancel EHGLP3, please."
    ));
    assert_eq!(opened.requested_by, "chat:run-1");

    let Body::Intent(intent) = &bodies[1] else {
        panic!()
    };
    assert_eq!(
        (&*intent.action, &*intent.resource),
        ("lookup", "tools/lookup")
    );
    assert_eq!((&*intent.model, &*intent.tool_call_id), ("model-1", "c1"));
    assert_eq!(
        intent.system_prompt_digest,
        Sha256::digest("Be careful.")[..]
    );
    assert!(opens(
        &intent.arguments,
        1,
        "intent.arguments",
        "{\"id\": 1}"
    ));
    let prompt = "[{\"content\":\"Be careful.\",\"role\":\"system\"},\
                  {\"content\":\"Cancel EHGLP3, please.\",\"role\":\"user\"}]";
    assert!(opens(&intent.prompt, 1, "intent.prompt", prompt));

    let Body::Outcome(outcome) = &bodies[2] else {
        panic!()
    };
    assert_eq!(outcome.status(), v1::OutcomeStatus::Succeeded);
    assert!(opens(&outcome.result, 2, "outcome.result", "found"));
    assert!(opens(&outcome.response, 2, "outcome.response", "found"));
    let reference = outcome.intent.as_ref().unwrap();
    assert_eq!((reference.sequence, reference.session.len()), (1, 0));
    let digest = PayloadDigest::of(&run.statements[1].payload);
    assert_eq!(reference.payload_digest, digest.as_bytes()[..]);

    let Body::Outcome(outcome) = &bodies[4] else {
        panic!()
    };
    assert_eq!(outcome.status(), v1::OutcomeStatus::Failed);
    assert_eq!(outcome.intent.as_ref().unwrap().sequence, 3);
    let Body::TaskClosed(closed) = &bodies[5] else {
        panic!()
    };
    assert_eq!(closed.end(), v1::TaskEnd::Completed);
}

#[test]
fn the_same_again_gives_the_same_bytes_and_other_secrets_do_not() {
    let run = record(&import(), &small()).unwrap();
    assert_eq!(record(&import(), &small()).unwrap(), run);
    let other = Import {
        secret: [6; 32],
        ..import()
    };
    assert_ne!(record(&other, &small()).unwrap(), run);
    // Nobody without the secret knows where an import speaks.
    assert_ne!(other.session("run-1"), import().session("run-1"));
    assert_ne!(other.task("run-1"), import().task("run-1"));
    let elsewhere = Import {
        ledger_id: LedgerId::new(Hash::new([2; 32])),
        ..import()
    };
    assert_ne!(elsewhere.session("run-1"), import().session("run-1"));
    assert_ne!(
        import().session("run-1").as_bytes(),
        import().task("run-1").as_bytes()
    );
}

#[test]
fn calls_in_parallel_are_matched_by_id_then_by_order() {
    let transcript = parse(json!([
        {"role": "assistant", "tool_calls": [call("a", "one", "{}"), call("b", "two", "{}"), call("b", "three", "{}")]},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "tool", "tool_call_id": "?", "content": "of nothing"},
        {"role": "tool", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "3"},
    ]));
    let run = record(&import(), &transcript).unwrap();
    assert_eq!(answered(&run), [2, 1, 3]);
    assert_eq!(run.counts.stray_results, 1);
}

/// Sequences of the Intents that the Outcomes are of, in order.
fn answered(run: &Run) -> Vec<u64> {
    let intent = |body| match body {
        Body::Outcome(outcome) => Some(outcome.intent.unwrap().sequence),
        _ => None,
    };
    bodies(run).into_iter().filter_map(intent).collect()
}

/// Parallel calls of which one takes its time: each result is of the act that it names.
#[test]
fn a_late_result_answers_the_call_that_it_names() {
    let transcript = parse(json!([
        {"role": "user", "content": "deploy"},
        {"role": "assistant", "tool_calls": [call("job", "start_deploy", "{}")]},
        {"role": "user", "content": "and the weather?"},
        {"role": "assistant", "tool_calls": [call("w", "weather", "{}")]},
        {"role": "tool", "tool_call_id": "job", "content": "deployed v7"},
        {"role": "tool", "tool_call_id": "w", "content": "Error: no such city"},
        {"role": "tool", "tool_call_id": "w", "content": "a second time"},
    ]));
    let run = record(&import(), &transcript).unwrap();
    assert_eq!(answered(&run), [1, 2]);
    let failed: Vec<bool> = bodies(&run)
        .iter()
        .filter_map(|body| match body {
            Body::Outcome(outcome) => Some(outcome.status() == v1::OutcomeStatus::Failed),
            _ => None,
        })
        .collect();
    assert_eq!(failed, [false, true]);
    let left_out = import().check(&transcript).unwrap().left_out;
    assert_eq!(left_out.len(), 1);
    assert_eq!(left_out[0].place, "messages[6]");
    // Ids repeat: the newest call has it. Without ids the newest calls are answered in order, and
    // never an older one.
    for (messages, wanted) in [
        (
            json!([
                {"role": "assistant", "tool_calls": [call("c", "one", "{}")]},
                {"role": "user", "content": "?"},
                {"role": "assistant", "tool_calls": [call("c", "two", "{}")]},
                {"role": "tool", "tool_call_id": "c", "content": "2"},
            ]),
            [2],
        ),
        (
            json!([
                {"role": "assistant", "tool_calls": [call("", "one", "{}")]},
                {"role": "user", "content": "?"},
                {"role": "assistant", "tool_calls": [call("", "two", "{}")]},
                {"role": "tool", "content": "2"},
                {"role": "tool", "content": "of which?"},
            ]),
            [2],
        ),
    ] {
        let run = record(&import(), &parse(messages)).unwrap();
        assert_eq!(answered(&run), wanted);
    }
}

#[test]
fn what_is_missing_is_counted_and_not_made_up() {
    let transcript = parse(json!([
        {"role": "tool", "tool_call_id": "z", "content": "of nothing"},
        {"role": "assistant", "tool_calls": [call("a", "one", "{}")]},
        {"role": "user", "content": "hello?"},
        {"role": "assistant", "tool_calls": [call("b", "transfer_to_human_agents", "{}")]},
    ]));
    let run = record(&import(), &transcript).unwrap();
    assert_eq!(
        names(&run),
        [
            "task_opened",
            "intent",
            "intent",
            "task_closed",
            "session_closed"
        ]
    );
    assert_eq!(
        run.counts,
        Counts {
            grants: 1,
            intents: 2,
            unanswered: 2,
            stray_results: 1,
            ..Counts::default()
        }
    );
    let Body::TaskClosed(closed) = &bodies(&run)[3] else {
        panic!()
    };
    assert_eq!(closed.end(), v1::TaskEnd::HandedOver);
    // (It is said to be over.)
    let empty = record(&import(), &parse(json!([]))).unwrap();
    assert_eq!(empty.grant, None, "nothing was done");
    assert_eq!(
        names(&empty),
        ["task_opened", "task_closed", "session_closed"]
    );
}

/// A customer agrees to a cancellation and does not quite to a certificate.
fn agreed() -> Transcript {
    parse(agreed_messages())
}

fn agreed_messages() -> serde_json::Value {
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

/// Whoever has the same transcript, and no secret, cannot tell where it would be.
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
        // Not the last word.
        json!([
            {"role": "assistant", "content": "Shall I?"},
            {"role": "user", "content": "Yes."},
            {"role": "user", "content": "No, wait."},
            {"role": "assistant", "tool_calls": [call("1", "cancel_reservation", "{}")]},
        ]),
        // What was said besides a call is not known to have been shown.
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
    // To look changes nothing, and what failed has changed nothing.
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

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn lines_that_are_no_transcripts() {
    for line in [
        "",
        "{",
        "[]",
        "{\"run_id\": \"a\"}",
        "{\"run_id\": \"\", \"messages\": []}",
        "{\"run_id\": 7, \"messages\": []}",
        "{\"run_id\": \"a\", \"messages\": [], \"messages\": []}",
        "{\"run_id\": \"a\", \"messages\": [{\"role\": \"user\", \"role\": \"tool\"}]}",
        "{\"run_id\": \"a\", \"messages\": [{}]}",
        "{\"run_id\": \"a\", \"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"id\": \"b\"}]}]}",
    ] {
        assert!(Transcript::parse(line).is_err(), "{line}");
    }
    // Well-formed, but no ledger takes an action with such a name.
    let long = "t".repeat(257);
    let long = parse(json!([{"role": "assistant", "tool_calls": [call("a", &long, "{}")]}]));
    let error = import().check(&long).unwrap_err();
    assert!(error.field.starts_with("grant.actions"), "{error}");
}

/// What a beginning of a run comes to is a beginning of what all of it comes to, at every cut, with
/// the statements of the one sent before those of the other were made.
#[test]
fn a_run_that_has_grown_goes_on_where_it_was() {
    let open = Import {
        runs_are_over: false,
        ..import()
    };
    let messages = agreed_messages();
    let all = messages.as_array().unwrap();
    let whole = record(&open, &parse(messages.clone())).unwrap();
    assert_eq!(
        names(&whole).last(),
        Some(&"outcome"),
        "it ends with what was said"
    );
    for cut in 0..=all.len() {
        let part = record(&open, &parse(json!(all[..cut]))).unwrap();
        for (before, after) in part.statements.iter().zip(&whole.statements) {
            let [before, after] = [before, after]
                .map(|made| statement::decode(&made.payload).unwrap())
                .map(|mut message| {
                    // Which grant there was is the ledger's to say.
                    if let Some(Body::Intent(intent)) = &mut message.body {
                        intent.grant = Bytes::new();
                    }
                    message.previous = Bytes::new();
                    message
                });
            assert_eq!(before.sequence, after.sequence, "cut at {cut}");
            let is_same = match (&before.body, &after.body) {
                // They name the places of statements that name the grant.
                (Some(Body::Approval(_)), Some(Body::Approval(_))) => true,
                (Some(Body::Outcome(a)), Some(Body::Outcome(b))) => a.result == b.result,
                (a, b) => a == b,
            };
            assert!(is_same, "cut at {cut}: {before:?} {after:?}");
        }
    }
}

/// What is recorded keeps the grant that it named; what is new gets one if none covers it, or none
/// does any more.
#[test]
fn a_run_that_has_grown_gets_the_grants_that_it_lacks() {
    let open = Import {
        runs_are_over: false,
        ..import()
    };
    let messages = |count: usize| {
        let mut all = vec![json!({"role": "user", "content": "go"})];
        for tool in ["one", "one", "two"].into_iter().take(count) {
            all.push(json!({"role": "assistant", "tool_calls": [call("c", tool, "{}")]}));
            all.push(json!({"role": "tool", "tool_call_id": "c", "content": "ok"}));
        }
        parse(json!(all))
    };
    let first = record(&open, &messages(1)).unwrap();
    let grant = first.grant.unwrap();
    let (hash, message) = (
        leaf_hash(&grant.payload),
        statement::decode(&grant.payload).unwrap(),
    );
    let given = Given::read(hash, &message).unwrap();
    assert_eq!(
        (given.actions.clone(), given.from.get()),
        (vec!["one".to_owned()], 1)
    );
    let opened = Micros::new(BEGIN_US + 1_000_000);
    let earlier = |at: i64| Earlier {
        next: Sequence::new(3),
        grants: vec![given.clone()],
        granted: Some((grant.sequence, grant.digest)),
        at: Micros::new(at),
    };
    let hour = 3_600_000_000;
    for (count, at, wanted) in [
        // The same again, long after: nothing is new.
        (1, opened.get() + 100 * hour, &[][..]),
        // Another call of the same tool, soon and long after.
        (2, opened.get() + hour, &[]),
        (2, opened.get() + 100 * hour, &["one"]),
        // One of another tool.
        (3, opened.get() + hour, &["two"]),
        (3, opened.get() + 100 * hour, &["one", "two"]),
    ] {
        let transcript = messages(count);
        let run = carry(open.resume(&transcript, &earlier(at))).unwrap();
        for (before, after) in first.statements.iter().zip(&run.statements) {
            assert_eq!(before.payload, after.payload);
        }
        let actions = run.grant.as_ref().map(|grant| {
            let message = statement::decode(&grant.payload).unwrap();
            assert_eq!(message.sequence, 1, "it is the session's next");
            let given = Given::read(leaf_hash(&grant.payload), &message).unwrap();
            assert_eq!(given.from.get(), 3);
            assert!(given.expires.get() > at);
            given.actions
        });
        assert_eq!(actions.unwrap_or_default(), wanted, "{count} calls at {at}");
    }
}

/// More tools than one grant holds.
#[test]
fn a_run_with_many_tools_gets_several_grants() {
    let mut messages = vec![json!({"role": "user", "content": "go"})];
    for number in 0..130 {
        let id = format!("k{number}");
        let name = format!("tool_{number}");
        messages.push(json!({"role": "assistant", "tool_calls": [call(&id, &name, "{}")]}));
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "ok"}));
    }
    let transcript = parse(json!(messages));
    let import = import();
    let mut making = import.begin(&transcript);
    let (mut last, mut leaf) = (None, 0);
    let mut grants: Vec<(Hash, Vec<String>)> = Vec::new();
    while let Some(part) = making.next(last.as_ref()).unwrap() {
        leaf += 1;
        let end = part.statements.last().unwrap();
        let hash = leaf_hash(&end.payload);
        last = Some(Recorded {
            leaf_index: LeafIndex::new(leaf),
            leaf_hash: hash,
            received_at: Micros::new(BEGIN_US),
        });
        for made in &part.statements {
            match statement::decode(&made.payload).unwrap().body.unwrap() {
                Body::Grant(grant) => grants.push((hash, grant.actions)),
                Body::Intent(intent) => {
                    let named = grants
                        .iter()
                        .find(|(hash, _)| intent.grant == hash.as_bytes()[..]);
                    assert!(named.unwrap().1.contains(&intent.action));
                }
                _ => {}
            }
        }
    }
    assert_eq!(grants.len(), 3);
    assert_eq!(making.counts().grants, 3);
    assert_eq!(making.counts().intents, 130);
}

#[test]
fn a_run_without_a_user_and_without_a_call_has_nothing_to_record() {
    let open = Import {
        runs_are_over: false,
        ..import()
    };
    for messages in [
        json!([]),
        json!([{"role": "system", "content": "be kind"}]),
        json!([{"role": "assistant", "content": "hello?"}]),
    ] {
        let checked = open.check(&parse(messages)).unwrap();
        assert_eq!(checked, Checked::default());
    }
}

/// Where the shared transcripts are at hand.
#[test]
fn the_airline_runs_are_complete() {
    let Some(text) = airline() else { return };
    let (mut runs, mut counts, mut statements) = (0, Counts::default(), 0);
    for line in text.lines() {
        let run = record(&import(), &Transcript::parse(line).unwrap()).unwrap();
        check_session(&run);
        runs += 1;
        counts += run.counts;
        statements += run.statements.len() + usize::from(run.grant.is_some());
    }
    assert_eq!(runs, 150);
    assert_eq!(
        counts,
        Counts {
            // In 14 runs the agent did nothing but talk.
            grants: 136,
            intents: 898,
            // Of 193 calls that change something, those right after a clear yes.
            approvals: 115,
            outcomes: 898,
            failures: 54,
            // The same 193 without those that failed.
            effects: 139,
            unanswered: 0,
            stray_results: 0
        }
    );
    assert_eq!(statements, 3 * 150 + 136 + 115 + 2 * 898);
}

/// The ledger takes them one after the other.
fn check_session(run: &Run) {
    let mut state: Option<session::Session> = None;
    for made in &run.statements {
        let header = statement::parse(&made.payload).unwrap();
        assert_eq!(
            session::judge(state.as_ref(), &header, session::Binding::Nobody),
            Ok(Judgement::Next)
        );
        let digest = PayloadDigest::of(&Bytes::clone(&made.payload));
        match &mut state {
            Some(state) => state.advance(&header, digest),
            None => {
                let speaker = session::Binding::Nobody;
                state = Some(session::Session::opened(&header, digest, speaker));
            }
        }
    }
    assert!(state.unwrap().closed);
}

#[test]
fn the_small_run_is_a_session_that_a_ledger_takes() {
    check_session(&record(&import(), &small()).unwrap());
    check_session(&record(&import(), &agreed()).unwrap());
}

fn airline() -> Option<String> {
    let path = shared("agent-runs/airline.jsonl")?;
    Some(std::fs::read_to_string(path).unwrap())
}
