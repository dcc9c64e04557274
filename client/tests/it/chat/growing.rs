//! Runs that have grown since they were imported, and runs with much or nothing in them.

use super::{
    consent::{agreed, agreed_messages},
    *,
};

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

/// The statements of a part of a run are the first statements of the whole run, at every cut, even if the
/// first ones were sent before the others were made.
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
                    // The leaf hash of the grant depends on the ledger.
                    if let Some(Body::Intent(intent)) = &mut message.body {
                        intent.grant = Bytes::new();
                    }
                    message.previous = Bytes::new();
                    message
                });
            assert_eq!(before.sequence, after.sequence, "cut at {cut}");
            let is_same = match (&before.body, &after.body) {
                // These name the places of statements that name the grant.
                (Some(Body::Approval(_)), Some(Body::Approval(_))) => true,
                (Some(Body::Outcome(a)), Some(Body::Outcome(b))) => a.result == b.result,
                (a, b) => a == b,
            };
            assert!(is_same, "cut at {cut}: {before:?} {after:?}");
        }
    }
}

/// Recorded statements keep their grant. New statements get another grant if none covers them, or none
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
        // A call of another tool.
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
            // In 14 runs the agent called no tool.
            grants: 136,
            intents: 898,
            // Calls right after a clear yes, out of 193 calls that change something.
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
            Ok(SequencePosition::Next)
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
