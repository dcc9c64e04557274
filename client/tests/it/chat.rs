//! Transcripts as statements.

use bytes::Bytes;
use deed_client::chat::{Counts, Import, Run, Transcript};
use deed_evidence::{
    LedgerId, PayloadDigest, Sequence,
    commitment::{Salt, opens},
    session::{self, Judgement},
    statement,
};
use deed_proto::v1::{self, statement::Body, task_opened::Objective};
use deed_tlog::Hash;
use serde_json::json;
use sha2::{Digest as _, Sha256};

fn import() -> Import {
    Import {
        ledger_id: LedgerId::new(Hash::new([1; 32])),
        producer: "deed:import/chat".to_owned(),
        secret: [5; 32],
        model: "model-1".to_owned(),
        risk_tier: v1::RiskTier::Low,
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
    let run = import().run(&small()).unwrap();
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
            tool_calls: 2,
            outcomes: 2,
            failures: 1,
            unanswered: 0,
            stray_results: 0
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
        ("lookup", "tool:lookup")
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
    let run = import().run(&small()).unwrap();
    assert_eq!(import().run(&small()).unwrap(), run);
    let other = Import {
        secret: [6; 32],
        ..import()
    };
    assert_ne!(other.run(&small()).unwrap(), run);
    assert_eq!(other.session("run-1"), import().session("run-1"));
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
    let run = import()
        .run(&parse(json!([
            {"role": "assistant", "tool_calls": [call("a", "one", "{}"), call("b", "two", "{}"), call("b", "three", "{}")]},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "tool", "tool_call_id": "?", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "3"},
        ])))
        .unwrap();
    let intents: Vec<_> = bodies(&run)
        .into_iter()
        .filter_map(|body| match body {
            Body::Outcome(outcome) => Some(outcome.intent.unwrap().sequence),
            _ => None,
        })
        .collect();
    assert_eq!(intents, [2, 1, 3]);
}

#[test]
fn what_is_missing_is_counted_and_not_made_up() {
    let run = import()
        .run(&parse(json!([
            {"role": "tool", "tool_call_id": "z", "content": "of nothing"},
            {"role": "assistant", "tool_calls": [call("a", "one", "{}")]},
            {"role": "user", "content": "hello?"},
            {"role": "assistant", "tool_calls": [call("b", "transfer_to_human_agents", "{}")]},
        ])))
        .unwrap();
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
            tool_calls: 2,
            outcomes: 0,
            failures: 0,
            unanswered: 2,
            stray_results: 1
        }
    );
    let Body::TaskClosed(closed) = &bodies(&run)[3] else {
        panic!()
    };
    assert_eq!(closed.end(), v1::TaskEnd::HandedOver);
    let empty = import().run(&parse(json!([]))).unwrap();
    assert_eq!(
        names(&empty),
        ["task_opened", "task_closed", "session_closed"]
    );
}

#[test]
fn no_text_of_a_transcript_stands_in_clear() {
    let run = import().run(&small()).unwrap();
    let all: Vec<u8> = run
        .statements
        .iter()
        .flat_map(|made| made.payload.to_vec())
        .collect();
    for text in ["EHGLP3", "Be careful", "found", "too late", "{\"id\": 1}"] {
        assert!(!contains(&all, text), "{text}");
    }
    assert!(contains(&all, "lookup"), "the test can find what is there");
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
        "{\"run_id\": \"a\", \"messages\": [{}]}",
        "{\"run_id\": \"a\", \"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"id\": \"b\"}]}]}",
    ] {
        assert!(Transcript::parse(line).is_err(), "{line}");
    }
    // Well-formed, but no ledger takes an action without a name.
    let nameless = parse(json!([{"role": "assistant", "tool_calls": [call("a", "", "{}")]}]));
    assert_eq!(import().run(&nameless).unwrap_err().field, "intent.action");
}

/// Where the shared transcripts are at hand.
#[test]
fn the_airline_runs_are_complete() {
    let Some(text) = airline() else { return };
    let (mut runs, mut counts, mut statements) = (0, Counts::default(), 0);
    for line in text.lines() {
        let run = import().run(&Transcript::parse(line).unwrap()).unwrap();
        check_session(&run);
        runs += 1;
        counts += run.counts;
        statements += run.statements.len();
    }
    assert_eq!(runs, 150);
    assert_eq!(
        counts,
        Counts {
            tool_calls: 898,
            outcomes: 898,
            failures: 54,
            unanswered: 0,
            stray_results: 0
        }
    );
    assert_eq!(statements, 3 * 150 + 2 * 898);
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
    check_session(&import().run(&small()).unwrap());
}

fn airline() -> Option<String> {
    let named = std::env::var_os("DEED_AGENT_RUNS").map(std::path::PathBuf::from);
    let beside = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/data/agent-runs/airline.jsonl"
    );
    let path = named.unwrap_or_else(|| beside.into());
    path.exists()
        .then(|| std::fs::read_to_string(path).unwrap())
}
