//! Transcripts as statements.

mod consent;
mod growing;

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
    session::{self, SequencePosition},
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

/// A run with a call that succeeds and a call that fails; their ids are the same.
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
    // Session and task of an import cannot be known without the secret.
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

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
