//! Receive times that go back, and false rejections.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use deed_evidence::statement;
use deed_proto::v1::{self, AppendResult, RiskTier, append_result, rejection::Reason};
use deed_tests::{
    liar::{Answer, Cast, ForgedLedger, Liar, cast},
    oracle::Log,
    process::{Deed, ServerProcess},
    rpc::{Clients, TestLedger, accepted},
    run,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{OK, does_not_verify, key_file, words};

/// Exit code for a request that the server refused.
const UNAVAILABLE: i32 = 3;

const YEAR_US: i64 = 365 * 24 * 3_600_000_000;

/// Makes a ledger of cleared acts, one of which was received this much before the one before it.
fn audited(back_us: i64) -> deed_tests::process::Ended {
    let mut forged = ForgedLedger::new("payments");
    let mut cast = Cast::in_ledger(&mut forged);
    let (task, _) = forged.opens(&mut cast.platform, RiskTier::Low);
    for cents in 1..6 {
        if cents == 4 {
            forged.at(forged.now() - back_us);
        }
        forged.says(&mut cast.agent, Some(task), cast::intent(None, cents));
    }
    let deed = Deed::new("http://127.0.0.1:1", "payments");
    let dir = deed.file("mirror");
    let policy = forged.write_mirror(&dir);
    let (dir, policy) = (dir.to_str().unwrap(), policy.to_str().unwrap());
    deed.run(["audit", "--dir", dir, "--policy", policy])
}

#[test]
fn time_does_not_go_back_by_years() {
    let ended = audited(0).expect_code(OK);
    assert!(words(&ended).starts_with("everything holds"), "{ended:#?}");
    for back_us in [3 * YEAR_US, YEAR_US, YEAR_US / 365] {
        let ended = audited(back_us);
        let says = "leaf 13: was received at ";
        does_not_verify(&format!("{back_us} us"), &ended, says);
        let says = "when what stands before it was there; the signed head commits to that";
        does_not_verify(&format!("{back_us} us"), &ended, says);
        assert!(!words(&ended).contains("everything holds"), "{ended:#?}");
    }
}

/// Every payload that was sent, by session and sequence.
type Sent = Arc<Mutex<BTreeMap<(Bytes, u64), Vec<Bytes>>>>;

/// Notes what is sent, and returns rejections for all of it.
fn rejected(sent: &Sent, request: &v1::AppendRequest, lies: bool) -> Vec<AppendResult> {
    note(sent, request);
    if !lies {
        return Vec::new();
    }
    let rejection = v1::Rejection {
        reason: Reason::Malformed.into(),
        message: "it is not what it should be".to_owned(),
        field: "body".to_owned(),
        expected_sequence: None,
    };
    let result = AppendResult {
        result: Some(append_result::Result::Rejected(rejection)),
    };
    vec![result; request.envelopes.len()]
}

fn note(sent: &Sent, request: &v1::AppendRequest) {
    for envelope in &request.envelopes {
        let Ok(said) = statement::decode(&envelope.payload) else {
            // This is a manifest.
            continue;
        };
        let mut sent = sent.lock().unwrap();
        let all = sent.entry((said.session, said.sequence)).or_default();
        if !all.contains(&envelope.payload) {
            all.push(envelope.payload.clone());
        }
    }
}

/// Returns the sequences of a session for which something was sent.
fn sequences(sent: &Sent) -> Vec<u64> {
    let sent = sent.lock().unwrap();
    sent.keys().map(|(_, sequence)| *sequence).collect()
}

/// The server has recorded the statement that it says it rejects. The next statement must not be
/// signed for the same sequence.
async fn lied_to(signs: bool) {
    let dir = TempDir::new().unwrap();
    let server = ServerProcess::start(&dir.path().join("data"));
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::create(&clients, "payments").await;
    let mut cast = Cast::of(ledger.id);
    let registered = cast.agent.registration(ledger.id);
    let request = v1::AppendRequest {
        envelopes: vec![cast.authority.envelope(None, registered)],
        ..ledger.request(&[])
    };
    if signs {
        let answer = clients.append(request).await.unwrap();
        accepted(&answer.results[0]);
    }

    let liar = Liar::before(&server.url()).await;
    let deed = Deed::new(&liar.url(), "payments");
    let mut command = vec!["append".to_owned(), "--session".into(), "acts".into()];
    if signs {
        let file = key_file(&deed, "agent.pem", &cast.agent.key);
        command.extend(["--key".to_owned(), file]);
    }
    let line = |resource: &str| {
        let said = json!({
            "producer": cast.agent.producer.name(),
            "task": "000102030405060708090a0b0c0d0e0f",
            "intent": {"action": "orders.update", "resource": resource},
        });
        format!("{said}\n")
    };
    let sent = Sent::default();
    let told = |lies: bool| {
        let sent = Arc::clone(&sent);
        move |request: &v1::AppendRequest, answer: Answer<v1::AppendResponse>| {
            let results = rejected(&sent, request, lies);
            let answer = answer?;
            if results.is_empty() {
                return Ok(answer);
            }
            Ok(v1::AppendResponse { results, ..answer })
        }
    };
    liar.append(told(false));
    liar.append_stream(told(false));
    deed.run_with(&command, &line("order/1")).expect_code(OK);
    liar.append(told(true));
    liar.append_stream(told(true));
    let ended = deed.run_with(&command, &line("order/2"));
    let ended = ended.expect_code(UNAVAILABLE);
    let rejected = r#""reason":"malformed","message":"it is not what it should be""#;
    assert!(ended.stdout.contains(rejected), "{ended:#?}");
    assert_eq!(sequences(&sent), [0, 1], "the lie was not told of anything");
    liar.append(told(false));
    liar.append_stream(told(false));
    // The client may skip the sequence, and learn from the server that there is no gap.
    deed.run_with(&command, &line("order/3"));
    // From then on it goes on.
    let ended = deed.run_with(&command, &line("order/4")).expect_code(OK);
    let accepted = r#""status":"accepted""#;
    assert!(ended.stdout.contains(accepted), "{ended:#?}");
    let places = sequences(&sent);
    assert!(places.len() >= 3, "{places:?}");
    for ((_, sequence), payloads) in &*sent.lock().unwrap() {
        assert_eq!(payloads.len(), 1, "sequence {sequence} was said twice");
    }
    // The statement that the server claims to have rejected is in the log, once, and so is the last
    // one.
    let log = Log::read(&clients, &ledger).await;
    let said = |resource: &str| {
        let in_it = |entry: &&Bytes| {
            entry
                .windows(resource.len())
                .any(|at| at == resource.as_bytes())
        };
        log.entries.iter().filter(in_it).count()
    };
    for resource in ["order/1", "order/2", "order/4"] {
        assert_eq!(said(resource), 1, "{resource}");
    }
    server.stop();
}

#[test]
fn nothing_is_said_twice_because_a_server_says_that_it_was_not_taken() {
    run(async {
        lied_to(false).await;
        lied_to(true).await;
    });
}
