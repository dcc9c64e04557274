//! Stopping: the server is drained, no client delays it, and everything is there at the next start.

use std::{io::Write as _, net::TcpStream};

use deed_proto::v1;
use deed_tests::{
    oracle::Log,
    process::{Deed, ServerCommand, ServerProcess, fsck_clean},
    rpc::{Clients, TestLedger, accepted},
    run,
    statements::Producer,
    until, within,
};
use deed_tlog::TreeHead;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{data_in, up};

#[test]
fn sigterm_and_sigint_drain_and_lose_nothing() {
    run(async {
        for signal in [Signal::TERM, Signal::INT] {
            let dir = TempDir::new().unwrap();
            let data = data_in(&dir);
            let (server, clients, ledger) = up(&data).await;

            // A watch, an idle connection, and two streams that never stop sending.
            let mut heads = clients.watch(&ledger.name, None).await.unwrap();
            let idle = Clients::connect(&server).await;
            let streaming: Vec<_> = (1..=2)
                .map(|number| {
                    let producer = Producer::new(ledger.id, number);
                    tokio::spawn(stream_until_ended(
                        clients.clone(),
                        ledger.clone(),
                        producer,
                    ))
                })
                .collect();
            until("a tree of 100 leaves", || async {
                (ledger.head(&clients).await.size.get() > 100).then_some(())
            })
            .await;
            server.signal(signal);
            let ended = server.wait().expect_code(0);
            assert!(ended.stderr.contains("stopped"), "{ended:#?}");

            let mut answered = Vec::new();
            for stream in streaming {
                answered.extend(within("the end of a stream", stream).await.unwrap());
            }
            assert!(answered.len() > 10);
            while let Ok(Some(head)) = within("the end of a watch", heads.message()).await {
                answered.push((ledger.open(&head.checkpoint), Vec::new()));
            }
            let gone = idle.checkpoint(&ledger.name).await.unwrap_err();
            assert_eq!(gone.code(), Code::Unavailable, "{gone:?}");

            fsck_clean(&data);
            let server = ServerProcess::start(&data);
            let clients = Clients::connect(&server).await;
            let log = Log::read(&clients, &ledger).await;
            log.expect_heads(answered.iter().map(|(head, _)| *head));
            for receipt in answered.iter().flat_map(|(_, receipts)| receipts) {
                let leaf = usize::try_from(receipt.leaf_index).unwrap();
                assert_eq!(log.leaf_hashes[leaf].as_bytes()[..], receipt.leaf_hash);
            }
            server.stop();
        }
    });
}

/// Streams until the server ends the stream; returns every head and receipt that came.
async fn stream_until_ended(
    clients: Clients,
    ledger: TestLedger,
    mut producer: Producer,
) -> Vec<(TreeHead, Vec<v1::Receipt>)> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let sending = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            while sender
                .send(ledger.request(&producer.intents(5)))
                .await
                .is_ok()
            {}
        }
    });
    let mut answers = clients
        .append_stream(ReceiverStream::new(receiver))
        .await
        .unwrap();
    let mut answered = Vec::new();
    let end = loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let receipts = answer.results.iter().map(accepted).collect();
                answered.push((ledger.open(&answer.checkpoint), receipts));
            }
            Ok(None) => panic!("a stream that was not finished ends with a reason"),
            Err(status) => break status,
        }
    };
    sending.abort();
    // The stream was ended with a status, or cut off while sending: a status with a source was made
    // by the client.
    let lost = std::error::Error::source(&end).is_some();
    assert!(end.code() == Code::Unavailable || lost, "{end:?}");
    answered
}

/// Clients that keep their connections open, and send nothing or half of a request, do not keep the
/// server up.
#[test]
fn a_client_that_hangs_does_not_hold_the_server() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let server = ServerCommand::new(&data)
            .arguments(["--drain-ms", "300"])
            .start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let mut producer = Producer::new(ledger.id, 1);
        sender
            .send(ledger.request(&producer.intents(5)))
            .await
            .unwrap();
        let mut answers = clients
            .append_stream(ReceiverStream::new(receiver))
            .await
            .unwrap();
        within("an answer", answers.message())
            .await
            .unwrap()
            .unwrap();
        let silent = TcpStream::connect(server.address()).unwrap();
        let mut half = TcpStream::connect(server.address()).unwrap();
        half.write_all(b"GET /logs/payments/checkpoint HTTP/1.1\r\nHost: ")
            .unwrap();
        // All clients stay as they are.
        let ended = server.stop();
        drop((silent, half));
        assert!(ended.stderr.contains("stopped"), "{ended:#?}");
        drop((sender, answers));
        fsck_clean(&data);
    });
}

/// Whoever follows a ledger is told to try again, at once, also where many follow; and one that does
/// not even take that, for it is suspended, holds nobody up: the drain would be an hour.
#[test]
fn followers_do_not_hold_the_server() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let server = ServerCommand::new(&data)
            .arguments(["--drain-ms", "3600000"])
            .start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let mut heads = clients.watch(&ledger.name, None).await.unwrap();
        within("a head", heads.message()).await.unwrap().unwrap();
        let watch = v1::WatchFindingsRequest {
            ledger: ledger.name.clone(),
            ..v1::WatchFindingsRequest::default()
        };
        let mut findings = clients.actions.clone().watch_findings(watch).await;
        let findings = findings.as_mut().unwrap().get_mut();
        within("how far it looked", findings.message())
            .await
            .unwrap()
            .unwrap();
        let deed = Deed::new(&server.url(), &ledger.name);
        let suspended = deed.spawn(["follow", "--json"]);
        until("a head that is printed", || async {
            suspended.stdout().contains("size").then_some(())
        })
        .await;
        suspended.signal(Signal::STOP);
        let mut half = TcpStream::connect(server.address()).unwrap();
        half.write_all(b"GET /logs/payments/checkpoint HTTP/1.1\r\nHost: ")
            .unwrap();

        server.signal(Signal::TERM);
        let ends = [
            within("the end of a watch", heads.message()).await.err(),
            within("the end of findings", findings.message())
                .await
                .err(),
        ];
        for status in ends {
            let status = status.expect("a stream that goes on ends with a reason");
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            assert!(status.message().contains("try again"), "{status:?}");
        }
        let ended = server.wait().expect_code(0);
        assert!(ended.stderr.contains("stopped"), "{ended:#?}");
        drop((suspended, half));
        fsck_clean(&data);
    });
}

#[test]
fn restarts_keep_every_ledger_byte_for_byte() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (mut server, mut clients, first) = up(&data).await;
        let mut ledgers = vec![first];
        for (round, name) in ["audit", "b", "c"].into_iter().enumerate() {
            ledgers.push(TestLedger::create(&clients, name).await);
            for (number, ledger) in ledgers.iter().enumerate() {
                let mut producer = Producer::new(ledger.id, round as u64);
                ledger
                    .append(&clients, &producer.intents(100 * number + 57))
                    .await;
            }
            let mut before = Vec::new();
            for ledger in &ledgers {
                let checkpoint = clients.checkpoint(&ledger.name).await.unwrap();
                before.push((checkpoint, Log::read(&clients, ledger).await));
            }
            // The server is stopped properly in one round and killed in the next, with another
            // number of shards each time.
            if round % 2 == 0 {
                drop(server.stop());
            } else {
                server.kill9();
            }
            let shards = (round + 1).to_string();
            server = ServerCommand::new(&data)
                .arguments(["--shards", &shards])
                .start();
            clients = Clients::connect(&server).await;
            for (ledger, (checkpoint, log)) in ledgers.iter().zip(&before) {
                assert_eq!(clients.checkpoint(&ledger.name).await.unwrap(), *checkpoint);
                assert!(Log::read(&clients, ledger).await.entries == log.entries);
            }
        }
        server.stop();
        let report = fsck_clean(&data);
        assert!(report.contains(" 4 ledgers,"), "{report}");
    });
}
