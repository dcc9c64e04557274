//! Entries that the ledger writes on request are charged to the caller.

use bytes::Bytes;
use deed_proto::v1::{self, RiskTier, statement::Body};
use deed_tests::{
    access::Token,
    keys::Authority,
    process::{ServerCommand, fsck_clean},
    rpc::{Clients, TestLedger, accepted},
    run,
    statements::{Producer, envelope, task_id},
    until, within,
};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::TASK;

/// With one byte per second, the bytes of a second request are there only after a quarter of an
/// hour. With one statement per second it is there after a second, but this many requests come
/// faster than that.
const ASKED_MAX: u64 = 1000;

#[test]
fn task_receipts_are_charged_as_statements_are() {
    for (quota, word) in [
        ("bytes_per_second", "bytes"),
        ("statements_per_second", "statements"),
    ] {
        run(charged(quota, word));
    }
}

async fn charged(quota: &str, word: &str) {
    let dir = TempDir::new().expect("a temporary directory");
    let data = dir.path().join("data");
    let admin = Token::create(
        &data,
        "admin",
        &[
            "--ledger",
            "*",
            "--role",
            "append,read,audit,authority,admin",
        ],
    );
    let asker = Token::create(&data, "asker", &["--ledger", "*", "--role", "append"]);
    let server = ServerCommand::new(&data)
        .arguments(["--set", "access.required=true"])
        .arguments(["--set", &format!("limits.quota.{quota}=1")])
        .start();
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::create_by(&clients, "crowded", Some(&admin)).await;
    let opened = Authority::new(ledger.id, 900).says_in(
        TASK,
        Body::TaskOpened(v1::TaskOpened {
            requested_by: "ticket:4711".to_owned(),
            risk_tier: RiskTier::Low.into(),
            ..v1::TaskOpened::default()
        }),
    );
    let request = |envelopes| v1::AppendRequest {
        envelopes,
        ..ledger.request(&[])
    };
    let mut appends = clients.ledger.clone();
    let recorded = appends.append(admin.on(request(vec![opened]))).await;
    accepted(&recorded.expect("an answer").into_inner().results[0]);

    let ask = async |token: &Token| {
        let request = token.on(v1::RequestTaskReceiptRequest {
            ledger: ledger.name.clone(),
            task: Bytes::copy_from_slice(&task_id(ledger.id, TASK)),
        });
        let mut actions = clients.actions.clone();
        within("an answer", actions.request_task_receipt(request)).await
    };
    let mut written = 0;
    let refused = loop {
        match ask(&asker).await {
            Ok(_) => written += 1,
            Err(status) => break status,
        }
        assert!(written < ASKED_MAX, "nothing is charged");
    };
    expect_over(&refused, word);
    assert!(written > 0, "what the quota allows is written");
    if word == "bytes" {
        assert_eq!(written, 1);
        // The quota is the same as for the caller's appends.
        let payload = Producer::new(ledger.id, 1).intent("mine");
        let refused = appends.append(asker.on(request(vec![envelope(&payload)])));
        expect_over(&refused.await.unwrap_err(), word);
    }
    // A refused request has written nothing, and other callers have their own quota.
    let again = async || match ask(&admin).await {
        Ok(answer) => Some(answer.into_inner().leaf_index),
        Err(status) => {
            expect_over(&status, word);
            None
        }
    };
    if word == "statements" {
        assert_eq!(until("a receipt", again).await, 2 + written);
    }
    drop(clients);
    server.stop();
    fsck_clean(&data);
}

/// Checks that a request was refused like an append over its quota.
#[track_caller]
fn expect_over(status: &Status, word: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status
            .message()
            .contains(&format!("the quota of 1 {word} a second")),
        "{status:?}"
    );
    assert!(status.message().contains("try again in"), "{status:?}");
    let retry = status.get_details_retry_info();
    let delay = retry.and_then(|retry| retry.retry_delay);
    assert!(delay.is_some_and(|delay| !delay.is_zero()), "{status:?}");
}
